//! The kernel, its control groups, and what this process may do.

use std::ops::RangeInclusive;

use super::Finding;
use crate::model::Mode;

/// The first one with pidfd_open(2), without which no process can be told from another one of its id.
const OLDEST: (u32, u32) = (5, 3);
/// Releases on which a control group may get no processor time beside processes outside of all groups, while others wake
/// up often: a running group that changes its weight is put at a wrong place. Measured with the newest of them; the next
/// one has the remedy (Linux 101f3498b4bd, "sched/fair: Revert 6d71a9c61604"). Distributions have patches of their own,
/// and mostly a 0 as last number.
const STARVING: RangeInclusive<(u32, u32, u32)> = (6, 18, 1)..=(6, 18, 44);
/// The controllers that limits of bundles need.
const CONTROLLERS: [&str; 5] = ["memory", "cpu", "pids", "cpuset", "io"];
/// Run ids begin with the time; before this the clock was never set.
const FIRST_YEAR: i32 = 2025;

/// Which control groups the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One hierarchy for each controller.
    V1,
    /// The same, and an empty one of version 2 beside them.
    Hybrid,
    /// One hierarchy.
    V2,
}

/// Whether a limit could be written to a control group made for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitTrial {
    /// Written and read back.
    Written,
    /// What refused and why.
    Refused(String),
    /// Not tried: only root may, and only where the controller is in force.
    NotTried,
}

/// The control groups of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// Which version.
    pub layout: Layout,
    /// Controllers that there are.
    pub controllers: Vec<String>,
    /// Those that groups below the root have (`cgroup.subtree_control`); on version 1 all.
    pub delegated: Vec<String>,
    /// Whether limits can be written.
    pub limit: LimitTrial,
    /// Whether swapped memory counts; none where that could not be seen.
    pub counts_swap: Option<bool>,
    /// Whether page cache can be dropped on request; none where that could not be seen.
    pub drops_cache: Option<bool>,
}

/// Whether the kernel tells how long tasks wait for memory (PSI).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PressureReports {
    /// It does.
    On,
    /// It could, and was told not to when it started.
    Off,
    /// It was built without.
    Absent,
}

/// The host and the rights of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Release of the kernel.
    pub release: Option<String>,
    /// Control groups; none if none are mounted.
    pub cgroups: Option<Cgroups>,
    /// Pressure stall information.
    pub pressure: PressureReports,
    /// Whether memory can be swapped out.
    pub has_swap: bool,
    /// Whether this process is root.
    pub is_root: bool,
    /// Capabilities that containers need and that this process lacks.
    pub missing_capabilities: Vec<String>,
    /// Why the sampler's thread cannot be more urgent than others; none if it can.
    pub no_priority: Option<String>,
    /// Whether somebody keeps the clock right.
    pub clock_is_kept: Option<bool>,
    /// The year, as the clock has it.
    pub year: i32,
}

pub(super) fn judge(host: &Host, mode: Mode) -> Vec<Finding> {
    let mut findings = vec![root(host), release(host.release.as_deref())];
    match &host.cgroups {
        None => findings.push(
            Finding::error("cgroup.layout", "no control groups are mounted")
                .means("no container can be limited or looked at")
                .fix("mount -t cgroup2 none /sys/fs/cgroup"),
        ),
        Some(cgroups) => {
            findings.push(layout(cgroups.layout, mode));
            findings.extend(controllers(cgroups));
            findings.push(limit(cgroups));
            findings.push(swap(cgroups, host.has_swap));
            findings.push(cache(cgroups));
        }
    }
    findings.push(pressure(host.pressure));
    findings.push(capabilities(host));
    findings.push(priority(host));
    findings.push(clock(host));
    findings
}

fn root(host: &Host) -> Finding {
    match host.is_root {
        true => Finding::ok("process.root", "runs as root"),
        false => Finding::note("process.root", "does not run as root")
            .means("processes, records and profiles of others are not seen; what follows may be incomplete")
            .fix("sudo elastic-mem doctor"),
    }
}

fn release(release: Option<&str>) -> Finding {
    const ID: &str = "kernel.release";
    let Some(text) = release else {
        return Finding::warning(ID, "the release of the kernel cannot be read")
            .means("nothing can be said of what it can do");
    };
    let oldest = format!("{}.{}", OLDEST.0, OLDEST.1);
    match version(text) {
        None => Finding::note(ID, format!("{text} is no release that is understood"))
            .means(format!("Linux {oldest} or newer is needed")),
        Some(found) if found < OLDEST => Finding::error(ID, text)
            .means(format!(
                "containers do not start: Linux {oldest} is the oldest one that is enough"
            ))
            .fix("install a newer kernel of the distribution and start it"),
        Some((major, minor))
            if patch(text).is_some_and(|patch| STARVING.contains(&(major, minor, patch))) =>
        {
            Finding::note(ID, format!("{text} weighs control groups wrongly"))
                .means(
                    "where busy processes are in no control group, as on hosts without systemd, containers that are \
                     sampled may get no processor time",
                )
                .fix("Linux 6.18.45 or newer, or memory.priority = \"realtime\"")
        }
        Some(_) => Finding::ok(ID, text),
    }
}

/// The first two numbers.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = numbers(text);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The third number.
fn patch(text: &str) -> Option<u32> {
    numbers(text).nth(2)?.parse().ok()
}

fn numbers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_digit())
}

fn layout(layout: Layout, mode: Mode) -> Finding {
    const ID: &str = "cgroup.layout";
    let seen = match layout {
        Layout::V2 => return Finding::ok(ID, "cgroup v2"),
        Layout::V1 => "cgroup v1",
        Layout::Hybrid => "cgroup v1, and an empty hierarchy of v2 beside it (hybrid)",
    };
    let means = if mode.grants() {
        "grants are hard limits here, which is why they have to be chosen; Kubernetes refuses cgroup v1 from 1.35 on"
    } else {
        "grants are hard limits here, so the default is to observe; Kubernetes refuses cgroup v1 from 1.35 on"
    };
    Finding::note(ID, seen)
        .means(means)
        .fix("start the kernel with systemd.unified_cgroup_hierarchy=1")
}

fn controllers(cgroups: &Cgroups) -> Vec<Finding> {
    const ID: &str = "cgroup.controllers";
    // cgroup v1 calls it otherwise.
    let has = |list: &[String], name: &str| {
        list.iter()
            .any(|found| found == name || (name == "io" && found == "blkio"))
    };
    let absent: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|name| !has(&cgroups.controllers, name))
        .collect();
    let undelegated: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|name| has(&cgroups.controllers, name) && !has(&cgroups.delegated, name))
        .collect();
    let mut findings = Vec::new();
    if absent.contains(&"memory") {
        findings.push(
            Finding::error(ID, "the kernel has no memory controller")
                .means("no container can be limited, sampled or granted less")
                .fix(
                    "start the kernel with cgroup_enable=memory, and without cgroup_disable=memory",
                ),
        );
    } else if !absent.is_empty() {
        findings.push(
            Finding::warning(ID, format!("the kernel lacks {}", absent.join(", ")))
                .means("bundles that ask for such limits are refused")
                .fix("load or build the kernel with these controllers"),
        );
    }
    if !undelegated.is_empty() {
        findings.push(
            Finding::note(
                ID,
                format!("not in force below the root: {}", undelegated.join(", ")),
            )
            .means("the first container turns them on, if whoever manages the groups lets it")
            .fix(format!(
                "echo '+{}' > /sys/fs/cgroup/cgroup.subtree_control",
                undelegated.join(" +")
            )),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok(ID, CONTROLLERS.join(", ")));
    }
    findings
}

fn limit(cgroups: &Cgroups) -> Finding {
    const ID: &str = "cgroup.limit";
    match &cgroups.limit {
        LimitTrial::Written => Finding::ok(ID, "a memory limit can be written"),
        LimitTrial::NotTried => Finding::note(ID, "not tried to write a memory limit")
            .means("only root can, and only where the memory controller is in force"),
        LimitTrial::Refused(why) => Finding::error(ID, why.clone())
            .means("limits of containers cannot be set: create fails")
            .fix("mount the control groups writable: mount -o remount,rw /sys/fs/cgroup"),
    }
}

fn swap(cgroups: &Cgroups, has_swap: bool) -> Finding {
    const ID: &str = "cgroup.swap";
    match (has_swap, cgroups.counts_swap) {
        (false, _) => Finding::ok(ID, "no swap"),
        (true, Some(true)) => Finding::ok(ID, "swap, which counts for each container"),
        (true, Some(false)) => Finding::warning(ID, "swap, which counts for nobody")
            .means("a container at its limit swaps instead of failing, and memory that it has swapped out is not seen")
            .fix("start the kernel with swapaccount=1, or swapoff -a"),
        (true, None) => Finding::note(ID, "swap; not seen whether it counts for each container"),
    }
}

fn cache(cgroups: &Cgroups) -> Finding {
    const ID: &str = "cgroup.reclaim";
    let file = match cgroups.layout {
        Layout::V2 => "memory.reclaim",
        Layout::V1 | Layout::Hybrid => "memory.force_empty",
    };
    match cgroups.drops_cache {
        Some(true) => Finding::ok(ID, format!("page cache can be dropped ({file})")),
        Some(false) => Finding::note(ID, format!("there is no {file}"))
            .means("page cache of idle functions stays until something else needs the memory")
            .fix("Linux 5.19 or newer"),
        None => Finding::note(ID, format!("not seen whether there is {file}")),
    }
}

fn pressure(reports: PressureReports) -> Finding {
    const ID: &str = "kernel.pressure";
    let means = "traces do not say how long a function waited for memory";
    match reports {
        PressureReports::On => Finding::ok(ID, "the kernel tells how long tasks wait for memory"),
        PressureReports::Off => Finding::note(ID, "pressure stall information is switched off")
            .means(means)
            .fix("start the kernel with psi=1"),
        PressureReports::Absent => Finding::note(
            ID,
            "the kernel was built without pressure stall information",
        )
        .means(means)
        .fix("a kernel with CONFIG_PSI=y"),
    }
}

fn capabilities(host: &Host) -> Finding {
    const ID: &str = "process.capabilities";
    if host.missing_capabilities.is_empty() {
        return Finding::ok(ID, "all that containers need");
    }
    let names = host.missing_capabilities.join(", ");
    if !host.is_root {
        return Finding::note(ID, format!("this process lacks {names}"));
    }
    let missing = |name: &str| host.missing_capabilities.iter().any(|found| found == name);
    let seen = format!("root lacks {names}");
    if missing("CAP_SYS_ADMIN") {
        Finding::error(ID, seen)
            .means("no namespace, mount or control group can be made: create fails")
            .fix("run the container engine outside of a container, or in a privileged one")
    } else {
        let means = if missing("CAP_SYS_RESOURCE") {
            "bundles that raise an rlimit or lower oom_score_adj fail; Kubernetes needs restrict_oom_score_adj = true"
        } else {
            "bundles that need them fail"
        };
        Finding::warning(ID, seen)
            .means(means)
            .fix("add them to the bounding set of the service that starts the container engine")
    }
}

fn priority(host: &Host) -> Finding {
    const ID: &str = "process.priority";
    match &host.no_priority {
        None => Finding::ok(ID, "the sampler's thread can go before others"),
        Some(why) => Finding::note(ID, format!("no priority for the sampler's thread: {why}"))
            .means("on a busy host grants follow late, and are kept further above what is used")
            .fix("give the container engine CAP_SYS_NICE"),
    }
}

fn clock(host: &Host) -> Finding {
    const ID: &str = "host.clock";
    let means = "runs are named and ordered by the time";
    if host.year < FIRST_YEAR {
        return Finding::warning(ID, format!("the clock says {}", host.year))
            .means(means)
            .fix("timedatectl set-ntp true");
    }
    match host.clock_is_kept {
        Some(true) => Finding::ok(ID, "somebody keeps it right"),
        Some(false) => Finding::note(ID, "nobody keeps it right")
            .means(format!(
                "{means}: those of several hosts may be out of order"
            ))
            .fix("timedatectl set-ntp true"),
        None => Finding::note(ID, "not seen whether somebody keeps it right"),
    }
}
