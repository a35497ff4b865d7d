//! A figure as SVG.

use std::fmt::Write;

use super::figure::{Colour, Figure, Point, Shade, Stroke};
use super::scene::{Anchor, Item, Paint, Part, Scene, Text, TextKind};
use super::style::{self, DARK, LIGHT, Palette, Rgb, Theme};

/// Draws a figure.
pub fn svg(figure: &Figure, theme: Theme) -> String {
    let Scene {
        width,
        height,
        items,
    } = Scene::of(figure);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{}\">\n<style>\n{}</style>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n",
        escaped(&figure.title),
        css(theme),
    );
    for item in &items {
        // Writing to a string does not fail.
        let _ = match item {
            Item::Shape(paint, parts) => {
                writeln!(
                    out,
                    "<path class=\"{}\" d=\"{}\"/>",
                    class(*paint),
                    path(*paint, parts)
                )
            }
            Item::Text(text) => writeln!(out, "{}", element(text)),
        };
    }
    out.push_str("</svg>\n");
    out
}

fn css(theme: Theme) -> String {
    let mut out = String::new();
    match theme {
        Theme::Page => {
            out.push_str("  :root { color-scheme: light dark; }\n");
            palette(&mut out, &LIGHT);
            out.push_str("  @media (prefers-color-scheme: dark) {\n");
            palette(&mut out, &DARK);
            out.push_str("  }\n");
        }
        Theme::Light => palette(&mut out, &LIGHT),
        Theme::Dark => palette(&mut out, &DARK),
    }
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "  .line, .dots, .grid, .axis, .mark {{ fill: none; stroke: currentColor; stroke-width: {}; }}\n  \
         .line {{ stroke-width: {}; stroke-linejoin: round; }} .faint {{ stroke-width: {0}; stroke-opacity: {}; }}\n  \
         .dots {{ stroke-width: {}; stroke-linecap: round; stroke-opacity: {}; }} .mark {{ stroke-dasharray: {}; }}\n  \
         .area {{ fill: currentColor; }} .band {{ fill: currentColor; fill-opacity: {}; }}",
        style::THIN,
        style::LINE,
        style::FAINT,
        style::DOT,
        style::DOT_OPACITY,
        dashes(style::MARK),
        style::BAND,
    );
    for stroke in [Stroke::Dashed, Stroke::Dotted] {
        let array = stroke.dashes().map(dashes).unwrap_or_default();
        let _ = writeln!(
            out,
            "  .{} {{ stroke-dasharray: {array}; }}",
            stroke_class(stroke)
        );
    }
    for shade in Shade::ALL {
        let opacity = shade.opacity();
        let _ = writeln!(
            out,
            "  .{} {{ fill-opacity: {opacity}; }}",
            shade_class(shade)
        );
    }
    let _ = writeln!(
        out,
        "  text {{ font: {}px system-ui, \"DejaVu Sans\", Arial, sans-serif; fill: currentColor; }}\n  \
         .title {{ font-size: {}px; font-weight: 600; }} .name {{ font-weight: 600; }}",
        style::TEXT,
        style::TITLE,
    );
    out
}

fn palette(out: &mut String, palette: &Palette) {
    let hex = |[red, green, blue]: Rgb| format!("#{red:02x}{green:02x}{blue:02x}");
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "  .paper {{ fill: {}; }} .ink {{ color: {}; }} .dim {{ color: {}; }} .grid {{ color: {}; }}",
        hex(palette.paper),
        hex(palette.ink),
        hex(palette.dim),
        hex(palette.grid),
    );
    let colours = Colour::ALL.map(|colour| {
        let name = colour_class(colour);
        format!(".{name} {{ color: {}; }}", hex(palette.colour(colour)))
    });
    let _ = writeln!(out, "  {}", colours.join(" "));
}

fn dashes([dash, gap]: [f32; 2]) -> String {
    format!("{dash} {gap}")
}

fn class(paint: Paint) -> String {
    match paint {
        Paint::Line(colour, Stroke::Solid) => format!("{} line", colour_class(colour)),
        Paint::Line(colour, stroke) => {
            format!("{} line {}", colour_class(colour), stroke_class(stroke))
        }
        Paint::Area(colour, shade) => {
            format!("{} area {}", colour_class(colour), shade_class(shade))
        }
        Paint::Dots(colour) => format!("{} dots", colour_class(colour)),
        Paint::Band => "dim band".to_owned(),
        Paint::Grid => "grid".to_owned(),
        Paint::Axis => "dim axis".to_owned(),
        Paint::Mark => "dim mark".to_owned(),
    }
}

fn colour_class(colour: Colour) -> &'static str {
    match colour {
        Colour::Blue => "blue",
        Colour::Orange => "orange",
        Colour::Green => "green",
        Colour::Purple => "purple",
        Colour::Pink => "pink",
        Colour::Ochre => "ochre",
        Colour::Grey => "grey",
    }
}

fn stroke_class(stroke: Stroke) -> &'static str {
    match stroke {
        Stroke::Faint => "faint",
        Stroke::Solid => "solid",
        Stroke::Dashed => "dashed",
        Stroke::Dotted => "dotted",
    }
}

fn shade_class(shade: Shade) -> &'static str {
    match shade {
        Shade::Full => "full",
        Shade::Half => "half",
        Shade::Tint => "tint",
    }
}

/// A coordinate with one place at most.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn path(paint: Paint, parts: &[Part]) -> String {
    let mut out = String::new();
    for part in parts {
        let mut before: Option<(String, String)> = None;
        for Point { x, y } in &part.points {
            let (x, y) = (number(*x), number(*y));
            // Writing to a string does not fail.
            let _ = match &before {
                None => write!(out, "M{x},{y}"),
                Some((left, top)) if *left == x && *top == y => Ok(()),
                Some((left, _)) if *left == x => write!(out, "V{y}"),
                Some((_, top)) if *top == y => write!(out, "H{x}"),
                Some(_) => write!(out, "L{x},{y}"),
            };
            before = Some((x, y));
        }
        match paint {
            // A line of no length, whose round ends are the dot.
            Paint::Dots(_) => out.push_str("h.01"),
            Paint::Area(..) | Paint::Band => out.push('Z'),
            _ => {}
        }
    }
    out
}

fn element(text: &Text) -> String {
    let class = match text.kind {
        TextKind::Title => "ink title",
        TextKind::Name => "ink name",
        TextKind::Ink => "ink",
        TextKind::Dim => "dim",
    };
    let anchor = match text.anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    format!(
        "<text class=\"{class}\" x=\"{}\" y=\"{}\"{anchor}>{}</text>",
        number(text.at.x),
        number(text.at.y),
        escaped(&text.text),
    )
}

/// Text for XML, which has no control characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}
