//! What the container prints and reads.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write as _};
use std::process::Stdio;
use std::time::Duration;

use crate::harness::command::{spawn_plain, write_executable};
use crate::harness::{Case, Cmd, eventually, wait_until};

on_every_containerd! {
    much_output_arrives_whole,
    a_slow_reader_loses_nothing,
    many_lines,
    standard_input_ends,
    much_input_arrives_whole,
    input_that_nobody_reads,
    input_that_never_ends,
    no_standard_streams,
    output_to_a_file,
    output_to_a_logger,
    a_logger_that_does_not_exist,
    an_ordinary_user_opens_its_standard_streams,
    output_after_the_client_has_gone,
}

/// The numbers up to `last`, a line each.
fn numbers(last: u32) -> String {
    (1..=last).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "{number}");
        text
    })
}

/// Says where two texts part, as they are too long to print.
fn assert_same(what: &str, text: &str, expected: &str) {
    if text != expected {
        let at = text
            .bytes()
            .zip(expected.bytes())
            .position(|(a, b)| a != b)
            .unwrap_or(text.len().min(expected.len()));
        panic!(
            "{what}: {} bytes instead of {}, different from {at} on",
            text.len(),
            expected.len()
        );
    }
}

fn much_output_arrives_whole(c: &mut Case) {
    // 10.1 MB each.
    let last = 1_400_000;
    let script = format!("seq 1 {last} & seq 1 {last} >&2; wait; exit 9");
    let outcome = c.run("--rm", "a", &script).output();
    assert_eq!(outcome.code, 9);
    let expected = numbers(last);
    assert_same("stdout", &outcome.stdout, &expected);
    assert_same("stderr", &outcome.stderr, &expected);
}

fn a_slow_reader_loses_nothing(c: &mut Case) {
    let last = 150_000;
    // The client gives up what it has not read when the container ends, hence the sleep.
    let script = format!("seq 1 {last}; sleep 2");
    let mut command = c.run("--rm", "a", &script).into_inner();
    let mut child = spawn_plain(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let mut pipe = child.stdout.take().expect("pipe");
    let mut text = Vec::new();
    let mut chunk = [0; 32 * 1024];
    loop {
        let count = pipe.read(&mut chunk).expect("read");
        if count == 0 {
            break;
        }
        text.extend_from_slice(&chunk[..count]);
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = child.wait().expect("wait");
    c.note("code", &format!("{:?}", status.code()));
    assert_same("stdout", &String::from_utf8_lossy(&text), &numbers(last));
}

fn many_lines(c: &mut Case) {
    // Each a write of its own, unlike those of `seq`.
    let script = "i=1; while [ $i -le 10000 ]; do echo $i; i=$((i+1)); done";
    let outcome = c.run("--rm", "a", script).output();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_same("stdout", &outcome.stdout, &numbers(10_000));
}

/// Sends a line, and closes the input once it has come back: the client
/// forgets an end that comes before the task is there.
fn echoes_until_the_end(cmd: Cmd) -> (String, Option<i32>) {
    let mut command = cmd.into_inner();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = spawn_plain(&mut command);
    let mut stdin = child.stdin.take().expect("pipe");
    stdin.write_all(b"first\n").expect("write");
    let mut stdout = BufReader::new(child.stdout.take().expect("pipe"));
    let mut text = String::new();
    stdout.read_line(&mut text).expect("read");
    drop(stdin);
    let mut status = None;
    let ended = eventually(|| {
        status = child.try_wait().expect("wait");
        status
    });
    if ended.is_none() {
        let _ = child.kill();
        panic!("the container does not see the end of its input");
    }
    stdout.read_to_string(&mut text).expect("read");
    (text, status.and_then(|status| status.code()))
}

fn standard_input_ends(c: &mut Case) {
    let run = c.run("--rm", "a", "cat; echo end; exit 3");
    assert_eq!(
        echoes_until_the_end(run),
        ("first\nend\n".to_owned(), Some(3))
    );
    c.up("", "b");
    let exec = c.exec("", "b", "x", "cat; echo end; exit 4");
    assert_eq!(
        echoes_until_the_end(exec),
        ("first\nend\n".to_owned(), Some(4))
    );
    c.down("b");
}

fn much_input_arrives_whole(c: &mut Case) {
    let text = numbers(1_400_000);
    let outcome = c.run("--rm", "a", "cat").stdin(text.clone()).output();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_same("stdout", &outcome.stdout, &text);
}

fn input_that_nobody_reads(c: &mut Case) {
    let outcome = c
        .run("--rm", "a", "exit 3")
        .stdin(numbers(100_000))
        .output();
    c.note_outcome("run", &outcome);
    assert_eq!(outcome.code, 3);
}

fn input_that_never_ends(c: &mut Case) {
    let mut command = c
        .run("--rm", "a", "read line; echo $line; exit 4")
        .into_inner();
    let mut child = spawn_plain(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let mut stdin = child.stdin.take().expect("pipe");
    stdin.write_all(b"hello\n").expect("write");
    let mut status = None;
    wait_until("the client ends", || {
        status = child.try_wait().expect("wait");
        status.is_some()
    });
    let mut text = String::new();
    child
        .stdout
        .take()
        .expect("pipe")
        .read_to_string(&mut text)
        .expect("read");
    assert_eq!(status.and_then(|s| s.code()), Some(4));
    assert_eq!(text, "hello\n");
}

fn no_standard_streams(c: &mut Case) {
    // The standard output of `ls` is the pipe, hence two.
    let script =
        "cat; echo text; echo text >&2; exit $((6 + $(ls -l /proc/self/fd | grep -c /dev/null)))";
    let outcome = c.run("--rm --null-io", "a", script).output();
    c.note_outcome("run", &outcome);
    assert_eq!(outcome.code, 6 + 2);
    assert_eq!(outcome.stdout, "");
}

fn output_to_a_file(c: &mut Case) {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("out");
    let flags = format!("--log-uri file://{}", file.display());
    c.up_with(&flags, "a", "echo out; echo err >&2; seq 1 1000; exit 2");
    c.wait_for("a", "STOPPED");
    let expected = format!("out\n{}", numbers(1000));
    let read = || fs::read_to_string(&file).unwrap_or_default();
    // The copy may end after the container.
    wait_until("the file is complete", || {
        read().len() >= expected.len() + 4
    });
    // Two copies write to it, in no order.
    assert_eq!(read().replacen("err\n", "", 1), expected);
    c.delete("a");
}

/// A program that keeps what it is given: descriptor 3 is the container's
/// standard output, 4 its standard error, and the end of 5 says it is ready.
/// The shim ends it with SIGTERM when the task is deleted.
const LOGGER: &str = "#!/bin/sh
trap '' TERM
cd \"${0%/*}\" || exit
echo \"$CONTAINER_ID $CONTAINER_NAMESPACE $*\" >arguments
exec 5>&-
cat <&3 >out &
cat <&4 >err
wait
echo done >done
";

fn output_to_a_logger(c: &mut Case) {
    let dir = tempfile::tempdir().expect("directory");
    let logger = dir.path().join("logger");
    write_executable(&logger, LOGGER.as_bytes());
    let flags = format!("--log-uri binary://{}?first=1", logger.display());
    c.up_with(&flags, "a", "seq 1 100000; echo err >&2; exit 2");
    c.wait_for("a", "STOPPED");
    c.delete("a");
    wait_until("the logger ends", || dir.path().join("done").exists());
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    c.note("arguments", &read("arguments"));
    c.note("err", &read("err"));
    assert_same("out", &read("out"), &numbers(100_000));
    assert_eq!(read("err"), "err\n");
}

fn a_logger_that_does_not_exist(c: &mut Case) {
    let outcome = c
        .run("--detach --log-uri binary:///no/such/logger", "a", "exit 0")
        .output();
    c.note("code", &outcome.code.to_string());
    assert!(
        outcome.stderr.contains("no such file or directory"),
        "{outcome}"
    );
    c.note("status", &c.status("a"));
    c.call("container delete @a");
}

fn an_ordinary_user_opens_its_standard_streams(c: &mut Case) {
    c.up("", "a");
    let script = "echo out >/dev/stdout; echo err >/dev/stderr; id -u";
    let outcome = c.exec("--user 1000:1000", "a", "x", script).output();
    c.note_outcome("exec", &outcome);
    assert_eq!(outcome.stdout, "out\n1000\n", "{outcome}");
    c.down("a");
    if c.daemon.engine != "containerd-1.6" {
        let outcome = c.run("--rm --user 1000:1000", "b", script).output();
        c.note_outcome("run", &outcome);
        assert_eq!(outcome.stdout, "out\n1000\n", "{outcome}");
    }
}

/// A client that is killed must not stop what it has started.
fn output_after_the_client_has_gone(c: &mut Case) {
    let dir = tempfile::tempdir().expect("directory");
    let mark = dir.path().join("mark");
    File::create(&mark).expect("file");
    let flags = format!(
        "--mount type=bind,src={},dst=/mnt,options=rbind:rw",
        dir.path().display()
    );
    let script = "trap '' PIPE; echo ready; while ! test -e /mnt/go; do sleep 0.05; done; echo more; echo more; exit 8";
    let mut run = c.run(&flags, "a", script).spawn();
    wait_until("ready", || run.stdout_now().contains("ready"));
    let _ = run.child.kill();
    let _ = run.child.wait();
    File::create(dir.path().join("go")).expect("file");
    c.wait_for("a", "STOPPED");
    c.delete("a");
}
