use proptest::prelude::*;

use super::*;

const SLO: Slo = Slo {
    latency: Duration::from_millis(120),
    quantile: 0.9,
};

fn ratio(percent: u64) -> LocalRatio {
    LocalRatio::of(percent, 100 - percent).unwrap()
}

fn mib(mib: u64) -> Bytes {
    Bytes::from_mib(mib).unwrap()
}

/// Runs at one ratio: a latency in ms, with a spread of 5 ms, and local memory.
fn runs(percent: u64, count: u64, millis: u64, local: u64) -> Measured {
    Measured {
        ratio: ratio(percent),
        local: mib(local),
        latencies: (0..count)
            .map(|number| Duration::from_millis(millis + number % 6))
            .collect(),
    }
}

/// With more runs, of which there may be some already.
fn and(measured: &[Measured], more: Measured) -> Vec<Measured> {
    let mut all = measured.to_vec();
    match all.iter_mut().find(|one| one.ratio == more.ratio) {
        Some(one) => one.latencies.extend(more.latencies),
        None => all.push(more),
    }
    all.sort_by_key(|one| one.ratio);
    all
}

fn outcomes(parts: &[(u64, u64, u64, u64)]) -> Vec<Measured> {
    parts
        .iter()
        .fold(Vec::new(), |all, (percent, count, millis, local)| {
            and(&all, runs(*percent, *count, *millis, *local))
        })
}

#[test]
fn the_least_local_memory_that_keeps_to_the_bound_is_taken() {
    let seen = outcomes(&[
        (100, 30, 100, 200),
        (75, 30, 105, 150),
        (50, 30, 112, 100),
        (0, 30, 180, 0),
    ]);
    let choice = choose(&seen, &SLO, &Rules::default());
    assert_eq!(choice.ratio, ratio(50));
    let Why::Least {
        of_local: Some(share),
    } = choice.why
    else {
        panic!("{:?}", choice.why)
    };
    // Half the memory for 114.5 in place of 102.5 ms.
    assert!((share - 0.5 * 114.5 / 102.5).abs() < 1e-9, "{share}");
    let strict = Slo {
        latency: Duration::from_millis(112),
        ..SLO
    };
    assert_eq!(choose(&seen, &strict, &Rules::default()).ratio, ratio(75));
}

#[test]
fn too_few_runs_are_no_promise() {
    let seen = outcomes(&[(100, 30, 100, 200), (50, 21, 100, 100)]);
    assert_eq!(
        choose(&seen, &SLO, &Rules::default()).ratio,
        LocalRatio::LOCAL
    );
    let few = outcomes(&[(100, 21, 100, 200), (50, 3, 100, 100)]);
    let choice = choose(&few, &SLO, &Rules::default());
    assert_eq!(
        choice.why,
        Why::TooFewRuns {
            most: 21,
            fewest: 22
        }
    );
    assert_eq!(
        choice.why.to_string(),
        "21 runs at one ratio are too few to say that it keeps to the latency bound, it takes 22"
    );
    assert_eq!(
        choose(&[], &SLO, &Rules::default()).ratio,
        LocalRatio::LOCAL
    );
}

#[test]
fn a_bound_that_cannot_be_kept_is_met_as_well_as_it_can_be() {
    let seen = outcomes(&[(100, 30, 130, 200), (50, 30, 150, 100)]);
    let choice = choose(&seen, &SLO, &Rules::default());
    assert_eq!(choice.ratio, LocalRatio::LOCAL);
    let best = Duration::from_millis(135);
    assert_eq!(choice.why, Why::CannotBeMet { best });
}

/// What was measured counts, also where it is not what one would expect.
#[test]
fn each_ratio_is_judged_by_its_own_runs() {
    let seen = outcomes(&[(0, 30, 130, 0), (50, 30, 150, 100), (100, 30, 100, 200)]);
    let points = points(&seen, &SLO, &Rules::default());
    let bounds: Vec<Duration> = points.iter().filter_map(|point| point.bound).collect();
    assert_eq!(bounds, [135, 155, 105].map(Duration::from_millis));
    assert_eq!(
        choose(&seen, &SLO, &Rules::default()).ratio,
        LocalRatio::LOCAL
    );
}

/// The pitfall of the talk: what one instance saves, the others cost.
#[test]
fn slower_functions_need_more_instances() {
    let slo = Slo {
        latency: Duration::from_secs(1),
        ..SLO
    };
    // A third less, and twice as long.
    let seen = outcomes(&[(100, 30, 100, 150), (50, 30, 200, 100)]);
    let busy = Rules {
        rate: Some(100.0),
        ..Rules::default()
    };
    let choice = choose(&seen, &slo, &busy);
    assert_eq!(
        (choice.ratio, choice.why),
        (LocalRatio::LOCAL, Why::LocalIsLeast)
    );
    assert_eq!(
        choose(&seen, &slo, &Rules::default()).ratio,
        LocalRatio::LOCAL
    );
    // With a request now and then one instance is there in any case.
    let seldom = Rules {
        rate: Some(0.01),
        ..Rules::default()
    };
    assert_eq!(choose(&seen, &slo, &seldom).ratio, ratio(50));
}

#[test]
fn what_is_tried_keeps_to_the_bound_at_the_worst() {
    let rules = Rules::default();
    let next = |seen: &[Measured], slo: &Slo| explore(&choose(seen, slo, &rules), slo, &rules);
    let slo = |millis| Slo {
        latency: Duration::from_millis(millis),
        ..SLO
    };
    // Nothing is known: local.
    assert_eq!(next(&[], &slo(1000)), LocalRatio::LOCAL);
    let local = vec![runs(100, 22, 100, 200)];
    // 105 ms * 2.85 * 0.02 more, at the worst.
    assert_eq!(next(&local, &slo(111)), ratio(98));
    assert_eq!(next(&local, &slo(110)), LocalRatio::LOCAL);
    // It is tried until it is known.
    let seen = and(&local, runs(98, 21, 101, 196));
    assert_eq!(next(&seen, &slo(111)), ratio(98));
    // 1 ms for two hundredths: not more than 2.25 for the next three.
    let seen = and(&seen, runs(98, 1, 101, 196));
    assert_eq!(next(&seen, &slo(109)), ratio(95));
    assert_eq!(next(&seen, &slo(108)), ratio(98));
    // More than one of ten is over the bound: this was enough of it.
    let failed = and(&seen, runs(95, 2, 150, 190));
    assert_eq!(next(&failed, &slo(120)), ratio(95));
    let failed = and(&failed, runs(95, 1, 150, 190));
    assert_eq!(next(&failed, &slo(120)), ratio(98));
    // What is known to be too slow is not tried again, nor what lies below it.
    let seen = and(&seen, runs(95, 22, 150, 190));
    assert_eq!(next(&seen, &slo(120)), ratio(98));
}

proptest! {
    #[test]
    fn a_choice_is_the_same_each_time_and_no_other_point_is_better(
        parts in prop::collection::vec((0u64..=10, 1u64..60, 50u64..200, 1u64..300), 0..12),
        millis in 60u64..220,
        rate in prop::option::of(0.01f64..50.0),
    ) {
        let parts: Vec<_> = parts.into_iter().map(|(tenths, n, ms, local)| (tenths * 10, n, ms, local)).collect();
        let seen = outcomes(&parts);
        let slo = Slo { latency: Duration::from_millis(millis), ..SLO };
        let rules = Rules { rate, ..Rules::default() };
        let choice = choose(&seen, &slo, &rules);
        prop_assert_eq!(&choice, &choose(&seen, &slo, &rules));
        let keeps = |p: &&Point| p.bound.is_some_and(|bound| bound <= slo.latency);
        let chosen = choice.points.iter().find(|p| p.ratio == choice.ratio);
        match choice.why {
            Why::Least { .. } => {
                let chosen = chosen.unwrap();
                prop_assert!(keeps(&chosen));
                for other in choice.points.iter().filter(keeps) {
                    prop_assert!(chosen.footprint() <= other.footprint());
                }
            }
            _ => prop_assert_eq!(choice.ratio, LocalRatio::LOCAL),
        }
        let set = pareto_set(&choice.points);
        for point in &choice.points {
            let Some(bound) = point.bound else { continue };
            // It is in the set, or one of the set is as good in both and better in one.
            let is_beaten = set.iter().any(|p| {
                p.footprint() <= point.footprint() && p.bound.is_some_and(|b| b <= bound)
            });
            prop_assert!(is_beaten);
        }
        for pair in set.windows(2) {
            prop_assert!(pair[0].footprint() <= pair[1].footprint() && pair[0].bound > pair[1].bound);
        }
    }

    /// The bound of a quantile is not below it more often than is said, whatever the distribution.
    #[test]
    fn more_runs_never_lose_the_bound(count in 22usize..120, seed in 0u64..1000) {
        let latency = |n: usize| Duration::from_micros(1000 + (u64::try_from(n).unwrap() * 7919 + seed * 104_729) % 5000);
        let seen: Vec<Duration> = (0..count).map(latency).collect();
        let bound = upper_bound(&seen, 0.9, 0.9).unwrap();
        let below = seen.iter().filter(|l| **l <= bound).count();
        // At least nine of ten of those that were seen.
        prop_assert!(below * 10 >= count * 9);
    }
}
