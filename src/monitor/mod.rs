//! Looks after the memory of one container that no shim of ours looks after, as below Docker: a process beside it.
//!
//! `start` leaves it behind ([`leave`]) and goes on once it is ready, or after a moment without it. It ends with the
//! container. Whatever goes wrong here costs a trace, never a container.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::Config;
use crate::control::{self, Folder, Known, Record, Server, Tuned, namespace_of};
use crate::grant::{self, Declared, Described, Prepared};
use crate::kernel::process::ProcessHandle;
use crate::kernel::{children, exe, process};
use crate::model::plan::Plan;
use crate::policy::identity::Facts;
use crate::profile::{Store, StoreError};
use crate::runtime::{self, Container, chain};
use crate::sampler::{Sampler, Subject};

/// How many milliseconds a start waits for its monitor. One that has ended is not waited for, so that this is for one that
/// hangs, or that a busy host does not let run.
const PATIENCE: u16 = 250;
/// A container that has lived for so long is worth the work of making its monitor small.
const SHORT: Duration = Duration::from_millis(500);

/// Starts a monitor for a container whose program is about to start.
///
/// The monitor goes on in a copy of this process: to execute the program anew, with all that a start reads, would cost
/// several times as much as the monitor itself. Only for a process with a single thread.
///
/// Whether it looks after the container by now. If not, the container starts at its ceiling, and is looked after from a
/// moment later on.
///
/// # Errors
/// What failed, for the log; the container has no trace then.
pub fn leave(container: &Container, root: &Path, config: &Config) -> Result<bool, String> {
    let fail = |what: &'static str| {
        move |err: std::io::Error| format!("{what}: {}", crate::kernel::reason(&err))
    };
    let (ours, theirs) = std::io::pipe().map_err(fail("a pipe to the monitor"))?;
    let monitor = move || {
        let done = children::leave_caller()
            .map_err(fail("detach the monitor"))
            .and_then(|()| look_after(container, root, config, theirs));
        match done {
            Ok(()) => 0,
            Err(reason) => {
                tracing::warn!(reason, "no trace of this container");
                1
            }
        }
    };
    process::fork(monitor).map_err(fail("start a monitor"))?;
    hear(ours, PATIENCE)
}

/// Waits so many milliseconds for the word of a monitor that it is ready; whether it came.
///
/// # Errors
/// It has ended, and closed the pipe by that.
fn hear(mut from: PipeReader, patience: u16) -> Result<bool, String> {
    let mut polled = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    if !poll(&mut polled, PollTimeout::from(patience)).is_ok_and(|count| count > 0) {
        return Ok(false);
    }
    let mut word = [0];
    match from.read(&mut word) {
        Ok(1) => Ok(true),
        _ => Err("the monitor has ended before it was ready".to_owned()),
    }
}

/// Looks after a container until it ends.
fn look_after(
    container: &Container,
    root: &Path,
    config: &Config,
    ready: PipeWriter,
) -> Result<(), String> {
    let init = container
        .init()
        .ok_or_else(|| runtime::RuntimeError::NotRunning.to_string())?;
    let known = known(container, root, config)?;
    let facts = known.facts();
    let cgroup = &container.state.cgroup;
    let Some(prepared) = grant::prepare(config, &facts, known.declared, Some(cgroup)) else {
        // Nothing is to be done, and nobody has to wait for it.
        tell(ready);
        return Ok(());
    };
    let folder = &config.profile_folder.value;
    let sampler = Sampler::start(&folder.join("spool"), config.memory_priority.value)?;
    let Prepared { mut context, plan } = prepared;
    if let Some(placement) = &container.state.placement {
        context.place(placement);
    }
    let record = Folder::of(&namespace_of(root), &container.state.id);
    // Before anything is changed.
    let recorded = describe(&record, container, root, &facts, &plan);
    if let Err(err) = &recorded {
        tracing::warn!("no record: {}", chain(err));
    }
    let watched = sampler.watch(Subject {
        cgroup: cgroup.clone(),
        context,
        plan: plan.mode.grants().then_some(plan),
        placement: container.state.placement.clone(),
        tell: Some(control::tell(&record)),
        publish: Some(control::publish(&record)),
        published: recorded.is_ok(),
    });
    let tuned = Tuned {
        watched: watched.clone(),
        cgroup: cgroup.clone(),
        config: Arc::new(config.clone()),
        folder: record.clone(),
        known,
    };
    let mut server = open(tuned, container)
        .inspect_err(|err| tracing::warn!("no control socket: {}", chain(err)))
        .ok();
    // An error means that there is no trace.
    let _ = watched.started().blocking_recv();
    tell(ready);
    let waited = wait(&init, server.as_mut(), Some(SHORT)).and_then(|has_ended| {
        if has_ended {
            return Ok(true);
        }
        if let Err(err) = exe::give_up_unused_memory() {
            tracing::debug!("memory not given up: {}", chain(&err));
        }
        wait(&init, server.as_mut(), None)
    });
    // How it ended is told to its parent alone.
    let ended = watched.ended(None);
    drop(server);
    // An error means that there was no trace.
    let _ = ended.read.blocking_recv();
    if let Some((_, status)) = watched.status() {
        control::count(&record, &status);
    }
    record.remove();
    waited?;
    if let Ok(Some(path)) = ended.written.blocking_recv() {
        match Store::new(folder, config.keep_traces.value).take_in(&path) {
            // A sweep of somebody else was faster.
            Ok(_) | Err(StoreError::Busy(_)) => {}
            Err(err) => return Err(chain(&err)),
        }
    }
    control::sweep();
    Ok(())
}

/// Writes the record.
fn describe(
    folder: &Folder,
    container: &Container,
    root: &Path,
    facts: &Facts<'_>,
    plan: &Plan,
) -> control::Result<()> {
    let mut record = Record::new(&container.state.bundle, root, plan.ceiling)?;
    record.is_of(facts, Some(plan));
    let pid = container.state.init.map_or(0, |init| init.pid);
    record.stands(pid, &container.state.cgroup);
    folder.write(record)
}

/// Opens the control socket, and the one inside the container if it was to have one.
fn open(tuned: Tuned, container: &Container) -> control::Result<Server> {
    let mut server = Server::new()?;
    server.open(tuned.clone().into())?;
    if let Some(inside) = container.inside() {
        let opened = server.open_inside(&inside, tuned.into());
        if let Err(err) = opened {
            tracing::warn!("no control socket inside: {}", chain(&err));
        }
    }
    Ok(server)
}

/// Serves until the init has ended or the time is over; whether it has ended.
fn wait(
    init: &ProcessHandle,
    mut server: Option<&mut Server>,
    time: Option<Duration>,
) -> Result<bool, String> {
    let deadline = time.map(|time| Instant::now() + time);
    loop {
        let mut polled = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        polled.extend(
            server
                .as_ref()
                .map(|server| PollFd::new(server.as_fd(), PollFlags::POLLIN)),
        );
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            // Up, so that it does not spin for the last millisecond.
            let left = left.saturating_add(Duration::from_millis(1));
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(err) => return Err(format!("wait for the end: {}", err.desc())),
        }
        let has_ended = polled.first().and_then(|init| init.any()).unwrap_or(false);
        drop(polled);
        if has_ended {
            return Ok(true);
        }
        if let Some(server) = &mut server {
            server.turn();
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
    }
}

/// Says that it is ready, and closes the pipe.
fn tell(mut ready: PipeWriter) {
    // Nobody waits any more if that fails.
    let _ = ready.write_all(&[1]);
}

/// What is known of the container at its start.
fn known(container: &Container, root: &Path, config: &Config) -> Result<Known, String> {
    let spec = container.config().map_err(|err| chain(&err))?;
    // Engines give each of their namespaces a folder.
    let namespace = root.file_name().unwrap_or_default().to_string_lossy();
    let described = Described::by(&spec);
    Ok(Known {
        namespace: namespace.into_owned(),
        id: container.state.id.clone(),
        annotations: described.annotations,
        environment: described.environment,
        command: described.command,
        trusted: config.trusted(),
        declared: Declared::of(&spec),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_that_is_late_is_told_from_one_that_has_ended() {
        let (ours, theirs) = std::io::pipe().unwrap();
        tell(theirs);
        assert_eq!(hear(ours, 0), Ok(true));
        let (ours, theirs) = std::io::pipe().unwrap();
        assert_eq!(hear(ours.try_clone().unwrap(), 5), Ok(false));
        drop(theirs);
        // Long before the time is over.
        let start = Instant::now();
        assert!(hear(ours, u16::MAX).unwrap_err().contains("has ended"));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
