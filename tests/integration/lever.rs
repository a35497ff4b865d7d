//! The limit in force of a real control group, changed while processes live in it.

use std::fs;
use std::os::fd::AsFd;
use std::process::Child;
use std::time::Duration;

use elastic_mem::kernel::cgroup::{Lever, Meter};
use elastic_mem::model::{Bytes, MemoryLimit};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::harness::group::{Group, MIB};
use crate::harness::{cgroups, eventually, skip};

fn mib(mib: u64) -> MemoryLimit {
    MemoryLimit::Bytes(i64::try_from(mib * MIB).expect("size"))
}

fn group() -> Option<Group> {
    if !cgroups::has_v1("memory") || !nix::unistd::geteuid().is_root() {
        skip("no v1 memory hierarchy, or no root");
        return None;
    }
    Some(Group::new())
}

#[test]
fn what_is_set_is_in_force() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    assert_eq!(lever.get().expect("get"), MemoryLimit::None);
    let odd = i64::try_from(64 * MIB + 5).expect("size");
    lever.set(MemoryLimit::Bytes(odd)).expect("set");
    assert_eq!(lever.get().expect("get"), mib(64));
    assert_eq!(
        group.read("memory.limit_in_bytes"),
        (64 * MIB).to_string(),
        "the kernel's own word"
    );
    lever.set(MemoryLimit::None).expect("set");
    assert_eq!(lever.get().expect("get"), MemoryLimit::None);
    assert!(lever.set(MemoryLimit::Bytes(-5)).is_err());
}

#[test]
fn a_raise_never_lowers() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    lever.set(mib(64)).expect("set");
    assert!(!lever.raise(mib(32)).expect("raise"));
    assert!(!lever.raise(mib(64)).expect("raise"));
    assert_eq!(lever.get().expect("get"), mib(64));
    assert!(lever.raise(mib(96)).expect("raise"));
    assert_eq!(lever.get().expect("get"), mib(96));
    assert!(lever.raise(MemoryLimit::None).expect("raise"));
    assert!(!lever.raise(MemoryLimit::None).expect("raise"));
    assert_eq!(lever.get().expect("get"), MemoryLimit::None);
}

#[test]
fn a_limit_below_what_cannot_be_reclaimed_is_refused() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    lever.set(mib(128)).expect("set");
    let _holder = group.hold(48);
    let err = lever.set(mib(16)).expect_err("room for 48 MiB in 16");
    let text = elastic_mem::kernel::chain(&err);
    assert!(text.contains("busy") && text.contains("16777216"), "{text}");
    assert_eq!(lever.get().expect("get"), mib(128));
}

#[test]
fn a_group_that_is_gone_is_told() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    let again = lever.open_again().expect("open again");
    group.cgroup.remove().expect("remove");
    for lever in [&lever, &again] {
        assert!(lever.set(mib(64)).expect_err("gone").is_gone());
        assert!(lever.get().expect_err("gone").is_gone());
        assert!(lever.raise(mib(64)).expect_err("gone").is_gone());
        assert!(lever.set_oom_killer(true).expect_err("gone").is_gone());
    }
    assert!(lever.open_again().expect_err("gone").is_gone());
    assert!(Lever::open(&group.cgroup).expect_err("gone").is_gone());
}

#[test]
fn without_the_oom_killer_a_task_waits_and_a_raise_lets_it_go_on() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    let meter = Meter::open(&group.cgroup).expect("meter");
    assert!(lever.has_oom_killer().expect("read"));
    lever.set_oom_killer(false).expect("off");
    assert!(!lever.has_oom_killer().expect("read"));
    lever.set(mib(16)).expect("set");
    assert_eq!(meter.failures().map(|f| f.limit), Some(0));
    let mut child = group.run("exec dd if=/dev/zero of=/dev/null bs=48M count=1 2>/dev/null");
    let waits = || lever.is_under_oom().expect("read").then_some(());
    eventually(waits).expect("it waits");
    assert!(meter.failures().expect("failures").limit > 0);
    // As the guardian does it, by descriptors alone.
    let (limit, oom) = lever.descriptors();
    let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().expect("copy");
    let other = Lever::from_descriptors(copy(limit), oom.map(copy)).expect("lever");
    assert_eq!(other.folder(), group.folder());
    assert!(other.raise(mib(128)).expect("raise"));
    other.set_oom_killer(true).expect("on");
    assert!(wait(&mut child), "killed");
    assert!(!lever.is_under_oom().expect("read"));
    assert!(lever.has_oom_killer().expect("read"));
    assert_eq!(meter.events().1, Some(0), "nobody was killed");
}

#[test]
fn page_cache_is_dropped() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    let meter = Meter::open(&group.cgroup).expect("meter");
    let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("file");
    let write = format!(
        "dd if=/dev/zero of={} bs=1M count=24 conv=fsync 2>/dev/null",
        file.path().display()
    );
    assert!(wait(&mut group.run(&write)));
    let cached = || meter.composition().expect("stat").file;
    let before = cached();
    assert!(before > Bytes::new(16 * MIB), "{before} of page cache");
    lever.drop_cache(Bytes::new(24 * MIB)).expect("drop");
    // The kernel counts by batches.
    let dropped = || (cached() < Bytes::new(8 * MIB)).then_some(());
    eventually(dropped).unwrap_or_else(|| panic!("{before} -> {}", cached()));
    // Nothing is left to drop.
    lever.drop_cache(Bytes::new(24 * MIB)).expect("drop");
}

#[test]
fn the_least_limit_above_counts() {
    let Some(group) = group() else { return };
    assert_eq!(group.cgroup.limit_above(), None);
    let middle = group.below("a");
    let inner = middle.below("b");
    group.write("memory.limit_in_bytes", 96 * MIB);
    assert_eq!(inner.cgroup.limit_above(), Some(Bytes::new(96 * MIB)));
    middle.write("memory.limit_in_bytes", 64 * MIB);
    inner.write("memory.limit_in_bytes", 32 * MIB);
    assert_eq!(inner.cgroup.limit_above(), Some(Bytes::new(64 * MIB)));
    assert_eq!(group.cgroup.limit_above(), None, "its own does not count");
}

#[test]
fn usage_that_passes_a_threshold_is_told() {
    let Some(group) = group() else { return };
    let meter = Meter::open(&group.cgroup).expect("meter");
    let event = meter.watch_usage(Bytes::new(24 * MIB)).expect("watch");
    let told = |millis: u16| {
        let mut polled = [PollFd::new(event.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::from(millis)).expect("poll") == 1
    };
    let small = group.hold(8);
    assert!(!told(50), "8 MiB are below 24");
    let large = group.hold(48);
    assert!(told(20_000), "48 MiB are above 24");
    drop((small, large));
}

/// What the tuner does many times in a container's life must be cheap: a grant is to be written within 1 ms.
#[test]
fn a_change_is_quick() {
    let Some(group) = group() else { return };
    let lever = Lever::open(&group.cgroup).expect("open");
    let mut times: Vec<Duration> = (0..2_000_u64)
        .map(|n| {
            let start = std::time::Instant::now();
            lever.set(mib(64 + n % 7)).expect("set");
            start.elapsed()
        })
        .collect();
    times.sort();
    let median = times[times.len() / 2];
    crate::harness::say(&format!(
        "a change of a limit takes {median:?}, {:?} at the 99th percentile",
        times[times.len() * 99 / 100]
    ));
    assert!(median < Duration::from_millis(1), "{median:?}");
}

fn wait(child: &mut Child) -> bool {
    let done = eventually(|| child.try_wait().expect("wait"));
    done.expect("it ends").success()
}

#[test]
fn a_file_that_is_no_limit_is_malformed() {
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), "many\n").expect("write");
    let lever = Lever::from_descriptors(file.into_file().into(), None).expect("lever");
    let text = elastic_mem::kernel::chain(&lever.get().expect_err("no number"));
    assert!(text.contains("many"), "{text}");
}
