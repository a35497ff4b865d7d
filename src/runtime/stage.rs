//! The children's part in bringing a process to the point where it waits for `start`: see the module `launch`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use libcontainer::namespaces::Namespaces;
use libcontainer::process::args::{ContainerArgs, ContainerType};
use libcontainer::process::init::container_init_process;
use libcontainer::syscall::syscall::create_syscall;
use oci_spec::runtime::LinuxNamespaceType;

use super::error::chain;
use super::handshake::{ASK_MAPPING, ASK_TIME_OFFSETS, Channels, ERROR, INIT_PID, ask, expect_go};
use super::workload::set_host_pid;
use crate::kernel::process;

/// What the processes are called until the user's program takes over (at most 15 bytes).
const STAGE_NAME: &std::ffi::CStr = c"elastic:[STAGE]";
const INIT_NAME: &std::ffi::CStr = c"elastic:[INIT]";

/// The stage process; its return value is its exit code.
pub(super) fn stage_process(args: &mut ContainerArgs, channels: &mut Channels, socket: i32) -> i32 {
    let mut socket = UnixStream::from(process::adopt_fd(socket));
    let _ = nix::sys::prctl::set_name(STAGE_NAME);
    match stage(args, channels, &mut socket) {
        Ok(()) => 0,
        Err(text) => {
            // The parent may be gone; then nobody wants to know.
            let _ = socket.write_all(&[ERROR]);
            let _ = socket.write_all(text.as_bytes());
            1
        }
    }
}

type StageResult<T> = std::result::Result<T, String>;

fn stage(
    args: &mut ContainerArgs,
    channels: &mut Channels,
    socket: &mut UnixStream,
) -> StageResult<()> {
    let spec = Rc::clone(&args.spec);
    let linux = spec
        .linux()
        .as_ref()
        .ok_or("linux property must not be empty")?;
    let namespaces =
        Namespaces::try_from(linux.namespaces().as_ref()).map_err(|err| chain(&err))?;
    let get = |kind| namespaces.get(kind).map_err(|err| chain(&err));
    // Until the parent has placed us in the container's control groups.
    expect_go(socket)?;
    let process = spec
        .process()
        .as_ref()
        .ok_or("process property must not be empty")?;
    if let Some(adjust) = process.oom_score_adj() {
        process::set_oom_score_adj(adjust).map_err(|err| chain(&err))?;
    }
    set_dumpable(false)?;
    if let Some(user) = get(LinuxNamespaceType::User)? {
        namespaces
            .unshare_or_setns(user)
            .map_err(|err| chain(&err))?;
        if user.path().is_none() {
            // The maps of a process that cannot be dumped are root's; an unprivileged parent could not write them.
            set_dumpable(true)?;
            ask(socket, ASK_MAPPING)?;
            set_dumpable(false)?;
        }
        become_root()?;
    }
    if let Some(limits) = process.rlimits() {
        let syscall = create_syscall();
        for limit in limits {
            syscall.set_rlimit(limit).map_err(|err| {
                format!("error setting rlimit type {}: {}", limit.typ(), chain(&err))
            })?;
        }
    }
    if let Some(time) = get(LinuxNamespaceType::Time)? {
        namespaces
            .unshare_or_setns(time)
            .map_err(|err| chain(&err))?;
        if time.path().is_none() && linux.time_offsets().as_ref().is_some_and(|o| !o.is_empty()) {
            set_dumpable(true)?;
            ask(socket, ASK_TIME_OFFSETS)?;
            set_dumpable(false)?;
        }
    }
    if let Some(pid) = get(LinuxNamespaceType::Pid)? {
        namespaces
            .unshare_or_setns(pid)
            .map_err(|err| chain(&err))?;
    }
    let init = process::fork(|| init_process(args, channels, socket))
        .map_err(|err| format!("fork: {err}"))?;
    let mut message = vec![INIT_PID];
    message.extend(init.as_raw().to_ne_bytes());
    socket.write_all(&message).map_err(|err| err.to_string())
}

fn set_dumpable(dumpable: bool) -> StageResult<()> {
    nix::sys::prctl::set_dumpable(dumpable).map_err(|err| format!("prctl: {err}"))
}

/// Root inside the user namespace: what follows needs its capabilities.
fn become_root() -> StageResult<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    // Refused where the namespace denies it to unprivileged creators, who then have no groups to drop.
    let _ = setgroups(&[]);
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))
        .and_then(|()| setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)))
        .map_err(|err| format!("become root of the user namespace: {}", err.desc()))
}

/// The init process until execve; its return value is the exit code of a failure.
fn init_process(args: &mut ContainerArgs, channels: &mut Channels, socket: &mut UnixStream) -> i32 {
    let _ = nix::sys::prctl::set_name(INIT_NAME);
    let mut pid = [0_u8; 4];
    if expect_go(socket).is_err() || socket.read_exact(&mut pid).is_err() {
        return 1;
    }
    set_host_pid(i32::from_ne_bytes(pid));
    // These ends belong to the parent; held here they would hide its death from us.
    let _ = channels.to_init.close();
    let _ = channels.from_init.close();
    if let Some(container) = &mut args.container {
        // As hooks inside the container see it.
        container.state.pid = Some(nix::unistd::getpid().as_raw());
    }
    let Err(err) = container_init_process(args, &mut channels.to_parent, &mut channels.from_parent)
    else {
        return 0;
    };
    let text = chain(&err);
    if channels.to_parent.exec_failed(text.clone()).is_ok() {
        return 1;
    }
    // `start` was given: nobody listens on the channel any more.
    match args.container_type {
        ContainerType::TenantContainer { exec_notify_fd } => {
            let mut file = File::from(process::adopt_fd(exec_notify_fd));
            let _ = file.write_all(text.as_bytes());
            255
        }
        ContainerType::InitContainer => {
            let _ = writeln!(io::stderr(), "{text}");
            1
        }
    }
}
