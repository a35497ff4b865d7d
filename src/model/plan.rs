//! What is to be done with the memory of a container, and why.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::profile::InputBins;
use super::{Bytes, ClassName, Hull, Mode};

/// What a forecast counts its time by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// Time since the start of the function.
    Wall,
    /// CPU time used since then: independent of how busy the host is, and blind to waiting.
    Cpu,
}

/// How well runs foresee each other's growth, from worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Foresight {
    /// They grew otherwise than the others.
    None,
    /// They grew as the others did at about this moment: what those never had then is not to be reckoned with.
    About,
    /// They did so at the same moment.
    Steady,
}

/// What earlier runs of the input class needed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// What the time of the hull is.
    pub clock: Clock,
    /// Whether runs kept to the hull of the others: only then can it be replayed.
    pub trusted: bool,
    /// Whether runs grew as the others foresee.
    pub foresight: Foresight,
    /// All memory that is charged: the hull of what cannot be dropped, and of the page cache.
    pub hull: Hull,
    /// The largest usage of any run of the class.
    pub most: Bytes,
    /// Most growth within 4 ms of any run.
    pub jump: Bytes,
    /// Most growth within 20 ms of any run.
    pub burst: Bytes,
    /// How requests are put into classes by their input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bins: Option<InputBins>,
    /// The largest usage of each class.
    pub classes: BTreeMap<ClassName, Bytes>,
}

/// The numbers by which a grant follows a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Margins {
    /// Least distance between usage and grant.
    pub pad: Bytes,
    /// How far ahead a forecast is looked at.
    #[serde(serialize_with = "micros")]
    pub lead: Duration,
    /// For how long less must have been enough before a grant is lowered.
    #[serde(serialize_with = "micros")]
    pub settle: Duration,
    /// How long a container is left alone after its limit was met or written by somebody else.
    #[serde(serialize_with = "micros")]
    pub hold: Duration,
    /// Whether idle containers are shrunk.
    pub keep_alive: bool,
}

/// One number or choice of a plan, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What it is.
    pub what: Cow<'static, str>,
    /// The value, for people.
    pub value: String,
    /// Why it is this one.
    pub because: String,
    /// What would change it; empty if nothing would.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub change: String,
}

/// What is to be done with the memory of a container.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// What is done.
    pub mode: Mode,
    /// No grant is above it: the least of what was declared and of the limits of the control groups above. None: there
    /// is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Bytes>,
    /// The ceiling, if settings put it below what is declared: it has to be set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowered: Option<Bytes>,
    /// The ceiling that settings give, whatever is declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<Bytes>,
    /// The least limit of the control groups above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above: Option<Bytes>,
    /// The grant at the start. None: the ceiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<Bytes>,
    /// No grant is below it.
    pub floor: Bytes,
    /// The grant of mode `static`: a run that stays within what is known never needs more. None without a profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest: Option<Bytes>,
    /// The input class whose profile is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassName>,
    /// How the grant follows.
    pub margins: Margins,
    /// What earlier runs needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// Why it is so.
    pub reasons: Vec<Reason>,
}

fn micros<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    u64::try_from(time.as_micros())
        .map_err(serde::ser::Error::custom)?
        .serialize(to)
}
