//! The parent's part in bringing a process to the point where it waits for `start`.
//!
//! Three processes take part. The *parent* is this command. The *stage* process joins or makes the user,
//! time and process id namespaces, which take effect for children only, forks the *init* process and ends; init
//! becomes a child of the parent (child subreaper, prctl(2)). Init runs libcontainer's
//! `container_init_process`, which makes everything else and then waits on the start socket. The other two are in
//! the module `stage`.
//!
//! libcontainer's own parent and intermediate processes are not used: they join one cgroup path in every v1
//! hierarchy, leave `name=systemd` and the hybrid v2 hierarchy out, and count themselves against the
//! container's own limit of processes. docs/adr/0001-engine.md has the measurements.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcgroups::common::CgroupConfig;
use libcontainer::channel::ChannelError as BaseChannelError;
use libcontainer::container::{Container as EngineContainer, State as EngineState};
use libcontainer::network::network_device::dev_change_net_namespace;
use libcontainer::notify_socket::NotifyListener;
use libcontainer::process::args::{ContainerArgs, ContainerType};
use libcontainer::process::channel::ChannelError;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

use super::account;
use super::error::{Result, RuntimeError, chain};
use super::handshake::{ASK_MAPPING, ASK_TIME_OFFSETS, Channels, INIT_PID, answer};
use super::stage::stage_process;
use super::workload::Workload;
use crate::kernel::process;

/// Everything a launch needs.
pub(super) struct Launch<'a> {
    pub(super) id: &'a str,
    pub(super) rootfs: &'a Path,
    pub(super) spec: Spec,
    pub(super) workload: Workload,
    /// State that createContainer hooks get; `None` for exec.
    pub(super) engine_state: Option<EngineState>,
    /// Where the process will wait for `start`.
    pub(super) start_socket: PathBuf,
    pub(super) console: Option<OwnedFd>,
    pub(super) stdio: Stdio,
    pub(super) preserve_fds: u32,
    pub(super) no_pivot: bool,
    /// For exec: the write end on which a failure after `start` is reported; closed by a successful execve.
    pub(super) exec_error: Option<&'a OwnedFd>,
    /// What the caller does with the processes on the way.
    pub(super) steps: &'a mut dyn Steps,
}

/// The caller's part of a launch.
pub(super) trait Steps {
    /// The stage process exists and waits: move it into the container's control groups, children follow.
    ///
    /// # Errors
    /// Ends the launch.
    fn join(&mut self, stage: i32) -> Result<()>;

    /// The init process exists and waits, the stage process is gone: record it, set its limits.
    ///
    /// # Errors
    /// Ends the launch.
    fn limit(&mut self, init: i32) -> Result<()>;

    /// Init has made its mounts and waits before it changes its root. Not called for exec.
    ///
    /// # Errors
    /// Ends the launch.
    fn mounted(&mut self, init: i32) -> Result<()>;
}

/// Descriptors for standard input, output and error; `None` keeps the caller's.
#[derive(Debug, Default)]
pub(super) struct Stdio {
    pub(super) input: Option<OwnedFd>,
    pub(super) output: Option<OwnedFd>,
    pub(super) error: Option<OwnedFd>,
}

impl Launch<'_> {
    /// Starts the process and returns its id once it waits for `start`.
    ///
    /// # Errors
    /// `Start` with the reason; no process is left then.
    pub(super) fn run(self) -> Result<Pid> {
        let Self {
            id,
            rootfs,
            spec,
            workload,
            engine_state,
            start_socket,
            console,
            stdio,
            preserve_fds,
            no_pivot,
            exec_error,
            steps,
        } = self;
        nix::sys::prctl::set_child_subreaper(true)
            .map_err(|err| RuntimeError::Sys("become child subreaper", err.into()))?;
        let listener = NotifyListener::new(&start_socket).map_err(|err| start_error(&err))?;
        let is_init = exec_error.is_none();
        let mut args = ContainerArgs {
            container_type: match exec_error {
                None => ContainerType::InitContainer,
                Some(fd) => ContainerType::TenantContainer {
                    exec_notify_fd: fd.as_raw_fd(),
                },
            },
            syscall: SyscallType::default(),
            spec: Rc::new(spec),
            rootfs: rootfs.to_path_buf(),
            console_socket: console.as_ref().map(AsRawFd::as_raw_fd),
            notify_listener: listener,
            preserve_fds: i32::try_from(preserve_fds).unwrap_or(i32::MAX),
            container: engine_state.map(|state| EngineContainer {
                state,
                root: start_socket
                    .parent()
                    .map(Path::to_path_buf)
                    .unwrap_or_default(),
            }),
            user_ns_config: None,
            // Not used by the init process; the control groups are ours.
            cgroup_config: CgroupConfig {
                cgroup_path: PathBuf::new(),
                systemd_cgroup: false,
                container_name: id.to_owned(),
            },
            detached: true,
            executor: Box::new(workload),
            no_pivot,
            stdin: stdio.input.as_ref().map(AsRawFd::as_raw_fd),
            stdout: stdio.output.as_ref().map(AsRawFd::as_raw_fd),
            stderr: stdio.error.as_ref().map(AsRawFd::as_raw_fd),
            as_sibling: false,
            pid_file: None,
        };
        let mut channels = Channels::new().map_err(|err| start_error(&err))?;
        let (mut ours, theirs) =
            UnixStream::pair().map_err(|err| RuntimeError::Sys("make a socket pair", err))?;

        let stage = process::fork(|| {
            // Held here it would hide the parent's death from us.
            let _ = nix::unistd::close(ours.as_raw_fd());
            stage_process(&mut args, &mut channels, theirs.as_raw_fd())
        })
        .map_err(|err| RuntimeError::Sys("fork", err))?;
        drop(theirs);

        let mut parent = Parent {
            spec: Rc::clone(&args.spec),
            init: None,
            stage: Some(stage),
        };
        let result = parent.drive(&mut ours, &mut channels, steps, is_init);
        // With it goes our copy of the start socket, which belongs to the waiting process alone.
        drop(args);
        match result {
            Ok(pid) => {
                parent.init = None;
                Ok(pid)
            }
            Err(err) => {
                parent.kill();
                Err(explain(err, account::take()))
            }
        }
    }
}

fn stage_gone(err: std::io::Error) -> RuntimeError {
    RuntimeError::Sys("the process ended while its namespaces were set up", err)
}

fn start_error(err: &(dyn std::error::Error + 'static)) -> RuntimeError {
    RuntimeError::Start(chain(err))
}

/// Adds libcontainer's own account to a failure that it reports in one or two words.
fn explain(err: RuntimeError, account: Option<String>) -> RuntimeError {
    let RuntimeError::Start(text) = err else {
        return err;
    };
    let text = text.replace(
        "hook command exited with non-zero exit code: ",
        "exit status ",
    );
    // Errors of our own last steps are complete; libcontainer has no account of them that says more.
    let account =
        account.filter(|account| !account.contains("failed to initialize container process"));
    RuntimeError::Start(match account {
        Some(account) if !account.contains(&text) => format!("{account}: {text}"),
        _ => text,
    })
}

/// The parent's side.
struct Parent {
    spec: Rc<Spec>,
    init: Option<Pid>,
    stage: Option<Pid>,
}

impl Parent {
    fn drive(
        &mut self,
        stage_socket: &mut UnixStream,
        channels: &mut Channels,
        steps: &mut dyn Steps,
        is_init: bool,
    ) -> Result<Pid> {
        // A copy of these ends here would hide from us, and from init, that the other side is gone.
        channels
            .to_parent
            .close()
            .map_err(|err| start_error(&err))?;
        channels
            .from_parent
            .close()
            .map_err(|err| start_error(&err))?;
        let stage = self.stage.unwrap_or_else(|| Pid::from_raw(0));
        steps.join(stage.as_raw())?;
        answer(stage_socket).map_err(stage_gone)?;
        let init = self.serve_stage(stage_socket, stage)?;
        self.init = Some(init);
        let _ = waitpid(stage, None);
        self.stage = None;
        steps.limit(init.as_raw())?;
        // Both have the other end of this socket; the stage process is gone, so init is the one that reads.
        answer(stage_socket).map_err(stage_gone)?;
        stage_socket
            .write_all(&init.as_raw().to_ne_bytes())
            .map_err(|err| RuntimeError::Sys("write to the init process", err))?;
        if is_init {
            channels
                .from_init
                .wait_for_hook_request()
                .map_err(channel_error)?;
            steps.mounted(init.as_raw())?;
            channels
                .to_init
                .hook_done()
                .map_err(|err| start_error(&err))?;
        }
        self.move_network_devices(channels, init)?;
        // From here on init must see the end of the channel if we die.
        channels.to_init.close().map_err(|err| start_error(&err))?;
        channels
            .from_init
            .wait_for_init_ready()
            .map_err(channel_error)?;
        channels
            .from_init
            .close()
            .map_err(|err| start_error(&err))?;
        Ok(init)
    }

    fn serve_stage(&self, socket: &mut UnixStream, stage: Pid) -> Result<Pid> {
        loop {
            let mut kind = [0_u8];
            if socket.read_exact(&mut kind).is_err() {
                return Err(RuntimeError::Start(
                    "the process ended while its namespaces were set up".to_owned(),
                ));
            }
            match kind {
                [ASK_MAPPING] => {
                    let linux = self.spec.linux().as_ref();
                    let uids = id_map(linux.and_then(|l| l.uid_mappings().as_deref()));
                    let gids = id_map(linux.and_then(|l| l.gid_mappings().as_deref()));
                    let privileged = nix::unistd::geteuid().is_root();
                    process::write_id_maps(stage.as_raw(), &uids, &gids, privileged)?;
                    answer(socket).map_err(stage_gone)?;
                }
                [ASK_TIME_OFFSETS] => {
                    process::write_time_offsets(stage.as_raw(), &time_offsets(&self.spec))?;
                    answer(socket).map_err(stage_gone)?;
                }
                [INIT_PID] => {
                    let mut pid = [0_u8; 4];
                    socket
                        .read_exact(&mut pid)
                        .map_err(|err| RuntimeError::Sys("read from the stage process", err))?;
                    // Written by the stage process in the parent's process id namespace.
                    return Ok(Pid::from_raw(i32::from_ne_bytes(pid)));
                }
                _ => {
                    let mut text = String::new();
                    let _ = socket.read_to_string(&mut text);
                    return Err(RuntimeError::Start(text));
                }
            }
        }
    }

    fn namespace(&self, kind: LinuxNamespaceType) -> Option<Option<PathBuf>> {
        self.spec
            .linux()
            .as_ref()?
            .namespaces()
            .as_ref()?
            .iter()
            .find(|ns| ns.typ() == kind)
            .map(|ns| ns.path().clone())
    }

    fn move_network_devices(&self, channels: &mut Channels, init: Pid) -> Result<()> {
        let devices = self
            .spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.net_devices().as_ref())
            .filter(|devices| !devices.is_empty());
        let Some(devices) = devices else {
            return Ok(());
        };
        let Some(path) = self.namespace(LinuxNamespaceType::Network) else {
            return Ok(());
        };
        channels
            .from_init
            .wait_for_network_setup_ready()
            .map_err(channel_error)?;
        let path = path.unwrap_or_else(|| process::namespace_path(init.as_raw(), "net"));
        let namespace = File::open(&path)
            .map_err(|err| RuntimeError::io("open network namespace", &path, err))?;
        let mut addresses = HashMap::new();
        for (name, device) in devices {
            let moved =
                dev_change_net_namespace(name, namespace.as_raw_fd(), device).map_err(|err| {
                    RuntimeError::Start(format!("move network device {name}: {}", chain(&err)))
                })?;
            addresses.insert(name.clone(), moved);
        }
        channels
            .to_init
            .move_network_device(addresses)
            .map_err(|err| start_error(&err))
    }

    /// Ends what was started.
    fn kill(&mut self) {
        for pid in [self.stage.take(), self.init.take()].into_iter().flatten() {
            // Gone is as good as killed.
            let _ = process::signal_pid(pid.as_raw(), libc::SIGKILL);
            let _ = waitpid(pid, None);
        }
        // An init whose id never reached us is a child of ours by now, if it exists.
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {
        }
    }
}

/// The reason that init or its channel gives.
fn channel_error(err: ChannelError) -> RuntimeError {
    match err {
        ChannelError::ExecError(text) => {
            let text = text
                .strip_prefix("error in executing process : ")
                .unwrap_or(&text);
            RuntimeError::Start(text.to_owned())
        }
        // Some waits do not expect the message of a failure and report it as a surprise.
        ChannelError::UnexpectedMessage { received, .. } => {
            let text = format!("{received:?}");
            let inner = text
                .strip_prefix("ExecFailed(\"")
                .and_then(|text| text.strip_suffix("\")"))
                .map(|text| text.replace("\\\"", "\""));
            RuntimeError::Start(inner.unwrap_or(text))
        }
        ChannelError::ReceiveError { source, .. } if is_end(&source) => {
            RuntimeError::Start("container init ended unexpectedly".to_owned())
        }
        err => start_error(&err),
    }
}

fn is_end(err: &BaseChannelError) -> bool {
    !matches!(err, BaseChannelError::Nix(_))
}

/// Lines `INSIDE OUTSIDE LENGTH` (user_namespaces(7)).
fn id_map(mappings: Option<&[LinuxIdMapping]>) -> String {
    let mut text = String::new();
    for map in mappings.into_iter().flatten() {
        text.push_str(&format!(
            "{} {} {}\n",
            map.container_id(),
            map.host_id(),
            map.size()
        ));
    }
    text
}

/// Lines `CLOCK SECONDS NANOSECONDS` (time_namespaces(7)).
fn time_offsets(spec: &Spec) -> String {
    let offsets = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.time_offsets().as_ref());
    let mut text = String::new();
    for (clock, offset) in offsets.into_iter().flatten() {
        text.push_str(&format!(
            "{clock} {} {}\n",
            offset.secs().unwrap_or(0),
            offset.nanosecs().unwrap_or(0)
        ));
    }
    text
}
