//! Upscaling hulls of statsplotter, `uhull.json`: `{"0.0": 121.5, "0.1": 196.1, "0.2": 0}`.
//!
//! Keys are seconds since the start, rounded to tenths, but some have the rounding errors of binary fractions
//! (`1.2000000000000002`). Values are MiB. The value of a key holds for the time that is rounded to it, and on until
//! the next key if some are missing. A last key with the value 0 closes the hull; older files lack it.

use std::time::Duration;

use serde_json::Value;

use super::{ImportError, quoted};
use crate::model::Bytes;
use crate::model::trace::{End, Sample, Trace};

/// Half of the width of a bin.
const HALF: Duration = Duration::from_millis(50);
/// No hull is longer, nor has more memory: an exabyte, a year.
const MOST_SECONDS: f64 = 366.0 * 24.0 * 60.0 * 60.0;
const MOST_MIB: f64 = (1_u64 << 40) as f64;

/// Reads a hull as if it were one run.
pub(super) fn trace(text: &str) -> Result<Trace, ImportError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|err| ImportError::at(err.line(), format!("no JSON: {err}")))?;
    let Value::Object(bins) = value else {
        return Err(ImportError::whole(
            "want one JSON object, such as {\"0.0\": 121.5}",
        ));
    };
    let mut points = Vec::with_capacity(bins.len());
    for (key, value) in &bins {
        let time = seconds(key).ok_or_else(|| {
            ImportError::whole(format!("key {} is no number of seconds", quoted(key)))
        })?;
        let memory = value.as_f64().and_then(mebibytes).ok_or_else(|| {
            // As it stands in the file.
            let value: String = value.to_string().chars().take(40).collect();
            ImportError::whole(format!("key {key:?}: {value} is no number of MiB"))
        })?;
        points.push((time, memory));
    }
    // By time, and of two keys that mean the same time the larger value last.
    points.sort();
    let Some((last, value)) = points.last().copied() else {
        return Err(ImportError::whole("the hull has no bins"));
    };
    if points.iter().all(|(_, memory)| *memory == Bytes::ZERO) {
        return Err(ImportError::whole("the hull has no memory"));
    }
    let mut samples: Vec<Sample> = Vec::with_capacity(points.len().saturating_add(1));
    for (time, memory) in points {
        let at = time.saturating_sub(HALF);
        if samples.last().is_some_and(|sample| sample.at == at) {
            samples.pop();
        }
        samples.push(sample(at, memory));
    }
    if value != Bytes::ZERO {
        samples.push(sample(last + HALF, Bytes::ZERO));
    }
    Ok(Trace {
        end: Some(End::default()),
        samples,
        ..Trace::default()
    })
}

fn sample(at: Duration, usage: Bytes) -> Sample {
    Sample {
        at,
        usage: Some(usage),
        ..Sample::default()
    }
}

/// Rounded to tenths, as the keys are meant.
fn seconds(key: &str) -> Option<Duration> {
    let decimal = key.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds: f64 = key.parse().ok().filter(|_| decimal)?;
    if seconds > MOST_SECONDS {
        return None;
    }
    Duration::try_from_secs_f64((seconds * 10.0).round() / 10.0)
        .ok()
        .map(|time| Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

/// Rounded up to bytes.
fn mebibytes(value: f64) -> Option<Bytes> {
    if !(0.0..=MOST_MIB).contains(&value) {
        return None;
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be between 0 and 2^60"
    )]
    let bytes = (value * 1_048_576.0).ceil() as u64;
    Some(Bytes::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(text: &str) -> Vec<(u128, u64)> {
        let trace = trace(text).unwrap();
        let point = |s: &Sample| (s.at.as_millis(), s.usage.unwrap().get());
        trace.samples.iter().map(point).collect()
    }

    #[test]
    fn a_value_holds_for_the_time_that_is_rounded_to_its_key() {
        let mib = 1 << 20;
        assert_eq!(
            points("{\"0.0\": 1, \"0.1\": 2.5, \"0.2\": 0}"),
            [(0, mib), (50, 5 * mib / 2), (150, 0)]
        );
        // Without the closing bin.
        assert_eq!(
            points("{\"0.0\": 1, \"0.1\": 2}"),
            [(0, mib), (50, 2 * mib), (150, 0)]
        );
        // A bin is missing, and the order is another one.
        assert_eq!(points("{\"0.3\": 0, \"0.0\": 3}"), [(0, 3 * mib), (250, 0)]);
    }

    #[test]
    fn keys_with_rounding_errors_are_tenths() {
        let mib = 1 << 20;
        assert_eq!(
            points("{\"1.2000000000000002\": 5, \"1.1\": 4, \"1.3\": 0, \"1.2\": 3}"),
            [(1050, 4 * mib), (1150, 5 * mib), (1250, 0)]
        );
    }

    #[test]
    fn what_is_no_hull_is_refused_with_the_reason() {
        let reason = |text: &str| trace(text).unwrap_err().to_string();
        assert!(reason("{\"0.0\": 1,\n}").starts_with("line 2: no JSON"));
        assert!(reason("[1]").contains("one JSON object"));
        assert!(reason("{\"x\": 1}").contains("key \"x\" is no number of seconds"));
        assert!(reason("{\"-0.1\": 1}").contains("\"-0.1\""));
        assert!(reason("{\"inf\": 1}").contains("\"inf\""));
        assert!(reason("{\"1e300\": 1}").contains("\"1e300\""));
        assert!(reason("{\"99999999999\": 1}").contains("no number of seconds"));
        assert!(reason("{\"0.0\": \"1\"}").contains("is no number of MiB"));
        assert!(reason("{\"0.0\": -1}").contains("key \"0.0\": -1 is no number of MiB"));
        assert!(reason("{\"0.0\": 1e30}").contains("is no number of MiB"));
        assert!(reason("{}").contains("no bins"));
        assert!(reason("{\"0.0\": 0}").contains("no memory"));
    }
}
