//! Limits are lowered by a thread of their own: the kernel may have to drop page cache for it, which takes 10 to 70 ms
//! and more (measured; `docs/adr`). Raises never wait for it.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::kernel::cgroup::{Alarm, Lever};
use crate::kernel::wait::Waker;
use crate::model::{Bytes, MemoryLimit};

/// Stands for the declared limit.
const DECLARED: u64 = u64::MAX;

/// Called with the grant, `None` for the ceiling, and with the ceiling.
pub type Publish = Arc<dyn Fn(Option<Bytes>, Option<Bytes>) + Send + Sync>;

/// The limit of one container, between the thread that decides and the one that lowers.
pub(super) struct Limit {
    /// For lowering, and for dropping page cache.
    lever: Lever,
    /// cgroup v1 alone.
    alarm: Option<Alarm>,
    /// The OOM killer as it was found (cgroup v1).
    oom_killer: bool,
    declared: Mutex<MemoryLimit>,
    /// What the limit is to be, in bytes or [`DECLARED`].
    wanted: AtomicU64,
    /// What it is, as far as we know.
    applied: AtomicU64,
    /// How many jobs are on their way.
    pending: AtomicU32,
    /// How many of them change the limit.
    lowering: AtomicU32,
    /// Odd while the other thread may be writing the limit.
    writes: AtomicU64,
    /// The OOM killer is to be as it was found.
    killer_due: AtomicBool,
    /// Whether the kernel refused.
    refused: AtomicBool,
    publish: Option<Publish>,
}

impl std::fmt::Debug for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limit")
            .field("lever", &self.lever)
            .field("wanted", &self.wanted)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

enum Job {
    Lower,
    /// Usage above so much is told to whoever looks.
    Alarm(Bytes),
    Drop(Bytes),
    Publish(Option<Bytes>, Option<Bytes>),
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Lowering(Sender<(Arc<Limit>, Job)>);

impl Lowering {
    /// # Errors
    /// What failed, for the log.
    pub(super) fn start(waker: Arc<Waker>) -> Result<Self, String> {
        let (sender, receiver) = channel::<(Arc<Limit>, Job)>();
        std::thread::Builder::new()
            .name("lowering".to_owned())
            .stack_size(128 << 10)
            .spawn(move || {
                for (limit, job) in receiver {
                    let lowers = u32::from(matches!(job, Job::Lower));
                    let work = std::panic::AssertUnwindSafe(|| limit.work(job, &waker));
                    if std::panic::catch_unwind(work).is_err() {
                        tracing::error!("lowering a limit panicked");
                        limit.refused.store(true, Ordering::SeqCst);
                    }
                    limit.lowering.fetch_sub(lowers, Ordering::SeqCst);
                    limit.settle();
                    limit.pending.fetch_sub(1, Ordering::SeqCst);
                }
            })
            .map_err(|err| format!("start the thread that lowers limits: {err}"))?;
        Ok(Self(sender))
    }

    fn send(&self, limit: &Arc<Limit>, job: Job) {
        limit.pending.fetch_add(1, Ordering::SeqCst);
        let lowers = u32::from(matches!(job, Job::Lower));
        limit.lowering.fetch_add(lowers, Ordering::SeqCst);
        if self.0.send((Arc::clone(limit), job)).is_err() {
            limit.pending.fetch_sub(1, Ordering::SeqCst);
            limit.lowering.fetch_sub(lowers, Ordering::SeqCst);
        }
    }

    /// Has the thread that looks woken when usage passes this.
    pub(super) fn alarm(&self, limit: &Arc<Limit>, above: Bytes) {
        self.send(limit, Job::Alarm(above));
    }

    /// Drops page cache.
    pub(super) fn drop_cache(&self, limit: &Arc<Limit>, most: Bytes) {
        self.send(limit, Job::Drop(most));
    }

    /// Tells others of a grant.
    pub(super) fn publish(&self, limit: &Arc<Limit>, grant: Option<Bytes>, ceiling: Option<Bytes>) {
        self.send(limit, Job::Publish(grant, ceiling));
    }
}

impl Limit {
    pub(super) fn new(
        lever: Lever,
        alarm: Option<Alarm>,
        oom_killer: bool,
        declared: MemoryLimit,
        publish: Option<Publish>,
    ) -> Self {
        Self {
            lever,
            alarm,
            oom_killer,
            declared: Mutex::new(declared),
            wanted: AtomicU64::new(DECLARED),
            applied: AtomicU64::new(DECLARED),
            pending: AtomicU32::new(0),
            lowering: AtomicU32::new(0),
            writes: AtomicU64::new(0),
            killer_due: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            publish,
        }
    }

    /// The limit that is in force while the ceiling is granted.
    pub(super) fn declared(&self) -> MemoryLimit {
        *self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The OOM killer as it was found.
    pub(super) fn oom_killer(&self) -> bool {
        self.oom_killer
    }

    pub(super) fn declare(&self, limit: MemoryLimit) {
        *self.declared.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    /// Whether nothing is on its way.
    pub(super) fn is_at_rest(&self) -> bool {
        self.pending.load(Ordering::SeqCst) == 0
    }

    /// Whether the other thread may still write the limit.
    pub(super) fn is_being_lowered(&self) -> bool {
        self.lowering.load(Ordering::SeqCst) > 0
    }

    /// Whether the kernel has refused since this was last asked.
    pub(super) fn was_refused(&self) -> bool {
        self.refused.swap(false, Ordering::SeqCst)
    }

    /// The limit in force, as far as we know.
    pub(super) fn applied(&self) -> MemoryLimit {
        match self.applied.load(Ordering::SeqCst) {
            DECLARED => self.declared(),
            bytes => i64::try_from(bytes).map_or(MemoryLimit::None, MemoryLimit::Bytes),
        }
    }

    /// What somebody else has written. To be asked by the thread that decides: nothing where it cannot be told, while the
    /// other one may be writing, or after a write of ours has failed.
    pub(super) fn foreign(&self, lever: &Lever) -> Option<MemoryLimit> {
        let before = self.writes.load(Ordering::SeqCst);
        let found = lever.get().ok()?;
        let ours = self.applied();
        let after = self.writes.load(Ordering::SeqCst);
        let is_still = before == after && before.is_multiple_of(2);
        let is_known = is_still && !self.refused.load(Ordering::SeqCst);
        (is_known && found != ours).then_some(found)
    }

    /// Grants so much; `None` is the ceiling. A raise is done with `lever`, at once; the rest by the other thread.
    /// `now`: nothing is in use that would have to be dropped, so that this thread can lower it.
    ///
    /// # Errors
    /// What the kernel says to a raise.
    pub(super) fn grant(
        self: &Arc<Self>,
        grant: Option<Bytes>,
        lever: &Lever,
        lowering: &Lowering,
        now: bool,
    ) -> crate::kernel::Result<()> {
        let wanted = grant.map_or(DECLARED, Bytes::get);
        let before = self.wanted.swap(wanted, Ordering::SeqCst);
        // What else the other thread has to do, such as telling others, does not matter here.
        let here = wanted >= before || (now && !self.is_being_lowered());
        if !here {
            lowering.send(self, Job::Lower);
            return Ok(());
        }
        let done = match self.apply(lever, wanted) {
            Ok(()) if now && wanted != DECLARED => self.read_back(lever),
            done => done,
        };
        if done.is_err() {
            // Then the ceiling is granted, and tried again until that succeeds.
            self.refused.store(true, Ordering::SeqCst);
        }
        done
    }

    /// The first grant is in force before the program starts, or nobody says so.
    fn read_back(&self, lever: &Lever) -> crate::kernel::Result<()> {
        let (found, ours) = (lever.get()?, self.applied());
        match found == ours {
            true => Ok(()),
            false => Err(crate::kernel::KernelError::Unsupported(format!(
                "the limit of {} is {} after {} was written",
                lever.folder().display(),
                found.as_spec(),
                ours.as_spec()
            ))),
        }
    }

    /// Tells others of a grant.
    pub(super) fn publish(&self, grant: Option<Bytes>, ceiling: Option<Bytes>) {
        if let Some(publish) = &self.publish {
            publish(grant, ceiling);
        }
    }

    /// Lets go: the declared limit and the OOM killer as they were.
    pub(super) fn restore(&self, lever: &Lever) {
        self.wanted.store(DECLARED, Ordering::SeqCst);
        if let Err(err) = self.apply(lever, DECLARED)
            && !err.is_gone()
        {
            tracing::error!(
                "a limit was not given back: {}",
                crate::runtime::chain(&err)
            );
        }
    }

    /// Only the OOM killer: the limit is somebody else's.
    pub(super) fn leave(&self, lever: &Lever) {
        self.wanted.store(DECLARED, Ordering::SeqCst);
        self.applied.store(DECLARED, Ordering::SeqCst);
        if let Err(err) = lever.set_oom_killer(self.oom_killer)
            && !err.is_gone()
        {
            tracing::error!(
                "the OOM killer is not as it was: {}",
                crate::runtime::chain(&err)
            );
        }
    }

    fn apply(&self, lever: &Lever, wanted: u64) -> crate::kernel::Result<()> {
        if wanted == DECLARED {
            lever.set(self.declared())?;
            self.applied.store(DECLARED, Ordering::SeqCst);
            self.killer_due.store(true, Ordering::SeqCst);
            return self.turn_killer_on(lever);
        }
        if self.applied.load(Ordering::SeqCst) == DECLARED {
            lever.set_oom_killer(false)?;
        }
        let limit = i64::try_from(wanted).map_or(MemoryLimit::None, MemoryLimit::Bytes);
        lever.set(limit)?;
        self.applied.store(wanted, Ordering::SeqCst);
        Ok(())
    }

    /// The killer comes last: a task that waits at the limit goes on first, instead of being killed. While the other thread
    /// may be in the middle of lowering the limit, which it then raises again, the killer stays off: it would kill whoever
    /// meets that limit in between. Then it is turned on by that thread, after its last write.
    fn turn_killer_on(&self, lever: &Lever) -> crate::kernel::Result<()> {
        if self.is_being_lowered() || !self.killer_due.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        match self.wanted.load(Ordering::SeqCst) {
            DECLARED => lever.set_oom_killer(self.oom_killer),
            // Less is granted by now.
            _ => Ok(()),
        }
    }

    /// What whoever raised the limit has left to this thread.
    fn settle(&self) {
        if let Err(err) = self.turn_killer_on(&self.lever)
            && !err.is_gone()
        {
            tracing::error!(
                "the OOM killer is not as it was: {}",
                crate::runtime::chain(&err)
            );
        }
    }

    fn work(&self, job: Job, waker: &Waker) {
        match job {
            Job::Lower => {
                self.writes.fetch_add(1, Ordering::SeqCst);
                let _ends = Ends(&self.writes);
                self.lower();
            }
            Job::Alarm(above) => {
                let set = self
                    .alarm
                    .as_ref()
                    .map(|alarm| alarm.set(above, waker.as_fd()));
                if let Some(Err(err)) = set {
                    tracing::debug!("no alarm of usage: {}", crate::runtime::chain(&err));
                }
            }
            Job::Drop(most) => {
                if let Err(err) = self.lever.drop_cache(most) {
                    tracing::debug!("page cache not dropped: {}", crate::runtime::chain(&err));
                }
            }
            Job::Publish(grant, ceiling) => self.publish(grant, ceiling),
        }
    }

    /// Follows what is wanted until nothing else is: a raise may have come in between, and has been undone then.
    fn lower(&self) {
        let mut wanted = self.wanted.load(Ordering::SeqCst);
        // Somebody else may have written it since this was decided. Then it is theirs: whoever looks next finds out.
        if self.lever.get().is_ok_and(|found| found != self.applied()) {
            return;
        }
        loop {
            match self.apply(&self.lever, wanted) {
                Ok(()) => {}
                Err(err) if err.is_gone() => return,
                Err(err) => {
                    tracing::debug!("limit not lowered: {}", crate::runtime::chain(&err));
                    self.refused.store(true, Ordering::SeqCst);
                }
            }
            let now = self.wanted.load(Ordering::SeqCst);
            if now == wanted {
                return;
            }
            wanted = now;
        }
    }
}

/// Counts the end of what has begun, however it ends.
struct Ends<'a>(&'a AtomicU64);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::kernel::cgroup::{Cgroup, Directory, Version};

    /// Without digits that are left over in a plain file.
    const CEILING: i64 = 256 << 20;
    const GRANT: u64 = 128 << 20;
    const FILE: &str = "memory.limit_in_bytes";
    const KILLER: &str = "memory.oom_control";

    /// Files of a control group of cgroup v1, and its limit.
    fn limit() -> (tempfile::TempDir, Arc<Limit>, Lever) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), CEILING.to_string()).unwrap();
        fs::write(dir.path().join(KILLER), "0").unwrap();
        let cgroup = Cgroup {
            version: Version::V1,
            directories: vec![Directory {
                controllers: "memory".to_owned(),
                path: dir.path().to_path_buf(),
            }],
        };
        let lever = Lever::open(&cgroup).unwrap();
        let declared = MemoryLimit::Bytes(CEILING);
        let other = Lever::open(&cgroup).unwrap();
        let limit = Arc::new(Limit::new(other, None, true, declared, None));
        (dir, limit, lever)
    }

    #[test]
    fn what_somebody_else_wrote_is_told_unless_it_may_be_ours() {
        let (_dir, limit, lever) = limit();
        assert_eq!(limit.foreign(&lever), None);
        limit.apply(&limit.lever, GRANT).unwrap();
        assert_eq!(limit.foreign(&lever), None);
        let theirs = MemoryLimit::Bytes(CEILING - 4096);
        lever.set(theirs).unwrap();
        // Whatever else waits to be done.
        limit.pending.fetch_add(2, Ordering::SeqCst);
        limit.lowering.fetch_add(1, Ordering::SeqCst);
        assert_eq!(limit.foreign(&lever), Some(theirs));
        limit.writes.fetch_add(1, Ordering::SeqCst);
        assert_eq!(limit.foreign(&lever), None);
        drop(Ends(&limit.writes));
        assert_eq!(limit.foreign(&lever), Some(theirs));
        // Nor where it is not known what we have written.
        limit.refused.store(true, Ordering::SeqCst);
        assert_eq!(limit.foreign(&lever), None);
        assert!(limit.was_refused());
        assert_eq!(limit.foreign(&lever), Some(theirs));
    }

    #[test]
    fn the_oom_killer_stays_off_until_nobody_can_lower_the_limit_any_more() {
        let (dir, limit, lever) = limit();
        let (file, killer) = (dir.path().join(FILE), dir.path().join(KILLER));
        let is_off = || fs::read_to_string(&killer).unwrap() == "1";
        let granted = |bytes: u64| fs::read_to_string(&file).unwrap() == bytes.to_string();

        // The other thread is about to write what was wanted before.
        limit.lowering.fetch_add(1, Ordering::SeqCst);
        limit.wanted.store(GRANT, Ordering::SeqCst);
        limit.apply(&limit.lever, GRANT).unwrap();
        assert!(is_off() && granted(GRANT));
        limit.restore(&lever);
        assert!(granted(CEILING.unsigned_abs()));
        assert!(is_off(), "whoever meets the old limit is killed");
        // It writes that, finds that something else is wanted, and is done.
        limit.apply(&limit.lever, GRANT).unwrap();
        limit.lower();
        assert!(granted(CEILING.unsigned_abs()) && is_off());
        limit.lowering.fetch_sub(1, Ordering::SeqCst);
        limit.settle();
        assert!(!is_off(), "a real lack of memory must end");

        // Nobody else: at once.
        limit.wanted.store(GRANT, Ordering::SeqCst);
        limit.apply(&lever, GRANT).unwrap();
        assert!(is_off());
        limit.restore(&lever);
        assert!(!is_off());
        // Less was granted before the other thread came to it.
        limit.killer_due.store(true, Ordering::SeqCst);
        limit.wanted.store(GRANT, Ordering::SeqCst);
        limit.apply(&lever, GRANT).unwrap();
        limit.settle();
        assert!(is_off());
    }
}
