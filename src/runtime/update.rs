//! `update`: other limits for a container in use.

use std::io::Read;
use std::path::Path;

use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use super::driver::Driver;
use super::error::{Result, RuntimeError};
use super::json::typed;
use super::state::{Container, Status};
use crate::model::MemoryLimit;

/// Limits given on the command line; what is absent stays as it is.
#[derive(Debug, Default)]
pub struct UpdateOptions {
    /// Memory limit.
    pub memory: Option<MemoryLimit>,
    /// Soft limit of memory.
    pub memory_reservation: Option<MemoryLimit>,
    /// Limit of memory and swap together.
    pub memory_swap: Option<MemoryLimit>,
    /// CPU shares.
    pub cpu_share: Option<u64>,
    /// CPU time per period, microseconds; -1 for no limit.
    pub cpu_quota: Option<i64>,
    /// CPU period, microseconds.
    pub cpu_period: Option<u64>,
    /// Unused quota that may be spent later, microseconds.
    pub cpu_burst: Option<u64>,
    /// Realtime CPU time per period, microseconds.
    pub cpu_rt_runtime: Option<i64>,
    /// Realtime period, microseconds.
    pub cpu_rt_period: Option<u64>,
    /// 1 to run only when nothing else does.
    pub cpu_idle: Option<i64>,
    /// Processors, as a list such as `0-2,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as a list.
    pub cpuset_mems: Option<String>,
    /// Most processes and threads; -1 for no limit.
    pub pids_limit: Option<i64>,
    /// Weight among block device users, 10 to 1000.
    pub blkio_weight: Option<u16>,
}

impl UpdateOptions {
    /// As `linux.resources` of the runtime-spec.
    fn to_json(&self) -> Value {
        fn put<T: Into<Value>>(map: &mut Map<String, Value>, key: &str, value: Option<T>) {
            if let Some(value) = value {
                map.insert(key.to_owned(), value.into());
            }
        }
        let bytes = |limit: Option<MemoryLimit>| limit.map(MemoryLimit::as_spec);
        let mut memory = Map::new();
        put(&mut memory, "limit", bytes(self.memory));
        put(&mut memory, "reservation", bytes(self.memory_reservation));
        put(&mut memory, "swap", bytes(self.memory_swap));
        let mut cpu = Map::new();
        put(&mut cpu, "shares", self.cpu_share);
        put(&mut cpu, "quota", self.cpu_quota);
        put(&mut cpu, "period", self.cpu_period);
        put(&mut cpu, "burst", self.cpu_burst);
        put(&mut cpu, "realtimeRuntime", self.cpu_rt_runtime);
        put(&mut cpu, "realtimePeriod", self.cpu_rt_period);
        put(&mut cpu, "idle", self.cpu_idle);
        put(&mut cpu, "cpus", self.cpuset_cpus.clone());
        put(&mut cpu, "mems", self.cpuset_mems.clone());
        let mut out = Map::new();
        for (key, map) in [("memory", memory), ("cpu", cpu)] {
            if !map.is_empty() {
                out.insert(key.to_owned(), Value::Object(map));
            }
        }
        put(
            &mut out,
            "pids",
            self.pids_limit.map(|limit| json!({"limit": limit})),
        );
        put(
            &mut out,
            "blockIO",
            self.blkio_weight.map(|weight| json!({"weight": weight})),
        );
        Value::Object(out)
    }
}

/// Changes limits given as options.
///
/// # Errors
/// `NotRunning` for a container that has stopped, `Kernel` with the value and file that the kernel refused.
pub fn update(container: &Container, options: &UpdateOptions) -> Result<()> {
    apply(container, options.to_json())
}

/// Changes limits given as `linux.resources` JSON in a file, `-` for standard input.
///
/// # Errors
/// As [`update`]; `Io` or `Json` for the file.
pub fn update_from(container: &Container, path: &Path) -> Result<()> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|err| RuntimeError::io("read", "standard input", err))?;
    } else {
        text = std::fs::read_to_string(path).map_err(|err| RuntimeError::io("read", path, err))?;
    }
    let json: Value = serde_json::from_str(&text)
        .map_err(|err| RuntimeError::json(format!("resources from {}", path.display()), err))?;
    apply(container, json)
}

fn apply(container: &Container, json: Value) -> Result<()> {
    if container.status() == Status::Stopped {
        return Err(RuntimeError::NotRunning);
    }
    let limits: LinuxResources = typed(json, "resources")?;
    let state = &container.state;
    Driver::of(state.systemd_unit.as_ref()).update(&state.cgroup, &state.id, &limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_written() {
        let options = UpdateOptions {
            memory: Some(MemoryLimit::None),
            cpu_quota: Some(-1),
            cpuset_mems: Some("0".to_owned()),
            ..UpdateOptions::default()
        };
        assert_eq!(
            options.to_json(),
            json!({"memory": {"limit": -1}, "cpu": {"quota": -1, "mems": "0"}})
        );
        assert_eq!(UpdateOptions::default().to_json(), json!({}));
    }
}
