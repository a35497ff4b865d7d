//! create, start, kill, delete: the states and what every verb says in them.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc;
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::harness::{Case, differential, eventually, ours_beyond_runc};

/// Records `state` with what is private to the run replaced by its kind.
pub fn note_state(c: &mut Case) {
    let mut state = c.state().expect("a known container");
    let pid = state["pid"].as_i64().expect("pid is a number");
    state["pid"] = json!(if pid > 0 { "a process" } else { "none" });
    let created = state["created"].as_str().unwrap_or_default().to_owned();
    assert!(is_rfc3339(&created), "created: {created}");
    state["created"] = json!("a time");
    let text = serde_json::to_string_pretty(&state).expect("serialise");
    c.note("state", &text);
}

fn is_rfc3339(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape.starts_with("0000-00-00T00:00:00") && shape.ends_with('Z')
}

#[test]
fn the_state_follows_the_life_of_the_container() {
    differential(|c| {
        c.spec()["annotations"] = json!({"org.example.b": "2", "org.example.a": "one"});
        c.idle();
        c.create();
        note_state(c);
        c.ok("start ID");
        note_state(c);
        c.ok("pause ID");
        note_state(c);
        c.ok("resume ID");
        note_state(c);
        c.ok("kill ID KILL");
        c.wait_for("stopped");
        note_state(c);
        c.ok("delete ID");
        c.fails("state ID", &["does not exist"]);
    });
}

/// Everything a consumer of `state` relies on is there, in its order.
#[test]
fn the_state_has_runcs_fields_in_runcs_order() {
    differential(|c| {
        c.up();
        let text = c.call("state ID").stdout;
        let keys: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("  \""))
            .filter_map(|line| line.trim_start().split(':').next())
            .collect();
        c.note("keys", &keys.join(" "));
        assert!(keys.contains(&"\"rootfs\""), "{text}");
    });
}

#[test]
fn a_created_container_runs_nothing_yet() {
    differential(|c| {
        c.spec()["root"]["readonly"] = json!(false);
        c.script("echo started > /started; sleep 1000");
        c.create();
        assert!(!c.rootfs().join("started").exists());
        c.ok("start ID");
        let made = crate::harness::eventually(|| c.rootfs().join("started").exists().then_some(()));
        assert!(made.is_some());
    });
}

#[test]
fn output_of_a_created_container_goes_where_create_had_it() {
    differential(|c| {
        c.script("echo from the container; echo error >&2");
        let outcome = c.create();
        c.ok("start ID");
        c.wait_for("stopped");
        c.note("output", &outcome.stdout_now());
        assert_eq!(outcome.stdout_now(), "from the container\n");
    });
}

#[test]
fn a_process_that_ends_makes_the_container_stopped() {
    differential(|c| {
        c.script("exit 5");
        c.create();
        c.ok("start ID");
        c.wait_for("stopped");
        note_state(c);
        c.fails("start ID", &["stopped"]);
        c.ok("delete ID");
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn starting_twice_is_refused() {
    differential(|c| {
        c.up();
        c.fails("start ID", &["cannot start an already running container"]);
    });
}

/// The shim has a process of ours ready while the first grant is made.
#[test]
fn a_start_waits_for_whoever_calls_it() {
    ours_beyond_runc(|c| {
        c.idle();
        c.create();
        let fifo = c.bundle.path().join("go");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).expect("mkfifo");
        let line = format!("start --after {} ID", fifo.display());
        let mut start = c.cmd().args(c.words(&line)).spawn();
        // Refused until somebody waits at it.
        let mut write = fs::File::options();
        write.write(true).custom_flags(libc::O_NONBLOCK);
        let caller = eventually(|| write.open(&fifo).ok()).expect("it waits");
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(c.status(), "created");
        drop(caller);
        let status = eventually(|| start.child.try_wait().expect("wait"));
        assert!(status.expect("it ends").success());
        c.wait_for("running");
    });
    // With nothing to wait for, it does not.
    ours_beyond_runc(|c| {
        c.idle();
        c.create();
        c.ok("start --after /nonexistent ID");
        c.wait_for("running");
    });
}

#[test]
fn an_id_cannot_be_used_twice() {
    differential(|c| {
        c.up();
        c.fails(
            "create --bundle BUNDLE ID",
            &["container with given ID already exists"],
        );
        c.fails(
            "run --bundle BUNDLE ID",
            &["container with given ID already exists"],
        );
        assert_eq!(c.status(), "running", "the first one lives");
    });
}

#[test]
fn a_running_container_is_not_deleted() {
    differential(|c| {
        c.up();
        c.fails("delete ID", &["is not stopped: running"]);
        assert_eq!(c.status(), "running");
    });
}

/// As dockerd does after a failed start.
#[test]
fn a_created_container_is_deleted_without_force() {
    differential(|c| {
        c.idle();
        c.create();
        c.ok("delete ID");
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn force_deletes_a_running_container() {
    differential(|c| {
        c.up();
        c.ok("delete --force ID");
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn force_deletes_a_paused_container() {
    differential(|c| {
        c.up();
        c.ok("pause ID");
        c.ok("delete --force ID");
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn delete_of_an_unknown_container_fails_unless_forced() {
    differential(|c| {
        c.fails("delete ID", &["container does not exist"]);
        c.ok("delete --force ID");
    });
}

#[test]
fn delete_kills_what_a_container_without_a_pid_namespace_left() {
    differential(|c| {
        c.spec()["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}]);
        c.script("sleep 1000 & sleep 1000 & exit 0");
        c.create();
        c.ok("start ID");
        c.wait_for("stopped");
        c.ok("delete --force ID");
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn verbs_of_an_unknown_container_say_so() {
    differential(|c| {
        for verb in [
            "state",
            "start",
            "kill",
            "ps",
            "pause",
            "resume",
            "events --stats",
        ] {
            c.fails(&format!("{verb} ID"), &["container does not exist"]);
        }
        c.fails("exec ID true", &["container does not exist"]);
        c.fails("update --memory 10000000 ID", &["container does not exist"]);
    });
}

#[test]
fn the_pid_file_has_the_pid_and_nothing_else() {
    differential(|c| {
        c.idle();
        c.bundle.write();
        let file = c.bundle.path().join("the.pid");
        let outcome = c
            .cmd()
            .args(c.words("create --bundle BUNDLE --pid-file the.pid ID"))
            .output();
        c.expect_code("create", &outcome, 0);
        let text = fs::read_to_string(&file).expect("the pid file");
        assert_eq!(text, c.pid().to_string());
    });
}

#[test]
fn run_detached_returns_while_the_container_runs() {
    differential(|c| {
        c.idle();
        c.bundle.write();
        c.ok("run --detach --pid-file the.pid --bundle BUNDLE ID");
        assert_eq!(c.status(), "running");
        let text = fs::read_to_string(c.bundle.path().join("the.pid")).expect("the pid file");
        assert_eq!(text, c.pid().to_string());
        c.ok("kill ID KILL");
        c.wait_for("stopped");
        c.ok("delete ID");
    });
}

#[test]
fn the_bundle_is_the_directory_by_default() {
    differential(|c| {
        c.idle();
        c.bundle.write();
        c.ok("create ID");
        note_state(c);
    });
}

#[test]
fn options_after_the_id_are_accepted_where_runc_takes_them() {
    crate::harness::ours_beyond_runc(|c| {
        c.idle();
        c.bundle.write();
        let outcome = c
            .bare()
            .arg("--root")
            .arg(c.root())
            .args(c.words("create ID --bundle BUNDLE"));
        let outcome = outcome.dir(std::path::Path::new("/")).output();
        assert_eq!(outcome.code, 0, "{outcome}");
        c.ok("kill ID --all KILL");
        c.wait_for("stopped");
        c.ok("delete ID --force");
    });
}

#[test]
fn changing_the_config_after_create_changes_nothing() {
    differential(|c| {
        c.script("hostname; sleep 1000");
        let outcome = c.create();
        c.spec()["hostname"] = json!("other");
        c.bundle.write();
        c.ok("start ID");
        crate::harness::eventually(|| (!outcome.stdout_now().is_empty()).then_some(()));
        assert_eq!(outcome.stdout_now(), "box\n");
        assert_eq!(c.exec("", "hostname"), "box\n");
        fs::remove_file(c.bundle.config()).expect("remove");
        note_state(c);
    });
}

/// The state directory and its files are root's own business.
#[test]
fn the_state_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    crate::harness::ours(|c| {
        c.up();
        let dir = c.root().join(c.id());
        let mode = |path: &std::path::Path| {
            fs::metadata(path).expect("state").permissions().mode() & 0o777
        };
        assert_eq!(mode(&dir) & 0o066, 0, "{:o}", mode(&dir));
        let state: Value = c.state().expect("state");
        assert_eq!(state["status"], "running");
    });
}
