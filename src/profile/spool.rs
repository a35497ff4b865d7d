//! Traces that are being written, and how they become knowledge.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Result, StoreError};
use super::folder::{self, Folder};
use super::store::{CSV, MOST_TRACE, Store, Sync, TRACES, digest_of, save, trace_name};
use crate::kernel::chain;
use crate::model::trace::{Context, Trace};
use crate::model::{FunctionKey, RunId};

/// The folder of the traces that are being written.
pub(super) const SPOOL: &str = "spool";
/// Ends the name of a file in it that would have replaced a trace: its writer has made it shorter.
pub(super) const SHORTER: &str = ".new";
/// Ends the name of a file in it that is no trace.
pub(super) const UNFIT: &str = ".bad";

/// So many files that are no traces are kept; the first of them go.
const MOST_UNFIT: usize = 8;
/// A writer locks its file right after it has made it. An empty one that is not older may be about to be locked.
const YOUNG: Duration = Duration::from_secs(60);

/// What [`Store::take_in`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The run counts.
    In {
        /// Its function.
        function: FunctionKey,
        /// Its name.
        run: RunId,
    },
    /// There was nothing: another process has taken it in, or it was ended before its first sample.
    Nothing,
}

impl Store {
    /// Takes in the trace of a run that has ended, or whose writer has: its digest goes to what is known of the
    /// function, the trace to those that are kept. Of a trace that was cut off a last line without an end is dropped.
    ///
    /// May write and wait for the disk for some milliseconds: not for a thread that samples.
    ///
    /// # Errors
    /// `Busy` if it is still being written, or another process takes it in at this moment. `Unfit` if it is no trace; it was renamed then. `Io`, `NotOurs`: it stays
    /// where it is, for the next [`Self::sweep_spool`].
    pub fn take_in(&self, spool_file: &Path) -> Result<Taken> {
        let unfit = |reason: &str| StoreError::unfit(spool_file, reason);
        let name = spool_file
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|name| name.ends_with(CSV))
            .ok_or_else(|| unfit("is no file of the spool"))?;
        let Some(spool) = self.spool_folder()? else {
            return Ok(Taken::Nothing);
        };
        let Some((mut file, _, length)) = spool.open(name, true)? else {
            return Ok(Taken::Nothing);
        };
        if is_young(&file, length) {
            return Err(StoreError::Busy(spool_file.to_path_buf()));
        }
        if !folder::take_lock(&file, spool_file)? {
            return Err(StoreError::Busy(spool_file.to_path_buf()));
        }
        if !folder::is_named(&file, &spool, name) {
            return Ok(Taken::Nothing);
        }
        let read = folder::read_whole(&mut file, length, MOST_TRACE, spool_file)
            .and_then(|bytes| clean(&bytes).map_err(|reason| unfit(&reason)));
        let (context, trace, clean_length) = match read {
            Ok(Some(clean)) => clean,
            Ok(None) => {
                spool.remove(name)?;
                return Ok(Taken::Nothing);
            }
            Err(err @ StoreError::Unfit { .. }) => {
                set_aside(&spool, name)?;
                return Err(err);
            }
            Err(err) => return Err(err),
        };
        if clean_length < length {
            file.set_len(clean_length)
                .map_err(|err| StoreError::io("cut", spool_file, err))?;
        }
        let (folder, _lock) = self.locked(&context.function)?;
        let runs = self.load_runs(&folder, &context.function)?;
        // A trace that cannot be learned from is kept all the same: it says what was measured.
        let digest = digest_of(&trace, &context.function);
        if digest.is_some() {
            save(
                &folder,
                &runs.with(digest.into_iter().collect()),
                Sync::Replaced,
            )?;
        }
        if self.keep_traces() > 0 {
            let traces = folder.make(TRACES)?;
            spool.rename(name, &traces, &trace_name(&context.run))?;
            self.prune(&traces)?;
        } else {
            spool.remove(name)?;
        }
        Ok(Taken::In {
            function: context.function,
            run: context.run,
        })
    }

    /// Takes in what writers have left that are no more; what cannot be used is set aside with a warning. The number
    /// of runs.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub fn sweep_spool(&self) -> Result<usize> {
        let mut taken = 0_usize;
        self.remove_shorter()?;
        for path in self.spooled()? {
            match self.take_in(&path) {
                Ok(Taken::In { .. }) => taken = taken.saturating_add(1),
                Ok(Taken::Nothing) | Err(StoreError::Busy(_)) => {}
                Err(err @ StoreError::Unfit { .. }) => {
                    tracing::warn!("trace set aside: {}", chain(&err));
                }
                Err(err) => self.warn_once(&err),
            }
        }
        Ok(taken)
    }

    /// Removes what would have replaced a trace, of writers that are no more: the trace itself is there.
    fn remove_shorter(&self) -> Result<()> {
        let Some(spool) = self.spool_folder()? else {
            return Ok(());
        };
        for name in spool.names()? {
            if !name.ends_with(SHORTER) {
                continue;
            }
            let Some((file, _, length)) = spool.open(&name, true)? else {
                continue;
            };
            let free = !is_young(&file, length) && folder::take_lock(&file, spool.path())?;
            if free && folder::is_named(&file, &spool, &name) {
                spool.remove(&name)?;
            }
        }
        Ok(())
    }

    pub(super) fn spool_folder(&self) -> Result<Option<Folder>> {
        match Folder::root(self.root())? {
            Some(root) => root.sub(SPOOL),
            None => Ok(None),
        }
    }

    /// The traces in the spool, those that are being written included.
    fn spooled(&self) -> Result<Vec<PathBuf>> {
        let Some(spool) = self.spool_folder()? else {
            return Ok(Vec::new());
        };
        let names = spool.names()?;
        let traces = names.iter().filter(|name| name.ends_with(CSV));
        Ok(traces.map(|name| spool.path().join(name)).collect())
    }
}

/// The trace in a file of the spool, and how long the file is without what follows its last whole line. `None` if its
/// writer ended before the first sample.
fn clean(bytes: &[u8]) -> std::result::Result<Option<(Context, Trace, u64)>, String> {
    // After a power failure a file may end in zeros.
    let written = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let length = written
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end.saturating_add(1));
    let whole = written.get(..length).unwrap_or_default();
    let text = std::str::from_utf8(whole).map_err(|err| err.to_string())?;
    // A head that was cut off, and comments, are no trace yet.
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    if lines.count() < 2 {
        return Ok(None);
    }
    let mut trace: Trace = text.parse().map_err(|err| format!("{err}"))?;
    let context = trace
        .context
        .take()
        .ok_or("does not say of which function and run it is")?;
    trace.context = Some(context.clone());
    Ok(Some((
        context,
        trace,
        u64::try_from(length).unwrap_or(u64::MAX),
    )))
}

/// Whether a file may be one that its writer has just made and not yet locked.
pub(super) fn is_young(file: &File, length: u64) -> bool {
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|time| time.elapsed().ok());
    length == 0 && age.is_none_or(|age| age < YOUNG)
}

fn set_aside(spool: &Folder, name: &str) -> Result<()> {
    spool.rename(name, spool, &format!("{name}{UNFIT}"))?;
    let names = spool.names()?;
    let unfit: Vec<&String> = names.iter().filter(|name| name.ends_with(UNFIT)).collect();
    let surplus = unfit.len().saturating_sub(MOST_UNFIT);
    unfit
        .into_iter()
        .take(surplus)
        .try_for_each(|name| spool.remove(name))
}

#[cfg(test)]
mod tests {
    use super::super::Forget;
    use super::super::tests::{function, names, run, store, taken_by_somebody, text, write};
    use super::*;

    fn age(file: &File) {
        file.set_modified(std::time::SystemTime::now() - 2 * YOUNG)
            .unwrap();
    }

    #[test]
    fn a_run_becomes_knowledge_and_its_trace_is_kept() {
        let (_dir, store) = store();
        assert_eq!(store.lookup(&function()), None);
        for number in 1..=4 {
            let taken = run(&store, "default/f", &format!("r{number}"), number).unwrap();
            assert!(matches!(taken, Taken::In { .. }));
        }
        let profile = store.lookup(&function()).unwrap();
        let class = &profile.classes[&crate::model::ClassName::all()];
        assert_eq!(class.runs, 4);
        assert_eq!(class.held_peak.max, crate::model::Bytes::new(4 << 20));
        assert_eq!(
            names(&store, "functions/default%2Ff/traces"),
            ["r2.csv", "r3.csv", "r4.csv"]
        );
        assert_eq!(names(&store, "spool"), [""; 0]);
        assert_eq!(store.functions().unwrap(), [function()]);
        assert_eq!(store.runs(&function()).unwrap().digests.len(), 4);
    }

    #[test]
    fn a_run_that_is_taken_in_twice_counts_once() {
        let (_dir, store) = store();
        run(&store, "default/f", "r1", 5).unwrap();
        let before = store.lookup(&function());
        run(&store, "default/f", "r1", 5).unwrap();
        assert_eq!(store.lookup(&function()), before);
    }

    #[test]
    fn what_is_being_written_is_left_alone_and_what_was_left_is_taken_in() {
        let (_dir, store) = store();
        let whole = text("default/f", "r1", 5);
        let spooled = write(&store, "r1", &whole);
        assert!(matches!(
            store.take_in(&spooled.path),
            Err(StoreError::Busy(_))
        ));
        assert_eq!(store.sweep_spool().unwrap(), 0);
        drop(spooled.file);
        assert_eq!(store.sweep_spool().unwrap(), 1);
        assert_eq!(store.take_in(&spooled.path).unwrap(), Taken::Nothing);
    }

    #[test]
    fn a_trace_may_be_cut_off_at_every_byte() {
        let whole = text("default/f", "r1", 5);
        for length in 0..=whole.len() {
            let (_dir, store) = store();
            let spooled = write(&store, "r1", &whole[..length]);
            age(&spooled.file);
            drop(spooled.file);
            let taken = store
                .take_in(&spooled.path)
                .unwrap_or_else(|err| panic!("{length}: {err}"));
            assert_eq!(names(&store, "spool"), [""; 0]);
            if taken == Taken::Nothing {
                continue;
            }
            let [(_, kept)] = store.traces(&function()).unwrap().try_into().unwrap();
            assert!(
                whole.starts_with(&kept) && kept.ends_with('\n'),
                "{length}: {kept}"
            );
            let complete = store
                .runs(&function())
                .map(|runs| runs.digests.iter().all(|d| d.complete));
            assert_eq!(complete.unwrap_or(false), length == whole.len(), "{length}");
        }
    }

    #[test]
    fn an_empty_file_is_left_to_its_writer_for_a_while() {
        let (_dir, store) = store();
        for name in ["r1", "r1.new"] {
            let spooled = write(&store, name, "");
            let path = store.root().join("spool").join(name);
            if name.ends_with(SHORTER) {
                std::fs::rename(&spooled.path, path).unwrap();
            }
            File::unlock(&spooled.file).unwrap();
            assert_eq!(store.sweep_spool().unwrap(), 0);
            assert_eq!(names(&store, "spool").len(), 1);
            age(&spooled.file);
            assert_eq!(store.sweep_spool().unwrap(), 0);
            assert_eq!(names(&store, "spool"), [""; 0]);
        }
    }

    #[test]
    fn a_shorter_trace_whose_writer_is_gone_is_removed() {
        let (_dir, store) = store();
        let whole = text("default/f", "r1", 5);
        let old = write(&store, "r1", &whole);
        let new = write(&store, "r1.new", "# elastic");
        let path = store.root().join("spool/r1.new");
        std::fs::rename(&new.path, &path).unwrap();
        store.sweep_spool().unwrap();
        assert!(path.exists());
        drop((old.file, new.file));
        assert_eq!(store.sweep_spool().unwrap(), 1);
        assert_eq!(names(&store, "spool"), [""; 0]);
    }

    #[test]
    fn zeros_behind_the_last_line_are_dropped() {
        let (_dir, store) = store();
        let spooled = write(
            &store,
            "r1",
            &(text("default/f", "r1", 5) + "1000\0\0\0\0\n"),
        );
        drop(spooled.file);
        assert!(matches!(
            store.take_in(&spooled.path).unwrap(),
            Taken::In { .. }
        ));
    }

    #[test]
    fn what_is_no_trace_is_set_aside_and_few_of_them_are_kept() {
        let (_dir, store) = store();
        let no_context = text("default/f", "r1", 5).replace("# context", "# contest");
        for (run, wrong) in [("a", "1,2\n3,4\n5,6\n"), ("b", no_context.as_str())] {
            let spooled = write(&store, run, wrong);
            drop(spooled.file);
            assert!(matches!(
                store.take_in(&spooled.path),
                Err(StoreError::Unfit { .. })
            ));
        }
        assert_eq!(names(&store, "spool"), ["a.csv.bad", "b.csv.bad"]);
        for number in 10..30 {
            drop(write(&store, &format!("c{number}"), "x\ny\nz\n"));
        }
        assert_eq!(store.sweep_spool().unwrap(), 0);
        let left = names(&store, "spool");
        assert_eq!(left.len(), MOST_UNFIT);
        assert!(left.iter().all(|name| name.starts_with("c2")), "{left:?}");
        assert!(store.functions().unwrap().is_empty());
    }

    #[test]
    fn no_run_is_lost_when_many_end_at_once() {
        let (_dir, store) = store();
        let store = &store;
        std::thread::scope(|scope| {
            for number in 10..42 {
                scope.spawn(move || {
                    let name = format!("r{number}");
                    taken_by_somebody(run(store, "default/f", &name, number));
                    // A second sweeper is in the way at every moment.
                    store.sweep_spool().unwrap();
                });
            }
        });
        let profile = store.lookup(&function()).unwrap();
        let class = &profile.classes[&crate::model::ClassName::all()];
        assert_eq!(class.runs, 32);
        assert_eq!(class.held_peak.max, crate::model::Bytes::new(41 << 20));
    }

    #[test]
    fn functions_are_forgotten_and_learned_at_the_same_time() {
        let (_dir, store) = store();
        let store = &store;
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for number in 0..20 {
                        taken_by_somebody(run(
                            store,
                            "default/f",
                            &format!("t{thread}r{number:02}"),
                            1,
                        ));
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..40 {
                    match store.forget(&function(), &Forget::All) {
                        Ok(_) | Err(StoreError::UnknownFunction(_)) => {}
                        Err(err) => panic!("{err}"),
                    }
                }
            });
        });
        // The newest by its name: it is not among those that make room.
        run(store, "default/f", "z", 1).unwrap();
        let last = "z".parse().unwrap();
        let runs = store.runs(&function()).unwrap();
        assert!(runs.digests.get(&last).is_some());
    }

    /// The state after each step of taking in is one from which the next sweep comes to the same end.
    #[test]
    fn an_interrupted_run_is_taken_in_by_the_next_sweep() {
        let (_dir, store) = store();
        run(&store, "default/f", "r1", 5).unwrap();
        let expected = store.lookup(&function());
        let folder = store.root().join("functions/default%2Ff");
        let spool = store.root().join("spool/r1.csv");
        let back = || std::fs::rename(folder.join("traces/r1.csv"), &spool).unwrap();
        // Nothing was written yet.
        back();
        std::fs::remove_file(folder.join("profile.json")).unwrap();
        std::fs::remove_file(folder.join("runs.json")).unwrap();
        assert_eq!(store.sweep_spool().unwrap(), 1);
        assert_eq!(store.lookup(&function()), expected);
        // A temporary file was half written.
        back();
        std::fs::remove_file(folder.join("runs.json")).unwrap();
        std::fs::write(folder.join(".new-runs.json"), "{\"vers").unwrap();
        assert_eq!(store.sweep_spool().unwrap(), 1);
        assert_eq!(store.lookup(&function()), expected);
        // The digests were written, and what was learned was not.
        back();
        std::fs::remove_file(folder.join("profile.json")).unwrap();
        assert_eq!(store.sweep_spool().unwrap(), 1);
        assert_eq!(store.lookup(&function()), expected);
        // All was written, and the trace was not moved.
        back();
        assert_eq!(store.sweep_spool().unwrap(), 1);
        assert_eq!(store.lookup(&function()), expected);
        assert_eq!(
            names(&store, "functions/default%2Ff"),
            ["lock", "profile.json", "runs.json", "traces"]
        );
    }
}
