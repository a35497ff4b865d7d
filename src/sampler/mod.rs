//! The sampler: one thread that looks at the memory of all containers of this process and writes their traces.
//!
//! Each container has a rhythm of its own (`pace`): every 1 ms after its start and in fast growth, every 2 ms while its memory grows,
//! every 10 ms while it runs, less and less often while it rests. Files stay open, and a reading allocates nothing
//! (`kernel::cgroup::Meter`).
//! What was seen goes to a file in the spool folder (`record`), which is complete once the container has ended.
//!
//! Whatever goes wrong here ends a trace, never a container.

mod lowering;
mod pace;
mod placing;
mod record;
mod run;
mod search;
mod tally;
mod thin;
mod tuning;
mod writing;

use std::any::Any;
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::guardian::Guardian;
use crate::kernel::cgroup::Cgroup;
use crate::kernel::exe;
use crate::kernel::wait::{self, Waker};
use crate::model::placement::Placement;
use crate::model::plan::Plan;
use crate::model::status::Status;
use crate::model::trace::{Context, Phase};
use crate::model::{Bytes, ClassName, Priority, RunId};
pub use lowering::Publish;
use placing::{Event, Placing};
pub use placing::{Lived, Placed, Tell};
use run::{Answers, Run, Waiting};
use tally::Shared;
use tuning::Hands;
use writing::Writing;

/// A name for a run that starts now: sortable by time, and unique as long as no two containers of one name start
/// on hosts of one name in the same microsecond.
///
/// What a file name cannot hold is left out.
pub fn new_run(host: &str, container: &str) -> Option<RunId> {
    let plain = |text: &str, longest: usize| -> String {
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        text.chars().filter(is_plain).take(longest).collect()
    };
    let time = chrono::Utc::now().format("%Y%m%dT%H%M%S%.6fZ");
    let name = format!("{time}-{}-{}", plain(host, 64), plain(container, 80));
    name.parse().ok()
}

/// A thread that samples. Ends when this is dropped; files of runs that have not ended stay behind as they are.
#[derive(Debug)]
pub struct Sampler {
    inbox: Inbox,
    thread: Option<JoinHandle<()>>,
}

/// A container that is watched.
#[derive(Debug, Clone)]
pub struct Watched {
    key: u64,
    inbox: Inbox,
    status: Shared,
}

/// A moment that only whoever brings requests knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edge {
    /// A request begins.
    Begin {
        /// Size of its input.
        input: Option<Bytes>,
        /// Its input class.
        class: Option<ClassName>,
    },
    /// It ends.
    End,
}

/// A container that is to be watched.
pub struct Subject {
    /// Its control group.
    pub cgroup: Cgroup,
    /// What its trace says of it.
    pub context: Context,
    /// What is to be done with its memory.
    pub plan: Option<Plan>,
    /// Where its memory is to lie.
    pub placement: Option<Placement>,
    /// Called with what was done for that, on a thread of the sampler.
    pub tell: Option<Tell>,
    /// Called with its grant and its ceiling, at most once a second, on a thread of the sampler.
    pub publish: Option<Publish>,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject")
            .field("cgroup", &self.cgroup)
            .field("context", &self.context)
            .field("plan", &self.plan)
            .field("placement", &self.placement)
            .finish_non_exhaustive()
    }
}

/// Tells of the end of a trace; an error means that there was none.
#[derive(Debug)]
pub struct Ended {
    /// Everything was read: the control group may go.
    pub read: oneshot::Receiver<()>,
    /// The file is complete; none if it could not be written.
    pub written: oneshot::Receiver<Option<PathBuf>>,
}

#[derive(Debug, Clone)]
struct Inbox {
    sender: Sender<Message>,
    waker: Arc<Waker>,
}

#[derive(Debug)]
enum Message {
    Watch(u64, Box<Waiting>),
    Started(u64, oneshot::Sender<()>),
    Ended(u64, Option<i32>, Answers),
    Forget(u64),
    Hold(u64, oneshot::Sender<()>),
    Release(u64),
    Edge(u64, Edge),
    Bind(u64, Box<(Context, Option<Plan>)>),
    Stop,
}

impl Message {
    /// The container that it is about.
    fn about(&self) -> Option<u64> {
        match self {
            Self::Watch(key, _)
            | Self::Started(key, _)
            | Self::Ended(key, ..)
            | Self::Forget(key)
            | Self::Hold(key, _)
            | Self::Release(key)
            | Self::Edge(key, _)
            | Self::Bind(key, _) => Some(*key),
            Self::Stop => None,
        }
    }
}

impl Inbox {
    fn send(&self, message: Message) {
        // The thread is gone only when the process ends.
        if self.sender.send(message).is_ok() {
            self.waker.wake();
        }
    }
}

impl Sampler {
    /// Starts the thread, with this priority as far as it is granted. It writes into `spool`, which is made if it is
    /// missing.
    ///
    /// # Errors
    /// What failed, for the log.
    pub fn start(spool: &Path, priority: Priority) -> Result<Self, String> {
        Self::start_from(Path::new(exe::SELF), spool, priority)
    }

    /// The same with the executable, for the guardian, at another path.
    ///
    /// # Errors
    /// As [`Sampler::start`].
    pub fn start_from(program: &Path, spool: &Path, priority: Priority) -> Result<Self, String> {
        let waker = Arc::new(Waker::new().map_err(|err| crate::runtime::chain(&err))?);
        let (sender, receiver) = channel();
        let inbox = Inbox { sender, waker };
        let mut thread = Thread {
            epoch: Instant::now(),
            program: program.to_path_buf(),
            spool: spool.to_path_buf(),
            receiver,
            waker: Arc::clone(&inbox.waker),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            hands: None,
            writing: None,
            placing: None,
            guardian_due: Duration::ZERO,
            priority,
        };
        let thread = std::thread::Builder::new()
            .name("sampler".to_owned())
            // It needs some buffers of a few KiB.
            .stack_size(256 << 10)
            .spawn(move || thread.run())
            .map_err(|err| format!("start the sampler's thread: {err}"))?;
        Ok(Self {
            inbox,
            thread: Some(thread),
        })
    }

    /// Makes a container known. Nothing is done for it before its start.
    pub fn watch(&self, subject: Subject) -> Watched {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let key = NEXT.fetch_add(1, Ordering::Relaxed);
        let status = Shared::default();
        let waiting = Box::new(Waiting {
            key,
            subject,
            status: status.clone(),
            tuning: None,
            holds: 0,
        });
        self.inbox.send(Message::Watch(key, waiting));
        Watched {
            key,
            inbox: self.inbox.clone(),
            status,
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.inbox.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            // It does not panic: it catches what does.
            let _ = thread.join();
        }
    }
}

impl Watched {
    /// It starts now: its trace begins. The answer comes when its first grant is in force.
    pub fn started(&self) -> oneshot::Receiver<()> {
        let (granted, answer) = oneshot::channel();
        self.inbox.send(Message::Started(self.key, granted));
        answer
    }

    /// It has ended, with this exit code: its trace ends.
    pub fn ended(&self, code: Option<i32>) -> Ended {
        let (read, read_done) = oneshot::channel();
        let (written, written_done) = oneshot::channel();
        let answers = Answers { read, written };
        self.inbox.send(Message::Ended(self.key, code, answers));
        Ended {
            read: read_done,
            written: written_done,
        }
    }

    /// Raises the grant to the ceiling and leaves the limit alone until [`Watched::release`], once for each hold. The
    /// answer comes when that is done, an error when there is nothing to hold.
    pub fn hold(&self) -> oneshot::Receiver<()> {
        let (held, answer) = oneshot::channel();
        self.inbox.send(Message::Hold(self.key, held));
        answer
    }

    /// Ends a hold. The limit that is in force then is the new ceiling.
    pub fn release(&self) {
        self.inbox.send(Message::Release(self.key));
    }

    /// A request begins or ends.
    pub fn edge(&self, edge: Edge) {
        self.inbox.send(Message::Edge(self.key, edge));
    }

    /// Says which function it is, after its start: engines that keep containers ready bind them late. A new trace
    /// begins, under another name; the one so far is not kept.
    pub fn bind(&self, context: Context, plan: Option<Plan>) {
        self.inbox
            .send(Message::Bind(self.key, Box::new((context, plan))));
    }

    /// How it stands, and how long it has run by now; none before its start. Does not wait for the sampler.
    pub fn status(&self) -> Option<(Duration, Status)> {
        self.status.read()
    }

    /// It will not start.
    pub fn forget(&self) {
        self.inbox.send(Message::Forget(self.key));
    }
}

/// What the thread owns.
#[derive(Debug)]
struct Thread {
    epoch: Instant,
    program: PathBuf,
    spool: PathBuf,
    receiver: Receiver<Message>,
    waker: Arc<Waker>,
    waiting: BTreeMap<u64, Waiting>,
    running: BTreeMap<u64, Run>,
    /// Started for the first container whose limit is moved.
    hands: Option<Hands>,
    /// The same. Behind `running`: it ends after all traces.
    writing: Option<Writing>,
    /// Started for the first container whose pages may have to be moved.
    placing: Option<Placing>,
    /// When the guardian is to be seen to.
    guardian_due: Duration,
    priority: Priority,
}

/// How often the guardian gets a sign of life, and is looked after: not at every look, for that costs a system call.
const GUARDIAN_EVERY: Duration = Duration::from_millis(50);

impl Thread {
    fn run(&mut self) {
        if let Err(err) = wait::raise_priority(self.priority) {
            tracing::debug!("sampler: {}", crate::runtime::chain(&err));
        }
        loop {
            while let Ok(message) = self.receiver.try_recv() {
                if matches!(message, Message::Stop) {
                    return;
                }
                let about = message.about();
                self.guarded(about, |thread| thread.take(message));
            }
            self.guarded(None, Self::look_after_guardian);
            self.look();
            let next = self.running.values().map(|run| run.due).min();
            let now = self.epoch.elapsed();
            if self.waker.wait(next.map(|due| due.saturating_sub(now))) {
                // It may have been an alarm of usage: of whom it does not say.
                self.running.values_mut().for_each(|run| run.alarmed(now));
            }
        }
    }

    /// A panic ends the trace of the container that the work was about and gives its limit back; those of all where it was
    /// about none. It does not end the process, and containers that it was not about are looked after as before.
    fn guarded(&mut self, about: Option<u64>, work: impl FnOnce(&mut Self)) {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(self))) else {
            return;
        };
        let reason = said(&*panic);
        let Some(key) = about else {
            tracing::error!(
                reason,
                "the sampler panicked: all traces are cut off, all limits are given back"
            );
            self.running.clear();
            self.waiting.clear();
            self.hands = None;
            return;
        };
        self.abandon(key, &reason);
    }

    /// Leaves a container alone from here on: what was done for it panicked.
    fn abandon(&mut self, key: u64, reason: &str) {
        tracing::error!(
            reason,
            "the sampler panicked: the trace of a container is cut off, its limit is given back"
        );
        self.waiting.remove(&key);
        if let Some(run) = self.running.remove(&key) {
            run.abandon(self.hands.as_mut());
        }
        self.forget(key);
    }

    /// Nothing is done for the limit and the pages of a container any more.
    fn forget(&mut self, key: u64) {
        if let Some(hands) = &mut self.hands {
            hands.guardian.forget(key);
        }
        if let Some(placing) = &mut self.placing {
            placing.forget(key);
        }
    }

    fn take(&mut self, message: Message) {
        let now = self.epoch.elapsed();
        match message {
            Message::Watch(key, waiting) => {
                self.waiting.insert(key, *waiting);
            }
            Message::Started(key, granted) => {
                if let Some(waiting) = self.waiting.remove(&key) {
                    self.place(&waiting);
                    self.start(waiting, now);
                }
                // Whoever asked may not want to know any more.
                let _ = granted.send(());
            }
            Message::Ended(key, code, answers) => {
                self.waiting.remove(&key);
                let placing = self.placing.as_mut();
                let left = placing.and_then(|placing| placing.forget(key));
                if let Some(run) = self.running.remove(&key) {
                    run.end(left, now, code, answers, self.hands.as_mut());
                }
                self.forget(key);
            }
            Message::Forget(key) => {
                self.waiting.remove(&key);
            }
            Message::Hold(key, held) => {
                if let Some(run) = self.running.get_mut(&key) {
                    run.hold(self.hands.as_ref(), Some(held));
                    return;
                }
                if let Some(waiting) = self.waiting.get_mut(&key) {
                    waiting.holds = waiting.holds.saturating_add(1);
                }
                // There is nothing to raise.
                let _ = held.send(());
            }
            Message::Release(key) => {
                self.tell_of(key, Event::Released);
                if let Some(run) = self.running.get_mut(&key) {
                    run.release(now, self.hands.as_mut());
                } else if let Some(waiting) = self.waiting.get_mut(&key) {
                    waiting.holds = waiting.holds.saturating_sub(1);
                }
            }
            Message::Edge(key, edge) => {
                let event = match edge {
                    Edge::Begin { .. } => Event::Begin,
                    Edge::End => Event::End,
                };
                self.tell_of(key, event);
                if let Some(run) = self.running.get_mut(&key) {
                    run.edge(now, &edge, self.hands.as_mut());
                }
            }
            Message::Bind(key, binding) => self.bind(key, *binding, now),
            Message::Stop => {}
        }
    }

    fn start(&mut self, waiting: Waiting, now: Duration) {
        let needs_hands = waiting
            .subject
            .plan
            .as_ref()
            .is_some_and(|plan| plan.mode.grants());
        if needs_hands && self.hands.is_none() {
            self.hands = Hands::new(Arc::clone(&self.waker), &self.program)
                .inspect_err(|reason| tracing::warn!(reason, "no limit is moved"))
                .ok();
        }
        if needs_hands && self.writing.is_none() {
            self.writing = Writing::start()
                .inspect_err(|reason| {
                    tracing::warn!(reason, "traces are written where limits are moved")
                })
                .ok();
        }
        let key = waiting.key;
        let name = waiting.subject.context.run.to_string();
        let started = make_folder(&self.spool).and_then(|()| {
            let writing = self.writing.as_ref();
            Run::start(waiting, &self.spool, now, self.hands.as_mut(), writing)
        });
        match started {
            Ok(run) => {
                self.running.insert(key, run);
            }
            Err(reason) => tracing::warn!(run = name, reason, "no trace of this run"),
        }
    }

    /// Has the ratio of a container held that is to have one.
    fn place(&mut self, waiting: &Waiting) {
        let subject = &waiting.subject;
        let wanted = subject.placement.as_ref();
        let Some(placement) = wanted.filter(|placement| placement.is_watched()) else {
            return;
        };
        if self.placing.is_none() {
            self.placing = Placing::start()
                .inspect_err(|reason| tracing::warn!(reason, "no pages are moved"))
                .ok();
        }
        if let Some(placing) = &mut self.placing {
            let tell = subject.tell.clone();
            placing.watch(waiting.key, &subject.cgroup, placement.clone(), tell);
        }
    }

    /// Tells whoever places the memory of a container what happens to it.
    fn tell_of(&self, key: u64, event: Event) {
        if let Some(placing) = &self.placing {
            placing.event(key, event);
        }
    }

    fn bind(&mut self, key: u64, (context, plan): (Context, Option<Plan>), now: Duration) {
        if let Some(waiting) = self.waiting.get_mut(&key) {
            waiting.subject.context = context;
            waiting.subject.plan = plan;
        } else if let Some(run) = self.running.remove(&key) {
            self.start(run.unbound(key, context, plan), now);
        }
    }

    fn look_after_guardian(&mut self) {
        let now = self.epoch.elapsed();
        if let Some(hands) = &mut self.hands
            && now >= self.guardian_due
        {
            self.guardian_due = now + GUARDIAN_EVERY;
            hands.guardian.beat();
            if !hands.guardian.is_alive() {
                self.replace_guardian();
            }
        }
    }

    fn look(&mut self) {
        let now = self.epoch.elapsed();
        let (hands, placing) = (&mut self.hands, &self.placing);
        let mut panicked = Vec::new();
        self.running.retain(|key, run| {
            if run.due > now {
                return true;
            }
            let before = run.phase();
            let looked = catch_unwind(AssertUnwindSafe(|| run.look(now, hands.as_mut())));
            if let Some(placing) = placing
                && run.phase() != before
            {
                let event = match run.phase() {
                    Some(Phase::KeepAlive) => Event::Rests,
                    _ => Event::Works,
                };
                placing.event(*key, event);
            }
            match looked {
                Ok(looked) => looked
                    .inspect_err(|reason| tracing::warn!(reason, "a trace is cut off"))
                    .is_ok(),
                Err(panic) => {
                    panicked.push((*key, said(&*panic)));
                    true
                }
            }
        });
        for (key, reason) in panicked {
            self.abandon(key, &reason);
        }
    }

    /// Nothing is below its ceiling without somebody who watches over it.
    fn replace_guardian(&mut self) {
        let Some(hands) = &mut self.hands else { return };
        for run in self.running.values_mut() {
            run.hold(Some(hands), None);
        }
        tracing::warn!("the guardian of limits is gone: another one is started");
        let again = Guardian::start_from(&self.program).and_then(|guardian| {
            hands.guardian = guardian;
            self.running
                .values()
                .try_for_each(|run| run.guard_again(&mut hands.guardian))
        });
        match again {
            Ok(()) => {
                let now = self.epoch.elapsed();
                for run in self.running.values_mut() {
                    run.release(now, Some(hands));
                }
            }
            Err(reason) => {
                tracing::error!(reason, "no limit is moved any more");
                for run in self.running.values_mut() {
                    run.let_go(hands);
                    run.release(Duration::ZERO, None);
                }
                self.hands = None;
            }
        }
    }
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason given").to_owned()
}

/// The spool folder, for us alone.
fn make_folder(path: &Path) -> Result<(), String> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|err| format!("create {}: {}", path.display(), crate::kernel::reason(&err)))
}
