//! The memory of a container in the phases of its life: what requests do not touch goes out, an idle container gives up
//! more step by step, and what requests touch comes back.
//!
//! The function holds memory that only its initialization uses, and some that each request reads. It rests between
//! requests, which come through a named pipe.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use elastic_mem::kernel::numa::{self, Placed};
use elastic_mem::kernel::pages;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::wait_until;
use crate::harness::{Case, Outcome, eventually, ours_beyond_runc, processes};
use crate::machine::{MIB, anon_on, far_nodes};
use crate::placement::{Host, is_near, monitor, placement};

/// A function with so many MiB that only its initialization uses, and so many that each request reads.
fn function(cold: u64, hot: u64) -> String {
    let (cold, hot) = (cold * MIB, hot * MIB);
    format!(
        "mkfifo /dev/shm/requests; \
         x=$(head -c {cold} /dev/zero | tr '\\0' x); y=$(head -c {hot} /dev/zero | tr '\\0' y); echo ready; \
         while :; do read what </dev/shm/requests; case $what in \
         hot) echo hot ${{#y}};; all) echo all ${{#x}} ${{#y}};; busy) while :; do :; done;; esac; done"
    )
}

/// A container of the function, initialized, placed by these settings.
fn up(c: &mut Case, (cold, hot): (u64, u64), settings: &str) -> Outcome {
    let file = c.bundle.path().join("settings.toml");
    let folder = c.bundle.path().join("store");
    let text = format!(
        "memory.mode = \"observe\"\nprofile.folder = {:?}\n{settings}\n",
        folder.display().to_string()
    );
    fs::write(&file, text).expect("settings");
    c.configure(file);
    c.script(&function(cold, hot));
    let outcome = c.create();
    c.ok("start ID");
    wait_until("it is initialized", || {
        outcome.stdout_now().contains("ready")
    });
    outcome
}

/// Has it do something, without waiting for the answer.
fn ask(c: &Case, what: &str) {
    let path = format!("/proc/{}/root/dev/shm/requests", c.pid());
    let mut pipe = fs::OpenOptions::new().write(true).open(path).expect("pipe");
    writeln!(pipe, "{what}").expect("request");
}

/// What `metrics` tells of it by this name, of all series whose labels have this text.
fn metric(c: &Case, name: &str, label: &str) -> u64 {
    let text = c.call("metrics --with-id").stdout;
    let (head, id) = (format!("elastic_mem_{name}{{"), format!("id={:?}", c.id()));
    let mut lines = text.lines().filter(|line| line.starts_with(&head));
    let line = lines.find(|line| line.contains(&id) && line.contains(label));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value
        .unwrap_or_else(|| panic!("{name}: {text}"))
        .parse()
        .expect("a number")
}

/// Ends it; what the trace of its run tells of its placement.
fn told_at_the_end(c: &mut Case) -> Value {
    c.ok("kill ID KILL");
    c.wait_for("stopped");
    let store = c.bundle.path().join("store");
    let told = eventually(|| {
        let mut folders = vec![store.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).ok()?.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "csv") {
                    let text = fs::read_to_string(path).ok()?;
                    let end = text.lines().find_map(|line| line.strip_prefix("# end "));
                    if let Some(end) = end {
                        return serde_json::from_str::<Value>(end).ok();
                    }
                }
            }
        }
        None
    });
    c.ok("delete --force ID");
    told.expect("a trace that has ended")["placed"].clone()
}

/// A request from begin to end.
fn request(c: &mut Case, outcome: &Outcome, what: &str) {
    let before = outcome.stdout_now().matches(what).count();
    c.ok("phase ID begin");
    ask(c, what);
    wait_until("it answers", || {
        outcome.stdout_now().matches(what).count() > before
    });
    c.ok("phase ID end");
}

fn life(c: &Case) -> Value {
    placement(c)["moved"]["life"].clone()
}

fn far(c: &Case) -> u64 {
    far_nodes().iter().map(|node| anon_on(c, *node)).sum()
}

/// The container has served so many requests, and what they touch is known.
fn served(c: &mut Case, outcome: &Outcome, requests: u64) {
    // Between its initialization and the first request it rests.
    wait_until("it rests", || life(c)["phase"] == "keep-alive");
    for number in 1..=requests {
        request(c, outcome, "hot");
        wait_until("what it touched is found out", || {
            life(c)["requests"].as_u64() >= Some(number)
        });
    }
}

#[test]
fn what_only_the_initialization_used_goes_out_and_nothing_else() {
    let Some(_host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        let outcome = up(c, (24, 8), "placement.policy = \"faasmem\"");
        served(c, &outcome, 1);
        assert_eq!(far(c), 0, "one request tells too little: {}", placement(c));
        served(c, &outcome, 3);
        let gone = eventually(|| (far(c) > 22 * MIB).then_some(()));
        assert!(gone.is_some(), "{}", placement(c));
        std::thread::sleep(Duration::from_secs(3));
        let found = placement(c);
        // What requests read is where it was, and at most as much of what lies beside it as a part has.
        assert!(far(c) <= 25 * MIB, "{found}");
        assert!(
            found["moved"]["life"]["touched"].as_u64() >= Some(8 * MIB),
            "{found}"
        );
        assert_eq!(found["moved"]["life"]["back"], 0, "{found}");
        // Requests go on, and nothing is moved any more.
        for _ in 0..3 {
            request(c, &outcome, "hot");
        }
        let later = placement(c);
        assert_eq!(
            later["moved"]["life"]["out"], found["moved"]["life"]["out"],
            "{later}"
        );
        assert_eq!(later["moved"]["life"]["back"], 0, "{later}");
        // What is needed all the same comes back: once that is found out, or with the next request, if until then it was
        // idle for longer than ever before and gave up memory for that.
        request(c, &outcome, "all");
        wait_until("what it touched is found out", || {
            life(c)["touched"].as_u64() > Some(30 * MIB)
        });
        request(c, &outcome, "hot");
        let back = eventually(|| (far(c) < 2 * MIB).then_some(()));
        assert!(back.is_some(), "{}", placement(c));
        let text = c.call("placement ID").stdout;
        assert!(text.contains("pages went out"), "{text}");
        c.ok("delete --force ID");
    });
}

#[test]
fn an_idle_container_gives_up_memory_in_steps_and_has_it_back_for_the_next_request() {
    let Some(_host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        let outcome = up(
            c,
            (16, 16),
            "placement.policy = \"faasmem\"\nplacement.semi-warm-after = \"45s\"",
        );
        served(c, &outcome, 3);
        wait_until("what is cold is out", || {
            let found = placement(c);
            found["moved"]["pending"] == 0 && found["moved"]["life"]["out"].as_u64() > Some(3600)
        });
        let warm = far(c);
        // More than that goes out, step by step: of 16 MiB that requests read half stays.
        let mut steps = Vec::new();
        wait_until("it is idle for long", || {
            let found = life(c);
            let step = found["step"].as_u64().unwrap_or(0);
            if steps.last() != Some(&step) {
                steps.push(step);
            }
            far(c) > warm + 2 * MIB
        });
        assert!(
            steps.is_sorted() && steps.len() > 2,
            "{steps:?}: {}",
            placement(c)
        );
        let came = life(c)["back"].as_u64().expect("pages");
        // A request is announced: what requests read is there before it is read.
        c.ok("phase ID begin");
        let back = eventually(|| (far(c) <= warm + MIB / 2).then_some(()));
        assert!(back.is_some(), "{}", placement(c));
        let pages = life(c)["back"].as_u64().expect("pages") - came;
        assert!(pages >= 2 * MIB / 4096, "{}", placement(c));
        ask(c, "hot");
        c.ok("phase ID end");
        c.ok("delete --force ID");
    });
}

#[test]
fn a_container_that_is_always_busy_is_left_alone() {
    let Some(_host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        let _outcome = up(
            c,
            (24, 8),
            "placement.policy = \"faasmem\"\nplacement.semi-warm-after = \"10s\"",
        );
        // Else what it does belongs to its initialization.
        wait_until("it rests", || life(c)["phase"] == "keep-alive");
        ask(c, "busy");
        wait_until("it works", || life(c)["phase"] == "execution");
        std::thread::sleep(Duration::from_secs(12));
        let found = placement(c);
        assert_eq!(found["moved"]["life"]["requests"], 0, "{found}");
        assert_eq!(found["moved"]["moved"], 0, "{found}");
        c.ok("delete --force ID");
    });
}

#[test]
fn a_killed_monitor_leaves_the_function_as_it_is() {
    let Some(_host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        let outcome = up(c, (24, 8), "placement.policy = \"faasmem\"");
        served(c, &outcome, 3);
        // While it looks, or moves, or after that.
        processes::signal(monitor(c), Signal::SIGKILL);
        let before = outcome.stdout_now().matches("hot").count();
        ask(c, "hot");
        wait_until("it answers", || {
            outcome.stdout_now().matches("hot").count() > before
        });
        assert_eq!(c.status(), "running");
        c.ok("delete --force ID");
    });
}

#[test]
fn pond_moves_no_more_than_earlier_runs_left_untouched() {
    let Some(_host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        let pond = "placement.policy = \"pond\"";
        let outcome = up(c, (24, 8), pond);
        served(c, &outcome, 3);
        std::thread::sleep(Duration::from_secs(3));
        let found = placement(c);
        assert_eq!(far(c), 0, "nothing is known of earlier runs: {found}");
        let touched = found["moved"]["life"]["touched"].as_u64();
        assert!(touched >= Some(8 * MIB), "{found}");
        c.ok("kill ID KILL");
        c.wait_for("stopped");
        c.ok("delete --force ID");
        let outcome = up(c, (24, 8), pond);
        let found = placement(c);
        let least = found["placement"]["life"]["least"].as_f64().expect("ratio");
        assert!((0.1..0.9).contains(&least), "{found}");
        served(c, &outcome, 3);
        let gone = eventually(|| (far(c) > 16 * MIB).then_some(()));
        assert!(gone.is_some(), "{}", placement(c));
        c.ok("delete --force ID");
    });
}

#[test]
fn what_requests_read_goes_out_and_is_back_before_the_next_one_is_expected() {
    // Of 8 MiB that no request reads all stays out.
    is_back_before_the_next_request("faasmem", 10 * MIB);
}

#[test]
fn pond_too_has_it_back_and_with_it_what_earlier_runs_do_not_tell_of() {
    is_back_before_the_next_request("pond", MIB);
}

/// By this policy, which leaves less than so much out for a request.
fn is_back_before_the_next_request(policy: &str, left: u64) {
    let Some(_host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        let rest = Duration::from_secs(35);
        let outcome = up(c, (8, 24), &format!("placement.policy = {policy:?}"));
        wait_until("it rests", || life(c)["phase"] == "keep-alive");
        for number in 1..=5 {
            request(c, &outcome, "hot");
            wait_until("what it touched is found out", || {
                life(c)["requests"].as_u64() >= Some(number.min(3))
            });
            std::thread::sleep(rest);
        }
        request(c, &outcome, "hot");
        wait_until("the next one is expected", || {
            let text = life(c)["expected"].to_string();
            text.starts_with("\"expected 3")
        });
        let before = life(c);
        assert_eq!(before["predicted"], 0, "{before}");
        // 8 MiB that no request reads, and 16 of the 24 that each reads.
        let asleep = std::time::Instant::now();
        wait_until("what requests read is out", || far(c) > 22 * MIB);
        assert!(
            asleep.elapsed() < Duration::from_secs(25),
            "{}",
            placement(c)
        );
        wait_until("it is back", || far(c) < left);
        assert!(asleep.elapsed() < rest, "{}", placement(c));
        let back = life(c);
        let came = |found: &Value| found["back"].as_u64().expect("pages");
        assert!(came(&back) >= came(&before) + 15 * MIB / 4096, "{back}");
        std::thread::sleep(rest.saturating_sub(asleep.elapsed()));
        request(c, &outcome, "hot");
        wait_until("it is counted", || life(c)["predicted"] == 1);
        let later = life(c);
        assert_eq!(later["early"], 0, "{later}");
        let text = c.call("placement ID").stdout;
        assert!(text.contains("1 predicted, 0 of them"), "{text}");
        // One that comes sooner has what it needs, and is counted.
        wait_until("what requests read is out", || far(c) > 22 * MIB);
        c.ok("phase ID begin");
        wait_until("what it reads is back", || far(c) < 10 * MIB);
        ask(c, "hot");
        c.ok("phase ID end");
        wait_until("it is counted", || life(c)["early"] == 1);
        let told = ["in-time", "early"].map(|result| metric(c, "expected_requests_total", result));
        assert_eq!(told, [1, 1]);
        let told = told_at_the_end(c);
        assert_eq!(
            (&told["predicted"], &told["early"]),
            (&2.into(), &1.into()),
            "{told}"
        );
    });
}

/// How many pages full of this letter the container has, and how many of them are local.
fn pages_of(c: &Case, letter: u8) -> (usize, usize) {
    let pid = c.pid();
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("memory");
    let mut found = Vec::new();
    for area in pages::areas(pid).expect("areas") {
        let mut map = pages::Map::open(pid).expect("pages");
        map.present(&area, |page| {
            found.push(page.address);
            true
        })
        .expect("pages");
    }
    let mut bytes = [0; 4096];
    found.retain(|address| {
        let read = memory.read_exact_at(&mut bytes, *address);
        read.is_ok() && bytes.iter().all(|byte| *byte == letter)
    });
    let nodes = numa::nodes_of(pid, &found).expect("nodes");
    let far = far_nodes();
    let near = |placed: &&Placed| matches!(placed, Placed::On(node) if !far.contains(node));
    (found.len(), nodes.iter().filter(near).count())
}

#[test]
fn at_a_ratio_what_requests_read_becomes_local_and_the_ratio_stays() {
    let Some(_host) = Host::new() else { return };
    // Reached by moving pages, and by the weights.
    for own in [false, true] {
        ours_beyond_runc(|c| {
            let ratio = "[functions.\"*\"]\nlocal-ratio = 0.5";
            let outcome = up(c, (24, 8), &format!("weights.own = {own}\n{ratio}"));
            wait_until("the ratio is reached", || {
                let found = placement(c);
                is_near(c, 0.5, 3.0) && found["moved"]["pending"].as_u64().unwrap_or(0) == 0
            });
            let (all, near) = pages_of(c, b'y');
            assert!(all > 2000, "8 MiB of it: {all}");
            assert!(near < all * 3 / 4, "{near} of {all} by the rule alone");
            let exchanged = |found: &Value| found["moved"]["exchanged"].as_u64().unwrap_or(0);
            let done = eventually(|| {
                request(c, &outcome, "hot");
                std::thread::sleep(Duration::from_secs(2));
                let found = placement(c);
                assert!(is_near(c, 0.5, 5.0), "never lost: {found}");
                (exchanged(&found) > 0 && found["moved"]["pending"] == 0).then_some(found)
            });
            let done = done.unwrap_or_else(|| panic!("{}", placement(c)));
            let (all, near) = pages_of(c, b'y');
            assert!(near > all * 98 / 100, "{near} of {all} are local: {done}");
            assert!(is_near(c, 0.5, 3.0), "{done}");
            // Soon there is nothing to gain any more. On a busy host not all is seen of the first requests.
            let mut later = done;
            let is_at_rest = (0..4).any(|_| {
                let before = later["moved"]["moved"].clone();
                for _ in 0..4 {
                    request(c, &outcome, "hot");
                    std::thread::sleep(Duration::from_secs(1));
                }
                later = placement(c);
                later["moved"]["moved"] == before
            });
            assert!(is_at_rest, "{later}");
            let text = c.call("placement ID").stdout;
            assert!(text.contains("hot pages came in"), "{text}");
            for name in ["moved", "exchanged", "refused"] {
                let told = metric(c, &format!("{name}_pages_total"), "");
                assert_eq!(later["moved"][name], told, "{name}: {later}");
            }
            let told = told_at_the_end(c);
            assert_eq!(told["moved"], later["moved"]["moved"], "{told}");
            assert_eq!(told["exchanged"], later["moved"]["exchanged"], "{told}");
        });
    }
}

/// What the thread that places memory has read and written so far: calls that read, their bytes, calls that wrote.
fn read_and_written(c: &Case) -> [u64; 3] {
    let tasks = fs::read_dir(format!("/proc/{}/task", monitor(c))).expect("threads");
    let of_thread = |name: &str| {
        let mut tasks = tasks.flatten();
        let task = tasks.find(|task| {
            let comm = fs::read_to_string(task.path().join("comm"));
            comm.is_ok_and(|comm| comm.trim() == name)
        });
        fs::read_to_string(task.expect("the thread").path().join("io")).expect("counters")
    };
    let text = of_thread("placing");
    ["syscr: ", "rchar: ", "syscw: "].map(|key| {
        let found = text.lines().find_map(|line| line.strip_prefix(key));
        found.expect("a counter").parse().expect("a number")
    })
}

/// What was done to reach the ratio.
fn done(c: &Case) -> [Value; 2] {
    let found = placement(c);
    ["searches", "moved"].map(|key| found["moved"][key].clone())
}

#[test]
fn at_its_ratio_a_container_costs_one_reading_a_second_and_nothing_else() {
    let Some(_host) = Host::new() else { return };
    for (policy, own, ratio) in [
        ("local", false, 1.0),
        ("remote", false, 0.0),
        // Given by the weights, and by moving pages.
        ("interleave=1:1", true, 0.5),
        ("interleave=1:1", false, 0.5),
    ] {
        ours_beyond_runc(|c| {
            let settings = format!("placement.policy = {policy:?}\nweights.own = {own}");
            let outcome = up(c, (8, 8), &settings);
            wait_until("the ratio is reached", || {
                let found = placement(c);
                let is_done = found["moved"]["pending"].as_u64().unwrap_or(0) == 0;
                // That a page was in use is forgotten, and told, by the next look.
                is_near(c, ratio, 3.0) && is_done && found["moved"].get("why").is_none()
            });
            std::thread::sleep(Duration::from_secs(2));
            let (moved, before) = (done(c), read_and_written(c));
            let begun = std::time::Instant::now();
            // It works now and then, and nobody tells of a request.
            for _ in 0..4 {
                let answers = outcome.stdout_now().matches("hot").count();
                ask(c, "hot");
                wait_until("it answers", || {
                    outcome.stdout_now().matches("hot").count() > answers
                });
                std::thread::sleep(Duration::from_secs(3));
            }
            let after = read_and_written(c);
            let seconds = begun.elapsed().as_secs();
            let [calls, bytes, writes] = [0, 1, 2].map(|at| after[at] - before[at]);
            let what = format!("{policy}, {own}: {calls} calls, {bytes} bytes in {seconds} s");
            assert!(calls >= seconds / 4, "nobody looks: {what}");
            assert!(calls <= seconds + 2, "more than the tick: {what}");
            // One file of its control group.
            let length = c.cgroup_file("memory.numa_stat").len();
            let most = calls * (u64::try_from(length).expect("length") + 64);
            assert!(
                bytes <= most,
                "more than one file of {length} bytes: {what}"
            );
            assert_eq!(writes, 0, "{what}");
            assert_eq!(done(c), moved, "{what}");
            // Requests that somebody tells of are looked at, if there is something to be gained.
            let before = read_and_written(c);
            let begun = std::time::Instant::now();
            for _ in 0..2 {
                request(c, &outcome, "hot");
                std::thread::sleep(Duration::from_secs(2));
            }
            let calls = read_and_written(c)[0] - before[0];
            let ticks = begun.elapsed().as_secs() + 6;
            assert_eq!(calls > ticks, ratio == 0.5, "{policy}: {calls}, {ticks}");
            c.ok("delete --force ID");
        });
    }
}
