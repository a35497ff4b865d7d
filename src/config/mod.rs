//! The configuration of a host: `/etc/elastic-mem/config.toml` and `config.d/*.toml` beside it.
//!
//! Later files win, key by key. Every value remembers where it comes from. Tables `[functions.NAME]` hold settings of
//! single functions. An unknown key is an error with the nearest known name. A verb that handles containers goes on with the defaults when the configuration
//! cannot be used, and warns: a mistake in a file must not stop a host's containers.

mod functions;
pub(crate) mod nearest;
mod schema;
mod values;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use functions::FUNCTIONS;
pub use functions::{FUNCTION_OPTIONS, FunctionTable};
pub use schema::{Config, LogFormat, LogLevel, OPTIONS, OptionInfo, SystemdCgroup};
use toml::Value;

use crate::model::FunctionKey;
pub use crate::model::{Mode, Origin, Setting};

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/elastic-mem/config.toml";
/// Names another main file to this process and to those that it starts.
pub const VARIABLE: &str = "ELASTIC_MEM_CONFIG";

/// The main file: the one that was given, else the one that the environment names, else the usual one.
pub fn main_file(given: Option<&Path>) -> PathBuf {
    match (
        given,
        std::env::var_os(VARIABLE).filter(|text| !text.is_empty()),
    ) {
        (Some(path), _) => path.to_path_buf(),
        (None, Some(path)) => PathBuf::from(path),
        (None, None) => PathBuf::from(DEFAULT_PATH),
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is no TOML.
    #[error("parse {}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A key that does not exist.
    #[error("{}: unknown key {key:?}{}", path.display(), suggestion(nearest.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key with its tables, joined by dots.
        key: String,
        /// The known key that is most like it.
        nearest: Option<String>,
    },
    /// A value that the key cannot take.
    #[error("{}: {key}: {value} is not {wanted}", path.display())]
    InvalidValue {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What stands there.
        value: String,
        /// What could stand there.
        wanted: &'static str,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean {name:?}?"))
}

impl Config {
    /// Loads `path` and the files of the folder `config.d` beside it, by name. Files that do not exist are empty.
    ///
    /// # Errors
    /// The first [`ConfigError`]; nothing is half loaded.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = Reading::of(path);
        match read.errors.into_iter().next() {
            Some(err) => Err(err),
            None => Ok(read.config),
        }
    }
}

/// What a configuration holds, with all its mistakes.
#[derive(Debug)]
pub struct Reading {
    /// What could be used. Not to be used if there are errors.
    pub config: Config,
    /// The files that are there, in the order in which they count.
    pub files: Vec<PathBuf>,
    /// How many values they set.
    pub values: usize,
    /// What is wrong.
    pub errors: Vec<ConfigError>,
}

impl Reading {
    /// Reads `path` and the files of the folder `config.d` beside it, by name. Files that do not exist are empty.
    pub fn of(path: &Path) -> Self {
        let mut all = Self {
            config: Config::default(),
            files: Vec::new(),
            values: 0,
            errors: Vec::new(),
        };
        all.file(path);
        match dropped_in(&path.with_file_name("config.d")) {
            Ok(files) => files.iter().for_each(|file| all.file(file)),
            Err(err) => all.errors.push(err),
        }
        all
    }

    fn file(&mut self, path: &Path) {
        match read(path) {
            Ok(None) => {}
            Ok(Some(table)) => {
                self.files.push(path.to_path_buf());
                self.merge(path, "", &table);
            }
            Err(err) => {
                self.files.push(path.to_path_buf());
                self.errors.push(err);
            }
        }
    }

    fn merge(&mut self, path: &Path, prefix: &str, table: &toml::Table) {
        for (name, value) in table {
            let key = join(prefix, name);
            let is_table = key == FUNCTIONS
                || OPTIONS
                    .iter()
                    .any(|option| option.key.starts_with(&format!("{key}.")));
            match value {
                Value::Table(tables) if key == FUNCTIONS => self.functions(path, tables),
                Value::Table(inner) if is_table => self.merge(path, &key, inner),
                value if is_table => self.errors.push(not_a_table(path, key, value)),
                value => {
                    let origin = Origin::File(path.to_path_buf());
                    let done = schema::set(&mut self.config, &key, value, origin);
                    let known = OPTIONS.iter().map(|option| option.key);
                    let nearest = nearest::nearest(&key, known.chain([FUNCTIONS]));
                    let nearest = nearest.map(str::to_owned);
                    self.count(path, key, value, done, nearest);
                }
            }
        }
    }

    fn functions(&mut self, path: &Path, tables: &toml::Table) {
        for (name, table) in tables {
            let prefix = format!("{FUNCTIONS}.{name:?}");
            if name.parse::<FunctionKey>().is_err() {
                self.errors.push(ConfigError::InvalidValue {
                    path: path.to_path_buf(),
                    key: FUNCTIONS.to_owned(),
                    value: format!("{name:?}"),
                    wanted: "the name of a function or a pattern of such names",
                });
                continue;
            }
            let Some(keys) = table.as_table() else {
                self.errors.push(not_a_table(path, prefix, table));
                continue;
            };
            for (key, value) in keys {
                let origin = Origin::Function {
                    file: path.to_path_buf(),
                    table: name.clone(),
                };
                let into = self.config.functions.entry(name.clone()).or_default();
                let done = into.set(key, value, origin);
                let known = FUNCTION_OPTIONS.iter().map(|option| option.key);
                let nearest = nearest::nearest(key, known).map(|key| join(&prefix, key));
                self.count(path, join(&prefix, key), value, done, nearest);
            }
        }
    }

    /// Counts a value, or adds what is wrong with it.
    fn count(
        &mut self,
        path: &Path,
        key: String,
        value: &Value,
        done: Result<(), schema::Refusal>,
        nearest: Option<String>,
    ) {
        let path = path.to_path_buf();
        match done {
            Ok(()) => self.values += 1,
            Err(schema::Refusal::UnknownKey) => {
                self.errors
                    .push(ConfigError::UnknownKey { path, key, nearest });
            }
            Err(schema::Refusal::InvalidValue(wanted)) => {
                self.errors.push(ConfigError::InvalidValue {
                    path,
                    key,
                    value: value.to_string(),
                    wanted,
                });
            }
        }
    }
}

fn join(prefix: &str, name: &str) -> String {
    match prefix {
        "" => name.to_owned(),
        prefix => format!("{prefix}.{name}"),
    }
}

fn not_a_table(path: &Path, key: String, value: &Value) -> ConfigError {
    ConfigError::InvalidValue {
        path: path.to_path_buf(),
        key,
        value: value.to_string(),
        wanted: "a table",
    }
}

/// The files of a folder that count, by name.
fn dropped_in(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let io = |source| ConfigError::Io {
        path: folder.to_path_buf(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|ext| ext == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Option<toml::Table>, ConfigError> {
    let text = match fs::read_to_string(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| ConfigError::Io {
            path: path.to_path_buf(),
            source,
        })?,
    };
    text.parse()
        .map(Some)
        .map_err(|source| ConfigError::Syntax {
            path: path.to_path_buf(),
            source: Box::new(source),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("config.d")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Config::load(&dir.path().join("config.toml"))
    }

    #[test]
    fn without_files_everything_is_default() {
        assert_eq!(load(&[]).unwrap(), Config::default());
    }

    #[test]
    fn later_files_win_and_values_remember_their_file() {
        let config = load(&[
            (
                "config.toml",
                "[log]\nlevel = \"debug\"\nformat = \"json\"\n",
            ),
            ("config.d/20-b.toml", "[log]\nlevel = \"error\"\n"),
            ("config.d/10-a.toml", "log.level = \"warning\"\n"),
            ("config.d/30-c.txt", "log.level = \"info\"\n"),
        ])
        .unwrap();
        assert_eq!(config.log_level.value, LogLevel::Error);
        assert!(config.log_level.origin.to_string().ends_with("20-b.toml"));
        assert_eq!(config.log_format.value, LogFormat::Json);
        assert_eq!(config.root.origin, Origin::Default);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_name() {
        let err = load(&[("config.toml", "[runtime]\nsystemd-cgruop = true\n")]).unwrap_err();
        let text = err.to_string();
        assert!(
            text.contains("did you mean \"runtime.systemd-cgroup\"?"),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_table_is_refused_too() {
        let text = load(&[("config.toml", "[logs]\nlevel = \"info\"\n")])
            .unwrap_err()
            .to_string();
        assert!(text.contains("unknown key \"logs\""), "{text}");
    }

    #[test]
    fn a_wrong_value_says_what_could_stand_there() {
        let text = load(&[("config.toml", "log.level = 7\n")])
            .unwrap_err()
            .to_string();
        assert!(text.contains("log.level: 7 is not"), "{text}");
        let text = load(&[("config.toml", "runtime.root = \"run\"\n")])
            .unwrap_err()
            .to_string();
        assert!(text.contains("absolute path"), "{text}");
        for wrong in ["-1", "10001", "\"20\"", "1.5"] {
            let text = load(&[("config.toml", &format!("profile.keep-traces = {wrong}\n"))])
                .unwrap_err()
                .to_string();
            assert!(text.contains("a number from 0 to 10000"), "{text}");
        }
    }

    #[test]
    fn memory_takes_all_modes_and_is_elastic_by_default() {
        let default = Config::default();
        assert_eq!(default.memory_mode, Setting::default(Mode::Elastic));
        for mode in Mode::ALL {
            let text = format!("memory.mode = \"{mode}\"\n");
            let config = load(&[("config.toml", &text)]).unwrap();
            assert_eq!(config.memory_mode.value, mode);
            assert_ne!(config.memory_mode.origin, Origin::Default);
        }
        let text = load(&[("config.toml", "memory.mode = \"On\"\n")])
            .unwrap_err()
            .to_string();
        assert!(text.contains("\"off\", \"observe\", \"static\""), "{text}");
    }

    #[test]
    fn every_option_of_memory_reaches_its_field() {
        let config = load(&[(
            "config.toml",
            "[memory]\nstep = \"64MiB\"\npad = \"9m\"\nlead = \"21ms\"\nsettle = \"1s\"\nhold = \"1m\"\n\
             keep-alive = false\npriority = \"realtime\"\nannotations = [\"mode\"]\nenvironment = [\"F\"]\n",
        )])
        .unwrap();
        let texts: Vec<_> = config
            .settings()
            .into_iter()
            .filter(|(_, _, origin)| **origin != Origin::Default)
            .map(|(info, value, _)| format!("{}={value}", info.key))
            .collect();
        assert_eq!(
            texts,
            [
                "memory.step=64MiB",
                "memory.pad=9MiB",
                "memory.lead=21ms",
                "memory.settle=1s",
                "memory.hold=60s",
                "memory.keep-alive=false",
                "memory.priority=realtime",
                "memory.annotations=mode",
                "memory.environment=F",
            ]
        );
        assert!(config.trusts("elastic-mem.io/mode") && !config.trusts("elastic-mem.io/class"));
        assert_eq!(config.trusted().environment, ["F"]);
    }

    #[test]
    fn nothing_is_half_loaded_and_all_mistakes_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(
            &file,
            "log = 5\n[memory]\npad = \"8m\"\nstep = 0\nhodl = 1\n",
        )
        .unwrap();
        let read = Reading::of(&file);
        let texts: Vec<_> = read.errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        for (text, part) in texts.iter().zip([
            "log: 5 is not a table",
            "did you mean \"memory.hold\"?",
            "memory.step: 0 is not a size from",
        ]) {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!((read.files.len(), read.values), (1, 1));
        assert_eq!(Config::load(&file).unwrap_err().to_string(), texts[0]);
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.d"), "").unwrap();
        let err = Config::load(&dir.path().join("config.toml")).unwrap_err();
        assert!(err.to_string().contains("config.d"), "{err}");
    }

    #[test]
    fn broken_toml_names_the_file() {
        let err = load(&[("config.d/1.toml", "log.level = \n")]).unwrap_err();
        assert!(err.to_string().contains("config.d/1.toml"), "{err}");
    }
}
