//! `metrics`: the format, what is told of real containers, and what documents and the dashboard say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{eventually, wait_until};
use crate::grants::{CEILING, elastic, is_granted_less};
use crate::harness::{Case, Cmd, host, ours_beyond_runc, skip};

/// A series: its name, its labels.
type Series = (String, BTreeMap<String, String>);

#[derive(Debug, Default)]
struct Exposition {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<Series, f64>,
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Reads the text format 0.0.4, stricter than Prometheus does.
fn parse(text: &str) -> Exposition {
    let mut out = Exposition::default();
    assert!(text.ends_with('\n'), "the last line has no end");
    let mut helped = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help");
            assert!(is_name(name) && !help.is_empty(), "{line}");
            assert!(helped.insert(name.to_owned()), "twice: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(helped.contains(name), "no help before {line}");
            let before = out.kinds.insert(name.to_owned(), kind.to_owned());
            assert_eq!(before, None, "twice: {line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect("an end")),
                None => (series, ""),
            };
            assert!(out.kinds.contains_key(name), "no type before {line}");
            let value: f64 = value.parse().expect("a number");
            assert!(value.is_finite() && value >= 0.0, "{line}");
            let key = (name.to_owned(), parse_labels(labels));
            assert!(out.samples.insert(key, value).is_none(), "twice: {line}");
        }
    }
    assert_eq!(helped.len(), out.kinds.len());
    out
}

fn parse_labels(mut text: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").expect("a label");
        assert!(is_name(name), "{name}");
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().expect("an end of the value") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().expect("an escape").1 {
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    c => panic!("\\{c}"),
                },
                (_, c) => value.push(c),
            }
        };
        assert!(out.insert(name.to_owned(), value).is_none(), "{name} twice");
        let rest = &rest[end + 1..];
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    out
}

fn metrics(c: &Case, words: &[&str]) -> Exposition {
    let outcome = c.cmd().arg("metrics").args(words).output();
    assert_eq!(outcome.code, 0, "{outcome}");
    parse(&outcome.stdout)
}

/// Prometheus' own checker has nothing to say, where there is one.
fn please_promtool(text: &str) {
    let mut version = std::process::Command::new("promtool");
    if version.arg("--version").output().is_ok() {
        let cmd = Cmd::new("promtool").args(["check", "metrics"]);
        let checked = cmd.stdin(text).output();
        assert_eq!(checked.code, 0, "{checked}");
        assert_eq!(checked.stdout + &checked.stderr, "");
    }
}

impl Exposition {
    /// The value of a series whose label has this value.
    fn of(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        let name = format!("elastic_mem_{name}");
        let mut all = self.samples.iter();
        all.find(|((found, labels), _)| {
            *found == name && labels.get(label).is_some_and(|found| found == value)
        })
        .map(|(_, value)| *value)
    }
}

fn function(c: &Case) -> String {
    let namespace = c.root().file_name().expect("name").to_string_lossy();
    format!("{namespace}/known")
}

#[test]
fn figures_of_real_containers_go_on_when_they_end() {
    elastic(|c| {
        // Ends are counted from the first time on that somebody asks.
        metrics(c, &[]);
        c.up();
        is_granted_less(c);
        let function = function(c);
        let of = |all: &Exposition, name: &str| all.of(name, "function", &function);
        please_promtool(&c.cmd().arg("metrics").output().stdout);
        let all = metrics(c, &[]);
        assert_eq!(of(&all, "ceiling_bytes"), Some(CEILING as f64));
        let limit = of(&all, "limit_bytes").expect("a limit");
        assert_eq!(of(&all, "reclaimable_bytes"), Some(CEILING as f64 - limit));
        assert_eq!(of(&all, "containers"), Some(1.0));
        assert_eq!(of(&all, "unattended_containers"), Some(0.0));
        assert_eq!(of(&all, "started_total"), Some(1.0));
        assert!(all.of("usage_bytes", "id", c.id()).is_none());
        assert!(
            metrics(c, &["--with-id"])
                .of("usage_bytes", "id", c.id())
                .is_some()
        );
        wait_until("a second of it", || {
            of(&metrics(c, &[]), "ceiling_byte_seconds_total")
                .is_some_and(|area| area > CEILING as f64)
        });
        let before = metrics(c, &[]);

        c.ok("delete --force ID");
        let counters: Vec<String> = before
            .kinds
            .iter()
            .filter(|(_, kind)| *kind == "counter")
            .map(|(name, _)| name.trim_start_matches("elastic_mem_").to_owned())
            .collect();
        let gone = eventually(|| {
            let after = metrics(c, &[]);
            for name in &counters {
                let (then, now) = (of(&before, name), of(&after, name));
                assert!(now >= then, "{name} fell from {then:?} to {now:?}");
            }
            of(&after, "usage_bytes").is_none().then_some(after)
        });
        let after = gone.expect("no figures of its own");
        assert_eq!(of(&after, "containers"), None);
        assert_eq!(of(&after, "started_total"), Some(1.0));
        assert_eq!(of(&after, "oom_kills_total"), Some(0.0));
    });
}

#[test]
fn a_file_is_replaced_in_one_step_and_a_failure_leaves_it() {
    ours_beyond_runc(|c| {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("elastic-mem.prom");
        fs::write(&file, "old").expect("write");
        let write = |path: &Path| {
            let path = path.to_string_lossy().into_owned();
            c.cmd().args(["metrics", "--textfile", &path]).output()
        };
        let outcome = write(&file);
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (0, ""),
            "{outcome}"
        );
        let text = fs::read_to_string(&file).expect("read");
        assert_eq!(
            parse(&text).of("build_info", "version", env!("CARGO_PKG_VERSION")),
            Some(1.0)
        );
        let left = fs::read_dir(dir.path()).expect("folder").count();
        assert_eq!(left, 1, "something is left beside it");
        let outcome = write(&dir.path().join("none/x.prom"));
        assert_ne!(outcome.code, 0);
        assert!(outcome.stderr.contains("none/x.prom"), "{outcome}");
    });
}

/// The names of all figures, as the program tells them.
fn names() -> Option<BTreeSet<String>> {
    if !nix::unistd::geteuid().is_root() || host::name_of(&host::our_program()) == "runc" {
        return None;
    }
    let outcome = Cmd::new(host::our_program()).arg("metrics").output();
    assert_eq!(outcome.code, 0, "{outcome}");
    Some(parse(&outcome.stdout).kinds.into_keys().collect())
}

/// All words that are names of figures.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    words
        .filter(|word| word.starts_with("elastic_mem_") && *word != "elastic_mem_")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_figure_is_documented_and_the_dashboard_shows_none_that_is_not_there() {
    let Some(names) = names() else {
        return skip("no root, or not our program");
    };
    let read = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        fs::read_to_string(path).expect("read")
    };
    assert_eq!(named(&read("docs/metrics.md")), names);
    let text = read("deploy/grafana/elastic-mem.json");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36));
    assert_eq!(dashboard["__inputs"][0]["name"], "DS_PROMETHEUS");
    let shown = named(&text);
    let unknown: Vec<_> = shown.difference(&names).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let missing: Vec<_> = names.difference(&shown).collect();
    assert!(missing.is_empty(), "not on the dashboard: {missing:?}");
    // Panels do not cover each other.
    let mut cells = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && cells.insert((x, y)), "{}", panel["title"]);
            }
        }
    }
}
