//! From samples and bins to points.

use num_traits::ToPrimitive;

use super::figure::{Colour, Form, Point, Series, Stroke};
use crate::model::Bytes;
use crate::model::profile::Hull;
use crate::model::trace::{Sample, Step, Trace};

/// Which memory is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Memory {
    /// Anonymous, shared and kernel memory: what cannot be dropped.
    Held,
    /// Page cache without shared memory.
    File,
    /// All memory that is charged.
    Usage,
}

/// A trace has no value of that memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no sample has a value in column {0}")]
pub struct NothingMeasured(&'static str);

impl Memory {
    /// Its value in a sample.
    fn of(self, sample: &Sample) -> Option<Bytes> {
        match self {
            Self::Held => {
                let rest = [sample.shmem, sample.kernel].into_iter().flatten();
                let sum = rest.fold(sample.anon?.get(), |sum, part| {
                    sum.saturating_add(part.get())
                });
                Some(Bytes::new(sum))
            }
            Self::File => {
                let shared = sample.shmem.unwrap_or_default();
                Some(sample.file?.saturating_sub(shared))
            }
            Self::Usage => sample.usage,
        }
    }

    /// The column without which there is no value.
    fn column(self) -> &'static str {
        match self {
            Self::Held => "anon",
            Self::File => "file",
            Self::Usage => "usage",
        }
    }

    /// It in words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Held => "held memory",
            Self::File => "file cache",
            Self::Usage => "memory in use",
        }
    }

    /// It over the time of a trace.
    ///
    /// # Errors
    /// [`NothingMeasured`].
    pub fn steps(self, trace: &Trace) -> Result<Vec<Step>, NothingMeasured> {
        trace
            .steps(|sample| self.of(sample))
            .filter(|steps| !steps.is_empty())
            .ok_or(NothingMeasured(self.column()))
    }
}

pub(super) fn float(bytes: Bytes) -> f64 {
    bytes.get().to_f64().unwrap_or_default()
}

/// The corners of steps.
pub(super) fn points(steps: &[Step]) -> Vec<Point> {
    let mut out: Vec<Point> = steps
        .iter()
        .map(|step| Point::new(step.from.as_secs_f64(), float(step.value)))
        .collect();
    out.extend(
        steps
            .last()
            .map(|last| Point::new(last.to.as_secs_f64(), float(last.value))),
    );
    out
}

/// The corners of a hull.
pub(super) fn hull_points(hull: &Hull) -> Vec<Point> {
    let width = hull.width.as_duration().as_secs_f64();
    let mut out: Vec<Point> = hull
        .bins
        .iter()
        .zip(0_u32..)
        .map(|(value, index)| Point::new(f64::from(index) * width, float(*value)))
        .collect();
    out.extend(
        hull.bins
            .last()
            .map(|last| Point::new(hull.end().as_secs_f64(), float(*last))),
    );
    out
}

/// The area below steps.
pub(super) fn area(points: &[Point]) -> f64 {
    let pairs = points.windows(2).filter_map(|pair| match pair {
        [a, b] => Some((b.x - a.x) * a.y),
        _ => None,
    });
    pairs.sum()
}

/// The largest value and the end of several series.
pub(super) fn extent<'a>(points: impl Iterator<Item = &'a Point>) -> (f64, f64) {
    points.fold((0.0, 0.0), |(x, y), point| (point.x.max(x), point.y.max(y)))
}

/// Runs that are drawn as lines; more of them would be a grey area.
const MOST_RUNS: usize = 60;

/// Runs as thin lines under one name: all of them, or some that are evenly spread over a longer list.
pub(super) fn runs(name: &str, colour: Colour, runs: &[Vec<Step>]) -> Vec<Series> {
    let stride = runs.len().div_ceil(MOST_RUNS).max(1);
    let drawn = runs.len().div_ceil(stride);
    let name = if drawn < runs.len() {
        format!("{name} ({drawn} of {} drawn)", runs.len())
    } else {
        name.to_owned()
    };
    runs.iter()
        .step_by(stride)
        .map(|run| Series {
            name: name.clone(),
            colour,
            form: Form::Steps(Stroke::Faint),
            points: points(run),
        })
        .collect()
}

/// A share in whole percent.
pub(super) fn percent(part: f64, whole: f64) -> String {
    if whole > 0.0 {
        format!("{:.0} %", part / whole * 100.0)
    } else {
        "0 %".to_owned()
    }
}
