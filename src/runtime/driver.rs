//! Who makes the control group: this command in the file system, or systemd on request.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use libcgroups::common::{CgroupManager, ControllerOpt};
use libcgroups::systemd::manager::Manager as SystemdManager;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;

use super::error::{Result, RuntimeError};
use crate::kernel::KernelError;
use crate::kernel::cgroup::{Cgroup, Hierarchies, Version, weight_of_shares, without_zeros};
use crate::kernel::process;

/// How long systemd may take to move a process into a new scope; runc waits as long.
const SCOPE_PATIENCE: Duration = Duration::from_secs(30);

/// How the control group of one container is made, changed and removed.
#[derive(Debug)]
pub(super) enum Driver {
    /// Directories in the cgroup file system.
    FileSystem,
    /// A transient scope of systemd, as `slice:prefix:name`.
    Systemd(String),
}

/// Whether a cgroups path has the form that only the systemd driver understands.
///
/// Docker gives it without saying `--systemd-cgroup`.
fn is_systemd_form(path: &str) -> bool {
    !path.starts_with('/') && path.split(':').count() == 3
}

impl Driver {
    /// Chooses by the command line, and by the form of the path.
    ///
    /// # Errors
    /// `Unsupported` when systemd is asked for and cannot serve.
    pub(super) fn choose(
        requested: bool,
        path: Option<&str>,
        id: &str,
        version: Version,
    ) -> Result<Self> {
        let systemd_form = path.is_some_and(is_systemd_form);
        let usable = version == Version::V2 && process::systemd_booted();
        let recognised = systemd_form && usable;
        if !requested && !recognised {
            return Ok(Self::FileSystem);
        }
        let refuse = |text: &str| Err(RuntimeError::Unsupported(text.to_owned()));
        if !process::systemd_booted() {
            return refuse("systemd not running on this host, cannot use systemd cgroups manager");
        }
        if version == Version::V1 {
            return refuse("the systemd cgroup driver needs cgroup v2; this host has cgroup v1");
        }
        match path {
            Some(path) if systemd_form => Ok(Self::Systemd(path.to_owned())),
            Some(path) => refuse(&format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
            )),
            None => Ok(Self::Systemd(format!(":elastic-mem:{id}"))),
        }
    }

    /// The driver of a container that exists.
    pub(super) fn of(unit: Option<&String>) -> Self {
        match unit {
            Some(unit) => Self::Systemd(unit.clone()),
            None => Self::FileSystem,
        }
    }

    /// The name to remember.
    pub(super) fn unit(&self) -> Option<String> {
        match self {
            Self::FileSystem => None,
            Self::Systemd(unit) => Some(unit.clone()),
        }
    }

    /// Where the control group will be; systemd decides in the end, see [`Driver::join`].
    pub(super) fn locate(
        &self,
        hierarchies: &Hierarchies,
        path: Option<&str>,
        id: &str,
    ) -> Result<Cgroup> {
        let cgroup = match self {
            Self::FileSystem => Cgroup::for_spec(hierarchies, path.map(Path::new), id)?,
            Self::Systemd(unit) => Cgroup::for_spec(hierarchies, Some(&scope_path(unit)), id)?,
        };
        Ok(cgroup)
    }

    /// Makes the control group and moves a process into it; returns where it is.
    ///
    /// # Errors
    /// `Cgroup` or `Systemd`.
    pub(super) fn join(
        &self,
        hierarchies: &Hierarchies,
        cgroup: Cgroup,
        id: &str,
        pid: i32,
    ) -> Result<Cgroup> {
        match self {
            Self::FileSystem => {
                cgroup.create().map_err(RuntimeError::Cgroup)?;
                cgroup.attach(pid).map_err(RuntimeError::Cgroup)?;
                Ok(cgroup)
            }
            Self::Systemd(unit) => {
                manager(unit, id)?
                    .add_task(Pid::from_raw(pid))
                    .map_err(|err| systemd(&err))?;
                Ok(Cgroup::of_process(hierarchies, pid).map_err(RuntimeError::Cgroup)?)
            }
        }
    }

    /// Sets the limits of a new control group.
    ///
    /// # Errors
    /// `Limit` or `Systemd`.
    pub(super) fn apply(&self, cgroup: &Cgroup, id: &str, limits: &LinuxResources) -> Result<()> {
        self.tell_systemd(cgroup, id, limits)?;
        cgroup.apply(limits).map_err(RuntimeError::Limit)
    }

    /// Changes limits of a control group in use.
    ///
    /// # Errors
    /// `Kernel` or `Systemd`.
    pub(super) fn update(&self, cgroup: &Cgroup, id: &str, limits: &LinuxResources) -> Result<()> {
        cgroup.check(limits).map_err(RuntimeError::Kernel)?;
        self.tell_systemd(cgroup, id, limits)?;
        cgroup.update(limits).map_err(RuntimeError::Kernel)
    }

    /// systemd must know the limits too, or it undoes them at its next reload.
    fn tell_systemd(&self, cgroup: &Cgroup, id: &str, limits: &LinuxResources) -> Result<()> {
        let Self::Systemd(unit) = self else {
            return Ok(());
        };
        let passed_on = for_systemd(limits, cgroup.quota(), cgroup.memory_limit());
        let options = ControllerOpt {
            resources: &passed_on,
            freezer_state: None,
            oom_score_adj: None,
            disable_oom_killer: false,
        };
        manager(unit, id)?
            .apply(&options)
            .map_err(|err| systemd(&err))?;
        let dir = cgroup.controller("cgroup").and_then(Path::file_name);
        let scope = dir.map(OsStr::to_string_lossy).unwrap_or_default();
        set_properties(&scope, &assignments(limits)?)
    }

    /// Removes the control group; with `kill`, the processes in it first, without, only what is empty.
    ///
    /// # Errors
    /// `Kernel` with the directory that stays.
    pub(super) fn remove(&self, cgroup: &Cgroup, id: &str, kill: bool) -> Result<()> {
        if !kill {
            // Others live there too: it was not made for this container alone.
            cgroup.release();
            return Ok(());
        }
        if let Self::Systemd(unit) = self {
            cgroup.signal_all(libc::SIGKILL).or_else(ignore_gone)?;
            // A scope goes by itself when its last process ends; a failed one has to be dismissed.
            if let Err(err) =
                manager(unit, id).and_then(|m| m.remove().map_err(|err| systemd(&err)))
            {
                tracing::debug!(%err, "scope not stopped");
            }
        }
        Ok(cgroup.remove()?)
    }
}

pub(super) fn ignore_gone(err: KernelError) -> std::result::Result<(), KernelError> {
    if err.is_gone() { Ok(()) } else { Err(err) }
}

/// The limits in a form that libcgroups 0.7 passes on to systemd rightly.
///
/// What it cannot is left out, see [`assignments`]. It makes other weights of CPU shares than runc 1.1 and we do.
/// What is absent or zero beside a CPU or swap limit it takes for unlimited or for an error, so that is filled in
/// with what holds now.
fn for_systemd(
    limits: &LinuxResources,
    quota: Option<(i64, u64)>,
    memory_limit: Option<i64>,
) -> LinuxResources {
    let mut limits = without_zeros(limits);
    limits.set_unified(None);
    if let Some(mut cpu) = limits.cpu().clone() {
        cpu.set_cpus(None).set_mems(None);
        if let Some(shares) = cpu.shares() {
            cpu.set_shares(Some(shares_for_weight(weight_of_shares(shares))));
        }
        if let Some((now, period)) = quota {
            if cpu.quota().is_none() {
                cpu.set_quota(Some(now));
            }
            if cpu.period().is_none() {
                cpu.set_period(Some(period));
            }
        }
        limits.set_cpu(Some(cpu));
    }
    if let Some(mut memory) = *limits.memory() {
        if memory.limit().is_none() && memory.swap().is_some() {
            memory.set_limit(memory_limit);
        }
        limits.set_memory(Some(memory));
    }
    limits
}

/// The limits that libcgroups 0.7 cannot tell systemd, as assignments of `systemd.resource-control(5)`.
///
/// It sends cpusets in a type that systemd refuses, and of `unified` it takes quotas for quotas per second,
/// weights for shares, and `max` for an error.
///
/// # Errors
/// `Systemd` for a quota that is none. Files that systemd has no setting for are in the control group alone.
fn assignments(limits: &LinuxResources) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let cpu = limits.cpu().as_ref();
    let sets = [
        ("AllowedCPUs", cpu.and_then(|cpu| cpu.cpus().as_deref())),
        (
            "AllowedMemoryNodes",
            cpu.and_then(|cpu| cpu.mems().as_deref()),
        ),
    ];
    for (name, list) in sets {
        if let Some(list) = list.filter(|list| !list.is_empty()) {
            found.push(format!("{name}={list}"));
        }
    }
    let mut unified: Vec<_> = limits.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        let name = match file.as_str() {
            "cpu.max" => {
                found.extend(cpu_max(value)?);
                continue;
            }
            "cpu.weight" => "CPUWeight",
            "cpuset.cpus" => "AllowedCPUs",
            "cpuset.mems" => "AllowedMemoryNodes",
            "memory.min" => "MemoryMin",
            "memory.low" => "MemoryLow",
            "memory.high" => "MemoryHigh",
            "memory.max" => "MemoryMax",
            "memory.swap.max" => "MemorySwapMax",
            "pids.max" => "TasksMax",
            _ => continue,
        };
        let value = match value.trim() {
            "max" => "infinity",
            value => value,
        };
        found.push(format!("{name}={value}"));
    }
    Ok(found)
}

/// `cpu.max`, a quota and perhaps a period in microseconds, as systemd has them: percents and a period.
fn cpu_max(value: &str) -> Result<Vec<String>> {
    let refuse = || RuntimeError::Systemd(format!("cpu.max {value:?} is no quota and period"));
    let mut words = value.split_ascii_whitespace();
    let quota = words.next().ok_or_else(refuse)?;
    let period: u64 = words.next().map_or(Ok(100_000), |word| {
        word.parse().map_err(|_not_a_number| refuse())
    })?;
    let percents = if quota == "max" {
        String::new()
    } else {
        let quota: u64 = quota.parse().map_err(|_not_a_number| refuse())?;
        // In hundredths, which is all that systemd keeps, and never less than was asked for.
        let hundredths = quota
            .checked_mul(10_000)
            .filter(|_| period > 0)
            .map(|scaled| scaled.div_ceil(period))
            .ok_or_else(refuse)?;
        format!("{}.{:02}%", hundredths / 100, hundredths % 100)
    };
    Ok(vec![
        format!("CPUQuota={percents}"),
        format!("CPUQuotaPeriodSec={period}us"),
    ])
}

/// Sets properties of a scope until it ends, by systemd's own command.
///
/// # Errors
/// `Systemd` with what the command said.
fn set_properties(scope: &str, assignments: &[String]) -> Result<()> {
    if assignments.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("systemctl");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--user");
    }
    let output = command
        .args(["set-property", "--runtime", "--", scope])
        .args(assignments)
        .stdin(Stdio::null())
        .output()
        .map_err(|err| RuntimeError::io("run", "systemctl", err))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(RuntimeError::Systemd(format!(
        "systemctl set-property {scope} {}: {}",
        assignments.join(" "),
        said.trim()
    )))
}

/// The least CPU shares of which libcgroups makes a weight. It has each weight from 1 to 10,000.
fn shares_for_weight(weight: u64) -> u64 {
    let (mut low, mut high) = (2, 262_144);
    while low < high {
        let middle = u64::midpoint(low, high);
        if weight_of_libcgroups(middle) < weight {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// `convert_shares_to_cgroup2` of libcgroups 0.7, which is private there.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the formula of another, for numbers up to 262,144"
)]
fn weight_of_libcgroups(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10_f64
                .powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0)
                .ceil() as u64
        }
    }
}

fn systemd(err: &dyn std::error::Error) -> RuntimeError {
    RuntimeError::Systemd(err.to_string())
}

fn manager(unit: &str, id: &str) -> Result<SystemdManager> {
    let system_bus = nix::unistd::geteuid().is_root();
    SystemdManager::new(
        PathBuf::from("/sys/fs/cgroup"),
        PathBuf::from(unit),
        id.to_owned(),
        system_bus,
        SCOPE_PATIENCE,
    )
    .map_err(|err| systemd(&err))
}

/// The cgroup path of `slice:prefix:name`: `/a.slice/a-b.slice/prefix-name.scope` (systemd.slice(5)).
fn scope_path(unit: &str) -> PathBuf {
    let mut parts = unit.splitn(3, ':');
    let slice = parts
        .next()
        .filter(|s| !s.is_empty())
        .unwrap_or("system.slice");
    let prefix = parts.next().unwrap_or_default();
    let name = parts.next().unwrap_or_default();
    let mut path = PathBuf::from("/");
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    if stem != "-" {
        let mut so_far = String::new();
        for part in stem.split('-') {
            if !so_far.is_empty() {
                so_far.push('-');
            }
            so_far.push_str(part);
            path.push(format!("{so_far}.slice"));
        }
    }
    path.push(match (prefix, name.ends_with(".slice")) {
        (_, true) => name.to_owned(),
        ("", _) => format!("{name}.scope"),
        _ => format!("{prefix}-{name}.scope"),
    });
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_lies_in_the_slices_that_its_name_begins_with() {
        assert_eq!(
            scope_path("kubepods-burstable-pod1.slice:cri:abc"),
            Path::new(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-abc.scope"
            )
        );
        assert_eq!(
            scope_path(":docker:x"),
            Path::new("/system.slice/docker-x.scope")
        );
        assert_eq!(scope_path("-.slice::x"), Path::new("/x.scope"));
    }

    #[test]
    fn systemd_is_told_what_holds_beside_a_change() {
        let limits = |json: serde_json::Value| -> LinuxResources {
            serde_json::from_value(json).expect("resources")
        };
        let change = limits(serde_json::json!({
            "cpu": {"shares": 256, "cpus": "0", "mems": "0"}, "memory": {"swap": 200}
        }));
        let told = for_systemd(&change, Some((20_000, 50_000)), Some(100));
        let wanted = limits(serde_json::json!({
            "cpu": {"shares": shares_for_weight(10), "quota": 20_000, "period": 50_000},
            "memory": {"limit": 100, "swap": 200}
        }));
        assert_eq!(told, wanted);
        let zeros = limits(serde_json::json!({
            "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0},
            "memory": {"limit": 0, "reservation": 0, "swap": 0}, "pids": {"limit": 0}
        }));
        let wanted = limits(serde_json::json!({
            "cpu": {"quota": 20_000, "period": 50_000}, "memory": {}
        }));
        let told = for_systemd(&zeros, Some((20_000, 50_000)), Some(100));
        assert_eq!(told, wanted);
        let change = limits(serde_json::json!({"pids": {"limit": 3}}));
        assert_eq!(for_systemd(&change, Some((-1, 100_000)), Some(-1)), change);
    }

    #[test]
    fn every_weight_comes_of_some_shares() {
        for weight in 1..=10_000 {
            let made = weight_of_libcgroups(shares_for_weight(weight));
            assert_eq!(made, weight, "of {}", shares_for_weight(weight));
        }
        assert_eq!(weight_of_libcgroups(1024), 100);
    }

    #[test]
    fn what_libcgroups_cannot_say_is_said_in_systemds_words() {
        let said = |json: serde_json::Value| {
            assignments(&serde_json::from_value(json).expect("resources"))
        };
        let limits = serde_json::json!({
            "cpu": {"shares": 256, "cpus": "0-1,3", "mems": "1"},
            "memory": {"limit": 100},
            "unified": {
                "cpu.max": "50000 100000", "cpu.weight": "77", "memory.high": "max",
                "memory.swap.max": "4096", "pids.max": "max", "memory.oom.group": "1"
            }
        });
        let wanted = [
            "AllowedCPUs=0-1,3",
            "AllowedMemoryNodes=1",
            "CPUQuota=50.00%",
            "CPUQuotaPeriodSec=100000us",
            "CPUWeight=77",
            "MemoryHigh=infinity",
            "MemorySwapMax=4096",
            "TasksMax=infinity",
        ];
        assert_eq!(said(limits).expect("assignments"), wanted);
        let none = serde_json::json!({"cpu": {"shares": 5, "cpus": ""}});
        assert!(said(none).expect("none").is_empty());
        let quota = |text: &str| said(serde_json::json!({"unified": {"cpu.max": text}}));
        assert_eq!(
            quota("1001 3000").expect("rounded up")[0],
            "CPUQuota=33.37%"
        );
        assert_eq!(quota("max").expect("no limit")[0], "CPUQuota=");
        for text in ["", "x", "5 0", "5 x", "18446744073709551615"] {
            assert!(quota(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_form_alone_tells_systemd_paths() {
        assert!(is_systemd_form("system.slice:docker:abc"));
        assert!(!is_systemd_form("/docker/abc"));
        assert!(!is_systemd_form("a:b"));
    }
}
