//! Several functions side by side: who gains from memory that follows the hull?

use super::axis::{Axis, Quantity, bytes_label};
use super::curve::{Memory, area, extent, hull_points, percent, runs};
use super::figure::{Colour, Figure, Form, Panel, Series, Shade};
use crate::model::profile::Hull;
use crate::model::trace::Step;

/// One function.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Its name.
    pub name: String,
    /// Its runs.
    pub runs: Vec<Vec<Step>>,
    /// Their hull.
    pub hull: Hull,
}

/// Draws the picture (Spillner, WoSC 2020, figure 3).
pub fn shapes(memory: Memory, shapes: &[Shape]) -> Figure {
    let panels = shapes.iter().map(|shape| {
        let points = hull_points(&shape.hull);
        let (end, peak) = extent(points.iter());
        let mut series = vec![Series {
            name: "hull".to_owned(),
            colour: Colour::Blue,
            form: Form::Area(Shade::Half, Vec::new()),
            points: points.clone(),
        }];
        series.extend(runs("runs", Colour::Blue, &shape.runs));
        Panel {
            title: shape.name.clone(),
            note: format!(
                "peak {}, mean {}",
                bytes_label(peak),
                percent(area(&points), peak * end),
            ),
            series,
            ..Panel::new(
                Axis::from_zero(Quantity::Time, end, 4),
                Axis::with_room(Quantity::Memory, peak, 4),
            )
        }
    });
    Figure {
        title: format!("Shapes of {} functions: {}", shapes.len(), memory.name()),
        note: String::new(),
        panels: panels.collect(),
    }
}
