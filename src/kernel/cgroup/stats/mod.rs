//! Counters of a cgroup, in the shape in which OCI runtimes print them (`events --stats`).
//!
//! Every file may be absent (an older kernel, a controller that is off): what cannot be read is zero or empty.

mod document;

use std::collections::BTreeMap;
use std::path::Path;

use super::{Cgroup, Version};
use crate::kernel::read_text;
use document::{Blkio, CpuUsage, Cpuset, Memory, Pids, Throttling};

pub use document::{BlkioEntry, Counter, HugePages, Stats};

impl Cgroup {
    /// Reads the counters.
    pub fn stats(&self) -> Stats {
        match self.version {
            Version::V1 => self.stats_v1(),
            Version::V2 => self.stats_v2(),
        }
    }

    /// How many processes the OOM killer has killed in the cgroup.
    pub fn oom_kills(&self) -> u64 {
        let Some(dir) = self.controller("memory") else {
            return 0;
        };
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        get(&flat_keyed(dir, file), "oom_kill")
    }

    fn stats_v1(&self) -> Stats {
        let mut stats = Stats::default();
        if let Some(dir) = self.controller("cpuacct") {
            stats.cpu.usage = cpu_usage_v1(dir);
        }
        if let Some(dir) = self.controller("cpu") {
            let raw = flat_keyed(dir, "cpu.stat");
            stats.cpu.throttling = Throttling {
                periods: get(&raw, "nr_periods"),
                throttled_periods: get(&raw, "nr_throttled"),
                throttled_time: get(&raw, "throttled_time"),
            };
        }
        if let Some(dir) = self.controller("cpuset") {
            stats.cpuset = cpuset_v1(dir);
        }
        if let Some(dir) = self.controller("memory") {
            let raw = flat_keyed(dir, "memory.stat");
            stats.memory = Memory {
                cache: get(&raw, "cache"),
                usage: counter_v1(dir, "memory"),
                swap: counter_v1(dir, "memory.memsw"),
                kernel: counter_v1(dir, "memory.kmem"),
                kernel_tcp: counter_v1(dir, "memory.kmem.tcp"),
                raw,
            };
        }
        if let Some(dir) = self.controller("pids") {
            stats.pids = pids(dir);
        }
        if let Some(dir) = self.controller("blkio") {
            stats.blkio = Blkio {
                service_bytes: blkio_v1(dir, "blkio.throttle.io_service_bytes"),
                serviced: blkio_v1(dir, "blkio.throttle.io_serviced"),
            };
        }
        if let Some(dir) = self.controller("hugetlb") {
            stats.hugetlb = hugetlb(dir, "limit_in_bytes", |size| HugePages {
                limit: number(dir, &format!("hugetlb.{size}.limit_in_bytes")),
                usage: number(dir, &format!("hugetlb.{size}.usage_in_bytes")),
                max: number(dir, &format!("hugetlb.{size}.max_usage_in_bytes")),
                failcnt: number(dir, &format!("hugetlb.{size}.failcnt")),
            });
        }
        stats
    }

    fn stats_v2(&self) -> Stats {
        let mut stats = Stats::default();
        let Some(dir) = self.controller("") else {
            return stats;
        };
        let cpu = flat_keyed(dir, "cpu.stat");
        let nanoseconds = |key| get(&cpu, key).saturating_mul(1000);
        stats.cpu.usage.total = nanoseconds("usage_usec");
        stats.cpu.usage.user = nanoseconds("user_usec");
        stats.cpu.usage.kernel = nanoseconds("system_usec");
        stats.cpu.throttling = Throttling {
            periods: get(&cpu, "nr_periods"),
            throttled_periods: get(&cpu, "nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
        };
        let raw = flat_keyed(dir, "memory.stat");
        let usage = Counter {
            limit: number(dir, "memory.max"),
            usage: number(dir, "memory.current"),
            max: number(dir, "memory.peak"),
            failcnt: get(&flat_keyed(dir, "memory.events"), "max"),
        };
        stats.memory = Memory {
            cache: get(&raw, "file"),
            swap: Counter {
                limit: number(dir, "memory.swap.max").saturating_add(usage.limit),
                usage: number(dir, "memory.swap.current").saturating_add(usage.usage),
                max: 0,
                failcnt: 0,
            },
            usage,
            raw,
            ..Memory::default()
        };
        stats.pids = pids(dir);
        stats.blkio = blkio_v2(dir);
        stats.hugetlb = hugetlb(dir, "max", |size| HugePages {
            limit: number(dir, &format!("hugetlb.{size}.max")),
            usage: number(dir, &format!("hugetlb.{size}.current")),
            max: 0,
            failcnt: get(&flat_keyed(dir, &format!("hugetlb.{size}.events")), "max"),
        });
        stats
    }
}

/// Lines `KEY NUMBER` of a kernel file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlatKeyed(BTreeMap<String, u64>);

impl FlatKeyed {
    /// The number of a key; 0 when there is none.
    pub fn get(&self, key: &str) -> u64 {
        get(&self.0, key)
    }
}

/// Pressure stall information of one resource (kernel document `accounting/psi`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Time in which at least one task waited.
    pub some: PressureLine,
    /// Time in which all tasks waited.
    pub full: PressureLine,
}

/// Shares of time in percent over the last seconds, and the whole time in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureLine {
    /// Percent of the last 10 s.
    pub avg10: f64,
    /// Percent of the last 60 s.
    pub avg60: f64,
    /// Percent of the last 300 s.
    pub avg300: f64,
    /// Microseconds since the cgroup was made.
    pub total: u64,
}

impl Cgroup {
    /// A file of lines `KEY NUMBER`; empty when it is not there.
    pub fn flat_keyed(&self, controller: &str, file: &str) -> FlatKeyed {
        let map = self.controller(controller).map(|dir| flat_keyed(dir, file));
        FlatKeyed(map.unwrap_or_default())
    }

    /// A file with one number: `max` is the largest, an absent file 0.
    pub fn number(&self, controller: &str, file: &str) -> u64 {
        self.controller(controller)
            .map_or(0, |dir| number(dir, file))
    }

    /// A pressure file of cgroup v2, `memory.pressure` and the like; `None` when the kernel keeps none.
    pub fn pressure(&self, file: &str) -> Option<Pressure> {
        parse_pressure(&read_text(&self.controller("")?.join(file)).ok()?)
    }
}

fn parse_pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let target = match fields.next()? {
            "some" => &mut pressure.some,
            "full" => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            match key {
                "avg10" => target.avg10 = value.parse().ok()?,
                "avg60" => target.avg60 = value.parse().ok()?,
                "avg300" => target.avg300 = value.parse().ok()?,
                "total" => target.total = value.parse().ok()?,
                _ => {}
            }
        }
    }
    Some(pressure)
}

fn text(dir: &Path, file: &str) -> String {
    read_text(&dir.join(file)).unwrap_or_default()
}

/// One number; `max` is the largest, an absent file zero.
fn number(dir: &Path, file: &str) -> u64 {
    match text(dir, file).as_str() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// Lines `KEY VALUE`.
fn flat_keyed(dir: &Path, file: &str) -> BTreeMap<String, u64> {
    text(dir, file)
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.parse().ok()?))
        })
        .collect()
}

fn get(map: &BTreeMap<String, u64>, key: &str) -> u64 {
    map.get(key).copied().unwrap_or(0)
}

fn counter_v1(dir: &Path, prefix: &str) -> Counter {
    let read = |what: &str| number(dir, &format!("{prefix}.{what}"));
    Counter {
        limit: read("limit_in_bytes"),
        usage: read("usage_in_bytes"),
        max: read("max_usage_in_bytes"),
        failcnt: read("failcnt"),
    }
}

fn pids(dir: &Path) -> Pids {
    Pids {
        current: number(dir, "pids.current"),
        limit: Some(number(dir, "pids.max"))
            .filter(|limit| *limit != u64::MAX)
            .unwrap_or(0),
    }
}

fn cpu_usage_v1(dir: &Path) -> CpuUsage {
    // cpuacct.stat counts in clock ticks; the kernel's USER_HZ is 100 on every architecture served here.
    const NANOSECONDS_PER_TICK: u64 = 10_000_000;
    let ticks = flat_keyed(dir, "cpuacct.stat");
    let numbers = |text: &str| {
        text.split_ascii_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect()
    };
    let (mut percpu_user, mut percpu_kernel) = (Vec::new(), Vec::new());
    for line in text(dir, "cpuacct.usage_all").lines().skip(1) {
        let row: Vec<u64> = numbers(line);
        if let [_, user, kernel] = row.as_slice() {
            percpu_user.push(*user);
            percpu_kernel.push(*kernel);
        }
    }
    CpuUsage {
        total: number(dir, "cpuacct.usage"),
        percpu: numbers(&text(dir, "cpuacct.usage_percpu")),
        percpu_kernel,
        percpu_user,
        kernel: get(&ticks, "system").saturating_mul(NANOSECONDS_PER_TICK),
        user: get(&ticks, "user").saturating_mul(NANOSECONDS_PER_TICK),
    }
}

fn cpuset_v1(dir: &Path) -> Cpuset {
    let read = |name: &str| number(dir, &format!("cpuset.{name}"));
    Cpuset {
        cpus: list(&text(dir, "cpuset.cpus")),
        cpu_exclusive: read("cpu_exclusive"),
        mems: list(&text(dir, "cpuset.mems")),
        mem_hardwall: read("mem_hardwall"),
        mem_exclusive: read("mem_exclusive"),
        memory_migrate: read("memory_migrate"),
        memory_spread_page: read("memory_spread_page"),
        memory_spread_slab: read("memory_spread_slab"),
        memory_pressure: read("memory_pressure"),
        sched_load_balance: read("sched_load_balance"),
        sched_relax_domain_level: text(dir, "cpuset.sched_relax_domain_level")
            .parse()
            .unwrap_or(0),
    }
}

/// The kernel's list syntax: `0-2,5`.
fn list(text: &str) -> Vec<u64> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse::<u64>().ok()?..=last.trim().parse::<u64>().ok()?)
        })
        .flatten()
        .collect()
}

/// Huge pages by the size in the names of the files with their limits: `hugetlb.2MB.max` and so on.
fn hugetlb(
    dir: &Path,
    limit: &str,
    read: impl Fn(&str) -> HugePages,
) -> BTreeMap<String, HugePages> {
    let size = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let (size, file) = name.to_str()?.strip_prefix("hugetlb.")?.split_once('.')?;
        // `hugetlb.2MB.rsvd.max` is about reservations.
        (file == limit).then(|| (size.to_owned(), read(size)))
    };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(size).collect()
}

fn blkio_v1(dir: &Path, file: &str) -> Vec<BlkioEntry> {
    text(dir, file)
        .lines()
        .filter_map(|line| {
            let (device, rest) = line.split_once(' ')?;
            let (major, minor) = device.split_once(':')?;
            let (op, value) = rest.split_once(' ')?;
            Some(BlkioEntry {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                op: op.to_owned(),
                value: value.parse().ok()?,
            })
        })
        .collect()
}

fn blkio_v2(dir: &Path) -> Blkio {
    let mut blkio = Blkio::default();
    for line in text(dir, "io.stat").lines() {
        let mut fields = line.split(' ');
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                continue;
            };
            let (op, is_bytes) = match key {
                "rbytes" => ("Read", true),
                "wbytes" => ("Write", true),
                "dbytes" => ("Discard", true),
                "rios" => ("Read", false),
                "wios" => ("Write", false),
                "dios" => ("Discard", false),
                _ => continue,
            };
            let entry = BlkioEntry {
                major: major.parse().unwrap_or(0),
                minor: minor.parse().unwrap_or(0),
                op: op.to_owned(),
                value: value.parse().unwrap_or(0),
            };
            if is_bytes {
                blkio.service_bytes.push(entry);
            } else {
                blkio.serviced.push(entry);
            }
        }
    }
    blkio
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_syntax_of_the_kernel() {
        assert_eq!(list("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(list(""), Vec::<u64>::new());
    }

    #[test]
    fn io_stat_is_split_into_bytes_and_requests() {
        let dir = tempfile::tempdir().unwrap();
        let line = "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0 cost.usage=7\n";
        std::fs::write(dir.path().join("io.stat"), line).unwrap();
        let blkio = blkio_v2(dir.path());
        let values = |list: &[BlkioEntry]| list.iter().map(|e| e.value).collect::<Vec<_>>();
        assert_eq!(values(&blkio.service_bytes), [4096, 8192, 0]);
        assert_eq!(values(&blkio.serviced), [1, 2, 0]);
        assert_eq!((blkio.serviced[0].major, blkio.serviced[0].minor), (254, 0));
    }

    #[test]
    fn huge_pages_are_counted_by_size_and_printed_as_runc_does() {
        let of = |version, files: &[(&str, &str)]| {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            let path = dir.path().to_path_buf();
            let controllers = match version {
                Version::V1 => "hugetlb".to_owned(),
                Version::V2 => String::new(),
            };
            let directories = vec![super::super::Directory { controllers, path }];
            let cgroup = Cgroup {
                version,
                directories,
            };
            cgroup.stats().hugetlb
        };
        let v2 = of(
            Version::V2,
            &[
                ("hugetlb.1GB.max", "max\n"),
                ("hugetlb.1GB.current", "0\n"),
                ("hugetlb.1GB.events", "max 0\n"),
                ("hugetlb.2MB.max", "8388608\n"),
                ("hugetlb.2MB.current", "4194304\n"),
                ("hugetlb.2MB.events", "max 3\n"),
                ("hugetlb.2MB.rsvd.max", "max\n"),
                ("hugetlb.2MB.rsvd.current", "0\n"),
            ],
        );
        assert_eq!(v2["1GB"].limit, u64::MAX);
        assert_eq!(v2["2MB"].limit, 8_388_608);
        assert_eq!(
            serde_json::to_value(&v2).unwrap(),
            serde_json::json!({"1GB": {"failcnt": 0}, "2MB": {"usage": 4_194_304, "failcnt": 3}})
        );
        let v1 = of(
            Version::V1,
            &[
                ("hugetlb.2MB.limit_in_bytes", "8388608\n"),
                ("hugetlb.2MB.usage_in_bytes", "4194304\n"),
                ("hugetlb.2MB.max_usage_in_bytes", "6291456\n"),
                ("hugetlb.2MB.failcnt", "3\n"),
                ("hugetlb.2MB.rsvd.limit_in_bytes", "9\n"),
            ],
        );
        assert_eq!(
            serde_json::to_value(&v1).unwrap(),
            serde_json::json!({"2MB": {"usage": 4_194_304, "max": 6_291_456, "failcnt": 3}})
        );
    }

    #[test]
    fn absent_files_are_zero() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(number(dir.path(), "memory.current"), 0);
        assert_eq!(counter_v1(dir.path(), "memory.memsw"), Counter::default());
    }
}
