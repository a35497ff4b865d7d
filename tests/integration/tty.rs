//! Terminals of the container and of exec.

use std::process::Stdio;

use serde_json::json;

use crate::harness::command::spawn_plain;
use crate::harness::pty::{ConsoleSocket, dead_socket, open_pty};
use crate::harness::{Case, differential};

/// `create`s and `start`s with a console socket; the master end.
fn with_console(c: &mut Case, script: &str) -> crate::harness::pty::Master {
    c.spec()["process"]["terminal"] = json!(true);
    c.script(script);
    c.bundle.write();
    let socket = ConsoleSocket::new();
    let outcome = c
        .cmd()
        .arg("create")
        .arg("--console-socket")
        .arg(socket.path())
        .args(c.words("--bundle BUNDLE ID"))
        .output();
    c.expect_code("create", &outcome, 0);
    let (master, name) = socket.receive();
    c.note("console name", &name);
    c.ok("start ID");
    master
}

#[test]
fn the_console_socket_gets_the_master() {
    differential(|c| {
        let mut master = with_console(
            c,
            "tty; test -t 0 && test -t 1 && test -t 2 && echo all; read line; echo got $line; exit 3",
        );
        let mut seen = master.until("all\r\n");
        master.send("hello\n");
        seen += &master.until("got hello\r\n");
        c.note("seen", &seen);
        assert!(seen.starts_with("/dev/pts/0\r\n"), "{seen:?}");
        c.wait_for("stopped");
    });
}

#[test]
fn the_terminal_has_the_size_of_the_bundle() {
    differential(|c| {
        c.spec()["process"]["consoleSize"] = json!({"height": 33, "width": 111});
        let mut master = with_console(c, "stty size; echo end");
        let seen = master.until("end\r\n");
        c.note("seen", &seen);
        assert_eq!(seen, "33 111\r\nend\r\n");
    });
}

#[test]
fn the_console_device_is_the_terminal() {
    differential(|c| {
        let mut master = with_console(
            c,
            "stat -c '%F %t %a %u' /dev/console; grep -c ' /dev/console ' /proc/self/mountinfo; \
             echo to-console > /dev/console; echo to-tty > /dev/tty; echo end",
        );
        let seen = master.until("end\r\n");
        c.note("seen", &seen);
        assert!(
            seen.contains("to-console\r\n") && seen.contains("to-tty\r\n"),
            "{seen:?}"
        );
    });
}

#[test]
fn the_process_leads_the_session_of_its_terminal() {
    differential(|c| {
        let mut master = with_console(
            c,
            "cut -d' ' -f5,6,8 /proc/1/stat; ps -o pid,tty,args | head -2; echo end",
        );
        let seen = master.until("end\r\n");
        c.note("seen", &seen);
        assert!(seen.starts_with("1 1 "), "{seen:?}");
    });
}

#[test]
fn the_interrupt_character_interrupts() {
    differential(|c| {
        let mut master = with_console(
            c,
            "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.02; done",
        );
        master.until("ready\r\n");
        master.send("\u{3}");
        let seen = master.until("caught\r\n");
        c.note("seen", &seen);
        assert!(seen.contains("^C"), "{seen:?}");
        c.wait_for("stopped");
    });
}

#[test]
fn the_terminal_belongs_to_the_user() {
    differential(|c| {
        c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        let mut master = with_console(c, "stat -c '%u %g %a' $(tty); echo mine > $(tty); echo end");
        let seen = master.until("end\r\n");
        c.note("seen", &seen);
        assert!(seen.starts_with("1000 "), "{seen:?}");
        assert!(seen.contains("mine"), "{seen:?}");
    });
}

#[test]
fn exec_gets_a_terminal_of_its_own() {
    differential(|c| {
        c.up();
        let socket = ConsoleSocket::new();
        let outcome = c
            .cmd()
            .args([
                "exec",
                "--tty",
                "--detach",
                "--pid-file",
                "exec.pid",
                "--console-socket",
            ])
            .arg(socket.path())
            .args(c.words("ID sh -c"))
            .arg("tty; read line; echo got $line; stat -c '%u %a' $(tty); exit 4")
            .output();
        c.expect_code("exec", &outcome, 0);
        let (mut master, name) = socket.receive();
        c.note("console name", &name);
        let mut seen = master.until("\r\n");
        master.send("hello\n");
        seen += &master.until("got hello\r\n");
        seen += &master.until("\r\n");
        c.note("seen", &seen);
        assert!(seen.starts_with("/dev/pts/"), "{seen:?}");
    });
}

#[test]
fn exec_of_a_document_gets_a_terminal_of_its_size() {
    differential(|c| {
        c.up();
        let socket = ConsoleSocket::new();
        let document = json!({"terminal": true, "consoleSize": {"height": 12, "width": 34},
            "user": {"uid": 1000, "gid": 1000}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["sh", "-c", "stty size; stat -c %u $(tty); id -u; echo end"]});
        std::fs::write(c.bundle.path().join("p.json"), document.to_string()).expect("write");
        let outcome = c
            .cmd()
            .args([
                "exec",
                "--process",
                "p.json",
                "--detach",
                "--console-socket",
            ])
            .arg(socket.path())
            .arg(c.id())
            .output();
        c.expect_code("exec", &outcome, 0);
        let (mut master, _) = socket.receive();
        let seen = master.until("end\r\n");
        c.note("seen", &seen);
        assert_eq!(seen, "12 34\r\n1000\r\n1000\r\nend\r\n");
    });
}

/// The foreground command on a pty of ours: it copies in both directions and
/// hands the exit code on.
#[test]
fn run_in_the_foreground_copies_the_terminal() {
    differential(|c| {
        c.spec()["process"]["terminal"] = json!(true);
        c.script("tty; echo ready; read line; echo got $line; exit 6");
        c.bundle.write();
        let command = c.cmd().args(c.words("run --bundle BUNDLE ID"));
        let (seen, code) = foreground(command);
        c.note("seen", &seen);
        c.note("code", &format!("{code:?}"));
        assert!(seen.contains("got hello\r\n"), "{seen:?}");
        assert_eq!(code, Some(6));
    });
}

#[test]
fn exec_in_the_foreground_copies_the_terminal() {
    differential(|c| {
        c.up();
        let command = c
            .cmd()
            .args(c.words("exec --tty ID sh -c"))
            .arg("tty; echo ready; read line; echo got $line; exit 6");
        let (seen, code) = foreground(command);
        c.note("seen", &seen);
        c.note("code", &format!("{code:?}"));
        assert!(seen.contains("got hello\r\n"), "{seen:?}");
        assert_eq!(code, Some(6));
    });
}

fn foreground(command: crate::harness::Cmd) -> (String, Option<i32>) {
    let (mut master, slave) = open_pty();
    let stdio = || Stdio::from(slave.try_clone().expect("clone"));
    let mut command = command.into_inner();
    command.stdin(stdio()).stdout(stdio()).stderr(stdio());
    let mut child = spawn_plain(&mut command);
    drop(command);
    let mut seen = master.until("ready\r\n");
    master.send("hello\n");
    seen += &master.until("got hello\r\n");
    let status = crate::harness::eventually(|| child.try_wait().expect("wait"));
    if status.is_none() {
        let _ = child.kill();
    }
    drop(slave);
    seen += &master.rest();
    (seen, status.and_then(|status| status.code()))
}

#[test]
fn a_terminal_needs_a_console_socket_when_detached() {
    differential(|c| {
        c.spec()["process"]["terminal"] = json!(true);
        c.bundle.write();
        c.fails("create --bundle BUNDLE ID", &["console socket"]);
        c.fails("run --detach --bundle BUNDLE ID", &["console socket"]);
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn a_console_socket_needs_a_terminal() {
    differential(|c| {
        c.bundle.write();
        let socket = ConsoleSocket::new();
        let outcome = c
            .cmd()
            .arg("create")
            .arg("--console-socket")
            .arg(socket.path())
            .args(c.words("--bundle BUNDLE ID"))
            .output();
        c.expect_failure("create", &outcome, &["console socket"]);
    });
}

#[test]
fn a_console_socket_that_nobody_listens_at_is_refused() {
    differential(|c| {
        c.spec()["process"]["terminal"] = json!(true);
        c.bundle.write();
        let outcome = c
            .cmd()
            .arg("create")
            .arg("--console-socket")
            .arg(dead_socket(c.bundle.path()))
            .args(c.words("--bundle BUNDLE ID"))
            .output();
        c.expect_failure("create", &outcome, &["nobody.sock"]);
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}
