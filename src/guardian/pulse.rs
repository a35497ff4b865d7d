//! Signs of life of a tuner and its guardian: two times in a file in memory that both have open.
//!
//! To leave one is a system call that wakes nobody, and to look for one needs no message.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use rustix::time::{ClockId, clock_gettime};

/// Who lives.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Tuner,
    Guardian,
}

/// The file.
#[derive(Debug)]
pub(super) struct Pulse(File);

impl From<OwnedFd> for Pulse {
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into())
    }
}

impl Pulse {
    pub(super) fn new() -> io::Result<Self> {
        let flags = MemFdCreateFlag::MFD_CLOEXEC;
        Ok(Self(memfd_create(c"guardian", flags)?.into()))
    }

    /// The same file, for the other process.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }

    /// A sign of life.
    pub(super) fn leave(&self, side: Side, now: Duration) {
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        // Memory for it was there at the first time; without it the other side takes us for dead.
        let _ = self.0.write_at(&nanos.to_ne_bytes(), offset(side));
    }

    /// The last sign of life, no later than now; zero if there was none.
    pub(super) fn last(&self, side: Side, now: Duration) -> Duration {
        let mut nanos = [0; 8];
        match self.0.read_at(&mut nanos, offset(side)) {
            Ok(8) => Duration::from_nanos(u64::from_ne_bytes(nanos)).min(now),
            _ => Duration::ZERO,
        }
    }
}

fn offset(side: Side) -> u64 {
    match side {
        Side::Tuner => 0,
        Side::Guardian => 8,
    }
}

/// The time since the boot of the host, the same for all processes. It stands still while the host sleeps.
pub(super) fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_sees_the_other() {
        let ours = Pulse::new().unwrap();
        let theirs = Pulse::from(ours.share().unwrap());
        let now = now();
        assert_eq!(theirs.last(Side::Tuner, now), Duration::ZERO);
        ours.leave(Side::Tuner, now);
        assert_eq!(theirs.last(Side::Tuner, now), now);
        assert_eq!(ours.last(Side::Guardian, now), Duration::ZERO);
        let later = now + Duration::from_secs(1);
        theirs.leave(Side::Guardian, later);
        assert_eq!(ours.last(Side::Guardian, later), later);
        assert_eq!(
            ours.last(Side::Guardian, now),
            now,
            "none is from the future"
        );
    }
}
