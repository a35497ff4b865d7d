//! Containers that have ended, for counters that must not fall when one does.
//!
//! Nobody counts before somebody asks: the first `elastic-mem metrics` of a boot makes the log, and from then on whoever
//! looks after a container adds a line when it ends. Those of pods are left out: their counters end with them.
//!
//! A line is added with one write(2) and without a lock. Whoever reads takes a full log away by renaming it and adds it to
//! the sums one full log later, when nobody can be writing to it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::STATE;
use super::error::{ControlError, Result};
use super::record::{Folder, create_folder};
use crate::model::placed::PlacedCounts;
use crate::model::status::{Areas, Counts, Status};
use crate::model::{ClassName, FunctionKey, RunId};

const FOLDER: &str = ".ended";
const LOG: &str = "log";
const OLD: &str = "log.old";
const SUMS: &str = "sums.json";
const LOCK: &str = "lock";
/// Taken away when it has so many bytes.
const FULL: u64 = 256 << 10;
/// Nobody reads it any more when it has so many: then nothing is added.
const MOST: u64 = 16 << 20;

/// What a container is counted under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// Its namespace.
    pub namespace: String,
    /// Its function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionKey>,
    /// Its input class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassName>,
}

/// What is added up.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sums {
    /// Containers.
    pub containers: u64,
    /// Memory over time.
    #[serde(flatten)]
    pub areas: Areas,
    /// How often what was decided.
    #[serde(flatten)]
    pub counts: Counts,
    /// What was done for their placement. Not flattened: some of its names are those of other counts.
    pub placed: PlacedCounts,
    /// Processes that the OOM killer ended.
    pub oom_kills: u64,
    /// Time in which some task waited for memory.
    pub waited_seconds: f64,
}

impl Sums {
    /// Together with others.
    pub fn add(&mut self, other: &Self) {
        self.containers = self.containers.saturating_add(other.containers);
        self.areas.add(&other.areas);
        self.counts.add(&other.counts);
        self.placed.add(&other.placed);
        self.oom_kills = self.oom_kills.saturating_add(other.oom_kills);
        self.waited_seconds += other.waited_seconds;
    }
}

/// A line of the log.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    run: RunId,
    #[serde(flatten)]
    counted: Counted,
    #[serde(flatten)]
    sums: Sums,
}

/// Containers that have ended since the log was made.
#[derive(Debug, Default)]
pub struct Ended {
    /// The sums.
    pub sums: BTreeMap<Counted, Sums>,
    /// Those of them that may have been seen alive a moment ago.
    pub runs: BTreeSet<RunId>,
}

/// The file of the sums.
#[derive(Debug, Default, Serialize, Deserialize)]
struct SumsFile {
    /// The log that was added last, by its inode: it may still be there.
    added: Option<u64>,
    sums: Vec<(Counted, Sums)>,
}

/// Adds a container that has ended to the log, if there is one. Before its record is removed, so that whoever looks for
/// records first misses none.
pub fn count(folder: &Folder, status: &Status) {
    count_in(Path::new(STATE), folder, status);
}

fn count_in(state: &Path, folder: &Folder, status: &Status) {
    let Some(record) = folder.written().filter(|record| record.pod.is_none()) else {
        return;
    };
    let path = state.join(FOLDER).join(LOG);
    // Without create: see above.
    let Ok(mut log) = File::options().append(true).open(&path) else {
        return;
    };
    if log.metadata().is_ok_and(|found| found.len() > MOST) {
        return;
    }
    let line = Line {
        run: status.run.clone(),
        counted: Counted {
            namespace: folder.namespace().unwrap_or_default(),
            function: record.function,
            class: record.class,
        },
        sums: Sums {
            containers: 1,
            areas: status.areas,
            counts: status.counts,
            placed: record
                .placed
                .map(|placed| placed.counts())
                .unwrap_or_default(),
            oom_kills: status.oom_kills,
            waited_seconds: status.waited.unwrap_or_default().as_secs_f64(),
        },
    };
    let written = serde_json::to_string(&line)
        .map_err(io::Error::from)
        .and_then(|line| log.write_all(format!("{line}\n").as_bytes()));
    if let Err(err) = written {
        tracing::debug!(%err, "the end of a container is not counted");
    }
}

/// The containers that have ended. Makes the log if there is none.
///
/// # Errors
/// `Io` with the path.
pub fn ended() -> Result<Ended> {
    ended_in(Path::new(STATE))
}

fn ended_in(state: &Path) -> Result<Ended> {
    let folder = state.join(FOLDER);
    create_folder(&folder)?;
    let path = |name: &str| folder.join(name);
    let open = |name: &str| {
        let mut options = File::options();
        options.create(true).append(true);
        options
            .open(path(name))
            .map_err(|err| ControlError::io("open", path(name), err))
    };
    // Held until the end of this function.
    let lock = open(LOCK)?;
    lock.lock()
        .map_err(|err| ControlError::io("lock", path(LOCK), err))?;
    open(LOG)?;
    let mut file = sums(&path(SUMS));
    let (old, log) = (read(&path(OLD))?, read(&path(LOG))?);
    let is_added = old.inode.is_some() && old.inode == file.added;
    let mut ended = Ended {
        sums: file.sums.iter().cloned().collect(),
        runs: BTreeSet::new(),
    };
    let older = old.lines.iter().filter(|_| !is_added);
    for line in older.chain(&log.lines) {
        let sums = ended.sums.entry(line.counted.clone()).or_default();
        sums.add(&line.sums);
        ended.runs.insert(line.run.clone());
    }
    if log.bytes > FULL {
        if !is_added {
            let mut sums: BTreeMap<Counted, Sums> = file.sums.drain(..).collect();
            for line in &old.lines {
                sums.entry(line.counted.clone())
                    .or_default()
                    .add(&line.sums);
            }
            file.sums = sums.into_iter().collect();
            file.added = old.inode;
            let bytes = serde_json::to_vec(&file).map_err(ControlError::Encode)?;
            crate::runtime::write_atomic(&path(SUMS), &bytes, 0o600)?;
        }
        fs::rename(path(LOG), path(OLD))
            .map_err(|err| ControlError::io("rename", path(LOG), err))?;
        open(LOG)?;
    }
    Ok(ended)
}

fn sums(path: &PathBuf) -> SumsFile {
    let Ok(bytes) = fs::read(path) else {
        return SumsFile::default();
    };
    serde_json::from_slice(&bytes)
        .inspect_err(|err| tracing::warn!(%err, path = %path.display(), "counters begin anew"))
        .unwrap_or_default()
}

#[derive(Default)]
struct Log {
    inode: Option<u64>,
    bytes: u64,
    lines: Vec<Line>,
}

/// The whole lines of a log; one that is not there has none.
fn read(path: &Path) -> Result<Log> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Log::default()),
        Err(err) => return Err(ControlError::io("read", path, err)),
    };
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    Ok(Log {
        inode: fs::metadata(path).ok().map(|found| found.ino()),
        bytes: u64::try_from(text.len()).unwrap_or(u64::MAX),
        lines: lines
            // What is being written has no end yet: it is read the next time.
            .filter_map(|line| serde_json::from_slice(line.strip_suffix(b"\n")?).ok())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::Record;
    use crate::model::trace::Phase;
    use crate::model::{Bytes, Mode};

    fn status(run: &str) -> Status {
        Status {
            run: run.parse().unwrap(),
            at: Duration::from_secs(1),
            phase: Phase::Exit,
            usage: Bytes::ZERO,
            peak: Bytes::ZERO,
            grant: None,
            ceiling: None,
            areas: Areas::default(),
            counts: Counts {
                raises: 2,
                ..Counts::default()
            },
            last: None,
            waited: Some(Duration::from_millis(1500)),
            oom_kills: 1,
        }
    }

    fn folder(state: &Path, function: &str) -> Folder {
        let folder = Folder::at(state.join("ns").join("c"));
        let mut record = Record::new(Path::new("/b"), Path::new("/r"), None).unwrap();
        record.function = Some(FunctionKey::new("ns", function));
        record.mode = Mode::Elastic;
        record.placed = Some(crate::sampler::Placed {
            moved: 7,
            refused: 5,
            ..Default::default()
        });
        folder.write(record).unwrap();
        folder
    }

    fn sum(ended: &Ended, function: &str) -> Sums {
        let key = Counted {
            namespace: "ns".to_owned(),
            function: Some(FunctionKey::new("ns", function)),
            class: None,
        };
        ended.sums.get(&key).copied().unwrap_or_default()
    }

    #[test]
    fn nothing_is_written_before_somebody_asks() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path(), "f");
        count_in(dir.path(), &folder, &status("r1"));
        assert!(!dir.path().join(FOLDER).exists());
        assert!(ended_in(dir.path()).unwrap().sums.is_empty());
        count_in(dir.path(), &folder, &status("r2"));
        count_in(dir.path(), &folder, &status("r3"));
        for _ in 0..2 {
            let ended = ended_in(dir.path()).unwrap();
            let sums = sum(&ended, "f");
            assert_eq!((sums.containers, sums.counts.raises), (2, 4));
            assert_eq!((sums.oom_kills, sums.waited_seconds), (2, 3.0));
            let (placed, counts) = (sums.placed, sums.counts);
            assert_eq!((placed.moved, placed.refused, counts.refused), (14, 10, 0));
            assert!(ended.runs.contains(&"r3".parse().unwrap()));
        }
    }

    #[test]
    fn containers_of_pods_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        ended_in(dir.path()).unwrap();
        let folder = folder(dir.path(), "f");
        let mut record = folder.written().unwrap();
        record.pod = Some("pod-1".to_owned());
        folder.write(record).unwrap();
        count_in(dir.path(), &folder, &status("r"));
        assert!(ended_in(dir.path()).unwrap().sums.is_empty());
    }

    #[test]
    fn each_end_counts_once_however_often_the_log_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        ended_in(dir.path()).unwrap();
        let folder = folder(dir.path(), "f");
        let mut count = 0;
        for round in 0..4 {
            let log = dir.path().join(FOLDER).join(LOG);
            while fs::metadata(&log).unwrap().len() <= FULL {
                count += 1;
                count_in(dir.path(), &folder, &status(&format!("r{count}")));
            }
            let ended = ended_in(dir.path()).unwrap();
            assert_eq!(sum(&ended, "f").containers, count, "{round}");
            let again = ended_in(dir.path()).unwrap();
            assert_eq!(sum(&again, "f").containers, count, "{round}");
        }
        // Cut off between the sums and the renaming.
        let (old, kept) = (dir.path().join(FOLDER).join(OLD), dir.path().join("kept"));
        fs::hard_link(&old, &kept).unwrap();
        let log = dir.path().join(FOLDER).join(LOG);
        while fs::metadata(&log).unwrap().len() <= FULL {
            count += 1;
            count_in(dir.path(), &folder, &status(&format!("r{count}")));
        }
        ended_in(dir.path()).unwrap();
        fs::rename(&old, &log).unwrap();
        fs::rename(&kept, &old).unwrap();
        assert_eq!(sum(&ended_in(dir.path()).unwrap(), "f").containers, count);
    }

    #[test]
    fn half_a_line_is_read_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        ended_in(dir.path()).unwrap();
        let folder = folder(dir.path(), "f");
        count_in(dir.path(), &folder, &status("r1"));
        let log = dir.path().join(FOLDER).join(LOG);
        let line = fs::read(&log).unwrap();
        let (begin, end) = line.split_at(line.len() / 2);
        let add = |bytes: &[u8]| {
            let mut file = File::options().append(true).open(&log).unwrap();
            file.write_all(bytes).unwrap();
        };
        add(begin);
        assert_eq!(sum(&ended_in(dir.path()).unwrap(), "f").containers, 1);
        add(end);
        assert_eq!(sum(&ended_in(dir.path()).unwrap(), "f").containers, 2);
    }
}
