//! Traces of containers whose limits are moved are written by a thread of their own: a write can wait for the disk, 100 ms
//! and more on a busy one (measured), and whoever moves limits must not.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::record::Record;
use crate::model::trace::{End, Sample};

/// How long samples are collected; more are handed over before that time.
const COLLECTING: Duration = Duration::from_millis(500);
const MOST: usize = 256;

/// The thread. It ends when this is dropped, after all that it was given before.
#[derive(Debug)]
pub(super) struct Writing {
    sender: Sender<Work>,
    thread: Option<JoinHandle<()>>,
}

/// A trace that is written by the thread.
#[derive(Debug)]
pub(super) struct Collected {
    key: u64,
    samples: Vec<Sample>,
    handed_over: Duration,
    sender: Sender<Work>,
}

#[derive(Debug)]
enum Work {
    Begin(u64, Box<Record>),
    Add(u64, Vec<Sample>),
    Finish(u64, End, oneshot::Sender<Option<PathBuf>>),
    Discard(u64),
    /// Nothing more comes of it.
    Leave(u64),
    /// Nothing more comes at all.
    Stop,
}

impl Work {
    /// The trace that it is about.
    fn about(&self) -> Option<u64> {
        match self {
            Self::Begin(key, _)
            | Self::Add(key, _)
            | Self::Finish(key, ..)
            | Self::Discard(key)
            | Self::Leave(key) => Some(*key),
            Self::Stop => None,
        }
    }
}

impl Writing {
    /// # Errors
    /// What failed, for the log.
    pub(super) fn start() -> Result<Self, String> {
        let (sender, receiver) = channel::<Work>();
        let thread = std::thread::Builder::new()
            .name("traces".to_owned())
            .stack_size(128 << 10)
            .spawn(move || {
                let mut records = BTreeMap::new();
                for work in receiver {
                    if matches!(work, Work::Stop) {
                        return;
                    }
                    let about = work.about();
                    let taken = AssertUnwindSafe(|| take(&mut records, work));
                    if catch_unwind(taken).is_err() {
                        tracing::error!("writing a trace panicked: it is cut off");
                        about.and_then(|key| records.remove(&key));
                    }
                }
            })
            .map_err(|err| format!("start the thread that writes traces: {err}"))?;
        Ok(Self {
            sender,
            thread: Some(thread),
        })
    }

    /// Takes over a file.
    pub(super) fn take_over(&self, key: u64, record: Box<Record>) -> Collected {
        let sender = self.sender.clone();
        // Should the thread be gone, the trace is lost, and nothing else.
        let _ = sender.send(Work::Begin(key, record));
        Collected {
            key,
            samples: Vec::with_capacity(MOST),
            handed_over: Duration::ZERO,
            sender,
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let _ = self.sender.send(Work::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been told.
            let _ = thread.join();
        }
    }
}

impl Collected {
    /// Adds a sample.
    pub(super) fn add(&mut self, sample: &Sample) {
        self.samples.push(sample.clone());
        let is_time = sample.at.saturating_sub(self.handed_over) >= COLLECTING;
        if is_time || self.samples.len() >= MOST {
            self.handed_over = sample.at;
            self.hand_over();
        }
    }

    /// Completes the file; the answer comes with its path, or without if it could not be written.
    pub(super) fn finish(mut self, end: End, written: oneshot::Sender<Option<PathBuf>>) {
        self.hand_over();
        // Without a thread there is nobody to answer.
        let _ = self.sender.send(Work::Finish(self.key, end, written));
    }

    /// Removes the file.
    pub(super) fn discard(mut self) {
        self.samples.clear();
        let _ = self.sender.send(Work::Discard(self.key));
    }

    fn hand_over(&mut self) {
        let samples = std::mem::replace(&mut self.samples, Vec::with_capacity(MOST));
        // A trace that nobody writes is lost, and nothing else.
        let _ = self.sender.send(Work::Add(self.key, samples));
    }
}

impl Drop for Collected {
    /// A trace that is cut off keeps what was seen until then.
    fn drop(&mut self) {
        let samples = std::mem::take(&mut self.samples);
        let _ = self.sender.send(Work::Add(self.key, samples));
        let _ = self.sender.send(Work::Leave(self.key));
    }
}

fn take(records: &mut BTreeMap<u64, Box<Record>>, work: Work) {
    match work {
        Work::Begin(key, record) => {
            records.insert(key, record);
        }
        Work::Add(key, samples) => {
            let Some(record) = records.get_mut(&key) else {
                return;
            };
            let added = samples.iter().try_for_each(|sample| record.add(sample));
            if let Err(err) = added {
                let reason = crate::kernel::reason(&err);
                tracing::warn!(reason, "a trace is cut off");
                records.remove(&key);
            }
        }
        Work::Finish(key, end, written) => {
            let path = records.remove(&key).and_then(|record| {
                record
                    .finish(&end)
                    .inspect_err(|err| tracing::debug!(%err, "end of a trace"))
                    .ok()
            });
            // Whoever asked may not want to know any more.
            let _ = written.send(path);
        }
        Work::Discard(key) => {
            if let Some(record) = records.remove(&key) {
                record.discard();
            }
        }
        Work::Leave(key) => {
            records.remove(&key);
        }
        Work::Stop => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::trace::{Context, Trace};

    fn sample(at: u64) -> Sample {
        Sample {
            at: Duration::from_millis(at),
            usage: Some(crate::model::Bytes::new(at)),
            ..Sample::default()
        }
    }

    #[test]
    fn what_was_handed_over_is_written_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let context: Context = serde_json::from_str(r#"{"run":"r","function":"n/f"}"#).unwrap();
        let record =
            |name: &str| Box::new(Record::create(dir.path().join(name), &context, &[]).unwrap());
        let writing = Writing::start().unwrap();
        let mut whole = writing.take_over(1, record("whole"));
        let mut cut = writing.take_over(2, record("cut"));
        let gone = writing.take_over(3, record("gone"));
        for at in 0..1000 {
            whole.add(&sample(at));
            cut.add(&sample(at));
        }
        gone.discard();
        drop(cut);
        let (written, path) = oneshot::channel();
        whole.finish(End::default(), written);
        assert_eq!(
            path.blocking_recv().unwrap(),
            Some(dir.path().join("whole"))
        );
        drop(writing);
        let trace = |name: &str| -> Trace {
            let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
            text.parse().unwrap()
        };
        assert_eq!(trace("whole").samples.len(), 1000);
        assert_eq!(trace("whole").end, Some(End::default()));
        assert_eq!((trace("cut").samples.len(), trace("cut").end), (1000, None));
        assert!(!dir.path().join("gone").exists());
    }
}
