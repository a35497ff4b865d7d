//! Exchanges cold local pages for hot remote ones at a ratio that is held (`policy::placement::exchange`).

use std::time::Duration;

use super::{LATER, LOOK, MOST_PAGES, Task};
use crate::kernel::pages;
use crate::model::placement::LocalRatio;
use crate::policy::placement::{Goal, Lie, Unit, exchange, is_candidate};

/// The exchange of one container.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// For how many requests it was looked for last: until more are known it is not again.
    done: u32,
    /// Units that may be exchanged, of the parts of its memory that were looked for; none where it is not looked for.
    found: Option<Vec<Unit>>,
    /// What has become of that which is under way.
    under_way: Option<Balance>,
}

/// Pages that came in and that went out.
#[derive(Debug, Default)]
struct Balance {
    came: u64,
    went: u64,
    /// They may be so far apart. More is the fault of pages that cannot be moved, or are gone, and would cost the ratio.
    most: u64,
}

impl Exchange {
    /// Counts pages that were moved, if it is under way; how many of them came in, and whether it may go on.
    pub(super) fn count(&mut self, pages: u64, is_out: bool) -> (u64, bool) {
        let Some(balance) = &mut self.under_way else {
            return (0, true);
        };
        let sum = match is_out {
            true => &mut balance.went,
            false => &mut balance.came,
        };
        *sum = sum.saturating_add(pages);
        let is_even = balance.went.abs_diff(balance.came) <= balance.most;
        (if is_out { 0 } else { pages }, is_even)
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// What is moved from now on is for another purpose; whether it was looked for until now.
    pub(super) fn stop(&mut self) -> bool {
        self.under_way = None;
        self.found.take().is_some()
    }
}

impl Task {
    /// At a ratio that is held: exchanges pages, if more is known of what requests touch.
    pub(super) fn exchange(&mut self, near: u64, far: u64) -> Duration {
        self.exchange.under_way = None;
        if self.exchange.found.is_none() {
            let is_between = self.target > LocalRatio::REMOTE && self.target < LocalRatio::LOCAL;
            let known = self.life.as_ref().and_then(|life| life.known_at_rest());
            if !is_between || known.is_none_or(|requests| requests <= self.exchange.done) {
                return LOOK;
            }
            self.exchange.found = Some(Vec::new());
            self.done = 0;
        }
        let Some(units) = self.search() else {
            self.exchange.stop();
            return LATER;
        };
        let Some(life) = &self.life else { return LOOK };
        let goal = Goal {
            target: self.target,
            local: &self.placement.local,
            remote: &self.placement.remote,
            weights: &self.weights,
            heat: life.heat(),
        };
        let mut found = self.exchange.found.take().unwrap_or_default();
        // Those of one part may be cold, and of another hot. What is beyond these is for the next time.
        for local in [true, false] {
            let is_here = |unit: &&Unit| goal.local.contains(unit.node) == local;
            let most = usize::try_from(MOST_PAGES).unwrap_or(usize::MAX);
            let room = most.saturating_sub(found.iter().filter(is_here).count());
            let may = units
                .iter()
                .filter(is_here)
                .filter(|unit| is_candidate(unit, &goal, life.requests()));
            let more: Vec<Unit> = may.take(room).copied().collect();
            found.extend(more);
        }
        if self.done > 0 {
            // Another part.
            self.exchange.found = Some(found);
            return Duration::ZERO;
        }
        self.exchange.done = life.requests().count;
        let lie = Lie {
            near: near / pages::size(),
            far: far / pages::size(),
        };
        let queue = exchange(&found, &goal, life.requests(), lie);
        if queue.is_empty() {
            return LOOK;
        }
        // What is out before as much comes in, and as much again that is gone or cannot be moved.
        let largest = queue.iter().map(|found| u64::from(found.unit.pages)).max();
        self.exchange.under_way = Some(Balance {
            most: 2 * lie.most_at_once().max(largest.unwrap_or(0)),
            ..Balance::default()
        });
        self.queue = queue.into();
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_of_which_one_half_fails_ends_before_it_costs_the_ratio() {
        let mut exchange = Exchange::default();
        assert_eq!(exchange.count(500, true), (0, true), "none is under way");
        exchange.under_way = Some(Balance {
            most: 100,
            ..Balance::default()
        });
        assert_eq!(exchange.count(80, true), (0, true));
        assert_eq!(exchange.count(60, false), (60, true));
        assert_eq!(exchange.count(80, true), (0, true));
        assert_eq!(exchange.count(0, false), (0, true));
        assert_eq!(exchange.count(80, true), (0, false), "180 out for 60");
        assert!(exchange.is_under_way() && !exchange.stop());
        assert!(!exchange.is_under_way());
    }
}
