//! What can keep a function from being traced.

use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::KernelError;
use crate::runtime::RuntimeError;

/// Why there is no trace. Display is one clause; the cause is the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TracerError {
    /// A file or folder.
    #[error("{op} {}", path.display())]
    Io {
        /// What was tried: `read`, `create`.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Control groups, processes, mounts.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The record of a container.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A system call on nothing in particular.
    #[error("{0}")]
    Sys(&'static str, #[source] io::Error),
    /// There is no such image, or it cannot be used.
    #[error("{0}")]
    Image(String),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Usage(String),
    /// A verb of the runtime failed.
    #[error("{verb}: {reason}")]
    Verb {
        /// `create`, `start`, `delete`.
        verb: &'static str,
        /// What it said.
        reason: String,
        /// Whether it was killed, so that another try may go better.
        cut_off: bool,
    },
    /// No container has this name, or several have.
    #[error("{0}")]
    Container(String),
    /// A signal asked the command to end.
    #[error("interrupted")]
    Interrupted,
}

impl TracerError {
    pub(super) fn io(op: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io {
            op,
            path: path.as_ref().to_path_buf(),
            source,
        }
    }
}

/// Result of a step.
pub type Result<T> = std::result::Result<T, TracerError>;
