//! The host's view of the cgroup hierarchies, v1 and v2.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use nix::sys::signal::Signal;

use super::processes;

/// One mounted hierarchy.
pub struct Hierarchy {
    pub mount: PathBuf,
    /// `cpu`, `name=systemd`, ...; empty for cgroup v2.
    pub controllers: Vec<String>,
}

static HIERARCHIES: LazyLock<Vec<Hierarchy>> = LazyLock::new(|| {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    table.lines().filter_map(parse).collect()
});

fn parse(line: &str) -> Option<Hierarchy> {
    let (mount, fs_part) = line.split_once(" - ")?;
    let mut fields = fs_part.split(' ');
    let kind = fields.next()?;
    let options = fields.nth(1)?;
    let controllers = match kind {
        "cgroup2" => Vec::new(),
        "cgroup" => options
            .split(',')
            .filter(|option| *option != "rw" && *option != "xattr")
            .map(str::to_owned)
            .collect(),
        _ => return None,
    };
    let mount = PathBuf::from(mount.split(' ').nth(4)?);
    Some(Hierarchy { mount, controllers })
}

/// Whether the controller is on a v1 hierarchy here.
pub fn has_v1(controller: &str) -> bool {
    mount_of(controller).is_some()
}

/// Whether every controller is on the one v2 hierarchy here.
pub fn is_unified() -> bool {
    HIERARCHIES.iter().all(|h| h.controllers.is_empty())
}

/// One of two values, by the version of the control groups.
pub fn by_version(v1: &'static str, v2: &'static str) -> &'static str {
    if is_unified() { v2 } else { v1 }
}

/// Whether the controller is on any hierarchy here. v2 freezes and guards
/// devices without a controller.
pub fn has(controller: &str) -> bool {
    let v2 = || {
        let root = HIERARCHIES.iter().find(|h| h.controllers.is_empty());
        let root = root.map(|h| h.mount.join("cgroup.controllers"));
        let text = root.and_then(|file| fs::read_to_string(file).ok());
        text.is_some_and(|text| text.split_whitespace().any(|word| word == controller))
    };
    has_v1(controller) || v2()
}

/// The v2 file with the meaning of a v1 file. Where two become one, both are read from it.
const V2_FILES: [(&str, &str); 13] = [
    ("memory.limit_in_bytes", "memory.max"),
    ("memory.soft_limit_in_bytes", "memory.low"),
    ("memory.memsw.limit_in_bytes", "memory.swap.max"),
    ("cpu.shares", "cpu.weight"),
    ("cpu.cfs_quota_us", "cpu.max"),
    ("cpu.cfs_period_us", "cpu.max"),
    ("cpu.cfs_burst_us", "cpu.max.burst"),
    ("freezer.state", "cgroup.freeze"),
    ("blkio.bfq.weight", "io.bfq.weight"),
    ("blkio.throttle.read_bps_device", "io.max"),
    ("blkio.throttle.write_bps_device", "io.max"),
    ("blkio.throttle.read_iops_device", "io.max"),
    ("blkio.throttle.write_iops_device", "io.max"),
];

fn mount_of(controller: &str) -> Option<&'static Path> {
    HIERARCHIES
        .iter()
        .find(|h| h.controllers.iter().any(|c| c == controller))
        .map(|h| h.mount.as_path())
}

/// Reads a control file of the group at `path`, by its name in v1 or in v2; the
/// error as text, so that "the file is not there" is compared as well.
pub fn read(path: &str, file: &str) -> String {
    let controller = file.split('.').next().unwrap_or(file);
    let v2 = || {
        HIERARCHIES
            .iter()
            .find(|h| is_unified() && h.controllers.is_empty())
            .map(|h| h.mount.as_path())
    };
    let Some(mount) = mount_of(controller).or_else(v2) else {
        return format!("no hierarchy for {file}");
    };
    let file = V2_FILES
        .iter()
        .find(|(v1, _)| is_unified() && *v1 == file)
        .map_or(file, |(_, v2)| v2);
    fs::read_to_string(mount.join(path.trim_start_matches('/')).join(file))
        .map(|text| text.trim_end().to_owned())
        .unwrap_or_else(|error| format!("{file}: {}", error.kind()))
}

/// The directories of the group at `path`, in every hierarchy that has one.
pub fn dirs(path: &str) -> Vec<PathBuf> {
    HIERARCHIES
        .iter()
        .map(|h| h.mount.join(path.trim_start_matches('/')))
        .filter(|dir| dir.is_dir())
        .collect()
}

/// Kills what is in the group and below it.
pub fn kill(dir: &Path) {
    for below in below(dir) {
        kill(&below);
    }
    // A frozen v1 group does not let its members die.
    let _ = fs::write(dir.join("freezer.state"), "THAWED");
    let _ = fs::write(dir.join("cgroup.freeze"), "0");
    let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|line| line.parse().ok()) {
        // Zero stands for a process of another pid namespace.
        if pid > 1 {
            processes::signal(pid, Signal::SIGKILL);
        }
    }
}

/// Removes the group and those below it, unless somebody is in them.
pub fn remove_empty(dir: &Path) {
    for below in below(dir) {
        remove_empty(&below);
    }
    let _ = fs::remove_dir(dir);
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
