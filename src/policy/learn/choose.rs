//! Which part of a profile a run goes by.

use std::collections::BTreeMap;

use crate::model::ClassName;
use crate::model::plan::{Clock, Foresight};
use crate::model::profile::{ClassProfile, Confidence, Profile};

/// A class with fewer complete runs says nothing.
pub const LEAST_RUNS: u32 = 3;

/// Of so many runs one may leave the barrelled hull of the others.
const ONE_OF: u32 = 10;

/// The profile for an input: of the given class if it is known, else of the class by its features, else of all runs.
/// A class with fewer than [`LEAST_RUNS`] is passed over; without one, nothing is known.
pub fn choose<'a>(
    profile: &'a Profile,
    class: Option<&ClassName>,
    features: &BTreeMap<String, f64>,
) -> Option<(&'a ClassName, &'a ClassProfile)> {
    let known = |name: &ClassName| {
        let (name, class) = profile.classes.get_key_value(name)?;
        (class.runs >= LEAST_RUNS).then_some((name, class))
    };
    let by_features = || {
        let bins = profile.bins.as_ref()?;
        let value = features.get(&bins.feature).filter(|v| v.is_finite())?;
        known(&bins.class(*value).ok()?)
    };
    class
        .and_then(known)
        .or_else(by_features)
        .or_else(|| known(&ClassName::all()))
}

/// The clock by which the hull of a class can be replayed: the one by which fewer runs left the hull of the others,
/// wall time if there is no difference. `None` if by either more than 1 of 10 did, or there are fewer than
/// [`LEAST_RUNS`]: then the peaks may be used, and the hull may not.
pub fn trusted(class: &ClassProfile) -> Option<Clock> {
    let wall = Some((class.wall_confidence, Clock::Wall));
    let cpu = class.cpu_confidence.map(|cpu| (cpu, Clock::Cpu));
    // Of equal ones the first is the least.
    wall.into_iter()
        .chain(cpu)
        .filter(|(confidence, _)| passes(confidence))
        .min_by_key(|(confidence, _)| confidence.violations)
        .map(|(_, clock)| clock)
}

/// How well runs of a class foresee each other's growth, by this clock: no more than 1 of 10 grew otherwise.
pub fn foresight(class: &ClassProfile, clock: Clock) -> Foresight {
    let (growth, steady) = match clock {
        Clock::Wall => (class.wall_growth, class.wall_steady),
        Clock::Cpu => (class.cpu_growth, class.cpu_steady),
    };
    let passes = |growth: Option<Confidence>| growth.is_some_and(|growth| passes(&growth));
    match (passes(steady), passes(growth)) {
        (true, _) => Foresight::Steady,
        (_, true) => Foresight::About,
        (false, false) => Foresight::None,
    }
}

fn passes(confidence: &Confidence) -> bool {
    confidence.runs >= LEAST_RUNS && confidence.violations.saturating_mul(ONE_OF) <= confidence.runs
}
