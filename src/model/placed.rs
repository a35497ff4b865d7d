//! Runs whose memory was placed: what is known of them, and what of a local ratio.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::placement::LocalRatio;
use super::{Bytes, ClassName, RunId};

/// How the memory of one run was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunPlacement {
    /// The local ratio that was wanted and could be had.
    pub ratio: LocalRatio,
    /// Local memory, the mean over the run.
    pub local: Bytes,
}

/// One run at a local ratio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacedRun {
    /// The run.
    pub run: RunId,
    /// Its input class, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassName>,
    /// Numbers that describe its input.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, f64>,
    /// How long it took.
    #[serde(rename = "latencyUs", with = "super::profile::micros")]
    pub latency: Duration,
    /// How its memory was placed.
    pub placement: RunPlacement,
}

/// What is known of one local ratio, for one function and one input class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// The ratio.
    pub ratio: LocalRatio,
    /// Local memory, the mean over its runs.
    pub local: Bytes,
    /// How long its newest runs took.
    #[serde(rename = "latenciesUs", with = "all_micros")]
    pub latencies: Vec<Duration>,
}

/// What the requests of a run were seen to do with its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seen {
    /// The share of its anonymous memory that they touched: as much of it has to be local.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub touched: Option<LocalRatio>,
    /// 99 of 100 of the rests between them were no longer.
    #[serde(
        rename = "restsUs",
        with = "super::profile::micros_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub rests: Option<Duration>,
}

impl Seen {
    /// What holds for both: the larger of each.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            touched: self.touched.max(other.touched),
            rests: self.rests.max(other.rests),
        }
    }
}

/// What was done for the placement of a run: pages, and requests that were expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlacedCounts {
    /// Pages that were moved.
    pub moved: u64,
    /// Of these, hot pages that came in while as many cold ones went out, at a ratio that was held.
    pub exchanged: u64,
    /// Pages that the kernel did not move.
    pub refused: u64,
    /// Requests until which what they touch was out, and back when they were expected.
    pub predicted: u64,
    /// Of these, requests that came before it was back.
    pub early: u64,
}

impl PlacedCounts {
    /// Together with others.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.moved, other.moved),
            (&mut self.exchanged, other.exchanged),
            (&mut self.refused, other.refused),
            (&mut self.predicted, other.predicted),
            (&mut self.early, other.early),
        ];
        for (count, more) in pairs {
            *count = count.saturating_add(more);
        }
    }
}

mod all_micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(times: &[Duration], to: S) -> Result<S::Ok, S::Error> {
        let micros = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        times.iter().map(micros).collect::<Vec<u64>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Duration>, D::Error> {
        let micros = Vec::<u64>::deserialize(from)?;
        Ok(micros.into_iter().map(Duration::from_micros).collect())
    }
}
