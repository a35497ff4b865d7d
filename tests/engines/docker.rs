//! Docker's commands.

use serde_json::Value;

use crate::harness::terminal::Session;
use crate::harness::{Docker, cgroups, eventually, wait_until};

on_every_docker! {
    run_and_its_codes,
    codes_of_docker_itself,
    standard_input,
    on_a_terminal,
    exec_and_its_codes,
    exec_on_a_terminal,
    exec_storm,
    stats,
    top,
    pause_and_unpause,
    update_of_the_memory_limit,
    kill_and_wait,
    stop,
    logs,
    a_restart_policy,
    restart,
    the_out_of_memory_flag,
    what_run_sets_up,
    limits,
    a_health_check,
    removal_by_force,
    a_container_is_granted_what_its_function_needs,
}

// Docker 20 knows runtimes by path only.
on_one_docker! {
    a_runtime_by_its_type,
}

fn run_and_its_codes(d: &mut Docker) {
    for code in [0, 3, 255] {
        let script = format!("echo out; echo err >&2; id -u; pwd; exit {code}");
        let outcome = d.run("--rm", "a", &script).output();
        d.note_outcome("run", &outcome);
        assert_eq!(outcome.code, code, "{outcome}");
    }
    let outcome = d
        .run("--rm", "a", "kill -9 $$; sleep 0.1; kill -15 $$; exit 4")
        .output();
    d.note_outcome("run", &outcome);
}

fn codes_of_docker_itself(d: &mut Docker) {
    for (code, program) in [
        (127, "/no/such/program"),
        (127, "nosuchprogram"),
        (126, "/etc/passwd"),
    ] {
        let outcome = d.run_program("", "a", &[program]).output();
        assert_eq!(outcome.code, code, "{outcome}");
        assert!(outcome.stderr.contains(program), "{outcome}");
        d.note(
            "state",
            &d.inspect("a", "{{.State.Status}} {{.State.ExitCode}}"),
        );
        d.remove("a");
    }
    let outcome = d.run("--volume /proc/version:/etc", "a", "true").output();
    d.note("a file over a directory", &outcome.code.to_string());
    assert!(outcome.stderr.contains("directory"), "{outcome}");
    d.remove("a");
}

fn standard_input(d: &mut Docker) {
    let outcome = d
        .run("--rm --interactive", "a", "cat; echo end")
        .stdin("first\nsecond\n")
        .output();
    d.note_outcome("run", &outcome);
    assert_eq!(outcome.stdout, "first\nsecond\nend\n", "{outcome}");
    let outcome = d.run("--rm", "a", "cat; echo end").stdin("lost\n").output();
    d.note_outcome("without --interactive", &outcome);
    assert_eq!(outcome.stdout, "end\n", "{outcome}");
    let text = "0123456789abcdef\n".repeat(200_000);
    let outcome = d
        .run("--rm --interactive", "a", "cat")
        .stdin(text.clone())
        .output();
    assert!(
        outcome.stdout == text,
        "{} bytes of {}",
        outcome.stdout.len(),
        text.len()
    );
}

fn on_a_terminal(d: &mut Docker) {
    let script = "tty; test -t 0 && test -t 1 && echo all; read line; echo got $line; \
                  sleep 0.5; stty size; exit 3";
    let mut session = Session::start(d.run("--rm --interactive --tty", "a", script), 33, 111);
    session.master.until("all");
    session.master.send("hello\r");
    session.master.until("got hello");
    if d.is_new() {
        // That of 20 may have set the size before there was a terminal.
        session.master.until("33 111");
    }
    assert_eq!(session.code(), Some(3));
    let script = "trap 'echo INT; exit 5' INT; echo ready; while :; do sleep 0.02; done";
    let mut session = Session::start(d.run("--rm --interactive --tty", "a", script), 33, 111);
    session.master.until("ready");
    session.master.send("\x03");
    session.master.until("INT");
    assert_eq!(session.code(), Some(5));
}

fn exec_and_its_codes(d: &mut Docker) {
    d.up("--env FOO=bar", "a");
    for code in [0, 7] {
        let outcome = d
            .exec("", "a", &format!("echo out; echo err >&2; exit {code}"))
            .output();
        d.note_outcome("exec", &outcome);
        assert_eq!(outcome.code, code, "{outcome}");
    }
    let outcome = d
        .exec("--interactive", "a", "cat; exit 4")
        .stdin("hello\n")
        .output();
    d.note_outcome("exec", &outcome);
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (4, "hello\n"),
        "{outcome}"
    );
    let script = "id; pwd; echo $FOO $BAR; grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status";
    let outcome = d
        .exec("--user 1000 --workdir /tmp --env BAR=baz", "a", script)
        .output();
    d.note_outcome("exec", &outcome);
    assert!(outcome.stdout.contains("uid=1000(user)"), "{outcome}");
    let outcome = d.docker("exec @a /no/such/program").output();
    d.note("a missing program", &outcome.code.to_string());
    assert!([126, 127].contains(&outcome.code), "{outcome}");
    let outcome = d.docker("exec @a /etc/passwd").output();
    d.note("no program", &outcome.code.to_string());
    let outcome = d.exec("--detach", "a", "sleep 1000").output();
    assert_eq!(outcome.code, 0, "{outcome}");
    d.remove("a");
}

fn exec_on_a_terminal(d: &mut Docker) {
    d.up("", "a");
    let exec = d.exec(
        "--interactive --tty",
        "a",
        "tty; read line; echo got $line; exit 7",
    );
    let mut session = Session::start(exec, 24, 80);
    session.master.until("/dev/pts/");
    session.master.send("hello\r");
    session.master.until("got hello");
    assert_eq!(session.code(), Some(7));
    d.remove("a");
}

fn exec_storm(d: &mut Docker) {
    d.up("", "a");
    std::thread::scope(|scope| {
        for worker in 0..5 {
            let d = &*d;
            scope.spawn(move || {
                for round in 0..6 {
                    let number = worker * 6 + round;
                    let outcome = d
                        .exec("", "a", &format!("echo {number}; exit {number}"))
                        .output();
                    assert_eq!(outcome.code, number, "{outcome}");
                    assert_eq!(outcome.stdout, format!("{number}\n"), "{outcome}");
                }
            });
        }
    });
    d.remove("a");
}

fn stats(d: &mut Docker) {
    d.up("--memory 64m --pids-limit 50", "a");
    let outcome = d
        .docker("stats --no-stream --format")
        .arg("{{json .}}")
        .arg(d.name("a"))
        .output();
    assert_eq!(outcome.code, 0, "{outcome}");
    let stats: Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {outcome}"));
    let limit = stats["MemUsage"]
        .as_str()
        .and_then(|s| s.split(" / ").nth(1));
    d.note("limit", limit.unwrap_or_default());
    d.note("pids", &stats["PIDs"].to_string());
    assert_eq!(limit, Some("64MiB"), "{outcome}");
    let usage = stats["MemUsage"].as_str().unwrap_or_default();
    assert!(!usage.starts_with("0B"), "{outcome}");
    d.remove("a");
}

fn top(d: &mut Docker) {
    let outcome = d
        .run("--detach", "a", "sleep 1000 & sleep 1000 & wait")
        .output();
    assert_eq!(outcome.code, 0, "{outcome}");
    let mut seen = String::new();
    // The daemon asks the host's ps.
    wait_until("three processes", || {
        seen = d.call("top @a -o pid,args").stdout;
        seen.lines().count() == 4
    });
    let commands: Vec<_> = seen
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(_, c)| c.trim())
        .collect();
    d.note("top", &commands.join("\n"));
    d.remove("a");
}

fn pause_and_unpause(d: &mut Docker) {
    d.up("", "a");
    d.record("pause @a");
    d.note("state", &d.inspect("a", "{{.State.Status}}"));
    d.note("exec", &d.exec("", "a", "true").output().code.to_string());
    d.note("again", &d.call("pause @a").code.to_string());
    d.record("unpause @a");
    d.note("state", &d.inspect("a", "{{.State.Status}}"));
    assert_eq!(d.exec("", "a", "exit 5").output().code, 5);
    d.remove("a");
}

fn update_of_the_memory_limit(d: &mut Docker) {
    d.up("--memory 64m", "a");
    d.ok("update --memory 32m --memory-swap 32m @a");
    let id = d.full_id("a");
    let limit = d.cgroup_file(&id, "memory.limit_in_bytes");
    assert_eq!(limit, (32 << 20).to_string());
    d.ok("update --cpu-shares 512 @a");
    let shares = cgroups::by_version("512", "20");
    assert_eq!(d.cgroup_file(&id, "cpu.shares"), shares);
    d.remove("a");
}

fn kill_and_wait(d: &mut Docker) {
    d.up("", "a");
    let wait = d.docker("wait @a").spawn();
    d.record("kill --signal HUP @a");
    d.note("state", &d.inspect("a", "{{.State.Status}}"));
    d.record("kill @a");
    let outcome = wait.wait();
    d.note_outcome("wait", &outcome);
    assert_eq!(outcome.stdout, "137\n");
    let outcome = d.call("kill @a");
    d.note("again", &outcome.code.to_string());
    d.remove("a");
}

fn stop(d: &mut Docker) {
    let script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.02; done";
    assert_eq!(d.run("--detach", "a", script).output().code, 0);
    wait_until("ready", || d.call("logs @a").stdout.contains("ready"));
    d.record("stop @a");
    d.note(
        "code",
        &d.inspect("a", "{{.State.Status}} {{.State.ExitCode}}"),
    );
    d.record("logs @a");
    d.remove("a");
    // Deaf to SIGTERM.
    assert_eq!(d.run("--detach", "b", "exec sleep 1000").output().code, 0);
    d.record("stop --time 1 @b");
    d.note(
        "code",
        &d.inspect("b", "{{.State.Status}} {{.State.ExitCode}}"),
    );
    d.remove("b");
}

fn logs(d: &mut Docker) {
    let outcome = d
        .run("--detach", "a", "seq 1 20000; echo err >&2; exit 3")
        .output();
    assert_eq!(outcome.code, 0, "{outcome}");
    d.wait_for("a", "exited");
    let expected: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    let outcome = d.call("logs @a");
    assert!(
        outcome.stdout == expected,
        "{} bytes of {}",
        outcome.stdout.len(),
        expected.len()
    );
    assert_eq!(outcome.stderr, "err\n");
    d.note("code", &d.inspect("a", "{{.State.ExitCode}}"));
    d.remove("a");
}

fn a_restart_policy(d: &mut Docker) {
    let outcome = d
        .run("--detach --restart on-failure:2", "a", "echo run; exit 3")
        .output();
    assert_eq!(outcome.code, 0, "{outcome}");
    wait_until("two restarts", || {
        d.inspect("a", "{{.RestartCount}} {{.State.Status}}") == "2 exited"
    });
    d.note("state", &d.inspect("a", "{{.State.ExitCode}}"));
    d.record("logs @a");
    d.remove("a");
}

fn restart(d: &mut Docker) {
    d.up("", "a");
    for command in ["restart --time 1 @a", "stop --time 1 @a", "start @a"] {
        d.record(command);
        d.note("state", &d.inspect("a", "{{.State.Status}}"));
    }
    assert_eq!(d.exec("", "a", "exit 6").output().code, 6);
    d.remove("a");
}

fn the_out_of_memory_flag(d: &mut Docker) {
    // Docker takes the flag for what it heard before the exit, hence a child and the second sleep.
    let script = "sleep 0.5; dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null; echo $?; sleep 0.5; exit 5";
    let outcome = d
        .run("--memory 20m --memory-swap 20m", "a", script)
        .output();
    d.note_outcome("run", &outcome);
    assert_eq!(
        (outcome.stdout.as_str(), outcome.code),
        ("137\n", 5),
        "{outcome}"
    );
    let seen = eventually(|| (d.inspect("a", "{{.State.OOMKilled}}") == "true").then_some(()));
    assert!(seen.is_some(), "OOMKilled is not set");
    d.remove("a");
}

fn what_run_sets_up(d: &mut Docker) {
    let flags = "--rm --user 1000:1000 --read-only --tmpfs /scratch --workdir /tmp --hostname box --env FOO=bar \
                 --cap-drop ALL --security-opt no-new-privileges";
    let script = "id; pwd; hostname; echo $FOO; touch /file; echo $?; touch /scratch/file; echo $?; \
                  grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/self/oom_score_adj; \
                  cut -d' ' -f5 /proc/self/mountinfo | sort; ls /dev | sort";
    let outcome = d.run(flags, "a", script).output();
    d.note_outcome("run", &outcome);
    assert_eq!(outcome.code, 0, "{outcome}");
    let outcome = d
        .run(
            "--rm",
            "a",
            "grep -E 'Cap|Seccomp:' /proc/1/status; cat /proc/1/attr/current; ulimit -c",
        )
        .output();
    d.note_outcome("run", &outcome);
}

fn limits(d: &mut Docker) {
    let flags =
        "--rm --ulimit nofile=512:512 --memory 64m --cpu-shares 256 --pids-limit 40 --shm-size 8m";
    let files = cgroups::by_version(
        "memory/memory.limit_in_bytes pids/pids.max cpu/cpu.shares",
        "memory.max pids.max cpu.weight",
    );
    let script = format!("ulimit -n; cd /sys/fs/cgroup; cat {files}; df -k /dev/shm | tail -1");
    let outcome = d.run(flags, "a", &script).output();
    d.note_outcome("run", &outcome);
    let lines: Vec<_> = outcome.stdout.lines().collect();
    let shares = cgroups::by_version("256", "10");
    assert_eq!(lines[..4], ["512", "67108864", "40", shares], "{outcome}");
    assert_eq!(
        lines[4].split_whitespace().nth(1),
        Some("8192"),
        "{outcome}"
    );
}

fn a_health_check(d: &mut Docker) {
    let flags = "--detach --health-interval 50ms --health-retries 3 --health-cmd";
    let mut words: Vec<_> = flags.split(' ').map(str::to_owned).collect();
    words.push("test -e /tmp/well".into());
    // The command has blanks in it.
    let outcome = d
        .start_of_run("a")
        .args(words)
        .args([
            Docker::IMAGE,
            "sh",
            "-c",
            "touch /tmp/well; exec sleep 1000",
        ])
        .output();
    assert_eq!(outcome.code, 0, "{outcome}");
    let health = |d: &Docker| d.inspect("a", "{{.State.Health.Status}}");
    wait_until("healthy", || health(d) == "healthy");
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(health(d), "healthy");
    assert_eq!(d.exec("", "a", "rm /tmp/well").output().code, 0);
    wait_until("unhealthy", || health(d) == "unhealthy");
    d.remove("a");
}

fn removal_by_force(d: &mut Docker) {
    d.up("", "a");
    assert_eq!(
        d.exec("--detach", "a", "sleep 1000 & sleep 1000")
            .output()
            .code,
        0
    );
    let outcome = d.call("rm @a");
    d.note("without force", &outcome.code.to_string());
    assert_ne!(outcome.code, 0);
    d.remove("a");
    d.up("", "b");
    d.ok("pause @b");
    d.remove("b");
}

/// `--runtime` with the name of a shim needs no word in the daemon's
/// configuration. Of the oracle it is runc's.
fn a_runtime_by_its_type(d: &mut Docker) {
    let outcome = d
        .docker("run --rm --network none --runtime")
        .arg(d.runtime_type())
        .args([Docker::IMAGE, "sh", "-c", "echo hello; exit 3"])
        .output();
    d.note_outcome("run", &outcome);
    assert_eq!(outcome.code, 3, "{outcome}");
}

/// The limit that is moved; `None` is none.
fn limit(d: &Docker, id: &str) -> Option<u64> {
    let file = cgroups::by_version("memory.limit_in_bytes", "memory.high");
    d.cgroup_file(id, file).trim_end().parse().ok()
}

fn a_container_is_granted_what_its_function_needs(d: &mut Docker) {
    let ceiling: u64 = 256 << 20;
    let flags = "--memory 256m --memory-swap 256m --env ELASTIC_MEM_FUNCTION=tuned";
    for _ in 0..3 {
        let outcome = d.run(&format!("--rm {flags}"), "b", "sleep 0.3").output();
        assert_eq!(outcome.code, 0, "{outcome}");
    }
    let is_less = |d: &Docker, id: &str, than: u64| limit(d, id).is_some_and(|limit| limit < than);
    // The last trace may still be on its way into the store.
    wait_until("less is granted", || {
        d.up(flags, "a");
        let id = d.full_id("a");
        let soon = || {
            (1..20).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                is_less(d, &id, ceiling)
            })
        };
        let is_tuned = !d.is_ours() || soon();
        if !is_tuned {
            d.ok("rm --force @a");
        }
        is_tuned
    });
    // More than is granted, and all that is declared can be had.
    let grow = "dd if=/dev/zero of=/dev/null bs=150M count=1 2>/dev/null";
    assert_eq!(d.exec("", "a", grow).output().code, 0);
    d.record("update --memory 200m --memory-swap 200m @a");
    let id = d.full_id("a");
    if d.is_ours() {
        wait_until("less is granted again", || is_less(d, &id, 200 << 20));
    }
    assert_eq!(d.exec("", "a", grow).output().code, 0);
    d.record("pause @a");
    if d.is_ours() {
        assert!(!is_less(d, &id, 200 << 20), "while it is paused");
    }
    d.record("unpause @a");
    d.ok("stop @a");
    d.note(
        "state",
        &d.inspect("a", "{{.State.OOMKilled}} {{.State.ExitCode}}"),
    );
    d.remove("a");
}
