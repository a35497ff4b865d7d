//! Which figures there are. `docs/metrics.md` lists them, and a test compares the two.

use std::collections::BTreeMap;

use super::Labels;
use super::text::{Family, Kind, Sample, Value};
use crate::control::Sums;
use crate::model::{Bytes, MemoryTime, Mode};

/// Containers with the same labels.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// How many there are of each mode and phase.
    pub(super) alive: BTreeMap<(Mode, String), u64>,
    pub(super) unattended: u64,
    /// Whether somebody who counts for it did not answer: a sum without them would be a counter that fell.
    pub(super) is_incomplete: bool,
    pub(super) usage: Option<Bytes>,
    /// Of the one that has most.
    pub(super) peak: Option<Bytes>,
    pub(super) limit: Option<Bytes>,
    pub(super) ceiling: Option<Bytes>,
    pub(super) reclaimable: Option<Bytes>,
    pub(super) nodes: BTreeMap<u32, Bytes>,
    /// With those that have ended.
    pub(super) sums: Sums,
}

/// A gauge of a group; none if it has no such figure.
type Gauge = fn(&Group) -> Option<Bytes>;
/// A counter of a group.
type Counter = fn(&Sums) -> Value;

const GAUGES: [(&str, &str, Gauge); 5] = [
    (
        "usage_bytes",
        "Memory that is charged, the sum over containers",
        |group| group.usage,
    ),
    (
        "peak_bytes",
        "Most memory that one container has used",
        |group| group.peak,
    ),
    (
        "limit_bytes",
        "Memory limits in force: what is granted",
        |group| group.limit,
    ),
    ("ceiling_bytes", "Declared memory limits", |group| {
        group.ceiling
    }),
    (
        "reclaimable_bytes",
        "Declared memory limits less the limits in force",
        |group| group.reclaimable,
    ),
];

const COUNTERS: [(&str, &str, Counter); 12] = [
    (
        "used_byte_seconds_total",
        "Memory over time that was used",
        |sums| area(sums.areas.used),
    ),
    (
        "granted_byte_seconds_total",
        "Memory over time that was granted",
        |sums| area(sums.areas.granted),
    ),
    (
        "ceiling_byte_seconds_total",
        "Memory over time that the declared limits would have granted",
        |sums| area(sums.areas.ceiling),
    ),
    (
        "static_byte_seconds_total",
        "Memory over time that limits would have granted that never move and hold all known runs",
        |sums| area(sums.areas.fixed),
    ),
    (
        "oom_kills_total",
        "Processes that the OOM killer ended",
        |sums| Value::Whole(sums.oom_kills),
    ),
    (
        "psi_some_seconds_total",
        "Time in which some task waited for memory, the sum over containers",
        |sums| Value::Real(sums.waited_seconds),
    ),
    (
        "limit_met_total",
        "How often a limit below the ceiling was met",
        |sums| Value::Whole(sums.counts.met),
    ),
    (
        "pressed_total",
        "How often a limit was raised because tasks waited for memory",
        |sums| Value::Whole(sums.counts.pressed),
    ),
    (
        "foreign_writes_total",
        "How often somebody else wrote the limit",
        |sums| Value::Whole(sums.counts.foreign),
    ),
    (
        "moved_pages_total",
        "Pages that were moved for the placement of memory",
        |sums| Value::Whole(sums.placed.moved),
    ),
    (
        "exchanged_pages_total",
        "Of the moved pages, hot ones that came in for as many cold ones",
        |sums| Value::Whole(sums.placed.exchanged),
    ),
    (
        "refused_pages_total",
        "Pages that the kernel did not move",
        |sums| Value::Whole(sums.placed.refused),
    ),
];

fn area(area: MemoryTime) -> Value {
    Value::Whole(area.byte_seconds())
}

/// All figures; those that nobody has are there without a value.
pub(super) fn families(groups: &BTreeMap<Labels, Group>) -> Vec<Family> {
    let mut out = vec![
        Family {
            name: "build_info",
            help: "1, with the version of the program",
            kind: Kind::Gauge,
            samples: vec![Sample {
                labels: vec![("version", env!("CARGO_PKG_VERSION").to_owned())],
                value: Value::Whole(1),
            }],
        },
        Family {
            name: "containers",
            help: "Containers that are looked after",
            kind: Kind::Gauge,
            samples: each(groups, |group| {
                let alive = group.alive.iter().map(|((mode, phase), count)| {
                    let labels = vec![("mode", mode.to_string()), ("phase", phase.clone())];
                    (labels, Value::Whole(*count))
                });
                alive.collect()
            }),
        },
        Family {
            name: "unattended_containers",
            help: "Containers whose shim or monitor does not answer",
            kind: Kind::Gauge,
            samples: each(groups, |group| match group.alive.is_empty() {
                true => Vec::new(),
                false => vec![(Vec::new(), Value::Whole(group.unattended))],
            }),
        },
    ];
    out.extend(GAUGES.iter().map(|(name, help, gauge)| Family {
        name,
        help,
        kind: Kind::Gauge,
        samples: each(groups, |group| {
            let value = gauge(group).map(|bytes| (Vec::new(), Value::Whole(bytes.get())));
            value.into_iter().collect()
        }),
    }));
    out.push(Family {
        name: "node_bytes",
        help: "Memory on each node, where there are several",
        kind: Kind::Gauge,
        samples: each(groups, |group| {
            let nodes = group.nodes.iter().map(|(node, bytes)| {
                let labels = vec![("numa_node", node.to_string())];
                (labels, Value::Whole(bytes.get()))
            });
            nodes.collect()
        }),
    });
    out.extend(COUNTERS.iter().map(|(name, help, counter)| Family {
        name,
        help,
        kind: Kind::Counter,
        samples: counted(groups, |group| vec![(Vec::new(), counter(&group.sums))]),
    }));
    out.push(Family {
        name: "started_total",
        help: "Containers that were looked after",
        kind: Kind::Counter,
        samples: counted(groups, |group| {
            vec![(Vec::new(), Value::Whole(group.sums.containers))]
        }),
    });
    out.push(Family {
        name: "adjustments_total",
        help: "Changes of limits in force",
        kind: Kind::Counter,
        samples: counted(groups, |group| {
            let counts = &group.sums.counts;
            let all = [
                ("up", "done", counts.raises),
                ("down", "done", counts.lowers),
                ("down", "refused", counts.refused),
            ];
            let labels = |direction: &str, result: &str| {
                vec![
                    ("direction", direction.to_owned()),
                    ("result", result.to_owned()),
                ]
            };
            all.iter()
                .map(|(direction, result, count)| (labels(direction, result), Value::Whole(*count)))
                .collect()
        }),
    });
    out.push(Family {
        name: "expected_requests_total",
        help: "Requests until which what they touch was remote, by whether it was back before they came",
        kind: Kind::Counter,
        samples: counted(groups, |group| {
            let placed = &group.sums.placed;
            let in_time = placed.predicted.saturating_sub(placed.early);
            let all = [("in-time", in_time), ("early", placed.early)];
            all.map(|(result, count)| {
                let labels = vec![("result", result.to_owned())];
                (labels, Value::Whole(count))
            })
            .into()
        }),
    });
    out
}

/// A label with its value.
type Label = (&'static str, String);

/// The samples of each group, with the labels of the group before their own.
fn each(
    groups: &BTreeMap<Labels, Group>,
    samples: impl Fn(&Group) -> Vec<(Vec<Label>, Value)>,
) -> Vec<Sample> {
    let mut out = Vec::new();
    for (labels, group) in groups {
        for (own, value) in samples(group) {
            let mut all = common(labels);
            all.extend(own);
            out.push(Sample { labels: all, value });
        }
    }
    out
}

/// The same of counters: rather none than one that falls.
fn counted(
    groups: &BTreeMap<Labels, Group>,
    samples: impl Fn(&Group) -> Vec<(Vec<Label>, Value)>,
) -> Vec<Sample> {
    each(groups, |group| match group.is_incomplete {
        true => Vec::new(),
        false => samples(group),
    })
}

/// An empty label is no label.
fn common(labels: &Labels) -> Vec<Label> {
    let all = [
        ("namespace", &labels.namespace),
        ("pod", &labels.pod),
        ("container", &labels.container),
        ("function", &labels.function),
        ("class", &labels.class),
        ("id", &labels.id),
    ];
    all.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name, value.clone()))
        .collect()
}
