//! What is told of a trace in one line.

use std::time::Duration;

use crate::model::trace::{Sample, Step, Trace};
use crate::model::{Bytes, MemoryLimit, MemoryTime, Mode};

/// The figures of one trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// From the first to the last sample.
    pub duration: Duration,
    /// CPU time in between.
    pub cpu: Option<Duration>,
    /// Most anonymous, shared and kernel memory.
    pub held_peak: Option<Bytes>,
    /// Most page cache.
    pub file_peak: Option<Bytes>,
    /// The kernel's own counter of the most memory.
    pub usage_peak: Option<Bytes>,
    /// All memory that was charged, over time.
    pub used: Option<MemoryTime>,
    /// The limit in force over time; none if there was a time without.
    pub granted: Option<MemoryTime>,
    /// How often the limit was met.
    pub met: Option<u64>,
    /// How many processes the OOM killer ended.
    pub kills: u64,
    /// How many samples there are.
    pub samples: usize,
    /// Half of the intervals between samples are at most so long.
    pub interval_p50: Duration,
    /// 99 of 100 of them are.
    pub interval_p99: Duration,
}

impl Figures {
    /// Those of a trace.
    pub fn of(trace: &Trace) -> Self {
        let mut intervals: Vec<Duration> = trace
            .samples
            .windows(2)
            .filter_map(|pair| match pair {
                [one, next] => Some(next.at.saturating_sub(one.at)),
                _ => None,
            })
            .collect();
        intervals.sort_unstable();
        Self {
            duration: trace.duration(),
            cpu: trace.cpu_time(),
            held_peak: trace.peak(Sample::held),
            file_peak: trace.peak(|sample| sample.file),
            usage_peak: trace.end.and_then(|end| end.peak),
            used: trace
                .steps(|sample| sample.usage)
                .and_then(|steps| Step::area_of(&steps)),
            granted: granted(trace),
            met: trace.times_met(),
            kills: trace.end.map_or(0, |end| end.oom_kills),
            samples: trace.samples.len(),
            interval_p50: quantile(&intervals, 50),
            interval_p99: quantile(&intervals, 99),
        }
    }
}

/// The area below the limit in force.
fn granted(trace: &Trace) -> Option<MemoryTime> {
    trace
        .granted()?
        .into_iter()
        .filter(|step| step.from < step.to)
        .try_fold(MemoryTime::ZERO, |sum, step| {
            let MemoryLimit::Bytes(bytes) = step.value else {
                return None;
            };
            let limit = Bytes::new(u64::try_from(bytes).ok()?);
            sum.checked_add(limit.held_for(step.to.saturating_sub(step.from))?)
        })
}

/// The smallest value that so many of a hundred do not exceed; zero of none.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = sorted.len().saturating_mul(percent).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// Why a trace does not tell what a run needed; none if it does.
pub(super) fn incomplete(trace: &Trace) -> Option<&'static str> {
    let mode = trace.context.as_ref().and_then(|c| c.mode.as_deref());
    let is_off = mode == Some(Mode::Off.as_str());
    if trace.end.is_none() {
        Some("the trace was cut off")
    } else if trace.samples.len() < 2 {
        Some("it ended before a second sample was taken")
    } else if !is_off && trace.samples.iter().all(|sample| sample.held().is_none()) {
        Some("what the memory consists of was never read")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::trace::{COLUMNS, VERSION_LINE};

    fn trace(lines: &str) -> Trace {
        format!("{VERSION_LINE}\n{}\n{lines}", COLUMNS.join(","))
            .parse()
            .unwrap()
    }

    #[test]
    fn peaks_are_those_of_samples_and_the_counter_stands_beside() {
        let trace = trace(
            "0,100,10,60,5,25,,,1000,,,,,\n\
             2000,200,,,,,,,1500,,,,,\n\
             4000,150,20,70,5,30,,,2000,,,,,\n\
             14000,90,1,80,2,3,,,5000,,,,,\n\
             # end {\"code\":0,\"peak\":250}\n",
        );
        let figures = Figures::of(&trace);
        assert_eq!(figures.held_peak, Some(Bytes::new(55)));
        assert_eq!(figures.file_peak, Some(Bytes::new(80)));
        assert_eq!(figures.usage_peak, Some(Bytes::new(250)));
        assert_eq!(figures.cpu, Some(Duration::from_millis(4)));
        assert_eq!(figures.interval_p50, Duration::from_millis(2));
        assert_eq!(figures.interval_p99, Duration::from_millis(10));
        assert_eq!(incomplete(&trace), None);
    }

    #[test]
    fn a_trace_without_end_or_composition_is_incomplete() {
        assert!(incomplete(&trace("0,1,1,1,1,1,,,,,,,,\n1,1,1,1,1,1,,,,,,,,\n")).is_some());
        assert!(incomplete(&trace("0,1,1,1,1,1,,,,,,,,\n# end {}\n")).is_some());
        assert!(incomplete(&trace("0,1,,,,,,,,,,,,\n1,1,,,,,,,,,,,,\n# end {}\n")).is_some());
        assert_eq!(Figures::of(&Trace::default()).interval_p99, Duration::ZERO);
    }
}
