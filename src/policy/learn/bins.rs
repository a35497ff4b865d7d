//! Input classes that are learned: which feature of the input tells how much memory it needs, and where to part it.
//!
//! One class for all inputs grants each the memory of the largest. More classes waste less, and each has a largest run
//! of its own that the others of the class do not foretell. What is best is found by cross-validation: runs are left
//! out, classes are made of the others, and the cost of the runs that were left out is counted.

use std::collections::BTreeSet;

use crate::model::Bytes;
use crate::model::profile::{Digest, InputBins};

use super::{Digests, Rules, digests};

/// Learned classes of a function at most, so that its profile is read quickly.
const MOST_CLASSES: usize = 4;
/// A learned class has at least so many complete runs, one more than it needs without the one that is left out.
const LEAST_MEMBERS: usize = 4;
/// Runs are left out in so many groups, one after the other.
const FOLDS: usize = 10;
/// More classes must save so many percent of the cost.
const LEAST_SAVING: u128 = 2;
/// Features at most, by name.
const MOST_FEATURES: usize = 16;

/// The best classes by each feature of the inputs of runs without a given class, the cheapest feature first.
///
/// The cost of a run is its granted memory times its duration; of a run that was granted too little, so many times the
/// largest peak with its buffer as [`Rules::shortfall`] says. Runs without the feature are granted the largest peak.
pub fn candidates(digests: &Digests, rules: &Rules) -> Vec<InputBins> {
    let open = |digest: &&Digest| digest.complete && digests::given(digest).is_none();
    let runs: Vec<&Digest> = digests.iter().filter(open).collect();
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.features.keys()).collect();
    let mut found: Vec<(u128, InputBins)> = names
        .into_iter()
        .take(MOST_FEATURES)
        .filter_map(|name| by_feature(name, &runs, rules))
        .collect();
    found.sort_by_key(|(cost, _)| *cost);
    found.into_iter().map(|(_, bins)| bins).collect()
}

/// The best classes by one feature, with their cost.
fn by_feature(feature: &str, runs: &[&Digest], rules: &Rules) -> Option<(u128, InputBins)> {
    let point = |run: &Digest, value| Point {
        value,
        peak: run.held_peak,
        micros: run.duration.as_micros(),
    };
    let mut points: Vec<Point> = Vec::new();
    let mut rest: u128 = 0;
    let largest = runs.iter().map(|run| run.held_peak).max()?;
    let largest = rules.buffer.above(largest);
    for run in runs {
        match run.features.get(feature).filter(|value| value.is_finite()) {
            Some(value) => points.push(point(run, *value)),
            None => rest = rest.saturating_add(point(run, 0.0).cost(largest)),
        }
    }
    points.sort_by(|a, b| a.value.total_cmp(&b.value));
    let validated = validate(&points, largest, rules);
    let made = partitions(&points, MOST_CLASSES, LEAST_MEMBERS, rules);
    let mut options: Vec<(Validated, Vec<f64>)> = Vec::new();
    for (validated, edges) in validated.into_iter().zip(made) {
        options.extend(validated.zip(edges));
    }
    let one = options.first()?.0;
    let least = options.iter().map(|(validated, _)| validated.cost).min()?;
    // The fewest classes that are nearly as cheap as the cheapest.
    let enough = least.saturating_add(one.cost.saturating_mul(LEAST_SAVING) / 100);
    let (best, edges) = options.into_iter().find(|(v, _)| v.cost <= enough)?;
    let bins = InputBins {
        feature: feature.to_owned(),
        edges,
        false_positives: share(best.short, points.len()),
        relative_cost: relative(
            best.cost.saturating_add(rest),
            one.cost.saturating_add(rest),
        ),
    };
    // Its classes must have names.
    bins.class(0.0).ok()?;
    Some((best.cost.saturating_add(rest), bins))
}

/// A complete run.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    value: f64,
    peak: Bytes,
    micros: u128,
}

impl Point {
    fn cost(&self, granted: Bytes) -> u128 {
        u128::from(granted.get()).saturating_mul(self.micros)
    }
}

/// What became of the runs that were left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Validated {
    cost: u128,
    /// How many were granted too little.
    short: usize,
}

/// For 1, 2, ... classes what they cost in cross-validation; `None` where there are too few runs for so many.
fn validate(points: &[Point], largest: Bytes, rules: &Rules) -> Vec<Option<Validated>> {
    let mut validated = vec![Some(Validated::default()); MOST_CLASSES];
    let folds = FOLDS.min(points.len());
    for fold in 0..folds {
        let in_fold = |index: usize| index % folds == fold;
        let (out, rest): (Vec<_>, Vec<_>) = points
            .iter()
            .enumerate()
            .partition(|(index, _)| in_fold(*index));
        let rest: Vec<Point> = rest.into_iter().map(|(_, point)| *point).collect();
        let partitions = partitions(&rest, MOST_CLASSES, LEAST_MEMBERS - 1, rules);
        for (validated, edges) in validated.iter_mut().zip(partitions) {
            let (Some(sum), Some(edges)) = (validated.as_mut(), edges) else {
                *validated = None;
                continue;
            };
            for (_, point) in &out {
                let granted = rules.buffer.above(class_peak(&rest, &edges, point.value));
                if point.peak <= granted {
                    sum.cost = sum.cost.saturating_add(point.cost(granted));
                } else {
                    let lost = point.cost(largest).saturating_mul(rules.shortfall.into());
                    sum.cost = sum.cost.saturating_add(lost);
                    sum.short += 1;
                }
            }
        }
    }
    if folds == 0 { Vec::new() } else { validated }
}

/// The largest peak of the class that a value belongs to.
fn class_peak(points: &[Point], edges: &[f64], value: f64) -> Bytes {
    let class = |value: f64| edges.iter().take_while(|edge| value > **edge).count();
    let class_of_value = class(value);
    points
        .iter()
        .filter(|point| class(point.value) == class_of_value)
        .map(|point| point.peak)
        .max()
        .unwrap_or_default()
}

/// For 1, 2, ... `most` classes of at least `least` runs the edges with which the runs themselves cost least; `None`
/// where there are too few runs. Points are in the order of their values; an edge is the largest value of a class, so
/// that a new value in between counts with the larger ones.
///
/// Dynamic programming over the runs in order: the best `n` classes of the first `j` runs are the best `n - 1` classes
/// of the first `i` and one class of the rest, for the best `i`.
fn partitions(points: &[Point], most: usize, least: usize, rules: &Rules) -> Vec<Option<Vec<f64>>> {
    let segments = segments(points, least, rules);
    // For each number of runs: the least cost, and where the last class begins.
    let mut layers: Vec<Vec<Option<(u128, usize)>>> = Vec::with_capacity(most);
    let mut before: Vec<Option<(u128, usize)>> = vec![None; points.len() + 1];
    if let Some(none) = before.first_mut() {
        *none = Some((0, 0));
    }
    for _ in 0..most {
        let layer: Vec<Option<(u128, usize)>> = segments
            .iter()
            .map(|ending| {
                let sums = ending.iter().filter_map(|(begin, cost)| {
                    let (sum, _) = before.get(*begin).copied().flatten()?;
                    Some((sum.saturating_add(*cost), *begin))
                });
                sums.min()
            })
            .collect();
        before.clone_from(&layer);
        layers.push(layer);
    }
    (1..=most)
        .map(|count| {
            let mut end = points.len();
            let mut edges: Vec<f64> = Vec::with_capacity(count);
            for layer in layers.iter().take(count).rev() {
                let (_, begin) = layer.get(end).copied().flatten()?;
                let last = begin.checked_sub(1).and_then(|last| points.get(last));
                edges.extend(last.map(|point| point.value));
                end = begin;
            }
            edges.reverse();
            Some(edges)
        })
        .collect()
}

/// For each number `end` of runs the classes of the runs `begin..end` that may be, with their cost.
fn segments(points: &[Point], least: usize, rules: &Rules) -> Vec<Vec<(usize, u128)>> {
    // Runs with one value belong into one class.
    let parts = |index: usize| {
        let before = index.checked_sub(1).and_then(|before| points.get(before));
        match (before, points.get(index)) {
            (Some(a), Some(b)) => a.value < b.value,
            _ => true,
        }
    };
    (0..=points.len())
        .map(|end| {
            if !parts(end) {
                return Vec::new();
            }
            let mut peak = Bytes::ZERO;
            let mut granted = Bytes::ZERO;
            let mut micros: u128 = 0;
            let mut classes = Vec::new();
            for (begin, point) in points.iter().enumerate().take(end).rev() {
                if point.peak > peak || micros == 0 {
                    peak = peak.max(point.peak);
                    granted = rules.buffer.above(peak);
                }
                micros = micros.saturating_add(point.micros);
                if end - begin >= least && parts(begin) {
                    let cost = u128::from(granted.get()).saturating_mul(micros);
                    classes.push((begin, cost));
                }
            }
            classes
        })
        .collect()
}

fn share(part: usize, all: usize) -> f64 {
    let count = |n: usize| u32::try_from(n).map_or(f64::MAX, f64::from);
    count(part) / count(all.max(1))
}

/// `part / all`, to four digits: the quotient of two sums beyond what a floating-point number holds exactly.
fn relative(part: u128, all: u128) -> f64 {
    let permyriad = part.saturating_mul(10_000) / all.max(1);
    u32::try_from(permyriad).map_or(f64::MAX, f64::from) / 10_000.0
}
