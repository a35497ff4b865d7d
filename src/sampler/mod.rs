//! The sampler: one thread that looks at the memory of all containers of this process and writes their traces.
//!
//! Each container has a rhythm of its own (`pace`): every 2 ms while its memory grows, every 10 ms while it runs,
//! less and less often while it rests. Files stay open and a look allocates nothing (`kernel::cgroup::Meter`).
//! What was seen goes to a file in the spool folder (`record`), which is complete once the container has ended.
//!
//! Whatever goes wrong here ends a trace, never a container.

mod pace;
mod record;
mod run;
mod thin;

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::kernel::cgroup::Cgroup;
use crate::kernel::wait::{self, Waker};
use crate::model::trace::Context;
use crate::model::{Bytes, ClassName, FunctionKey, RunId};
use run::{Answers, Run, Waiting};

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

/// What becomes known of a container after its start: engines that keep containers ready bind them late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The function.
    pub function: FunctionKey,
    /// The input class.
    pub class: Option<ClassName>,
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
#[allow(dead_code, reason = "grants come next")]
enum Message {
    Watch(u64, Box<Waiting>),
    Started(u64),
    Ended(u64, Option<i32>, Answers),
    Forget(u64),
    Hold(u64, oneshot::Sender<()>),
    Release(u64),
    Edge(u64, Edge),
    Bind(u64, Box<Binding>),
    Stop,
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
    /// Starts the thread. It writes into `spool`, which is made if it is missing.
    ///
    /// # Errors
    /// What failed, for the log.
    pub fn start(spool: &Path) -> Result<Self, String> {
        let waker = Arc::new(Waker::new().map_err(|err| crate::runtime::chain(&err))?);
        let (sender, receiver) = channel();
        let inbox = Inbox { sender, waker };
        let mut thread = Thread {
            epoch: Instant::now(),
            spool: spool.to_path_buf(),
            receiver,
            waker: Arc::clone(&inbox.waker),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
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
    pub fn watch(&self, cgroup: Cgroup, context: Context) -> Watched {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let key = NEXT.fetch_add(1, Ordering::Relaxed);
        self.inbox
            .send(Message::Watch(key, Box::new(Waiting { cgroup, context })));
        Watched {
            key,
            inbox: self.inbox.clone(),
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
    /// It starts now: its trace begins.
    pub fn started(&self) {
        self.inbox.send(Message::Started(self.key));
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

    /// Says which function it is, after its start.
    pub fn bind(&self, binding: Binding) {
        self.inbox.send(Message::Bind(self.key, Box::new(binding)));
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
    spool: PathBuf,
    receiver: Receiver<Message>,
    waker: Arc<Waker>,
    waiting: BTreeMap<u64, Waiting>,
    running: BTreeMap<u64, Run>,
}

impl Thread {
    fn run(&mut self) {
        if let Err(err) = wait::raise_priority() {
            tracing::debug!("sampler: {}", crate::runtime::chain(&err));
        }
        loop {
            while let Ok(message) = self.receiver.try_recv() {
                if matches!(message, Message::Stop) {
                    return;
                }
                self.guarded("message", |thread| thread.take(message));
            }
            self.guarded("look", Self::look);
            let next = self.running.values().map(|run| run.due).min();
            let now = self.epoch.elapsed();
            self.waker.wait(next.map(|due| due.saturating_sub(now)));
        }
    }

    /// A panic ends all traces of this process, but not the process.
    fn guarded(&mut self, what: &str, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            tracing::error!(what, "the sampler panicked; traces are cut off");
            self.running.clear();
            self.waiting.clear();
        }
    }

    fn take(&mut self, message: Message) {
        let now = self.epoch.elapsed();
        match message {
            Message::Watch(key, waiting) => {
                self.waiting.insert(key, *waiting);
            }
            Message::Started(key) => {
                let Some(waiting) = self.waiting.remove(&key) else {
                    return;
                };
                let started =
                    make_folder(&self.spool).and_then(|()| Run::start(&waiting, &self.spool, now));
                match started {
                    Ok(run) => {
                        self.running.insert(key, run);
                    }
                    Err(reason) => {
                        let run = waiting.context.run.as_str();
                        tracing::warn!(run, reason, "no trace of this run");
                    }
                }
            }
            Message::Ended(key, code, answers) => {
                self.waiting.remove(&key);
                if let Some(run) = self.running.remove(&key) {
                    run.end(now, code, answers);
                }
            }
            Message::Forget(key) => {
                self.waiting.remove(&key);
            }
            // Nothing is granted yet: there is nothing to raise.
            Message::Hold(_, held) => {
                let _ = held.send(());
            }
            Message::Release(_) | Message::Edge(..) | Message::Bind(..) | Message::Stop => {}
        }
    }

    fn look(&mut self) {
        let now = self.epoch.elapsed();
        self.running.retain(|_, run| {
            if run.due > now {
                return true;
            }
            run.look(now)
                .inspect_err(|reason| tracing::warn!(reason, "a trace is cut off"))
                .is_ok()
        });
    }
}

/// The spool folder, for us alone.
fn make_folder(path: &Path) -> Result<(), String> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|err| format!("create {}: {}", path.display(), crate::kernel::reason(&err)))
}
