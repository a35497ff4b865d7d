//! Placement of memory on a host where all memory is of one kind, and what is said of that everywhere. What takes
//! several nodes is in tests/system.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Case, Cmd, host, ours_beyond_runc, skip};

/// Whether all memory is of one kind here: every node has processors, and there are no tiers.
fn is_plain_host() -> bool {
    let set = |name: &str| fs::read_to_string(format!("/sys/devices/system/node/{name}"));
    let tiers = fs::read_dir("/sys/devices/virtual/memory_tiering").map_or(0, |dir| {
        let names = dir.flatten().map(|entry| entry.file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("memory_tier"))
            .count()
    });
    let plain = tiers < 2 && set("has_memory").ok() == set("has_cpu").ok();
    if !plain {
        skip("this host has several kinds of memory");
    }
    plain
}

fn configured(c: &mut Case, text: &str) {
    let settings = c.bundle.path().join("settings.toml");
    let folder = c.bundle.path().join("store");
    let text = format!(
        "memory.mode = \"observe\"\nmemory.annotations = [\"mode\", \"placement\", \"local-ratio\"]\n\
         profile.folder = {:?}\n{text}",
        folder.display().to_string()
    );
    fs::write(&settings, text).expect("settings");
    c.configure(settings);
}

fn placement(c: &Case) -> Value {
    let outcome = c.call("placement --json ID");
    assert_eq!(outcome.code, 0, "{outcome}");
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

#[test]
fn i1_a_host_with_one_kind_of_memory_runs_as_plain_and_says_so_once() {
    if !is_plain_host() {
        return;
    }
    ours_beyond_runc(|c| {
        configured(
            c,
            "placement.policy = \"interleave=3:1\"\nweights.own = true\n",
        );
        c.idle();
        let created = c.create();
        let lines = created.stderr.matches("its memory is not placed").count();
        assert_eq!(lines, 1, "{}", created.stderr);
        assert!(created.stderr.contains("this host has no remote memory"));
        c.ok("start ID");
        let found = placement(c);
        assert_eq!(found["placement"]["means"], "plain", "{found}");
        assert_eq!(found["isHeld"], Value::Null);
        assert_eq!(found["placement"].get("policy"), None);
        // Its configuration is as it was: nothing was put into it.
        let policy = c.exec("", "head -n 1 /proc/self/numa_maps");
        assert!(policy.contains(" default "), "{policy}");
        let text = c.call("placement ID").stdout;
        assert!(text.contains("nothing is to be held"), "{text}");
        let text = c.call("explain ID").stdout;
        assert!(text.contains("no remote memory"), "{text}");
        c.ok("delete --force ID");
        assert!(!Path::new("/run/elastic-mem/weights.json").exists());
    });
}

#[test]
fn a_container_that_nobody_wants_placed_is_left_alone_without_a_word() {
    ours_beyond_runc(|c| {
        configured(c, "");
        c.idle();
        let created = c.create();
        assert!(!created.stderr.contains("placed"), "{}", created.stderr);
        let found = placement(c);
        assert_eq!(found["placement"], Value::Null);
    });
}

#[test]
fn a_policy_of_the_container_itself_is_left_alone_and_that_is_said_once() {
    ours_beyond_runc(|c| {
        configured(c, "placement.policy = \"remote\"\n");
        c.spec()["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
        c.idle();
        let created = c.create();
        let said = created.stderr.matches("linux.memoryPolicy").count();
        assert_eq!(said, 1, "{}", created.stderr);
        c.ok("start ID");
        assert_eq!(placement(c)["placement"]["means"], "foreign");
        let policy = c.exec("", "head -n 1 /proc/self/numa_maps");
        assert!(policy.contains(" bind:0 "), "{policy}");
    });
}

#[test]
fn annotations_choose_a_placement_where_they_may() {
    ours_beyond_runc(|c| {
        configured(c, "");
        c.spec()["annotations"]["elastic-mem.io/local-ratio"] = json!("0.5");
        c.bundle.write();
        let text = c.call("explain ./").stdout;
        assert!(
            text.contains("elastic-mem.io/local-ratio") || text.contains("no remote memory"),
            "{text}"
        );
        // The default of memory.annotations has neither.
        let settings = c.bundle.path().join("plain.toml");
        fs::write(&settings, "memory.mode = \"observe\"\n").expect("settings");
        c.configure(settings);
        let outcome = c.call("explain ./");
        assert!(
            outcome
                .stderr
                .contains("memory.annotations does not allow it"),
            "{outcome}"
        );
        assert!(!outcome.stdout.contains("no remote memory"), "{outcome}");
    });
}

#[test]
fn a_placement_that_nobody_knows_is_refused_with_those_that_there_are() {
    ours_beyond_runc(|c| {
        configured(c, "placement.policy = \"ponds\"\n");
        c.fails(
            "config check",
            &["placement.policy", "ponds", "pond", "interleave=L:R"],
        );
        configured(c, "");
        c.spec()["annotations"]["elastic-mem.io/placement"] = json!("faas");
        c.bundle.write();
        let outcome = c.call("explain ./");
        assert!(
            outcome.stderr.contains("is no placement (want off"),
            "{outcome}"
        );
    });
}

#[test]
fn weights_are_shown_and_wrong_ones_are_refused() {
    let program = host::our_program();
    if host::name_of(&program) == "runc" {
        return skip("runc has no such verb");
    }
    let call = |words: &[&str]| Cmd::new(&program).args(words).output();
    let shown = call(&["weights", "show"]);
    if !Path::new("/sys/kernel/mm/mempolicy/weighted_interleave").exists() {
        assert_ne!(shown.code, 0);
        assert!(shown.stderr.contains("no interleave weights"), "{shown}");
        return skip("the kernel has no interleave weights");
    }
    assert!(shown.stdout.starts_with("NODE"), "{shown}");
    let json = call(&["weights", "show", "--json"]);
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert!(json["weights"]["nodes"]["0"].is_u64(), "{json}");
    for (words, needle) in [
        (&["weights", "set", "0=0"][..], "from 1 to 255"),
        (&["weights", "set", "1023=1"], "there is no node 1023"),
        (&["weights", "set"], "NODE=WEIGHT"),
    ] {
        let outcome = call(words);
        assert_ne!(outcome.code, 0, "{outcome}");
        assert!(outcome.stderr.contains(needle), "{outcome}");
    }
}
