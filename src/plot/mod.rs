//! Pictures of memory over time: of traces, hulls, classes and grants.
//!
//! A picture is a [`Figure`], which is made of numbers alone; [`svg`], [`png`] and [`terminal`] draw any of them.
//! `docs/plots.md` shows each. No input or output.

mod axis;
mod classes;
mod cost;
mod curve;
mod figure;
mod hull;
mod inputs;
mod png;
mod ratios;
mod run;
mod scene;
mod shapes;
mod style;
mod svg;
mod terminal;
#[cfg(test)]
mod tests;
mod thin;

pub use classes::classes;
pub use cost::{PriceLine, cost};
pub use curve::{Memory, NothingMeasured};
pub use figure::Figure;
pub use hull::{HullPicture, ProviderSteps, hull};
pub use inputs::{Bin, Input, inputs};
pub use png::{PngError, png};
pub use ratios::{RatioPoint, ratios};
pub use run::run;
pub use shapes::{Shape, shapes};
pub use style::Theme;
pub use svg::svg;
pub use terminal::{Screen, terminal};
