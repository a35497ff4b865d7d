//! The local ratio of a policy that goes by earlier runs.

use std::time::Duration;

use crate::model::placed::Measured;
use crate::model::placement::{LocalRatio, PlacementPolicy};
use crate::model::{Quantile, Setting};
use crate::policy::pareto::{Rules, Slo, choose, explore};

/// What such a policy goes by.
#[derive(Debug, Clone, Copy)]
pub struct Learned<'a> {
    /// The policy.
    pub policy: PlacementPolicy,
    /// What is known of the ratios, for this function and input class.
    pub measured: &'a [Measured],
    /// The latency bound, if there is one.
    pub slo: Option<&'a Setting<Duration>>,
    /// The share of runs that is to keep to it.
    pub quantile: Quantile,
    /// Whether a lower ratio may be tried of which too little is known.
    pub explores: bool,
}

/// The ratio, and why it is this one. Local where nothing is known, and without a latency bound.
pub fn learned(learned: &Learned<'_>) -> (LocalRatio, String) {
    let policy = learned.policy;
    let Some(bound) = learned.slo else {
        let because = format!("placement {policy}: no latency bound is set (slo-ms)");
        return (LocalRatio::LOCAL, because);
    };
    let slo = Slo {
        latency: bound.value,
        quantile: learned.quantile.into(),
    };
    let rules = Rules::default();
    let bound = format!(
        "{} of runs within {:?} ({})",
        learned.quantile, bound.value, bound.origin
    );
    if policy == PlacementPolicy::Adrias {
        let ends = learned
            .measured
            .iter()
            .filter(|one| one.ratio == LocalRatio::LOCAL || one.ratio == LocalRatio::REMOTE);
        let ends: Vec<Measured> = ends.cloned().collect();
        let choice = choose(&ends, &slo, &rules);
        let because = format!("placement {policy}: {}; {bound}", choice.why);
        return (choice.ratio, because);
    }
    let choice = choose(learned.measured, &slo, &rules);
    if learned.explores {
        let next = explore(&choice, &slo, &rules);
        if next != choice.ratio {
            let because = format!(
                "placement {policy}: tried, for it should keep to the latency bound with less local memory than {}; {bound}",
                choice.ratio
            );
            return (next, because);
        }
    }
    let because = format!("placement {policy}: {}; {bound}", choice.why);
    (choice.ratio, because)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bytes;

    fn measured(percent: u64, millis: u64) -> Measured {
        Measured {
            ratio: LocalRatio::of(percent, 100 - percent).unwrap(),
            local: Bytes::new(percent << 20),
            latencies: vec![Duration::from_millis(millis); 50],
        }
    }

    #[test]
    fn a_policy_that_learns_takes_what_keeps_to_the_bound() {
        let known = [measured(0, 200), measured(50, 110), measured(100, 100)];
        let bound = |millis| Setting::default(Duration::from_millis(millis));
        let of = |policy, slo: Option<&Setting<Duration>>, known: &[Measured], explores| {
            learned(&Learned {
                policy,
                measured: known,
                slo,
                quantile: Quantile::P95,
                explores,
            })
        };
        let slo = bound(120);
        let (ratio, because) = of(PlacementPolicy::Adaptive, Some(&slo), &known, false);
        assert_eq!(ratio, known[1].ratio);
        assert!(
            because.contains("least local memory") && because.contains("0.95 of runs within 120ms"),
            "{because}"
        );
        let (ratio, _) = of(PlacementPolicy::Adrias, Some(&slo), &known, false);
        assert_eq!(ratio, LocalRatio::LOCAL);
        let slack = bound(250);
        let (ratio, _) = of(PlacementPolicy::Adrias, Some(&slack), &known, false);
        assert_eq!(ratio, LocalRatio::REMOTE);
        let (ratio, because) = of(PlacementPolicy::Adaptive, None, &known, true);
        assert_eq!(ratio, LocalRatio::LOCAL);
        assert!(because.contains("slo-ms"), "{because}");
        // Only local memory was measured: what may be tried is tried if that is allowed.
        let local = &known[2..];
        let (ratio, because) = of(PlacementPolicy::Adaptive, Some(&slo), local, true);
        assert!(
            ratio < LocalRatio::LOCAL && because.contains("tried"),
            "{because}"
        );
        assert_eq!(
            of(PlacementPolicy::Adaptive, Some(&slo), local, false).0,
            LocalRatio::LOCAL
        );
    }
}
