//! Limits that follow a container which the monitor looks after, as below Docker. tests/system runs them too, so that
//! they also run on cgroup v2.

#[path = "grants/tuned.rs"]
mod tuned;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use elastic_mem::model::trace::Sample;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
pub use tuned::{CEILING, MIB, elastic, is_granted_less, key, monitor};
use tuned::{
    ask, client, file, grant, guardian, has_oom_killer, is_given_back, is_granted_steadily, met,
    number, oom_kills, store, the_trace, told_ceiling, write_limit,
};

use crate::common::{eventually, wait_until};
use crate::harness::{Case, cgroups, processes, say, skip};

#[test]
fn i2_an_idle_container_is_granted_what_it_needs_and_never_more_than_declared() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        assert_eq!(has_oom_killer(c), cgroups::is_unified());
        let usage = cgroups::by_version("memory.usage_in_bytes", "memory.current");
        // Where looks are late more is kept free for a while.
        wait_until("it is granted what it needs", || {
            let used: u64 = c.cgroup_file(usage).parse().expect("usage");
            let granted = grant(c).expect("less");
            granted >= used + 7 * MIB && granted <= used + 16 * MIB
        });
    });
}

/// What the kernel tells a process of at once: files that an epoll instance of it waits for a change of.
fn waits_for_changes_of(pid: i32) -> Vec<PathBuf> {
    let of = |folder: &str, name: &str| format!("/proc/{pid}/{folder}/{name}");
    let mut found = Vec::new();
    for entry in fs::read_dir(of("fdinfo", ""))
        .expect("descriptors")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(of("fdinfo", &name)).unwrap_or_default();
        for line in text.lines().filter(|line| line.starts_with("tfd:")) {
            let mut words = line.split_ascii_whitespace().skip(1).step_by(2);
            let (watched, events) = (words.next().expect("tfd"), words.next().expect("events"));
            let events = u32::from_str_radix(events, 16).expect("a mask");
            if events & libc::EPOLLPRI.cast_unsigned() != 0 {
                found.push(fs::read_link(of("fd", watched)).expect("a descriptor"));
            }
        }
    }
    found
}

#[test]
fn the_kernel_tells_whoever_moves_a_limit_that_the_high_mark_is_met() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        let group = cgroups::dirs(c.cgroup()).into_iter();
        let mut files = group.map(|dir| dir.join("memory.events.local"));
        let expected: Vec<_> = files.find(|file| file.exists()).into_iter().collect();
        assert_eq!(expected.is_empty(), !cgroups::is_unified());
        assert_eq!(waits_for_changes_of(monitor(c)), expected);
    });
}

#[test]
fn i10_a_container_that_grows_beyond_what_is_known_ends_as_it_would_have() {
    elastic(|c| {
        // 100 MiB at once, where 40 were known, and again and again.
        c.script("for i in 1 2 3 4 5 6; do dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null || exit 9; sleep 0.3; done");
        c.create();
        c.ok("start ID");
        while c.status() == "running" {
            assert!(grant(c).is_none_or(|grant| grant < CEILING));
        }
        assert_eq!(oom_kills(c), "0");
        let trace = the_trace(c);
        assert!(
            trace
                .peak(|s| s.usage)
                .is_some_and(|peak| peak.get() > 100 * MIB)
        );
        assert_eq!(trace.end.expect("end").oom_kills, 0);
        assert_eq!(
            trace.context.expect("context").mode.as_deref(),
            Some("elastic")
        );
        let limits = trace
            .samples
            .iter()
            .filter_map(|s| s.high.or(s.limit))
            .count();
        assert!(limits > 2, "{limits}");
    });
}

/// I3, I8.
#[test]
fn i3_a_killed_monitor_leaves_no_limit_behind() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        assert!(processes::signal(monitor(c), Signal::SIGKILL));
        is_given_back(c);
    });
}

#[test]
fn i3_a_monitor_that_stands_still_leaves_no_limit_behind() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        let monitor = monitor(c);
        assert!(processes::signal(monitor, Signal::SIGSTOP));
        is_given_back(c);
        // It goes on as if somebody else had written the limit, and grants again after a hold.
        assert!(processes::signal(monitor, Signal::SIGCONT));
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(grant(c), None);
        is_granted_less(c);
    });
}

/// With nobody left of those who watch over each other, whoever comes next gives the limit back before it acts.
#[test]
fn i3_the_next_verb_gives_back_what_a_monitor_and_a_guardian_had_taken() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        let both = [monitor(c), guardian(c, 0).expect("a guardian")];
        // Neither sees the other's end.
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            for pid in both {
                assert!(processes::signal(pid, signal), "{signal} {pid}");
            }
        }
        wait_until("both are gone", || {
            both.iter().all(|pid| !processes::is_alive(*pid))
        });
        assert!(grant(c).is_some(), "nobody gave it back");
        // It needs more than was granted.
        c.ok("exec ID dd if=/dev/zero of=/dev/null bs=100M count=1");
        is_given_back(c);
        assert_eq!(oom_kills(c), "0");
    });
}

#[test]
fn i3_a_killed_guardian_is_replaced() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        let first = guardian(c, 0).expect("a guardian");
        assert!(processes::signal(first, Signal::SIGKILL));
        wait_until("another one", || guardian(c, first).is_some());
        is_granted_less(c);
        assert!(processes::signal(monitor(c), Signal::SIGKILL));
        is_given_back(c);
    });
}

#[test]
fn i4_a_limit_that_somebody_else_wrote_stays() {
    elastic(|c| {
        c.up();
        is_granted_steadily(c);
        let theirs = 100 * MIB;
        write_limit(c, Some(theirs));
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            assert_eq!(grant(c), Some(theirs));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(has_oom_killer(c));
        // Reset to what was declared, it is granted again.
        write_limit(c, None);
        is_granted_less(c);
    });
}

/// Whoever moves the limit stands still while the container grows: it has to wait, and goes on once somebody looks.
#[test]
fn i10_a_container_that_meets_its_limit_goes_on() {
    elastic(|c| {
        c.script(
            "until [ -e /dev/shm/go ]; do sleep 0.05; done; \
             dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null && touch /dev/shm/done; exec sleep 1000",
        );
        c.create();
        c.ok("start ID");
        is_granted_less(c);
        let seen = |name: &str| format!("/proc/{}/root/dev/shm/{name}", c.pid());
        let both = [monitor(c), guardian(c, 0).expect("a guardian")];
        let signal = |signal| {
            for pid in both {
                assert!(processes::signal(pid, signal), "{signal} {pid}");
            }
        };
        signal(Signal::SIGSTOP);
        fs::write(seen("go"), "").expect("go");
        wait_until("it meets its limit", || met(c) > 0);
        assert!(fs::metadata(seen("done")).is_err(), "nothing held it up");
        signal(Signal::SIGCONT);
        wait_until("it goes on", || fs::metadata(seen("done")).is_ok());
        let status = |key: &str| -> Value {
            let answer = ask(&client(c), r#"{"status":true}"#);
            serde_json::from_str::<Value>(&answer).expect("JSON")[key].clone()
        };
        assert!(status("met").as_u64() > Some(0), "it was not seen");
        assert_eq!((c.status(), oom_kills(c)), ("running".into(), "0".into()));
        is_granted_less(c);
        c.ok("kill ID KILL");
        c.wait_for("stopped");
        let trace = the_trace(c);
        if cgroups::is_unified() {
            let is_in_one = |is: fn(&Sample) -> bool| trace.samples.iter().any(is);
            assert!(is_in_one(|s| s.ev_high > Some(0)), "memory.events");
            let waited = |s: &Sample| s.psi_some > Some(Duration::ZERO);
            assert!(is_in_one(waited), "memory.pressure");
        }
    });
}

/// What was read or written and is not needed now goes, and nothing else does.
#[test]
fn an_idle_container_gives_up_its_page_cache() {
    if !cgroups::is_unified() && !no_swap() {
        return skip("cgroup v1 would swap out");
    }
    // A file system whose pages can be dropped.
    let data = tempfile::tempdir_in("/var/tmp").expect("folder");
    elastic(|c| {
        let mount = json!({"destination": "/data", "type": "bind", "source": data.path(), "options": ["bind", "rw"]});
        let mounts = &mut c.spec()["mounts"];
        mounts.as_array_mut().expect("mounts").push(mount);
        c.script(
            "x=$(head -c 8388608 /dev/zero | tr '\\0' x); dd if=/dev/zero of=/data/file bs=1M count=20 conv=fsync \
             2>/dev/null; touch /dev/shm/done; while :; do sleep 1000 & wait; done",
        );
        c.create();
        c.ok("start ID");
        let done = format!("/proc/{}/root/dev/shm/done", c.pid());
        wait_until("it has written", || fs::metadata(&done).is_ok());
        let of = |key: &str| {
            let text = c.cgroup_file("memory.stat");
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("{key}: {text}"))
                .parse::<u64>()
                .expect("bytes")
        };
        let cache = || match cgroups::is_unified() {
            true => of("file ") - of("shmem "),
            false => of("cache ") - of("shmem "),
        };
        let held = || of(cgroups::by_version("rss ", "anon "));
        assert!(cache() >= 16 * MIB, "{}", cache());
        wait_until("its page cache is dropped", || cache() < 4 * MIB);
        assert!(held() >= 8 * MIB, "{}", held());
        assert_eq!((c.status(), oom_kills(c)), ("running".into(), "0".into()));
    });
}

fn no_swap() -> bool {
    let text = fs::read_to_string("/proc/swaps").expect("swaps");
    text.lines().count() < 2
}

/// An update that is refused changes nothing.
#[test]
fn i2_an_update_below_what_is_used_is_refused_and_changes_nothing() {
    elastic(|c| {
        c.script("head -c 67108864 /dev/zero >/dev/shm/held; exec sleep 1000");
        c.create();
        c.ok("start ID");
        wait_until("it holds memory", || {
            let usage = cgroups::by_version("memory.usage_in_bytes", "memory.current");
            c.cgroup_file(usage).parse::<u64>().expect("usage") > 64 * MIB
        });
        let resources = json!({"memory": {"limit": 32 * MIB, "checkBeforeUpdate": true}});
        let command = c.cmd().args(c.words("update --resources - ID"));
        let outcome = command.stdin(resources.to_string()).output();
        c.expect_code("update", &outcome, 1);
        assert_eq!((c.status(), oom_kills(c)), ("running".into(), "0".into()));
        wait_until("its ceiling is as before", || {
            told_ceiling(c) == Some(CEILING)
        });
        wait_until("less is granted again", || grant(c).is_some());
    });
}

/// Raised before the process is there.
#[test]
fn i10_an_exec_has_all_that_was_declared() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        c.exec(
            "",
            "dd if=/dev/zero of=/dev/null bs=150M count=3 2>/dev/null",
        );
        assert_eq!((met(c), oom_kills(c)), (0, "0".to_owned()));
        is_granted_less(c);
    });
}

#[test]
fn i2_an_update_declares_another_ceiling() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        let ceiling = 128 * MIB;
        c.ok(&format!(
            "update --memory {ceiling} --memory-swap {ceiling} ID"
        ));
        let max = || number(c, "memory.limit_in_bytes", "memory.max");
        assert_eq!(max(), ceiling);
        is_granted_less(c);
        // That is what is given back.
        assert!(processes::signal(monitor(c), Signal::SIGKILL));
        wait_until("the new ceiling is granted", || max() == ceiling);
        wait_until("the OOM killer is on", || has_oom_killer(c));
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(max(), ceiling);
    });
}

#[test]
fn i2_the_limit_of_a_group_above_counts_after_a_verb_too() {
    elastic(|c| {
        let path = format!("{}/in", c.cgroup());
        c.spec()["linux"]["cgroupsPath"] = json!(path);
        // The group above stays, and can be limited.
        c.up();
        c.ok("delete --force ID");
        let above = 96 * MIB;
        let file = cgroups::by_version("memory.limit_in_bytes", "memory.max");
        let mut files = cgroups::dirs(c.cgroup())
            .into_iter()
            .map(|dir| dir.join(file));
        let file = files.find(|file| file.exists()).expect("a limit");
        fs::write(&file, above.to_string()).expect("limit");
        c.up();
        wait_until("its ceiling is told", || told_ceiling(c) == Some(above));
        c.exec("", "true");
        // Longer than it is held, and than what is told is old.
        std::thread::sleep(Duration::from_millis(2500));
        assert_eq!(told_ceiling(c), Some(above));
        c.ok("delete --force ID");
        cgroups::remove(c.cgroup());
    });
}

#[test]
fn i4_an_update_that_ends_the_grants_stays() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        let theirs = match cgroups::is_unified() {
            true => {
                let theirs = 100 * MIB;
                let resources = json!({"unified": {"memory.high": theirs.to_string()}});
                let command = c.cmd().args(c.words("update --resources - ID"));
                let outcome = command.stdin(resources.to_string()).output();
                c.expect_code("update", &outcome, 0);
                theirs.to_string()
            }
            false => {
                // Without accounting of swap there is one limit only.
                let has_swap = cgroups::dirs(c.cgroup())
                    .iter()
                    .any(|dir| dir.join("memory.memsw.limit_in_bytes").exists());
                let swap = if has_swap { "--memory-swap -1" } else { "" };
                c.ok(&format!("update --memory -1 {swap} ID"));
                i64::MAX.to_string()
            }
        };
        // What is above all memory is kept in pages.
        let stands = |text: &str| match cgroups::is_unified() {
            true => text == theirs,
            false => text.parse::<i64>().is_ok_and(|limit| limit > i64::MAX / 2),
        };
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            let found = c.cgroup_file(file());
            assert!(stands(&found), "{found} after {:?}", start.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(has_oom_killer(c));
        assert_eq!(c.status(), "running");
    });
}

#[test]
fn i4_what_somebody_else_wrote_stays_when_the_monitor_is_killed() {
    elastic(|c| {
        c.up();
        is_granted_steadily(c);
        let theirs = 100 * MIB;
        write_limit(c, Some(theirs));
        // It is seen by then.
        std::thread::sleep(Duration::from_secs(1));
        wait_until("the OOM killer is on", || has_oom_killer(c));
        assert!(processes::signal(monitor(c), Signal::SIGKILL));
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(grant(c), Some(theirs));
    });
}

/// Longer than a limit stays at the ceiling after a verb.
fn stays_at_the_ceiling(c: &Case) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        assert_eq!(grant(c), None, "after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_paused_container_has_its_ceiling_until_it_is_resumed() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        c.ok("pause ID");
        stays_at_the_ceiling(c);
        // A verb that holds the limit too ends its own hold alone.
        c.ok("update --cpu-share 512 ID");
        stays_at_the_ceiling(c);
        c.ok("resume ID");
        is_granted_less(c);
    });
}

/// It does not matter who freezes it.
#[test]
fn a_container_that_somebody_froze_has_its_ceiling_until_it_is_thawed() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        let (file, frozen, thawed) = match cgroups::is_unified() {
            true => ("cgroup.freeze", "1", "0"),
            false => ("freezer.state", "FROZEN", "THAWED"),
        };
        let dirs = cgroups::dirs(c.cgroup()).into_iter();
        let file = dirs.map(|dir| dir.join(file)).find(|file| file.exists());
        let file = file.expect("a freezer");
        fs::write(&file, frozen).expect("freeze");
        wait_until("the ceiling is granted", || grant(c).is_none());
        stays_at_the_ceiling(c);
        fs::write(&file, thawed).expect("thaw");
        is_granted_less(c);
    });
}

#[test]
fn a_hold_outlasts_a_late_binding() {
    elastic(|c| {
        c.up();
        is_granted_less(c);
        let holder = client(c);
        assert_eq!(ask(&holder, r#"{"hold":true}"#), "{\"ok\":true}\n");
        assert_eq!(grant(c), None);
        // Nothing is known of the first one, so that its limit is not moved.
        for function in ["unknown", "known", "known"] {
            c.ok(&format!("bind ID --function {function}"));
            stays_at_the_ceiling(c);
        }
        drop(holder);
        is_granted_less(c);
        // None is left over, and a binding alone keeps the limit as it was declared.
        c.ok("bind ID --function unknown");
        wait_until("the ceiling is granted", || grant(c).is_none());
        c.ok("bind ID --function known");
        is_granted_less(c);
        let status = ask(&client(c), r#"{"status":true}"#);
        assert!(status.contains("\"holds\":0"), "{status}");
    });
}

#[test]
fn i1_a_profile_that_cannot_be_used_stops_nothing() {
    elastic(|c| {
        let functions = store(c).join("functions");
        for function in fs::read_dir(functions).expect("functions").flatten() {
            fs::write(function.path().join("profile.json"), "{\"version\":1").expect("write");
        }
        c.up();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(grant(c), None);
        assert_eq!(c.status(), "running");
    });
}

/// An OOM that the declared limit would have led to anyway ends the container as it always did.
#[test]
fn i10_an_oom_at_the_declared_limit_is_one() {
    elastic(|c| {
        c.spec()["linux"]["resources"]["memory"]["swap"] = json!(CEILING);
        c.script("dd if=/dev/zero of=/dev/null bs=400M count=1 2>/dev/null; echo $?; sleep 0.2");
        c.create();
        c.ok("start ID");
        c.wait_for("stopped");
        assert_eq!(oom_kills(c), "1");
        let trace = the_trace(c);
        assert_eq!(trace.end.expect("end").oom_kills, 1);
    });
}

/// The short form of `bench/elastic`, for where that cannot run: what is granted over time, what is used, and harm.
#[test]
fn what_is_granted_follows_what_is_used_and_harms_nobody() {
    elastic(|c| {
        // Slower than it grew before.
        let work = "for i in 1 2 3; do for mib in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
                    dd if=/dev/zero bs=1M count=1 2>/dev/null >>/dev/shm/held || exit 9; sleep 0.03; done; \
                    sleep 0.5; rm /dev/shm/held; sleep 0.5; done; exec sleep 1000";
        c.script(work);
        c.create();
        let started = c.ok("start ID");
        drop(started);
        let client = client(c);
        let status = || -> Value {
            serde_json::from_str(&ask(&client, r#"{"status":true}"#)).expect("JSON")
        };
        let usage = || {
            let file = cgroups::by_version("memory.usage_in_bytes", "memory.current");
            c.cgroup_file(file).parse::<u64>().expect("usage")
        };
        let start = Instant::now();
        let mut last = (Value::Null, 0);
        let rests = eventually(|| {
            last = (status(), usage());
            let (status, usage) = &last;
            let is_over = start.elapsed() > Duration::from_secs(4);
            (is_over && status["phase"] == "keep-alive" && *usage < 16 * MIB).then_some(())
        });
        assert!(rests.is_some(), "its work is not done: {last:?}");
        let status = status();
        let area = |key: &str| status[key].as_f64().expect(key);
        let (used, granted) = (area("usedByteSeconds"), area("grantedByteSeconds"));
        let (fixed, ceiling) = (area("staticByteSeconds"), area("ceilingByteSeconds"));
        say(&format!(
            "granted / used {:.2}, static / used {:.2}, ceiling / used {:.2}, {} raises, {} lowers",
            granted / used,
            fixed / used,
            ceiling / used,
            status["raises"],
            status["lowers"]
        ));
        assert!(
            used < granted && granted < fixed && fixed < ceiling,
            "{status}"
        );
        assert_eq!((met(c), oom_kills(c)), (0, "0".to_owned()), "{status}");
        assert_eq!(status["met"], 0, "{status}");
        assert_eq!(c.status(), "running");
    });
}
