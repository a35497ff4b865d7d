//! What containerd's other clients learn of a task.

use crate::harness::events::Events;
use crate::harness::{Case, wait_until};

on_every_containerd! {
    events_of_a_life,
    events_of_an_exec,
    events_of_a_pause,
    events_of_a_failed_start,
    events_of_quick_containers,
}

/// Records the events in their order, once there are as many as there should be.
fn note_events(c: &mut Case, events: &Events, count: usize) {
    let seen = events.wait_for(c, count);
    // Whether too many come.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let seen = if seen.len() == count { events.of(c) } else { seen };
    c.note("events", &seen.join("\n"));
    assert_eq!(seen.len(), count, "{seen:#?}");
}

fn events_of_a_life(c: &mut Case) {
    let events = Events::listen(c);
    c.up("", "a");
    c.ok("task kill -s KILL @a");
    c.wait_for("a", "STOPPED");
    c.delete("a");
    note_events(c, &events, 4);
}

fn events_of_an_exec(c: &mut Case) {
    let events = Events::listen(c);
    c.up("", "a");
    let outcome = c.exec("", "a", "x", "exit 7").output();
    assert_eq!(outcome.code, 7);
    events.wait_for_topic(c, "exit");
    c.down("a");
    // create, start, exec-added, exec-started, exit of the exec, exit, delete.
    note_events(c, &events, 7);
}

fn events_of_a_pause(c: &mut Case) {
    let events = Events::listen(c);
    c.up("", "a");
    c.ok("task pause @a");
    c.ok("task resume @a");
    c.down("a");
    note_events(c, &events, 6);
}

fn events_of_a_failed_start(c: &mut Case) {
    let events = Events::listen(c);
    let outcome = c.run_program("--rm", "a", &["/no/such/program"]).output();
    assert_ne!(outcome.code, 0);
    // A marker behind which nothing of `a` can come.
    c.up("", "b");
    c.down("b");
    wait_until("the events of b", || {
        events.of(c).iter().any(|e| e.starts_with("delete") && e.contains("@b"))
    });
    let seen = events.of(c);
    let of_a: Vec<_> = seen.iter().filter(|e| e.contains("@a\"")).cloned().collect();
    c.note("events", &of_a.join("\n"));
}

/// A task that ends at once must not be reported to exit before it started.
fn events_of_quick_containers(c: &mut Case) {
    let events = Events::listen(c);
    for round in 0..5 {
        let outcome = c.run_program("--rm", &format!("a{round}"), &["true"]).output();
        assert_eq!(outcome.code, 0, "{outcome}");
    }
    note_events(c, &events, 20);
}
