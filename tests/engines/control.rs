//! What other programs can see of a container, and what they can say of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Case, Cmd, Outcome, Route, cgroups, host, skip, wait_until};

ours_on_every_containerd! {
    what_is_known_of_a_container_can_be_said,
    a_killed_shim_leaves_no_record,
    a_container_has_its_ceiling_while_it_is_paused_and_while_somebody_acts,
}

fn folder(c: &Case, name: &str) -> PathBuf {
    [
        "/run/elastic-mem",
        c.daemon.namespace.as_str(),
        c.id(name).as_str(),
    ]
    .iter()
    .collect()
}

fn record(folder: &Path) -> Value {
    let bytes = fs::read(folder.join("state.json")).expect("record");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn call(words: &[&str]) -> Outcome {
    Cmd::new(host::our_program()).args(words).output()
}

fn what_is_known_of_a_container_can_be_said(c: &mut Case) {
    assert_eq!(c.route, Route::Shim);
    c.up("", "a");
    let (id, folder) = (c.id("a"), folder(c, "a"));
    assert_eq!(record(&folder)["mode"], "observe");
    let told = [
        &["phase", &id, "begin", "--input-bytes", "4k"] as &[&str],
        &["phase", &id, "end", "--namespace", &c.daemon.namespace],
        &["bind", &id, "--function", "thumb", "--class", "small"],
    ];
    for words in told {
        let outcome = call(words);
        assert_eq!(outcome.code, 0, "{outcome}");
    }
    let now = record(&folder);
    let function = format!("{}/thumb", c.daemon.namespace);
    assert_eq!(now["function"], function);
    assert_eq!(now["class"], "small");
    c.down("a");
    assert!(!folder.exists(), "the record stays");
    let outcome = call(&["phase", &id, "end"]);
    assert_ne!(outcome.code, 0);
    assert!(outcome.stderr.contains("nobody looks after"), "{outcome}");
}

fn a_killed_shim_leaves_no_record(c: &mut Case) {
    c.up("", "a");
    let folder = folder(c, "a");
    assert!(folder.join("control.sock").exists());
    let shim = nix::unistd::Pid::from_raw(c.shim_pid("a"));
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).expect("kill");
    // containerd calls `delete`.
    wait_until("the record is gone", || !folder.exists());
    c.call("task delete @a");
    c.ok("container delete @a");
}

/// Three runs that use little of what they declare are enough to grant less.
fn a_container_has_its_ceiling_while_it_is_paused_and_while_somebody_acts(c: &mut Case) {
    if cgroups::is_unified() {
        return skip("what is asked of memory.high: tests/system");
    }
    c.private_daemon();
    let settings = fs::read_to_string(c.daemon.settings()).expect("settings");
    let settings = format!("memory.mode = \"elastic\"\n{settings}");
    fs::write(c.daemon.settings(), settings).expect("settings");
    const CEILING: u64 = 256 << 20;
    let limit = format!("--memory-limit {CEILING}");
    let flags = format!("{limit} --annotation elastic-mem.io/function=thumb");
    for name in ["b", "d", "e"] {
        let outcome = c.run(&format!("--rm {flags}"), name, "sleep 0.3").output();
        assert_eq!(outcome.code, 0, "{outcome}");
    }
    let profile = |folder: &Path| folder.join("functions").exists();
    wait_until("a profile", || profile(&c.daemon.profiles()));
    c.up(&limit, "a");
    let (id, folder) = (c.id("a"), folder(c, "a"));
    // The last trace may still be on its way into the store.
    wait_until("it is granted what its function needs", || {
        let outcome = call(&["bind", &id, "--function", "thumb"]);
        assert_eq!(outcome.code, 0, "{outcome}");
        record(&folder)["mode"] == "elastic"
    });
    let granted = |c: &Case| {
        let text = c.cgroup_file("a", "memory.limit_in_bytes");
        text.trim_end().parse::<u64>().expect("limit")
    };
    wait_until("it is granted less", || granted(c) < CEILING);
    c.ok("task pause @a");
    assert_eq!(granted(c), CEILING, "when pause has answered");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(granted(c), CEILING, "while it is paused");
    c.ok("task resume @a");
    wait_until("it is granted less after resume", || granted(c) < CEILING);
    wait_until("that is published", || {
        record(&folder)["reclaimable"].as_u64() > Some(0)
    });
    let outcome = c.exec("", "a", "x", "exit 3").output();
    assert_eq!(outcome.code, 3, "{outcome}");
    c.down("a");
    assert!(!folder.exists(), "the record stays");
}
