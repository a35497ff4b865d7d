//! The forms in which profiles are printed.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::exchange::Done;
use super::{Entry, output};
use crate::model::ClassName;
use crate::model::plan::Clock;
use crate::model::profile::{ClassProfile, Confidence, InputBins, Profile};
use crate::policy::learn::trusted;
use crate::profile::{Findings, Store};

/// To milliseconds.
fn time(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    format!("{:?}", Duration::from_millis(millis))
}

/// How many of the runs that were left out stayed below the hull of the others.
fn confidence(confidence: Option<&Confidence>) -> String {
    match confidence {
        Some(Confidence {
            runs, violations, ..
        }) if *runs > 0 => format!("{} of {runs}", runs.saturating_sub(*violations)),
        _ => "-".to_owned(),
    }
}

pub(super) fn runs(count: usize) -> String {
    format!("{count} {}", if count == 1 { "run" } else { "runs" })
}

pub(super) fn list(entries: &[Entry]) -> String {
    let head = [
        "FUNCTION",
        "RUNS",
        "CLASSES",
        "HELD MAX",
        "FILE MAX",
        "BELOW HULL",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    let mut remarks = String::new();
    for entry in entries {
        let name = entry.function.to_string();
        let none = || "-".to_owned();
        let row = match &entry.profile {
            Ok(profile) => {
                let all = profile.classes.get(&ClassName::all());
                [
                    name,
                    complete_runs(profile).to_string(),
                    profile.classes.len().to_string(),
                    all.map_or_else(none, |all| all.held_peak.max.to_megabytes()),
                    all.map_or_else(none, |all| all.file_peak.max.to_megabytes()),
                    confidence(all.map(|all| &all.wall_confidence)),
                ]
            }
            Err(problem) => {
                // Writing to a string does not fail.
                let _ = writeln!(remarks, "{name}: {problem}");
                [name, none(), none(), none(), none(), none()]
            }
        };
        rows.push(row);
    }
    let mut out = output::table(&rows, 0, 2);
    if !remarks.is_empty() {
        let _ = write!(
            out,
            "\n{remarks}`elastic-mem profile verify --repair` learns such profiles again\n"
        );
    }
    out
}

pub(super) fn list_json(entries: &[Entry]) -> Value {
    let entry = |entry: &Entry| match &entry.profile {
        Ok(profile) => {
            let all = profile.classes.get(&ClassName::all());
            json!({
                "function": entry.function,
                "runs": complete_runs(profile),
                "classes": profile.classes.keys().collect::<Vec<_>>(),
                "heldPeak": all.map(|all| all.held_peak),
                "filePeak": all.map(|all| all.file_peak),
                "wallConfidence": all.map(|all| all.wall_confidence),
            })
        }
        Err(problem) => json!({"function": entry.function, "problem": problem}),
    };
    entries.iter().map(entry).collect()
}

pub(super) fn profile(profile: &Profile) -> String {
    let classes = match &profile.bins {
        Some(bins) => format!("by {}, unless one is given", bins.feature),
        None => "as they are given".to_owned(),
    };
    let rows = [
        ["FUNCTION".to_owned(), profile.function.to_string()],
        ["RUNS".to_owned(), complete_runs(profile).to_string()],
        ["CLASSES".to_owned(), classes],
    ];
    let mut out = output::table(&rows, 0, 2) + "\n";
    if profile.classes.is_empty() {
        return out + "no run has come to its end\n";
    }
    out += &classes_table(profile.classes.iter());
    out
}

fn classes_table<'a>(classes: impl Iterator<Item = (&'a ClassName, &'a ClassProfile)>) -> String {
    let head = [
        "CLASS",
        "RUNS",
        "COLD",
        "HELD P50",
        "HELD P99",
        "HELD MAX",
        "FILE MAX",
        "LONGEST",
        "BELOW HULL",
        "BY CPU",
        "REPLAY BY",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(classes.map(|(name, class)| {
        let file = class.cold_file_peak.map_or(class.file_peak.max, |cold| {
            cold.max.max(class.file_peak.max)
        });
        [
            name.to_string(),
            class.runs.to_string(),
            class.cold_runs.to_string(),
            class.held_peak.p50.to_megabytes(),
            class.held_peak.p99.to_megabytes(),
            class.held_peak.max.to_megabytes(),
            file.to_megabytes(),
            time(class.duration),
            confidence(Some(&class.wall_confidence)),
            confidence(class.cpu_confidence.as_ref()),
            match trusted(class) {
                Some(Clock::Wall) => "wall time",
                Some(Clock::Cpu) => "CPU time",
                None => "-",
            }
            .to_owned(),
        ]
    }));
    output::table(&rows, 0, 2)
}

pub(super) fn bins(found: &[InputBins], profile: &Profile) -> String {
    if found.is_empty() {
        return "no complete run without a given class has a feature\n".to_owned();
    }
    let head = [
        "FEATURE",
        "USED",
        "CLASSES",
        "FALSE POSITIVES",
        "COST",
        "EDGES",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(found.iter().map(|bins| {
        let edges: Vec<String> = bins.edges.iter().map(f64::to_string).collect();
        let used = profile
            .bins
            .as_ref()
            .is_some_and(|used| used.feature == bins.feature);
        [
            bins.feature.clone(),
            if used { "yes" } else { "no" }.to_owned(),
            bins.edges.len().saturating_add(1).to_string(),
            format!("{:.1} %", bins.false_positives * 100.0),
            format!("{:.1} %", bins.relative_cost * 100.0),
            if edges.is_empty() {
                "-".to_owned()
            } else {
                edges.join(" ")
            },
        ]
    }));
    let mut out = output::table(&rows, 0, 2);
    let learned: Vec<(&ClassName, &ClassProfile)> = found
        .iter()
        .filter(|bins| {
            profile
                .bins
                .as_ref()
                .is_some_and(|used| used.feature == bins.feature)
        })
        .flat_map(|bins| {
            let values = bins.edges.iter().copied().chain([f64::INFINITY]);
            values.filter_map(|value| bins.class(value).ok())
        })
        .filter_map(|name| profile.classes.get_key_value(&name))
        .collect();
    if !learned.is_empty() {
        out += "\n";
        out += &classes_table(learned.into_iter());
    }
    out
}

pub(super) fn added(done: &[Done]) -> String {
    let mut rows = vec![["FUNCTION", "NEW", "KNOWN", "KEPT"].map(str::to_owned)];
    rows.extend(done.iter().map(|done| {
        [
            done.function.to_string(),
            done.added.new.to_string(),
            done.added.known.to_string(),
            done.added.kept.to_string(),
        ]
    }));
    let mut out = output::table(&rows, 0, 2);
    for done in done.iter().filter(|done| done.incomplete > 0) {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{}: {} did not come to an end: what is known of it is a lower bound",
            done.function,
            runs(done.incomplete)
        );
    }
    out
}

pub(super) fn added_json(done: &[Done]) -> Value {
    let entry = |done: &Done| {
        json!({
            "function": done.function,
            "new": done.added.new,
            "known": done.added.known,
            "kept": done.added.kept,
            "incomplete": done.incomplete,
        })
    };
    done.iter().map(entry).collect()
}

pub(super) fn findings(findings: &Findings, store: &Store) -> String {
    let mut out = String::new();
    for finding in &findings.findings {
        let path = finding
            .path
            .strip_prefix(store.root())
            .unwrap_or(&finding.path);
        let repaired = if finding.repaired { " (repaired)" } else { "" };
        // Writing to a string does not fail.
        let _ = writeln!(out, "{}: {}{repaired}", path.display(), finding.problem);
    }
    let count = findings.findings.len();
    let problems = if count == 1 { "problem" } else { "problems" };
    let _ = writeln!(
        out,
        "{}: {} files and folders, {count} {problems}",
        store.root().display(),
        findings.checked
    );
    out
}

pub(super) fn findings_json(findings: &Findings) -> Value {
    let entry = |finding: &crate::profile::Finding| {
        json!({
            "path": finding.path,
            "problem": finding.problem,
            "repaired": finding.repaired,
        })
    };
    json!({
        "checked": findings.checked,
        "findings": findings.findings.iter().map(entry).collect::<Vec<_>>(),
    })
}

/// How many runs it was learned from.
fn complete_runs(profile: &Profile) -> u32 {
    let all = profile.classes.get(&ClassName::all());
    all.map_or(0, |class| class.runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bytes;

    #[test]
    fn confidence_needs_runs() {
        let of = |runs, violations| Confidence {
            runs,
            violations,
            worst: Bytes::ZERO,
        };
        assert_eq!(confidence(Some(&of(12, 1))), "11 of 12");
        assert_eq!(confidence(Some(&of(0, 0))), "-");
        assert_eq!(confidence(None), "-");
    }
}
