//! `exec`: a further process in a running container.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Case, differential, eventually, ours_beyond_runc, strip};

const IDENTITY: &str = "id -u; id -g; id -G; pwd; \
    grep -e ^Cap -e ^NoNew -e Seccomp: -e ^Groups /proc/self/status";

fn process(args: &[&str]) -> Value {
    json!({"terminal": false, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/",
           "env": ["PATH=/bin", "FROM=document"]})
}

/// Runs `exec --process` with the document.
fn exec_document(c: &mut Case, document: &Value, code: i32) -> String {
    let file = c.bundle.path().join("process.json");
    fs::write(&file, document.to_string()).expect("write");
    let outcome = c.call("exec --process process.json ID");
    c.expect_code("exec --process", &outcome, code);
    outcome.stdout
}

#[test]
fn plain_exec_has_the_identity_of_the_container() {
    differential(|c| {
        c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [50]});
        c.spec()["process"]["cwd"] = json!("/home/user");
        c.up();
        let seen = c.exec("", IDENTITY);
        assert!(seen.starts_with("1000\n1000\n"), "{seen}");
    });
}

#[test]
fn the_environment_is_the_containers_and_the_flags() {
    differential(|c| {
        c.push("/process/env", [json!("FROM=bundle"), json!("HOME=/mine")]);
        c.up();
        let outcome = c.call("exec -e ADDED=1 -e FROM=flag -e EMPTY= ID env");
        c.expect_code("exec env", &outcome, 0);
        assert!(outcome.stdout.contains("FROM=flag"), "{outcome}");
    });
}

#[test]
fn an_exec_whose_pid_file_cannot_be_written_leaves_no_process() {
    differential(|c| {
        c.up();
        let outcome = c.call("exec --detach --pid-file no/such/folder/the.pid ID sleep 1000");
        assert_ne!(outcome.code, 0, "{outcome}");
        let alone = || {
            let ps = c.cmd().args(c.words("ps --format json ID")).output();
            let pids: Vec<i32> = serde_json::from_str(&ps.stdout).ok()?;
            (pids.len() == 1).then_some(())
        };
        assert!(eventually(alone).is_some(), "the process is still there");
    });
}

#[test]
fn home_follows_the_user_of_exec() {
    differential(|c| {
        c.up();
        assert_eq!(c.exec("--user 1000", "echo $HOME"), "/home/user\n");
        assert_eq!(c.exec("--user 4242:1", "echo $HOME"), "/\n");
    });
}

#[test]
fn the_directory_is_the_one_of_the_flag() {
    differential(|c| {
        c.up();
        assert_eq!(c.exec("--cwd /etc", "pwd"), "/etc\n");
        let outcome = c.call("exec --cwd /no/such/directory ID pwd");
        c.note("missing directory", &outcome.code.to_string());
    });
}

#[test]
fn user_and_groups_are_the_ones_of_the_flags() {
    differential(|c| {
        c.up();
        let seen = c.exec("--user 1000:50", IDENTITY);
        assert!(seen.starts_with("1000\n50\n"), "{seen}");
        c.exec("-u 1000", IDENTITY);
        let seen = c.exec("-u 1000:1000 -g 50 -g 777", IDENTITY);
        assert!(seen.contains("777"), "{seen}");
    });
}

#[test]
fn capabilities_are_added_by_the_flag() {
    differential(|c| {
        c.up();
        c.exec("--cap CAP_CHOWN --cap CAP_NET_RAW", IDENTITY);
        c.exec("--cap CAP_CHOWN --user 1000", IDENTITY);
    });
}

#[test]
fn no_new_privileges_is_set_by_the_flag() {
    differential(|c| {
        c.spec()["process"]["noNewPrivileges"] = json!(false);
        c.up();
        assert!(c.exec("", IDENTITY).contains("NoNewPrivs:\t0"));
        assert!(
            c.exec("--no-new-privs", IDENTITY)
                .contains("NoNewPrivs:\t1")
        );
    });
}

#[test]
fn no_new_privileges_is_inherited() {
    differential(|c| {
        c.up();
        assert!(c.exec("", IDENTITY).contains("NoNewPrivs:\t1"));
    });
}

#[test]
fn exec_is_in_every_namespace_and_group_of_init() {
    differential(|c| {
        c.push("/linux/namespaces", [json!({"type": "cgroup"})]);
        c.up();
        let seen = c.exec(
            "",
            "for n in cgroup ipc mnt net pid user uts; do \
             [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] && echo same $n; done; \
             cmp /proc/self/cgroup /proc/1/cgroup && cat /proc/self/cgroup",
        );
        assert_eq!(seen.matches("same").count(), 7, "{seen}");
    });
}

/// The host's view: every hierarchy, not only those the process can see.
#[test]
fn exec_is_in_the_groups_of_init_as_the_host_sees_it() {
    differential(|c| {
        c.up();
        c.ok("exec --detach --pid-file exec.pid ID sleep 1000");
        let pid = fs::read_to_string(c.bundle.path().join("exec.pid")).expect("pid file");
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("groups");
        let init = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).expect("groups");
        c.note("groups", &groups);
        assert_eq!(groups, init);
    });
}

#[test]
fn the_filter_applies_to_exec() {
    differential(|c| {
        c.spec()["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]
        });
        c.up();
        let seen = c.exec(
            "",
            "grep Seccomp: /proc/self/status; mkdir /tmp/x 2>&1 | grep -o 'not permitted'",
        );
        assert_eq!(seen, "Seccomp:\t2\nnot permitted\n");
        c.exec("--user 1000", "grep Seccomp: /proc/self/status");
    });
}

#[test]
fn the_filter_applies_to_exec_without_no_new_privileges() {
    differential(|c| {
        c.spec()["process"]["noNewPrivileges"] = json!(false);
        c.spec()["process"]["capabilities"] = json!({});
        c.spec()["linux"]["seccomp"] = crate::seccomp_profile::profile();
        c.up();
        let seen = c.exec("--user 1000:1000", "grep Seccomp: /proc/self/status; id -u");
        assert_eq!(seen, "Seccomp:\t2\n1000\n");
    });
}

#[test]
fn exit_codes_and_signals_come_through() {
    differential(|c| {
        c.up();
        for (script, code) in [
            ("true", 0),
            ("exit 42", 42),
            ("exit 255", 255),
            ("kill -TERM $$", 143),
            ("kill -KILL $$", 137),
        ] {
            let outcome = c.exec_call("", script);
            c.expect_code(script, &outcome, code);
        }
    });
}

#[test]
fn a_missing_program_fails_exec_as_runc_does() {
    differential(|c| {
        c.up();
        let outcome = c.fails(
            "exec ID no-such-program",
            &["no-such-program", "executable file not found in $PATH"],
        );
        c.note("code", &outcome.code.to_string());
        c.fails(
            "exec ID /no/such/program",
            &["/no/such/program", "no such file or directory"],
        );
        c.fails("exec ID /etc/passwd", &["/etc/passwd", "permission denied"]);
        assert_eq!(c.status(), "running");
    });
}

#[test]
fn standard_input_reaches_the_process() {
    differential(|c| {
        c.up();
        let command = c.cmd().args(c.words("exec ID cat"));
        let outcome = command.stdin("to the container\n").output();
        c.expect_code("exec cat", &outcome, 0);
        assert_eq!(outcome.stdout, "to the container\n");
    });
}

#[test]
fn options_of_the_program_are_not_ours() {
    differential(|c| {
        c.up();
        let outcome = c.call("exec ID echo -e --detach -t x");
        c.expect_code("exec echo", &outcome, 0);
        assert_eq!(outcome.stdout, "--detach -t x\n");
    });
}

#[test]
fn a_document_gives_the_whole_process() {
    differential(|c| {
        c.up();
        let mut document = process(&["sh", "-c", IDENTITY]);
        document["user"] = json!({"uid": 1000, "gid": 50, "additionalGids": [777]});
        document["cwd"] = json!("/home/user");
        document["noNewPrivileges"] = json!(true);
        let caps = json!(["CAP_CHOWN", "CAP_KILL"]);
        document["capabilities"] = json!({"bounding": caps, "permitted": caps, "effective": caps,
            "inheritable": caps, "ambient": ["CAP_KILL"]});
        let seen = exec_document(c, &document, 0);
        assert!(seen.starts_with("1000\n50\n"), "{seen}");
        let env = exec_document(c, &process(&["env"]), 0);
        assert!(env.contains("FROM=document"), "{env}");
    });
}

#[test]
fn a_document_without_capabilities_is_runcs() {
    differential(|c| {
        c.up();
        exec_document(c, &process(&["sh", "-c", IDENTITY]), 0);
    });
}

/// Not of open files: the Go runtime of runc's helper raises that one itself.
#[test]
fn rlimits_and_oom_score_of_exec_are_runcs() {
    differential(|c| {
        c.spec()["process"]["oomScoreAdj"] = json!(100);
        c.up();
        let script = "ulimit -s; ulimit -Hs; cat /proc/self/oom_score_adj";
        c.exec("", script);
        let mut document = process(&["sh", "-c", script]);
        document["rlimits"] =
            json!([{"type": "RLIMIT_STACK", "hard": 4_194_304, "soft": 2_097_152}]);
        exec_document(c, &document, 0);
    });
}

/// runc 1.1 ignores both; the specification's `process` has them.
#[test]
fn umask_and_oom_score_of_a_document_are_set() {
    ours_beyond_runc(|c| {
        c.spec()["process"]["user"]["umask"] = json!(0o027);
        c.up();
        let mut document = process(&["sh", "-c", "umask; cat /proc/self/oom_score_adj"]);
        document["user"]["umask"] = json!(0o077);
        document["oomScoreAdj"] = json!(250);
        assert_eq!(exec_document(c, &document, 0), "0077\n250\n");
    });
}

#[test]
fn bad_documents_are_refused() {
    differential(|c| {
        c.up();
        c.fails(
            "exec --process /no/such/document ID",
            &["/no/such/document"],
        );
        for (name, text) in [
            ("empty", String::new()),
            ("truncated", "{\"args\": [".to_owned()),
            ("no-args", json!({"cwd": "/", "env": []}).to_string()),
            (
                "args-string",
                json!({"cwd": "/", "args": "true"}).to_string(),
            ),
            ("no-cwd", {
                let mut document = process(&["true"]);
                strip(&mut document, "", "cwd");
                document.to_string()
            }),
        ] {
            fs::write(c.bundle.path().join(name), text).expect("write");
            c.fails(&format!("exec --process {name} ID"), &[]);
        }
        assert_eq!(c.status(), "running");
    });
}

#[test]
fn detach_returns_while_the_process_runs() {
    differential(|c| {
        c.up();
        let outcome = c
            .cmd()
            .args(c.words("exec --detach --pid-file exec.pid ID"))
            .args(["sh", "-c", "echo here; sleep 1000; true"])
            .output();
        assert_eq!(outcome.code, 0, "{outcome}");
        let pid = fs::read_to_string(c.bundle.path().join("exec.pid")).expect("pid file");
        // The helper becomes the program some time after the command returned.
        let became = eventually(|| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            line.starts_with("sh\0-c\0").then_some(())
        });
        assert!(became.is_some(), "{pid} never became the program");
        let seen = eventually(|| (outcome.stdout_now() == "here\n").then_some(()));
        assert!(seen.is_some(), "{}", outcome.stdout_now());
    });
}

#[test]
fn the_end_of_a_detached_process_is_not_the_containers() {
    differential(|c| {
        c.up();
        c.ok("exec --detach ID true");
        eventually(|| (c.processes().len() == 1).then_some(())).expect("only init is left");
        assert_eq!(c.status(), "running");
    });
}

#[test]
fn exec_in_a_created_container_is_runcs() {
    differential(|c| {
        c.idle();
        c.create();
        let outcome = c.call("exec ID echo early");
        c.note("exec", &format!("{}\n{}", outcome.code, outcome.stdout));
        assert_eq!(c.status(), "created");
    });
}

#[test]
fn exec_in_a_stopped_container_is_refused() {
    differential(|c| {
        c.script("true");
        c.create();
        c.ok("start ID");
        c.wait_for("stopped");
        c.fails("exec ID true", &["cannot exec in a stopped container"]);
    });
}

#[test]
fn exec_sees_the_mounts_of_the_container() {
    differential(|c| {
        c.push(
            "/mounts",
            [json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"})],
        );
        c.script("echo kept > /mnt/file; sleep 1000");
        c.create();
        c.ok("start ID");
        let seen = eventually(|| {
            let outcome = c.exec_call("", "cat /mnt/file");
            (outcome.code == 0).then_some(outcome.stdout)
        });
        assert_eq!(seen.as_deref(), Some("kept\n"));
        c.exec("", "ls /; cut -d' ' -f5 /proc/self/mountinfo | sort");
    });
}
