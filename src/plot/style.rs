//! How pictures look: the colours of both kinds of paper, widths of lines, strengths of areas.

use super::figure::{Colour, Shade, Stroke};

/// Whom a picture is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// Light or dark, as the page is that shows it.
    Page,
    /// White paper.
    Light,
    /// Black paper.
    Dark,
}

/// Red, green and blue.
pub(super) type Rgb = [u8; 3];

/// The colours of one kind of paper.
pub(super) struct Palette {
    pub(super) paper: Rgb,
    /// Text.
    pub(super) ink: Rgb,
    /// Text and lines that explain.
    pub(super) dim: Rgb,
    pub(super) grid: Rgb,
    colours: [Rgb; 7],
}

pub(super) const LIGHT: Palette = Palette {
    paper: [0xff, 0xff, 0xff],
    ink: [0x1f, 0x23, 0x28],
    dim: [0x59, 0x63, 0x6e],
    grid: [0xd1, 0xd9, 0xe0],
    colours: [
        [0x09, 0x69, 0xda],
        [0xbc, 0x4c, 0x00],
        [0x1a, 0x7f, 0x37],
        [0x82, 0x50, 0xdf],
        [0xbf, 0x39, 0x89],
        [0x9a, 0x67, 0x00],
        [0x81, 0x8b, 0x98],
    ],
};

pub(super) const DARK: Palette = Palette {
    paper: [0x0d, 0x11, 0x17],
    ink: [0xe6, 0xed, 0xf3],
    dim: [0x91, 0x98, 0xa1],
    grid: [0x30, 0x36, 0x3d],
    colours: [
        [0x44, 0x93, 0xf8],
        [0xf0, 0x88, 0x3e],
        [0x3f, 0xb9, 0x50],
        [0xab, 0x7d, 0xf8],
        [0xdb, 0x61, 0xa2],
        [0xd2, 0x99, 0x22],
        [0x81, 0x8b, 0x98],
    ],
};

impl Palette {
    pub(super) fn colour(&self, colour: Colour) -> Rgb {
        let named = Colour::ALL.iter().zip(&self.colours);
        let mut found = named.filter(|(name, _)| **name == colour);
        found.next().map_or(self.dim, |(_, rgb)| *rgb)
    }
}

/// Width of lines of series, of those of which there are many, and of axes; diameter of dots.
pub(super) const LINE: f32 = 2.0;
pub(super) const THIN: f32 = 1.0;
pub(super) const DOT: f32 = 7.0;
/// Opacity of thin lines and of dots, through which others are seen.
pub(super) const FAINT: f32 = 0.5;
pub(super) const DOT_OPACITY: f32 = 0.75;
/// Opacity of the bands behind parts of the x axis.
pub(super) const BAND: f32 = 0.08;
/// Dashes and gaps of marks.
pub(super) const MARK: [f32; 2] = [2.0, 4.0];
/// Size of text and of the title.
pub(super) const TEXT: f32 = 13.0;
pub(super) const TITLE: f32 = 17.0;

impl Shade {
    pub(super) const ALL: [Self; 3] = [Self::Full, Self::Half, Self::Tint];

    pub(super) fn opacity(self) -> f32 {
        match self {
            Self::Full => 0.85,
            Self::Half => 0.4,
            Self::Tint => 0.2,
        }
    }
}

impl Stroke {
    /// Dashes and gaps.
    pub(super) fn dashes(self) -> Option<[f32; 2]> {
        match self {
            Self::Faint | Self::Solid => None,
            Self::Dashed => Some([7.0, 4.0]),
            Self::Dotted => Some([2.0, 3.0]),
        }
    }
}
