//! `exec`: another process in a running container.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::Pid;
use serde_json::{Map, Value, json};

use super::bundle::{Bundle, check_process, known_capabilities, supported_capabilities};
use super::create::{
    Io, adjust_stdio, check_preserved, console, seccomp_agent, terminal_size, user, write_pid_file,
};
use super::error::{Result, RuntimeError};
use super::launch::{Launch, Steps};
use super::lifecycle::connect;
use super::state::{Container, Status};
use crate::kernel::cgroup::Cgroup;
use crate::kernel::process;

/// What to run and how. Fields that are not given come from the container's own process.
#[derive(Debug, Default)]
pub struct ExecOptions {
    /// A file with the process as JSON; the fields below, `pid_file` and so on aside, do not apply then.
    pub process: Option<PathBuf>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`, added to the container's own.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// `UID[:GID]`.
    pub user: Option<String>,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// Give the process a terminal.
    pub tty: bool,
    /// Capabilities added to the container's own.
    pub capabilities: Vec<String>,
    /// Never gain privileges by execve.
    pub no_new_privs: bool,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub process_label: Option<String>,
    /// Also when the container is paused.
    pub ignore_paused: bool,
    /// Control group below the container's own.
    pub cgroup: Vec<String>,
    /// File that gets the process id.
    pub pid_file: Option<PathBuf>,
    /// Unix socket that gets the terminal.
    pub console_socket: Option<PathBuf>,
    /// How many descriptors after standard error the program inherits.
    pub preserve_fds: u32,
    /// Leave the process running and return.
    pub detach: bool,
}

/// The field of `linux` that holds the memory policy.
const MEMORY_POLICY: &str = "memoryPolicy";

/// Namespaces that an exec'ed process joins, in runtime-spec and in kernel terms.
const NAMESPACES: [(&str, &str); 8] = [
    ("user", "user"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("network", "net"),
    ("pid", "pid"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// Starts a process in a running container and returns its id.
///
/// # Errors
/// `ExecIn` for a container that does not run, `Start` when the process cannot be started.
pub(super) fn exec_with(container: &Container, options: &ExecOptions, io: Io) -> Result<Pid> {
    let init = match container.status() {
        Status::Running | Status::Created => container.init(),
        Status::Paused if options.ignore_paused => container.init(),
        status => return Err(RuntimeError::ExecIn(status)),
    };
    let init = init.ok_or(RuntimeError::ExecIn(Status::Stopped))?;
    let state = &container.state;
    // Paths of the bundle are relative to it, as at creation.
    let _ = std::env::set_current_dir(&state.bundle);
    let mut config = container.config()?;
    let process = process_of(&config, options)?;
    check_process(&process)?;
    check_preserved(options.preserve_fds)?;
    let console = console(&process, options.console_socket.as_deref(), &io)?;
    let size = terminal_size(&process).filter(|_| console.is_some());
    if let Some(config) = config.as_object_mut() {
        config.insert(
            "process".to_owned(),
            inherit(process, config.get("process")),
        );
        config.remove("hooks");
    }
    let placement = state.placement.as_ref();
    let policy = placement.and_then(|placement| placement.policy.clone());
    if policy.is_some()
        && let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut)
    {
        // As at creation: the engine would fail where the kernel refuses it.
        linux.remove(MEMORY_POLICY);
    }
    join_namespaces(&mut config, init.pid());
    let spec = Bundle::engine_spec(&config, &state.rootfs, Vec::new())?;
    let mut workload = Bundle::workload(&config)?;
    workload.seccomp_agent = seccomp_agent(workload.seccomp.as_ref())?;
    // Done once, for the whole container.
    workload.readonly_paths.clear();
    workload.masked_paths.clear();
    workload.new_network = false;
    workload.memory_policy = policy;
    let user = user(workload.uid, &spec);
    let mut steps = JoinContainer {
        cgroup: state.cgroup.clone(),
        below: options.cgroup.clone(),
        init: init.pid(),
    };
    let start_socket = container
        .folder
        .path()
        .join(format!("exec-{}.sock", std::process::id()));
    let remove_socket = RemoveOnDrop(&start_socket);
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)
        .map_err(|err| RuntimeError::Sys("make a pipe", err.into()))?;
    let pid = Launch {
        id: &state.id,
        rootfs: &state.rootfs,
        spec,
        workload,
        engine_state: None,
        start_socket: start_socket.clone(),
        console,
        stdio: io.stdio,
        preserve_fds: options.preserve_fds,
        no_pivot: false,
        exec_error: Some(&writer),
        steps: &mut steps,
    }
    .run()?;
    adjust_stdio(pid.as_raw(), user, size);
    let released = write_pid_file(options.pid_file.as_deref(), pid.as_raw()).and_then(|()| {
        // The process waits until the connection is closed.
        connect(&start_socket)
            .map(drop)
            .map_err(|err| RuntimeError::io("start through", &start_socket, err))
    });
    if let Err(err) = released {
        // It would wait for its start for ever.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(pid, None);
        return Err(err);
    }
    drop(remove_socket);
    drop(writer);
    let mut failure = String::new();
    // A successful execve closes the other end without a word.
    let _ = File::from(reader).read_to_string(&mut failure);
    if failure.is_empty() {
        Ok(pid)
    } else {
        let _ = nix::sys::wait::waitpid(pid, None);
        Err(RuntimeError::Start(failure))
    }
}

/// Removes a file when it goes out of scope.
struct RemoveOnDrop<'a>(&'a Path);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = std::fs::remove_file(self.0);
    }
}

struct JoinContainer {
    cgroup: Cgroup,
    below: Vec<String>,
    init: i32,
}

impl Steps for JoinContainer {
    fn join(&mut self, stage: i32) -> Result<()> {
        let target = self
            .cgroup
            .below(&self.below)
            .map_err(RuntimeError::Cgroup)?;
        match target.attach(stage) {
            // On v2 a container that manages its own cgroups has moved its processes down, and the
            // kernel lets none in at the top: go where init is (cgroup-v2, "No Internal Process Constraint").
            Err(err) if self.below.is_empty() => {
                let hierarchies = crate::kernel::cgroup::Hierarchies::probe()?;
                Cgroup::of_process(&hierarchies, self.init)?
                    .attach(stage)
                    .map_err(|_| RuntimeError::Cgroup(err))
            }
            other => other.map_err(RuntimeError::Cgroup),
        }
    }

    fn limit(&mut self, _init: i32) -> Result<()> {
        Ok(())
    }

    fn mounted(&mut self, _init: i32) -> Result<()> {
        Ok(())
    }
}

/// What a process does not say for itself it has from the container.
fn inherit(mut process: Value, own: Option<&Value>) -> Value {
    for key in ["capabilities", "oomScoreAdj"] {
        let from = own.and_then(|own| own.get(key));
        if let (Some(fields), Some(from)) = (process.as_object_mut(), from)
            && fields.get(key).is_none_or(Value::is_null)
        {
            fields.insert(key.to_owned(), from.clone());
        }
    }
    process
}

/// The process to run, as JSON of the runtime-spec.
fn process_of(config: &Value, options: &ExecOptions) -> Result<Value> {
    if let Some(path) = &options.process {
        let bytes = std::fs::read(path).map_err(|err| RuntimeError::io("read", path, err))?;
        return serde_json::from_slice(&bytes)
            .map_err(|err| RuntimeError::json(path.display().to_string(), err));
    }
    let mut process = config.get("process").cloned().unwrap_or(Value::Null);
    let Some(fields) = process.as_object_mut() else {
        return Err(RuntimeError::InvalidSpec(
            "process property must not be empty".to_owned(),
        ));
    };
    fields.insert("args".to_owned(), json!(options.args));
    fields.insert("terminal".to_owned(), json!(options.tty));
    fields.remove("consoleSize");
    if let Some(cwd) = &options.cwd {
        fields.insert("cwd".to_owned(), json!(cwd));
    }
    if let Some(profile) = &options.apparmor {
        fields.insert("apparmorProfile".to_owned(), json!(profile));
    }
    if let Some(label) = &options.process_label {
        fields.insert("selinuxLabel".to_owned(), json!(label));
    }
    if options.no_new_privs {
        fields.insert("noNewPrivileges".to_owned(), json!(true));
    }
    if !options.env.is_empty() {
        let env = fields.entry("env").or_insert_with(|| json!([]));
        if let Some(env) = env.as_array_mut() {
            env.extend(options.env.iter().map(|entry| json!(entry)));
        }
    }
    if !options.capabilities.is_empty() {
        add_capabilities(fields, &options.capabilities)?;
    }
    set_user(fields, options)?;
    Ok(process)
}

fn set_user(process: &mut Map<String, Value>, options: &ExecOptions) -> Result<()> {
    let user = process
        .entry("user")
        .or_insert_with(|| json!({"uid": 0, "gid": 0}));
    let Some(user) = user.as_object_mut() else {
        return Err(RuntimeError::InvalidSpec(
            "process.user is not an object".to_owned(),
        ));
    };
    if let Some(text) = &options.user {
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (text.as_str(), None),
        };
        user.insert("uid".to_owned(), json!(number(uid, "uid", text)?));
        if let Some(gid) = gid {
            user.insert("gid".to_owned(), json!(number(gid, "gid", text)?));
        }
    }
    if !options.additional_gids.is_empty() {
        let gids = user.entry("additionalGids").or_insert_with(|| json!([]));
        if let Some(gids) = gids.as_array_mut() {
            gids.extend(options.additional_gids.iter().map(|gid| json!(gid)));
        }
    }
    Ok(())
}

fn number(text: &str, what: &str, all: &str) -> Result<u32> {
    text.parse().map_err(|_| {
        RuntimeError::Usage(format!(
            "parsing {text:?} as int for {what} failed: invalid user {all:?}, want UID[:GID]"
        ))
    })
}

/// Adds to the bounding, effective and permitted sets; to the ambient set only where the container has
/// inheritable capabilities, which are never set from outside (GHSA-f3fp-gc8g-vw66).
fn add_capabilities(process: &mut Map<String, Value>, names: &[String]) -> Result<()> {
    let names = known_capabilities(
        names.iter().map(|name| json!(name)).collect(),
        &supported_capabilities(),
    );
    let sets = process.entry("capabilities").or_insert_with(|| json!({}));
    let Some(sets) = sets.as_object_mut() else {
        return Err(RuntimeError::InvalidSpec(
            "process.capabilities is not an object".to_owned(),
        ));
    };
    let inheritable = sets
        .get("inheritable")
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty());
    let mut kinds = vec!["bounding", "effective", "permitted"];
    if inheritable {
        kinds.push("ambient");
    }
    for kind in kinds {
        let list = sets.entry(kind).or_insert_with(|| json!([]));
        let Some(list) = list.as_array_mut() else {
            continue;
        };
        for name in &names {
            if !list.contains(name) {
                list.push(name.clone());
            }
        }
    }
    Ok(())
}

/// Points every namespace of the configuration to the one that init is in.
fn join_namespaces(config: &mut Value, init: i32) {
    let Some(list) = config
        .pointer_mut("/linux/namespaces")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    for namespace in list.iter_mut() {
        let kind = namespace
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let Some((_, file)) = NAMESPACES.iter().find(|(name, _)| *name == kind) else {
            continue;
        };
        let path = process::namespace_path(init, file);
        if let Some(namespace) = namespace.as_object_mut() {
            namespace.insert("path".to_owned(), json!(path));
        }
    }
    if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
        // Set once, for the whole container.
        for done in ["timeOffsets", "netDevices", "devices", "sysctl"] {
            linux.remove(done);
        }
    }
}

/// Two ends of a pipe that programs inherit: no close-on-exec.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|err| RuntimeError::Sys("make a pipe", err.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Value {
        json!({"process": {
            "args": ["old"], "env": ["A=1"], "cwd": "/", "terminal": true,
            "user": {"uid": 1, "gid": 2},
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": []}
        }, "linux": {"namespaces": [{"type": "pid"}, {"type": "mount", "path": "/x"}], "sysctl": {"a": "b"}}})
    }

    fn options() -> ExecOptions {
        ExecOptions {
            args: vec!["new".to_owned()],
            ..ExecOptions::default()
        }
    }

    #[test]
    fn what_is_not_given_comes_from_the_container() {
        let process = process_of(&config(), &options()).unwrap();
        assert_eq!(process["args"], json!(["new"]));
        assert_eq!(process["terminal"], json!(false));
        assert_eq!(process["env"], json!(["A=1"]));
        assert_eq!(process["user"], json!({"uid": 1, "gid": 2}));
    }

    #[test]
    fn a_user_without_group_keeps_the_group() {
        let mut options = options();
        options.user = Some("7".to_owned());
        let process = process_of(&config(), &options).unwrap();
        assert_eq!(process["user"], json!({"uid": 7, "gid": 2}));
        options.user = Some("root".to_owned());
        assert!(process_of(&config(), &options).is_err());
    }

    #[test]
    fn added_capabilities_are_never_inheritable() {
        let mut options = options();
        options.capabilities = vec!["CAP_NET_RAW".to_owned(), "CAP_KILL".to_owned()];
        let process = process_of(&config(), &options).unwrap();
        let sets = &process["capabilities"];
        assert_eq!(sets["bounding"], json!(["CAP_KILL", "CAP_NET_RAW"]));
        assert_eq!(sets["permitted"], json!(["CAP_NET_RAW", "CAP_KILL"]));
        assert!(sets.get("ambient").is_none());
        assert!(sets.get("inheritable").is_none());
    }

    #[test]
    fn every_namespace_leads_to_init() {
        let mut config = config();
        join_namespaces(&mut config, 42);
        let list = config["linux"]["namespaces"].as_array().unwrap();
        assert_eq!(list[0]["path"], "/proc/42/ns/pid");
        assert_eq!(list[1]["path"], "/proc/42/ns/mnt");
        assert!(config["linux"].get("sysctl").is_none());
    }
}
