//! What is ours: configuration, records of containers, profiles.

use super::{Finding, counted};
use crate::model::Mode;

const RECORDS: &str = "state.records";
const PROFILES: &str = "profiles.store";
/// So many problems of one kind are named.
const NAMED: usize = 3;

/// The configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFiles {
    /// The main file.
    pub main: String,
    /// How many files there are.
    pub files: usize,
    /// How many values they set.
    pub values: usize,
    /// What is wrong with them.
    pub mistakes: Vec<String>,
    /// What is done with memory, of functions without a table of their own.
    pub mode: Mode,
    /// Whether a table of a function says otherwise.
    pub functions_differ: bool,
}

/// The folder of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFolder {
    /// Where it is.
    pub path: String,
    /// Whether it is there.
    pub is_there: bool,
    /// Who else than root can use it.
    pub is_private: bool,
    /// Whether it lies in memory, and so goes with the boot.
    pub is_in_memory: bool,
}

/// Whoever looks after a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It lives, and has a guardian.
    Guarded,
    /// It lives, and nobody would give limits back if it were killed.
    Unguarded,
    /// It is gone.
    Dead,
}

/// The record of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Namespace and id.
    pub name: String,
    /// Its folder.
    pub folder: String,
    /// Who looks after it.
    pub owner: Owner,
    /// Whether it is granted less than it may have.
    pub is_lowered: bool,
    /// Whether the container is gone.
    pub is_stale: bool,
}

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
}

/// The profile store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profiles {
    /// Where it is.
    pub folder: String,
    /// Why it cannot be used.
    pub unusable: Option<String>,
    /// How many functions are known.
    pub functions: usize,
    /// What is wrong in it.
    pub problems: Vec<Problem>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The configuration.
    pub config: ConfigFiles,
    /// The folder of records.
    pub state: StateFolder,
    /// Records.
    pub containers: Vec<Container>,
    /// Folders of containers without a record that can be read.
    pub unreadable: Vec<String>,
    /// Profiles.
    pub profiles: Profiles,
}

pub(super) fn judge(own: &Own, is_root: bool) -> Vec<Finding> {
    let mut findings = vec![config(&own.config), mode(&own.config), state(&own.state)];
    if is_root {
        findings.extend(records(own));
        findings.push(profiles(&own.profiles));
    } else {
        for id in [RECORDS, PROFILES] {
            findings.push(Finding::note(id, "not seen: root alone can look there"));
        }
    }
    findings
}

fn config(config: &ConfigFiles) -> Finding {
    const ID: &str = "config.files";
    let main = &config.main;
    match config.mistakes.split_first() {
        Some((first, others)) => {
            let more = match others.len() {
                0 => String::new(),
                more => format!(", and {}", counted(more, "other mistake")),
            };
            Finding::error(ID, format!("{first}{more}"))
                .means("nothing of the configuration is used: the defaults are in force")
                .fix("elastic-mem config check")
        }
        None if config.files == 0 => {
            Finding::ok(ID, format!("no {main}: the defaults are in force"))
        }
        None => Finding::ok(
            ID,
            format!(
                "{main}: {}, {}",
                counted(config.files, "file"),
                counted(config.values, "option")
            ),
        ),
    }
}

fn mode(config: &ConfigFiles) -> Finding {
    const ID: &str = "config.mode";
    let ConfigFiles { mode, main, .. } = config;
    let seen = match config.functions_differ {
        true => format!("{mode}, and tables of functions say otherwise"),
        false => mode.to_string(),
    };
    let fix = format!("memory.mode = \"elastic\" in {main}");
    match mode {
        mode if mode.grants() => Finding::ok(ID, seen),
        Mode::Off => Finding::note(ID, seen)
            .means("memory is neither looked at nor saved")
            .fix(fix),
        _ => Finding::note(ID, seen)
            .means("traces are written and profiles learned; no memory is saved")
            .fix(fix),
    }
}

fn state(state: &StateFolder) -> Finding {
    const ID: &str = "state.folder";
    let path = &state.path;
    if !state.is_there {
        return Finding::ok(ID, format!("{path} appears with the first container"));
    }
    if !state.is_private {
        return Finding::error(ID, format!("others than root can use {path}"))
            .means("whoever can write there can make root change limits of any control group")
            .fix(format!("chown root:root {path} && chmod 0700 {path}"));
    }
    if !state.is_in_memory {
        return Finding::warning(ID, format!("{path} lies on a disk"))
            .means("records outlive a restart of the host, and writing them waits for the disk")
            .fix("mount a tmpfs on /run");
    }
    Finding::ok(ID, path.clone())
}

/// Names a few of many.
fn named(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let few = names
        .iter()
        .take(NAMED)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match more {
        0 => few,
        more => format!("{few} and {more} more"),
    }
}

fn records(own: &Own) -> Vec<Finding> {
    const ID: &str = RECORDS;
    let names = |fits: &dyn Fn(&Container) -> bool| -> Vec<&str> {
        let fitting = own.containers.iter().filter(|container| fits(container));
        fitting.map(|container| container.name.as_str()).collect()
    };
    let dead = |c: &Container| c.owner == Owner::Dead && !c.is_stale;
    let lowered = names(&|c| dead(c) && c.is_lowered);
    let alone = names(&|c| dead(c) && !c.is_lowered);
    let stale: Vec<&Container> = own.containers.iter().filter(|c| c.is_stale).collect();
    let unguarded = names(&|c| c.owner == Owner::Unguarded && !c.is_stale && c.is_lowered);
    let kept = own.containers.iter().filter(|c| c.owner != Owner::Dead);
    let mut findings = Vec::new();
    if !lowered.is_empty() {
        findings.push(
            Finding::error(ID, format!("nobody looks after {}", named(&lowered)))
                .means("the limit is below what was declared, and does not follow what the container needs")
                .fix("the next verb of the container gives it back, such as elastic-mem state"),
        );
    }
    if !alone.is_empty() {
        findings.push(
            Finding::warning(ID, format!("nobody looks after {}", named(&alone)))
                .means(
                    "whoever did was killed: the container runs on at its ceiling, without a trace",
                )
                .fix("start the container anew when it suits"),
        );
    }
    if !stale.is_empty() {
        let first = stale
            .first()
            .map_or("", |container| container.folder.as_str());
        let names: Vec<&str> = stale.iter().map(|c| c.name.as_str()).collect();
        findings.push(
            Finding::note(
                ID,
                format!("records of containers that are gone: {}", named(&names)),
            )
            .means("the next container that ends removes them")
            .fix(format!("rm -r {first}")),
        );
    }
    if !own.unreadable.is_empty() {
        let paths: Vec<&str> = own.unreadable.iter().map(String::as_str).collect();
        findings.push(
            Finding::warning(ID, format!("no record that can be read in {}", named(&paths)))
                .means("a container there is not found by its name, and gets nothing back if its shim is killed; a newer version may have written it")
                .fix(format!("use the elastic-mem that started it; if the container is gone: rm -r {}", paths.first().unwrap_or(&""))),
        );
    }
    if !unguarded.is_empty() {
        findings.push(
            Finding::warning("state.guardians", format!("no guardian for {}", named(&unguarded)))
                .means("if the shim were killed, the limit would stay low until the next verb of the container")
                .fix("look again in a second: a guardian that was killed is replaced; else the log of the container engine says why there is none"),
        );
    }
    if findings.is_empty() {
        let seen = match kept.count() {
            0 => "no containers".to_owned(),
            count => format!("{} looked after", counted(count, "container")),
        };
        findings.push(Finding::ok(ID, seen));
    }
    findings
}

fn profiles(profiles: &Profiles) -> Finding {
    const ID: &str = PROFILES;
    let folder = &profiles.folder;
    if let Some(why) = &profiles.unusable {
        return Finding::error(ID, why.clone())
            .means("nothing is learned, and every container starts at its ceiling")
            .fix(format!("ls -la {folder}"));
    }
    if profiles.problems.is_empty() {
        return Finding::ok(
            ID,
            format!("{folder}: {}", counted(profiles.functions, "function")),
        );
    }
    let texts: Vec<String> = profiles
        .problems
        .iter()
        .map(|problem| format!("{} {}", problem.path, problem.what))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Finding::warning(ID, named(&texts))
        .means("what cannot be used is set aside, and the function starts at its ceiling until it is learned again")
        .fix("elastic-mem profile verify --repair")
}
