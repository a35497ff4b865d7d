//! What the container sees of the kernel: `/proc`, `/sys`, `/dev`, cgroups,
//! and what is hidden of them.

use std::fs;

use serde_json::json;

use crate::harness::text::mount_table;
use crate::harness::{differential, ours_beyond_runc, strip};
use crate::mounts::{bind, note_below, note_table};

#[test]
fn the_default_table_is_runcs() {
    differential(|c| {
        let table = note_table(c);
        assert!(table.contains("/dev/mqueue"), "{table}");
    });
}

#[test]
fn masked_paths_are_empty_and_unwritable() {
    differential(|c| {
        fs::create_dir(c.rootfs().join("secret")).expect("dir");
        fs::write(c.rootfs().join("secret/key"), "s3cret").expect("file");
        fs::write(c.rootfs().join("key"), "s3cret").expect("file");
        c.spec()["root"]["readonly"] = json!(false);
        c.spec()["linux"]["maskedPaths"] = json!(["/secret", "/key", "/missing", "/proc/kcore"]);
        let seen = c.probe(
            "ls /secret; cat /key; touch /secret/x && echo made; echo x > /key; \
            stat -c '%n %F' /secret /key",
        );
        assert!(!seen.contains("s3cret"), "{seen}");
        note_below(c, &["/secret", "/key", "/proc/kcore"]);
    });
}

#[test]
fn readonly_paths_refuse_writes() {
    differential(|c| {
        c.spec()["root"]["readonly"] = json!(false);
        c.spec()["linux"]["readonlyPaths"] = json!(["/etc", "/proc/sys", "/missing"]);
        c.probe("touch /etc/x && echo made; cat /etc/group | head -1; touch /tmp/x && echo made");
        note_below(c, &["/etc", "/proc/"]);
    });
}

#[test]
fn without_masked_and_readonly_paths_nothing_is_hidden() {
    differential(|c| {
        strip(c.spec(), "/linux", "maskedPaths");
        strip(c.spec(), "/linux", "readonlyPaths");
        let table = note_below(c, &["/proc", "/sys/firmware"]);
        assert!(!table.contains("/proc/sys"), "{table}");
    });
}

#[test]
fn the_cgroup_mount_is_readonly_and_shows_the_group() {
    differential(|c| {
        let seen = c.probe(
            "ls -l /sys/fs/cgroup | tr -s ' ' | cut -d' ' -f1,9-; \
             mkdir /sys/fs/cgroup/memory/x && echo made; \
             grep -q . /sys/fs/cgroup/memory/cgroup.procs && echo members",
        );
        assert!(!seen.contains("made"), "{seen}");
    });
}

#[test]
fn the_cgroup_mount_in_a_cgroup_namespace_is_the_group() {
    differential(|c| {
        c.push("/linux/namespaces", [json!({"type": "cgroup"})]);
        let table = note_below(c, &["/sys/fs/cgroup"]);
        let groups: Vec<_> = table
            .lines()
            .filter(|l| l.contains("/sys/fs/cgroup/"))
            .collect();
        assert!(groups.iter().all(|l| l.contains("root=/ ")), "{groups:#?}");
    });
}

#[test]
fn a_writable_cgroup_mount_is_writable() {
    differential(|c| {
        let mounts = c.spec()["mounts"].as_array_mut().expect("mounts");
        let last = mounts.last_mut().expect("cgroup mount");
        last["options"] = json!(["nosuid", "noexec", "nodev", "relatime", "rw"]);
        // Made in the container's own group and gone with it.
        c.probe("mkdir /sys/fs/cgroup/pids/x && rmdir /sys/fs/cgroup/pids/x && echo writable");
        note_below(c, &["/sys/fs/cgroup"]);
    });
}

#[test]
fn sysfs_of_the_host_network_can_be_bound() {
    differential(|c| {
        c.spec()["mounts"][5] = json!({"destination": "/sys", "type": "none", "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
        c.spec()["mounts"].as_array_mut().expect("mounts").pop();
        let table = c.probe("cat /proc/self/mountinfo");
        c.transcript.pop();
        let table = mount_table(&table);
        let sys = table.lines().find(|line| line.starts_with("/sys "));
        c.note("sys", sys.expect("a mount on /sys"));
    });
}

#[test]
fn dev_can_be_the_hosts() {
    differential(|c| {
        c.spec()["mounts"][1] = json!({"destination": "/dev", "type": "bind", "source": "/dev",
            "options": ["rbind", "ro"]});
        let mounts = c.spec()["mounts"].as_array_mut().expect("mounts");
        mounts.drain(2..5);
        let seen = c.probe("stat -c %F /dev/null /dev/fd /dev/zero");
        assert!(seen.contains("character special file"), "{seen}");
    });
}

/// runc 1.1 needs a `/proc` of the container for itself.
#[test]
fn without_mounts_the_container_runs() {
    ours_beyond_runc(|c| {
        c.spec()["mounts"] = json!([]);
        strip(c.spec(), "/linux", "maskedPaths");
        strip(c.spec(), "/linux", "readonlyPaths");
        assert_eq!(
            c.probe("ls -A /proc /sys; echo end"),
            "/proc:\n\n/sys:\nend\n"
        );
    });
}

#[test]
fn proc_cannot_be_covered() {
    differential(|c| {
        bind(c, "/proc/sys", &["bind"]);
        c.run_fails(&["/proc"]);
    });
}
