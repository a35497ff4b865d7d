//! From the limits of a bundle to writes of cgroup files.
//!
//! [`writes`] is pure: limits and version in, values out, in the order in which the kernel takes them.
//! The one thing it cannot know is whether a v1 memory limit rises or falls, because memory and memory+swap
//! bound each other; [`apply`] reads that before it writes.

use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::{Cgroup, Version};
use crate::kernel::{KernelError, Result, read_text, write_text};

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Write {
    controller: &'static str,
    file: String,
    value: String,
}

fn to(controller: &'static str, file: impl Into<String>, value: impl ToString) -> Write {
    Write {
        controller,
        file: file.into(),
        value: value.to_string(),
    }
}

pub(super) fn apply(cgroup: &Cgroup, limits: &LinuxResources) -> Result<()> {
    if cgroup.version == Version::V1
        && let (Some(memory), Some(dir)) = (limits.memory(), cgroup.controller("memory"))
    {
        apply_memory_v1(dir, memory)?;
    }
    for write in writes(cgroup.version, limits)? {
        let dir = cgroup.controller(write.controller).ok_or_else(|| {
            KernelError::Unsupported(format!(
                "{} needs the {} cgroup, which the host does not have",
                write.file, write.controller
            ))
        })?;
        let mut file = dir.join(&write.file);
        if write.file == "blkio.weight" && !file.exists() {
            // With the BFQ scheduler the file has its name.
            file = dir.join("blkio.bfq.weight");
        }
        write_text(&file, &write.value)?;
        if write.file == "cpu.shares" {
            check_shares(&file, &write.value)?;
        }
    }
    Ok(())
}

/// The kernel moves shares out of range into it without a word; a limit that is not in force must not look as if.
fn check_shares(file: &Path, wanted: &str) -> Result<()> {
    let now = read_text(file)?;
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    let word = match number(wanted).cmp(&number(&now)) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Greater => "maximum",
        std::cmp::Ordering::Less => "minimum",
    };
    Err(KernelError::Unsupported(format!(
        "the {word} allowed cpu-shares is {now}"
    )))
}

/// Memory and memory+swap limits of cgroup v1. The kernel holds `limit <= memsw.limit` at every moment,
/// so the one that moves away from the other goes first.
fn apply_memory_v1(dir: &Path, memory: &LinuxMemory) -> Result<()> {
    let limit = memory.limit().filter(|value| *value != 0);
    let mut swap = memory.swap().filter(|value| *value != 0);
    if limit == Some(-1) && swap.is_none() {
        // No limit on memory means none on memory+swap either, where the kernel has that file.
        swap = dir
            .join("memory.memsw.limit_in_bytes")
            .exists()
            .then_some(-1);
    }
    let write_limit = |value: Option<i64>| match value {
        Some(value) => set_limit_v1(dir, value),
        None => Ok(()),
    };
    let write_swap = |value: Option<i64>| match value {
        Some(value) => write_text(&dir.join("memory.memsw.limit_in_bytes"), &value.to_string()),
        None => Ok(()),
    };
    let now: u64 = read_text(&dir.join("memory.limit_in_bytes"))?
        .parse()
        .unwrap_or(u64::MAX);
    let swap_first =
        swap.is_some_and(|value| u64::try_from(value).is_ok_and(|v| v > now) || value == -1);
    if swap_first {
        write_swap(swap)?;
        write_limit(limit)
    } else {
        write_limit(limit)?;
        write_swap(swap)
    }
}

fn set_limit_v1(dir: &Path, limit: i64) -> Result<()> {
    let file = dir.join("memory.limit_in_bytes");
    match write_text(&file, &limit.to_string()) {
        Err(KernelError::Io { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
            let read = |name| read_text(&dir.join(name)).unwrap_or_default();
            Err(KernelError::Unsupported(format!(
                "unable to set memory limit to {limit} (current usage: {}, peak usage: {})",
                read("memory.usage_in_bytes"),
                read("memory.max_usage_in_bytes")
            )))
        }
        other => other,
    }
}

fn writes(version: Version, limits: &LinuxResources) -> Result<Vec<Write>> {
    let mut out = Vec::new();
    match version {
        Version::V1 => {
            if let Some(memory) = limits.memory() {
                memory_v1(memory, &mut out)?;
            }
            if let Some(cpu) = limits.cpu() {
                cpu_v1(cpu, &mut out);
            }
            if let Some(block_io) = limits.block_io() {
                block_io_v1(block_io, &mut out);
            }
            if let Some(network) = limits.network() {
                if let Some(class) = network.class_id() {
                    out.push(to("net_cls", "net_cls.classid", class));
                }
                for priority in network.priorities().iter().flatten() {
                    let value = format!("{} {}", priority.name(), priority.priority());
                    out.push(to("net_prio", "net_prio.ifpriomap", value));
                }
            }
        }
        Version::V2 => {
            if let Some(memory) = limits.memory() {
                memory_v2(memory, &mut out)?;
            }
            if let Some(cpu) = limits.cpu() {
                cpu_v2(cpu, &mut out);
            }
            if let Some(block_io) = limits.block_io() {
                block_io_v2(block_io, &mut out);
            }
        }
    }
    if let Some(pids) = limits.pids() {
        // runtime-spec: 0 and below mean no limit.
        let value = match pids.limit() {
            limit if limit > 0 => limit.to_string(),
            _ => "max".to_owned(),
        };
        out.push(to("pids", "pids.max", value));
    }
    for page in limits.hugepage_limits().iter().flatten() {
        let file = match version {
            Version::V1 => format!("hugetlb.{}.limit_in_bytes", page.page_size()),
            Version::V2 => format!("hugetlb.{}.max", page.page_size()),
        };
        out.push(to("hugetlb", file, page.limit()));
    }
    for (device, rdma) in limits.rdma().iter().flatten() {
        let handles = rdma.hca_handles().map(|n| format!(" hca_handle={n}"));
        let objects = rdma.hca_objects().map(|n| format!(" hca_object={n}"));
        let value = format!(
            "{device}{}{}",
            handles.unwrap_or_default(),
            objects.unwrap_or_default()
        );
        out.push(to("rdma", "rdma.max", value));
    }
    unified(version, limits, &mut out)?;
    Ok(out)
}

/// Raw cgroup v2 files, in a fixed order: the same bundle always gives the same writes.
fn unified(version: Version, limits: &LinuxResources, out: &mut Vec<Write>) -> Result<()> {
    let Some(map) = limits.unified().as_ref().filter(|map| !map.is_empty()) else {
        return Ok(());
    };
    if version == Version::V1 {
        return Err(KernelError::Unsupported(
            "invalid configuration: cgroup v2 unified resources are set, but the host has cgroup v1"
                .to_owned(),
        ));
    }
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort();
    for (file, value) in pairs {
        if file.contains('/') {
            return Err(KernelError::Unsupported(format!(
                "unified resource {file:?} must be a file name (no slashes)"
            )));
        }
        out.push(to("", file.as_str(), value));
    }
    Ok(())
}

fn memory_v1(memory: &LinuxMemory, out: &mut Vec<Write>) -> Result<()> {
    let some = |value: Option<i64>| value.filter(|v| *v != 0);
    if let Some(value) = some(memory.reservation()) {
        out.push(to("memory", "memory.soft_limit_in_bytes", value));
    }
    if let Some(value) = some(memory.kernel_tcp()) {
        out.push(to("memory", "memory.kmem.tcp.limit_in_bytes", value));
    }
    if memory.disable_oom_killer() == Some(true) {
        out.push(to("memory", "memory.oom_control", 1));
    }
    if let Some(value) = memory.swappiness() {
        if value > 100 {
            return Err(KernelError::Unsupported(format!(
                "invalid memory swappiness value: {value} (valid range is 0-100)"
            )));
        }
        out.push(to("memory", "memory.swappiness", value));
    }
    Ok(())
}

fn memory_v2(memory: &LinuxMemory, out: &mut Vec<Write>) -> Result<()> {
    let value = |n: i64| match n {
        -1 => "max".to_owned(),
        n => n.to_string(),
    };
    let limit = memory.limit().filter(|n| *n != 0);
    let swap = memory.swap().filter(|n| *n != 0);
    // runtime-spec gives memory+swap, the file wants swap alone.
    match (limit, swap) {
        (_, Some(-1)) | (Some(-1), None) => out.push(to("memory", "memory.swap.max", "max")),
        (Some(limit), Some(swap)) if limit > 0 => {
            let alone = swap.checked_sub(limit).filter(|n| *n >= 0).ok_or_else(|| {
                KernelError::Unsupported("memory+swap limit should be >= memory limit".to_owned())
            })?;
            out.push(to("memory", "memory.swap.max", alone));
        }
        (_, Some(_)) => {
            return Err(KernelError::Unsupported(
                "unable to set swap limit without memory limit".to_owned(),
            ));
        }
        (_, None) => {}
    }
    if let Some(limit) = limit {
        out.push(to("memory", "memory.max", value(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|n| *n != 0) {
        out.push(to("memory", "memory.low", value(reservation)));
    }
    Ok(())
}

fn cpu_v1(cpu: &LinuxCpu, out: &mut Vec<Write>) {
    if let Some(shares) = cpu.shares().filter(|n| *n != 0) {
        out.push(to("cpu", "cpu.shares", shares));
    }
    // The period before the quota: a quota is checked against the period in force.
    if let Some(period) = cpu.period().filter(|n| *n != 0) {
        out.push(to("cpu", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = cpu.quota().filter(|n| *n != 0) {
        out.push(to("cpu", "cpu.cfs_quota_us", quota));
    }
    if let Some(burst) = cpu.burst() {
        out.push(to("cpu", "cpu.cfs_burst_us", burst));
    }
    if let Some(period) = cpu.realtime_period().filter(|n| *n != 0) {
        out.push(to("cpu", "cpu.rt_period_us", period));
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|n| *n != 0) {
        out.push(to("cpu", "cpu.rt_runtime_us", runtime));
    }
    if let Some(idle) = cpu.idle() {
        out.push(to("cpu", "cpu.idle", idle));
    }
    cpuset(cpu, out);
}

fn cpu_v2(cpu: &LinuxCpu, out: &mut Vec<Write>) {
    if let Some(idle) = cpu.idle() {
        out.push(to("cpu", "cpu.idle", idle));
    }
    if let Some(shares) = cpu.shares().filter(|n| *n != 0) {
        out.push(to("cpu", "cpu.weight", weight_of_shares(shares)));
    }
    let quota = cpu.quota().filter(|n| *n != 0);
    let period = cpu.period().filter(|n| *n != 0);
    if quota.is_some() || period.is_some() {
        let quota = match quota {
            Some(quota) if quota > 0 => quota.to_string(),
            _ => "max".to_owned(),
        };
        // The kernel keeps the period in force when the second number is missing.
        let period = period.map(|n| format!(" {n}")).unwrap_or_default();
        out.push(to("cpu", "cpu.max", format!("{quota}{period}")));
    }
    if let Some(burst) = cpu.burst() {
        out.push(to("cpu", "cpu.max.burst", burst));
    }
    cpuset(cpu, out);
}

/// CPU shares 2..=262144 to weights 1..=10000, as every OCI runtime converts them.
pub fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn cpuset(cpu: &LinuxCpu, out: &mut Vec<Write>) {
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_deref().filter(|text| !text.is_empty()) {
            out.push(to("cpuset", file, value));
        }
    }
}

fn block_io_v1(io: &LinuxBlockIo, out: &mut Vec<Write>) {
    // Two schedulers, two names for the weight; BFQ's file exists only while BFQ is in use.
    if let Some(weight) = io.weight().filter(|n| *n != 0) {
        out.push(to("blkio", "blkio.weight", weight));
    }
    if let Some(weight) = io.leaf_weight().filter(|n| *n != 0) {
        out.push(to("blkio", "blkio.leaf_weight", weight));
    }
    for device in io.weight_device().iter().flatten() {
        let name = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight() {
            out.push(to(
                "blkio",
                "blkio.weight_device",
                format!("{name} {weight}"),
            ));
        }
        if let Some(weight) = device.leaf_weight() {
            let value = format!("{name} {weight}");
            out.push(to("blkio", "blkio.leaf_weight_device", value));
        }
    }
    for (file, devices) in [
        (
            "blkio.throttle.read_bps_device",
            io.throttle_read_bps_device(),
        ),
        (
            "blkio.throttle.write_bps_device",
            io.throttle_write_bps_device(),
        ),
        (
            "blkio.throttle.read_iops_device",
            io.throttle_read_iops_device(),
        ),
        (
            "blkio.throttle.write_iops_device",
            io.throttle_write_iops_device(),
        ),
    ] {
        for device in devices.iter().flatten() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            out.push(to("blkio", file, value));
        }
    }
}

fn block_io_v2(io: &LinuxBlockIo, out: &mut Vec<Write>) {
    if let Some(weight) = io.weight().filter(|n| *n != 0) {
        // blkio 10..=1000 to io 1..=10000 (the kernel's own ratio for BFQ).
        let value = 1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990;
        out.push(to("io", "io.weight", format!("default {value}")));
    }
    for (key, devices) in [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ] {
        for device in devices.iter().flatten() {
            let value = format!(
                "{}:{} {key}={}",
                device.major(),
                device.minor(),
                device.rate()
            );
            out.push(to("io", "io.max", value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(json: serde_json::Value) -> LinuxResources {
        serde_json::from_value(json).unwrap()
    }

    fn values(version: Version, json: serde_json::Value) -> Vec<(String, String)> {
        writes(version, &limits(json))
            .unwrap()
            .into_iter()
            .map(|w| (w.file, w.value))
            .collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn v2_swap_is_memory_and_swap_less_memory() {
        let got = values(
            Version::V2,
            serde_json::json!({"memory": {"limit": 100, "swap": 150, "reservation": 50}}),
        );
        let want = [
            ("memory.swap.max", "50"),
            ("memory.max", "100"),
            ("memory.low", "50"),
        ];
        assert_eq!(got, pairs(&want));
    }

    #[test]
    fn v2_swap_below_memory_is_refused() {
        let limits = limits(serde_json::json!({"memory": {"limit": 100, "swap": 50}}));
        assert!(writes(Version::V2, &limits).is_err());
    }

    #[test]
    fn v2_no_limit_is_the_word_max() {
        let got = values(
            Version::V2,
            serde_json::json!({"memory": {"limit": -1}, "pids": {"limit": 0}}),
        );
        let want = [
            ("memory.swap.max", "max"),
            ("memory.max", "max"),
            ("pids.max", "max"),
        ];
        assert_eq!(got, pairs(&want));
    }

    #[test]
    fn shares_map_to_the_ends_and_the_default_of_weights() {
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(1024), 39);
        assert_eq!(weight_of_shares(262_144), 10_000);
        assert_eq!(weight_of_shares(u64::MAX), 10_000);
    }

    #[test]
    fn v2_quota_without_period_keeps_the_period() {
        let got = values(Version::V2, serde_json::json!({"cpu": {"quota": 5000}}));
        assert_eq!(got, pairs(&[("cpu.max", "5000")]));
        let got = values(
            Version::V2,
            serde_json::json!({"cpu": {"quota": -1, "period": 100000}}),
        );
        assert_eq!(got, pairs(&[("cpu.max", "max 100000")]));
    }

    #[test]
    fn unified_files_come_in_one_order_and_only_on_v2() {
        let json = serde_json::json!({"unified": {"memory.high": "2", "cpu.weight": "1"}});
        let got = values(Version::V2, json.clone());
        assert_eq!(got, pairs(&[("cpu.weight", "1"), ("memory.high", "2")]));
        assert!(writes(Version::V1, &limits(json)).is_err());
    }

    #[test]
    fn unified_cannot_leave_the_cgroup() {
        let json = serde_json::json!({"unified": {"../memory.max": "1"}});
        assert!(writes(Version::V2, &limits(json)).is_err());
    }
}
