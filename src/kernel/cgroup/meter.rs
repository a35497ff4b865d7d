//! Readings of one control group many times a second: its files stay open, and a reading allocates nothing.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::{Cgroup, KernelError, Result, Version, write_text};
use crate::kernel::wait::Waker;
use crate::model::{Bytes, MemoryLimit};

/// Larger than any file that is read here; `memory.stat` of cgroup v2 has about 2 KiB.
const BUFFER: usize = 8192;
/// What cgroup v1 has for no limit: the largest multiple of a page (cgroup-v1/memory.rst).
pub(super) const V1_NO_LIMIT: u64 = 0x7FFF_FFFF_FFFF_F000;

/// Open files of one control group.
#[derive(Debug)]
pub struct Meter {
    version: Version,
    memory: PathBuf,
    usage: File,
    stat: File,
    /// `cpuacct.usage`, `cpu.stat`.
    cpu: Option<File>,
    limit: Option<File>,
    high: Option<File>,
    psi: Option<File>,
    events: Option<File>,
    /// What the limits of this very group did.
    failures: Option<File>,
    /// Events of the OOM killer, where they are in another file.
    oom: Option<File>,
    nodes: Option<File>,
}

/// Sets thresholds of usage in one control group of cgroup v1.
#[derive(Debug)]
pub struct Alarm {
    usage: File,
    control: PathBuf,
}

impl Alarm {
    /// Has an eventfd signalled whenever usage passes a threshold, for as long as the control group and the eventfd
    /// exist; as [`Meter::watch_usage`], and as slow.
    ///
    /// # Errors
    /// `Io` with the file that refused.
    pub fn set(&self, threshold: Bytes, event: BorrowedFd<'_>) -> Result<()> {
        let (event, usage) = (event.as_raw_fd(), self.usage.as_raw_fd());
        write_text(
            &self.control,
            &format!("{event} {usage} {}", threshold.get()),
        )
    }
}

/// What the memory consists of (`memory.stat`). Page cache and shared memory do not overlap here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Composition {
    /// Anonymous memory.
    pub anon: Bytes,
    /// Page cache without shared memory.
    pub file: Bytes,
    /// Shared memory and tmpfs.
    pub shmem: Bytes,
    /// Memory of the kernel; cgroup v1 does not tell.
    pub kernel: Option<Bytes>,
    /// Pages of files that were read again soon after they had been dropped.
    pub refault: u64,
}

/// How often a limit of this very control group was met, not one of a group above or below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failures {
    /// The hard limit (`memory.failcnt`; `max` in `memory.events.local`).
    pub limit: u64,
    /// The throttling limit (`high` in `memory.events.local`); none on cgroup v1.
    pub high: u64,
}

impl Meter {
    /// Opens the files of a control group; those that the kernel does not have are left out.
    ///
    /// # Errors
    /// `Unsupported` without a memory controller; `Io` with the file that cannot be opened.
    pub fn open(cgroup: &Cgroup) -> Result<Self> {
        let memory = cgroup
            .controller("memory")
            .ok_or_else(|| {
                KernelError::Unsupported("the host has no memory controller".to_owned())
            })?
            .to_path_buf();
        let need = |name: &str| {
            let path = memory.join(name);
            File::open(&path).map_err(|err| KernelError::io("open", &path, err))
        };
        let may = |name: &str| File::open(memory.join(name)).ok();
        let version = cgroup.version;
        let (usage, limit, high, events, oom, cpu) = match version {
            Version::V1 => (
                need("memory.usage_in_bytes")?,
                may("memory.limit_in_bytes"),
                None,
                None,
                may("memory.oom_control"),
                cgroup
                    .controller("cpuacct")
                    .and_then(|dir| File::open(dir.join("cpuacct.usage")).ok()),
            ),
            Version::V2 => (
                need("memory.current")?,
                may("memory.max"),
                may("memory.high"),
                may("memory.events"),
                None,
                may("cpu.stat"),
            ),
        };
        let failures = match version {
            Version::V1 => may("memory.failcnt"),
            // Before Linux 5.2 there is only the file that counts those below too.
            Version::V2 => may("memory.events.local").or_else(|| may("memory.events")),
        };
        Ok(Self {
            version,
            failures,
            stat: need("memory.stat")?,
            psi: pressure_file(cgroup),
            nodes: may("memory.numa_stat"),
            usage,
            limit,
            high,
            events,
            oom,
            cpu,
            memory,
        })
    }

    /// All memory that is charged (`memory.usage_in_bytes`, `memory.current`).
    ///
    /// # Errors
    /// `Io`, such as `ENODEV` once the control group is gone.
    pub fn usage(&self) -> Result<Bytes> {
        let mut buffer = [0; BUFFER];
        let text = self.read(&self.usage, "usage", &mut buffer)?;
        Ok(Bytes::new(number(text).unwrap_or(0)))
    }

    /// What the memory consists of.
    ///
    /// # Errors
    /// As [`Meter::usage`].
    pub fn composition(&self) -> Result<Composition> {
        let mut buffer = [0; BUFFER];
        let text = self.read(&self.stat, "memory.stat", &mut buffer)?;
        Ok(match self.version {
            Version::V1 => composition_v1(text),
            Version::V2 => composition_v2(text),
        })
    }

    /// CPU time used, if the host counts it.
    pub fn cpu(&self) -> Option<Duration> {
        let mut buffer = [0; BUFFER];
        let text = self
            .read(self.cpu.as_ref()?, "CPU time", &mut buffer)
            .ok()?;
        match self.version {
            Version::V1 => number(text).map(Duration::from_nanos),
            Version::V2 => find(text, b"usage_usec").map(Duration::from_micros),
        }
    }

    /// The hard limit and the throttling limit.
    pub fn limits(&self) -> (Option<MemoryLimit>, Option<MemoryLimit>) {
        let mut buffer = [0; BUFFER];
        let mut one =
            |file: &Option<File>| limit_of(self.read(file.as_ref()?, "limit", &mut buffer).ok()?);
        (one(&self.limit), one(&self.high))
    }

    /// Time in which some task waited for memory (kernel document `accounting/psi`).
    pub fn pressure(&self) -> Option<Duration> {
        let mut buffer = [0; BUFFER];
        let text = self
            .read(self.psi.as_ref()?, "memory.pressure", &mut buffer)
            .ok()?;
        let line = text.split(|b| *b == b'\n').next()?;
        let total = line.rsplit(|b| *b == b'=').next()?;
        number(total).map(Duration::from_micros)
    }

    /// How often the throttling limit was exceeded, on cgroup v1 how often the only limit was met, and how many
    /// processes the OOM killer ended.
    pub fn events(&self) -> (Option<u64>, Option<u64>) {
        let mut buffer = [0; BUFFER];
        if let Some(file) = &self.oom {
            let text = self.read(file, "memory.oom_control", &mut buffer);
            let kills = text.ok().and_then(|text| find(text, b"oom_kill"));
            return (self.failures().map(|failures| failures.limit), kills);
        }
        let Some(file) = &self.events else {
            return (None, None);
        };
        match self.read(file, "memory.events", &mut buffer) {
            Ok(text) => (find(text, b"high"), find(text, b"oom_kill")),
            Err(_) => (None, None),
        }
    }

    /// How often a limit of this control group was met. On cgroup v1 a charge that page cache made room for counts too.
    pub fn failures(&self) -> Option<Failures> {
        let mut buffer = [0; BUFFER];
        let file = self.failures.as_ref()?;
        let text = self.read(file, "failures", &mut buffer).ok()?;
        Some(match self.version {
            Version::V1 => Failures {
                limit: number(text)?,
                high: 0,
            },
            Version::V2 => Failures {
                limit: find(text, b"max")?,
                high: find(text, b"high")?,
            },
        })
    }

    /// A descriptor that becomes readable when usage passes a threshold, upwards or downwards (cgroup v1: an eventfd on
    /// `memory.usage_in_bytes`; cgroup-v1/memory.rst, section 9). It does not block; closed, the threshold is gone.
    ///
    /// To set it takes 10 to 20 ms, in which the kernel waits for all processors (`synchronize_rcu`): a matter for a thread
    /// that may wait. The kernel looks at every 128th page that a processor charges, so that usage can be half a MiB for
    /// each processor ahead.
    ///
    /// # Errors
    /// `Unsupported` on cgroup v2; `Io` with the file that refused.
    pub fn watch_usage(&self, threshold: Bytes) -> Result<OwnedFd> {
        let path = self.memory.join("cgroup.event_control");
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|err| KernelError::io("watch", &path, err.into()))?;
        self.alarm()?.set(threshold, event.as_fd())?;
        Ok(event)
    }

    /// Has this woken whenever the throttling limit is met, at most every 10 ms, for as long as the meter exists (cgroup v2:
    /// a change of `memory.events.local`). The kernel tells of it before the container is made to wait.
    ///
    /// # Errors
    /// `Unsupported` on cgroup v1; `Io` when there are no descriptors left.
    pub fn watch_high(&self, waker: &Waker) -> Result<()> {
        // A file that has not been read counts as changed.
        self.failures();
        match (&self.failures, self.version) {
            (Some(file), Version::V2) => waker.wake_on_change(file.as_fd()),
            _ => Err(KernelError::Unsupported(
                "the host does not tell when a throttling limit is met".to_owned(),
            )),
        }
    }

    /// What sets thresholds for another thread than that of the meter.
    ///
    /// # Errors
    /// `Unsupported` on cgroup v2; `Io` when there are no descriptors left.
    pub fn alarm(&self) -> Result<Alarm> {
        if self.version == Version::V2 {
            return Err(KernelError::Unsupported(
                "cgroup v2 does not tell when usage passes a threshold".to_owned(),
            ));
        }
        let control = self.memory.join("cgroup.event_control");
        let usage = self.usage.try_clone();
        Ok(Alarm {
            usage: usage.map_err(|err| KernelError::io("watch", &control, err))?,
            control,
        })
    }

    /// Memory on each node, by its number (`memory.numa_stat`): `visit` gets the number of a node and a share of
    /// its memory, several times for each node.
    pub fn nodes(&self, visit: impl FnMut(u32, Bytes)) {
        self.on_nodes(
            match self.version {
                Version::V1 => &[b"hierarchical_total"],
                // Shared memory is part of `file`.
                Version::V2 => &[
                    b"anon",
                    b"file",
                    b"kernel_stack",
                    b"pagetables",
                    b"slab_reclaimable",
                    b"slab_unreclaimable",
                ],
            },
            visit,
        );
    }

    /// Anonymous memory on each node, in the same way.
    pub fn anon_on_nodes(&self, visit: impl FnMut(u32, Bytes)) {
        self.on_nodes(
            match self.version {
                Version::V1 => &[b"hierarchical_anon"],
                Version::V2 => &[b"anon"],
            },
            visit,
        );
    }

    fn on_nodes(&self, keys: &[&[u8]], mut visit: impl FnMut(u32, Bytes)) {
        let mut buffer = [0; BUFFER];
        let Some(file) = &self.nodes else { return };
        let Ok(text) = self.read(file, "memory.numa_stat", &mut buffer) else {
            return;
        };
        let unit: u64 = match self.version {
            Version::V1 => page_size(),
            Version::V2 => 1,
        };
        for line in text.split(|b| *b == b'\n') {
            let mut words = line.split(|b| *b == b' ');
            let key = words.next().unwrap_or_default();
            // On v1 the total stands behind the key: `hierarchical_total=5 N0=5`.
            let key = key.split(|b| *b == b'=').next().unwrap_or_default();
            if !keys.contains(&key) {
                continue;
            }
            for word in words {
                let Some(rest) = word.strip_prefix(b"N") else {
                    continue;
                };
                let mut pair = rest.split(|b| *b == b'=');
                let node = pair.next().and_then(number);
                let value = pair.next().and_then(number);
                if let (Some(node), Some(value)) = (node, value)
                    && let Ok(node) = u32::try_from(node)
                {
                    visit(node, Bytes::new(value.saturating_mul(unit)));
                }
            }
        }
    }

    /// The largest usage so far by the kernel's own counter (`memory.max_usage_in_bytes`, `memory.peak`).
    pub fn peak(&self) -> Option<Bytes> {
        let name = match self.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        };
        let text = std::fs::read(self.memory.join(name)).ok()?;
        number(&text).map(Bytes::new)
    }

    fn read<'a>(&self, file: &File, what: &str, buffer: &'a mut [u8; BUFFER]) -> Result<&'a [u8]> {
        let fail = |err: rustix::io::Errno| {
            KernelError::io(format!("read {what} of"), &self.memory, err.into())
        };
        let length = pread(file.as_fd(), buffer).map_err(fail)?;
        Ok(buffer.get(..length).unwrap_or_default())
    }
}

pub(super) fn pread(file: BorrowedFd<'_>, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    loop {
        match rustix::io::pread(file, &mut *buffer, 0) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// On the hybrid layout the v2 hierarchy beside the others has it.
fn pressure_file(cgroup: &Cgroup) -> Option<File> {
    let unified = cgroup
        .directories
        .iter()
        .find(|dir| dir.controllers.is_empty())?;
    File::open(unified.path.join("memory.pressure")).ok()
}

pub(super) fn page_size() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

/// Leading digits.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let mut value: Option<u64> = None;
    for byte in text {
        if !byte.is_ascii_digit() {
            break;
        }
        let tens = value.unwrap_or(0).checked_mul(10)?;
        value = Some(tens.checked_add(u64::from(byte - b'0'))?);
    }
    value
}

/// The limit that a file of cgroup v1 or v2 tells.
pub(super) fn limit_of(text: &[u8]) -> Option<MemoryLimit> {
    if text.starts_with(b"max") {
        return Some(MemoryLimit::None);
    }
    match number(text)? {
        V1_NO_LIMIT.. => Some(MemoryLimit::None),
        bytes => i64::try_from(bytes).ok().map(MemoryLimit::Bytes),
    }
}

/// The number in the line of a key.
pub(super) fn find(text: &[u8], key: &[u8]) -> Option<u64> {
    lines(text).find_map(|(name, value)| (name == key).then_some(value))
}

/// Lines `KEY NUMBER`.
fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    text.split(|b| *b == b'\n').filter_map(|line| {
        let at = line.iter().position(|b| *b == b' ')?;
        let (name, value) = line.split_at_checked(at)?;
        Some((name, number(value.get(1..)?)?))
    })
}

/// With the control groups below it. There `cache` holds `shmem`.
fn composition_v1(text: &[u8]) -> Composition {
    let mut found = Composition::default();
    let mut cache = 0;
    for (name, value) in lines(text) {
        match name {
            b"total_cache" => cache = value,
            b"total_rss" => found.anon = Bytes::new(value),
            b"total_shmem" => found.shmem = Bytes::new(value),
            b"total_workingset_refault_file" => found.refault = value,
            _ => {}
        }
    }
    found.file = Bytes::new(cache).saturating_sub(found.shmem);
    found
}

/// There `file` holds `shmem`.
fn composition_v2(text: &[u8]) -> Composition {
    let mut found = Composition::default();
    let mut file = 0;
    let mut parts = 0_u64;
    for (name, value) in lines(text) {
        match name {
            b"anon" => found.anon = Bytes::new(value),
            b"file" => file = value,
            b"shmem" => found.shmem = Bytes::new(value),
            b"workingset_refault_file" => found.refault = value,
            b"kernel" => found.kernel = Some(Bytes::new(value)),
            b"kernel_stack" | b"pagetables" | b"percpu" | b"sock" | b"slab" => {
                parts = parts.saturating_add(value);
            }
            _ => {}
        }
    }
    found.file = Bytes::new(file).saturating_sub(found.shmem);
    // Linux before 5.18 tells only the parts.
    found.kernel = found.kernel.or(Some(Bytes::new(parts)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_cache_and_shared_memory_do_not_overlap() {
        let v1 = composition_v1(
            b"cache 5\nrss 1\ntotal_cache 100\ntotal_rss 50\ntotal_shmem 30\ntotal_workingset_refault_file 7\n",
        );
        assert_eq!(v1.file, Bytes::new(70));
        assert_eq!(v1.anon, Bytes::new(50));
        assert_eq!(v1.kernel, None);
        assert_eq!(v1.refault, 7);
        let v2 = composition_v2(b"anon 50\nfile 100\nkernel 9\nkernel_stack 4\nshmem 30\nslab 5\n");
        assert_eq!(v2.file, Bytes::new(70));
        assert_eq!(v2.kernel, Some(Bytes::new(9)));
        let old = composition_v2(b"anon 50\nfile 100\nkernel_stack 4\nslab 5\n");
        assert_eq!(old.kernel, Some(Bytes::new(9)));
    }

    #[test]
    fn numbers_end_where_digits_do() {
        assert_eq!(number(b"12\n"), Some(12));
        assert_eq!(number(b"max\n"), None);
        assert_eq!(number(b"99999999999999999999"), None);
        assert_eq!(find(b"low 0\nhigh 3\noom_kill 2\n", b"oom_kill"), Some(2));
    }
}
