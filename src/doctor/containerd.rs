//! The containerds that run on this host: what each one is, where it looks for shims, what it is told.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{ask, option, processes_of, seen_from_here};
use crate::kernel::{chain, process, reason};
use crate::policy::health::{Containerd, ContainerdConfig, Handler, Shim};

/// The shim, as containerd looks for it.
const SHIM: &str = "containerd-shim-elastic-mem-v1";
/// The type by which its configuration names us.
const RUNTIME: &str = "io.containerd.elastic-mem.v1";
const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";

pub(super) fn gather(pids: &[i32]) -> Vec<Containerd> {
    processes_of(pids, "containerd")
        .map(|(pid, program)| one(pid, &program))
        .collect()
}

fn one(pid: i32, program: &Path) -> Containerd {
    let words = process::command_line(pid).unwrap_or_default();
    let search = search(pid, program);
    let found = search.iter().flatten().find_map(|folder| {
        let path = folder.join(SHIM);
        is_executable(&seen_from_here(pid, &path)).then_some(path)
    });
    Containerd {
        pid,
        program: program.display().to_string(),
        version: ask(&seen_from_here(pid, program), "--version")
            .and_then(|text| text.split_whitespace().nth(2).map(str::to_owned)),
        shim: found.map(|path| Shim {
            version: ask(&seen_from_here(pid, &path), "-v").and_then(|text| shim_version(&text)),
            path: path.display().to_string(),
        }),
        search: search.map(|folders| {
            let folders = folders.iter().map(|folder| folder.display().to_string());
            folders.collect()
        }),
        ours: env!("CARGO_PKG_VERSION").to_owned(),
        config: config(pid, &words),
        is_of_docker: words
            .iter()
            .any(|word| word.contains("/docker/containerd/")),
    }
}

/// In the order of containerd (`pkg/shim/util.go`, `shimBinary`): working folder, PATH, its own folder.
fn search(pid: i32, program: &Path) -> Option<Vec<PathBuf>> {
    let path = process::variable(pid, "PATH").ok()?.unwrap_or_default();
    let mut folders: Vec<PathBuf> = process::working_folder(pid).into_iter().collect();
    folders.extend(std::env::split_paths(&path).filter(|folder| folder.is_absolute()));
    folders.extend(program.parent().map(Path::to_path_buf));
    Some(folders)
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && process::check_may_execute(path).is_ok()
}

fn shim_version(text: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Version:"))?;
    Some(line.trim().to_owned())
}

fn config(pid: i32, words: &[String]) -> ContainerdConfig {
    let given = option(words, &["config", "c"]).unwrap_or_else(|| DEFAULT_CONFIG.to_owned());
    let folder = process::working_folder(pid).unwrap_or_default();
    let main = folder.join(given);
    let name = main.display().to_string();
    let text = match std::fs::read_to_string(seen_from_here(pid, &main)) {
        Ok(text) => text,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            return ContainerdConfig::Missing(name);
        }
        Err(err) => return ContainerdConfig::Unreadable(name, reason(&err)),
    };
    let table: Table = match text.parse() {
        Ok(table) => table,
        Err(err) => return ContainerdConfig::Unreadable(name, chain(&err).trim_end().to_owned()),
    };
    let version = table
        .get("version")
        .and_then(Value::as_integer)
        .unwrap_or(1);
    let mut handlers = handlers(pid, &name, &table, false);
    for file in imports(pid, &main, &table) {
        let text = std::fs::read_to_string(seen_from_here(pid, &file)).unwrap_or_default();
        match text.parse::<Table>() {
            Ok(table) => {
                handlers.extend(self::handlers(
                    pid,
                    &file.display().to_string(),
                    &table,
                    true,
                ));
            }
            Err(err) => {
                let why = chain(&err).trim_end().to_owned();
                return ContainerdConfig::Unreadable(file.display().to_string(), why);
            }
        }
    }
    ContainerdConfig::Read {
        file: name,
        version: u32::try_from(version).unwrap_or(0),
        handlers,
    }
}

/// The files that a main file imports: paths with a `*` in their last part at most, from the folder of the file.
fn imports(pid: i32, main: &Path, table: &Table) -> Vec<PathBuf> {
    let patterns = table.get("imports").and_then(Value::as_array);
    let mut files = Vec::new();
    for pattern in patterns.into_iter().flatten().filter_map(Value::as_str) {
        let pattern = main.parent().unwrap_or(main).join(pattern);
        let (Some(folder), Some(name)) = (
            pattern.parent(),
            pattern.file_name().and_then(|name| name.to_str()),
        ) else {
            continue;
        };
        let entries = std::fs::read_dir(seen_from_here(pid, folder));
        let mut found: Vec<PathBuf> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|entry| fits(entry, name))
            .map(|entry| folder.join(entry))
            .collect();
        found.sort();
        files.extend(found);
    }
    files
}

/// Whether a name fits a pattern in which `*` stands for any text.
fn fits(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices()
                .map(|(at, _)| at)
                .chain([tail.len()])
                .any(|at| tail.get(at..).is_some_and(|tail| fits(tail, rest)))
        }),
    }
}

fn handlers(pid: i32, file: &str, table: &Table, is_imported: bool) -> Vec<Handler> {
    let plugins = table.get("plugins").and_then(Value::as_table);
    let mut found = Vec::new();
    for (plugin, section) in plugins.into_iter().flatten() {
        let runtimes = section
            .get("containerd")
            .and_then(|containerd| containerd.get("runtimes"))
            .and_then(Value::as_table);
        for (name, runtime) in runtimes.into_iter().flatten() {
            let text = |key: &str| runtime.get(key).and_then(Value::as_str);
            let path = text("runtime_path").filter(|path| !path.is_empty());
            let is_ours = text("runtime_type") == Some(RUNTIME)
                || path.is_some_and(|path| path.ends_with(SHIM));
            if !is_ours {
                continue;
            }
            let patterns = runtime.get("pod_annotations").and_then(Value::as_array);
            found.push(Handler {
                name: name.clone(),
                file: file.to_owned(),
                plugin: plugin.clone(),
                is_imported,
                pod_annotations: patterns
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
                path: path.map(|path| {
                    let there = is_executable(&seen_from_here(pid, Path::new(path)));
                    (path.to_owned(), there)
                }),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_of_ours_are_found_in_every_version_of_the_file() {
        let example = include_str!("../../config/containerd.toml");
        let second: String = example
            .split("# The second form")
            .nth(1)
            .unwrap()
            .lines()
            .skip(1)
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let pid = std::process::id().cast_signed();
        for (text, plugin) in [
            (example, "io.containerd.grpc.v1.cri"),
            (second.as_str(), "io.containerd.cri.v1.runtime"),
        ] {
            let table: Table = text.parse().unwrap();
            let found = handlers(pid, "f", &table, false);
            assert_eq!(found.len(), 1, "{plugin}");
            assert_eq!(found[0].name, "elastic-mem");
            assert_eq!(found[0].plugin, plugin);
            assert!(
                found[0]
                    .pod_annotations
                    .iter()
                    .any(|pattern| pattern == "elastic-mem.io/*")
            );
        }
    }

    #[test]
    fn names_of_imported_files_fit_patterns() {
        for (name, pattern, is) in [
            ("a.toml", "*.toml", true),
            ("a.toml", "a.toml", true),
            ("a.toml.bak", "*.toml", false),
            ("10-x.toml", "1*-*.toml", true),
            ("", "*", true),
        ] {
            assert_eq!(fits(name, pattern), is, "{name} {pattern}");
        }
    }

    #[test]
    fn the_version_of_a_shim_is_read() {
        let text = "containerd-shim-elastic-mem-v1:\n  Version:  0.1.0\n";
        assert_eq!(shim_version(text).as_deref(), Some("0.1.0"));
        assert_eq!(shim_version("runc version 1"), None);
    }
}
