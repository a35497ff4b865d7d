//! `kill`: signals by name and by number, to one and to all.

use serde_json::json;

use crate::harness::{Case, differential, eventually};

/// A container that tells which signals it gets and ignores them.
fn listener(c: &mut Case) -> crate::harness::Outcome {
    c.script(
        "for s in HUP INT QUIT USR1 USR2 TERM WINCH; do trap \"echo got $s\" $s; done; \
         echo ready; while :; do sleep 0.02; done",
    );
    let outcome = c.create();
    c.ok("start ID");
    eventually(|| outcome.stdout_now().contains("ready").then_some(())).expect("ready");
    outcome
}

#[test]
fn signals_go_by_name_and_by_number() {
    differential(|c| {
        let outcome = listener(c);
        for (signal, name) in [
            ("TERM", "TERM"),
            ("SIGHUP", "HUP"),
            ("10", "USR1"),
            ("usr2", "USR2"),
            ("sigint", "INT"),
            ("28", "WINCH"),
        ] {
            c.ok(&format!("kill ID {signal}"));
            let seen = eventually(|| {
                outcome
                    .stdout_now()
                    .trim_end()
                    .ends_with(&format!("got {name}"))
                    .then_some(())
            });
            assert!(seen.is_some(), "{signal}: {}", outcome.stdout_now());
        }
        c.note("seen", &outcome.stdout_now());
        c.ok("kill ID 9");
        c.wait_for("stopped");
    });
}

#[test]
fn the_default_signal_is_term() {
    differential(|c| {
        let outcome = listener(c);
        c.ok("kill ID");
        let seen = eventually(|| outcome.stdout_now().contains("got TERM").then_some(()));
        assert!(seen.is_some(), "{}", outcome.stdout_now());
    });
}

#[test]
fn signal_zero_only_asks() {
    differential(|c| {
        c.up();
        c.ok("kill ID 0");
        assert_eq!(c.status(), "running");
    });
}

#[test]
fn unknown_signals_are_refused() {
    differential(|c| {
        c.up();
        c.fails(
            "kill ID BOGUS",
            &["unknown signal \"BOGUS\"".replace('"', "\\\"").as_str()],
        );
        c.fails("kill ID SIGBOGUS", &["SIGBOGUS"]);
        c.fails("kill ID 9x", &["9x"]);
        assert_eq!(c.status(), "running");
    });
}

#[test]
fn a_created_container_can_be_killed() {
    differential(|c| {
        c.idle();
        c.create();
        c.ok("kill ID KILL");
        c.wait_for("stopped");
        c.ok("delete ID");
    });
}

#[test]
fn a_stopped_container_is_not_running() {
    differential(|c| {
        c.script("true");
        c.create();
        c.ok("start ID");
        c.wait_for("stopped");
        c.fails("kill ID KILL", &["container not running"]);
        c.fails("kill ID TERM", &["container not running"]);
        c.fails("kill ID 0", &["container not running"]);
    });
}

#[test]
fn all_of_a_stopped_container_is_fine() {
    differential(|c| {
        c.script("true");
        c.create();
        c.ok("start ID");
        c.wait_for("stopped");
        c.ok("kill --all ID KILL");
    });
}

#[test]
fn all_reaches_every_process_of_a_shared_pid_namespace() {
    differential(|c| {
        c.spec()["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}]);
        c.script("sleep 1000 & sleep 1001 & sleep 1002 & echo ready; wait");
        let outcome = c.create();
        c.ok("start ID");
        eventually(|| outcome.stdout_now().contains("ready").then_some(())).expect("ready");
        assert!(c.processes().len() >= 4, "{:?}", c.processes());
        c.ok("kill --all ID KILL");
        let gone = eventually(|| c.processes().is_empty().then_some(()));
        assert!(gone.is_some(), "{:?}", c.processes());
    });
}

#[test]
fn all_reaches_every_process_of_a_private_pid_namespace() {
    differential(|c| {
        c.script("sleep 1000 & sleep 1001 & echo ready; wait");
        let outcome = c.create();
        c.ok("start ID");
        eventually(|| outcome.stdout_now().contains("ready").then_some(())).expect("ready");
        // With the first process of the namespace the others end; runc warns of those that it then finds ended.
        let outcome = c.code_of("kill -a ID 9");
        assert_eq!(outcome.code, 0, "{outcome}");
        let gone = eventually(|| c.processes().is_empty().then_some(()));
        assert!(gone.is_some(), "{:?}", c.processes());
        c.wait_for("stopped");
    });
}

#[test]
fn kill_of_a_paused_container_takes_effect() {
    differential(|c| {
        c.up();
        c.ok("pause ID");
        c.ok("kill ID KILL");
        let status = eventually(|| (c.status() == "stopped").then_some("stopped"));
        c.note("status", status.unwrap_or("not stopped"));
        assert!(status.is_some());
    });
}
