//! Nodes, tiers and weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{is_on, named, text};
use crate::model::Bytes;
use crate::model::nodes::{Access, Layout, Node, NodeSet, Weights};

const NODES: &str = "sys/devices/system/node";
const TIERS: &str = "sys/devices/virtual/memory_tiering";
const WEIGHTS: &str = "sys/kernel/mm/mempolicy/weighted_interleave";

/// Where memory can lie on the host whose files are below a folder. A kernel without NUMA has no nodes.
pub fn layout(root: &Path) -> Layout {
    let set = |path: &str| -> NodeSet {
        let text = text(root, path).unwrap_or_default();
        text.parse().unwrap_or_default()
    };
    let online = set(&format!("{NODES}/online"));
    let with_cpus = set(&format!("{NODES}/has_cpu"));
    // On a host with one node nothing of the rest is ever used.
    let many = online.len() > 1;
    let tiers = if many { tiers(root) } else { BTreeMap::new() };
    let movable = if many {
        movable_only(&text(root, "proc/zoneinfo").unwrap_or_default())
    } else {
        BTreeSet::new()
    };
    let node = |number: u32| {
        let file = |name: &str| text(root, &format!("{NODES}/node{number}/{name}"));
        let distances = file("distance").unwrap_or_default();
        let distances = distances.split_whitespace().map(str::parse);
        Node {
            number,
            has_cpus: with_cpus.contains(number),
            memory: total(&file("meminfo").unwrap_or_default()),
            movable_only: movable.contains(&number),
            tier: tiers.get(&number).copied(),
            // In the order of the nodes that are online.
            distances: online
                .iter()
                .zip(distances)
                .filter_map(|(node, distance)| Some((node, distance.ok()?)))
                .collect(),
            access: access(root, number),
        }
    };
    Layout {
        nodes: online.iter().map(node).collect(),
        weights: weights(root),
    }
}

/// The weights of the host.
pub(in crate::kernel) fn weights(root: &Path) -> Option<Weights> {
    if !root.join(WEIGHTS).is_dir() {
        return None;
    }
    let nodes = named(&root.join(WEIGHTS), "node").into_iter();
    Some(Weights {
        nodes: nodes
            .filter_map(|node| {
                let weight = text(root, &format!("{WEIGHTS}/node{node}"))?;
                Some((node, weight.parse().ok()?))
            })
            .collect(),
        auto: text(root, &format!("{WEIGHTS}/auto")).map(|text| is_on(&text)),
    })
}

/// The line `Node 0 MemTotal:  2032364 kB`.
fn total(meminfo: &str) -> Bytes {
    let kilobytes = meminfo.lines().find_map(|line| {
        let (_, amount) = line.split_once("MemTotal:")?;
        amount.split_whitespace().next()?.parse::<u64>().ok()
    });
    Bytes::new(kilobytes.unwrap_or(0).saturating_mul(1024))
}

/// The number of the tier of each node.
fn tiers(root: &Path) -> BTreeMap<u32, u32> {
    let mut found = BTreeMap::new();
    for tier in named(&root.join(TIERS), "memory_tier") {
        let list = text(root, &format!("{TIERS}/memory_tier{tier}/nodelist")).unwrap_or_default();
        let nodes: NodeSet = list.parse().unwrap_or_default();
        found.extend(nodes.iter().map(|node| (node, tier)));
    }
    found
}

/// The nodes that manage pages in zone Movable and in no other (`/proc/zoneinfo`).
fn movable_only(zoneinfo: &str) -> BTreeSet<u32> {
    let (mut movable, mut other) = (BTreeSet::new(), BTreeSet::new());
    let mut at = None;
    for line in zoneinfo.lines() {
        if let Some((node, zone)) = line
            .strip_prefix("Node ")
            .and_then(|rest| rest.split_once(", zone"))
        {
            at = node.parse::<u32>().ok().map(|node| (node, zone.trim()));
        } else if let Some((node, zone)) = at
            && let Some(pages) = line.trim().strip_prefix("managed")
            && pages.trim().parse().is_ok_and(|pages: u64| pages > 0)
        {
            match zone {
                "Movable" => movable.insert(node),
                _ => other.insert(node),
            };
        }
    }
    movable.difference(&other).copied().collect()
}

fn access(root: &Path, node: u32) -> Option<Access> {
    let number = |name: &str| {
        text(
            root,
            &format!("{NODES}/node{node}/access0/initiators/{name}"),
        )?
        .parse()
        .ok()
    };
    let access = Access {
        read_latency_ns: number("read_latency"),
        write_latency_ns: number("write_latency"),
        read_bandwidth_mbps: number("read_bandwidth"),
        write_bandwidth_mbps: number("write_bandwidth"),
    };
    (access != Access::default()).then_some(access)
}
