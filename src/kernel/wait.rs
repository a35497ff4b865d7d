//! Waiting of a thread for a moment or for a word from another thread, whichever comes first.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::{KernelError, Result};

/// A thread waits at it; others wake it.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// A new one.
    ///
    /// # Errors
    /// `Io` when there are no descriptors left.
    pub fn new() -> Result<Self> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Self)
            .map_err(|err| KernelError::io("create", "eventfd", err.into()))
    }

    /// Ends the present wait, or the next one.
    pub fn wake(&self) {
        // Fails only when it would overflow: then it is awake already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits for a time, to the microsecond as the kernel's timers allow, or until it is woken. None waits for
    /// a word alone. Whether a word was spoken.
    pub fn wait(&self, time: Option<Duration>) -> bool {
        let time = time.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut polled, time.as_ref()) {
            // A signal, or nobody spoke.
            Err(Errno::INTR) | Ok(0) => false,
            _ => {
                self.clear();
                true
            }
        }
    }

    /// Takes note of all words that were spoken.
    pub fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.0, &mut count);
    }
}

impl AsFd for Waker {
    /// Readable when a word was spoken.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// For futures.
impl std::task::Wake for Waker {
    fn wake(self: Arc<Self>) {
        Self::wake(&self);
    }
}

/// Raises the priority of the calling thread: niceness -10, where that is allowed. Threads that it starts
/// inherit it; processes of others are not touched.
///
/// # Errors
/// `Io` when it is not allowed.
pub fn raise_priority() -> Result<()> {
    let thread = rustix::thread::gettid();
    rustix::process::setpriority_process(Some(thread), -10)
        .map_err(|err| KernelError::io("raise priority of", "thread", err.into()))
}

/// CPU time that the calling thread has used.
pub fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_wait_ends_in_time_or_with_a_word() {
        let waker = Arc::new(Waker::new().unwrap());
        let start = Instant::now();
        assert!(!waker.wait(Some(Duration::from_millis(5))));
        assert!(start.elapsed() >= Duration::from_millis(5));
        let other = Arc::clone(&waker);
        let thread = std::thread::spawn(move || other.wake());
        assert!(waker.wait(None));
        thread.join().unwrap();
        // The word was taken.
        let start = Instant::now();
        assert!(!waker.wait(Some(Duration::from_millis(5))));
        assert!(start.elapsed() >= Duration::from_millis(5));
    }
}
