//! `install` and `uninstall`: what is done, and how it is told.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap_complete::Shell;
use similar::{ChangeTag, TextDiff};

use super::args::{Install, Uninstall};
use super::{Failure, output};
use crate::control;
use crate::install::{
    Action, Done, Installation, OwnFile, Removal, Report, install, restart, uninstall,
};
use crate::runtime::chain;

/// Where shells look for completions, from the prefix.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions/elastic-mem"),
    (Shell::Zsh, "share/zsh/site-functions/_elastic-mem"),
    (
        Shell::Fish,
        "share/fish/vendor_completions.d/elastic-mem.fish",
    ),
];

/// Installs.
pub(super) fn run_install(args: &Install, command: &clap::Command) -> Result<(), Failure> {
    let host = args.host()?;
    let is_below = host.destdir.is_some();
    let report = install(&Installation {
        host,
        engines: args.engines().map_err(Failure::new)?,
        own_files: own_files(command)?,
        is_default: args.default,
        dry_run: args.dry_run,
    })?;
    tell(&report, args.dry_run, "everything is in place")?;
    finish(report, args.dry_run, args.restart, !is_below)
}

/// Takes out.
pub(super) fn run_uninstall(args: &Uninstall) -> Result<(), Failure> {
    let host = args.host();
    let ignores = args.force || args.dry_run || host.destdir.is_some();
    let containers = match ignores {
        true => Vec::new(),
        false => control::all_names(),
    };
    let is_below = host.destdir.is_some();
    let report = uninstall(&Removal {
        host,
        engines: args.engines().map_err(Failure::new)?,
        dry_run: args.dry_run,
        containers,
    })?;
    let Some(report) = report else {
        return Ok(output::text("nothing to change: nothing is installed\n")?);
    };
    tell(&report, args.dry_run, "nothing of it is installed")?;
    finish(report, args.dry_run, args.restart, !is_below)
}

/// Completions and man pages.
fn own_files(command: &clap::Command) -> io::Result<Vec<OwnFile>> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let mut files = Vec::new();
    for (shell, path) in COMPLETIONS {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), "elastic-mem", &mut script);
        files.push(OwnFile {
            path: PathBuf::from(path),
            text: text(script),
        });
    }
    for (name, page) in output::man_page_texts(command)? {
        files.push(OwnFile {
            path: PathBuf::from("share/man/man1").join(name),
            text: text(page),
        });
    }
    Ok(files)
}

fn tell(report: &Report, dry_run: bool, nothing: &str) -> io::Result<()> {
    let colour = io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let mut out = String::new();
    let (documents, files): (Vec<_>, Vec<_>) =
        report.done.iter().partition(|done| is_document(done));
    for done in files {
        out += &line(done, dry_run);
        if dry_run && let Some((before, after)) = &done.texts {
            out += &difference(&done.path.to_string_lossy(), before, after, colour);
        }
    }
    // Many files of which nobody wants to know each name.
    for group in documents.chunk_by(|one, other| one.action == other.action) {
        if let [first, ..] = group {
            let (word, would) = words(first.action);
            let word = if dry_run {
                format!("would {would}")
            } else {
                word.to_owned()
            };
            let count = group.len();
            out += &format!(
                "{word} {count} completions, man pages and examples, such as {}\n",
                first.path.display()
            );
        }
    }
    if report.done.is_empty() && report.failures.is_empty() {
        out += &format!("nothing to change: {nothing}\n");
    }
    for note in &report.notes {
        out += &format!("note: {note}\n");
    }
    output::text(&out)
}

/// Whether a file is of the program, and neither an executable nor the configuration.
fn is_document(done: &Done) -> bool {
    let folders = [
        "share/bash-completion",
        "share/zsh",
        "share/fish",
        "share/man/man1",
        "share/doc/elastic-mem",
    ];
    let path = done.path.to_string_lossy();
    folders.iter().any(|folder| path.contains(folder))
}

/// What is said of what was done, and of what would be.
fn words(action: Action) -> (&'static str, &'static str) {
    match action {
        Action::Made => ("made", "make"),
        Action::Changed => ("changed", "change"),
        Action::Restored => ("restored", "restore"),
        Action::TakenOut => ("took our part out of", "take our part out of"),
        Action::Removed => ("removed", "remove"),
        Action::Kept => ("kept", "keep"),
    }
}

fn line(done: &Done, dry_run: bool) -> String {
    let (word, would) = words(done.action);
    let path = done.path.display();
    let rest = match (&done.backup, done.action) {
        (Some(backup), _) => format!(" (as it was: {})", backup.display()),
        (None, Action::TakenOut) => ": it was changed since".to_owned(),
        (None, Action::Kept) => ": it is somebody else's by now".to_owned(),
        (None, _) => String::new(),
    };
    match dry_run {
        true => format!("would {would} {path}{rest}\n"),
        false => format!("{word} {path}{rest}\n"),
    }
}

/// A unified diff.
fn difference(path: &str, before: &str, after: &str, colour: bool) -> String {
    let diff = TextDiff::from_lines(before, after);
    let paint = |code: &str, text: &str| match (colour, text.strip_suffix('\n')) {
        (false, _) => text.to_owned(),
        (true, Some(line)) => format!("\x1b[{code}m{line}\x1b[0m\n"),
        (true, None) => format!("\x1b[{code}m{text}\x1b[0m"),
    };
    let mut out = paint("1", &format!("--- {path}\n")) + &paint("1", &format!("+++ {path}\n"));
    for hunk in diff.unified_diff().iter_hunks() {
        out += &paint("36", &format!("{}\n", hunk.header()));
        for change in hunk.iter_changes() {
            let (sign, code) = match change.tag() {
                ChangeTag::Equal => (' ', "0"),
                ChangeTag::Delete => ('-', "31"),
                ChangeTag::Insert => ('+', "32"),
            };
            out += &paint(code, &format!("{sign}{}", change.value()));
            if change.missing_newline() {
                out += "\n\\ No newline at end of file\n";
            }
        }
    }
    out
}

/// What is to be done after it, and what failed.
fn finish(report: Report, dry_run: bool, restarts: bool, is_host: bool) -> Result<(), Failure> {
    if !dry_run && is_host && !report.restart.is_empty() {
        let commands = report.restart.iter().map(|words| words.join(" "));
        let commands = commands.collect::<Vec<_>>().join(" && ");
        if restarts {
            restart(&report.restart)?;
            output::text(&format!("done: {commands}\n"))?;
        } else {
            output::text(&format!("to have it read: {commands}\n"))?;
        }
    }
    let mut failures = report.failures.iter().map(|err| chain(err));
    match failures.next_back() {
        None => Ok(()),
        Some(last) => {
            failures.for_each(|text| tracing::error!("{text}"));
            Err(Failure::new(last))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_changes_and_where() {
        assert_eq!(
            difference("/f", "a\nb\n", "a\nc\n", false),
            "--- /f\n+++ /f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
        );
        assert!(difference("/f", "", "c\n", true).contains("\x1b[32m+c\x1b[0m\n"));
        assert!(difference("/f", "a", "a\n", false).contains("No newline at end of file"));
    }
}
