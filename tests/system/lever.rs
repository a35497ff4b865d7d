//! The limit in force on cgroup v2, and the guardian that gives it back.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use elastic_mem::guardian::Guardian;
use elastic_mem::kernel::cgroup::{Failures, Lever, Meter};
use elastic_mem::kernel::wait::Waker;
use elastic_mem::model::{Bytes, MemoryLimit};

use crate::common::{host, wait_until};
use crate::harness::group::Group;
use crate::machine::{MIB, has_cgroup2};

fn mib(mib: u64) -> MemoryLimit {
    MemoryLimit::Bytes(i64::try_from(mib * MIB).expect("size"))
}

fn group() -> Option<Group> {
    has_cgroup2().then(Group::new)
}

#[test]
fn what_is_set_is_the_high_mark_and_the_hard_limit_stays() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    assert_eq!(lever.get().expect("get"), MemoryLimit::None);
    let odd = i64::try_from(64 * MIB + 5).expect("size");
    lever.set(MemoryLimit::Bytes(odd)).expect("set");
    assert_eq!(lever.get().expect("get"), mib(64));
    assert_eq!(group.read("memory.high"), (64 * MIB).to_string());
    assert_eq!(group.read("memory.max"), "max");
    assert!(!lever.raise(mib(32)).expect("raise"));
    assert!(lever.raise(MemoryLimit::None).expect("raise"));
    assert_eq!(group.read("memory.high"), "max");
}

#[test]
fn the_oom_killer_is_always_on() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    lever.set_oom_killer(false).expect("nothing to do");
    assert!(lever.has_oom_killer().expect("read"));
    assert!(!lever.is_under_oom().expect("read"));
    assert!(lever.descriptors().1.is_none());
}

#[test]
fn a_high_mark_that_is_met_wakes_who_waits() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    let meter = Meter::open(&group.cgroup).expect("meter");
    let waker = Waker::new().expect("waker");
    meter.watch_high(&waker).expect("watch");
    let moment = Some(Duration::from_millis(300));
    assert!(!waker.wait(moment));
    lever.set(mib(8)).expect("set");
    let mut child = group.run("exec dd if=/dev/zero of=/dev/null bs=24M count=1 2>/dev/null");
    assert!(waker.wait(Some(Duration::from_secs(60))));
    assert!(meter.failures().expect("failures").high > 0);
    lever.set(MemoryLimit::None).expect("set");
    let status = child.wait().expect("wait");
    assert!(status.success());
    // It may be told once more: at most every 10 ms.
    while waker.wait(moment) {}
    waker.wake();
    assert!(waker.wait(moment));
    assert!(!waker.wait(moment));
    // The watch has ended with the meter.
    drop(meter);
    lever.set(mib(8)).expect("set");
    let mut child = group.run("exec dd if=/dev/zero of=/dev/null bs=10M count=1 2>/dev/null");
    assert!(!waker.wait(Some(Duration::from_secs(2))));
    lever.set(MemoryLimit::None).expect("set");
    let status = child.wait().expect("wait");
    assert!(status.success());
}

#[test]
fn a_high_mark_that_is_met_is_counted() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    let meter = Meter::open(&group.cgroup).expect("meter");
    assert_eq!(meter.failures(), Some(Failures::default()));
    lever.set(mib(8)).expect("set");
    let mut child = group.run("exec dd if=/dev/zero of=/dev/null bs=24M count=1 2>/dev/null");
    let high = || meter.failures().expect("failures").high;
    wait_until("the mark is met", || high() > 0);
    lever.set(MemoryLimit::None).expect("set");
    let done = || child.try_wait().expect("wait");
    let status = crate::harness::eventually(done).expect("it ends");
    assert!(status.success());
    assert_eq!(meter.failures().expect("failures").limit, 0);
}

#[test]
fn page_cache_is_dropped_and_anonymous_memory_stays() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    let meter = Meter::open(&group.cgroup).expect("meter");
    let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("file");
    let write = format!(
        "dd if=/dev/zero of={} bs=1M count=16 conv=fsync 2>/dev/null",
        file.path().display()
    );
    let mut child = group.run(&write);
    assert!(child.wait().expect("wait").success());
    let _holder = group.hold(12);
    let cached = || meter.composition().expect("stat").file;
    let before = cached();
    assert!(before > Bytes::new(12 * MIB), "{before} of page cache");
    lever.drop_cache(Bytes::new(12 * MIB)).expect("drop");
    let after = cached();
    assert!(after.get() + 8 * MIB < before.get(), "{before} -> {after}");
    assert!(group.anon() >= 11 * MIB, "{} anonymous", group.anon());
    // More than there is.
    lever.drop_cache(Bytes::new(1 << 40)).expect("drop");
}

#[test]
fn hard_and_high_limits_above_count() {
    let Some(group) = group() else { return };
    assert_eq!(group.cgroup.limit_above(), None);
    let middle = group.below("a");
    let inner = middle.below("b");
    group.write("memory.max", 96 * MIB);
    assert_eq!(inner.cgroup.limit_above(), Some(Bytes::new(96 * MIB)));
    middle.write("memory.high", 64 * MIB);
    inner.write("memory.max", 32 * MIB);
    assert_eq!(inner.cgroup.limit_above(), Some(Bytes::new(64 * MIB)));
    assert_eq!(group.cgroup.limit_above(), None, "its own does not count");
}

#[test]
fn there_is_no_threshold_of_usage() {
    let Some(group) = group() else { return };
    let meter = Meter::open(&group.cgroup).expect("meter");
    assert!(meter.watch_usage(Bytes::new(MIB)).is_err());
}

#[test]
fn a_group_that_is_gone_is_told() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    group.cgroup.remove().expect("remove");
    assert!(lever.set(mib(64)).expect_err("gone").is_gone());
    assert!(lever.get().expect_err("gone").is_gone());
}

#[test]
fn the_end_of_a_tuner_gives_the_high_mark_back() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    let mut guardian = Guardian::start_from(&host::our_program()).expect("guardian");
    let killer = lever.has_oom_killer().expect("read");
    guardian.guard(1, &lever, mib(96), killer).expect("guard");
    lever.set(mib(16)).expect("grant");
    assert!(guardian.is_alive());
    // Nothing else tells the guardian of the end of a process.
    drop(guardian);
    wait_until("the mark is back", || lever.get().expect("get") == mib(96));
}

#[test]
fn a_tuner_that_leaves_no_sign_of_life_loses_its_grant() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    let mut guardian = Guardian::start_from(&host::our_program()).expect("guardian");
    guardian
        .guard(1, &lever, MemoryLimit::None, true)
        .expect("guard");
    lever.set(mib(16)).expect("grant");
    wait_until("the mark is back", || {
        lever.get().expect("get") == MemoryLimit::None
    });
}

/// Runs a program that gets 160 MiB by one system call, below a mark of 64 MiB that nobody raises: whether it was killed,
/// and how long it took.
fn reads_beyond_the_mark(group: &Group, max: &str) -> (bool, Duration) {
    group.write("memory.swap.max", 0);
    group.write("memory.high", 64 * MIB);
    group.write("memory.max", max);
    let start = Instant::now();
    let mut child = group.run("exec dd if=/dev/zero of=/dev/null bs=160M count=1 2>/dev/null");
    let status = crate::harness::eventually(|| child.try_wait().expect("wait"));
    let took = start.elapsed();
    let killed = !status.expect("it ends").success();
    let meter = Meter::open(&group.cgroup).expect("meter");
    assert_eq!(meter.events().1, Some(u64::from(killed)), "OOM kills");
    (killed, took)
}

/// Why `memory.max` stays at the ceiling (docs/adr/0005-strict.md): no tuner can be in time for a system call.
#[test]
fn a_hard_limit_above_the_mark_kills_what_the_mark_alone_slows_down() {
    let Some(group) = group() else { return };
    let (killed, took) = reads_beyond_the_mark(&group, "max");
    assert!(!killed, "by the mark alone");
    crate::harness::say(&format!("met its mark, slowed down: {took:?}"));
    let other = Group::new();
    let (killed, took) = reads_beyond_the_mark(&other, &(80 * MIB).to_string());
    assert!(killed, "the hard limit does not count");
    crate::harness::say(&format!("met its hard limit, killed: {took:?}"));
}

/// `O_NONBLOCK` keeps the write from killing where the kernel knows it (Linux 6.16), not what the container allocates next.
#[test]
fn a_hard_limit_below_usage_kills_at_the_write_or_at_the_next_page() {
    let Some(group) = group() else { return };
    group.write("memory.swap.max", 0);
    let _holder = group.hold(32);
    // By then it has the rest of its memory too, and waits at the pipe.
    std::thread::sleep(Duration::from_secs(3));
    let meter = Meter::open(&group.cgroup).expect("meter");
    let kills = || meter.events().1.expect("a count");
    let mut max = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(group.folder().join("memory.max"))
        .expect("open");
    max.write_all((16 * MIB).to_string().as_bytes())
        .expect("write");
    std::thread::sleep(Duration::from_millis(200));
    if kills() > 0 {
        return crate::harness::say("this kernel waits all the same: the write itself has killed");
    }
    assert!(group.anon() >= 31 * MIB, "the write has reclaimed nothing");
    let mut next = group.run("exec true");
    wait_until("the next page kills", || kills() > 0);
    let _ = next.wait();
    crate::harness::say("the write has killed nobody, the next page has");
}
