//! What is done with the memory of a container.

use serde::{Deserialize, Serialize};

/// What is done with the memory of a container, from nothing to most.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing.
    Off,
    /// It is sampled, and nothing is changed.
    #[default]
    Observe,
    /// The grant is the largest need of the input class, with a buffer, for the whole run.
    Static,
    /// The grant follows the hull of earlier runs (the autotuner of Spillner, WoSC 2020), with the guard beneath.
    Replay,
    /// The grant follows what the container uses, and rises ahead of what earlier runs needed.
    Elastic,
}

/// The text is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mode (want off, observe, static, replay or elastic)")]
pub struct InvalidMode(String);

impl Mode {
    /// All of them, from nothing to most.
    pub const ALL: [Self; 5] = [
        Self::Off,
        Self::Observe,
        Self::Static,
        Self::Replay,
        Self::Elastic,
    ];

    /// Its name in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Observe => "observe",
            Self::Static => "static",
            Self::Replay => "replay",
            Self::Elastic => "elastic",
        }
    }

    /// Whether it changes limits.
    pub const fn grants(self) -> bool {
        matches!(self, Self::Static | Self::Replay | Self::Elastic)
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Mode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| InvalidMode(text.to_owned()))
    }
}
