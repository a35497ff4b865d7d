//! A client on a terminal.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Child, Stdio};

use nix::pty::Winsize;
use nix::sys::signal::Signal;

use super::command::spawn_plain;
use super::pty::{Master, open_pty};
use super::{Cmd, processes, wait_until};

/// A client on a terminal. To the CR LF of the container's terminal its own,
/// which is raw but for this, adds a CR.
pub struct Session {
    client: Child,
    pub master: Master,
    slave: File,
}

impl Session {
    pub fn start(cmd: Cmd, rows: u16, columns: u16) -> Self {
        let (master, slave) = open_pty();
        resize(&slave, rows, columns);
        let stdio = || Stdio::from(slave.try_clone().expect("clone"));
        let mut command = cmd.into_inner();
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let client = spawn_plain(&mut command);
        Self {
            client,
            master,
            slave,
        }
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        resize(&self.slave, rows, columns);
    }

    /// What the kernel does for the foreground of a session, which the client is not.
    pub fn tell_the_size(&self) {
        processes::signal(self.client.id() as i32, Signal::SIGWINCH);
    }

    /// Waits for the end.
    pub fn code(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the client ends", || {
            status = self.client.try_wait().expect("wait");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

#[allow(unsafe_code, reason = "nix has no function for the size of a terminal")]
fn resize(terminal: &File, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open and the argument is the structure that the request reads.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    assert_eq!(result, 0, "TIOCSWINSZ");
}
