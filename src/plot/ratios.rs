//! What a function needs and how long it takes at each local ratio.

use std::time::Duration;

use super::axis::{Axis, Quantity};
use super::curve::float;
use super::figure::{Colour, Figure, Form, Mark, Panel, Point, Series, Stroke};
use crate::model::Bytes;

/// One local ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatioPoint {
    /// From 0, all remote, to 1, all local.
    pub ratio: f64,
    /// Mean latency.
    pub mean: Duration,
    /// The bound of the quantile, if there are runs enough.
    pub bound: Option<Duration>,
    /// Local memory of an instance.
    pub local: Bytes,
    /// Whether no other one is better in both.
    pub is_best: bool,
}

/// Draws latency over the local ratio, and beside it over local memory with the points that no other one beats
/// (Tzenetopoulos et al., HCDS 2025). `slo` and `chosen` are marked.
pub fn ratios(
    title: &str,
    note: String,
    points: &[RatioPoint],
    slo: Option<Duration>,
    chosen: Option<f64>,
) -> Figure {
    let latencies = points
        .iter()
        .flat_map(|point| [Some(point.mean), point.bound]);
    let most = latencies.flatten().chain(slo).max().unwrap_or_default();
    let latency = || Axis::with_room(Quantity::Time, most.as_secs_f64(), 5);
    let dots = |name: &str, colour, of: &dyn Fn(&RatioPoint) -> Option<Point>| Series {
        name: name.to_owned(),
        colour,
        form: Form::Dots,
        points: points.iter().filter_map(of).collect(),
    };
    let line = |last: f64| {
        slo.map(|slo| Series {
            name: "latency bound".to_owned(),
            colour: Colour::Orange,
            form: Form::Steps(Stroke::Dashed),
            points: vec![
                Point::new(0.0, slo.as_secs_f64()),
                Point::new(last, slo.as_secs_f64()),
            ],
        })
    };
    let bound = |point: &RatioPoint| point.bound.map(|bound| bound.as_secs_f64());
    let largest = points.iter().map(|point| float(point.local));
    let memory = Axis::with_room(Quantity::Memory, largest.fold(0.0, f64::max), 5);
    let last = memory.last();
    let is_chosen = |point: &&RatioPoint| chosen == Some(point.ratio);
    let at = points.iter().find(is_chosen);
    let mark = |x| Mark {
        x,
        name: "chosen".to_owned(),
    };
    let by_ratio = Panel {
        title: "latency by local ratio".to_owned(),
        marks: at.map(|point| mark(point.ratio)).into_iter().collect(),
        series: [
            Some(dots("mean", Colour::Grey, &|point| {
                Some(Point::new(point.ratio, point.mean.as_secs_f64()))
            })),
            Some(dots("quantile, at most", Colour::Blue, &|point| {
                Some(Point::new(point.ratio, bound(point)?))
            })),
            line(1.0),
        ]
        .into_iter()
        .flatten()
        .collect(),
        ..Panel::new(
            Axis::from_zero(Quantity::Number, 1.0, 5).named("local ratio"),
            latency(),
        )
    };
    let by_memory = Panel {
        title: "latency by local memory".to_owned(),
        marks: at
            .map(|point| mark(float(point.local)))
            .into_iter()
            .collect(),
        series: [
            Some(dots("quantile, at most", Colour::Blue, &|point| {
                let is_other = !point.is_best;
                is_other.then_some(Point::new(float(point.local), bound(point)?))
            })),
            Some(dots(
                "no other is better in both",
                Colour::Green,
                &|point| {
                    let is_best = point.is_best;
                    is_best.then_some(Point::new(float(point.local), bound(point)?))
                },
            )),
            line(last),
        ]
        .into_iter()
        .flatten()
        .collect(),
        ..Panel::new(memory.named("local memory of an instance"), latency())
    };
    Figure {
        title: title.to_owned(),
        note,
        panels: vec![by_ratio, by_memory],
    }
}
