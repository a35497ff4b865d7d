//! Traces of functracer: `autostats*-rawresults.csv` and `aux`.
//!
//! A line is `HH:MM:SS.mmm,USAGE` or `HH:MM:SS.mmm,USAGE,LIMIT` in bytes, and both stand in one file. Times are local
//! times of day without a date. The first line is the start of the container and the last one its end, each with the
//! usage 0. USAGE is empty where it could not be read. It includes the page cache, and is all that is known.

use std::time::Duration;

use super::{ImportError, lines, quoted};
use crate::model::trace::{End, Sample, Trace};
use crate::model::{Bytes, MemoryLimit};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A limit from here on is none: the kernel shows the largest multiple of its page size below 2^63.
const UNLIMITED: u64 = 1 << 62;

/// Reads a trace.
pub(super) fn trace(text: &str) -> Result<Trace, ImportError> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut start = None;
    let mut midnights = Duration::ZERO;
    let mut rows = lines(text).peekable();
    let mut ended = false;
    while let Some((line, row)) = rows.next() {
        let wrong = |reason: String| ImportError::at(line, reason);
        let (time, sample) = cells(row).map_err(wrong)?;
        let start = *start.get_or_insert(time);
        let at = |midnights: Duration| (time + midnights).saturating_sub(start);
        let last = samples.last().map_or(Duration::ZERO, |sample| sample.at);
        let is_end = rows.peek().is_none() && !samples.is_empty() && is_mark(&sample);
        if time + midnights < start + last {
            let back = (start + last).saturating_sub(time + midnights);
            if back > DAY / 2 {
                midnights += DAY;
            } else if is_end {
                // The end is told by the engine, and samples were taken until the tool had heard of it.
                let end = at(midnights);
                samples.retain(|sample| sample.at <= end);
            } else {
                return Err(wrong(format!(
                    "the time goes back by {back:?}: the clock was set during the run"
                )));
            }
        }
        ended = is_end;
        samples.push(Sample {
            at: at(midnights),
            ..sample
        });
    }
    match samples.len() {
        0 => Err(ImportError::whole("there are no samples")),
        1 => Err(ImportError::whole("a run has at least a start and an end")),
        _ => Ok(Trace {
            end: ended.then(End::default),
            samples,
            ..Trace::default()
        }),
    }
}

/// Whether a sample is the mark of a start or an end.
fn is_mark(sample: &Sample) -> bool {
    sample.usage == Some(Bytes::ZERO) && sample.limit.is_none()
}

fn cells(row: &str) -> Result<(Duration, Sample), String> {
    let cells: Vec<&str> = row.split(',').map(str::trim).collect();
    let (time, usage, limit) = match *cells.as_slice() {
        [time, usage] => (time, usage, ""),
        [time, usage, limit] => (time, usage, limit),
        _ => {
            return Err(format!(
                "{} columns: want time, usage and perhaps limit",
                cells.len()
            ));
        }
    };
    let limit = bytes(limit, "limit")?.map(|limit| match i64::try_from(limit.get()) {
        Ok(bytes) if limit.get() < UNLIMITED => MemoryLimit::Bytes(bytes),
        _ => MemoryLimit::None,
    });
    let sample = Sample {
        usage: bytes(usage, "usage")?,
        limit,
        ..Sample::default()
    };
    let time = time_of_day(time)
        .ok_or_else(|| format!("time: {} is not of the form 09:15:02.100", quoted(time)))?;
    Ok((time, sample))
}

/// Digits only; an empty cell is `None`.
fn bytes(cell: &str, column: &str) -> Result<Option<Bytes>, String> {
    if cell.is_empty() {
        return Ok(None);
    }
    number(cell)
        .map(|bytes| Some(Bytes::new(bytes)))
        .ok_or_else(|| format!("{column}: {} is not a number of bytes", quoted(cell)))
}

fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// `HH:MM:SS` with up to nine digits behind the point.
fn time_of_day(text: &str) -> Option<Duration> {
    let mut parts = text.split(':');
    let hours = number(parts.next()?).filter(|hours| *hours < 24)?;
    let minutes = number(parts.next()?).filter(|minutes| *minutes < 60)?;
    let (seconds, fraction) = parts
        .next()?
        .split_once('.')
        .unwrap_or((text.rsplit(':').next()?, ""));
    // 60 is a leap second.
    let seconds = number(seconds).filter(|seconds| *seconds <= 60)?;
    if parts.next().is_some() || fraction.len() > 9 {
        return None;
    }
    let nanos = if fraction.is_empty() {
        0
    } else {
        number(&format!("{fraction:0<9}"))?
    };
    let whole = hours * 3600 + minutes * 60 + seconds;
    Some(Duration::from_secs(whole) + Duration::from_nanos(nanos))
}

/// Reads an `aux` file: its lines have no times.
pub(super) fn aux(text: &str, interval: Option<Duration>) -> Result<Trace, ImportError> {
    let interval = interval
        .filter(|interval| !interval.is_zero())
        .ok_or_else(|| {
            ImportError::whole(
                "such a file has no times: say with --interval how much time is between two lines",
            )
        })?;
    let mut samples = Vec::new();
    let mut at = Duration::ZERO;
    for (line, cell) in lines(text) {
        let usage = bytes(cell, "usage").map_err(|reason| ImportError::at(line, reason))?;
        samples.push(Sample {
            at,
            usage,
            ..Sample::default()
        });
        at = at
            .checked_add(interval)
            .ok_or_else(|| ImportError::at(line, "the run is too long for this interval"))?;
    }
    if samples.is_empty() {
        return Err(ImportError::whole("there are no samples"));
    }
    // The last value holds for an interval too.
    samples.push(Sample {
        at,
        ..Sample::default()
    });
    Ok(Trace {
        end: Some(End::default()),
        samples,
        ..Trace::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(trace: &Trace) -> Vec<u128> {
        trace.samples.iter().map(|s| s.at.as_millis()).collect()
    }

    fn reason(text: &str) -> String {
        trace(text).unwrap_err().to_string()
    }

    #[test]
    fn rows_of_two_and_three_columns_stand_in_one_file() {
        let text = "10:20:30.000,0\n10:20:30.061,3145728,9223372036854771712\n\
                    10:20:30.190,4194304,20971520\r\n10:20:30.302,0\n";
        let trace = trace(text).unwrap();
        assert_eq!(times(&trace), [0, 61, 190, 302]);
        assert_eq!(trace.samples[0].usage, Some(Bytes::ZERO));
        assert_eq!(trace.samples[0].limit, None);
        assert_eq!(trace.samples[1].limit, Some(MemoryLimit::None));
        assert_eq!(trace.samples[2].limit, Some(MemoryLimit::Bytes(20 << 20)));
        assert_eq!(trace.peak(|s| s.usage), Some(Bytes::new(4 << 20)));
        assert!(trace.end.is_some());
    }

    #[test]
    fn a_run_goes_on_after_midnight() {
        let trace =
            trace("23:59:59.900,0\n23:59:59.950,7\n00:00:00.050,8\n00:00:01.000,0\n").unwrap();
        assert_eq!(times(&trace), [0, 50, 150, 1100]);
    }

    #[test]
    fn an_empty_usage_was_not_read() {
        let trace =
            trace("01:00:00.000,0\n01:00:00.100,5\n01:00:00.200,\n01:00:00.300,0\n").unwrap();
        assert_eq!(trace.samples[2].usage, None);
    }

    #[test]
    fn samples_behind_the_end_do_not_count() {
        let trace =
            trace("01:00:00.000,0\n01:00:00.100,5\n01:00:00.200,\n01:00:00.150,0\n").unwrap();
        assert_eq!(times(&trace), [0, 100, 150]);
        assert!(trace.end.is_some());
    }

    #[test]
    fn without_the_mark_of_the_end_the_run_was_cut_off() {
        let trace = trace("01:00:00.000,0\n01:00:00.100,5\n").unwrap();
        assert_eq!(trace.end, None);
    }

    #[test]
    fn a_bad_row_is_named_with_its_reason() {
        let with = |row: &str| reason(&format!("01:00:00.000,0\n{row}\n01:00:01.000,0\n"));
        assert_eq!(
            with("1:2,5"),
            "line 2: time: \"1:2\" is not of the form 09:15:02.100"
        );
        assert_eq!(
            with("01:00:00.1,-5"),
            "line 2: usage: \"-5\" is not a number of bytes"
        );
        assert_eq!(
            with("01:00:00.1,5.5"),
            "line 2: usage: \"5.5\" is not a number of bytes"
        );
        assert!(with("01:00:00.1,5,max").contains("line 2: limit: \"max\""));
        assert!(with("01:00:00.1,5,5,5").contains("line 2: 4 columns"));
        assert!(with("01:00:00.1").contains("line 2: 1 columns"));
        assert!(with("25:00:00.1,5").contains("line 2: time"));
        assert!(with("01:60:00.1,5").contains("line 2: time"));
        assert!(with("01:00:00.1.2,5").contains("line 2: time"));
        assert!(with("01:00:00.100,99999999999999999999").contains("line 2: usage"));
        assert!(with("00:59:59.000,5").contains("line 2: the time goes back by 1s"));
        assert_eq!(reason("\n\n"), "there are no samples");
        assert!(reason("01:00:00.000,0\n").contains("a start and an end"));
    }

    #[test]
    fn aux_needs_an_interval_and_begins_with_an_empty_line() {
        let text = "\n100\n300\n200\n";
        let trace = aux(text, Some(Duration::from_millis(30))).unwrap();
        assert_eq!(times(&trace), [0, 30, 60, 90]);
        assert_eq!(trace.peak(|s| s.usage), Some(Bytes::new(300)));
        assert!(
            aux(text, None)
                .unwrap_err()
                .to_string()
                .contains("--interval")
        );
        let wrong = aux("\n100\nx\n", Some(Duration::from_millis(30))).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "line 3: usage: \"x\" is not a number of bytes"
        );
        assert!(aux("\n", Some(Duration::from_millis(30))).is_err());
        assert!(aux("1\n2\n", Some(Duration::MAX)).is_err());
    }
}
