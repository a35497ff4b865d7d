//! What is printed.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use clap_complete::Shell;
use serde::Serialize;

use crate::kernel::tty;
use crate::runtime::StateReport;

/// Prints text; a reader that has gone away is no failure.
pub(super) fn text(text: &str) -> io::Result<()> {
    bytes(text.as_bytes())
}

/// The same for what is no text.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    match io::stdout().write_all(bytes) {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Columns of the terminal that is printed to; none if it is no terminal.
pub(super) fn width() -> Option<usize> {
    let columns = tty::size(io::stdout().as_fd()).ok()?.columns;
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

/// Prints JSON for people, indented.
pub(super) fn json(value: &impl Serialize) -> io::Result<()> {
    text(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints JSON for programs, in one line.
pub(super) fn json_line(value: &impl Serialize) -> io::Result<()> {
    text(&format!("{}\n", serde_json::to_string(value)?))
}

/// Prints a list in one line; an empty one is `null`, as callers of runc know it.
pub(super) fn json_list(list: &[impl Serialize]) -> io::Result<()> {
    if list.is_empty() {
        return text("null\n");
    }
    json_line(&list)
}

/// The table of `list`.
pub(super) fn container_table(reports: &[StateReport]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(reports.iter().map(|report| {
        [
            report.id.clone(),
            report.pid.to_string(),
            report.status.to_string(),
            report.bundle.clone(),
            report.created.clone(),
            report.owner.clone(),
        ]
    }));
    // As wide as runc's: scripts cut columns.
    table(&rows, 12, 3)
}

pub(super) fn table<const N: usize>(rows: &[[String; N]], least: usize, gap: usize) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.saturating_add(gap).max(least)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string does not fail.
            let _ = if index + 1 == N {
                writeln!(out, "{cell}")
            } else {
                write!(out, "{cell:<width$}")
            };
        }
    }
    out
}

/// Prints a completion script.
pub(super) fn completions(command: &mut clap::Command, shell: Shell) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    io::stdout().write_all(&script)
}

/// Writes one man page for the command and one for each verb.
pub(super) fn man_pages(command: &clap::Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (name, page) in man_page_texts(command)? {
        std::fs::write(folder.join(name), page)?;
    }
    Ok(())
}

/// The man pages, by file name: one for the command and one for each verb.
pub(super) fn man_page_texts(command: &clap::Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    fn add(command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            add(verb, pages)?;
        }
        let man = clap_mangen::Man::new(command.clone());
        let mut page = Vec::new();
        man.render(&mut page)?;
        pages.push((man.get_filename(), page));
        Ok(())
    }
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, &mut pages)?;
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["A", "B"], ["long", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows, 0, 2), "A     B\nlong  x\n");
    }
}
