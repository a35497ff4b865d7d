//! Runs of one input class with their hull, the barrelled hull and the sizes of a provider.

use super::axis::{Axis, Quantity, bytes_label, time_label};
use super::curve::{Memory, area, extent, hull_points, percent, points, runs};
use super::figure::{Colour, Figure, Form, Panel, Series, Stroke};
use crate::model::profile::Hull;
use crate::model::trace::Step;

/// What is drawn.
#[derive(Debug, Clone)]
pub struct HullPicture<'a> {
    /// What the runs have in common.
    pub title: &'a str,
    /// Which memory it is.
    pub memory: Memory,
    /// Each run.
    pub runs: &'a [Vec<Step>],
    /// Their hull.
    pub hull: &'a Hull,
    /// The barrelled hull.
    pub barrelled: &'a Hull,
    /// The hull in the sizes of a provider.
    pub provider: Option<ProviderSteps<'a>>,
}

/// What a provider offers.
#[derive(Debug, Clone, Copy)]
pub struct ProviderSteps<'a> {
    /// The provider.
    pub name: &'a str,
    /// The smallest size that holds the hull, over the time that is billed.
    pub sizes: &'a [Step],
}

/// Draws the picture (Spillner, WoSC 2020, figure 2).
pub fn hull(picture: &HullPicture<'_>) -> Figure {
    let hull = hull_points(picture.hull);
    let barrelled = hull_points(picture.barrelled);
    let mut series = runs("runs", Colour::Grey, picture.runs);
    let mut line = |name: String, colour, stroke, points| {
        series.push(Series {
            name,
            colour,
            form: Form::Steps(stroke),
            points,
        });
    };
    let (_, peak) = extent(hull.iter());
    let count = picture.runs.len();
    let mut note = format!(
        "{}, {count} run{}, peak {}",
        picture.memory.name(),
        if count == 1 { "" } else { "s" },
        bytes_label(peak),
    );
    if let Some(provider) = picture.provider {
        let sizes = points(provider.sizes);
        let (end, size) = extent(sizes.iter());
        note += &format!(
            "; the barrelled hull is {} below {} for {} of {}",
            percent(size * end - area(&barrelled), size * end),
            bytes_label(size),
            time_label(end),
            provider.name,
        );
        line(
            format!("sizes of {}", provider.name),
            Colour::Green,
            Stroke::Dashed,
            sizes,
        );
    } else {
        let (end, _) = extent(barrelled.iter());
        let below = percent(peak * end - area(&barrelled), peak * end);
        note += &format!("; the barrelled hull is {below} below the peak on average");
    }
    line(
        "barrelled hull".to_owned(),
        Colour::Orange,
        Stroke::Solid,
        barrelled,
    );
    // On top: where the two are one, nothing is added to the hull.
    line("hull".to_owned(), Colour::Blue, Stroke::Solid, hull);
    let (end, most) = extent(series.iter().flat_map(|series| &series.points));
    Figure {
        title: picture.title.to_owned(),
        note,
        panels: vec![Panel {
            series,
            ..Panel::new(
                Axis::from_zero(Quantity::Time, end, 8),
                Axis::with_room(Quantity::Memory, most, 5),
            )
        }],
    }
}
