//! How fast a container grows, and how late that is noticed.

use std::time::Duration;

use super::window::Window;
use crate::model::Bytes;

/// For how long a growth tells what comes next.
const MEMORY: Duration = Duration::from_millis(50);
/// For how long a late look tells how late looks can be.
const LATENESS: Duration = Duration::from_secs(1);
/// The time between two looks that one counts on, at least.
const REACTION: Duration = Duration::from_millis(4);
/// What a look was later than that, lately, counts so often: the next ones may be later still.
const CAUTION: u32 = 3;
/// Looks that follow each other faster say nothing of a rate: charges come in stocks.
const SHORTEST: Duration = Duration::from_millis(1);
/// A growth within one look that is none: processors take charges in stocks of 64 pages
/// (`MEMCG_CHARGE_BATCH`, linux/mm/memcontrol.c).
const STOCK: u64 = 64 * 4096;

/// Growth of one container.
#[derive(Debug, Clone)]
pub(super) struct Growth {
    last: Option<(Duration, Bytes)>,
    /// Bytes a second.
    rates: Window,
    /// Nanoseconds between looks.
    lateness: Window,
    grew: Duration,
    reaction: Duration,
}

impl Growth {
    pub(super) fn new() -> Self {
        Self {
            last: None,
            rates: Window::new(MEMORY),
            lateness: Window::new(LATENESS),
            grew: Duration::ZERO,
            reaction: REACTION,
        }
    }

    /// How much the container may grow until the next look has led to something, as it grows now.
    ///
    /// A look that is `expected` to be this late after the last one, because the container was resting, tells nothing
    /// of how late looks are.
    pub(super) fn until_next(&mut self, at: Duration, usage: Bytes, expected: bool) -> Bytes {
        let (mut rate, mut late) = (0, 0);
        if let Some((then, before)) = self.last {
            let time = at.saturating_sub(then);
            let grown = usage.saturating_sub(before).get();
            if grown > STOCK {
                self.grew = at;
            }
            if time > SHORTEST {
                let rate_now = u128::from(grown) * 1_000_000_000 / time.as_nanos().max(1);
                rate = u64::try_from(rate_now).unwrap_or(u64::MAX);
            }
            if !expected {
                late = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            }
        }
        self.last = Some((at, usage));
        let rate = self.rates.add(at, rate);
        let late = self.lateness.add(at, late);
        let later = Duration::from_nanos(late).saturating_sub(REACTION);
        self.reaction = REACTION.saturating_add(later.saturating_mul(CAUTION));
        let bytes = u128::from(rate) * self.reaction.as_nanos() / 1_000_000_000;
        Bytes::new(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// What was used at the last look.
    pub(super) fn usage(&self) -> Bytes {
        self.last.map(|(_, usage)| usage).unwrap_or_default()
    }

    /// The time until the next look has led to something.
    pub(super) fn reaction(&self) -> Duration {
        self.reaction
    }

    /// Whether it has not grown for so long.
    pub(super) fn has_settled(&self, at: Duration, time: Duration) -> bool {
        at.saturating_sub(self.grew) > time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_is_expected_as_late_as_the_last_ones() {
        let mut growth = Growth::new();
        let ms = Duration::from_millis;
        let mib = |n: u64| Bytes::new(n << 20);
        assert_eq!(growth.until_next(ms(0), mib(10), false), Bytes::ZERO);
        // 4 MiB in 2 ms: 8 MiB in 4 ms.
        assert_eq!(growth.until_next(ms(2), mib(14), false), mib(8));
        assert!(!growth.has_settled(ms(2), ms(10)));
        // No growth, but 4 ms later than counted on: 2 MiB/ms for 16 ms.
        assert_eq!(growth.until_next(ms(10), mib(14), false), mib(32));
        assert!(growth.has_settled(ms(13), ms(10)));
        // The growth is forgotten.
        assert_eq!(growth.until_next(ms(60), mib(14), true), Bytes::ZERO);
    }
}
