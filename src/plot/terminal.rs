//! A figure as text, for a quick look.

use std::fmt::Write;

use num_traits::ToPrimitive;

use super::axis::Tick;
use super::figure::{Colour, Figure, Form, Panel, Point, Series, Shade, Stroke};

/// What a terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Characters in a line.
    pub columns: usize,
    /// Whether it has colours. Without them each series has a character of its own.
    pub colour: bool,
    /// Whether it has more than ASCII.
    pub unicode: bool,
}

/// Lines of a panel.
const TALL: usize = 16;
const SMALL: usize = 8;
/// Characters of series that have no colour.
const SYMBOLS: [char; 8] = ['*', '+', 'o', 'x', '#', '%', '@', '='];

/// A dot of eight would hardly be seen.
const DOT: char = '●';

/// Draws a figure.
pub fn terminal(figure: &Figure, screen: Screen) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(out, "{}", cut(&figure.title, screen.columns));
    if !figure.note.is_empty() {
        let _ = writeln!(out, "{}", cut(&figure.note, screen.columns));
    }
    let key: Vec<&Series> = figure.key().into_iter().filter(|s| is_shown(s)).collect();
    let rows = if figure.panels.len() > 1 { SMALL } else { TALL };
    for panel in &figure.panels {
        out.push('\n');
        draw(&mut out, panel, &key, screen, rows);
    }
    out.push_str(&key_lines(&key, screen));
    out
}

/// What is not there is not drawn: lines show where it would be.
fn is_shown(series: &Series) -> bool {
    !matches!(series.form, Form::Area(Shade::Tint, _))
}

/// The entries of the key, as many in a line as have room.
fn key_lines(key: &[&Series], screen: Screen) -> String {
    let mut out = String::new();
    let mut used = screen.columns;
    for (index, series) in key.iter().enumerate() {
        let needed = series.name.chars().count() + 5;
        out.push_str(if used + needed > screen.columns {
            used = 0;
            "\n "
        } else {
            "  "
        });
        used += needed;
        let sample = match series.form {
            _ if !screen.is_fine() => symbol(index).to_string(),
            Form::Area(Shade::Full, _) => "⣿".to_owned(),
            Form::Area(..) => "⢕".to_owned(),
            Form::Dots => DOT.to_string(),
            Form::Steps(_) => "⠒⠒".to_owned(),
        };
        let sample = paint(&sample, Some(code(series)), screen.colour);
        let _ = write!(out, "{sample} {}", series.name);
    }
    out.push('\n');
    out
}

impl Screen {
    /// Whether a character can hold eight dots: colours tell the series apart.
    fn is_fine(self) -> bool {
        self.colour && self.unicode
    }
}

fn symbol(index: usize) -> char {
    SYMBOLS.get(index % SYMBOLS.len()).copied().unwrap_or('*')
}

/// The colour in the codes of terminals.
fn code(series: &Series) -> &'static str {
    let faint = series.form == Form::Steps(Stroke::Faint);
    match series.colour {
        Colour::Blue if faint => "2;36",
        Colour::Blue => "36",
        Colour::Orange => "33",
        Colour::Green => "32",
        Colour::Purple => "35",
        Colour::Pink => "31",
        Colour::Ochre => "93",
        Colour::Grey => "2",
    }
}

fn paint(text: &str, code: Option<&str>, colour: bool) -> String {
    match code.filter(|_| colour) {
        Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
        None => text.to_owned(),
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(most)
        .collect()
}

/// What a character shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cell {
    /// Dots of a Braille character, as Unicode numbers them.
    dots: u8,
    /// The character without Braille, or [`DOT`].
    symbol: Option<char>,
    code: Option<&'static str>,
}

/// Dots in lines and columns, several to a character.
struct Canvas {
    cells: Vec<Cell>,
    columns: usize,
    rows: usize,
    /// Dots of a character, to the right and down.
    fine: (usize, usize),
}

impl Canvas {
    fn dot(&mut self, x: usize, y: usize, symbol: char, code: &'static str) {
        /// Bits of the two columns of a Braille character, from the top.
        const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
        let (column, row) = (x / self.fine.0, y / self.fine.1);
        if column >= self.columns || row >= self.rows {
            return;
        }
        let bits = BITS
            .get(x % self.fine.0)
            .and_then(|bits| bits.get(y % self.fine.1));
        if let Some(cell) = self.cells.get_mut(row * self.columns + column) {
            cell.dots |= bits.copied().unwrap_or_default();
            // A line must not hide a dot.
            if cell.symbol != Some(DOT) {
                cell.symbol = Some(symbol);
                cell.code = Some(code);
            }
        }
    }

    /// Where a part of the axis from 0 to 1 lies.
    fn spot(part: f64, dots: usize) -> usize {
        let last = dots.saturating_sub(1);
        (part * last.to_f64().unwrap_or_default())
            .round()
            .to_usize()
            .unwrap_or_default()
            .min(last)
    }

    fn place(&self, panel: &Panel, point: &Point) -> (usize, usize) {
        (
            Self::spot(panel.x.place(point.x), self.columns * self.fine.0),
            Self::spot(1.0 - panel.y.place(point.y), self.rows * self.fine.1),
        )
    }

    fn series(&mut self, panel: &Panel, series: &Series, symbol: char) {
        let is_fine = self.fine.0 > 1;
        let code = code(series);
        let bottom = self.rows * self.fine.1;
        let mut before: Option<(usize, usize)> = None;
        for point in &series.points {
            let (x, y) = self.place(panel, point);
            match (&series.form, before) {
                (Form::Dots, _) | (_, None) => self.dot(x, y, symbol, code),
                (Form::Steps(_), Some((from, level))) => {
                    for column in from..=x {
                        self.dot(column, level, symbol, code);
                    }
                    for row in level.min(y)..=level.max(y) {
                        self.dot(x, row, symbol, code);
                    }
                }
                (Form::Area(shade, _), Some((from, level))) => {
                    for column in from..=x {
                        for row in level..bottom {
                            if !is_fine || *shade == Shade::Full || (column + row).is_multiple_of(2)
                            {
                                self.dot(column, row, symbol, code);
                            }
                        }
                    }
                }
            }
            before = Some((x, y));
        }
    }

    fn line(&self, row: usize, screen: Screen) -> String {
        let mut out = String::new();
        let cells = self
            .cells
            .iter()
            .skip(row * self.columns)
            .take(self.columns);
        let cells: Vec<&Cell> = cells.collect();
        for group in cells.chunk_by(|a, b| a.code == b.code) {
            let text: String = group
                .iter()
                .map(|cell| match cell.symbol {
                    None => ' ',
                    Some(symbol) if screen.is_fine() && symbol != DOT => {
                        char::from_u32(0x2800 + u32::from(cell.dots)).unwrap_or(' ')
                    }
                    Some(symbol) => symbol,
                })
                .collect();
            let code = group.first().and_then(|cell| cell.code);
            out.push_str(&paint(&text, code, screen.colour));
        }
        out.trim_end().to_owned()
    }
}

fn draw(out: &mut String, panel: &Panel, key: &[&Series], screen: Screen, rows: usize) {
    for text in [&panel.title, &panel.note] {
        if !text.is_empty() {
            let _ = writeln!(out, "{}", cut(text, screen.columns));
        }
    }
    let lengths = panel.y.ticks.iter().map(|tick| tick.label.chars().count());
    let margin = lengths.max().unwrap_or(0);
    let columns = screen.columns.saturating_sub(margin + 2).max(10);
    let mut canvas = Canvas {
        cells: vec![Cell::default(); columns * rows],
        columns,
        rows,
        fine: if screen.is_fine() { (2, 4) } else { (1, 1) },
    };
    let (wall, corner, floor, joint) = if screen.unicode {
        ('│', '└', '─', '┬')
    } else {
        ('|', '+', '-', '+')
    };
    for mark in &panel.marks {
        let column = Canvas::spot(panel.x.place(mark.x), columns * canvas.fine.0);
        for row in (0..rows * canvas.fine.1).step_by(2) {
            canvas.dot(column, row, wall, "2");
        }
    }
    for series in panel.series.iter().filter(|series| is_shown(series)) {
        let place = key.iter().position(|other| other.name == series.name);
        let symbol = match series.form {
            Form::Dots if screen.is_fine() => DOT,
            _ => symbol(place.unwrap_or_default()),
        };
        canvas.series(panel, series, symbol);
    }
    let spans = panel.spans.iter().map(|span| {
        let middle = f64::midpoint(panel.x.place(span.from), panel.x.place(span.to));
        (middle, span.name.as_str())
    });
    let marks = panel
        .marks
        .iter()
        .map(|mark| (panel.x.place(mark.x), mark.name.as_str()));
    let names = labels(spans.chain(marks), columns);
    if !names.is_empty() {
        let _ = writeln!(out, "{:margin$}  {names}", "");
    }
    for row in 0..rows {
        let at_row = |tick: &&Tick| Canvas::spot(1.0 - panel.y.place(tick.at), rows) == row;
        let label = panel
            .y
            .ticks
            .iter()
            .find(at_row)
            .map_or("", |tick| &tick.label);
        let _ = writeln!(out, "{label:>margin$} {wall}{}", canvas.line(row, screen));
    }
    let mut axis = vec![floor; columns];
    for tick in &panel.x.ticks {
        if let Some(cell) = axis.get_mut(Canvas::spot(panel.x.place(tick.at), columns)) {
            *cell = joint;
        }
    }
    let axis: String = axis.into_iter().collect();
    let ticks = panel
        .x
        .ticks
        .iter()
        .map(|tick| (panel.x.place(tick.at), tick.label.as_str()));
    let _ = writeln!(out, "{:margin$} {corner}{axis}", "");
    let _ = writeln!(out, "{:margin$}  {}", "", labels(ticks, columns));
    if !panel.x.name.is_empty() {
        let _ = writeln!(out, "{:>1$}", panel.x.name, margin + 2 + columns);
    }
}

/// A line with texts around their places; one that would touch another is left out.
fn labels<'a>(texts: impl Iterator<Item = (f64, &'a str)>, columns: usize) -> String {
    let mut line = vec![' '; columns];
    for (part, text) in texts {
        let length = text.chars().count();
        let begin = Canvas::spot(part, columns)
            .saturating_sub(length / 2)
            .min(columns.saturating_sub(length));
        let room = begin.saturating_sub(1)..(begin + length + 1).min(columns);
        let is_free = line
            .get(room)
            .is_some_and(|cells| cells.iter().all(|c| *c == ' '));
        if is_free && length <= columns {
            for (cell, c) in line.iter_mut().skip(begin).zip(text.chars()) {
                *cell = c;
            }
        }
    }
    let line: String = line.into_iter().collect();
    line.trim_end().to_owned()
}
