//! What other programs can see of a container, and what they can say of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Case, Cmd, Outcome, Route, host};

ours_on_every_containerd! {
    what_is_known_of_a_container_can_be_said,
    a_killed_shim_leaves_no_record,
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
    crate::harness::wait_until("the record is gone", || !folder.exists());
    c.delete("a");
}
