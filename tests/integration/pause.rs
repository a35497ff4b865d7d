//! `pause` and `resume`.

use crate::harness::{differential, eventually};

#[test]
fn a_paused_container_does_nothing_until_it_is_resumed() {
    differential(|c| {
        c.script("while :; do echo tick; sleep 0.01; done");
        let outcome = c.create();
        c.ok("start ID");
        let ticks = || outcome.stdout_now().lines().count();
        eventually(|| (ticks() > 2).then_some(())).expect("it ticks");
        c.ok("pause ID");
        c.note_cgroup(&["freezer.state"]);
        let before = ticks();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(before, ticks(), "frozen");
        c.ok("resume ID");
        eventually(|| (ticks() > before).then_some(())).expect("it ticks again");
        c.note_cgroup(&["freezer.state"]);
    });
}

#[test]
fn resume_of_a_running_container_is_refused() {
    differential(|c| {
        c.up();
        c.fails("resume ID", &["container not paused"]);
    });
}

#[test]
fn pause_of_a_paused_container_is_refused() {
    differential(|c| {
        c.up();
        c.ok("pause ID");
        c.fails("pause ID", &["container not running"]);
        c.ok("resume ID");
        assert_eq!(c.status(), "running");
    });
}

#[test]
fn pause_of_a_created_container_is_runcs() {
    differential(|c| {
        c.idle();
        c.create();
        let outcome = c.call("pause ID");
        c.note("pause", &outcome.code.to_string());
        let status = c.status();
        c.note("status", &status);
        assert!(["created", "paused"].contains(&status.as_str()));
    });
}

#[test]
fn pause_of_a_stopped_container_is_refused() {
    differential(|c| {
        c.script("true");
        c.create();
        c.ok("start ID");
        c.wait_for("stopped");
        c.fails("pause ID", &["container not running"]);
        c.fails("resume ID", &["container not paused"]);
    });
}

#[test]
fn exec_in_a_paused_container_is_refused() {
    differential(|c| {
        c.up();
        c.ok("pause ID");
        c.fails("exec ID true", &["cannot exec in a paused container"]);
        c.ok("resume ID");
        c.exec("", "true");
    });
}
