//! What earlier runs say of the time that comes.

use std::time::Duration;

use crate::model::Bytes;
use crate::model::plan::{Clock, Forecast, Margins};
use crate::model::profile::Hull;
use crate::policy::learn::{Buffer, barrel};

/// A hull is looked at this share of the time around now: runs are faster and slower than each other. Run times of one
/// function vary by 17 to 48 % on a busy host.
const JITTER: u128 = 15;
/// The same where runs did not keep to the hull of the others.
const JITTER_UNTRUSTED: u128 = 30;
/// A moment of a hull says something of a container that uses about as much: it may differ by this share of the peak.
const LEVEL_SHARE: u64 = 6;
/// ... or so much.
const LEVEL: u64 = 16 << 20;
/// The time of [`Forecast::burst`].
const BURST: Duration = Duration::from_millis(20);
/// Growth within [`BURST`] is not even: in a part of that time comes half as much again as the same part of it.
const UNEVEN: (u128, u128) = (3, 2);

/// A forecast, ready to be asked at every look.
#[derive(Debug, Clone)]
pub(super) struct Outlook {
    clock: Clock,
    hull: Hull,
    /// How much each moment of the hull is followed by within the lead.
    rises: Vec<u64>,
    /// The hull as limits, for replaying; none where it is not trusted.
    limits: Option<Hull>,
    jitter: u128,
    pub(super) most: Bytes,
    /// Most growth within [`BURST`].
    pub(super) burst: Bytes,
    trusted: bool,
}

impl Outlook {
    pub(super) fn new(forecast: &Forecast, margins: &Margins) -> Self {
        let hull = forecast.hull.clone();
        let ahead = barrel(&hull, margins.lead, &Buffer::NONE);
        let rises = hull
            .bins
            .iter()
            .zip(&ahead.bins)
            .map(|(now, then)| then.saturating_sub(*now).get())
            .collect();
        Self {
            clock: forecast.clock,
            rises,
            limits: forecast
                .trusted
                .then(|| barrel(&hull, margins.lead, &Buffer::default())),
            jitter: match forecast.trusted {
                true => JITTER,
                false => JITTER_UNTRUSTED,
            },
            hull,
            most: forecast.most,
            burst: forecast.burst,
            trusted: forecast.trusted,
        }
    }

    /// How much the container may grow before a look has led to something, which takes `reaction`, if it does at once what
    /// the others did at most. [`Self::rise`] knows when that comes, but not of each run.
    pub(super) fn sudden(&self, reaction: Duration) -> Bytes {
        let (times, of) = UNEVEN;
        let nanos = reaction.as_nanos().saturating_mul(times) / of;
        let share = u128::from(self.burst.get()).saturating_mul(nanos) / BURST.as_nanos();
        Bytes::new(u64::try_from(share).unwrap_or(u64::MAX)).min(self.burst)
    }

    /// How much other runs that used about as much grew, about now, within the lead, as far as they ever grew at once.
    /// Where they do not keep to the hull of each other also how much more those had that used far more.
    pub(super) fn rise(&self, at: Duration, cpu: Option<Duration>, usage: Bytes) -> Bytes {
        let Some(time) = self.time(at, cpu) else {
            return Bytes::ZERO;
        };
        let width = u128::from(self.hull.width.micros());
        let bin = |percent: u128| {
            usize::try_from(time.as_micros() * percent / 100 / width).unwrap_or(usize::MAX)
        };
        let first = bin(100 - self.jitter).saturating_sub(1);
        let last = bin(100 + self.jitter).saturating_add(1);
        let level = LEVEL.max(self.most.get() / LEVEL_SHARE);
        let around = self.hull.bins.iter().zip(&self.rises).enumerate();
        let rise = around
            .skip(first)
            .take(last.saturating_sub(first).saturating_add(1))
            .map(|(_, (value, rise))| {
                let above = value.saturating_sub(usage).get();
                let below = usage.saturating_sub(*value).get();
                match (above > level, below > level) {
                    // What they had then may come at once, as fast as they ever grew. Where they keep to the hull, the rise
                    // to there has been foreseen.
                    (true, _) if self.trusted => 0,
                    (true, _) => above.min(self.burst.get()),
                    (_, true) => 0,
                    _ => (*rise).min(self.burst.get()),
                }
            })
            .max()
            .unwrap_or(0);
        Bytes::new(rise)
    }

    /// The limit that is replayed now; none where there is nothing to replay, and after its end.
    pub(super) fn replayed(&self, at: Duration, cpu: Option<Duration>) -> Option<Bytes> {
        self.limits.as_ref()?.at(self.time(at, cpu)?)
    }

    fn time(&self, at: Duration, cpu: Option<Duration>) -> Option<Duration> {
        match self.clock {
            Clock::Wall => Some(at),
            Clock::Cpu => cpu,
        }
    }
}
