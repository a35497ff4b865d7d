//! How containers are chosen, sorted and written; and what they did lately. Numbers in, text out.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use crate::cli::args::SortKey;
use crate::cli::survey::{Row, View};
use crate::model::Bytes;
use crate::model::status::Cause;

/// The order of containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) key: SortKey,
    pub(super) reverse: bool,
}

impl Order {
    /// Sorts: the most first, names from the first to the last; what is not known comes last in both directions.
    pub(super) fn sort(self, rows: &mut [Row]) {
        rows.sort_by(|a, b| {
            self.compare(a, b)
                .then_with(|| a.namespace.cmp(&b.namespace))
                .then_with(|| a.id.cmp(&b.id))
        });
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let most_first = |a: Option<u64>, b: Option<u64>| self.known(a, b, |a, b| b.cmp(a));
        match self.key {
            SortKey::Use => most_first(bytes(a.usage), bytes(b.usage)),
            SortKey::Grant => most_first(bytes(a.grant), bytes(b.grant)),
            SortKey::Ceiling => most_first(bytes(a.ceiling), bytes(b.ceiling)),
            SortKey::Saved => most_first(a.saved_byte_seconds, b.saved_byte_seconds),
            SortKey::Psi => self.known(a.psi_some_share, b.psi_some_share, |a, b| b.total_cmp(a)),
            SortKey::Age => {
                let age = |row: &Row| row.last_decision.as_ref().map(|last| last.seconds_ago);
                self.known(age(a), age(b), f64::total_cmp)
            }
            SortKey::Function => {
                self.known(a.function.as_ref(), b.function.as_ref(), |a, b| a.cmp(b))
            }
            SortKey::Name => self.known(
                Some((&a.namespace, &a.id)),
                Some((&b.namespace, &b.id)),
                |a, b| a.cmp(b),
            ),
        }
    }

    fn known<T>(
        self,
        a: Option<T>,
        b: Option<T>,
        compare: impl Fn(&T, &T) -> Ordering,
    ) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) if self.reverse => compare(&b, &a),
            (Some(a), Some(b)) => compare(&a, &b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    }
}

fn bytes(bytes: Option<Bytes>) -> Option<u64> {
    bytes.map(Bytes::get)
}

/// Whether a container has this text somewhere, in upper or lower case.
pub(super) fn matches(row: &Row, text: &str) -> bool {
    let text = text.to_lowercase();
    let optional = [&row.pod_namespace, &row.pod, &row.container, &row.phase];
    let mut words = vec![
        row.namespace.as_str(),
        row.id.as_str(),
        row.mode.as_str(),
        row.function.as_ref().map_or("", |name| name.as_str()),
        row.class.as_ref().map_or("", |name| name.as_str()),
    ];
    words.extend(optional.into_iter().flatten().map(String::as_str));
    words
        .iter()
        .any(|word| word.to_lowercase().contains(text.as_str()))
}

/// A size in MB of 2^20 bytes, from 10 GB on in GB.
pub(in crate::cli) fn size(bytes: Bytes) -> String {
    let tenths =
        |unit: u64| (u128::from(bytes.get()) * 10 + u128::from(unit / 2)) / u128::from(unit);
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    let (tenths, unit) = match bytes.get() {
        0..=0x2_7fff_ffff => (tenths(MIB), 'M'),
        _ => (tenths(GIB), 'G'),
    };
    format!("{}.{}{unit}", tenths / 10, tenths % 10)
}

/// The same of what may be missing.
pub(in crate::cli) fn size_or_dash(bytes: Option<Bytes>) -> String {
    bytes.map_or_else(dash, size)
}

/// Byte seconds as GiB-s with two digits.
pub(in crate::cli) fn gib_seconds(byte_seconds: u64) -> String {
    let hundredths = (u128::from(byte_seconds) * 100 + (1 << 29)) >> 30;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// A share as a percentage.
pub(in crate::cli) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// A time that has passed: in the largest unit of which there is one.
pub(in crate::cli) fn age(seconds: f64) -> String {
    let units = [("d", 86_400.0), ("h", 3600.0), ("m", 60.0)];
    let found = units.into_iter().find(|(_, unit)| seconds >= *unit);
    match found {
        Some((name, unit)) => format!("{:.0}{name}", (seconds / unit).floor()),
        None if seconds < 9.95 => format!("{seconds:.1}s"),
        None => format!("{seconds:.0}s"),
    }
}

pub(in crate::cli) fn dash() -> String {
    "-".to_owned()
}

/// The columns of a container.
pub(super) const COLUMNS: [&str; 11] = [
    "NAMESPACE",
    "ID",
    "FUNCTION",
    "CLASS",
    "PHASE",
    "MODE",
    "USE",
    "GRANT",
    "CEILING",
    "SAVED",
    "PSI",
];

/// A container in them.
pub(super) fn cells(row: &Row) -> [String; 11] {
    let text = |text: Option<&str>| text.map_or_else(dash, printable);
    let phase = match (&row.phase, row.attended) {
        (Some(phase), _) => phase.clone(),
        (None, true) => dash(),
        (None, false) if row.mode == crate::model::Mode::Off => dash(),
        (None, false) => "unattended".to_owned(),
    };
    [
        printable(&row.namespace),
        printable(&row.id),
        text(short_function(row)),
        text(row.class.as_ref().map(|name| name.as_str())),
        phase,
        row.mode.to_string(),
        size_or_dash(row.usage),
        size_or_dash(row.grant),
        size_or_dash(row.ceiling),
        row.saved_byte_seconds.map_or_else(dash, gib_seconds),
        row.psi_some_share.map_or_else(dash, percent),
    ]
}

/// The function without the namespace of the container, which stands in a column of its own.
fn short_function(row: &Row) -> Option<&str> {
    let function = row.function.as_ref()?.as_str();
    let short = function
        .strip_prefix(row.namespace.as_str())
        .and_then(|rest| rest.strip_prefix('/'));
    Some(short.unwrap_or(function))
}

/// Names come from outside: nothing of them may move the cursor.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// The last decision in words, and how old it is.
pub(super) fn decision(row: &Row) -> Option<(&'static str, String)> {
    let last = row.last_decision.as_ref()?;
    Some((last.cause.as_str(), age(last.seconds_ago)))
}

/// Whether it was changed because something went wrong.
pub(super) fn is_harm(row: &Row) -> bool {
    let last = row.last_decision.as_ref();
    let harm = [Cause::Met, Cause::Pressed, Cause::Refused, Cause::Foreign];
    last.is_some_and(|last| harm.contains(&last.cause))
}

/// The line of the host.
pub(super) fn host_line(view: &View) -> String {
    let sum = |of: fn(&Row) -> Option<u64>| {
        let all = view.containers.iter().filter_map(of);
        all.fold(0, u64::saturating_add)
    };
    let reclaimable = sum(|row| bytes(row.reclaimable));
    let saved = sum(|row| row.saved_byte_seconds);
    let count = match view.containers.len() {
        1 => "1 container".to_owned(),
        count => format!("{count} containers"),
    };
    format!(
        "{}: {} of memory, {} available; {count}, {} reclaimable, {} GiB-s saved",
        printable(&view.host.name),
        size(view.host.memory_total),
        size(view.host.memory_available),
        size(Bytes::new(reclaimable)),
        gib_seconds(saved),
    )
}

/// Looks that are kept of a container.
const MOST_LOOKS: usize = 240;

/// Usage and grant of a container at the last looks.
pub(super) type Lately = VecDeque<(Option<Bytes>, Option<Bytes>)>;

/// What containers did lately, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct History(BTreeMap<(String, String), Lately>);

impl History {
    /// Adds a look; who has gone is forgotten.
    pub(super) fn add(&mut self, rows: &[Row]) {
        let mut before = std::mem::take(&mut self.0);
        for row in rows {
            let name = (row.namespace.clone(), row.id.clone());
            let mut lately = before.remove(&name).unwrap_or_default();
            if lately.len() >= MOST_LOOKS {
                lately.pop_front();
            }
            lately.push_back((row.usage, row.grant));
            self.0.insert(name, lately);
        }
    }

    /// Of one container.
    pub(super) fn of(&self, row: &Row) -> Option<&Lately> {
        self.0.get(&(row.namespace.clone(), row.id.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::survey::tests::{row, view};

    fn order(key: SortKey, reverse: bool, rows: &mut [Row]) -> Vec<String> {
        Order { key, reverse }.sort(rows);
        rows.iter().map(|row| row.id.clone()).collect()
    }

    #[test]
    fn the_most_comes_first_and_the_unknown_last() {
        let mut small = row("small");
        small.usage = Some(Bytes::new(1));
        let mut large = row("large");
        large.usage = Some(Bytes::new(2));
        let mut unknown = row("unknown");
        unknown.usage = None;
        let mut rows = vec![unknown, small, large];
        let names = order(SortKey::Use, false, &mut rows);
        assert_eq!(names, ["large", "small", "unknown"]);
        let names = order(SortKey::Use, true, &mut rows);
        assert_eq!(names, ["small", "large", "unknown"]);
        let names = order(SortKey::Name, false, &mut rows);
        assert_eq!(names, ["large", "small", "unknown"]);
    }

    #[test]
    fn the_newest_decision_comes_first() {
        let mut rows = [9.0, 1.0, 4.0].map(|seconds| {
            let mut row = row(&format!("{seconds}"));
            row.last_decision.as_mut().unwrap().seconds_ago = seconds;
            row
        });
        assert_eq!(order(SortKey::Age, false, &mut rows), ["1", "4", "9"]);
    }

    #[test]
    fn containers_are_found_by_any_of_their_names() {
        let row = row("c1");
        for text in ["", "DEFAULT", "c1", "thumb", "keep-alive", "elastic"] {
            assert!(matches(&row, text), "{text}");
        }
        assert!(!matches(&row, "other"));
    }

    #[test]
    fn sizes_times_and_shares_are_short() {
        assert_eq!(size(Bytes::new(0)), "0.0M");
        assert_eq!(size(Bytes::new(47 * 1024 * 1024 + 600_000)), "47.6M");
        assert_eq!(size(Bytes::new(9 << 30)), "9216.0M");
        assert_eq!(size(Bytes::new(24 << 30)), "24.0G");
        assert_eq!(gib_seconds(0), "0.00");
        assert_eq!(gib_seconds((3 << 30) / 2), "1.50");
        assert_eq!(percent(0.0123), "1.2%");
        for (seconds, text) in [(0.04, "0.0s"), (9.96, "10s"), (61.0, "1m"), (7300.0, "2h")] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn nothing_of_a_name_moves_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a?[2Jb?");
    }

    #[test]
    fn the_host_line_sums_up() {
        let line = host_line(&view(vec![row("a"), row("b")]));
        assert_eq!(
            line,
            "node-1: 24.0G of memory, 12.0G available; 2 containers, 360.0M reclaimable, 3.00 GiB-s saved"
        );
    }

    #[test]
    fn what_a_container_did_lately_ends_with_it() {
        let mut history = History::default();
        let rows = [row("a"), row("b")];
        for _ in 0..300 {
            history.add(&rows);
        }
        assert_eq!(history.of(&rows[0]).unwrap().len(), MOST_LOOKS);
        history.add(&rows[1..]);
        assert!(history.of(&rows[0]).is_none());
        assert!(history.of(&rows[1]).is_some());
    }
}
