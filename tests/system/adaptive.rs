//! The choice of a local ratio from measured runs, and what becomes of it.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{Case, Cmd, ours_beyond_runc};
use crate::machine::far_node;

/// Any host keeps to it.
const BOUND: &str = "slo-ms = 600000";
/// Holds 16 MiB for a moment.
const FUNCTION: &str = "x=$(head -c 16777216 /dev/zero | tr '\\0' x); echo ${#x}; sleep 0.3";

fn settings(c: &Case) -> PathBuf {
    let path = c.bundle.path().join("settings.toml");
    let folder = c.bundle.path().join("store");
    let text = format!(
        "memory.mode = \"observe\"\nprofile.folder = {:?}\nplacement.policy = \"adaptive\"\nplacement.quantile = 0.5\n\
         [functions.\"*\"]\n{BOUND}\n",
        folder.display().to_string()
    );
    fs::write(&path, text).expect("settings");
    path
}

fn characterize(c: &Case, options: &[&str]) -> Cmd {
    let namespace = c.root().file_name().expect("name").to_string_lossy();
    c.cmd()
        .arg("--config")
        .arg(settings(c))
        .args(["characterize", "--function"])
        .arg(format!("{namespace}/held"))
        .arg("--rootfs")
        .arg(c.rootfs())
        .args(options)
        .args(["--", "sh", "-c", FUNCTION])
}

fn measured(c: &Case, runs: &str) -> Value {
    let options = ["--ratios", "1,0.5,0", "--runs", runs, "--json"];
    let outcome = characterize(c, &options).output();
    assert_eq!(outcome.code, 0, "{outcome}");
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

#[test]
fn a_function_is_measured_and_placed_by_what_was_measured() {
    let Some(_) = far_node() else { return };
    ours_beyond_runc(|c| {
        let found = measured(c, "4");
        let points = found["points"].as_array().expect("points");
        let local = |at: usize| points[at]["local"].as_u64().expect("bytes");
        assert_eq!(points.len(), 3, "{found}");
        for point in points {
            assert_eq!(point["runs"], 4, "{found}");
            assert!(point["boundUs"].as_u64() > Some(300_000), "{found}");
        }
        // From remote to local.
        assert!(local(0) * 2 < local(2), "{found}");
        assert_eq!(found["chosen"]["localRatio"], 0.0, "{found}");
        // What is measured is not measured again, and what is missing is.
        assert_eq!(measured(c, "4"), found);
        let more = measured(c, "5");
        assert_eq!(more["points"][0]["runs"], 5, "{more}");

        c.configure(settings(c));
        c.spec()["annotations"]["elastic-mem.io/function"] = json!("held");
        c.script("while :; do sleep 1000; done");
        c.create();
        c.ok("start ID");
        let outcome = c.cmd().args(["placement", "--json"]).arg(c.id()).output();
        assert_eq!(outcome.code, 0, "{outcome}");
        let placed: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        assert_eq!(placed["placement"]["target"], 0.0, "{placed}");
        assert!(
            placed.to_string().contains("least local memory"),
            "{placed}"
        );
    });
}

/// Without runs, and without a bound, there is nothing to go by.
#[test]
fn a_function_of_which_nothing_is_known_is_local() {
    let Some(_) = far_node() else { return };
    ours_beyond_runc(|c| {
        c.configure(settings(c));
        c.script("while :; do sleep 1000; done");
        c.create();
        c.ok("start ID");
        let outcome = c.cmd().args(["placement", "--json"]).arg(c.id()).output();
        let placed: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        assert_eq!(placed["placement"]["target"], 1.0, "{placed}");
        assert!(placed.to_string().contains("too few"), "{placed}");
    });
}
