//! Limits, counters and membership in control groups v2.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Case, Cmd, differential, eventually, host, ours_beyond_runc};
use crate::machine::{MIB, field, group, has_cgroup2, hold};

/// [`differential`] where every controller is on v2.
fn on_cgroup2<F: Fn(&mut Case)>(scenario: F) {
    if has_cgroup2() {
        differential(scenario);
    }
}

#[test]
fn unified_settings_reach_their_files() {
    on_cgroup2(|c| {
        c.spec()["linux"]["resources"]["unified"] = json!({
            "memory.high": "50331648", "memory.min": "4194304", "memory.max": "67108864",
            "memory.oom.group": "1", "cpu.weight": "77", "pids.max": "40"
        });
        c.up();
        c.note_cgroup(&[
            "memory.high",
            "memory.min",
            "memory.max",
            "memory.oom.group",
            "cpu.weight",
            "pids.max",
        ]);
        assert_eq!(c.cgroup_file("memory.high"), "50331648");
        assert_eq!(c.cgroup_file("memory.oom.group"), "1");
    });
}

/// With v1 that is what the file is; v2 has one for swap alone.
#[test]
fn a_limit_of_memory_and_swap_counts_from_the_memory_limit_that_holds() {
    if !has_cgroup2() {
        return;
    }
    ours_beyond_runc(|c| {
        c.spec()["linux"]["resources"]["memory"] = json!({"limit": 64 * MIB});
        c.up();
        c.ok("update --memory-swap 100663296 ID");
        assert_eq!(c.cgroup_file("memory.swap.max"), "33554432");
        assert_eq!(c.cgroup_file("memory.max"), "67108864");
        c.fails("update --memory-swap 33554432 ID", &["memory+swap limit"]);
        c.ok("update --memory -1 ID");
        c.fails(
            "update --memory-swap 33554432 ID",
            &["without memory limit"],
        );
    });
}

#[test]
fn a_limit_of_huge_pages_holds_and_they_are_counted() {
    on_cgroup2(|c| {
        c.spec()["linux"]["resources"]["hugepageLimits"] =
            json!([{"pageSize": "2MB", "limit": 4 * MIB}]);
        c.up();
        c.note_cgroup(&["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"]);
        assert_eq!(c.cgroup_file("hugetlb.2MB.rsvd.max"), "4194304");
    });
    if !has_cgroup2() {
        return;
    }
    // runc 1.1.15 has none with cgroup v2: it looks for a file that no kernel has (opencontainers/cgroups#24).
    ours_beyond_runc(|c| {
        c.up();
        let text = c.ok("events --stats ID").stdout;
        let stats: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(stats["data"]["hugetlb"]["2MB"], json!({"failcnt": 0}));
    });
}

#[test]
fn the_doctor_finds_nothing_wrong_with_the_control_groups() {
    if !has_cgroup2() {
        return;
    }
    let out = Cmd::new(host::our_program())
        .args(["doctor", "--json"])
        .output();
    let report: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|_| panic!("{out}"));
    let findings = report["findings"].as_array().expect("findings");
    let of_groups = |finding: &&Value| {
        finding["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("cgroup."))
    };
    let ids: Vec<_> = findings
        .iter()
        .filter(of_groups)
        .map(|finding| &finding["id"])
        .collect();
    for id in ["layout", "controllers", "limit", "swap", "reclaim"] {
        assert!(ids.contains(&&json!(format!("cgroup.{id}"))), "{ids:?}");
    }
    for finding in findings.iter().filter(of_groups) {
        assert_eq!(finding["status"], "ok", "{finding:#}");
    }
    assert!(
        !fs::read_dir("/sys/fs/cgroup")
            .expect("groups")
            .flatten()
            .any(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with("elastic-mem-doctor-")
            })
    );
}

#[test]
fn unknown_unified_settings_are_refused() {
    if !has_cgroup2() {
        return;
    }
    for key in ["memory.no_such_file", "../escape", "memory.max/x", "no_dot"] {
        differential(move |c| {
            c.spec()["linux"]["resources"]["unified"] = json!({key: "1"});
            c.run_fails(&[]);
        });
    }
}

#[test]
fn the_high_mark_slows_down_and_is_counted() {
    on_cgroup2(|c| {
        c.spec()["linux"]["resources"]["unified"] =
            json!({"memory.high": "16777216", "memory.swap.max": "0"});
        // Far above the mark; whether it gets there does not matter.
        c.script("timeout 3 dd if=/dev/zero of=/dev/null bs=48M count=1; sleep 1000");
        c.create();
        c.ok("start ID");
        let high = || field(&c.cgroup_file("memory.events"), "high");
        eventually(|| (high() > 0).then_some(())).expect("a high event");
        let stalled = || {
            let text = c.cgroup_file("memory.pressure");
            let line = text.lines().find(|line| line.starts_with("some "));
            let total = line.and_then(|line| line.rsplit_once("total="));
            total.and_then(|(_, total)| total.parse::<u64>().ok()) > Some(0)
        };
        eventually(|| stalled().then_some(())).expect("pressure");
        let killed = field(&c.cgroup_file("memory.events"), "oom_kill");
        c.note("killed", &killed.to_string());
        assert_eq!(killed, 0);
    });
}

#[test]
fn the_killing_of_a_child_is_counted_and_told() {
    on_cgroup2(|c| {
        c.spec()["linux"]["resources"]["memory"] = json!({"limit": 24 * MIB, "swap": 24 * MIB});
        c.script("dd if=/dev/zero of=/dev/null bs=64M count=1; echo code $?; sleep 1000");
        let outcome = c.create();
        let events = c.cmd().args(c.words("events --interval 1s ID")).spawn();
        c.ok("start ID");
        let killed = || outcome.stdout_now().contains("code 137");
        eventually(|| killed().then_some(())).expect("the child is killed");
        assert_eq!(field(&c.cgroup_file("memory.events"), "oom_kill"), 1);
        let told = || events.stdout_now().contains("\"oom\"");
        let told = eventually(|| told().then_some(())).is_some();
        c.note("told", &told.to_string());
        c.ok("kill ID KILL");
        c.wait_for("stopped");
        c.ok("delete ID");
        events.wait();
    });
}

#[test]
fn a_group_that_dies_as_one_ends_the_container() {
    on_cgroup2(|c| {
        c.spec()["linux"]["resources"]["memory"] = json!({"limit": 24 * MIB, "swap": 24 * MIB});
        c.spec()["linux"]["resources"]["unified"] = json!({"memory.oom.group": "1"});
        c.script("dd if=/dev/zero of=/dev/null bs=64M count=1 & wait; echo alive");
        c.run_to(137);
    });
}

#[test]
fn memory_can_be_reclaimed_from_outside() {
    on_cgroup2(|c| {
        // Cached pages of a file on a disk need no swap to go. /var/tmp is on one.
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("file");
        fs::write(file.path(), vec![7_u8; 16 << 20]).expect("write");
        file.as_file().sync_all().expect("sync");
        let fd = std::os::fd::AsRawFd::as_raw_fd(file.as_file());
        // What is cached already would be charged to us.
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        nix::fcntl::posix_fadvise(fd, 0, 0, advice).expect("fadvise");
        c.push(
            "/mounts",
            [
                json!({"destination": "/mnt", "type": "bind", "source": file.path(),
                    "options": ["bind", "ro"]}),
            ],
        );
        fs::remove_dir(c.rootfs().join("mnt")).expect("remove");
        fs::write(c.rootfs().join("mnt"), "").expect("target");
        c.script("cat /mnt | wc -c; sleep 1000");
        let outcome = c.create();
        c.ok("start ID");
        eventually(|| outcome.stdout_now().contains("16777216").then_some(())).expect("read");
        let cached = || field(&c.cgroup_file("memory.stat"), "file");
        let before = cached();
        assert!(before > 12 * MIB, "{before} bytes of cache");
        // It ends with EAGAIN when it finds less than that.
        let _ = fs::write(group(c).join("memory.reclaim"), "12M");
        let after = cached();
        assert!(after + 8 * MIB < before, "{before} -> {after}");
    });
}

#[test]
fn the_peak_of_memory_is_in_the_statistics() {
    on_cgroup2(|c| {
        hold(c);
        let text = c.call("events --stats ID").stdout;
        let stats: Value = serde_json::from_str(&text).expect("JSON");
        let usage = &stats["data"]["memory"]["usage"];
        assert!(usage["usage"].as_u64() > Some(8 * MIB), "{text}");
        let raw = &stats["data"]["memory"]["raw"];
        assert!(raw["anon"].as_u64() >= Some(8 * MIB), "{text}");
        let names = raw.as_object().expect("raw").keys();
        let mut names: Vec<_> = names.map(String::as_str).collect();
        names.sort_unstable();
        c.note("raw", &names.join("\n"));
    });
}

#[test]
fn a_pause_freezes_the_groups_below_too() {
    on_cgroup2(|c| {
        c.up();
        fs::create_dir(group(c).join("below")).expect("mkdir");
        c.ok("pause ID");
        let frozen = |dir: &str| {
            let file = group(c).join(dir).join("cgroup.events");
            field(&fs::read_to_string(file).expect("events"), "frozen")
        };
        let seen = format!("{} {}", frozen("."), frozen("below"));
        c.ok("resume ID");
        assert_eq!(frozen_now(c), 0);
        c.note("frozen", &seen);
        assert_eq!(seen, "1 1");
    });
}

fn frozen_now(c: &Case) -> u64 {
    field(&c.cgroup_file("cgroup.events"), "frozen")
}

#[test]
fn a_paused_container_can_be_killed() {
    on_cgroup2(|c| {
        c.up();
        c.ok("pause ID");
        c.ok("kill ID KILL");
        c.ok("delete --force ID");
        let left = c.leftovers();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn the_container_sees_its_group_as_the_root() {
    on_cgroup2(|c| {
        c.push("/linux/namespaces", [json!({"type": "cgroup"})]);
        c.push(
            "/mounts",
            [
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                    "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
            ],
        );
        let seen = c.probe(
            "cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.type; cat /sys/fs/cgroup/memory.max; \
             mkdir /sys/fs/cgroup/x 2>/dev/null || echo read-only",
        );
        assert!(seen.contains("0::/\n"), "{seen}");
        assert!(seen.contains("read-only"), "{seen}");
    });
}

/// Once the container has moved its processes down, the kernel lets none in at the top.
#[test]
fn exec_goes_where_a_container_that_manages_groups_has_gone() {
    on_cgroup2(|c| {
        c.push("/linux/namespaces", [json!({"type": "cgroup"})]);
        c.push(
            "/mounts",
            [
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                    "options": ["nosuid", "noexec", "nodev", "relatime", "rw"]}),
            ],
        );
        c.script(
            "cd /sys/fs/cgroup && mkdir own && echo 1 > own/cgroup.procs && \
             echo +memory > cgroup.subtree_control && echo moved; sleep 1000",
        );
        let outcome = c.create();
        c.ok("start ID");
        let moved = eventually(|| outcome.stdout_now().contains("moved").then_some(()));
        assert!(moved.is_some(), "it never moves");
        let seen = c.exec("", "cat /proc/self/cgroup");
        assert_eq!(seen, "0::/own\n");
    });
}

#[test]
fn all_processes_can_be_signalled() {
    on_cgroup2(|c| {
        c.script("sleep 1000 & sleep 1001 & wait; sleep 1002");
        c.create();
        c.ok("start ID");
        eventually(|| (c.processes().len() == 3).then_some(())).expect("three");
        // runc warns of those that another's end has ended.
        let outcome = c.code_of("kill --all ID KILL");
        assert_eq!(outcome.code, 0, "{outcome}");
        c.wait_for("stopped");
        let left = c.processes().len();
        c.note("processes", &left.to_string());
        assert_eq!(left, 0);
    });
}
