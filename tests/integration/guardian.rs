//! What becomes of limits when the process that tunes them, or its guardian, ends or stands still.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use elastic_mem::config::LogFormat;
use elastic_mem::guardian::Guardian;
use elastic_mem::kernel::cgroup::{Cgroup, Lever, Meter};
use elastic_mem::log::{self, Sink};
use elastic_mem::model::MemoryLimit;
use nix::sys::signal::Signal;

use crate::common::wait_until;
use crate::harness::group::{Group, MIB};
use crate::harness::{cgroups, command, eventually, host, processes, say, skip};

const CEILING: MemoryLimit = MemoryLimit::Bytes(128 << 20);
const GRANT: MemoryLimit = MemoryLimit::Bytes(16 << 20);

/// What [`plays_the_tuner`] is told.
const CGROUP: &str = "ELASTIC_MEM_TEST_CGROUP";
const FOLDER: &str = "ELASTIC_MEM_TEST_FOLDER";

fn group() -> Option<Group> {
    if !cgroups::has_v1("memory") || !nix::unistd::geteuid().is_root() {
        skip("no v1 memory hierarchy, or no root");
        return None;
    }
    if host::name_of(&host::our_program()) == "runc" {
        skip("runc has no guardian");
        return None;
    }
    let group = Group::new();
    let lever = Lever::open(&group.cgroup).expect("lever");
    lever.set(CEILING).expect("ceiling");
    Some(group)
}

/// A process that tunes, and its guardian.
struct Tuner {
    child: Child,
    guardian: i32,
    folder: tempfile::TempDir,
}

impl Tuner {
    /// Starts one that has lowered the limit of the group from [`CEILING`] to [`GRANT`].
    fn start(group: &Group) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let own = std::env::current_exe().expect("own path");
        let mut plain = Command::new(own);
        plain
            .args(["--exact", "guardian::plays_the_tuner", "--ignored"])
            .env(CGROUP, serde_json::to_string(&group.cgroup).expect("JSON"))
            .env(FOLDER, folder.path())
            .env("ELASTIC_MEM_BIN", host::our_program())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command::spawn_plain(&mut plain);
        let path = folder.path().join("guardian");
        let pid = || fs::read_to_string(&path).ok()?.parse().ok();
        let guardian = eventually(pid).expect("the tuner gets ready");
        let lever = Lever::open(&group.cgroup).expect("lever");
        assert_eq!(lever.get().expect("get"), GRANT);
        assert!(!lever.has_oom_killer().expect("read"));
        Self {
            child,
            guardian,
            folder,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("pid");
        assert!(processes::signal(pid, signal), "{signal}");
    }

    fn end(&mut self) {
        self.tell("end");
        let status = eventually(|| self.child.try_wait().expect("wait"));
        assert!(status.expect("it ends").success());
    }

    fn tell(&self, word: &str) {
        fs::write(self.folder.path().join(word), "").expect("write");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("log")
    }
}

impl Drop for Tuner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        wait_until("the guardian ends with its tuner", || {
            !processes::is_alive(self.guardian)
        });
    }
}

#[test]
#[ignore = "a process of the other tests"]
fn plays_the_tuner() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("started by a test"));
    let cgroup: Cgroup =
        serde_json::from_str(&std::env::var(CGROUP).expect("cgroup")).expect("JSON");
    let is_told = |word: &str| folder.join(word).exists();
    log::install(Arc::new(Sink {
        format: LogFormat::Text,
        file: Some(fs::File::create(folder.join("log")).expect("log")),
        level: tracing::Level::INFO,
    }));
    let lever = Lever::open(&cgroup).expect("lever");
    let mut guardian = Guardian::start_from(&host::our_program()).expect("guardian");
    guardian.guard(7, &lever, CEILING, true).expect("guard");
    lever.set_oom_killer(false).expect("killer");
    lever.set(GRANT).expect("grant");
    fs::write(folder.join("new"), guardian.pid().to_string()).expect("write");
    fs::rename(folder.join("new"), folder.join("guardian")).expect("rename");
    while !is_told("end") {
        if is_told("forget") {
            guardian.forget(7);
        }
        assert!(guardian.is_alive(), "the guardian has ended");
        if !is_told("silent") {
            guardian.beat();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A task that waits at the limit, and what is to become of it.
struct Waiting {
    child: Child,
    lever: Lever,
    meter: Meter,
}

impl Waiting {
    fn in_group(group: &Group) -> Self {
        let lever = Lever::open(&group.cgroup).expect("lever");
        let run = || group.run("exec dd if=/dev/zero of=/dev/null bs=48M count=1 2>/dev/null");
        let mut child = run();
        wait_until("a task waits", || {
            if child.try_wait().expect("wait").is_some() {
                // On a host so busy that the tuner stood still for a second its limit was given back.
                lever.set_oom_killer(false).expect("killer");
                lever.set(GRANT).expect("grant");
                child = run();
            }
            lever.is_under_oom().expect("read")
        });
        Self {
            child,
            meter: Meter::open(&group.cgroup).expect("meter"),
            lever,
        }
    }

    /// It goes on and is not killed.
    fn goes_on(mut self) {
        let status = eventually(|| self.child.try_wait().expect("wait"));
        assert!(status.expect("it goes on").success());
        assert_eq!(self.meter.events().1, Some(0), "kills");
        assert_eq!(self.lever.get().expect("get"), CEILING);
        wait_until("the OOM killer is on", || {
            self.lever.has_oom_killer().expect("read")
        });
    }
}

#[test]
fn a_killed_tuner_leaves_no_limit_behind() {
    let Some(group) = group() else { return };
    let tuner = Tuner::start(&group);
    let waiting = Waiting::in_group(&group);
    tuner.signal(Signal::SIGKILL);
    waiting.goes_on();
    wait_until("the guardian ends", || !processes::is_alive(tuner.guardian));
    let log = tuner.log();
    let last = log.lines().last().expect("it is told");
    assert!(last.contains("has ended: 1 limits"), "{log}");
}

#[test]
fn a_tuner_that_stands_still_loses_its_grants_and_may_go_on() {
    let Some(group) = group() else { return };
    let tuner = Tuner::start(&group);
    let waiting = Waiting::in_group(&group);
    // Longer than a beat: it lives.
    std::thread::sleep(2 * Guardian::BEAT);
    assert!(waiting.lever.is_under_oom().expect("read"));
    let start = Instant::now();
    tuner.signal(Signal::SIGSTOP);
    waiting.goes_on();
    let took = start.elapsed();
    say(&format!(
        "limits of a stopped tuner are back after {took:?}"
    ));
    assert!(processes::is_alive(tuner.guardian), "it stays");
    let log = tuner.log();
    assert!(log.contains("stands still: 1 limits"), "{log}");
    tuner.signal(Signal::SIGCONT);
    // A moment later the guardian knows that the tuner lives, and leaves it alone.
    std::thread::sleep(Duration::from_secs(1));
    let lever = Lever::open(&group.cgroup).expect("lever");
    lever.set(GRANT).expect("grant");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lever.get().expect("get"), GRANT);
    tuner.signal(Signal::SIGKILL);
    wait_until("the limit is back", || lever.get().expect("get") == CEILING);
}

#[test]
fn a_tuner_that_hangs_is_as_one_that_is_stopped() {
    let Some(group) = group() else { return };
    let mut tuner = Tuner::start(&group);
    let waiting = Waiting::in_group(&group);
    tuner.tell("silent");
    waiting.goes_on();
    tuner.end();
}

#[test]
fn a_tuner_that_ends_without_a_word_leaves_no_limit_behind() {
    let Some(group) = group() else { return };
    let mut tuner = Tuner::start(&group);
    let waiting = Waiting::in_group(&group);
    tuner.end();
    waiting.goes_on();
}

#[test]
fn what_was_forgotten_is_left_alone() {
    let Some(group) = group() else { return };
    let mut tuner = Tuner::start(&group);
    tuner.tell("forget");
    std::thread::sleep(Duration::from_millis(100));
    tuner.end();
    wait_until("the guardian ends", || !processes::is_alive(tuner.guardian));
    let lever = Lever::open(&group.cgroup).expect("lever");
    assert_eq!(lever.get().expect("get"), GRANT);
    assert!(!lever.has_oom_killer().expect("read"));
    assert_eq!(tuner.log(), "");
}

#[test]
fn signals_to_the_tuners_session_do_not_reach_the_guardian() {
    let Some(group) = group() else { return };
    let tuner = Tuner::start(&group);
    let pid = |pid: i32| Some(nix::unistd::Pid::from_raw(pid));
    let session = nix::unistd::getsid(pid(tuner.guardian)).expect("session");
    assert_eq!(session.as_raw(), tuner.guardian);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        assert!(processes::signal(tuner.guardian, signal));
    }
    let waiting = Waiting::in_group(&group);
    assert!(processes::is_alive(tuner.guardian));
    tuner.signal(Signal::SIGKILL);
    waiting.goes_on();
}

#[test]
fn a_guardian_is_where_its_tuner_is_and_holds_nothing_else_open() {
    let Some(group) = group() else { return };
    // Inherited by whatever is started now, unless it is closed there.
    let lent = fs::File::open("/").expect("open");
    let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
    nix::fcntl::fcntl(std::os::fd::AsRawFd::as_raw_fd(&lent), flags).expect("fcntl");
    let tuner = Tuner::start(&group);
    drop(lent);
    let of = |pid: u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).expect(file);
    let guardian = u32::try_from(tuner.guardian).expect("pid");
    for file in ["cgroup", "oom_score_adj"] {
        assert_eq!(of(guardian, file), of(tuner.child.id(), file), "{file}");
    }
    let open = || {
        let entries = fs::read_dir(format!("/proc/{guardian}/fd")).expect("fd");
        let links = entries.flatten().map(|entry| fs::read_link(entry.path()));
        let mut names: Vec<_> = links
            .flatten()
            .map(|path| path.to_string_lossy().into_owned())
            .map(|name| name.split([':', ' ']).next().expect("name").to_owned())
            .collect();
        names.sort();
        names
    };
    let folder = group.folder();
    let file = |folder: &Path, name: &str| folder.join(name).to_string_lossy().into_owned();
    let null = "/dev/null".to_owned();
    let mut expected = vec![
        null.clone(),
        null.clone(),
        null,
        "/memfd".to_owned(),
        "socket".to_owned(),
        file(&folder, "memory.limit_in_bytes"),
        file(&folder, "memory.oom_control"),
        file(tuner.folder.path(), "log"),
    ];
    expected.sort();
    eventually(|| (open() == expected).then_some(()))
        .unwrap_or_else(|| panic!("{:#?} and not {expected:#?}", open()));
}

/// It lives as long as containers do, beside each of them.
#[test]
fn a_guardian_sleeps() {
    let Some(group) = group() else { return };
    let tuner = Tuner::start(&group);
    let woken = || {
        let text = fs::read_to_string(format!("/proc/{}/status", tuner.guardian)).expect("status");
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|n| n.trim().parse::<u64>().ok()).expect("n")
    };
    std::thread::sleep(Duration::from_millis(500));
    let before = woken();
    std::thread::sleep(Duration::from_secs(3));
    let often = woken() - before;
    say(&format!("a guardian wakes up {often} times in 3 s"));
    assert!((1..=5).contains(&often), "{often} times in 3 s");
    tuner.tell("forget");
    std::thread::sleep(Duration::from_millis(500));
    let before = woken();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(woken(), before, "there is nothing to guard");
}

#[test]
fn the_end_of_a_guardian_is_noticed() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("lever");
    let mut guardian = Guardian::start_from(&host::our_program()).expect("guardian");
    guardian.guard(1, &lever, CEILING, true).expect("guard");
    assert!(guardian.is_alive());
    let pid = i32::try_from(guardian.pid()).expect("pid");
    assert!(processes::signal(pid, Signal::SIGKILL));
    wait_until("it is noticed", || !guardian.is_alive());
    assert!(guardian.guard(2, &lever, CEILING, true).is_err());
    // Nobody minds.
    guardian.forget(1);
    guardian.beat();
}

#[test]
fn a_guardian_that_stands_still_is_replaced() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("lever");
    let mut guardian = Guardian::start_from(&host::our_program()).expect("guardian");
    guardian.guard(1, &lever, CEILING, true).expect("guard");
    let pid = i32::try_from(guardian.pid()).expect("pid");
    assert!(processes::signal(pid, Signal::SIGSTOP));
    let start = Instant::now();
    wait_until("it is noticed", || {
        guardian.beat();
        !guardian.is_alive()
    });
    let took = start.elapsed();
    assert!(took > Duration::from_secs(1), "after {took:?}");
    wait_until("it is ended", || !processes::is_alive(pid));
    // One that has nothing to do leaves no signs of life, and needs none.
    let mut other = Guardian::start_from(&host::our_program()).expect("guardian");
    std::thread::sleep(Duration::from_secs(4));
    assert!(other.is_alive());
    other.guard(1, &lever, CEILING, true).expect("guard");
    assert!(other.is_alive());
    lever
        .set(MemoryLimit::Bytes(i64::try_from(20 * MIB).expect("size")))
        .expect("set");
    drop(other);
    wait_until("the limit is back", || lever.get().expect("get") == CEILING);
}

#[test]
fn nobody_but_a_tuner_can_start_a_guardian() {
    if host::name_of(&host::our_program()) == "runc" {
        return skip("runc has no guardian");
    }
    let outcome = crate::harness::Cmd::new(host::our_program())
        .arg("guardian")
        .output();
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("tunes memory"), "{outcome}");
}
