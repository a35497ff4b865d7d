//! What is drawn: panels with axes and series, before anybody decides on pixels or characters.

use super::axis::Axis;

/// A place in the units of the axes: seconds, bytes or plain numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
}

impl Point {
    pub(super) fn new(x: f64, y: f64) -> Self {
        Self { x, y }
    }
}

/// A picture.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figure {
    /// What it shows.
    pub(super) title: String,
    /// Its figures in words.
    pub(super) note: String,
    /// One, or several side by side.
    pub(super) panels: Vec<Panel>,
}

/// A pair of axes with what is drawn between them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Panel {
    /// Empty if it is the only one.
    pub(super) title: String,
    /// Its figures in words; may be empty.
    pub(super) note: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// Parts of the x axis that have a name.
    pub(super) spans: Vec<Span>,
    /// Places on the x axis that have a name.
    pub(super) marks: Vec<Mark>,
    /// Later ones cover earlier ones.
    pub(super) series: Vec<Series>,
}

/// A part of the x axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) name: String,
}

/// A place on the x axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mark {
    pub(super) x: f64,
    pub(super) name: String,
}

/// Values that belong together. Series of one name have one entry in the key; without a name they have none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) colour: Colour,
    pub(super) form: Form,
    pub(super) points: Vec<Point>,
}

/// How values are drawn.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Form {
    /// Each value holds until the next one.
    Steps(Stroke),
    /// The area below such steps, down to those of other points or, without them, to the bottom.
    Area(Shade, Vec<Point>),
    /// A dot for each value.
    Dots,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stroke {
    /// One of many, behind the others.
    Faint,
    /// The usual one.
    Solid,
    Dashed,
    Dotted,
}

/// How an area is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shade {
    /// What is there.
    Full,
    /// The less important part of what is there.
    Half,
    /// What is not there: waste.
    Tint,
}

/// A colour by its name; each form of a picture has its own value for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Blue,
    Orange,
    Green,
    Purple,
    Pink,
    Ochre,
    /// Between text and paper.
    Grey,
}

impl Colour {
    pub(super) const ALL: [Self; 7] = [
        Self::Blue,
        Self::Orange,
        Self::Green,
        Self::Purple,
        Self::Pink,
        Self::Ochre,
        Self::Grey,
    ];

    /// The colour and the stroke of one of several series that are told apart by nothing else.
    pub(super) fn nth(index: usize) -> (Self, Stroke) {
        let several = Self::ALL.len() - 1;
        let colour = Self::ALL.get(index % several).copied();
        let stroke = match index / several {
            0 => Stroke::Solid,
            1 => Stroke::Dashed,
            _ => Stroke::Dotted,
        };
        (colour.unwrap_or(Self::Grey), stroke)
    }
}

impl Panel {
    pub(super) fn new(x: Axis, y: Axis) -> Self {
        Self {
            title: String::new(),
            note: String::new(),
            x,
            y,
            spans: Vec::new(),
            marks: Vec::new(),
            series: Vec::new(),
        }
    }
}

impl Figure {
    /// Gives it another title.
    pub fn retitle(&mut self, title: &str) {
        title.clone_into(&mut self.title);
    }

    /// The series with an entry in the key, each name once.
    pub(super) fn key(&self) -> Vec<&Series> {
        let mut out: Vec<&Series> = Vec::new();
        for series in self.panels.iter().flat_map(|panel| &panel.series) {
            if !series.name.is_empty() && out.iter().all(|other| other.name != series.name) {
                out.push(series);
            }
        }
        out
    }
}
