//! `state`, `list`, `ps` and `events`: what containers look like from outside.

use std::process::Command;

use serde::Serialize;
use serde_json::{Value, json};

use super::error::{Result, RuntimeError};
use super::state::{Container, Status, Store};

/// A container as `state` prints it (runtime-spec, "State", with the additions of runc).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateReport {
    /// `ociVersion` of the runtime.
    pub oci_version: String,
    /// The name.
    pub id: String,
    /// Process id of init; 0 once it has ended.
    pub pid: i32,
    /// What the container does now.
    pub status: Status,
    /// The bundle folder.
    pub bundle: String,
    /// The root file system.
    pub rootfs: String,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Annotations of the bundle.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
    /// Name of the creator.
    pub owner: String,
}

/// Describes a container.
pub fn state(container: &Container) -> StateReport {
    let state = &container.state;
    let status = container.status();
    StateReport {
        oci_version: state.oci_version.clone(),
        id: state.id.clone(),
        pid: match status {
            Status::Stopped => 0,
            _ => state.init.map_or(0, |init| init.pid),
        },
        status,
        bundle: state.bundle.display().to_string(),
        rootfs: state.rootfs.display().to_string(),
        created: state.created.clone(),
        annotations: state.annotations.clone(),
        owner: String::new(),
    }
}

/// Describes all containers, by name, each with the name of its creator.
///
/// # Errors
/// `Io` when the state folder cannot be listed.
pub fn list(store: &Store) -> Result<Vec<StateReport>> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let report = |container: Container| {
        let owner = container.state.owner;
        StateReport {
            owner: user_name(&passwd, owner).map_or(format!("#{owner}"), str::to_owned),
            ..state(&container)
        }
    };
    Ok(store.list()?.into_iter().map(report).collect())
}

fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// Process ids of a container.
///
/// # Errors
/// `Kernel` when the members of its control group cannot be read.
pub fn processes(container: &Container) -> Result<Vec<i32>> {
    Ok(container.state.cgroup.processes()?)
}

/// The lines of ps(1) that belong to a container, header first.
///
/// `args` are options of ps; without any, `-ef`.
///
/// # Errors
/// `Io` when ps cannot be run, `Usage` when it refuses the options or shows no process ids.
pub fn process_table(container: &Container, args: &[String]) -> Result<String> {
    let pids = processes(container)?;
    let args = if args.is_empty() {
        vec!["-ef".to_owned()]
    } else {
        args.to_vec()
    };
    let output = Command::new("ps")
        .args(&args)
        .output()
        .map_err(|err| RuntimeError::io("run", "ps", err))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(RuntimeError::Usage(format!(
            "ps {}: {text}",
            args.join(" ")
        )));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_ascii_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| RuntimeError::Usage("couldn't find PID field in ps output".to_owned()))?;
    let mut out = format!("{header}\n");
    for line in lines {
        let pid = line
            .split_ascii_whitespace()
            .nth(column)
            .and_then(|text| text.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}

/// One event with counters, as `events --stats` prints it.
///
/// # Errors
/// `NoCounters` for a container that has stopped.
pub fn stats_event(container: &Container) -> Result<Value> {
    if container.status() == Status::Stopped {
        return Err(RuntimeError::NoCounters(container.state.id.clone()));
    }
    Ok(json!({
        "type": "stats",
        "id": container.state.id,
        "data": container.state.cgroup.stats(),
    }))
}

/// How often the OOM killer has killed in the container, and an event for each new time.
#[derive(Debug, Default)]
pub struct OomWatch(u64);

impl OomWatch {
    /// Begins with what has happened until now.
    pub fn new(container: &Container) -> Self {
        Self(container.state.cgroup.oom_kills())
    }

    /// An event if the killer has killed since the last look.
    pub fn look(&mut self, container: &Container) -> Option<Value> {
        let now = container.state.cgroup.oom_kills();
        let more = now > self.0;
        self.0 = now;
        more.then(|| json!({"type": "oom", "id": container.state.id}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nme:x:1000:1000::/home/me:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), Some("me"));
        assert_eq!(user_name(passwd, 7), None);
    }
}
