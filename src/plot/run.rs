//! One run with the memory that it was granted, and what of that was wasted.

use super::axis::{Axis, Quantity, bytes_label};
use super::curve::{Memory, NothingMeasured, area, extent, float, percent, points};
use super::figure::{Colour, Figure, Form, Panel, Point, Series, Shade, Span, Stroke};
use crate::model::trace::{Sample, Trace};
use crate::model::{Bytes, MemoryLimit};

/// Draws the picture (Spillner, WoSC 2020, figure 7).
///
/// # Errors
/// [`NothingMeasured`] of a trace without a value of usage.
pub fn run(title: &str, trace: &Trace) -> Result<Figure, NothingMeasured> {
    let usage = points(&Memory::Usage.steps(trace)?);
    let held = Memory::Held.steps(trace).map(|steps| points(&steps)).ok();
    let grants = grants(trace);
    let (end, peak) = extent(usage.iter());
    let mut most = peak;

    let mut series = Vec::new();
    let mut waste = 0.0;
    let mut granted = 0.0;
    for Grant { limit, used } in &grants {
        granted += area(limit);
        waste += area(limit) - area(used);
        most = most.max(extent(limit.iter()).1);
        series.push(Series {
            name: "granted, not used".to_owned(),
            colour: Colour::Orange,
            form: Form::Area(Shade::Tint, used.clone()),
            points: limit.clone(),
        });
    }
    let rest = if held.is_some() {
        "file cache"
    } else {
        "memory in use"
    };
    series.push(Series {
        name: rest.to_owned(),
        colour: Colour::Blue,
        form: Form::Area(Shade::Half, Vec::new()),
        points: usage.clone(),
    });
    if let Some(points) = held {
        series.push(Series {
            name: "held memory".to_owned(),
            colour: Colour::Blue,
            form: Form::Area(Shade::Full, Vec::new()),
            points,
        });
    }
    let ceiling = trace
        .context
        .as_ref()
        .and_then(|context| context.ceiling)
        .map(float);
    if let Some(ceiling) = ceiling {
        most = most.max(ceiling);
        series.push(Series {
            name: "ceiling".to_owned(),
            colour: Colour::Orange,
            form: Form::Steps(Stroke::Dashed),
            points: vec![Point::new(0.0, ceiling), Point::new(end, ceiling)],
        });
    }
    for grant in grants {
        series.push(Series {
            name: "grant".to_owned(),
            colour: Colour::Green,
            form: Form::Steps(Stroke::Solid),
            points: grant.limit,
        });
    }
    let met = met(trace);
    if !met.is_empty() {
        series.push(Series {
            name: "limit met".to_owned(),
            colour: Colour::Pink,
            form: Form::Dots,
            points: met,
        });
    }
    let mean = bytes_label(area(&usage) / end);
    let mut note = format!("peak {}, mean {mean}", bytes_label(peak));
    if granted > 0.0 {
        note += &format!("; {} of the grant not used", percent(waste, granted));
        if let Some(ceiling) = ceiling.filter(|ceiling| *ceiling > 0.0) {
            let below = percent((ceiling * end - granted).max(0.0), ceiling * end);
            note += &format!("; the grant is {below} below the ceiling");
        }
    }
    match trace.times_met() {
        None | Some(0) => {}
        Some(1) => note += "; the limit was met once",
        Some(times) => note += &format!("; the limit was met {times} times"),
    }
    let figure = Figure {
        title: title.to_owned(),
        note,
        panels: vec![Panel {
            spans: phases(trace),
            series,
            ..Panel::new(
                Axis::from_zero(Quantity::Time, end, 8),
                Axis::with_room(Quantity::Memory, most, 5),
            )
        }],
    };
    Ok(figure)
}

/// A time in which memory was limited.
#[derive(Debug, Default)]
struct Grant {
    /// The limit.
    limit: Vec<Point>,
    /// Usage, never more than the limit: the two are not read at the same instant.
    used: Vec<Point>,
}

/// The lower one of limit and high over time, with a gap where neither limits anything.
fn grants(trace: &Trace) -> Vec<Grant> {
    let mut out: Vec<Grant> = Vec::new();
    let start = trace
        .samples
        .first()
        .map_or_else(Default::default, |sample| sample.at);
    let (mut limit, mut high) = (None, None);
    // As in `Trace::steps`, the first value that is read holds before it too.
    let mut usage = trace
        .samples
        .iter()
        .find_map(|sample| sample.usage)
        .map_or(0.0, float);
    let mut is_open = false;
    for sample in &trace.samples {
        // An empty cell leaves the value before in force.
        limit = sample.limit.or(limit);
        high = sample.high.or(high);
        usage = sample.usage.map_or(usage, float);
        let at = sample.at.saturating_sub(start).as_secs_f64();
        let lowest = [limit, high]
            .into_iter()
            .flatten()
            .filter_map(bytes)
            .min()
            .map(float);
        if !is_open && lowest.is_some() {
            out.push(Grant::default());
        }
        if let Some(grant) = out.last_mut().filter(|_| is_open || lowest.is_some()) {
            let before = grant.limit.last().map_or(0.0, |point| point.y);
            let now = lowest.unwrap_or(before);
            grant.limit.push(Point::new(at, now));
            grant.used.push(Point::new(at, usage.min(now)));
        }
        is_open = lowest.is_some();
    }
    // A grant of no duration has no area.
    out.retain(|grant| grant.limit.len() > 1);
    out
}

/// Where the limit was met since the sample before: its height until then.
fn met(trace: &Trace) -> Vec<Point> {
    let start = trace
        .samples
        .first()
        .map_or_else(Default::default, |sample| sample.at);
    let (mut limit, mut high) = (None, None);
    let mut count: Option<u64> = None;
    let mut out = Vec::new();
    for sample in &trace.samples {
        let has_risen = match (count, sample.ev_high) {
            (Some(before), Some(now)) => now > before,
            _ => false,
        };
        let lowest = [limit, high].into_iter().flatten().filter_map(bytes).min();
        if let Some(lowest) = lowest.filter(|_| has_risen) {
            let at = sample.at.saturating_sub(start).as_secs_f64();
            out.push(Point::new(at, float(lowest)));
        }
        count = sample.ev_high.or(count);
        limit = sample.limit.or(limit);
        high = sample.high.or(high);
    }
    out
}

fn bytes(limit: MemoryLimit) -> Option<Bytes> {
    match limit {
        MemoryLimit::None => None,
        MemoryLimit::Bytes(bytes) => u64::try_from(bytes).ok().map(Bytes::new),
    }
}

/// The phases one after the other; an empty cell leaves the phase before in force.
fn phases(trace: &Trace) -> Vec<Span> {
    let mut out: Vec<Span> = Vec::new();
    let start = trace
        .samples
        .first()
        .map_or_else(Default::default, |sample| sample.at);
    let seconds = |sample: &Sample| sample.at.saturating_sub(start).as_secs_f64();
    for sample in &trace.samples {
        let at = seconds(sample);
        if let Some(last) = out.last_mut() {
            last.to = at;
        }
        let Some(name) = sample.phase.map(|phase| phase.as_str()) else {
            continue;
        };
        if out.last().is_none_or(|last| last.name != name) {
            out.push(Span {
                from: at,
                to: at,
                name: name.to_owned(),
            });
        }
    }
    out
}
