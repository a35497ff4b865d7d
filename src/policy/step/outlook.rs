//! What earlier runs say of the time that comes.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Look;
use crate::model::Bytes;
use crate::model::plan::{Clock, Forecast, Foresight, Margins};
use crate::model::profile::Hull;
use crate::policy::learn::{ABOUT, Buffer, Rises, STEADY, Variation, barrel};

/// The moments that count where runs do not grow as the others foresee, in percent of the time of this one.
const WIDE: RangeInclusive<u32> = 70..=130;
/// A run that uses so much more than any had until then is faster than those.
const NEWS: Bytes = Bytes::new(2 << 20);
/// The times of [`Forecast::jump`] and [`Forecast::burst`].
const JUMP: Duration = Duration::from_millis(4);
const BURST: Duration = Duration::from_millis(20);
/// What the next run does at once may be more than that of the others by a quarter.
const MORE: (u64, u64) = (5, 4);

/// A forecast, ready to be asked at every look.
#[derive(Debug, Clone)]
pub(super) struct Outlook {
    clock: Clock,
    rises: Rises,
    /// The hull as limits, for replaying; none where it is not trusted.
    limits: Option<Hull>,
    /// Less than at first for a run that is faster than the others were.
    foresight: Foresight,
    pub(super) most: Bytes,
    /// Most growth within [`JUMP`], and within [`BURST`].
    jump: Bytes,
    pub(super) burst: Bytes,
}

impl Outlook {
    pub(super) fn new(forecast: &Forecast, margins: &Margins) -> Self {
        Self {
            clock: forecast.clock,
            rises: Rises::of(forecast.hull.clone(), margins.lead, forecast.most),
            limits: forecast
                .trusted
                .then(|| barrel(&forecast.hull, margins.lead, &Buffer::default())),
            foresight: forecast.foresight,
            most: forecast.most,
            jump: forecast.jump,
            burst: forecast.burst,
        }
    }

    /// How much the container may grow before a look has led to something, which takes `reaction`.
    pub(super) fn growth(&mut self, look: &Look, reaction: Duration) -> Bytes {
        let time = self.time(look.at, look.cpu);
        if self.foresight == Foresight::Steady
            && time.is_some_and(|time| self.is_fast(time, look.usage))
        {
            self.foresight = Foresight::About;
        }
        let rise = time.map(|time| self.rise(time, look.usage));
        rise.unwrap_or_default()
            .max(self.sudden(time, look.usage, reaction))
    }

    /// Whether it uses what no other run had yet.
    fn is_fast(&self, time: Duration, usage: Bytes) -> bool {
        let known = self.rises.until(time, *STEADY.soon.end());
        usage.saturating_sub(known) > NEWS
    }

    /// The most that other runs had used until now, if this one uses more than that by this distance. None where runs do not
    /// foresee each other.
    pub(super) fn ahead_of(&self, look: &Look, distance: Bytes) -> Option<Bytes> {
        let soon = *self.variation()?.soon.end();
        let known = self.rises.until(self.time(look.at, look.cpu)?, soon);
        (look.usage.saturating_sub(known) > distance).then_some(known)
    }

    /// What comes if it does at once what the others did at most. [`Self::rise`] knows when that comes, but not of each
    /// run. Where runs grow as the others foresee, no more than what others had at about this time, or will have soon.
    fn sudden(&self, time: Option<Duration>, usage: Bytes, reaction: Duration) -> Bytes {
        let longer = reaction.saturating_sub(JUMP).min(BURST - JUMP).as_nanos();
        let more = u128::from(self.burst.saturating_sub(self.jump).get());
        let more = more.saturating_mul(longer) / (BURST - JUMP).as_nanos();
        let growth = u64::try_from(more)
            .unwrap_or(u64::MAX)
            .saturating_add(self.jump.get());
        let (times, of) = MORE;
        let share = Bytes::new(growth.saturating_mul(times) / of);
        match time.zip(self.variation()) {
            Some((time, variation)) => {
                let top = self.rises.top(time, variation).unwrap_or(self.most);
                share.min(top.saturating_sub(usage))
            }
            None => share,
        }
    }

    /// How much other runs that used about as much grew, about now, within the lead, as far as they ever grew at once.
    /// Where they do not grow as the others foresee also how much more those had that used far more.
    fn rise(&self, time: Duration, usage: Bytes) -> Bytes {
        let rise = match self.variation() {
            Some(variation) => self.rises.foreseen(time, usage, variation),
            None => {
                let level = self.rises.level();
                let moments = self.rises.around(time, WIDE).map(|moment| {
                    let above = moment.value.saturating_sub(usage);
                    let below = usage.saturating_sub(moment.value);
                    match (above.get() > level, below.get() > level) {
                        // What they had then may come at once.
                        (true, _) => above,
                        (_, true) => Bytes::ZERO,
                        _ => moment.rise,
                    }
                });
                moments.max().unwrap_or_default()
            }
        };
        rise.min(self.burst)
    }

    /// By how much this run is taken to differ from others; none if those do not foresee it.
    fn variation(&self) -> Option<&'static Variation> {
        match self.foresight {
            Foresight::None => None,
            Foresight::About => Some(&ABOUT),
            Foresight::Steady => Some(&STEADY),
        }
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
