//! `start`, `kill`, `pause`, `resume` and `delete`.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::driver::{Driver, ignore_gone};
use super::error::{Result, RuntimeError};
use super::hooks::{self, HookState};
use super::state::{Container, State, Status, Store};
use crate::model::ContainerId;

/// How long a killed init may take to end.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Starts the user's program in a created container.
///
/// # Errors
/// `AlreadyRunning`, `StartStopped`, `StartIn`, `Io`, or `Hook` of a poststart hook (the container is killed then).
pub fn start(container: &Container) -> Result<()> {
    match container.status() {
        Status::Created => {}
        Status::Running => return Err(RuntimeError::AlreadyRunning),
        Status::Stopped => return Err(RuntimeError::StartStopped),
        other => return Err(RuntimeError::StartIn(other)),
    }
    let socket = container.start_socket();
    let result = connect(&socket).and_then(|mut stream| stream.write_all(b"start"));
    // From here on the container counts as running; a second `start` finds no socket.
    let removed = std::fs::remove_file(&socket);
    match result {
        // Init stopped listening: another `start` was faster, or it died just now.
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(match container.init() {
                Some(_) => RuntimeError::AlreadyRunning,
                None => RuntimeError::StartStopped,
            });
        }
        other => other.map_err(|err| RuntimeError::io("start through", &socket, err))?,
    }
    match removed {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        other => other.map_err(|err| RuntimeError::io("remove", &socket, err))?,
    }
    let config = container.config()?;
    let poststart = hooks::of_kind(&config, "poststart")?;
    hooks::run(
        &poststart,
        &HookState::new(&container.state, Status::Running),
        &[],
    )
    .map_err(|reason| {
        if let Some(init) = container.init() {
            // The hook's failure is the one to tell.
            let _ = init.signal(libc::SIGKILL);
        }
        RuntimeError::Hook {
            kind: "poststart",
            reason,
        }
    })
}

/// Connects to a Unix socket whose path may be longer than the 107 bytes that an address holds.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let err = match UnixStream::connect(path) {
        Err(err) if err.kind() == io::ErrorKind::InvalidInput => err,
        other => return other,
    };
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(err);
    };
    // By its name alone, from its folder. This process has one thread, so nobody sees the detour.
    let back = std::env::current_dir()?;
    std::env::set_current_dir(dir)?;
    let stream = UnixStream::connect(name);
    std::env::set_current_dir(back)?;
    stream
}

/// Sends a signal to the init process, or with `all` to every process of the container.
///
/// # Errors
/// `NotRunning` when init has ended (and `all` is not given), `Kernel` when the signal is refused.
pub fn kill(container: &Container, signal: i32, all: bool) -> Result<()> {
    let cgroup = &container.state.cgroup;
    if all {
        if container.state.cgroup_shared {
            return Err(RuntimeError::Unsupported(
                "kill --all: the container's cgroup holds processes of others".to_owned(),
            ));
        }
        return Ok(cgroup.signal_all(signal).or_else(ignore_gone)?);
    }
    let init = container.init().ok_or(RuntimeError::NotRunning)?;
    match init.signal(signal) {
        Err(err) if err.is_gone() => return Err(RuntimeError::NotRunning),
        other => other?,
    }
    if signal == libc::SIGKILL && cgroup.is_frozen() {
        // A frozen process of cgroup v1 dies only once it is thawed.
        cgroup.thaw()?;
    }
    Ok(())
}

/// Freezes all processes of a running or created container.
///
/// # Errors
/// `NotRunning`, or `Kernel`.
pub fn pause(container: &Container) -> Result<()> {
    match container.status() {
        Status::Running | Status::Created => Ok(container.state.cgroup.freeze()?),
        _ => Err(RuntimeError::NotRunning),
    }
}

/// Thaws a paused container.
///
/// # Errors
/// `NotPaused`, or `Kernel`.
pub fn resume(container: &Container) -> Result<()> {
    match container.status() {
        Status::Paused => Ok(container.state.cgroup.thaw()?),
        _ => Err(RuntimeError::NotPaused),
    }
}

/// Removes a container that has stopped or was never started; with `force`, in any state.
///
/// # Errors
/// `NotFound` (not with `force`), `NotStopped`, `StillRunning`, `Hook`, `Kernel`, `Io`.
pub fn delete(store: &Store, id: &ContainerId, force: bool) -> Result<()> {
    let container = match store.load(id) {
        Ok(container) => container,
        Err(err) => return remove_remains(store, id, force, err),
    };
    match container.status() {
        Status::Stopped => {}
        status if force || status == Status::Created => end(&container, status)?,
        status => {
            return Err(RuntimeError::NotStopped {
                id: id.to_string(),
                status,
            });
        }
    }
    remove(&container)
}

/// Removes what is remembered of a stopped container, its control group and all processes left in it.
pub(super) fn remove(container: &Container) -> Result<()> {
    let state = &container.state;
    let driver = Driver::of(state.systemd_unit.as_ref());
    driver.remove(&state.cgroup, &state.id, !state.cgroup_shared)?;
    let hook_result = match container.config() {
        Ok(config) => run_poststop(&config, state),
        // The creation was cut off before there was a configuration: no hook has run either.
        Err(_) => Ok(()),
    };
    container.folder.remove()?;
    hook_result
}

/// A creation that was cut off can leave a folder without a usable record.
fn remove_remains(store: &Store, id: &ContainerId, force: bool, err: RuntimeError) -> Result<()> {
    let folder = store.folder(id);
    match (err, folder) {
        (RuntimeError::NotFound, None) if force => Ok(()),
        (RuntimeError::NotFound, Some(folder)) => {
            folder.remove()?;
            if force {
                Ok(())
            } else {
                Err(RuntimeError::NotFound)
            }
        }
        // With force even a record that cannot be read goes; what it says of processes is lost either way.
        (err @ RuntimeError::Json { .. }, Some(folder)) if force => {
            tracing::warn!(%err, "record removed unread");
            folder.remove()
        }
        (err, _) => Err(err),
    }
}

fn end(container: &Container, status: Status) -> Result<()> {
    let Some(init) = container.init() else {
        return Ok(());
    };
    init.signal(libc::SIGKILL).or_else(ignore_gone)?;
    if status == Status::Paused {
        container.state.cgroup.thaw()?;
    }
    if init.wait_ended(END_PATIENCE)? {
        Ok(())
    } else {
        Err(RuntimeError::StillRunning)
    }
}

/// Runs the poststop hooks; a failing one is warned of and the others still run (runtime-spec, "Poststop").
pub(super) fn run_poststop(config: &Value, state: &State) -> Result<()> {
    let state = HookState::new(state, Status::Stopped);
    for hook in hooks::of_kind(config, "poststop")? {
        if let Err(reason) = hooks::run(&[hook], &state, &[]) {
            tracing::warn!("error running poststop {reason}");
        }
    }
    Ok(())
}
