//! Looks at every file of the store.

use std::path::PathBuf;

use super::error::{Result, StoreError};
use super::folder::{self, Folder, LOCK, TEMPORARY};
use super::name;
use super::spool::{SHORTER, SPOOL, UNFIT, is_young};
use super::store::{
    self, BAD, FUNCTIONS, GONE, MOST_TRACE, PROFILE, RUNS, Store, Sync, TRACES, TRACING,
    fit_profile, fit_runs, function_of, save, set_aside, trace_name,
};
use crate::kernel::chain;
use crate::model::FunctionKey;
use crate::model::trace::Trace;

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
    /// Whether it was mended.
    pub repaired: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// How many files and folders were looked at.
    pub checked: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Findings {
    /// Notes a problem, and mends it if there is a way and it is wanted.
    fn note(
        &mut self,
        path: PathBuf,
        problem: impl Into<String>,
        repair: Option<impl FnOnce() -> Result<()>>,
    ) -> Result<()> {
        let repaired = repair.is_some();
        if let Some(repair) = repair {
            repair()?;
        }
        self.findings.push(Finding {
            path,
            problem: problem.into(),
            repaired,
        });
        Ok(())
    }
}

/// No way to mend it.
const NOTHING: Option<fn() -> Result<()>> = None;

impl Store {
    /// Checks every file: whether it belongs here, can be read, and says what it should. With `repair`, what cannot be
    /// used is set aside, what is left of interrupted work is finished or removed, and profiles are learned again.
    ///
    /// # Errors
    /// When a folder cannot be read, or something cannot be mended.
    pub fn verify(&self, repair: bool) -> Result<Findings> {
        let mut found = Findings::default();
        let Some(root) = Folder::root(self.root())? else {
            return Ok(found);
        };
        for entry in root.names()? {
            if ![SPOOL, FUNCTIONS, TRACING].contains(&entry.as_str()) {
                found.checked += 1;
                found.note(root.path().join(entry), "does not belong here", NOTHING)?;
            }
        }
        // First, since what is taken in from the spool changes the functions.
        if let Some(spool) = root.sub(SPOOL)? {
            self.verify_spool(&spool, repair, &mut found)?;
        }
        if let Some(all) = root.sub(FUNCTIONS)? {
            for entry in all.names()? {
                found.checked += 1;
                let path = all.path().join(&entry);
                match function_of(&all, &entry) {
                    Some(function) => self.verify_function(&function, repair, &mut found)?,
                    None if entry.starts_with(GONE) => {
                        let remove = repair.then_some(|| all.remove_folder(&entry));
                        found.note(path, "is of a function that was being forgotten", remove)?;
                    }
                    None => found.note(path, "is no folder of a function", NOTHING)?,
                }
            }
        }
        Ok(found)
    }

    fn verify_spool(&self, spool: &Folder, repair: bool, found: &mut Findings) -> Result<()> {
        for entry in spool.names()? {
            let is_trace = entry.ends_with(store::CSV);
            if !is_trace && !entry.ends_with(SHORTER) {
                continue;
            }
            found.checked += 1;
            let path = spool.path().join(&entry);
            let Some((file, _, length)) = spool.open(&entry, true)? else {
                continue;
            };
            if is_young(&file, length) || !folder::take_lock(&file, &path)? {
                continue;
            }
            drop(file);
            let finish = repair.then_some(|| {
                if !is_trace {
                    return spool.remove(&entry);
                }
                match self.take_in(&path) {
                    // It was set aside, which is what can be done.
                    Ok(_) | Err(StoreError::Unfit { .. }) => Ok(()),
                    Err(err) => Err(err),
                }
            });
            found.note(path.clone(), "was left by a writer that is gone", finish)?;
        }
        for entry in spool.names()? {
            let path = spool.path().join(&entry);
            if entry.ends_with(UNFIT) {
                found.checked += 1;
                // What was set aside a moment ago is not removed by the same command.
                let is_new = found.findings.iter().any(|finding| {
                    path.to_string_lossy() == format!("{}{UNFIT}", finding.path.display())
                });
                if !is_new {
                    let remove = repair.then_some(|| spool.remove(&entry));
                    found.note(path, "is no trace and was set aside", remove)?;
                }
            } else if !entry.ends_with(store::CSV) && !entry.ends_with(SHORTER) {
                found.checked += 1;
                found.note(path, "does not belong here", NOTHING)?;
            }
        }
        Ok(())
    }

    fn verify_function(
        &self,
        function: &FunctionKey,
        repair: bool,
        found: &mut Findings,
    ) -> Result<()> {
        let (folder, _lock) = self.locked(function)?;
        let path = |name: &str| folder.path().join(name);
        for entry in folder.names()? {
            found.checked += 1;
            leftover(&folder, &entry, repair, found)?;
            let known = [LOCK, PROFILE, RUNS, TRACES].contains(&entry.as_str());
            if !known && !is_leftover(&entry) {
                found.note(path(&entry), "does not belong here", NOTHING)?;
            }
        }
        if let Some(traces) = folder.sub(TRACES)? {
            for entry in traces.names()? {
                found.checked += 1;
                leftover(&traces, &entry, repair, found)?;
                if is_leftover(&entry) {
                    continue;
                }
                if let Some(problem) = trace_problem(&traces, &entry, function)? {
                    let aside = repair.then_some(|| set_aside(&traces, &entry, &problem));
                    found.note(traces.path().join(&entry), problem.clone(), aside)?;
                }
            }
        }
        let runs = match contents(&folder, RUNS)? {
            Ok(Some(bytes)) => fit_runs(&bytes, function),
            Ok(None) => Err("is not there".to_owned()),
            Err(problem) => Err(problem),
        };
        let runs = match runs {
            Ok(runs) => Some(runs),
            Err(problem) => {
                // Sets it aside.
                let mended = repair
                    .then(|| self.load_runs(&folder, function))
                    .transpose()?;
                if let Some(runs) = &mended {
                    save(&folder, runs, Sync::Always)?;
                }
                found.note(path(RUNS), problem, mended.as_ref().map(|_| || Ok(())))?;
                mended
            }
        };
        let profile = match contents(&folder, PROFILE)? {
            Ok(Some(bytes)) => fit_profile(&bytes, function).map(|_| bytes),
            Ok(None) => Err("is not there".to_owned()),
            Err(problem) => Err(problem),
        };
        let learned = runs.as_ref().and_then(|runs| {
            let profile = runs.learned();
            serde_json::to_vec(&profile).ok()
        });
        let (problem, unusable) = match (&profile, &learned) {
            (Ok(stored), Some(learned)) if stored != learned => {
                ("is not what its runs teach".to_owned(), false)
            }
            (Err(problem), _) => (problem.clone(), folder.identity(PROFILE).is_some()),
            _ => return Ok(()),
        };
        let again = runs.filter(|_| repair).map(|runs| {
            let (folder, problem) = (&folder, problem.clone());
            move || {
                if unusable {
                    set_aside(folder, PROFILE, &problem)?;
                }
                save(folder, &runs, Sync::Always).map(|_| ())
            }
        });
        found.note(path(PROFILE), problem, again)
    }
}

fn is_leftover(entry: &str) -> bool {
    entry.starts_with(TEMPORARY) || entry.contains(BAD)
}

/// Notes a file that was left by an interrupted writer, or was set aside.
fn leftover(folder: &Folder, entry: &str, repair: bool, found: &mut Findings) -> Result<()> {
    let problem = if entry.starts_with(TEMPORARY) {
        "was left by an interrupted writer"
    } else if entry.contains(BAD) {
        "was set aside"
    } else {
        return Ok(());
    };
    let remove = repair.then_some(|| folder.remove(entry));
    found.note(folder.path().join(entry), problem, remove)
}

/// A document's content, or why it cannot be used.
fn contents(folder: &Folder, name: &str) -> Result<std::result::Result<Option<Vec<u8>>, String>> {
    match folder.read(name, MOST_TRACE) {
        Ok(read) => Ok(Ok(read.map(|(bytes, _)| bytes))),
        Err(err @ (StoreError::NotOurs { .. } | StoreError::Unfit { .. })) => Ok(Err(chain(&err))),
        Err(err) => Err(err),
    }
}

fn trace_problem(traces: &Folder, entry: &str, function: &FunctionKey) -> Result<Option<String>> {
    let bytes = match contents(traces, entry)? {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(problem) => return Ok(Some(problem)),
    };
    let trace = String::from_utf8(bytes)
        .map_err(|err| err.to_string())
        .and_then(|text| text.parse::<Trace>().map_err(|err| err.to_string()));
    let context = match trace {
        Ok(trace) => trace.context,
        Err(problem) => return Ok(Some(problem)),
    };
    Ok(match context {
        None => Some("does not say of which function and run it is".to_owned()),
        Some(context) if context.function != *function => {
            Some(format!("is about function {}", context.function))
        }
        Some(context) if trace_name(&context.run) != entry => Some(format!(
            "is of run {}, whose file is {}",
            context.run,
            name::encode(context.run.as_str()) + store::CSV
        )),
        Some(_) => None,
    })
}
