//! `create`: from a bundle to a container that waits for `start`.

use std::fs::Permissions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::container::{ContainerStatus as EngineStatus, State as EngineState};
use libcontainer::seccomp::is_notify;
use libcontainer::utils::validate_spec_for_net_devices;
use libcontainer::validator::Validator;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxResources, LinuxSeccomp, Spec,
};
use pathrs::{InodeType, Root};
use serde_json::Value;

use super::bundle::Bundle;
use super::driver::Driver;
use super::error::{Result, RuntimeError, chain};
use super::hooks::{self, HookState};
use super::inside::{self, INSIDE};
use super::launch::{Launch, Stdio, Steps};
use super::lifecycle::run_poststop;
use super::mounts;
use super::state::{Container, Folder, Init, START_SOCKET, State, Status, Store, write_atomic};
use crate::kernel::cgroup::{Cgroup, Hierarchies};
use crate::kernel::tty::TerminalSize;
use crate::kernel::{keyring, mount, numa, process};
use crate::model::ContainerId;
use crate::model::placement::Placement;

/// It runs all the same.
const NO_SOCKET: &str = "the container gets no control socket";

/// How a container is to be created.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// The bundle folder.
    pub bundle: PathBuf,
    /// Unix socket that gets the container's terminal.
    pub console_socket: Option<PathBuf>,
    /// File that gets the process id of init.
    pub pid_file: Option<PathBuf>,
    /// Change the root by moving the mount, for root file systems on a ramdisk.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors after standard error the program inherits.
    pub preserve_fds: u32,
    /// Use the systemd cgroup driver.
    pub systemd_cgroup: bool,
}

/// Where the terminal and the standard streams of a process come from.
#[derive(Debug, Default)]
pub(super) struct Io {
    /// One end of a socket pair on which a foreground command receives the terminal.
    pub(super) console: Option<OwnedFd>,
    /// Pipes of a foreground command.
    pub(super) stdio: Stdio,
    /// Whether the command stays until the process ends.
    pub(super) foreground: bool,
}

/// Decides where the memory of a container is to lie, and writes that into its configuration; none if nobody wants
/// anything.
pub type Place<'a> = &'a dyn Fn(&mut Value) -> Option<Placement>;

/// What a container that is being created gets beyond its bundle.
#[derive(Clone, Copy)]
pub struct Additions<'a> {
    /// Where its memory is to lie.
    pub place: Place<'a>,
    /// Whether it sees a folder for a control socket, by its configuration.
    pub socket: &'a dyn Fn(&Value) -> bool,
}

impl std::fmt::Debug for Additions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Additions").finish_non_exhaustive()
    }
}

/// Creates a container that waits for `start`.
///
/// # Errors
/// Every variant of [`RuntimeError`] that a bundle or a host can cause. Nothing is left behind then.
pub fn create(
    store: &Store,
    id: &ContainerId,
    options: &CreateOptions,
    additions: Additions<'_>,
) -> Result<Container> {
    create_with(store, id, options, additions, Io::default())
}

pub(super) fn create_with(
    store: &Store,
    id: &ContainerId,
    options: &CreateOptions,
    additions: Additions<'_>,
    io: Io,
) -> Result<Container> {
    let mut bundle = Bundle::open(&options.bundle)?;
    let process = bundle.config.get("process").unwrap_or(&Value::Null);
    let console = console(process, options.console_socket.as_deref(), &io)?;
    let size = terminal_size(process);
    let limits = bundle.limits()?;
    check_preserved(options.preserve_fds)?;
    let mut workload = Bundle::workload(&bundle.config)?;
    // Hooks of the later verbs: a wrong form must show now, not when the container is to be removed.
    for kind in HOOK_KINDS {
        hooks::of_kind(&bundle.config, kind)?;
    }

    let hierarchies = Hierarchies::probe()?;
    let path = bundle.cgroups_path();
    let driver = Driver::choose(
        options.systemd_cgroup,
        path,
        id.as_str(),
        hierarchies.version,
    )?;
    let cgroup = allowed(driver.locate(&hierarchies, path, id.as_str())?)?;
    if cgroup.is_frozen() {
        return Err(RuntimeError::Unsupported(
            "container's cgroup unexpectedly frozen".to_owned(),
        ));
    }
    let mounts = mounts::prepare(&bundle.config, &bundle.rootfs, &cgroup)?;
    let spec = Bundle::engine_spec(&bundle.config, &bundle.rootfs, mounts.list)?;
    validate(&spec)?;
    workload.seccomp_agent = seccomp_agent(workload.seccomp.as_ref())?;
    workload.propagation = mounts.propagation;
    workload.dev = mounts.dev.as_deref().map(detach).transpose()?;
    let shared = !cgroup.is_empty();
    if shared {
        tracing::warn!("container's cgroup is not empty; its other processes are left alone");
    }

    let folder = store.reserve(id)?;
    let mut state = State::new(id, &bundle.path, &bundle.rootfs, cgroup);
    state.annotations = bundle.annotations();
    state.systemd_unit = driver.unit();
    state.cgroup_shared = shared;
    // The engine has its copy already: it would fail where the kernel refuses the policy.
    state.placement = (additions.place)(&mut bundle.config);
    let placement = state.placement.as_ref();
    workload.memory_policy = placement.and_then(|placement| placement.policy.clone());
    if (additions.socket)(&bundle.config) {
        workload.inside = inside::prepare(&bundle.config, &folder)
            .inspect_err(|reason| tracing::warn!(%id, reason, "{NO_SOCKET}"))
            .ok();
    }
    let has_inside = workload.inside.is_some();
    if let Some(version) = bundle.config.get("ociVersion").and_then(Value::as_str) {
        version.clone_into(&mut state.oci_version);
    }
    let mut creation = Creation {
        folder: &folder,
        driver: &driver,
        hierarchies: &hierarchies,
        limits: &limits,
        state,
        done: false,
        bundle: &bundle,
        cwd: workload.cwd.clone(),
        devices: bundle.other_devices()?,
        links: mounts.links,
        has_inside,
    };
    folder.save(&creation.state)?;
    let text =
        serde_json::to_vec(&bundle.config).map_err(|err| RuntimeError::json("config", err))?;
    folder.save_config(&text)?;
    if !options.no_new_keyring {
        join_keyring(id)?;
    }
    let user = user(workload.uid, &spec);
    let mut engine_state = EngineState::new(
        id.as_str(),
        EngineStatus::Creating,
        None,
        bundle.path.clone(),
    );
    creation
        .state
        .oci_version
        .clone_into(&mut engine_state.oci_version);
    engine_state.annotations = Some(creation.state.annotations.clone().into_iter().collect());
    workload.hook_state = Some(HookState::new(&creation.state, Status::Created));
    let has_terminal = console.is_some();
    let init = Launch {
        id: id.as_str(),
        rootfs: &bundle.rootfs,
        spec,
        workload,
        engine_state: Some(engine_state),
        start_socket: folder.path().join(START_SOCKET),
        console,
        stdio: io.stdio,
        preserve_fds: options.preserve_fds,
        no_pivot: options.no_pivot,
        exec_error: None,
        steps: &mut creation,
    }
    .run()?;
    adjust_stdio(init.as_raw(), user, size.filter(|_| has_terminal));
    write_pid_file(options.pid_file.as_deref(), init.as_raw())?;
    check_policy(&creation.state, init.as_raw());
    if has_inside && !inside::is_there(&folder, init.as_raw()) {
        tracing::warn!(%id, reason = format!("{INSIDE} cannot be mounted"), "{NO_SOCKET}");
    }
    creation.done = true;
    Ok(Container {
        folder: folder.clone(),
        state: creation.state.clone(),
    })
}

/// A container runs also without the memory policy that it was to have; that is said.
fn check_policy(state: &State, init: i32) {
    let placement = state.placement.as_ref();
    if placement.is_none_or(|placement| placement.policy.is_none()) {
        return;
    }
    match numa::policy_of(init) {
        Ok(policy) if policy == "default" => {
            tracing::warn!(id = state.id, "the kernel has refused the memory policy");
        }
        Ok(_) => {}
        Err(err) => tracing::debug!(id = state.id, "memory policy not read: {}", chain(&err)),
    }
}

/// A user without privileges may have no control group of their own: the container then stays in the caller's,
/// and limits, if there are any, fail later by name.
fn allowed(mut cgroup: Cgroup) -> Result<Cgroup> {
    if nix::unistd::geteuid().is_root() {
        return Ok(cgroup);
    }
    match cgroup.create() {
        Err(err) if err.is_denied() => {
            tracing::debug!(%err, "no control group of its own");
            cgroup.directories.clear();
        }
        other => other.map_err(RuntimeError::Cgroup)?,
    }
    Ok(cgroup)
}

/// A creation under way; dropped before it is done, it takes everything back.
struct Creation<'a> {
    folder: &'a Folder,
    driver: &'a Driver,
    hierarchies: &'a Hierarchies,
    limits: &'a LinuxResources,
    bundle: &'a Bundle,
    cwd: PathBuf,
    /// Nodes outside /dev.
    devices: Vec<LinuxDevice>,
    links: Vec<(PathBuf, PathBuf)>,
    /// It is to see a folder of ours.
    has_inside: bool,
    state: State,
    done: bool,
}

impl Steps for Creation<'_> {
    fn join(&mut self, stage: i32) -> Result<()> {
        let cgroup = self.state.cgroup.clone();
        self.state.cgroup = self
            .driver
            .join(self.hierarchies, cgroup, &self.state.id, stage)?;
        Ok(())
    }

    fn limit(&mut self, init: i32) -> Result<()> {
        let stat = process::stat(init)?;
        self.state.init = Some(Init {
            pid: init,
            start_time: stat.start_time,
        });
        // Before init goes on: a command killed from here on leaves a record that leads to its process.
        self.folder.save(&self.state)?;
        if self.state.cgroup.directories.is_empty() && *self.limits == LinuxResources::default() {
            return Ok(());
        }
        self.driver
            .apply(&self.state.cgroup, &self.state.id, self.limits)
    }

    fn mounted(&mut self, init: i32) -> Result<()> {
        self.complete_root(init)
            .map_err(|err| RuntimeError::Start(chain(&err)))?;
        let state = HookState::new(&self.state, Status::Creating);
        for kind in ["prestart", "createRuntime"] {
            let hooks = hooks::of_kind(&self.bundle.config, kind)?;
            hooks::run(&hooks, &state, &[])
                .map_err(|reason| RuntimeError::Hook { kind, reason })?;
        }
        Ok(())
    }
}

impl Creation<'_> {
    /// Makes in the container's root, seen through init's mounts, what libcontainer does not make.
    fn complete_root(&self, init: i32) -> std::result::Result<(), pathrs::error::Error> {
        let needs_cwd = self.cwd != Path::new("/");
        if !needs_cwd && self.devices.is_empty() && self.links.is_empty() && !self.has_inside {
            return Ok(());
        }
        let own_mounts = self
            .bundle
            .config
            .pointer("/linux/namespaces")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .any(|namespace| namespace.get("type").and_then(Value::as_str) == Some("mount"));
        let rootfs = &self.bundle.rootfs;
        let seen = if own_mounts {
            process::root_path(init).join(rootfs.strip_prefix("/").unwrap_or(rootfs))
        } else {
            rootfs.clone()
        };
        let root = Root::open(seen)?;
        let folder = Permissions::from_mode(0o755);
        for (name, target) in &self.links {
            root.create(name, &InodeType::Symlink(target.clone()))?;
        }
        for device in &self.devices {
            make_device(&root, device)?;
        }
        if self.has_inside && root.mkdir_all(INSIDE, &folder).is_err() {
            tracing::debug!("{INSIDE} not made");
        }
        // Every runtime makes a working directory that the image lacks. A read-only root refuses; entering
        // it then fails with the better message.
        if needs_cwd
            && root.resolve(&self.cwd).is_err()
            && root.mkdir_all(&self.cwd, &folder).is_err()
        {
            tracing::debug!("working directory not made");
        }
        Ok(())
    }
}

/// Makes a device node with its mode and owner; folders on the way are made too.
fn make_device(root: &Root, device: &LinuxDevice) -> std::result::Result<(), pathrs::error::Error> {
    let path = device.path();
    if let Some(parent) = path.parent() {
        root.mkdir_all(parent, &Permissions::from_mode(0o755))?;
    }
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    let id = nix::sys::stat::makedev(number(device.major()), number(device.minor()));
    let mode = Permissions::from_mode(device.file_mode().unwrap_or(0o666) & 0o7777);
    root.create(
        path,
        &match device.typ() {
            LinuxDeviceType::B => InodeType::BlockDevice(mode.clone(), id),
            LinuxDeviceType::P => InodeType::Fifo(mode.clone()),
            _ => InodeType::CharacterDevice(mode.clone(), id),
        },
    )?;
    if let Ok(handle) = root.resolve(path) {
        // By the descriptor: the path means something else in our own mount namespace.
        let node = process::fd_path(nix::unistd::getpid().as_raw(), handle.as_fd().as_raw_fd());
        // The mask of the caller may have taken bits away; neither is worth failing a container for.
        let _ = std::fs::set_permissions(&node, mode);
        let _ = std::os::unix::fs::chown(&node, device.uid(), device.gid());
    }
    Ok(())
}

impl Drop for Creation<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Some(init) = self.state.init {
            // Created, and then something after it failed.
            if let Ok(handle) = process::ProcessHandle::open(init.pid, init.start_time) {
                let _ = handle.signal(libc::SIGKILL);
            }
            if let Err(err) = run_poststop(&self.bundle.config, &self.state) {
                tracing::warn!(%err, "poststop hook");
            }
        }
        let (cgroup, id) = (&self.state.cgroup, &self.state.id);
        if let Err(err) = self.driver.remove(cgroup, id, !self.state.cgroup_shared) {
            tracing::warn!(%err, "control group left behind");
        }
        if let Err(err) = self.folder.remove() {
            tracing::warn!(%err, "state folder left behind");
        }
    }
}

/// The kinds of hooks (runtime-spec, "POSIX-platform Hooks").
const HOOK_KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// What libcontainer checks before it begins.
fn validate(spec: &Spec) -> Result<()> {
    Validator::validate_spec(spec).map_err(|err| RuntimeError::InvalidSpec(err.to_string()))?;
    validate_spec_for_net_devices(spec, &*libcontainer::syscall::syscall::create_syscall())
        .map_err(|err| RuntimeError::InvalidSpec(err.to_string()))
}

/// The socket over which the process sends its terminal, if it is to have one.
pub(super) fn console(process: &Value, socket: Option<&Path>, io: &Io) -> Result<Option<OwnedFd>> {
    let terminal = process.get("terminal").and_then(Value::as_bool) == Some(true);
    let usage = |text: &str| Err(RuntimeError::Usage(text.to_owned()));
    match (terminal, io.foreground, socket) {
        (true, false, None) => {
            usage("cannot allocate tty if runc will detach without setting console socket")
        }
        (false, _, Some(_)) | (_, true, Some(_)) => {
            usage("cannot use console socket if runc will not detach or allocate tty")
        }
        (true, false, Some(path)) => {
            let socket = UnixStream::connect(path)
                .map_err(|err| RuntimeError::io("connect to console socket", path, err))?;
            Ok(Some(socket.into()))
        }
        (true, true, None) => io
            .console
            .as_ref()
            .map(|fd| fd.as_fd().try_clone_to_owned())
            .transpose()
            .map_err(|err| RuntimeError::Sys("duplicate a descriptor", err)),
        (false, _, None) => Ok(None),
    }
}

/// `process.consoleSize`.
pub(super) fn terminal_size(process: &Value) -> Option<TerminalSize> {
    let side = |key: &str| {
        process
            .pointer(&format!("/consoleSize/{key}"))
            .and_then(Value::as_u64)
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n > 0)
    };
    Some(TerminalSize {
        rows: side("height")?,
        columns: side("width")?,
    })
}

/// Connects to the agent of a seccomp filter: from inside the container its socket is out of sight.
pub(super) fn seccomp_agent(seccomp: Option<&LinuxSeccomp>) -> Result<Option<Rc<OwnedFd>>> {
    let Some(seccomp) = seccomp.filter(|seccomp| is_notify(seccomp)) else {
        return Ok(None);
    };
    let path = seccomp.listener_path().as_ref().ok_or_else(|| {
        RuntimeError::InvalidSpec("seccomp notify needs linux.seccomp.listenerPath".to_owned())
    })?;
    let socket = UnixStream::connect(path)
        .map_err(|err| RuntimeError::io("connect to seccomp agent", path, err))?;
    Ok(Some(Rc::new(socket.into())))
}

fn detach(path: &Path) -> Result<Rc<OwnedFd>> {
    mount::detached_copy(path)
        .map(Rc::new)
        .map_err(|err| RuntimeError::io("copy mounts of", path, err))
}

/// Descriptors that are to be passed on must be open, or the program would get others of the same number.
pub(super) fn check_preserved(count: u32) -> Result<()> {
    let handed = super::workload::listen_fds().unwrap_or(0);
    let first = 3_u32.saturating_add(handed);
    for (index, fd) in (first..first.saturating_add(count)).enumerate() {
        if !process::is_inherited(fd) {
            return Err(RuntimeError::Usage(format!(
                "please check that preserved-fd {index} (of {count}) is present"
            )));
        }
    }
    Ok(())
}

/// The user id on the host under which the program runs.
pub(super) fn user(inside: u32, spec: &Spec) -> u32 {
    let mappings = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.uid_mappings().as_deref());
    host_id(inside, mappings)
}

fn host_id(inside: u32, mappings: Option<&[LinuxIdMapping]>) -> u32 {
    mappings
        .into_iter()
        .flatten()
        .find_map(|map| {
            let offset = inside.checked_sub(map.container_id())?;
            (offset < map.size()).then(|| map.host_id().checked_add(offset))?
        })
        .unwrap_or(inside)
}

/// Gives the standard streams to the program's user and sets the size of its terminal.
///
/// The program may open `/dev/stdout` again, which is checked against the owner. `/dev/null` stays root's.
/// Nothing here can fail a start: a stream on a read-only file system just keeps its owner.
pub(super) fn adjust_stdio(pid: i32, user: u32, size: Option<TerminalSize>) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    if let Some(size) = size {
        let path = process::fd_path(pid, 0);
        let terminal = std::fs::File::options().read(true).write(true).open(path);
        if let Ok(terminal) = terminal
            && let Err(err) = crate::kernel::tty::set_size(terminal.as_fd(), size)
        {
            tracing::debug!(%err, "terminal size not set");
        }
    }
    let null = std::fs::metadata("/dev/null").map(|meta| meta.rdev());
    for fd in 0..3 {
        let path = process::fd_path(pid, fd);
        let Ok(meta) = std::fs::metadata(&path) else {
            continue;
        };
        let is_null =
            meta.file_type().is_char_device() && null.as_ref().is_ok_and(|n| *n == meta.rdev());
        if is_null || meta.uid() == user {
            continue;
        }
        if let Err(err) = std::os::unix::fs::chown(&path, Some(user), None) {
            tracing::debug!(%err, fd, "owner of a standard stream not changed");
        }
    }
}

/// Writes the process id in one step, so that a watcher never reads half of it.
pub(super) fn write_pid_file(path: Option<&Path>, pid: i32) -> Result<()> {
    match path {
        Some(path) => write_atomic(path, pid.to_string().as_bytes(), 0o666),
        None => Ok(()),
    }
}

fn join_keyring(id: &ContainerId) -> Result<()> {
    match keyring::join_session(&format!("_ses.{id}")) {
        // A kernel without keys has none to protect.
        Err(err) if err.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other.map_err(|err| RuntimeError::Sys("join a new session keyring", err)),
    }
}

/// A socket pair: one end for the process to send its terminal on, one to receive it.
pub(super) fn console_pair() -> Result<(OwnedFd, OwnedFd)> {
    let (a, b) = UnixStream::pair().map_err(|err| RuntimeError::Sys("make a socket pair", err))?;
    debug_assert!(a.as_raw_fd() != b.as_raw_fd());
    Ok((a.into(), b.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;

    #[test]
    fn ids_outside_the_mapping_stay_as_they_are() {
        let map = LinuxIdMappingBuilder::default()
            .container_id(0_u32)
            .host_id(100_000_u32)
            .size(1000_u32)
            .build()
            .unwrap();
        assert_eq!(host_id(0, Some(&[map])), 100_000);
        assert_eq!(host_id(999, Some(&[map])), 100_999);
        assert_eq!(host_id(1000, Some(&[map])), 1000);
        assert_eq!(host_id(5, None), 5);
    }

    #[test]
    fn a_terminal_size_needs_both_sides() {
        let process = serde_json::json!({"consoleSize": {"height": 30, "width": 100}});
        let size = terminal_size(&process).unwrap();
        assert_eq!((size.rows, size.columns), (30, 100));
        assert!(terminal_size(&serde_json::json!({"consoleSize": {"height": 30}})).is_none());
    }
}
