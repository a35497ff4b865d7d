//! The file of a trace that is being written.
//!
//! Samples are collected, and written as lines once a second, so that no more than that is lost when this process is
//! killed. A line for each at once would cost several times as much: a thread that has just woken up has cold caches.
//! The file is locked (flock(2)) for as long as its writer lives: a file that is not belongs to nobody and can be
//! taken in by others.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::thin::{GROUP, thin};
use crate::model::trace::{Context, End, Sample, Trace};

/// The most samples of a file.
const MOST: usize = 10_000;
/// How long samples are collected.
const COLLECTING: Duration = Duration::from_secs(1);
/// More are written before that time.
const ROOM: usize = 64;

/// The file, open and locked.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    file: File,
    lines: String,
    head: String,
    nodes: usize,
    samples: usize,
    written_at: Duration,
    /// How often the samples were thinned: after that fewer are kept from the beginning.
    thinned: u32,
    /// Samples that are not lines yet.
    waiting: Vec<Sample>,
}

impl Record {
    /// Makes the file.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn create(path: PathBuf, context: &Context, nodes: &[u32]) -> io::Result<Self> {
        let head = Trace::header(Some(context), nodes);
        Ok(Self {
            file: create_locked(&path)?,
            path,
            lines: head.clone(),
            head,
            nodes: nodes.len(),
            samples: 0,
            written_at: Duration::ZERO,
            thinned: 0,
            waiting: Vec::with_capacity(ROOM),
        })
    }

    /// Adds a sample.
    ///
    /// # Errors
    /// What the file system says; the samples since the last write are lost then.
    pub(super) fn add(&mut self, sample: &Sample) -> io::Result<()> {
        self.waiting.push(sample.clone());
        let is_time = sample.at.saturating_sub(self.written_at) >= COLLECTING;
        let enough = match self.thinned {
            0 => is_time || self.waiting.len() >= ROOM,
            // As many as become one or two.
            thinned => self.waiting.len() >= GROUP << (thinned - 1).min(16),
        };
        if enough {
            self.take_waiting();
        }
        if is_time || self.lines.len() > ROOM * 64 {
            self.written_at = sample.at;
            self.write()?;
            if self.samples > MOST {
                self.shorten()?;
            }
        }
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn finish(mut self, end: &End) -> io::Result<PathBuf> {
        self.take_waiting();
        // Writing to a string does not fail.
        let _ = writeln!(self.lines, "{end}");
        self.write()?;
        Ok(self.path.clone())
    }

    /// Removes the file.
    pub(super) fn discard(mut self) {
        self.lines.clear();
        self.waiting.clear();
        if let Err(err) = std::fs::remove_file(&self.path) {
            tracing::warn!(%err, path = %self.path.display(), "a trace was not removed");
        }
    }

    fn line(&mut self, sample: &Sample) {
        let _ = writeln!(self.lines, "{sample}");
        self.samples += 1;
    }

    fn take_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        match self.thinned {
            0 => waiting.iter().for_each(|sample| self.line(sample)),
            _ => thin(&waiting).for_each(|sample| self.line(&sample)),
        }
        // Its room is used again.
        self.waiting = waiting;
        self.waiting.clear();
    }

    fn write(&mut self) -> io::Result<()> {
        let result = self.file.write_all(self.lines.as_bytes());
        self.lines.clear();
        result
    }

    /// Replaces the file by one with half the samples or fewer.
    fn shorten(&mut self) -> io::Result<()> {
        let mut new_path = self.path.clone();
        new_path.set_extension("new");
        // Of an earlier attempt that was cut off.
        let _ = std::fs::remove_file(&new_path);
        let new = create_locked(&new_path)?;
        let mut out = BufWriter::new(&new);
        out.write_all(self.head.as_bytes())?;
        let skipped = self.head.lines().count();
        let mut group = Vec::with_capacity(GROUP);
        let mut samples = 0;
        let mut put = |group: &mut Vec<Sample>| {
            for sample in thin(group) {
                writeln!(out, "{sample}")?;
                samples += 1;
            }
            group.clear();
            io::Result::Ok(())
        };
        for line in BufReader::new(File::open(&self.path)?)
            .lines()
            .skip(skipped)
        {
            let sample = Sample::parse(&line?, self.nodes).map_err(io::Error::other)?;
            group.push(sample);
            if group.len() == GROUP {
                put(&mut group)?;
            }
        }
        put(&mut group)?;
        out.flush()?;
        drop(out);
        std::fs::rename(&new_path, &self.path)?;
        self.file = new;
        self.samples = samples;
        self.thinned += 1;
        Ok(())
    }
}

impl Drop for Record {
    /// A trace that is cut off, as when somebody else removes the control group, keeps what was seen until then.
    fn drop(&mut self) {
        self.take_waiting();
        if !self.lines.is_empty()
            && let Err(err) = self.write()
        {
            tracing::warn!(%err, path = %self.path.display(), "the end of a trace is lost");
        }
    }
}

fn create_locked(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bytes;

    fn context() -> Context {
        serde_json::from_str(r#"{"run":"r","function":"n/f"}"#).unwrap()
    }

    fn sample(at: u64) -> Sample {
        // One peak, far from both ends.
        let usage = if at == 123_457 { 1 << 30 } else { at % 1000 };
        Sample {
            at: Duration::from_millis(at),
            usage: Some(Bytes::new(usage)),
            ..Sample::default()
        }
    }

    #[test]
    fn a_long_trace_stays_short_and_keeps_its_peak() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.csv");
        let mut record = Record::create(path.clone(), &context(), &[]).unwrap();
        for at in 0..200_000 {
            record.add(&sample(at)).unwrap();
        }
        let end = End::default();
        assert_eq!(record.finish(&end).unwrap(), path);
        let trace: Trace = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        assert_eq!(trace.end, Some(end));
        assert!(
            trace.samples.len() <= MOST + 1000,
            "{}",
            trace.samples.len()
        );
        assert!(trace.samples.len() > MOST / 8, "{}", trace.samples.len());
        assert_eq!(trace.peak(|s| s.usage), Some(Bytes::new(1 << 30)));
        // Every part of the time is still there.
        let gap = trace.samples.windows(2).map(|w| w[1].at - w[0].at).max();
        assert!(gap < Some(Duration::from_millis(600)), "{gap:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_written_a_second_ago_survives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.csv");
        let mut record = Record::create(path.clone(), &context(), &[]).unwrap();
        for at in 0..2500 {
            record.add(&sample(at)).unwrap();
        }
        let trace: Trace = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        assert!(trace.samples.len() >= 1500, "{}", trace.samples.len());
        assert_eq!(trace.end, None);
        assert_eq!(trace.context, Some(context()));
        // Nobody else may take it meanwhile.
        let other = File::open(&path).unwrap();
        assert!(rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(record);
        assert!(rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).is_ok());
        // Whoever can still write does.
        let trace: Trace = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        assert_eq!((trace.samples.len(), trace.end), (2500, None));
    }
}
