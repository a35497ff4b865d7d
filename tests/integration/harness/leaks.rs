//! What a container must not leave behind.

use std::fs;
use std::path::Path;

use super::{cgroups, processes};

/// The environment variable every command of the suite carries; helpers that
/// a runtime forks inherit it.
pub const MARK: &str = "ELASTIC_MEM_TEST_MARK";

/// Everything left of a container: processes, cgroups, mounts, state.
pub fn leftovers(mark: &str, cgroup: &str, bundle: &Path, root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (pid, name) in processes(mark, cgroup) {
        found.push(format!("process {name} ({pid})"));
    }
    for dir in cgroups::dirs(cgroup) {
        found.push(format!("cgroup {}", dir.display()));
    }
    for mount in mounts(bundle).into_iter().chain(mounts(root)) {
        found.push(format!("mount {mount}"));
    }
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        found.push(format!("state {}", entry.file_name().to_string_lossy()));
    }
    found
}

/// Live processes that carry our mark or are in our cgroup.
pub fn processes(mark: &str, cgroup: &str) -> Vec<(i32, String)> {
    let below = format!("{cgroup}/");
    let is_inside = |line: &str| {
        let path = line.splitn(3, ':').nth(2).unwrap_or_default();
        path == cgroup || path.starts_with(&below)
    };
    processes::all()
        .into_iter()
        .filter(|p| p.has_environment(MARK, mark) || p.cgroups.lines().any(is_inside))
        .map(|p| (p.pid, p.name))
        .collect()
}

/// Mount points of the host at or below `dir`.
pub fn mounts(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|mount| Path::new(mount).starts_with(dir))
        .map(str::to_owned)
        .collect()
}
