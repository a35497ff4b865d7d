//! The command is killed at random points: `delete --force` clears up.

use std::time::{Duration, Instant};

use crate::harness::{Case, cgroups, leaks, ours, ours_beyond_runc};

const ROUNDS: u32 = 200;

/// The whole test, so that a slow machine does fewer rounds, not longer ones.
const BUDGET: Duration = Duration::from_secs(55);

/// xorshift64: the test needs repeatable, not good, randomness.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn seed() -> u64 {
    std::env::var("ELASTIC_MEM_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| {
            let now = std::time::SystemTime::now();
            let since = now.duration_since(std::time::UNIX_EPOCH).expect("clock");
            u64::from(since.subsec_nanos()) ^ since.as_secs()
        })
}

/// How long the verb takes undisturbed, to spread the kills over it.
fn typical(c: &mut Case) -> Duration {
    let start = Instant::now();
    c.up();
    let took = start.elapsed() / 2;
    c.ok("delete --force ID");
    took.max(Duration::from_millis(4))
}

/// Needs the state to be on disk before anything else is made: runc 1.1 makes
/// the groups first and forgets them.
#[test]
fn a_killed_command_leaves_nothing_that_delete_cannot_remove() {
    let seed = seed();
    eprintln!("ELASTIC_MEM_TEST_SEED={seed}");
    ours_beyond_runc(|c| {
        let mut random = Random(seed.max(1));
        let typical = typical(c);
        c.idle();
        c.bundle.write();
        let end = Instant::now() + BUDGET;
        let mut rounds = 0;
        while rounds < ROUNDS && Instant::now() < end {
            one_round(c, &mut random, typical, seed);
            rounds += 1;
        }
        eprintln!("{rounds} rounds");
        assert!(rounds >= 20, "only {rounds} rounds in {BUDGET:?}");
    });
}

fn one_round(c: &mut Case, random: &mut Random, typical: Duration, seed: u64) {
    let steps: &[&str] = match random.below(6) {
        0 | 1 => &["create --bundle BUNDLE ID"],
        2 => &["run --bundle BUNDLE ID"],
        3 => &["create --bundle BUNDLE ID", "start ID"],
        4 => &[
            "create --bundle BUNDLE ID",
            "start ID",
            "exec ID sleep 1000",
        ],
        _ => &["create --bundle BUNDLE ID", "start ID", "delete --force ID"],
    };
    let (last, before) = steps.split_last().expect("steps");
    for step in before {
        let outcome = c.call(step);
        assert_eq!(outcome.code, 0, "seed {seed}: {outcome}");
    }
    let micros = u64::try_from(typical.as_micros()).unwrap_or(u64::MAX);
    let delay = Duration::from_micros(random.below(micros * 3 / 2));
    {
        let mut running = c.cmd().args(c.words(last)).spawn();
        std::thread::sleep(delay);
        running.child.kill().expect("kill -9");
    }
    let outcome = c.call("delete --force ID");
    let left = c.settle();
    assert!(
        left.is_empty(),
        "seed {seed}: `{last}` killed after {delay:?}, then {outcome}\nleft: {left:#?}"
    );
    // The same id is free again.
    assert_eq!(
        c.status(),
        "unknown",
        "seed {seed}: `{last}` after {delay:?}"
    );
}

#[test]
fn a_killed_start_and_exec_do_not_hurt_the_container() {
    ours(|c| {
        c.up();
        let before = c.processes().len();
        for delay in [0, 1, 2, 4, 8, 16] {
            let mut running = c.cmd().args(c.words("exec ID sleep 0.01")).spawn();
            std::thread::sleep(Duration::from_millis(delay));
            let _ = running.child.kill();
            drop(running);
            assert_eq!(c.status(), "running");
        }
        crate::harness::eventually(|| (c.processes().len() == before).then_some(()))
            .unwrap_or_else(|| panic!("left: {:?}", c.processes()));
        assert_eq!(c.exec("", "echo works"), "works\n");
    });
}

#[test]
fn init_killed_from_outside_is_a_stopped_container() {
    ours(|c| {
        c.up();
        let pid = nix::unistd::Pid::from_raw(c.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
        c.wait_for("stopped");
        c.ok("delete ID");
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}

/// Someone else removed the group of a stopped container.
#[test]
fn a_group_that_is_gone_does_not_keep_the_container() {
    ours(|c| {
        c.script("true");
        c.create();
        c.ok("start ID");
        c.wait_for("stopped");
        cgroups::remove(c.cgroup());
        c.ok("delete ID");
        assert_eq!(c.status(), "unknown");
        assert!(leaks::mounts(c.bundle.path()).is_empty());
    });
}

/// The engine has unmounted and removed the bundle before it deletes.
#[test]
fn a_bundle_that_is_gone_does_not_keep_the_container() {
    ours(|c| {
        c.up();
        std::fs::remove_file(c.bundle.config()).expect("remove");
        std::fs::remove_dir_all(c.rootfs()).expect("remove");
        let outcome = c
            .cmd()
            .args(c.words("delete --force ID"))
            .dir(std::path::Path::new("/"))
            .output();
        assert_eq!(outcome.code, 0, "{outcome}");
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}
