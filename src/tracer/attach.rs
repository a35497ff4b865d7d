//! Finds a container that somebody else runs: its control group and its init process.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use super::error::{Result, TracerError};
use super::image::output_of;
use crate::kernel::cgroup::{Cgroup, Hierarchies};
use crate::kernel::process::{self, ProcessHandle};

/// Where runtimes keep what they know of a container, below /run; `*` is any one folder, `ID` the container.
const RECORDS: [&str; 9] = [
    "containerd/io.containerd.runtime.v2.task/*/ID/init.pid",
    "elastic-mem/.oci/ID/state.json",
    "elastic-mem/*/.oci/ID/state.json",
    "runc/ID/state.json",
    "containerd/runc/*/ID/state.json",
    "containerd/runc/*/*/ID/state.json",
    "docker/runtime-runc/*/ID/state.json",
    "docker/runtime-elastic-mem/*/ID/state.json",
    "crun/ID/status",
];

/// Where such a record has the process id of init: ours, runc's, crun's.
const PID: [&str; 3] = ["/init/pid", "/init_process_pid", "/pid"];

/// A container of any runtime.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) cgroup: Cgroup,
    /// Its init, if that is known.
    pub(super) init: Option<ProcessHandle>,
    /// What it is called.
    pub(super) name: String,
    pub(super) image: Option<String>,
    pub(super) command: Vec<String>,
}

/// Finds a container by the path of its control group, a process id, its id or the first digits of it, or the name that
/// Docker knows it by. `root` is the state folder of this runtime.
///
/// # Errors
/// `Container` if there is none, or several; `Kernel`.
pub(super) fn find(text: &str, root: &Path) -> Result<Found> {
    let hierarchies = Hierarchies::probe()?;
    if text.starts_with('/') {
        let cgroup = Cgroup::at(&hierarchies, Path::new(text))?;
        let name = Path::new(text).file_name();
        let name = name.map_or_else(
            || text.to_owned(),
            |name| name.to_string_lossy().into_owned(),
        );
        return Ok(Found {
            cgroup,
            init: None,
            name,
            image: None,
            command: Vec::new(),
        });
    }
    if let Ok(pid) = text.parse()
        && process::stat(pid).is_ok()
    {
        return of_process(&hierarchies, pid, format!("pid-{pid}"), None);
    }
    let mut pids = recorded(Path::new("/run"), text);
    pids.extend(pid_in(&root.join(text).join("state.json")));
    pids.sort_unstable();
    pids.dedup();
    match pids[..] {
        [] => {}
        [pid] => return of_process(&hierarchies, pid, text.to_owned(), None),
        _ => {
            return Err(ambiguous(
                text,
                pids.iter().map(|pid| format!("process {pid}")),
            ));
        }
    }
    let docker = match ask_docker(text) {
        Ok(known) => {
            return of_process(
                &hierarchies,
                known.state.pid,
                known.name(),
                Some(known.config.image),
            );
        }
        Err(reason) => reason,
    };
    let mut groups = Cgroup::named_after(&hierarchies, text)?;
    match (groups.pop(), groups.is_empty()) {
        (Some(cgroup), true) => Ok(Found {
            cgroup,
            init: None,
            name: text.to_owned(),
            image: None,
            command: Vec::new(),
        }),
        (Some(last), false) => {
            groups.push(last);
            let paths = groups.iter().filter_map(|group| group.memory().ok());
            Err(ambiguous(
                text,
                paths.map(|path| path.display().to_string()),
            ))
        }
        (None, _) => Err(TracerError::Container(format!(
            "no container {text:?}: no runtime has a record of a running one, {docker}, and no control group is named \
             after it"
        ))),
    }
}

fn ambiguous(text: &str, all: impl Iterator<Item = String>) -> TracerError {
    let all: Vec<String> = all.collect();
    TracerError::Container(format!(
        "{text:?} is the name of several containers: {}; give the process id or the path of the control group",
        all.join(", ")
    ))
}

fn of_process(
    hierarchies: &Hierarchies,
    pid: i32,
    name: String,
    image: Option<String>,
) -> Result<Found> {
    let init = ProcessHandle::of(pid)?;
    Ok(Found {
        cgroup: Cgroup::of_process(hierarchies, pid)?.below_root(hierarchies)?,
        command: process::command_line(pid)?,
        init: Some(init),
        name,
        image,
    })
}

/// The init processes of running containers of this id.
fn recorded(run: &Path, id: &str) -> Vec<i32> {
    // It must not become a path of its own.
    if id.contains('/') || id.starts_with('.') {
        return Vec::new();
    }
    let mut found = Vec::new();
    for pattern in RECORDS {
        let mut paths = vec![run.to_path_buf()];
        for part in pattern.split('/') {
            paths = paths
                .into_iter()
                .flat_map(|path| match part {
                    "*" => folders(&path),
                    "ID" => vec![path.join(id)],
                    name => vec![path.join(name)],
                })
                .collect();
        }
        found.extend(paths.iter().filter_map(|path| pid_in(path)));
    }
    found.retain(|pid| process::stat(*pid).is_ok_and(|stat| !stat.has_ended()));
    found
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The process id in a record: a number alone, or a place in JSON.
fn pid_in(path: &Path) -> Option<i32> {
    let value: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    std::iter::once("")
        .chain(PID)
        .find_map(|pointer| value.pointer(pointer)?.as_i64())
        .and_then(|pid| i32::try_from(pid).ok())
        .filter(|pid| *pid > 0)
}

/// What `docker inspect` tells.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    name: String,
    state: InspectedState,
    config: InspectedConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    pid: i32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    image: String,
}

impl Inspected {
    fn name(&self) -> String {
        self.name.trim_start_matches('/').to_owned()
    }
}

fn ask_docker(name: &str) -> std::result::Result<Inspected, String> {
    let mut command = Command::new("docker");
    let text = output_of(command.args(["container", "inspect", "--", name]))?;
    let mut all: Vec<Inspected> =
        serde_json::from_str(&text).map_err(|err| format!("docker: {err}"))?;
    match all.pop().filter(|known| known.state.pid > 0) {
        Some(known) => Ok(known),
        None => Err(format!("docker: container {name} does not run")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn records_of_every_runtime_lead_to_init() {
        let own = std::process::id();
        for (path, text) in [
            (
                "containerd/io.containerd.runtime.v2.task/k8s.io/c1/init.pid",
                format!("{own}"),
            ),
            (
                "elastic-mem/.oci/c1/state.json",
                format!("{{\"init\":{{\"pid\":{own}}}}}"),
            ),
            (
                "containerd/runc/ns/c1/state.json",
                format!("{{\"init_process_pid\":{own}}}"),
            ),
            ("crun/c1/status", format!("{{\"pid\":{own}}}")),
        ] {
            let run = tempfile::tempdir().unwrap();
            write(run.path().join(path), &text);
            assert_eq!(
                recorded(run.path(), "c1"),
                [i32::try_from(own).unwrap()],
                "{path}"
            );
            assert!(recorded(run.path(), "c2").is_empty());
            assert!(recorded(run.path(), "../c1").is_empty());
        }
    }

    #[test]
    fn a_record_that_is_stale_or_broken_leads_nowhere() {
        for text in ["", "0", "-1", "{}", "[", "{\"pid\":\"x\"}", "2147483647"] {
            let run = tempfile::tempdir().unwrap();
            write(run.path().join("crun/c1/status"), text);
            assert!(recorded(run.path(), "c1").is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_process_is_found_by_its_id() {
        let own = std::process::id().to_string();
        match find(&own, Path::new("/none")) {
            Ok(found) => assert!(!found.command.is_empty() && found.init.is_some()),
            // The test itself may run in the root group.
            Err(err) => assert!(err.to_string().contains("root control group"), "{err}"),
        }
        let err = find("no-such-container", Path::new("/none")).unwrap_err();
        assert!(err.to_string().contains("no-such-container"), "{err}");
    }
}
