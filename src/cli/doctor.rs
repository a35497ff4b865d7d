//! `doctor`: what holds on this host, and what to do about the rest.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::args::doctor::Doctor;
use super::{Failure, output};
use crate::config::main_file;
use crate::doctor;
use crate::policy::health::{self, Finding, Status};

/// Columns before the text of a finding.
const MARGIN: usize = 10;

/// Looks at the host; the exit code is that of the worst finding.
pub(super) fn run(args: &Doctor, config_file: Option<&Path>) -> Result<u8, Failure> {
    let findings = health::judge(&doctor::gather(&main_file(config_file)));
    let worst = health::worst(&findings);
    if args.json {
        output::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "status": worst,
            "findings": findings,
        }))?;
    } else {
        output::text(&text(&findings, output::width()))?;
    }
    Ok(match worst {
        Status::Ok | Status::Note => 0,
        Status::Warning => 1,
        Status::Error => 2,
    })
}

fn text(findings: &[Finding], width: Option<usize>) -> String {
    let mut out = String::new();
    for finding in findings {
        let about = finding.about.as_deref();
        let about = about.map_or_else(String::new, |about| format!(" of {about}"));
        let status = finding.status.as_str();
        let head = format!("{}{about}: {}", finding.id, finding.seen);
        wrapped(&mut out, &format!("{status:<MARGIN$}"), &head, width);
        let more = [("", &finding.means), ("fix: ", &finding.fix)];
        for (word, text) in more {
            if let Some(text) = text {
                wrapped(
                    &mut out,
                    &" ".repeat(MARGIN),
                    &format!("{word}{text}"),
                    width,
                );
            }
        }
    }
    let counted = |status, one: &str, many: &str| {
        let count = findings
            .iter()
            .filter(|finding| finding.status == status)
            .count();
        format!("{count} {}", if count == 1 { one } else { many })
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{} looked at: {}, {}, {}, {}",
        findings.len(),
        counted(Status::Ok, "ok", "ok"),
        counted(Status::Note, "note", "notes"),
        counted(Status::Warning, "warning", "warnings"),
        counted(Status::Error, "error", "errors"),
    );
    out
}

/// Adds text in lines no longer than `width`, each of them behind the margin.
fn wrapped(out: &mut String, first: &str, text: &str, width: Option<usize>) {
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(MARGIN).max(20));
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let used = lines.last().map_or(0, |line| line.chars().count());
        let fits = used == 0 || used + 1 + word.chars().count() <= room;
        match lines.last_mut().filter(|_| fits) {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    let margin = " ".repeat(MARGIN);
    for (index, line) in lines.iter().enumerate() {
        let start = if index == 0 { first } else { &margin };
        out.push_str(start);
        out.push_str(line);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_no_longer_than_the_terminal_is_wide() {
        let mut out = String::new();
        wrapped(
            &mut out,
            "note      ",
            "one two three four five six",
            Some(30),
        );
        assert_eq!(out, "note      one two three four\n          five six\n");
        let mut out = String::new();
        let long = "a".repeat(50);
        wrapped(&mut out, "ok        ", &long, Some(30));
        assert_eq!(out, format!("ok        {long}\n"));
    }
}
