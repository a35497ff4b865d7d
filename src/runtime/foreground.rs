//! `run`, and `exec` without `--detach`: stay with the process, pass on its streams, its signals, its exit code.
//!
//! One thread, one poll(2) loop. Without a terminal the process gets pipes, never the caller's own
//! descriptors: their owner must not change with the user of the container.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::create::{Additions, CreateOptions, Io, console_pair, create, create_with};
use super::error::{Result, RuntimeError};
use super::exec::{ExecOptions, exec_with, pipe};
use super::launch::Stdio;
use super::lifecycle::{remove, start};
use super::state::{Container, Store};
use crate::kernel::process::signal_pid;
use crate::kernel::signals::Signals;
use crate::kernel::tty::{self, RawTerminal};
use crate::model::ContainerId;

/// Most bytes on their way in one direction.
const BUFFER: usize = 64 * 1024;

/// Creates and starts a container; stays until it ends unless `detach`.
///
/// Returns the exit code of the program, 128 + signal when a signal ended it, 0 when detached.
///
/// # Errors
/// As [`create`] and [`start`]; the container is removed then.
pub fn run(
    store: &Store,
    id: &ContainerId,
    options: &CreateOptions,
    additions: Additions<'_>,
    detach: bool,
    keep: bool,
) -> Result<i32> {
    if detach {
        let container = create(store, id, options, additions)?;
        return start(&container)
            .inspect_err(|_| discard(&container))
            .map(|()| 0);
    }
    let signals = block_signals()?;
    let terminal = wants_terminal(options);
    let mut session = Session::new(terminal)?;
    let io = session.take_io();
    let container = create_with(store, id, options, additions, io)?;
    let init = container
        .state
        .init
        .map(|init| Pid::from_raw(init.pid))
        .ok_or(RuntimeError::NotRunning)?;
    let outcome = session
        .receive_terminal()
        .and_then(|()| start(&container))
        .and_then(|()| session.relay(init, &signals));
    if keep && outcome.is_ok() {
        return outcome;
    }
    let removed = remove(&container);
    let code = outcome?;
    removed?;
    Ok(code)
}

/// Runs a process in a container; stays until it ends unless detached.
///
/// Returns the exit code as [`run`] does.
///
/// # Errors
/// `ExecIn`, `Start`, `InvalidSpec` and so on; the container itself is not touched.
pub fn exec(container: &Container, options: &ExecOptions) -> Result<i32> {
    if options.detach {
        return exec_with(container, options, Io::default()).map(|_| 0);
    }
    let signals = block_signals()?;
    let terminal = match &options.process {
        None => options.tty,
        Some(path) => file_wants_terminal(path, "/terminal"),
    };
    let mut session = Session::new(terminal)?;
    let io = session.take_io();
    let pid = exec_with(container, options, io)?;
    session.receive_terminal()?;
    session.relay(pid, &signals)
}

fn discard(container: &Container) {
    if let Some(init) = container.init() {
        let _ = init.signal(libc::SIGKILL);
        let _ = init.wait_ended(std::time::Duration::from_secs(10));
    }
    if let Err(err) = remove(container) {
        tracing::warn!(%err, "container left behind");
    }
}

/// Signals are passed on instead of acted on.
fn block_signals() -> Result<Signals> {
    Signals::block_all().map_err(|err| RuntimeError::Sys("block signals", err))
}

/// A look ahead; a file that cannot be read is reported by those who use it.
fn file_wants_terminal(path: &std::path::Path, pointer: &str) -> bool {
    std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .and_then(|value| value.pointer(pointer)?.as_bool())
        .unwrap_or(false)
}

fn wants_terminal(options: &CreateOptions) -> bool {
    file_wants_terminal(&options.bundle.join("config.json"), "/process/terminal")
}

/// One direction of a stream.
struct Pump {
    from: Option<File>,
    to: Option<File>,
    buffer: Vec<u8>,
    /// Standard input: the end of the source closes the target, so that the program sees it too.
    close_target: bool,
}

impl Pump {
    fn new(from: OwnedFd, to: OwnedFd, close_target: bool) -> Self {
        Self {
            from: Some(from.into()),
            to: Some(to.into()),
            buffer: Vec::new(),
            close_target,
        }
    }

    fn is_done(&self) -> bool {
        self.from.is_none() && self.buffer.is_empty()
    }

    fn read(&mut self) {
        use std::io::Read;
        let Some(from) = &mut self.from else {
            return;
        };
        let mut chunk = [0_u8; 16 * 1024];
        match from.read(&mut chunk) {
            Ok(0) => self.from = None,
            Ok(n) => self
                .buffer
                .extend_from_slice(chunk.get(..n).unwrap_or_default()),
            Err(err) if would_block(&err) => {}
            // EIO is how a terminal says that its last process is gone.
            Err(_) => self.from = None,
        }
        self.finish();
    }

    fn write(&mut self) {
        use std::io::Write;
        let Some(to) = &mut self.to else {
            self.buffer.clear();
            return;
        };
        // As much as poll(2) promises not to block on; the descriptors may be the caller's shell's, whose
        // mode must not be changed.
        let part = self
            .buffer
            .get(..self.buffer.len().min(libc::PIPE_BUF))
            .unwrap_or_default();
        match to.write(part) {
            Ok(n) => drop(self.buffer.drain(..n)),
            Err(err) if would_block(&err) => {}
            // The reader is gone; the source must see that as the end of its pipe.
            Err(_) => {
                self.buffer.clear();
                self.from = None;
                self.to = None;
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        if self.is_done() && self.close_target {
            // For a terminal this closes a duplicate only: its end is a character, which the source has sent.
            self.to = None;
        }
    }
}

fn would_block(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// The caller's side of the streams of a foreground process.
struct Session {
    io: Option<Io>,
    console: Option<OwnedFd>,
    pumps: Vec<Pump>,
    terminal: Option<OwnedFd>,
    raw: Option<RawTerminal>,
}

impl Session {
    fn new(terminal: bool) -> Result<Self> {
        if terminal {
            let (theirs, ours) = console_pair()?;
            return Ok(Self {
                io: Some(Io {
                    console: Some(theirs),
                    stdio: Stdio::default(),
                    foreground: true,
                }),
                console: Some(ours),
                pumps: Vec::new(),
                terminal: None,
                raw: None,
            });
        }
        let (input, input_writer) = pipe()?;
        let (output_reader, output) = pipe()?;
        let (error_reader, error) = pipe()?;
        let pumps = vec![
            Pump::new(own(&io::stdin())?, input_writer, true),
            Pump::new(output_reader, own(&io::stdout())?, false),
            Pump::new(error_reader, own(&io::stderr())?, false),
        ];
        Ok(Self {
            io: Some(Io {
                console: None,
                stdio: Stdio {
                    input: Some(input),
                    output: Some(output),
                    error: Some(error),
                },
                foreground: true,
            }),
            console: None,
            pumps,
            terminal: None,
            raw: None,
        })
    }

    fn take_io(&mut self) -> Io {
        self.io.take().unwrap_or_default()
    }

    /// Takes the terminal that the process has made and sent, and couples it to the caller's.
    fn receive_terminal(&mut self) -> Result<()> {
        let Some(socket) = self.console.take() else {
            return Ok(());
        };
        let fail = |err| RuntimeError::Sys("receive the container's terminal", err);
        let terminal = tty::receive_fd(socket.as_fd()).map_err(fail)?;
        let dup = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(fail);
        self.pumps = vec![
            Pump::new(own(&io::stdin())?, dup(terminal.as_fd())?, true),
            Pump::new(dup(terminal.as_fd())?, own(&io::stdout())?, false),
        ];
        if tty::is_terminal(io::stdin()) {
            self.raw = RawTerminal::enter(io::stdin().as_fd()).ok();
        }
        self.terminal = Some(terminal);
        self.resize();
        Ok(())
    }

    fn resize(&self) {
        let Some(terminal) = &self.terminal else {
            return;
        };
        if let Ok(size) = tty::size(io::stdin().as_fd()) {
            let _ = tty::set_size(terminal.as_fd(), size);
        }
    }

    /// Moves bytes and signals until the process has ended and its output is through.
    fn relay(mut self, pid: Pid, signals: &Signals) -> Result<i32> {
        let mut ended = None;
        loop {
            for signal in signals.take() {
                match signal {
                    libc::SIGCHLD => {}
                    libc::SIGWINCH => self.resize(),
                    // The process may have ended meanwhile.
                    signal => drop(signal_pid(pid.as_raw(), signal)),
                }
            }
            reap(pid, &mut ended)?;
            let Some(code) = ended else {
                self.step(signals, PollTimeout::NONE)?;
                continue;
            };
            // What the process wrote is still in the pipes. What a survivor of it writes later is not waited for.
            self.pumps
                .retain(|pump| !pump.close_target && !pump.is_done());
            let unwritten = self.pumps.iter().any(|pump| !pump.buffer.is_empty());
            let patience = if unwritten {
                PollTimeout::NONE
            } else {
                PollTimeout::ZERO
            };
            if self.pumps.is_empty() || !self.step(signals, patience)? {
                return Ok(code);
            }
        }
    }

    /// Waits until something can move and moves it; tells whether anything could.
    fn step(&mut self, signals: &Signals, patience: PollTimeout) -> Result<bool> {
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        // Which pump, and whether its source, each descriptor after the first stands for.
        let mut meaning = Vec::new();
        for (index, pump) in self.pumps.iter().enumerate() {
            if let Some(from) = pump.from.as_ref().filter(|_| pump.buffer.len() < BUFFER) {
                fds.push(PollFd::new(from.as_fd(), PollFlags::POLLIN));
                meaning.push((index, true));
            }
            if let Some(to) = pump.to.as_ref().filter(|_| !pump.buffer.is_empty()) {
                fds.push(PollFd::new(to.as_fd(), PollFlags::POLLOUT));
                meaning.push((index, false));
            }
        }
        match poll(&mut fds, patience) {
            Err(Errno::EINTR) => return Ok(true),
            other => {
                other.map_err(|err| RuntimeError::Sys("wait for the container", err.into()))?
            }
        };
        let ready: Vec<bool> = fds
            .iter()
            .skip(1)
            .map(|fd| fd.revents().is_some_and(|events| !events.is_empty()))
            .collect();
        drop(fds);
        let mut moved = false;
        for ((index, is_source), ready) in meaning.into_iter().zip(ready) {
            let Some(pump) = self.pumps.get_mut(index).filter(|_| ready) else {
                continue;
            };
            moved = true;
            if is_source {
                pump.read();
            } else {
                pump.write();
            }
        }
        Ok(moved)
    }
}

fn own(fd: &impl AsFd) -> Result<OwnedFd> {
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|err| RuntimeError::Sys("duplicate a descriptor", err))
}

/// Collects ended children; those besides the process are orphans of the container that came to us.
fn reap(pid: Pid, ended: &mut Option<i32>) -> Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(who, code)) if who == pid => *ended = Some(code),
            Ok(WaitStatus::Signaled(who, signal, _)) if who == pid => {
                *ended = Some(128 + signal as i32)
            }
            Ok(WaitStatus::StillAlive) => return Ok(()),
            Err(Errno::ECHILD) if ended.is_some() => return Ok(()),
            Err(Errno::ECHILD) => {
                return Err(RuntimeError::Sys(
                    "wait for the container",
                    io::Error::from(Errno::ECHILD),
                ));
            }
            Err(Errno::EINTR) | Ok(_) => {}
            Err(err) => return Err(RuntimeError::Sys("wait for the container", err.into())),
        }
    }
}
