//! The phases of the life of one container: what its requests touch, and what of its memory goes out and comes back
//! (`policy::placement::life`).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::rests::Rests;
use super::touches::{COST, COST_AT_RATIO, Touches};
use super::{LATER, LOOK, Task};
use crate::kernel::cgroup::Cgroup;
use crate::model::Bytes;
use crate::model::placed::Seen;
use crate::model::placement::{LifeCycle, LocalRatio, Placement};
use crate::model::trace::Phase;
use crate::policy::placement::life::{Decision, Requests, View, decide, reuse, wished};
use crate::policy::placement::{Goal, Heat};

/// What a request has left running is over then.
const AFTER_END: Duration = Duration::from_millis(100);
/// A container that was thawed and does nothing for so long is idle.
const UNEXPECTED: Duration = Duration::from_secs(10);

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
    /// Whether nothing else counts as one, as at a ratio that somebody has set: there nobody asked for them to be watched.
    only_told: bool,
    /// Whether a request was begun, by somebody who will say when it ends.
    is_in_request: bool,
    /// Whether something ran since it was found out what was touched.
    has_run: bool,
    /// When that is to be found out next.
    due: Option<Instant>,
    touches: Touches,
    rests: Rests,
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
    /// Pages that went out, and that came back.
    out: u64,
    back: u64,
    /// Steps that it has taken since it is idle, and why it is as it is.
    step: u16,
    because: String,
}

impl Life {
    /// That of a container of whose memory some is remote and some local; none where nothing depends on it.
    pub(super) fn of(placement: &Placement, urgent: Arc<AtomicBool>) -> Option<Self> {
        let is_between = |target| target != LocalRatio::LOCAL && target != LocalRatio::REMOTE;
        if placement.life.is_none() && !placement.target.is_some_and(is_between) {
            return None;
        }
        let cost = match placement.life {
            Some(_) => COST,
            None => COST_AT_RATIO,
        };
        let now = Instant::now();
        Some(Self {
            cycle: placement.life,
            phase: Phase::Init,
            since: now,
            is_told: false,
            only_told: placement.life.is_none() && !placement.is_learned,
            is_in_request: false,
            has_run: false,
            due: None,
            touches: Touches::new(cost, urgent),
            rests: Rests::default(),
            bandwidth: placement.bandwidth,
            was_frozen: false,
            is_expected: false,
            done: None,
            is_warmth_out: false,
            search: Duration::ZERO,
            search_not_before: now,
            out: 0,
            back: 0,
            step: 0,
            because: String::new(),
        })
    }

    /// Which pages are hot, once that is known.
    pub(super) fn heat(&self) -> Option<&Heat> {
        (self.requests().count > 0).then_some(self.touches.heat())
    }

    /// What its requests have told.
    pub(super) fn requests(&self) -> &Requests {
        self.touches.requests()
    }

    /// After how many requests what they touch is known, if that is so and none runs.
    pub(super) fn known_at_rest(&self) -> Option<u32> {
        let is_known = self.phase == Phase::KeepAlive && self.requests().is_settled();
        is_known.then_some(self.requests().count)
    }

    pub(super) fn has_cycle(&self) -> bool {
        self.cycle.is_some()
    }

    /// What became of it.
    pub(super) fn lived(&self) -> Lived {
        let (touched, untouched) = self.touches.amount();
        let (predicted, early) = self.rests.predictions();
        Lived {
            phase: self.phase,
            requests: self.requests().count,
            touched,
            untouched,
            out: self.out,
            back: self.back,
            step: self.step,
            look_us: u64::try_from(self.touches.took().as_micros()).unwrap_or(u64::MAX),
            because: self.because.clone(),
            predicted,
            early,
            expected: self.rests.expected().to_owned(),
        }
    }

    /// What later runs want to know.
    pub(super) fn seen(&self) -> Seen {
        let is_settled = self.requests().is_settled();
        Seen {
            touched: is_settled.then(|| self.touches.heat().share()).flatten(),
            rests: reuse(self.rests.known()),
        }
    }

    fn enter(&mut self, phase: Phase, since: Instant) {
        self.phase = phase;
        self.since = since;
    }

    /// Takes note of what happens; in how long that calls for a look, if it does.
    pub(super) fn take(&mut self, event: Event, cgroup: &Cgroup) -> Option<Duration> {
        let now = Instant::now();
        let before = self.phase;
        match event {
            Event::Begin => {
                self.is_in_request = true;
                let was_told = std::mem::replace(&mut self.is_told, true);
                self.awake(now);
                if !was_told {
                    // What ran before was no request: this is the barrier.
                    self.rests.forget();
                    self.touches.begin_anew(cgroup);
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
        if before == Phase::Init && self.phase != Phase::Init && self.is_watched() {
            // The barrier: what is touched from now on is touched by requests.
            self.touches.forget(cgroup);
            self.has_run = self.phase == Phase::Execution;
        }
        let until = |due: Instant| due.saturating_duration_since(now);
        // A ratio is as good as before.
        let is_worth_a_look = self.has_cycle() || self.due.is_some();
        (self.phase != before && is_worth_a_look).then(|| self.due.map_or(Duration::ZERO, until))
    }

    fn awake(&mut self, now: Instant) {
        // Where requests are told of, nothing else counts as one, such as a timer of the function.
        let is_request = !self.is_told || self.is_in_request;
        self.rests.works(now, is_request);
        if self.phase != Phase::Execution {
            self.enter(Phase::Execution, now);
        }
        self.has_run |= is_request && self.is_watched();
        self.due = None;
    }

    /// Whether what it touches is found out. If not, nothing of it is read.
    fn is_watched(&self) -> bool {
        self.is_told || !self.only_told
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
        let is_after_request = self.phase == Phase::Execution && !self.rests.is_under_way();
        self.enter(Phase::KeepAlive, now);
        if is_after_request {
            let (touched, _) = self.touches.amount();
            let returning = returning(touched, self.bandwidth, self.search);
            self.rests.begin(now, returning);
        }
        if self.has_run {
            self.due = Some(now + pause);
        }
    }

    /// Finds out what the requests have touched since the last time, if that is due and worth it.
    pub(super) fn find_out(&mut self, cgroup: &Cgroup) {
        let now = Instant::now();
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due && self.phase == Phase::KeepAlive && self.touches.find_out(cgroup, now) {
            self.due = None;
            self.has_run = false;
        }
    }

    fn decide(&mut self, size: Bytes) -> Option<Decision> {
        let decision = decide(&View {
            cycle: self.cycle.as_ref()?,
            phase: self.phase,
            since: self.since.elapsed(),
            requests: self.touches.requests(),
            rested: self.rests.elapsed(),
            arrival: self.rests.arrival(),
            reuse: reuse(self.rests.known()),
            size,
        });
        self.step = decision.step;
        if decision.is_away {
            self.rests.is_away();
        }
        self.because = match self.touches.no_means() {
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
            true => &mut self.out,
            false => &mut self.back,
        };
        *sum = sum.saturating_add(pages);
    }
}

/// How long it takes until so much is back, with a search that takes so long.
fn returning(touched: Bytes, bandwidth: Bytes, search: Duration) -> Duration {
    let bytes = touched.get().saturating_mul(1_000_000);
    let micros = bytes.checked_div(bandwidth.get().max(1));
    // The next look begins it.
    LOOK + search + Duration::from_micros(micros.unwrap_or_default())
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
        let wanted = (life.requests().count, decision.step, decision.is_away);
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
            let mut queue = wished(&units, &goal, life.touches.heat(), &wish);
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
    use crate::policy::placement::arrivals::expected;

    const SECOND: Duration = Duration::from_secs(1);

    fn placement() -> Placement {
        Placement {
            means: crate::model::placement::Means::Correction,
            target: None,
            is_learned: false,
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
        }
    }

    fn life() -> Life {
        Life::of(&placement(), Arc::default()).unwrap()
    }

    fn at_a_ratio(is_learned: bool) -> Life {
        let placement = Placement {
            target: LocalRatio::of(1, 1),
            is_learned,
            life: None,
            ..placement()
        };
        Life::of(&placement, Arc::default()).unwrap()
    }

    fn begin(life: &mut Life, at: Instant) {
        (life.is_in_request, life.is_told) = (true, true);
        life.awake(at);
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
        assert_eq!(life.rests.known(), [60 * SECOND; 5]);
        assert_eq!(life.lived().expected, "expected 60s after the last one");
        let arrival = life.rests.arrival().unwrap();
        assert_eq!((arrival.ready, arrival.back), (54 * SECOND, 53 * SECOND));
        // Nobody tells of requests: each activity is one.
        let mut other = self::life();
        for after in 1..=8 {
            other.rest(at + after * 40 * SECOND, Duration::ZERO);
            other.awake(at + after * 40 * SECOND + 35 * SECOND);
        }
        assert_eq!(other.rests.known(), [35 * SECOND; 7]);
    }

    #[test]
    fn what_takes_long_to_come_back_begins_earlier() {
        // 20 MiB at 1 MiB a second, the search, and the look before it.
        let returning = returning(Bytes::new(20 << 20), Bytes::new(1 << 20), SECOND);
        assert_eq!(returning, 22 * SECOND);
        let arrival = expected(&[100 * SECOND; 5], returning).unwrap();
        assert_eq!(arrival.back, 90 * SECOND - 22 * SECOND);
    }

    #[test]
    fn at_a_ratio_that_was_set_nothing_is_read_for_requests_that_nobody_tells_of() {
        // A control group of which nothing can be found out: whoever tries gives up.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cgroup.procs"), "2147483647\n").unwrap();
        let cgroup = Cgroup {
            version: crate::kernel::cgroup::Version::V2,
            directories: vec![crate::kernel::cgroup::Directory {
                controllers: String::new(),
                path: folder.path().to_path_buf(),
            }],
        };
        if crate::kernel::touched::can_tell().is_err() {
            return;
        }
        let works = |life: &mut Life| {
            let events = [Event::Rests, Event::Works, Event::Rests];
            events.map(|event| life.take(event, &cgroup))
        };
        let mut fixed = at_a_ratio(false);
        for _ in 0..4 {
            assert_eq!(works(&mut fixed), [None; 3], "not even out of turn");
        }
        assert_eq!((fixed.due, fixed.has_run), (None, false));
        assert_eq!(fixed.touches.no_means(), None);
        // Somebody tells of one.
        fixed.take(Event::Begin, &cgroup);
        assert!(fixed.touches.no_means().is_some() && fixed.has_run);
        assert!(fixed.take(Event::End, &cgroup).is_some());
        // A policy that goes by runs watches them all.
        let mut learned = at_a_ratio(true);
        works(&mut learned);
        assert!(learned.touches.no_means().is_some() && learned.due.is_some());
    }
}
