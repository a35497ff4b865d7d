//! One process of a container: its init, or one added by Exec.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use tokio::sync::watch;

use super::error::{Result, ShimError};
use super::stdio::{Held, Paths};

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Known; an init waits for its start, another process does not exist yet.
    Created,
    /// The runtime is at it.
    Starting,
    /// It runs.
    Running,
    /// It has ended.
    Stopped,
}

/// How and when a process ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exit {
    pub(super) code: u32,
    pub(super) at: Timestamp,
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    /// Name of an exec'ed process; empty for the init.
    pub(super) exec_id: String,
    pub(super) paths: Paths,
    inner: Mutex<Inner>,
    exit: watch::Sender<Option<Exit>>,
}

#[derive(Debug)]
struct Inner {
    pid: i32,
    phase: Phase,
    held: Option<Held>,
    /// Whether its input ends; this may be asked for while it is being started.
    stdin_closed: bool,
    /// Whether the event of its end has been sent.
    told: bool,
    /// `process` of the runtime-spec as JSON, of an exec'ed process that has not been started.
    spec: Vec<u8>,
}

impl Process {
    pub(super) fn new(exec_id: &str, paths: Paths) -> Self {
        Self {
            exec_id: exec_id.to_owned(),
            paths,
            inner: Mutex::new(Inner {
                pid: 0,
                phase: Phase::Created,
                held: None,
                stdin_closed: false,
                told: false,
                spec: Vec::new(),
            }),
            exit: watch::Sender::new(None),
        }
    }

    pub(super) fn is_init(&self) -> bool {
        self.exec_id.is_empty()
    }

    /// Process id; 0 before there is one.
    pub(super) fn pid(&self) -> i32 {
        self.lock().pid
    }

    /// The same in the type of containerd's messages.
    pub(super) fn wire_pid(&self) -> u32 {
        u32::try_from(self.pid()).unwrap_or(0)
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Enters a phase, unless it has ended: nothing comes after that.
    pub(super) fn enter(&self, phase: Phase) {
        let has_ended = self.exit.borrow().is_some();
        self.lock().phase = if has_ended { Phase::Stopped } else { phase };
    }

    /// Keeps the description of a process until it is started.
    pub(super) fn set_spec(&self, spec: Vec<u8>) {
        self.lock().spec = spec;
    }

    pub(super) fn take_spec(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock().spec)
    }

    /// Takes note of the process that now exists.
    pub(super) fn exists(&self, pid: i32, mut held: Held) {
        let mut inner = self.lock();
        if inner.stdin_closed {
            held.close_stdin();
        }
        inner.pid = pid;
        inner.held = Some(held);
    }

    /// Takes note of its end. If it is being started, it counts as stopped only once that is over.
    pub(super) fn end(&self, code: u32) {
        let mut inner = self.lock();
        if inner.phase != Phase::Starting {
            inner.phase = Phase::Stopped;
        }
        self.exit.send_replace(Some(Exit { code, at: now() }));
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Its end, if the event of it is due and has not been sent; from now on it counts as sent.
    pub(super) fn tell_exit(&self) -> Option<Exit> {
        let exit = self.exit()?;
        let mut inner = self.lock();
        if inner.phase != Phase::Stopped || inner.told {
            return None;
        }
        inner.told = true;
        Some(exit)
    }

    /// Waits for its end.
    pub(super) async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await {
            Ok(value) => value.clone(),
            // The sender lives as long as `self`.
            Err(_) => None,
        }
        .unwrap_or_else(|| Exit {
            code: 255,
            at: now(),
        })
    }

    /// The streams that the shim holds for it, for the last time.
    pub(super) fn take_held(&self) -> Option<Held> {
        self.lock().held.take()
    }

    /// Ends its input, as far as the shim is concerned.
    pub(super) fn close_stdin(&self) {
        let mut inner = self.lock();
        inner.stdin_closed = true;
        if let Some(held) = &mut inner.held {
            held.close_stdin();
        }
    }

    /// Sets the size of its terminal; without one that is fine, as for runc's shim.
    ///
    /// # Errors
    /// `Failed` with the kernel's reason.
    pub(super) fn resize(&self, rows: u32, columns: u32) -> Result<()> {
        let size = |value: u32| {
            u16::try_from(value)
                .map_err(|_| ShimError::Invalid(format!("{value} is no terminal size")))
        };
        let size = crate::kernel::tty::TerminalSize {
            rows: size(rows)?,
            columns: size(columns)?,
        };
        let inner = self.lock();
        match inner.held.as_ref().and_then(|held| held.terminal.as_ref()) {
            Some(terminal) => terminal.resize(size),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The present, as containerd's messages have it.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(0),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        ..Timestamp::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_after_the_end() {
        let process = Process::new("", Paths::default());
        assert_eq!(process.exit(), None);
        process.end(7);
        process.enter(Phase::Running);
        assert_eq!(process.phase(), Phase::Stopped);
        assert_eq!(process.exit().map(|exit| exit.code), Some(7));
    }

    #[test]
    fn input_that_was_closed_early_is_closed() {
        let process = Process::new("e", Paths::default());
        process.close_stdin();
        let (reader, writer) = std::io::pipe().unwrap();
        process.exists(7, Held::with_stdin(writer.into()));
        assert_eq!(std::io::read_to_string(reader).unwrap(), "");
    }

    #[test]
    fn an_end_during_the_start_is_told_after_it() {
        let process = Process::new("e", Paths::default());
        process.enter(Phase::Starting);
        process.end(3);
        assert_eq!(process.tell_exit(), None);
        process.enter(Phase::Running);
        assert_eq!(process.phase(), Phase::Stopped);
        assert_eq!(process.tell_exit().map(|exit| exit.code), Some(3));
    }

    #[test]
    fn the_end_is_told_once() {
        let process = Process::new("e", Paths::default());
        assert_eq!(process.tell_exit(), None);
        process.end(0);
        assert!(process.tell_exit().is_some());
        assert_eq!(process.tell_exit(), None);
    }
}
