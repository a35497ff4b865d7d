//! Interleave weights, and parts of the remote nodes.

use std::fmt::Write;

use crate::model::nodes::{NodeSet, Weights};
use crate::model::placement::LocalRatio;

/// So close is good enough for small weights; larger ones make a longer period, which small containers do not fill.
const CLOSE: u16 = 50;
/// More remote nodes are not combined: there are too many combinations.
const MOST_COMBINED: usize = 8;
/// The kernel's largest weight.
const LARGEST: u64 = 255;

/// The remote nodes with which the weights come next to a ratio, and the ratio that they give. Of several that are as
/// close, the most nodes.
pub(super) fn subset(
    wanted: LocalRatio,
    local: &NodeSet,
    remote: &NodeSet,
    weights: &Weights,
) -> (NodeSet, LocalRatio) {
    let of = |nodes: &NodeSet| {
        let sum: u64 = nodes.iter().map(|node| u64::from(weights.of(node))).sum();
        LocalRatio::of(total(local, weights), sum).unwrap_or(LocalRatio::LOCAL)
    };
    let nodes: Vec<u32> = remote.iter().take(MOST_COMBINED).collect();
    let mut best = (remote.clone(), of(remote));
    for chosen in 1_u32..1 << nodes.len() {
        let part: NodeSet = nodes
            .iter()
            .enumerate()
            .filter(|(at, _)| chosen >> at & 1 == 1)
            .map(|(_, node)| *node)
            .collect();
        let ratio = of(&part);
        let distance = ratio.distance(wanted);
        let now = best.1.distance(wanted);
        if distance < now || (distance == now && part.len() > best.0.len()) {
            best = (part, ratio);
        }
    }
    best
}

fn total(nodes: &NodeSet, weights: &Weights) -> u64 {
    nodes.iter().map(|node| u64::from(weights.of(node))).sum()
}

/// Weights that give a ratio with all nodes, and the ratio that they give; none where none come near it. Of several
/// remote nodes each weighs twice as much as the one before, so that parts of them give other ratios.
pub fn designed(
    wanted: LocalRatio,
    local: &NodeSet,
    remote: &NodeSet,
) -> Option<(Weights, LocalRatio)> {
    let near = u64::try_from(local.len()).ok().filter(|near| *near > 0)?;
    let far = remote.len();
    if far == 0 || far > MOST_COMBINED {
        return None;
    }
    let units = (1_u64 << far) - 1;
    let (share, rest) = (
        u64::from(wanted.parts()),
        u64::from(LocalRatio::WHOLE - wanted.parts()),
    );
    let mut best: Option<(u64, u64, LocalRatio)> = None;
    for step in 1..=LARGEST {
        let sum = step * units;
        // The weight of each local node, rounded.
        let each = (share * sum + rest * near / 2)
            .checked_div(rest * near)?
            .clamp(1, LARGEST);
        let largest = step << (far - 1);
        if largest > LARGEST {
            continue;
        }
        let ratio = LocalRatio::of(each * near, sum)?;
        let distance = ratio.distance(wanted);
        if best.is_none_or(|(_, _, found)| distance < found.distance(wanted)) {
            best = Some((each, step, ratio));
        }
        if distance <= CLOSE {
            break;
        }
    }
    let (each, step, ratio) = best?;
    let weight = |weight: u64| u8::try_from(weight).ok();
    let near = local.iter().map(|node| Some((node, weight(each)?)));
    let far = remote
        .iter()
        .enumerate()
        .map(|(at, node)| Some((node, weight(step << at)?)));
    Some((
        Weights {
            nodes: near.chain(far).collect::<Option<_>>()?,
            auto: None,
        },
        ratio,
    ))
}

/// As `0:3 1:1`.
pub(super) fn shown(weights: &Weights, nodes: &NodeSet) -> String {
    let mut text = String::new();
    for node in nodes.iter() {
        // Writing to a string does not fail.
        let _ = write!(text, "{node}:{} ", weights.of(node));
    }
    text.trim_end().to_owned()
}
