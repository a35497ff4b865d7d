//! The runs that a choice is made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::placed::{Measured, PlacedRun};
use crate::model::placement::LocalRatio;
use crate::model::profile::{Digest, InputBins};
use crate::model::{Bytes, ClassName, RunId};

/// Of each ratio and input class so many runs are kept, the newest: hosts and functions change.
pub const MOST_ALIKE: usize = 64;
/// And so many of a function.
pub const MOST: usize = 4096;

/// The newest runs of a function at local ratios.
///
/// [`PlacedRuns::merge`] is commutative, associative and idempotent, like that of the digests.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<PlacedRun>", into = "Vec<PlacedRun>")]
pub struct PlacedRuns(BTreeMap<RunId, PlacedRun>);

impl PlacedRuns {
    /// The newest runs of both.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        self.0.into_values().chain(other.0.into_values()).collect()
    }

    /// Those of these digests whose memory was placed, and that came to their end.
    pub fn of<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> Self {
        let placed = |digest: &Digest| {
            let placement = digest.placement.filter(|_| digest.complete)?;
            Some(PlacedRun {
                run: digest.run.clone(),
                class: digest.class.clone(),
                features: digest.features.clone(),
                latency: digest.duration,
                placement,
            })
        };
        digests.into_iter().filter_map(placed).collect()
    }

    /// From the oldest run to the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &PlacedRun> {
        self.0.values()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Without some runs.
    #[must_use]
    pub fn without(self, is_gone: impl Fn(&PlacedRun) -> bool) -> Self {
        let kept = self.0.into_values().filter(|run| !is_gone(run));
        Self(kept.map(|run| (run.run.clone(), run)).collect())
    }

    /// What they tell of each ratio, from remote to local, for each input class: the one that was given, else that of
    /// the features by `bins`. All of them are in class `*`.
    pub fn measured(&self, bins: Option<&InputBins>) -> BTreeMap<ClassName, Vec<Measured>> {
        let mut classes: BTreeMap<ClassName, BTreeMap<LocalRatio, Vec<&PlacedRun>>> =
            BTreeMap::new();
        for run in self.iter() {
            let by_bins = || {
                let bins = bins?;
                let value = run.features.get(&bins.feature)?;
                bins.class(*value).ok()
            };
            let own = run.class.clone().or_else(by_bins);
            for class in own.into_iter().chain([ClassName::all()]) {
                let ratios = classes.entry(class).or_default();
                ratios.entry(run.placement.ratio).or_default().push(run);
            }
        }
        let measured = |(ratio, runs): (LocalRatio, Vec<&PlacedRun>)| {
            let newest = runs.get(runs.len().saturating_sub(MOST_ALIKE)..);
            let newest = newest.unwrap_or_default();
            let local = newest.iter().map(|run| run.placement.local);
            Measured {
                ratio,
                local: mean(local),
                latencies: newest.iter().map(|run| run.latency).collect(),
            }
        };
        classes
            .into_iter()
            .map(|(class, ratios)| (class, ratios.into_iter().map(measured).collect()))
            .collect()
    }
}

fn mean(all: impl Iterator<Item = Bytes>) -> Bytes {
    let (sum, count) = all.fold((0_u128, 0_u128), |(sum, count), bytes| {
        (sum + u128::from(bytes.get()), count + 1)
    });
    let mean = sum.checked_div(count).unwrap_or_default();
    Bytes::new(u64::try_from(mean).unwrap_or(u64::MAX))
}

impl FromIterator<PlacedRun> for PlacedRuns {
    fn from_iter<I: IntoIterator<Item = PlacedRun>>(runs: I) -> Self {
        let mut all: BTreeMap<RunId, PlacedRun> = BTreeMap::new();
        for run in runs {
            // Whichever comes first: of one run there is one account, but for a foreign one.
            let replaces = |known: &PlacedRun| key(&run) < key(known);
            if all.get(&run.run).is_none_or(replaces) {
                all.insert(run.run.clone(), run);
            }
        }
        let mut alike: BTreeMap<(Option<ClassName>, LocalRatio), usize> = BTreeMap::new();
        let mut kept = BTreeMap::new();
        for (id, run) in all.into_iter().rev() {
            let count = alike
                .entry((run.class.clone(), run.placement.ratio))
                .or_default();
            if *count < MOST_ALIKE && kept.len() < MOST {
                *count += 1;
                kept.insert(id, run);
            }
        }
        Self(kept)
    }
}

/// An order of two accounts of one run.
fn key(run: &PlacedRun) -> (std::time::Duration, LocalRatio, Bytes, Option<&ClassName>) {
    let placement = run.placement;
    (
        run.latency,
        placement.ratio,
        placement.local,
        run.class.as_ref(),
    )
}

impl From<Vec<PlacedRun>> for PlacedRuns {
    fn from(runs: Vec<PlacedRun>) -> Self {
        runs.into_iter().collect()
    }
}

impl From<PlacedRuns> for Vec<PlacedRun> {
    fn from(runs: PlacedRuns) -> Self {
        runs.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::placed::RunPlacement;

    fn run(number: u64, class: Option<&str>, percent: u64) -> PlacedRun {
        PlacedRun {
            run: format!("r{number:05}").parse().unwrap(),
            class: class.map(|class| class.parse().unwrap()),
            features: [("input-bytes".to_owned(), number as f64)].into(),
            latency: Duration::from_millis(number),
            placement: RunPlacement {
                ratio: LocalRatio::of(percent, 100 - percent).unwrap(),
                local: Bytes::new(number * 100),
            },
        }
    }

    #[test]
    fn runs_are_merged_in_any_order_and_the_newest_alike_are_kept() {
        let all: Vec<PlacedRun> = (0..200).map(|n| run(n, None, n % 2 * 50)).collect();
        let part =
            |range: std::ops::Range<usize>| -> PlacedRuns { all[range].iter().cloned().collect() };
        let whole = part(0..200);
        assert_eq!(part(0..120).merge(part(80..200)), whole);
        assert_eq!(part(80..200).merge(part(0..120)), whole);
        assert_eq!(whole.clone().merge(whole.clone()), whole);
        assert_eq!(whole.iter().count(), 2 * MOST_ALIKE);
        assert_eq!(whole.iter().next().unwrap().run.as_str(), "r00072");
        let json = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<PlacedRuns>(&json).unwrap(), whole);
    }

    #[test]
    fn each_class_has_its_ratios() {
        let runs: PlacedRuns = [
            run(1, Some("c"), 100),
            run(10, None, 100),
            run(20, None, 50),
            run(30, None, 50),
        ]
        .into_iter()
        .collect();
        let bins = InputBins {
            feature: "input-bytes".to_owned(),
            edges: vec![25.0],
            false_positives: 0.0,
            relative_cost: 1.0,
        };
        let measured = runs.measured(Some(&bins));
        let of = |class: &str| -> Vec<(String, u64, usize)> {
            let all = measured[&class.parse().unwrap()].iter();
            let shown = |m: &Measured| (m.ratio.to_string(), m.local.get(), m.latencies.len());
            all.map(shown).collect()
        };
        let one = |ratio: &str, local, runs| (ratio.to_owned(), local, runs);
        assert_eq!(of("c"), [one("1", 100, 1)]);
        assert_eq!(
            of("input-bytes<=25"),
            [one("0.5", 2000, 1), one("1", 1000, 1)]
        );
        assert_eq!(of("input-bytes>25"), [one("0.5", 3000, 1)]);
        assert_eq!(of("*"), [one("0.5", 2500, 2), one("1", 550, 2)]);
        assert_eq!(runs.measured(None).len(), 2);
    }
}
