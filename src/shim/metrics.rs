//! Counters of a container in the form of containerd: by the cgroup version of the host.

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;

use super::error::Result;
use super::service::any;
use crate::kernel::cgroup::{BlkioEntry, Cgroup, Counter, HugePages, Pressure, Stats, Version};

const V1: &str = "io.containerd.cgroups.v1.Metrics";
const V2: &str = "io.containerd.cgroups.v2.Metrics";

/// Reads the counters; files that are not there count as zero.
///
/// # Errors
/// `Failed` when they cannot be encoded.
pub(super) fn of(cgroup: &Cgroup) -> Result<Any> {
    match cgroup.version {
        Version::V1 => any(V1, &of_v1(cgroup)),
        Version::V2 => any(V2, &of_v2(cgroup)),
    }
}

fn of_v1(cgroup: &Cgroup) -> v1::Metrics {
    let stats = cgroup.stats();
    let oom = cgroup.flat_keyed("memory", "memory.oom_control");
    v1::Metrics {
        hugetlb: hugetlb_v1(&stats),
        pids: MessageField::some(v1::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit,
            ..v1::PidsStat::default()
        }),
        cpu: MessageField::some(v1::CPUStat {
            usage: MessageField::some(v1::CPUUsage {
                total: stats.cpu.usage.total,
                kernel: stats.cpu.usage.kernel,
                user: stats.cpu.usage.user,
                per_cpu: stats.cpu.usage.percpu.clone(),
                ..v1::CPUUsage::default()
            }),
            throttling: MessageField::some(v1::Throttle {
                periods: stats.cpu.throttling.periods,
                throttled_periods: stats.cpu.throttling.throttled_periods,
                throttled_time: stats.cpu.throttling.throttled_time,
                ..v1::Throttle::default()
            }),
            ..v1::CPUStat::default()
        }),
        memory: MessageField::some(memory_v1(&stats)),
        blkio: MessageField::some(v1::BlkIOStat {
            io_service_bytes_recursive: blkio_v1(&stats.blkio.service_bytes),
            io_serviced_recursive: blkio_v1(&stats.blkio.serviced),
            ..v1::BlkIOStat::default()
        }),
        memory_oom_control: MessageField::some(v1::MemoryOomControl {
            oom_kill_disable: oom.get("oom_kill_disable"),
            under_oom: oom.get("under_oom"),
            oom_kill: oom.get("oom_kill"),
            ..v1::MemoryOomControl::default()
        }),
        ..v1::Metrics::default()
    }
}

fn memory_v1(stats: &Stats) -> v1::MemoryStat {
    let get = |name: &str| stats.memory.raw.get(name).copied().unwrap_or(0);
    v1::MemoryStat {
        cache: get("cache"),
        rss: get("rss"),
        rss_huge: get("rss_huge"),
        mapped_file: get("mapped_file"),
        dirty: get("dirty"),
        writeback: get("writeback"),
        pg_pg_in: get("pgpgin"),
        pg_pg_out: get("pgpgout"),
        pg_fault: get("pgfault"),
        pg_maj_fault: get("pgmajfault"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        hierarchical_memory_limit: get("hierarchical_memory_limit"),
        hierarchical_swap_limit: get("hierarchical_memsw_limit"),
        total_cache: get("total_cache"),
        total_rss: get("total_rss"),
        total_rss_huge: get("total_rss_huge"),
        total_mapped_file: get("total_mapped_file"),
        total_dirty: get("total_dirty"),
        total_writeback: get("total_writeback"),
        total_pg_pg_in: get("total_pgpgin"),
        total_pg_pg_out: get("total_pgpgout"),
        total_pg_fault: get("total_pgfault"),
        total_pg_maj_fault: get("total_pgmajfault"),
        total_inactive_anon: get("total_inactive_anon"),
        total_active_anon: get("total_active_anon"),
        total_inactive_file: get("total_inactive_file"),
        total_active_file: get("total_active_file"),
        total_unevictable: get("total_unevictable"),
        usage: counter_v1(&stats.memory.usage),
        swap: counter_v1(&stats.memory.swap),
        kernel: counter_v1(&stats.memory.kernel),
        kernel_tcp: counter_v1(&stats.memory.kernel_tcp),
        ..v1::MemoryStat::default()
    }
}

fn counter_v1(counter: &Counter) -> MessageField<v1::MemoryEntry> {
    MessageField::some(v1::MemoryEntry {
        limit: counter.limit,
        usage: counter.usage,
        max: counter.max,
        failcnt: counter.failcnt,
        ..v1::MemoryEntry::default()
    })
}

fn hugetlb_v1(stats: &Stats) -> Vec<v1::HugetlbStat> {
    let entry = |(size, counter): (&String, &HugePages)| v1::HugetlbStat {
        usage: counter.usage,
        max: counter.max,
        failcnt: counter.failcnt,
        pagesize: size.clone(),
        ..v1::HugetlbStat::default()
    };
    stats.hugetlb.iter().map(entry).collect()
}

fn blkio_v1(entries: &[BlkioEntry]) -> Vec<v1::BlkIOEntry> {
    let entry = |entry: &BlkioEntry| v1::BlkIOEntry {
        op: entry.op.clone(),
        major: entry.major,
        minor: entry.minor,
        value: entry.value,
        ..v1::BlkIOEntry::default()
    };
    entries.iter().map(entry).collect()
}

fn of_v2(cgroup: &Cgroup) -> v2::Metrics {
    let stats = cgroup.stats();
    let cpu = cgroup.flat_keyed("cpu", "cpu.stat");
    let events = cgroup.flat_keyed("memory", "memory.events");
    let psi = |file: &str| cgroup.pressure(file).map(psi_v2).into();
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: stats.pids.current,
            limit: cgroup.number("pids", "pids.max"),
            ..v2::PidsStat::default()
        }),
        cpu: MessageField::some(v2::CPUStat {
            usage_usec: cpu.get("usage_usec"),
            user_usec: cpu.get("user_usec"),
            system_usec: cpu.get("system_usec"),
            nr_periods: cpu.get("nr_periods"),
            nr_throttled: cpu.get("nr_throttled"),
            throttled_usec: cpu.get("throttled_usec"),
            nr_bursts: cpu.get("nr_bursts"),
            burst_usec: cpu.get("burst_usec"),
            psi: psi("cpu.pressure"),
            ..v2::CPUStat::default()
        }),
        memory: MessageField::some(memory_v2(cgroup, &stats)),
        io: MessageField::some(v2::IOStat {
            usage: io_v2(&stats),
            psi: psi("io.pressure"),
            ..v2::IOStat::default()
        }),
        hugetlb: hugetlb_v2(&stats),
        memory_events: MessageField::some(v2::MemoryEvents {
            low: events.get("low"),
            high: events.get("high"),
            max: events.get("max"),
            oom: events.get("oom"),
            oom_kill: events.get("oom_kill"),
            oom_group_kill: events.get("oom_group_kill"),
            ..v2::MemoryEvents::default()
        }),
        ..v2::Metrics::default()
    }
}

fn memory_v2(cgroup: &Cgroup, stats: &Stats) -> v2::MemoryStat {
    let get = |name: &str| stats.memory.raw.get(name).copied().unwrap_or(0);
    // Counted apart for anonymous memory and files since Linux 5.9.
    let both = |name: &str| {
        let parts = get(&format!("{name}_anon")).saturating_add(get(&format!("{name}_file")));
        parts.saturating_add(get(name))
    };
    v2::MemoryStat {
        anon: get("anon"),
        file: get("file"),
        kernel_stack: get("kernel_stack"),
        slab: get("slab"),
        sock: get("sock"),
        shmem: get("shmem"),
        file_mapped: get("file_mapped"),
        file_dirty: get("file_dirty"),
        file_writeback: get("file_writeback"),
        anon_thp: get("anon_thp"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        slab_reclaimable: get("slab_reclaimable"),
        slab_unreclaimable: get("slab_unreclaimable"),
        pgfault: get("pgfault"),
        pgmajfault: get("pgmajfault"),
        workingset_refault: both("workingset_refault"),
        workingset_activate: both("workingset_activate"),
        workingset_nodereclaim: get("workingset_nodereclaim"),
        pgrefill: get("pgrefill"),
        pgscan: get("pgscan"),
        pgsteal: get("pgsteal"),
        pgactivate: get("pgactivate"),
        pgdeactivate: get("pgdeactivate"),
        pglazyfree: get("pglazyfree"),
        pglazyfreed: get("pglazyfreed"),
        thp_fault_alloc: get("thp_fault_alloc"),
        thp_collapse_alloc: get("thp_collapse_alloc"),
        usage: stats.memory.usage.usage,
        usage_limit: stats.memory.usage.limit,
        max_usage: stats.memory.usage.max,
        swap_usage: cgroup.number("memory", "memory.swap.current"),
        swap_limit: cgroup.number("memory", "memory.swap.max"),
        swap_max_usage: cgroup.number("memory", "memory.swap.peak"),
        psi: cgroup.pressure("memory.pressure").map(psi_v2).into(),
        ..v2::MemoryStat::default()
    }
}

fn io_v2(stats: &Stats) -> Vec<v2::IOEntry> {
    let mut devices: Vec<v2::IOEntry> = Vec::new();
    let bytes = stats.blkio.service_bytes.iter().map(|entry| (entry, true));
    let requests = stats.blkio.serviced.iter().map(|entry| (entry, false));
    for (entry, is_bytes) in bytes.chain(requests) {
        let at = devices
            .iter()
            .position(|device| (device.major, device.minor) == (entry.major, entry.minor))
            .unwrap_or_else(|| {
                devices.push(v2::IOEntry {
                    major: entry.major,
                    minor: entry.minor,
                    ..v2::IOEntry::default()
                });
                devices.len() - 1
            });
        let Some(device) = devices.get_mut(at) else {
            continue;
        };
        match (entry.op.as_str(), is_bytes) {
            ("Read", true) => device.rbytes = entry.value,
            ("Write", true) => device.wbytes = entry.value,
            ("Read", false) => device.rios = entry.value,
            ("Write", false) => device.wios = entry.value,
            _ => {}
        }
    }
    devices
}

fn hugetlb_v2(stats: &Stats) -> Vec<v2::HugeTlbStat> {
    let entry = |(size, counter): (&String, &HugePages)| v2::HugeTlbStat {
        current: counter.usage,
        max: counter.limit,
        failcnt: counter.failcnt,
        pagesize: size.clone(),
        ..v2::HugeTlbStat::default()
    };
    stats.hugetlb.iter().map(entry).collect()
}

fn psi_v2(pressure: Pressure) -> v2::PSIStats {
    let data = |line: crate::kernel::cgroup::PressureLine| {
        MessageField::some(v2::PSIData {
            avg10: line.avg10,
            avg60: line.avg60,
            avg300: line.avg300,
            total: line.total,
            ..v2::PSIData::default()
        })
    };
    v2::PSIStats {
        some: data(pressure.some),
        full: data(pressure.full),
        ..v2::PSIStats::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::cgroup::Directory;
    use containerd_shim_protos::protobuf::Message;

    fn group(version: Version, files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let controllers = match version {
            Version::V1 => "memory,cpu,cpuacct,pids,blkio".to_owned(),
            Version::V2 => String::new(),
        };
        let path = dir.path().to_path_buf();
        let directories = vec![Directory { controllers, path }];
        (
            dir,
            Cgroup {
                version,
                directories,
            },
        )
    }

    #[test]
    fn a_host_with_cgroup_v2_gets_metrics_of_v2() {
        let (_dir, cgroup) = group(
            Version::V2,
            &[
                ("memory.current", "4096\n"),
                ("memory.max", "max\n"),
                (
                    "memory.stat",
                    "anon 10\nworkingset_refault_anon 2\nworkingset_refault_file 3\n",
                ),
                ("cpu.stat", "usage_usec 7\n"),
                ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n"),
                (
                    "memory.pressure",
                    "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n",
                ),
                ("memory.events", "oom_kill 5\n"),
                ("pids.max", "max\n"),
                ("hugetlb.2MB.max", "max\n"),
                ("hugetlb.2MB.rsvd.max", "max\n"),
            ],
        );
        let any = of(&cgroup).unwrap();
        assert_eq!(any.type_url, V2);
        let metrics = v2::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(metrics.memory.usage, 4096);
        assert_eq!(metrics.memory.usage_limit, u64::MAX);
        assert_eq!(metrics.memory.workingset_refault, 5);
        assert_eq!(metrics.cpu.usage_usec, 7);
        assert_eq!(metrics.io.usage[0].wios, 4);
        assert_eq!(metrics.memory.psi.some.total, 9);
        assert!((metrics.memory.psi.some.avg10 - 1.5).abs() < 1e-9);
        assert_eq!(metrics.memory_events.oom_kill, 5);
        assert_eq!(metrics.pids.limit, u64::MAX);
        let sizes: Vec<_> = metrics.hugetlb.iter().map(|h| &h.pagesize).collect();
        assert_eq!(sizes, ["2MB"]);
    }

    #[test]
    fn missing_files_are_zero_and_no_error() {
        for version in [Version::V1, Version::V2] {
            let (_dir, cgroup) = group(version, &[]);
            assert!(!of(&cgroup).unwrap().type_url.is_empty());
        }
    }
}
