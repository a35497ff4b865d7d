//! How the end of the process reaches the caller of `run` and `exec`.

use serde_json::json;

use crate::harness::differential;

#[test]
fn the_exit_code_of_run_is_the_process() {
    for code in [0, 1, 2, 42, 126, 127, 255] {
        differential(move |c| {
            c.script(&format!("exit {code}"));
            c.run_to(code);
        });
    }
}

#[test]
fn death_by_a_signal_is_128_and_the_signal() {
    // A process without a parent in its namespace is only killed from outside
    // or by a child; `sh` as pid 1 cannot kill itself with these.
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139), ("HUP", 129)] {
        differential(move |c| {
            c.spec()["linux"]["namespaces"] = json!([
                {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
            ]);
            c.script(&format!("kill -{signal} $$; sleep 10"));
            c.run_to(code);
        });
    }
}

#[test]
fn run_passes_signals_on() {
    differential(|c| {
        c.script("trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done");
        c.bundle.write();
        let running = c.cmd().args(c.words("run --bundle BUNDLE ID")).spawn();
        c.wait_for("running");
        crate::harness::eventually(|| running.stdout_now().contains("ready").then_some(()))
            .expect("the script is ready");
        let pid = nix::unistd::Pid::from_raw(running.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("kill");
        let outcome = running.wait();
        c.expect_code("run", &outcome, 7);
    });
}

#[test]
fn standard_input_output_and_error_are_passed_through() {
    differential(|c| {
        c.script("cat; echo to-stderr >&2");
        c.bundle.write();
        let command = c.cmd().args(c.words("run --bundle BUNDLE ID"));
        let outcome = command.stdin("line one\nline two\n").output();
        c.expect_code("run", &outcome, 0);
        assert_eq!(outcome.stdout, "line one\nline two\n");
        assert_eq!(outcome.stderr, "to-stderr\n");
    });
}

#[test]
fn run_removes_the_container_when_it_ends() {
    differential(|c| {
        c.script("true");
        c.run();
        assert_eq!(c.status(), "unknown");
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn run_with_keep_leaves_a_stopped_container() {
    differential(|c| {
        c.script("exit 3");
        c.bundle.write();
        let outcome = c.call("run --keep --bundle BUNDLE ID");
        c.expect_code("run", &outcome, 3);
        assert_eq!(c.status(), "stopped");
        c.ok("delete ID");
        assert_eq!(c.status(), "unknown");
    });
}

#[test]
fn large_output_arrives_complete() {
    differential(|c| {
        c.script("seq 1 50000");
        c.bundle.write();
        let outcome = c.call("run --bundle BUNDLE ID");
        c.note(
            "code and size",
            &format!("{} {}", outcome.code, outcome.stdout.len()),
        );
        assert!(outcome.stdout.ends_with("\n50000\n"));
    });
}
