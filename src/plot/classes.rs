//! The input classes of one function, one over the other: are they apart?

use super::axis::{Axis, Quantity, bytes_label};
use super::curve::{Memory, extent, hull_points, runs};
use super::figure::{Colour, Figure, Form, Panel, Series};
use super::shapes::Shape;

/// Draws the picture (Spillner, WoSC 2020, figure 4); a shape is a class.
pub fn classes(title: &str, memory: Memory, classes: &[Shape]) -> Figure {
    let mut series = Vec::new();
    let mut peaks = Vec::new();
    for (index, class) in classes.iter().enumerate() {
        let (colour, stroke) = Colour::nth(index);
        let points = hull_points(&class.hull);
        let (_, peak) = extent(points.iter());
        let count = class.runs.len();
        peaks.push(format!("{} {}", class.name, bytes_label(peak)));
        // The hull of the class stands in the key for its runs.
        series.extend(runs("", colour, &class.runs));
        series.push(Series {
            name: format!(
                "{}, {count} run{}",
                class.name,
                if count == 1 { "" } else { "s" }
            ),
            colour,
            form: Form::Steps(stroke),
            points,
        });
    }
    let (end, most) = extent(series.iter().flat_map(|series| &series.points));
    Figure {
        title: title.to_owned(),
        note: format!(
            "{} by class with the hull of each; peaks: {}",
            memory.name(),
            peaks.join(", ")
        ),
        panels: vec![Panel {
            series,
            ..Panel::new(
                Axis::from_zero(Quantity::Time, end, 8),
                Axis::with_room(Quantity::Memory, most, 5),
            )
        }],
    }
}
