//! The memory nodes of the host.

use std::fs;
use std::path::Path;

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

/// How many bytes of anonymous memory are on a node, by `memory.numa_stat` of a control group.
///
/// # Panics
/// When that file says nothing of the node.
pub fn anon_on(numa_stat: &str, node: u32) -> u64 {
    let line = numa_stat.lines().find(|line| line.starts_with("anon "));
    let line = line.unwrap_or_else(|| panic!("no anon in {numa_stat}"));
    let key = format!("N{node}=");
    let found = line.split(' ').find_map(|word| word.strip_prefix(&key));
    found
        .and_then(|bytes| bytes.parse().ok())
        .unwrap_or_else(|| panic!("no {key} in {line}"))
}
