//! From `run` to `delete`.

use crate::harness::{Case, wait_until};

on_every_containerd! {
    hello,
    exit_code,
    death_by_signal,
    the_container_stops_itself,
    detached_kill_delete,
    a_container_starts_again,
    signals,
    kill_of_a_dead_task_is_refused,
    delete_of_a_running_task_is_refused,
    forced_delete_of_a_running_task,
    a_missing_program_fails_the_start,
    a_program_that_cannot_be_executed_fails_the_start,
    a_missing_mount_source_fails_the_start,
    the_id_of_a_living_task_is_taken,
    the_container_knows_its_surroundings,
    read_only_root,
    pause_and_resume,
    processes_are_listed,
    a_shared_pid_namespace,
    orphans_die_with_their_container,
    orphans_in_a_shared_pid_namespace_die_too,
    user_and_directory,
}

fn hello(c: &mut Case) {
    let outcome = c
        .run(
            "--rm",
            "a",
            "echo hello; echo there >&2; id -u; pwd; hostname",
        )
        .output();
    c.note_outcome("run", &outcome);
    assert!(outcome.stdout.starts_with("hello\n"), "{outcome}");
}

fn exit_code(c: &mut Case) {
    for code in [7, 0, 255] {
        let outcome = c.run("--rm", "a", &format!("exit {code}")).output();
        c.note_outcome("run", &outcome);
        assert_eq!(outcome.code, code);
    }
}

fn death_by_signal(c: &mut Case) {
    c.up("", "a");
    c.down("a");
    c.up_with("", "b", "exec sleep 1000");
    c.ok("task kill -s HUP @b");
    // The signal does not end the init of a pid namespace that has no handler.
    c.note("status", &c.status("b"));
    c.down("b");
}

fn the_container_stops_itself(c: &mut Case) {
    c.up_with("", "a", "exit 23");
    c.wait_for("a", "STOPPED");
    assert_eq!(c.delete_task("a"), 23);
    c.record("container delete @a");
}

fn detached_kill_delete(c: &mut Case) {
    c.up("", "a");
    c.note("status", &c.status("a"));
    c.ok("task kill @a");
    c.wait_for("a", "STOPPED");
    c.delete("a");
    c.note("status", &c.status("a"));
}

fn a_container_starts_again(c: &mut Case) {
    c.up_with("", "a", "echo started; exit 4");
    c.wait_for("a", "STOPPED");
    assert_eq!(c.delete_task("a"), 4);
    let started = c
        .ctr("task start --fifo-dir")
        .arg(c.fifo_dir())
        .arg(c.id("a"))
        .output();
    c.note_outcome("start", &started);
    assert_eq!(started.stdout, "started\n", "{started}");
    assert_eq!(started.code, 4, "{started}");
    c.record("task delete @a");
    c.record("container delete @a");
}

fn signals(c: &mut Case) {
    let script = "for s in HUP USR1 USR2 TERM; do trap \"echo $s\" $s; done; trap 'echo INT; exit 5' INT; \
                  echo ready; while :; do sleep 0.02; done";
    let run = c.run("--rm", "a", script).spawn();
    wait_until("ready", || run.stdout_now().contains("ready"));
    for name in ["HUP", "USR1", "USR2", "TERM", "INT"] {
        c.ok(&format!("task kill -s {name} @a"));
        wait_until(name, || run.stdout_now().contains(&format!("\n{name}\n")));
    }
    let outcome = run.wait();
    c.note_outcome("run", &outcome);
    assert_eq!(outcome.code, 5);
}

fn kill_of_a_dead_task_is_refused(c: &mut Case) {
    c.up_with("", "a", "exit 3");
    c.wait_for("a", "STOPPED");
    c.fails(
        "task kill -s KILL @a",
        &["process already finished: not found"],
    );
    c.delete("a");
    c.fails("task kill -s KILL @a", &["not found"]);
}

fn delete_of_a_running_task_is_refused(c: &mut Case) {
    c.up("", "a");
    c.fails(
        "task delete @a",
        &["task must be stopped before deletion: running: failed precondition"],
    );
    c.fails(
        "container delete @a",
        &["cannot delete a non stopped container"],
    );
    assert_eq!(c.status("a"), "RUNNING");
    c.down("a");
}

fn forced_delete_of_a_running_task(c: &mut Case) {
    c.up("", "a");
    c.record("task delete --force @a");
    c.note("status", &c.status("a"));
    c.record("container delete @a");
}

fn a_missing_program_fails_the_start(c: &mut Case) {
    let outcome = c.run_program("--rm", "a", &["/no/such/program"]).output();
    c.note("code", &outcome.code.to_string());
    for needle in ["/no/such/program", "no such file or directory"] {
        assert!(outcome.stderr.contains(needle), "{outcome}");
    }
    let outcome = c.run_program("--rm", "b", &["nosuchprogram"]).output();
    c.note("code", &outcome.code.to_string());
    for needle in ["nosuchprogram", "executable file not found in $PATH"] {
        assert!(outcome.stderr.contains(needle), "{outcome}");
    }
    c.note("tasks", &c.status("a"));
    c.record("container list --quiet id==@a");
}

fn a_program_that_cannot_be_executed_fails_the_start(c: &mut Case) {
    let outcome = c.run_program("--rm", "a", &["/etc/passwd"]).output();
    c.note("code", &outcome.code.to_string());
    assert!(outcome.stderr.contains("permission denied"), "{outcome}");
}

fn a_missing_mount_source_fails_the_start(c: &mut Case) {
    let outcome = c
        .run(
            "--rm --mount type=bind,src=/no/such/dir,dst=/mnt,options=rbind:ro",
            "a",
            "true",
        )
        .output();
    c.note("code", &outcome.code.to_string());
    assert!(
        outcome.stderr.contains("no such file or directory"),
        "{outcome}"
    );
}

fn the_id_of_a_living_task_is_taken(c: &mut Case) {
    c.up("", "a");
    let again = c.run("--detach", "a", "true").output();
    c.note("code", &again.code.to_string());
    assert!(again.stderr.contains("already exists"), "{again}");
    assert_eq!(c.status("a"), "RUNNING");
    c.down("a");
}

fn the_container_knows_its_surroundings(c: &mut Case) {
    let script = "env | sort | grep -v HOSTNAME; cat /proc/1/comm; ls -d /proc/self/fd/*; \
                  grep -c . /proc/self/mountinfo; grep -E 'Cap|NoNewPrivs|Seccomp:|SigBlk' /proc/self/status; \
                  cat /proc/self/limits | grep -E 'open files'; cat /proc/self/oom_score_adj; ulimit -c";
    let flags = "--rm --env FOO=bar --cap-add CAP_SYS_ADMIN --cap-drop CAP_CHOWN --seccomp";
    let outcome = c.run(flags, "a", script).output();
    c.note_outcome("run", &outcome);
    assert_eq!(outcome.code, 0, "{outcome}");
}

fn read_only_root(c: &mut Case) {
    let outcome = c
        .run("--rm --read-only", "a", "touch /file; echo $?")
        .output();
    c.note_outcome("run", &outcome);
}

fn pause_and_resume(c: &mut Case) {
    let run = c
        .run(
            "--rm",
            "a",
            "trap 'exit 6' TERM; while :; do echo tick; sleep 0.02; done",
        )
        .spawn();
    let ticks = || run.stdout_now().lines().count();
    wait_until("it ticks", || ticks() > 2);
    c.record("task pause @a");
    c.wait_for("a", "PAUSED");
    // What was written before the pause may still be on its way.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(before, ticks(), "frozen");
    let exec = c.exec("", "a", "x", "true").output();
    c.note("exec while paused", &exec.code.to_string());
    c.record("task resume @a");
    c.wait_for("a", "RUNNING");
    wait_until("it ticks again", || ticks() > before);
    c.ok("task kill @a");
    let outcome = run.wait();
    c.note("code", &outcome.code.to_string());
}

fn processes_are_listed(c: &mut Case) {
    c.up_with("", "a", "sleep 1000 & sleep 1000 & wait");
    wait_until("three processes", || {
        c.call("task ps @a").stdout.lines().count() == 4
    });
    let exec = c.exec("--detach", "a", "x", "exec sleep 1000").output();
    assert_eq!(exec.code, 0, "{exec}");
    let list = c.ok("task ps @a").stdout;
    assert_eq!(list.lines().count(), 5, "{list}");
    let pid = c.pid("a").to_string();
    assert!(
        list.lines()
            .any(|line| line.split_whitespace().next() == Some(&pid)),
        "{pid} in {list}"
    );
    // The exec'ed process is listed with its id.
    let known = list.lines().skip(1).map(|line| {
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    });
    let mut known: Vec<_> = known.collect();
    known.sort();
    c.note(
        "ps",
        &known.join("\n").replace(|x: char| x.is_ascii_digit(), "N"),
    );
    c.down("a");
}

fn a_shared_pid_namespace(c: &mut Case) {
    c.up_with("", "a", "exec sleep 1000");
    let flags = format!("--rm --with-ns pid:/proc/{}/ns/pid", c.pid("a"));
    let outcome = c.run(&flags, "b", "cat /proc/1/comm; exit 4").output();
    c.note_outcome("run", &outcome);
    assert_eq!(outcome.stdout, "sleep\n", "{outcome}");
    assert_eq!(c.status("a"), "RUNNING");
    // When the first one goes, the second one goes with it.
    c.up_with(&flags[5..], "d", "exec sleep 1000");
    c.down("a");
    c.wait_for("d", "STOPPED");
    c.delete("d");
}

fn orphans_die_with_their_container(c: &mut Case) {
    let script = "(sleep 1000 & sleep 1000 &) ; (setsid sleep 1000 &) ; exit 3";
    let outcome = c.run("--rm --null-io", "a", script).output();
    c.note_outcome("run", &outcome);
    assert_eq!(outcome.code, 3);
}

fn orphans_in_a_shared_pid_namespace_die_too(c: &mut Case) {
    c.up_with("", "a", "exec sleep 1000");
    let flags = format!("--detach --with-ns pid:/proc/{}/ns/pid", c.pid("a"));
    let script = "(sleep 1000 & sleep 1000 &) ; (setsid sleep 1000 &) ; sleep 0.3; exit 3";
    c.run(&flags, "b", script).output();
    c.wait_for("b", "STOPPED");
    wait_until("orphans are gone", || c.has_empty_cgroup("b"));
    assert_eq!(c.status("a"), "RUNNING");
    c.delete("b");
    c.down("a");
}

fn user_and_directory(c: &mut Case) {
    let script = "id; pwd; touch file && ls -ln file | cut -c1-10";
    // The client of 1.6 has no --user.
    let flags = if c.daemon.engine == "containerd-1.6" {
        "--rm --cwd /tmp"
    } else {
        "--rm --cwd /tmp --user 1000:1000"
    };
    let outcome = c.run(flags, "a", script).output();
    c.note_outcome("run", &outcome);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(outcome.stdout.contains("/tmp\n"), "{outcome}");
}
