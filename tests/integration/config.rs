//! `config show`, `config check`, and what the configuration does to containers. The verbs need no root.

use std::fs;
use std::path::{Path, PathBuf};

use elastic_mem::model::trace::Context;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Case, Cmd, Outcome, eventually, host, ours_beyond_runc, skip};

/// A folder with a configuration.
struct Place {
    folder: TempDir,
}

impl Place {
    /// `config.toml`, and files of `config.d` beside it.
    fn new(main: &str, others: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let place = Self { folder };
        fs::write(place.file(), main).expect("config.toml");
        let beside = place.folder.path().join("config.d");
        fs::create_dir(&beside).expect("config.d");
        for (name, text) in others {
            fs::write(beside.join(name), text).expect("file");
        }
        place
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    fn run(&self, args: &[&str]) -> Outcome {
        Cmd::new(host::our_program())
            .arg("--config")
            .arg(self.file())
            .args(args)
            .output()
    }

    fn json(&self, args: &[&str]) -> Value {
        let out = self.run(&[&["config", "show", "--json"], args].concat());
        assert_eq!(out.code, 0, "{out}");
        serde_json::from_str(&out.stdout).expect("JSON")
    }
}

fn is_runc() -> bool {
    let is_runc = host::name_of(&host::our_program()) == "runc";
    if is_runc {
        skip("runc has no configuration");
    }
    is_runc
}

const TABLES: &str = "[memory]\nmode = \"static\"\n\
    [functions.\"default/thumb*\"]\nmode = \"observe\"\nfloor = \"32m\"\n\
    [functions.\"default/thumb-1\"]\nfloor = 67108864\n";

#[test]
fn every_value_is_shown_with_its_origin() {
    if is_runc() {
        return;
    }
    let place = Place::new(TABLES, &[("1.toml", "memory.mode = \"replay\"\n")]);
    let all = place.json(&[]);
    assert_eq!(all["memory.mode"]["value"], "replay");
    let from = all["memory.mode"]["from"].as_str().expect("text");
    assert!(from.ends_with("config.d/1.toml"), "{from}");
    assert_eq!(all["memory.pad"]["value"], "8MiB");
    assert_eq!(all["memory.pad"]["from"], "default");
    let floor = &all["functions.\"default/thumb*\".floor"];
    assert_eq!(floor["value"], "32MiB");
    let out = place.run(&["config", "show"]);
    assert_eq!(out.code, 0, "{out}");
    let line = |key: &str| {
        let found = out.stdout.lines().find(|line| line.starts_with(key));
        let words = found.unwrap_or_else(|| panic!("no {key}: {out}"));
        words
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(line("memory.hold"), ["memory.hold", "10s", "default"]);
    let own = line("functions.\"default/thumb-1\".floor");
    assert_eq!(own[1], "64MiB");
    assert!(own[2].ends_with("config.toml,"), "{own:?}");
    // As many lines as there are values, and the heading.
    let entries = all.as_object().expect("object").len();
    assert_eq!(out.stdout.lines().count(), entries + 1);
}

#[test]
fn a_function_is_shown_as_it_is_treated() {
    if is_runc() {
        return;
    }
    let place = Place::new(TABLES, &[("1.toml", "memory.mode = \"replay\"\n")]);
    let shown = place.json(&["--function", "default/thumb-1"]);
    assert_eq!(shown["mode"]["value"], "observe");
    assert_eq!(shown["floor"]["value"], "64MiB");
    let from = shown["floor"]["from"].as_str().expect("text");
    assert!(
        from.ends_with("table functions.\"default/thumb-1\""),
        "{from}"
    );
    assert_eq!(shown["ceiling"]["value"], Value::Null);
    let shown = place.json(&["--function", "default/other"]);
    assert_eq!(shown["mode"]["value"], "replay");
    let out = place.run(&["config", "show", "--function", "default/thumb-2"]);
    assert_eq!(out.code, 0, "{out}");
    assert!(out.stdout.contains("floor        32MiB"), "{out}");
    assert!(out.stdout.contains("ceiling      none"), "{out}");
    let out = place.run(&["config", "show", "--function", "a,b"]);
    assert_ne!(out.code, 0, "{out}");
}

#[test]
fn a_check_counts_what_it_read() {
    if is_runc() {
        return;
    }
    let place = Place::new(
        TABLES,
        &[("1.toml", "log.level = \"info\"\n"), ("2.txt", "x")],
    );
    let out = place.run(&["config", "check"]);
    assert_eq!(out.code, 0, "{out}");
    let end = "config.toml: 0 mistakes in 2 files and 5 options read\n";
    assert!(out.stdout.ends_with(end), "{out}");
    assert_eq!(out.stderr, "");
}

#[test]
fn a_check_shows_all_mistakes_and_fails() {
    if is_runc() {
        return;
    }
    let place = Place::new(
        "[memory]\nmodee = \"off\"\npad = \"1k\"\n",
        &[
            (
                "1.toml",
                "[functions.\"f*\"]\ncieling = \"5m\"\nfloor = \"5m\"\n",
            ),
            ("2.toml", "log.level =\n"),
        ],
    );
    let out = place.run(&["config", "check"]);
    assert_eq!(out.code, 1, "{out}");
    assert_eq!(out.stdout, "");
    for part in [
        "unknown key \\\"memory.modee\\\", did you mean \\\"memory.mode\\\"?",
        "memory.pad: \\\"1k\\\" is not a size of at least 1MiB",
        "1.toml: unknown key",
        "config.d/2.toml",
    ] {
        assert!(out.stderr.contains(part), "no {part}: {out}");
    }
    let last = out.stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains("4 mistakes in 3 files and 1 option read"),
        "{out}"
    );
    // What is in force cannot be shown then.
    let out = place.run(&["config", "show"]);
    assert_eq!((out.code, out.stdout.as_str()), (1, ""), "{out}");
}

#[test]
fn another_file_is_checked_without_that_in_force() {
    if is_runc() {
        return;
    }
    let place = Place::new("this is wrong\n", &[]);
    let good = Place::new("memory.pad = \"9m\"\n", &[]);
    let check = |path: &Path| place.run(&["config", "check", path.to_str().expect("path")]);
    let out = check(&good.file());
    assert_eq!((out.code, out.stderr.as_str()), (0, ""), "{out}");
    assert!(out.stdout.contains("1 file and 1 option read"), "{out}");
    let out = check(&good.folder.path().join("nothing.toml"));
    assert_eq!(out.code, 1, "{out}");
    assert!(out.stderr.contains("nothing.toml"), "{out}");
    assert_eq!(check(&place.file()).code, 1);
}

#[test]
fn without_a_file_there_is_nothing_to_check() {
    if is_runc() {
        return;
    }
    let place = Place::new("", &[]);
    fs::remove_file(place.file()).expect("remove");
    let out = place.run(&["config", "check"]);
    assert_eq!(out.code, 0, "{out}");
    assert!(out.stdout.contains("0 files and 0 options"), "{out}");
}

#[test]
fn a_mistake_in_a_table_stops_no_other_verb() {
    if is_runc() {
        return;
    }
    let place = Place::new("[functions.f]\nmode = \"on\"\n", &[]);
    let root = place.folder.path().join("root");
    fs::create_dir(&root).expect("root");
    let out = place.run(&["--root", root.to_str().expect("path"), "list", "-q"]);
    assert_eq!(out.code, 0, "{out}");
    assert!(out.stderr.contains("configuration not used"), "{out}");
}

/// Creates the container of a case, lets it end, and waits for what looks after it; what its trace says, if there is
/// one.
fn life(c: &mut Case, place: &Place) -> Option<Context> {
    c.script("sleep 0.2");
    c.bundle.write();
    for line in ["create --bundle BUNDLE ID", "start ID"] {
        let words = c.words(line);
        let out = c
            .cmd()
            .arg("--config")
            .arg(place.file())
            .args(words)
            .output();
        assert_eq!(out.code, 0, "{out}");
    }
    c.wait_for("stopped");
    c.ok("delete ID");
    let gone = eventually(|| c.processes().is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", c.processes());
    let mut rest = vec![place.folder.path().join("store/functions")];
    let mut found = Vec::new();
    while let Some(path) = rest.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("folder").flatten();
            rest.extend(entries.map(|entry| entry.path()));
        } else if path.extension().is_some_and(|ext| ext == "csv") {
            let text = fs::read_to_string(&path).expect("trace");
            let trace: elastic_mem::model::trace::Trace = text.parse().expect("trace");
            found.extend(trace.context.clone());
            fs::remove_file(path).expect("remove");
        }
    }
    assert!(found.len() < 2, "{found:?}");
    found.pop()
}

fn with_store(text: &str) -> Place {
    let place = Place::new("", &[]);
    let store = place.folder.path().join("store");
    fs::write(place.file(), format!("profile.folder = {store:?}\n{text}")).expect("config");
    place
}

#[test]
fn a_table_takes_a_function_out_and_another_one_in() {
    let place = with_store(
        "memory.mode = \"off\"\n[functions.\"*/on*\"]\nmode = \"observe\"\nclass = \"small\"\n\
         [functions.\"*/on-not\"]\nmode = \"off\"\n",
    );
    ours_beyond_runc(|c| {
        c.spec()["annotations"] = json!({"elastic-mem.io/function": "on-1"});
        let context = life(c, &place).expect("a trace");
        assert!(context.function.as_str().ends_with("/on-1"), "{context:?}");
        assert_eq!(
            context.class.as_ref().map(|class| class.as_str()),
            Some("small")
        );
        for name in ["on-not", "other"] {
            c.spec()["annotations"] = json!({"elastic-mem.io/function": name});
            assert_eq!(life(c, &place), None, "{name}");
        }
        c.spec()["annotations"] =
            json!({"elastic-mem.io/function": "on-1", "elastic-mem.io/mode": "off"});
        assert_eq!(life(c, &place), None);
    });
}

#[test]
fn annotations_and_variables_count_if_they_are_listed() {
    let place =
        with_store("[memory]\nannotations = [\"class\"]\nenvironment = [\"MY_FUNCTION\"]\n");
    ours_beyond_runc(|c| {
        c.spec()["annotations"] = json!({
            "elastic-mem.io/function": "told",
            "elastic-mem.io/class": "large",
            "elastic-mem.io/input-bytes": "5",
            "elastic-mem.io/mode": "off",
        });
        c.push(
            "/process/env",
            [json!("K_SERVICE=not"), json!("MY_FUNCTION=mine")],
        );
        let context = life(c, &place).expect("a trace: mode is not listed");
        assert!(context.function.as_str().ends_with("/mine"), "{context:?}");
        assert_eq!(
            context.class.as_ref().map(|class| class.as_str()),
            Some("large")
        );
        assert!(context.features.is_empty(), "{context:?}");
    });
}
