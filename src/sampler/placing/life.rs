//! The phases of the life of one container: what its requests touch, and what of its memory goes out and comes back
//! (`policy::placement::life`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{LATER, LOOK, Task, hotness};
use crate::kernel::cgroup::Cgroup;
use crate::kernel::touched;
use crate::model::Bytes;
use crate::model::duration::text;
use crate::model::placed::Seen;
use crate::model::placement::{LifeCycle, LocalRatio, Placement};
use crate::model::trace::Phase;
use crate::policy::placement::arrivals::{Arrival, expected};
use crate::policy::placement::life::{Decision, RECENT, Requests, View, decide, reuse, wished};
use crate::policy::placement::{Goal, Heat, Span};

/// What a request has left running is over then.
const AFTER_END: Duration = Duration::from_millis(100);
/// A container that was thawed and does nothing for so long is idle.
const UNEXPECTED: Duration = Duration::from_secs(10);
/// Finding out what was touched takes no more than one part of so many of the time.
const COST: u32 = 100;
/// And of a container with a ratio, once it is known, one of so many: at its ratio it is to cost next to nothing.
const COST_AT_RATIO: u32 = 10_000;
/// The newest rests are remembered.
const MOST_RESTS: usize = 128;

/// What a container does, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sampler) enum Event {
    /// A request begins: somebody says so.
    Begin,
    /// It ends.
    End,
    /// It uses the processor again.
    Works,
    /// It does not, for a while.
    Rests,
    /// Its limit is left to us again, as after a pause.
    Released,
}

/// What became of the memory of a container in the phases of its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lived {
    /// What it does.
    pub phase: Phase,
    /// Requests after which was found out what they touched.
    pub requests: u32,
    /// Memory that any of the last four touched.
    pub touched: Bytes,
    /// Memory that none of them did.
    pub untouched: Bytes,
    /// Pages that went out.
    pub out: u64,
    /// Pages that came back.
    pub back: u64,
    /// Steps that it has taken since it is idle.
    pub step: u16,
    /// How long it took to find out what was touched, the last time, in microseconds.
    pub look_us: u64,
    /// Why it is as it is.
    pub because: String,
    /// Rests in which what requests touch went out until the next one was expected.
    #[serde(default)]
    pub predicted: u32,
    /// Of these, rests that were over before it was back.
    #[serde(default)]
    pub early: u32,
    /// When the next request is expected, or why that is not known.
    #[serde(default)]
    pub expected: String,
}

/// The life of one container.
#[derive(Debug)]
pub(super) struct Life {
    /// None for a ratio: then only which pages are hot is found out.
    cycle: Option<LifeCycle>,
    phase: Phase,
    since: Instant,
    /// Whether somebody tells of requests.
    is_told: bool,
    /// Whether a request was begun, by somebody who will say when it ends.
    is_in_request: bool,
    /// Whether something ran since it was found out what was touched.
    has_run: bool,
    /// When that is to be found out next, and when at the earliest.
    due: Option<Instant>,
    not_before: Instant,
    heat: Heat,
    /// Where it is not known well enough.
    mixed: Vec<Span>,
    requests: Requests,
    rests: Vec<Duration>,
    /// When the last request was over, as long as there is no other.
    rested: Option<Instant>,
    /// When the next one is expected.
    arrival: Option<Arrival>,
    /// What requests touch went out in this rest, and is to be back when so much of it has passed.
    away: Option<Duration>,
    /// At most so much is moved per second.
    bandwidth: Bytes,
    was_frozen: bool,
    /// Whether it was thawed and has not used the processor since.
    is_expected: bool,
    /// For how many requests, which step, and whether until the next request, an idle container was searched last: until
    /// that changes it is not again.
    done: Option<(u32, u16, bool)>,
    /// Whether an idle container has given up what the next request needs.
    is_warmth_out: bool,
    /// How long the last search took, and when the next one may be at the earliest.
    search: Duration,
    search_not_before: Instant,
    /// Why nothing can be found out.
    no_means: Option<String>,
    lived: Lived,
    /// Something happened that is more urgent than finding out what was touched.
    urgent: Arc<AtomicBool>,
}

impl Life {
    /// That of a container of whose memory some is remote and some local; none where nothing depends on it.
    pub(super) fn of(placement: &Placement, urgent: Arc<AtomicBool>) -> Option<Self> {
        let is_between = |target| target != LocalRatio::LOCAL && target != LocalRatio::REMOTE;
        if placement.life.is_none() && !placement.target.is_some_and(is_between) {
            return None;
        }
        let no_means = touched::can_tell().err();
        if let Some(reason) = &no_means {
            tracing::info!(reason, "which pages are touched cannot be found out");
        }
        let now = Instant::now();
        Some(Self {
            cycle: placement.life,
            phase: Phase::Init,
            since: now,
            is_told: false,
            is_in_request: false,
            has_run: false,
            due: None,
            not_before: now,
            heat: Heat::default(),
            mixed: Vec::new(),
            requests: Requests::default(),
            rests: Vec::new(),
            rested: None,
            arrival: None,
            away: None,
            bandwidth: placement.bandwidth,
            was_frozen: false,
            is_expected: false,
            done: None,
            is_warmth_out: false,
            search: Duration::ZERO,
            search_not_before: now,
            no_means,
            lived: Lived {
                phase: Phase::Init,
                requests: 0,
                touched: Bytes::ZERO,
                untouched: Bytes::ZERO,
                out: 0,
                back: 0,
                step: 0,
                look_us: 0,
                because: String::new(),
                predicted: 0,
                early: 0,
                expected: String::new(),
            },
            urgent,
        })
    }

    /// Which pages are hot, once that is known.
    pub(super) fn heat(&self) -> Option<&Heat> {
        (self.requests.count > 0).then_some(&self.heat)
    }

    /// What its requests have told.
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// After how many requests what they touch is known, if that is so and none runs.
    pub(super) fn known_at_rest(&self) -> Option<u32> {
        let is_known = self.phase == Phase::KeepAlive && self.requests.is_settled();
        is_known.then_some(self.requests.count)
    }

    pub(super) fn has_cycle(&self) -> bool {
        self.cycle.is_some()
    }

    /// What became of it.
    pub(super) fn lived(&self) -> Lived {
        self.lived.clone()
    }

    /// What later runs want to know.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            touched: self
                .requests
                .is_settled()
                .then(|| self.heat.share())
                .flatten(),
            rests: reuse(&self.rests),
        }
    }

    fn enter(&mut self, phase: Phase, since: Instant) {
        self.phase = phase;
        self.since = since;
        self.lived.phase = phase;
    }

    /// Takes note of what happens; in how long that calls for a look, if it does.
    pub(super) fn take(&mut self, event: Event, cgroup: &Cgroup) -> Option<Duration> {
        let now = Instant::now();
        let before = self.phase;
        match event {
            Event::Begin => {
                self.is_in_request = true;
                self.awake(now);
                if !std::mem::replace(&mut self.is_told, true) {
                    // What ran before was no request: this is the barrier.
                    self.heat = Heat::default();
                    self.requests = Requests::default();
                    self.rests.clear();
                    self.mixed.clear();
                    self.forget(cgroup);
                }
            }
            Event::Works if self.phase == Phase::KeepAlive => self.awake(now),
            Event::Works => self.is_expected = false,
            Event::End => {
                self.is_in_request = false;
                self.rest(now, AFTER_END);
            }
            // Between begin and end it waits for something, and does not rest.
            Event::Rests if !self.is_in_request => self.rest(now, Duration::ZERO),
            Event::Released if self.was_frozen && !cgroup.is_frozen() => {
                self.was_frozen = false;
                self.thawed(now);
            }
            Event::Rests | Event::Released => {}
        }
        if before == Phase::Init && self.phase != Phase::Init {
            // The barrier: what is touched from now on is touched by requests.
            self.forget(cgroup);
            self.has_run = self.phase == Phase::Execution;
        }
        let until = |due: Instant| due.saturating_duration_since(now);
        (self.phase != before).then(|| self.due.map_or(Duration::ZERO, until))
    }

    fn awake(&mut self, now: Instant) {
        // Where requests are told of, nothing else counts as one, such as a timer of the function.
        let is_request = !self.is_told || self.is_in_request;
        if is_request && let Some(rested) = self.rested.take() {
            self.rested_for(now.saturating_duration_since(rested));
        } else if self.away.is_some() {
            // What comes back for it stays.
            self.arrival = None;
        }
        if self.phase != Phase::Execution {
            self.enter(Phase::Execution, now);
        }
        self.has_run |= is_request;
        self.due = None;
    }

    fn rested_for(&mut self, rest: Duration) {
        if self.rests.len() >= MOST_RESTS {
            self.rests.remove(0);
        }
        self.rests.push(rest);
        self.arrival = None;
        if let Some(ready) = self.away.take() {
            self.lived.predicted = self.lived.predicted.saturating_add(1);
            if rest < ready {
                self.lived.early = self.lived.early.saturating_add(1);
            }
        }
    }

    /// When the next request is expected, in the rest that begins now.
    fn expect(&mut self) {
        let bytes = self.lived.touched.get().saturating_mul(1_000_000);
        let micros = bytes.checked_div(self.bandwidth.get().max(1));
        // It is looked for first, by the next look.
        let returning = LOOK + self.search + Duration::from_micros(micros.unwrap_or_default());
        let found = expected(&self.rests, returning);
        self.lived.expected = match &found {
            Ok(arrival) => format!("expected {} after the last one", text(arrival.head)),
            Err(reason) => reason.clone(),
        };
        self.arrival = found.ok();
    }

    /// Whoever thaws a container has something for it to do.
    fn thawed(&mut self, now: Instant) {
        self.awake(now);
        self.is_expected = true;
    }

    fn rest(&mut self, now: Instant, pause: Duration) {
        if self.phase == Phase::KeepAlive {
            return;
        }
        let is_after_request = self.phase == Phase::Execution && self.rested.is_none();
        self.enter(Phase::KeepAlive, now);
        if is_after_request {
            self.rested = Some(now);
            self.expect();
        }
        if self.has_run {
            self.due = Some(now + pause);
        }
    }

    fn forget(&mut self, cgroup: &Cgroup) {
        if self.no_means.is_some() {
            return;
        }
        let done = cgroup
            .processes()
            .map_err(|err| crate::runtime::chain(&err))
            .and_then(|processes| hotness::forget(&processes));
        if let Err(reason) = done {
            self.give_up(reason);
        }
    }

    fn give_up(&mut self, reason: String) {
        tracing::warn!(reason, "which pages are touched cannot be found out");
        self.no_means = Some(reason);
    }

    /// Finds out what the requests have touched since the last time, if that is due and worth it.
    pub(super) fn find_out(&mut self, cgroup: &Cgroup) {
        let now = Instant::now();
        // As long as it is not known what requests touch, each one is worth it.
        let may = self.not_before <= now || !self.requests.is_settled();
        let is_due = may && self.due.is_some_and(|due| due <= now);
        if !is_due || self.phase != Phase::KeepAlive || self.no_means.is_some() {
            return;
        }
        self.urgent.store(false, Ordering::Relaxed);
        let found = cgroup
            .processes()
            .map_err(|err| crate::runtime::chain(&err))
            .and_then(|processes| {
                let known = hotness::Known {
                    heat: &self.heat,
                    request: self.requests.count,
                    mixed: &self.mixed,
                    is_wanted: &|| !self.urgent.load(Ordering::Relaxed),
                };
                hotness::look(&processes, &known)
            });
        let found = match found {
            Ok(found) => found,
            Err(reason) => return self.give_up(reason),
        };
        let cost = match self.cycle {
            Some(_) => COST,
            None => COST_AT_RATIO,
        };
        self.not_before = now + found.took * cost;
        self.lived.look_us = u64::try_from(found.took.as_micros()).unwrap_or(u64::MAX);
        let request = self.requests.count.saturating_add(1);
        if !found.is_complete {
            // What was found touched was; of the rest the kernel still knows.
            let touched = found.spans.iter().filter(|(_, touched)| *touched);
            let touched: Vec<Span> = touched.map(|(span, _)| *span).collect();
            self.heat.touched(request, &touched);
            return;
        }
        self.heat.learn(request, &found.spans);
        self.mixed = found.mixed;
        self.due = None;
        self.has_run = false;
        self.forget(cgroup);
        self.requests.add(self.heat.pages(0).0);
        let recent = self.requests.count.saturating_sub(RECENT - 1);
        let (touched, untouched) = self.heat.pages(recent);
        self.lived.requests = self.requests.count;
        let size = crate::kernel::pages::size();
        self.lived.touched = Bytes::new(touched.saturating_mul(size));
        self.lived.untouched = Bytes::new(untouched.saturating_mul(size));
        tracing::debug!(
            request,
            touched,
            untouched,
            took = ?found.took,
            "what a request has touched"
        );
    }

    fn decide(&mut self, size: Bytes) -> Option<Decision> {
        let decision = decide(&View {
            cycle: self.cycle.as_ref()?,
            phase: self.phase,
            since: self.since.elapsed(),
            requests: &self.requests,
            rested: self.rested.map(|rested| rested.elapsed()),
            arrival: self.arrival.as_ref(),
            reuse: reuse(&self.rests),
            size,
        });
        self.lived.step = decision.step;
        if decision.is_away {
            self.away = self.arrival.map(|arrival| arrival.ready);
        }
        self.lived.because = match &self.no_means {
            Some(reason) => format!("which pages are touched cannot be found out: {reason}"),
            None => decision.because.clone(),
        };
        Some(decision)
    }

    /// Moves that were not made any more, when the phase changed.
    pub(super) fn interrupted(&mut self) {
        self.done = None;
        self.is_warmth_out = true;
        // Requests that follow each other at once are not to cost a search each.
        self.search_not_before = Instant::now() + self.search * COST;
    }

    /// Counts pages that were moved.
    pub(super) fn count(&mut self, pages: u64, is_out: bool) {
        let sum = match is_out {
            true => &mut self.lived.out,
            false => &mut self.lived.back,
        };
        *sum = sum.saturating_add(pages);
    }
}

impl Task {
    /// A look at a container that is placed by the phases of its life.
    pub(super) fn live(&mut self, near: u64, far: u64) -> Duration {
        let size = Bytes::new(near.saturating_add(far));
        let Some(life) = &mut self.life else {
            return LOOK;
        };
        let is_frozen = self.cgroup.is_frozen();
        if std::mem::replace(&mut life.was_frozen, is_frozen) && !is_frozen {
            life.thawed(Instant::now());
        }
        if life.is_expected && life.since.elapsed() > UNEXPECTED {
            (life.is_expected, life.has_run) = (false, false);
            life.rest(Instant::now(), Duration::ZERO);
        }
        let Some(decision) = life.decide(size) else {
            return LOOK;
        };
        let wish = decision.wish;
        let wanted = (life.requests.count, decision.step, decision.is_away);
        let is_due = match life.phase {
            // A request costs a search only if there is something to bring back.
            Phase::Execution => life.is_warmth_out && wish.back.is_some() && far > 0,
            _ => {
                let has_work =
                    wish.back.is_some_and(|_| far > 0) || wish.out.is_some_and(|_| near > 0);
                let may = life.search_not_before <= Instant::now();
                has_work && may && life.done != Some(wanted)
            }
        };
        if self.done == 0 && !is_due {
            self.placed.why = None;
            return LOOK;
        }
        match life.phase {
            Phase::Execution => life.is_warmth_out = false,
            _ => {
                life.done = Some(wanted);
                life.is_warmth_out |= decision.step > 0 || decision.is_away;
            }
        }
        let begun = Instant::now();
        let Some(units) = self.search() else {
            return LATER;
        };
        let goal = Goal {
            target: LocalRatio::LOCAL,
            local: &self.placement.local,
            remote: &self.placement.remote,
            weights: &self.weights,
            heat: None,
        };
        if let Some(life) = &mut self.life {
            life.search = begun.elapsed();
            let mut queue = wished(&units, &goal, &life.heat, &wish);
            // What comes back goes first, and a call goes to one node; of those the order stays.
            let remote = &self.placement.remote;
            queue.sort_by_key(|found| (remote.contains(found.to), found.unit.process, found.to));
            self.queue = queue.into();
        }
        match self.queue.is_empty() {
            // Another part, if there is one.
            true if self.done > 0 => Duration::ZERO,
            true => LOOK,
            false => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn life() -> Life {
        let placement = Placement {
            means: crate::model::placement::Means::Correction,
            target: None,
            life: Some(LifeCycle {
                least: LocalRatio::REMOTE,
                semi_warm_after: None,
            }),
            policy: None,
            local: "0".parse().unwrap(),
            remote: "1".parse().unwrap(),
            relies_on: None,
            wants: None,
            bandwidth: Bytes::new(1 << 20),
            reasons: Vec::new(),
        };
        Life::of(&placement, Arc::default()).unwrap()
    }

    fn begin(life: &mut Life, at: Instant) {
        life.is_in_request = true;
        life.awake(at);
        life.is_told = true;
    }

    fn end(life: &mut Life, at: Instant) {
        life.is_in_request = false;
        life.rest(at, AFTER_END);
    }

    #[test]
    fn rests_are_the_times_between_requests_that_are_told_of() {
        let (mut life, mut at) = (life(), Instant::now());
        life.rest(at, Duration::ZERO);
        for _ in 0..6 {
            at += 60 * SECOND;
            begin(&mut life, at);
            at += SECOND;
            end(&mut life, at);
            // What it leaves to be done, and a timer.
            for after in [1, 30] {
                life.awake(at + after * SECOND);
                life.rest(at + after * SECOND + SECOND, Duration::ZERO);
            }
        }
        // The time before the first one is none.
        assert_eq!(life.rests, [60 * SECOND; 5]);
        assert_eq!(life.lived.expected, "expected 60s after the last one");
        let arrival = life.arrival.unwrap();
        assert_eq!((arrival.ready, arrival.back), (54 * SECOND, 53 * SECOND));
        // Nobody tells of requests: each activity is one.
        let mut other = self::life();
        for after in 1..=8 {
            other.rest(at + after * 40 * SECOND, Duration::ZERO);
            other.awake(at + after * 40 * SECOND + 35 * SECOND);
        }
        assert_eq!(other.rests, [35 * SECOND; 7]);
    }

    #[test]
    fn what_takes_long_to_come_back_begins_earlier() {
        let (mut life, at) = (life(), Instant::now());
        life.rests = vec![100 * SECOND; 5];
        life.lived.touched = Bytes::new(20 << 20);
        life.search = SECOND;
        begin(&mut life, at);
        end(&mut life, at + SECOND);
        // 20 MiB at 1 MiB a second, the search, and the look before it.
        assert_eq!(life.arrival.unwrap().back, 90 * SECOND - 22 * SECOND);
    }

    #[test]
    fn a_request_that_comes_too_early_is_counted() {
        let (mut life, at) = (life(), Instant::now());
        life.rests = vec![60 * SECOND; 20];
        for (rest, early) in [(60, 0), (54, 0), (53, 1)] {
            begin(&mut life, at);
            end(&mut life, at);
            assert!(life.arrival.is_some());
            life.away = life.arrival.map(|arrival| arrival.ready);
            begin(&mut life, at + rest * SECOND);
            assert_eq!(life.lived.early, early);
            end(&mut life, at + rest * SECOND);
            life.rested = None;
            life.enter(Phase::Execution, at);
        }
        assert_eq!(life.lived.predicted, 3);
        // What came back for something else stays until the request.
        end(&mut life, at);
        life.away = life.arrival.map(|arrival| arrival.ready);
        life.awake(at + 5 * SECOND);
        assert_eq!(life.arrival, None);
        life.rest(at + 6 * SECOND, Duration::ZERO);
        assert_eq!(life.arrival, None);
        begin(&mut life, at + 20 * SECOND);
        assert_eq!((life.lived.predicted, life.lived.early), (4, 2));
    }
}
