//! What this host offers to place memory with: by file and by system call, never by version.
//!
//! Files are read below a root folder, so that a copy of another host's can be looked at. Nothing is changed.

mod nodes;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use caps::{CapSet, Capability};
use serde::Serialize;

pub use nodes::layout;
pub(super) use nodes::weights;

use super::numa;
use crate::model::nodes::Layout;

/// The multi-generational LRU.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Generations {
    /// Whether the kernel has it and it is on.
    pub enabled: bool,
    /// Whether its file in debugfs is there, by which the coldest pages of one container on one node can be moved.
    pub debugfs: bool,
}

/// The kernel's monitor of data accesses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Damon {
    /// Whether its files in sysfs are there.
    pub sysfs: bool,
    /// What it can watch (`vaddr`, `fvaddr`, `paddr`). Empty where no context was made yet: the kernel tells it there.
    pub operations: Vec<String>,
    /// Whether a scheme can have several destinations with weights. None where no scheme was made yet.
    pub dests: Option<bool>,
    /// Who uses it now, and keeps everybody else out.
    pub busy: Option<String>,
}

/// Whether the kernel accepts weighted interleaving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Accepted {
    /// It does.
    Yes,
    /// It refused, with this reason.
    No {
        /// The kernel's words.
        reason: String,
    },
    /// It was not asked.
    Unknown,
}

impl Accepted {
    /// Whether it does.
    pub const fn is_yes(&self) -> bool {
        matches!(self, Self::Yes)
    }
}

/// What this host offers to place memory with.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Nodes, tiers, distances, figures of the firmware, weights.
    pub layout: Layout,
    /// Whether `set_mempolicy(MPOL_WEIGHTED_INTERLEAVE | MPOL_F_STATIC_NODES)` works for this process.
    pub weighted_interleave: Accepted,
    /// Whether reclaim moves pages to a slower tier. None: this kernel cannot.
    pub demotion_enabled: Option<bool>,
    /// Whether control groups have `memory.reclaim`.
    pub memory_reclaim: bool,
    /// The multi-generational LRU.
    pub generations: Generations,
    /// DAMON.
    pub damon: Damon,
    /// The capabilities that matter, and whether this process has them. Empty where not asked.
    pub capabilities: BTreeMap<&'static str, bool>,
    /// `none`, `integrity` or `confidentiality`; the last two close debugfs. None: this kernel cannot be locked down.
    pub lockdown: Option<String>,
    /// Which processes may look into others (`ptrace_scope` of Yama; 0: as usual). None: without Yama.
    pub ptrace_scope: Option<u8>,
}

/// Capabilities that matter: to move pages of others, to look where they lie, to write host-wide settings.
const CAPABILITIES: [(&str, Capability); 3] = [
    ("CAP_SYS_NICE", Capability::CAP_SYS_NICE),
    ("CAP_SYS_PTRACE", Capability::CAP_SYS_PTRACE),
    ("CAP_SYS_ADMIN", Capability::CAP_SYS_ADMIN),
];

impl Probe {
    /// Of this host and this process.
    pub fn host() -> Self {
        let capabilities = CAPABILITIES.map(|(name, capability)| {
            let has = caps::has_cap(None, CapSet::Effective, capability);
            (name, has.unwrap_or(false))
        });
        let mut probe = Self::of(Path::new("/"));
        probe.weighted_interleave = accepts_weighted_interleave(&probe.layout);
        probe.capabilities = capabilities.into_iter().collect();
        probe
    }

    /// Of the files below a folder; what only the running kernel can answer is not asked.
    pub fn of(root: &Path) -> Self {
        let text = |path: &str| text(root, path);
        let is_there = |path: &str| root.join(path).exists();
        let lockdown = text("sys/kernel/security/lockdown");
        Self {
            layout: layout(root),
            weighted_interleave: Accepted::Unknown,
            demotion_enabled: text("sys/kernel/mm/numa/demotion_enabled").map(|text| is_on(&text)),
            memory_reclaim: is_there("sys/fs/cgroup/memory.reclaim"),
            generations: Generations {
                enabled: text("sys/kernel/mm/lru_gen/enabled").is_some_and(|text| is_hex_on(&text)),
                debugfs: is_there("sys/kernel/debug/lru_gen"),
            },
            damon: damon(root),
            capabilities: BTreeMap::new(),
            lockdown: lockdown.as_deref().and_then(chosen).map(str::to_owned),
            ptrace_scope: text("proc/sys/kernel/yama/ptrace_scope")
                .and_then(|text| text.parse().ok()),
        }
    }
}

/// Whether this kernel accepts weighted interleaving from this process, which keeps the policy that it has.
pub fn accepts_weighted_interleave(layout: &Layout) -> Accepted {
    let nodes = layout.with_memory();
    match numa::accepts_weighted_interleave(&nodes) {
        Ok(()) => Accepted::Yes,
        Err(err) => Accepted::No {
            reason: super::reason(&err),
        },
    }
}

/// A file below the root as text; none if it cannot be read.
fn text(root: &Path, path: &str) -> Option<String> {
    let text = fs::read_to_string(root.join(path)).ok()?;
    Some(text.trim().to_owned())
}

/// A switch as the kernel writes it.
fn is_on(text: &str) -> bool {
    matches!(text, "1" | "true" | "Y" | "y")
}

/// A bit field such as `0x0007` of which something is set.
fn is_hex_on(text: &str) -> bool {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).is_ok_and(|bits| bits != 0)
}

/// The word in brackets: `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<&str> {
    text.split_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
}

/// DAMON, as far as it tells without being set up (Documentation/admin-guide/mm/damon/usage.rst).
fn damon(root: &Path) -> Damon {
    let folder = "sys/kernel/mm/damon/admin/kdamonds";
    let mut damon = Damon {
        sysfs: root.join(folder).is_dir(),
        ..Damon::default()
    };
    // These run in the kernel, one at a time and alone.
    for module in ["damon_stat", "damon_reclaim", "damon_lru_sort"] {
        let enabled = text(root, &format!("sys/module/{module}/parameters/enabled"));
        if enabled.is_some_and(|text| is_on(&text)) {
            damon.busy = Some(module.to_owned());
        }
    }
    for kdamond in numbered(&root.join(folder)) {
        let kdamond = format!("{folder}/{kdamond}");
        if text(root, &format!("{kdamond}/state")).as_deref() == Some("on") {
            let pid = text(root, &format!("{kdamond}/pid")).unwrap_or_default();
            damon.busy = Some(format!("kdamond {pid}, started through sysfs"));
        }
        for context in numbered(&root.join(format!("{kdamond}/contexts"))) {
            let context = format!("{kdamond}/contexts/{context}");
            if let Some(known) = text(root, &format!("{context}/avail_operations")) {
                damon.operations = known.split_whitespace().map(str::to_owned).collect();
            }
            for scheme in numbered(&root.join(format!("{context}/schemes"))) {
                let dests = root.join(format!("{context}/schemes/{scheme}/dests"));
                damon.dests = Some(dests.is_dir());
            }
        }
    }
    damon
}

/// The folders with a number as their name, by number.
fn numbered(folder: &Path) -> Vec<u32> {
    named(folder, "")
}

/// The numbers of the folders `PREFIX<number>`, in order.
fn named(folder: &Path, prefix: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<u32> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_prefix(prefix)?.parse().ok()
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bytes;

    /// A folder with these files.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    /// A guest with a node without processors in a slower tier, kernel 7.
    const TIERED: &[(&str, &str)] = &[
        ("sys/devices/system/node/online", "0-1\n"),
        ("sys/devices/system/node/has_cpu", "0\n"),
        ("sys/devices/system/node/has_memory", "0-1\n"),
        (
            "sys/devices/system/node/node0/meminfo",
            "Node 0 MemTotal:        2032364 kB\nNode 0 MemFree: 5 kB\n",
        ),
        (
            "sys/devices/system/node/node1/meminfo",
            "Node 1 MemTotal:        1032192 kB\n",
        ),
        ("sys/devices/system/node/node0/distance", "10 20\n"),
        ("sys/devices/system/node/node1/distance", "20 10\n"),
        (
            "sys/devices/system/node/node1/access0/initiators/read_latency",
            "250\n",
        ),
        (
            "sys/devices/system/node/node1/access0/initiators/write_latency",
            "250\n",
        ),
        (
            "sys/devices/system/node/node1/access0/initiators/read_bandwidth",
            "30720\n",
        ),
        (
            "proc/zoneinfo",
            "Node 0, zone      DMA\n  per-node stats\n        present  3998\n        managed  3840\n\
             Node 0, zone   Normal\n        managed  504251\n\
             Node 1, zone   Normal\n        managed  0\nNode 1, zone  Movable\n        managed  258048\n",
        ),
        (
            "sys/devices/virtual/memory_tiering/memory_tier4/nodelist",
            "0\n",
        ),
        (
            "sys/devices/virtual/memory_tiering/memory_tier56/nodelist",
            "1\n",
        ),
        ("sys/kernel/mm/mempolicy/weighted_interleave/node0", "25\n"),
        ("sys/kernel/mm/mempolicy/weighted_interleave/node1", "6\n"),
        ("sys/kernel/mm/mempolicy/weighted_interleave/auto", "true\n"),
        ("sys/kernel/mm/numa/demotion_enabled", "false\n"),
        ("sys/fs/cgroup/memory.reclaim", ""),
        ("sys/kernel/mm/lru_gen/enabled", "0x0007\n"),
        ("sys/kernel/debug/lru_gen", ""),
        (
            "sys/kernel/mm/damon/admin/kdamonds/0/contexts/0/avail_operations",
            "vaddr\nfvaddr\npaddr\n",
        ),
        (
            "sys/kernel/mm/damon/admin/kdamonds/0/contexts/0/schemes/0/dests/nr_dests",
            "0\n",
        ),
        ("sys/kernel/mm/damon/admin/kdamonds/0/state", "off\n"),
        ("sys/module/damon_stat/parameters/enabled", "Y\n"),
        (
            "sys/kernel/security/lockdown",
            "none [integrity] confidentiality\n",
        ),
        ("proc/sys/kernel/yama/ptrace_scope", "1\n"),
    ];

    #[test]
    fn a_tiered_host_is_described() {
        let root = tree(TIERED);
        let probe = Probe::of(root.path());
        let layout = &probe.layout;
        assert_eq!(layout.local().to_string(), "0");
        assert_eq!(layout.remote().to_string(), "1");
        let far = layout.node(1).unwrap();
        assert_eq!(far.memory, Bytes::new(1_032_192 << 10));
        assert!(far.movable_only && !layout.node(0).unwrap().movable_only);
        assert_eq!(far.tier, Some(56));
        assert_eq!(far.distances, BTreeMap::from([(0, 20), (1, 10)]));
        let access = far.access.unwrap();
        assert_eq!(access.read_latency_ns, Some(250));
        assert_eq!(access.read_bandwidth_mbps, Some(30720));
        assert_eq!(access.write_bandwidth_mbps, None);
        assert_eq!(layout.node(0).unwrap().access, None);
        let weights = layout.weights.as_ref().unwrap();
        assert_eq!((weights.of(0), weights.of(1)), (25, 6));
        assert_eq!(weights.auto, Some(true));
        assert_eq!(probe.demotion_enabled, Some(false));
        assert!(probe.memory_reclaim && probe.generations.enabled && probe.generations.debugfs);
        assert_eq!(probe.damon.operations, ["vaddr", "fvaddr", "paddr"]);
        assert_eq!(probe.damon.dests, Some(true));
        assert_eq!(probe.damon.busy.as_deref(), Some("damon_stat"));
        assert_eq!(probe.lockdown.as_deref(), Some("integrity"));
        assert_eq!(probe.ptrace_scope, Some(1));
        assert!(!probe.weighted_interleave.is_yes());
    }

    #[test]
    fn a_host_that_tells_nothing_has_one_node_and_offers_nothing() {
        let root = tree(&[]);
        let probe = Probe::of(root.path());
        assert_eq!(probe.layout, Layout::default());
        assert_eq!(probe.demotion_enabled, None);
        assert!(!probe.memory_reclaim && !probe.generations.enabled && !probe.damon.sysfs);
        assert_eq!(probe.damon, Damon::default());
    }

    #[test]
    fn broken_files_count_as_absent() {
        let mut files = TIERED.to_vec();
        for (_, text) in &mut files {
            *text = "garbage \u{1f980}";
        }
        let root = tree(&files);
        let probe = Probe::of(root.path());
        assert!(probe.layout.remote().is_empty());
        assert_eq!(probe.lockdown, None);
    }

    #[test]
    fn this_host_has_a_node_and_keeps_its_policy() {
        let before = numa::policy().unwrap();
        let probe = Probe::host();
        assert_eq!(numa::policy().unwrap(), before);
        assert!(!probe.layout.local().is_empty(), "{probe:?}");
        assert_ne!(probe.weighted_interleave, Accepted::Unknown);
        assert_eq!(probe.capabilities.len(), CAPABILITIES.len());
        assert!(serde_json::to_value(&probe).is_ok());
    }
}
