//! Every option with its default, its meaning and its range: the one table from which the documents come.

use std::path::PathBuf;

use toml::Value;

use super::{Mode, Origin, Setting};

/// An option as documents and `elastic-mem config` show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionInfo {
    /// The key with its table.
    pub key: &'static str,
    /// What can stand there.
    pub values: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// All options.
pub const OPTIONS: [OptionInfo; 7] = [
    OptionInfo {
        key: "runtime.root",
        values: "an absolute path",
        meaning: "State folder when no --root is given. Should be on a tmpfs.",
    },
    OptionInfo {
        key: "runtime.systemd-cgroup",
        values: "\"auto\", true or false",
        meaning: "Whether systemd makes the control groups. auto: when --systemd-cgroup is given, or when \
                  cgroupsPath has the form slice:prefix:name and systemd runs on cgroup v2.",
    },
    OptionInfo {
        key: "log.level",
        values: "\"debug\", \"info\", \"warning\" or \"error\"",
        meaning: "Least severe message that is logged. --debug means debug.",
    },
    OptionInfo {
        key: "log.format",
        values: "\"text\" or \"json\"",
        meaning: "Form of the log when no --log-format is given.",
    },
    OptionInfo {
        key: "memory.mode",
        values: "\"off\" or \"observe\"",
        meaning: "What is done with the memory of containers below containerd. off: nothing. observe: it is \
                  sampled, and nothing is changed. The annotation elastic-mem.io/mode may choose off.",
    },
    OptionInfo {
        key: "profile.folder",
        values: "an absolute path",
        meaning: "Where traces and profiles of functions lie.",
    },
    OptionInfo {
        key: "profile.keep-traces",
        values: "a number from 0 to 10000",
        meaning: "How many traces of a function are kept, the newest ones. Profiles remember more runs than that.",
    },
];

/// Whether systemd makes the control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemdCgroup {
    /// As the command line and the form of the path say.
    Auto,
    /// Always.
    Always,
    /// Not because the command line asks; a path of the form slice:prefix:name still is systemd's.
    Never,
}

/// Least severe message that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything, the engine's own messages included.
    Debug,
    /// What happens.
    Info,
    /// What is wrong but does not stop the verb.
    Warning,
    /// Why a verb failed.
    Error,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `time="..." level=... msg="..."`.
    Text,
    /// One JSON object in a line.
    Json,
}

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `runtime.root`.
    pub root: Setting<PathBuf>,
    /// `runtime.systemd-cgroup`.
    pub systemd_cgroup: Setting<SystemdCgroup>,
    /// `log.level`.
    pub log_level: Setting<LogLevel>,
    /// `log.format`.
    pub log_format: Setting<LogFormat>,
    /// `memory.mode`.
    pub memory_mode: Setting<Mode>,
    /// `profile.folder`.
    pub profile_folder: Setting<PathBuf>,
    /// `profile.keep-traces`.
    pub keep_traces: Setting<u32>,
}

/// State folder of containers that no engine gave a `--root` for. Containerd namespaces cannot have this name.
const DEFAULT_ROOT: &str = "/run/elastic-mem/.oci";

/// Where traces and profiles lie.
const DEFAULT_PROFILES: &str = "/var/lib/elastic-mem";

impl Default for Config {
    fn default() -> Self {
        Self {
            root: Setting::default(default_root()),
            systemd_cgroup: Setting::default(SystemdCgroup::Auto),
            log_level: Setting::default(LogLevel::Info),
            log_format: Setting::default(LogFormat::Text),
            memory_mode: Setting::default(Mode::Observe),
            profile_folder: Setting::default(PathBuf::from(DEFAULT_PROFILES)),
            keep_traces: Setting::default(20),
        }
    }
}

/// Under /run for root, in the user's own runtime folder for everybody else.
fn default_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !nix::unistd::geteuid().is_root());
    own.map_or_else(
        || PathBuf::from(DEFAULT_ROOT),
        |dir| PathBuf::from(dir).join("elastic-mem/.oci"),
    )
}

impl Config {
    /// Every option with its value as text and its origin, in the order of [`OPTIONS`].
    pub fn settings(&self) -> Vec<(OptionInfo, String, &Origin)> {
        let values = [
            (self.root.value.display().to_string(), &self.root.origin),
            (
                match self.systemd_cgroup.value {
                    SystemdCgroup::Auto => "auto",
                    SystemdCgroup::Always => "true",
                    SystemdCgroup::Never => "false",
                }
                .to_owned(),
                &self.systemd_cgroup.origin,
            ),
            (
                match self.log_level.value {
                    LogLevel::Debug => "debug",
                    LogLevel::Info => "info",
                    LogLevel::Warning => "warning",
                    LogLevel::Error => "error",
                }
                .to_owned(),
                &self.log_level.origin,
            ),
            (
                match self.log_format.value {
                    LogFormat::Text => "text",
                    LogFormat::Json => "json",
                }
                .to_owned(),
                &self.log_format.origin,
            ),
            (
                self.memory_mode.value.as_str().to_owned(),
                &self.memory_mode.origin,
            ),
            (
                self.profile_folder.value.display().to_string(),
                &self.profile_folder.origin,
            ),
            (self.keep_traces.value.to_string(), &self.keep_traces.origin),
        ];
        OPTIONS
            .into_iter()
            .zip(values)
            .map(|(info, (value, origin))| (info, value, origin))
            .collect()
    }
}

pub(super) enum Refusal {
    UnknownKey,
    InvalidValue(&'static str),
}

pub(super) fn set(
    config: &mut Config,
    key: &str,
    value: &Value,
    origin: Origin,
) -> Result<(), Refusal> {
    let info = OPTIONS
        .iter()
        .find(|option| option.key == key)
        .ok_or(Refusal::UnknownKey)?;
    let wrong = Refusal::InvalidValue(info.values);
    match key {
        "runtime.root" => {
            let value = absolute(value).ok_or(wrong)?;
            config.root = Setting { value, origin };
        }
        "runtime.systemd-cgroup" => {
            let value = match (value.as_bool(), value.as_str()) {
                (Some(true), _) => SystemdCgroup::Always,
                (Some(false), _) => SystemdCgroup::Never,
                (_, Some("auto")) => SystemdCgroup::Auto,
                _ => return Err(wrong),
            };
            config.systemd_cgroup = Setting { value, origin };
        }
        "log.level" => {
            let value = match value.as_str() {
                Some("debug") => LogLevel::Debug,
                Some("info") => LogLevel::Info,
                Some("warning") => LogLevel::Warning,
                Some("error") => LogLevel::Error,
                _ => return Err(wrong),
            };
            config.log_level = Setting { value, origin };
        }
        "log.format" => {
            let value = match value.as_str() {
                Some("text") => LogFormat::Text,
                Some("json") => LogFormat::Json,
                _ => return Err(wrong),
            };
            config.log_format = Setting { value, origin };
        }
        "memory.mode" => {
            let value = match value.as_str() {
                Some("off") => Mode::Off,
                Some("observe") => Mode::Observe,
                _ => return Err(wrong),
            };
            config.memory_mode = Setting { value, origin };
        }
        "profile.folder" => {
            let value = absolute(value).ok_or(wrong)?;
            config.profile_folder = Setting { value, origin };
        }
        "profile.keep-traces" => {
            let number = value.as_integer().and_then(|n| u32::try_from(n).ok());
            let value = number.filter(|n| *n <= 10_000).ok_or(wrong)?;
            config.keep_traces = Setting { value, origin };
        }
        _ => return Err(Refusal::UnknownKey),
    }
    Ok(())
}

fn absolute(value: &Value) -> Option<PathBuf> {
    let path = value.as_str().map(PathBuf::from)?;
    path.is_absolute().then_some(path)
}
