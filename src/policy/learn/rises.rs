//! How a hull grows: what a run is told of the time that comes.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::barrel::{Buffer, barrel};
use crate::model::Bytes;
use crate::model::profile::Hull;

/// By how much runs are taken to be faster and slower than each other: which moments of a hull say something of a moment of a
/// run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variation {
    /// A rise counts at moments that differ by so many percent of the time of the run.
    pub near: u32,
    /// What may come at once is what was used at these moments, in percent of the time of the run.
    pub soon: RangeInclusive<u32>,
}

/// Run times of one function vary by 17 to 48 % on a busy host, and with warm page cache a run may be twice as fast as
/// those before it.
pub const ABOUT: Variation = Variation {
    near: 15,
    soon: 70..=200,
};
/// Runs are as fast as each other. Most functions keep to this on a host that is not busy.
pub const STEADY: Variation = Variation {
    near: 3,
    soon: 90..=110,
};
/// A moment of a hull says something of a run that uses about as much: it may differ by this share of the peak.
const LEVEL_SHARE: u64 = 6;
/// ... or so much.
const LEVEL: u64 = 16 << 20;

/// A moment of a hull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The most that was used then.
    pub value: Bytes,
    /// How much more that was at most within the lead.
    pub rise: Bytes,
}

impl Moment {
    /// The most that was used then or within the lead.
    fn top(&self) -> Bytes {
        Bytes::new(self.value.get().saturating_add(self.rise.get()))
    }
}

/// A hull and how much each of its moments is followed by.
#[derive(Debug, Clone)]
pub struct Rises {
    hull: Hull,
    rises: Vec<Bytes>,
    /// The most until the end of each bin.
    so_far: Vec<Bytes>,
    level: u64,
}

impl Rises {
    /// Of a hull with this peak, looked at so far ahead: at least one of its bins.
    pub fn of(hull: Hull, lead: Duration, most: Bytes) -> Self {
        let ahead = barrel(&hull, lead, &Buffer::NONE);
        let pairs = hull.bins.iter().zip(&ahead.bins);
        let rises = pairs.map(|(now, then)| then.saturating_sub(*now)).collect();
        let so_far = hull.bins.iter().scan(Bytes::ZERO, |most, value| {
            *most = (*value).max(*most);
            Some(*most)
        });
        Self {
            so_far: so_far.collect(),
            hull,
            rises,
            level: LEVEL.max(most.get() / LEVEL_SHARE),
        }
    }

    /// Usages that differ by no more are about the same.
    pub fn level(&self) -> u64 {
        self.level
    }

    /// The moments from so many percent of this time to so many, and a bin on either side.
    pub fn around(
        &self,
        time: Duration,
        percent: RangeInclusive<u32>,
    ) -> impl Iterator<Item = Moment> + '_ {
        let first = self.bin(time, *percent.start()).saturating_sub(1);
        let last = self.bin(time, *percent.end()).saturating_add(1);
        let moments = self.hull.bins.iter().zip(&self.rises);
        moments
            .skip(first)
            .take(last.saturating_sub(first).saturating_add(1))
            .map(|(value, rise)| Moment {
                value: *value,
                rise: *rise,
            })
    }

    /// The most that may be used at once at this time: what was used at the moments that count, or within the lead after
    /// them. `None` after the end of the hull.
    pub fn top(&self, time: Duration, variation: &Variation) -> Option<Bytes> {
        let moments = self.around(time, variation.soon.clone());
        moments.map(|moment| moment.top()).max()
    }

    /// The most that was used until so many percent of this time, and a bin.
    pub fn until(&self, time: Duration, percent: u32) -> Bytes {
        let last = self.bin(time, percent).saturating_add(1);
        let most = self.so_far.get(last).or(self.so_far.last());
        most.copied().unwrap_or_default()
    }

    /// The bin of so many percent of this time.
    fn bin(&self, time: Duration, percent: u32) -> usize {
        let micros = time.as_micros() * u128::from(percent) / 100;
        let width = u128::from(self.hull.width.micros());
        usize::try_from(micros / width).unwrap_or(usize::MAX)
    }

    /// How much those grew that used about as much, or passed by that much, near this time.
    pub fn foreseen(&self, time: Duration, usage: Bytes, variation: &Variation) -> Bytes {
        let near = 100_u32.saturating_sub(variation.near)..=100_u32.saturating_add(variation.near);
        let rises = self.around(time, near).map(|moment| {
            let is_alike = moment.value.get().abs_diff(usage.get()) <= self.level;
            match is_alike {
                true => moment.rise.get(),
                false if moment.value < usage => moment.top().saturating_sub(usage).get(),
                false => 0,
            }
        });
        Bytes::new(rises.max().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Of bins of 20 ms, looked at one bin ahead.
    fn rises(bins: &[u64]) -> Rises {
        let hull = Hull {
            bins: bins.iter().map(|mib| Bytes::new(mib * MIB)).collect(),
            ..Hull::default()
        };
        let most = hull.largest().unwrap();
        Rises::of(hull, Duration::from_millis(20), most)
    }

    fn foreseen(rises: &Rises, millis: u64, usage: u64) -> u64 {
        let time = Duration::from_millis(millis);
        let rise = rises.foreseen(time, Bytes::new(usage * MIB), &ABOUT);
        rise.get() / MIB
    }

    #[test]
    fn a_rise_counts_about_its_time_and_at_its_level() {
        let mut bins = [10; 30];
        bins[20..].fill(90);
        let rises = rises(&bins);
        // At 380 ms the others rise: 15 % around that are 57 ms, and a bin.
        assert_eq!(foreseen(&rises, 380, 10), 80);
        assert_eq!(foreseen(&rises, 340, 10), 80);
        assert_eq!(foreseen(&rises, 300, 10), 0);
        // A level is 16 MiB wide here.
        assert_eq!(foreseen(&rises, 380, 26), 80);
        // On the way.
        assert_eq!(foreseen(&rises, 380, 27), 63);
        assert_eq!(foreseen(&rises, 380, 120), 0);
        // Long after their end nobody knows.
        assert_eq!(foreseen(&rises, 2_000, 10), 0);
        let steady = |millis| {
            let time = Duration::from_millis(millis);
            rises.foreseen(time, Bytes::new(10 * MIB), &STEADY).get() / MIB
        };
        assert_eq!(steady(360), 80);
        assert_eq!(steady(340), 0);
    }

    #[test]
    fn what_may_come_at_once_is_what_was_used_about_then() {
        let mut bins = [10; 100];
        bins[50..].fill(90);
        let rises = rises(&bins);
        let top = |millis, variation| {
            let top = rises.top(Duration::from_millis(millis), variation);
            top.map(|top| top.get() / MIB)
        };
        // They rise at 1000 ms, which twice as fast a run does at 500.
        assert_eq!(top(450, &ABOUT), Some(10));
        assert_eq!(top(500, &ABOUT), Some(90));
        assert_eq!(top(800, &STEADY), Some(10));
        assert_eq!(top(900, &STEADY), Some(90));
        // A slower run: they have ended when it is where they were.
        assert_eq!(top(2_100, &ABOUT), Some(90));
        assert_eq!(top(2_300, &STEADY), None);
    }

    #[test]
    fn what_was_used_until_now_stays_known() {
        let rises = rises(&[10, 90, 20, 20, 20, 95]);
        let until = |millis, percent| {
            let time = Duration::from_millis(millis);
            rises.until(time, percent).get() / MIB
        };
        assert_eq!(until(10, 100), 90);
        assert_eq!(until(70, 100), 90);
        assert_eq!(until(70, 115), 95);
        assert_eq!(until(5_000, 100), 95);
    }
}
