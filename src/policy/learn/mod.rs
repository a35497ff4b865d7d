//! What runs of a function teach about the next one.
//!
//! [`digest()`] keeps of a trace what is worth keeping, [`Digests`] the digests of the newest runs. [`learn()`] makes
//! the profile of them: hulls and peaks of each input class, and how far they can be trusted. [`choose()`] finds the
//! class of an input. [`barrel()`] makes a hull usable for limits. `docs/profiles.md` has the rules as formulas.

mod barrel;
mod bins;
mod choose;
mod class;
mod digest;
mod digests;
mod rises;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use barrel::{Buffer, Sizes, barrel};
pub use bins::candidates;
pub use choose::{LEAST_RUNS, choose, foresight, trusted};
pub use digest::{MOST_BINS, NoDigest, digest};
pub use digests::{Digests, MOST_KEPT, MOST_KEPT_ALIKE};
pub use rises::{ABOUT, Moment, Rises, STEADY, Variation};

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::profile::{Digest, Profile};
use crate::model::{ClassName, FunctionKey};

/// A profile has at most so many classes with given names: those with the newest runs.
const MOST_GIVEN: usize = 16;

/// How a profile will be used, which decides how well it must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// So long before it is needed memory must be there.
    pub lead: Duration,
    /// What is added to a hull or peak.
    pub buffer: Buffer,
    /// What a run costs that was granted too little: as much as so many runs that are granted the largest peak.
    pub shortfall: u32,
}

impl Default for Rules {
    /// 40 ms, 5 % and 2 MiB, 2 runs: the one that is lost and the one that repeats it.
    fn default() -> Self {
        Self {
            lead: Duration::from_millis(40),
            buffer: Buffer::default(),
            shortfall: 2,
        }
    }
}

/// The profile of a function.
///
/// Runs with a given class make the profile of that class. The others are put into classes by a feature of their
/// input if that is cheaper than one class ([`candidates`]). All of them make the class `*`.
pub fn learn(function: FunctionKey, digests: &Digests, rules: &Rules) -> Profile {
    let mut members: BTreeMap<ClassName, Vec<&Digest>> = BTreeMap::new();
    for digest in digests.iter() {
        if let Some(name) = digests::given(digest) {
            members.entry(name.clone()).or_default().push(digest);
        }
    }
    while members.len() > MOST_GIVEN {
        let newest = |runs: &Vec<&Digest>| runs.iter().map(|digest| &digest.run).max().cloned();
        let Some(oldest) = members
            .iter()
            .min_by_key(|(_, runs)| newest(runs))
            .map(|(name, _)| name.clone())
        else {
            break;
        };
        members.remove(&oldest);
    }
    let bins = candidates(digests, rules)
        .into_iter()
        .next()
        .filter(|bins| !bins.edges.is_empty());
    if let Some(bins) = &bins {
        for digest in digests.iter().filter(|d| digests::given(d).is_none()) {
            let value = digest.features.get(&bins.feature);
            // A name that cannot be made was no candidate.
            if let Some(Ok(name)) = value.map(|value| bins.class(*value)) {
                members.entry(name).or_default().push(digest);
            }
        }
    }
    members.insert(ClassName::all(), digests.iter().collect());
    Profile {
        version: Profile::VERSION,
        function,
        bins,
        classes: members
            .into_iter()
            .filter_map(|(name, runs)| Some((name, class::profile(&runs, rules)?)))
            .collect(),
        placed: BTreeMap::new(),
    }
}
