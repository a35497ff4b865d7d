//! Every option with its default, its meaning and its range: the one table from which the documents come.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::functions::FunctionTable;
use super::{Mode, Origin, Setting, values};
use crate::model::placement::PlacementPolicy;
use crate::model::{Bytes, Priority, Quantile, duration};
use crate::policy::identity::{PREFIX, Trusted};

/// An option as documents and `elastic-mem config show` have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionInfo {
    /// The key with its table.
    pub key: &'static str,
    /// What can stand there.
    pub values: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// All options but those of single functions, which are [`FUNCTION_OPTIONS`](super::FUNCTION_OPTIONS).
pub const OPTIONS: [OptionInfo; 24] = [
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
        values: values::MODE,
        meaning: "What is done with the memory of containers. off: nothing. observe: it is sampled, and nothing is \
                  changed. static: the grant is the largest need of the input class. replay: it follows the hull \
                  of earlier runs. elastic: it follows what the container uses, and rises ahead of what earlier runs \
                  needed. On cgroup v1 a mode that grants has to be chosen; the default there is observe.",
    },
    OptionInfo {
        key: "memory.step",
        values: values::STEP,
        meaning: "Grants of mode static are multiples of it.",
    },
    OptionInfo {
        key: "memory.pad",
        values: values::LARGE_SIZE,
        meaning: "Least distance between usage and grant.",
    },
    OptionInfo {
        key: "memory.lead",
        values: values::LEAD,
        meaning: "How far ahead a forecast is looked at: a grant rises so long before it is needed.",
    },
    OptionInfo {
        key: "memory.settle",
        values: values::SETTLE,
        meaning: "For how long less must have been enough before a grant is lowered.",
    },
    OptionInfo {
        key: "memory.hold",
        values: values::HOLD,
        meaning: "How long a container is left alone after its limit was met or written by somebody else.",
    },
    OptionInfo {
        key: "memory.keep-alive",
        values: values::SWITCH,
        meaning: "Whether functions are shrunk while they are idle.",
    },
    OptionInfo {
        key: "memory.priority",
        values: "\"normal\" or \"realtime\"",
        meaning: "How urgent the sampler's thread is. normal: nice -10. realtime: SCHED_FIFO where that is granted.",
    },
    OptionInfo {
        key: "memory.socket",
        values: values::SWITCH,
        meaning: "Whether containers get a socket inside, /run/elastic-mem-control/control.sock, by which they can say when a \
                  request begins and ends.",
    },
    OptionInfo {
        key: "memory.annotations",
        values: "a list of \"function\", \"class\", \"input-bytes\", \"mode\", \"slo-ms\", \"ceiling\", \"floor\", \
                 \"local-ratio\" and \"placement\"",
        meaning: "The annotations elastic-mem.io/* that containers may use. They only tighten.",
    },
    OptionInfo {
        key: "memory.environment",
        values: "a list of names of variables",
        meaning: "The environment variables of a container that may name its function; the first one that is there \
                  counts.",
    },
    OptionInfo {
        key: "placement.policy",
        values: values::PLACEMENT,
        meaning: "Where the memory of containers is to lie on a host with local and remote memory. off: where the kernel \
                  puts it. interleave=L:R: L parts local, R parts remote. adaptive: as few local as earlier runs allow \
                  under the latency bound. adrias: all local or all remote. faasmem: what requests do not touch remote, \
                  and idle containers step by step. pond: of that so much as earlier runs did not touch.",
    },
    OptionInfo {
        key: "placement.quantile",
        values: values::QUANTILE,
        meaning: "The share of runs that adaptive and adrias have keep to the latency bound (slo-ms).",
    },
    OptionInfo {
        key: "placement.explore",
        values: values::SWITCH,
        meaning: "Whether adaptive tries less local memory where that should keep to the latency bound and too few runs \
                  say so.",
    },
    OptionInfo {
        key: "placement.bandwidth",
        values: values::LARGE_SIZE,
        meaning: "At most so much is moved per second for one container whose memory does not lie as it should.",
    },
    OptionInfo {
        key: "placement.semi-warm-after",
        values: values::SETTLE,
        meaning: "A container that was idle for so long gives its local memory up in steps, by faasmem. Its own rests \
                  count before, and where nothing is set here those of earlier runs.",
    },
    OptionInfo {
        key: "weights.own",
        values: values::SWITCH,
        meaning: "Whether the interleave weights of the host may be set while containers need them. They are one table \
                  for the whole host, and given back with the last such container.",
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
    OptionInfo {
        key: "stand-in.namespaces",
        values: values::NAMESPACES,
        meaning: "The namespaces of containerd whose containers are ours where this program stands in for runc or its \
                  shim under their names. Those of all others go to the real ones.",
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
    /// `memory.step`.
    pub memory_step: Setting<Bytes>,
    /// `memory.pad`.
    pub memory_pad: Setting<Bytes>,
    /// `memory.lead`.
    pub memory_lead: Setting<Duration>,
    /// `memory.settle`.
    pub memory_settle: Setting<Duration>,
    /// `memory.hold`.
    pub memory_hold: Setting<Duration>,
    /// `memory.keep-alive`.
    pub memory_keep_alive: Setting<bool>,
    /// `memory.priority`.
    pub memory_priority: Setting<Priority>,
    /// `memory.socket`.
    pub memory_socket: Setting<bool>,
    /// `memory.annotations`, without `elastic-mem.io/`.
    pub memory_annotations: Setting<Vec<String>>,
    /// `memory.environment`.
    pub memory_environment: Setting<Vec<String>>,
    /// `placement.policy`.
    pub placement_policy: Setting<PlacementPolicy>,
    /// `placement.quantile`.
    pub placement_quantile: Setting<Quantile>,
    /// `placement.explore`.
    pub placement_explore: Setting<bool>,
    /// `placement.bandwidth`, per second.
    pub placement_bandwidth: Setting<Bytes>,
    /// `placement.semi-warm-after`.
    pub placement_semi_warm_after: Setting<Duration>,
    /// `weights.own`.
    pub weights_own: Setting<bool>,
    /// `profile.folder`.
    pub profile_folder: Setting<PathBuf>,
    /// `profile.keep-traces`.
    pub keep_traces: Setting<u32>,
    /// `stand-in.namespaces`.
    pub stand_in_namespaces: Setting<Vec<String>>,
    /// The tables `[functions.NAME]`, by NAME.
    pub functions: BTreeMap<String, FunctionTable>,
}

/// State folder of containers that no engine gave a `--root` for. Containerd namespaces cannot have this name.
const DEFAULT_ROOT: &str = "/run/elastic-mem/.oci";

/// `memory.step`: fine enough to waste little, and whole megabytes for those who pay by them.
const DEFAULT_STEP: Bytes = Bytes::new(1 << 20);

/// `memory.pad`: what small functions may be granted beyond their use.
const DEFAULT_PAD: Bytes = Bytes::new(8 << 20);

/// `placement.bandwidth`: a small share of what any memory does.
const DEFAULT_BANDWIDTH: Bytes = Bytes::new(200 << 20);

/// `placement.semi-warm-after`: most functions are called again before, or not for long.
const DEFAULT_SEMI_WARM_AFTER: Duration = Duration::from_secs(60);

/// `stand-in.namespaces`: where faasd has functions unless it is told otherwise.
const DEFAULT_STAND_IN: &str = "openfaas-fn";

/// Where traces and profiles lie.
const DEFAULT_PROFILES: &str = "/var/lib/elastic-mem";

impl Default for Config {
    fn default() -> Self {
        let trusted = Trusted::default();
        Self {
            root: Setting::default(default_root()),
            systemd_cgroup: Setting::default(SystemdCgroup::Auto),
            log_level: Setting::default(LogLevel::Info),
            log_format: Setting::default(LogFormat::Text),
            memory_mode: Setting::default(Mode::Elastic),
            memory_step: Setting::default(DEFAULT_STEP),
            memory_pad: Setting::default(DEFAULT_PAD),
            memory_lead: Setting::default(Duration::from_millis(20)),
            memory_settle: Setting::default(Duration::from_millis(20)),
            memory_hold: Setting::default(Duration::from_secs(10)),
            memory_keep_alive: Setting::default(true),
            memory_priority: Setting::default(Priority::Normal),
            memory_socket: Setting::default(false),
            memory_annotations: Setting::default(trusted.annotations),
            memory_environment: Setting::default(trusted.environment),
            placement_policy: Setting::default(PlacementPolicy::Off),
            placement_quantile: Setting::default(Quantile::P95),
            placement_explore: Setting::default(false),
            placement_bandwidth: Setting::default(DEFAULT_BANDWIDTH),
            placement_semi_warm_after: Setting::default(DEFAULT_SEMI_WARM_AFTER),
            weights_own: Setting::default(false),
            profile_folder: Setting::default(PathBuf::from(DEFAULT_PROFILES)),
            keep_traces: Setting::default(20),
            stand_in_namespaces: Setting::default(vec![DEFAULT_STAND_IN.to_owned()]),
            functions: BTreeMap::new(),
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
    /// What counts of that which containers say of themselves.
    pub fn trusted(&self) -> Trusted {
        Trusted {
            annotations: self.memory_annotations.value.clone(),
            environment: self.memory_environment.value.clone(),
        }
    }

    /// Whether containers may use an annotation of ours.
    pub fn trusts(&self, annotation: &str) -> bool {
        let key = annotation.strip_prefix(PREFIX);
        let allowed = &self.memory_annotations.value;
        key.is_some_and(|key| allowed.iter().any(|allowed| allowed == key))
    }

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
            (self.memory_step.value.to_text(), &self.memory_step.origin),
            (self.memory_pad.value.to_text(), &self.memory_pad.origin),
            (
                duration::text(self.memory_lead.value),
                &self.memory_lead.origin,
            ),
            (
                duration::text(self.memory_settle.value),
                &self.memory_settle.origin,
            ),
            (
                duration::text(self.memory_hold.value),
                &self.memory_hold.origin,
            ),
            (
                self.memory_keep_alive.value.to_string(),
                &self.memory_keep_alive.origin,
            ),
            (
                self.memory_priority.value.as_str().to_owned(),
                &self.memory_priority.origin,
            ),
            (
                self.memory_socket.value.to_string(),
                &self.memory_socket.origin,
            ),
            (
                values::list(&self.memory_annotations.value),
                &self.memory_annotations.origin,
            ),
            (
                values::list(&self.memory_environment.value),
                &self.memory_environment.origin,
            ),
            (
                self.placement_policy.value.to_string(),
                &self.placement_policy.origin,
            ),
            (
                self.placement_quantile.value.to_string(),
                &self.placement_quantile.origin,
            ),
            (
                self.placement_explore.value.to_string(),
                &self.placement_explore.origin,
            ),
            (
                self.placement_bandwidth.value.to_text(),
                &self.placement_bandwidth.origin,
            ),
            (
                duration::text(self.placement_semi_warm_after.value),
                &self.placement_semi_warm_after.origin,
            ),
            (self.weights_own.value.to_string(), &self.weights_own.origin),
            (
                self.profile_folder.value.display().to_string(),
                &self.profile_folder.origin,
            ),
            (self.keep_traces.value.to_string(), &self.keep_traces.origin),
            (
                values::list(&self.stand_in_namespaces.value),
                &self.stand_in_namespaces.origin,
            ),
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
            let value = values::path(value).ok_or(wrong)?;
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
            let value = values::mode(value).ok_or(wrong)?;
            config.memory_mode = Setting { value, origin };
        }
        "memory.step" => {
            let value = values::step(value).ok_or(wrong)?;
            config.memory_step = Setting { value, origin };
        }
        "memory.pad" => {
            let value = values::large_size(value).ok_or(wrong)?;
            config.memory_pad = Setting { value, origin };
        }
        "memory.lead" => {
            let value = values::lead(value).ok_or(wrong)?;
            config.memory_lead = Setting { value, origin };
        }
        "memory.settle" => {
            let value = values::settle(value).ok_or(wrong)?;
            config.memory_settle = Setting { value, origin };
        }
        "memory.hold" => {
            let value = values::hold(value).ok_or(wrong)?;
            config.memory_hold = Setting { value, origin };
        }
        "memory.keep-alive" => {
            let value = value.as_bool().ok_or(wrong)?;
            config.memory_keep_alive = Setting { value, origin };
        }
        "memory.priority" => {
            let value = values::priority(value).ok_or(wrong)?;
            config.memory_priority = Setting { value, origin };
        }
        "memory.socket" => {
            let value = value.as_bool().ok_or(wrong)?;
            config.memory_socket = Setting { value, origin };
        }
        "memory.annotations" => {
            let value = values::annotations(value).ok_or(wrong)?;
            config.memory_annotations = Setting { value, origin };
        }
        "memory.environment" => {
            let value = values::variables(value).ok_or(wrong)?;
            config.memory_environment = Setting { value, origin };
        }
        "placement.policy" => {
            let value = values::placement(value).ok_or(wrong)?;
            config.placement_policy = Setting { value, origin };
        }
        "placement.quantile" => {
            let value = values::quantile(value).ok_or(wrong)?;
            config.placement_quantile = Setting { value, origin };
        }
        "placement.explore" => {
            let value = value.as_bool().ok_or(wrong)?;
            config.placement_explore = Setting { value, origin };
        }
        "placement.bandwidth" => {
            let value = values::large_size(value).ok_or(wrong)?;
            config.placement_bandwidth = Setting { value, origin };
        }
        "placement.semi-warm-after" => {
            let value = values::settle(value).ok_or(wrong)?;
            config.placement_semi_warm_after = Setting { value, origin };
        }
        "weights.own" => {
            let value = value.as_bool().ok_or(wrong)?;
            config.weights_own = Setting { value, origin };
        }
        "profile.folder" => {
            let value = values::path(value).ok_or(wrong)?;
            config.profile_folder = Setting { value, origin };
        }
        "profile.keep-traces" => {
            let number = value.as_integer().and_then(|n| u32::try_from(n).ok());
            let value = number.filter(|n| *n <= 10_000).ok_or(wrong)?;
            config.keep_traces = Setting { value, origin };
        }
        "stand-in.namespaces" => {
            let value = values::namespaces(value).ok_or(wrong)?;
            config.stand_in_namespaces = Setting { value, origin };
        }
        _ => return Err(Refusal::UnknownKey),
    }
    Ok(())
}
