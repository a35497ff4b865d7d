//! Standard descriptors and further ones.

use std::io::Read;
use std::process::Stdio;

use serde_json::json;

use crate::harness::command::spawn_plain;
use crate::harness::{Case, Cmd, differential, strip};

/// The command behind a shell that opens further descriptors first.
fn with_descriptors(c: &Case, redirections: &str, line: &str) -> Cmd {
    behind_shell(c, &format!("exec \"$@\" {redirections}"), line)
}

fn behind_shell(c: &Case, script: &str, line: &str) -> Cmd {
    Cmd::new("sh")
        .arg("-c")
        .arg(script)
        .arg("sh")
        .arg(c.program())
        .arg("--root")
        .arg(c.root())
        .args(c.words(line))
        .dir(c.bundle.path())
}

/// `/dev/stdout` is opened anew by the user, so the pipe must be the user's.
#[test]
fn a_user_can_open_its_standard_descriptors() {
    differential(|c| {
        c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        c.script("echo out > /dev/stdout; echo err > /dev/stderr; echo proc > /proc/self/fd/1");
        c.bundle.write();
        let mut command = c.cmd().args(c.words("run --bundle BUNDLE ID")).into_inner();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn_plain(&mut command);
        let mut seen = [String::new(), String::new()];
        child
            .stdout
            .take()
            .expect("stdout")
            .read_to_string(&mut seen[0])
            .expect("read");
        child
            .stderr
            .take()
            .expect("stderr")
            .read_to_string(&mut seen[1])
            .expect("read");
        let status = child.wait().expect("wait");
        c.note("run", &format!("{status} {seen:?}"));
        assert_eq!(seen, ["out\nproc\n", "err\n"]);
    });
}

#[test]
fn a_user_of_exec_can_open_its_standard_descriptors() {
    differential(|c| {
        c.up();
        let mut command = c
            .cmd()
            .args(c.words("exec --user 1000:1000 ID sh -c"))
            .arg("echo out > /dev/stdout")
            .into_inner();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = spawn_plain(&mut command);
        let mut seen = String::new();
        child
            .stdout
            .take()
            .expect("stdout")
            .read_to_string(&mut seen)
            .expect("read");
        let status = child.wait().expect("wait");
        c.note("exec", &format!("{status} {seen}"));
        assert_eq!(seen, "out\n");
    });
}

#[test]
fn further_descriptors_are_passed_on_demand() {
    differential(|c| {
        std::fs::write(c.bundle.path().join("three"), "three\n").expect("write");
        std::fs::write(c.bundle.path().join("four"), "four\n").expect("write");
        c.script("cat <&3; cat <&4; exec ls /proc/self/fd");
        c.bundle.write();
        let line = "run --preserve-fds 2 --bundle BUNDLE ID";
        let outcome = with_descriptors(c, "3<three 4<four", line).output();
        c.expect_code("run", &outcome, 0);
        assert_eq!(
            outcome.stdout, "three\nfour\n0\n1\n2\n3\n4\n5\n",
            "{outcome}"
        );
    });
}

#[test]
fn further_descriptors_are_not_passed_without_demand() {
    differential(|c| {
        std::fs::write(c.bundle.path().join("three"), "three\n").expect("write");
        c.spec()["process"]["args"] = json!(["ls", "/proc/self/fd"]);
        c.bundle.write();
        let outcome = with_descriptors(c, "3<three 9<three", "run --bundle BUNDLE ID").output();
        c.expect_code("run", &outcome, 0);
        assert_eq!(outcome.stdout, "0\n1\n2\n3\n");
    });
}

#[test]
fn preserved_descriptors_must_be_open() {
    differential(|c| {
        c.bundle.write();
        c.fails("run --preserve-fds 5 --bundle BUNDLE ID", &[]);
    });
}

#[test]
fn descriptors_are_passed_to_create_and_exec() {
    differential(|c| {
        std::fs::write(c.bundle.path().join("three"), "three\n").expect("write");
        c.script("cat <&3; sleep 1000");
        c.bundle.write();
        let line = "create --preserve-fds 1 --bundle BUNDLE ID";
        let outcome = with_descriptors(c, "3<three", line).output();
        c.expect_code("create", &outcome, 0);
        c.ok("start ID");
        let seen = crate::harness::eventually(|| (outcome.stdout_now() == "three\n").then_some(()));
        assert!(seen.is_some(), "{}", outcome.stdout_now());
        let line = "exec --preserve-fds 1 ID";
        let outcome = with_descriptors(c, "3<three", line)
            .args(["sh", "-c", "cat <&3"])
            .output();
        c.expect_code("exec", &outcome, 0);
        assert_eq!(outcome.stdout, "three\n");
    });
}

#[test]
fn socket_activation_is_passed_on() {
    differential(|c| {
        std::fs::write(c.bundle.path().join("three"), "three\n").expect("write");
        c.script("cat <&3; env | grep LISTEN | sort");
        c.bundle.write();
        let line = "run --bundle BUNDLE ID";
        let outcome = behind_shell(
            c,
            "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\" 3<three",
            line,
        )
        .output();
        c.expect_code("run", &outcome, 0);
        assert!(outcome.stdout.contains("LISTEN_FDS=1"), "{outcome}");
    });
}

#[test]
fn a_root_on_a_ramdisk_is_entered_without_pivot_root() {
    differential(|c| {
        c.script("ls / | tr '\\n' ' '; cat /etc/group | head -1; cat /proc/1/comm");
        c.bundle.write();
        let outcome = c.call("run --no-pivot --bundle BUNDLE ID");
        c.expect_code("run", &outcome, 0);
        assert!(outcome.stdout.contains("root:x:0"), "{outcome}");
    });
}

/// `/proc/keys` shows the session keyrings, which carry the container's id.
#[test]
fn the_session_keyring_is_new_unless_told_otherwise() {
    differential(|c| {
        strip(c.spec(), "/linux", "maskedPaths");
        let script = format!("grep -c 'keyring *_ses.{}:' /proc/keys; true", c.id());
        c.script(&script);
        c.bundle.write();
        // In this order: the kernel collects a dead keyring some time later.
        let inherited = c.ok("run --no-new-keyring --bundle BUNDLE ID");
        assert_eq!(inherited.stdout, "0\n", "{inherited}");
        let own = c.ok("run --bundle BUNDLE ID");
        assert_eq!(own.stdout, "1\n", "{own}");
    });
}
