//! Memory nodes of a host, as the kernel describes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Bytes;

/// No host has a node with this number or a higher one (`MAX_NUMNODES` of the largest configurations).
const MOST_NODES: u32 = 1024;

/// Numbers of nodes or processors, as the kernel writes them: `0-2,4`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NodeSet(BTreeSet<u32>);

/// The text is no list of numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no list of node numbers (want for example 0-2,4)")]
pub struct InvalidNodeSet(String);

impl NodeSet {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this one is among them.
    pub fn contains(&self, node: u32) -> bool {
        self.0.contains(&node)
    }

    /// Whether all of them are in `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// From the lowest to the highest.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// Those of either.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }

    /// Those of both.
    #[must_use]
    pub fn within(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }
}

impl FromIterator<u32> for NodeSet {
    fn from_iter<I: IntoIterator<Item = u32>>(nodes: I) -> Self {
        Self(nodes.into_iter().collect())
    }
}

impl FromStr for NodeSet {
    type Err = InvalidNodeSet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || InvalidNodeSet(text.chars().take(80).collect());
        let number = |text: &str| -> Result<u32, InvalidNodeSet> {
            let number = text.trim().parse().map_err(|_| bad())?;
            (number < MOST_NODES).then_some(number).ok_or_else(bad)
        };
        let mut nodes = BTreeSet::new();
        for range in text.trim().split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            nodes.extend(number(first)?..=number(last)?);
        }
        Ok(Self(nodes))
    }
}

impl TryFrom<String> for NodeSet {
    type Error = InvalidNodeSet;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NodeSet> for String {
    fn from(nodes: NodeSet) -> Self {
        nodes.to_string()
    }
}

impl fmt::Display for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if(|next| *next == last + 1) {
                last = next;
            }
            write!(f, "{comma}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

/// What the firmware's tables say of accesses to a node from the processors nearest to it (`nodeN/access0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Of a read, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_latency_ns: Option<u64>,
    /// Of a write, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_latency_ns: Option<u64>,
    /// Of reads, in MB/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bandwidth_mbps: Option<u64>,
    /// Of writes, in MB/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_bandwidth_mbps: Option<u64>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its number.
    pub number: u32,
    /// Whether it has processors.
    pub has_cpus: bool,
    /// Its memory; zero if it has none.
    pub memory: Bytes,
    /// Whether all of its memory can be taken away again (zone Movable): the kernel itself keeps nothing there.
    pub movable_only: bool,
    /// Number of its tier: a higher one is slower. None: the kernel knows no tiers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<u32>,
    /// Distance from this node to each (10: itself).
    pub distances: BTreeMap<u32, u32>,
    /// Figures of the firmware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
}

/// The weights of the host by which weighted interleaving deals out pages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Weights {
    /// Of each node.
    pub nodes: BTreeMap<u32, u8>,
    /// Whether the kernel makes them from the bandwidths. None: this kernel does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<bool>,
}

impl Weights {
    /// That of a node; what has none counts as 1, as the kernel does.
    pub fn of(&self, node: u32) -> u32 {
        self.nodes.get(&node).map_or(1, |weight| u32::from(*weight))
    }
}

/// Where memory of a host can lie.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// The nodes that are online, by number.
    pub nodes: Vec<Node>,
    /// The weights of the host. None: this kernel has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
}

impl Layout {
    /// Nodes that have memory.
    pub fn with_memory(&self) -> NodeSet {
        let nodes = self.nodes.iter();
        nodes
            .filter(|node| node.memory > Bytes::ZERO)
            .map(|node| node.number)
            .collect()
    }

    /// Nodes whose memory is remote: those without processors, and those of a slower tier than a node with processors.
    pub fn remote(&self) -> NodeSet {
        let with_cpus = self.nodes.iter().filter(|node| node.has_cpus);
        let fastest = with_cpus.filter_map(|node| node.tier).min();
        let slower = |node: &Node| {
            node.tier
                .zip(fastest)
                .is_some_and(|(tier, fast)| tier > fast)
        };
        let nodes = self.nodes.iter();
        nodes
            .filter(|node| node.memory > Bytes::ZERO && (!node.has_cpus || slower(node)))
            .map(|node| node.number)
            .collect()
    }

    /// The other nodes with memory.
    pub fn local(&self) -> NodeSet {
        let remote = self.remote();
        let all = self.with_memory();
        all.iter().filter(|node| !remote.contains(*node)).collect()
    }

    /// A node by its number.
    pub fn node(&self, number: u32) -> Option<&Node> {
        self.nodes.iter().find(|node| node.number == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> NodeSet {
        text.parse().unwrap()
    }

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for text in ["", "0", "0-2", "0,2", "0-2,4", "1,3-4,1023"] {
            assert_eq!(set(text).to_string(), text);
        }
        assert_eq!(set("3,1-2, 0\n").to_string(), "0-3");
        for bad in ["a", "1-", "-1", "1024", "0-4000000000", "1;2"] {
            assert!(bad.parse::<NodeSet>().is_err(), "{bad}");
        }
        let json = serde_json::to_string(&set("0-2,4")).unwrap();
        assert_eq!(json, "\"0-2,4\"");
        assert_eq!(
            serde_json::from_str::<NodeSet>(&json).unwrap(),
            set("0-2,4")
        );
    }

    fn node(number: u32, has_cpus: bool, tier: Option<u32>) -> Node {
        Node {
            number,
            has_cpus,
            memory: Bytes::new(1),
            tier,
            ..Node::default()
        }
    }

    #[test]
    fn remote_is_what_has_no_processors_or_is_slower() {
        let layout = |nodes| Layout {
            nodes,
            weights: None,
        };
        let flat = layout(vec![node(0, true, None), node(1, false, None)]);
        assert_eq!((flat.local(), flat.remote()), (set("0"), set("1")));
        let slower = layout(vec![node(0, true, Some(4)), node(1, true, Some(22))]);
        assert_eq!((slower.local(), slower.remote()), (set("0"), set("1")));
        let two = layout(vec![node(0, true, Some(4)), node(1, true, Some(4))]);
        assert_eq!((two.local(), two.remote()), (set("0-1"), set("")));
        // Processors alone make no place for memory.
        let mut bare = node(1, true, Some(4));
        bare.memory = Bytes::ZERO;
        let bare = layout(vec![node(0, true, Some(4)), bare]);
        assert_eq!((bare.local(), bare.remote()), (set("0"), set("")));
    }
}
