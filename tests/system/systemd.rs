//! Control groups that systemd makes: `--systemd-cgroup`.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::common::wait_until;
use crate::harness::{Case, Cmd, cgroups, differential, eventually};
use crate::machine::{MIB, field, has_systemd};

/// Where the scope of a container is.
struct Scope {
    unit: String,
    path: String,
}

impl Scope {
    /// Gives the container a scope of its own below a slice of its own.
    fn of(c: &mut Case) -> Self {
        let id = c.id().to_owned();
        c.spec()["linux"]["cgroupsPath"] = json!(format!("emt-tests.slice:eme:{id}"));
        let unit = format!("eme-{id}.scope");
        let path = format!("/emt.slice/emt-tests.slice/{unit}");
        c.normaliser.word(&unit, "<SCOPE>");
        Self { unit, path }
    }

    fn folder(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup").join(&self.path[1..])
    }

    fn file(&self, name: &str) -> String {
        cgroups::read(&self.path, name)
    }

    /// What systemd knows of the scope.
    fn properties(&self) -> String {
        // Not compared: device rules, of which runc tells systemd too, and ours are in the control group alone.
        let names = "ActiveState,MemoryMax,MemorySwapMax,MemoryHigh,MemoryLow,CPUWeight,CPUQuotaPerSecUSec,CPUQuotaPeriodUSec,\
                     TasksMax,AllowedCPUs,AllowedMemoryNodes,Delegate,Slice";
        let outcome = Cmd::new("systemctl")
            .args(["show", &self.unit, "--property", names])
            .output();
        assert_eq!(outcome.code, 0, "{outcome}");
        outcome.stdout
    }

    fn is_known(&self) -> bool {
        !self.properties().contains("ActiveState=inactive")
    }

    fn wait_until_gone(&self) {
        let gone = eventually(|| (!self.folder().exists() && !self.is_known()).then_some(()));
        assert!(gone.is_some(), "{}", self.properties());
    }
}

const FILES: [&str; 8] = [
    "memory.max",
    "memory.swap.max",
    "memory.low",
    "cpu.weight",
    "cpu.max",
    "pids.max",
    "cpuset.cpus",
    "cpuset.mems",
];

fn create(c: &mut Case) {
    c.bundle.write();
    c.ok("--systemd-cgroup create --bundle BUNDLE ID");
}

fn up(c: &mut Case) {
    c.idle();
    create(c);
    c.ok("--systemd-cgroup start ID");
}

fn note_scope(c: &mut Case, scope: &Scope) {
    for file in FILES {
        let text = scope.file(file);
        c.note(file, &text);
    }
    let shown = scope.properties();
    c.note("properties", &shown);
}

fn limit(c: &mut Case) {
    c.spec()["linux"]["resources"] = json!({
        "devices": [{"allow": false, "access": "rwm"}],
        "memory": {"limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 50}
    });
}

/// [`differential`] where there is systemd.
fn on_systemd<F: Fn(&mut Case)>(scenario: F) {
    if has_systemd() {
        differential(scenario);
    }
}

#[test]
fn the_scope_has_the_limits_and_systemd_knows_them() {
    on_systemd(|c| {
        let scope = Scope::of(c);
        limit(c);
        up(c);
        note_scope(c, &scope);
        assert_eq!(scope.file("memory.max"), (64 * MIB).to_string());
        assert!(scope.properties().contains("MemoryMax=67108864"));
        let text = c.call("state ID").stdout;
        assert!(text.contains("running"), "{text}");
    });
}

#[test]
fn without_limits_the_scope_has_none() {
    on_systemd(|c| {
        let scope = Scope::of(c);
        up(c);
        note_scope(c, &scope);
        assert_eq!(scope.file("memory.max"), "max");
    });
}

#[test]
fn the_scope_goes_with_the_container() {
    on_systemd(|c| {
        let scope = Scope::of(c);
        up(c);
        assert!(scope.folder().is_dir() && scope.is_known());
        c.ok("--systemd-cgroup kill ID KILL");
        c.wait_for("stopped");
        c.ok("--systemd-cgroup delete ID");
        scope.wait_until_gone();
    });
}

#[test]
fn delete_by_force_needs_no_flag() {
    on_systemd(|c| {
        let scope = Scope::of(c);
        up(c);
        c.ok("delete --force ID");
        scope.wait_until_gone();
    });
}

#[test]
fn an_update_changes_files_and_properties() {
    on_systemd(|c| {
        let scope = Scope::of(c);
        limit(c);
        up(c);
        for flags in [
            // Not without swap, which runc 1.1 tells the kernel and not systemd.
            "--memory 134217728 --memory-swap 167772160",
            "--memory-reservation 16777216",
            "--cpu-share 256",
            "--cpu-quota 20000 --cpu-period 50000",
            "--cpu-period 40000",
            "--cpu-quota 10000",
            "--pids-limit 21",
            "--cpuset-cpus 1",
            "--cpu-share 300",
        ] {
            c.ok(&format!("--systemd-cgroup update {flags} ID"));
            note_scope(c, &scope);
        }
        assert_eq!(scope.file("memory.max"), "134217728");
        assert_eq!(scope.file("pids.max"), "21");
        assert_eq!(scope.file("cpuset.cpus"), "1");
        assert_eq!(scope.file("cpu.max"), "10000 40000");
    });
}

/// dockerd writes zeros for what it does not set.
#[test]
fn zeros_of_an_update_change_neither_files_nor_properties() {
    on_systemd(|c| {
        let scope = Scope::of(c);
        limit(c);
        up(c);
        let before = [
            scope.file("memory.max"),
            scope.file("cpu.max"),
            scope.file("pids.max"),
        ];
        let document = r#"{"memory":{"limit":0,"reservation":0,"swap":0},"blockIO":{"weight":0},
            "cpu":{"shares":64,"quota":0,"period":0,"cpus":"","mems":""},"pids":{"limit":0}}"#;
        let command = c
            .cmd()
            .args(c.words("--systemd-cgroup update --resources - ID"));
        let outcome = command.stdin(document).output();
        c.expect_code("update", &outcome, 0);
        note_scope(c, &scope);
        let after = [
            scope.file("memory.max"),
            scope.file("cpu.max"),
            scope.file("pids.max"),
        ];
        assert_eq!(after, before);
        assert_eq!(scope.file("cpu.weight"), "3");
    });
}

#[test]
fn unified_settings_survive_a_reload_of_systemd() {
    if !has_systemd() {
        return;
    }
    differential(|c| {
        let scope = Scope::of(c);
        c.spec()["linux"]["resources"]["unified"] = json!({
            "memory.high": "50331648", "memory.low": "4194304", "memory.max": "67108864",
            "memory.swap.max": "max", "cpu.max": "30000 60000", "cpu.weight": "77",
            "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "40"
        });
        up(c);
        let outcome = Cmd::new("systemctl").arg("daemon-reload").output();
        assert_eq!(outcome.code, 0, "{outcome}");
        note_scope(c, &scope);
        assert_eq!(scope.file("cpu.max"), "30000 60000");
        assert_eq!(scope.file("cpuset.cpus"), "0");
    });
}

#[test]
fn limits_survive_a_reload_of_systemd() {
    on_systemd(|c| {
        let scope = Scope::of(c);
        limit(c);
        up(c);
        c.ok("--systemd-cgroup update --memory 50331648 --pids-limit 33 ID");
        let outcome = Cmd::new("systemctl").arg("daemon-reload").output();
        assert_eq!(outcome.code, 0, "{outcome}");
        note_scope(c, &scope);
        assert_eq!(scope.file("memory.max"), "50331648");
        assert_eq!(scope.file("cpuset.cpus"), "0");
        let seen = c.exec(
            "",
            "(: < /dev/null) && echo null; (: < /dev/fuse) 2>/dev/null; true",
        );
        assert_eq!(seen, "null\n");
    });
}

/// systemd keeps no `memory.high` of ours, and a reload writes its own.
#[test]
fn i4_a_reload_of_systemd_gives_the_ceiling_for_a_moment_and_grants_go_on() {
    if !has_systemd() {
        return;
    }
    crate::grants::elastic(|c| {
        let scope = Scope::of(c);
        up(c);
        let high = || scope.file("memory.high");
        let is_less = || high().parse::<u64>().is_ok_and(|high| high < 64 * MIB);
        wait_until("less is granted", is_less);
        let outcome = Cmd::new("systemctl").arg("daemon-reload").output();
        assert_eq!(outcome.code, 0, "{outcome}");
        wait_until("the ceiling is granted", || high() == "max");
        wait_until("less is granted again", is_less);
        assert_eq!(field(&scope.file("memory.events"), "oom_kill"), 0);
        assert_eq!(c.status(), "running");
    });
}

#[test]
fn pause_resume_and_exec() {
    on_systemd(|c| {
        let scope = Scope::of(c);
        up(c);
        c.ok("--systemd-cgroup pause ID");
        let frozen = field(&scope.file("cgroup.events"), "frozen");
        let status = c.status();
        c.note("paused", &format!("{frozen} {status}"));
        c.ok("--systemd-cgroup resume ID");
        assert_eq!(frozen, 1);
        let seen = c.exec("", "grep ^0:: /proc/self/cgroup");
        assert!(
            seen.contains("<SCOPE>") || seen.contains(&scope.unit) || seen == "0::/\n",
            "{seen}"
        );
        let text = c.call("ps --format json ID").stdout;
        assert!(text.starts_with('['), "{text}");
    });
}

#[test]
fn a_container_above_its_limit_is_killed_and_its_scope_goes() {
    on_systemd(|c| {
        let scope = Scope::of(c);
        c.spec()["linux"]["resources"]["memory"] = json!({"limit": 24 * MIB, "swap": 24 * MIB});
        c.script("exec dd if=/dev/zero of=/dev/null bs=64M count=1");
        c.bundle.write();
        let outcome = c.call("--systemd-cgroup run --bundle BUNDLE ID");
        c.expect_code("run", &outcome, 137);
        let gone = eventually(|| (!scope.folder().exists()).then_some(()));
        assert!(gone.is_some(), "the scope stays");
    });
}

#[test]
fn device_rules_hold_in_a_scope() {
    on_systemd(|c| {
        let _scope = Scope::of(c);
        c.spec()["linux"]["devices"] = json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666},
            {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}
        ]);
        c.push(
            "/linux/resources/devices",
            [json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"})],
        );
        up(c);
        let seen = c.exec(
            "",
            "(: < /dev/fuse) && echo readable; (: >> /dev/fuse) 2>/dev/null || echo not writable; \
             (: < /dev/kmsg) 2>/dev/null || echo kmsg denied",
        );
        assert_eq!(seen, "readable\nnot writable\nkmsg denied\n");
    });
}

#[test]
fn a_slice_of_its_name_is_made_for_it() {
    on_systemd(|c| {
        let id = c.id().to_owned();
        c.spec()["linux"]["cgroupsPath"] = json!(format!(":emt:{id}"));
        up(c);
        let folder = format!("/sys/fs/cgroup/system.slice/emt-{id}.scope");
        assert!(Path::new(&folder).is_dir(), "no {folder}");
    });
}

#[test]
fn a_path_in_another_form_is_refused() {
    on_systemd(|c| {
        c.idle();
        c.bundle.write();
        c.fails("--systemd-cgroup create --bundle BUNDLE ID", &["slice"]);
    });
}

#[test]
fn the_program_sees_where_it_is() {
    on_systemd(|c| {
        let _scope = Scope::of(c);
        c.script("cat /proc/self/cgroup");
        c.bundle.write();
        let outcome = c.call("--systemd-cgroup run --bundle BUNDLE ID");
        c.expect_code("run", &outcome, 0);
    });
}
