//! A figure as shapes and texts in pixels: where everything stands.

use std::collections::BTreeSet;

use num_traits::ToPrimitive;

use super::figure::{Colour, Figure, Form, Panel, Point, Series, Shade, Stroke};
use super::thin::thin;

/// A picture, before anybody decides on SVG or pixels.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) width: f64,
    pub(super) height: f64,
    /// Later ones cover earlier ones.
    pub(super) items: Vec<Item>,
}

#[derive(Debug)]
pub(super) enum Item {
    /// A shape of one or several parts.
    Shape(Paint, Vec<Part>),
    Text(Text),
}

/// How a shape is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Line(Colour, Stroke),
    Area(Colour, Shade),
    /// A dot at the begin of each part.
    Dots(Colour),
    /// The band behind a part of the x axis.
    Band,
    Grid,
    Axis,
    /// The line at a place on the x axis.
    Mark,
}

/// A begin with lines from one point to the next.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub(super) points: Vec<Point>,
}

/// A text.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) kind: TextKind,
    pub(super) at: Point,
    pub(super) anchor: Anchor,
    pub(super) text: String,
}

/// How a text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextKind {
    /// Of the picture.
    Title,
    /// Of a panel.
    Name,
    Ink,
    Dim,
}

/// Which point of a text is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Width of a picture.
const WIDTH: f64 = 900.0;
/// Where text begins, and the distance from the right edge.
const LEFT: f64 = 24.0;
const RIGHT: f64 = 30.0;
/// Height of the axes of a single panel, and of one of several.
const TALL: f64 = 310.0;
const SMALL: f64 = 170.0;
/// Below the axes: ticks and their labels.
const FOOT: f64 = 30.0;
/// A row of text.
const ROW: f64 = 20.0;
/// A character of the usual text; fonts differ, this is a wide one.
const CHARACTER: f64 = 7.6;
/// The sample of a line or an area in the key.
const SAMPLE: f64 = 18.0;
/// Points of all series together, which bounds the size of a file to half a megabyte.
const MOST_POINTS: usize = 40_000;

/// The area between the axes of a panel.
#[derive(Debug, Clone, Copy)]
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// Where the panels stand.
struct Grid {
    frames: Vec<Frame>,
    height: f64,
}

impl Grid {
    fn of(figure: &Figure, head: f64, right: f64) -> Self {
        let columns: usize = match figure.panels.len() {
            0 | 1 => 1,
            2..=4 => 2,
            _ => 3,
        };
        let inner = if figure.panels.len() > 1 { SMALL } else { TALL };
        let count = columns.to_f64().unwrap_or(1.0);
        let column = (right - LEFT / 2.0) / count;
        let mut frames = Vec::new();
        let mut top = head;
        for row in figure.panels.chunks(columns) {
            let title = row.iter().map(above).fold(0.0, f64::max);
            let foot = row.iter().map(below).fold(0.0, f64::max);
            for (index, panel) in row.iter().enumerate() {
                let edge = LEFT / 2.0 + column * index.to_f64().unwrap_or_default();
                let labels = panel.y.ticks.iter().map(|tick| width(&tick.label));
                frames.push(Frame {
                    left: edge + labels.fold(20.0, f64::max) + 14.0,
                    right: edge + column - RIGHT,
                    top: top + title,
                    bottom: top + title + inner,
                });
            }
            top += title + inner + foot;
        }
        Self {
            frames,
            height: top + 8.0,
        }
    }
}

/// The room above the axes of a panel.
fn above(panel: &Panel) -> f64 {
    let mut room = 6.0;
    if !panel.title.is_empty() {
        room += ROW + 8.0;
    }
    if !panel.note.is_empty() {
        room += 17.0;
    }
    if !panel.spans.is_empty() || !panel.marks.is_empty() {
        room += 18.0;
    }
    room
}

/// The room below them.
fn below(panel: &Panel) -> f64 {
    FOOT + if panel.x.name.is_empty() { 0.0 } else { ROW }
}

/// The entries of the key in rows, each with where it begins.
fn key_rows<'a>(key: &[&'a Series]) -> Vec<Vec<(&'a Series, f64)>> {
    let mut rows: Vec<Vec<(&Series, f64)>> = Vec::new();
    let mut x = WIDTH;
    for series in key {
        let needed = SAMPLE + 8.0 + width(&series.name);
        if x + needed > WIDTH - RIGHT {
            rows.push(Vec::new());
            x = LEFT;
        }
        if let Some(row) = rows.last_mut() {
            row.push((series, x));
        }
        x += needed + 20.0;
    }
    rows
}

impl Scene {
    pub(super) fn of(figure: &Figure) -> Self {
        let key = figure.key();
        let notes = f64::from(u8::from(!figure.note.is_empty())) * 22.0;
        let mut head = 40.0 + notes;
        // The key stands in rows under the title, so that it never covers a curve; a long one at the side.
        let rows = key_rows(&key);
        let at_side = figure.panels.len() == 1 && rows.len() > 2;
        let side = if at_side {
            let widths = key.iter().map(|series| width(&series.name));
            widths.fold(0.0, f64::max) + SAMPLE + 26.0
        } else {
            head += rows.len().to_f64().unwrap_or_default() * ROW;
            0.0
        };
        let grid = Grid::of(figure, head + 8.0, WIDTH - side);
        let key_height = key.len().to_f64().unwrap_or_default() * ROW;
        let mut scene = Self {
            width: WIDTH,
            height: if at_side {
                grid.height.max(head + key_height + FOOT)
            } else {
                grid.height
            },
            items: Vec::new(),
        };
        let room = WIDTH - LEFT - RIGHT;
        // The title has larger characters.
        let title = fitting(&figure.title, room * 13.0 / 18.0);
        scene.text(TextKind::Title, (LEFT, 30.0), Anchor::Start, title);
        if !figure.note.is_empty() {
            let note = fitting(&figure.note, room);
            scene.text(TextKind::Dim, (LEFT, 52.0), Anchor::Start, note);
        }
        if at_side {
            let mut y = head + 24.0;
            for series in key {
                scene.entry(series, WIDTH - side + 8.0, y);
                y += ROW;
            }
        } else {
            let mut y = 52.0 + notes;
            for row in rows {
                for (series, x) in row {
                    scene.entry(series, x, y);
                }
                y += ROW;
            }
        }
        let all: usize = figure.panels.iter().map(|panel| panel.series.len()).sum();
        for (panel, frame) in figure.panels.iter().zip(&grid.frames) {
            scene.panel(panel, *frame, MOST_POINTS / all.max(1));
        }
        scene
    }

    fn text(&mut self, kind: TextKind, at: (f64, f64), anchor: Anchor, text: impl Into<String>) {
        self.items.push(Item::Text(Text {
            kind,
            at: Point::new(at.0, at.1),
            anchor,
            text: text.into(),
        }));
    }

    fn shape(&mut self, paint: Paint, points: Vec<Point>) {
        self.items.push(Item::Shape(paint, vec![Part { points }]));
    }

    fn line(&mut self, paint: Paint, from: (f64, f64), to: (f64, f64)) {
        let ends = [from, to].map(|(x, y)| Point::new(x, y));
        self.shape(paint, ends.to_vec());
    }

    fn rectangle(&mut self, paint: Paint, from: (f64, f64), to: (f64, f64)) {
        let corners = [from, (to.0, from.1), to, (from.0, to.1)];
        self.shape(paint, corners.map(|(x, y)| Point::new(x, y)).to_vec());
    }

    /// An entry of the key.
    fn entry(&mut self, series: &Series, x: f64, y: f64) {
        let middle = y - 4.5;
        match &series.form {
            Form::Steps(stroke) => {
                // Alone, a faint line would not be seen.
                let stroke = match *stroke {
                    Stroke::Faint => Stroke::Solid,
                    other => other,
                };
                let paint = Paint::Line(series.colour, stroke);
                self.line(paint, (x, middle), (x + SAMPLE, middle));
            }
            Form::Area(shade, _) => {
                let paint = Paint::Area(series.colour, *shade);
                self.rectangle(paint, (x + 3.0, middle - 6.0), (x + 15.0, middle + 6.0));
            }
            Form::Dots => {
                let dot = Point::new(x + SAMPLE / 2.0, middle);
                self.shape(Paint::Dots(series.colour), vec![dot]);
            }
        }
        let at = (x + SAMPLE + 8.0, y);
        self.text(TextKind::Ink, at, Anchor::Start, &series.name);
    }

    fn panel(&mut self, panel: &Panel, frame: Frame, budget: usize) {
        let x = |value: f64| frame.left + (frame.right - frame.left) * panel.x.place(value);
        let y = |value: f64| frame.bottom - (frame.bottom - frame.top) * panel.y.place(value);
        let room = frame.right - frame.left;
        let mut head = frame.top - above(panel) + 20.0;
        if !panel.title.is_empty() {
            let title = fitting(&panel.title, room);
            self.text(TextKind::Name, (frame.left, head), Anchor::Start, title);
            head += 17.0;
        }
        if !panel.note.is_empty() {
            let note = fitting(&panel.note, room);
            self.text(TextKind::Dim, (frame.left, head), Anchor::Start, note);
        }
        for (index, span) in panel.spans.iter().enumerate() {
            let (from, to) = (x(span.from), x(span.to));
            if index % 2 == 0 {
                self.rectangle(Paint::Band, (from, frame.top), (to, frame.bottom));
            }
            if width(&span.name) + 4.0 <= to - from {
                let at = (f64::midpoint(from, to), frame.top - 7.0);
                self.text(TextKind::Dim, at, Anchor::Middle, &span.name);
            }
        }
        for tick in &panel.y.ticks {
            let at = y(tick.at);
            self.line(Paint::Grid, (frame.left, at), (frame.right, at));
            let at = (frame.left - 8.0, at + 4.5);
            self.text(TextKind::Dim, at, Anchor::End, &tick.label);
        }
        for tick in &panel.x.ticks {
            let at = x(tick.at);
            self.line(Paint::Axis, (at, frame.bottom), (at, frame.bottom + 5.0));
            let at = (at, frame.bottom + 20.0);
            self.text(TextKind::Dim, at, Anchor::Middle, &tick.label);
        }
        if !panel.x.name.is_empty() {
            let at = (frame.right, frame.bottom + 20.0 + ROW);
            self.text(TextKind::Dim, at, Anchor::End, &panel.x.name);
        }
        let place = |points: &[Point]| -> Vec<Point> {
            points.iter().map(|p| Point::new(x(p.x), y(p.y))).collect()
        };
        let thinned = |points: &[Point]| thin(&place(points), frame.left, room, budget);
        for series in panel
            .series
            .iter()
            .filter(|series| !series.points.is_empty())
        {
            match &series.form {
                Form::Steps(stroke) => {
                    let paint = Paint::Line(series.colour, *stroke);
                    self.shape(paint, corners(&thinned(&series.points)));
                }
                Form::Area(shade, base) => {
                    let mut outline = corners(&thinned(&series.points));
                    let back: Vec<Point> = if base.is_empty() {
                        let ends = outline.last().into_iter().chain(outline.first());
                        ends.map(|end| Point::new(end.x, frame.bottom)).collect()
                    } else {
                        corners(&thinned(base)).into_iter().rev().collect()
                    };
                    outline.extend(back);
                    self.shape(Paint::Area(series.colour, *shade), outline);
                }
                Form::Dots => {
                    let parts = dots(&place(&series.points));
                    self.items
                        .push(Item::Shape(Paint::Dots(series.colour), parts));
                }
            }
        }
        self.line(
            Paint::Axis,
            (frame.left, frame.bottom),
            (frame.right, frame.bottom),
        );
        // On top of the series, with a name that nothing covers.
        for mark in &panel.marks {
            let at = x(mark.x);
            self.line(Paint::Mark, (at, frame.top), (at, frame.bottom));
            let at = (at, frame.top - 7.0);
            self.text(TextKind::Dim, at, Anchor::Middle, &mark.name);
        }
    }
}

/// A tenth of a pixel is as fine as anybody sees.
fn rounded(point: &Point) -> Point {
    let tenth = |value: f64| (value * 10.0).round() / 10.0;
    Point::new(tenth(point.x), tenth(point.y))
}

/// The corners of values that hold until the next one.
fn corners(points: &[Point]) -> Vec<Point> {
    let mut out: Vec<Point> = Vec::new();
    let mut add = |point: Point| {
        // What lies between two points on a line is no corner.
        while let [.., a, b] = out.as_slice() {
            let level = a.y == b.y && b.y == point.y && (a.x..=point.x).contains(&b.x);
            let upright = a.x == b.x && b.x == point.x && (b.y - a.y) * (point.y - b.y) >= 0.0;
            if !level && !upright {
                break;
            }
            out.pop();
        }
        if out.last() != Some(&point) {
            out.push(point);
        }
    };
    let mut level = None;
    for point in points.iter().map(rounded) {
        add(Point::new(point.x, level.unwrap_or(point.y)));
        add(point);
        level = Some(point.y);
    }
    out
}

/// One part for each dot. Of those that lie within two pixels one is enough.
fn dots(points: &[Point]) -> Vec<Part> {
    let cell = |value: f64| (value / 2.0).round().to_i32();
    let mut seen = BTreeSet::new();
    let fresh = points
        .iter()
        .filter(|p| seen.insert((cell(p.x), cell(p.y))));
    fresh
        .map(|point| Part {
            points: vec![rounded(point)],
        })
        .collect()
}

/// About how wide a text is.
fn width(text: &str) -> f64 {
    text.chars().count().to_f64().unwrap_or_default() * CHARACTER
}

/// The text, or as much of it as has room.
fn fitting(text: &str, room: f64) -> String {
    let most = (room / CHARACTER).to_usize().unwrap_or_default();
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let short: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{short}…")
}
