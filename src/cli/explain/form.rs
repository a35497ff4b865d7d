//! The explanation on a terminal.

use std::fmt::Write;

use super::{Explained, State};
use crate::model::Bytes;
use crate::model::plan::Reason;

/// Lines are no longer, as those of the help.
const WIDTH: usize = 110;
/// No column before the text is wider.
const MOST: usize = 24;
/// Between two columns.
const GAP: usize = 2;

/// All of it, in tables.
pub(super) fn table(explained: &Explained) -> String {
    let mut out = format!(
        "{} in namespace {}, function {}\n\n",
        explained.id, explained.namespace, explained.function
    );
    match &explained.plan {
        Some(plan) => {
            let placed = explained.placement.iter();
            let all: Vec<Reason> = placed
                .flat_map(|placement| placement.reasons.iter().cloned())
                .collect();
            out += &reasons(&[plan.reasons.as_slice(), &all].concat());
        }
        None => out += "It holds the namespaces of a pod: nothing is done with its memory.\n",
    }
    out += "\n";
    match &explained.state {
        Some(state) => out += &now(state),
        None => out += "It does not run.\n",
    }
    out
}

fn reasons(reasons: &[Reason]) -> String {
    let head = Reason {
        what: "WHAT".into(),
        value: "VALUE".to_owned(),
        because: "BECAUSE OF".to_owned(),
        change: "WHAT WOULD CHANGE IT".to_owned(),
    };
    let rows = || std::iter::once(&head).chain(reasons);
    let widest = |width: fn(&Reason) -> usize| rows().map(width).max().unwrap_or(0).min(MOST);
    let first = widest(|reason| reason.what.chars().count());
    let second = widest(|reason| reason.value.chars().count());
    // What is left, for two columns of text.
    let text = (WIDTH - 3 * GAP).saturating_sub(first + second) / 2;
    let widths = [first, second, text, text];
    let mut out = String::new();
    for reason in rows() {
        let cells = [
            &*reason.what,
            &reason.value,
            &reason.because,
            &reason.change,
        ];
        let mut columns: Vec<_> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| (width, wrapped(cell, width).into_iter()))
            .collect();
        loop {
            let mut line = String::new();
            let mut is_last = true;
            for (width, column) in &mut columns {
                let cell = column.next();
                is_last &= cell.is_none();
                let cell = cell.unwrap_or_default();
                // Writing to a string does not fail.
                let _ = write!(line, "{cell:<width$}{:GAP$}", "");
            }
            if is_last {
                break;
            }
            out += line.trim_end();
            out.push('\n');
        }
    }
    out
}

fn now(state: &State) -> String {
    let none = || "none".to_owned();
    let size = |bytes: Option<Bytes>| bytes.map_or_else(none, Bytes::to_megabytes);
    let parts: Vec<String> = [
        ("anonymous", state.anon),
        ("file cache", state.file),
        ("shared", state.shmem),
    ]
    .into_iter()
    .filter_map(|(name, bytes)| Some(format!("{name} {}", bytes?.to_megabytes())))
    .collect();
    let mode = match state.mode {
        Some(mode) => mode.to_string(),
        None => "not recorded".to_owned(),
    };
    let rows = [
        ["NOW".to_owned(), state.status.to_string()],
        ["mode".to_owned(), mode],
        [
            "limit in force".to_owned(),
            format!("{}, cgroup v{}", size(state.limit), state.cgroup),
        ],
        [
            "usage".to_owned(),
            format!("{} ({})", state.usage.to_megabytes(), parts.join(", ")),
        ],
        [
            "reclaimable".to_owned(),
            match (state.reclaimable, state.ceiling) {
                (Some(bytes), Some(ceiling)) => format!(
                    "{}: the ceiling {} less the limit in force",
                    bytes.to_megabytes(),
                    ceiling.to_megabytes()
                ),
                _ => "none: there is no ceiling".to_owned(),
            },
        ],
    ];
    crate::cli::output::table(&rows, 0, 2)
}

/// Lines of whole words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_of_whole_words() {
        assert_eq!(wrapped("a bb ccc", 5), ["a bb", "ccc"]);
        assert_eq!(wrapped("longer-than-that a", 5), ["longer-than-that", "a"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn columns_of_text_are_wrapped_side_by_side() {
        let words = |count: usize| vec!["four"; count].join(" ");
        let text = reasons(&[Reason {
            what: "mode".into(),
            value: "observe".to_owned(),
            because: words(12),
            change: words(7),
        }]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
        let at = |line: usize, word: &str| lines[line].find(word).unwrap();
        assert!(lines[1].starts_with("mode  observe  four "));
        assert_eq!(at(0, "BECAUSE OF"), at(2, "four"));
        assert_eq!(lines[1].matches("four").count(), 16, "{text}");
        assert_eq!(lines[2].matches("four").count(), 3, "{text}");
    }
}
