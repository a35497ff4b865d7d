//! A server and its clients in one thread.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Mutex;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

use super::*;
use crate::control::record::Record;
use crate::model::{Bytes, Mode};

/// Remembers what it was told.
#[derive(Debug, Clone, Default)]
struct Fake {
    told: Arc<Mutex<Vec<String>>>,
    /// What comes of a hold, once that is known, and who waits for it.
    outcome: Arc<Mutex<(Option<bool>, Option<task::Waker>)>>,
}

impl Fake {
    fn say(&self, what: impl Into<String>) {
        self.told.lock().unwrap().push(what.into());
    }

    fn decide(&self, outcome: bool) {
        let mut shared = self.outcome.lock().unwrap();
        shared.0 = Some(outcome);
        shared.1.take().unwrap().wake();
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

impl Tuner for Fake {
    fn hold(&self) -> Doing {
        self.say("hold");
        let shared = Arc::clone(&self.outcome);
        Box::pin(std::future::poll_fn(move |context| {
            let mut shared = shared.lock().unwrap();
            shared.1 = Some(context.waker().clone());
            shared.0.map_or(Poll::Pending, Poll::Ready)
        }))
    }

    fn release(&self) {
        self.say("release");
    }

    fn edge(&self, edge: Edge) {
        self.say(format!("{edge:?}"));
    }

    fn status(&self) -> Option<(Duration, Status)> {
        None
    }

    fn bind(&self, function: &str, class: Option<&ClassName>) -> std::result::Result<(), String> {
        if function == "foreign" {
            return Err("not this one".to_owned());
        }
        self.say(format!("bind {function} {class:?}"));
        Ok(())
    }
}

struct Case {
    _dir: TempDir,
    server: Server,
    key: Key,
    folder: Folder,
    fake: Fake,
}

fn case(is_slow: bool) -> Case {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::at(dir.path().join("ns/a"));
    let mut record =
        Record::new(Path::new("/b"), Path::new("/r"), Some(Bytes::new(1 << 20))).unwrap();
    record.mode = Mode::Elastic;
    folder.write(record).unwrap();
    let fake = Fake::default();
    fake.outcome.lock().unwrap().0 = (!is_slow).then_some(true);
    let mut server = Server::new().unwrap();
    let subject = Subject {
        folder: folder.clone(),
        tuner: Box::new(fake.clone()),
    };
    Case {
        _dir: dir,
        key: server.open(subject).unwrap(),
        server,
        folder,
        fake,
    }
}

impl Case {
    fn connect(&mut self) -> UnixStream {
        let client = UnixStream::connect(self.folder.socket()).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        self.server.turn();
        client
    }

    /// Whether the server has something to do within this time; then it does it.
    fn turn_within(&mut self, millis: u16) -> bool {
        let mut polled = [PollFd::new(self.server.as_fd(), PollFlags::POLLIN)];
        let is_ready = poll(&mut polled, PollTimeout::from(millis)).unwrap() > 0;
        self.server.turn();
        is_ready
    }

    fn ask(&mut self, client: &UnixStream, line: &str) -> String {
        say(client, line);
        self.server.turn();
        hear(client)
    }
}

fn say(mut client: &UnixStream, line: &str) {
    client.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// The next answer; empty when the connection has ended.
fn hear(client: &UnixStream) -> String {
    let mut line = String::new();
    // One byte at a time: what comes after the line stays.
    let _ = BufReader::with_capacity(1, client).read_line(&mut line);
    line.trim_end().to_owned()
}

#[test]
fn a_request_of_the_function_is_handed_on() {
    let mut case = case(false);
    let client = case.connect();
    let begin = r#"{"phase":"begin","inputBytes":7,"class":"small"}"#;
    assert_eq!(case.ask(&client, begin), r#"{"ok":true}"#);
    assert_eq!(case.ask(&client, r#"{"phase":"end"}"#), r#"{"ok":true}"#);
    let told = case.fake.told();
    assert!(
        told[0].starts_with("Begin") && told[0].contains("Bytes(7)"),
        "{told:?}"
    );
    assert!(told[0].contains("small") && told[1] == "End", "{told:?}");
}

#[test]
fn a_late_binding_is_handed_on_or_refused_with_its_reason() {
    let mut case = case(false);
    let client = case.connect();
    let answer = case.ask(&client, r#"{"bind":{"function":"thumb","class":"c"}}"#);
    assert_eq!(answer, r#"{"ok":true}"#);
    let told = case.fake.told();
    assert!(
        told[0].starts_with("bind thumb") && told[0].contains("\"c\""),
        "{told:?}"
    );
    let answer = case.ask(&client, r#"{"bind":{"function":"foreign"}}"#);
    assert_eq!(answer, r#"{"error":"not this one"}"#);
    assert!(case.fake.told().is_empty());
}

#[test]
fn a_hold_lasts_as_long_as_its_connection() {
    let mut case = case(false);
    let (client, other) = (case.connect(), case.connect());
    assert_eq!(case.ask(&client, r#"{"hold":true}"#), r#"{"ok":true}"#);
    // Once is enough.
    assert_eq!(case.ask(&client, r#"{"hold":true}"#), r#"{"ok":true}"#);
    assert_eq!(case.fake.told(), ["hold"]);
    let status = case.ask(&other, r#"{"status":true}"#);
    assert!(status.contains(r#""holds":1"#), "{status}");
    assert!(status.contains(r#""mode":"elastic""#), "{status}");
    assert!(status.contains(r#""grant":1048576"#), "{status}");
    drop(client);
    assert!(case.turn_within(1000));
    assert_eq!(case.fake.told(), ["release"]);
    let status = case.ask(&other, r#"{"status":true}"#);
    assert!(status.contains(r#""holds":0"#), "{status}");
}

#[test]
fn a_hold_is_answered_when_it_stands_and_what_follows_waits() {
    let mut case = case(true);
    let client = case.connect();
    say(&client, r#"{"hold":true}"#);
    say(&client, r#"{"phase":"end"}"#);
    case.server.turn();
    assert_eq!(case.fake.told(), ["hold"]);
    assert!(!case.turn_within(20));
    case.fake.decide(true);
    assert!(case.turn_within(1000));
    assert_eq!(hear(&client), r#"{"ok":true}"#);
    assert_eq!(hear(&client), r#"{"ok":true}"#);
    assert_eq!(case.fake.told(), ["End"]);
}

#[test]
fn a_hold_that_nobody_can_give_is_refused() {
    let mut case = case(true);
    let client = case.connect();
    say(&client, r#"{"hold":true}"#);
    case.server.turn();
    case.fake.decide(false);
    assert!(case.turn_within(1000));
    assert!(hear(&client).contains("error"));
    // Whoever counts holds has counted this one.
    assert_eq!(case.fake.told(), ["hold", "release"]);
    drop(client);
    case.turn_within(1000);
    assert!(case.fake.told().is_empty());
}

#[test]
fn a_client_that_goes_before_its_hold_stands_leaves_none() {
    let mut case = case(true);
    let client = case.connect();
    say(&client, r#"{"hold":true}"#);
    case.server.turn();
    drop(client);
    assert!(case.turn_within(1000));
    assert_eq!(case.fake.told(), ["hold", "release"]);
}

#[test]
fn what_is_malformed_changes_nothing_and_the_connection_stays() {
    let mut case = case(false);
    let client = case.connect();
    for line in ["{", "", "\u{1}", r#"{"id":"b","phase":"end"}"#] {
        let answer = case.ask(&client, line);
        assert!(answer.starts_with(r#"{"error":"#), "{line}: {answer}");
    }
    assert!(case.fake.told().is_empty());
    assert_eq!(case.ask(&client, r#"{"phase":"end"}"#), r#"{"ok":true}"#);
}

#[test]
fn what_is_too_long_ends_the_connection() {
    let mut case = case(false);
    let mut client = case.connect();
    let line = format!(r#"{{"phase":"begin","class":"{}"}}"#, "c".repeat(LONGEST));
    client.write_all(line.as_bytes()).unwrap();
    while case.turn_within(20) {}
    assert!(hear(&client).contains("4096 bytes"));
    assert_eq!(hear(&client), "");
    assert!(case.fake.told().is_empty());
}

#[test]
fn what_is_said_before_a_client_goes_counts() {
    let mut case = case(false);
    let mut client = case.connect();
    // Without the end of the line.
    client.write_all(br#"{"phase":"end"}"#).unwrap();
    drop(client);
    while case.turn_within(20) {}
    assert_eq!(case.fake.told(), ["End"]);
    assert!(case.server.clients.is_empty());
}

#[test]
fn a_flood_of_messages_is_taken_by_and_by() {
    let mut case = case(false);
    let client = case.connect();
    for _ in 0..MOST_IN_WINDOW + 50 {
        say(&client, r#"{"phase":"end"}"#);
    }
    case.server.turn();
    // The connection counts too.
    let first = case.fake.told().len();
    assert_eq!(first, MOST_IN_WINDOW as usize - 1);
    // Nothing is to do meanwhile, and others cost nothing either.
    let _other = UnixStream::connect(case.folder.socket()).unwrap();
    assert!(!case.turn_within(20));
    assert!(case.turn_within(1000));
    assert_eq!(case.fake.told().len(), 51);
}

/// The socket that the container sees, in a folder of its own.
fn open_inside(case: &mut Case) -> std::path::PathBuf {
    let inside = case.folder.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let subject = Subject {
        folder: case.folder.clone(),
        tuner: Box::new(case.fake.clone()),
    };
    case.server.open_inside(&inside, subject).unwrap();
    inside.join(SOCKET)
}

#[test]
fn a_container_can_say_phases_of_itself_and_nothing_else() {
    use std::os::unix::fs::PermissionsExt;
    let mut case = case(false);
    let socket = open_inside(&mut case);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(&case.folder.socket())), (0o666, 0o600));
    let client = UnixStream::connect(&socket).unwrap();
    case.server.turn();
    for line in [
        r#"{"hold":true}"#,
        r#"{"status":true}"#,
        r#"{"bind":{"function":"f"}}"#,
        r#"{"id":"other","phase":"begin"}"#,
        "rubbish",
    ] {
        let answer = case.ask(&client, line);
        assert!(answer.starts_with(r#"{"error":"#), "{line}: {answer}");
    }
    assert!(case.fake.told().is_empty());
    let begin = r#"{"phase":"begin","inputBytes":7}"#;
    assert_eq!(case.ask(&client, begin), r#"{"ok":true}"#);
    assert_eq!(case.ask(&client, r#"{"phase":"end"}"#), r#"{"ok":true}"#);
    assert_eq!(case.fake.told().len(), 2);
}

#[test]
fn a_flood_from_inside_holds_up_nobody_else() {
    let mut case = case(false);
    let socket = open_inside(&mut case);
    let mut flood = UnixStream::connect(&socket).unwrap();
    let mut more: Vec<_> = (0..2 * MOST_CLIENTS)
        .map(|_| UnixStream::connect(&socket).unwrap())
        .collect();
    let lines = "{\"phase\":\"end\"}\n".repeat(3 * MOST_IN_WINDOW as usize);
    flood.write_all(lines.as_bytes()).unwrap();
    case.server.turn();
    assert!(case.fake.told().len() < MOST_IN_WINDOW as usize);
    let client = case.connect();
    assert_eq!(case.ask(&client, r#"{"phase":"end"}"#), r#"{"ok":true}"#);
    more.clear();
}

#[test]
fn more_clients_than_are_served_wait_for_others_to_go() {
    let mut case = case(false);
    let mut clients: Vec<_> = (0..MOST_CLIENTS).map(|_| case.connect()).collect();
    let last = case.connect();
    say(&last, r#"{"phase":"end"}"#);
    assert!(!case.turn_within(150));
    clients.pop();
    while case.turn_within(20) {}
    assert_eq!(hear(&last), r#"{"ok":true}"#);
}

#[test]
fn the_clients_of_a_container_go_with_it() {
    let mut case = case(false);
    let client = case.connect();
    assert_eq!(case.ask(&client, r#"{"hold":true}"#), r#"{"ok":true}"#);
    case.server.close(case.key);
    assert_eq!(hear(&client), "");
    assert_eq!(case.fake.told(), ["hold", "release"]);
    assert!(UnixStream::connect(case.folder.socket()).is_err());
}
