//! The memory of one run over time.

mod form;

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use form::{COLUMNS, TraceError, VERSION_LINE};

pub use super::context::Context;
use super::placed::{PlacedCounts, Seen};
use super::{Bytes, MemoryLimit, MemoryTime};

/// A part of the life of a function instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The environment is set up.
    Init,
    /// A request is served.
    Execution,
    /// Idle, to avoid a cold start.
    KeepAlive,
    /// The instance ends.
    Exit,
}

impl Phase {
    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Execution => "execution",
            Self::KeepAlive => "keep-alive",
            Self::Exit => "exit",
        }
    }
}

impl FromStr for Phase {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Init, Self::Execution, Self::KeepAlive, Self::Exit]
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or(())
    }
}

/// What was read at one moment. Counters count from the start of the control group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    /// Time since the start of the trace, in whole microseconds in the file.
    pub at: Duration,
    /// All memory that is charged, page cache included.
    pub usage: Option<Bytes>,
    /// Anonymous memory.
    pub anon: Option<Bytes>,
    /// Page cache, without shared memory and tmpfs.
    pub file: Option<Bytes>,
    /// Shared memory and tmpfs.
    pub shmem: Option<Bytes>,
    /// Memory of the kernel; on cgroup v1 what remains of usage without rss and cache.
    pub kernel: Option<Bytes>,
    /// The hard limit in force (`memory.max`, on v1 `memory.limit_in_bytes`).
    pub limit: Option<MemoryLimit>,
    /// The throttling limit in force (`memory.high`).
    pub high: Option<MemoryLimit>,
    /// CPU time used.
    pub cpu: Option<Duration>,
    /// Pages that were read again soon after they had been dropped.
    pub refault: Option<u64>,
    /// Time in which some task waited for memory.
    pub psi_some: Option<Duration>,
    /// How often `high` was exceeded; on cgroup v1 how often the limit was met, if only by page cache that made room.
    pub ev_high: Option<u64>,
    /// How often a task was killed for want of memory.
    pub ev_oom: Option<u64>,
    /// The part of the instance's life.
    pub phase: Option<Phase>,
    /// Memory on each node, in the order of [`Trace::nodes`].
    pub nodes: Vec<Option<Bytes>>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Exit code, 128 + signal for a process that was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The kernel's own counter of the largest usage, read after the end; it never enters the samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<Bytes>,
    /// How many processes the OOM killer ended.
    #[serde(default)]
    pub oom_kills: u64,
    /// What its requests were seen to do with its memory.
    #[serde(flatten)]
    pub seen: Seen,
    /// What was done for its placement, if somebody looked after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<PlacedCounts>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    /// What ran.
    pub context: Option<Context>,
    /// How it ended; none of a trace that was cut off.
    pub end: Option<End>,
    /// The numbers of the memory nodes that have a column.
    pub nodes: Vec<u32>,
    /// Samples in the order of time.
    pub samples: Vec<Sample>,
}

impl Trace {
    /// Time from the first to the last sample.
    pub fn duration(&self) -> Duration {
        match (self.samples.first(), self.samples.last()) {
            (Some(first), Some(last)) => last.at.saturating_sub(first.at),
            _ => Duration::ZERO,
        }
    }

    /// CPU time between the first and the last moment at which it was read.
    pub fn cpu_time(&self) -> Option<Duration> {
        let mut read = self.samples.iter().filter_map(|sample| sample.cpu);
        let first = read.next()?;
        read.next_back()?.checked_sub(first)
    }

    /// The largest value of a column.
    pub fn peak(&self, column: impl Fn(&Sample) -> Option<Bytes>) -> Option<Bytes> {
        self.samples.iter().filter_map(column).max()
    }

    /// A column as steps: each value holds until the next one is read. Before the first value that is read the
    /// column has that value. None if it was never read.
    pub fn steps<T: Copy>(&self, column: impl Fn(&Sample) -> Option<T>) -> Option<Vec<Step<T>>> {
        let first_value = self.samples.iter().find_map(&column)?;
        let start = self.samples.first()?.at;
        let mut value = first_value;
        let mut steps = Vec::with_capacity(self.samples.len());
        for pair in self.samples.windows(2) {
            let [sample, next] = pair else { continue };
            value = column(sample).unwrap_or(value);
            steps.push(Step {
                from: sample.at.saturating_sub(start),
                to: next.at.saturating_sub(start),
                value,
            });
        }
        Some(steps)
    }

    /// What was granted: the lower one of the two limits in force. None if neither was ever read.
    pub fn granted(&self) -> Option<Vec<Step<MemoryLimit>>> {
        // Each column holds its own value until the next one is read; only then can they be compared.
        let limit = self.steps(|sample| sample.limit);
        let high = self.steps(|sample| sample.high);
        let mut columns = [limit, high].into_iter().flatten();
        let mut steps = columns.next()?;
        if let Some(other) = columns.next() {
            for (step, other) in steps.iter_mut().zip(other) {
                step.value = step.value.lower(other.value);
            }
        }
        Some(steps)
    }

    /// How often the limit was met from the first to the last moment at which that was read.
    pub fn times_met(&self) -> Option<u64> {
        let mut read = self.samples.iter().filter_map(|sample| sample.ev_high);
        let first = read.next()?;
        read.next_back().unwrap_or(first).checked_sub(first)
    }
}

/// A value that holds for a time, counted from the start of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<T = Bytes> {
    /// Its begin.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
    /// The value.
    pub value: T,
}

impl Step {
    /// The memory over its time; `None` beyond 2^128 byte nanoseconds.
    pub fn area(&self) -> Option<MemoryTime> {
        self.value.held_for(self.to.saturating_sub(self.from))
    }

    /// That of all of them.
    pub fn area_of(steps: &[Self]) -> Option<MemoryTime> {
        steps
            .iter()
            .try_fold(MemoryTime::ZERO, |sum, step| sum.checked_add(step.area()?))
    }
}

impl Sample {
    /// Anonymous, shared and kernel memory: what cannot be dropped. None if its parts were not read.
    pub fn held(&self) -> Option<Bytes> {
        let parts = [self.anon?, self.shmem?, self.kernel?];
        Some(Bytes::new(
            parts
                .iter()
                .fold(0, |sum: u64, part| sum.saturating_add(part.get())),
        ))
    }

    /// Takes over what was not read here from the sample before it.
    pub fn fill_from(&mut self, before: &Self) {
        self.usage = self.usage.or(before.usage);
        self.anon = self.anon.or(before.anon);
        self.file = self.file.or(before.file);
        self.shmem = self.shmem.or(before.shmem);
        self.kernel = self.kernel.or(before.kernel);
        self.limit = self.limit.or(before.limit);
        self.high = self.high.or(before.high);
        self.cpu = self.cpu.or(before.cpu);
        self.refault = self.refault.or(before.refault);
        self.psi_some = self.psi_some.or(before.psi_some);
        self.ev_high = self.ev_high.or(before.ev_high);
        self.ev_oom = self.ev_oom.or(before.ev_oom);
        self.phase = self.phase.or(before.phase);
        for (node, before) in self.nodes.iter_mut().zip(&before.nodes) {
            *node = node.or(*before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The samples of these lines, which begin with time and usage.
    fn parse(lines: &[&str]) -> Trace {
        format!(
            "{VERSION_LINE}\n{}\n{}\n",
            COLUMNS.join(","),
            lines.join("\n")
        )
        .parse()
        .unwrap()
    }

    #[test]
    fn what_was_granted_is_the_lower_one_of_two_limits_that_hold_until_the_next() {
        let trace = parse(&[
            "0,1,,,,,max,,,,,3,,",
            "10,1,,,,,,500,,,,,,",
            "20,1,,,,,300,,,,,5,,",
            "30,1,,,,,,,,,,,,",
        ]);
        let granted: Vec<_> = trace.granted().unwrap().iter().map(|s| s.value).collect();
        let bytes = MemoryLimit::Bytes;
        // A column has its first value before that is read, too.
        assert_eq!(granted, [bytes(500), bytes(500), bytes(300)]);
        assert_eq!(trace.times_met(), Some(2));
        assert_eq!(Trace::default().granted(), None);
        assert_eq!(Trace::default().times_met(), None);
    }

    #[test]
    fn a_value_holds_until_the_next_is_read() {
        let trace = parse(&[
            "5,,,,,,,,,,,,,",
            "7,10,,,,,,,,,,,,",
            "8,,,,,,,,,,,,,",
            "9,20,,,,,,,,,,,,",
        ]);
        let steps = trace.steps(|sample| sample.usage).unwrap();
        let values: Vec<u64> = steps.iter().map(|step| step.value.get()).collect();
        assert_eq!(values, [10, 10, 10]);
        assert_eq!(steps[2].to, Duration::from_micros(4));
        assert_eq!(steps[0].area(), Some(MemoryTime::from_byte_nanos(20_000)));
        assert_eq!(trace.steps(|sample| sample.anon), None);
    }
}
