//! Kills at random moments, and a full disk. What follows need not be what
//! runc's shim leaves: nothing may be left but what is not the shim's
//! (docs/testing.md). The oracle is not held to it and is run only when it is
//! the only route.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::harness::differential::is_of_others;
use crate::harness::{Case, Cmd, processes, wait_until};

ours_on_every_containerd! {
    kills_of_the_shim,
    kills_of_its_helpers,
    kills_of_containerd,
    a_full_disk,
}

/// Enough to be right by and large; for more see docs/testing.md.
const ROUNDS: u64 = 20;

/// Numbers that look random, from a seed that is printed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("ELASTIC_MEM_TEST_SEED").ok().map_or_else(
            || {
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(1, |t| t.as_nanos() as u64)
            },
            |text| text.parse().expect("ELASTIC_MEM_TEST_SEED"),
        );
        eprintln!("ELASTIC_MEM_TEST_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn rounds() -> u64 {
    std::env::var("ELASTIC_MEM_FAULT_ROUNDS").map_or(ROUNDS, |text| {
        text.parse().expect("ELASTIC_MEM_FAULT_ROUNDS")
    })
}

/// Whether the process is a shim, or one that is about to be.
fn is_shim(process: &processes::Process) -> bool {
    let program = process.command_line.split(' ').next().unwrap_or_default();
    program.contains("containerd-shim")
}

/// Lives through a container's life, whose steps may fail, while `strike` is
/// called at a random moment of it. It tells whether it hit a process, which
/// it has to do at least once.
fn strike_lives(c: &mut Case, strike: impl Fn(&Case, &str) -> bool + Sync) {
    c.private_daemon();
    let mut random = Random::new();
    let hits = AtomicU64::new(0);
    for round in 0..rounds() {
        let name = format!("a{round}x");
        c.expect_container(&name);
        let delay = Duration::from_millis(random.below(900));
        let over = AtomicBool::new(false);
        {
            let c = &*c;
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(delay);
                    if !over.load(Ordering::Relaxed) && strike(c, &name) {
                        hits.fetch_add(1, Ordering::Relaxed);
                    }
                });
                live(c, &name);
                over.store(true, Ordering::Relaxed);
            });
        }
        recover(c, &name, &format!("round {round}, after {delay:?}"));
    }
    let rounds = rounds();
    assert_ne!(hits.into_inner(), 0, "nothing was hit in {rounds} rounds");
}

/// Runs a command that may fail, but has to end. The client itself may wait
/// for ever once its containerd was killed.
fn attempt(c: &Case, what: &str, cmd: Cmd) {
    let mut running = cmd.spawn();
    let ended = wait_at_most(Duration::from_secs(10), || {
        running.child.try_wait().expect("wait").is_some()
    });
    assert!(ended || c.daemon.was_killed(), "the client hangs: {}", what);
}

fn wait_at_most(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    while !holds() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn live(c: &Case, name: &str) {
    let program = ["sh", "-c", "sleep 1000 & sleep 1000"];
    attempt(c, "run", c.run_expected("--detach", name, &program));
    for round in 0..3 {
        attempt(c, "exec", c.exec("", name, &format!("x{round}"), "true"));
    }
    attempt(c, "exec", c.exec("--detach", name, "y", "exec sleep 1000"));
    attempt(c, "kill", c.ctr(&format!("task kill -s KILL @{name}")));
    std::thread::sleep(Duration::from_millis(50));
    attempt(c, "delete", c.ctr(&format!("task delete @{name}")));
    attempt(
        c,
        "container delete",
        c.ctr(&format!("container delete @{name}")),
    );
}

/// Deletes what the client still knows, and looks for the rest.
fn recover(c: &mut Case, name: &str, when: &str) {
    wait_until(&format!("containerd answers: {when}"), || {
        c.call("version").code == 0
    });
    let id = c.id(name);
    let mut last = String::new();
    let gone = crate::harness::eventually(|| {
        if c.call("containers list --quiet")
            .stdout
            .lines()
            .all(|line| line != id)
        {
            return Some(());
        }
        last = format!(
            "{}\n{}\n{}",
            c.call(&format!("task delete --force @{name}")),
            c.call(&format!("container delete @{name}")),
            c.call("task list"),
        );
        std::thread::sleep(Duration::from_millis(50));
        None
    });
    assert!(gone.is_some(), "{when}: {id} cannot be deleted: {last}");
    let mut left = Vec::new();
    let began = Instant::now();
    let mut restarted = false;
    let settled = crate::harness::eventually(|| {
        left = c.leftovers();
        left.retain(|line| !is_of_others(line, &c.id("")));
        if began.elapsed() > Duration::from_secs(3) && !restarted {
            // What containerd had begun when it was killed, it looks for when it starts.
            restarted = true;
            c.daemon.end(Signal::SIGTERM);
            c.daemon.launch();
        }
        if restarted {
            forget_unwanted_shim(c, &id, &mut left);
        }
        left.is_empty().then_some(())
    });
    assert!(
        settled.is_some(),
        "{when}: left behind:\n{}",
        left.join("\n")
    );
}

/// containerd 1.6 keeps a shim that it had started and was killed before it made a container of, and its bundle: it
/// finds it again and asks nothing more of it, of runc's shim neither. Later ones end it.
fn forget_unwanted_shim(c: &Case, id: &str, left: &mut Vec<String>) {
    let bundle = format!("io.containerd.runtime.v2.task/{}/{id}", c.daemon.namespace);
    let is_kept = |line: &String| {
        let is_bundle = line.starts_with("state ") && line.ends_with(&bundle);
        let is_server = line.starts_with("process ") && line.contains(&format!(" -id {id} "));
        is_bundle || is_server
    };
    if c.daemon.engine != "containerd-1.6" || left.is_empty() || !left.iter().all(is_kept) {
        return;
    }
    crate::harness::say(&format!(
        "containerd 1.6 keeps a shim without a container: {id}"
    ));
    kill_all(
        processes::all()
            .iter()
            .filter(|p| is_shim(p) && p.command_line.contains(id)),
    );
    for folder in ["state", "root"] {
        // The shim that was killed may have gone with it.
        let _ = fs::remove_dir_all(c.daemon.dir().join(folder).join(&bundle));
    }
    left.clear();
}

/// Whether there was one.
fn kill_all<'a>(processes: impl Iterator<Item = &'a processes::Process>) -> bool {
    processes
        .filter(|process| processes::signal(process.pid, Signal::SIGKILL))
        .count()
        > 0
}

fn kills_of_the_shim(c: &mut Case) {
    strike_lives(c, |c, name| {
        let id = c.id(name);
        kill_all(
            processes::all()
                .iter()
                .filter(|p| is_shim(p) && p.command_line.contains(&id)),
        )
    });
}

/// The programs that shims call, and the processes that they fork.
fn kills_of_its_helpers(c: &mut Case) {
    strike_lives(c, |c, _| {
        // A helper lives for some milliseconds: the first that comes along.
        (0..200).any(|_| {
            let all = processes::all();
            let shims: Vec<_> = all
                .iter()
                .filter(|p| is_shim(p) && p.is_marked(&c.daemon.namespace))
                .collect();
            kill_all(all.iter().filter(|p| {
                p.is_marked(&c.daemon.namespace) && shims.iter().any(|shim| shim.pid == p.parent)
            }))
        })
    });
}

fn kills_of_containerd(c: &mut Case) {
    strike_lives(c, |c, _| {
        c.daemon.end(Signal::SIGKILL);
        c.daemon.launch();
        true
    });
}

/// Nothing can be written where containerd keeps its bundles.
fn a_full_disk(c: &mut Case) {
    c.private_daemon_with_small_state();
    c.up("", "a");
    let filler = c.daemon.dir().join("state/filler");
    fill(&filler);
    let outcome = c.run("--detach", "b", "exit 0").output();
    assert_ne!(outcome.code, 0, "there was space after all: {outcome}");
    assert!(
        outcome.stderr.contains("no space left on device"),
        "{outcome}"
    );
    // What runs goes on, and what needs no space works.
    assert_eq!(c.status("a"), "RUNNING");
    let exec = c.exec("", "a", "x", "exit 3").output();
    assert!([1, 3].contains(&exec.code), "{exec}");
    c.ok("task kill -s KILL @a");
    c.wait_for("a", "STOPPED");
    assert_eq!(c.delete_task("a"), 137);
    c.call("container delete @a");
    c.call("container delete @b");
    fs::remove_file(&filler).expect("filler");
    let outcome = c.run("--rm", "d", "exit 5").output();
    assert_eq!(outcome.code, 5, "{outcome}");
}

fn fill(file: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(file).expect("filler");
    let mut size = 1 << 16;
    while size > 0 {
        if file.write_all(&vec![1; size]).is_err() {
            size /= 2;
        }
    }
}
