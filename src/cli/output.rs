//! What is printed.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use serde::Serialize;

use super::Failure;
use crate::kernel::{reason, tty};
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
    columns(rows, least, gap)
}

/// Columns of cells, as many as the first row has.
pub(super) fn columns(rows: &[impl AsRef<[String]>], least: usize, gap: usize) -> String {
    let count = rows.first().map_or(0, |row| row.as_ref().len());
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.as_ref().get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.saturating_add(gap).max(least)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (index, (cell, width)) in row.as_ref().iter().zip(&widths).enumerate() {
            // Writing to a string does not fail.
            let _ = if index + 1 == count {
                writeln!(out, "{cell}")
            } else {
                write!(out, "{cell:<width$}")
            };
        }
    }
    out
}

/// Writes a file so that it is there as a whole or as it was.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write(path, bytes)
        .map_err(|err| Failure::new(format!("write {}: {}", path.display(), reason(&err))))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link stays a link, and a pipe or a device is written to.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
        return File::options().write(true).open(&path)?.write_all(bytes);
    }
    let temporary = temporary(&path);
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A name beside the file that nobody else uses.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
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
