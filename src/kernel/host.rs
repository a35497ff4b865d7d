//! The memory of this host, whole and by node.

use std::path::Path;

use super::{KernelError, Result, read_text};
use crate::model::Bytes;

const NODES: &str = "/sys/devices/system/node";

/// The memory of the host (proc_meminfo(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// All that the kernel manages.
    pub total: Bytes,
    /// What new programs could have without anybody swapping.
    pub available: Bytes,
}

/// A memory node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub number: u32,
    /// Whether it has processors; memory of one without is farther away for all of them.
    pub has_cpus: bool,
    /// Its memory.
    pub total: Bytes,
    /// What of it is free.
    pub free: Bytes,
}

/// The memory of the host.
///
/// # Errors
/// `Io`; `Malformed` when a line is missing.
pub fn memory() -> Result<HostMemory> {
    let path = Path::new("/proc/meminfo");
    let text = read_text(path)?;
    let find = |key: &str| {
        kib(&text, key).ok_or_else(|| KernelError::Malformed {
            path: path.to_path_buf(),
            text: format!("no line {key}"),
        })
    };
    Ok(HostMemory {
        total: find("MemTotal:")?,
        available: find("MemAvailable:")?,
    })
}

/// The nodes that have memory, by number; none where the kernel knows no nodes.
pub fn nodes() -> Vec<Node> {
    let list = |name: &str| {
        let text = read_text(&Path::new(NODES).join(name)).unwrap_or_default();
        numbers(&text)
    };
    let with_cpus = list("has_cpu");
    let node = |number: u32| {
        let text = read_text(&Path::new(NODES).join(format!("node{number}/meminfo"))).ok()?;
        Some(Node {
            number,
            has_cpus: with_cpus.contains(&number),
            total: kib(&text, "MemTotal:")?,
            free: kib(&text, "MemFree:")?,
        })
    };
    list("has_memory").into_iter().filter_map(node).collect()
}

/// The size behind a key, in lines such as `MemFree: 12 kB` or `Node 0 MemFree: 12 kB`.
fn kib(text: &str, key: &str) -> Option<Bytes> {
    let line = text
        .lines()
        .find(|line| line.split_whitespace().any(|word| word == key))?;
    let number = line.split_whitespace().rev().nth(1)?;
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
        .map(Bytes::new)
}

/// A list of numbers such as `0-2,5`.
fn numbers(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            found.extend(first..=last);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stand_behind_their_keys() {
        let text = "MemTotal:       24000 kB\nMemFree:  12 kB\nMemAvailable: 7 kB";
        assert_eq!(kib(text, "MemAvailable:"), Some(Bytes::new(7 * 1024)));
        let node = "Node 1 MemTotal:  10 kB\nNode 1 MemFree: 4 kB";
        assert_eq!(kib(node, "MemFree:"), Some(Bytes::new(4 * 1024)));
        assert_eq!(kib(text, "Other:"), None);
    }

    #[test]
    fn lists_of_nodes_have_ranges() {
        assert_eq!(numbers("0"), [0]);
        assert_eq!(numbers("0-2,5\n"), [0, 1, 2, 5]);
        assert!(numbers("").is_empty());
    }

    #[test]
    fn this_host_has_memory() {
        let memory = memory().unwrap();
        assert!(memory.total >= memory.available && memory.available > Bytes::ZERO);
    }
}
