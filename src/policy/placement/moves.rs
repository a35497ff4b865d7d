//! The fewest pages to move so that a local ratio is reached.

use std::cmp::Reverse;

use super::heat::{Heat, Warmth};
use crate::model::nodes::{NodeSet, Weights};
use crate::model::placement::LocalRatio;

/// Pages that can only be moved together: one, or those of a huge page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unit {
    /// Whose they are.
    pub process: i32,
    /// The number of the first page: its address divided by the size of a page.
    pub page: u64,
    /// How many they are.
    pub pages: u32,
    /// Where they lie.
    pub node: u32,
}

/// A unit that goes elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Move {
    /// The unit.
    pub unit: Unit,
    /// The node that it goes to.
    pub to: u32,
}

/// What is to be reached.
#[derive(Debug, Clone, Copy)]
pub struct Goal<'a> {
    /// The local ratio.
    pub target: LocalRatio,
    /// Local nodes.
    pub local: &'a NodeSet,
    /// Remote nodes.
    pub remote: &'a NodeSet,
    /// By which the kernel would have dealt out the pages.
    pub weights: &'a Weights,
    /// Which pages are touched, where that is known: then the coldest go out and the hottest come in first.
    pub heat: Option<&'a Heat>,
}

impl Goal<'_> {
    /// The node of a page by the rule of weighted interleaving: the number of the page, modulo the sum of the weights,
    /// falls into the share of one node (mm/mempolicy.c, `weighted_interleave_nid`).
    fn rule(&self, unit: &Unit) -> Option<u32> {
        let nodes = self.local.and(self.remote);
        let sum: u64 = nodes
            .iter()
            .map(|node| u64::from(self.weights.of(node)))
            .sum();
        // Huge pages are dealt out whole.
        let number = unit.page.checked_div(u64::from(unit.pages))?;
        let mut at = number.checked_rem(sum)?;
        for node in nodes.iter() {
            let weight = u64::from(self.weights.of(node));
            if at < weight {
                return Some(node);
            }
            at -= weight;
        }
        None
    }
}

/// The moves by which units come as close to the goal as they can, with as few pages as that takes: all in one
/// direction, first the coldest out or the hottest in, and of those that are alike first those that the rule of weighted
/// interleaving would have put there. The same units give the same moves, in whatever order they come.
pub fn moves(units: &[Unit], goal: &Goal<'_>) -> Vec<Move> {
    let held = |nodes: &NodeSet| -> u64 {
        let here = units.iter().filter(|unit| nodes.contains(unit.node));
        here.map(|unit| u64::from(unit.pages)).sum()
    };
    let (near, far) = (held(goal.local), held(goal.remote));
    let wanted = goal.target.share(near + far);
    match near.checked_sub(wanted) {
        Some(surplus) => outward(units, goal, surplus),
        None => chosen(units, goal, (goal.remote, goal.local), wanted - near),
    }
}

/// The moves by which so many pages go out, or almost as many.
pub(super) fn outward(units: &[Unit], goal: &Goal<'_>, pages: u64) -> Vec<Move> {
    chosen(units, goal, (goal.local, goal.remote), pages)
}

/// The moves by which so many pages come in, or almost as many.
pub(super) fn inward(units: &[Unit], goal: &Goal<'_>, pages: u64) -> Vec<Move> {
    chosen(units, goal, (goal.remote, goal.local), pages)
}

fn chosen(
    units: &[Unit],
    goal: &Goal<'_>,
    (from, to): (&NodeSet, &NodeSet),
    mut left: u64,
) -> Vec<Move> {
    let places: Vec<u32> = to.iter().collect();
    let is_out = to == goal.remote;
    // What nobody knows is taken for warm when it would go, and for cool when it would come.
    let order = |unit: &Unit| match (goal.heat.map(|heat| heat.of(unit)), is_out) {
        (None, _) => (None, None),
        (Some(warmth), true) => (Some(warmth), None),
        (Some(Warmth::Unknown), false) => (None, Some(Reverse(Warmth::Since(0)))),
        (Some(warmth), false) => (None, Some(Reverse(warmth))),
    };
    let mut candidates: Vec<_> = units
        .iter()
        .filter(|unit| unit.pages > 0 && from.contains(unit.node))
        .filter_map(|unit| {
            let ruled = goal.rule(unit).filter(|node| to.contains(*node));
            let count = u64::try_from(places.len()).ok()?;
            let turn = usize::try_from(unit.page.checked_rem(count)?).ok()?;
            let node = ruled.or_else(|| places.get(turn).copied())?;
            Some((order(unit), ruled.is_none(), *unit, node))
        })
        .collect();
    // The largest first: what is left is for the small ones.
    candidates.sort_unstable_by_key(|(order, against, unit, _)| {
        (
            *order,
            *against,
            Reverse(unit.pages),
            unit.process,
            unit.page,
        )
    });
    let mut chosen = Vec::new();
    let mut smallest: Option<Move> = None;
    for (_, _, unit, to) in candidates {
        if left == 0 {
            break;
        }
        let pages = u64::from(unit.pages);
        if pages <= left {
            left -= pages;
            chosen.push(Move { unit, to });
        } else if smallest.is_none_or(|found| unit.pages < found.unit.pages) {
            smallest = Some(Move { unit, to });
        }
    }
    // One too many, if that is closer than one too few.
    chosen.extend(smallest.filter(|found| left > 0 && u64::from(found.unit.pages) < 2 * left));
    chosen
}
