//! What other programs can see of a container, and what they can say of it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::shim::Shim;
use crate::harness::{Case, Cmd, Outcome, Route, cgroups, host, processes, say, skip, wait_until};

ours_on_every_containerd! {
    what_is_known_of_a_container_can_be_said,
    a_container_speaks_for_itself_at_a_socket_inside,
    a_killed_shim_leaves_no_record,
    a_container_has_its_ceiling_while_it_is_paused_and_while_somebody_acts,
    i5_a_sampler_that_stands_still_keeps_nobody_waiting,
    i3_a_shim_that_is_killed_while_its_container_waits_leaves_nothing_behind,
    the_first_grant_is_recorded_before_it_is_in_force,
}

fn folder(c: &Case, name: &str) -> PathBuf {
    [
        "/run/elastic-mem",
        c.daemon.namespace.as_str(),
        c.id(name).as_str(),
    ]
    .iter()
    .collect()
}

fn record(folder: &Path) -> Value {
    let bytes = fs::read(folder.join("state.json")).expect("record");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn call(words: &[&str]) -> Outcome {
    Cmd::new(host::our_program()).args(words).output()
}

fn what_is_known_of_a_container_can_be_said(c: &mut Case) {
    assert_eq!(c.route, Route::Shim);
    c.up("", "a");
    let (id, folder) = (c.id("a"), folder(c, "a"));
    assert_eq!(record(&folder)["mode"], "observe");
    let told = [
        &["phase", &id, "begin", "--input-bytes", "4k"] as &[&str],
        &["phase", &id, "end", "--namespace", &c.daemon.namespace],
        &["bind", &id, "--function", "thumb", "--class", "small"],
    ];
    for words in told {
        let outcome = call(words);
        assert_eq!(outcome.code, 0, "{outcome}");
    }
    let now = record(&folder);
    let function = format!("{}/thumb", c.daemon.namespace);
    assert_eq!(now["function"], function);
    assert_eq!(now["class"], "small");
    // The shim answers as the monitor does.
    let outcome = call(&["top", "--json"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    let view: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let mut rows = view["containers"].as_array().expect("a list").iter();
    let row = rows.find(|row| row["id"] == id.as_str()).expect("its row");
    assert_eq!(row["attended"], true, "{row}");
    assert_eq!(row["function"], function, "{row}");
    assert_eq!(row["mode"], "observe", "{row}");
    assert!(row["usage"].as_u64() > Some(0), "{row}");
    let outcome = call(&["metrics"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    let mut figures = outcome.stdout.lines();
    let label = format!("function=\"{function}\"");
    let is_its_usage =
        |line: &str| line.starts_with("elastic_mem_usage_bytes{") && line.contains(&label);
    assert!(figures.any(is_its_usage), "{outcome}");
    c.down("a");
    assert!(!folder.exists(), "the record stays");
    let outcome = call(&["phase", &id, "end"]);
    assert_ne!(outcome.code, 0);
    assert!(outcome.stderr.contains("nobody looks after"), "{outcome}");
}

fn a_container_speaks_for_itself_at_a_socket_inside(c: &mut Case) {
    c.private_daemon();
    let settings = fs::read_to_string(c.daemon.settings()).expect("settings");
    let settings = format!("memory.socket = true\n{settings}");
    fs::write(c.daemon.settings(), settings).expect("settings");
    c.up("--read-only", "a");
    let pid = record(&folder(c, "a"))["pid"].clone();
    let socket = format!("/proc/{pid}/root/run/elastic-mem-control/control.sock");
    let ask = |line: &str| {
        let mut stream = UnixStream::connect(&socket).expect("connect");
        writeln!(stream, "{line}").expect("say");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("hear");
        answer
    };
    assert_eq!(
        ask(r#"{"phase":"begin","inputBytes":7}"#),
        "{\"ok\":true}\n"
    );
    assert!(ask(r#"{"status":true}"#).contains("only phase"));
    c.down("a");
}

fn a_killed_shim_leaves_no_record(c: &mut Case) {
    c.up("", "a");
    let folder = folder(c, "a");
    assert!(folder.join("control.sock").exists());
    let shim = nix::unistd::Pid::from_raw(c.shim_pid("a"));
    nix::sys::signal::kill(shim, Signal::SIGKILL).expect("kill");
    // containerd calls `delete`.
    wait_until("the record is gone", || !folder.exists());
    c.call("task delete @a");
    c.ok("container delete @a");
}

const CEILING: u64 = 256 << 20;

/// Starts container `a` of a function of which some runs are known: three that use little of what they declare are
/// enough to grant less. `None` where that cannot be.
fn granted_less(c: &mut Case) -> Option<PathBuf> {
    c.private_daemon();
    let settings = fs::read_to_string(c.daemon.settings()).expect("settings");
    let settings = format!("memory.mode = \"elastic\"\n{settings}");
    fs::write(c.daemon.settings(), settings).expect("settings");
    let limit = format!("--memory-limit {CEILING}");
    let flags = format!("{limit} --annotation elastic-mem.io/function=thumb");
    for name in ["b", "d", "e"] {
        let outcome = c.run(&format!("--rm {flags}"), name, "sleep 0.3").output();
        assert_eq!(outcome.code, 0, "{outcome}");
    }
    let profile = |folder: &Path| folder.join("functions").exists();
    wait_until("a profile", || profile(&c.daemon.profiles()));
    // Once told to it needs more than it ever did.
    let script = "until [ -e /dev/shm/go ]; do sleep 0.05; done; \
                  dd if=/dev/zero of=/dev/null bs=100M count=1; exec sleep 1000";
    c.up_with(&limit, "a", script);
    let (id, folder) = (c.id("a"), folder(c, "a"));
    // The last trace may still be on its way into the store.
    wait_until("it is granted what its function needs", || {
        let outcome = call(&["bind", &id, "--function", "thumb"]);
        assert_eq!(outcome.code, 0, "{outcome}");
        record(&folder)["mode"] == "elastic"
    });
    wait_until("it is granted less", || granted(c) < CEILING);
    Some(folder)
}

fn granted(c: &Case) -> u64 {
    let file = cgroups::by_version("memory.limit_in_bytes", "memory.high");
    let text = c.cgroup_file("a", file);
    match text.trim_end() {
        "max" => CEILING,
        bytes => bytes.parse().expect("limit"),
    }
}

fn a_container_has_its_ceiling_while_it_is_paused_and_while_somebody_acts(c: &mut Case) {
    let Some(folder) = granted_less(c) else {
        return;
    };
    c.ok("task pause @a");
    assert_eq!(granted(c), CEILING, "when pause has answered");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(granted(c), CEILING, "while it is paused");
    c.ok("task resume @a");
    wait_until("it is granted less after resume", || granted(c) < CEILING);
    wait_until("that is published", || {
        record(&folder)["reclaimable"].as_u64() > Some(0)
    });
    let outcome = c.exec("", "a", "x", "exit 3").output();
    assert_eq!(outcome.code, 3, "{outcome}");
    c.down("a");
    assert!(!folder.exists(), "the record stays");
}

/// A thread that is not run, by a control group of its own.
struct Frozen(PathBuf);

impl Frozen {
    fn thread(task: i32) -> Self {
        let folder = PathBuf::from(format!("/sys/fs/cgroup/freezer/elastic-mem-test-{task}"));
        fs::create_dir(&folder).expect("control group");
        let frozen = Self(folder);
        fs::write(frozen.0.join("tasks"), task.to_string()).expect("tasks");
        frozen.set("FROZEN");
        frozen
    }

    fn set(&self, state: &str) {
        let file = self.0.join("freezer.state");
        fs::write(&file, state).expect("state");
        wait_until(state, || {
            fs::read_to_string(&file).is_ok_and(|text| text.trim() == state)
        });
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.set("THAWED");
        let tasks = fs::read_to_string(self.0.join("tasks")).unwrap_or_default();
        for task in tasks.lines() {
            // It may have ended.
            let _ = fs::write("/sys/fs/cgroup/freezer/tasks", task);
        }
        fs::remove_dir(&self.0).expect("control group");
    }
}

/// The thread of this name of the shim.
fn thread(shim: i32, name: &str) -> i32 {
    let tasks = fs::read_dir(format!("/proc/{shim}/task")).expect("threads");
    let is_it = |path: &PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let found = tasks.flatten().map(|task| task.path()).find(is_it);
    let found = found.unwrap_or_else(|| panic!("no thread {name}"));
    let id = found
        .file_name()
        .expect("id")
        .to_string_lossy()
        .into_owned();
    id.parse().expect("id")
}

fn i5_a_sampler_that_stands_still_keeps_nobody_waiting(c: &mut Case) {
    if !Path::new("/sys/fs/cgroup/freezer/tasks").exists() {
        return skip("only the freezer of cgroup v1 stops a thread");
    }
    let Some(folder) = granted_less(c) else {
        return;
    };
    let frozen = Frozen::thread(thread(c.shim_pid("a"), "sampler"));
    let start = Instant::now();
    wait_until("the guardian gives the limit back", || {
        granted(c) == CEILING
    });
    let given_back = start.elapsed();
    let mut longest = Duration::ZERO;
    let mut soon = |what: &str, act: &mut dyn FnMut()| {
        let start = Instant::now();
        act();
        let took = start.elapsed();
        longest = longest.max(took);
        assert!(took < Duration::from_secs(5), "{what}: {took:?}");
    };
    soon("exec", &mut || {
        let outcome = c.exec("", "a", "x", "exit 3").output();
        assert_eq!(outcome.code, 3, "{outcome}");
    });
    soon("metrics", &mut || {
        c.ok("task metrics @a");
    });
    soon("pause", &mut || {
        c.ok("task pause @a");
    });
    soon("resume", &mut || {
        c.ok("task resume @a");
    });
    soon("kill", &mut || {
        c.ok("task kill -s KILL @a");
    });
    c.wait_for("a", "STOPPED");
    soon("delete", &mut || {
        c.call("task delete @a");
    });
    say(&format!(
        "limit back after {given_back:?}, longest verb {longest:?}"
    ));
    drop(frozen);
    c.ok("container delete @a");
    wait_until("the record is gone", || !folder.exists());
}

/// As with any shim that is killed: containerd ends the container. That it waits at its limit hinders nobody.
fn i3_a_shim_that_is_killed_while_its_container_waits_leaves_nothing_behind(c: &mut Case) {
    let Some(folder) = granted_less(c) else {
        return;
    };
    let pid = record(&folder)["pid"].clone();
    let shim = nix::unistd::Pid::from_raw(c.shim_pid("a"));
    let signal = |signal| nix::sys::signal::kill(shim, signal).expect("signal");
    // More than is granted; an exec would raise that first.
    let go = format!("/proc/{pid}/root/dev/shm/go");
    signal(Signal::SIGSTOP);
    fs::write(go, "").expect("go");
    let file = cgroups::by_version("memory.failcnt", "memory.events.local");
    wait_until("it meets its limit", || {
        let text = c.cgroup_file("a", file);
        let first = text.split_ascii_whitespace();
        let counts = first.filter_map(|word| word.parse::<u64>().ok());
        counts.sum::<u64>() > 0
    });
    signal(Signal::SIGKILL);
    wait_until("the record is gone", || !folder.exists());
    wait_until("its init is gone", || {
        !Path::new(&format!("/proc/{pid}/root/bin")).exists()
    });
    c.call("task delete @a");
    c.ok("container delete @a");
}

/// So whoever finds the shim dead knows what is owed.
fn the_first_grant_is_recorded_before_it_is_in_force(c: &mut Case) {
    c.private_daemon();
    let settings = fs::read_to_string(c.daemon.settings()).expect("settings");
    let settings = format!("memory.mode = \"elastic\"\n{settings}");
    fs::write(c.daemon.settings(), settings).expect("settings");
    let declare = |spec: &mut Value| {
        spec["annotations"]["elastic-mem.io/function"] = json!("thumb");
        spec["linux"]["resources"]["memory"] = json!({"limit": CEILING});
    };
    let mut was_granted = false;
    // Each is one more run that is known.
    for _ in 0..10 {
        let shim = Shim::start_with(c, "a", "sleep 0.6", declare);
        let (id, folder) = (shim.id.clone(), folder(c, "a"));
        shim.create(&id).expect("create");
        let is_known = record(&folder)["reclaimable"].as_u64() > Some(0);
        assert_eq!(granted(c), CEILING, "before its start");
        let pid = shim.connect(&id).expect("connect").shim_pid as i32;
        wait_until("somebody can watch over it", || {
            let mut all = processes::all().into_iter();
            all.any(|one| one.parent == pid && one.command_line.contains("guardian"))
        });
        if was_granted {
            shim.kill_shim_and_clear(c, pid);
            return assert!(!folder.exists(), "the record stays");
        }
        shim.start_task(&id, "").expect("start");
        if is_known {
            wait_until("it is granted less", || granted(c) < CEILING);
            was_granted = true;
        }
        assert_eq!(shim.wait(&id, ""), Ok(0));
        shim.end(c);
    }
    panic!("its function is not learned");
}
