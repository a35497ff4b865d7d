//! What can go wrong with a container, told in the words that callers of OCI runtimes match on.

use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::KernelError;
pub use crate::kernel::chain;
use crate::model::InvalidContainerId;
use crate::runtime::state::Status;

/// Failure of a verb. Display is one clause; the cause is the source, printed once at the edge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No container of that name below the state folder.
    #[error("container does not exist")]
    NotFound,
    /// The name is taken.
    #[error("container with given ID already exists")]
    Exists,
    /// The name cannot be one.
    #[error(transparent)]
    InvalidId(#[from] InvalidContainerId),
    /// The verb needs a running container; containerd and Docker match on this text.
    #[error("container not running")]
    NotRunning,
    /// `events` of a container that has stopped.
    #[error("container with id {0} is not running")]
    NoCounters(String),
    /// `resume` of a container that is not paused.
    #[error("container not paused")]
    NotPaused,
    /// `start` of a container that was started.
    #[error("cannot start an already running container")]
    AlreadyRunning,
    /// `start` of a container whose init is gone.
    #[error("cannot start a container that has stopped")]
    StartStopped,
    /// `start` of a container in some other state.
    #[error("cannot start a container in the {0} state")]
    StartIn(Status),
    /// `exec` into a container that does not run.
    #[error("cannot exec in a {0} container")]
    ExecIn(Status),
    /// `delete` without force of a container that runs.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped {
        /// The container.
        id: String,
        /// What it is instead.
        status: Status,
    },
    /// The processes of a container outlived SIGKILL.
    #[error("container init still running")]
    StillRunning,
    /// The bundle has no `config.json`.
    #[error("JSON specification file {} not found", .0.display())]
    NoConfig(PathBuf),
    /// The bundle or a process description cannot be used as it stands.
    #[error("{0}")]
    InvalidSpec(String),
    /// JSON of the wrong form.
    #[error("cannot read {what}")]
    Json {
        /// What was being read.
        what: String,
        /// Where the form is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The container's process could not be started; the text is the engine's or the executor's.
    #[error("unable to start container process: {0}")]
    Start(String),
    /// A hook failed.
    #[error("error running {kind} {reason}")]
    Hook {
        /// Which of the six kinds.
        kind: &'static str,
        /// Which hook of the kind, and how it failed.
        reason: String,
    },
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A control group could not be set up.
    #[error("unable to apply cgroup configuration")]
    Cgroup(#[source] KernelError),
    /// A limit was refused.
    #[error("error setting cgroup config for procHooks process")]
    Limit(#[source] KernelError),
    /// The systemd cgroup driver failed.
    #[error("systemd: {0}")]
    Systemd(String),
    /// A file or socket of ours failed.
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
    /// A system call without a path failed.
    #[error("{0}")]
    Sys(&'static str, #[source] io::Error),
    /// Asked for something that this runtime does not do.
    #[error("{0}")]
    Unsupported(String),
    /// The command line or standard input holds a value that means nothing.
    #[error("{0}")]
    Usage(String),
}

impl RuntimeError {
    pub(crate) fn io(op: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io {
            op,
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    pub(crate) fn json(what: impl Into<String>, source: serde_json::Error) -> Self {
        Self::Json {
            what: what.into(),
            source,
        }
    }
}

/// Result of a verb.
pub type Result<T> = std::result::Result<T, RuntimeError>;
