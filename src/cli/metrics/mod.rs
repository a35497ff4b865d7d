//! `metrics`: the figures of all containers of this host in the text format of Prometheus.
//!
//! Containers with the same labels are added up, and counters go on when a container ends (`control::ended`).

mod families;
mod text;

use std::collections::BTreeMap;

use super::args::Metrics;
use super::survey::{Patience, Row, Survey};
use super::{Failure, output};
use crate::control::{self, Ended, Sums};
use crate::model::{Bytes, Mode};
use crate::sampler::Placed;
use families::Group;

/// The labels that a series has at least.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Labels {
    namespace: String,
    pod: String,
    container: String,
    function: String,
    class: String,
    id: String,
}

pub(super) fn run(args: &Metrics) -> Result<(), Failure> {
    // First those that live, then those that have ended: who ends in between is in both, and known by its run.
    let view = Survey::new(Patience::LONG).look()?;
    let ended = match args.with_id {
        true => Ended::default(),
        false => control::ended()?,
    };
    let groups = groups(&view.containers, &ended, args.with_id);
    let text = text::render(&families::families(&groups));
    match &args.textfile {
        Some(path) => output::replace(path, text.as_bytes()),
        None => Ok(output::text(&text)?),
    }
}

/// Containers by their labels.
fn groups(rows: &[Row], ended: &Ended, with_id: bool) -> BTreeMap<Labels, Group> {
    let mut groups: BTreeMap<Labels, Group> = BTreeMap::new();
    for (counted, sums) in &ended.sums {
        let labels = Labels {
            namespace: counted.namespace.clone(),
            function: text(counted.function.as_ref()),
            class: text(counted.class.as_ref()),
            ..Labels::default()
        };
        groups.entry(labels).or_default().sums.add(sums);
    }
    for row in rows {
        let has_ended = row.run.as_ref().is_some_and(|run| ended.runs.contains(run));
        // Nothing is done with it, and nothing is known but what others tell anyway.
        if row.mode == Mode::Off || has_ended {
            continue;
        }
        let pod = |name: &Option<String>| name.clone().unwrap_or_default();
        let labels = Labels {
            namespace: row.pod_namespace.clone().unwrap_or(row.namespace.clone()),
            pod: pod(&row.pod),
            container: pod(&row.container),
            function: text(row.function.as_ref()),
            class: text(row.class.as_ref()),
            id: match with_id {
                true => row.id.clone(),
                false => String::new(),
            },
        };
        groups.entry(labels).or_default().add(row);
    }
    groups
}

fn text(name: Option<&impl ToString>) -> String {
    name.map(ToString::to_string).unwrap_or_default()
}

impl Group {
    fn add(&mut self, row: &Row) {
        let phase = row.phase.clone().unwrap_or_else(|| "unknown".to_owned());
        *self.alive.entry((row.mode, phase)).or_default() += 1;
        if !row.attended {
            self.unattended += 1;
        }
        self.is_incomplete |= row.silent;
        let add = |sum: &mut Option<Bytes>, more: Option<Bytes>| {
            if let Some(more) = more {
                let before = sum.map_or(0, Bytes::get);
                *sum = Some(Bytes::new(before.saturating_add(more.get())));
            }
        };
        add(&mut self.usage, row.usage);
        add(&mut self.limit, row.grant);
        add(&mut self.ceiling, row.ceiling);
        add(&mut self.reclaimable, row.reclaimable);
        self.peak = self.peak.max(row.peak);
        for (node, bytes) in &row.nodes {
            let sum = self.nodes.entry(*node).or_default();
            *sum = Bytes::new(sum.get().saturating_add(bytes.get()));
        }
        self.sums.add(&Sums {
            containers: 1,
            areas: row.areas.unwrap_or_default(),
            counts: row.counts.unwrap_or_default(),
            placed: row.placed.as_ref().map(Placed::counts).unwrap_or_default(),
            oom_kills: row.oom_kills.unwrap_or(0),
            waited_seconds: row.psi_some_seconds.unwrap_or(0.0),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::survey::tests::row;
    use crate::control::Counted;
    use crate::model::FunctionKey;
    use crate::model::placed::PlacedCounts;

    fn ended(runs: &[&str]) -> Ended {
        let counted = Counted {
            namespace: "default".to_owned(),
            function: Some(FunctionKey::new("default", "thumb")),
            class: Some("small".parse().unwrap()),
        };
        let sums = Sums {
            containers: 2,
            oom_kills: 5,
            ..Sums::default()
        };
        Ended {
            sums: [(counted, sums)].into(),
            runs: runs.iter().map(|run| run.parse().unwrap()).collect(),
        }
    }

    fn one(groups: BTreeMap<Labels, Group>) -> Group {
        assert_eq!(groups.len(), 1);
        groups.into_values().next().unwrap()
    }

    #[test]
    fn containers_with_the_same_labels_are_added_up() {
        let group = one(groups(&[row("a"), row("b")], &Ended::default(), false));
        assert_eq!(group.usage, Some(Bytes::new(128 << 20)));
        assert_eq!(group.peak, Some(Bytes::new(70 << 20)));
        assert_eq!(group.sums.counts.raises, 6);
        assert_eq!(
            groups(&[row("a"), row("b")], &Ended::default(), true).len(),
            2
        );
    }

    #[test]
    fn who_has_ended_counts_on_and_once() {
        let group = one(groups(&[row("a")], &ended(&[]), false));
        assert_eq!((group.sums.containers, group.sums.oom_kills), (3, 5));
        // It is among those that have ended by now.
        let group = one(groups(&[row("a")], &ended(&["run-1"]), false));
        assert_eq!((group.sums.containers, group.sums.oom_kills), (2, 5));
        assert_eq!(group.usage, None);
    }

    #[test]
    fn what_was_done_for_placement_is_added_up() {
        let counts = PlacedCounts {
            moved: 5,
            exchanged: 2,
            predicted: 3,
            early: 1,
            ..PlacedCounts::default()
        };
        let mut ended = ended(&[]);
        ended
            .sums
            .values_mut()
            .for_each(|sums| sums.placed = counts);
        let mut placed = row("a");
        placed.placed = Some(Placed {
            moved: 100,
            exchanged: 40,
            ..Placed::default()
        });
        let text = text::render(&families::families(&groups(&[placed], &ended, false)));
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.rsplit(' ').next())
                .unwrap_or("none")
        };
        assert_eq!(value("elastic_mem_moved_pages_total{"), "105");
        assert_eq!(value("elastic_mem_exchanged_pages_total{"), "42");
        assert_eq!(value("elastic_mem_refused_pages_total{"), "0");
        let requests: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("elastic_mem_expected_requests_total{"))
            .collect();
        assert!(
            requests[0].ends_with("result=\"in-time\"} 2"),
            "{requests:?}"
        );
        assert!(requests[1].ends_with("result=\"early\"} 1"), "{requests:?}");
    }

    #[test]
    fn a_sum_without_somebody_who_is_silent_is_not_told() {
        let mut silent = row("b");
        (silent.attended, silent.silent, silent.areas) = (false, true, None);
        let groups = groups(&[row("a"), silent], &Ended::default(), false);
        let text = text::render(&families::families(&groups));
        assert!(
            !text.contains("elastic_mem_used_byte_seconds_total{"),
            "{text}"
        );
        assert!(text.contains("elastic_mem_usage_bytes{"), "{text}");
    }

    #[test]
    fn containers_of_pods_have_the_labels_of_cadvisor() {
        let mut row = row("a");
        row.pod_namespace = Some("shop".to_owned());
        row.pod = Some("thumb-7d9".to_owned());
        row.container = Some("user".to_owned());
        let groups = groups(&[row], &Ended::default(), false);
        let labels = groups.keys().next().unwrap();
        assert_eq!(labels.namespace, "shop");
        assert_eq!(
            (labels.pod.as_str(), labels.container.as_str()),
            ("thumb-7d9", "user")
        );
    }

    #[test]
    fn nothing_is_told_of_containers_that_nobody_looks_after() {
        let mut off = row("a");
        off.mode = Mode::Off;
        assert!(groups(&[off], &Ended::default(), false).is_empty());
    }
}
