//! A figure as PNG, with a font that is built in, since hosts of functions have none.

use num_traits::ToPrimitive;
use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint as Brush, Path, PathBuilder, Pixmap, Stroke as Pen,
    StrokeDash, Transform,
};
use ttf_parser::{Face, GlyphId, OutlineBuilder};

use super::figure::{Figure, Point, Stroke};
use super::scene::{Anchor, Item, Paint, Part, Scene, Text, TextKind};
use super::style::{self, DARK, LIGHT, Palette, Rgb, Theme};

/// Pixels for each unit of the SVG: sharp on screens of today.
const SCALE: f32 = 2.0;
/// A bold text is drawn with a line of this part of its size around it.
const BOLD: f32 = 0.035;

/// The picture cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// The built-in font is broken.
    #[error("read the built-in font")]
    Font(#[from] ttf_parser::FaceParsingError),
    /// No image has that size.
    #[error("a picture of {0} by {1} cannot be drawn")]
    Size(f64, f64),
    /// The image cannot be encoded.
    #[error("encode the picture: {0}")]
    Encode(String),
}

/// Draws a figure. A PNG cannot follow the page, so [`Theme::Page`] is light.
///
/// # Errors
/// [`PngError`].
pub fn png(figure: &Figure, theme: Theme) -> Result<Vec<u8>, PngError> {
    let scene = Scene::of(figure);
    let pixels = |length: f64| (length * f64::from(SCALE)).ceil().to_u32();
    let image = pixels(scene.width)
        .zip(pixels(scene.height))
        .and_then(|(width, height)| Pixmap::new(width, height));
    let mut canvas = Canvas {
        image: image.ok_or(PngError::Size(scene.width, scene.height))?,
        palette: match theme {
            Theme::Page | Theme::Light => &LIGHT,
            Theme::Dark => &DARK,
        },
        face: Face::parse(dejavu::sans::regular(), 0)?,
    };
    let [red, green, blue] = canvas.palette.paper;
    canvas
        .image
        .fill(Color::from_rgba8(red, green, blue, u8::MAX));
    for item in &scene.items {
        match item {
            Item::Shape(paint, parts) => canvas.shape(*paint, parts),
            Item::Text(text) => canvas.text(text),
        }
    }
    canvas
        .image
        .encode_png()
        .map_err(|err| PngError::Encode(err.to_string()))
}

struct Canvas<'a> {
    image: Pixmap,
    palette: &'a Palette,
    face: Face<'a>,
}

fn brush([red, green, blue]: Rgb, opacity: f32) -> Brush<'static> {
    let mut colour = Color::from_rgba8(red, green, blue, u8::MAX);
    colour.set_alpha(opacity);
    let mut brush = Brush {
        anti_alias: true,
        ..Brush::default()
    };
    brush.set_color(colour);
    brush
}

fn float(value: f64) -> f32 {
    value.to_f32().unwrap_or_default()
}

impl Canvas<'_> {
    fn fill(&mut self, path: Option<Path>, brush: &Brush<'_>) {
        // What has no extent has no path.
        if let Some(path) = path {
            let scale = Transform::from_scale(SCALE, SCALE);
            self.image
                .fill_path(&path, brush, FillRule::Winding, scale, None);
        }
    }

    fn stroke(
        &mut self,
        path: Option<Path>,
        brush: &Brush<'_>,
        width: f32,
        dashes: Option<[f32; 2]>,
    ) {
        let pen = Pen {
            width,
            line_cap: LineCap::Butt,
            line_join: LineJoin::Round,
            dash: dashes.and_then(|dashes| StrokeDash::new(dashes.to_vec(), 0.0)),
            ..Pen::default()
        };
        if let Some(path) = path {
            let scale = Transform::from_scale(SCALE, SCALE);
            self.image.stroke_path(&path, brush, &pen, scale, None);
        }
    }

    fn shape(&mut self, paint: Paint, parts: &[Part]) {
        let palette = self.palette;
        match paint {
            Paint::Line(colour, stroke) => {
                let (width, opacity) = match stroke {
                    Stroke::Faint => (style::THIN, style::FAINT),
                    _ => (style::LINE, 1.0),
                };
                let brush = brush(palette.colour(colour), opacity);
                self.stroke(path(parts, false), &brush, width, stroke.dashes());
            }
            Paint::Area(colour, shade) => {
                let brush = brush(palette.colour(colour), shade.opacity());
                self.fill(path(parts, true), &brush);
            }
            Paint::Dots(colour) => {
                let brush = brush(palette.colour(colour), style::DOT_OPACITY);
                let mut dots = PathBuilder::new();
                for Point { x, y } in parts.iter().filter_map(|part| part.points.first()) {
                    dots.push_circle(float(*x), float(*y), style::DOT / 2.0);
                }
                self.fill(dots.finish(), &brush);
            }
            Paint::Band => self.fill(path(parts, true), &brush(palette.dim, style::BAND)),
            Paint::Grid | Paint::Axis | Paint::Mark => {
                let colour = if paint == Paint::Grid {
                    palette.grid
                } else {
                    palette.dim
                };
                let dashes = (paint == Paint::Mark).then_some(style::MARK);
                self.stroke(path(parts, false), &brush(colour, 1.0), style::THIN, dashes);
            }
        }
    }

    fn text(&mut self, text: &Text) {
        let size = match text.kind {
            TextKind::Title => style::TITLE,
            _ => style::TEXT,
        };
        let scale = size / f32::from(self.face.units_per_em());
        let glyphs: Vec<GlyphId> = text
            .text
            .chars()
            .map(|c| self.face.glyph_index(c).unwrap_or_default())
            .collect();
        let advance = |glyph: &GlyphId| {
            f32::from(self.face.glyph_hor_advance(*glyph).unwrap_or_default()) * scale
        };
        let width: f32 = glyphs.iter().map(advance).sum();
        let mut outline = Outline {
            path: PathBuilder::new(),
            x: float(text.at.x)
                - match text.anchor {
                    Anchor::Start => 0.0,
                    Anchor::Middle => width / 2.0,
                    Anchor::End => width,
                },
            y: float(text.at.y),
            scale,
        };
        for glyph in &glyphs {
            // A blank has no outline.
            let _ = self.face.outline_glyph(*glyph, &mut outline);
            outline.x += advance(glyph);
        }
        let colour = match text.kind {
            TextKind::Dim => self.palette.dim,
            _ => self.palette.ink,
        };
        let brush = brush(colour, 1.0);
        let path = outline.path.finish();
        if matches!(text.kind, TextKind::Title | TextKind::Name) {
            self.stroke(path.clone(), &brush, size * BOLD, None);
        }
        self.fill(path, &brush);
    }
}

fn path(parts: &[Part], closed: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    for part in parts {
        let mut points = part
            .points
            .iter()
            .map(|point| (float(point.x), float(point.y)));
        if let Some((x, y)) = points.next() {
            path.move_to(x, y);
        }
        for (x, y) in points {
            path.line_to(x, y);
        }
        if closed {
            path.close();
        }
    }
    path.finish()
}

/// Takes glyphs, whose y axis points up, at a place of the picture.
struct Outline {
    path: PathBuilder,
    x: f32,
    y: f32,
    scale: f32,
}

impl Outline {
    fn place(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + x * self.scale, self.y - y * self.scale)
    }
}

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.place(x1, y1), self.place(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2)) = (self.place(x1, y1), self.place(x2, y2));
        let (x, y) = self.place(x, y);
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}
