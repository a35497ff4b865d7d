//! What documents and sources say about each other. Needs no root and no container.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use elastic_mem::config::{Config, FUNCTION_OPTIONS, OPTIONS, Origin};

use crate::harness::{Cmd, host, skip};

/// Longer files hold two subjects.
const MOST_LINES: usize = 700;

/// Files outside `src/kernel` whose code may name paths of `/sys` and `/proc`, and why.
const MAY_NAME_KERNEL_PATHS: [(&str, &str); 3] = [
    (
        "src/runtime/default_config.rs",
        "paths inside the container, written to a configuration",
    ),
    (
        "src/runtime/mounts.rs",
        "paths inside the container, compared and never opened",
    ),
    (
        "src/runtime/driver.rs",
        "libcgroups wants to be told where the control groups are",
    ),
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files below the folders whose names end in `suffix`, as paths from the repository's root.
fn files(folders: &[&str], suffix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest: Vec<PathBuf> = folders.iter().map(|f| repository().join(f)).collect();
    while let Some(path) = rest.pop() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            // Hidden folders and what was built are not ours.
            if path == repository() || !(name.starts_with('.') || name == "target") {
                rest.extend(
                    fs::read_dir(&path)
                        .expect("folder")
                        .flatten()
                        .map(|e| e.path()),
                );
            }
        } else if name.ends_with(suffix) {
            let inside = path.strip_prefix(repository()).expect("inside");
            found.push(inside.to_string_lossy().into_owned());
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no *{suffix} in {folders:?}");
    found
}

/// The code of a file without its unit tests, which are its end. What a
/// `#[cfg(test)]` before them guards counts as code.
fn code(file: &str) -> String {
    let text = read(file);
    text.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The names right behind `root::` in the code, those of a group in braces too.
fn used(code: &str, root: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in code.split(&format!("{root}::")).skip(1) {
        let mut items = vec![String::new()];
        let mut depth = 0;
        for c in rest.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => items.push(String::new()),
                _ if depth <= 1 => items.last_mut().expect("an item").push(c),
                _ => {}
            }
            let is_name = c == '_' || c.is_ascii_alphanumeric();
            if depth <= 0 && !is_name {
                break;
            }
        }
        found.extend(items.iter().map(|item| {
            let name = item
                .trim_start()
                .split(|c: char| !(c == '_' || c.is_ascii_alphanumeric()));
            name.take(1).collect::<String>()
        }));
    }
    // A comma at the end of a group.
    found.remove("");
    found
}

#[test]
fn names_in_braces_are_seen() {
    let code = "use crate::{\n    kernel::{mount, tty as t},\n    model,\n};\ncrate::log::line(1, std::fs::read())";
    let rooms = ["kernel", "log", "model"].map(str::to_owned);
    assert_eq!(used(code, "crate"), BTreeSet::from(rooms));
}

/// The folders and files of `src/` that are modules.
fn rooms() -> BTreeSet<String> {
    fs::read_dir(repository().join("src"))
        .expect("src")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "lib.rs" && name != "main.rs")
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .collect()
}

/// The rooms of the table in ARCHITECTURE.md, each with what it may not do.
fn rules() -> Vec<(String, String)> {
    let text = read("ARCHITECTURE.md");
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, room, _, _, may_not, _] = cells[..] else {
            return None;
        };
        let room = room.strip_prefix('`')?.strip_suffix("/`")?;
        Some((room.to_owned(), may_not.to_owned()))
    });
    rows.collect()
}

/// `config/elastic-mem.toml` holds every option as a comment `#key = value`, or `#[table]`; prose begins with a blank.
#[test]
fn the_example_configuration_has_every_option_at_its_default() {
    let text: String = read("config/elastic-mem.toml")
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("config.toml");
    fs::write(&file, text).expect("write");
    let config = Config::load(&file).expect("every key is known");
    let default = Config::default();
    for ((info, value, origin), (_, expected, _)) in
        config.settings().iter().zip(default.settings())
    {
        assert!(matches!(origin, Origin::File(_)), "{} is missing", info.key);
        // The state folder of an ordinary user is elsewhere.
        if info.key != "runtime.root" || nix::unistd::geteuid().is_root() {
            assert_eq!(*value, expected, "{}", info.key);
        }
    }
    // Those of functions have no default.
    let tables = config.table_settings();
    let keys: Vec<_> = tables.iter().map(|(_, info, _, _)| info.key).collect();
    assert_eq!(keys, FUNCTION_OPTIONS.map(|info| info.key));
}

#[test]
fn every_option_is_documented_with_default_and_values() {
    let text = read("docs/configuration.md");
    let default = Config::default();
    let settings = default.settings();
    assert_eq!(settings.len(), OPTIONS.len());
    for (info, value, _) in settings {
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", info.key)))
            .unwrap_or_else(|| panic!("{} has no row", info.key));
        assert!(row.contains(info.values), "{row}: not {}", info.values);
        if info.key != "runtime.root" || nix::unistd::geteuid().is_root() {
            assert!(
                row.contains(&format!("`{value}`")),
                "{row}: the default is {value}"
            );
        }
    }
    // And no other.
    let is_key = |word: &str| {
        let mut parts = word.split('.');
        let is_part = |part: &str| part.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        parts.clone().count() == 2 && parts.all(|part| !part.is_empty() && is_part(part))
    };
    let rows = text.lines().filter_map(|line| {
        let (word, _) = line.strip_prefix("| `")?.split_once("` |")?;
        Some(word).filter(|word| is_key(word))
    });
    let rows: BTreeSet<_> = rows.collect();
    assert_eq!(rows, OPTIONS.iter().map(|info| info.key).collect());
    let functions = text
        .lines()
        .skip_while(|line| *line != "| key | values | meaning |");
    let rows = functions.skip(2).take_while(|line| line.starts_with('|'));
    assert_eq!(rows.count(), FUNCTION_OPTIONS.len());
    let plain = text.replace('`', "");
    for info in FUNCTION_OPTIONS {
        let row = format!("| {} | {} | {} |", info.key, info.values, info.meaning);
        assert!(plain.lines().any(|line| line == row), "no row {row}");
    }
}

#[test]
fn relative_links_of_documents_lead_to_files() {
    let mut broken = Vec::new();
    for file in files(&["."], ".md") {
        let text = read(&file);
        let folder = repository()
            .join(&file)
            .parent()
            .expect("folder")
            .to_owned();
        for link in text.split("](").skip(1) {
            let link = link.split([')', ' ', '#']).next().unwrap_or_default();
            let elsewhere = link.is_empty() || link.contains("://") || link.starts_with("mailto:");
            if !elsewhere && !folder.join(link).exists() {
                broken.push(format!("{file}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Documents name files as `folder/file`, from the root of the repository.
#[test]
fn files_that_documents_name_exist() {
    let folders = [
        "src/", "tests/", "docs/", "scripts/", "bench/", "demo/", "config/", "data/", "deploy/",
    ];
    let mut missing = Vec::new();
    for file in files(&["."], ".md") {
        let text = read(&file);
        for word in text.split('`').skip(1).step_by(2) {
            let is_path = folders.iter().any(|folder| word.starts_with(folder))
                && !word.contains([' ', '*', '\n']);
            if is_path && !repository().join(word).exists() {
                missing.push(format!("{file}: {word}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_room_is_in_the_architecture() {
    let mut named: BTreeSet<_> = rules().into_iter().map(|(room, _)| room).collect();
    // The one room that is a file has a sentence below the table.
    named.insert("log".to_owned());
    assert_eq!(rooms(), named);
}

/// ARCHITECTURE.md and docs/grants.md name the tests that carry the invariants as `module::test`.
#[test]
fn tests_that_documents_name_exist() {
    let sources: String = files(&["src", "tests"], ".rs")
        .iter()
        .map(|f| read(f))
        .collect();
    let text = read("ARCHITECTURE.md") + &read("docs/grants.md");
    let mut named = 0;
    for word in text.split('`').skip(1).step_by(2) {
        let is_path = word
            .chars()
            .all(|c| c.is_ascii_lowercase() || "_:".contains(c));
        if let Some((_, name)) = word.rsplit_once("::").filter(|_| is_path) {
            assert!(sources.contains(&format!("fn {name}(")), "{word}");
            named += 1;
        }
    }
    assert!(named > 0, "no test is named");
}

#[test]
fn only_the_kernel_room_names_kernel_paths_or_is_unsafe() {
    let is_allowed = |file: &str| {
        MAY_NAME_KERNEL_PATHS
            .iter()
            .any(|(allowed, _)| *allowed == file)
    };
    for file in files(&["src"], ".rs") {
        if file.starts_with("src/kernel/") {
            continue;
        }
        let code = code(&file);
        for word in ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"] {
            assert!(!code.contains(word), "{file} has {word:?}");
        }
        let paths = ["\"/sys/", "\"/sys\"", "\"/proc/", "\"/proc\""];
        let names = paths.iter().any(|path| code.contains(path));
        assert_eq!(
            names,
            is_allowed(&file),
            "{file} names paths of /sys or /proc: {names}"
        );
    }
}

#[test]
fn the_pure_rooms_do_no_input_or_output_and_know_no_other_room() {
    let parts = ["env", "fs", "net", "os", "process", "thread"];
    let words = [
        "Instant",
        "SystemTime",
        "libc::",
        "nix::",
        "rustix",
        "tokio",
        "tracing",
        "print!",
        "println!",
    ];
    let mut pure = 0;
    for (room, may_not) in rules() {
        if !may_not.contains("do input or output") {
            continue;
        }
        pure += 1;
        // "use another room than `model`"
        let mut allowed: BTreeSet<_> = may_not.split('`').skip(1).step_by(2).collect();
        allowed.insert(&room);
        for file in files(&[&format!("src/{room}")], ".rs") {
            if file.ends_with("/tests.rs") {
                continue;
            }
            let code = code(&file);
            for word in words {
                assert!(!code.contains(word), "{file} has {word:?}");
            }
            let std = used(&code, "std");
            for part in parts {
                assert!(!std.contains(part), "{file} uses std::{part}");
            }
            for other in used(&code, "crate").intersection(&rooms()) {
                assert!(allowed.contains(other.as_str()), "{file} uses {other}");
            }
        }
    }
    assert!(pure > 1, "the table names no pure rooms");
}

#[test]
fn cli_and_shim_are_used_by_no_other_room() {
    let rules = rules();
    let closed = rules
        .iter()
        .filter(|(_, may_not)| may_not.contains("be used by another room"));
    let closed: Vec<_> = closed.map(|(room, _)| room.as_str()).collect();
    assert_eq!(closed, ["cli", "shim"]);
    for file in files(&["src"], ".rs") {
        let used = used(&code(&file), "crate");
        for room in &closed {
            let inside = file.starts_with(&format!("src/{room}/"));
            assert!(inside || !used.contains(*room), "{file} uses {room}");
        }
    }
}

/// libcontainer forks without regard for other threads (docs/adr/0001-engine.md).
#[test]
fn the_command_starts_no_thread() {
    // The shim's event loop has one thread too, and runs the command as a process of its own. Beside it there is the
    // sampler's thread, those that lower limits, write traces and move pages, and one for each trace that is being stored.
    let may_wait = |file: &str| {
        ["src/shim/", "src/sampler/", "src/kernel/watch.rs"]
            .iter()
            .any(|start| file.starts_with(start))
    };
    let may_start = [
        ("src/sampler/mod.rs", "thread::Builder"),
        ("src/sampler/lowering.rs", "thread::Builder"),
        ("src/sampler/writing.rs", "thread::Builder"),
        ("src/sampler/placing.rs", "thread::Builder"),
        ("src/shim/observe.rs", "spawn_blocking"),
    ];
    for file in files(&["src"], ".rs") {
        let code = code(&file);
        for word in [
            "thread::spawn",
            "thread::Builder",
            "thread::scope",
            "spawn_blocking",
            "new_multi_thread",
        ] {
            assert!(
                !code.contains(word) || may_start.contains(&(&file, word)),
                "{file} has {word:?}"
            );
        }
        assert!(
            !code.contains("tokio") || may_wait(&file),
            "{file} has tokio"
        );
        if file.starts_with("src/shim/") {
            assert!(!code.contains("libcontainer::"), "{file} uses libcontainer");
        }
    }
}

#[test]
fn no_source_file_is_too_long() {
    for file in files(&["src", "tests", "scripts", "demo", "bench"], "") {
        // Pictures and recorded data are no text.
        if file.ends_with(".csv") {
            continue;
        }
        let lines = fs::read_to_string(repository().join(&file)).map_or(0, |t| t.lines().count());
        assert!(lines <= MOST_LINES, "{file} has {lines} lines");
    }
}

/// The verbs in the help of the command, hidden ones excluded.
fn verbs(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.strip_prefix("  ")
                .filter(|rest| !rest.starts_with(' '))
        })
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// The long options in the help of one verb.
fn options(help: &str) -> BTreeSet<&str> {
    help.lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .flat_map(|line| line.split([' ', ',']).take(4))
        .filter(|word| word.starts_with("--"))
        .collect()
}

#[test]
fn every_verb_and_option_is_documented() {
    let program = host::our_program();
    if host::name_of(&program) == "runc" {
        return skip("the document is about our command");
    }
    let help = |verb: &[&str]| Cmd::new(&program).arg("help").args(verb).output().stdout;
    let text = read("docs/command-line.md");
    let all = help(&[]);
    let verbs = verbs(&all);
    assert!(verbs.len() > 10, "{all}");
    for verb in &verbs {
        assert!(text.contains(&format!("`{verb}")), "verb {verb}");
        let own = help(&[verb]);
        for option in options(&own) {
            assert!(text.contains(&format!("`{option}")), "{verb} {option}");
        }
        for inner in self::verbs(&own).iter().filter(|inner| *inner != "help") {
            let name = format!("{verb} {inner}");
            let documented = [format!("`{name}"), format!("`{inner}`")];
            assert!(
                documented.iter().any(|form| text.contains(form)),
                "verb {name}"
            );
            for option in options(&help(&[verb, inner])) {
                assert!(text.contains(&format!("`{option}")), "{name} {option}");
            }
        }
    }
}

/// Source text as messages have it: strings that go on over lines are joined, and `…` stands for every value.
fn messages(folders: &[&str]) -> String {
    let mut all = String::new();
    for file in files(folders, ".rs") {
        let text = read(&file).replace("\\\"", "\"");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let mut line = line.to_owned();
            while line.ends_with('\\') {
                line.pop();
                line.push_str(lines.next().unwrap_or_default().trim_start());
            }
            let mut depth = 0;
            for c in line.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth > 0 => {
                        depth -= 1;
                        all.push('…');
                    }
                    _ if depth > 0 => {}
                    c => all.push(c),
                }
            }
            all.push('\n');
        }
    }
    all
}

/// Headings of docs/troubleshooting.md are messages: ours are in the sources, those of engines in tests that provoke them.
#[test]
fn messages_of_the_troubleshooting_are_real() {
    let text = read("docs/troubleshooting.md");
    let (engines, ours) = text
        .split_once("## What elastic-mem says")
        .expect("two parts");
    // The tests say what stands for the value.
    let tests = messages(&["tests/engines"]).replace("elastic-mem-none", "…");
    for (part, sources) in [(engines, tests), (ours, messages(&["src"]))] {
        let mut headings = 0;
        for line in part.lines().filter_map(|line| line.strip_prefix("### `")) {
            let message = line.strip_suffix('`').expect("a message alone");
            // Values at the ends stand for what comes before and after.
            let inner = message.trim_end_matches(['…', ' ']).trim_end_matches(':');
            assert!(sources.contains(inner), "nobody says {message:?}");
            headings += 1;
        }
        assert!(headings > 2, "{headings} headings");
    }
}

/// Whether a documented name is that of the code: `/proc/PID/stat` of `/proc/{pid}/stat`.
fn stands_for(documented: &str, code: &str) -> bool {
    let mut rest = documented;
    for (index, part) in code.split(['{', '}']).enumerate() {
        if index % 2 == 1 {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_uppercase());
        } else if let Some(tail) = rest.strip_prefix(part) {
            rest = tail;
        } else {
            return false;
        }
    }
    rest.is_empty()
}

#[test]
fn values_in_names_are_capitals() {
    assert!(stands_for("/proc/PID/fd/FD", "/proc/{pid}/fd/{fd}"));
    assert!(!stands_for("/proc/PID/fd", "/proc/{pid}/fd/{fd}"));
    assert!(!stands_for("/proc/self/fd", "/proc/{pid}/fd"));
}

/// docs/kernel-interfaces.md has every file below /sys and /proc, every file of a control group and every system call
/// that src/kernel names.
#[test]
fn every_kernel_interface_is_documented() {
    let text = read("docs/kernel-interfaces.md");
    let documented: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let mut missing = BTreeSet::new();
    let mut count = 0;
    for file in files(&["src/kernel"], ".rs") {
        if file.ends_with("/tests.rs") {
            continue;
        }
        let code = code(&file);
        for word in code.split('"').skip(1).step_by(2) {
            let path = word.trim_start_matches('/');
            let is_path = ["proc/", "sys/"].iter().any(|root| path.starts_with(root));
            let controller = word.split('.').next().unwrap_or_default();
            let is_group_file = word.trim_end_matches('.').contains('.')
                && [
                    "memory", "cpu", "cpuset", "cgroup", "pids", "io", "blkio", "freezer",
                    "devices", "hugetlb", "net_cls", "net_prio", "rdma", "cpuacct",
                ]
                .contains(&controller)
                && word
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._{}".contains(c));
            if !is_path && !is_group_file {
                continue;
            }
            count += 1;
            let name = match is_path {
                true => format!("/{path}"),
                false => word.to_owned(),
            };
            if !documented.iter().any(|word| stands_for(word, &name)) {
                missing.insert(format!("{file}: {name}"));
            }
        }
        for call in code.split("libc::SYS_").skip(1) {
            let name: String = call
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            count += 1;
            if !documented.contains(&name.as_str()) {
                missing.insert(format!("{file}: {name}"));
            }
        }
    }
    assert!(count > 50, "{count}");
    assert!(missing.is_empty(), "{missing:#?}");
}
