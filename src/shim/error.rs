//! Failures of requests, with the code by which containerd tells them apart (gRPC status codes).

use containerd_shim_protos::ttrpc;

use crate::control::ControlError;

/// Why a request failed. The texts are those of runc's shim where callers know them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ShimError {
    /// There is no such container, process, or nothing left to signal.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken.
    #[error("{0}")]
    Exists(String),
    /// The request makes no sense as it stands.
    #[error("{0}")]
    Invalid(String),
    /// The request does not fit the present state.
    #[error("{0}")]
    Precondition(String),
    /// This runtime does not do that.
    #[error("{0}")]
    Unsupported(String),
    /// Everything else.
    #[error("{0}")]
    Failed(String),
}

impl ShimError {
    /// What was tried and why it failed.
    pub(super) fn failed(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{what}: {why}"))
    }

    /// For `map_err` of system calls: the kernel's reason behind what was tried.
    pub(super) fn from_io(what: &str) -> impl Fn(std::io::Error) -> Self {
        move |err| Self::failed(what, crate::kernel::reason(&err))
    }

    /// The code, and the words that containerd's clients know it by (containerd, `errdefs`).
    fn class(&self) -> (ttrpc::Code, &'static str) {
        use ttrpc::Code;
        match self {
            Self::NotFound(_) => (Code::NOT_FOUND, ": not found"),
            Self::Exists(_) => (Code::ALREADY_EXISTS, ": already exists"),
            Self::Invalid(_) => (Code::INVALID_ARGUMENT, ": invalid argument"),
            Self::Precondition(_) => (Code::FAILED_PRECONDITION, ": failed precondition"),
            Self::Unsupported(_) => (Code::UNIMPLEMENTED, ": not implemented"),
            Self::Failed(_) => (Code::UNKNOWN, ""),
        }
    }
}

impl From<ShimError> for ttrpc::Error {
    fn from(err: ShimError) -> Self {
        let (code, words) = err.class();
        Self::RpcStatus(ttrpc::get_status(code, format!("{err}{words}")))
    }
}

impl From<ControlError> for ShimError {
    fn from(err: ControlError) -> Self {
        Self::Failed(crate::runtime::chain(&err))
    }
}

/// Result of a request.
pub(super) type Result<T> = std::result::Result<T, ShimError>;
