//! Tables `[functions.NAME]`: settings of single functions.
//!
//! NAME is a function, or a pattern of functions. Of several tables that match a function, the most specific one that
//! has a key gives its value.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use toml::Value;

use super::schema::{OptionInfo, Refusal};
use super::{Config, Mode, Origin, Setting, values};
use crate::model::placement::{LocalRatio, PlacementPolicy};
use crate::model::{Bytes, ClassName, FunctionKey};
use crate::policy::settings::FunctionSettings;

/// The table of tables.
pub(super) const FUNCTIONS: &str = "functions";

/// The keys of a table, in the order of [`FunctionSettings::settings`].
pub const FUNCTION_OPTIONS: [OptionInfo; 14] = [
    OptionInfo {
        key: "mode",
        values: values::MODE,
        meaning: "As memory.mode.",
    },
    OptionInfo {
        key: "class",
        values: values::CLASS,
        meaning: "The input class of all its runs that name none.",
    },
    OptionInfo {
        key: "slo-ms",
        values: values::SLO,
        meaning: "The bound of its latency, in milliseconds.",
    },
    OptionInfo {
        key: "floor",
        values: values::SIZE,
        meaning: "No grant is below it; a smaller ceiling counts all the same.",
    },
    OptionInfo {
        key: "ceiling",
        values: values::LARGE_SIZE,
        meaning: "No grant is above it, nor above what the container declares.",
    },
    OptionInfo {
        key: "pad",
        values: values::LARGE_SIZE,
        meaning: "As memory.pad.",
    },
    OptionInfo {
        key: "lead",
        values: values::LEAD,
        meaning: "As memory.lead.",
    },
    OptionInfo {
        key: "settle",
        values: values::SETTLE,
        meaning: "As memory.settle.",
    },
    OptionInfo {
        key: "hold",
        values: values::HOLD,
        meaning: "As memory.hold.",
    },
    OptionInfo {
        key: "keep-alive",
        values: values::SWITCH,
        meaning: "As memory.keep-alive.",
    },
    OptionInfo {
        key: "step",
        values: values::STEP,
        meaning: "As memory.step.",
    },
    OptionInfo {
        key: "socket",
        values: values::SWITCH,
        meaning: "As memory.socket.",
    },
    OptionInfo {
        key: "placement",
        values: values::PLACEMENT,
        meaning: "As placement.policy.",
    },
    OptionInfo {
        key: "local-ratio",
        values: values::RATIO,
        meaning: "The share of its memory that is to be local. Counts before placement.",
    },
];

/// What one table sets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FunctionTable {
    mode: Option<Setting<Mode>>,
    class: Option<Setting<ClassName>>,
    slo: Option<Setting<Duration>>,
    floor: Option<Setting<Bytes>>,
    ceiling: Option<Setting<Bytes>>,
    pad: Option<Setting<Bytes>>,
    lead: Option<Setting<Duration>>,
    settle: Option<Setting<Duration>>,
    hold: Option<Setting<Duration>>,
    keep_alive: Option<Setting<bool>>,
    step: Option<Setting<Bytes>>,
    socket: Option<Setting<bool>>,
    placement: Option<Setting<PlacementPolicy>>,
    local_ratio: Option<Setting<LocalRatio>>,
}

impl FunctionTable {
    pub(super) fn set(&mut self, key: &str, value: &Value, origin: Origin) -> Result<(), Refusal> {
        fn put<T>(
            to: &mut Option<Setting<T>>,
            value: Option<T>,
            origin: Origin,
            wanted: &'static str,
        ) -> Result<(), Refusal> {
            let value = value.ok_or(Refusal::InvalidValue(wanted))?;
            *to = Some(Setting { value, origin });
            Ok(())
        }
        let info = FUNCTION_OPTIONS
            .iter()
            .find(|option| option.key == key)
            .ok_or(Refusal::UnknownKey)?;
        let wanted = info.values;
        match key {
            "mode" => put(&mut self.mode, values::mode(value), origin, wanted),
            "class" => put(&mut self.class, values::class(value), origin, wanted),
            "slo-ms" => put(&mut self.slo, values::slo(value), origin, wanted),
            "floor" => put(&mut self.floor, values::size(value), origin, wanted),
            "ceiling" => put(&mut self.ceiling, values::large_size(value), origin, wanted),
            "pad" => put(&mut self.pad, values::large_size(value), origin, wanted),
            "lead" => put(&mut self.lead, values::lead(value), origin, wanted),
            "settle" => put(&mut self.settle, values::settle(value), origin, wanted),
            "hold" => put(&mut self.hold, values::hold(value), origin, wanted),
            "keep-alive" => put(&mut self.keep_alive, value.as_bool(), origin, wanted),
            "step" => put(&mut self.step, values::step(value), origin, wanted),
            "socket" => put(&mut self.socket, value.as_bool(), origin, wanted),
            "placement" => {
                let value = values::placement(value);
                put(&mut self.placement, value, origin, wanted)
            }
            "local-ratio" => put(&mut self.local_ratio, values::ratio(value), origin, wanted),
            _ => Err(Refusal::UnknownKey),
        }
    }
}

impl Config {
    /// How a function is to be treated.
    pub fn for_function(&self, function: &FunctionKey) -> FunctionSettings {
        self.with(&matching(&self.functions, function))
    }

    /// Every value of a table `[functions.NAME]` with its whole key, as text, and with its origin.
    pub fn table_settings(&self) -> Vec<(String, OptionInfo, String, Origin)> {
        let mut found = Vec::new();
        for (name, table) in &self.functions {
            let settings = self.with(&[table]);
            for (info, (key, value, origin)) in
                FUNCTION_OPTIONS.into_iter().zip(settings.settings())
            {
                if let (Some(value), Origin::Function { .. }) = (value, origin) {
                    let key = format!("{FUNCTIONS}.{name:?}.{key}");
                    found.push((key, info, value, origin.clone()));
                }
            }
        }
        found
    }

    /// What these tables, the first ones before later ones, and then the options of all functions say.
    fn with(&self, tables: &[&FunctionTable]) -> FunctionSettings {
        fn first<T: Clone>(
            tables: &[&FunctionTable],
            get: impl Fn(&FunctionTable) -> &Option<Setting<T>>,
        ) -> Option<Setting<T>> {
            tables.iter().find_map(|table| get(table).clone())
        }
        fn or<T: Clone>(found: Option<Setting<T>>, all: &Setting<T>) -> Setting<T> {
            found.unwrap_or_else(|| all.clone())
        }
        FunctionSettings {
            mode: or(first(tables, |table| &table.mode), &self.memory_mode),
            class: first(tables, |table| &table.class),
            slo: first(tables, |table| &table.slo),
            floor: first(tables, |table| &table.floor),
            ceiling: first(tables, |table| &table.ceiling),
            pad: or(first(tables, |table| &table.pad), &self.memory_pad),
            lead: or(first(tables, |table| &table.lead), &self.memory_lead),
            settle: or(first(tables, |table| &table.settle), &self.memory_settle),
            hold: or(first(tables, |table| &table.hold), &self.memory_hold),
            keep_alive: or(
                first(tables, |table| &table.keep_alive),
                &self.memory_keep_alive,
            ),
            step: or(first(tables, |table| &table.step), &self.memory_step),
            socket: or(first(tables, |table| &table.socket), &self.memory_socket),
            placement: or(
                first(tables, |table| &table.placement),
                &self.placement_policy,
            ),
            local_ratio: first(tables, |table| &table.local_ratio),
        }
    }
}

/// The tables that match a function, the most specific one first: the one with its name, then patterns with more
/// literal characters, then by name.
fn matching<'a>(
    tables: &'a BTreeMap<String, FunctionTable>,
    function: &FunctionKey,
) -> Vec<&'a FunctionTable> {
    let function = function.as_str();
    let mut found: Vec<_> = tables
        .iter()
        .filter(|(name, _)| *name == function || matches(name, function))
        .map(|(name, table)| {
            let literals = name.chars().filter(|c| !is_wild(*c)).count();
            ((name != function, Reverse(literals), name), table)
        })
        .collect();
    found.sort_by_key(|(key, _)| *key);
    found.into_iter().map(|(_, table)| table).collect()
}

const fn is_wild(c: char) -> bool {
    matches!(c, '*' | '?')
}

/// Whether a pattern matches all of a text: `*` any characters, `/` among them, `?` one.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut seen) = (0, 0);
    // Behind the last `*`, and how much of the text is its own: it takes one more each time that the rest fails.
    let mut retry = None;
    while let Some(c) = text.get(seen) {
        match (pattern.get(at), retry) {
            (Some('*'), _) => {
                at += 1;
                retry = Some((at, seen));
            }
            (Some(wanted), _) if *wanted == '?' || wanted == c => {
                at += 1;
                seen += 1;
            }
            (_, Some((behind, taken))) => {
                at = behind;
                seen = taken + 1;
                retry = Some((behind, seen));
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(at).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Reading;

    /// The configuration of files with these contents, as `config.d/0.toml` and so on.
    fn reading(files: &[&str]) -> Reading {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("config.d");
        std::fs::create_dir(&folder).unwrap();
        for (number, text) in files.iter().enumerate() {
            std::fs::write(folder.join(format!("{number}.toml")), text).unwrap();
        }
        Reading::of(&dir.path().join("config.toml"))
    }

    fn config(files: &[&str]) -> Config {
        let read = reading(files);
        assert!(read.errors.is_empty(), "{:?}", read.errors);
        read.config
    }

    fn of(config: &Config, function: &str) -> FunctionSettings {
        config.for_function(&function.parse().unwrap())
    }

    /// The text and the origin of a setting, without the folder.
    fn shown(settings: &FunctionSettings, key: &str) -> (Option<String>, String) {
        let found = settings.settings().into_iter().find(|entry| entry.0 == key);
        let (_, value, origin) = found.unwrap();
        let origin = origin.to_string();
        let origin = origin.rsplit('/').next().unwrap_or_default();
        (value, origin.to_owned())
    }

    #[test]
    fn without_a_table_a_function_is_as_all_are() {
        let config = config(&["memory.pad = \"16MiB\"\n"]);
        let settings = of(&config, "default/thumb");
        assert_eq!(settings.mode, Setting::default(Mode::Elastic));
        assert_eq!(
            shown(&settings, "pad"),
            (Some("16MiB".to_owned()), "0.toml".to_owned())
        );
        assert_eq!(settings.lead, config.memory_lead);
        assert_eq!(settings.class, None);
        assert_eq!(settings.ceiling, None);
    }

    #[test]
    fn every_key_reaches_its_setting() {
        let config = config(&[
            "[functions.f]\nmode = \"replay\"\nclass = \"c\"\nslo-ms = 250\n\
                               floor = \"5m\"\nceiling = \"6m\"\npad = \"7m\"\nlead = \"8ms\"\n\
                               settle = \"9ms\"\nhold = \"10s\"\nkeep-alive = false\nstep = \"11m\"\nsocket = true\n\
                               placement = \"interleave=3:1\"\nlocal-ratio = 0.5\n",
        ]);
        let settings = of(&config, "f");
        let texts: Vec<_> = settings
            .settings()
            .into_iter()
            .map(|(key, value, origin)| {
                assert!(
                    matches!(origin, Origin::Function { table, .. } if table == "f"),
                    "{key}: {origin}"
                );
                (key, value.unwrap())
            })
            .collect();
        let expected = [
            "replay",
            "c",
            "250",
            "5MiB",
            "6MiB",
            "7MiB",
            "8ms",
            "9ms",
            "10s",
            "false",
            "11MiB",
            "true",
            "interleave=3:1",
            "0.5",
        ];
        let keys = FUNCTION_OPTIONS.map(|option| option.key);
        let expected: Vec<_> = keys.into_iter().zip(expected.map(str::to_owned)).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn the_most_specific_table_wins_key_by_key() {
        let config = config(&["memory.mode = \"static\"\n\
             [functions.\"*\"]\nmode = \"off\"\nfloor = \"1m\"\nlead = \"1ms\"\npad = \"2m\"\n\
             [functions.\"default/*\"]\nmode = \"observe\"\nfloor = \"2m\"\nlead = \"2ms\"\n\
             [functions.\"default/thumb?\"]\nmode = \"replay\"\nfloor = \"3m\"\n\
             [functions.\"default/thumb1\"]\nmode = \"elastic\"\n"]);
        let settings = of(&config, "default/thumb1");
        let value = |key| shown(&settings, key).0.unwrap();
        assert_eq!(value("mode"), "elastic");
        assert_eq!(value("floor"), "3MiB");
        assert_eq!(value("lead"), "2ms");
        assert_eq!(value("pad"), "2MiB");
        assert_eq!(value("settle"), "20ms");
        assert_eq!(of(&config, "default/thumb12").mode.value, Mode::Observe);
        assert_eq!(of(&config, "other/thumb1").mode.value, Mode::Off);
        assert_eq!(
            shown(&settings, "floor").1,
            "thumb?\"",
            "names the table that it comes from"
        );
    }

    #[test]
    fn of_patterns_with_as_many_literals_the_first_by_name_wins() {
        let config = config(&[
            "[functions.\"de*\"]\npad = \"3m\"\n[functions.\"*fa\"]\npad = \"2m\"\n",
            "[functions.\"?efa\"]\nlead = \"5ms\"\n",
        ]);
        let settings = of(&config, "defa");
        assert_eq!(shown(&settings, "pad").0.unwrap(), "2MiB");
        assert_eq!(shown(&settings, "lead").0.unwrap(), "5ms");
    }

    #[test]
    fn a_later_file_adds_keys_to_a_table_and_changes_them() {
        let config = config(&[
            "[functions.f]\nmode = \"off\"\nfloor = \"4m\"\n",
            "[functions.f]\nfloor = \"5m\"\nslo-ms = 9\n",
        ]);
        let settings = of(&config, "f");
        assert_eq!(shown(&settings, "mode").0.unwrap(), "off");
        assert_eq!(shown(&settings, "floor").0.unwrap(), "5MiB");
        assert_eq!(shown(&settings, "slo-ms").0.unwrap(), "9");
        let file = |key| {
            let origin = settings
                .settings()
                .into_iter()
                .find(|entry| entry.0 == key)
                .unwrap()
                .2
                .to_string();
            origin.split(", table").next().unwrap().to_owned()
        };
        assert!(file("mode").ends_with("0.toml"), "{}", file("mode"));
        assert!(file("floor").ends_with("1.toml"), "{}", file("floor"));
    }

    #[test]
    fn a_table_with_the_name_of_a_function_is_of_that_one_whatever_its_characters() {
        let config = config(&["[functions.\"default/a*b\"]\npad = \"2m\"\n\
             [functions.\"default/a*bc?????\"]\npad = \"3m\"\n"]);
        let pad = |function| of(&config, function).pad.value;
        assert_eq!(pad("default/a*b"), Bytes::new(2 << 20));
        assert_eq!(pad("default/a*bc?????"), Bytes::new(3 << 20));
    }

    #[test]
    fn mistakes_in_tables_name_table_and_key() {
        let message = |text: &str| {
            let read = reading(&[text]);
            assert_eq!(read.errors.len(), 1, "{:?}", read.errors);
            read.errors[0].to_string()
        };
        let text = message("[functions.\"default/f*\"]\ncieling = \"5m\"\n");
        assert!(
            text.contains("unknown key \"functions.\\\"default/f*\\\".cieling\"")
                && text.contains("did you mean \"functions.\\\"default/f*\\\".ceiling\"?"),
            "{text}"
        );
        // The length of a name makes nothing alike.
        let text = message("[functions.\"default/a-long-name-of-a-function\"]\nx = 1\n");
        assert!(!text.contains("did you mean"), "{text}");
        let text = message("[functions.f]\nmode = \"on\"\n");
        assert!(
            text.contains("functions.\"f\".mode: \"on\" is not \"off\", \"observe\""),
            "{text}"
        );
        let text = message("[functions]\nf = 1\n");
        assert!(text.contains("functions.\"f\": 1 is not a table"), "{text}");
        let text = message("functions = \"f\"\n");
        assert!(text.contains("functions: \"f\" is not a table"), "{text}");
        let text = message("[functions.\"a,b\"]\nmode = \"off\"\n");
        assert!(
            text.contains("\"a,b\" is not the name of a function"),
            "{text}"
        );
        let text = message("[function.f]\nmode = \"off\"\n");
        assert!(text.contains("did you mean \"functions\"?"), "{text}");
        for (key, value) in [
            ("slo-ms", "0"),
            ("ceiling", "\"1023KiB\""),
            ("pad", "1"),
            ("lead", "\"0s\""),
            ("settle", "5"),
            ("hold", "\"99ms\""),
            ("keep-alive", "\"yes\""),
            ("step", "\"2GiB\""),
            ("floor", "-1"),
            ("class", "\"a,b\""),
            ("placement", "\"faas\""),
            ("local-ratio", "1.5"),
            ("local-ratio", "\"x\""),
            ("hold", "[]"),
        ] {
            let text = message(&format!("[functions.f]\n{key} = {value}\n"));
            assert!(text.contains(&format!("{key}: {value} is not")), "{text}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "a/b"),
            ("**", "x"),
            ("default/*", "default/a/b"),
            ("default/thumb*", "default/thumb"),
            ("*/fn/?", "default/fn/x"),
            ("a*b*c", "aXbYbZc"),
            ("*ab", "aab"),
            ("?", "ä"),
            ("f", "f"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("?", ""),
            ("a", "ab"),
            ("a?", "a"),
            ("default/thumb*", "default/thum"),
            ("*b", "abc"),
            ("a*b*c", "aXcYb"),
            ("A", "a"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        // Not one step for each way of splitting the text.
        let pattern = "*a".repeat(100) + "b";
        assert!(!matches(&pattern, &"a".repeat(200)));
    }
}
