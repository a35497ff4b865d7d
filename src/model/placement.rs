//! Where the memory of a container is to lie, and how it comes there.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Bytes;
use super::nodes::{NodeSet, Weights};
use super::plan::Reason;

/// Local bytes of all bytes, in ten-thousandths.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "f64", into = "f64")]
pub struct LocalRatio(u16);

/// The text or number is no local ratio.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no local ratio (want a number from 0 to 1, such as 0.75)")]
pub struct InvalidRatio(String);

impl LocalRatio {
    /// The unit: of so many.
    pub const WHOLE: u16 = 10_000;
    /// Everything is local.
    pub const LOCAL: Self = Self(Self::WHOLE);
    /// Everything is remote.
    pub const REMOTE: Self = Self(0);

    /// Of so much local and so much remote memory; none of none.
    pub fn of(local: u64, remote: u64) -> Option<Self> {
        let whole = u128::from(local) + u128::from(remote);
        let scaled = u128::from(local) * u128::from(Self::WHOLE) + whole / 2;
        u16::try_from(scaled.checked_div(whole)?).ok().map(Self)
    }

    /// In ten-thousandths.
    pub const fn parts(self) -> u16 {
        self.0
    }

    /// The distance to another one, in ten-thousandths.
    pub const fn distance(self, other: Self) -> u16 {
        self.0.abs_diff(other.0)
    }

    /// This share of a number, rounded.
    pub fn share(self, of: u64) -> u64 {
        let share = (u128::from(of) * u128::from(self.0) + 5_000) / u128::from(Self::WHOLE);
        u64::try_from(share).unwrap_or(of)
    }
}

impl TryFrom<f64> for LocalRatio {
    type Error = InvalidRatio;

    fn try_from(ratio: f64) -> Result<Self, Self::Error> {
        // Its own text is read: no number is cut off.
        format!("{ratio}").parse()
    }
}

impl From<LocalRatio> for f64 {
    fn from(ratio: LocalRatio) -> Self {
        Self::from(ratio.0) / Self::from(LocalRatio::WHOLE)
    }
}

impl FromStr for LocalRatio {
    type Err = InvalidRatio;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || InvalidRatio(format!("{text:?}"));
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 4 || !is_digits(whole) || !is_digits(fraction) {
            return Err(bad());
        }
        // More than four digits behind the point are nothing that memory can follow.
        let digits: String = fraction.chars().chain("0000".chars()).take(4).collect();
        let parts = whole.parse::<u32>().map_err(|_| bad())? * u32::from(Self::WHOLE)
            + digits.parse::<u32>().map_err(|_| bad())?;
        let parts = u16::try_from(parts)
            .ok()
            .filter(|parts| *parts <= Self::WHOLE);
        parts.map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for LocalRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f64::from(*self).fmt(f)
    }
}

/// How the memory of a function is placed, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PlacementPolicy {
    /// As the kernel does it.
    #[default]
    Off,
    /// All of it local.
    Local,
    /// All of it remote.
    Remote,
    /// The least that earlier runs allow, under the latency bound (Tzenetopoulos et al., HCDS 2025).
    Adaptive,
    /// All local or all remote, as earlier runs allow under the latency bound (Masouros et al., HPCA 2023).
    Adrias,
    /// What requests do not touch remote, an idle container step by step (Xu et al., ASPLOS 2024).
    Faasmem,
    /// Of what requests do not touch so much remote as earlier runs left untouched (Li et al., ASPLOS 2023).
    Pond,
    /// So many parts local, so many remote.
    Interleave {
        /// Of the local nodes.
        local: u8,
        /// Of the remote ones.
        remote: u8,
    },
}

/// The text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no placement (want off, local, remote, adaptive, adrias, faasmem, pond or interleave=L:R with parts from 0 \
     to 255)"
)]
pub struct InvalidPolicy(String);

impl PlacementPolicy {
    /// Whether it goes by earlier runs.
    pub fn learns(self) -> bool {
        matches!(self, Self::Adaptive | Self::Adrias | Self::Pond)
    }

    /// Whether it goes by the phases of a life and by what requests touch, and not by a ratio.
    pub fn has_life_cycle(self) -> bool {
        matches!(self, Self::Faasmem | Self::Pond)
    }

    /// The local ratio that it aims at; none of a policy that learns or goes by the phases of a life.
    pub fn target(self) -> Option<LocalRatio> {
        match self {
            Self::Off | Self::Adaptive | Self::Adrias | Self::Faasmem | Self::Pond => None,
            Self::Local => Some(LocalRatio::LOCAL),
            Self::Remote => Some(LocalRatio::REMOTE),
            Self::Interleave { local, remote } => {
                LocalRatio::of(u64::from(local), u64::from(remote))
            }
        }
    }
}

impl FromStr for PlacementPolicy {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || InvalidPolicy(text.to_owned());
        match text {
            "off" => Ok(Self::Off),
            "local" => Ok(Self::Local),
            "remote" => Ok(Self::Remote),
            "adaptive" => Ok(Self::Adaptive),
            "adrias" => Ok(Self::Adrias),
            "faasmem" => Ok(Self::Faasmem),
            "pond" => Ok(Self::Pond),
            _ => {
                let parts = text.strip_prefix("interleave=").ok_or_else(unknown)?;
                let (local, remote) = parts.split_once(':').ok_or_else(unknown)?;
                let part = |text: &str| text.parse::<u8>().map_err(|_| unknown());
                let (local, remote) = (part(local)?, part(remote)?);
                (local > 0 || remote > 0)
                    .then_some(Self::Interleave { local, remote })
                    .ok_or_else(unknown)
            }
        }
    }
}

impl fmt::Display for PlacementPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Local => f.write_str("local"),
            Self::Remote => f.write_str("remote"),
            Self::Adaptive => f.write_str("adaptive"),
            Self::Adrias => f.write_str("adrias"),
            Self::Faasmem => f.write_str("faasmem"),
            Self::Pond => f.write_str("pond"),
            Self::Interleave { local, remote } => write!(f, "interleave={local}:{remote}"),
        }
    }
}

/// Modes of a memory policy (set_mempolicy(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyMode {
    /// On the node of the processor.
    #[serde(rename = "MPOL_LOCAL")]
    Local,
    /// On that node, elsewhere when it is full.
    #[serde(rename = "MPOL_PREFERRED")]
    Preferred,
    /// On the nearest of those nodes, elsewhere when they are full.
    #[serde(rename = "MPOL_PREFERRED_MANY")]
    PreferredMany,
    /// On each in turn.
    #[serde(rename = "MPOL_INTERLEAVE")]
    Interleave,
    /// On each in turn, so many pages as its weight is.
    #[serde(rename = "MPOL_WEIGHTED_INTERLEAVE")]
    WeightedInterleave,
}

/// A flag of a memory policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyFlag {
    /// Node numbers are meant as they are, whatever becomes of the cpuset.
    #[serde(rename = "MPOL_F_STATIC_NODES")]
    StaticNodes,
}

/// A memory policy, in the form of `linux.memoryPolicy` (runtime-spec 1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// What it does.
    pub mode: PolicyMode,
    /// With which nodes.
    #[serde(default, skip_serializing_if = "NodeSet::is_empty")]
    pub nodes: NodeSet,
    /// How the nodes are meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<PolicyFlag>,
}

/// By what means a container gets its local ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Means {
    /// None: nothing is wanted, or nothing can be done.
    Plain,
    /// None: the configuration of the container places its memory itself.
    Foreign,
    /// New pages come where they belong.
    Allocation,
    /// New pages are local, and some are moved while it runs.
    Correction,
}

/// What becomes of the memory of a container in the phases of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LifeCycle {
    /// So much stays local of what requests do not touch, too.
    pub least: LocalRatio,
    /// After how long an idle container gives its memory up in steps, where its own rests do not tell; none where it
    /// keeps it.
    #[serde(
        rename = "semiWarmAfterUs",
        default,
        with = "super::profile::micros_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub semi_warm_after: Option<Duration>,
}

/// Where the memory of one container is to lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// By what means.
    pub means: Means,
    /// The wanted local ratio; none where nothing is wanted or nothing can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<LocalRatio>,
    /// Whether a policy that goes by earlier runs has chosen that ratio.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learned: bool,
    /// What becomes of it in the phases of its life, where that is not a ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<LifeCycle>,
    /// What its processes get; none leaves the kernel's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<MemoryPolicy>,
    /// The nodes that count as local.
    pub local: NodeSet,
    /// The nodes that count as remote and are used.
    pub remote: NodeSet,
    /// The weights of the host on which this relies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relies_on: Option<Weights>,
    /// Weights that the host is to have first, where it may be given some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wants: Option<Weights>,
    /// At most so much is moved per second.
    pub bandwidth: Bytes,
    /// Why it is so.
    pub reasons: Vec<Reason>,
}

impl Placement {
    /// Whether somebody has to see that its memory lies as it should.
    pub fn is_watched(&self) -> bool {
        (self.target.is_some() || self.life.is_some())
            && matches!(self.means, Means::Allocation | Means::Correction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_read_and_shown() {
        for (text, parts) in [
            ("0", 0),
            ("1", 10_000),
            ("0.75", 7_500),
            ("1.0", 10_000),
            ("0.33339", 3_333),
            ("0.", 0),
        ] {
            assert_eq!(text.parse::<LocalRatio>().unwrap().parts(), parts, "{text}");
        }
        for bad in [
            "",
            ".",
            "-0.5",
            "1.01",
            "2",
            "1e-1",
            "0,5",
            "0.5x",
            "99999999999",
        ] {
            assert!(bad.parse::<LocalRatio>().is_err(), "{bad}");
        }
        assert_eq!(LocalRatio::of(3, 1).unwrap().to_string(), "0.75");
        assert_eq!(LocalRatio::LOCAL.to_string(), "1");
        assert_eq!(LocalRatio::of(0, 0), None);
        let json = serde_json::to_string(&LocalRatio::of(1, 2)).unwrap();
        assert_eq!(json, "0.3333");
        let back: LocalRatio = serde_json::from_str(&json).unwrap();
        assert_eq!(back.parts(), 3_333);
        assert_eq!(LocalRatio::of(3, 1).unwrap().share(1001), 751);
    }

    #[test]
    fn policies_have_names() {
        for text in [
            "off",
            "local",
            "remote",
            "interleave=3:1",
            "interleave=0:255",
            "adaptive",
            "adrias",
            "faasmem",
            "pond",
        ] {
            assert_eq!(text.parse::<PlacementPolicy>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "Local",
            "interleave",
            "interleave=0:0",
            "interleave=256:1",
            "interleave=1",
        ] {
            assert!(bad.parse::<PlacementPolicy>().is_err(), "{bad}");
        }
        let target = |text: &str| text.parse::<PlacementPolicy>().unwrap().target();
        assert_eq!(target("interleave=3:1").unwrap().parts(), 7_500);
        assert_eq!(target("off"), None);
    }

    #[test]
    fn a_policy_has_the_form_of_the_runtime_specification() {
        let policy = MemoryPolicy {
            mode: PolicyMode::WeightedInterleave,
            nodes: "0-1".parse().unwrap(),
            flags: vec![PolicyFlag::StaticNodes],
        };
        assert_eq!(
            serde_json::to_string(&policy).unwrap(),
            r#"{"mode":"MPOL_WEIGHTED_INTERLEAVE","nodes":"0-1","flags":["MPOL_F_STATIC_NODES"]}"#
        );
    }
}
