//! How one function is to be treated, and what its containers may change about that.
//!
//! The configuration says it ([`FunctionSettings`]); annotations of a container are a layer above it that only
//! tightens ([`FunctionSettings::tightened`]), since whoever runs a container is not who runs the host.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::model::placement::{LocalRatio, PlacementPolicy};
use crate::model::{Bytes, ClassName, Mode, Origin, Setting, duration};
use crate::policy::identity::{
    ANNOTATIONS, CEILING, CLASS, FLOOR, FUNCTION, INPUT_BYTES, LOCAL_RATIO, MODE, PLACEMENT,
    PREFIX, SLO, whole_number,
};

/// No ceiling and no pad is smaller.
pub const LEAST: Bytes = Bytes::new(1 << 20);
/// What a bound of the latency can be, in milliseconds.
pub const SLO_MILLIS: RangeInclusive<u64> = 1..=3_600_000;

/// How one function is to be treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionSettings {
    /// What is done with its memory.
    pub mode: Setting<Mode>,
    /// The input class of its runs.
    pub class: Option<Setting<ClassName>>,
    /// The bound of its latency.
    pub slo: Option<Setting<Duration>>,
    /// No grant is below it; a smaller ceiling counts all the same.
    pub floor: Option<Setting<Bytes>>,
    /// No grant is above it, nor above what the container declares.
    pub ceiling: Option<Setting<Bytes>>,
    /// Least distance between usage and grant.
    pub pad: Setting<Bytes>,
    /// How far ahead a forecast is looked at.
    pub lead: Setting<Duration>,
    /// How long usage must not have grown before a grant is lowered.
    pub settle: Setting<Duration>,
    /// How long a container is left alone after its limit was met or written by somebody else.
    pub hold: Setting<Duration>,
    /// Whether it is shrunk while it is idle.
    pub keep_alive: Setting<bool>,
    /// Grants of mode `static` are multiples of it.
    pub step: Setting<Bytes>,
    /// Whether its containers get a control socket inside.
    pub socket: Setting<bool>,
    /// How its memory is placed.
    pub placement: Setting<PlacementPolicy>,
    /// The share of its memory that is to be local; counts before `placement` of the same layer.
    pub local_ratio: Option<Setting<LocalRatio>>,
}

/// An annotation that changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {key}: {value:?} is ignored: {why}")]
pub struct Warning {
    /// The annotation.
    pub key: String,
    /// What stands there.
    pub value: String,
    /// Why it changes nothing.
    pub why: String,
}

impl FunctionSettings {
    /// Every setting with its key, its value as text and its origin; no text where nothing is set.
    pub fn settings(&self) -> Vec<(&'static str, Option<String>, &Origin)> {
        fn shown<'a, T>(
            key: &'static str,
            setting: Option<&'a Setting<T>>,
            text: impl FnOnce(&T) -> String,
        ) -> (&'static str, Option<String>, &'a Origin) {
            match setting {
                Some(Setting { value, origin }) => (key, Some(text(value)), origin),
                None => (key, None, &Origin::Default),
            }
        }
        let bytes = |bytes: &Bytes| bytes.to_text();
        let time = |time: &Duration| duration::text(*time);
        let millis = |time: &Duration| time.as_millis().to_string();
        vec![
            shown("mode", Some(&self.mode), Mode::to_string),
            shown("class", self.class.as_ref(), ClassName::to_string),
            shown("slo-ms", self.slo.as_ref(), millis),
            shown("floor", self.floor.as_ref(), bytes),
            shown("ceiling", self.ceiling.as_ref(), bytes),
            shown("pad", Some(&self.pad), bytes),
            shown("lead", Some(&self.lead), time),
            shown("settle", Some(&self.settle), time),
            shown("hold", Some(&self.hold), time),
            shown("keep-alive", Some(&self.keep_alive), bool::to_string),
            shown("step", Some(&self.step), bytes),
            shown("socket", Some(&self.socket), bool::to_string),
            shown(
                "placement",
                Some(&self.placement),
                PlacementPolicy::to_string,
            ),
            shown(
                "local-ratio",
                self.local_ratio.as_ref(),
                LocalRatio::to_string,
            ),
        ]
    }

    /// The same with what the annotations of a container tighten, as far as their keys (without [`PREFIX`]) are
    /// allowed; a warning for each one that changes nothing because it cannot, by key.
    ///
    /// Which function it is has been decided by [`Facts::function`](super::identity::Facts::function).
    pub fn tightened(
        mut self,
        annotations: &HashMap<String, String>,
        allowed: &[String],
    ) -> (Self, Vec<Warning>) {
        let mut ours: Vec<_> = annotations
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, key, value)))
            .collect();
        ours.sort();
        let mut warnings = Vec::new();
        for (name, key, value) in ours {
            let done = if !ANNOTATIONS.contains(&name) {
                Err(format!(
                    "there is no such key, only {}",
                    ANNOTATIONS.join(", ")
                ))
            } else if !allowed.iter().any(|allowed| allowed == name) {
                Err("the option memory.annotations does not allow it".to_owned())
            } else {
                self.tighten(key, value.trim())
            };
            if let Err(why) = done {
                warnings.push(Warning {
                    key: key.clone(),
                    value: value.clone(),
                    why,
                });
            }
        }
        (self, warnings)
    }

    fn tighten(&mut self, key: &str, text: &str) -> Result<(), String> {
        match key {
            MODE => {
                let mode: Mode = read(text)?;
                if mode.grants() {
                    return Err("an annotation can only choose off or observe".to_owned());
                }
                if mode > self.mode.value {
                    return Err(looser("mode", self.mode.value, &self.mode.origin));
                }
                if mode < self.mode.value {
                    self.mode = given(MODE, mode);
                }
            }
            CEILING => {
                let ceiling = Some(read(text)?)
                    .filter(|ceiling| *ceiling >= LEAST)
                    .ok_or_else(|| format!("the least ceiling is {}", LEAST.to_text()))?;
                lower(&mut self.ceiling, ceiling)?;
            }
            FLOOR => raise(&mut self.floor, read(text)?)?,
            CLASS => self.class = Some(given(CLASS, read(text)?)),
            SLO => {
                let millis = whole_number(text)
                    .filter(|millis| SLO_MILLIS.contains(millis))
                    .ok_or("want a whole number of milliseconds from 1 to 3600000")?;
                let slo = Duration::from_millis(millis);
                if let Some(found) = self.slo.as_ref().filter(|found| slo > found.value) {
                    let millis = format!("{} ms", found.value.as_millis());
                    return Err(looser("slo-ms", millis, &found.origin));
                }
                self.slo = Some(given(SLO, slo));
            }
            // They are part of what the container is.
            FUNCTION if text.is_empty() => return Err("it is empty".to_owned()),
            INPUT_BYTES if whole_number::<u64>(text).is_none() => {
                return Err("want a whole number of bytes".to_owned());
            }
            FUNCTION | INPUT_BYTES => {}
            LOCAL_RATIO => self.local_ratio = Some(given(LOCAL_RATIO, read(text)?)),
            PLACEMENT => self.placement = given(PLACEMENT, read(text)?),
            _ => return Err("no version knows it".to_owned()),
        }
        Ok(())
    }
}

fn given<T>(key: &'static str, value: T) -> Setting<T> {
    Setting {
        value,
        origin: Origin::Annotation(key),
    }
}

fn read<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|err: T::Err| err.to_string())
}

fn lower(ceiling: &mut Option<Setting<Bytes>>, value: Bytes) -> Result<(), String> {
    match ceiling {
        Some(found) if value > found.value => {
            Err(looser("ceiling", found.value.to_text(), &found.origin))
        }
        Some(found) if value == found.value => Ok(()),
        _ => {
            *ceiling = Some(given(CEILING, value));
            Ok(())
        }
    }
}

fn raise(floor: &mut Option<Setting<Bytes>>, value: Bytes) -> Result<(), String> {
    match floor {
        Some(found) if value < found.value => {
            Err(looser("floor", found.value.to_text(), &found.origin))
        }
        Some(found) if value == found.value => Ok(()),
        _ => {
            *floor = Some(given(FLOOR, value));
            Ok(())
        }
    }
}

fn looser(what: &str, found: impl Display, origin: &Origin) -> String {
    format!("the {what} is {found} already ({origin}), and an annotation only tightens")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::policy::identity::Trusted;

    pub(in crate::policy) fn settings() -> FunctionSettings {
        FunctionSettings {
            mode: Setting::default(Mode::Elastic),
            class: None,
            slo: None,
            floor: None,
            ceiling: None,
            pad: Setting::default(Bytes::new(8 << 20)),
            lead: Setting::default(Duration::from_millis(20)),
            settle: Setting::default(Duration::from_millis(100)),
            hold: Setting::default(Duration::from_secs(10)),
            keep_alive: Setting::default(true),
            step: Setting::default(LEAST),
            socket: Setting::default(false),
            placement: Setting::default(PlacementPolicy::Off),
            local_ratio: None,
        }
    }

    /// With annotations that are all allowed: the settings, and what is warned about.
    fn tightened(
        settings: FunctionSettings,
        annotations: &[(&str, &str)],
    ) -> (FunctionSettings, Vec<String>) {
        let allowed = ANNOTATIONS.map(str::to_owned);
        with(settings, annotations, &allowed)
    }

    fn with(
        settings: FunctionSettings,
        annotations: &[(&str, &str)],
        allowed: &[String],
    ) -> (FunctionSettings, Vec<String>) {
        let annotations = annotations
            .iter()
            .map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned()))
            .collect();
        let (settings, warnings) = settings.tightened(&annotations, allowed);
        (settings, warnings.iter().map(Warning::to_string).collect())
    }

    fn mib(mib: u64) -> Bytes {
        Bytes::from_mib(mib).unwrap()
    }

    #[test]
    fn a_mode_only_becomes_off_or_observe() {
        for mode in [Mode::Off, Mode::Observe] {
            let (now, warnings) = tightened(settings(), &[("mode", mode.as_str())]);
            assert_eq!(now.mode, given(MODE, mode));
            assert_eq!(warnings, [""; 0]);
        }
        for text in ["static", "replay", "elastic", "Off", "", "none"] {
            let (now, warnings) = tightened(settings(), &[("mode", text)]);
            assert_eq!(now, settings(), "{text}");
            assert_eq!(warnings.len(), 1, "{text}");
        }
        let mut off = settings();
        off.mode.value = Mode::Off;
        let (now, warnings) = tightened(off.clone(), &[("mode", "observe")]);
        assert_eq!(now, off);
        assert!(
            warnings[0].contains("elastic-mem.io/mode: \"observe\"")
                && warnings[0].contains("the mode is off already (default)"),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_mode_that_was_there_keeps_its_origin() {
        let mut observe = settings();
        observe.mode.value = Mode::Observe;
        let (now, warnings) = tightened(observe.clone(), &[("mode", "observe")]);
        assert_eq!((now, warnings), (observe, Vec::new()));
    }

    #[test]
    fn a_ceiling_only_falls() {
        let (first, warnings) = tightened(settings(), &[("ceiling", "512MiB")]);
        assert_eq!(first.ceiling, Some(given(CEILING, mib(512))));
        assert!(warnings.is_empty());
        let (lower, warnings) = tightened(first.clone(), &[("ceiling", " 64m ")]);
        assert_eq!(lower.ceiling, Some(given(CEILING, mib(64))));
        assert!(warnings.is_empty());
        for bad in ["1GiB", "-1", "0", "1023KiB", "x", "", "9999999999t"] {
            let (now, warnings) = tightened(first.clone(), &[("ceiling", bad)]);
            assert_eq!(now, first, "{bad}");
            assert_eq!(warnings.len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_floor_only_rises() {
        let (first, warnings) = tightened(settings(), &[("floor", "32MiB")]);
        assert_eq!(first.floor, Some(given(FLOOR, mib(32))));
        assert!(warnings.is_empty());
        let (higher, warnings) = tightened(first.clone(), &[("floor", "64MiB")]);
        assert_eq!(higher.floor, Some(given(FLOOR, mib(64))));
        assert!(warnings.is_empty());
        for bad in ["31MiB", "0", "-1", "many"] {
            let (now, warnings) = tightened(first.clone(), &[("floor", bad)]);
            assert_eq!(now, first, "{bad}");
            assert_eq!(warnings.len(), 1, "{bad}");
        }
    }

    #[test]
    fn class_and_slo_are_named() {
        let mut before = settings();
        before.class = Some(Setting::default("large".parse().unwrap()));
        let (now, warnings) = tightened(before.clone(), &[("class", "small"), ("slo-ms", "250")]);
        assert_eq!(now.class, Some(given(CLASS, "small".parse().unwrap())));
        assert_eq!(now.slo, Some(given(SLO, Duration::from_millis(250))));
        assert!(warnings.is_empty());
        let (tighter, warnings) = tightened(now.clone(), &[("slo-ms", "251")]);
        assert_eq!((tighter.slo, warnings.len()), (now.slo, 1));
        let bad = [("class", "a,b"), ("slo-ms", "0.5")];
        let (now, warnings) = tightened(before.clone(), &bad);
        assert_eq!(now, before);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        for bad in ["0", "3600001", "-1", "+1", "1e3", ""] {
            assert_eq!(tightened(before.clone(), &[("slo-ms", bad)]).1.len(), 1);
        }
    }

    #[test]
    fn what_names_the_run_is_checked_and_changes_no_setting() {
        let good = [("function", "thumb"), ("input-bytes", "1024")];
        assert_eq!(tightened(settings(), &good), (settings(), Vec::new()));
        let bad = [("function", " "), ("input-bytes", "1k")];
        let (now, warnings) = tightened(settings(), &bad);
        assert_eq!(now, settings());
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn what_is_not_allowed_changes_nothing() {
        let all = [
            ("mode", "off"),
            ("ceiling", "64m"),
            ("floor", "32m"),
            ("class", "small"),
            ("slo-ms", "5"),
            ("function", "thumb"),
            ("input-bytes", "5"),
            ("placement", "local"),
            ("local-ratio", "0.5"),
        ];
        let (now, warnings) = with(settings(), &all, &[]);
        assert_eq!(now, settings());
        assert_eq!(warnings.len(), all.len());
        assert!(
            warnings
                .iter()
                .all(|text| text.contains("memory.annotations does not allow it"))
        );
        let (now, warnings) = with(settings(), &all, &["floor".to_owned()]);
        assert_eq!(now.floor, Some(given(FLOOR, mib(32))));
        assert_eq!(warnings.len(), all.len() - 1);
    }

    #[test]
    fn what_nobody_knows_is_warned_about_and_what_is_not_ours_is_not() {
        let mut annotations = HashMap::new();
        annotations.insert("example.com/mode".to_owned(), "off".to_owned());
        let trusted = Trusted::default();
        let (now, warnings) = settings().tightened(&annotations, &trusted.annotations);
        assert_eq!((now, warnings), (settings(), Vec::new()));
        let (now, warnings) = tightened(settings(), &[("celing", "64m"), ("pad", "1MiB")]);
        assert_eq!(now, settings());
        assert!(
            warnings[0].contains("elastic-mem.io/celing"),
            "{warnings:?}"
        );
        assert!(warnings[1].contains("no such key, only function, class"));
    }

    #[test]
    fn nothing_that_an_annotation_says_loosens() {
        let mut before = settings();
        before.mode.value = Mode::Observe;
        before.ceiling = Some(Setting::default(mib(128)));
        before.floor = Some(Setting::default(mib(16)));
        let values = [
            "off", "observe", "static", "replay", "elastic", "0", "1", "8m", "16m", "17m", "127m",
            "128m", "129m", "1t", "-1", "",
        ];
        for key in ANNOTATIONS {
            for value in values {
                let (now, _) = tightened(before.clone(), &[(key, value)]);
                assert!(now.mode.value <= before.mode.value, "{key} {value}");
                assert!(now.ceiling.unwrap().value <= mib(128), "{key} {value}");
                assert!(now.floor.unwrap().value >= mib(16), "{key} {value}");
                let rest = |of: &FunctionSettings| {
                    (
                        of.pad.clone(),
                        of.lead.clone(),
                        of.settle.clone(),
                        of.hold.clone(),
                        of.keep_alive.clone(),
                        of.step.clone(),
                    )
                };
                let (now, _) = tightened(before.clone(), &[(key, value)]);
                assert_eq!(rest(&now), rest(&before), "{key} {value}");
            }
        }
    }
}
