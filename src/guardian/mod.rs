//! The guardian: a process that gives limits back when the tuner of memory has died or stands still.
//!
//! A limit below the ceiling is safe only as long as somebody raises it in time. The tuner tells its guardian of every
//! control group before it lowers a limit there ([`Guardian::guard`]) and leaves signs of life (`pulse`). When the tuner
//! ends, however it does, or leaves none for a second, the guardian raises what is below its ceiling and turns the OOM
//! killers on again (`process`). It never lowers a limit.
//!
//! Both may be killed together: then the limits stay until somebody reads the container's record
//! (docs/adr/0003-guardian.md).

mod message;
mod process;
mod pulse;

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::config::LogFormat;
use crate::kernel::cgroup::Lever;
use crate::kernel::packets::Packets;
use crate::kernel::{self, children, exe};
use crate::model::MemoryLimit;
use message::Message;
pub use process::{is_called, main, of_tuner};
use pulse::{Pulse, Side};

/// What a guardian is called in the list of processes.
const NAME: &str = "elastic-mem";
/// The argument by which a process is one.
const VERB: &str = "guardian";
/// The form of its log, if it has one.
const JSON: &str = "json";
const TEXT: &str = "text";
/// What a guardian is given.
const SOCKET: usize = 0;
const PULSE: usize = 1;
const LOG: usize = 2;

/// How long a tuner may leave no sign of life.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a guardian may leave none; it leaves one at least every [`PATIENCE`].
const STANDS: Duration = Duration::from_secs(3);
/// Signs of life that follow each other faster are not left.
const APART: Duration = Duration::from_millis(100);

/// The tuner's end. No method blocks but [`Guardian::start`], which waits for the start of a program: milliseconds.
///
/// When this is dropped, the guardian gives back what it still guards, and ends.
#[derive(Debug)]
pub struct Guardian {
    socket: Packets,
    pulse: Pulse,
    child: Child,
    guarded: BTreeSet<u64>,
    /// When the last sign of life was left.
    last: Duration,
    /// Since when the guardian has had something to do.
    since: Duration,
    /// It did not take a message.
    is_lost: bool,
}

impl Guardian {
    /// How often [`Guardian::beat`] is to be called at least while something is guarded.
    pub const BEAT: Duration = Duration::from_millis(500);

    /// Starts a guardian. It has the control groups, niceness and `oom_score_adj` of the calling thread, a session of its
    /// own, and writes into the log of this process.
    ///
    /// # Errors
    /// What failed, for the log; nothing may be granted below its ceiling then.
    pub fn start() -> Result<Self, String> {
        Self::start_from(Path::new(exe::SELF))
    }

    /// The same with the executable at another path.
    ///
    /// # Errors
    /// As [`Guardian::start`].
    pub fn start_from(program: &Path) -> Result<Self, String> {
        let fail = |err: std::io::Error| format!("start a guardian: {}", kernel::reason(&err));
        let (socket, theirs) = Packets::pair().map_err(fail)?;
        let pulse = Pulse::new().map_err(fail)?;
        // Open until the process is started: see `give_descriptors`.
        let mut given = vec![theirs, pulse.share().map_err(fail)?];
        let mut command = Command::new(program);
        command.arg0(NAME).arg(VERB);
        if let Some((log, format)) = crate::log::descriptor() {
            command.arg(match format {
                LogFormat::Json => JSON,
                LogFormat::Text => TEXT,
            });
            given.push(log);
        }
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It ends with the tuner, not with the session or the service that the tuner belongs to.
        children::detach(&mut command);
        children::block_signals(&mut command);
        let copies: std::io::Result<Vec<_>> = given.iter().map(OwnedFd::try_clone).collect();
        let child = copies
            .and_then(|copies| children::give_descriptors(&mut command, copies))
            .and_then(|()| command.spawn())
            .map_err(fail)?;
        Ok(Self {
            socket,
            pulse,
            child,
            guarded: BTreeSet::new(),
            last: Duration::ZERO,
            since: pulse::now(),
            is_lost: false,
        })
    }

    /// Has it look after the limit of a control group, which may be lowered from here on: what it is to be once nobody
    /// tunes it, and whether the OOM killer of cgroup v1 is to be on then. The lever can be dropped; the guardian writes
    /// through files of its own, which no write of ours holds up.
    ///
    /// # Errors
    /// What failed, for the log; the limit may not be lowered then.
    pub fn guard(
        &mut self,
        key: u64,
        lever: &Lever,
        ceiling: MemoryLimit,
        oom_killer: bool,
    ) -> Result<(), String> {
        let own = lever
            .open_again()
            .map_err(|err| format!("guard a limit: {}", kernel::chain(&err)))?;
        let (limit, oom) = own.descriptors();
        let descriptors: Vec<_> = std::iter::once(limit).chain(oom).collect();
        if self.guarded.is_empty() {
            self.since = pulse::now();
        }
        let message = Message::Guard {
            key,
            ceiling,
            oom_killer,
        };
        self.send(message, &descriptors)?;
        self.guarded.insert(key);
        Ok(())
    }

    /// Tells it of another ceiling.
    ///
    /// # Errors
    /// What failed, for the log.
    pub fn ceiling(&mut self, key: u64, ceiling: MemoryLimit) -> Result<(), String> {
        self.send(Message::Ceiling { key, ceiling }, &[])
    }

    /// Has it leave a control group alone: one that is gone, or whose limit is at the ceiling again.
    pub fn forget(&mut self, key: u64) {
        if self.guarded.remove(&key) {
            // Without an answer from there, `is_alive` tells.
            let _ = self.send(Message::Forget { key }, &[]);
        }
    }

    /// Leaves a sign of life, unless one was left a moment ago.
    pub fn beat(&mut self) {
        let now = pulse::now();
        if now.saturating_sub(self.last) >= APART {
            self.live(now);
        }
    }

    /// Whether the guardian lives and does its work. If not, all limits are to be raised to their ceilings, or guarded by
    /// another one.
    pub fn is_alive(&mut self) -> bool {
        if self.is_lost || self.socket.is_closed() {
            return false;
        }
        let now = pulse::now();
        let last = self.pulse.last(Side::Guardian, now).max(self.since);
        if !self.guarded.is_empty() && now.saturating_sub(last) > STANDS {
            self.lose();
        }
        !self.is_lost
    }

    /// The process id of the guardian.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn live(&mut self, now: Duration) {
        self.pulse.leave(Side::Tuner, now);
        self.last = now;
    }

    fn send(&mut self, message: Message, descriptors: &[BorrowedFd<'_>]) -> Result<(), String> {
        // Before the message: it must not find an old sign of life.
        self.live(pulse::now());
        self.socket
            .send(&message.encode(), descriptors)
            .map_err(|err| {
                self.lose();
                format!("the guardian takes no message: {}", kernel::reason(&err))
            })
    }

    /// One that stands still would go on some day and raise limits to what their ceilings were then.
    fn lose(&mut self) {
        self.is_lost = true;
        if !self.socket.is_closed() {
            // It has not ended, so nobody has reaped it and the id is its own.
            let _ = self.child.kill();
        }
    }
}
