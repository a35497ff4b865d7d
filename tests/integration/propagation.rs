//! Mount propagation of the root and of single mounts.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use crate::harness::text::propagation;
use crate::harness::{Case, differential, ours_beyond_runc};

/// Records the propagation of every mount, and of nothing else.
fn note_propagation(c: &mut Case) -> String {
    let table = c.probe("cat /proc/self/mountinfo");
    c.transcript.pop();
    let lines: Vec<_> = table.lines().map(propagation).collect();
    let table = lines.join("\n");
    c.note("propagation", &table);
    table
}

fn bind_with(c: &mut Case, option: &str) {
    let source = c.bundle.path().join("source");
    fs::create_dir_all(&source).expect("source");
    c.push(
        "/mounts",
        [
            json!({"destination": "/mnt", "type": "bind", "source": source,
                "options": ["rbind", option]}),
        ],
    );
}

#[test]
fn root_propagation_private_shares_nothing() {
    differential(|c| {
        c.spec()["linux"]["rootfsPropagation"] = json!("private");
        let table = note_propagation(c);
        assert!(!table.contains("shared"), "{table}");
    });
}

#[test]
fn root_propagation_slave_is_honoured() {
    differential(|c| {
        c.spec()["linux"]["rootfsPropagation"] = json!("slave");
        note_propagation(c);
    });
}

/// runc 1.1 leaves the new root private.
#[test]
fn root_propagation_shared_is_honoured() {
    ours_beyond_runc(|c| {
        c.spec()["linux"]["rootfsPropagation"] = json!("shared");
        let table = note_propagation(c);
        assert!(table.starts_with("/ [shared]"), "{table}");
    });
}

#[test]
fn mount_propagation_private_is_honoured() {
    each_of(&["rprivate", "private"]);
}

#[test]
fn mount_propagation_slave_is_honoured() {
    each_of(&["rslave", "slave"]);
}

#[test]
fn mount_propagation_shared_is_honoured() {
    each_of(&["rshared", "shared"]);
}

#[test]
fn mount_propagation_unbindable_is_honoured() {
    each_of(&["unbindable"]);
}

fn each_of(options: &[&str]) {
    for option in options {
        differential(|c| {
            bind_with(c, option);
            let table = note_propagation(c);
            assert!(table.contains("/mnt"), "{table}");
        });
    }
}

/// A shared mount of the host, as engines offer it to volume plugins.
fn shared_source(c: &mut Case, option: &str) -> PathBuf {
    let source = c.bundle.path().join("source");
    fs::create_dir_all(source.join("below")).expect("source");
    let none = None::<&str>;
    mount(Some(&source), &source, none, MsFlags::MS_BIND, none).expect("bind");
    mount(none, &source, none, MsFlags::MS_SHARED, none).expect("share");
    c.push(
        "/mounts",
        [
            json!({"destination": "/mnt", "type": "bind", "source": source,
                "options": ["rbind", option]}),
        ],
    );
    c.spec()["linux"]["rootfsPropagation"] = json!(option);
    source
}

fn mount_tmpfs_below(source: &Path) {
    let none = None::<&str>;
    let target = source.join("below");
    mount(
        Some("tmpfs"),
        &target,
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .expect("tmpfs");
    fs::write(target.join("late"), "late\n").expect("file");
}

fn unmount_all(source: &Path) {
    for _ in 0..4 {
        let _ = umount2(&source.join("below"), MntFlags::MNT_DETACH);
    }
    umount2(source, MntFlags::MNT_DETACH).expect("unmount");
}

#[test]
fn a_later_mount_of_the_host_reaches_a_slave() {
    differential(|c| {
        let source = shared_source(c, "rslave");
        c.up();
        mount_tmpfs_below(&source);
        let seen = c.exec_call("", "cat /mnt/below/late");
        unmount_all(&source);
        c.expect_code("exec", &seen, 0);
        assert_eq!(seen.stdout, "late\n");
    });
}

#[test]
fn a_later_mount_of_the_host_does_not_reach_a_private_mount() {
    differential(|c| {
        let source = shared_source(c, "rprivate");
        c.up();
        mount_tmpfs_below(&source);
        let seen = c.exec_call("", "ls /mnt/below");
        unmount_all(&source);
        c.expect_code("exec", &seen, 0);
        assert_eq!(seen.stdout, "");
    });
}

#[test]
fn a_mount_of_the_container_reaches_the_host_when_shared() {
    differential(|c| {
        let source = shared_source(c, "rshared");
        for set in ["bounding", "effective", "permitted"] {
            c.spec()["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
        }
        c.spec()["process"]["capabilities"]["ambient"] = json!([]);
        c.up();
        let seen = c.exec_call(
            "",
            "mount -t tmpfs tmpfs /mnt/below && echo late > /mnt/below/late",
        );
        let late = fs::read_to_string(source.join("below/late"));
        unmount_all(&source);
        c.expect_code("exec", &seen, 0);
        assert_eq!(late.ok().as_deref(), Some("late\n"));
    });
}
