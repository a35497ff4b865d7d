//! Many containers at once.

use std::sync::Mutex;

use serde_json::json;

use crate::harness::{Case, eventually, host, skip};

const CREATORS: usize = 50;

#[test]
fn fifty_concurrent_lives_all_succeed_and_leave_nothing() {
    if let Some(reason) = host::unfit() {
        return skip(reason);
    }
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..CREATORS {
            let failures = &failures;
            scope.spawn(move || {
                let mut c = Case::new(host::our_program());
                if let Err(text) = one_life(&mut c, number) {
                    failures.lock().expect("failures").push(text);
                }
                let left = c.settle();
                if !left.is_empty() {
                    failures
                        .lock()
                        .expect("failures")
                        .push(format!("left behind: {left:?}"));
                }
            });
        }
    });
    let failures = failures.into_inner().expect("failures");
    assert!(
        failures.is_empty(),
        "{} failures: {failures:#?}",
        failures.len()
    );
}

/// The private `--root`s apart, all creators work in the same cgroup parent
/// and some of them end at once, some are killed.
fn one_life(c: &mut Case, number: usize) -> Result<(), String> {
    let quick = number.is_multiple_of(3);
    let args = if quick {
        json!(["true"])
    } else {
        json!(["sleep", "1000"])
    };
    c.spec()["process"]["args"] = args;
    c.bundle.write();
    let lines: &[&str] = if quick {
        &["create --bundle BUNDLE ID", "start ID"]
    } else {
        &[
            "create --bundle BUNDLE ID",
            "start ID",
            "exec ID true",
            "kill ID KILL",
        ]
    };
    for line in lines {
        let outcome = c.call(line);
        if outcome.code != 0 {
            return Err(outcome.to_string());
        }
    }
    eventually(|| (c.status() == "stopped").then_some(())).ok_or("never stopped")?;
    let outcome = c.call("delete ID");
    if outcome.code != 0 {
        return Err(outcome.to_string());
    }
    Ok(())
}

/// Of several creators of one id, exactly one wins, and the losers do no harm.
/// A loser of runc 1.1 may remove the winner's state.
#[test]
fn one_id_is_given_once() {
    crate::harness::ours_beyond_runc(|c| {
        c.idle();
        c.bundle.write();
        for _ in 0..10 {
            let create = |c: &Case| c.cmd().args(c.words("create --bundle BUNDLE ID")).spawn();
            let rivals: Vec<_> = (0..4).map(|_| create(c)).collect();
            let outcomes: Vec<_> = rivals.into_iter().map(|rival| rival.wait()).collect();
            let winners = outcomes.iter().filter(|outcome| outcome.code == 0).count();
            for loser in outcomes.iter().filter(|outcome| outcome.code != 0) {
                assert!(loser.stderr.contains("exist"), "{loser}");
            }
            assert_eq!(winners, 1);
            assert_eq!(c.status(), "created");
            c.ok("start ID");
            c.ok("delete --force ID");
            let left = c.settle();
            assert!(left.is_empty(), "{left:?}");
        }
    });
}

#[test]
fn concurrent_execs_all_succeed() {
    crate::harness::ours(|c| {
        c.up();
        let execs: Vec<_> = (0..20)
            .map(|number| {
                c.cmd()
                    .args(c.words("exec ID sh -c"))
                    .arg(format!("echo {number}; exit {number}"))
                    .spawn()
            })
            .collect();
        for (number, exec) in execs.into_iter().enumerate() {
            let outcome = exec.wait();
            assert_eq!(usize::try_from(outcome.code), Ok(number), "{outcome}");
            assert_eq!(outcome.stdout, format!("{number}\n"));
        }
        eventually(|| (c.processes().len() == 1).then_some(())).expect("only init is left");
    });
}

#[test]
fn queries_while_a_container_changes_never_crash() {
    crate::harness::ours(|c| {
        for _ in 0..5 {
            c.idle();
            c.bundle.write();
            let life = c.cmd().args(c.words("create --bundle BUNDLE ID")).spawn();
            let queries: Vec<_> = [
                "state ID",
                "list --format json",
                "ps --format json ID",
                "list",
            ]
            .iter()
            .map(|line| c.cmd().args(c.words(line)).spawn())
            .collect();
            for query in queries {
                let outcome = query.wait();
                assert!(outcome.code < 2, "{outcome}");
                assert!(!outcome.stderr.contains("panick"), "{outcome}");
            }
            let created = life.wait();
            assert_eq!(created.code, 0, "{created}");
            c.ok("start ID");
            c.ok("delete --force ID");
        }
    });
}
