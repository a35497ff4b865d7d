//! What this machine has, and the control files of a container on it.

use std::path::{Path, PathBuf};

use crate::common::nodes;
pub use crate::common::nodes::far_nodes;
use crate::harness::{Case, cgroups, skip};

pub const MIB: u64 = 1 << 20;

/// Whether the test can run; reports the skip otherwise.
pub fn has_cgroup2() -> bool {
    let here = cgroups::is_unified();
    if !here {
        skip("not every controller is on cgroup v2");
    }
    here
}

pub fn has_systemd() -> bool {
    let here = cgroups::is_unified() && Path::new("/run/systemd/system").exists();
    if !here {
        skip("systemd with cgroup v2 does not run here");
    }
    here
}

/// A memory node without processors to put pages on.
pub fn far_node() -> Option<u32> {
    let found = far_nodes().first().copied();
    if found.is_none() || !cgroups::is_unified() {
        skip("no memory node without processors, or no cgroup v2");
        return None;
    }
    found
}

/// The folder of the container's control group.
pub fn group(c: &Case) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(c.cgroup().trim_start_matches('/'))
}

/// The number after a key, as in `memory.events` and `memory.stat`.
pub fn field(text: &str, key: &str) -> u64 {
    let found = text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.parse().ok())?
    });
    found.unwrap_or_else(|| panic!("no {key} in {text}"))
}

/// How many bytes of anonymous memory the container has on a node.
pub fn anon_on(c: &Case, node: u32) -> u64 {
    nodes::anon_on(&c.cgroup_file("memory.numa_stat"), node)
}

/// A shell script that holds 8 MiB, says so, and stays.
pub const HOLD: &str =
    "x=$(head -c 8388608 /dev/zero | tr '\\0' x); echo holding ${#x}; while :; do sleep 1000; done";

/// Creates and starts a container that runs [`HOLD`].
pub fn hold(c: &mut Case) {
    c.script(HOLD);
    let outcome = c.create();
    c.ok("start ID");
    let seen = crate::harness::eventually(|| {
        outcome
            .stdout_now()
            .contains("holding 8388608")
            .then_some(())
    });
    assert!(seen.is_some(), "it never holds: {}", outcome.stdout_now());
}
