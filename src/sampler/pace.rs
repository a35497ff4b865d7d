//! How often a container is looked at: often while its memory grows, seldom while it rests.

use std::time::Duration;

use crate::model::Bytes;
use crate::model::trace::Phase;

/// After the start.
pub(super) const STARTING: Duration = Duration::from_millis(1);
/// So long is the start, which is all there is of many functions.
const START_LASTS: Duration = Duration::from_millis(50);
/// While memory grows fast: a peak may be gone before the next look, and is to be known to one percent.
const GROWING_FAST: Duration = Duration::from_millis(1);
/// While memory grows.
pub(super) const GROWING: Duration = Duration::from_millis(2);
/// While something runs.
pub(super) const ACTIVE: Duration = Duration::from_millis(10);
/// The longest time between two looks at a container that rests. Nothing tells of the first activity after
/// that, so that it is what can be missed.
pub(super) const RESTING: Duration = Duration::from_millis(400);
/// A growth within one look that is none: processors take charges in stocks of 64 pages
/// (`MEMCG_CHARGE_BATCH`, linux/mm/memcontrol.c).
const STOCK: u64 = 64 * 4096;
/// Growth is fast from so many bytes in a millisecond on, over so long a time: single looks see stocks.
const FAST: u64 = 400 << 10;
const FAST_OVER: Duration = Duration::from_millis(6);
/// How long memory counts as growing after it grew.
const GROWTH_LASTS: Duration = Duration::from_millis(50);
/// A container that used less than this share of a processor rests.
const BUSY_SHARE: u32 = 500;
/// A container that rests is looked at after this share of the time for which it has been resting.
const REST_SHARE: u32 = 8;
/// A container that has been resting for so long is kept alive for the next request.
const KEEP_ALIVE: Duration = Duration::from_millis(300);

/// The rhythm of one container.
#[derive(Debug)]
pub(super) struct Pace {
    start: Duration,
    grew: Duration,
    worked: Duration,
    last: Option<Look>,
    /// Where the growth that may be fast is counted from.
    anchor: (Duration, Bytes),
    fast: bool,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Duration,
    usage: Bytes,
    cpu: Option<Duration>,
}

impl Pace {
    /// A container that starts now.
    pub(super) fn start(now: Duration) -> Self {
        Self {
            start: now,
            grew: now,
            worked: now,
            last: None,
            anchor: (now, Bytes::ZERO),
            fast: false,
        }
    }

    /// Whether a container has just been started.
    pub(super) fn starts(&self, now: Duration) -> bool {
        now.saturating_sub(self.start) < START_LASTS
    }

    /// Takes note of a look; when the next one is due.
    pub(super) fn next(&mut self, now: Duration, usage: Bytes, cpu: Option<Duration>) -> Duration {
        if let Some(last) = self.last {
            if usage.saturating_sub(last.usage).get() > STOCK {
                self.grew = now;
            }
            let used = match (cpu, last.cpu) {
                (Some(cpu), Some(before)) => cpu.saturating_sub(before),
                // Without a clock of the processor, only what changes in memory tells.
                _ => Duration::ZERO,
            };
            let changed = usage.get().abs_diff(last.usage.get()) > STOCK;
            if changed || used.saturating_mul(BUSY_SHARE) > now.saturating_sub(last.at) {
                self.worked = now;
            }
        }
        self.last = Some(Look {
            at: now,
            usage,
            cpu,
        });
        let since = now.saturating_sub(self.anchor.0);
        if since >= FAST_OVER {
            let grown = u128::from(usage.saturating_sub(self.anchor.1).get());
            self.fast = grown * 1000 >= u128::from(FAST) * since.as_micros();
            self.anchor = (now, usage);
        }
        if self.starts(now) {
            return STARTING;
        }
        if now.saturating_sub(self.grew) < GROWTH_LASTS {
            return match self.fast {
                true => GROWING_FAST,
                false => GROWING,
            };
        }
        let rest = now.saturating_sub(self.worked);
        (rest / REST_SHARE).clamp(ACTIVE, RESTING)
    }

    /// What the container does, as far as its use of the processor tells.
    pub(super) fn phase(&self, now: Duration) -> Phase {
        match now.saturating_sub(self.worked) < KEEP_ALIVE {
            true => Phase::Execution,
            false => Phase::KeepAlive,
        }
    }
}

/// The moment of the next look after `now`: containers with the same period are looked at together, so that one
/// wake-up serves them all.
pub(super) fn due(now: Duration, period: Duration) -> Duration {
    let period = period.as_micros().max(1);
    let next = (now.as_micros() / period + 1) * period;
    Duration::from_micros(u64::try_from(next).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn mib(mib: u64) -> Bytes {
        Bytes::from_mib(mib).unwrap()
    }

    #[test]
    fn growth_is_watched_closely_and_for_a_while() {
        let mut pace = Pace::start(Duration::ZERO);
        assert_eq!(pace.next(MS, mib(2), Some(MS)), STARTING);
        assert_eq!(pace.next(49 * MS, mib(2), Some(20 * MS)), STARTING);
        assert_eq!(pace.next(110 * MS, mib(2), Some(50 * MS)), ACTIVE);
        assert_eq!(pace.next(120 * MS, mib(3), Some(55 * MS)), GROWING);
        assert_eq!(pace.next(169 * MS, mib(3), Some(90 * MS)), GROWING);
        assert_eq!(pace.next(171 * MS, mib(3), Some(91 * MS)), ACTIVE);
    }

    #[test]
    fn fast_growth_is_watched_more_closely_as_long_as_it_lasts() {
        let mut pace = Pace::start(Duration::ZERO);
        let mut now = 100 * MS;
        let mut usage = mib(2);
        // 256 KiB a millisecond, then 512, then none.
        for (kib, period) in [(256, GROWING), (512, GROWING_FAST)] {
            let mut next = GROWING;
            for _ in 0..20 {
                now += next;
                let grown = kib * 1024 * u64::try_from(next.as_millis()).unwrap();
                usage = Bytes::new(usage.get() + grown);
                next = pace.next(now, usage, None);
            }
            assert_eq!(next, period);
        }
        for _ in 0..10 {
            now += MS;
            pace.next(now, usage, None);
        }
        assert_eq!(pace.next(now + MS, usage, None), GROWING);
    }

    #[test]
    fn rest_is_watched_less_and_less() {
        let mut pace = Pace::start(Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut looks = 0;
        while now < Duration::from_secs(10) {
            now = due(now, pace.next(now, mib(2), Some(MS)));
            looks += 1;
        }
        // Fifty of them at the start.
        assert!((80..130).contains(&looks), "{looks}");
        assert_eq!(pace.next(now, mib(2), Some(MS)), RESTING);
        assert_eq!(pace.phase(now), Phase::KeepAlive);
        assert_eq!(pace.next(now + RESTING, mib(2), Some(3 * MS)), ACTIVE);
        assert_eq!(pace.phase(now + RESTING), Phase::Execution);
    }

    #[test]
    fn containers_are_looked_at_together() {
        assert_eq!(due(3 * MS, ACTIVE), 10 * MS);
        assert_eq!(due(10 * MS, ACTIVE), 20 * MS);
        assert_eq!(due(9 * MS + Duration::from_micros(1), GROWING), 10 * MS);
    }
}
