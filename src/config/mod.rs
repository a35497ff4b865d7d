//! The configuration of a host: `/etc/elastic-mem/config.toml` and `config.d/*.toml` beside it.
//!
//! Later files win, key by key. Every value remembers where it comes from. An unknown key is an error with
//! the nearest known name. A verb that handles containers goes on with the defaults when the configuration
//! cannot be used, and warns: a mistake in a file must not stop a host's containers.

pub(crate) mod nearest;
mod schema;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use schema::{Config, LogFormat, LogLevel, OPTIONS, OptionInfo, SystemdCgroup};
use toml::Value;

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
        let mut config = Self::default();
        if let Some(table) = read(path)? {
            config.merge(path, "", &table)?;
        }
        let folder = path.with_file_name("config.d");
        let mut files: Vec<PathBuf> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
            .collect();
        files.sort();
        for file in files {
            if let Some(table) = read(&file)? {
                config.merge(&file, "", &table)?;
            }
        }
        Ok(config)
    }

    fn merge(&mut self, path: &Path, prefix: &str, table: &toml::Table) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}.{name}")
            };
            let is_table = OPTIONS
                .iter()
                .any(|option| option.key.starts_with(&format!("{key}.")));
            match value {
                Value::Table(inner) if is_table => self.merge(path, &key, inner)?,
                value => self.set(path, key, value)?,
            }
        }
        Ok(())
    }

    fn set(&mut self, path: &Path, key: String, value: &Value) -> Result<(), ConfigError> {
        let origin = Origin::File(path.to_path_buf());
        match schema::set(self, &key, value, origin) {
            Ok(()) => Ok(()),
            Err(schema::Refusal::UnknownKey) => {
                let known = OPTIONS.iter().map(|option| option.key);
                Err(ConfigError::UnknownKey {
                    path: path.to_path_buf(),
                    nearest: nearest::nearest(&key, known).map(str::to_owned),
                    key,
                })
            }
            Err(schema::Refusal::InvalidValue(wanted)) => Err(ConfigError::InvalidValue {
                path: path.to_path_buf(),
                key,
                value: value.to_string(),
                wanted,
            }),
        }
    }
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
    fn broken_toml_names_the_file() {
        let err = load(&[("config.d/1.toml", "log.level = \n")]).unwrap_err();
        assert!(err.to_string().contains("config.d/1.toml"), "{err}");
    }
}
