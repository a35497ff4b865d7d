//! Terminals: raw mode of the caller's terminal, sizes, and terminals handed over a socket.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::termios::{self, SetArg, Termios};

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Rows of characters.
    pub rows: u16,
    /// Columns of characters.
    pub columns: u16,
}

mod ioctl {
    nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, libc::winsize);
    nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, libc::winsize);
}

/// The size of a terminal.
///
/// # Errors
/// `ENOTTY` when the descriptor is no terminal.
pub fn size(terminal: BorrowedFd<'_>) -> io::Result<TerminalSize> {
    let mut raw = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: `raw` is a winsize that lives across the call.
    unsafe { ioctl::get_window_size(terminal.as_raw_fd(), &raw mut raw) }?;
    Ok(TerminalSize {
        rows: raw.ws_row,
        columns: raw.ws_col,
    })
}

/// Sets the size of a terminal; its foreground processes get SIGWINCH.
///
/// # Errors
/// `ENOTTY` when the descriptor is no terminal.
pub fn set_size(terminal: BorrowedFd<'_>, size: TerminalSize) -> io::Result<()> {
    let raw = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: `raw` is a winsize that lives across the call.
    unsafe { ioctl::set_window_size(terminal.as_raw_fd(), &raw const raw) }?;
    Ok(())
}

/// The caller's terminal in raw mode; dropping it restores the mode found before.
#[derive(Debug)]
pub struct RawTerminal {
    terminal: File,
    before: Termios,
}

impl RawTerminal {
    /// Switches a terminal to raw mode.
    ///
    /// # Errors
    /// `ENOTTY` when the descriptor is no terminal.
    pub fn enter(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        let terminal = File::from(terminal.try_clone_to_owned()?);
        let before = termios::tcgetattr(&terminal)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&terminal, SetArg::TCSANOW, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone; there is nothing else to restore then.
        let _ = termios::tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// Receives one descriptor sent over a Unix socket (`SCM_RIGHTS`, unix(7)).
///
/// # Errors
/// When the peer closed the socket or sent no descriptor.
pub fn receive_fd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut name = [0_u8; 4096];
    let mut iov = [io::IoSliceMut::new(&mut name)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut iov,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for us and nobody else owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "no terminal was sent over the socket",
    ))
}

/// Whether a descriptor is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    use std::io::IsTerminal;
    fd.as_fd().is_terminal()
}
