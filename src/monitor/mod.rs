//! Looks after the memory of one container that no shim of ours looks after, as below Docker: a process beside it.
//!
//! `start` leaves it behind ([`leave`]) and goes on once it is ready, or after a moment without it. It ends with the
//! container. Whatever goes wrong here costs a trace, never a container.

use std::collections::HashMap;
use std::io::{PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::config::Config;
use crate::grant::{self, Declared, Prepared};
use crate::kernel::{children, exe, process};
use crate::policy::identity::Facts;
use crate::profile::{Store, StoreError};
use crate::runtime::{self, Container, chain};
use crate::sampler::{Sampler, Subject};

/// How long a start waits for its monitor: longer than the monitor takes on a busy host, and not long for a start.
const PATIENCE: u16 = 50;
/// A container that has lived for so long is worth the work of making its monitor small.
const SHORT: Duration = Duration::from_millis(500);
/// How long the process waits at a time for the end of the container.
const TURN: Duration = Duration::from_secs(3600);

/// Starts a monitor for a container whose program is about to start.
///
/// The monitor goes on in a copy of this process: to execute the program anew, with all that a start reads, would cost
/// several times as much as the monitor itself. Only for a process with a single thread.
///
/// # Errors
/// What failed, for the log; the container has no trace then.
pub fn leave(container: &Container, root: &Path, config: &Config) -> Result<(), String> {
    let fail = |what: &'static str| {
        move |err: std::io::Error| format!("{what}: {}", crate::kernel::reason(&err))
    };
    let (mut ours, theirs) = std::io::pipe().map_err(fail("a pipe to the monitor"))?;
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
    let mut polled = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut polled, PollTimeout::from(PATIENCE)).is_ok_and(|count| count > 0);
    let mut word = [0];
    match ready && ours.read(&mut word).is_ok_and(|count| count == 1) {
        true => Ok(()),
        false => {
            Err("the monitor did not get ready: the trace is missing, or its begin is".to_owned())
        }
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
    let Some(prepared) = prepare(container, root, config)? else {
        // Nothing is to be done, and nobody has to wait for it.
        tell(ready);
        return Ok(());
    };
    let folder = &config.profile_folder.value;
    let sampler = Sampler::start(&folder.join("spool"))?;
    let Prepared { context, plan } = prepared;
    let watched = sampler.watch(Subject {
        cgroup: container.state.cgroup.clone(),
        context,
        plan: plan.mode.grants().then_some(plan),
        publish: None,
    });
    // An error means that there is no trace.
    let _ = watched.started().blocking_recv();
    tell(ready);
    let wait = |time| init.wait_ended(time).map_err(|err| chain(&err));
    if !wait(SHORT)? {
        if let Err(err) = exe::give_up_unused_memory() {
            tracing::debug!("memory not given up: {}", chain(&err));
        }
        while !wait(TURN)? {}
    }
    // How it ended is told to its parent alone.
    let ended = watched.ended(None);
    if let Ok(Some(path)) = ended.written.blocking_recv() {
        match Store::new(folder, config.keep_traces.value).take_in(&path) {
            // A sweep of somebody else was faster.
            Ok(_) | Err(StoreError::Busy(_)) => {}
            Err(err) => return Err(chain(&err)),
        }
    }
    Ok(())
}

/// Says that it is ready, and closes the pipe.
fn tell(mut ready: PipeWriter) {
    // Nobody waits any more if that fails.
    let _ = ready.write_all(&[1]);
}

fn prepare(
    container: &Container,
    root: &Path,
    config: &Config,
) -> Result<Option<Prepared>, String> {
    let spec = container.config().map_err(|err| chain(&err))?;
    let annotations: HashMap<String, String> =
        container.state.annotations.clone().into_iter().collect();
    // Engines give each of their namespaces a folder.
    let namespace = root.file_name().unwrap_or_default().to_string_lossy();
    let environment = texts(&spec, "/process/env");
    let command = texts(&spec, "/process/args");
    let trusted = config.trusted();
    let facts = Facts {
        namespace: &namespace,
        id: &container.state.id,
        annotations: &annotations,
        environment: &environment,
        command: &command,
        trusted: &trusted,
    };
    let declared = Declared::of(&spec);
    Ok(grant::prepare(
        config,
        &facts,
        declared,
        Some(&container.state.cgroup),
    ))
}

fn texts(spec: &Value, pointer: &str) -> Vec<String> {
    let list = spec.pointer(pointer).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|text| Some(text.as_str()?.to_owned()))
        .collect()
}
