//! The memory nodes of the host.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

const HUGE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// The setting of the whole machine about huge pages, for one test at a time; as it was before once this is dropped.
pub struct HugePages {
    before: String,
    _turn: MutexGuard<'static, ()>,
}

impl HugePages {
    /// Never: ratios of small containers are exact to the page. Waits until no other test has it.
    ///
    /// # Panics
    /// Without that setting, or the right to write it.
    pub fn never() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let text = fs::read_to_string(HUGE).expect("setting");
        let before = text.split(['[', ']']).nth(1).expect("the one in force");
        fs::write(HUGE, "never").expect("no huge pages");
        Self {
            before: before.to_owned(),
            _turn: turn,
        }
    }

    /// Wherever they fit.
    ///
    /// # Panics
    /// Without the right to write it.
    pub fn always(&self) {
        fs::write(HUGE, "always").expect("huge pages");
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(HUGE, &self.before);
    }
}

/// The memory nodes without processors.
pub fn far_nodes() -> Vec<u32> {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default();
    (0..64)
        .filter(|node| {
            let dir = format!("/sys/devices/system/node/node{node}");
            let cpus = read(format!("{dir}/cpulist"));
            Path::new(&dir).exists() && cpus.trim().is_empty()
        })
        .collect()
}

/// Whether some of a node's memory is online.
///
/// # Panics
/// Where the kernel does not tell.
pub fn has_memory(node: u32) -> bool {
    let text = fs::read_to_string("/sys/devices/system/node/has_memory").expect("has_memory");
    let nodes: elastic_mem::model::nodes::NodeSet = text.trim().parse().expect("nodes");
    nodes.contains(node)
}

/// How many bytes of anonymous memory are on a node, by `memory.numa_stat` of a control group.
///
/// # Panics
/// When that file says nothing of a node that has memory.
pub fn anon_on(numa_stat: &str, node: u32) -> u64 {
    let line = numa_stat.lines().find(|line| line.starts_with("anon "));
    let line = line.unwrap_or_else(|| panic!("no anon in {numa_stat}"));
    let key = format!("N{node}=");
    let found = line.split(' ').find_map(|word| word.strip_prefix(&key));
    match found.map(str::parse) {
        Some(Ok(bytes)) => bytes,
        None if !has_memory(node) => 0,
        _ => panic!("no {key} in {line}"),
    }
}
