//! Draws the state of the live screen. Sixteen colours, any size, no mouse.

use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};

use super::app::{App, Page};
use super::columns;
use super::detail;
use super::rows;
use crate::cli::survey::Row;
use crate::plot::Screen;

/// Where something is drawn, and with what.
pub(super) struct Canvas<'a> {
    pub(super) buffer: &'a mut Buffer,
    pub(super) area: Rect,
    pub(super) screen: Screen,
}

/// A limit is near when so little of it is left.
const NEAR: f64 = 0.05;
/// Less is too little for a list.
const LEAST_LINES: u16 = 4;

impl Canvas<'_> {
    /// Writes a line, cut at the edge.
    pub(super) fn line(&mut self, y: u16, text: &str, style: Style) {
        self.write(0, y, text, style);
    }

    /// Writes at a place of a line, cut at the edge.
    pub(super) fn write(&mut self, x: u16, y: u16, text: &str, style: Style) {
        if x < self.area.width && y < self.area.height {
            let room = usize::from(self.area.width - x);
            let (x, y) = (self.area.x + x, self.area.y + y);
            self.buffer.set_stringn(x, y, text, room, style);
        }
    }

    fn fill(&mut self, y: u16, style: Style) {
        if y < self.area.height {
            let line = Rect::new(self.area.x, self.area.y + y, self.area.width, 1);
            self.buffer.set_style(line, style);
        }
    }

    /// A style, unless the terminal has no colours.
    pub(super) fn coloured(&self, colour: Color) -> Style {
        match self.screen.colour {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    pub(super) fn dim(&self) -> Style {
        self.coloured(Color::DarkGray)
    }
}

pub(super) fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Draws all of it.
pub(super) fn draw(app: &mut App, canvas: &mut Canvas<'_>) {
    if canvas.area.height < LEAST_LINES || canvas.area.width < 20 {
        return canvas.line(0, "too small", Style::new());
    }
    canvas.line(0, &rows::host_line(&app.view), bold());
    canvas.line(1, &status(app), canvas.dim());
    match app.page {
        Page::List => list(app, canvas),
        Page::Help => help(canvas),
        Page::Detail => match app.selected() {
            Some(row) => detail::draw(row, app.history.of(row), canvas),
            None => canvas.line(3, "This container has gone.", Style::new()),
        },
    }
    let last = canvas.area.height - 1;
    match (&app.trouble, &app.typed) {
        (Some(trouble), _) => canvas.line(last, trouble, canvas.coloured(Color::Red)),
        (None, Some(typed)) => {
            let cursor = if canvas.screen.unicode { "█" } else { "_" };
            canvas.line(last, &format!("filter: {typed}{cursor}"), bold());
        }
        (None, None) => canvas.line(last, footer(app), canvas.dim()),
    }
}

fn status(app: &App) -> String {
    use clap::ValueEnum;
    let key = app.order.key.to_possible_value();
    let key = key.as_ref().map_or("", |value| value.get_name());
    let mut parts = vec![format!("sorted by {key}")];
    if app.order.reverse {
        parts.push("reversed".to_owned());
    }
    if !app.filter.is_empty() {
        let filter = rows::printable(&app.filter);
        parts.push(format!(
            "filter {filter}: {} of {}",
            app.rows.len(),
            app.view.containers.len()
        ));
    }
    if app.is_paused {
        parts.push("PAUSED".to_owned());
    }
    parts.join(", ")
}

fn footer(app: &App) -> &'static str {
    match app.page {
        Page::List => "q quit  ? help  enter details  s sort  r reverse  / filter  p pause",
        Page::Detail => "q back  up, down another container  p pause  ? help",
        Page::Help => "any key goes back",
    }
}

fn list(app: &mut App, canvas: &mut Canvas<'_>) {
    // Below host, status and head, above the footer.
    let lines = usize::from(canvas.area.height - 4);
    app.lines = lines.max(1);
    if app.rows.is_empty() {
        let text = match app.view.containers.is_empty() {
            true => "Nobody's memory is looked after: no container runs.",
            false => "No container has that in its names.",
        };
        return canvas.line(3, text, Style::new());
    }
    let columns = columns::fitting(&app.rows, usize::from(canvas.area.width));
    let mut x = 0;
    canvas.fill(2, Style::new().add_modifier(Modifier::REVERSED));
    for column in &columns {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        canvas.write(x, 2, &column.cell(column.title), style);
        x = x.saturating_add(column.advance());
    }
    let place = app.place();
    // The selected one is always in sight.
    let first = place.saturating_sub(app.lines - 1);
    let shown = app.rows.iter().enumerate().skip(first).take(app.lines);
    for (y, (index, row)) in (3_u16..).zip(shown) {
        let mut x = 0;
        for column in &columns {
            let text = column.cells.get(index).map_or("", String::as_str);
            let style = style_of(row, column.title, canvas);
            canvas.write(x, y, &column.cell(text), style);
            x = x.saturating_add(column.advance());
        }
        if index == place {
            let style = match canvas.screen.colour {
                true => Style::new().bg(Color::Blue).fg(Color::White),
                false => Style::new().add_modifier(Modifier::REVERSED),
            };
            canvas.fill(y, style);
        }
    }
}

/// What is worth a look has a colour.
fn style_of(row: &Row, title: &str, canvas: &Canvas<'_>) -> Style {
    match title {
        "USE" if is_near(row) => canvas.coloured(Color::Red),
        "GRANT" if row.reclaimable.is_some_and(|bytes| bytes.get() > 0) => {
            canvas.coloured(Color::Green)
        }
        "PSI" if row.psi_some_share.is_some_and(|share| share > NEAR) => {
            canvas.coloured(Color::Red)
        }
        "BECAUSE" if rows::is_harm(row) => canvas.coloured(Color::Yellow),
        "PHASE" if !row.attended && row.mode != crate::model::Mode::Off => {
            canvas.coloured(Color::Yellow)
        }
        _ => Style::new(),
    }
}

fn is_near(row: &Row) -> bool {
    let left = row.grant.zip(row.usage).map(|(grant, usage)| {
        let left = grant.saturating_sub(usage).get();
        left < grant.get() / 20
    });
    left.unwrap_or(false)
}

fn help(canvas: &mut Canvas<'_>) {
    let lines = [
        ("up, down, k, j", "another container"),
        ("page up, page down", "a page further"),
        ("home, end, g, G", "the first one, the last one"),
        ("enter", "details of the selected one, and back"),
        ("s, S", "the next key to sort by, the one before"),
        ("r", "the other way round"),
        ("/", "show only what has a text in its names; empty: all"),
        ("p, space", "stand still, go on"),
        ("?, h", "this page"),
        ("q, escape", "back; from the list, quit"),
        ("control-c", "quit"),
        ("", ""),
        ("USE", "all memory that is charged"),
        ("GRANT", "the limit in force; green: below the ceiling"),
        ("CEILING", "the declared limit"),
        ("SAVED", "GiB-s granted less than the ceiling so far"),
        ("PSI", "share of time in which tasks waited for memory"),
        ("CHANGED", "when the grant was changed last; BECAUSE: why"),
    ];
    for (y, (key, text)) in (3_u16..).zip(lines) {
        if y + 1 < canvas.area.height {
            canvas.write(2, y, key, bold());
            canvas.write(22, y, text, Style::new());
        }
    }
}

#[cfg(test)]
mod tests;
