//! `update`: limits of a running container, read back from the host.

use serde_json::json;

use crate::harness::cgroups::by_version;
use crate::harness::{Case, cgroups, differential, eventually, ours_beyond_runc, skip};

const FILES: [&str; 10] = [
    "memory.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "cpu.shares",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpuset.cpus",
    "cpuset.mems",
    "pids.max",
    "blkio.bfq.weight",
];

/// A running container with a limit of every kind.
fn limited(c: &mut Case) {
    c.spec()["linux"]["resources"] = json!({
        "devices": [{"allow": false, "access": "rwm"}],
        "memory": {"limit": 67_108_864, "reservation": 33_554_432},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
        "pids": {"limit": 50}
    });
    c.up();
}

fn ready() -> bool {
    let here = ["memory", "cpu", "cpuset", "pids"]
        .iter()
        .all(|name| cgroups::has(name));
    if !here {
        skip("not every controller is here");
    }
    here
}

/// Runs `update` with the flags and records every file afterwards.
fn update(c: &mut Case, flags: &str) {
    c.ok(&format!("update {flags} ID"));
    c.note_cgroup(&FILES);
}

#[test]
fn every_flag_changes_its_own_file() {
    if !ready() {
        return;
    }
    for (flags, file, v1, v2) in [
        (
            "--memory 134217728",
            "memory.limit_in_bytes",
            "134217728",
            "134217728",
        ),
        (
            "--memory 64M",
            "memory.limit_in_bytes",
            "67108864",
            "67108864",
        ),
        (
            "--memory-reservation 16777216",
            "memory.soft_limit_in_bytes",
            "16777216",
            "16777216",
        ),
        // v1 limits memory and swap together. v2 limits swap alone, for which runc has to be told the memory.
        (
            by_version(
                "--memory-swap 134217728",
                "--memory 67108864 --memory-swap 134217728",
            ),
            "memory.memsw.limit_in_bytes",
            "134217728",
            "67108864",
        ),
        ("--cpu-share 256", "cpu.shares", "256", "10"),
        (
            "--cpu-quota 20000",
            "cpu.cfs_quota_us",
            "20000",
            "20000 100000",
        ),
        (
            "--cpu-period 200000",
            "cpu.cfs_period_us",
            "200000",
            "50000 200000",
        ),
        (
            "--cpu-period 50000 --cpu-quota 10000",
            "cpu.cfs_quota_us",
            "10000",
            "10000 50000",
        ),
        ("--cpuset-cpus 0", "cpuset.cpus", "0", "0"),
        ("--cpuset-mems 0", "cpuset.mems", "0", "0"),
        ("--pids-limit 20", "pids.max", "20", "20"),
    ] {
        differential(move |c| {
            limited(c);
            update(c, flags);
            assert_eq!(c.cgroup_file(file), by_version(v1, v2), "{flags}");
        });
    }
}

#[test]
fn memory_goes_up_and_down_with_its_swap() {
    if !ready() {
        return;
    }
    differential(|c| {
        limited(c);
        update(c, "--memory 268435456 --memory-swap 300000000");
        update(c, "--memory 33554432 --memory-swap 40000000");
        update(c, "--memory 134217728 --memory-swap 134217728");
        assert_eq!(c.cgroup_file("memory.limit_in_bytes"), "134217728");
    });
}

#[test]
fn memory_can_become_unlimited() {
    if !ready() {
        return;
    }
    differential(|c| {
        limited(c);
        update(c, "--memory -1");
        update(c, "--memory -1 --memory-swap -1");
        update(c, "--memory-swap -1");
    });
}

/// Shared memory has no file to go to, and the swap limit keeps it in memory.
#[test]
fn memory_below_the_usage_is_refused() {
    if !ready() {
        return;
    }
    if cgroups::is_unified() {
        return skip("v2 takes such a limit, and reclaims or kills");
    }
    differential(|c| {
        c.spec()["linux"]["resources"]["memory"] =
            json!({"limit": 134_217_728, "swap": 134_217_728});
        c.script("head -c 30000000 /dev/zero > /dev/shm/file; echo ready; sleep 1000");
        let outcome = c.create();
        c.ok("start ID");
        eventually(|| outcome.stdout_now().contains("ready").then_some(())).expect("ready");
        c.fails(
            "update --memory 4194304 --memory-swap 4194304 ID",
            &["memory"],
        );
        c.note_cgroup(&["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]);
    });
}

#[test]
fn the_quota_can_be_taken_away() {
    if !ready() {
        return;
    }
    differential(|c| {
        limited(c);
        update(c, "--cpu-quota -1");
        let quota = by_version("-1", "max 100000");
        assert_eq!(c.cgroup_file("cpu.cfs_quota_us"), quota);
    });
}

/// cgroup v2 has one file for both.
#[test]
fn a_quota_alone_keeps_the_period_and_a_period_the_quota() {
    if !ready() {
        return;
    }
    differential(|c| {
        limited(c);
        for (flags, quota, period, both) in [
            ("--cpu-period 200000", "50000", "200000", "50000 200000"),
            ("--cpu-quota 20000", "20000", "200000", "20000 200000"),
            ("--cpu-quota -1", "-1", "200000", "max 200000"),
            ("--cpu-period 50000", "-1", "50000", "max 50000"),
        ] {
            update(c, flags);
            let seen = |file| c.cgroup_file(file);
            let (v1, v2) = (seen("cpu.cfs_quota_us"), seen("cpu.cfs_period_us"));
            let (quota, period) = (by_version(quota, both), by_version(period, both));
            assert_eq!((v1.as_str(), v2.as_str()), (quota, period), "{flags}");
        }
    });
}

/// The kernel holds `burst <= quota` at every moment: which one goes first depends on what was there.
#[test]
fn quota_and_burst_go_up_and_down_together() {
    if !ready() {
        return;
    }
    ours_beyond_runc(|c| {
        limited(c);
        for (quota, burst) in [("50000", "40000"), ("20000", "10000"), ("90000", "80000")] {
            let outcome = c.call(&format!(
                "update --cpu-quota {quota} --cpu-burst {burst} ID"
            ));
            assert_eq!(outcome.code, 0, "{outcome}");
            assert_eq!(c.cgroup_file("cpu.cfs_burst_us"), burst);
            assert!(c.cgroup_file("cpu.cfs_quota_us").starts_with(quota));
        }
        c.fails("update --cpu-burst 90001 ID", &["burst"]);
    });
}

/// The kernel refuses shares of a group that is idle.
#[test]
fn a_container_becomes_idle_and_has_a_share_again() {
    if !ready() {
        return;
    }
    ours_beyond_runc(|c| {
        limited(c);
        c.ok("update --cpu-idle 1 --cpu-share 700 ID");
        assert_eq!(c.cgroup_file("cpu.idle"), "1");
        c.ok("update --cpu-idle 0 --cpu-share 256 ID");
        assert_eq!(c.cgroup_file("cpu.idle"), "0");
        assert_eq!(c.cgroup_file("cpu.shares"), by_version("256", "10"));
    });
}

#[test]
fn the_pids_limit_can_be_taken_away() {
    if !ready() {
        return;
    }
    differential(|c| {
        limited(c);
        update(c, "--pids-limit -1");
        assert_eq!(c.cgroup_file("pids.max"), "max");
    });
}

#[test]
fn several_flags_are_applied_together() {
    if !ready() {
        return;
    }
    differential(|c| {
        limited(c);
        update(
            c,
            "--memory 100663296 --memory-reservation 50331648 --cpu-share 128 --cpu-quota 15000 \
             --cpu-period 30000 --cpuset-cpus 0 --pids-limit 9",
        );
        assert_eq!(c.cgroup_file("pids.max"), "9");
    });
}

#[test]
fn the_block_weight_is_changed_where_the_kernel_has_one() {
    if !ready() {
        return;
    }
    differential(|c| {
        limited(c);
        let outcome = c.call("update --blkio-weight 400 ID");
        c.note("update", &outcome.code.to_string());
        c.note_cgroup(&["blkio.weight", "blkio.bfq.weight"]);
    });
}

const DOCUMENT: &str = r#"{"memory":{"limit":100663296,"reservation":50331648,"swap":100663296},
    "cpu":{"shares":128,"quota":15000,"period":30000,"cpus":"0","mems":"0"},"pids":{"limit":33}}"#;

#[test]
fn resources_come_from_standard_input() {
    if !ready() {
        return;
    }
    differential(|c| {
        limited(c);
        let command = c.cmd().args(c.words("update --resources - ID"));
        let outcome = command.stdin(DOCUMENT).output();
        c.expect_code("update", &outcome, 0);
        c.note_cgroup(&FILES);
        assert_eq!(c.cgroup_file("pids.max"), "33");
    });
}

#[test]
fn resources_come_from_a_file() {
    if !ready() {
        return;
    }
    differential(|c| {
        limited(c);
        let file = c.bundle.path().join("resources.json");
        std::fs::write(&file, DOCUMENT).expect("write");
        let outcome = c
            .cmd()
            .args(["update", "-r"])
            .arg(file)
            .arg(c.id())
            .output();
        c.expect_code("update", &outcome, 0);
        c.note_cgroup(&FILES);
        assert_eq!(c.cgroup_file("memory.limit_in_bytes"), "100663296");
    });
}

/// dockerd sends documents in which most fields are there and zero.
#[test]
fn zeros_of_a_document_change_nothing() {
    if !ready() {
        return;
    }
    differential(|c| {
        limited(c);
        let document = r#"{"memory":{"limit":0,"reservation":0,"swap":0},"blockIO":{"weight":0},
            "cpu":{"shares":64,"quota":0,"period":0,"realtimeRuntime":0,"realtimePeriod":0,"cpus":"","mems":""},"pids":{"limit":0}}"#;
        let command = c.cmd().args(c.words("update --resources - ID"));
        let outcome = command.stdin(document).output();
        c.expect_code("update", &outcome, 0);
        c.note_cgroup(&FILES);
        assert_eq!(c.cgroup_file("cpu.shares"), by_version("64", "3"));
        assert_eq!(c.cgroup_file("memory.limit_in_bytes"), "67108864");
        assert_eq!(c.cgroup_file("pids.max"), "50");
        let quota = by_version("50000", "50000 100000");
        assert_eq!(c.cgroup_file("cpu.cfs_quota_us"), quota);
    });
}

#[test]
fn a_created_and_a_paused_container_can_be_updated() {
    if !ready() {
        return;
    }
    differential(|c| {
        c.idle();
        c.create();
        update(c, "--pids-limit 11");
        c.ok("start ID");
        c.ok("pause ID");
        update(c, "--pids-limit 12");
        let status = c.status();
        c.note("status", &status);
        assert_eq!(c.cgroup_file("pids.max"), "12");
        c.ok("resume ID");
    });
}

/// Device rules are the container's security: an update keeps them.
#[test]
fn an_update_keeps_the_device_rules_and_the_rest() {
    if !ready() {
        return;
    }
    differential(|c| {
        limited(c);
        let before = crate::harness::text::sorted(&c.cgroup_file("devices.list"));
        update(c, "--pids-limit 12");
        let after = crate::harness::text::sorted(&c.cgroup_file("devices.list"));
        c.note("devices.list", &after);
        assert_eq!(before, after);
    });
}

#[test]
fn bad_values_are_refused() {
    if !ready() {
        return;
    }
    differential(|c| {
        limited(c);
        for flags in [
            "--memory lots",
            "--memory 12345678901234567890123",
            "--cpu-quota 1",
            "--cpu-period 1",
            "--cpuset-cpus 9000",
            "--cpu-share many",
            "--resources /no/such/file",
        ] {
            c.fails(&format!("update {flags} ID"), &[]);
        }
        c.note_cgroup(&FILES);
        let command = c.cmd().args(c.words("update --resources - ID"));
        let outcome = command.stdin("{\"memory\":").output();
        c.expect_failure("truncated document", &outcome, &[]);
    });
}
