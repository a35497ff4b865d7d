//! Terminals: the console socket and a pty to drive a foreground command.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tempfile::TempDir;

use super::DEADLINE;
use super::command::without_forks;

/// A listening console socket (`--console-socket`).
pub struct ConsoleSocket {
    dir: TempDir,
    listener: UnixListener,
}

impl ConsoleSocket {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("elastic-mem-tty-")
            .tempdir()
            .expect("socket directory");
        let listener = UnixListener::bind(dir.path().join("s")).expect("bind");
        Self { dir, listener }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// The master end of the container's terminal, and the name sent with it.
    pub fn receive(&self) -> (Master, String) {
        assert!(
            is_readable(&self.listener, patience()),
            "nobody connected to the console socket"
        );
        let (stream, _) = self.listener.accept().expect("accept");
        receive_fd(&stream)
    }
}

#[allow(
    unsafe_code,
    reason = "nix hands the received descriptor out as a number"
)]
fn receive_fd(stream: &UnixStream) -> (Master, String) {
    assert!(
        is_readable(stream, patience()),
        "no descriptor on the console socket"
    );
    let mut data = [0; 4096];
    let mut space = nix::cmsg_space!(RawFd);
    let (length, fd) = {
        let mut slices = [IoSliceMut::new(&mut data)];
        let message = recvmsg::<()>(
            stream.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .expect("recvmsg");
        let fd = message
            .cmsgs()
            .expect("control messages")
            .find_map(|control| match control {
                ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                _ => None,
            });
        (message.bytes, fd)
    };
    let fd = fd.expect("the message carries no descriptor");
    // SAFETY: the kernel has just made this descriptor for us.
    let master = unsafe { OwnedFd::from_raw_fd(fd) };
    let name = String::from_utf8_lossy(&data[..length]).into_owned();
    (Master::from(master), name)
}

/// The master end of a terminal.
pub struct Master {
    file: File,
    seen: String,
}

impl From<OwnedFd> for Master {
    fn from(fd: OwnedFd) -> Self {
        Self {
            file: File::from(fd),
            seen: String::new(),
        }
    }
}

impl Master {
    pub fn send(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).expect("write to tty");
    }

    /// Reads until `needle` has come and returns everything up to it.
    pub fn until(&mut self, needle: &str) -> String {
        // A screen that is drawn again and again is not to be waited for without end.
        let end = Instant::now() + *DEADLINE;
        loop {
            if let Some(at) = self.seen.find(needle) {
                let rest = self.seen.split_off(at + needle.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            assert!(
                Instant::now() < end && self.fill(),
                "no {needle:?} on the terminal: {:?}",
                self.seen
            );
        }
    }

    /// What has come and nobody has asked for. Whoever writes more than a terminal holds waits until it is read.
    pub fn take(&mut self) -> String {
        while is_readable(&self.file, PollTimeout::ZERO) && self.fill() {}
        std::mem::take(&mut self.seen)
    }

    /// Reads until the other side is closed.
    pub fn rest(&mut self) -> String {
        while self.fill() {}
        std::mem::take(&mut self.seen)
    }

    /// Whether more has come. A closed terminal reads as an error (EIO).
    fn fill(&mut self) -> bool {
        if !is_readable(&self.file, patience()) {
            return false;
        }
        let mut chunk = [0; 4096];
        match self.file.read(&mut chunk) {
            Ok(count @ 1..) => {
                self.seen += &String::from_utf8_lossy(&chunk[..count]);
                true
            }
            _ => false,
        }
    }
}

fn patience() -> PollTimeout {
    PollTimeout::try_from(*DEADLINE).expect("some minutes")
}

fn is_readable(fd: impl AsFd, timeout: PollTimeout) -> bool {
    loop {
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(count) => return count > 0,
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// A pty pair. `openpty` cannot set close-on-exec, and a copy of the slave in
/// some other test's child would keep the terminal open.
pub fn open_pty() -> (Master, File) {
    let pty = without_forks(|| {
        let pty = nix::pty::openpty(None, None).expect("openpty");
        for fd in [&pty.master, &pty.slave] {
            fcntl(fd.as_raw_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("close-on-exec");
        }
        pty
    });
    (Master::from(pty.master), File::from(pty.slave))
}

/// A socket path that nobody listens at.
pub fn dead_socket(dir: &Path) -> PathBuf {
    dir.join("nobody.sock")
}
