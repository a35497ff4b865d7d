//! What becomes of the memory of a container in the phases of its life: what its initialization alone needed goes remote
//! (Xu et al., FaaSMem, ASPLOS 2024), of that no more than earlier runs did not touch (Li et al., Pond, ASPLOS 2023), an
//! idle container gives up more in steps, and what requests touch comes back: for a request that is expected
//! ([`arrivals`](super::arrivals)) before it comes.

use std::time::Duration;

use super::arrivals::Arrival;
use super::{Goal, Heat, Move, Unit, Warmth, moves};
use crate::model::Bytes;
use crate::model::duration::text;
use crate::model::placement::{LifeCycle, LocalRatio};
use crate::model::trace::Phase;

/// An idle container gives up one more step each time that this has passed.
pub const STEP_EVERY: Duration = Duration::from_secs(10);
/// So many ten-thousandths of its memory are a step.
const STEP: u16 = 1_000;
/// What an idle container keeps local, however long it is idle.
const KEPT: Bytes = Bytes::new(8 << 20);
/// Before so many requests were seen nobody knows what requests touch: the first one has more to do than others.
const LEAST_REQUESTS: u32 = 2;
/// After so many it is known, though they may touch ever more.
const MOST_REQUESTS: u32 = 5;
/// A request that touched no more than this share of pages that none before it had tells that the others will not either.
const GROWTH_SHARE: u64 = 16;
/// What was touched by one of the last so many requests is local for the next one.
pub const RECENT: u32 = 4;
/// Of fewer rests nobody knows how long they are.
pub(super) const LEAST_RESTS: usize = 5;
/// However short its rests were, a container is not idle before this.
const LEAST_REUSE: Duration = Duration::from_secs(1);
/// What a request leaves to be done is done then: what it touches goes out, if the next one is expected later.
const AFTER_REQUEST: Duration = Duration::from_secs(2);

/// What is known of the requests of a container by which memory goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// How many were seen.
    pub count: u32,
    /// Pages that they have touched.
    pub touched: u64,
    /// Of these, pages that the last one was the first to touch.
    pub fresh: u64,
}

impl Requests {
    /// One more, after which so many pages are known to be touched.
    pub fn add(&mut self, touched: u64) {
        self.count = self.count.saturating_add(1);
        self.fresh = touched.saturating_sub(self.touched);
        self.touched = touched;
    }

    /// The first of the last four.
    pub fn recent(&self) -> u32 {
        self.count.saturating_sub(RECENT - 1).max(1)
    }

    /// Whether what requests touch is known.
    pub fn is_settled(&self) -> bool {
        let grows = self.fresh > self.touched / GROWTH_SHARE;
        self.count >= MOST_REQUESTS || (self.count >= LEAST_REQUESTS && !grows)
    }
}

/// How long a container can be idle before it is likely that it stays so: 99 of 100 of its rests were shorter. None where
/// too few were seen.
pub fn reuse(rests: &[Duration]) -> Option<Duration> {
    if rests.len() < LEAST_RESTS {
        return None;
    }
    let mut sorted = rests.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * 99).div_ceil(100);
    let rest = sorted.get(rank.checked_sub(1)?)?;
    Some((*rest).max(LEAST_REUSE))
}

/// A container as its life is decided by.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What is to be done.
    pub cycle: &'a LifeCycle,
    /// What it does.
    pub phase: Phase,
    /// For how long.
    pub since: Duration,
    /// What its requests have told.
    pub requests: &'a Requests,
    /// For how long it rests since the last request, if there was one.
    pub rested: Option<Duration>,
    /// When the next one is expected, if it is.
    pub arrival: Option<&'a Arrival>,
    /// After how long it is likely to stay idle.
    pub reuse: Option<Duration>,
    /// Its anonymous memory.
    pub size: Bytes,
}

/// Memory that is to go elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// What was touched by this request or a later one comes back, and what nobody knows.
    pub back: Option<u32>,
    /// What goes out until no more than this is local, and how warm it may be. If something comes back, no less will be.
    pub out: Option<(LocalRatio, Warmth)>,
}

/// What is to be done now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Nothing, if that is empty.
    pub wish: Wish,
    /// The steps that an idle container has taken.
    pub step: u16,
    /// Whether what requests touch is out until the next one is expected.
    pub is_away: bool,
    /// Why.
    pub because: String,
}

/// What is to be done with the memory of a container. The same view gives the same decision.
pub fn decide(view: &View<'_>) -> Decision {
    let requests = view.requests;
    let nothing = |because: &str| Decision {
        wish: Wish::default(),
        step: 0,
        is_away: false,
        because: because.to_owned(),
    };
    let recent = requests.recent();
    let back = (requests.count > 0).then_some(recent);
    match view.phase {
        Phase::Init => nothing("it is being initialized: everything stays where it is"),
        Phase::Exit => nothing("it ends"),
        Phase::Execution => Decision {
            wish: Wish {
                back: Some(recent),
                out: None,
            },
            step: 0,
            is_away: false,
            because: match back {
                Some(_) => format!("it works: what its last {RECENT} requests touched is local"),
                None => "it works: what requests touch is not known yet".to_owned(),
            },
        },
        Phase::KeepAlive => idle(view, recent, back),
    }
}

/// What an idle container keeps.
fn kept(size: Bytes) -> LocalRatio {
    let kept = LocalRatio::of(KEPT.get(), size.saturating_sub(KEPT).get());
    kept.unwrap_or(LocalRatio::LOCAL)
}

fn idle(view: &View<'_>, recent: u32, back: Option<u32>) -> Decision {
    let (cycle, requests) = (view.cycle, view.requests);
    let after = cycle
        .semi_warm_after
        .map(|wanted| view.reuse.unwrap_or(wanted));
    if let Some((after, idle)) =
        after.and_then(|after| Some((after, view.since.checked_sub(after)?)))
    {
        let ripe = idle.as_secs() / STEP_EVERY.as_secs().max(1);
        let most = LocalRatio::WHOLE / STEP;
        let step = u16::try_from(ripe)
            .unwrap_or(most)
            .saturating_add(1)
            .min(most);
        let left = LocalRatio::of(
            u64::from(LocalRatio::WHOLE - step * STEP),
            u64::from(step * STEP),
        );
        let keep = left.map_or(LocalRatio::LOCAL, |left| left.max(kept(view.size)));
        return Decision {
            wish: Wish {
                back: None,
                out: Some((keep, Warmth::Unknown)),
            },
            step,
            is_away: false,
            because: format!(
                "semi-warm: idle for longer than {}, {}",
                text(match view.reuse {
                    // To the second is close enough.
                    Some(_) => Duration::from_secs(after.as_secs()),
                    None => after,
                }),
                match view.reuse {
                    Some(_) => "as 99 of 100 of its rests were not",
                    None => "placement.semi-warm-after",
                }
            ),
        };
    }
    if !requests.is_settled() {
        return Decision {
            wish: Wish { back, out: None },
            step: 0,
            is_away: false,
            because: match requests.count {
                0 => "initialized: what requests touch is seen after the first ones".to_owned(),
                count => format!("{count} requests seen: the next ones may touch something else"),
            },
        };
    }
    let rested = view.rested.filter(|rested| *rested >= AFTER_REQUEST);
    let expected = view.arrival.zip(rested);
    if let Some((arrival, _)) = expected.filter(|(arrival, rested)| *rested < arrival.back) {
        return Decision {
            wish: Wish {
                back: None,
                out: Some((kept(view.size), Warmth::Unknown)),
            },
            step: 0,
            is_away: true,
            because: format!(
                "no request is expected for {}: what they touch is remote until {} of that have passed",
                text(arrival.head),
                text(arrival.back)
            ),
        };
    }
    let count = requests.count;
    let (cold, because) = match cycle.least {
        // Nothing that was ever touched.
        least if least > LocalRatio::REMOTE => (
            Warmth::Never,
            format!(
                "what none of {count} requests has touched is remote, as long as {least} is local, \
                 for that earlier runs touched"
            ),
        ),
        _ => (
            recent
                .checked_sub(1)
                .filter(|old| *old > 0)
                .map_or(Warmth::Never, Warmth::Since),
            format!(
                "what none of the last {} requests has touched is remote",
                count.min(RECENT)
            ),
        ),
    };
    let because = match expected {
        Some((arrival, _)) => format!(
            "a request is expected {} after the last one; {because}",
            text(arrival.head)
        ),
        None => because,
    };
    Decision {
        wish: Wish {
            back,
            out: Some((cycle.least, cold)),
        },
        step: 0,
        is_away: false,
        because,
    }
}

/// The moves of a wish: what is far and comes back, hottest first, then what is near and goes out, coldest first.
pub fn wished(units: &[Unit], goal: &Goal<'_>, heat: &Heat, wish: &Wish) -> Vec<Move> {
    let is_back = |unit: &Unit| {
        let since = wish.back.map(Warmth::Since);
        since.is_some_and(|since| heat.of(unit) >= since)
    };
    let far = |unit: &&Unit| goal.remote.contains(unit.node);
    let coming: Vec<Unit> = units
        .iter()
        .filter(far)
        .filter(|unit| is_back(unit))
        .copied()
        .collect();
    let inward = Goal {
        target: LocalRatio::LOCAL,
        heat: Some(heat),
        ..*goal
    };
    let mut chosen = moves(&coming, &inward);
    let Some((keep, warmest)) = wish.out else {
        return chosen;
    };
    // What comes back counts as near already.
    let whole: u64 = units
        .iter()
        .filter(|unit| goal.local.contains(unit.node) || goal.remote.contains(unit.node))
        .map(|unit| u64::from(unit.pages))
        .sum();
    let may_go = |unit: &&Unit| goal.local.contains(unit.node) && heat.of(unit) <= warmest;
    let going: Vec<Unit> = units.iter().filter(may_go).copied().collect();
    let pages = |units: &[Unit]| units.iter().map(|unit| u64::from(unit.pages)).sum::<u64>();
    let near: u64 = units
        .iter()
        .filter(|unit| goal.local.contains(unit.node))
        .map(|unit| u64::from(unit.pages))
        .sum::<u64>()
        + pages(&coming);
    let keep = keep.share(whole);
    if wish.back.is_some() && near < keep {
        let is_left = |unit: &&Unit| far(unit) && !is_back(unit);
        let left: Vec<Unit> = units.iter().filter(is_left).copied().collect();
        chosen.extend(super::moves::inward(&left, &inward, keep - near));
        return chosen;
    }
    let surplus = near.saturating_sub(keep);
    let outward = Goal {
        heat: Some(heat),
        ..*goal
    };
    chosen.extend(super::moves::outward(&going, &outward, surplus));
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Span;
    use super::*;
    use crate::model::nodes::{NodeSet, Weights};

    const SECOND: Duration = Duration::from_secs(1);

    fn cycle(least: LocalRatio, semi_warm_after: Option<u64>) -> LifeCycle {
        LifeCycle {
            least,
            semi_warm_after: semi_warm_after.map(Duration::from_secs),
        }
    }

    fn requests(pages: &[u64]) -> Requests {
        let mut requests = Requests::default();
        pages.iter().for_each(|pages| requests.add(*pages));
        requests
    }

    fn decided(phase: Phase, since: u64, seen: &Requests, reuse: Option<u64>) -> Decision {
        let view = View {
            cycle: &cycle(LocalRatio::REMOTE, Some(60)),
            phase,
            since: Duration::from_secs(since),
            requests: seen,
            rested: None,
            arrival: None,
            reuse: reuse.map(Duration::from_secs),
            size: Bytes::new(64 << 20),
        };
        let decision = decide(&view);
        assert_eq!(decide(&view), decision, "the same again");
        decision
    }

    #[test]
    fn what_requests_touch_is_known_once_they_touch_nothing_new() {
        assert!(!requests(&[]).is_settled());
        assert!(
            !requests(&[100]).is_settled(),
            "the first one does more than others"
        );
        assert!(!requests(&[100, 120]).is_settled());
        assert!(requests(&[100, 103]).is_settled());
        assert!(requests(&[100, 120, 121]).is_settled());
        assert!(
            requests(&[10, 20, 40, 80, 160]).is_settled(),
            "not for ever"
        );
    }

    #[test]
    fn nothing_goes_out_before_it_is_known_what_is_cold() {
        let none = Wish::default();
        assert_eq!(decided(Phase::Init, 900, &requests(&[]), None).wish, none);
        let first = decided(Phase::Execution, 0, &requests(&[]), None).wish;
        assert_eq!(first.back, Some(1), "what an idle one gave up comes back");
        assert_eq!(
            decided(Phase::KeepAlive, 5, &requests(&[]), None).wish,
            none
        );
        let one = decided(Phase::KeepAlive, 5, &requests(&[7]), None);
        assert_eq!(
            one.wish,
            Wish {
                back: Some(1),
                out: None
            }
        );
        let two = decided(Phase::KeepAlive, 5, &requests(&[7, 7]), None);
        assert_eq!(two.wish.out, Some((LocalRatio::REMOTE, Warmth::Never)));
        assert!(two.because.contains("last 2 requests"), "{}", two.because);
        // What was touched long ago is cold again.
        let many = decided(Phase::KeepAlive, 5, &requests(&[7; 9]), None);
        assert_eq!(many.wish.back, Some(6));
        assert_eq!(many.wish.out, Some((LocalRatio::REMOTE, Warmth::Since(5))));
        // A request that runs has what it needs, and nothing is taken from it.
        let busy = decided(Phase::Execution, 5, &requests(&[7; 9]), None);
        assert_eq!(
            busy.wish,
            Wish {
                back: Some(6),
                out: None
            }
        );
    }

    #[test]
    fn an_idle_container_gives_its_memory_up_in_steps_and_keeps_a_rest() {
        let keep = |since, reuse| {
            let found = decided(Phase::KeepAlive, since, &requests(&[7; 3]), reuse);
            let (keep, warmest) = found.wish.out.unwrap();
            (found.step, keep.parts(), warmest == Warmth::Unknown)
        };
        assert_eq!(keep(59, None).0, 0);
        assert_eq!(keep(60, None), (1, 9_000, true));
        assert_eq!(keep(69, None), (1, 9_000, true));
        assert_eq!(keep(70, None), (2, 8_000, true));
        assert_eq!(keep(145, None), (9, 1_250, true), "8 of 64 MiB");
        assert_eq!(keep(100_000, None), (10, 1_250, true));
        // Its own rests count before the setting.
        assert_eq!(keep(59, Some(50)).0, 1);
        assert_eq!(keep(69, Some(300)).0, 0);
        let why = decided(Phase::KeepAlive, 400, &requests(&[]), Some(300)).because;
        assert!(why.contains("5m") || why.contains("300s"), "{why}");
    }

    #[test]
    fn rests_are_known_after_some_of_them() {
        let rests: Vec<Duration> = (1..=200).map(Duration::from_secs).collect();
        assert_eq!(reuse(&rests[..4]), None);
        assert_eq!(reuse(&rests[..5]), Some(5 * SECOND));
        assert_eq!(reuse(&rests), Some(198 * SECOND));
        assert_eq!(reuse(&[Duration::ZERO; 9]), Some(SECOND));
    }

    #[test]
    fn what_requests_touch_is_out_until_the_next_one_is_expected() {
        let arrival = Arrival {
            head: 50 * SECOND,
            ready: 45 * SECOND,
            back: 40 * SECOND,
        };
        for (least, cold) in [("0", Warmth::Since(5)), ("0.7", Warmth::Never)] {
            let least: LocalRatio = least.parse().unwrap();
            let at = |seconds: u64, seen: &Requests| {
                decide(&View {
                    cycle: &cycle(least, Some(60)),
                    phase: Phase::KeepAlive,
                    // Something has run in between that was no request.
                    since: Duration::from_secs(seconds / 2),
                    requests: seen,
                    rested: Some(Duration::from_secs(seconds)),
                    arrival: Some(&arrival),
                    reuse: Some(55 * SECOND),
                    size: Bytes::new(64 << 20),
                })
            };
            let many = requests(&[7; 9]);
            let near = Wish {
                back: Some(6),
                out: Some((least, cold)),
            };
            assert_eq!(at(1, &many).wish, near);
            for seconds in [2, 39] {
                let away = at(seconds, &many);
                assert!(away.is_away && away.because.contains("50s"), "{away:?}");
                // 8 of 64 MiB stay.
                let kept = LocalRatio::of(1, 7).unwrap();
                assert_eq!(away.wish.out, Some((kept, Warmth::Unknown)));
                assert_eq!(away.wish.back, None);
            }
            let back = at(40, &many);
            assert_eq!((back.wish, back.is_away), (near, false));
            assert!(back.because.contains("expected 50s"), "{back:?}");
            assert_eq!(at(109, &many).step, 0);
            assert_eq!(at(110, &many).step, 1, "semi-warm, if none came");
            // Nobody knows what would have to come back.
            assert!(!at(10, &requests(&[7])).is_away);
        }
    }

    #[test]
    fn pond_keeps_what_earlier_runs_touched() {
        let least: LocalRatio = "0.7".parse().unwrap();
        let decision = decide(&View {
            cycle: &cycle(least, None),
            phase: Phase::KeepAlive,
            since: 90_000 * SECOND,
            requests: &requests(&[7; 3]),
            rested: None,
            arrival: None,
            reuse: Some(SECOND),
            size: Bytes::new(64 << 20),
        });
        assert_eq!(decision.wish.out, Some((least, Warmth::Never)), "for ever");
        assert!(
            decision.because.contains("0.7 is local"),
            "{}",
            decision.because
        );
    }

    proptest! {
        #[test]
        fn wishes_move_what_they_name_and_nothing_else(
            nodes in prop::collection::vec(0_u32..3, 1..120),
            touched in prop::collection::vec((0_u64..120, 1_u64..20, 1_u32..6), 0..8),
            known in 0_u64..120,
            keep in 0_u64..=10,
            back in prop::option::of(1_u32..6),
            warmest in prop::option::of(prop_oneof![
                Just(Warmth::Never), (1_u32..6).prop_map(Warmth::Since), Just(Warmth::Unknown)
            ]),
        ) {
            let (local, remote): (NodeSet, NodeSet) = ("0".parse().unwrap(), "1-2".parse().unwrap());
            let weights = Weights::default();
            let goal = Goal {
                target: LocalRatio::LOCAL, local: &local, remote: &remote, weights: &weights, heat: None,
            };
            let mut heat = Heat::default();
            for request in 1..6 {
                let mut at = 0;
                let mut seen = Vec::new();
                let mut of_it: Vec<_> = touched.iter().filter(|(_, _, by)| *by == request).collect();
                of_it.sort();
                for (first, length, _) in of_it {
                    let (first, end) = ((*first).max(at).min(known), (first + length).max(at).min(known));
                    seen.push((Span { process: 1, first: at, end: first }, false));
                    seen.push((Span { process: 1, first, end }, true));
                    at = end;
                }
                seen.push((Span { process: 1, first: at, end: known }, false));
                heat.learn(request, &seen);
            }
            let units: Vec<Unit> = (0..)
                .zip(&nodes)
                .map(|(page, node)| Unit { process: 1, page, pages: 1, node: *node })
                .collect();
            let keep = LocalRatio::of(keep, 10 - keep).unwrap();
            let wish = Wish { back, out: warmest.map(|warmest| (keep, warmest)) };
            let moved = wished(&units, &goal, &heat, &wish);
            let inward: Vec<_> = moved.iter().filter(|found| found.to == 0).collect();
            let outward: Vec<_> = moved.iter().filter(|found| found.to != 0).collect();
            // All that is to come back does, the hottest first, and what more is to be local, and nothing else.
            let wanted = units.iter().filter(|unit| {
                unit.node != 0 && back.is_some_and(|since| heat.of(unit) >= Warmth::Since(since))
            });
            let (wanted, mut more) = (wanted.count(), 0);
            if back.is_some() && warmest.is_some() {
                let near = units.iter().filter(|unit| unit.node == 0).count() + wanted;
                let keep = usize::try_from(keep.share(units.len() as u64)).unwrap();
                more = keep.saturating_sub(near);
            }
            prop_assert_eq!(inward.len(), wanted + more);
            let key = |unit: &Unit| match heat.of(unit) {
                Warmth::Unknown => Warmth::Never,
                warmth => warmth,
            };
            for part in [&inward[..wanted], &inward[wanted..]] {
                let is_sorted = part.is_sorted_by_key(|found| std::cmp::Reverse(key(&found.unit)));
                prop_assert!(is_sorted);
            }
            // No more goes out than may, nothing warmer, and nothing warmer than what stays.
            let near = units.iter().filter(|unit| unit.node == 0).count() + inward.len();
            let most = near.saturating_sub(usize::try_from(keep.share(units.len() as u64)).unwrap());
            prop_assert!(outward.len() <= most);
            if let Some(warmest) = warmest {
                let may: Vec<_> = units.iter()
                    .filter(|unit| unit.node == 0 && heat.of(unit) <= warmest)
                    .collect();
                prop_assert_eq!(outward.len(), most.min(may.len()));
                let hottest_out = outward.iter().map(|found| heat.of(&found.unit)).max();
                let coldest_left = may.iter()
                    .filter(|unit| outward.iter().all(|found| found.unit != ***unit))
                    .map(|unit| heat.of(unit))
                    .min();
                if let Some((out, left)) = hottest_out.zip(coldest_left) {
                    prop_assert!(out <= left);
                }
            } else {
                prop_assert!(outward.is_empty());
            }
        }
    }
}
