//! The digests of a function's newest runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::profile::Digest;
use crate::model::{ClassName, RunId};

/// So many digests of a function are kept, those of the newest runs.
pub const MOST_KEPT: usize = 256;

/// So many of them are of runs that are alike: of one given class, and with values of each feature between the same
/// powers of two. Frequent inputs so do not drive out what is known of rare ones.
pub const MOST_KEPT_ALIKE: usize = 64;

/// The digests of a function's newest runs, one for each run, at most [`MOST_KEPT`].
///
/// What was seen in a run is forgotten when it is no longer among the newest: no outlier stays for ever.
/// [`Digests::merge`] is commutative, associative and idempotent, so that hosts may exchange digests in any order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Digest>", into = "Vec<Digest>")]
pub struct Digests(BTreeMap<RunId, Digest>);

impl Digests {
    /// The newest digests of both.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        self.0.into_values().chain(other.0.into_values()).collect()
    }

    /// From the oldest run to the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Digest> {
        self.0.values()
    }

    /// The digest of a run.
    pub fn get(&self, run: &RunId) -> Option<&Digest> {
        self.0.get(run)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Digest> for Digests {
    fn from_iter<I: IntoIterator<Item = Digest>>(digests: I) -> Self {
        let mut all: BTreeMap<RunId, Digest> = BTreeMap::new();
        for digest in digests {
            match all.get(&digest.run) {
                Some(known) if !replaces(&digest, known) => {}
                _ => {
                    all.insert(digest.run.clone(), digest);
                }
            }
        }
        let mut alike: BTreeMap<Kind, usize> = BTreeMap::new();
        let newest = all.into_iter().rev().filter(|(_, digest)| {
            let count = alike.entry(kind(digest)).or_default();
            *count += 1;
            *count <= MOST_KEPT_ALIKE
        });
        Self(newest.take(MOST_KEPT).collect())
    }
}

impl From<Vec<Digest>> for Digests {
    fn from(digests: Vec<Digest>) -> Self {
        digests.into_iter().collect()
    }
}

impl From<Digests> for Vec<Digest> {
    fn from(digests: Digests) -> Self {
        digests.0.into_values().collect()
    }
}

/// The class that was given for a run; `*` is none.
pub(super) fn given(digest: &Digest) -> Option<&ClassName> {
    digest
        .class
        .as_ref()
        .filter(|name| **name != ClassName::all())
}

/// Runs with the same kind are alike.
type Kind = (Option<ClassName>, Vec<(String, u64)>);

fn kind(digest: &Digest) -> Kind {
    // Sign and exponent of a floating-point number stand before its 52 bits of fraction.
    let power_of_two = |value: f64| value.to_bits() >> 52;
    let features = digest.features.iter();
    (
        given(digest).cloned(),
        features
            .map(|(name, value)| (name.clone(), power_of_two(*value)))
            .collect(),
    )
}

/// Whether of two digests of one run this is the one to keep: of the complete run, or of the longer one. The rest of
/// the rule only makes the choice independent of the order.
fn replaces(digest: &Digest, known: &Digest) -> bool {
    let rank = |digest: &Digest| (digest.complete, digest.duration, digest.held_peak);
    let text = |digest: &Digest| serde_json::to_string(digest).unwrap_or_default();
    rank(digest)
        .cmp(&rank(known))
        .then_with(|| text(digest).cmp(&text(known)))
        .is_gt()
}
