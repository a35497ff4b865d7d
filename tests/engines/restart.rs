//! A containerd that ends, and comes back to its containers.

use nix::sys::signal::Signal;

use crate::harness::{Case, processes, wait_until};

on_every_containerd! {
    containers_outlive_their_containerd,
    tasks_that_end_while_containerd_is_away_are_cleared,
    execs_outlive_their_containerd,
    a_paused_container_outlives_its_containerd,
    a_shim_killed_while_containerd_is_away_is_cleaned_up_at_boot,
}

fn containers_outlive_their_containerd(c: &mut Case) {
    c.private_daemon();
    c.up("", "a");
    let pid = c.pid("a");
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        c.daemon.end(signal);
        assert!(processes::is_alive(pid), "ended with containerd");
        c.daemon.launch();
        assert_eq!(c.status("a"), "RUNNING");
        assert_eq!(c.pid("a"), pid);
        let outcome = c
            .exec("", "a", signal.as_str(), "echo hello; exit 3")
            .output();
        c.note_outcome("exec", &outcome);
        assert_eq!(outcome.code, 3, "{outcome}");
    }
    c.down("a");
}

/// containerd takes a task without processes for a leak and clears it away, so
/// that its exit code is lost with every shim.
fn tasks_that_end_while_containerd_is_away_are_cleared(c: &mut Case) {
    c.private_daemon();
    let mut pids = Vec::new();
    for name in ["a", "b", "d"] {
        c.up("", name);
        pids.push(c.pid(name));
    }
    c.up("", "e");
    c.daemon.end(Signal::SIGKILL);
    for pid in &pids {
        processes::signal(*pid, Signal::SIGTERM);
    }
    wait_until("all have ended", || {
        !pids.iter().any(|pid| processes::is_alive(*pid))
    });
    c.daemon.launch();
    for name in ["a", "b", "d"] {
        wait_until("the task is over", || {
            ["", "STOPPED"].contains(&c.status(name).as_str())
        });
        c.call(&format!("task delete @{name}"));
        c.ok(&format!("container delete @{name}"));
    }
    assert_eq!(c.status("e"), "RUNNING");
    c.down("e");
}

fn execs_outlive_their_containerd(c: &mut Case) {
    c.private_daemon();
    c.up("", "a");
    let exec = c
        .exec(
            "--detach",
            "a",
            "x",
            "trap 'exit 5' TERM; while :; do sleep 0.02; done",
        )
        .output();
    assert_eq!(exec.code, 0, "{exec}");
    c.daemon.end(Signal::SIGKILL);
    c.daemon.launch();
    c.note(
        "processes",
        &c.ok("task ps @a").stdout.lines().count().to_string(),
    );
    c.ok("task kill --exec-id x -s TERM @a");
    wait_until("the exec has ended", || {
        !c.ok("task ps @a").stdout.contains("exec_id:\"x\"")
            && c.call("task kill --exec-id x -s TERM @a").code != 0
    });
    assert_eq!(c.status("a"), "RUNNING");
    c.down("a");
}

fn a_paused_container_outlives_its_containerd(c: &mut Case) {
    c.private_daemon();
    c.up("", "a");
    c.ok("task pause @a");
    c.daemon.end(Signal::SIGKILL);
    c.daemon.launch();
    assert_eq!(c.status("a"), "PAUSED");
    c.ok("task resume @a");
    assert_eq!(c.status("a"), "RUNNING");
    c.down("a");
}

fn a_shim_killed_while_containerd_is_away_is_cleaned_up_at_boot(c: &mut Case) {
    c.private_daemon();
    c.up("", "a");
    c.up("", "b");
    let (shim, pid) = (c.shim_pid("a"), c.pid("a"));
    c.daemon.end(Signal::SIGKILL);
    processes::signal(shim, Signal::SIGKILL);
    wait_until("the shim has ended", || !processes::is_alive(shim));
    c.daemon.launch();
    wait_until("the container is gone", || !processes::is_alive(pid));
    wait_until("the task is gone", || {
        ["", "STOPPED"].contains(&c.status("a").as_str())
    });
    assert_eq!(c.status("b"), "RUNNING");
    c.call("task delete @a");
    c.ok("container delete @a");
    c.down("b");
}
