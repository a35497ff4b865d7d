//! Values of options: read from TOML, checked, and written as text.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Value;

use crate::model::placement::{LocalRatio, PlacementPolicy};
use crate::model::{Bytes, ClassName, Mode, Priority, Quantile, duration};
use crate::policy::identity::ANNOTATIONS;
use crate::policy::settings::{LEAST, SLO_MILLIS};

/// What a key of a mode can take.
pub(super) const MODE: &str = "\"off\", \"observe\", \"static\", \"replay\" or \"elastic\"";
/// What a key of a class can take.
pub(super) const CLASS: &str = "the name of an input class";
/// What a key of a bound of the latency can take.
pub(super) const SLO: &str = "a number from 1 to 3600000";
/// What a key of a size can take.
pub(super) const SIZE: &str = "a size such as 64MiB";
/// What a key of a size that is not too small can take.
pub(super) const LARGE_SIZE: &str = "a size of at least 1MiB";
/// What a key of a step can take.
pub(super) const STEP: &str = "a size from 4KiB to 1GiB";
/// What a key of a lead can take.
pub(super) const LEAD: &str = "a duration from 1ms to 1m";
/// What a key of the time until a grant is lowered can take.
pub(super) const SETTLE: &str = "a duration from 1ms to 1h";
/// What a key of a hold time can take.
pub(super) const HOLD: &str = "a duration from 100ms to 1h";
/// What a key of namespaces can take.
pub(super) const NAMESPACES: &str = "a list of names of namespaces";
/// What a key of a switch can take.
pub(super) const SWITCH: &str = "true or false";
/// What a key of a placement can take.
pub(super) const PLACEMENT: &str = "\"off\", \"local\", \"remote\", \"adaptive\", \"adrias\", \"faasmem\", \"pond\" or \"interleave=L:R\" \
     with numbers from 0 to 255";
/// What a key of a share of runs can take.
pub(super) const QUANTILE: &str = "a number above 0 and below 1 with at most four digits";
/// What a key of a local ratio can take.
pub(super) const RATIO: &str = "a number from 0 to 1";

const STEPS: RangeInclusive<Bytes> = Bytes::new(4 << 10)..=Bytes::new(1 << 30);
const LEADS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const SETTLES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
const HOLDS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

pub(super) fn path(value: &Value) -> Option<PathBuf> {
    let path = value.as_str().map(PathBuf::from)?;
    path.is_absolute().then_some(path)
}

pub(super) fn mode(value: &Value) -> Option<Mode> {
    value.as_str()?.parse().ok()
}

pub(super) fn class(value: &Value) -> Option<ClassName> {
    value.as_str()?.parse().ok()
}

pub(super) fn slo(value: &Value) -> Option<Duration> {
    let millis = u64::try_from(value.as_integer()?).ok()?;
    SLO_MILLIS
        .contains(&millis)
        .then(|| Duration::from_millis(millis))
}

/// A number of bytes, with its unit or as a plain number.
pub(super) fn size(value: &Value) -> Option<Bytes> {
    match value {
        Value::String(text) => Bytes::from_str(text).ok(),
        Value::Integer(bytes) => u64::try_from(*bytes).ok().map(Bytes::new),
        _ => None,
    }
}

pub(super) fn large_size(value: &Value) -> Option<Bytes> {
    size(value).filter(|size| *size >= LEAST)
}

pub(super) fn step(value: &Value) -> Option<Bytes> {
    size(value).filter(|size| STEPS.contains(size))
}

fn time(value: &Value, range: &RangeInclusive<Duration>) -> Option<Duration> {
    let time = duration::parse(value.as_str()?).ok()?;
    range.contains(&time).then_some(time)
}

pub(super) fn lead(value: &Value) -> Option<Duration> {
    time(value, &LEADS)
}

pub(super) fn settle(value: &Value) -> Option<Duration> {
    time(value, &SETTLES)
}

pub(super) fn hold(value: &Value) -> Option<Duration> {
    time(value, &HOLDS)
}

pub(super) fn placement(value: &Value) -> Option<PlacementPolicy> {
    value.as_str()?.parse().ok()
}

pub(super) fn ratio(value: &Value) -> Option<LocalRatio> {
    match value {
        Value::Integer(whole) => whole.to_string().parse().ok(),
        Value::Float(ratio) => LocalRatio::try_from(*ratio).ok(),
        _ => None,
    }
}

pub(super) fn quantile(value: &Value) -> Option<Quantile> {
    value.as_float()?.to_string().parse().ok()
}

pub(super) fn priority(value: &Value) -> Option<Priority> {
    let text = value.as_str()?;
    Priority::ALL
        .into_iter()
        .find(|priority| priority.as_str() == text)
}

fn texts(value: &Value, is_right: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let list = value.as_array()?.iter();
    list.map(|text| {
        text.as_str()
            .filter(|text| is_right(text))
            .map(str::to_owned)
    })
    .collect()
}

pub(super) fn annotations(value: &Value) -> Option<Vec<String>> {
    texts(value, |key| ANNOTATIONS.contains(&key))
}

/// Names of variables (environ(7)).
pub(super) fn variables(value: &Value) -> Option<Vec<String>> {
    let is_wrong = |c: char| c == '=' || c.is_control() || c.is_whitespace();
    texts(value, |name| !name.is_empty() && !name.contains(is_wrong))
}

/// Names of namespaces (containerd, `pkg/identifiers`).
pub(super) fn namespaces(value: &Value) -> Option<Vec<String>> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    texts(value, |name| !name.is_empty() && name.chars().all(allowed))
}

/// A list as text.
pub(super) fn list(texts: &[String]) -> String {
    match texts {
        [] => "none".to_owned(),
        texts => texts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        let table: toml::Table = format!("x = {text}").parse().unwrap();
        table["x"].clone()
    }

    #[test]
    fn sizes_have_units_or_are_bytes() {
        for (text, bytes) in [
            ("\"64MiB\"", 64 << 20),
            ("\"64m\"", 64 << 20),
            ("65536", 65536),
        ] {
            assert_eq!(size(&value(text)), Some(Bytes::new(bytes)), "{text}");
        }
        for wrong in ["\"-1\"", "-1", "1.5", "true", "\"\"", "[1]"] {
            assert_eq!(size(&value(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn ranges_hold_their_ends_and_nothing_beyond() {
        for (text, is_right) in [
            ("\"4KiB\"", true),
            ("4095", false),
            ("\"1GiB\"", true),
            ("1073741825", false),
        ] {
            assert_eq!(step(&value(text)).is_some(), is_right, "{text}");
        }
        for (text, is_right) in [
            ("\"1ms\"", true),
            ("\"999us\"", false),
            ("\"1m\"", true),
            ("\"60001ms\"", false),
            ("20", false),
        ] {
            assert_eq!(lead(&value(text)).is_some(), is_right, "{text}");
        }
        assert!(large_size(&value("\"1MiB\"")).is_some());
        assert!(large_size(&value("1048575")).is_none());
        assert!(settle(&value("\"1h\"")).is_some() && settle(&value("\"0ms\"")).is_none());
        assert!(hold(&value("\"100ms\"")).is_some() && hold(&value("\"99ms\"")).is_none());
        assert!(slo(&value("1")).is_some() && slo(&value("0")).is_none());
        assert!(slo(&value("3600000")).is_some() && slo(&value("3600001")).is_none());
    }

    #[test]
    fn lists_hold_nothing_else() {
        assert_eq!(
            namespaces(&value("[\"fn-1\"]")),
            Some(vec!["fn-1".to_owned()])
        );
        assert_eq!(namespaces(&value("[\"a/b\"]")), None);
        assert_eq!(annotations(&value("[]")), Some(Vec::new()));
        assert!(annotations(&value("[\"mode\", \"placement\"]")).is_some());
        for wrong in ["\"mode\"", "[\"mod\"]", "[\"elastic-mem.io/mode\"]", "[1]"] {
            assert_eq!(annotations(&value(wrong)), None, "{wrong}");
        }
        assert!(variables(&value("[\"K_SERVICE\"]")).is_some());
        for wrong in ["[\"\"]", "[\"A=B\"]", "[\"A B\"]", "true"] {
            assert_eq!(variables(&value(wrong)), None, "{wrong}");
        }
    }
}
