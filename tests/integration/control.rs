//! Records and control sockets of containers that no shim looks after.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Case, Cmd, Outcome, cgroups, eventually, ours_beyond_runc};

const STATE: &str = "/run/elastic-mem";
const INSIDE: &str = "/run/elastic-mem-control/control.sock";
const LIMIT: u64 = 64 << 20;
const LOWER: u64 = 32 << 20;

/// A running container with a monitor beside it.
struct Watched<'a> {
    case: &'a mut Case,
    settings: PathBuf,
    _store: TempDir,
}

fn watched(scenario: impl FnOnce(&mut Watched<'_>)) {
    configured("", |_| {}, scenario);
}

/// With more in the configuration, and a bundle that was changed.
fn configured(more: &str, bundle: impl FnOnce(&mut Case), scenario: impl FnOnce(&mut Watched<'_>)) {
    ours_beyond_runc(|case| {
        let store = tempfile::tempdir().expect("store");
        let settings = store.path().join("settings.toml");
        let text = format!(
            "memory.mode = \"observe\"\nprofile.folder = {:?}\n{more}",
            store.path().join("profiles")
        );
        fs::write(&settings, text).expect("settings");
        case.idle();
        case.spec()["linux"]["resources"]["memory"] = json!({"limit": LIMIT});
        bundle(case);
        case.bundle.write();
        let create = case.words("create --bundle BUNDLE ID");
        let create = case.cmd().env("ELASTIC_MEM_CONFIG", &settings).args(create);
        let outcome = create.output();
        assert_eq!(
            (outcome.code, outcome.stderr.as_str()),
            (0, ""),
            "{outcome}"
        );
        let mut watched = Watched {
            case,
            settings,
            _store: store,
        };
        let outcome = watched.call("start ID");
        assert_eq!(outcome.code, 0, "{outcome}");
        let is_there = eventually(|| watched.folder());
        assert!(is_there.is_some(), "no record: {outcome}");
        scenario(&mut watched);
        let monitor = watched.owner();
        watched.call("delete --force ID");
        // It ends with its container, unless the scenario has killed it.
        if let Some(monitor) = monitor {
            let ended = eventually(|| kill(monitor, None).is_err().then_some(()));
            assert!(ended.is_some(), "the monitor stays");
        }
        assert_eq!(watched.folder(), None, "the record stays");
    });
}

impl Watched<'_> {
    fn cmd(&self, line: &str) -> Cmd {
        let cmd = self.case.cmd().env("ELASTIC_MEM_CONFIG", &self.settings);
        cmd.args(self.case.words(line))
    }

    fn call(&self, line: &str) -> Outcome {
        self.cmd(line).output()
    }

    fn ok(&self, line: &str) {
        let outcome = self.call(line);
        assert_eq!(outcome.code, 0, "{outcome}");
        assert_eq!(outcome.stdout + &outcome.stderr, "");
    }

    fn fails(&self, line: &str, words: &[&str]) {
        let outcome = self.call(line);
        assert_ne!(outcome.code, 0, "{outcome}");
        for word in words {
            assert!(outcome.stderr.contains(word), "no {word:?} in {outcome}");
        }
    }

    /// The folder of the container; names of test containers are their own.
    fn folder(&self) -> Option<PathBuf> {
        let namespaces = fs::read_dir(STATE).into_iter().flatten().flatten();
        namespaces
            .map(|namespace| namespace.path().join(self.case.id()))
            .find(|folder| folder.join("state.json").exists())
    }

    fn record(&self) -> Value {
        let path = self.folder().expect("record").join("state.json");
        serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON")
    }

    fn set(&self, fields: &[(&str, Value)]) {
        let mut record = self.record();
        for (key, value) in fields {
            record[*key] = value.clone();
        }
        let path = self.folder().expect("record").join("state.json");
        fs::write(path, record.to_string()).expect("write");
    }

    fn owner(&self) -> Option<Pid> {
        self.folder()?;
        let pid = self.record()["owner"]["pid"].as_i64()?;
        Some(Pid::from_raw(i32::try_from(pid).ok()?))
    }

    /// Ends the monitor as the OOM killer would.
    fn kill_monitor(&self) {
        let monitor = self.owner().expect("monitor");
        kill(monitor, Signal::SIGKILL).expect("kill");
        // Whoever adopted it may take a moment to reap it.
        let stat = format!("/proc/{monitor}/stat");
        let ended = eventually(|| {
            let text = fs::read_to_string(&stat);
            text.map_or(true, |text| text.contains(") Z "))
                .then_some(())
        });
        assert!(ended.is_some());
    }

    /// As a tuner does.
    fn lower(&self) {
        self.set_limit(LOWER);
        if !cgroups::is_unified() {
            self.write("memory.oom_control", "1");
        }
        self.set(&[("mode", json!("elastic")), ("grant", json!(LOWER))]);
    }

    fn set_limit(&self, bytes: u64) {
        let file = cgroups::by_version("memory.limit_in_bytes", "memory.high");
        self.write(file, &bytes.to_string());
    }

    fn write(&self, file: &str, text: &str) {
        let group = self.record()["cgroup"]["path"].as_str().map(PathBuf::from);
        fs::write(group.expect("group").join(file), text).expect("write");
    }

    fn read(&self, file: &str) -> String {
        let group = self.record()["cgroup"]["path"].as_str().map(PathBuf::from);
        fs::read_to_string(group.expect("group").join(file)).expect("read")
    }

    fn limit(&self) -> String {
        let file = cgroups::by_version("memory.limit_in_bytes", "memory.high");
        self.read(file).trim_end().to_owned()
    }

    fn ask(&self, line: &str) -> String {
        ask(&self.folder().expect("folder").join("control.sock"), line)
    }

    /// The socket that the container sees, as it sees it.
    fn inside(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{INSIDE}", self.case.pid()))
    }

    fn holds(&self) -> i64 {
        let answer: Value = serde_json::from_str(&self.ask(r#"{"status":true}"#)).expect("JSON");
        answer["holds"].as_i64().expect("holds")
    }
}

fn ask(socket: &Path, line: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("connect");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("timeout");
    // In one piece: whoever says too much is not listened to until the end.
    stream
        .write_all(format!("{line}\n").as_bytes())
        .expect("say");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("hear");
    answer
}

fn what_is_in_force_without_us() -> String {
    if cgroups::is_unified() {
        return "max".to_owned();
    }
    LIMIT.to_string()
}

#[test]
fn a_container_has_a_record_and_a_socket_for_root_alone() {
    watched(|c| {
        let folder = c.folder().expect("folder");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("state.json")), 0o600);
        assert_eq!(mode(&folder.join("control.sock")), 0o600);
        let record = c.record();
        assert_eq!(record["mode"], "observe");
        assert_eq!(record["ceiling"], LIMIT);
        assert_eq!(record["grant"], LIMIT);
        assert_eq!(record["reclaimable"], 0);
        assert_eq!(record["pid"], c.case.pid());
        assert_eq!(record["runtimeRoot"], json!(c.case.root()));
        assert_eq!(record["cgroup"]["before"]["oomKiller"], true);
        let status = c.ask(r#"{"status":true}"#);
        assert!(status.contains(r#""ok":true"#), "{status}");
        assert!(status.contains(r#""mode":"observe""#), "{status}");
    });
}

#[test]
fn requests_and_bindings_are_taken() {
    watched(|c| {
        c.ok("phase ID begin --input-bytes 4k --class small");
        c.ok("phase ID end");
        c.ok("bind ID --function thumb --class small");
        let record = c.record();
        let function = record["function"].as_str().expect("function");
        let namespace = c.case.root().file_name().expect("name").to_string_lossy();
        assert_eq!(function, format!("{namespace}/thumb"));
        assert_eq!(record["class"], "small");
        c.fails("phase ID end --class small", &["belong to begin"]);
        c.fails("phase ID begin --input-bytes much", &["much"]);
        c.fails("bind ID --function=", &["function"]);
    });
}

#[test]
fn what_is_malformed_is_answered_with_a_reason() {
    watched(|c| {
        for line in ["", "{", r#"{"phase":"middle"}"#, r#"{"hold":false}"#] {
            let answer = c.ask(line);
            assert!(answer.starts_with(r#"{"error":"#), "{line}: {answer}");
        }
        let long = format!(r#"{{"bind":{{"function":"{}"}}}}"#, "f".repeat(4096));
        assert!(c.ask(&long).contains("4096"));
        c.ok("phase ID end");
    });
}

#[test]
fn a_name_that_nobody_or_more_than_one_has_is_refused() {
    watched(|c| {
        c.fails("phase no-such-container end", &["no-such-container", STATE]);
        c.fails("phase ../x end", &["invalid container ID"]);
        c.fails(
            "phase ID end --namespace elsewhere",
            &["elsewhere", "memory.mode"],
        );
        let own = c.folder().expect("folder");
        let other = format!("test-{}", std::process::id());
        let double = Path::new(STATE).join(&other).join(c.case.id());
        fs::create_dir_all(&double).expect("double");
        fs::copy(own.join("state.json"), double.join("state.json")).expect("copy");
        let outcome = c.call("phase ID end");
        let namespace = own.parent().and_then(Path::file_name).expect("namespace");
        let namespace = namespace.to_string_lossy();
        c.ok(&format!("phase ID end --namespace {namespace}"));
        c.fails(
            &format!("phase ID end --namespace {other}"),
            &["nobody answers at", "no such file"],
        );
        fs::remove_dir_all(Path::new(STATE).join(&other)).expect("remove");
        assert_ne!(outcome.code, 0, "{outcome}");
        for word in ["2 containers", &other, &*namespace, "--namespace"] {
            assert!(outcome.stderr.contains(word), "no {word} in {outcome}");
        }
    });
}

#[test]
fn a_hold_ends_with_its_client_however_it_ends() {
    watched(|c| {
        // A container that nobody lowers needs no hold.
        let running = c.cmd("exec ID sleep 1000").spawn();
        let runs = eventually(|| (c.case.processes().len() >= 3).then_some(()));
        assert!(runs.is_some());
        assert_eq!(c.holds(), 0);
        drop(running);
        c.set(&[("mode", json!("elastic"))]);
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            let running = c.cmd("exec ID sleep 1000").spawn();
            let held = eventually(|| (c.holds() == 1).then_some(()));
            assert!(held.is_some(), "exec does not hold");
            let pid = i32::try_from(running.child.id()).expect("pid");
            kill(Pid::from_raw(pid), signal).expect("kill");
            let released = eventually(|| (c.holds() == 0).then_some(()));
            assert!(released.is_some(), "the hold stays after {signal}");
        }
        // A verb that ends lets go.
        c.ok("kill ID WINCH");
        assert_eq!(c.holds(), 0);
    });
}

#[test]
fn a_verb_gives_back_what_a_dead_monitor_had_taken() {
    watched(|c| {
        c.lower();
        let outcome = c.call("state ID");
        assert_eq!(outcome.code, 0);
        assert_eq!(c.limit(), LOWER.to_string(), "the monitor lives");
        c.kill_monitor();
        let outcome = c.call("state ID");
        assert!(
            outcome.stderr.contains("raised to the ceiling"),
            "{outcome}"
        );
        assert_eq!(c.limit(), what_is_in_force_without_us());
        if !cgroups::is_unified() {
            let oom = c.read("memory.oom_control");
            assert!(oom.contains("oom_kill_disable 0"), "{oom}");
        }
        let record = c.record();
        assert_eq!(record["grant"], LIMIT);
        assert_eq!(record["reclaimable"], 0);
        // Once: what somebody sets later is theirs.
        c.set_limit(LOWER);
        let outcome = c.call("state ID");
        assert_eq!(outcome.stderr, "");
        assert_eq!(c.limit(), LOWER.to_string());
    });
}

#[test]
fn a_verb_raises_the_limit_itself_when_the_monitor_stands_still() {
    watched(|c| {
        c.lower();
        let monitor = c.owner().expect("monitor");
        kill(monitor, Signal::SIGSTOP).expect("stop");
        let start = Instant::now();
        let outcome = c.call("kill ID WINCH");
        let took = start.elapsed();
        kill(monitor, Signal::SIGCONT).expect("continue");
        assert_eq!(outcome.code, 0, "{outcome}");
        assert!(outcome.stderr.contains("nobody answers"), "{outcome}");
        assert_eq!(c.limit(), what_is_in_force_without_us());
        assert!(took >= Duration::from_millis(45), "{took:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    });
}

#[test]
fn a_record_of_a_dead_monitor_goes_with_its_container() {
    watched(|c| {
        c.kill_monitor();
        c.fails("phase ID end", &["nobody answers at", "connection refused"]);
        c.ok("delete --force ID");
        assert_eq!(c.folder(), None);
    });
}

/// Lets the function of the container be learned: three runs that use little of what they declare.
fn learn(case: &mut Case, settings: &Path) {
    case.spec()["annotations"] = json!({"elastic-mem.io/function": "thumb"});
    case.script("sleep 0.3");
    case.bundle.write();
    for _ in 0..3 {
        let call = |line: &str| {
            let cmd = case.cmd().env("ELASTIC_MEM_CONFIG", settings);
            let outcome = cmd.args(case.words(line)).output();
            assert_eq!(outcome.code, 0, "{outcome}");
        };
        call("create --bundle BUNDLE ID");
        call("start ID");
        case.wait_for("stopped");
        call("delete ID");
        // The monitor puts the trace into the store.
        assert!(case.settle().is_empty());
    }
    case.spec()["annotations"] = json!({});
    case.idle();
}

#[test]
fn a_container_that_is_bound_late_is_granted_less_and_has_its_ceiling_while_somebody_acts() {
    ours_beyond_runc(|case| {
        let store = tempfile::tempdir().expect("store");
        let settings = store.path().join("settings.toml");
        let folder = store.path().join("profiles");
        let text = format!("memory.mode = \"elastic\"\nprofile.folder = {folder:?}\n");
        fs::write(&settings, text).expect("settings");
        case.spec()["linux"]["resources"]["memory"] = json!({"limit": 4 * LIMIT});
        learn(case, &settings);
        case.create();
        let c = Watched {
            case,
            settings,
            _store: store,
        };
        c.ok("start ID");
        assert_eq!(c.record()["mode"], "observe", "nothing is known of it yet");
        c.ok("bind ID --function thumb");
        let granted = || match c.limit().as_str() {
            "max" => 4 * LIMIT,
            bytes => bytes.parse::<u64>().expect("limit"),
        };
        let lowered = eventually(|| (granted() < 4 * LIMIT).then_some(()));
        assert!(lowered.is_some(), "never below the ceiling: {}", c.record());
        let record = eventually(|| {
            let record = c.record();
            (record["grant"].as_u64()? < 4 * LIMIT).then_some(record)
        });
        let record = record.expect("the grant is not published");
        assert_eq!(record["mode"], "elastic");
        assert_eq!(record["ceiling"], 4 * LIMIT);
        let grant = record["grant"].as_u64().expect("grant");
        assert_eq!(record["reclaimable"], 4 * LIMIT - grant);
        // At its ceiling while somebody acts, and not before the answer.
        let running = c.cmd("exec ID sleep 1000").spawn();
        let held = eventually(|| (c.holds() == 1).then_some(()));
        assert!(held.is_some(), "exec does not hold");
        assert_eq!(granted(), 4 * LIMIT);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(granted(), 4 * LIMIT, "lowered during the hold");
        drop(running);
        let lowered = eventually(|| (granted() < 4 * LIMIT).then_some(()));
        assert!(lowered.is_some(), "the hold stays");
        c.call("delete --force ID");
        assert_eq!(c.folder(), None);
    });
}

const SOCKET: &str = "memory.socket = true\n";

/// Every user of a container may speak for it, and for nothing else.
#[test]
fn a_container_speaks_for_itself_at_a_socket_inside() {
    configured(
        SOCKET,
        |_| {},
        |c| {
            speaks_inside(c);
            let mode =
                |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode(&c.inside()), 0o666);
            let outside = c.folder().expect("folder").join("control.sock");
            assert_eq!(mode(&outside), 0o600);
        },
    );
}

fn speaks_inside(c: &Watched<'_>) {
    for line in [
        r#"{"phase":"begin","inputBytes":4096}"#,
        r#"{"phase":"end"}"#,
    ] {
        assert_eq!(ask(&c.inside(), line), "{\"ok\":true}\n");
    }
    for line in [
        r#"{"hold":true}"#,
        r#"{"status":true}"#,
        r#"{"bind":{"function":"f"}}"#,
    ] {
        let answer = ask(&c.inside(), line);
        assert!(answer.contains("only phase is understood"), "{answer}");
    }
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", c.case.pid())).expect("mounts");
    let folder = Path::new(INSIDE).parent().expect("a folder").display();
    let own = mounts
        .lines()
        .find(|line| line.contains(&format!(" {folder} ")));
    let own = own.expect("a mount");
    assert!(own.contains(" ro,nosuid,nodev,noexec"), "{own}");
    assert!(
        !own.contains("shared:") && !own.contains("master:"),
        "{own}"
    );
    // As root and as a user of the container.
    for user in ["0:0", "1000:1000"] {
        let outcome = c.call(&format!("exec --user {user} ID test -w {INSIDE}"));
        assert_eq!(outcome.code, 0, "{user}: {outcome}");
        let outcome = c.call(&format!("exec --user {user} ID touch {folder}/x"));
        assert_ne!(outcome.code, 0, "{user} writes into a folder of the host");
    }
}

#[test]
fn the_socket_inside_works_with_a_root_that_can_only_be_read() {
    let read_only = |case: &mut Case| case.spec()["root"]["readonly"] = json!(true);
    configured(SOCKET, read_only, |c| speaks_inside(c));
    // Where the engine mounts over /run.
    let with_run = |case: &mut Case| {
        read_only(case);
        case.push(
            "/mounts",
            [json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]})],
        );
    };
    configured(SOCKET, with_run, |c| speaks_inside(c));
}

#[test]
fn the_socket_inside_works_in_a_user_namespace() {
    if !crate::user_namespace::available() {
        return;
    }
    let mapped = crate::user_namespace::with_user_namespace;
    configured(SOCKET, mapped, |c| speaks_inside(c));
}

#[test]
fn only_functions_that_are_to_have_one_get_a_socket_inside() {
    let of_other = "[functions.\"*/other\"]\nsocket = true\n";
    for more in ["", of_other] {
        configured(more, |_| {}, |c| assert!(!c.inside().exists(), "{more}"));
    }
    let named = |case: &mut Case| {
        case.spec()["annotations"] = json!({"elastic-mem.io/function": "other"});
    };
    configured(of_other, named, |c| assert!(c.inside().exists()));
}

/// What stands in its place is the container's.
#[test]
fn i1_a_container_without_room_for_the_socket_runs_without_it() {
    ours_beyond_runc(|case| {
        let store = tempfile::tempdir().expect("store");
        let settings = store.path().join("settings.toml");
        let text = format!(
            "{SOCKET}profile.folder = {:?}\n",
            store.path().join("profiles")
        );
        fs::write(&settings, text).expect("settings");
        case.idle();
        case.spec()["linux"]["resources"]["memory"] = json!({"limit": LIMIT});
        fs::create_dir_all(case.rootfs().join("run")).expect("a folder");
        fs::write(case.rootfs().join("run/elastic-mem-control"), "theirs").expect("a file");
        case.bundle.write();
        let call = |line: &str| {
            let cmd = case.cmd().env("ELASTIC_MEM_CONFIG", &settings);
            let outcome = cmd.args(case.words(line)).output();
            assert_eq!(outcome.code, 0, "{outcome}");
            outcome.stderr
        };
        let told = call("create --bundle BUNDLE ID");
        assert!(told.contains("gets no control socket"), "{told}");
        call("start ID");
        assert_eq!(case.status(), "running");
        call("delete --force ID");
        assert!(case.settle().is_empty());
    });
}

/// A container that floods its socket, or sends rubbish, gets slow answers itself. Nobody else does.
#[test]
fn a_flood_from_inside_a_container_harms_nobody() {
    configured(
        SOCKET,
        |_| {},
        |c| {
            let inside = c.inside();
            let end = Instant::now() + Duration::from_secs(2);
            let floods: Vec<_> = (0..8_u8)
                .map(|number| {
                    let socket = inside.clone();
                    std::thread::spawn(move || {
                        while Instant::now() < end {
                            let Ok(mut stream) = UnixStream::connect(&socket) else {
                                continue;
                            };
                            let patience = Some(Duration::from_millis(100));
                            stream.set_write_timeout(patience).expect("timeout");
                            let rubbish = vec![number; 64 << 10];
                            let _ = stream.write_all(&rubbish);
                            let _ = stream.write_all(&b"{\"phase\":\"begin\"}\n".repeat(1000));
                        }
                    })
                })
                .collect();
            let mut slowest = Duration::ZERO;
            while Instant::now() < end {
                let start = Instant::now();
                let answer = c.ask(r#"{"status":true}"#);
                assert!(answer.contains("\"ok\":true"), "{answer}");
                slowest = slowest.max(start.elapsed());
                std::thread::sleep(Duration::from_millis(20));
            }
            for flood in floods {
                flood.join().expect("join");
            }
            crate::harness::say(&format!(
                "slowest answer outside during a flood: {slowest:?}"
            ));
            assert!(slowest < Duration::from_secs(1), "{slowest:?}");
            assert_eq!(c.case.status(), "running");
        },
    );
}
