//! `trace --mode`: a function below the autotuner, with the limit that it is granted.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use elastic_mem::model::MemoryLimit;
use elastic_mem::model::trace::Trace;
use serde_json::Value;

use crate::harness::{Case, eventually, ours_beyond_runc};
use crate::trace::Place;

/// What the function declares, in bytes.
const CEILING: i64 = 256 << 20;

/// Holds 16 MiB for a while.
const HOLD: &str = "x=$(head -c 16777216 /dev/zero | tr '\\0' x); sleep 0.3; :";

/// A function of which three runs are known.
fn known(c: &Case, script: &str) -> Place {
    let place = Place::new();
    let out = place.script(c, &["-n", "3", "--memory", "256m"], script);
    assert_eq!(out.code, 0, "{out}");
    place
}

fn mode(trace: &Trace) -> &str {
    let context = trace.context.as_ref().expect("context");
    context.mode.as_deref().expect("mode")
}

/// The limits that were in force, in their order.
fn limits(trace: &Trace) -> Vec<MemoryLimit> {
    trace
        .granted()
        .expect("limits")
        .iter()
        .map(|s| s.value)
        .collect()
}

/// Whether it was looked at as often as is promised, with room to spare: not where the host is given no processor.
fn was_seen_in_time(trace: &Trace) -> bool {
    let late = Duration::from_millis(20);
    let looks = trace.samples.windows(2);
    let mut apart = looks.map(|pair| pair[1].at.saturating_sub(pair[0].at));
    apart.all(|time| time < late)
}

#[test]
fn a_known_function_is_granted_what_it_needs() {
    ours_beyond_runc(|c| {
        let place = known(c, HOLD);
        for wanted in ["static", "replay", "elastic"] {
            let picture = place.path("grant.svg");
            let plot = picture.to_string_lossy().into_owned();
            let one = ["-n", "1", "--memory", "256m", "--no-store"];
            let options = [&one[..], &["--mode", wanted, "--plot", &plot]].concat();
            let run = || {
                let out = place.script(c, &options, HOLD);
                assert_eq!(out.code, 0, "{out}");
                let head = "RUN  MODE ";
                assert!(out.stdout.starts_with(head), "{out}");
                assert!(!out.stderr.contains("mode observe"), "{out}");
                let trace = place.traces().pop().expect("trace");
                assert_eq!(mode(&trace), wanted);
                assert_eq!(trace.end.expect("end").oom_kills, 0);
                let drawn = fs::read_to_string(&picture).expect("picture");
                assert!(
                    drawn.contains(">grant<"),
                    "the last run is drawn with its grant"
                );
                trace
            };
            // A run that nobody could see grow says nothing of its grant.
            let mut runs = (0..10).map(|_| run());
            let trace = runs.find(was_seen_in_time).expect("a run seen in time");
            assert_eq!(trace.times_met(), Some(0), "{wanted}: {trace}");
            // In force from the first instruction on, and never more than a static grant.
            let most = MemoryLimit::Bytes(CEILING / 2);
            for limit in limits(&trace) {
                assert_eq!(limit.lower(most), limit, "{wanted}: {limit:?}");
            }
        }
    });
}

#[test]
fn without_a_profile_the_function_is_observed_and_told_so() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let options = ["-n", "2", "--memory", "256m", "--mode", "elastic"];
        let out = place.script(c, &options, HOLD);
        assert_eq!(out.code, 0, "{out}");
        let told =
            "mode observe, not elastic: elastic (option --mode), but fewer than 3 complete runs";
        assert_eq!(out.stderr.matches(told).count(), 1, "{out}");
        for trace in place.traces() {
            assert_eq!(mode(&trace), "observe");
            let ceiling = MemoryLimit::Bytes(CEILING);
            assert!(limits(&trace).iter().all(|limit| *limit == ceiling));
        }
    });
}

#[test]
fn with_mode_off_nobody_looks_and_nothing_is_learned() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let out = place.script(c, &["-n", "1", "--mode", "off"], HOLD);
        assert_eq!(out.code, 0, "{out}");
        assert!(!out.stdout.contains("learned"), "{out}");
        assert!(!place.path("store/functions").exists());
        let traces = place.traces();
        assert_eq!(traces[0].samples.len(), 2);
        assert!(traces[0].end.expect("end").peak.expect("peak").get() > 16 << 20);
        let out = place.script(c, &["--mode", "off", "--plot", "a.svg"], "true");
        assert_eq!(out.code, 1, "{out}");
        assert!(out.stderr.contains("nobody looks at the memory"), "{out}");
    });
}

/// I3.
#[test]
fn i3_a_killed_trace_leaves_no_limit_behind() {
    ours_beyond_runc(|c| {
        let script = "echo >/flag/up; sleep 20";
        let place = known(c, "sleep 0.1");
        let flag = place.path("flag");
        fs::create_dir(&flag).expect("folder");
        let mount = format!("{}:/flag", flag.display());
        let mut running = place
            .cmd(c)
            .arg("--rootfs")
            .arg(c.rootfs())
            .args(["--mode", "elastic", "--memory", "256m", "--mount", &mount])
            .args(["--", "sh", "-c", script])
            .spawn();
        eventually(|| flag.join("up").exists().then_some(())).expect("a run");
        let group = group(&place);
        let file = ["memory.limit_in_bytes", "memory.high"]
            .map(|name| group.join(name))
            .into_iter()
            .find(|file| file.exists())
            .expect("a limit");
        let limit = || fs::read_to_string(&file).expect("limit").trim().to_owned();
        let is_lowered = || limit().parse::<i64>().is_ok_and(|limit| limit < CEILING);
        eventually(|| is_lowered().then_some(())).expect("a grant");
        running.child.kill().expect("kill");
        running.child.wait().expect("wait");
        let given_back = eventually(|| (!is_lowered()).then_some(()));
        assert!(given_back.is_some(), "{} is {}", file.display(), limit());
        let killer = group.join("memory.oom_control");
        if killer.exists() {
            let is_on = || {
                let text = fs::read_to_string(&killer).expect("OOM killer");
                text.contains("oom_kill_disable 0").then_some(())
            };
            eventually(is_on).expect("the OOM killer");
        }
        // Removes what is left.
        let out = place.script(c, &["-n", "1"], "true");
        assert_eq!(out.code, 0, "{out}");
    });
}

/// The control group with the memory of the only container.
fn group(place: &Place) -> PathBuf {
    let left = place.left();
    let states = place.path("store/tracing").join(&left[0]).join("state");
    let container = fs::read_dir(states)
        .expect("state")
        .flatten()
        .next()
        .expect("container");
    let state = fs::read(container.path().join("state.json")).expect("state");
    let state: Value = serde_json::from_slice(&state).expect("JSON");
    let folders = state["cgroup"]["directories"].as_array().expect("groups");
    folders
        .iter()
        .map(|folder| PathBuf::from(folder["path"].as_str().expect("path")))
        .find(|path| {
            path.join("memory.limit_in_bytes").exists() || path.join("memory.high").exists()
        })
        .expect("memory")
}
