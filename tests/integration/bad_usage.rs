//! Command lines that must be refused.

use std::fs;

use crate::harness::{Case, differential, host, ours, skip};

/// Records the exit code of a failing command; the message goes to the log,
/// usage texts to standard output, and neither is empty.
fn usage(c: &mut Case, args: &[&str], needles: &[&str]) {
    let outcome = c.cmd().args(args).output();
    c.note(&format!("{args:?}"), &outcome.code.to_string());
    assert_ne!(outcome.code, 0, "{outcome}");
    for needle in needles {
        assert!(outcome.stderr.contains(needle), "no {needle:?}: {outcome}");
    }
}

#[test]
fn an_unknown_verb_is_named() {
    differential(|c| {
        usage(c, &["frobnicate"], &["frobnicate"]);
        usage(c, &["frobnicate", "id", "--flag"], &["frobnicate"]);
    });
}

#[test]
fn an_unknown_flag_is_named() {
    differential(|c| {
        usage(c, &["--frobnicate", "list"], &["frobnicate"]);
        for verb in [
            "create", "run", "start", "kill", "delete", "exec", "list", "state", "ps",
        ] {
            usage(c, &[verb, "--frobnicate", "id"], &["frobnicate"]);
        }
    });
}

#[test]
fn a_missing_argument_names_the_verb() {
    differential(|c| {
        for verb in [
            "create", "run", "start", "kill", "delete", "state", "pause", "resume", "update", "ps",
            "exec", "events",
        ] {
            usage(c, &[verb], &[verb]);
        }
    });
}

#[test]
fn too_many_arguments_are_refused() {
    differential(|c| {
        for verb in ["create", "run", "start", "state", "pause", "resume"] {
            usage(c, &[verb, "one", "two"], &[verb]);
        }
        usage(c, &["kill", "one", "TERM", "three"], &["kill"]);
    });
}

#[test]
fn a_flag_without_its_value_is_refused() {
    differential(|c| {
        usage(c, &["create", "--bundle"], &["bundle"]);
        usage(c, &["exec", "--process"], &["process"]);
        usage(
            c,
            &["create", "--preserve-fds", "many", "id"],
            &["preserve-fds"],
        );
    });
}

#[test]
fn invalid_ids_are_refused() {
    for id in [
        "", "../x", "a/b", "a b", "..", ".", "a\nb", "ümlaut", "a*", "$(id)",
    ] {
        differential(move |c| {
            c.bundle.write();
            for verb in ["create", "state", "delete", "kill"] {
                let outcome = c.cmd().args([verb, id]).output();
                c.note(verb, &outcome.code.to_string());
                assert_ne!(outcome.code, 0, "{outcome}");
                assert!(!outcome.stderr.is_empty(), "{outcome}");
            }
            let outcome = c.cmd().args(["create", id]).output();
            assert!(outcome.stderr.contains("container"), "{outcome}");
            assert!(!outcome.stderr.contains("config.json"), "{outcome}");
        });
    }
}

#[test]
fn an_id_that_is_too_long_for_a_file_is_refused() {
    differential(|c| {
        c.bundle.write();
        let id = "a".repeat(2000);
        usage(c, &["create", &id], &[]);
        usage(c, &["run", &id], &[]);
    });
}

#[test]
fn unusual_but_valid_ids_are_accepted() {
    for id in ["a.b_c-d+e", "0", "A", "-", "a..b"] {
        differential(move |c| {
            c.bundle.write();
            let outcome = c
                .cmd()
                .args(["run", "--bundle"])
                .arg(c.bundle.path())
                .args(["--", id])
                .output();
            c.note("run", &outcome.code.to_string());
            assert_eq!(outcome.code, 0, "{outcome}");
        });
    }
}

/// No verb may follow an id out of `--root`.
#[test]
fn an_id_does_not_lead_out_of_the_root() {
    ours(|c| {
        let outside = tempfile::tempdir().expect("outside");
        let precious = outside.path().join("precious");
        fs::create_dir(&precious).expect("dir");
        fs::write(precious.join("state.json"), "{}").expect("file");
        let name = outside
            .path()
            .file_name()
            .expect("name")
            .to_string_lossy()
            .into_owned();
        let id = format!("../{name}/precious");
        for args in [
            ["delete", "--force"].as_slice(),
            &["delete"],
            &["state"],
            &["kill"],
        ] {
            c.cmd().args(args).arg(&id).output();
        }
        assert!(precious.join("state.json").exists());
    });
}

#[test]
fn a_root_that_cannot_be_made_is_named() {
    differential(|c| {
        c.bundle.write();
        for line in ["create ID", "run ID", "list"] {
            let outcome = c
                .bare()
                .args(["--root", "/proc/no-such-root"])
                .args(c.words(line))
                .output();
            c.expect_failure(line, &outcome, &["/proc/no-such-root"]);
        }
    });
}

#[test]
fn a_damaged_state_is_refused_and_can_be_removed() {
    for (name, text) in [
        ("empty", ""),
        ("truncated", "{\"id\":"),
        ("null", "null"),
        ("foreign", "[1]"),
    ] {
        ours(move |c| {
            c.up();
            let dir = c.root().join(c.id());
            for entry in fs::read_dir(&dir).expect("state").flatten() {
                if entry.file_name().to_string_lossy().ends_with(".json") {
                    fs::write(entry.path(), text).expect("damage");
                }
            }
            let outcome = c.call("state ID");
            assert_ne!(outcome.code, 0, "{name}: {outcome}");
            assert!(!outcome.stderr.contains("panicked"), "{name}: {outcome}");
            // What the state knew is lost: the test clears the group.
            crate::harness::cgroups::remove(c.cgroup());
            let outcome = c.call("delete --force ID");
            if host::name_of(c.program()) == "runc" {
                let _ = fs::remove_dir_all(&dir);
                return skip("runc keeps a damaged state");
            }
            assert!(!dir.exists(), "{name}: {outcome}");
        });
    }
}

/// Migration is not a part of this runtime, and it says so.
#[test]
fn checkpoint_and_restore_are_not_supported() {
    crate::harness::ours_beyond_runc(|c| {
        c.up();
        for line in ["checkpoint ID", "restore --bundle BUNDLE other"] {
            let outcome = c.call(line);
            assert_eq!(outcome.code, 1, "{outcome}");
            assert!(outcome.stderr.contains("not supported"), "{outcome}");
        }
        assert_eq!(c.status(), "running");
    });
}
