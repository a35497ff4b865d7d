//! Traces that containers leave behind.

use std::fs;
use std::path::{Path, PathBuf};

use elastic_mem::model::Bytes;
use elastic_mem::model::trace::{Phase, Trace};

use crate::harness::{Case, Route, wait_until};

on_every_containerd! {
    a_run_leaves_a_trace,
    a_short_run_leaves_a_trace,
    a_container_that_wants_none_leaves_no_trace,
    a_function_that_is_off_leaves_no_trace,
    runs_in_parallel_leave_a_trace_each,
}

/// Reads 60 MiB into a buffer, several times.
const USES_60_MIB: &str = "dd if=/dev/zero of=/dev/null bs=62914560 count=20 2>/dev/null";
const MIB_60: u64 = 60 << 20;

/// Traces of a container that were taken into the store. Namespaces of tests are their own.
fn traces(c: &Case, name: &str) -> Vec<Trace> {
    let mut found = Vec::new();
    let mut rest: Vec<PathBuf> = vec![c.daemon.profiles().join("functions")];
    while let Some(path) = rest.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            rest.extend(entries.map(|entry| entry.path()));
        } else if path.extension().is_some_and(|ext| ext == "csv") {
            found.extend(trace_of(&path, &c.id(name)));
        }
    }
    found
}

fn trace_of(path: &Path, id: &str) -> Option<Trace> {
    // It may be on its way out.
    let text = fs::read_to_string(path).ok()?;
    let trace: Trace = text.parse().unwrap_or_else(|err| panic!("{path:?}: {err}"));
    let of_container = trace.context.as_ref()?.container.as_deref() == Some(id);
    of_container.then_some(trace)
}

/// The one trace of a container, once it is there; none of runc, which is asked only so that the scenario is known to be
/// right.
fn trace(c: &Case, name: &str) -> Option<Trace> {
    if c.route == Route::Oracle {
        return None;
    }
    wait_until("a trace", || !traces(c, name).is_empty());
    let mut found = traces(c, name);
    assert_eq!(found.len(), 1);
    found.pop()
}

fn a_run_leaves_a_trace(c: &mut Case) {
    let outcome = c
        .run("--rm", "a", &format!("{USES_60_MIB}; sleep 0.1; exit 3"))
        .output();
    assert_eq!(outcome.code, 3, "{outcome}");
    let Some(trace) = trace(c, "a") else { return };
    let context = trace.context.clone().expect("context");
    let function = format!("{}/{}", c.daemon.namespace, c.id("a"));
    assert_eq!(context.function.as_str(), function);
    assert_eq!(context.mode.as_deref(), Some("observe"));
    assert!(context.command.iter().any(|word| word.contains("exit 3")));
    let end = trace.end.expect("end");
    // Only a parent is told how a process ended.
    assert_eq!(end.code, (c.route == Route::Shim).then_some(3));
    let peak = trace.peak(|sample| sample.usage).expect("usage");
    let kernel = end.peak.expect("the kernel's counter");
    assert!(peak.get() >= MIB_60, "{peak}");
    assert!(peak <= kernel, "{peak} > {kernel}");
    let held = trace
        .samples
        .iter()
        .filter_map(|sample| sample.held())
        .max();
    assert!(held >= Some(Bytes::new(MIB_60)), "{held:?}");
    // From before its first instruction to after its last.
    let first = trace.samples.first().expect("first");
    assert!(first.held().expect("held").get() < 16 << 20, "{first:?}");
    let last = trace.samples.last().expect("last");
    assert_eq!(last.phase, Some(Phase::Exit));
    assert!(last.usage < Some(Bytes::new(MIB_60 / 2)), "{last:?}");
    assert!(trace.cpu_time().is_some_and(|time| !time.is_zero()));
}

fn a_short_run_leaves_a_trace(c: &mut Case) {
    let outcome = c.run_program("--rm", "a", &["/bin/true"]).output();
    assert_eq!(outcome.code, 0, "{outcome}");
    let Some(trace) = trace(c, "a") else { return };
    assert!(trace.samples.len() >= 2);
    assert!(trace.end.is_some());
}

fn a_container_that_wants_none_leaves_no_trace(c: &mut Case) {
    let off = "--rm --annotation elastic-mem.io/mode=off";
    assert_eq!(c.run(off, "a", "true").output().code, 0);
    assert_eq!(c.run("--rm", "b", "true").output().code, 0);
    if trace(c, "b").is_some() {
        assert_eq!(traces(c, "a").len(), 0);
    }
}

fn a_function_that_is_off_leaves_no_trace(c: &mut Case) {
    let name = "--rm --annotation elastic-mem.io/function=any-unwatched";
    assert_eq!(c.run(name, "a", "true").output().code, 0);
    assert_eq!(c.run("--rm", "b", "true").output().code, 0);
    if trace(c, "b").is_some() {
        assert_eq!(traces(c, "a").len(), 0);
    }
}

fn runs_in_parallel_leave_a_trace_each(c: &mut Case) {
    let names = ["a", "b", "d", "e", "f"];
    for name in names {
        c.expect_container(name);
    }
    std::thread::scope(|scope| {
        for name in names {
            let cmd = c.run_expected("--rm", name, &["/bin/sleep", "0.2"]);
            scope.spawn(move || assert_eq!(cmd.output().code, 0));
        }
    });
    for name in names {
        trace(c, name);
    }
}
