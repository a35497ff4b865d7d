//! From the limits of a bundle to writes of cgroup files.
//!
//! [`writes`] is pure: limits, version and what holds now in, values out, in the order in which the kernel takes them.
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

/// What holds in a cgroup v2 now, for files that take two values of which an update may give one.
#[derive(Debug, Clone, Copy, Default)]
struct Now {
    /// Quota, -1 for none, and period.
    quota: Option<(i64, u64)>,
    /// The memory limit, -1 for none.
    memory: Option<i64>,
}

/// Refuses a memory limit below what is in use, if it is to be checked (runtime-spec, `checkBeforeUpdate`): cgroup v2 would
/// kill. The kernel refuses it for cgroup v1.
pub(super) fn check(cgroup: &Cgroup, limits: &LinuxResources) -> Result<()> {
    let memory = limits.memory().as_ref();
    let checked = memory.filter(|memory| memory.check_before_update() == Some(true));
    let Some((memory, dir)) = checked.zip(cgroup.controller("memory")) else {
        return Ok(());
    };
    if cgroup.version == Version::V1 {
        return Ok(());
    }
    let used: i64 = read_text(&dir.join("memory.current"))?
        .trim()
        .parse()
        .unwrap_or(0);
    for (what, limit) in [("memory+swap", memory.swap()), ("memory", memory.limit())] {
        if let Some(limit) = limit.filter(|limit| (1..=used).contains(limit)) {
            return Err(KernelError::Unsupported(format!(
                "rejecting {what} limit {limit} <= usage {used}"
            )));
        }
    }
    Ok(())
}

pub(super) fn apply(cgroup: &Cgroup, limits: &LinuxResources) -> Result<()> {
    let limits = &without_zeros(limits);
    if cgroup.version == Version::V1
        && let (Some(memory), Some(dir)) = (limits.memory(), cgroup.controller("memory"))
    {
        apply_memory_v1(dir, memory)?;
    }
    let now = Now {
        quota: cgroup.quota(),
        memory: cgroup.memory_limit(),
    };
    let writes = writes(cgroup.version, limits, now)?;
    let mut refused = Vec::new();
    for write in &writes {
        match apply_one(cgroup, write) {
            // Quota, period and burst bound each other: the old value of one may be what another is refused for.
            Err(err) if write.controller == "cpu" && err.is_invalid() => refused.push(write),
            other => other?,
        }
    }
    refused
        .into_iter()
        .try_for_each(|write| apply_one(cgroup, write))
}

fn apply_one(cgroup: &Cgroup, write: &Write) -> Result<()> {
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
    if write.controller == "hugetlb" && write.file.contains(".rsvd.") && !file.exists() {
        // Linux 5.7.
        return Ok(());
    }
    write_text(&file, &write.value)?;
    if write.file == "cpu.shares" {
        check_shares(&file, &write.value)?;
    }
    Ok(())
}

/// The limits without the zeros that stand for "not given": dockerd sends them for all that it does not set.
pub fn without_zeros(limits: &LinuxResources) -> LinuxResources {
    fn given<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
        value.filter(|value| *value != T::default())
    }
    let mut limits = limits.clone();
    if let Some(old) = *limits.memory() {
        let mut memory = old;
        memory
            .set_limit(given(old.limit()))
            .set_reservation(given(old.reservation()))
            .set_swap(given(old.swap()))
            .set_kernel_tcp(given(old.kernel_tcp()));
        limits.set_memory(Some(memory));
    }
    if let Some(old) = limits.cpu().clone() {
        let mut cpu = old.clone();
        cpu.set_shares(given(old.shares()))
            .set_quota(given(old.quota()))
            .set_period(given(old.period()))
            .set_realtime_runtime(given(old.realtime_runtime()))
            .set_realtime_period(given(old.realtime_period()));
        limits.set_cpu(Some(cpu));
    }
    let pids = limits.pids().filter(|pids| pids.limit() != 0);
    limits.set_pids(pids);
    limits
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
    let limit = memory.limit();
    let mut swap = memory.swap();
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

fn writes(version: Version, limits: &LinuxResources, now: Now) -> Result<Vec<Write>> {
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
                memory_v2(memory, now, &mut out)?;
            }
            if let Some(cpu) = limits.cpu() {
                cpu_v2(cpu, now, &mut out);
            }
            if let Some(block_io) = limits.block_io() {
                block_io_v2(block_io, &mut out);
            }
        }
    }
    if let Some(pids) = limits.pids() {
        let value = match pids.limit() {
            limit if limit > 0 => limit.to_string(),
            _ => "max".to_owned(),
        };
        out.push(to("pids", "pids.max", value));
    }
    for page in limits.hugepage_limits().iter().flatten() {
        let size = page.page_size();
        // What is reserved is limited too: else a program may map more than it can use, and dies when it does.
        let files = match version {
            Version::V1 => [
                format!("hugetlb.{size}.limit_in_bytes"),
                format!("hugetlb.{size}.rsvd.limit_in_bytes"),
            ],
            Version::V2 => [
                format!("hugetlb.{size}.max"),
                format!("hugetlb.{size}.rsvd.max"),
            ],
        };
        out.extend(files.map(|file| to("hugetlb", file, page.limit())));
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
    if let Some(value) = memory.reservation() {
        out.push(to("memory", "memory.soft_limit_in_bytes", value));
    }
    if let Some(value) = memory.kernel_tcp() {
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

fn memory_v2(memory: &LinuxMemory, now: Now, out: &mut Vec<Write>) -> Result<()> {
    let value = |n: i64| match n {
        -1 => "max".to_owned(),
        n => n.to_string(),
    };
    let limit = memory.limit();
    // runtime-spec gives memory+swap, the file wants swap alone.
    match (limit, memory.swap()) {
        (_, Some(-1)) | (Some(-1), None) => out.push(to("memory", "memory.swap.max", "max")),
        (_, Some(swap)) => {
            let refuse = |text: &str| KernelError::Unsupported(text.to_owned());
            let beside = limit
                .or(now.memory)
                .filter(|n| *n > 0)
                .ok_or_else(|| refuse("unable to set swap limit without memory limit"))?;
            let alone = swap
                .checked_sub(beside)
                .filter(|n| *n >= 0)
                .ok_or_else(|| refuse("memory+swap limit should be >= memory limit"))?;
            out.push(to("memory", "memory.swap.max", alone));
        }
        (_, None) => {}
    }
    if let Some(limit) = limit {
        out.push(to("memory", "memory.max", value(limit)));
    }
    if let Some(reservation) = memory.reservation() {
        out.push(to("memory", "memory.low", value(reservation)));
    }
    Ok(())
}

fn cpu_v1(cpu: &LinuxCpu, out: &mut Vec<Write>) {
    let shares = cpu.shares().map(|shares| to("cpu", "cpu.shares", shares));
    idle_and_share(cpu, shares, out);
    // The period before the quota: a quota is checked against the period in force.
    if let Some(period) = cpu.period() {
        out.push(to("cpu", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = cpu.quota() {
        out.push(to("cpu", "cpu.cfs_quota_us", quota));
    }
    if let Some(burst) = cpu.burst() {
        out.push(to("cpu", "cpu.cfs_burst_us", burst));
    }
    if let Some(period) = cpu.realtime_period() {
        out.push(to("cpu", "cpu.rt_period_us", period));
    }
    if let Some(runtime) = cpu.realtime_runtime() {
        out.push(to("cpu", "cpu.rt_runtime_us", runtime));
    }
    cpuset(cpu, out);
}

fn cpu_v2(cpu: &LinuxCpu, now: Now, out: &mut Vec<Write>) {
    let weight = cpu.shares().map(weight_of_shares);
    let weight = weight.map(|weight| to("cpu", "cpu.weight", weight));
    idle_and_share(cpu, weight, out);
    let (quota, period) = (cpu.quota(), cpu.period());
    if quota.is_some() || period.is_some() {
        // One file for both. The kernel keeps the period in force beside a quota, but has no way to keep the quota beside a period.
        let quota = match quota.or(now.quota.map(|(quota, _)| quota)) {
            Some(quota) if quota > 0 => quota.to_string(),
            _ => "max".to_owned(),
        };
        let period = period.map(|n| format!(" {n}")).unwrap_or_default();
        out.push(to("cpu", "cpu.max", format!("{quota}{period}")));
    }
    if let Some(burst) = cpu.burst() {
        out.push(to("cpu", "cpu.max.burst", burst));
    }
    cpuset(cpu, out);
}

/// A group that runs only when nothing else does has no share, and the kernel lets nobody write one: it is written
/// before the group becomes idle, and after it ceases to be.
fn idle_and_share(cpu: &LinuxCpu, share: Option<Write>, out: &mut Vec<Write>) {
    let idle = cpu.idle().map(|idle| to("cpu", "cpu.idle", idle));
    if cpu.idle() == Some(0) {
        out.extend(idle.into_iter().chain(share));
    } else {
        out.extend(share.into_iter().chain(idle));
    }
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
mod tests;
