use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::model::Bytes;
use crate::model::plan::{Clock, Foresight};
use crate::model::profile::{BinWidth, Confidence, Hull, Hulls, InputBins};
use crate::model::trace::{COLUMNS, Trace, VERSION_LINE};

/// A trace from samples of `t_us,usage,anon,file,shmem,kernel,cpu_us`.
fn trace(samples: &[&str], end: &str) -> Trace {
    let mut text = format!(
        "{VERSION_LINE}\n# context {{\"run\":\"r1\",\"function\":\"ns/f\"}}\n{}\n",
        COLUMNS.join(",")
    );
    for sample in samples {
        let cells: Vec<&str> = sample.split(',').collect();
        let [t, usage, anon, file, shmem, kernel, cpu] = cells[..] else {
            panic!("{sample}")
        };
        text += &format!("{t},{usage},{anon},{file},{shmem},{kernel},,,{cpu},,,,,\n");
    }
    (text + end).parse().unwrap()
}

const END: &str = "# end {\"code\":0,\"peak\":77}\n";

fn digested(samples: &[&str]) -> Digest {
    digest(&trace(samples, END), BinWidth::default()).unwrap()
}

fn numbers(hull: &Hull) -> Vec<u64> {
    hull.bins.iter().map(|bytes| bytes.get()).collect()
}

fn hull(bins: &[u64]) -> Hull {
    Hull {
        bins: bins.iter().copied().map(Bytes::new).collect(),
        ..Hull::default()
    }
}

/// A complete run with a hull of held memory over wall time.
fn run(name: &str, bins: &[u64]) -> Digest {
    let peak = Bytes::new(bins.iter().copied().max().unwrap());
    Digest {
        run: name.parse().unwrap(),
        class: None,
        features: BTreeMap::new(),
        duration: hull(bins).end(),
        cpu: None,
        jump: None,
        burst: None,
        held_peak: peak,
        file_peak: Bytes::ZERO,
        usage_peak: peak,
        complete: true,
        placement: None,
        seen: crate::model::placed::Seen::default(),
        wall: Hulls {
            held: hull(bins),
            file: hull(&[0]),
        },
        by_cpu: None,
    }
}

fn exact() -> Rules {
    Rules {
        lead: Duration::ZERO,
        buffer: Buffer::NONE,
        ..Rules::default()
    }
}

fn learned(runs: impl IntoIterator<Item = Digest>, rules: &Rules) -> Profile {
    learn("ns/f".parse().unwrap(), &runs.into_iter().collect(), rules)
}

#[test]
fn a_value_fills_every_bin_until_the_next_is_read() {
    let digest = digested(&[
        "1000,,10,1,2,3,5000",
        "55000,,30,9,2,3,5000",
        "61000,,1,0,0,0,31000",
        // Read at the very end, on the edge of a bin that the run does not reach.
        "121000,,8,0,0,0,31000",
    ]);
    assert_eq!(numbers(&digest.wall.held), [15, 15, 35, 1, 1, 8]);
    assert_eq!(numbers(&digest.wall.file), [1, 1, 9, 0, 0, 0]);
    assert_eq!(digest.duration, Duration::from_millis(120));
    assert_eq!(digest.cpu, Some(Duration::from_millis(26)));
    let by_cpu = digest.by_cpu.unwrap();
    assert_eq!(numbers(&by_cpu.held), [35, 35]);
    assert_eq!(digest.held_peak, Bytes::new(35));
    assert_eq!(digest.file_peak, Bytes::new(9));
    assert_eq!(digest.usage_peak, Bytes::new(77));
    assert!(digest.complete);
}

#[test]
fn what_was_not_read_apart_counts_as_held() {
    let usage = digested(&["0,100,,,,,", "30000,70,,,,,", "40000,,,,,,"]);
    assert_eq!(numbers(&usage.wall.held), [100, 100]);
    assert_eq!(numbers(&usage.wall.file), [0, 0]);
    assert_eq!(usage.by_cpu, None);
    // A kernel that does not tell its own memory.
    let no_kernel = digested(&["0,100,60,30,1,,", "20000,,50,30,1,,"]);
    assert_eq!(no_kernel.held_peak, Bytes::new(61));
}

#[test]
fn bins_of_a_long_run_are_wider() {
    let at = |micros: u64| format!("{micros},,1,0,0,0,");
    let width = |end: u64| {
        let digest = digested(&[&at(0), &at(end)]);
        (digest.wall.held.width.micros(), digest.wall.held.bins.len())
    };
    assert_eq!(width(0), (20_000, 1));
    assert_eq!(width(5_120_000), (20_000, 256));
    assert_eq!(width(5_120_001), (40_000, 129));
    assert_eq!(width(3_600_000_000), (20_000 << 10, 176));
    let (_, bins) = width(u64::MAX);
    assert!((129..=256).contains(&bins), "{bins}");
}

#[test]
fn a_run_that_was_cut_off_or_killed_is_not_complete() {
    let complete = |end: &str| {
        let trace = trace(&["0,,1,0,0,0,"], end);
        digest(&trace, BinWidth::default()).unwrap().complete
    };
    assert!(complete("# end {}\n"));
    assert!(complete("# end {\"code\":143}\n"));
    assert!(!complete(""));
    assert!(!complete("# end {\"code\":1}\n"));
    assert!(!complete("# end {\"code\":0,\"oomKills\":1}\n"));
}

#[test]
fn a_trace_without_context_or_memory_has_no_digest() {
    let mut trace = trace(&["0,,,,,,7"], END);
    assert_eq!(digest(&trace, BinWidth::default()), Err(NoDigest::NoMemory));
    trace.context = None;
    assert_eq!(
        digest(&trace, BinWidth::default()),
        Err(NoDigest::NoContext)
    );
}

/// The hull of the paper's figure 2: in each bin the largest value of all runs, to the end of the longest.
#[test]
fn the_hull_is_the_largest_value_of_each_bin() {
    let profile = learned(
        [
            run("r1", &[1, 9, 2]),
            run("r2", &[3, 4, 4, 4]),
            run("r3", &[2, 5, 1]),
        ],
        &exact(),
    );
    let class = &profile.classes[&ClassName::all()];
    assert_eq!(numbers(&class.wall.held), [3, 9, 4, 4]);
    assert_eq!(class.runs, 3);
    assert_eq!(class.held_peak.max, Bytes::new(9));
    assert_eq!(class.held_peak.p50, Bytes::new(5));
    assert_eq!(class.duration, Duration::from_millis(80));
    // r1 exceeds [3, 5, 4, 4] by 4, r2 exceeds [2, 9, 2] by 2 in the third bin and, in the fourth, not the 9 that hold
    // after the end of the others; r3 stays below.
    let confidence = Confidence {
        runs: 3,
        violations: 2,
        worst: Bytes::new(4),
    };
    assert_eq!(class.wall_confidence, confidence);
    assert_eq!(trusted(class), None);
}

#[test]
fn lead_and_buffer_count_in_the_leave_one_out_check() {
    let runs = || {
        [
            run("r1", &[1, 1, 9, 9]),
            run("r2", &[1, 9, 9, 1]),
            run("r3", &[1, 1, 9, 9]),
        ]
    };
    let violations = |rules: &Rules| {
        let profile = learned(runs(), rules);
        let class = &profile.classes[&ClassName::all()];
        (class.wall_confidence.violations, trusted(class))
    };
    assert_eq!(violations(&exact()), (1, None));
    let lead = Rules {
        lead: Duration::from_millis(20),
        ..exact()
    };
    assert_eq!(violations(&lead), (0, Some(Clock::Wall)));
    let buffer = Rules {
        buffer: Buffer {
            bytes: Bytes::new(8),
            ..Buffer::NONE
        },
        ..exact()
    };
    assert_eq!(violations(&buffer), (0, Some(Clock::Wall)));
}

#[test]
fn growth_is_foreseen_where_others_grew_from_there() {
    const MIB: u64 = 1 << 20;
    // Rises after so many bins, in one of them.
    let rising = |name: &str, at: usize| {
        let bins: Vec<u64> = (0..50).map(|bin| if bin < at { 10 } else { 60 }).collect();
        let bins: Vec<u64> = bins.into_iter().map(|mib| mib * MIB).collect();
        run(name, &bins)
    };
    let growth = |runs: &[(&str, usize)]| {
        let runs = runs.iter().map(|(name, at)| rising(name, *at));
        let profile = learned(runs, &Rules::default());
        let class = profile.classes.values().next().unwrap().clone();
        let wall = class.wall_growth.unwrap();
        (
            wall.violations,
            foresight(&class, Clock::Wall),
            trusted(&class),
        )
    };
    // The hull of the others is left by the first of them, by more than the lead: it cannot be replayed.
    assert_eq!(
        growth(&[("a", 15), ("b", 23), ("c", 23)]),
        (0, Foresight::About, None)
    );
    // Up to a tenth of the time room is kept for what others will have soon.
    assert_eq!(
        growth(&[("a", 20), ("b", 23), ("c", 23)]),
        (0, Foresight::Steady, None)
    );
    // 20 ms are no difference: bins are that wide.
    assert_eq!(
        growth(&[("a", 22), ("b", 23), ("c", 23)]),
        (0, Foresight::Steady, Some(Clock::Wall))
    );
    // One that is late has others before it.
    assert_eq!(
        growth(&[("a", 23), ("b", 23), ("c", 40)]),
        (0, Foresight::Steady, Some(Clock::Wall))
    );
    // What goes on for longer than with the others is seen without them, what begins is not.
    let ramp = |name, ends: u64| {
        let bins: Vec<u64> = (0..50)
            .map(|bin: u64| (10 + 5 * bin.min(ends)) * MIB)
            .collect();
        run(name, &bins)
    };
    let profile = learned(
        [ramp("a", 20), ramp("b", 20), ramp("c", 40)],
        &Rules::default(),
    );
    let class = profile.classes.values().next().unwrap();
    assert_eq!(class.wall_growth.unwrap().violations, 0);
    // Long before anybody else grew.
    assert_eq!(
        growth(&[("a", 8), ("b", 23), ("c", 23)]),
        (1, Foresight::None, None)
    );
    // One run says nothing.
    let profile = learned([rising("a", 20)], &Rules::default());
    let class = profile.classes.values().next().unwrap();
    assert!(class.wall_growth.is_none() && foresight(class, Clock::Wall) == Foresight::None);
}

#[test]
fn what_came_at_once_is_counted_by_usage() {
    let row = |micros: u64, usage: u64| format!("{micros},{usage},,,,,0");
    let growth = |rows: &[(u64, u64)]| {
        let rows: Vec<String> = rows.iter().map(|(at, usage)| row(*at, *usage)).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let digest = digested(&rows);
        (digest.jump.map(Bytes::get), digest.burst.map(Bytes::get))
    };
    // Every 2 ms, 10 bytes each: those of three of them, and of eleven.
    let even: Vec<(u64, u64)> = (0..30).map(|n| (n * 2_000, n * 10)).collect();
    assert_eq!(growth(&even), (Some(30), Some(110)));
    // Between two looks half as much again as evenly: 6 of 10 ms, 30 of 40 ms.
    assert_eq!(growth(&[(0, 0), (10_000, 100)]), (Some(60), Some(100)));
    assert_eq!(growth(&[(0, 0), (40_000, 100)]), (Some(15), Some(75)));
    // Nobody knows.
    assert_eq!(growth(&[(0, 0), (50_000, 100)]), (None, None));
}

#[test]
fn an_incomplete_run_raises_the_hull_and_counts_as_none() {
    let killed = Digest {
        complete: false,
        ..run("r9", &[50])
    };
    let profile = learned(
        [run("r1", &[1, 2]), run("r2", &[1, 2]), killed.clone()],
        &exact(),
    );
    let class = &profile.classes[&ClassName::all()];
    assert_eq!(numbers(&class.wall.held), [50, 2]);
    assert_eq!((class.runs, class.wall_confidence.runs), (2, 2));
    assert_eq!(class.held_peak.max, Bytes::new(50));
    assert_eq!(class.held_peak.p99, Bytes::new(2));
    assert!(learned([killed], &exact()).classes.is_empty());
}

/// Page caches in KiB as recorded of `sleep`, `dna` and `stages`: warm runs, and runs after the files were dropped from
/// memory. `stages` writes a file of its own each time.
#[test]
fn a_cold_run_has_far_more_page_cache_than_the_others() {
    let cold = |peaks: &[u64]| {
        let runs = peaks.iter().zip(1..).map(|(kib, number)| Digest {
            file_peak: Bytes::new(kib << 10),
            ..run(&format!("r{number}"), &[1])
        });
        let profile = learned(runs, &exact());
        let class = &profile.classes[&ClassName::all()];
        let mib = |bytes: Bytes| bytes.get() >> 20;
        (
            class.cold_runs,
            mib(class.file_peak.max),
            class.cold_file_peak.map(|peak| mib(peak.min)),
        )
    };
    assert_eq!(cold(&[8, 12, 0, 10_900, 10_860]), (2, 0, Some(10)));
    assert_eq!(cold(&[35_530, 40_100, 35_300, 87_400]), (1, 39, Some(85)));
    assert_eq!(cold(&[102_400, 102_450]), (0, 100, None));
    assert_eq!(cold(&[10_900]), (0, 10, None));
}

#[test]
fn an_old_outlier_ages_out() {
    let newer = |count: usize| (0..count).map(|number| run(&format!("s{number:03}"), &[1]));
    let outlier = run("r000", &[99]);
    let peak = |count| {
        let profile = learned(newer(count).chain([outlier.clone()]), &exact());
        profile.classes[&ClassName::all()].held_peak.max
    };
    assert_eq!(peak(MOST_KEPT_ALIKE - 1), Bytes::new(99));
    assert_eq!(peak(MOST_KEPT_ALIKE), Bytes::new(1));
}

#[test]
fn frequent_inputs_do_not_drive_out_rare_ones() {
    let sized = |name: String, bytes: f64| Digest {
        features: BTreeMap::from([("input-bytes".to_owned(), bytes)]),
        ..run(&name, &[1])
    };
    let frequent = (0..1000).map(|number| sized(format!("s{number:04}"), 1000.0));
    let digests: Digests = frequent.chain([sized("r".to_owned(), 1e6)]).collect();
    assert_eq!(digests.len(), MOST_KEPT_ALIKE + 1);
    assert!(digests.get(&"r".parse().unwrap()).is_some());
    assert!(digests.get(&"s0936".parse().unwrap()).is_some());
    assert!(digests.get(&"s0935".parse().unwrap()).is_none());
    let classes = (0..1000).map(|number| Digest {
        class: Some(format!("c{number}").parse().unwrap()),
        ..run(&format!("s{number:04}"), &[1])
    });
    let digests: Digests = classes.collect();
    assert_eq!(digests.len(), MOST_KEPT);
    let profile = learn("ns/f".parse().unwrap(), &digests, &exact());
    assert_eq!(profile.classes.len(), MOST_GIVEN + 1);
    assert!(profile.classes.contains_key(&"c999".parse().unwrap()));
}

#[test]
fn of_two_digests_of_a_run_the_complete_one_stays() {
    let complete = run("r1", &[1]);
    let cut = Digest {
        complete: false,
        ..run("r1", &[1, 1, 1])
    };
    for pair in [[complete.clone(), cut.clone()], [cut, complete.clone()]] {
        let digests: Digests = pair.into_iter().collect();
        assert_eq!(digests.iter().collect::<Vec<_>>(), [&complete]);
    }
}

#[test]
fn the_given_class_comes_first_then_the_features_then_all() {
    let class = |name: &str, given: &str, peak| Digest {
        class: Some(given.parse().unwrap()),
        ..run(name, &[peak])
    };
    let mut runs: Vec<Digest> = (0..6)
        .map(|n: u32| Digest {
            features: BTreeMap::from([("n".to_owned(), f64::from(n / 3))]),
            ..run(&format!("r{n}"), &[1000_u64.pow(1 + n / 3)])
        })
        .collect();
    runs.extend((0..3).map(|n| class(&format!("s{n}"), "big", 7)));
    runs.push(class("s4", "rare", 8));
    let mut profile = learned(runs, &exact());
    let chosen = |profile: &Profile, given: Option<&str>, n: f64| {
        let features = BTreeMap::from([("n".to_owned(), n)]);
        let given = given.map(|name| name.parse().unwrap());
        choose(profile, given.as_ref(), &features).map(|(name, _)| name.to_string())
    };
    // Classes of 3 are too small to be learned.
    assert_eq!(profile.bins, None);
    assert_eq!(chosen(&profile, Some("big"), 0.0).as_deref(), Some("big"));
    assert_eq!(chosen(&profile, Some("rare"), 0.0).as_deref(), Some("*"));
    assert_eq!(chosen(&profile, None, 0.0).as_deref(), Some("*"));
    profile.classes.remove(&ClassName::all());
    assert_eq!(chosen(&profile, Some("new"), 0.0), None);
}

/// `(features, is an avatar, digest)` of the recorded pictures.
fn pictures() -> Vec<(bool, Digest)> {
    let lines = include_str!("pictures.csv").lines();
    lines
        .filter(|line| !line.starts_with('#'))
        .skip(1)
        .map(|line| {
            let (name, rest) = line.split_once(',').unwrap();
            let cells: Vec<u32> = rest.split(',').map(|cell| cell.parse().unwrap()).collect();
            let [bytes, width, height, peak, micros] = cells[..] else {
                panic!("{line}")
            };
            let features = [("input-bytes", bytes), ("pixels", width * height)];
            let digest = Digest {
                features: features
                    .map(|(name, value)| (name.to_owned(), value.into()))
                    .into(),
                duration: Duration::from_micros(micros.into()),
                ..run(name, &[peak.into()])
            };
            (name.starts_with("avatar"), digest)
        })
        .collect()
}

/// The avatars and content pictures of the paper (section 3.3, figures 4 and 5): file sizes overlap, so that parting
/// by them is sometimes wrong; the number of pixels tells more.
#[test]
fn pixels_part_avatars_from_content_better_than_file_size() {
    let pictures = pictures();
    let range = |feature: &str, avatars: bool| {
        let of = pictures.iter().filter(|(avatar, _)| *avatar == avatars);
        let values: Vec<f64> = of.map(|(_, digest)| digest.features[feature]).collect();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        (least, values.iter().copied().fold(0.0, f64::max))
    };
    assert!(range("input-bytes", true).1 > range("input-bytes", false).0);
    assert!(range("pixels", true).1 < range("pixels", false).0);

    let digests: Digests = pictures.iter().map(|(_, digest)| digest.clone()).collect();
    let candidates = candidates(&digests, &Rules::default());
    let names: Vec<&str> = candidates
        .iter()
        .map(|bins| bins.feature.as_str())
        .collect();
    assert_eq!(names, ["pixels", "input-bytes"]);
    let [pixels, bytes] = &candidates[..] else {
        panic!()
    };
    assert!(pixels.relative_cost < bytes.relative_cost, "{candidates:?}");
    // The figures of docs/profiles.md.
    let figures = |bins: &InputBins| {
        let percent = |share: f64| (share * 100.0).round();
        (
            bins.edges.len(),
            percent(bins.relative_cost),
            percent(bins.false_positives),
        )
    };
    assert_eq!(figures(pixels), (3, 54.0, 4.0));
    assert_eq!(figures(bytes), (2, 60.0, 7.0));
    assert!(
        pixels.false_positives < bytes.false_positives,
        "{candidates:?}"
    );

    // Pairs of pictures of which the larger one needs less memory.
    let inversions = |feature: &str| {
        let all = || pictures.iter().map(|(_, digest)| digest);
        let wrong = |a: &Digest, b: &Digest| {
            a.features[feature] < b.features[feature] && a.held_peak > b.held_peak
        };
        all()
            .map(|a| all().filter(|b| wrong(a, b)).count())
            .sum::<usize>()
    };
    assert!(inversions("pixels") * 2 < inversions("input-bytes"));

    let profile = learn("ns/f".parse().unwrap(), &digests, &Rules::default());
    assert_eq!(profile.bins.as_ref(), Some(pixels));
    let (name, class) = choose(
        &profile,
        None,
        &BTreeMap::from([("pixels".to_owned(), 10_000.0)]),
    )
    .unwrap();
    assert!(class.held_peak.max < Bytes::new(13 << 20), "{name}");
    let all = &profile.classes[&ClassName::all()];
    assert!(all.held_peak.max > Bytes::new(130 << 20));
}

#[test]
fn a_feature_that_tells_nothing_makes_no_classes() {
    let runs = (0..60_u32).map(|n| Digest {
        features: BTreeMap::from([("noise".to_owned(), f64::from(n * 37 % 60))]),
        ..run(
            &format!("r{n:02}"),
            &[100 << 20, (100 + u64::from(n * 7 % 11)) << 20],
        )
    });
    let profile = learned(runs, &Rules::default());
    assert_eq!(profile.bins, None);
    assert_eq!(profile.classes.len(), 1);
}

#[test]
fn edges_fall_where_memory_changes() {
    let runs = (0..40_u32).map(|n| Digest {
        features: BTreeMap::from([
            ("size".to_owned(), f64::from(n)),
            ("noise".to_owned(), f64::from(n * 7 % 40)),
        ]),
        ..run(
            &format!("r{n:02}"),
            &[if n < 25 { 10 << 20 } else { 200 << 20 }],
        )
    });
    let profile = learned(runs, &Rules::default());
    let bins = profile.bins.unwrap();
    assert_eq!(
        (bins.feature.as_str(), &bins.edges[..]),
        ("size", &[24.0][..])
    );
    assert_eq!(bins.false_positives, 0.0);
    let names: Vec<&str> = profile.classes.keys().map(ClassName::as_str).collect();
    assert_eq!(names, ["*", "size<=24", "size>24"]);
    assert_eq!(profile.classes[&"size<=24".parse().unwrap()].runs, 25);
}
