//! Mount propagation of the root and of single mounts.

use std::fs;

use serde_json::json;

use crate::harness::text::propagation;
use crate::harness::{Case, differential};

/// Records the propagation of every mount, and of nothing else.
fn note_propagation(c: &mut Case) -> String {
    let table = c.probe("cat /proc/self/mountinfo");
    c.transcript.pop();
    let lines: Vec<_> = table.lines().map(propagation).collect();
    let table = lines.join("\n");
    c.note("propagation", &table);
    table
}

fn bind_with(c: &mut Case, option: &str) {
    let source = c.bundle.path().join("source");
    fs::create_dir_all(&source).expect("source");
    c.push(
        "/mounts",
        [
            json!({"destination": "/mnt", "type": "bind", "source": source,
                "options": ["rbind", option]}),
        ],
    );
}

#[test]
fn root_propagation_private_shares_nothing() {
    differential(|c| {
        c.spec()["linux"]["rootfsPropagation"] = json!("private");
        let table = note_propagation(c);
        assert!(!table.contains("shared"), "{table}");
    });
}

#[test]
fn root_propagation_slave_is_honoured() {
    differential(|c| {
        c.spec()["linux"]["rootfsPropagation"] = json!("slave");
        note_propagation(c);
    });
}

#[test]
fn root_propagation_shared_is_honoured() {
    differential(|c| {
        c.spec()["linux"]["rootfsPropagation"] = json!("shared");
        let table = note_propagation(c);
        assert!(table.starts_with("/ "), "{table}");
    });
}

#[test]
fn mount_propagation_options_are_honoured() {
    for option in [
        "rprivate",
        "private",
        "rslave",
        "slave",
        "rshared",
        "shared",
        "unbindable",
    ] {
        differential(move |c| {
            bind_with(c, option);
            let table = note_propagation(c);
            assert!(table.contains("/mnt"), "{table}");
        });
    }
}
