//! Waiting of a thread for a moment or for a word from another thread, whichever comes first.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::io::Errno;

use super::{KernelError, Result};
use crate::model::Priority;

/// A thread waits at it; others wake it.
#[derive(Debug)]
pub struct Waker {
    words: OwnedFd,
    /// An epoll instance, of files that wake it when they change.
    changes: OnceLock<OwnedFd>,
}

impl Waker {
    /// A new one.
    ///
    /// # Errors
    /// `Io` when there are no descriptors left.
    pub fn new() -> Result<Self> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(|words| Self {
                words,
                changes: OnceLock::new(),
            })
            .map_err(|err| KernelError::io("create", "eventfd", err.into()))
    }

    /// Ends a wait also whenever the kernel says that a file of a control group has changed (cgroup-v2.rst, "file modified
    /// event"), until the file is closed. One that has never been read counts as changed.
    ///
    /// # Errors
    /// `Io` when the file does not tell, or there are no descriptors left.
    pub fn wake_on_change(&self, file: BorrowedFd<'_>) -> Result<()> {
        let failed = |err: Errno| KernelError::io("watch", "a file of a control group", err.into());
        if self.changes.get().is_none() {
            let new = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
            // Another thread may have been faster.
            let _ = self.changes.set(new);
        }
        let changes = self.changes.get().ok_or_else(|| failed(Errno::BADF))?;
        let data = epoll::EventData::new_u64(0);
        let events = epoll::EventFlags::PRI | epoll::EventFlags::ET;
        epoll::add(changes, file, data, events).map_err(failed)
    }

    /// Ends the present wait, or the next one.
    pub fn wake(&self) {
        // Fails only when it would overflow: then it is awake already.
        let _ = rustix::io::write(&self.words, &1_u64.to_ne_bytes());
    }

    /// Waits for a time, to the microsecond as the kernel's timers allow, or until it is woken. None waits for
    /// that alone. Whether it was woken.
    pub fn wait(&self, time: Option<Duration>) -> bool {
        let time = time.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let words = PollFd::new(&self.words, PollFlags::IN);
        let changes = self.changes.get();
        let polled = match changes {
            Some(changes) => {
                let changes = PollFd::new(changes, PollFlags::IN);
                poll(&mut [words, changes], time.as_ref())
            }
            None => poll(&mut [words], time.as_ref()),
        };
        match polled {
            // A signal, or nobody spoke.
            Err(Errno::INTR) | Ok(0) => false,
            _ => {
                self.clear();
                true
            }
        }
    }

    /// Takes note of all that has woken it.
    pub fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.words, &mut count);
        if let Some(changes) = self.changes.get() {
            // Those that do not fit wake it once more.
            let mut which = [const { MaybeUninit::uninit() }; 16];
            let _ = epoll::wait(changes, &mut which, Some(&Timespec::default()));
        }
    }
}

impl AsFd for Waker {
    /// Readable when a word was spoken.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.words.as_fd()
    }
}

/// For futures.
impl std::task::Wake for Waker {
    fn wake(self: Arc<Self>) {
        Self::wake(&self);
    }
}

/// Raises the priority of the calling thread as far as that is allowed, for itself and not for what it starts
/// (sched_setattr(2), `SCHED_FLAG_RESET_ON_FORK`).
///
/// Normal is niceness -10 and, since Linux 6.12, time slices of 0.1 ms: a thread that asks for so little at a time goes
/// before whatever runs when it wakes (`PREEMPT_SHORT`, linux/kernel/sched/features.h), instead of waiting for the end of
/// that one's slice, 3 ms. Realtime is `SCHED_FIFO`.
///
/// # Errors
/// `Io` when it is not allowed; realtime falls back to normal first.
pub fn raise_priority(priority: Priority) -> Result<()> {
    if priority == Priority::Realtime {
        match set_scheduler(&REALTIME) {
            Ok(()) => return Ok(()),
            Err(err) => tracing::debug!(%err, "no realtime priority"),
        }
    }
    set_scheduler(&NORMAL).map_err(|err| KernelError::io("raise priority of", "thread", err))
}

/// Has the calling thread run after all others (niceness 19).
///
/// # Errors
/// `Io`.
pub fn lower_priority() -> Result<()> {
    let last = SchedAttr {
        policy: libc::SCHED_OTHER,
        nice: 19,
        ..SchedAttr::NONE
    };
    set_scheduler(&last).map_err(|err| KernelError::io("lower priority of", "thread", err))
}

/// Whether the calling thread may have that priority. It has its old niceness afterwards.
///
/// # Errors
/// `Io` when it is not allowed.
pub fn try_priority(priority: Priority) -> Result<()> {
    let nice = rustix::process::getpriority_process(None)
        .map_err(|err| KernelError::io("read priority of", "thread", err.into()))?;
    let wanted = match priority {
        Priority::Normal => &NORMAL,
        Priority::Realtime => &REALTIME,
    };
    let before = SchedAttr {
        nice,
        ..SchedAttr::NONE
    };
    set_scheduler(wanted)
        .and_then(|()| set_scheduler(&before))
        .map_err(|err| KernelError::io("raise priority of", "thread", err))
}

const NORMAL: SchedAttr = SchedAttr {
    nice: -10,
    runtime: SHORT_SLICE,
    ..SchedAttr::NONE
};
const REALTIME: SchedAttr = SchedAttr {
    policy: libc::SCHED_FIFO,
    priority: REALTIME_PRIORITY,
    ..SchedAttr::NONE
};

/// Nanoseconds.
const SHORT_SLICE: u64 = 100_000;
/// Above what is usual for services, below the kernel's own threads.
const REALTIME_PRIORITY: u32 = 20;

/// `struct sched_attr` of its first version (linux/include/uapi/linux/sched/types.h).
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: i32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

impl SchedAttr {
    const NONE: Self = Self {
        size: 48,
        policy: libc::SCHED_OTHER,
        // SCHED_FLAG_RESET_ON_FORK
        flags: 1,
        nice: 0,
        priority: 0,
        runtime: 0,
        deadline: 0,
        period: 0,
    };
}

fn set_scheduler(attr: &SchedAttr) -> std::io::Result<()> {
    // SAFETY: the kernel reads `size` bytes of a structure that lives as long as the call; 0 is the calling thread.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attr), 0) };
    match done {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
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
