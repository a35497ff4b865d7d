//! The last steps before the user's program, inside the container: identity, privileges, environment, execve(2).
//!
//! libcontainer sets up namespaces, mounts, devices and the terminal, and then hands over, still as root. The
//! rest is ours, in the order of runc, because an exec'ed process must get the same treatment as init
//! (libcontainer drops its seccomp filter), because the filter must not have to allow what a runtime does while
//! it waits for `start`, because the environment keeps its order, and because a look-up of the home directory
//! must read the container's `/etc/passwd` and never load a name service module from the container.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicI32, Ordering};

use libcontainer::capabilities;
use libcontainer::seccomp::initialize_seccomp;
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use oci_spec::runtime::{Hook, LinuxCapabilities, LinuxSeccomp, Spec};
use serde_json::json;

use super::hooks::{self, HookState};
use super::inside;
use crate::kernel::mount;
use crate::kernel::numa;
use crate::kernel::process;
use crate::model::placement::MemoryPolicy;

/// Process id of init on the host, known to the parent and told to init after the fork.
static HOST_PID: AtomicI32 = AtomicI32::new(0);

/// Lets this process know its id on the host.
pub(super) fn set_host_pid(pid: i32) {
    HOST_PID.store(pid, Ordering::Relaxed);
}

/// What to run, and as whom. Independent of what libcontainer was told.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) args: Vec<String>,
    /// `NAME=value` in the order of the bundle.
    pub(super) env: Vec<String>,
    pub(super) cwd: PathBuf,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) umask: Option<u32>,
    pub(super) capabilities: LinuxCapabilities,
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: Option<LinuxSeccomp>,
    /// Socket of the agent that decides in place of the filter.
    pub(super) seccomp_agent: Option<Rc<OwnedFd>>,
    pub(super) selinux_label: Option<String>,
    pub(super) readonly_paths: Vec<String>,
    pub(super) masked_paths: Vec<String>,
    /// Mounts that are to pass on, or receive, mounts made below them.
    pub(super) propagation: Vec<(PathBuf, MsFlags)>,
    /// Whether the network namespace is new, with its loopback still down.
    pub(super) new_network: bool,
    /// A ready-made /dev, detached, to be mounted last.
    pub(super) dev: Option<Rc<OwnedFd>>,
    /// A folder of the host that it is to see, detached: without it the program runs all the same.
    pub(super) inside: Option<Rc<OwnedFd>>,
    /// Hooks that run in the container right before the program.
    pub(super) start_hooks: Vec<Hook>,
    /// What those hooks and the agent are told; `None` for an exec'ed process.
    pub(super) hook_state: Option<HookState>,
    /// A memory policy that is not the container's own: without it the program runs all the same.
    pub(super) memory_policy: Option<MemoryPolicy>,
}

impl Workload {
    /// The environment as the program sees it: later entries win, in the place of the first.
    fn environment(&self) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = Vec::with_capacity(self.env.len().saturating_add(3));
        let mut set = |name: &str, value: &str| match out.iter_mut().find(|(old, _)| old == name) {
            Some((_, old)) => value.clone_into(old),
            None => out.push((name.to_owned(), value.to_owned())),
        };
        for entry in &self.env {
            if let Some((name, value)) = entry.split_once('=') {
                set(name, value);
            }
        }
        // systemd's socket activation passes on to the container's init (sd_listen_fds(3)).
        if let Some(count) = listen_fds() {
            set("LISTEN_FDS", &count.to_string());
            set("LISTEN_PID", "1");
        }
        let home = out.iter().position(|(name, _)| name == "HOME");
        if home.is_none_or(|at| out.get(at).is_some_and(|(_, value)| value.is_empty())) {
            let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            let value = home_directory(&passwd, self.uid).unwrap_or("/").to_owned();
            match home.and_then(|at| out.get_mut(at)) {
                Some((_, old)) => *old = value,
                None => out.push(("HOME".to_owned(), value)),
            }
        }
        out
    }

    /// The program's path, as exec.LookPath of Go finds it; the text of the error is what callers match on.
    fn look_up(&self) -> Result<PathBuf, String> {
        let name = self.args.first().map(String::as_str).unwrap_or_default();
        if name.contains('/') {
            return check_executable(Path::new(name))
                .map(|()| PathBuf::from(name))
                .map_err(|err| match err {
                    Errno::EACCES => format!("exec: {name:?}: permission denied"),
                    err => format!("exec: {name:?}: stat {name}: {}", describe(err)),
                });
        }
        let path = self
            .env
            .iter()
            .rev()
            .find_map(|entry| entry.strip_prefix("PATH="))
            .unwrap_or_default();
        path.split(':')
            .map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name))
            .find(|candidate| !name.is_empty() && check_executable(candidate).is_ok())
            .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
    }

    /// What needs root and the whole container, and what shows mistakes of the bundle: at creation.
    fn prepare(&self) -> Result<(), String> {
        if let Some(policy) = &self.memory_policy {
            // The parent looks at what has come of it.
            let _ = numa::apply(policy);
        }
        if self.new_network {
            process::bring_up_loopback().map_err(|err| format!("bring up loopback: {err}"))?;
        }
        if let Some(dev) = &self.dev {
            mount::attach(dev.as_fd(), Path::new("/dev"))
                .map_err(|err| format!("mount /dev: {err}"))?;
        }
        if let Some(tree) = &self.inside {
            // The parent looks at what has come of it.
            let _ = inside::attach(tree);
        }
        for (path, flags) in &self.propagation {
            mount::set_propagation(path, *flags)
                .map_err(|err| format!("set propagation of {}: {err}", path.display()))?;
        }
        for path in &self.readonly_paths {
            mount::make_read_only(Path::new(path))
                .map_err(|err| format!("can't make {path:?} read-only: {err}"))?;
        }
        for path in &self.masked_paths {
            mount::mask(Path::new(path)).map_err(|err| format!("can't mask {path:?}: {err}"))?;
        }
        nix::sys::stat::umask(Mode::from_bits_truncate(self.umask.unwrap_or(0o022)));
        if let Some(label) = &self.selinux_label {
            process::set_exec_label(label)
                .map_err(|err| format!("cannot set SELinux label {label:?}: {err}"))?;
        }
        // Before the change of user: the folder may be open to root alone. Where root is the one who may not
        // enter it (a network file system), the user tries again later.
        match nix::unistd::chdir(&self.cwd) {
            Ok(()) | Err(Errno::EPERM | Errno::EACCES) => {}
            Err(err) => return Err(self.cwd_error(err)),
        }
        set_groups(&self.groups)?;
        // Found with the eyes of the user, who may not be able to read what root can.
        process::with_file_system_ids(self.uid, self.gid, || self.look_up()).map(drop)
    }

    fn cwd_error(&self, err: Errno) -> String {
        let cwd = self.cwd.display().to_string();
        format!(
            "chdir to cwd ({cwd:?}) set in config.json failed: {}",
            describe(err)
        )
    }

    /// Gives up what the program is not to have.
    fn drop_privileges(&self) -> Result<(), String> {
        if !self.no_new_privileges {
            // Needs CAP_SYS_ADMIN.
            self.load_seccomp()?;
        }
        let syscall = create_syscall();
        syscall
            .set_id(Uid::from_raw(self.uid), Gid::from_raw(self.gid))
            .map_err(|err| format!("set user and group: {err}"))?;
        capabilities::reset_effective(&*syscall)
            .and_then(|()| capabilities::drop_privileges(&self.capabilities, &*syscall))
            .map_err(|err| format!("apply capabilities: {err}"))?;
        match nix::unistd::chdir(&self.cwd) {
            // Entered already, as root.
            Ok(()) | Err(Errno::EPERM | Errno::EACCES) => {}
            Err(err) => return Err(self.cwd_error(err)),
        }
        // A folder outside the root would be a way out (CVE-2024-21626).
        match nix::unistd::getcwd() {
            Ok(path) if path.is_absolute() => Ok(()),
            _ => Err(
                "current working directory is outside of container mount namespace root".to_owned(),
            ),
        }
    }

    fn load_seccomp(&self) -> Result<(), String> {
        let Some(seccomp) = &self.seccomp else {
            return Ok(());
        };
        let notify =
            initialize_seccomp(seccomp).map_err(|err| format!("unable to init seccomp: {err}"))?;
        let Some(notify) = notify else {
            return Ok(());
        };
        let notify = process::adopt_fd(notify);
        let agent = self
            .seccomp_agent
            .as_ref()
            .ok_or("seccomp notify needs linux.seccomp.listenerPath")?;
        let pid = HOST_PID.load(Ordering::Relaxed);
        let state = self.hook_state.as_ref();
        // runtime-spec, "The Container Process State".
        let message = json!({
            "ociVersion": super::OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": seccomp.listener_metadata().clone().unwrap_or_default(),
            "state": {
                "ociVersion": state.map_or(super::OCI_VERSION, |s| s.oci_version.as_str()),
                "id": state.map(|s| s.id.as_str()),
                "status": if state.is_some() { "creating" } else { "running" },
                "pid": pid,
                "bundle": state.map(|s| s.bundle.as_path()),
                "annotations": state.map(|s| &s.annotations),
            },
        })
        .to_string();
        nix::sys::socket::sendmsg::<()>(
            agent.as_raw_fd(),
            &[std::io::IoSlice::new(message.as_bytes())],
            &[nix::sys::socket::ControlMessage::ScmRights(&[
                notify.as_raw_fd()
            ])],
            nix::sys::socket::MsgFlags::empty(),
            None,
        )
        .map_err(|err| format!("send to the seccomp agent: {err}"))?;
        Ok(())
    }

    fn run(&self) -> Result<(), String> {
        let environment = self.environment();
        self.drop_privileges()?;
        if let Some(state) = self
            .hook_state
            .as_ref()
            .filter(|_| !self.start_hooks.is_empty())
        {
            let state = HookState {
                // As the hook sees it, inside the container.
                pid: Some(nix::unistd::getpid().as_raw()),
                ..state.clone()
            };
            hooks::run(&self.start_hooks, &state, &environment)
                .map_err(|err| format!("error running startContainer {err}"))?;
        }
        let path = self.look_up()?;
        let c_string = |text: &str| CString::new(text).map_err(|err| err.to_string());
        let program = c_string(&path.to_string_lossy())?;
        let args = self
            .args
            .iter()
            .map(|arg| c_string(arg))
            .collect::<Result<Vec<_>, _>>()?;
        let env = environment
            .iter()
            .map(|(name, value)| c_string(&format!("{name}={value}")))
            .collect::<Result<Vec<_>, _>>()?;
        process::reset_signals().map_err(|err| err.to_string())?;
        if self.no_new_privileges {
            self.load_seccomp()?;
        }
        let Err(err) = nix::unistd::execve(&program, &args, &env);
        Err(format!("exec {}: {}", path.display(), describe(err)))
    }
}

/// How many descriptors systemd handed to this process.
pub(super) fn listen_fds() -> Option<u32> {
    std::env::var("LISTEN_FDS")
        .ok()?
        .parse()
        .ok()
        .filter(|count| *count > 0)
}

fn set_groups(groups: &[u32]) -> Result<(), String> {
    let gids: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match nix::unistd::setgroups(&gids) {
        // Denied in the user namespace of an unprivileged creator, who has none to give.
        Err(Errno::EPERM) if gids.is_empty() => Ok(()),
        other => other.map_err(|err| format!("set supplementary groups: {}", describe(err))),
    }
}

fn check_executable(path: &Path) -> Result<(), Errno> {
    let meta = std::fs::metadata(path)
        .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)))?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    process::check_may_execute(path)
}

/// The kernel's words for an error, in lower case as Go prints them.
fn describe(err: Errno) -> String {
    err.desc().to_lowercase()
}

/// The home directory of `uid` in the text of `/etc/passwd` (passwd(5)).
fn home_directory(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [_, _, id, _, _, home, ..] if id.parse() == Ok(uid) && !home.is_empty() => Some(*home),
            _ => None,
        }
    })
}

impl Executor for Workload {
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        self.prepare()
            .map_err(ExecutorValidationError::ArgValidationError)
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment is given to execve in order; a map would lose it.
        Ok(())
    }

    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        self.run().map_err(ExecutorError::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(args: &[&str], env: &[&str]) -> Workload {
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Workload {
            args: strings(args),
            env: strings(env),
            cwd: PathBuf::from("/"),
            uid: 4_000_000_000,
            gid: 0,
            groups: Vec::new(),
            umask: None,
            capabilities: LinuxCapabilities::default(),
            no_new_privileges: false,
            seccomp: None,
            seccomp_agent: None,
            selinux_label: None,
            readonly_paths: Vec::new(),
            masked_paths: Vec::new(),
            propagation: Vec::new(),
            new_network: false,
            dev: None,
            inside: None,
            start_hooks: Vec::new(),
            hook_state: None,
            memory_policy: None,
        }
    }

    #[test]
    fn the_last_of_equal_names_wins_in_the_place_of_the_first() {
        let env = workload(&["x"], &["A=1", "HOME=/h", "A=2", "B=a=b"]).environment();
        let text: Vec<String> = env.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text, ["A=2", "HOME=/h", "B=a=b"]);
    }

    #[test]
    fn an_unknown_user_is_at_home_in_the_root() {
        let env = workload(&["x"], &["HOME="]).environment();
        assert_eq!(env, [("HOME".to_owned(), "/".to_owned())]);
    }

    #[test]
    fn home_is_read_from_the_passwd_text() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nuser:x:1000:1000::/home/user:\n";
        assert_eq!(home_directory(passwd, 1000), Some("/home/user"));
        assert_eq!(home_directory(passwd, 7), None);
    }

    #[test]
    fn a_bundle_without_path_can_still_name_a_file() {
        assert!(workload(&["/bin/sh"], &[]).look_up().is_ok());
        let err = workload(&["sh"], &[]).look_up().unwrap_err();
        assert!(err.contains("executable file not found in $PATH"), "{err}");
    }

    #[test]
    fn errors_have_the_words_that_callers_match() {
        let err = workload(&["/no/such"], &[]).look_up().unwrap_err();
        assert_eq!(
            err,
            "exec: \"/no/such\": stat /no/such: no such file or directory"
        );
        let err = workload(&["/etc/passwd"], &[]).look_up().unwrap_err();
        assert!(err.ends_with("permission denied"), "{err}");
    }
}
