//! Control groups of a container, on cgroup v1, on the hybrid layout and on cgroup v2.
//!
//! A container has one directory in every hierarchy; [`Cgroup`] is the set of them. Only these directories
//! are ever written (kernel documents `cgroup-v1` and `cgroup-v2`).

mod devices;
mod find;
mod freezer;
mod hierarchy;
mod lever;
mod meter;
mod oom;
mod resources;
mod stats;
mod survey;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

pub use freezer::Freezer;
pub use hierarchy::{Hierarchies, Version};
pub use lever::Lever;
pub use meter::{Alarm, Composition, Failures, Meter};
pub use resources::{weight_of_shares, without_zeros};
pub use stats::{BlkioEntry, Counter, FlatKeyed, HugePages, Pressure, PressureLine, Stats};
pub use survey::Survey;

use super::{KernelError, Result, read_text, write_text};

/// How long processes may take to leave a cgroup once they are killed.
const REMOVE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a cgroup may take to freeze.
const FREEZE_PATIENCE: Duration = Duration::from_secs(2);

/// One directory of a container: `controllers` as the kernel writes them in `/proc/PID/cgroup`
/// (`memory`, `cpu,cpuacct`, `name=systemd`, and the empty string for cgroup v2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The controllers of the hierarchy.
    pub controllers: String,
    /// The directory.
    pub path: PathBuf,
}

impl Directory {
    fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }
}

/// The control groups of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Which version holds the resource controllers.
    pub version: Version,
    /// One directory for each hierarchy of the host.
    pub directories: Vec<Directory>,
}

impl Cgroup {
    /// The cgroup of a running process, as the host sees it.
    ///
    /// # Errors
    /// `Io` when the process is gone.
    pub fn of_process(hierarchies: &Hierarchies, pid: i32) -> Result<Self> {
        let text = read_text(&PathBuf::from(format!("/proc/{pid}/cgroup")))?;
        Ok(hierarchies.resolve(&text, |own| own.to_path_buf()))
    }

    /// The cgroup that `cgroups_path` of a bundle stands for (runtime-spec, "Cgroups Path").
    ///
    /// An absolute path starts at the root of each hierarchy, a relative one at the caller's own cgroup;
    /// without a path the container id is the relative path.
    ///
    /// # Errors
    /// `Io` when the caller's own cgroup cannot be read.
    pub fn for_spec(hierarchies: &Hierarchies, path: Option<&Path>, id: &str) -> Result<Self> {
        let own = read_text(Path::new("/proc/self/cgroup"))?;
        let path = clean(path.unwrap_or(Path::new(id)));
        Ok(
            hierarchies.resolve(&own, |own| match path.strip_prefix("/") {
                Ok(absolute) => Path::new("/").join(absolute),
                // On cgroup v2 a group with processes in it cannot have children with controllers: start at the parent.
                Err(_) if hierarchies.version == Version::V2 => {
                    own.parent().unwrap_or(Path::new("/")).join(&path)
                }
                Err(_) => own.join(&path),
            }),
        )
    }

    /// The directory that holds a controller's files, if the host has the controller.
    pub fn controller(&self, name: &str) -> Option<&Path> {
        match self.version {
            Version::V1 => self.directories.iter().find(|dir| dir.has(name)),
            Version::V2 => self.directories.first(),
        }
        .map(|dir| dir.path.as_path())
    }

    /// Makes the directories, and what a process needs to be let in.
    ///
    /// # Errors
    /// `Io` with the directory that could not be made.
    pub fn create(&self) -> Result<()> {
        for dir in &self.directories {
            if self.version == Version::V2 {
                create_unified(&dir.path)?;
                continue;
            }
            fs::create_dir_all(&dir.path)
                .map_err(|err| KernelError::io("create cgroup", &dir.path, err))?;
            if dir.has("cpuset") {
                inherit_cpuset(&dir.path)?;
            }
        }
        Ok(())
    }

    /// Moves a process into the cgroup.
    ///
    /// # Errors
    /// `Io` with the file that refused.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let pid = pid.to_string();
        self.directories
            .iter()
            .try_for_each(|dir| write_text(&dir.path.join("cgroup.procs"), &pid))
    }

    /// Applies the limits of a bundle to a new cgroup, device rules included.
    ///
    /// # Errors
    /// `Io` with the value and the file that refused it; `Unsupported` for a controller that the host lacks.
    pub fn apply(&self, limits: &LinuxResources) -> Result<()> {
        devices::apply(self, limits)?;
        self.update(limits)
    }

    /// Applies changed limits to a cgroup in use; absent values stay as they are, device rules are not touched.
    ///
    /// # Errors
    /// As [`Cgroup::apply`].
    pub fn update(&self, limits: &LinuxResources) -> Result<()> {
        resources::apply(self, limits)
    }

    /// Refuses limits that are to be checked against what is in use, before anything is changed.
    ///
    /// # Errors
    /// `Unsupported` with the limit and the usage; `Io`.
    pub fn check(&self, limits: &LinuxResources) -> Result<()> {
        resources::check(self, limits)
    }

    /// The cgroup below this one at `path`; `CONTROLLER[,CONTROLLER]:PATH` picks hierarchies of cgroup v1.
    ///
    /// # Errors
    /// `Unsupported` when a path leaves this cgroup or names a controller that the host lacks.
    pub fn below(&self, paths: &[String]) -> Result<Self> {
        let mut target = self.clone();
        for text in paths {
            let (names, path) = match text.split_once(':') {
                Some((names, path)) => (Some(names), path),
                None => (None, text.as_str()),
            };
            if Path::new(path)
                .components()
                .any(|part| part == std::path::Component::ParentDir)
            {
                return Err(KernelError::Unsupported(format!(
                    "{path:?} is not a sub cgroup path"
                )));
            }
            let inside = path.trim_start_matches('/');
            let mut found = false;
            for dir in &mut target.directories {
                if names.is_none_or(|names| names.split(',').any(|name| dir.has(name))) {
                    dir.path.push(inside);
                    found = true;
                }
            }
            if !found {
                return Err(KernelError::Unsupported(format!(
                    "the host has no cgroup controller {}",
                    names.unwrap_or_default()
                )));
            }
        }
        Ok(target)
    }

    /// All processes of the cgroup and of the cgroups below it, in any hierarchy, by number.
    ///
    /// # Errors
    /// `Io`; a cgroup that is gone has no processes.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for dir in &self.directories {
            collect_processes(&dir.path, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Whether no process is left; a cgroup that is gone has none.
    pub fn is_empty(&self) -> bool {
        self.processes().is_ok_and(|pids| pids.is_empty())
    }

    /// CPU quota, -1 for none, and period in microseconds, as cgroup v2 has them now.
    pub fn quota(&self) -> Option<(i64, u64)> {
        parse_quota(&self.read_v2("cpu", "cpu.max")?)
    }

    /// The memory limit, -1 for none, as cgroup v2 has it now.
    pub fn memory_limit(&self) -> Option<i64> {
        match self.read_v2("memory", "memory.max")?.as_str() {
            "max" => Some(-1),
            bytes => bytes.parse().ok(),
        }
    }

    fn read_v2(&self, controller: &str, file: &str) -> Option<String> {
        let dir = self.controller(controller)?;
        let text = (self.version == Version::V2).then(|| read_text(&dir.join(file)))?;
        text.ok()
    }

    /// Whether the processes are frozen.
    pub fn is_frozen(&self) -> bool {
        let Some(dir) = self.controller("freezer") else {
            return false;
        };
        match self.version {
            // FREEZING counts: the request was made, some task has not reached a stop yet.
            Version::V1 => read_text(&dir.join("freezer.state")).is_ok_and(|text| text != "THAWED"),
            Version::V2 => read_text(&dir.join("cgroup.freeze")).is_ok_and(|text| text == "1"),
        }
    }

    /// Freezes all processes and waits until they stand still.
    ///
    /// # Errors
    /// `Io`; `Unsupported` when there is no freezer or the processes do not stop in time (they are thawed again).
    pub fn freeze(&self) -> Result<()> {
        let dir = self.freezer()?;
        let deadline = Instant::now() + FREEZE_PATIENCE;
        let mut pause = Duration::from_micros(50);
        loop {
            // On v1 a task that forks at the wrong moment needs the request again (freezer-subsystem.rst).
            let done = match self.version {
                Version::V1 => {
                    write_text(&dir.join("freezer.state"), "FROZEN")?;
                    read_text(&dir.join("freezer.state"))? == "FROZEN"
                }
                Version::V2 => {
                    write_text(&dir.join("cgroup.freeze"), "1")?;
                    read_text(&dir.join("cgroup.events"))?.contains("frozen 1")
                }
            };
            if done {
                return Ok(());
            }
            if Instant::now() >= deadline {
                self.thaw()?;
                return Err(KernelError::Unsupported(format!(
                    "unable to freeze: processes of {} do not stop",
                    dir.display()
                )));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Thaws all processes.
    ///
    /// # Errors
    /// `Io`; `Unsupported` when there is no freezer.
    pub fn thaw(&self) -> Result<()> {
        let dir = self.freezer()?;
        match self.version {
            Version::V1 => write_text(&dir.join("freezer.state"), "THAWED"),
            Version::V2 => write_text(&dir.join("cgroup.freeze"), "0"),
        }
    }

    fn freezer(&self) -> Result<&Path> {
        self.controller("freezer")
            .ok_or_else(|| KernelError::Unsupported("the host has no freezer cgroup".to_owned()))
    }

    /// Sends a signal to every process; none can fork away meanwhile.
    ///
    /// # Errors
    /// `Io` when the members cannot be read or a signal is refused.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL
            && self.version == Version::V2
            && let Some(dir) = self.controller("")
        {
            // Linux 5.14; kills frozen processes too.
            match write_text(&dir.join("cgroup.kill"), "1") {
                Err(err) if err.is_gone() => {}
                other => return other,
            }
        }
        let was_frozen = self.is_frozen();
        // Without a freezer the loop below is still right in all but a race with fork.
        let frozen = was_frozen || self.freeze().is_ok();
        let result = self.processes().and_then(|pids| {
            pids.into_iter()
                .map(|pid| super::process::signal_pid(pid, signal))
                .find(|result| result.as_ref().is_err_and(|err| !err.is_gone()))
                .unwrap_or(Ok(()))
        });
        if frozen && (!was_frozen || signal == libc::SIGKILL) {
            self.thaw()?;
        }
        result
    }

    /// Kills what is left and removes the directories with everything below them.
    ///
    /// Retries at 1, 2, 4 ms and so on while processes leave; a directory that is gone already is fine.
    ///
    /// # Errors
    /// `Io` with the directory that stays, after ten seconds.
    pub fn remove(&self) -> Result<()> {
        if !self.is_empty() {
            self.signal_all(libc::SIGKILL)?;
        }
        let deadline = Instant::now() + REMOVE_PATIENCE;
        self.directories
            .iter()
            .try_for_each(|dir| remove_tree(&dir.path, deadline))
    }

    /// Removes the directories that hold no process and no other cgroup, and leaves the rest alone.
    pub fn release(&self) {
        for dir in &self.directories {
            if let Err(err) = fs::remove_dir(&dir.path) {
                tracing::debug!(%err, dir = %dir.path.display(), "cgroup kept");
            }
        }
    }
}

/// Removes `.` and `..` from a path as if its directories were no links: it cannot climb above its start.
fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir => out.push("/"),
            Component::Normal(name) => out.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Takes `cpu.max` apart: a quota or `max`, and the period.
fn parse_quota(text: &str) -> Option<(i64, u64)> {
    let (quota, period) = text.split_once(' ')?;
    let quota = match quota {
        "max" => -1,
        number => number.parse().ok()?,
    };
    Some((quota, period.trim().parse().ok()?))
}

fn collect_processes(dir: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let file = dir.join("cgroup.procs");
    let text = match read_text(&file) {
        Err(err) if err.is_gone() => return Ok(()),
        // A threaded cgroup of v2 lists threads only; its processes show in the cgroup above.
        Err(KernelError::Io { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            return Ok(());
        }
        other => other?,
    };
    for line in text.lines() {
        let malformed = || KernelError::Malformed {
            path: file.clone(),
            text: line.to_owned(),
        };
        pids.push(line.parse().map_err(|_| malformed())?);
    }
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .try_for_each(|entry| collect_processes(&entry.path(), pids))
}

fn remove_tree(dir: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        let err = match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(err) => err,
        };
        if err.kind() == io::ErrorKind::NotFound {
            return Ok(());
        }
        if let Ok(entries) = fs::read_dir(dir) {
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .try_for_each(|entry| remove_tree(&entry.path(), deadline))?;
        }
        if err.raw_os_error() != Some(libc::EBUSY) || Instant::now() >= deadline {
            // A last try: the children may have been what kept it busy.
            return fs::remove_dir(dir).map_err(|err| KernelError::io("remove cgroup", dir, err));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// A new cpuset is empty and lets nobody in: fill it from the nearest ancestor that has values.
fn inherit_cpuset(dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = dir.join(file);
        if !read_text(&path)?.is_empty() {
            continue;
        }
        let Some(parent) = dir.parent() else {
            continue;
        };
        if !parent.join(file).exists() {
            continue;
        }
        inherit_cpuset(parent)?;
        write_text(&path, &read_text(&parent.join(file))?)?;
    }
    Ok(())
}

/// Makes a cgroup v2 directory and hands every controller down to it.
fn create_unified(dir: &Path) -> Result<()> {
    let missing: Vec<&Path> = dir
        .ancestors()
        .take_while(|ancestor| !ancestor.exists())
        .collect();
    for path in missing.iter().rev() {
        fs::create_dir(path)
            .or_else(|err| match err.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(err),
            })
            .map_err(|err| KernelError::io("create cgroup", path, err))?;
    }
    let mut parents: Vec<&Path> = dir
        .ancestors()
        .skip(1)
        .take_while(|ancestor| ancestor.join("cgroup.subtree_control").exists())
        .collect();
    parents.reverse();
    for parent in parents {
        enable_controllers(parent)?;
    }
    Ok(())
}

/// Enables in the children of a cgroup each controller that it has itself.
///
/// A controller that cannot be enabled (a parent with processes, a controller in use on v1) is left out:
/// a limit that needs it will then fail with the name of its file.
fn enable_controllers(parent: &Path) -> Result<()> {
    let available = read_text(&parent.join("cgroup.controllers"))?;
    let file = parent.join("cgroup.subtree_control");
    let enabled = read_text(&file)?;
    let missing: Vec<String> = available
        .split_ascii_whitespace()
        .filter(|name| !enabled.split_ascii_whitespace().any(|on| on == *name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() || write_text(&file, &missing.join(" ")).is_ok() {
        return Ok(());
    }
    for one in &missing {
        if let Err(err) = write_text(&file, one) {
            tracing::debug!(%err, "controller not enabled");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_number_or_none() {
        assert_eq!(parse_quota("20000 100000"), Some((20_000, 100_000)));
        assert_eq!(parse_quota("max 50000\n"), Some((-1, 50_000)));
        assert_eq!(parse_quota("20000"), None);
        assert_eq!(parse_quota("many 1"), None);
    }

    #[test]
    fn a_path_cannot_climb_above_the_root_of_its_hierarchy() {
        assert_eq!(clean(Path::new("/../../etc")), Path::new("/etc"));
        assert_eq!(clean(Path::new("../../etc")), Path::new("etc"));
        assert_eq!(clean(Path::new("/a/./b/../c")), Path::new("/a/c"));
    }
}
