//! Signals as events: blocked, and read from a descriptor (signalfd(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that arrive as events instead of being acted on.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Takes all signals but those that report a fault of our own. Threads and programs that are started later
    /// inherit that they are blocked.
    ///
    /// # Errors
    /// The kernel's reason; none is known in practice but a lack of descriptors.
    pub fn block_all() -> io::Result<Self> {
        let mut set = SigSet::all();
        for own in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGABRT,
        ] {
            set.remove(own);
        }
        Self::block(set)
    }

    /// Takes these signals, as [`Signals::block_all`] does.
    ///
    /// # Errors
    /// As [`Signals::block_all`].
    pub fn block(set: SigSet) -> io::Result<Self> {
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(SignalFd::with_flags(&set, flags).map(Self)?)
    }

    /// Signals that have arrived, by number.
    pub fn take(&self) -> Vec<i32> {
        let mut out = Vec::new();
        while let Ok(Some(info)) = self.0.read_signal() {
            out.extend(i32::try_from(info.ssi_signo));
        }
        out
    }
}

impl AsFd for Signals {
    /// Readable when a signal has arrived.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
