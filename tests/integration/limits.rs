//! Resource limits of the bundle, read back from the host's cgroup files.

use serde_json::{Value, json};

use crate::harness::cgroups::by_version;
use crate::harness::{Case, cgroups, differential, skip};

fn with(c: &mut Case, kind: &str, value: Value) {
    c.spec()["linux"]["resources"][kind] = value;
}

fn needs(controller: &str) -> bool {
    let here = cgroups::has(controller);
    if !here {
        skip(&format!("no {controller} controller"));
    }
    here
}

fn needs_v1(controller: &str) -> bool {
    let here = cgroups::has_v1(controller);
    if !here {
        skip(&format!("no v1 {controller} hierarchy"));
    }
    here
}

const MIB: u64 = 1 << 20;

const MEMORY_FILES: [&str; 6] = [
    "memory.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.kmem.limit_in_bytes",
    "memory.swappiness",
    "memory.use_hierarchy",
];

#[test]
fn without_limits_nothing_is_limited() {
    if !needs("memory") {
        return;
    }
    differential(|c| {
        c.up();
        c.note_cgroup(&MEMORY_FILES);
        c.note_cgroup(&[
            "cpu.shares",
            "cpu.cfs_quota_us",
            "cpu.cfs_period_us",
            "cpuset.cpus",
            "cpuset.mems",
            "pids.max",
            "freezer.state",
        ]);
        assert_eq!(c.cgroup_file("pids.max"), "max");
    });
}

#[test]
fn the_memory_limit_is_set() {
    if !needs("memory") {
        return;
    }
    differential(|c| {
        with(c, "memory", json!({"limit": 64 * MIB}));
        c.up();
        c.note_cgroup(&MEMORY_FILES);
        assert_eq!(
            c.cgroup_file("memory.limit_in_bytes"),
            (64 * MIB).to_string()
        );
    });
}

#[test]
fn memory_limit_swap_and_reservation_are_set_together() {
    if !needs("memory") {
        return;
    }
    differential(|c| {
        with(
            c,
            "memory",
            json!({"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB, "swappiness": 30}),
        );
        c.up();
        c.note_cgroup(&MEMORY_FILES);
        assert_eq!(
            c.cgroup_file("memory.soft_limit_in_bytes"),
            (32 * MIB).to_string()
        );
        if !cgroups::is_unified() {
            assert_eq!(c.cgroup_file("memory.swappiness"), "30");
        }
    });
}

#[test]
fn unlimited_memory_is_minus_one() {
    if !needs("memory") {
        return;
    }
    differential(|c| {
        with(c, "memory", json!({"limit": -1, "swap": -1}));
        c.up();
        c.note_cgroup(&MEMORY_FILES);
    });
}

#[test]
fn a_swap_limit_below_the_memory_limit_is_refused() {
    if !needs("memory") {
        return;
    }
    differential(|c| {
        with(c, "memory", json!({"limit": 64 * MIB, "swap": 32 * MIB}));
        c.run_fails(&["memory"]);
    });
}

#[test]
fn a_swappiness_above_one_hundred_is_refused() {
    if !needs_v1("memory") {
        return;
    }
    differential(|c| {
        with(c, "memory", json!({"limit": 64 * MIB, "swappiness": 101}));
        c.run_fails(&["swappiness"]);
    });
}

#[test]
fn the_oom_killer_can_be_disabled() {
    if !needs_v1("memory") {
        return;
    }
    differential(|c| {
        with(
            c,
            "memory",
            json!({"limit": 64 * MIB, "disableOOMKiller": true}),
        );
        c.up();
        let control = c.cgroup_file("memory.oom_control");
        let first = control.lines().next().unwrap_or_default().to_owned();
        c.note("oom_control", &first);
        assert_eq!(first, "oom_kill_disable 1");
    });
}

#[test]
fn a_process_above_the_memory_limit_is_killed() {
    if !needs("memory") {
        return;
    }
    differential(|c| {
        with(c, "memory", json!({"limit": 24 * MIB, "swap": 24 * MIB}));
        // The child is killed, the shell lives and tells.
        let seen = c.probe("dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; echo $?");
        assert_eq!(seen, "137\n");
    });
}

#[test]
fn cpu_shares_quota_and_period_are_set() {
    if !needs("cpu") {
        return;
    }
    differential(|c| {
        with(
            c,
            "cpu",
            json!({"shares": 333, "quota": 25_000, "period": 50_000}),
        );
        c.up();
        c.note_cgroup(&["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"]);
        let shares = by_version("333", "13");
        assert_eq!(c.cgroup_file("cpu.shares"), shares);
        let quota = by_version("25000", "25000 50000");
        assert_eq!(c.cgroup_file("cpu.cfs_quota_us"), quota);
    });
}

#[test]
fn a_cpu_quota_without_a_period_keeps_the_kernels() {
    if !needs("cpu") {
        return;
    }
    differential(|c| {
        with(c, "cpu", json!({"quota": 30_000}));
        c.up();
        c.note_cgroup(&["cpu.cfs_quota_us", "cpu.cfs_period_us"]);
    });
}

#[test]
fn extreme_cpu_shares_are_runcs() {
    if !needs("cpu") {
        return;
    }
    // On v2 runc 1.1 fails with less than the kernel's least, 2, where we take that.
    let least = if cgroups::is_unified() { 2_u64 } else { 1 };
    for shares in [least, 2, 262_144] {
        differential(move |c| {
            with(c, "cpu", json!({"shares": shares}));
            c.bundle.write();
            let outcome = c.call("create --bundle BUNDLE ID");
            c.note("create", &outcome.code.to_string());
            c.note_cgroup(&["cpu.shares"]);
            assert_ne!(c.cgroup_file("cpu.shares"), "1024");
        });
    }
}

#[test]
fn the_cpuset_is_set() {
    if !needs("cpuset") {
        return;
    }
    differential(|c| {
        with(c, "cpu", json!({"cpus": "0", "mems": "0"}));
        c.up();
        c.note_cgroup(&["cpuset.cpus", "cpuset.mems"]);
        let seen = c.exec(
            "",
            "grep -e Cpus_allowed_list -e Mems_allowed_list /proc/self/status",
        );
        assert!(seen.contains("Cpus_allowed_list:\t0\n"), "{seen}");
    });
}

#[test]
fn a_cpuset_that_the_machine_does_not_have_is_refused() {
    if !needs("cpuset") {
        return;
    }
    differential(|c| {
        with(c, "cpu", json!({"cpus": "8000-8001"}));
        c.run_fails(&["cpuset.cpus"]);
    });
}

#[test]
fn the_pids_limit_is_set_and_holds() {
    if !needs("pids") {
        return;
    }
    differential(|c| {
        with(c, "pids", json!({"limit": 7}));
        c.up();
        c.note_cgroup(&["pids.max"]);
        assert_eq!(c.cgroup_file("pids.max"), "7");
        let outcome = c.exec_call("", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait");
        assert!(outcome.stderr.contains("fork"), "{outcome}");
    });
}

#[test]
fn a_pids_limit_of_zero_or_less_is_runcs() {
    if !needs("pids") {
        return;
    }
    for limit in [0, -1] {
        differential(move |c| {
            with(c, "pids", json!({"limit": limit}));
            c.up();
            c.note_cgroup(&["pids.max"]);
            assert_ne!(c.cgroup_file("pids.max"), "");
        });
    }
}

#[test]
fn the_block_weight_is_set_where_the_kernel_has_one() {
    if !needs(by_version("blkio", "io")) {
        return;
    }
    differential(|c| {
        with(c, "blockIO", json!({"weight": 345}));
        c.idle();
        c.bundle.write();
        let outcome = c.call("create --bundle BUNDLE ID");
        c.note("create", &outcome.code.to_string());
        c.note_cgroup(&["blkio.weight", "blkio.bfq.weight"]);
    });
}

#[test]
fn block_throttles_are_set() {
    if !needs(by_version("blkio", "io")) {
        return;
    }
    // Any whole disk will do; throttles need a real one.
    let Some((major, minor)) = a_disk() else {
        return skip("no block device to throttle");
    };
    differential(move |c| {
        let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
        with(
            c,
            "blockIO",
            json!({"throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
                   "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200)}),
        );
        c.up();
        c.note_cgroup(&[
            "blkio.throttle.read_bps_device",
            "blkio.throttle.write_bps_device",
            "blkio.throttle.read_iops_device",
            "blkio.throttle.write_iops_device",
        ]);
        let read = c.cgroup_file("blkio.throttle.read_bps_device");
        let wanted = if cgroups::is_unified() {
            format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200")
        } else {
            format!("{major}:{minor} 1048576")
        };
        assert_eq!(read, wanted);
    });
}

fn a_disk() -> Option<(u32, u32)> {
    let disks = std::fs::read_dir("/sys/block").ok()?;
    disks.flatten().find_map(|disk| {
        // Idle loop devices have no queue to throttle.
        let size = std::fs::read_to_string(disk.path().join("size")).ok()?;
        if size.trim() == "0" {
            return None;
        }
        let text = std::fs::read_to_string(disk.path().join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

#[test]
fn a_missing_cgroups_path_gets_one_of_its_own() {
    // Where it is differs by name; that it is one of its own is the property.
    crate::harness::ours(|c| {
        crate::harness::strip(c.spec(), "/linux", "cgroupsPath");
        let line = by_version("memory:", "^0::");
        let seen = c.probe(&format!("grep {line} /proc/self/cgroup"));
        let id = c.id().to_owned();
        assert!(seen.trim_end().ends_with(&id), "{seen}");
        let path = seen.trim_end().splitn(3, ':').nth(2).expect("path");
        assert_eq!(cgroups::dirs(path), Vec::<std::path::PathBuf>::new());
    });
}

#[test]
fn a_relative_cgroups_path_is_runcs() {
    differential(|c| {
        let path = c.cgroup()[1..].to_owned();
        c.spec()["linux"]["cgroupsPath"] = json!(path);
        c.probe("cat /proc/self/cgroup");
    });
}

/// `..` must not lead out of the hierarchy: it counts from its root.
#[test]
fn a_cgroups_path_with_dots_stays_inside() {
    differential(|c| {
        let path = format!("/../..{}", c.cgroup());
        c.spec()["linux"]["cgroupsPath"] = json!(path);
        let seen = c.probe("cat /proc/self/cgroup");
        assert!(!seen.contains(".."), "{seen}");
    });
}

#[test]
fn nested_groups_are_made_and_the_leaf_is_removed() {
    differential(|c| {
        let path = format!("{}/one/two", c.cgroup());
        c.spec()["linux"]["cgroupsPath"] = json!(path);
        c.up();
        assert!(!cgroups::dirs(&path).is_empty());
        c.ok("delete --force ID");
        let left = cgroups::dirs(&path).len();
        c.note("leaf directories left", &left.to_string());
        cgroups::remove(c.cgroup());
    });
}
