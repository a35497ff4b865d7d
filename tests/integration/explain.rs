//! The command `explain`: what is done with the memory of a container, and why.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::wait_until;
use crate::grants::{CEILING, elastic, is_granted_less};
use crate::harness::{Case, Outcome, ours_beyond_runc};
use crate::trace::Place;

fn explain(c: &Case, place: &Place, words: &[&str]) -> Outcome {
    c.cmd()
        .arg("--config")
        .arg(place.path("config.toml"))
        .arg("explain")
        .args(words)
        .output()
}

fn configure(place: &Place, more: &str) {
    let store = place.path("store");
    let text = format!("{more}\n[profile]\nfolder = {store:?}\n");
    fs::write(place.path("config.toml"), text).expect("configuration");
}

/// A bundle with a limit of 64 MiB, in a folder.
fn bundle(place: &Place) -> String {
    let folder = place.path("thumb");
    fs::create_dir_all(&folder).expect("folder");
    let config = json!({
        "ociVersion": "1.0.2",
        "annotations": {"elastic-mem.io/ceiling": "48MiB", "elastic-mem.io/function": "resize"},
        "linux": {"resources": {"memory": {"limit": 64 << 20}}},
    });
    fs::write(folder.join("config.json"), config.to_string()).expect("config.json");
    folder.display().to_string()
}

fn reason<'a>(value: &'a Value, what: &str) -> &'a Value {
    let reasons = value["plan"]["reasons"].as_array().expect("reasons");
    let found = reasons.iter().find(|reason| reason["what"] == what);
    found.unwrap_or_else(|| panic!("no {what} in {reasons:?}"))
}

fn json_of(out: &Outcome) -> Value {
    assert_eq!(out.code, 0, "{out}");
    serde_json::from_str(&out.stdout).unwrap_or_else(|err| panic!("{err}: {out}"))
}

#[test]
fn a_bundle_is_explained_with_the_layer_of_each_value() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        configure(&place, "[functions.\"shop/res*\"]\nmode = \"static\"");
        let folder = bundle(&place);
        let out = explain(c, &place, &[&folder, "--namespace", "shop", "--json"]);
        let value = json_of(&out);
        assert_eq!(value["function"], "shop/resize");
        assert_eq!(value["plan"]["ceiling"], 48 << 20);
        assert_eq!(value["state"], Value::Null);
        let because = reason(&value, "ceiling")["because"].as_str().expect("text");
        assert_eq!(because, "annotation elastic-mem.io/ceiling");
        // No run is known.
        assert_eq!(value["plan"]["mode"], "observe");
        let because = reason(&value, "mode")["because"].as_str().expect("text");
        assert!(because.starts_with("static ("), "{because}");
        assert!(
            because.contains("table functions.\"shop/res*\""),
            "{because}"
        );
        assert!(because.contains("fewer than 3"), "{because}");
        let table = explain(c, &place, &[&folder]).stdout;
        assert!(table.starts_with("thumb in namespace default, function default/resize\n"));
        let row = "ceiling  48.0 MB  annotation elastic-mem.io/ceiling";
        assert!(table.contains(row), "{table}");
        assert!(table.ends_with("It does not run.\n"), "{table}");
    });
}

#[test]
fn what_is_not_there_is_told_with_what_it_could_be() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let out = explain(c, &place, &[&place.path("").display().to_string()]);
        assert_eq!(out.code, 1, "{out}");
        assert!(out.stderr.contains("config.json: no such file"), "{out}");
        c.idle();
        c.up();
        let id = c.id().to_owned();
        let mistyped = format!("{}x", &id[..id.len() - 1]);
        let out = explain(c, &place, &[&mistyped]);
        assert_eq!(out.code, 1, "{out}");
        assert!(out.stderr.contains("there is no container"), "{out}");
        assert!(out.stderr.contains("did you mean"), "{out}");
        assert!(out.stderr.contains(&id), "{out}");
    });
}

#[test]
fn a_running_container_is_explained_with_its_state() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        c.spec()["linux"]["resources"]["memory"]["limit"] = json!(64 << 20);
        c.idle();
        c.up();
        let id = c.id().to_owned();
        let value = json_of(&explain(c, &place, &[&id, "--json"]));
        let state = &value["state"];
        assert_eq!(state["status"], "running");
        assert_eq!(state["limit"], 64 << 20);
        assert_eq!(state["ceiling"], 64 << 20);
        assert_eq!(state["reclaimable"], 0);
        assert!(state["usage"].as_u64().expect("usage") > 0);
        let table = explain(c, &place, &[&id]).stdout;
        assert!(table.contains("NOW             running\n"), "{table}");
        assert!(table.contains("reclaimable     0.0 MB"), "{table}");
    });
}

/// On cgroup v2 the limit that we move is not taken for somebody else's.
#[test]
fn a_container_that_is_granted_less_is_explained_with_what_others_can_have() {
    elastic(|c| {
        c.idle();
        c.up();
        is_granted_less(c);
        let id = c.id().to_owned();
        let value = json_of(&c.cmd().args(["explain", &id, "--json"]).output());
        assert_eq!(value["plan"]["mode"], "elastic", "{value}");
        assert_eq!(value["plan"]["ceiling"], CEILING);
        let state = &value["state"];
        assert_eq!(state["mode"], "elastic");
        assert_eq!(state["ceiling"], CEILING);
        let [limit, reclaimable] =
            ["limit", "reclaimable"].map(|name| state[name].as_u64().expect("bytes"));
        assert!(limit < CEILING / 4, "{state}");
        assert_eq!(limit + reclaimable, CEILING);
        // The same by its record alone.
        let out = c.bare().args(["explain", &id, "--json"]).output();
        assert_eq!(json_of(&out)["state"]["ceiling"], CEILING, "{out}");
        // An update is the new ceiling, once it is recorded.
        c.ok(&format!("update --memory 128m {id}"));
        wait_until("the ceiling is another one", || {
            let value = json_of(&c.cmd().args(["explain", &id, "--json"]).output());
            value["plan"]["ceiling"] == CEILING / 2
        });
    });
}

#[test]
fn a_profile_that_cannot_be_used_is_a_warning() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        configure(&place, "memory.mode = \"elastic\"");
        let options = ["-n", "3", "--memory", "64m", "--function", "default/resize"];
        let out = place.script(c, &options, "sleep 0.1");
        assert_eq!(out.code, 0, "{out}");
        let folder = bundle(&place);
        let good = json_of(&explain(c, &place, &[&folder, "--json"]));
        assert_eq!(good["plan"]["mode"], "elastic", "{good}");
        assert!(good["plan"]["forecast"]["most"].as_u64().expect("most") > 0);
        spoil(&place.path("store/functions"));
        let out = explain(c, &place, &[&folder, "--json"]);
        assert!(out.stderr.contains("profile.json"), "{out}");
        assert_eq!(json_of(&out)["plan"]["mode"], "observe");
    });
}

fn spoil(functions: &Path) {
    for entry in fs::read_dir(functions).expect("functions").flatten() {
        let profile = entry.path().join("profile.json");
        if profile.exists() {
            fs::write(profile, "{").expect("profile");
        }
    }
}
