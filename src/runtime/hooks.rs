//! Hooks: programs that run at points of a container's life (runtime-spec, "POSIX-platform Hooks").
//!
//! libcontainer runs only the createContainer hooks, because they run between two steps of its own.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use oci_spec::runtime::Hook;
use serde::Serialize;
use serde_json::Value;

use super::error::Result;
use super::json::typed;
use super::state::{State, Status};
use crate::kernel::process::{self, ProcessHandle};

/// What a hook gets on standard input (runtime-spec, "State").
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HookState {
    pub(super) oci_version: String,
    pub(super) id: String,
    pub(super) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<i32>,
    pub(super) bundle: std::path::PathBuf,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(super) annotations: std::collections::BTreeMap<String, String>,
}

impl HookState {
    pub(super) fn new(state: &State, status: Status) -> Self {
        Self {
            oci_version: state.oci_version.clone(),
            id: state.id.clone(),
            status,
            pid: match status {
                Status::Stopped => None,
                _ => state.init.map(|init| init.pid),
            },
            bundle: state.bundle.clone(),
            annotations: state.annotations.clone(),
        }
    }
}

/// The hooks of one kind.
///
/// # Errors
/// `Json` naming the kind when they have the wrong form.
pub(super) fn of_kind(config: &Value, kind: &str) -> Result<Vec<Hook>> {
    match config.get("hooks").and_then(|hooks| hooks.get(kind)) {
        Some(list) if !list.is_null() => typed(list.clone(), &format!("hooks.{kind}")),
        _ => Ok(Vec::new()),
    }
}

/// Runs hooks one after the other; the first that fails ends the row.
///
/// # Errors
/// A sentence with the hook's number, path, exit status and what it printed.
pub(super) fn run(
    hooks: &[Hook],
    state: &HookState,
    default_env: &[(String, String)],
) -> std::result::Result<(), String> {
    for (number, hook) in hooks.iter().enumerate() {
        run_one(hook, state, default_env)
            .map_err(|reason| format!("hook #{number} {}: {reason}", hook.path().display()))?;
    }
    Ok(())
}

fn run_one(
    hook: &Hook,
    state: &HookState,
    default_env: &[(String, String)],
) -> std::result::Result<(), String> {
    let text = serde_json::to_vec(state).map_err(|err| err.to_string())?;
    let mut command = Command::new(hook.path());
    if let Some((name, args)) = hook.args().as_ref().and_then(|args| args.split_first()) {
        command.arg0(name).args(args);
    }
    command.env_clear();
    match hook.env() {
        Some(env) => {
            for entry in env {
                if let Some((name, value)) = entry.split_once('=') {
                    command.env(name, value);
                }
            }
        }
        None => {
            command.envs(default_env.iter().map(|(name, value)| (name, value)));
        }
    }
    let (output, errors) = (Capture::new(), Capture::new());
    let mut child = command
        .current_dir(if state.bundle.is_dir() {
            &state.bundle
        } else {
            Path::new("/")
        })
        .stdin(Stdio::piped())
        .stdout(output.stdio())
        .stderr(errors.stdio())
        .spawn()
        .map_err(|err| crate::kernel::reason(&err))?;
    if let Some(mut input) = child.stdin.take() {
        // A hook may end without reading its state.
        if let Err(err) = input.write_all(&text)
            && err.kind() != io::ErrorKind::BrokenPipe
        {
            tracing::debug!(%err, "hook state not written");
        }
    }
    let timeout = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok());
    if let Some(seconds) = timeout {
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let ended = process::stat(pid)
            .and_then(|stat| ProcessHandle::open(pid, stat.start_time))
            .and_then(|handle| handle.wait_ended(Duration::from_secs(seconds)));
        if matches!(ended, Ok(false)) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("killed after its timeout of {seconds} s"));
        }
    }
    let status = child.wait().map_err(|err| crate::kernel::reason(&err))?;
    if status.success() {
        return Ok(());
    }
    let status = match status.code() {
        Some(code) => format!("exit status {code}"),
        None => status.to_string(),
    };
    Err(format!(
        "{status}, stdout: {}, stderr: {}",
        output.end(),
        errors.end()
    ))
}

/// What a hook prints, kept in memory. Not a pipe: a hook that prints much, or leaves a process behind that
/// holds its output open, must not make us wait.
struct Capture(Option<File>);

impl Capture {
    /// Without memory files what a hook prints is lost, and nothing else.
    fn new() -> Self {
        Self(
            memfd_create(c"hook", MemFdCreateFlag::MFD_CLOEXEC)
                .ok()
                .map(File::from),
        )
    }

    fn stdio(&self) -> Stdio {
        let copy = self.0.as_ref().and_then(|file| file.try_clone().ok());
        copy.map_or_else(Stdio::null, Stdio::from)
    }

    /// The last part, which says why.
    fn end(&self) -> String {
        const MOST: u64 = 1024;
        let Some(file) = &self.0 else {
            return String::new();
        };
        let length = file.metadata().map_or(0, |meta| meta.len());
        let mut bytes = Vec::new();
        let mut reader = file;
        // What cannot be read is missed in a message only.
        let _ = reader
            .seek(SeekFrom::Start(length.saturating_sub(MOST)))
            .and_then(|_| reader.take(MOST).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state() -> HookState {
        HookState {
            oci_version: "1.0.2".to_owned(),
            id: "a".to_owned(),
            status: Status::Creating,
            pid: Some(7),
            bundle: std::path::PathBuf::from("/"),
            annotations: std::collections::BTreeMap::new(),
        }
    }

    fn hook(script: &str, extra: Value) -> Vec<Hook> {
        let mut hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
        for (key, value) in extra.as_object().unwrap() {
            hook[key] = value.clone();
        }
        vec![serde_json::from_value(hook).unwrap()]
    }

    #[test]
    fn a_hook_gets_the_state_and_only_its_own_environment() {
        let script = r#"grep -q '"pid":7' && test "$A$HOME" = 1"#;
        run(&hook(script, json!({"env": ["A=1"]})), &state(), &[]).unwrap();
    }

    #[test]
    fn a_failure_names_the_hook_and_what_it_said() {
        let err = run(&hook("echo why >&2; exit 3", json!({})), &state(), &[]).unwrap_err();
        assert_eq!(err, "hook #0 /bin/sh: exit status 3, stdout: , stderr: why");
    }

    #[test]
    fn a_hook_may_print_more_than_a_pipe_holds() {
        let script = "head -c 300000 /dev/zero | tr '\\0' x | tee /dev/stderr";
        run(&hook(script, json!({"timeout": 20})), &state(), &[]).unwrap();
        let err = run(
            &hook(&format!("{script}; exit 3"), json!({})),
            &state(),
            &[],
        )
        .unwrap_err();
        assert!(err.len() < 4096, "{}", err.len());
    }

    #[test]
    fn a_process_that_a_hook_leaves_behind_is_not_waited_for() {
        let begin = std::time::Instant::now();
        run(&hook("sleep 30 & exit 0", json!({})), &state(), &[]).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed() {
        let err = run(&hook("exec sleep 60", json!({"timeout": 1})), &state(), &[]).unwrap_err();
        assert!(err.contains("timeout of 1 s"), "{err}");
    }
}
