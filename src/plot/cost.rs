//! What a function costs at each size of its memory.

use super::axis::{Axis, Quantity, bytes_label};
use super::curve::float;
use super::figure::{Colour, Figure, Form, Mark, Panel, Point, Series};
use crate::model::Bytes;

/// A provider.
#[derive(Debug, Clone)]
pub struct PriceLine {
    /// Its name.
    pub name: String,
    /// Sizes, rising, with what they cost.
    pub points: Vec<(Bytes, f64)>,
}

/// Draws the picture, from the smallest to the largest size of all lines. `used` is marked.
pub fn cost(note: String, used: Bytes, lines: &[PriceLine]) -> Figure {
    let last = |line: &PriceLine| line.points.last().map_or(0.0, |point| point.1);
    // In the order in which they end, so that the key stands beside them.
    let mut sorted: Vec<&PriceLine> = lines.iter().collect();
    sorted.sort_by(|a, b| last(b).total_cmp(&last(a)));
    let sizes = || {
        lines
            .iter()
            .flat_map(|line| &line.points)
            .map(|point| float(point.0))
    };
    let (least, most) = (
        sizes().fold(f64::INFINITY, f64::min),
        sizes().fold(0.0, f64::max),
    );
    let costs = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|point| point.1);
    let series = sorted.iter().enumerate().map(|(index, line)| {
        let (colour, stroke) = Colour::nth(index);
        // A size holds up to its own end: the line rises right behind it.
        let ahead = line.points.iter().skip(1).chain(line.points.last());
        let points = line.points.iter().zip(ahead);
        Series {
            name: line.name.clone(),
            colour,
            form: match line.points.as_slice() {
                [_] => Form::Dots,
                _ => Form::Steps(stroke),
            },
            points: points
                .map(|(size, next)| Point::new(float(size.0), next.1))
                .collect(),
        }
    });
    let is_inside = (least..=most).contains(&float(used));
    let mark = is_inside.then(|| Mark {
        x: float(used),
        name: format!("{} used", bytes_label(float(used))),
    });
    Figure {
        title: "Cost over memory size".to_owned(),
        note,
        panels: vec![Panel {
            marks: mark.into_iter().collect(),
            series: series.collect(),
            ..Panel::new(
                Axis::log(Quantity::Memory, least, most, 8),
                Axis::with_room(Quantity::Number, costs.fold(0.0, f64::max), 5),
            )
        }],
    }
}
