//! How a container stands: what whoever looks after its memory has seen and done so far.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::trace::Phase;
use super::{Bytes, MemoryTime, RunId};

/// Why a grant was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The first grant.
    First,
    /// More is needed, or will be until the next look.
    Need,
    /// Less was enough for a while.
    Less,
    /// It rests.
    Rest,
    /// It works again, or a request begins.
    Work,
    /// It came near its limit.
    Near,
    /// It uses more than any run that is known.
    Outside,
    /// It met its limit.
    Met,
    /// Its tasks waited for memory.
    Pressed,
    /// The kernel refused to lower the limit.
    Refused,
    /// Somebody is about to change the container.
    Held,
    /// Somebody else wrote the limit.
    Foreign,
    /// The limit is as it was declared again.
    Restored,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::First,
        Self::Need,
        Self::Less,
        Self::Rest,
        Self::Work,
        Self::Near,
        Self::Outside,
        Self::Met,
        Self::Pressed,
        Self::Refused,
        Self::Held,
        Self::Foreign,
        Self::Restored,
    ];

    /// Its name where others read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Need => "need",
            Self::Less => "less",
            Self::Rest => "rest",
            Self::Work => "work",
            Self::Near => "near",
            Self::Outside => "outside",
            Self::Met => "met",
            Self::Pressed => "pressed",
            Self::Refused => "refused",
            Self::Held => "held",
            Self::Foreign => "foreign",
            Self::Restored => "restored",
        }
    }

    /// The reason as a clause.
    pub fn reason(self) -> &'static str {
        match self {
            Self::First => "the first grant, as its plan says",
            Self::Need => "more is needed, or will be until the next look",
            Self::Less => "less was enough for a while",
            Self::Rest => "it rests",
            Self::Work => "it works again, or a request begins",
            Self::Near => "it came near its limit",
            Self::Outside => "it uses more than any run that is known",
            Self::Met => "it met its limit",
            Self::Pressed => "its tasks waited for memory",
            Self::Refused => "the kernel refused to lower the limit",
            Self::Held => "somebody is about to change the container",
            Self::Foreign => "somebody else wrote the limit: it is left alone",
            Self::Restored => "the limit is as declared again",
        }
    }
}

/// A change of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Since the start of the function.
    pub at: Duration,
    /// The grant since then; `None` is the ceiling.
    pub grant: Option<Bytes>,
    /// Why.
    pub cause: Cause,
}

/// How often what was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// The grant rose.
    pub raises: u64,
    /// It fell.
    pub lowers: u64,
    /// The limit was met.
    pub met: u64,
    /// Tasks waited for memory below the ceiling.
    pub pressed: u64,
    /// Somebody else wrote the limit.
    pub foreign: u64,
    /// The kernel refused to lower the limit.
    pub refused: u64,
}

impl Counts {
    /// Together with others.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.raises, other.raises),
            (&mut self.lowers, other.lowers),
            (&mut self.met, other.met),
            (&mut self.pressed, other.pressed),
            (&mut self.foreign, other.foreign),
            (&mut self.refused, other.refused),
        ];
        for (count, more) in pairs {
            *count = count.saturating_add(more);
        }
    }
}

/// Memory over time since the start of the function. In JSON in byte seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Areas {
    /// Used.
    #[serde(rename = "usedByteSeconds", with = "byte_seconds")]
    pub used: MemoryTime,
    /// Granted: the limit in force where there is one.
    #[serde(rename = "grantedByteSeconds", with = "byte_seconds")]
    pub granted: MemoryTime,
    /// What the ceiling would have granted.
    #[serde(rename = "ceilingByteSeconds", with = "byte_seconds")]
    pub ceiling: MemoryTime,
    /// What a limit would have granted that never moves and holds all known runs; zero of a function without a profile.
    #[serde(rename = "staticByteSeconds", with = "byte_seconds")]
    pub fixed: MemoryTime,
}

impl Areas {
    /// Together with others.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.used, other.used),
            (&mut self.granted, other.granted),
            (&mut self.ceiling, other.ceiling),
            (&mut self.fixed, other.fixed),
        ];
        for (area, more) in pairs {
            *area = area.checked_add(more).unwrap_or(*area);
        }
    }

    /// Less granted than the ceiling would have.
    pub fn saved(&self) -> MemoryTime {
        self.ceiling.saturating_sub(self.granted)
    }
}

/// How a container stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its run.
    pub run: RunId,
    /// When it was looked at last, since the start of the function.
    pub at: Duration,
    /// What it does.
    pub phase: Phase,
    /// All memory that is charged.
    pub usage: Bytes,
    /// The most that was seen of it.
    pub peak: Bytes,
    /// The grant; `None` is the ceiling.
    pub grant: Option<Bytes>,
    /// The ceiling; `None` is no limit.
    pub ceiling: Option<Bytes>,
    /// Memory over time.
    pub areas: Areas,
    /// What was decided.
    pub counts: Counts,
    /// The last decision.
    pub last: Option<Decision>,
    /// Time in which some task waited for memory, where the kernel tells.
    pub waited: Option<Duration>,
    /// Processes that the OOM killer ended, once the container has ended.
    pub oom_kills: u64,
}

/// Byte seconds as whole numbers.
mod byte_seconds {
    use super::{Deserialize, Deserializer, MemoryTime, Serialize, Serializer};

    const NANOS: u128 = 1_000_000_000;

    pub(super) fn serialize<S: Serializer>(area: &MemoryTime, to: S) -> Result<S::Ok, S::Error> {
        area.byte_seconds().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<MemoryTime, D::Error> {
        let seconds = u64::deserialize(from)?;
        Ok(MemoryTime::from_byte_nanos(u128::from(seconds) * NANOS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_causes_are_those_of_the_files() {
        for cause in Cause::ALL {
            let name = serde_json::to_string(&cause).unwrap();
            assert_eq!(name, format!("{:?}", cause.as_str()));
            assert!(!cause.reason().is_empty());
        }
    }

    #[test]
    fn areas_are_byte_seconds_in_json() {
        let areas = Areas {
            used: MemoryTime::from_byte_nanos(2_500_000_000),
            ceiling: MemoryTime::from_byte_nanos(9_000_000_000),
            granted: MemoryTime::from_byte_nanos(4_000_000_000),
            ..Areas::default()
        };
        let json = serde_json::to_value(areas).unwrap();
        assert_eq!(json["usedByteSeconds"], 2);
        assert_eq!(json["staticByteSeconds"], 0);
        let back: Areas = serde_json::from_value(json).unwrap();
        assert_eq!(back.saved(), MemoryTime::from_byte_nanos(5_000_000_000));
    }

    #[test]
    fn sums_are_of_each_field() {
        let mut counts = Counts {
            raises: 1,
            met: u64::MAX,
            ..Counts::default()
        };
        counts.add(&Counts {
            raises: 2,
            met: 1,
            refused: 3,
            ..Counts::default()
        });
        assert_eq!(
            (counts.raises, counts.met, counts.refused),
            (3, u64::MAX, 3)
        );
    }
}
