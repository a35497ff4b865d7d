//! Which ratio is worth a try.

use super::{Choice, Point, Rules, Slo, fewest_runs};
use crate::model::placement::LocalRatio;

/// Ratios at which a function is tried, in ten-thousandths, from local to remote.
const STEPS: [u16; 8] = [10_000, 9_800, 9_500, 9_000, 7_500, 5_000, 2_500, 0];
/// What was measured between two ratios may be this much worse below them.
const CAUTION: f64 = 1.5;

/// The ratio for the next run of a function of which `choice` was made: the chosen one, or the next lower step if that
/// lacks runs and would keep to the bound at the worst.
///
/// The worst is linear in the remote share: pages are used as often on one node as on the other when they are interleaved.
/// Its slope is [`Rules::worst`] before anything but local memory was measured, then 1.5 times the measured one, if that
/// is less. Nothing is tried below a ratio that has not been measured to the end, and a try ends early once more runs
/// have been over the bound than may be: what it costs is small, whatever becomes of it.
pub fn explore(choice: &Choice, slo: &Slo, rules: &Rules) -> LocalRatio {
    let fewest = fewest_runs(slo.quantile, rules.confidence);
    let known: Vec<&Point> = choice.points.iter().filter(|p| p.bound.is_some()).collect();
    let Some(local) = known.iter().find(|p| p.ratio == LocalRatio::LOCAL) else {
        return LocalRatio::LOCAL;
    };
    // The lowest ratio that is measured to the end and keeps to the bound.
    let lowest = known
        .iter()
        .filter(|p| p.runs >= fewest && p.bound.is_some_and(|bound| bound <= slo.latency))
        .min_by_key(|p| p.ratio);
    let Some(lowest) = lowest else {
        return choice.ratio;
    };
    let step = STEPS.iter().find(|step| **step < lowest.ratio.parts());
    let Some(next) =
        step.and_then(|step| LocalRatio::of(u64::from(*step), u64::from(LocalRatio::WHOLE - step)))
    else {
        return choice.ratio;
    };
    let known_next = choice.points.iter().find(|p| p.ratio == next);
    let may_be_over = (1.0 - slo.quantile) * f64::from(u32::try_from(fewest).unwrap_or(u32::MAX));
    let is_over = |p: &Point| f64::from(u32::try_from(p.over).unwrap_or(u32::MAX)) > may_be_over;
    if known_next.is_some_and(|p| p.runs >= fewest || is_over(p)) {
        return choice.ratio;
    }
    let seconds = |point: &Point| point.bound.unwrap_or_default().as_secs_f64();
    let remote = |ratio: LocalRatio| 1.0 - f64::from(ratio);
    let prior = seconds(local) * (rules.worst - 1.0);
    let slope = match lowest.ratio == LocalRatio::LOCAL {
        true => prior,
        false => {
            let measured = (seconds(lowest) - seconds(local)) / remote(lowest.ratio);
            (measured * CAUTION).clamp(0.0, prior)
        }
    };
    let expected = seconds(lowest) + slope * (remote(next) - remote(lowest.ratio));
    match expected <= slo.latency.as_secs_f64() {
        true => next,
        false => choice.ratio,
    }
}
