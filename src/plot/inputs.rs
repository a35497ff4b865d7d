//! A feature of the input against the peak of memory, with the bins of the input classes.

use std::collections::BTreeSet;

use super::axis::{Axis, Quantity, bytes_label};
use super::curve::{Memory, float, percent};
use super::figure::{Colour, Figure, Form, Mark, Panel, Point, Series, Stroke};
use crate::model::Bytes;

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// The class that it was given, if any.
    pub class: Option<String>,
    /// Value of the feature, finite.
    pub value: f64,
    /// Its peak.
    pub peak: Bytes,
}

/// One bin of inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// Its upper edge; a value on it belongs to the bin. None for the last bin.
    pub edge: Option<f64>,
    /// The memory for runs in it.
    pub bound: Bytes,
}

/// Values further apart than this are drawn by their logarithm.
const WIDE: f64 = 30.0;

/// From zero, or by logarithm if the values are far apart.
fn axis(quantity: Quantity, values: impl Iterator<Item = f64> + Clone, ticks: usize) -> Axis {
    let most = values.clone().fold(0.0, f64::max);
    let least = values.fold(f64::INFINITY, f64::min);
    if least > 0.0 && most / least > WIDE {
        Axis::log(quantity, least, most, ticks)
    } else {
        Axis::with_room(quantity, most, ticks)
    }
}

/// Draws the picture (Spillner, WoSC 2020, figure 5). `bins` rise and hold at least one.
pub fn inputs(title: &str, feature: &str, memory: Memory, runs: &[Input], bins: &[Bin]) -> Figure {
    let is_memory = feature.ends_with("bytes");
    let quantity = if is_memory {
        Quantity::Memory
    } else {
        Quantity::Number
    };
    let x = axis(quantity, runs.iter().map(|run| run.value), 8).named(feature);
    let bounds = bins.iter().map(|bin| float(bin.bound));
    let peaks = runs.iter().map(|run| float(run.peak));
    let y = axis(
        Quantity::Memory,
        peaks.chain(bounds).collect::<Vec<_>>().into_iter(),
        6,
    );

    let mut series = Vec::new();
    let classes: BTreeSet<Option<&str>> = runs.iter().map(|run| run.class.as_deref()).collect();
    // Orange is the bound.
    let colours = [
        Colour::Blue,
        Colour::Green,
        Colour::Purple,
        Colour::Pink,
        Colour::Ochre,
    ];
    for (class, colour) in classes.iter().zip(colours.into_iter().cycle()) {
        let of_class = runs.iter().filter(|run| run.class.as_deref() == *class);
        let points = of_class.map(|run| Point::new(run.value, float(run.peak)));
        series.push(Series {
            name: class.unwrap_or("runs").to_owned(),
            colour,
            form: Form::Dots,
            points: points.collect(),
        });
    }
    let mut at = x.first();
    let mut bound = Vec::new();
    for bin in bins {
        bound.push(Point::new(at, float(bin.bound)));
        at = bin.edge.unwrap_or(x.last());
        bound.push(Point::new(at, float(bin.bound)));
    }
    series.push(Series {
        name: "memory of the bin".to_owned(),
        colour: Colour::Orange,
        form: Form::Steps(Stroke::Solid),
        points: bound,
    });
    let edge_label = |edge: f64| {
        if is_memory {
            bytes_label(edge)
        } else {
            format!("{edge:.0}")
        }
    };
    let edges = bins.iter().filter_map(|bin| bin.edge);
    let marks = edges.map(|x| Mark {
        x,
        name: edge_label(x),
    });
    // Each run under the bound of its bin, against all of them under the largest.
    let largest = bins.iter().map(|bin| float(bin.bound)).fold(0.0, f64::max);
    let given = runs.iter().map(|run| {
        let bin = bins
            .iter()
            .find(|bin| bin.edge.is_none_or(|edge| run.value <= edge));
        bin.map_or(largest, |bin| float(bin.bound))
    });
    let given: f64 = given.sum();
    let all = largest * num_traits::ToPrimitive::to_f64(&runs.len()).unwrap_or_default();
    Figure {
        title: title.to_owned(),
        note: format!(
            "peak of {} by {feature}, {} runs in {} bins: {} less memory than one bin for all",
            memory.name(),
            runs.len(),
            bins.len(),
            percent(all - given, all),
        ),
        panels: vec![Panel {
            marks: marks.collect(),
            series,
            ..Panel::new(x, y)
        }],
    }
}
