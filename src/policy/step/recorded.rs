//! The guard against recorded runs of real functions: each is followed by what the others have taught.

use std::collections::BTreeMap;
use std::time::Duration;

use super::harm::limit_of;
use super::tests::margins;
use super::*;
use crate::model::plan::{Clock, Forecast, Foresight};
use crate::model::profile::Hull;

/// A line with the name of the function for each run, and `t_us,usage,cpu_us` at each change, usage in KiB.
const RUNS: &str = include_str!("../../../tests/data/recorded.csv");

type Sample = (Duration, Bytes, Duration);
type Run = Vec<Sample>;

fn runs() -> BTreeMap<&'static str, Vec<Run>> {
    let mut functions: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
    let mut name = "";
    for line in RUNS.lines() {
        let number = |text: &str| text.parse::<u64>().unwrap();
        match line.split_once('#') {
            Some((_, of)) => {
                name = of;
                functions.entry(name).or_default().push(Run::new());
            }
            None => {
                let cells: Vec<u64> = line.split(',').map(number).collect();
                let run = functions.get_mut(name).unwrap().last_mut().unwrap();
                let now = (
                    Duration::from_micros(cells[0]),
                    Bytes::new(cells[1] << 10),
                    Duration::from_micros(cells[2]),
                );
                if let Some(last) = run.last().copied() {
                    rise_evenly(run, last, now);
                }
                run.push(now);
            }
        }
    }
    functions
}

/// Whoever recorded was late now and then.
fn rise_evenly(run: &mut Run, last: Sample, now: Sample) {
    let steps = u32::try_from((now.0 - last.0).as_millis() / 2).unwrap();
    let rise = now.1.saturating_sub(last.1).get();
    for step in 1..steps {
        let part = u64::from(step) * rise / u64::from(steps);
        run.push((
            last.0 + (now.0 - last.0) * step / steps,
            Bytes::new(last.1.get() + part),
            last.2 + now.2.saturating_sub(last.2) * step / steps,
        ));
    }
}

fn hull(runs: &[&Run], time: impl Fn(&Sample) -> Duration) -> Hull {
    let mut hull = Hull::default();
    for run in runs {
        let mut last = Bytes::ZERO;
        for sample in run.iter() {
            let bin = usize::try_from(time(sample).as_millis() / 20).unwrap();
            while hull.bins.len() <= bin {
                hull.bins.push(last);
            }
            last = sample.1;
            hull.bins[bin] = hull.bins[bin].max(last);
        }
    }
    hull
}

/// Most growth within so many milliseconds.
fn growth(runs: &[&Run], within: u64) -> Bytes {
    let within = Duration::from_millis(within);
    let mut most = Bytes::ZERO;
    for run in runs {
        for (index, now) in run.iter().enumerate() {
            let earlier = run[..index].iter().rev();
            let window = earlier.take_while(|then| now.0 - then.0 <= within);
            let least = window.map(|then| then.1).min().unwrap_or(now.1);
            most = most.max(now.1.saturating_sub(least));
        }
    }
    most
}

struct Outcome {
    granted: f64,
    used: f64,
    /// Least distance between a grant and what was used before the next look.
    slack: i64,
}

/// Looks every 2 ms, as on cgroup v2.
fn follow(run: &Run, others: &[&Run], mode: Mode, foresight: Foresight) -> Outcome {
    let most = others
        .iter()
        .flat_map(|run| run.iter().map(|s| s.1))
        .max()
        .unwrap();
    let ceiling = Bytes::new(most.get().max(64 << 20).next_power_of_two() * 2);
    let plan = Plan {
        mode,
        ceiling: Some(ceiling),
        lowered: None,
        set: None,
        above: None,
        grant: None,
        floor: Bytes::ZERO,
        largest: Some(largest_of(most, &margins())),
        class: None,
        margins: Margins {
            settle: Duration::from_millis(20),
            pad: pad_of(most, &margins()),
            ..margins()
        },
        forecast: Some(Forecast {
            clock: Clock::Cpu,
            trusted: foresight > Foresight::None,
            foresight,
            hull: hull(others, |sample| sample.2),
            most,
            jump: growth(others, 4),
            burst: growth(others, 20),
            bins: None,
            classes: BTreeMap::new(),
        }),
        reasons: Vec::new(),
    };
    let mut guard = Guard::new(&plan, limit_of(ceiling), 0);
    let mut outcome = Outcome {
        granted: 0.0,
        used: 0.0,
        slack: i64::MAX,
    };
    let mut at = Duration::ZERO;
    let mut index = 0;
    let end = run.last().unwrap().0;
    while at < end {
        while run.get(index + 1).is_some_and(|next| next.0 <= at) {
            index += 1;
        }
        let (_, usage, cpu) = run[index];
        let look = Look {
            at,
            usage,
            cpu: Some(cpu),
            ..Look::default()
        };
        guard.look(&look);
        let grant = guard.grant().unwrap_or(ceiling);
        let next = at + Duration::from_millis(2);
        let seen = run[index..]
            .iter()
            .take_while(|s| s.0 <= next)
            .map(|s| s.1)
            .max()
            .unwrap();
        outcome.slack = outcome
            .slack
            .min(grant.get().cast_signed() - seen.get().cast_signed());
        outcome.granted += grant.get() as f64;
        outcome.used += usage.get() as f64;
        at = next;
    }
    outcome
}

/// I10, and what it costs: recorded functions never met their grant, and were granted little more than they used.
#[test]
fn i10_recorded_functions_never_meet_their_grant() {
    let mut ratios = Vec::new();
    for (name, runs) in runs() {
        for (number, run) in runs.iter().enumerate() {
            let others: Vec<&Run> = runs
                .iter()
                .enumerate()
                .filter_map(|(other, run)| (other != number).then_some(run))
                .collect();
            for (mode, foresight) in [
                (Mode::Static, Foresight::About),
                (Mode::Elastic, Foresight::Steady),
                (Mode::Elastic, Foresight::About),
                (Mode::Elastic, Foresight::None),
            ] {
                let outcome = follow(run, &others, mode, foresight);
                let slack = outcome.slack;
                assert!(slack > 0, "{name} {number} {mode} {foresight:?}: {slack}");
                if mode == Mode::Elastic {
                    ratios.push((name, outcome.granted / outcome.used));
                }
            }
        }
    }
    let mean = |of: &str| {
        let ratios: Vec<f64> = ratios.iter().filter(|r| r.0 == of).map(|r| r.1).collect();
        ratios.iter().sum::<f64>() / ratios.len() as f64
    };
    for (name, most) in [
        ("dna-1MB", 1.2),
        ("scale-9MP", 1.4),
        ("stages", 1.95),
        ("video-wm-720p-1s", 1.2),
    ] {
        assert!(
            mean(name) < most && mean(name) > 1.0,
            "{name}: {}",
            mean(name)
        );
    }
}
