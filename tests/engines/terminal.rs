//! Containers on a terminal.

use crate::harness::Case;
use crate::harness::terminal::Session;

on_every_containerd! {
    a_terminal,
    a_terminal_has_the_size_of_the_client,
    a_terminal_is_resized,
    an_interrupt_from_the_keyboard,
    much_output_on_a_terminal,
    exec_on_a_terminal,
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
        session.tell_the_size();
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
    session.resize(44, 122);
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
    assert!(
        seen == expected + "end\r\r\n",
        "{} bytes are not the expected ones",
        seen.len()
    );
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
    session.resize(36, 116);
    size_is(&mut session, "36 116");
    session.master.send("\x04");
    assert_eq!(session.code(), Some(3));
    c.down("a");
}
