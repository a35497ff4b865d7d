//! What holds for every trace, hull and set of digests.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::model::Bytes;
use crate::model::profile::{BinWidth, Confidence, Hull, Hulls};
use crate::model::trace::{Context, End, Sample, Trace};

fn micros(max: u64) -> impl Strategy<Value = Duration> {
    (0..=max).prop_map(Duration::from_micros)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![0..1000_u64, any::<u64>()].prop_map(|bytes| Bytes::new(bytes / 4))
}

/// Samples with gaps from nothing to seconds, some columns empty.
fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let gap = prop_oneof![Just(Duration::ZERO), micros(5_000), micros(3_000_000)];
    let memory = (
        of(bytes()),
        of(bytes()),
        of(bytes()),
        of(bytes()),
        of(bytes()),
    );
    vec((gap, memory, of(micros(10_000))), 1..60).prop_map(|rows| {
        let (mut at, mut cpu) = (Duration::from_secs(1), Duration::ZERO);
        rows.into_iter()
            .map(|(gap, (usage, anon, file, shmem, kernel), used)| {
                at += gap;
                cpu += used.unwrap_or_default();
                Sample {
                    at,
                    usage,
                    anon,
                    file,
                    shmem,
                    kernel,
                    cpu: used.map(|_| cpu),
                    ..Sample::default()
                }
            })
            .collect()
    })
}

fn digested(number: usize, samples: Vec<Sample>, finest: BinWidth) -> Option<Digest> {
    let trace = Trace {
        context: Some(Context::new(
            format!("r{number}").parse().unwrap(),
            "ns/f".parse().unwrap(),
        )),
        end: Some(End::default()),
        nodes: Vec::new(),
        samples,
    };
    digest(&trace, finest).ok()
}

fn hulls() -> impl Strategy<Value = Hull> {
    (0..4_u64, vec(bytes(), 0..40)).prop_map(|(doubled, bins)| Hull {
        width: BinWidth::try_from(20_000 << doubled).unwrap(),
        bins,
    })
}

fn buffers() -> impl Strategy<Value = Buffer> {
    let sizes = prop_oneof![
        Just(Sizes::Every),
        bytes().prop_map(Sizes::MultiplesOf),
        Just(Sizes::PowersOfTwo),
        vec(bytes(), 0..5).prop_map(Sizes::These),
    ];
    (0..200_u32, bytes(), sizes).prop_map(|(percent, bytes, sizes)| Buffer {
        percent,
        bytes,
        sizes,
    })
}

/// Digests of a few runs with few differences, so that sets overlap and limits are met.
fn digests() -> impl Strategy<Value = Vec<Digest>> {
    let digest = (0..400_usize, any::<bool>(), 0..3_u64).prop_map(|(number, complete, peak)| {
        let run = format!("r{number:03}");
        let bins = Hull {
            bins: vec![Bytes::new(peak)],
            ..Hull::default()
        };
        Digest {
            run: run.parse().unwrap(),
            class: (number % 9 == 0).then(|| "given".parse().unwrap()),
            features: BTreeMap::from([("n".to_owned(), if number % 5 == 0 { 0.1 } else { 3.7 })]),
            duration: Duration::from_millis(20),
            cpu: Some(Duration::from_millis(peak)),
            jump: Some(Bytes::new(peak / 9)),
            burst: Some(Bytes::new(peak / 3)),
            held_peak: Bytes::new(peak),
            file_peak: Bytes::new(number as u64),
            usage_peak: Bytes::new(peak),
            complete,
            placement: None,
            seen: crate::model::placed::Seen::default(),
            wall: Hulls {
                held: bins.clone(),
                file: bins,
            },
            by_cpu: None,
        }
    });
    vec(digest, 0..300)
}

/// Held memory of a trace from each of its samples in which all kinds were read to the next sample.
fn held(samples: &[Sample]) -> Vec<(Duration, Duration, Bytes)> {
    let begin = samples[0].at;
    let nexts = samples.iter().skip(1).chain(samples.last());
    let kinds = samples.iter().zip(nexts).filter_map(|(sample, next)| {
        let sum = sample.anon?.get() + sample.shmem?.get() + sample.kernel?.get();
        Some((sample.at - begin, next.at - begin, Bytes::new(sum)))
    });
    kinds.collect()
}

/// So many cases, and no file of those that failed.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_hull_holds_every_run_at_every_moment(
        runs in vec(samples(), 1..6),
        doubled in 0..3_u64,
    ) {
        let finest = BinWidth::try_from(10_000 << doubled).unwrap();
        let digests: Vec<Option<Digest>> = runs
            .iter()
            .enumerate()
            .map(|(number, samples)| digested(number, samples.clone(), finest))
            .collect();
        let profile = learn(
            "ns/f".parse().unwrap(),
            &digests.iter().flatten().cloned().collect(),
            &Rules::default(),
        );
        for (samples, digest) in runs.iter().zip(&digests) {
            let Some(digest) = digest else { continue };
            let class = &profile.classes[&ClassName::all()];
            prop_assert!(digest.wall.held.bins.len() <= MOST_BINS);
            prop_assert_eq!(digest.wall.held.largest(), Some(digest.held_peak));
            prop_assert_eq!(digest.wall.file.largest(), Some(digest.file_peak));
            if let Some(by_cpu) = &digest.by_cpu {
                prop_assert_eq!(by_cpu.held.largest(), Some(digest.held_peak));
            }
            // The end belongs to the last bin.
            let last = digest.duration.saturating_sub(Duration::from_micros(1));
            for (from, to, need) in held(samples) {
                // It holds until the next sample.
                for moment in [from, from + (to - from) / 2] {
                    for hull in [&digest.wall.held, &class.wall.held] {
                        prop_assert!(hull.at(moment.min(last)) >= Some(need), "at {moment:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn wider_bins_are_what_the_trace_has_in_them(samples in samples()) {
        let digest = |width| digested(0, samples.clone(), BinWidth::try_from(width).unwrap());
        let (Some(fine), Some(wide)) = (digest(20_000), digest(80_000)) else { return Ok(()) };
        let pairs = [(fine.wall, wide.wall)].into_iter().chain(fine.by_cpu.zip(wide.by_cpu));
        for (fine, wide) in pairs {
            prop_assert_eq!(fine.held.widened(wide.held.width), wide.held);
            prop_assert_eq!(fine.file.widened(wide.file.width), wide.file);
        }
    }

    #[test]
    fn a_union_holds_both_in_any_order(a in hulls(), b in hulls(), c in hulls()) {
        let union = a.union(&b);
        prop_assert_eq!(&union, &b.union(&a));
        prop_assert_eq!(union.union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(union.union(&a), union);
    }

    #[test]
    fn a_barrelled_hull_holds_what_comes_within_the_lead(
        hull in hulls(),
        lead in micros(300_000),
        more in micros(300_000),
        buffer in buffers(),
    ) {
        let barrelled = barrel(&hull, lead, &buffer);
        let later = barrel(&hull, lead + more, &buffer);
        prop_assert_eq!(barrelled.bins.len(), hull.bins.len());
        let mut t = Duration::ZERO;
        while t < hull.end() {
            for ahead in [Duration::ZERO, lead / 2, lead] {
                prop_assert!(barrelled.at(t) >= hull.at(t + ahead));
            }
            prop_assert!(later.at(t) >= barrelled.at(t));
            t += Duration::from_micros(6_700);
        }
        let exact = barrel(&hull, lead, &Buffer::NONE);
        prop_assert_eq!(barrel(&hull, Duration::ZERO, &Buffer::NONE), hull.clone());
        // Nothing is granted that is not needed within the lead.
        for (index, value) in exact.bins.iter().enumerate() {
            let ahead = lead.as_micros().div_ceil(hull.width.as_duration().as_micros());
            let window = hull.bins.iter().skip(index).take(ahead as usize + 1);
            prop_assert_eq!(Some(value), window.max());
        }
    }

    #[test]
    fn the_check_is_the_same_as_learning_without_each_run(
        hulls in vec((hulls(), any::<bool>()), 2..7),
        lead in micros(100_000),
    ) {
        let nothing = Sample { anon: Some(Bytes::ZERO), ..Sample::default() };
        let run = |(number, (hull, complete))| Digest {
            complete,
            placement: None,
            seen: crate::model::placed::Seen::default(),
            wall: Hulls { held: hull, file: Hull::default() },
            ..digested(number, vec![nothing.clone()], BinWidth::default()).unwrap()
        };
        let runs: Vec<Digest> = hulls.into_iter().enumerate().map(run).collect();
        let rules = Rules { lead, ..Rules::default() };
        let profile = learn("ns/f".parse().unwrap(), &runs.iter().cloned().collect(), &rules);
        let width = runs.iter().map(|run| run.wall.held.width).max().unwrap();
        let mut expected = Confidence::default();
        let complete = runs.iter().filter(|run| run.complete);
        for left_out in complete.clone().filter(|_| complete.clone().count() > 1) {
            let others = runs.iter().filter(|run| run.run != left_out.run);
            let none = Hull { width, bins: Vec::new() };
            let rest = others.fold(none, |hull, run| hull.union(&run.wall.held));
            let rest = barrel(&rest, lead, &rules.buffer);
            let need = left_out.wall.held.widened(width);
            let short = need.bins.iter().enumerate().map(|(index, need)| {
                let granted = rest.bins.get(index).copied().or(rest.largest());
                need.saturating_sub(granted.unwrap_or_default())
            });
            let worst = short.max().unwrap_or_default();
            expected.runs += 1;
            expected.violations += u32::from(worst > Bytes::ZERO);
            expected.worst = expected.worst.max(worst);
        }
        let found = profile.classes.get(&ClassName::all());
        let found = found.map(|class| class.wall_confidence);
        prop_assert_eq!(found.unwrap_or_default(), expected);
    }

    #[test]
    fn a_buffer_takes_nothing_away(need in bytes(), more in bytes(), buffer in buffers()) {
        prop_assert!(buffer.above(need) >= need);
        let larger = Bytes::new(need.get() + more.get());
        // Beyond the largest size there is no size to wait for.
        if !matches!(buffer.sizes, Sizes::These(_)) {
            prop_assert!(buffer.above(larger) >= buffer.above(need));
        }
    }

    #[test]
    fn digests_and_profiles_are_read_as_they_were_written(runs in vec(samples(), 0..5)) {
        let digests: Digests = runs
            .into_iter()
            .enumerate()
            .filter_map(|(number, samples)| digested(number, samples, BinWidth::default()))
            .collect();
        let json = serde_json::to_string(&digests).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Digests>(&json).unwrap(), &digests);
        let profile = learn("ns/f".parse().unwrap(), &digests, &Rules::default());
        let json = serde_json::to_string(&profile).unwrap();
        prop_assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), profile);
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        a in digests(),
        b in digests(),
        c in digests(),
    ) {
        let [a, b, c] = [a, b, c].map(Digests::from);
        let ab = a.clone().merge(b.clone());
        prop_assert_eq!(&ab, &b.clone().merge(a.clone()));
        prop_assert_eq!(ab.clone().merge(c.clone()), a.clone().merge(b.merge(c)));
        prop_assert_eq!(ab.clone().merge(a.clone()), ab);
        prop_assert_eq!(a.clone().merge(a.clone()), a.clone());
        prop_assert_eq!(a.clone().merge(Digests::default()), a);
    }
}
