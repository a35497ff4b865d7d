//! The last steps before the user's program: its environment, its path, and execve(2).
//!
//! These run inside the container, after libcontainer has set up everything else. They are ours and not
//! libcontainer's because a program must see its environment in the order of the bundle, be found as every
//! other runtime finds it (a bundle without PATH is valid), and because a look-up of the home directory must
//! read the container's `/etc/passwd` and never load a name service module from the container.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libcontainer::container::State as EngineState;
use libcontainer::hooks;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::errno::Errno;
use oci_spec::runtime::{Hook, Spec};

use crate::kernel::process;

/// What to run, independent of what libcontainer was told.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) args: Vec<String>,
    /// `NAME=value` in the order of the bundle.
    pub(super) env: Vec<String>,
    pub(super) uid: u32,
    /// Hooks that run in the container right before the program.
    pub(super) start_hooks: Vec<Hook>,
    /// What those hooks get on standard input.
    pub(super) hook_state: Option<EngineState>,
    pub(super) selinux_label: Option<String>,
}

impl Workload {
    /// The environment as the program sees it: later entries win, in the place of the first.
    fn environment(&self) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = Vec::with_capacity(self.env.len() + 3);
        let mut set =
            |name: &str, value: &str| match out.iter_mut().find(|(existing, _)| existing == name) {
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
        if out
            .iter()
            .all(|(name, value)| name != "HOME" || value.is_empty())
        {
            let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            let home = home_directory(&passwd, self.uid).unwrap_or("/");
            match out.iter_mut().find(|(name, _)| name == "HOME") {
                Some((_, value)) => home.clone_into(value),
                None => out.push(("HOME".to_owned(), home.to_owned())),
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
}

/// How many descriptors systemd handed to this process.
pub(super) fn listen_fds() -> Option<u32> {
    std::env::var("LISTEN_FDS")
        .ok()?
        .parse()
        .ok()
        .filter(|count| *count > 0)
}

fn check_executable(path: &Path) -> Result<(), Errno> {
    let meta = std::fs::metadata(path)
        .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)))?;
    if meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
        Ok(())
    } else {
        Err(Errno::EACCES)
    }
}

/// The kernel's words for an error, in lower case as Go and the C library on Linux print them.
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
        let fail = |text: String| Err(ExecutorValidationError::ArgValidationError(text));
        if let Err(text) = self.look_up() {
            return fail(text);
        }
        if let Some(label) = &self.selinux_label {
            if let Err(err) = process::set_exec_label(label) {
                return fail(format!("cannot set SELinux label {label:?}: {err}"));
            }
        }
        Ok(())
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment is given to execve in order; a map would lose it.
        Ok(())
    }

    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let environment = self.environment();
        if !self.start_hooks.is_empty() {
            let default: HashMap<String, String> = environment.iter().cloned().collect();
            hooks::run_hooks(
                Some(&self.start_hooks),
                self.hook_state.as_ref(),
                None,
                None,
                Some(&default),
            )
            .map_err(|err| {
                ExecutorError::Other(format!("error running startContainer hook: {err}"))
            })?;
        }
        let path = self.look_up().map_err(ExecutorError::Other)?;
        let c_string = |bytes: Vec<u8>| CString::new(bytes).map_err(|_| ExecutorError::InvalidArg);
        let program = c_string(path.to_string_lossy().into_owned().into_bytes())?;
        let args = self
            .args
            .iter()
            .map(|arg| c_string(arg.clone().into_bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        let env = environment
            .into_iter()
            .map(|(name, value)| c_string(format!("{name}={value}").into_bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        process::reset_signals().map_err(|err| ExecutorError::Other(err.to_string()))?;
        let Err(err) = nix::unistd::execve(&program, &args, &env);
        Err(ExecutorError::Other(format!(
            "exec {}: {}",
            path.display(),
            describe(err)
        )))
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
            uid: 4_000_000_000,
            start_hooks: Vec::new(),
            hook_state: None,
            selinux_label: None,
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
