//! The profile of one input class.

use crate::model::Bytes;
use crate::model::placed::Seen;
use crate::model::profile::{BinWidth, ClassProfile, Confidence, Digest, Hull, Hulls, Quantiles};

use super::Rules;
use super::barrel::barrel;
use super::rises::{ABOUT, Rises, STEADY, Variation};

/// A page cache that is larger than the smallest one by less is no sign of a cold start.
const LEAST_COLD: Bytes = Bytes::new(8 << 20);

/// So many of the newest runs are looked at for whether they grew as the rest foresees.
const MOST_LEFT_OUT: usize = 32;

/// What the runs of a class have in common; `None` if none of them is complete.
pub(super) fn profile(runs: &[&Digest], rules: &Rules) -> Option<ClassProfile> {
    let complete: Vec<&Digest> = runs.iter().copied().filter(|run| run.complete).collect();
    let count = |runs: usize| u32::try_from(runs).unwrap_or(u32::MAX);
    let peaks = |of: fn(&Digest) -> Bytes| {
        let all = runs.iter().map(|run| of(run)).max();
        let complete = complete.iter().map(|run| of(run)).collect();
        quantiles(complete, all)
    };

    let smallest = complete.iter().map(|run| run.file_peak).min()?;
    let (cold, warm): (Vec<&Digest>, Vec<&Digest>) = runs
        .iter()
        .partition(|run| is_cold(run.file_peak, smallest));
    let file_peak = |runs: &[&Digest]| {
        let complete = runs.iter().filter(|run| run.complete);
        let all = runs.iter().map(|run| run.file_peak).max();
        quantiles(complete.map(|run| run.file_peak).collect(), all)
    };
    let cold_runs = count(cold.iter().filter(|run| run.complete).count());

    let wall = Envelope::of(runs.iter().map(|run| &run.wall.held));
    let by_cpu: Option<Vec<&Hulls>> = runs.iter().map(|run| run.by_cpu.as_ref()).collect();
    let by_cpu = by_cpu.map(|hulls| (Envelope::of(hulls.iter().map(|hulls| &hulls.held)), hulls));
    let complete_runs: Vec<bool> = runs.iter().map(|run| run.complete).collect();
    let by_wall: Vec<&Hulls> = runs.iter().map(|run| &run.wall).collect();
    let grew = |variation, hulls: Option<&Vec<&Hulls>>| {
        hulls.and_then(|hulls| growth(hulls, variation, &complete_runs, rules))
    };
    Some(ClassProfile {
        runs: count(complete.len()),
        cold_runs,
        held_peak: peaks(|run| run.held_peak)?,
        file_peak: file_peak(&warm)?,
        cold_file_peak: file_peak(&cold),
        usage_peak: peaks(|run| run.usage_peak)?,
        // Where nobody looked that often, all of a burst may have come at once.
        jump: runs.iter().filter_map(|run| run.jump.or(run.burst)).max(),
        burst: runs.iter().filter_map(|run| run.burst).max(),
        seen: runs
            .iter()
            .map(|run| run.seen)
            .fold(Seen::default(), Seen::merge),
        duration: complete.iter().map(|run| run.duration).max()?,
        wall_confidence: wall.confidence(&complete_runs, rules),
        wall_growth: grew(&ABOUT, Some(&by_wall)),
        wall_steady: grew(&STEADY, Some(&by_wall)),
        wall: Hulls {
            held: wall.hull(),
            file: hull_of(warm.iter().map(|run| &run.wall.file)),
        },
        cpu_confidence: by_cpu
            .as_ref()
            .map(|(envelope, _)| envelope.confidence(&complete_runs, rules)),
        cpu_growth: grew(&ABOUT, by_cpu.as_ref().map(|(_, hulls)| hulls)),
        cpu_steady: grew(&STEADY, by_cpu.as_ref().map(|(_, hulls)| hulls)),
        by_cpu: by_cpu.map(|(envelope, _)| Hulls {
            held: envelope.hull(),
            file: hull_of(
                warm.iter()
                    .filter_map(|run| Some(&run.by_cpu.as_ref()?.file)),
            ),
        }),
    })
}

/// Whether a run's page cache was cold: it is charged with pages of files that another run of the class found in
/// memory, on account of an earlier container. So its page cache was larger than the smallest one by half and by 8 MiB.
fn is_cold(file_peak: Bytes, smallest: Bytes) -> bool {
    let more = file_peak.saturating_sub(smallest);
    more > LEAST_COLD && more.get() > smallest.get() / 2
}

/// By the nearest rank. The largest value is given apart, for it may be of other runs. `None` without a value.
fn quantiles(mut values: Vec<Bytes>, largest: Option<Bytes>) -> Option<Quantiles> {
    values.sort_unstable();
    let at = |percent: usize| {
        let rank = (values.len() * percent).div_ceil(100);
        values.get(rank.saturating_sub(1)).copied()
    };
    Some(Quantiles {
        min: at(0)?,
        p50: at(50)?,
        p90: at(90)?,
        p99: at(99)?,
        max: largest?,
    })
}

/// Leaves out one of the newest runs after the other, and looks whether it grew as the rest foresees if runs vary by so much.
fn growth(
    runs: &[&Hulls],
    variation: &Variation,
    counts: &[bool],
    rules: &Rules,
) -> Option<Confidence> {
    let sums: Vec<Hull> = runs.iter().map(|hulls| hulls.sum()).collect();
    let envelope = Envelope::of(sums.iter());
    let left_out = envelope.hulls.iter().enumerate().zip(counts);
    let left_out = left_out.filter(|(_, counts)| **counts).rev();
    let mut confidence = Confidence::default();
    for ((run, hull), _) in left_out.take(MOST_LEFT_OUT) {
        let worst = unforeseen(hull, envelope.without(run), variation, rules);
        confidence.runs += 1;
        confidence.violations += u32::from(worst > Bytes::ZERO);
        confidence.worst = confidence.worst.max(worst);
    }
    (confidence.runs > 1).then_some(confidence)
}

/// By how much a run grew more than others foresee that used about as much, and to more than they had about then, and than
/// it had just grown: what goes on is seen without them. The autotuner keeps room for all of these.
fn unforeseen(run: &Hull, rest: Hull, variation: &Variation, rules: &Rules) -> Bytes {
    let width = run.width.as_duration();
    let most = rest.largest().unwrap_or_default();
    let rest = Rises::of(rest, width.saturating_mul(2), most);
    let mut before = 0_u64;
    let pairs = run.bins.iter().zip(run.bins.iter().skip(1));
    let worst = (0_u32..).zip(pairs).map(|(bin, (now, next))| {
        let time = width.saturating_mul(bin);
        let going_on = before.saturating_add(before / 2);
        before = next.saturating_sub(*now).get();
        let rise = rest.foreseen(time, *now, variation).get().max(going_on);
        let top = rest.top(time, variation).unwrap_or(most);
        let enough = top.max(Bytes::new(now.get().saturating_add(rise)));
        next.saturating_sub(rules.buffer.above(enough))
    });
    worst.max().unwrap_or_default()
}

fn hull_of<'a>(hulls: impl Iterator<Item = &'a Hull>) -> Hull {
    Envelope::of(hulls).hull()
}

/// The largest values of several hulls, with what is needed to leave one of them out.
struct Envelope {
    width: BinWidth,
    /// The hulls in bins of that width.
    hulls: Vec<Hull>,
    bins: Vec<Top>,
}

/// The two largest values of a bin.
#[derive(Clone, Copy)]
struct Top {
    first: Bytes,
    /// Which hull has the first.
    owner: usize,
    /// `None` if no other hull is that long.
    second: Option<Bytes>,
}

impl Envelope {
    fn of<'a>(hulls: impl Iterator<Item = &'a Hull>) -> Self {
        let hulls: Vec<&Hull> = hulls.collect();
        let width = hulls
            .iter()
            .map(|hull| hull.width)
            .max()
            .unwrap_or_default();
        let hulls: Vec<Hull> = hulls.iter().map(|hull| hull.widened(width)).collect();
        let mut bins: Vec<Top> = Vec::new();
        for (owner, hull) in hulls.iter().enumerate() {
            for (top, value) in bins.iter_mut().zip(&hull.bins) {
                if *value > top.first {
                    top.second = Some(top.first);
                    top.first = *value;
                    top.owner = owner;
                } else {
                    top.second = top.second.max(Some(*value));
                }
            }
            let longer = hull.bins.iter().skip(bins.len());
            bins.extend(longer.map(|value| Top {
                first: *value,
                owner,
                second: None,
            }));
        }
        Self { width, hulls, bins }
    }

    fn hull(&self) -> Hull {
        Hull {
            width: self.width,
            bins: self.bins.iter().map(|top| top.first).collect(),
        }
    }

    /// The hull of all but one.
    fn without(&self, run: usize) -> Hull {
        let rest = self.bins.iter().map_while(|top| {
            if top.owner == run {
                top.second
            } else {
                Some(top.first)
            }
        });
        Hull {
            width: self.width,
            bins: rest.collect(),
        }
    }

    /// Leaves out each of the hulls that count, one after the other.
    fn confidence(&self, counts: &[bool], rules: &Rules) -> Confidence {
        let mut confidence = Confidence::default();
        if counts.iter().filter(|counts| **counts).count() < 2 {
            return confidence;
        }
        let left_out = self.hulls.iter().enumerate().zip(counts);
        for ((run, hull), _) in left_out.filter(|(_, counts)| **counts) {
            let rest = barrel(&self.without(run), rules.lead, &rules.buffer);
            let after = rest.largest().unwrap_or_default();
            let granted = rest.bins.iter().copied().chain(std::iter::repeat(after));
            let short = hull.bins.iter().zip(granted);
            let short = short.map(|(need, granted)| need.saturating_sub(granted));
            let worst = short.max().unwrap_or_default();
            confidence.runs += 1;
            confidence.violations += u32::from(worst > Bytes::ZERO);
            confidence.worst = confidence.worst.max(worst);
        }
        confidence
    }
}
