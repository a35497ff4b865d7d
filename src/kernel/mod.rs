//! The kernel as this project sees it: control groups, processes, terminals, the executable itself.
//!
//! The only room that names a path under `/sys` or `/proc` or holds `unsafe`. It decides nothing and
//! knows nothing of containers, profiles or prices: values in, effects out, typed errors back.

pub mod cgroup;
pub mod children;
pub mod exe;
pub mod host;
pub mod keyring;
pub mod mount;
pub mod numa;
pub mod packets;
pub mod pages;
pub mod probe;
pub mod process;
pub mod signals;
pub mod socket;
pub mod touched;
pub mod tty;
pub mod wait;
pub mod watch;

use std::io;
use std::path::{Path, PathBuf};

/// What a kernel interface refused: the operation, the path it was tried on, and the cause.
///
/// The message does not repeat the cause; print the chain of sources once, at the edge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Reading or writing a kernel file, or a system call on a path, failed.
    #[error("{op} {}", path.display())]
    Io {
        /// What was tried, as a verb phrase: `read`, `write "100" to`.
        op: String,
        /// The path it was tried on.
        path: PathBuf,
        /// Why the kernel refused.
        #[source]
        source: io::Error,
    },
    /// A kernel file held text that its documentation does not allow.
    #[error("unexpected text in {}: {text:?}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What stood there.
        text: String,
    },
    /// The host lacks something that the request needs.
    #[error("{0}")]
    Unsupported(String),
}

impl KernelError {
    pub(crate) fn io(op: impl Into<String>, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io {
            op: op.into(),
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// Whether the caller lacks the permission, or the file system is read-only.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.raw_os_error(),
                Some(libc::EACCES | libc::EPERM | libc::EROFS)
            ),
            Self::Malformed { .. } | Self::Unsupported(_) => false,
        }
    }

    /// Whether it was interrupted, as a slow write is when this process is stopped meanwhile.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(libc::EINTR))
    }

    /// Whether the kernel takes the value for one that is not valid here.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(libc::EINVAL))
    }

    /// Whether the thing asked for no longer exists: a cgroup removed or a process ended meanwhile.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.raw_os_error(),
                Some(libc::ENOENT | libc::ENODEV | libc::ESRCH)
            ),
            Self::Malformed { .. } | Self::Unsupported(_) => false,
        }
    }
}

/// The kernel's words for an error, in lower case as engines expect them; other errors in their own words.
pub fn reason(err: &io::Error) -> String {
    err.raw_os_error().map_or_else(
        || err.to_string(),
        |code| nix::errno::Errno::from_raw(code).desc().to_lowercase(),
    )
}

/// An error with its chain of sources, the kernel's reasons in its own words.
pub fn chain(err: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(err);
    while let Some(err) = next {
        let part = err
            .downcast_ref::<nix::errno::Errno>()
            .map(|errno| errno.desc().to_lowercase())
            .or_else(|| err.downcast_ref::<io::Error>().map(reason))
            .unwrap_or_else(|| err.to_string());
        if !text.ends_with(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        next = err.source();
    }
    text
}

/// Result of an access to the kernel.
pub type Result<T> = std::result::Result<T, KernelError>;

/// Names this boot of the host: what was recorded under another name is stale.
///
/// # Errors
/// `Io`.
pub fn boot_id() -> Result<String> {
    read_text(Path::new("/proc/sys/kernel/random/boot_id"))
}

/// The name of this host, as far as it is text.
pub fn host_name() -> Option<String> {
    read_text(Path::new("/proc/sys/kernel/hostname")).ok()
}

/// The release of the running kernel.
pub fn release() -> Option<String> {
    read_text(Path::new("/proc/sys/kernel/osrelease")).ok()
}

/// Whether memory can be swapped out on this host (swapon(8)).
pub fn has_swap() -> bool {
    // Below a headline.
    read_text(Path::new("/proc/swaps")).is_ok_and(|text| text.lines().count() > 1)
}

/// Whether the kernel tells how long tasks wait for memory; `None` if it was built without (psi.rst).
pub fn has_pressure() -> Option<bool> {
    match read_text(Path::new("/proc/pressure/memory")) {
        Ok(_) => Some(true),
        Err(err) if err.is_gone() => None,
        // Switched off when it was started.
        Err(_) => Some(false),
    }
}

/// Whether something keeps the clock right (adjtimex(2)); `None` if the kernel does not tell.
pub fn clock_is_kept() -> Option<bool> {
    // SAFETY: all zero is a valid timex, which asks and changes nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` lives across the call.
    let rc = unsafe { libc::adjtimex(&raw mut state) };
    (rc >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}

/// Reads a kernel file whole, as text without the trailing newline.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let mut text =
        std::fs::read_to_string(path).map_err(|err| KernelError::io("read", path, err))?;
    while text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Writes one value with one `write(2)`, as kernel files want it.
pub(crate) fn write_text(path: &Path, value: &str) -> Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|err| KernelError::io(format!("write {value:?} to"), path, err))
}
