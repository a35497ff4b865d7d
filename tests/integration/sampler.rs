//! What becomes of containers when the thread panics that looks after their memory.

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use elastic_mem::kernel::cgroup::Lever;
use elastic_mem::model::plan::{Clock, Forecast, Foresight, Margins, Plan};
use elastic_mem::model::trace::{Context, Trace};
use elastic_mem::model::{Bytes, FunctionKey, Hull, MemoryLimit, Mode, Priority};
use elastic_mem::sampler::{Publish, Sampler, Subject, Watched, new_run};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Layer, SubscriberExt};

use crate::common::wait_until;
use crate::harness::group::{Group, MIB};
use crate::harness::{cgroups, command, eventually, host, processes, skip};

const CEILING: u64 = 256 * MIB;
const KNOWN: u64 = 16 * MIB;

/// Set for the tests that are processes of others.
const PLAYS: &str = "ELASTIC_MEM_TEST_PLAYS";

/// The lines that were logged. One that says that `broken` leaves what is known, or on a busy host that it met its limit
/// before that was seen, panics: that happens in the sampler's thread, while its grant is below what it is about to use.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().expect("log").push(line.0.clone());
        let texts = ["uses more than any run", "met its limit"];
        let is_note = texts.iter().any(|text| line.0.contains(text));
        assert!(
            !(is_note && line.0.contains("broken")),
            "a logger that panics"
        );
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!(" {}={value:?}", field.name());
    }
}

fn plan() -> Plan {
    let most = Bytes::new(KNOWN);
    Plan {
        mode: Mode::Elastic,
        ceiling: Some(Bytes::new(CEILING)),
        lowered: None,
        set: None,
        above: None,
        grant: Some(Bytes::new(KNOWN + 8 * MIB)),
        floor: Bytes::ZERO,
        largest: Some(Bytes::new(KNOWN + 8 * MIB)),
        class: None,
        margins: Margins {
            pad: Bytes::new(8 * MIB),
            lead: Duration::from_millis(20),
            settle: Duration::from_millis(50),
            hold: Duration::from_secs(10),
            keep_alive: true,
        },
        forecast: Some(Forecast {
            clock: Clock::Wall,
            trusted: true,
            foresight: Foresight::About,
            hull: Hull {
                bins: vec![most; 50],
                ..Hull::default()
            },
            most,
            jump: Bytes::ZERO,
            burst: Bytes::ZERO,
            bins: None,
            classes: [].into(),
        }),
        reasons: Vec::new(),
    }
}

fn context(name: &str) -> Context {
    let run = new_run("host", name).expect("run");
    serde_json::from_value(json!({
        "run": run, "function": FunctionKey::new("ns", name), "container": name, "mode": "elastic",
    }))
    .expect("context")
}

/// A sampler, and the folder of its traces, which outlives it.
fn sampler() -> (TempDir, Sampler) {
    let spool = tempfile::tempdir().expect("spool");
    let sampler = Sampler::start_from(&host::our_program(), spool.path(), Priority::Normal);
    (spool, sampler.expect("sampler"))
}

/// A container whose limit the sampler moves.
struct Tuned {
    group: Group,
    lever: Lever,
    watched: Watched,
}

impl Tuned {
    fn new(sampler: &Sampler, name: &str) -> Self {
        let tuned = Self::waiting(sampler, name, Some(plan()), None);
        tuned.start();
        tuned
    }

    /// Before its start; with `publish`, others know of its first grant.
    fn waiting(
        sampler: &Sampler,
        name: &str,
        plan: Option<Plan>,
        publish: Option<Publish>,
    ) -> Self {
        let group = Group::new();
        let lever = Lever::open(&group.cgroup).expect("lever");
        lever.set(declared()).expect("ceiling");
        if let Some(max) = cgroups::is_unified().then_some("memory.max") {
            group.write(max, CEILING);
        }
        let context = context(name);
        let watched = sampler.watch(Subject {
            cgroup: group.cgroup.clone(),
            context,
            plan,
            placement: None,
            tell: None,
            published: publish.is_some(),
            publish,
        });
        Self {
            group,
            lever,
            watched,
        }
    }

    fn start(&self) {
        let granted = self.watched.started();
        granted.blocking_recv().expect("it is started");
    }

    fn limit(&self) -> MemoryLimit {
        self.lever.get().expect("limit")
    }

    fn is_granted_less(&self) {
        wait_until("less is granted", || self.limit() != declared());
        assert_eq!(
            self.lever.has_oom_killer().expect("read"),
            cgroups::is_unified()
        );
    }

    /// It has what it declared, and uses that.
    fn is_let_go(&self) {
        wait_until("its limit is given back", || {
            self.limit() == declared() && self.lever.has_oom_killer().expect("read")
        });
        let mut hungry = self
            .group
            .run("exec dd if=/dev/zero of=/dev/null bs=150M count=1 2>/dev/null");
        let status = eventually(|| hungry.try_wait().expect("wait"));
        assert!(status.expect("it ends").success());
        assert_eq!(self.limit(), declared());
    }
}

fn declared() -> MemoryLimit {
    match cgroups::is_unified() {
        true => MemoryLimit::None,
        false => MemoryLimit::Bytes(i64::try_from(CEILING).expect("small")),
    }
}

/// I8, I3. In a process of its own, since it replaces what is done with log lines.
#[test]
fn i8_a_panic_about_one_container_gives_its_limit_back_and_others_are_looked_after_as_before() {
    if may_run() {
        play("sampler::plays_the_shim");
    }
}

fn may_run() -> bool {
    if !cgroups::has("memory") || !nix::unistd::geteuid().is_root() {
        skip("no memory controller, or no root");
        return false;
    }
    if host::name_of(&host::our_program()) == "runc" {
        skip("runc has no sampler");
        return false;
    }
    true
}

/// Runs one of the ignored tests in a process of its own.
fn play(name: &str) {
    let mut process = Command::new(std::env::current_exe().expect("own path"));
    process
        .args(["--exact", name, "--ignored"])
        .args(["--nocapture", "--test-threads=1"])
        .env(PLAYS, "1")
        .env("ELASTIC_MEM_BIN", host::our_program())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut process = command::spawn_plain(&mut process);
    let status = eventually(|| process.try_wait().expect("wait"));
    assert!(status.expect("it ends").success(), "its log is above");
}

#[test]
#[ignore = "a process of the other test"]
fn plays_the_shim() {
    std::env::var_os(PLAYS).expect("started by the other test");
    // Without a backtrace: to look up its names takes a test binary longer than a function takes to meet its limit.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let log = Log::default();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    tracing::subscriber::set_global_default(subscriber).expect("the first");
    let (spool, sampler) = sampler();
    let broken = Tuned::new(&sampler, "broken");
    let other = Tuned::new(&sampler, "other");
    broken.is_granted_less();
    other.is_granted_less();

    // More than is known, and more than is granted.
    let held = broken.group.hold(100);
    broken.is_let_go();
    drop(held);
    let lines = || log.0.lock().expect("log").clone();
    let errors: Vec<_> = lines()
        .into_iter()
        .filter(|line| line.starts_with("ERROR"))
        .collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("a logger that panics"), "{errors:?}");

    // Whoever asks about it gets an answer.
    broken.watched.hold().blocking_recv().expect("it is held");
    broken.watched.release();
    let ended = broken.watched.ended(Some(0));
    assert!(ended.written.blocking_recv().is_err(), "it has no trace");
    let (_, status) = broken.watched.status().expect("what was seen");
    assert_eq!((status.grant, status.ceiling), (None, None));

    // The other one is looked after as before, and so are new ones.
    assert_ne!(other.limit(), declared());
    other.watched.hold().blocking_recv().expect("it is held");
    assert_eq!(other.limit(), declared());
    other.watched.release();
    other.is_granted_less();
    let new = Tuned::new(&sampler, "new");
    new.is_granted_less();
    for tuned in [other, new] {
        let ended = tuned.watched.ended(Some(0));
        let written = ended.written.blocking_recv().expect("an answer");
        let text = fs::read_to_string(written.expect("a trace")).expect("read");
        let trace: Trace = text.parse().expect("trace");
        assert!(trace.end.is_some() && trace.samples.len() > 2);
        assert_eq!(tuned.limit(), declared());
    }
    // What was seen until the panic is kept.
    drop(sampler);
    let is_of_broken = |path: &Path| path.to_string_lossy().contains("broken");
    let traces = fs::read_dir(spool.path()).expect("spool").flatten();
    let cut = traces.map(|entry| entry.path()).find(|p| is_of_broken(p));
    let text = fs::read_to_string(cut.expect("a file")).expect("read");
    let trace: Trace = text.parse().expect("trace");
    assert!(trace.end.is_none() && !trace.samples.is_empty());
}

/// Less than was declared.
fn theirs() -> MemoryLimit {
    MemoryLimit::Bytes(i64::try_from(CEILING / 2).expect("small"))
}

fn stays_theirs(tuned: &Tuned) {
    wait_until("the OOM killer is on", || {
        tuned.lever.has_oom_killer().expect("read")
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(tuned.limit(), theirs());
}

/// However long it takes to tell others of a grant, and whatever the container needs meanwhile.
#[test]
fn i4_what_somebody_else_wrote_stays_while_others_are_being_told() {
    if !may_run() {
        return;
    }
    let (_spool, sampler) = sampler();
    let (tells, is_telling) = channel();
    let (go_on, goes_on) = channel::<()>();
    let goes_on = Mutex::new(goes_on);
    let publish: Publish = Arc::new(move |_, _| {
        // Until the test has ended.
        let _ = tells.send(());
        let _ = goes_on.lock().expect("the end").recv();
    });
    let tuned = Tuned::waiting(&sampler, "slow", Some(plan()), Some(publish));
    tuned.start();
    tuned.is_granted_less();
    // Others are told of a change once a second.
    std::thread::sleep(Duration::from_millis(1100));
    let _held = tuned.group.hold(5);
    is_telling.recv().expect("others are told");
    // What is written in the very moment of a raise is lost.
    std::thread::sleep(Duration::from_millis(300));
    tuned.lever.set(theirs()).expect("write");
    let _more = tuned.group.hold(10);
    stays_theirs(&tuned);
    drop(go_on);
    stays_theirs(&tuned);
}

#[test]
fn i4_what_somebody_else_wrote_stays_when_a_verb_holds_the_limit() {
    if !may_run() {
        return;
    }
    let (_spool, sampler) = sampler();
    for name in ["one", "another", "third"] {
        let tuned = Tuned::new(&sampler, name);
        tuned.is_granted_less();
        std::thread::sleep(Duration::from_millis(300));
        tuned.lever.set(theirs()).expect("write");
        // Before anybody has looked, as a rule.
        tuned.watched.hold().blocking_recv().expect("it is held");
        assert_eq!(tuned.limit(), theirs());
        tuned.watched.release();
        stays_theirs(&tuned);
    }
}

#[test]
fn i4_what_somebody_else_wrote_stays_when_a_container_is_bound_to_another_function() {
    if !may_run() {
        return;
    }
    let (_spool, sampler) = sampler();
    let tuned = Tuned::new(&sampler, "bound");
    tuned.is_granted_less();
    std::thread::sleep(Duration::from_millis(300));
    tuned.lever.set(theirs()).expect("write");
    tuned.watched.bind(context("other"), Some(plan()));
    stays_theirs(&tuned);
    // As declared again, it is granted again; the hold of its plan is ten seconds.
    tuned.lever.set(declared()).expect("write");
    tuned.is_granted_less();
}

/// I3. In a process of its own, since the guardian is a child of that.
#[test]
fn i3_a_guardian_that_dies_before_the_start_of_a_container_is_replaced() {
    if may_run() {
        play("sampler::plays_a_shim_whose_guardian_dies");
    }
}

/// The children of this process that are not ours to reap.
fn guardians() -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").expect("threads").flatten();
    let texts = tasks.map(|task| fs::read_to_string(task.path().join("children")));
    let text: Vec<_> = texts.map(Result::unwrap_or_default).collect();
    let pids = text.iter().flat_map(|text| text.split_ascii_whitespace());
    pids.map(|pid| pid.parse().expect("pid"))
        .filter(|pid| processes::is_alive(*pid))
        .collect()
}

#[test]
#[ignore = "a process of the other test"]
fn plays_a_shim_whose_guardian_dies() {
    std::env::var_os(PLAYS).expect("started by the other test");
    let (_spool, sampler) = sampler();
    // Before anything is known of the container.
    sampler.get_ready();
    wait_until("a guardian", || guardians().len() == 1);
    let first = guardians()[0];
    let told = Arc::new(Mutex::new(Vec::new()));
    let publish = || -> Publish {
        let told = Arc::clone(&told);
        Arc::new(move |grant, ceiling| told.lock().expect("told").push((grant, ceiling)))
    };
    let waiting = |name, plan| Tuned::waiting(&sampler, name, plan, Some(publish()));
    let known = waiting("known", Some(plan()));
    let bound = waiting("bound", Some(plan()));
    let observed = waiting("observed", None);
    let gone = waiting("gone", Some(plan()));
    assert_eq!(guardians(), [first], "the same for all");
    assert!(processes::signal(first, Signal::SIGKILL));
    // Where there is more to do it is replaced before that.
    wait_until("it is gone", || !guardians().contains(&first));
    known.start();
    assert_ne!(known.limit(), declared(), "its first grant is in force");
    assert_eq!(guardians().len(), 1, "another one watches over it");
    let told = || std::mem::take(&mut *told.lock().expect("told"));
    assert_eq!(told(), [], "others knew");

    // What others knew is not so any more.
    let ceiling = Some(Bytes::new(CEILING));
    bound.watched.bind(context("other"), None);
    bound.start();
    assert_eq!(bound.limit(), declared());
    assert_eq!(told(), [(None, ceiling)]);
    fs::remove_dir(gone.group.folder()).expect("remove");
    gone.start();
    assert_eq!(told(), [(None, ceiling)]);
    // What others did not know.
    observed.start();
    assert_eq!((told(), observed.limit()), (vec![], declared()));
    observed.watched.bind(context("other"), Some(plan()));
    observed.is_granted_less();
    wait_until("others are told", || {
        told().first().is_some_and(|(grant, _)| grant.is_some())
    });
}
