//! The sampler: one thread that looks at the memory of all containers of this process and writes their traces.
//!
//! Each container has a rhythm of its own (`pace`): every 1 ms after its start and in fast growth, every 2 ms while its memory grows,
//! every 10 ms while it runs, less and less often while it rests. Files stay open, and a reading allocates nothing
//! (`kernel::cgroup::Meter`).
//! What was seen goes to a file in the spool folder (`record`), which is complete once the container has ended.
//!
//! Whatever goes wrong here ends a trace, never a container.

mod alarms;
mod lowering;
mod pace;
mod placing;
mod record;
mod run;
mod search;
mod tally;
mod thin;
mod thread;
mod tuning;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::kernel::cgroup::Cgroup;
use crate::kernel::exe;
use crate::kernel::wait::Waker;
use crate::model::placement::Placement;
use crate::model::plan::Plan;
use crate::model::status::Status;
use crate::model::trace::Context;
use crate::model::{Bytes, ClassName, Priority, RunId};
pub use lowering::Publish;
pub use placing::{Lived, Placed, Tell};
use run::{Answers, Waiting};
use tally::Shared;
use thread::Thread;

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
    /// Whether others have been told of the first grant of the plan already.
    pub published: bool,
}

impl Subject {
    /// Takes back what others were told of its first grant, if they were: it is not granted.
    fn retraction(&self) -> Option<impl FnOnce() + use<>> {
        let publish = self.publish.clone().filter(|_| self.published)?;
        let ceiling = self.plan.as_ref()?.ceiling;
        Some(move || publish(None, ceiling))
    }
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
    GetReady,
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
            Self::GetReady | Self::Stop => None,
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
        let mut thread = Thread::new(program, spool, receiver, Arc::clone(&inbox.waker), priority);
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

    /// Starts whatever moves limits, for a container that is about to be created: nobody waits for it then.
    pub fn get_ready(&self) {
        self.inbox.send(Message::GetReady);
    }

    /// Makes a container known. Nothing is done to it before its start.
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
