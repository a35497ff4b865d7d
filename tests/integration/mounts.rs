//! Mounts: what is where, with which options.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::harness::text::mount_table;
use crate::harness::{Case, differential, ours_beyond_runc};

/// Records the container's mount table in its order.
pub fn note_table(c: &mut Case) -> String {
    note_below(c, &["/"])
}

/// Records the mounts whose mount points begin with one of the paths.
pub fn note_below(c: &mut Case, paths: &[&str]) -> String {
    let table = c.probe("cat /proc/self/mountinfo");
    c.transcript.pop();
    let table = mount_table(&table);
    let lines: Vec<_> = table
        .lines()
        .filter(|line| paths.iter().any(|path| line.starts_with(path)))
        .collect();
    let table = lines.join("\n");
    c.note("mount table", &table);
    table
}

/// A directory beside the root filesystem with a file in it.
fn source_dir(c: &Case) -> String {
    let dir = c.bundle.path().join("source");
    fs::create_dir_all(dir.join("below")).expect("source");
    fs::write(dir.join("file"), "from the host\n").expect("file");
    dir.to_string_lossy().into_owned()
}

pub fn bind(c: &mut Case, destination: &str, options: &[&str]) {
    let source = source_dir(c);
    c.push(
        "/mounts",
        [json!({"destination": destination, "type": "bind", "source": source, "options": options})],
    );
}

#[test]
fn a_writable_root_is_writable() {
    differential(|c| {
        c.spec()["root"]["readonly"] = json!(false);
        c.probe("echo here > /made && cat /made");
        assert_eq!(fs::read(c.rootfs().join("made")).expect("made"), b"here\n");
    });
}

#[test]
fn a_readonly_root_is_readonly() {
    differential(|c| {
        c.script("touch /made");
        c.run_to(1);
        assert!(!c.rootfs().join("made").exists());
    });
}

#[test]
fn an_absolute_root_path_works() {
    differential(|c| {
        let path = c.rootfs();
        c.spec()["root"]["path"] = json!(path);
        c.probe("ls /");
    });
}

#[test]
fn a_bind_mount_shows_the_source() {
    differential(|c| {
        bind(c, "/mnt", &["bind", "rw"]);
        let seen = c.probe("cat /mnt/file; echo inside > /mnt/new; ls /mnt");
        assert!(seen.starts_with("from the host\n"), "{seen}");
        let made = fs::read(c.bundle.path().join("source/new")).expect("new");
        assert_eq!(made, b"inside\n");
    });
}

#[test]
fn a_readonly_bind_mount_refuses_writes() {
    differential(|c| {
        bind(c, "/mnt", &["rbind", "ro", "nosuid", "nodev", "noexec"]);
        c.probe("cat /mnt/file; touch /mnt/new && echo written; ls /mnt");
        let table = note_below(c, &["/mnt"]);
        assert!(table.contains("/mnt"), "{table}");
    });
}

#[test]
fn a_file_is_bound_onto_a_file() {
    differential(|c| {
        let source = source_dir(c) + "/file";
        c.push(
            "/mounts",
            [
                json!({"destination": "/etc/group", "type": "bind", "source": source,
                    "options": ["bind", "ro"]}),
            ],
        );
        c.probe("cat /etc/group");
    });
}

#[test]
fn missing_targets_are_made() {
    differential(|c| {
        let source = source_dir(c);
        c.push(
            "/mounts",
            [
                json!({"destination": "/new/deep/dir", "type": "bind", "source": source,
                       "options": ["bind"]}),
                json!({"destination": "/new/deep/file", "type": "bind",
                       "source": format!("{source}/file"), "options": ["bind"]}),
                json!({"destination": "/scratch/tmp", "type": "tmpfs", "source": "tmpfs"}),
            ],
        );
        let seen = c.probe(
            "cat /new/deep/file /new/deep/dir/file; stat -c '%n %F %a %u' /new /new/deep /scratch",
        );
        assert!(seen.contains("/new/deep directory"), "{seen}");
        note_below(c, &["/new", "/scratch"]);
    });
}

#[test]
fn a_relative_destination_is_below_the_root() {
    differential(|c| {
        bind(c, "mnt", &["bind"]);
        c.bundle.write();
        let outcome = c.call("run --bundle BUNDLE ID");
        c.note("code", &outcome.code.to_string());
    });
}

#[test]
fn a_bind_mount_without_a_type_works() {
    differential(|c| {
        let source = source_dir(c);
        c.push(
            "/mounts",
            [json!({"destination": "/mnt", "source": source, "options": ["rbind"]})],
        );
        c.probe("cat /mnt/file");
    });
}

#[test]
fn a_relative_bind_source_is_below_the_bundle() {
    differential(|c| {
        source_dir(c);
        c.push(
            "/mounts",
            [json!({"destination": "/mnt", "type": "bind", "source": "source", "options": ["bind"]})],
        );
        c.probe("cat /mnt/file");
    });
}

#[test]
fn a_recursive_bind_takes_the_mounts_below() {
    differential(|c| {
        // A first container mount becomes the second one's source.
        let source = source_dir(c);
        c.push(
            "/mounts",
            [
                json!({"destination": "/a", "type": "tmpfs", "source": "tmpfs"}),
                json!({"destination": "/a/b", "type": "bind", "source": source, "options": ["bind"]}),
            ],
        );
        c.spec()["process"]["args"] = json!(["sh", "-c", "ls /a /a/b"]);
        let seen = c.run();
        assert!(seen.contains("below"), "{seen}");
    });
}

#[test]
fn tmpfs_has_its_size_and_mode() {
    differential(|c| {
        c.push(
            "/mounts",
            [json!({"destination": "/scratch", "type": "tmpfs", "source": "scratch",
                    "options": ["nosuid", "nodev", "noexec", "size=128k", "mode=1750", "uid=1000", "gid=50"]})],
        );
        let seen = c.probe(
            "stat -c '%a %u %g' /scratch; df -k /scratch | tail -1 | tr -s ' ' | cut -d' ' -f2",
        );
        assert_eq!(seen, "1750 1000 50\n128\n");
        note_below(c, &["/scratch"]);
    });
}

/// The target has a mode of its own, and the mount options say none: runc
/// gives the tmpfs the mode of the directory it covers.
#[test]
fn tmpfs_takes_the_mode_of_its_target() {
    differential(|c| {
        use std::os::unix::fs::PermissionsExt;
        let target = c.rootfs().join("var");
        fs::set_permissions(target, fs::Permissions::from_mode(0o710)).expect("chmod");
        c.push(
            "/mounts",
            [json!({"destination": "/var", "type": "tmpfs", "source": "tmpfs"})],
        );
        c.probe("stat -c %a /var");
    });
}

/// An explicit mode wins over the covered directory's; runc 1.1.5 has it the
/// other way round, which later versions call a bug.
#[test]
fn an_explicit_tmpfs_mode_wins_over_its_target() {
    ours_beyond_runc(|c| {
        c.push(
            "/mounts",
            [
                json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
                    "options": ["mode=1750"]}),
            ],
        );
        assert_eq!(c.probe("stat -c %a /mnt"), "1750\n");
    });
}

/// runc copies; to mount an empty folder in silence would be worse than no.
#[test]
fn tmpcopyup_is_refused_by_name() {
    ours_beyond_runc(|c| {
        c.push(
            "/mounts",
            [
                json!({"destination": "/var", "type": "tmpfs", "source": "tmpfs",
                    "options": ["tmpcopyup"]}),
            ],
        );
        c.run_fails(&["/var", "tmpcopyup is not supported"]);
    });
}

#[test]
fn atime_options_are_honoured() {
    differential(|c| {
        for (at, option) in ["noatime", "strictatime", "relatime", "nodiratime"]
            .iter()
            .enumerate()
        {
            c.push(
                "/mounts",
                [
                    json!({"destination": format!("/mnt{at}"), "type": "tmpfs", "source": "tmpfs",
                        "options": [option]}),
                ],
            );
        }
        note_below(c, &["/mnt"]);
    });
}

#[test]
fn later_mounts_cover_earlier_ones() {
    differential(|c| {
        bind(c, "/mnt", &["bind"]);
        c.push(
            "/mounts",
            [json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"})],
        );
        assert_eq!(c.probe("ls /mnt; echo end"), "end\n");
    });
}

#[test]
fn a_symlink_target_stays_below_the_root() {
    differential(|c| {
        let escape = tempfile::tempdir().expect("outside");
        symlink(escape.path(), c.rootfs().join("link")).expect("symlink");
        bind(c, "/link/made", &["bind"]);
        c.spec()["root"]["readonly"] = json!(false);
        let path = escape.path().to_string_lossy().into_owned();
        c.normaliser.word(path.clone(), "<OUTSIDE>");
        let seen = c.probe(&format!("cat {path}/made/file"));
        assert_eq!(seen, "from the host\n");
        assert!(
            !escape.path().join("made").exists(),
            "made outside the root"
        );
    });
}

/// As images do with `/var/run`, below which engines mount secrets.
#[test]
fn a_target_below_an_absolute_symlink_is_made_where_it_leads() {
    differential(|c| {
        fs::create_dir(c.rootfs().join("run")).expect("dir");
        symlink("/run", c.rootfs().join("var/run")).expect("symlink");
        bind(c, "/var/run/secrets/deep", &["bind"]);
        assert_eq!(c.probe("cat /run/secrets/deep/file"), "from the host\n");
        note_below(c, &["/run", "/var"]);
    });
}

#[test]
fn a_relative_symlink_target_stays_below_the_root() {
    differential(|c| {
        symlink("../../../../../../mnt", c.rootfs().join("link")).expect("symlink");
        bind(c, "/link", &["bind"]);
        assert_eq!(c.probe("cat /mnt/file"), "from the host\n");
    });
}

#[test]
fn an_overlay_is_mounted_with_its_data() {
    differential(|c| {
        let source = source_dir(c);
        let dirs = ["upper", "work"].map(|name| {
            let dir = c.bundle.path().join(name);
            fs::create_dir(&dir).expect("overlay directory");
            dir.to_string_lossy().into_owned()
        });
        let data = [
            format!("lowerdir={source}"),
            format!("upperdir={}", dirs[0]),
            format!("workdir={}", dirs[1]),
        ];
        c.push(
            "/mounts",
            [json!({"destination": "/mnt", "type": "overlay", "source": "overlay", "options": data})],
        );
        let seen = c.probe("cat /mnt/file; echo up > /mnt/up; ls /mnt");
        assert!(seen.contains("up\n"), "{seen}");
        assert!(c.bundle.path().join("upper/up").exists());
    });
}

#[test]
fn a_tmpfs_can_be_readonly() {
    differential(|c| {
        c.push(
            "/mounts",
            [json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]})],
        );
        c.probe("touch /mnt/x && echo made; ls /mnt");
        note_below(c, &["/mnt"]);
    });
}
