//! The folders of the functions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::document::{self, Runs};
use super::error::{Result, StoreError};
use super::folder::{Folder, Lock};
use super::name;
use crate::kernel::chain;
use crate::model::profile::{BinWidth, Digest, Profile};
use crate::model::trace::Trace;
use crate::model::{ClassName, FunctionKey, RunId};
use crate::policy::learn;

/// The folder of whoever runs functions to trace them; the store leaves it alone.
pub const TRACING: &str = "tracing";
/// The folder of the functions.
pub(super) const FUNCTIONS: &str = "functions";
/// What was learned.
pub(super) const PROFILE: &str = "profile.json";
/// The digests.
pub(super) const RUNS: &str = "runs.json";
/// The folder of the traces.
pub(super) const TRACES: &str = "traces";
/// Ends the name of a trace.
pub(super) const CSV: &str = ".csv";
/// Begins the name of a folder that is being removed. No function is called so.
pub(super) const GONE: &str = ".gone-";
/// Stands between the name of a file that was set aside and its number.
pub(super) const BAD: &str = ".bad-";

/// Files larger than this are not read. Learning keeps the documents far below.
const MOST_PROFILE: u64 = 16 << 20;
const MOST_RUNS: u64 = 256 << 20;
pub(super) const MOST_TRACE: u64 = 256 << 20;

/// So many unusable files are kept of each name; a further one replaces the last of them.
const MOST_BAD: u32 = 3;

/// The profile store.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    keep_traces: u32,
    /// Whether it was said that the store cannot be used: once is enough.
    warned: AtomicBool,
}

/// How often a folder may be removed by others before it is locked.
const ATTEMPTS: u32 = 16;

/// What [`Store::add`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// Runs that were not known before.
    pub new: usize,
    /// Runs that were known.
    pub known: usize,
    /// All runs that the profile now comes from.
    pub kept: usize,
}

/// What [`Store::forget`] removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forget {
    /// Everything.
    All,
    /// The runs of an input class that was given.
    Class(ClassName),
    /// These runs.
    Runs(BTreeSet<RunId>),
}

impl Store {
    /// The store below `root`, which need not exist yet, with so many traces kept of each function.
    pub fn new(root: impl Into<PathBuf>, keep_traces: u32) -> Self {
        Self {
            root: root.into(),
            keep_traces,
            warned: AtomicBool::new(false),
        }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is known of a function. Never blocks: without a usable profile there is `None`, and a warning unless there
    /// simply is none.
    pub fn lookup(&self, function: &FunctionKey) -> Option<Profile> {
        let found = self.folder(function).and_then(|folder| match folder {
            Some(folder) => self.read_or_set_aside(&folder, function),
            None => Ok(None),
        });
        found.unwrap_or_else(|err| {
            self.warn_once(&err);
            None
        })
    }

    /// All functions of which something is known.
    ///
    /// # Errors
    /// `Io` or `NotOurs`. A store that is not there knows nothing.
    pub fn functions(&self) -> Result<Vec<FunctionKey>> {
        let mut functions = Vec::new();
        let Some(all) = self.functions_folder()? else {
            return Ok(functions);
        };
        for entry in all.names()? {
            functions.extend(function_of(&all, &entry));
        }
        functions.sort();
        Ok(functions)
    }

    /// The profile of a function as it is stored.
    ///
    /// # Errors
    /// `UnknownFunction`; `Unfit` if it cannot be used, and what [`Self::functions`] has.
    pub fn profile(&self, function: &FunctionKey) -> Result<Profile> {
        let unknown = || StoreError::UnknownFunction(function.clone());
        let folder = self.folder(function)?.ok_or_else(unknown)?;
        let (bytes, _) = folder.read(PROFILE, MOST_PROFILE)?.ok_or_else(unknown)?;
        fit_profile(&bytes, function)
            .map_err(|reason| StoreError::unfit(folder.path().join(PROFILE), reason))
    }

    /// The runs that the profile of a function comes from.
    ///
    /// # Errors
    /// As [`Self::profile`].
    pub fn runs(&self, function: &FunctionKey) -> Result<Runs> {
        let unknown = || StoreError::UnknownFunction(function.clone());
        let folder = self.folder(function)?.ok_or_else(unknown)?;
        let (bytes, _) = folder.read(RUNS, MOST_RUNS)?.ok_or_else(unknown)?;
        fit_runs(&bytes, function)
            .map_err(|reason| StoreError::unfit(folder.path().join(RUNS), reason))
    }

    /// The traces that are kept of a function, the oldest first: the names of the runs and the texts.
    ///
    /// # Errors
    /// `UnknownFunction`, `Io`, `NotOurs`.
    pub fn traces(&self, function: &FunctionKey) -> Result<Vec<(RunId, String)>> {
        let folder = self
            .folder(function)?
            .ok_or_else(|| StoreError::UnknownFunction(function.clone()))?;
        let mut traces = Vec::new();
        let Some(folder) = folder.sub(TRACES)? else {
            return Ok(traces);
        };
        for entry in folder.names()? {
            let Some((text, trace)) = read_trace(&folder, &entry)? else {
                continue;
            };
            if let Some(context) = trace.context {
                traces.push((context.run, text));
            }
        }
        traces.sort();
        Ok(traces)
    }

    /// Adds runs to what is known of a function, all or none. `traces` are files of some of these runs.
    ///
    /// # Errors
    /// `Io`, `NotOurs`, `Busy`; then nothing was added.
    pub fn add(
        &self,
        function: &FunctionKey,
        digests: Vec<Digest>,
        traces: &[(RunId, String)],
    ) -> Result<Added> {
        let (folder, _lock) = self.locked(function)?;
        let runs = self.load_runs(&folder, function)?;
        let given = digests.len();
        let known = |digest: &&Digest| runs.digests.get(&digest.run).is_some();
        let known = digests.iter().filter(known).count();
        let merged = runs.with(digests);
        save(&folder, &merged, Sync::Always)?;
        if self.keep_traces > 0 && !traces.is_empty() {
            let folder = folder.make(TRACES)?;
            for (run, text) in traces {
                folder.replace(&trace_name(run), text.as_bytes(), true)?;
            }
            self.prune(&folder)?;
            folder.sync()?;
        }
        Ok(Added {
            new: given.saturating_sub(known),
            known,
            kept: merged.digests.len(),
        })
    }

    /// Forgets; what is in the spool of runs that have ended is taken in before, so that it does not come back. The
    /// number of runs that were forgotten.
    ///
    /// # Errors
    /// `UnknownFunction`, `Io`, `NotOurs`, `Busy`.
    pub fn forget(&self, function: &FunctionKey, what: &Forget) -> Result<usize> {
        self.sweep_spool()?;
        if self.folder(function)?.is_none() {
            return Err(StoreError::UnknownFunction(function.clone()));
        }
        let (folder, _lock) = self.locked(function)?;
        let mut runs = self.load_runs(&folder, function)?;
        let before = runs.digests.len();
        let gone: BTreeSet<RunId> = match what {
            Forget::All => {
                self.remove(function)?;
                return Ok(before);
            }
            Forget::Class(class) => runs
                .digests
                .iter()
                .filter(|digest| digest.class.as_ref() == Some(class))
                .map(|digest| digest.run.clone())
                .collect(),
            Forget::Runs(runs) => runs.clone(),
        };
        // A trace that stayed would bring its run back when the digests are made anew.
        if let Some(traces) = folder.sub(TRACES)? {
            for entry in traces.names()? {
                let named = gone.iter().any(|run| trace_name(run) == entry);
                let of_class = || match (what, read_trace(&traces, &entry)) {
                    (Forget::Class(class), Ok(Some((_, trace)))) => trace
                        .context
                        .is_some_and(|context| context.class.as_ref() == Some(class)),
                    _ => false,
                };
                if named || of_class() {
                    traces.remove(&entry)?;
                }
            }
        }
        let kept = runs
            .digests
            .iter()
            .filter(|digest| !gone.contains(&digest.run));
        runs.digests = kept.cloned().collect();
        runs.placed = runs.placed.without(|run| match what {
            Forget::Class(class) => run.class.as_ref() == Some(class),
            _ => gone.contains(&run.run),
        });
        let forgotten = before.saturating_sub(runs.digests.len());
        if runs.digests.is_empty() {
            self.remove(function)?;
        } else {
            save(&folder, &runs, Sync::Always)?;
        }
        Ok(forgotten)
    }

    /// Removes the folder of a function whose lock is held.
    fn remove(&self, function: &FunctionKey) -> Result<()> {
        let Some(all) = self.functions_folder()? else {
            return Ok(());
        };
        let name = name::encode(function.as_str());
        // In one step for readers; what a killed one has left is in the way.
        let gone = format!("{GONE}{name}");
        all.remove_folder(&gone)?;
        all.rename(&name, &all, &gone)?;
        all.remove_folder(&gone)
    }

    pub(super) fn functions_folder(&self) -> Result<Option<Folder>> {
        match Folder::root(&self.root)? {
            Some(root) => root.sub(FUNCTIONS),
            None => Ok(None),
        }
    }

    fn folder(&self, function: &FunctionKey) -> Result<Option<Folder>> {
        match self.functions_folder()? {
            Some(functions) => functions.sub(&name::encode(function.as_str())),
            None => Ok(None),
        }
    }

    /// The folder of a function, made if it is not there, with the writers' lock.
    pub(super) fn locked(&self, function: &FunctionKey) -> Result<(Folder, Lock)> {
        let name = name::encode(function.as_str());
        for _ in 0..ATTEMPTS {
            let folder = Folder::make_root(&self.root)?
                .make(FUNCTIONS)?
                .make(&name)?;
            // Whoever forgets the function removes the folder before the lock is free.
            let lock = match folder.lock() {
                Err(_) if !folder.is_linked() => continue,
                other => other?,
            };
            if folder.is_linked() {
                return Ok((folder, lock));
            }
        }
        Err(StoreError::Busy(self.root.join(FUNCTIONS).join(name)))
    }

    /// The runs of a function whose lock is held. If they cannot be used or are not there they are made anew from the
    /// traces that are kept.
    pub(super) fn load_runs(&self, folder: &Folder, function: &FunctionKey) -> Result<Runs> {
        match folder.read(RUNS, MOST_RUNS) {
            Ok(Some((bytes, _))) => match fit_runs(&bytes, function) {
                Ok(runs) => return Ok(runs),
                Err(reason) => set_aside(folder, RUNS, &reason)?,
            },
            Ok(None) => {}
            Err(err @ (StoreError::NotOurs { .. } | StoreError::Unfit { .. })) => {
                set_aside(folder, RUNS, &chain(&err))?;
            }
            Err(err) => return Err(err),
        }
        let mut digests = Vec::new();
        if let Some(traces) = folder.sub(TRACES)? {
            for entry in traces.names()? {
                let read = read_trace(&traces, &entry).ok().flatten();
                digests.extend(read.and_then(|(_, trace)| digest_of(&trace, function)));
            }
        }
        Ok(Runs::new(function.clone()).with(digests))
    }

    fn read_or_set_aside(
        &self,
        folder: &Folder,
        function: &FunctionKey,
    ) -> Result<Option<Profile>> {
        let (identity, reason) = match folder.read(PROFILE, MOST_PROFILE) {
            Ok(None) => return Ok(None),
            Ok(Some((bytes, identity))) => match fit_profile(&bytes, function) {
                Ok(profile) => return Ok(Some(profile)),
                Err(reason) => (Some(identity), reason),
            },
            Err(err @ (StoreError::NotOurs { .. } | StoreError::Unfit { .. })) => {
                (folder.identity(PROFILE), chain(&err))
            }
            Err(err) => return Err(err),
        };
        // A writer that is at work replaces the file anyway, and must not lose the new one.
        if let Some(_lock) = folder.try_lock()?
            && folder.identity(PROFILE) == identity
        {
            set_aside(folder, PROFILE, &reason)?;
        }
        Ok(None)
    }

    /// Removes the oldest traces beyond those that are kept.
    pub(super) fn prune(&self, traces: &Folder) -> Result<()> {
        let names = traces.names()?;
        let files: Vec<&String> = names.iter().filter(|name| name.ends_with(CSV)).collect();
        let kept = usize::try_from(self.keep_traces).unwrap_or(usize::MAX);
        let surplus = files.len().saturating_sub(kept);
        files
            .into_iter()
            .take(surplus)
            .try_for_each(|name| traces.remove(name))
    }

    pub(super) fn keep_traces(&self) -> u32 {
        self.keep_traces
    }

    /// Says that the store cannot be used; containers run without it.
    pub(super) fn warn_once(&self, err: &StoreError) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("profile store not used: {}", chain(err));
        }
    }
}

/// The name of the file of a run's trace.
pub fn trace_name(run: &RunId) -> String {
    name::encode(run.as_str()) + CSV
}

/// The function of a folder: its name says it, or if that was cut, its runs.
pub(super) fn function_of(all: &Folder, entry: &str) -> Option<FunctionKey> {
    if entry.starts_with('.') {
        return None;
    }
    if let Some(name) = name::decode(entry) {
        return name.parse().ok();
    }
    let folder = all.sub(entry).ok()??;
    let (bytes, _) = folder.read(RUNS, MOST_RUNS).ok()??;
    let runs = document::parse_runs(&bytes).ok()?;
    (name::encode(runs.function.as_str()) == entry).then_some(runs.function)
}

/// Whether what is written waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// It does: somebody has asked for the change.
    Always,
    /// Only if it replaces a profile. The first run of a function can be lost with the host without harm, and most of
    /// the functions that are run once only are run in large numbers.
    Replaced,
}

/// Learns, and writes what it was learned from before what was learned: what is missing after a kill is learned again.
pub(super) fn save(folder: &Folder, runs: &Runs, sync: Sync) -> Result<Profile> {
    let unfit = |file: &str, reason: String| StoreError::unfit(folder.path().join(file), reason);
    let profile = runs.learned();
    let bytes = serde_json::to_vec(runs).map_err(|err| unfit(RUNS, err.to_string()))?;
    let learned = serde_json::to_vec(&profile).map_err(|err| unfit(PROFILE, err.to_string()))?;
    // JSON has no infinite numbers: a document with one would not be read again.
    fit_runs(&bytes, &runs.function).map_err(|reason| unfit(RUNS, reason))?;
    fit_profile(&learned, &runs.function).map_err(|reason| unfit(PROFILE, reason))?;
    let safe = sync == Sync::Always || folder.identity(PROFILE).is_some();
    folder.replace(RUNS, &bytes, safe)?;
    folder.replace(PROFILE, &learned, safe)?;
    if safe {
        folder.sync()?;
    }
    Ok(profile)
}

pub(super) fn fit_profile(
    bytes: &[u8],
    function: &FunctionKey,
) -> std::result::Result<Profile, String> {
    let profile = document::parse_profile(bytes)?;
    of_function(&profile.function, function)?;
    Ok(profile)
}

pub(super) fn fit_runs(bytes: &[u8], function: &FunctionKey) -> std::result::Result<Runs, String> {
    let runs = document::parse_runs(bytes)?;
    of_function(&runs.function, function)?;
    Ok(runs)
}

fn of_function(found: &FunctionKey, wanted: &FunctionKey) -> std::result::Result<(), String> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("is about function {found}"))
    }
}

/// A trace that is kept; `None` for what is none.
fn read_trace(traces: &Folder, entry: &str) -> Result<Option<(String, Trace)>> {
    if !entry.ends_with(CSV) {
        return Ok(None);
    }
    let Some((bytes, _)) = traces.read(entry, MOST_TRACE)? else {
        return Ok(None);
    };
    Ok(String::from_utf8(bytes).ok().and_then(|text| {
        let trace = text.parse().ok()?;
        Some((text, trace))
    }))
}

/// What is kept of a run, if it is one of the function that can be learned from.
pub(super) fn digest_of(trace: &Trace, function: &FunctionKey) -> Option<Digest> {
    let context = trace.context.as_ref()?;
    (context.function == *function)
        .then(|| learn::digest(trace, BinWidth::default()).ok())
        .flatten()
}

/// Renames a file that cannot be used, and says so.
pub(super) fn set_aside(folder: &Folder, name: &str, reason: &str) -> Result<()> {
    let free =
        (1..MOST_BAD).find(|number| folder.identity(&format!("{name}{BAD}{number}")).is_none());
    let aside = format!("{name}{BAD}{}", free.unwrap_or(MOST_BAD));
    folder.rename(name, folder, &aside)?;
    tracing::warn!(
        "{} set aside as {aside}: {reason}",
        folder.path().join(name).display()
    );
    Ok(())
}
