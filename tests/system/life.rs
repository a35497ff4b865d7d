//! The memory of a container in the phases of its life: what requests do not touch goes out, an idle container gives up
//! more step by step, and what requests touch comes back.
//!
//! The function holds memory that only its initialization uses, and some that each request reads. It rests between
//! requests, which come through a named pipe.

use std::fs;
use std::io::Write;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::wait_until;
use crate::harness::{Case, Outcome, eventually, ours_beyond_runc, processes};
use crate::machine::{MIB, anon_on, far_nodes};
use crate::placement::{Host, monitor, placement};

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
        // What is needed all the same comes back.
        request(c, &outcome, "all");
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
            "placement.policy = \"faasmem\"\nplacement.semi-warm-after = \"1s\"",
        );
        // What works on without a rest after its start is taken for initialization.
        wait_until("it rests", || life(c)["phase"] == "keep-alive");
        ask(c, "busy");
        wait_until("it works", || life(c)["phase"] == "execution");
        std::thread::sleep(Duration::from_secs(8));
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
