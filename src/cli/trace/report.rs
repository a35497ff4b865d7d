//! Traces as a table, as a line and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::output;
use super::{figures, why};
use crate::model::trace::{COLUMNS, Trace};
use crate::model::{Bytes, MemoryTime};
use crate::tracer::{Figures, Outcome};

/// The table of all runs.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let head = [
        "RUN",
        "DURATION",
        "CPU",
        "PEAK HELD",
        "PEAK FILE",
        "SAMPLES",
        "INTERVAL P50",
        "P99",
        "RESULT",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for outcome in outcomes {
        let cells = figures(outcome).map(|figures| {
            [
                time(figures.duration),
                figures.cpu.map_or_else(String::new, time),
                figures
                    .held_peak
                    .map_or_else(String::new, Bytes::to_megabytes),
                figures
                    .file_peak
                    .map_or_else(String::new, Bytes::to_megabytes),
                figures.samples.to_string(),
                time(figures.interval_p50),
                time(figures.interval_p99),
            ]
        });
        let [duration, cpu, held, file, samples, p50, p99] = cells.unwrap_or_default();
        let number = outcome.number.to_string();
        rows.push([
            number,
            duration,
            cpu,
            held,
            file,
            samples,
            p50,
            p99,
            result(outcome),
        ]);
    }
    output::table(&rows, 0, 2)
}

/// The table of all runs when their limit may have moved.
pub(super) fn grants(outcomes: &[Outcome]) -> String {
    let head = [
        "RUN", "MODE", "DURATION", "CPU", "PEAK", "GRANTED", "USED", "RATIO", "MET", "KILLS",
        "RESULT",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for outcome in outcomes {
        let none = || "-".to_owned();
        let cells = figures(outcome).map(|figures| {
            // A run that nobody looked at has two samples, between which nothing is known.
            let used = figures.used.filter(|_| figures.held_peak.is_some());
            [
                time(figures.duration),
                figures.cpu.map_or_else(none, time),
                figures.usage_peak.map_or_else(none, Bytes::to_megabytes),
                figures.granted.map_or_else(none, gib_seconds),
                used.map_or_else(none, gib_seconds),
                figures
                    .granted
                    .zip(used)
                    .and_then(|(granted, used)| ratio(granted, used))
                    .map_or_else(none, |ratio| format!("{ratio:.2}")),
                figures.met.map_or_else(none, |times| times.to_string()),
                figures.kills.to_string(),
            ]
        });
        let [duration, cpu, peak, granted, used, ratio, met, kills] = cells.unwrap_or_default();
        let number = outcome.number.to_string();
        let mode = mode(outcome).unwrap_or_default().to_owned();
        rows.push([
            number,
            mode,
            duration,
            cpu,
            peak,
            granted,
            used,
            ratio,
            met,
            kills,
            result(outcome),
        ]);
    }
    output::table(&rows, 0, 2)
}

/// What was done with the memory.
fn mode(outcome: &Outcome) -> Option<&str> {
    let context = outcome.traced.as_ref()?.trace.context.as_ref()?;
    context.mode.as_deref()
}

fn result(outcome: &Outcome) -> String {
    why(outcome).map_or_else(
        || "ok".to_owned(),
        |why| match why.split_once(": ") {
            Some((_, why)) => why.to_owned(),
            None => why,
        },
    )
}

/// Memory over time in GiB-s with three digits that mean something.
fn gib_seconds(area: MemoryTime) -> String {
    let value = float(area) / f64::from(1 << 30) / 1e9;
    let digits = if value >= 1.0 { 2 } else { 4 };
    format!("{value:.digits$} GiB-s")
}

fn ratio(granted: MemoryTime, used: MemoryTime) -> Option<f64> {
    (used > MemoryTime::ZERO).then(|| float(granted) / float(used))
}

#[allow(clippy::cast_precision_loss, reason = "for people, in three digits")]
fn float(area: MemoryTime) -> f64 {
    area.byte_nanos() as f64
}

/// What is told of a run when it ends.
pub(super) fn line(figures: &Figures) -> String {
    let mut out = time(figures.duration);
    // Writing to a string does not fail.
    if let Some(cpu) = figures.cpu {
        let _ = write!(out, ", CPU {}", time(cpu));
    }
    if let Some(held) = figures.held_peak {
        let _ = write!(out, ", peak {} held", held.to_megabytes());
    }
    if let Some(file) = figures.file_peak {
        let _ = write!(out, ", {} file", file.to_megabytes());
    }
    out
}

/// A duration with three digits that mean something.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds >= 100.0 {
        format!("{seconds:.0} s")
    } else if seconds >= 1.0 {
        format!("{seconds:.2} s")
    } else {
        format!("{:.1} ms", seconds * 1e3)
    }
}

/// A trace as one document: the same columns as in CSV, a sample as a list of values in their order, null for what was
/// not read.
pub(super) fn json(trace: &Trace) -> Result<String, serde_json::Error> {
    let nodes = trace.nodes.iter().map(|node| format!("n{node}"));
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|name| (*name).to_owned())
        .chain(nodes)
        .collect();
    // A line of CSV says all of a sample.
    let cell = |cell: &str| match cell.parse::<u64>() {
        Ok(number) => json!(number),
        Err(_) if cell.is_empty() => Value::Null,
        Err(_) => json!(cell),
    };
    let samples: Vec<Vec<Value>> = trace
        .samples
        .iter()
        .map(|sample| sample.to_string().split(',').map(cell).collect())
        .collect();
    serde_json::to_string(&json!({
        "version": 1,
        "context": trace.context,
        "end": trace.end,
        "columns": columns,
        "samples": samples,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::trace::VERSION_LINE;

    #[test]
    fn times_and_sizes_are_short() {
        for (millis, text) in [
            (0, "0.0 ms"),
            (12, "12.0 ms"),
            (1_500, "1.50 s"),
            (150_000, "150 s"),
        ] {
            assert_eq!(time(Duration::from_millis(millis)), text);
        }
        assert_eq!(Bytes::new(3 << 19).to_megabytes(), "1.5 MB");
    }

    #[test]
    fn a_trace_is_a_document_with_the_same_columns() {
        let text = format!(
            "{VERSION_LINE}\n{},n0\n0,1,2,,,,max,,,,,,,init,5\n# end {{}}\n",
            COLUMNS.join(",")
        );
        let trace: Trace = text.parse().unwrap();
        let value: Value = serde_json::from_str(&json(&trace).unwrap()).unwrap();
        let row = |name: &str| {
            let at = value["columns"]
                .as_array()
                .unwrap()
                .iter()
                .position(|one| one == name);
            value["samples"][0][at.unwrap()].clone()
        };
        assert_eq!(row("usage"), 1);
        assert_eq!(row("file"), Value::Null);
        assert_eq!(row("limit"), "max");
        assert_eq!(row("phase"), "init");
        assert_eq!(row("n0"), 5);
    }
}
