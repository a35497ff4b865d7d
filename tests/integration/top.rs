//! `top` and what it tells of real containers. tests/system runs some of them too, so that they also run on cgroup v2.

use std::num::NonZero;
use std::os::fd::AsFd;
use std::process::Stdio;

use elastic_mem::kernel::tty::{TerminalSize, set_size};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::tcgetattr;
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::command::spawn_plain;
use crate::common::pty::{Master, open_pty};
use crate::common::{DEADLINE, eventually, wait_until};
use crate::grants::{CEILING, elastic, is_granted_less};
use crate::harness::{Case, Cmd, cgroups, ours};

const MIB: u64 = 1 << 20;
/// A terminal that shows all there is.
const ROWS: NonZero<u16> = NonZero::new(30).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(120).unwrap();

/// What `top --json` says.
fn view(c: &Case) -> Value {
    let outcome = c.cmd().args(["top", "--json"]).output();
    assert_eq!(outcome.code, 0, "{outcome}");
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

fn row(c: &Case) -> Option<Value> {
    let view = view(c);
    let mut rows = view["containers"].as_array().expect("a list").iter();
    rows.find(|row| row["id"] == c.id()).cloned()
}

fn number(c: &Case, v1: &'static str, v2: &'static str) -> Option<u64> {
    c.cgroup_file(cgroups::by_version(v1, v2)).parse().ok()
}

/// What is shown is what the kernel says, and the sums are those of what was granted meanwhile.
#[test]
fn top_tells_what_the_control_group_has() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        // A decision between two readings may come in between: then they are read again.
        let same = eventually(|| {
            let row = row(c)?;
            let usage = number(c, "memory.usage_in_bytes", "memory.current")?;
            let limit = number(c, "memory.limit_in_bytes", "memory.high")?;
            let is_near = row["usage"].as_u64()?.abs_diff(usage) <= MIB;
            (is_near && row["grant"].as_u64()? == limit).then_some(row)
        });
        let row = same.expect("the figures of the kernel");
        assert_eq!(row["mode"], "elastic");
        assert_eq!(row["attended"], true);
        assert_eq!(row["ceiling"], CEILING);
        assert_eq!(row["pid"], c.pid());
        let name = row["function"].as_str().expect("a function");
        assert!(name.ends_with("/known"), "{name}");
        let grant = row["grant"].as_u64().expect("a grant");
        assert_eq!(row["reclaimable"], CEILING - grant);
        assert!(row["lowers"].as_u64().expect("a count") >= 1, "{row}");
        assert_eq!(row["met"], 0);
        assert_eq!(row["oomKills"], 0);
        let last = &row["lastDecision"];
        assert!(last["reason"].as_str().is_some_and(|why| !why.is_empty()));

        // Memory over time is granted less than declared, and more than used.
        let area = |row: &Value, what: &str| row[what].as_u64().expect("an area");
        wait_until("some seconds of it", || {
            row_of(c)["seconds"].as_f64().is_some_and(|s| s > 2.5)
        });
        let row = row_of(c);
        let seconds = row["seconds"].as_f64().expect("seconds");
        let used = area(&row, "usedByteSeconds");
        let granted = area(&row, "grantedByteSeconds");
        let ceiling = area(&row, "ceilingByteSeconds");
        assert!(used < granted && granted < ceiling, "{row}");
        assert_eq!(area(&row, "savedByteSeconds"), ceiling - granted);
        // What is not looked at yet is not counted yet: a second at most.
        let most = CEILING as f64 * seconds;
        let counted = ceiling as f64;
        assert!(
            counted <= most * 1.001 && counted > most - 1.5 * CEILING as f64,
            "{row}"
        );
        assert!(area(&row, "staticByteSeconds") < ceiling);
    });
}

fn row_of(c: &Case) -> Value {
    row(c).expect("a row")
}

#[test]
fn without_a_terminal_top_prints_a_table_of_what_was_asked_for() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        let top = |words: &[&str]| {
            let outcome = c.cmd().arg("top").args(words).output();
            assert_eq!(outcome.code, 0, "{outcome}");
            outcome.stdout
        };
        let text = top(&[]);
        let mut lines = text.lines();
        let host = lines.next().expect("the host");
        assert!(host.contains("reclaimable"), "{host}");
        let head = lines.next().expect("a head");
        assert!(head.starts_with("NAMESPACE  "), "{head}");
        let line = lines.find(|line| line.contains(c.id())).expect("a line");
        assert!(
            line.contains("known ") && line.contains(" elastic "),
            "{line}"
        );
        assert!(top(&["--filter", "KNOWN", "--once"]).contains(c.id()));
        assert!(!top(&["--filter", "nobody-has-this"]).contains(c.id()));
    });
}

#[test]
fn a_container_whose_monitor_stands_still_is_shown_without_waiting_for_it() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        let record = row_of(c);
        assert_eq!(record["attended"], true);
        let monitor = crate::grants::monitor(c);
        let monitor = Pid::from_raw(monitor);
        kill(monitor, Signal::SIGSTOP).expect("stop");
        let start = std::time::Instant::now();
        let row = row_of(c);
        let time = start.elapsed();
        kill(monitor, Signal::SIGCONT).expect("go on");
        assert_eq!(row["attended"], false, "{row}");
        assert_eq!(row["phase"], Value::Null);
        assert!(row["usage"].as_u64().is_some_and(|bytes| bytes > 0));
        assert!(time < *DEADLINE / 2, "{time:?}");
    });
}

#[test]
fn top_refuses_what_makes_no_sense() {
    ours(|c| {
        for (words, reason) in [
            (&["top", "--interval", "1ms"] as &[&str], "100ms to 1h"),
            (&["top", "--once", "--json"], "cannot be used with"),
            (&["top", "--sort", "luck"], "use"),
        ] {
            let outcome = Cmd::new(c.program()).args(words).output();
            assert_ne!(outcome.code, 0, "{outcome}");
            assert!(outcome.stderr.contains(reason), "{outcome}");
        }
    });
}

/// How somebody ends it.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Key(&'static str),
    Signal(Signal),
}

/// What somebody sees who sits at the terminal: only changes are drawn, which are seldom whole words.
struct Seen {
    master: Master,
    parser: vt100::Parser,
}

impl Seen {
    fn look(&mut self) -> &vt100::Screen {
        let news = self.master.take();
        self.parser.process(news.as_bytes());
        self.parser.screen()
    }

    /// Waits until this is somewhere on the screen.
    fn until(&mut self, text: &str) {
        let found = eventually(|| self.look().contents().contains(text).then_some(()));
        assert!(found.is_some(), "no {text:?}: {}", self.look().contents());
    }
}

fn end_as_told(c: &Case, ending: Ending) {
    let (master, slave) = open_pty();
    let size = |rows, columns| {
        set_size(slave.as_fd(), TerminalSize { rows, columns }).expect("size");
    };
    size(ROWS.get(), COLUMNS.get());
    let mut seen = Seen {
        master,
        parser: vt100::Parser::new(ROWS, COLUMNS, 0),
    };
    let before = tcgetattr(&slave).expect("settings");
    let cmd = c.cmd().args(["top", "--interval", "200ms"]);
    let mut command = cmd
        .env("TERM", "xterm")
        .env("LC_ALL", "C.UTF-8")
        .into_inner();
    let stdio = || Stdio::from(slave.try_clone().expect("clone"));
    command.stdin(stdio()).stdout(stdio()).stderr(stdio());
    let mut child = spawn_plain(&mut command);
    drop(command);
    seen.until("GRANT");
    seen.until("known");
    assert!(seen.look().alternate_screen() && seen.look().hide_cursor());
    assert_ne!(tcgetattr(&slave).expect("settings"), before);
    seen.master.send("?");
    seen.until("control-c");
    seen.master.send("q/known\r\r");
    // The details of the only one that is shown.
    seen.until("anonymous");
    seen.until("reclaimable");
    // A key that comes together with a change of size.
    size(10, 40);
    let pid = i32::try_from(child.id()).expect("pid");
    kill(Pid::from_raw(pid), Signal::SIGWINCH).expect("resize");
    seen.master.send("q");
    match ending {
        Ending::Key(key) => seen.master.send(key),
        Ending::Signal(signal) => kill(Pid::from_raw(pid), signal).expect("signal"),
    }
    let status = eventually(|| {
        seen.look();
        child.try_wait().expect("wait")
    });
    if status.is_none() {
        let _ = child.kill();
    }
    let shown = seen.look();
    let code = status.and_then(|status| status.code());
    assert_eq!(code, Some(0), "{ending:?}: {}", shown.contents());
    assert!(!shown.alternate_screen() && !shown.hide_cursor());
    assert_eq!(tcgetattr(&slave).expect("settings"), before, "{ending:?}");
}

#[test]
fn the_live_screen_obeys_keys_and_leaves_the_terminal_as_it_was() {
    let endings = [
        Ending::Key("q"),
        Ending::Key("\u{3}"),
        Ending::Signal(Signal::SIGTERM),
    ];
    elastic(|c| {
        c.up();
        is_granted_less(c);
        for ending in endings {
            end_as_told(c, ending);
        }
    });
}

/// As when a connection breaks: nobody is there to press a key, and no signal may come.
#[test]
fn the_live_screen_ends_with_its_terminal() {
    elastic(|c| {
        c.up();
        let (mut master, slave) = open_pty();
        let size = TerminalSize {
            rows: ROWS.get(),
            columns: COLUMNS.get(),
        };
        set_size(slave.as_fd(), size).expect("size");
        let cmd = c.cmd().args(["top", "--interval", "200ms"]);
        let mut command = cmd.env("TERM", "xterm").into_inner();
        let stdio = || Stdio::from(slave.try_clone().expect("clone"));
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        let mut child = spawn_plain(&mut command);
        drop(command);
        drop(slave);
        master.until("GRANT");
        drop(master);
        let ended = eventually(|| child.try_wait().expect("wait")).is_some();
        if !ended {
            let _ = child.kill();
        }
        let _ = child.wait();
        assert!(ended, "it goes on without a terminal");
    });
}
