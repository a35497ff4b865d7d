//! Memory limits, and what is told of them.

use serde_json::Value;

use crate::harness::events::Events;
use crate::harness::{Case, wait_until};

on_every_containerd! {
    an_out_of_memory_kill,
    an_out_of_memory_kill_of_a_child,
    metrics_have_the_fields_of_runc,
    a_limit_holds,
}

/// Reads 100 MB into a buffer, with a limit of 20 MB.
const EATER: &str = "dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null";
/// Some ticks in user mode, and some in the kernel.
const BUSY: &str = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/dev/null bs=1M count=500 2>/dev/null";
const LIMIT: &str = "--memory-limit 20971520";

fn an_out_of_memory_kill(c: &mut Case) {
    let events = Events::listen(c);
    c.up_with(LIMIT, "a", &format!("sleep 0.5; exec {EATER}"));
    c.wait_for("a", "STOPPED");
    events.wait_for_topic(c, "oom");
    events.wait_for_topic(c, "exit");
    let exit = events.of(c).into_iter().find(|e| e.starts_with("exit"));
    c.note("exit", &exit.clone().unwrap_or_default());
    assert!(exit.is_some_and(|e| e.contains("\"exit_status\":137")));
    c.delete("a");
}

fn an_out_of_memory_kill_of_a_child(c: &mut Case) {
    let events = Events::listen(c);
    let script = format!("sleep 0.3; {EATER}; test $? = 137 && sleep 0.3; exit 5");
    c.up_with(LIMIT, "a", &script);
    c.wait_for("a", "STOPPED");
    events.wait_for_topic(c, "oom");
    events.wait_for_topic(c, "exit");
    // One for the one that was killed.
    let count = events.of(c).iter().filter(|e| e.starts_with("oom")).count();
    c.note("oom events", &count.to_string());
    c.delete("a");
}

/// The names of the fields that are there and hold more than nothing.
fn fields(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                fields(&format!("{path}/{key}"), value, found);
            }
        }
        Value::Array(items) => {
            for item in items {
                fields(&format!("{path}[]"), item, found);
            }
        }
        Value::Null => {}
        Value::Number(number) if number.as_f64() == Some(0.0) => {}
        _ => found.push(path.to_owned()),
    }
}

/// Counts of what has happened may be nothing in one run and something in the other.
fn is_a_limit_or_a_size(field: &str) -> bool {
    ![
        "pgfault",
        "pgmajfault",
        "pgpg",
        "throttl",
        "thp_",
        "psi/",
        "io_",
        "blkio",
        "writeback",
        "dirty",
        "active",
        "shmem",
        "mapped",
        "failcnt",
        "cache",
        "usage/user",
        "usage/kernel",
    ]
    .iter()
    .any(|word| {
        let field = field.to_lowercase();
        field.contains(word) || field.replace('_', "").contains(word)
    })
}

fn metrics_have_the_fields_of_runc(c: &mut Case) {
    c.up(LIMIT, "a");
    // Times of a container that has hardly run may be all of one kind, and what is zero is left out.
    let busy = c.exec("", "a", "busy", BUSY).output();
    assert_eq!(busy.code, 0, "{busy}");
    let outcome = c.ok("task metrics --format json @a");
    let metrics: Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"));
    let mut found = Vec::new();
    fields("", &metrics, &mut found);
    found.retain(|field| is_a_limit_or_a_size(field));
    found.sort();
    found.dedup();
    c.note("fields", &found.join("\n"));
    assert!(found.len() > 8, "{outcome}");
    for pointer in ["/memory/usage/limit", "/memory/swap/limit", "/pids/limit"] {
        c.note(
            pointer,
            &metrics.pointer(pointer).unwrap_or(&Value::Null).to_string(),
        );
    }
    assert!(outcome.stdout.contains("20971520"), "{outcome}");
    c.down("a");
}

fn a_limit_holds(c: &mut Case) {
    c.up(LIMIT, "a");
    let limit = c.cgroup_file("a", "memory.limit_in_bytes");
    c.note("limit", &limit);
    assert_eq!(limit, "20971520");
    // What an exec takes counts too.
    let exec = c.exec("", "a", "x", EATER).output();
    c.note("exec", &exec.code.to_string());
    assert_eq!(exec.code, 137, "{exec}");
    wait_until("running", || c.status("a") == "RUNNING");
    c.down("a");
}
