//! Containers on a terminal.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Child, Stdio};

use nix::pty::Winsize;
use nix::sys::signal::Signal;

use crate::harness::command::spawn_plain;
use crate::harness::pty::{Master, open_pty};
use crate::harness::{Case, Cmd, processes, wait_until};

on_every_containerd! {
    a_terminal,
    a_terminal_has_the_size_of_the_client,
    a_terminal_is_resized,
    an_interrupt_from_the_keyboard,
    much_output_on_a_terminal,
    exec_on_a_terminal,
}

/// A client on a terminal. To the CR LF of the container's terminal its own,
/// which is raw but for this, adds a CR.
struct Session {
    client: Child,
    master: Master,
    slave: File,
}

impl Session {
    fn start(cmd: Cmd, rows: u16, columns: u16) -> Self {
        let (master, slave) = open_pty();
        resize(&slave, rows, columns);
        let stdio = || Stdio::from(slave.try_clone().expect("clone"));
        let mut command = cmd.into_inner();
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let client = spawn_plain(&mut command);
        Self { client, master, slave }
    }

    fn code(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the client ends", || {
            status = self.client.try_wait().expect("wait");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

#[allow(unsafe_code, reason = "nix has no function for the size of a terminal")]
fn resize(terminal: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and the argument is the structure that the request reads.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    assert_eq!(result, 0, "TIOCSWINSZ");
}

fn a_terminal(c: &mut Case) {
    let script = "test -t 0 && test -t 1 && test -t 2 && tty; ls -l /dev/console | cut -c1-10; \
                  echo out; echo err >&2; read line; echo got $line; exit 3";
    let mut session = Session::start(c.run("--rm --tty", "a", script), 24, 80);
    let mut seen = session.master.until("err\r\r\n");
    session.master.send("hello\n");
    seen += &session.master.until("got hello\r\r\n");
    c.note("seen", &seen);
    assert!(seen.contains("/dev/pts/0\r\r\n"), "{seen:?}");
    assert_eq!(session.code(), Some(3));
}

fn size_is(session: &mut Session, size: &str) {
    // The client sets the size, and begins to listen to changes, after it has started the container.
    for _ in 0..400 {
        processes::signal(session.client.id() as i32, Signal::SIGWINCH);
        session.master.send("\n");
        if session.master.until("\r\n.\r\r\n").contains(size) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("never {size}");
}

const SIZES: &str = "stty -echo; echo ready; while read line; do stty size; echo .; done; exit 3";

fn a_terminal_has_the_size_of_the_client(c: &mut Case) {
    let mut session = Session::start(c.run("--rm --tty", "a", SIZES), 33, 111);
    session.master.until("ready\r\r\n");
    size_is(&mut session, "33 111");
    session.master.send("\x04");
    assert_eq!(session.code(), Some(3));
}

fn a_terminal_is_resized(c: &mut Case) {
    let mut session = Session::start(c.run("--rm --tty", "a", SIZES), 24, 80);
    session.master.until("ready\r\r\n");
    size_is(&mut session, "24 80");
    resize(&session.slave, 44, 122);
    size_is(&mut session, "44 122");
    session.master.send("\x04");
    assert_eq!(session.code(), Some(3));
}

fn an_interrupt_from_the_keyboard(c: &mut Case) {
    let script = "trap 'echo INT; exit 5' INT; echo ready; while :; do sleep 0.02; done";
    let mut session = Session::start(c.run("--rm --tty", "a", script), 24, 80);
    session.master.until("ready\r\r\n");
    session.master.send("\x03");
    let seen = session.master.until("INT\r\r\n");
    c.note("seen", &seen);
    assert_eq!(session.code(), Some(5));
}

fn much_output_on_a_terminal(c: &mut Case) {
    // The client gives up what it has not read when the container ends, hence the `read`.
    let script = "seq 1 100000; echo end; read line; exit 2";
    let mut session = Session::start(c.run("--rm --tty", "a", script), 24, 80);
    let seen = session.master.until("end\r\r\n");
    let expected: String = (1..=100_000).map(|n| format!("{n}\r\r\n")).collect();
    assert!(seen == expected + "end\r\r\n", "{} bytes are not the expected ones", seen.len());
    session.master.send("\n");
    assert_eq!(session.code(), Some(2));
}

fn exec_on_a_terminal(c: &mut Case) {
    c.up("", "a");
    let exec = c.exec("--tty", "a", "x", &format!("tty; {SIZES}"));
    let mut session = Session::start(exec, 35, 115);
    let seen = session.master.until("ready\r\r\n");
    c.note("seen", &seen);
    size_is(&mut session, "35 115");
    resize(&session.slave, 36, 116);
    size_is(&mut session, "36 116");
    session.master.send("\x04");
    assert_eq!(session.code(), Some(3));
    c.down("a");
}
