//! `-results.dat` of functracer-multi: one run in a line, without its course.
//!
//! Columns, separated by blanks: duration in ms, peak in MiB, billed units of 100 ms, provided MiB, cost, net cost,
//! overhead. A run becomes one that held its peak all the time, which is an upper bound.

use std::time::Duration;

use super::{ImportError, lines, quoted};
use crate::model::Bytes;
use crate::model::trace::{End, Sample, Trace};

/// How many columns a line has.
pub(super) const COLUMNS: usize = 7;

/// Reads all runs.
pub(super) fn traces(text: &str) -> Result<Vec<Trace>, ImportError> {
    let mut traces = Vec::new();
    for (line, row) in lines(text) {
        traces.push(trace(row).map_err(|reason| ImportError::at(line, reason))?);
    }
    if traces.is_empty() {
        return Err(ImportError::whole("there are no runs"));
    }
    Ok(traces)
}

fn trace(row: &str) -> Result<Trace, String> {
    let cells: Vec<&str> = row.split_ascii_whitespace().collect();
    let [duration, peak, rest @ ..] = cells.as_slice() else {
        return Err(format!("{} columns: want {COLUMNS}", cells.len()));
    };
    if cells.len() != COLUMNS {
        return Err(format!("{} columns: want {COLUMNS}", cells.len()));
    }
    if let Some(wrong) = rest.iter().find(|cell| cell.parse::<f64>().is_err()) {
        return Err(format!("{} is no number", quoted(wrong)));
    }
    let whole = |cell: &str, what: &str| {
        cell.parse::<u64>()
            .map_err(|_| format!("{} is no whole number of {what}", quoted(cell)))
    };
    let duration = Duration::from_millis(whole(duration, "milliseconds")?);
    let peak = Bytes::from_mib(whole(peak, "MiB")?)
        .ok_or_else(|| format!("{} MiB are more than memory can have", quoted(peak)))?;
    let sample = |at| Sample {
        at,
        usage: Some(peak),
        ..Sample::default()
    };
    Ok(Trace {
        end: Some(End::default()),
        samples: vec![sample(Duration::ZERO), sample(duration)],
        ..Trace::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_run_that_held_its_peak() {
        let text = "2100    772 21  832  28.63 26.58   2.05\n\n90 5 1 128 .1 .1 0\n";
        let runs = traces(text).unwrap();
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[0].duration(), Duration::from_millis(2100));
        assert_eq!(runs[0].peak(|s| s.usage), Bytes::from_mib(772));
        assert_eq!(runs[1].duration(), Duration::from_millis(90));
    }

    #[test]
    fn a_bad_line_is_named() {
        let reason = |text: &str| traces(text).unwrap_err().to_string();
        assert_eq!(
            reason("1 2 3 4 5 6 7\n1 2 3\n"),
            "line 2: 3 columns: want 7"
        );
        assert_eq!(
            reason("x 2 3 4 5 6 7\n"),
            "line 1: \"x\" is no whole number of milliseconds"
        );
        assert_eq!(
            reason("1 -2 3 4 5 6 7\n"),
            "line 1: \"-2\" is no whole number of MiB"
        );
        assert_eq!(reason("1 2 3 4 5 6 x\n"), "line 1: \"x\" is no number");
        assert!(reason("1 99999999999999999 3 4 5 6 7").contains("more than memory can have"));
        assert_eq!(reason(""), "there are no runs");
    }
}
