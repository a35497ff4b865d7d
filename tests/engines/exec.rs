//! Further processes in a container.

use crate::harness::{Case, processes, wait_until};

on_every_containerd! {
    exec_codes,
    exec_user_and_directory,
    exec_of_a_missing_program,
    exec_in_a_paused_container,
    exec_in_a_stopped_container,
    a_storm_of_execs,
    exec_leaves_a_child_behind,
    exec_is_killed,
    exec_dies_with_its_container,
    an_exec_id_is_taken,
    a_detached_exec,
}

fn exec_codes(c: &mut Case) {
    c.up("", "a");
    for code in [0, 1, 7, 255] {
        let outcome = c
            .exec(
                "",
                "a",
                &format!("x{code}"),
                &format!("echo out; echo err >&2; exit {code}"),
            )
            .output();
        c.note_outcome("exec", &outcome);
        assert_eq!(outcome.code, code);
        assert_eq!(outcome.stdout, "out\n");
    }
    let outcome = c.exec("", "a", "y", "kill -9 $$").output();
    c.note_outcome("exec", &outcome);
    assert_eq!(outcome.code, 137);
    c.down("a");
}

fn exec_user_and_directory(c: &mut Case) {
    c.up("--env FOO=bar", "a");
    let script = "id; pwd; env | sort | grep -v HOSTNAME; cat /proc/self/oom_score_adj; umask; \
                  grep -E 'Cap|NoNewPrivs|Seccomp:|SigBlk' /proc/self/status; ls /proc/self/fd";
    let outcome = c
        .exec("--user 1000:1000 --cwd /tmp", "a", "x", script)
        .output();
    c.note_outcome("exec", &outcome);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stdout.contains("uid=1000(user)"), "{outcome}");
    c.down("a");
}

fn exec_of_a_missing_program(c: &mut Case) {
    c.up("", "a");
    for program in ["/no/such/program", "nosuchprogram", "/etc/passwd"] {
        let id = c.id("a");
        let outcome = c
            .ctr("task exec --exec-id x --fifo-dir")
            .arg(c.fifo_dir())
            .args([id.as_str(), program])
            .output();
        c.note("code", &outcome.code.to_string());
        assert!(outcome.stderr.contains(program), "{outcome}");
        assert_ne!(outcome.code, 0);
    }
    let outcome = c.exec("--cwd /no/such/dir", "a", "y", "pwd").output();
    c.note("code of a missing directory", &outcome.code.to_string());
    // The id is free again, and the container is as before.
    let outcome = c.exec("", "a", "x", "exit 3").output();
    c.note_outcome("exec", &outcome);
    assert_eq!(outcome.code, 3);
    c.down("a");
}

fn exec_in_a_paused_container(c: &mut Case) {
    c.up("", "a");
    c.ok("task pause @a");
    let outcome = c.exec("", "a", "x", "true").output();
    c.note("code", &outcome.code.to_string());
    assert_ne!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("paused"), "{outcome}");
    c.ok("task resume @a");
    let outcome = c.exec("", "a", "y", "exit 4").output();
    assert_eq!(outcome.code, 4, "{outcome}");
    c.down("a");
}

fn exec_in_a_stopped_container(c: &mut Case) {
    c.up_with("", "a", "exit 0");
    c.wait_for("a", "STOPPED");
    let outcome = c.exec("", "a", "x", "true").output();
    c.note("code", &outcome.code.to_string());
    assert_ne!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("stopped"), "{outcome}");
    c.delete("a");
}

fn a_storm_of_execs(c: &mut Case) {
    c.up("", "a");
    std::thread::scope(|scope| {
        for worker in 0..10 {
            let c = &*c;
            scope.spawn(move || {
                for round in 0..10 {
                    let number = worker * 10 + round;
                    let outcome = c
                        .exec(
                            "",
                            "a",
                            &format!("x{number}"),
                            &format!("echo {number}; exit {number}"),
                        )
                        .output();
                    assert_eq!(outcome.code, number, "{outcome}");
                    assert_eq!(outcome.stdout, format!("{number}\n"), "{outcome}");
                }
            });
        }
    });
    assert_eq!(c.status("a"), "RUNNING");
    c.note(
        "processes",
        &c.ok("task ps @a").stdout.lines().count().to_string(),
    );
    c.down("a");
}

fn exec_leaves_a_child_behind(c: &mut Case) {
    c.up("", "a");
    let outcome = c
        .exec(
            "",
            "a",
            "x",
            "sleep 1000 </dev/null >/dev/null 2>&1 & exit 3",
        )
        .output();
    c.note_outcome("exec", &outcome);
    assert_eq!(outcome.code, 3);
    // Init of the container, its sleep, and what is left of the exec.
    c.note(
        "processes",
        &c.ok("task ps @a").stdout.lines().count().to_string(),
    );
    c.down("a");
}

fn exec_is_killed(c: &mut Case) {
    c.up("", "a");
    let exec = c.exec(
        "",
        "a",
        "x",
        "trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done",
    );
    let exec = exec.spawn();
    wait_until("ready", || exec.stdout_now().contains("ready"));
    c.ok("task kill --exec-id x -s TERM @a");
    let outcome = exec.wait();
    c.note_outcome("exec", &outcome);
    assert_eq!(outcome.code, 5);
    c.fails("task kill --exec-id x -s TERM @a", &["not found"]);
    c.fails("task kill --exec-id nosuch -s TERM @a", &["not found"]);
    assert_eq!(c.status("a"), "RUNNING");
    c.down("a");
}

fn exec_dies_with_its_container(c: &mut Case) {
    c.up("", "a");
    let exec = c.exec("", "a", "x", "echo ready; exec sleep 1000").spawn();
    wait_until("ready", || exec.stdout_now().contains("ready"));
    c.ok("task kill -s KILL @a");
    let outcome = exec.wait();
    c.note("exec", &outcome.code.to_string());
    assert_eq!(outcome.code, 137, "{outcome}");
    c.wait_for("a", "STOPPED");
    c.delete("a");
}

fn an_exec_id_is_taken(c: &mut Case) {
    c.up("", "a");
    let first = c.exec("--detach", "a", "x", "exec sleep 1000").output();
    assert_eq!(first.code, 0, "{first}");
    let second = c.exec("", "a", "x", "exit 0").output();
    c.note("code", &second.code.to_string());
    assert!(second.stderr.contains("already exists"), "{second}");
    c.ok("task kill -s KILL --exec-id x @a");
    c.down("a");
}

fn a_detached_exec(c: &mut Case) {
    c.up("", "a");
    let outcome = c.exec("--detach", "a", "x", "exec sleep 1000").output();
    c.note_outcome("exec", &outcome);
    let list = c.ok("task ps @a").stdout;
    let pid = list
        .lines()
        .find(|line| line.contains('x') && line.contains("exec"))
        .and_then(|line| line.split_whitespace().next()?.parse().ok());
    if let Some(pid) = pid {
        assert!(processes::is_alive(pid), "{list}");
    }
    c.note("processes", &list.lines().count().to_string());
    c.down("a");
}
