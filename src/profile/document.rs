//! The JSON documents of the store: `profile.json` and `runs.json`. The latter is also what is exported.
//!
//! Both carry the version of their form. An older one is brought to the present form step by step; a newer one, which
//! a later elastic-mem has written, is not guessed at.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::FunctionKey;
use crate::model::profile::{Digest, Profile};
use crate::policy::learn::{self, Digests, Rules};
use crate::policy::pareto::PlacedRuns;

/// The runs that a profile is learned from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    /// The form of this document, [`Runs::VERSION`].
    pub version: u32,
    /// The function.
    pub function: FunctionKey,
    /// What is kept of each run.
    pub digests: Digests,
    /// Those whose memory was placed, of which more are kept.
    #[serde(default, skip_serializing_if = "PlacedRuns::is_empty")]
    pub placed: PlacedRuns,
}

impl Runs {
    /// Raised when the meaning of a field changes; then a step is added to `RUNS_STEPS`.
    pub const VERSION: u32 = 1;

    /// No runs yet.
    pub fn new(function: FunctionKey) -> Self {
        Self {
            version: Self::VERSION,
            function,
            digests: Digests::default(),
            placed: PlacedRuns::default(),
        }
    }

    /// The same with more runs.
    #[must_use]
    pub fn with(self, digests: Vec<Digest>) -> Self {
        Self {
            placed: self.placed.merge(PlacedRuns::of(&digests)),
            digests: self.digests.merge(digests.into_iter().collect()),
            ..self
        }
    }

    /// What they teach.
    pub fn learned(&self) -> Profile {
        let mut profile = learn::learn(self.function.clone(), &self.digests, &Rules::default());
        profile.placed = self.placed.measured(profile.bins.as_ref());
        profile
    }
}

/// Brings a document from one version to the next.
type Step = fn(&mut Value);

/// From version 1 on.
const RUNS_STEPS: [Step; 0] = [];
/// From version 1 on.
const PROFILE_STEPS: [Step; 0] = [];

/// Reads a `runs.json`, or an exported one.
pub(super) fn parse_runs(bytes: &[u8]) -> Result<Runs, String> {
    parse(bytes, Runs::VERSION, &RUNS_STEPS, |runs: &Runs| {
        runs.version
    })
}

/// Reads a `profile.json`.
pub(super) fn parse_profile(bytes: &[u8]) -> Result<Profile, String> {
    parse(
        bytes,
        Profile::VERSION,
        &PROFILE_STEPS,
        |profile: &Profile| profile.version,
    )
}

fn parse<T: DeserializeOwned>(
    bytes: &[u8],
    present: u32,
    steps: &[Step],
    version: impl Fn(&T) -> u32,
) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let parsed = serde_json::from_slice::<T>(bytes);
    if let Ok(document) = &parsed
        && version(document) == present
    {
        return parsed.map_err(|err| err.to_string());
    }
    // What is wrong with a document of another version is its version.
    let head: Head =
        serde_json::from_slice(bytes).map_err(|err| format!("no such document: {err}"))?;
    if head.version > present {
        return Err(format!(
            "version {} is newer than this elastic-mem, which knows versions up to {present}",
            head.version
        ));
    }
    if head.version == present {
        return parsed.map_err(|err| format!("no such document: {err}"));
    }
    let first = usize::try_from(head.version)
        .ok()
        .and_then(|version| version.checked_sub(1))
        .ok_or_else(|| format!("there is no version {}", head.version))?;
    let mut value: Value =
        serde_json::from_slice(bytes).map_err(|err| format!("no such document: {err}"))?;
    for (step, next) in steps
        .iter()
        .skip(first)
        .zip(head.version.saturating_add(1)..)
    {
        step(&mut value);
        if let Some(version) = value.get_mut("version") {
            *version = next.into();
        }
    }
    serde_json::from_value(value).map_err(|err| {
        format!(
            "version {} cannot be brought to {present}: {err}",
            head.version
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Third {
        version: u32,
        bytes: u64,
    }

    /// Version 1 had `mb`, version 2 `kb`.
    const STEPS: [Step; 2] = [
        |value| value["kb"] = (value["mb"].as_u64().unwrap() * 1024).into(),
        |value| value["bytes"] = (value["kb"].as_u64().unwrap() * 1024).into(),
    ];

    fn third(text: &str) -> Result<Third, String> {
        parse(text.as_bytes(), 3, &STEPS, |third: &Third| third.version)
    }

    #[test]
    fn an_older_document_goes_through_all_steps_from_its_version_on() {
        let same = Ok(Third {
            version: 3,
            bytes: 2 << 20,
        });
        assert_eq!(third("{\"version\": 1, \"mb\": 2}"), same);
        assert_eq!(third("{\"version\": 2, \"kb\": 2048}"), same);
        assert_eq!(third("{\"version\": 3, \"bytes\": 2097152}"), same);
    }

    #[test]
    fn what_is_no_document_of_ours_says_why() {
        let reason = |text: &str| third(text).unwrap_err();
        assert!(reason("{\"version\": 4}").contains("version 4 is newer"));
        // The fields fit, but may mean something else.
        assert!(reason("{\"version\": 4, \"bytes\": 1}").contains("version 4 is newer"));
        assert!(reason("{\"version\": 0, \"bytes\": 1}").contains("no version 0"));
        assert!(reason("{\"version\": 3").contains("no such document: EOF"));
        assert!(reason("{\"version\": 3}").contains("missing field `bytes`"));
        assert!(reason("[]").contains("no such document"));
        assert!(reason("").contains("no such document"));
    }

    #[test]
    fn every_older_version_has_a_step() {
        assert_eq!(
            RUNS_STEPS.len(),
            usize::try_from(Runs::VERSION).unwrap() - 1
        );
        assert_eq!(
            PROFILE_STEPS.len(),
            usize::try_from(Profile::VERSION).unwrap() - 1
        );
    }
}
