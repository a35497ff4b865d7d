//! What can go wrong with records and sockets.

use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::KernelError;
use crate::model::ContainerId;
use crate::runtime::RuntimeError;

/// Why a container cannot be described or told something. Display is one clause; the cause is the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Nobody looks after a container of that name.
    #[error(
        "nobody looks after a container {id} (looked in {}); it has to run, with a memory.mode other than off",
        place.display()
    )]
    NotFound {
        /// The name.
        id: ContainerId,
        /// Where it was looked for.
        place: PathBuf,
    },
    /// Several containers have the name.
    #[error("there are {} containers {id}, in the namespaces {}; choose one with --namespace", namespaces.len(), namespaces.join(", "))]
    Ambiguous {
        /// The name.
        id: ContainerId,
        /// Where.
        namespaces: Vec<String>,
    },
    /// Nobody listens at the socket, or not in time.
    #[error(
        "nobody answers at {}; whoever looked after the container has ended or stands still, and the container runs on without",
        path.display()
    )]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The request was understood, and could not be done.
    #[error("refused by whoever looks after the container: {0}")]
    Refused(String),
    /// A file of ours failed.
    #[error("{op} {}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A record that cannot be written as JSON.
    #[error("encode a record")]
    Encode(#[source] serde_json::Error),
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A file could not be replaced.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl ControlError {
    pub(super) fn io(op: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io {
            op,
            path: path.as_ref().to_path_buf(),
            source,
        }
    }
}

/// Result of an access to a record or socket.
pub type Result<T> = std::result::Result<T, ControlError>;
