//! Descriptors in tokio's event loop.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use tokio::io::unix::AsyncFd;

/// Takes a descriptor into the event loop of the caller; it does not block any more.
///
/// # Errors
/// `EPERM` for what epoll(7) cannot wait for, such as a regular file.
///
/// # Panics
/// Outside an event loop.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    // SAFETY: an OwnedFd keeps its one descriptor open until it is dropped, and nobody else closes it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
