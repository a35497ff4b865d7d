//! Traces and hulls in the forms of the tools published with the WoSC 2020 paper.

use std::fmt::Write;
use std::time::Duration;

use crate::model::profile::{ClassProfile, Hull};
use crate::model::trace::Trace;
use crate::model::{Bytes, MemoryLimit};
use crate::policy::learn::{Buffer, barrel};

/// What cgroup v1 shows where there is no limit.
const UNLIMITED: i64 = 9_223_372_036_854_771_712;
/// Width of the bins of an upscaling hull.
const BIN: Duration = Duration::from_millis(100);
const HALF: Duration = Duration::from_millis(50);

/// A trace as functracer writes it: time of day, usage, and the limit if it was read. The day begins with the run.
pub fn functracer(trace: &Trace) -> String {
    let start = trace
        .samples
        .first()
        .map_or(Duration::ZERO, |sample| sample.at);
    let time = |at: Duration| {
        let at = at.saturating_sub(start);
        let seconds = at.as_secs();
        format!(
            "{:02}:{:02}:{:02}.{:03}",
            seconds / 3600 % 24,
            seconds / 60 % 60,
            seconds % 60,
            at.subsec_millis()
        )
    };
    let mut limit = None;
    let mut out = format!("{},0\n", time(start));
    for sample in &trace.samples {
        limit = sample.limit.or(limit);
        let usage = sample
            .usage
            .map_or_else(String::new, |usage| usage.get().to_string());
        let limit = match limit {
            None => String::new(),
            Some(MemoryLimit::None) => format!(",{UNLIMITED}"),
            Some(MemoryLimit::Bytes(bytes)) => format!(",{bytes}"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(out, "{}{usage}{limit}", time(sample.at) + ",");
    }
    if trace.end.is_some() {
        let end = trace.samples.last().map_or(start, |sample| sample.at);
        let _ = writeln!(out, "{},0", time(end));
    }
    out
}

/// The hulls of a class as `uhull.json`: held memory and page cache together, moved ahead by `lead`, with the buffer.
pub fn upscaling_hull(class: &ClassProfile, lead: Duration, buffer: &Buffer) -> String {
    let held = barrel(&class.wall.held, lead, &Buffer::NONE);
    let file = barrel(&class.wall.file, lead, &Buffer::NONE);
    let length = held.end().max(file.end());
    let mut bins = Vec::new();
    for number in 0_u32.. {
        let middle = BIN.saturating_mul(number);
        let (from, to) = (middle.saturating_sub(HALF), middle.saturating_add(HALF));
        if from >= length {
            // The bin that closes the hull.
            bins.push(bin(number, Bytes::ZERO));
            break;
        }
        let need = largest(&held, from, to)
            .get()
            .saturating_add(largest(&file, from, to).get());
        bins.push(bin(number, buffer.above(Bytes::new(need))));
    }
    format!("{{{}}}\n", bins.join(", "))
}

/// `"1.2": 5.25`, in MiB.
fn bin(number: u32, memory: Bytes) -> String {
    let whole = memory.get() >> 20;
    // 2^20 divides 10^20, so that all digits are known: no float is needed.
    let rest =
        u128::from(memory.get() & 0xf_ffff).saturating_mul(100_000_000_000_000_000_000) >> 20;
    let digits = format!("{rest:020}");
    let digits = digits.trim_end_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    format!("\"{}.{}\": {whole}.{digits}", number / 10, number % 10)
}

/// The largest bin that overlaps with a time.
fn largest(hull: &Hull, from: Duration, to: Duration) -> Bytes {
    let width = u128::from(hull.width.micros());
    let index = |time: u128| usize::try_from(time).unwrap_or(usize::MAX);
    let first = index(from.as_micros() / width);
    let end = index(to.as_micros().div_ceil(width));
    let overlap = hull.bins.iter().skip(first).take(end.saturating_sub(first));
    overlap.max().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::profile::{BinWidth, Digest};
    use crate::model::trace::Sample;
    use crate::model::{ClassName, RunId};
    use crate::policy::learn::{self, Rules};
    use crate::profile::import::{self, Form, Imported};

    const MIB: u64 = 1 << 20;

    fn imported(text: &str, form: Form) -> (RunId, Trace) {
        match import::read(text, form, None).unwrap() {
            Imported::Traces(mut traces) => traces.remove(0),
            Imported::Runs(_) => panic!("no trace"),
        }
    }

    #[test]
    fn a_trace_of_functracer_comes_back_as_it_was() {
        let text = "00:00:00.000,0\n00:00:00.061,3145728,9223372036854771712\n\
                    00:00:00.190,4194304,20971520\n00:00:01.000,,20971520\n00:00:01.302,0\n";
        let (_, trace) = imported(text, Form::Functracer);
        let again = functracer(&trace);
        // The marks of start and end stand beside the samples of the same time.
        assert_eq!(
            again,
            "00:00:00.000,0\n".to_owned()
                + &text.replace("01.302,0\n", "01.302,0,20971520\n")
                + "00:00:01.302,0\n"
        );
        let (_, trace_again) = imported(&again, Form::Functracer);
        let usage = |trace: &Trace| -> Vec<(u128, Option<Bytes>)> {
            let mut usage: Vec<_> = trace
                .samples
                .iter()
                .map(|s| (s.at.as_millis(), s.usage))
                .collect();
            usage.dedup();
            usage
        };
        assert_eq!(usage(&trace_again), usage(&trace));
    }

    #[test]
    fn a_long_run_goes_through_midnight_and_one_that_was_cut_off_has_no_end() {
        let sample = |seconds| Sample {
            at: Duration::from_secs(seconds),
            usage: Some(Bytes::new(seconds)),
            ..Sample::default()
        };
        let trace = Trace {
            samples: vec![sample(10), sample(50_010), sample(86_411)],
            ..Trace::default()
        };
        assert_eq!(
            functracer(&trace),
            "00:00:00.000,0\n00:00:00.000,10\n13:53:20.000,50010\n00:00:01.000,86411\n"
        );
    }

    fn class(traces: &[&[(u64, u64)]]) -> ClassProfile {
        let digests = traces.iter().enumerate().map(|(number, points)| -> Digest {
            let context = format!("{{\"function\":\"n/f\",\"run\":\"r{number}\"}}");
            let sample = |(millis, mib): &(u64, u64)| Sample {
                at: Duration::from_millis(*millis),
                anon: Some(Bytes::new(mib * MIB)),
                ..Sample::default()
            };
            let trace = Trace {
                context: serde_json::from_str(&context).unwrap(),
                end: Some(Default::default()),
                samples: points.iter().map(sample).collect(),
                ..Trace::default()
            };
            learn::digest(&trace, BinWidth::default()).unwrap()
        });
        let function = "n/f".parse().unwrap();
        let mut profile = learn::learn(function, &digests.collect(), &Rules::default());
        profile.classes.remove(&ClassName::all()).unwrap()
    }

    #[test]
    fn a_hull_is_moved_ahead_and_closed() {
        let class = class(&[&[(0, 8), (400, 64), (480, 16), (600, 16)]]);
        let at_once = upscaling_hull(&class, Duration::ZERO, &Buffer::NONE);
        assert_eq!(
            at_once,
            "{\"0.0\": 8.0, \"0.1\": 8.0, \"0.2\": 8.0, \"0.3\": 8.0, \"0.4\": 64.0, \"0.5\": 64.0, \
             \"0.6\": 16.0, \"0.7\": 0.0}\n"
        );
        let ahead = upscaling_hull(&class, Duration::from_millis(200), &Buffer::NONE);
        assert!(ahead.contains("\"0.1\": 8.0, \"0.2\": 64.0"), "{ahead}");
        let buffer = Buffer {
            bytes: Bytes::new(MIB / 4 + 1),
            ..Buffer::NONE
        };
        let more = upscaling_hull(&class, Duration::ZERO, &buffer);
        assert!(
            more.starts_with("{\"0.0\": 8.25000095367431640625, "),
            "{more}"
        );
    }

    /// The grant at each moment holds what every run needs then.
    #[test]
    fn an_exported_hull_holds_its_runs() {
        let runs: [&[(u64, u64)]; 2] = [
            &[(0, 1), (33, 50), (90, 3), (310, 70), (330, 2), (777, 2)],
            &[(0, 2), (140, 20), (500, 90), (510, 4), (901, 4)],
        ];
        let text = upscaling_hull(&class(&runs), Duration::from_millis(40), &Buffer::NONE);
        let (_, hull) = imported(&text, Form::UpscalingHull);
        let granted = |at: Duration| {
            let before = hull.samples.iter().take_while(|sample| sample.at <= at);
            before.last().and_then(|sample| sample.usage).unwrap()
        };
        for points in runs {
            for pair in points.windows(2) {
                for millis in pair[0].0..pair[1].0 {
                    let need = Bytes::new(pair[0].1 * MIB);
                    assert!(granted(Duration::from_millis(millis)) >= need, "{millis}");
                }
            }
        }
    }
}
