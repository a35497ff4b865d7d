//! How little local memory is enough: the choice of a local ratio from measured runs, under a bound of latency.
//!
//! Each ratio at which a function ran is a point of local memory against latency. Of those that no other point beats in
//! both, the one with the least local memory that keeps to the bound is taken (Tzenetopoulos et al., HCDS 2025). Two
//! things are counted that a single run does not show:
//!
//! - A slower function needs more instances for the same requests (Little's law), each with its own local memory:
//!   what is compared is local bytes times instances.
//! - A bound is to be kept by a share of all runs, and few have been seen: what counts is not the quantile of those but a
//!   bound of the true one (`bound`).
//!
//! Where too little is known, everything is local. A lower ratio is tried when what is known leaves room for the worst
//! that it may cost (`explore`).

mod bound;
mod explore;
mod runs;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

pub use bound::{fewest_runs, upper_bound};
pub use explore::explore;
pub use runs::{MOST, MOST_ALIKE, PlacedRuns};

use crate::model::Bytes;
use crate::model::placed::Measured;
use crate::model::placement::LocalRatio;

/// What is asked of a function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slo {
    /// No run of the share below takes longer.
    pub latency: Duration,
    /// The share of runs for which that holds, above 0 and below 1, such as 0.95.
    pub quantile: f64,
}

/// How careful a choice is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// With this probability the quantile of a ratio is not above its bound; above 0 and below 1.
    pub confidence: f64,
    /// Requests per second. Without, an instance is counted for as long as its run: as if there were always some.
    pub rate: Option<f64>,
    /// How much longer than with local memory alone a run takes with remote memory alone, at the worst, before that was
    /// measured.
    pub worst: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            confidence: 0.9,
            rate: None,
            // The most sensitive stage of the functions of the talk: 385 % of its latency with local memory.
            worst: 3.85,
        }
    }
}

/// What is known of one ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The ratio.
    pub ratio: LocalRatio,
    /// Runs that count.
    pub runs: usize,
    /// Those of them that took longer than the bound of latency.
    pub over: usize,
    /// Their mean latency.
    pub mean: Duration,
    /// The quantile of the latency is not above it; none of too few runs.
    pub bound: Option<Duration>,
    /// Mean local memory of an instance.
    pub local: Bytes,
    /// Instances at the same time: requests per second times seconds per request, at least one. Without a rate, the
    /// seconds.
    pub instances: f64,
}

impl Point {
    /// Local memory of all instances, in bytes; without a rate of requests byte-seconds per request.
    pub fn footprint(&self) -> f64 {
        // Below 2^53, so that nothing is lost.
        let local = self.local.get().min((1 << 53) - 1);
        let (high, low) = (local >> 32, local & 0xffff_ffff);
        let float = |part: u64| f64::from(u32::try_from(part).unwrap_or(u32::MAX));
        (float(high) * 4_294_967_296.0 + float(low)) * self.instances
    }
}

/// Why a ratio is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why {
    /// It needs the least local memory of those that keep to the bound.
    Least {
        /// Its share of the local memory that is needed when all is local; none where that is not known.
        of_local: Option<f64>,
    },
    /// No other one that keeps to the bound needs less local memory, all instances counted.
    LocalIsLeast,
    /// No ratio is known to keep to the bound; the best that is known.
    CannotBeMet {
        /// The least bound of any ratio.
        best: Duration,
    },
    /// No ratio has runs enough to say that it keeps to the bound.
    TooFewRuns {
        /// The most of any ratio.
        most: usize,
        /// As many are wanted.
        fewest: usize,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Least {
                of_local: Some(share),
            } => write!(
                f,
                "keeps to the latency bound with the least local memory over all instances, {:.0} % of what is needed with local memory alone",
                share * 100.0
            ),
            Self::Least { of_local: None } => f.write_str(
                "keeps to the latency bound with the least local memory over all instances",
            ),
            Self::LocalIsLeast => f.write_str(
                "no other ratio keeps to the latency bound with less local memory over all instances",
            ),
            Self::CannotBeMet { best } => write!(
                f,
                "no ratio is known to keep to the latency bound; the best one keeps to {best:.1?}"
            ),
            Self::TooFewRuns { most, fewest } => write!(
                f,
                "{most} runs at one ratio are too few to say that it keeps to the latency bound, it takes {fewest}"
            ),
        }
    }
}

/// A chosen ratio, with its reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The ratio.
    pub ratio: LocalRatio,
    /// Why this one.
    pub why: Why,
    /// What is known of each ratio, from remote to local.
    pub points: Vec<Point>,
}

/// What is known of each ratio of one function and one input class, in the same order: from remote to local.
pub fn points(measured: &[Measured], slo: &Slo, rules: &Rules) -> Vec<Point> {
    let mut points = Vec::with_capacity(measured.len());
    for one in measured {
        let latencies = &one.latencies;
        let count = u32::try_from(latencies.len()).unwrap_or(u32::MAX);
        let Some(mean) = latencies.iter().sum::<Duration>().checked_div(count) else {
            continue;
        };
        let instances = match rules.rate {
            Some(rate) => (rate * mean.as_secs_f64()).max(1.0),
            None => mean.as_secs_f64(),
        };
        points.push(Point {
            ratio: one.ratio,
            runs: latencies.len(),
            over: latencies.iter().filter(|l| **l > slo.latency).count(),
            mean,
            bound: upper_bound(latencies, slo.quantile, rules.confidence),
            local: one.local,
            instances,
        });
    }
    points
}

/// The points that no other one beats in both local memory and latency, from the least local memory to the least
/// latency. Those without a bound are not among them.
pub fn pareto_set(points: &[Point]) -> Vec<Point> {
    let mut sorted: Vec<(Point, Duration)> = points
        .iter()
        .filter_map(|point| Some((*point, point.bound?)))
        .collect();
    sorted.sort_by(|(a, bound_a), (b, bound_b)| {
        let by_footprint = a.footprint().total_cmp(&b.footprint());
        by_footprint.then(bound_a.cmp(bound_b))
    });
    let mut set: Vec<Point> = Vec::new();
    let mut least = Duration::MAX;
    for (point, bound) in sorted {
        if bound < least {
            least = bound;
            set.push(point);
        }
    }
    set
}

/// The ratio with the least local memory over all instances that is known to keep to the bound; local if none is.
pub fn choose(measured: &[Measured], slo: &Slo, rules: &Rules) -> Choice {
    let points = points(measured, slo, rules);
    let set = pareto_set(&points);
    let local = points.iter().find(|p| p.ratio == LocalRatio::LOCAL);
    let keeps = |point: &&Point| point.bound.is_some_and(|bound| bound <= slo.latency);
    let (ratio, why) = match set.iter().find(keeps) {
        Some(point) if point.ratio == LocalRatio::LOCAL => (point.ratio, Why::LocalIsLeast),
        Some(point) => match local {
            Some(local) if local.footprint() <= point.footprint() => {
                (LocalRatio::LOCAL, Why::LocalIsLeast)
            }
            _ => {
                let of_local = local.map(|local| point.footprint() / local.footprint());
                (point.ratio, Why::Least { of_local })
            }
        },
        None => {
            let best = set.last().and_then(|point| point.bound);
            let why = match best {
                Some(best) => Why::CannotBeMet { best },
                None => Why::TooFewRuns {
                    most: points.iter().map(|p| p.runs).max().unwrap_or(0),
                    fewest: fewest_runs(slo.quantile, rules.confidence),
                },
            };
            (LocalRatio::LOCAL, why)
        }
    };
    Choice { ratio, why, points }
}
