//! Many containers.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Case, wait_until};

on_every_containerd! {
    many_containers_at_once,
    many_containers_one_after_the_other,
}

const CONTAINERS: usize = 50;

/// Calls `action` for every number on several threads.
fn in_parallel(action: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= CONTAINERS {
                        break;
                    }
                    action(number);
                }
            });
        }
    });
}

fn many_containers_at_once(c: &mut Case) {
    let names: Vec<_> = (0..CONTAINERS)
        .map(|number| format!("a{number}x"))
        .collect();
    for name in &names {
        c.expect_container(name);
    }
    let c = &*c;
    in_parallel(|number| {
        let script = format!("trap 'exit {number}' TERM; while :; do sleep 1000 & wait; done");
        let outcome = c
            .run_expected("--detach", &names[number], &["sh", "-c", &script])
            .output();
        assert_eq!(outcome.code, 0, "{outcome}");
    });
    let running = c.call("task list").stdout;
    let running = running
        .lines()
        .filter(|line| line.contains(&c.id("a")) && line.contains("RUNNING"));
    assert_eq!(running.count(), CONTAINERS);
    in_parallel(|number| {
        let name = &names[number];
        let outcome = c.exec("", name, "x", &format!("exit {number}")).output();
        assert_eq!(outcome.code, number as i32, "{outcome}");
        // A signal may come before the trap.
        wait_until("it ends", || {
            c.call(&format!("task kill -s TERM @{name}"));
            c.status(name) == "STOPPED"
        });
        assert_eq!(c.delete_task(name), number as i32);
        c.ok(&format!("container delete @{name}"));
    });
}

fn many_containers_one_after_the_other(c: &mut Case) {
    for number in 0..CONTAINERS / 2 {
        let outcome = c
            .run("--rm", "a", &format!("echo {number}; exit {number}"))
            .output();
        assert_eq!(outcome.code, number as i32, "{outcome}");
        assert_eq!(outcome.stdout, format!("{number}\n"), "{outcome}");
    }
}
