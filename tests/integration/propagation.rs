//! Mount propagation of the root and of single mounts.

use std::fs;

use serde_json::json;

use crate::harness::text::mount_table;
use crate::harness::{Case, differential};

fn note_table(c: &mut Case) -> String {
    let table = c.probe("cat /proc/self/mountinfo");
    c.transcript.pop();
    let table = mount_table(&table);
    c.note("mount table", &table);
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
        let table = note_table(c);
        assert!(!table.contains("shared"), "{table}");
    });
}

#[test]
fn root_propagation_slave_is_honoured() {
    differential(|c| {
        c.spec()["linux"]["rootfsPropagation"] = json!("slave");
        note_table(c);
    });
}

#[test]
fn root_propagation_shared_is_honoured() {
    differential(|c| {
        c.spec()["linux"]["rootfsPropagation"] = json!("shared");
        let table = note_table(c);
        assert!(table.contains("/ root"), "{table}");
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
            let table = note_table(c);
            assert!(table.contains("/mnt"), "{table}");
        });
    }
}
