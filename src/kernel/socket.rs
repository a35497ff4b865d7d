//! Unix sockets with a path, which may be longer than the 107 bytes that an address holds (unix(7)).

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, setsockopt, socket};
use nix::sys::time::TimeVal;

const LONGEST: usize = 107;

/// A path to the same place that fits, by way of a descriptor of its folder, which is to be kept meanwhile.
fn short(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() <= LONGEST {
        return Ok((path.to_path_buf(), None));
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok((path, Some(folder)))
}

/// Listens at a path with these permissions. A socket that is there is replaced in one step.
///
/// # Errors
/// The kernel's reason.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    // Left by somebody who was killed here.
    let _ = std::fs::remove_file(&temporary);
    let (address, _folder) = short(&temporary)?;
    let listener = UnixListener::bind(address)?;
    std::fs::set_permissions(&temporary, Permissions::from_mode(mode))?;
    std::fs::rename(&temporary, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to a path; waits so long at most while the queue of the listener is full.
///
/// # Errors
/// The kernel's reason: `ENOENT`; `ECONNREFUSED` when nobody listens any more; `EAGAIN` when the time is over.
pub fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let (address, _folder) = short(path)?;
    let address = UnixAddr::new(&address)?;
    let fd: OwnedFd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
    let time = TimeVal::new(seconds, i64::from(patience.subsec_micros()));
    setsockopt(&fd, SendTimeout, &time)?;
    nix::sys::socket::connect(fd.as_raw_fd(), &address)?;
    Ok(UnixStream::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_may_have_a_long_path_and_is_replaced_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("n".repeat(120));
        std::fs::create_dir(&folder).unwrap();
        for path in [folder.join("s"), dir.path().join("s")] {
            let patience = Duration::from_millis(50);
            assert!(connect(&path, patience).is_err());
            let first = listen(&path, 0o600).unwrap();
            let second = listen(&path, 0o600).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let _client = connect(&path, patience).unwrap();
            assert!(second.accept().is_ok());
            assert!(first.accept().is_err());
            drop(second);
            let err = connect(&path, patience).unwrap_err();
            assert_eq!(err.kind(), io::ErrorKind::ConnectionRefused);
        }
    }
}
