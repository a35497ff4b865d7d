//! The autotuner: from one look at a container to its grant.
//!
//! The guard keeps a distance between usage and grant that holds whatever the container can need until the next look
//! has led to something: what it grows by now, what earlier runs grew by at this moment, and a pad. It rises at once,
//! and falls when less has been enough for a while. A container that leaves what is known of it, or comes near its
//! limit, gets its ceiling first and is followed from above after that. A limit must never be met: harm comes first,
//! savings second.

mod growth;
mod harm;
mod look;
mod outlook;
mod window;

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::plan::{Margins, Plan};
use crate::model::profile::InputBins;
use crate::model::status::{Cause, Counts, Decision};
use crate::model::{Bytes, ClassName, MemoryLimit, Mode};
use growth::Growth;
use outlook::Outlook;
use window::Window;

pub use look::{Look, Note, Step};

/// Where nobody looks often, or nothing is known, the pad is this share of the largest need, between [`Margins::pad`] and
/// [`LARGEST_PAD`]: what large functions do at once is larger.
const PAD_SHARE: u64 = 16;
const LARGEST_PAD: u64 = 64 << 20;
/// A container is near its limit when so little of the pad is left. Usage above the largest known one by as little of the
/// larger pad is no news: files that another container had read before are charged to this one now and then, and
/// processors hold stocks.
const NEAR_SHARE: u64 = 4;
/// A grant is not lowered for less than this, nor for less than [`LEAST_SHARE`] of it.
const LEAST_CHANGE: u64 = 1 << 20;
const LEAST_SHARE: u64 = 50;
/// Beyond what is known the distance is this share of usage, and at least two pads.
const OUTSIDE_SHARE: u64 = 4;
/// For how long the word that a request has ended counts: after that, rest shows in CPU time.
const TOLD_IDLE: Duration = Duration::from_millis(500);
/// For how long a container must rest until the ends of requests that nobody told of are taken as told.
const LOST_END: Duration = Duration::from_secs(10);
/// How long a container must rest before its page cache is dropped.
const BEFORE_DROP: Duration = Duration::from_secs(1);
/// Page cache below this is not worth the work.
const LEAST_CACHE: u64 = 4 << 20;
/// Whether grants are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stance {
    /// The grant follows.
    Following,
    /// The ceiling is granted until then, for this reason.
    Waiting(Duration, Cause),
    /// The limit is somebody else's until then, at least.
    Aside(Duration),
}

/// The state of one container's grant.
#[derive(Debug, Clone)]
pub struct Guard {
    mode: Mode,
    margins: Margins,
    ceiling: Option<Bytes>,
    /// What the file of the limit holds while the ceiling is granted.
    declared: MemoryLimit,
    floor: Bytes,
    /// The pad at rest and beyond what is known.
    pad: Bytes,
    /// The static grant.
    largest: Bytes,
    /// The same for the request that runs, where its class is known.
    of_request: Option<Bytes>,
    outlook: Option<Outlook>,
    bins: Option<InputBins>,
    classes: BTreeMap<ClassName, Bytes>,
    grant: Option<Bytes>,
    stance: Stance,
    holds: u32,
    growth: Growth,
    wants: Window,
    met: u64,
    /// When the waiting time was read last, and what it was.
    waited: Option<(Duration, Duration)>,
    /// The least that was left below the grant since then.
    left: u64,
    doublings: u32,
    outside: bool,
    told_outside: bool,
    told_early: bool,
    idle_since: Option<Duration>,
    /// So many requests were said to run.
    told_busy: u32,
    /// Since when its CPU time says that it rests.
    rests_since: Option<Duration>,
    /// The last one was said to have ended: what CPU time tells only later.
    told_idle_until: Duration,
    dropped: bool,
    /// When it was told something last.
    now: Duration,
    counts: Counts,
    last: Option<Decision>,
}

impl Guard {
    /// The guard of a container that is about to start; `met` as in [`Look`]. `declared` is what the file of the limit
    /// holds now: the ceiling on cgroup v1, no limit on cgroup v2.
    pub fn new(plan: &Plan, declared: MemoryLimit, met: u64) -> Self {
        let most = plan.forecast.as_ref().map_or(Bytes::ZERO, |f| f.most);
        let pad = pad_of(most, &plan.margins);
        Self {
            mode: plan.mode,
            margins: plan.margins,
            ceiling: plan.ceiling,
            declared,
            floor: plan.floor,
            pad,
            largest: plan.largest.unwrap_or(Bytes::new(u64::MAX)),
            of_request: None,
            outlook: plan
                .forecast
                .as_ref()
                .map(|forecast| Outlook::new(forecast, &plan.margins)),
            bins: plan.forecast.as_ref().and_then(|f| f.bins.clone()),
            classes: plan
                .forecast
                .as_ref()
                .map(|f| f.classes.clone())
                .unwrap_or_default(),
            grant: None,
            stance: Stance::Following,
            holds: 0,
            growth: Growth::new(),
            wants: Window::new(plan.margins.settle),
            met,
            waited: None,
            left: u64::MAX,
            doublings: 0,
            outside: false,
            told_outside: false,
            told_early: false,
            idle_since: None,
            told_busy: 0,
            rests_since: None,
            told_idle_until: Duration::ZERO,
            dropped: false,
            now: Duration::ZERO,
            counts: Counts::default(),
            last: None,
        }
    }

    /// The grant; `None` is the ceiling.
    pub fn grant(&self) -> Option<Bytes> {
        self.grant
    }

    /// The ceiling; `None` is no limit.
    pub fn ceiling(&self) -> Option<Bytes> {
        self.ceiling
    }

    /// A grant that never moves and holds all runs that are known; none without a profile.
    pub fn fixed(&self) -> Option<Bytes> {
        let most = self.ceiling.unwrap_or(Bytes::new(u64::MAX));
        self.outlook.as_ref().map(|_| self.largest.min(most))
    }

    /// How often what was decided.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The last change of the grant.
    pub fn last(&self) -> Option<Decision> {
        self.last
    }

    /// Whether the limit is somebody else's.
    pub fn is_aside(&self) -> bool {
        matches!(self.stance, Stance::Aside(_))
    }

    /// Takes note of a look; what is to be done.
    pub fn look(&mut self, look: &Look) -> Step {
        self.now = look.at;
        let mut step = Step::default();
        let was_idle = self.idle_since.is_some();
        self.rests_since = match look.idle {
            true => self.rests_since.or(Some(look.at)),
            false => None,
        };
        if let Some(since) = self.rests_since
            && look.at.saturating_sub(since) >= LOST_END
        {
            self.told_busy = 0;
        }
        let idle = self.told_busy == 0 && (look.idle || look.at < self.told_idle_until);
        self.idle_since = match (idle, self.idle_since) {
            (true, None) => Some(look.at),
            (true, since) => since,
            (false, _) => None,
        };
        let ahead = self.growth.until_next(look.at, look.usage, was_idle);
        step.note = self
            .check_met(look)
            .or_else(|| self.check_pressure(look))
            .or_else(|| self.check_limit(look));
        if self.holds > 0 || matches!(self.stance, Stance::Aside(_)) {
            return step;
        }
        if let Stance::Waiting(until, cause) = self.stance {
            if look.at < until {
                step.grant = self.change(None, cause);
                return step;
            }
            self.stance = Stance::Following;
        }
        if self.is_outside(look.usage) && !self.outside {
            self.outside = true;
            if !std::mem::replace(&mut self.told_outside, true) {
                step.note = step.note.or(Some(Note::Outside {
                    usage: look.usage,
                    most: self.outlook.as_ref().map_or(Bytes::ZERO, |o| o.most),
                }));
            }
        }
        step.note = step.note.or_else(|| self.check_early(look));
        let (mut want, mut cause) = self.want(look, ahead);
        if was_idle && !idle {
            // What the request can need at once is there before it asks.
            let soon = self.soon(look.usage);
            if soon > want {
                (want, cause) = (soon, Cause::Work);
            }
            self.dropped = false;
        }
        step.grant = self.follow(look.at, want, cause);
        step.drop_cache = self.cache_to_drop(look);
        step
    }

    /// A request begins, of this class or with an input of this size: the most that it may need at once is granted. Several
    /// may run at once.
    pub fn begin(
        &mut self,
        at: Duration,
        class: Option<&ClassName>,
        input: Option<Bytes>,
    ) -> Option<Option<Bytes>> {
        self.now = at;
        self.rests_since = None;
        self.idle_since = None;
        self.dropped = false;
        let by_input = || {
            let bins = self.bins.as_ref()?;
            // Exact up to 2^53 bytes.
            #[allow(clippy::cast_precision_loss, reason = "a size of 8 PiB is no input")]
            let value = input?.get() as f64;
            self.classes.get(&bins.class(value).ok()?)
        };
        let most = class
            .and_then(|class| self.classes.get(class))
            .or_else(by_input)
            .map(|most| largest_of(*most, &self.margins));
        self.of_request = match self.told_busy {
            0 => most,
            _ => self.of_request.zip(most).map(|(one, other)| one.max(other)),
        };
        self.told_busy = self.told_busy.saturating_add(1);
        if self.holds > 0 || self.stance != Stance::Following {
            return None;
        }
        let want = match self.mode {
            Mode::Elastic => self.soon(self.growth.usage()),
            _ => self.known(),
        };
        self.follow(at, want, Cause::Work)
    }

    /// A request has ended.
    pub fn end(&mut self, at: Duration) {
        self.told_busy = self.told_busy.saturating_sub(1);
        if self.told_busy > 0 {
            return;
        }
        self.told_idle_until = at.saturating_add(TOLD_IDLE);
        self.idle_since = Some(at);
        self.of_request = None;
    }

    /// Grants the ceiling until [`Self::release`], once for each hold.
    pub fn hold(&mut self) -> Option<Option<Bytes>> {
        self.holds = self.holds.saturating_add(1);
        match self.stance {
            // It is somebody else's.
            Stance::Aside(_) => None,
            _ => self.change(None, Cause::Held),
        }
    }

    /// Ends a hold. Whoever held may have declared another limit: `ceiling` and `declared` are as in the plan and as in
    /// [`Self::new`], by what is in force now.
    pub fn release(&mut self, at: Duration, ceiling: Option<Bytes>, declared: MemoryLimit) {
        self.holds = self.holds.saturating_sub(1);
        self.ceiling = ceiling;
        self.declared = declared;
        if self.holds == 0 && !matches!(self.stance, Stance::Aside(_)) {
            // What was added to the container has to settle.
            self.stance = Stance::Waiting(at.saturating_add(BEFORE_DROP), Cause::Held);
        }
    }

    /// The kernel refused to lower the limit: so much could not be given up.
    pub fn refused(&mut self, at: Duration) -> Option<Option<Bytes>> {
        self.now = at;
        self.stance = Stance::Waiting(at.saturating_add(self.margins.settle), Cause::Refused);
        self.outside = true;
        self.counts.refused = self.counts.refused.saturating_add(1);
        self.change(None, Cause::Refused)
    }

    /// Whether it has left its hull, below what is known to be needed at most.
    fn check_early(&mut self, look: &Look) -> Option<Note> {
        let follows = matches!(self.mode, Mode::Replay | Mode::Elastic);
        if self.told_early || self.outside || !follows {
            return None;
        }
        let usage = look.usage;
        let known = self.outlook.as_ref()?.ahead_of(look, self.pad)?;
        self.told_early = true;
        Some(Note::Early { usage, known })
    }

    fn is_outside(&self, usage: Bytes) -> bool {
        let Some(outlook) = &self.outlook else {
            return true;
        };
        usage.saturating_sub(outlook.most).get() > self.pad.get() / NEAR_SHARE
    }

    /// The most that is known to be needed now.
    fn known(&self) -> Bytes {
        match self.outside {
            true => Bytes::new(u64::MAX),
            false => self.of_request.unwrap_or(self.largest),
        }
    }

    /// The most that is known to be needed at once: the rest is granted when it has begun.
    fn soon(&self, usage: Bytes) -> Bytes {
        let known = self.known();
        match &self.outlook {
            Some(outlook) if !self.outside => {
                let distance = outlook.burst.max(self.pad).get();
                known.min(Bytes::new(usage.get().saturating_add(distance)))
            }
            _ => known,
        }
    }

    /// What is to be granted, and why if that is more than now.
    fn want(&mut self, look: &Look, ahead: Bytes) -> (Bytes, Cause) {
        let above = |distance: Bytes| Bytes::new(look.usage.get().saturating_add(distance.get()));
        let pad = self.margins.pad;
        let near = self
            .grant
            .is_some_and(|grant| grant.saturating_sub(look.usage).get() < pad.get() / NEAR_SHARE);
        if near {
            // What is known to be enough, if that is far enough away.
            let want = match self.known() >= above(self.pad) {
                true => self.known().min(self.soon(look.usage).max(above(ahead))),
                false => Bytes::new(u64::MAX),
            };
            return (want, Cause::Near);
        }
        if self.outside {
            let want = match self.growth.has_settled(look.at, self.margins.settle) {
                true => {
                    let twice = self.pad.get().saturating_mul(2);
                    let distance = twice.max(look.usage.get() / OUTSIDE_SHARE);
                    above(Bytes::new(distance).max(ahead))
                }
                false => Bytes::new(u64::MAX),
            };
            return (want, Cause::Outside);
        }
        if self.idle_since.is_some() && self.margins.keep_alive {
            let want = above(self.pad.max(ahead)).min(self.largest);
            return (want, Cause::Need);
        }
        let want = match self.mode {
            Mode::Static => self.largest,
            Mode::Replay => self
                .outlook
                .as_ref()
                .and_then(|outlook| outlook.replayed(look.at, look.cpu))
                .map_or(self.largest, |limit| limit.max(above(pad.max(ahead))))
                .min(self.largest),
            Mode::Elastic => {
                let reaction = self.growth.reaction();
                let outlook = self.outlook.as_mut();
                let rise = outlook.map(|outlook| outlook.growth(look, reaction));
                let rise = rise.unwrap_or_default();
                // A request of a class that needs little may be of another one.
                above(pad.max(ahead).max(rise)).min(self.largest)
            }
            Mode::Off | Mode::Observe => Bytes::new(u64::MAX),
        };
        (want, Cause::Need)
    }

    /// Rises at once; falls to what was wanted at most lately.
    fn follow(&mut self, at: Duration, want: Bytes, cause: Cause) -> Option<Option<Bytes>> {
        let lately = Bytes::new(self.wants.add(at, want.get()));
        let current = self.grant.or(self.ceiling);
        let rises = current.is_some_and(|current| want > current);
        let falls = current.is_none_or(|current| {
            let least = LEAST_CHANGE.max(current.get() / LEAST_SHARE);
            current.saturating_sub(lately).get() >= least
        });
        match (rises, falls) {
            (true, _) => self.change(Some(want), cause),
            (false, true) => {
                let cause = match (self.last, self.idle_since) {
                    (None, _) => Cause::First,
                    (_, Some(_)) => Cause::Rest,
                    (_, None) => Cause::Less,
                };
                self.change(Some(lately), cause)
            }
            (false, false) => None,
        }
    }

    /// A grant as it can be written: in whole pages, between floor and ceiling.
    fn change(&mut self, grant: Option<Bytes>, cause: Cause) -> Option<Option<Bytes>> {
        let most = Bytes::new(LARGEST_LIMIT);
        let grant = grant
            .map(|grant| grant.max(self.floor))
            .and_then(|grant| grant.round_up(Bytes::new(PAGE)))
            .filter(|grant| {
                let room = self.ceiling.unwrap_or(most).saturating_sub(*grant);
                room.get() >= LEAST_CHANGE
            });
        let before = std::mem::replace(&mut self.grant, grant);
        if before == grant {
            return None;
        }
        let rises = match (before, grant) {
            (Some(before), Some(grant)) => grant > before,
            (_, grant) => grant.is_none(),
        };
        let count = match rises {
            true => &mut self.counts.raises,
            false => &mut self.counts.lowers,
        };
        *count = count.saturating_add(1);
        self.decided(cause);
        Some(grant)
    }

    fn decided(&mut self, cause: Cause) {
        self.last = Some(Decision {
            at: self.now,
            grant: self.grant,
            cause,
        });
    }

    fn cache_to_drop(&mut self, look: &Look) -> Option<Bytes> {
        let rested = look.at.saturating_sub(self.idle_since?) >= BEFORE_DROP;
        let file = look.file.filter(|file| file.get() >= LEAST_CACHE)?;
        let drops = rested && self.margins.keep_alive && self.grant.is_some() && !self.dropped;
        drops.then(|| {
            self.dropped = true;
            file
        })
    }
}

/// Limits are kept in pages.
const PAGE: u64 = 4096;
/// Larger than any host's memory.
const LARGEST_LIMIT: u64 = 1 << 60;

/// The distance to the grant of a function that needs so much at most.
pub fn pad_of(most: Bytes, margins: &Margins) -> Bytes {
    let share = (most.get() / PAD_SHARE).min(LARGEST_PAD);
    margins.pad.max(Bytes::new(share))
}

/// The static grant for such a need: it holds the need and a pad.
pub fn largest_of(most: Bytes, margins: &Margins) -> Bytes {
    let pad = pad_of(most, margins).get().max(most.get() / 20);
    Bytes::new(most.get().saturating_add(pad))
}
