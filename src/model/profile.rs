//! What is known of a function from its runs.
//!
//! A [`Digest`] is what is kept of one run. A [`Profile`] is what was learned from the digests, one
//! [`ClassProfile`] for each input class. Both are derived from traces by `policy::learn` and stored by `profile`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::placed::{Measured, RunPlacement, Seen};
use super::trace::{Sample, Trace};
use super::{Bytes, ClassName, FunctionKey, InvalidName, RunId};

pub use super::hull::{BinWidth, Hull, Hulls, InvalidWidth};

/// What is kept of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Digest {
    /// The run.
    pub run: RunId,
    /// Its input class, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassName>,
    /// Numbers that describe its input, such as `input-bytes` and `pixels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, f64>,
    /// From the start of the function to its end.
    #[serde(rename = "durationUs", with = "micros")]
    pub duration: Duration,
    /// CPU time used.
    #[serde(
        rename = "cpuUs",
        default,
        with = "micros_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub cpu: Option<Duration>,
    /// Largest sum of anonymous, shared and kernel memory.
    pub held_peak: Bytes,
    /// Largest page cache, without shared memory.
    pub file_peak: Bytes,
    /// Largest usage, by the kernel's own counter where there is one.
    pub usage_peak: Bytes,
    /// Most growth within 4 ms; none where nobody looked that often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<Bytes>,
    /// Most growth within 20 ms; none where nobody looked that often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Bytes>,
    /// Whether the run came to its end and had all the memory that it asked for. The figures of a run that did not
    /// are lower bounds: they raise hulls and largest peaks, and count as no run.
    pub complete: bool,
    /// How its memory was placed, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<RunPlacement>,
    /// What its requests were seen to do with its memory.
    #[serde(flatten)]
    pub seen: Seen,
    /// Over wall time.
    pub wall: Hulls,
    /// Over CPU time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_cpu: Option<Hulls>,
}

/// Quantiles of a figure over the complete runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// The smallest.
    pub min: Bytes,
    /// Half of the runs are at or below it.
    pub p50: Bytes,
    /// 90 of 100 runs are at or below it.
    pub p90: Bytes,
    /// 99 of 100 runs are at or below it.
    pub p99: Bytes,
    /// The largest, of incomplete runs too.
    pub max: Bytes,
}

/// How often a run was not as the others had it (leave one out).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confidence {
    /// Complete runs that were left out, one after the other; 0 if there is but one.
    pub runs: u32,
    /// Those that were not, at some moment.
    pub violations: u32,
    /// By how much, at most.
    pub worst: Bytes,
}

/// What was learned of one input class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassProfile {
    /// How many complete runs it comes from.
    pub runs: u32,
    /// How many of them had a cold page cache: files had to be read that other runs found in memory.
    pub cold_runs: u32,
    /// Peaks of anonymous, shared and kernel memory.
    pub held_peak: Quantiles,
    /// Peaks of the page cache of runs that were not cold; of all runs when all were.
    pub file_peak: Quantiles,
    /// Peaks of the page cache of cold runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_file_peak: Option<Quantiles>,
    /// Peaks of usage.
    pub usage_peak: Quantiles,
    /// Most growth of any run within 4 ms; none where nobody looked that often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<Bytes>,
    /// Most growth within 20 ms of any run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Bytes>,
    /// Longest complete run.
    #[serde(rename = "durationUs", with = "micros")]
    pub duration: Duration,
    /// Hulls over wall time. That of the page cache is of the runs of `file_peak`.
    pub wall: Hulls,
    /// Leave-one-out check of the hull over wall time: whether runs kept to the barrelled hull of the rest. After the last
    /// bin of the rest their largest value is what they have.
    pub wall_confidence: Confidence,
    /// The same of growth: whether runs grew, at moments at which they used about as much as the rest, no more than these
    /// at about that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_growth: Option<Confidence>,
    /// ... no more than these at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_steady: Option<Confidence>,
    /// Hulls over CPU time, if every run has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_cpu: Option<Hulls>,
    /// Leave-one-out check of the hull over CPU time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_confidence: Option<Confidence>,
    /// Leave-one-out check of growth over CPU time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_growth: Option<Confidence>,
    /// ... at that CPU time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_steady: Option<Confidence>,
    /// What requests were seen to do with memory, at most.
    #[serde(flatten)]
    pub seen: Seen,
}

/// How inputs are put into classes: by the value of one feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputBins {
    /// The feature, such as `input-bytes`.
    pub feature: String,
    /// Upper edges of all classes but the last, ascending; a value on an edge belongs below it.
    pub edges: Vec<f64>,
    /// Share of the runs that were put into a class whose memory was not enough when they were not learned from
    /// (cross-validation).
    pub false_positives: f64,
    /// Cost of those runs, as a share of their cost with one class: memory granted times duration, and a price for
    /// those that were granted too little.
    pub relative_cost: f64,
}

impl InputBins {
    /// The class of an input with this value of the feature, such as `pixels<=65536`, or `pixels>65536` for the last.
    ///
    /// # Errors
    ///
    /// The name of the feature cannot stand in the name of a class.
    pub fn class(&self, value: f64) -> Result<ClassName, InvalidName> {
        let feature = &self.feature;
        let above = self.edges.iter().find(|edge| value <= **edge);
        match (above, self.edges.last()) {
            (Some(edge), _) => format!("{feature}<={edge}").parse(),
            (None, Some(edge)) => format!("{feature}>{edge}").parse(),
            (None, None) => Ok(ClassName::all()),
        }
    }
}

/// What was learned of one function.
///
/// It is read when a container is created, so it holds what is needed then and no more: the runs are in their digests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The form of this document, [`Profile::VERSION`].
    pub version: u32,
    /// The function.
    pub function: FunctionKey,
    /// How runs without a given class are put into one; none when one class is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bins: Option<InputBins>,
    /// By class; the class `*` holds all runs. A class without a complete run is not there.
    pub classes: BTreeMap<ClassName, ClassProfile>,
    /// What is known of local ratios, by input class, from remote to local.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub placed: BTreeMap<ClassName, Vec<Measured>>,
}

impl ClassProfile {
    /// The hulls over wall time as if they were one run: each bin is a sample with the sum of held memory and page
    /// cache as usage. It is at least as much as any run used at that moment, and as long as the longest run.
    pub fn as_trace(&self) -> Trace {
        let Hulls { held, file } = &self.wall;
        let width = held.width.max(file.width);
        let (held, file) = (held.widened(width), file.widened(width));
        let at = |hull: &Hull, bin: usize| hull.bins.get(bin).copied().unwrap_or_default();
        let bins = held.bins.len().max(file.bins.len());
        let mut samples: Vec<Sample> = Vec::with_capacity(bins + 1);
        let mut begin = Duration::ZERO;
        for bin in 0..bins {
            let sum = at(&held, bin).get().saturating_add(at(&file, bin).get());
            samples.push(Sample {
                at: begin.min(self.duration),
                usage: Some(Bytes::new(sum)),
                ..Sample::default()
            });
            begin = begin.saturating_add(width.as_duration());
        }
        if let Some(last) = samples.last().cloned() {
            samples.push(Sample {
                at: self.duration.max(last.at),
                ..last
            });
        }
        Trace {
            samples,
            ..Trace::default()
        }
    }
}

impl Profile {
    /// Raised when the meaning of a field changes.
    pub const VERSION: u32 = 1;

    /// What is known of local ratios for an input: of the given class, else of the class by its features; of all runs
    /// only where it has neither. Other inputs may take another time.
    pub fn placed_runs(
        &self,
        class: Option<&ClassName>,
        features: &BTreeMap<String, f64>,
    ) -> Option<&[Measured]> {
        let class = self.class_of(class, features);
        self.placed.get(&class).map(Vec::as_slice)
    }

    /// What requests with an input were seen to do with memory, at most: those of its class, as for
    /// [`Profile::placed_runs`].
    pub fn seen(&self, class: Option<&ClassName>, features: &BTreeMap<String, f64>) -> Seen {
        let class = self.class_of(class, features);
        self.classes
            .get(&class)
            .map_or_else(Seen::default, |class| class.seen)
    }

    fn class_of(&self, class: Option<&ClassName>, features: &BTreeMap<String, f64>) -> ClassName {
        let by_features = || {
            let bins = self.bins.as_ref()?;
            let value = features.get(&bins.feature).filter(|v| v.is_finite())?;
            bins.class(*value).ok()
        };
        let class = class.cloned().or_else(by_features);
        class.unwrap_or_else(ClassName::all)
    }
}

pub(super) mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::model) fn serialize<S: Serializer>(
        time: &Duration,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        u64::try_from(time.as_micros())
            .map_err(serde::ser::Error::custom)?
            .serialize(to)
    }

    pub(in crate::model) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}

pub(super) mod micros_option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::model) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::micros::serialize(time, to),
            None => to.serialize_none(),
        }
    }

    pub(in crate::model) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_other_inputs_say_nothing_of_a_ratio() {
        let measured = |local| {
            vec![Measured {
                local: Bytes::new(local),
                ..Measured::default()
            }]
        };
        let class = |name: &str| -> ClassName { name.parse().unwrap() };
        let profile = Profile {
            version: Profile::VERSION,
            function: "n/f".parse().unwrap(),
            bins: Some(InputBins {
                feature: "pixels".to_owned(),
                edges: vec![100.0],
                false_positives: 0.0,
                relative_cost: 0.5,
            }),
            classes: BTreeMap::new(),
            placed: [
                (class("*"), measured(1)),
                (class("c"), measured(2)),
                (class("pixels<=100"), measured(3)),
            ]
            .into(),
        };
        let of = |given: Option<&str>, pixels: Option<f64>| {
            let features = pixels.map(|pixels| ("pixels".to_owned(), pixels));
            let found =
                profile.placed_runs(given.map(class).as_ref(), &features.into_iter().collect());
            found.map(|found| found[0].local.get())
        };
        assert_eq!(of(None, None), Some(1));
        assert_eq!(of(Some("c"), Some(5.0)), Some(2));
        assert_eq!(of(None, Some(5.0)), Some(3));
        assert_eq!(of(None, Some(500.0)), None);
        assert_eq!(of(Some("d"), Some(5.0)), None);
    }

    #[test]
    fn a_value_on_an_edge_belongs_below_it() {
        let bins = InputBins {
            feature: "pixels".to_owned(),
            edges: vec![100.0, 2.5e6],
            false_positives: 0.0,
            relative_cost: 0.5,
        };
        let class = |value| bins.class(value).unwrap();
        assert_eq!(class(100.0).as_str(), "pixels<=100");
        assert_eq!(class(100.5).as_str(), "pixels<=2500000");
        assert_eq!(class(1e9).as_str(), "pixels>2500000");
        let wrong = InputBins {
            feature: "a,b".to_owned(),
            ..bins
        };
        assert!(wrong.class(1.0).is_err());
    }
}
