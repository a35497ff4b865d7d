//! What a container must not leave behind.

use std::fs;
use std::path::Path;

use super::cgroups;

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
    let mark = format!("{MARK}={mark}\0");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        // A zombie waits for its parent, which may be any reaper of the host.
        if status.is_empty() || status.contains("\nState:\tZ") || status.contains("\nState:\tX") {
            continue;
        }
        let environ = read("environ");
        let marked = environ
            .windows(mark.len())
            .any(|window| window == mark.as_bytes());
        let groups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        let inside = groups.lines().any(|line| {
            let path = line.splitn(3, ':').nth(2).unwrap_or_default();
            path == cgroup || path.starts_with(&format!("{cgroup}/"))
        });
        if marked || inside {
            let name = status.lines().next().unwrap_or_default();
            found.push((pid, name.trim_start_matches("Name:\t").to_owned()));
        }
    }
    found
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
