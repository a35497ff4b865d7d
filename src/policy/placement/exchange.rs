//! At a ratio that is held, hot pages may lie remote and cold ones local. Exchanging them leaves the ratio as it is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use super::heat::Warmth;
use super::life::Requests;
use super::{Goal, HYSTERESIS, Move, Unit};
use crate::model::placement::LocalRatio;

/// Fewer pages are not worth a call that moves them (`sampler::placing`).
const LEAST_PAGES: u64 = 64;

/// How many pages of a container are local, and how many remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lie {
    /// Local ones.
    pub near: u64,
    /// Remote ones.
    pub far: u64,
}

impl Lie {
    /// So many pages may be out, or in, before as many come in, or go out: then the ratio stays within the hysteresis.
    pub fn most_at_once(self) -> u64 {
        let whole = self.near.saturating_add(self.far);
        whole.saturating_mul(u64::from(HYSTERESIS)) / u64::from(LocalRatio::WHOLE)
    }
}

/// Whether a unit may be exchanged: a remote one that at least two of the last requests have touched is hot, a local one
/// that none of them has is cold. No unit is both, so that nothing goes back and forth.
pub fn is_candidate(unit: &Unit, goal: &Goal<'_>, requests: &Requests) -> bool {
    let Some(heat) = goal.heat else { return false };
    let recent = requests.recent();
    match goal.local.contains(unit.node) {
        true => heat.of(unit) < Warmth::Since(recent),
        false => goal.remote.contains(unit.node) && heat.is_touched_again(unit, recent),
    }
}

/// The moves by which cold local pages change places with as many hot remote ones, hottest in and coldest out first. None
/// where too little is known or gained. They are to be made in this order: in between, the ratio stays within the
/// hysteresis, as far as units are no larger than that.
pub fn exchange(units: &[Unit], goal: &Goal<'_>, requests: &Requests, lie: Lie) -> Vec<Move> {
    let Some(heat) = goal.heat.filter(|_| requests.is_settled()) else {
        return Vec::new();
    };
    let (mut cold, mut hot): (Vec<Unit>, Vec<Unit>) = units
        .iter()
        .filter(|unit| unit.pages > 0 && is_candidate(unit, goal, requests))
        .partition(|unit| goal.local.contains(unit.node));
    cold.sort_by_cached_key(|unit| (heat.of(unit), unit.process, unit.page));
    hot.sort_by_cached_key(|unit| (Reverse(heat.of(unit)), unit.process, unit.page));
    let swaps = swaps(hot, cold);
    if swaps.iter().map(Swap::pages).sum::<u64>() < LEAST_PAGES {
        return Vec::new();
    }
    let wanted = goal.target.share(lie.near.saturating_add(lie.far));
    let is_out_first = lie.near >= wanted;
    let most = lie.most_at_once();
    let mut moves = Vec::new();
    let (mut out, mut back, mut pages) = (Vec::new(), Vec::new(), 0);
    let mut flush = |out: &mut Vec<Move>, back: &mut Vec<Move>| {
        // A call has pages of one process and goes to one node.
        for half in [&mut *out, &mut *back] {
            half.sort_by_key(|found| (found.unit.process, found.to));
        }
        match is_out_first {
            true => moves.extend(out.drain(..).chain(back.drain(..))),
            false => moves.extend(back.drain(..).chain(out.drain(..))),
        }
    };
    for swap in swaps {
        if pages > 0 && pages + swap.pages() > most {
            flush(&mut out, &mut back);
            pages = 0;
        }
        pages += swap.pages();
        // Each takes the place of the other, so that every node has as much as before.
        let (Some(far), Some(near)) = (swap.hot.first(), swap.cold.first()) else {
            continue;
        };
        let (far, near) = (far.node, near.node);
        out.extend(swap.cold.into_iter().map(|unit| Move { unit, to: far }));
        back.extend(swap.hot.into_iter().map(|unit| Move { unit, to: near }));
    }
    flush(&mut out, &mut back);
    moves
}

/// Units that change places: as many pages of each.
struct Swap {
    hot: Vec<Unit>,
    cold: Vec<Unit>,
}

impl Swap {
    fn pages(&self) -> u64 {
        self.hot.iter().map(|unit| u64::from(unit.pages)).sum()
    }
}

/// Units of the same size change places; else a huge page and as many single ones.
fn swaps(hot: Vec<Unit>, cold: Vec<Unit>) -> Vec<Swap> {
    let mut left: BTreeMap<u32, VecDeque<Unit>> = BTreeMap::new();
    for unit in cold {
        left.entry(unit.pages).or_default().push_back(unit);
    }
    let mut take = |pages: u32, count: u32| -> Option<Vec<Unit>> {
        let count = usize::try_from(count).ok()?;
        let queue = left.get_mut(&pages)?;
        (queue.len() >= count).then(|| queue.drain(..count).collect())
    };
    let mut found = Vec::new();
    let mut singles = VecDeque::new();
    for unit in hot {
        let others = take(unit.pages, 1).or_else(|| take(1, unit.pages));
        match others {
            Some(cold) => found.push(Swap {
                hot: vec![unit],
                cold,
            }),
            None if unit.pages == 1 => singles.push_back(unit),
            None => {}
        }
    }
    for unit in left.into_values().flatten() {
        match usize::try_from(unit.pages) {
            Ok(pages) if pages <= singles.len() => found.push(Swap {
                hot: singles.drain(..pages).collect(),
                cold: vec![unit],
            }),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Heat, Span};
    use super::*;
    use crate::model::nodes::{NodeSet, Weights};

    const LOCAL: &str = "0";
    const REMOTE: &str = "1-2";

    /// What six requests have touched of this many pages.
    fn seen(pages: u64, touched: &[(u64, u64, u32)]) -> (Heat, Requests) {
        let (mut heat, mut requests) = (Heat::default(), Requests::default());
        for request in 1..=6 {
            let is_touched = |page: u64| {
                let of_it = touched.iter().filter(|(_, _, by)| *by == request);
                let mut spans = of_it.map(|(first, length, _)| *first..first + length);
                spans.any(|span| span.contains(&page))
            };
            let spans: Vec<(Span, bool)> = (0..pages)
                .map(|page| {
                    let span = Span {
                        process: 1,
                        first: page,
                        end: page + 1,
                    };
                    (span, is_touched(page))
                })
                .collect();
            heat.learn(request, &spans);
            requests.add(heat.pages(0).0);
        }
        (heat, requests)
    }

    fn lie(units: &[Unit], local: &NodeSet) -> Lie {
        let near = |unit: &&Unit| local.contains(unit.node);
        let pages = |unit: &Unit| u64::from(unit.pages);
        let near: u64 = units.iter().filter(near).map(pages).sum();
        Lie {
            near,
            far: units.iter().map(pages).sum::<u64>() - near,
        }
    }

    fn made(units: &mut [Unit], one: &Move) {
        let at = units.iter().position(|unit| *unit == one.unit).unwrap();
        units[at].node = one.to;
    }

    fn singles(nodes: &[u32]) -> Vec<Unit> {
        let unit = |(page, node): (u64, &u32)| Unit {
            process: 1,
            page,
            pages: 1,
            node: *node,
        };
        (0..).zip(nodes).map(unit).collect()
    }

    #[test]
    fn what_requests_touch_comes_in_for_what_none_touches() {
        let (local, remote): (NodeSet, NodeSet) = ("0".parse().unwrap(), "1".parse().unwrap());
        let weights = Weights::default();
        // Every other page is remote; all requests touch the first hundred, one touched some more.
        let nodes: Vec<u32> = (0..400).map(|page| page % 2).collect();
        let mut units = singles(&nodes);
        let hot: Vec<_> = (1..=6).map(|by| (0, 100, by)).collect();
        let with = |more: &[(u64, u64, u32)]| seen(400, &[&hot, more].concat());
        let exchanged = |units: &[Unit], (heat, requests): &(Heat, Requests)| {
            let goal = Goal {
                target: LocalRatio::of(1, 1).unwrap(),
                local: &local,
                remote: &remote,
                weights: &weights,
                heat: Some(heat),
            };
            exchange(units, &goal, requests, lie(units, &local))
        };
        let once = with(&[(100, 60, 6)]);
        assert_eq!(exchanged(&units, &once), [], "50 pages are not worth it");
        let twice = with(&[(100, 60, 5), (100, 60, 6)]);
        let moves = exchanged(&units, &twice);
        assert_eq!(moves.len(), 160);
        let came = moves.iter().filter(|found| found.to == 0);
        assert!(came.clone().all(|found| found.unit.page < 160));
        let went = moves.iter().filter(|found| found.to == 1);
        assert_eq!(went.clone().count(), came.count());
        assert!(went.map(|found| found.unit.page).all(|page| page >= 160));
        moves.iter().for_each(|found| made(&mut units, found));
        assert_eq!(exchanged(&units, &twice), [], "nothing is gained any more");
        // Of a page that nobody knows neither.
        let beyond: Vec<Unit> = units
            .iter()
            .map(|unit| Unit {
                page: unit.page + 1000,
                ..*unit
            })
            .collect();
        assert_eq!(exchanged(&beyond, &twice), []);
        let two = (twice.0.clone(), Requests::default());
        assert_eq!(exchanged(&singles(&nodes), &two), [], "too few requests");
    }

    #[test]
    fn a_huge_page_changes_places_with_as_many_single_ones() {
        let (local, remote): (NodeSet, NodeSet) = ("0".parse().unwrap(), "1".parse().unwrap());
        let weights = Weights::default();
        let all: Vec<_> = (1..=6).map(|by| (0, 512, by)).collect();
        let (heat, requests) = seen(1024, &all);
        let goal = Goal {
            target: LocalRatio::of(1, 1).unwrap(),
            local: &local,
            remote: &remote,
            weights: &weights,
            heat: Some(&heat),
        };
        let huge = |page, node| Unit {
            process: 1,
            page,
            pages: 512,
            node,
        };
        let single = |page, node| Unit {
            process: 1,
            page,
            pages: 1,
            node,
        };
        let few: Vec<Unit> = (512..1000).map(|page| single(page, 0)).collect();
        let enough: Vec<Unit> = (512..1024).map(|page| single(page, 0)).collect();
        let hot: Vec<Unit> = (0..512).map(|page| single(page, 1)).collect();
        for (units, wanted) in [
            ([vec![huge(0, 1)], few].concat(), 0),
            ([vec![huge(0, 1)], enough].concat(), 513),
            ([hot.clone(), vec![huge(512, 0)]].concat(), 513),
            ([hot[1..].to_vec(), vec![huge(512, 0)]].concat(), 0),
            (vec![huge(0, 1), huge(512, 0)], 2),
        ] {
            let moves = exchange(&units, &goal, &requests, lie(&units, &local));
            assert_eq!(moves.len(), wanted, "{units:?}");
        }
    }

    proptest! {
        #[test]
        fn exchanging_keeps_the_ratio_gains_and_ends(
            nodes in prop::collection::vec(0_u32..3, 100..500),
            touched in prop::collection::vec((0_u64..500, 1_u64..200, 1_u32..=6), 0..12),
            parts in 0_u16..=10_000,
        ) {
            let (local, remote): (NodeSet, NodeSet) =
                (LOCAL.parse().unwrap(), REMOTE.parse().unwrap());
            let weights = Weights::default();
            let mut units = singles(&nodes);
            let (heat, requests) = seen(450, &touched);
            let goal = Goal {
                target: LocalRatio::of(u64::from(parts), u64::from(10_000 - parts)).unwrap(),
                local: &local,
                remote: &remote,
                weights: &weights,
                heat: Some(&heat),
            };
            let before = lie(&units, &local);
            let wanted = goal.target.share(before.near + before.far);
            let room = before.most_at_once();
            let on = |units: &[Unit], node| units.iter().filter(|unit| unit.node == node).count();
            let shares = [0, 1, 2].map(|node| on(&units, node));
            let found = exchange(&units, &goal, &requests, before);
            let mut turned = units.clone();
            turned.reverse();
            prop_assert_eq!(exchange(&turned, &goal, &requests, before), found.clone());
            let is_hot = |unit: &Unit| heat.is_touched_again(unit, requests.recent());
            let hot_near = |units: &[Unit]| {
                units.iter().filter(|unit| unit.node == 0 && is_hot(unit)).count()
            };
            let hot_then = hot_near(&units);
            for one in &found {
                prop_assert_eq!(is_hot(&one.unit), one.to == 0, "hot ones in, others out");
                if one.to != 0 {
                    prop_assert!(heat.of(&one.unit) < Warmth::Since(requests.recent()));
                }
                made(&mut units, one);
                let now = lie(&units, &local).near;
                prop_assert!(
                    now.abs_diff(wanted) <= before.near.abs_diff(wanted).max(room),
                    "{} wanted, {} then, {} now", wanted, before.near, now
                );
            }
            prop_assert_eq!([0, 1, 2].map(|node| on(&units, node)), shares);
            prop_assert_eq!(hot_near(&units) - hot_then, found.len() / 2, "each pair gains");
            prop_assert_eq!(exchange(&units, &goal, &requests, before), vec![]);
        }
    }
}
