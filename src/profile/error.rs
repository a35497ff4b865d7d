//! What can go wrong with the store.

use std::io;
use std::path::{Path, PathBuf};

use crate::model::FunctionKey;

/// Why something could not be done with the store. The cause is the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file or folder cannot be read or written.
    #[error("{op} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Something in the store could have been put there by somebody else.
    #[error(
        "{} {reason}: the profile store holds only folders and files of its own user that nobody else can write",
        path.display()
    )]
    NotOurs {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Somebody holds the lock.
    #[error("{} is in use by another process; try again", .0.display())]
    Busy(PathBuf),
    /// The content of a file cannot be used.
    #[error("{}: {reason}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing is known of the function.
    #[error("nothing is known of function {0}")]
    UnknownFunction(FunctionKey),
}

impl StoreError {
    pub(super) fn io(
        op: &'static str,
        path: impl AsRef<Path>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            op,
            path: path.as_ref().to_path_buf(),
            source: source.into(),
        }
    }

    pub(super) fn unfit(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Unfit {
            path: path.as_ref().to_path_buf(),
            reason: reason.into(),
        }
    }
}

/// Result of an operation on the store.
pub type Result<T> = std::result::Result<T, StoreError>;
