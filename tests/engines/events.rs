//! What containerd's other clients learn of a task.

use crate::harness::events::Events;
use crate::harness::{Case, Route, wait_until};

on_every_containerd! {
    events_of_a_life,
    events_of_an_exec,
    events_of_a_pause,
    events_of_a_failed_start,
    events_of_quick_containers,
}

/// Records the events in their order, once there are as many as there should
/// be. runc's shim of 2.1 may end before it has sent that of the deletion, so
/// deletions are not compared, and only asked of ours.
fn note_events(c: &mut Case, events: &Events, count: usize, tasks: usize) {
    let deletions = |seen: &[String]| seen.iter().filter(|e| e.starts_with("delete ")).count();
    let wanted = if c.route == Route::Shim { tasks } else { 0 };
    let rest = count - tasks;
    wait_until(&format!("{count} events"), || {
        let seen = events.of(c);
        deletions(&seen) >= wanted && seen.len() - deletions(&seen) >= rest
    });
    // Whether too many come.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let mut seen = events.of(c);
    assert!(seen.len() <= count, "{seen:#?}");
    // After the deletion of a task nothing more is said of it.
    let mut deleted = Vec::new();
    for event in &seen {
        let content = event.split_once(' ').map_or("", |(_, content)| content);
        let id = content.split("\",").next().unwrap_or_default().to_owned();
        assert!(!deleted.contains(&id), "{seen:#?}");
        if event.starts_with("delete ") {
            deleted.push(id);
        }
    }
    seen.retain(|event| !event.starts_with("delete "));
    c.note("events", &seen.join("\n"));
}

fn events_of_a_life(c: &mut Case) {
    let events = Events::listen(c);
    c.up("", "a");
    c.ok("task kill -s KILL @a");
    c.wait_for("a", "STOPPED");
    c.delete("a");
    note_events(c, &events, 4, 1);
}

fn events_of_an_exec(c: &mut Case) {
    let events = Events::listen(c);
    c.up("", "a");
    let outcome = c.exec("", "a", "x", "exit 7").output();
    assert_eq!(outcome.code, 7);
    events.wait_for_topic(c, "exit");
    c.down("a");
    // create, start, exec-added, exec-started, exit of the exec, exit, delete.
    note_events(c, &events, 7, 1);
}

fn events_of_a_pause(c: &mut Case) {
    let events = Events::listen(c);
    c.up("", "a");
    c.ok("task pause @a");
    c.ok("task resume @a");
    c.down("a");
    note_events(c, &events, 6, 1);
}

fn events_of_a_failed_start(c: &mut Case) {
    let events = Events::listen(c);
    let outcome = c.run_program("--rm", "a", &["/no/such/program"]).output();
    assert_ne!(outcome.code, 0);
    // A marker behind which nothing of `a` can come.
    c.up("", "b");
    c.down("b");
    wait_until("the events of b", || {
        events
            .of(c)
            .iter()
            .any(|e| e.starts_with("exit") && e.contains("@b"))
    });
    let seen = events.of(c);
    let of_a: Vec<_> = seen
        .iter()
        .filter(|e| e.contains("@a\""))
        .cloned()
        .collect();
    c.note("events", &of_a.join("\n"));
}

/// A task that ends at once must not be reported to exit before it started.
/// runc's shim may end before it has sent all.
fn events_of_quick_containers(c: &mut Case) {
    let events = Events::listen(c);
    for round in 0..5 {
        let outcome = c
            .run_program("--rm", &format!("a{round}x"), &["true"])
            .output();
        assert_eq!(outcome.code, 0, "{outcome}");
    }
    let of = |c: &Case, round: i32| -> Vec<String> {
        let id = format!("@a{round}x\"");
        let seen = events.of(c).into_iter().filter(|event| event.contains(&id));
        seen.map(|event| event.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    };
    let expected = ["create", "start", "exit", "delete"];
    if c.route == Route::Shim {
        wait_until("all events", || {
            (0..5).all(|round| of(c, round).len() >= expected.len())
        });
        for round in 0..5 {
            assert_eq!(of(c, round), expected);
        }
    }
}
