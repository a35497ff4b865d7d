use std::time::Duration;

use super::harm::limit_of;
use super::*;
use crate::model::plan::{Clock, Forecast, Foresight};
use crate::model::profile::Hull;

const MIB: u64 = 1 << 20;

fn mib(n: u64) -> Bytes {
    Bytes::new(n * MIB)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn margins() -> Margins {
    Margins {
        pad: mib(8),
        lead: ms(20),
        settle: ms(50),
        hold: Duration::from_secs(10),
        keep_alive: true,
    }
}

/// Elastic below 512 MiB, for a function that used 100 MiB for a second.
fn plan(mode: Mode) -> Plan {
    let most = mib(100);
    Plan {
        mode,
        ceiling: Some(mib(512)),
        lowered: None,
        set: None,
        above: None,
        grant: None,
        floor: Bytes::ZERO,
        largest: Some(largest_of(most, &margins())),
        class: None,
        margins: margins(),
        forecast: Some(Forecast {
            clock: Clock::Wall,
            trusted: true,
            foresight: Foresight::About,
            hull: Hull {
                bins: vec![most; 50],
                ..Hull::default()
            },
            most,
            jump: mib(5),
            burst: mib(20),
            bins: None,
            classes: [("large", 100), ("small", 20)]
                .map(|(name, most)| (name.parse().unwrap(), mib(most)))
                .into(),
        }),
        reasons: Vec::new(),
    }
}

struct Container {
    guard: Guard,
    at: u64,
    look: Look,
}

impl Container {
    fn new(plan: &Plan) -> Self {
        let declared = plan.ceiling.map_or(MemoryLimit::None, limit_of);
        Self {
            guard: Guard::new(plan, declared, 0),
            at: 0,
            look: Look::default(),
        }
    }

    /// Looks every 2 ms for so long, and returns the last step that says anything.
    fn uses(&mut self, usage: u64, millis: u64) -> Step {
        let mut last = Step::default();
        for _ in 0..millis / 2 {
            self.at += 2;
            self.look.at = ms(self.at);
            self.look.usage = mib(usage);
            let step = self.guard.look(&self.look);
            if step != Step::default() {
                last = step;
            }
            self.look.limit = None;
        }
        last
    }

    fn grant(&self) -> Option<u64> {
        self.guard.grant().map(Bytes::mib_up)
    }
}

#[test]
fn a_grant_keeps_its_distance() {
    let mut container = Container::new(&plan(Mode::Elastic));
    container.uses(10, 2);
    assert_eq!(container.grant(), Some(18));
    // It rises at once, and more where it grows fast: 5 MiB in 2 ms are 10 in the 4 ms of a reaction.
    container.uses(15, 2);
    assert_eq!(container.grant(), Some(25));
    // It falls once less has been enough for a while, which begins when the growth is forgotten.
    container.uses(15, 90);
    assert_eq!(container.grant(), Some(25));
    container.uses(15, 40);
    assert_eq!(container.grant(), Some(23));
    // Within what is known it is never above the static grant.
    container.uses(99, 2);
    assert_eq!(container.grant(), Some(108));
}

#[test]
fn what_may_come_at_once_has_room_before_it_comes() {
    let mut plan = plan(Mode::Elastic);
    let forecast = plan.forecast.as_mut().unwrap();
    (forecast.jump, forecast.burst) = (mib(16), mib(60));
    let mut container = Container::new(&plan);
    // A quarter more than within 4 ms.
    container.uses(10, 2);
    assert_eq!(container.grant(), Some(30));
    // The more the later looks are: 16 ms.
    container.at += 6;
    container.uses(10, 2);
    assert_eq!(container.grant(), Some(72));
}

#[test]
fn what_never_comes_at_such_a_time_has_no_room() {
    let mut plan = plan(Mode::Elastic);
    let forecast = plan.forecast.as_mut().unwrap();
    (forecast.jump, forecast.burst) = (mib(16), mib(60));
    // 20 MiB for 200 ms.
    for bin in forecast.hull.bins.iter_mut().take(10) {
        *bin = mib(20);
    }
    let mut container = Container::new(&plan);
    container.uses(20, 60);
    assert_eq!(container.grant(), Some(28));
    // What the others used is no news at any time,
    let mut other = Container::new(&plan);
    other.uses(4, 60);
    assert_eq!(other.grant(), Some(20));
    // and where runs are not like each other it may come whenever it likes.
    plan.forecast.as_mut().unwrap().foresight = Foresight::None;
    let mut container = Container::new(&plan);
    container.uses(20, 60);
    assert_eq!(container.grant(), Some(40));
}

#[test]
fn a_rise_that_is_foreseen_is_granted_before_it_comes() {
    let mut plan = plan(Mode::Elastic);
    let forecast = plan.forecast.as_mut().unwrap();
    forecast.burst = mib(40);
    // 20 MiB for 200 ms, then 60.
    for (number, bin) in forecast.hull.bins.iter_mut().enumerate() {
        *bin = mib(if number < 10 { 20 } else { 60 });
    }
    let mut container = Container::new(&plan);
    container.uses(20, 100);
    assert_eq!(container.grant(), Some(28));
    // All of it, and no more than they ever grew at once.
    container.uses(20, 80);
    assert_eq!(container.grant(), Some(60));
    // Whoever is on the way there has the rest of it,
    let mut other = Container::new(&plan);
    other.uses(45, 180);
    assert_eq!(other.grant(), Some(60));
    // and beyond it says nothing,
    let mut other = Container::new(&plan);
    other.uses(80, 180);
    assert_eq!(other.grant(), Some(88));
    // but for runs that do not grow as the others foresee: what they used then may come now.
    plan.forecast.as_mut().unwrap().foresight = Foresight::None;
    let mut other = Container::new(&plan);
    other.uses(20, 100);
    assert_eq!(other.grant(), Some(28));
    other.uses(20, 300);
    assert_eq!(other.grant(), Some(60));
}

#[test]
fn a_steady_run_is_granted_at_its_time_unless_it_is_fast() {
    let mut plan = plan(Mode::Elastic);
    let forecast = plan.forecast.as_mut().unwrap();
    (forecast.jump, forecast.burst) = (mib(16), mib(40));
    forecast.foresight = Foresight::Steady;
    // 20 MiB for 800 ms, 60 for 200 ms, then 100.
    let levels = [(20, 40), (60, 10), (100, 10)];
    let bins = levels.map(|(level, bins)| vec![mib(level); bins]);
    forecast.hull.bins = bins.concat();
    let mut container = Container::new(&plan);
    container.uses(20, 680);
    assert_eq!(container.grant(), Some(28));
    // What may come soon,
    container.uses(20, 40);
    assert_eq!(container.grant(), Some(40));
    // and what comes now.
    container.uses(20, 25);
    assert_eq!(container.grant(), Some(60));
    // A run that has its 60 MiB long before the others had is faster than those: it may have 100 at any time.
    let mut fast = Container::new(&plan);
    fast.uses(60, 600);
    assert_eq!(fast.grant(), Some(80));
}

#[test]
fn a_run_that_leaves_its_hull_below_the_peak_is_told_of_once() {
    let note = Note::Early {
        usage: mib(40),
        known: mib(20),
    };
    let early = |mode, foresight| {
        let mut plan = plan(mode);
        let forecast = plan.forecast.as_mut().unwrap();
        forecast.foresight = foresight;
        // 20 MiB for 800 ms, then 100.
        forecast.hull.bins = [vec![mib(20); 40], vec![mib(100); 10]].concat();
        let mut container = Container::new(&plan);
        assert_eq!(container.uses(26, 200).note, None, "about as much");
        let told = container.uses(40, 2).note;
        assert_eq!(container.uses(40, 300).note, None, "once");
        told
    };
    for mode in [Mode::Replay, Mode::Elastic] {
        assert_eq!(early(mode, Foresight::Steady), Some(note), "{mode}");
        assert_eq!(early(mode, Foresight::About), Some(note), "{mode}");
        assert_eq!(early(mode, Foresight::None), None, "{mode}");
    }
    assert_eq!(early(Mode::Static, Foresight::Steady), None);
}

#[test]
fn a_static_grant_stays() {
    let mut container = Container::new(&plan(Mode::Static));
    container.uses(10, 2);
    assert_eq!(container.grant(), Some(108));
    container.uses(99, 50);
    container.uses(5, 500);
    assert_eq!(container.grant(), Some(108));
}

#[test]
fn a_replayed_grant_follows_the_hull_and_the_guard() {
    let mut plan = plan(Mode::Replay);
    let forecast = plan.forecast.as_mut().unwrap();
    // 10 MiB for 200 ms, then 100.
    for bin in forecast.hull.bins.iter_mut().take(10) {
        *bin = mib(10);
    }
    let mut container = Container::new(&plan);
    container.uses(5, 150);
    assert_eq!(container.grant(), Some(13));
    // Ahead of need.
    container.uses(5, 34);
    assert!(container.grant() > Some(100), "{:?}", container.grant());
    // The guard is beneath: growth before its time is granted.
    let mut early = Container::new(&plan);
    early.uses(5, 20);
    early.uses(9, 2);
    early.uses(14, 2);
    assert_eq!(early.grant(), Some(24));
    // A hull that is not trusted is not replayed.
    plan.forecast.as_mut().unwrap().trusted = false;
    let mut container = Container::new(&plan);
    container.uses(5, 150);
    assert_eq!(container.grant(), Some(108));
}

/// I10: nobody comes near a limit that could have been higher.
#[test]
fn i10_what_leaves_the_known_gets_the_ceiling() {
    for mode in [Mode::Static, Mode::Replay, Mode::Elastic] {
        let mut container = Container::new(&plan(mode));
        container.uses(95, 20);
        container.uses(99, 20);
        assert_eq!(container.uses(102, 2).note, None);
        let step = container.uses(103, 2);
        let note = Note::Outside {
            usage: mib(103),
            most: mib(100),
        };
        assert_eq!((step.grant, step.note), (Some(None), Some(note)), "{mode}");
        // It is followed from above once it stands still, and told once.
        let step = container.uses(103, 200);
        assert_eq!((container.grant(), step.note), (Some(129), None), "{mode}");
        assert_eq!(container.uses(110, 2).grant, Some(None), "{mode}");
    }
}

#[test]
fn i10_a_container_near_its_limit_gets_the_ceiling() {
    let mut container = Container::new(&plan(Mode::Elastic));
    container.uses(50, 100);
    assert_eq!(container.grant(), Some(58));
    // Or what is known to come at once, where that is not near.
    assert_eq!(container.uses(57, 2).grant, Some(Some(mib(77))));
    container.guard.largest = mib(90);
    container.uses(81, 200);
    assert_eq!(container.grant(), Some(90));
    assert_eq!(container.uses(89, 2).grant, Some(None));
}

/// I2.
#[test]
fn i2_no_grant_is_above_the_ceiling_or_below_the_floor() {
    let mut plan = plan(Mode::Elastic);
    plan.ceiling = Some(mib(60));
    plan.floor = mib(40);
    let mut container = Container::new(&plan);
    container.uses(5, 100);
    assert_eq!(container.grant(), Some(40));
    for usage in 5..60 {
        container.uses(usage, 2);
        assert!(
            container
                .grant()
                .is_none_or(|grant| (40..60).contains(&grant))
        );
    }
    assert_eq!(container.grant(), None);
    container.uses(10, 200);
    assert_eq!(container.grant(), Some(40));
}

#[test]
fn an_idle_container_is_shrunk_and_raised_at_the_first_activity() {
    let mut container = Container::new(&plan(Mode::Elastic));
    container.uses(80, 1000);
    container.look.idle = true;
    container.look.file = Some(mib(20));
    container.uses(30, 500);
    assert_eq!(container.grant(), Some(38));
    let step = container.uses(30, 600);
    assert_eq!(step.drop_cache, Some(mib(20)));
    // Once.
    assert_eq!(container.uses(30, 2000).drop_cache, None);
    container.look.idle = false;
    container.uses(30, 2);
    assert_eq!(container.grant(), Some(50));
    // Unless that is not wanted.
    let mut plan = plan(Mode::Static);
    plan.margins.keep_alive = false;
    let mut container = Container::new(&plan);
    container.look.idle = true;
    assert_eq!(container.uses(30, 2000).drop_cache, None);
    assert_eq!(container.grant(), Some(108));
}

#[test]
fn a_request_has_what_its_class_needs_at_once_before_it_begins() {
    let mut container = Container::new(&plan(Mode::Elastic));
    container.look.idle = true;
    container.uses(10, 500);
    assert_eq!(container.grant(), Some(18));
    let small = "small".parse().unwrap();
    let granted = container.guard.begin(ms(500), Some(&small), None);
    assert_eq!(granted, Some(Some(mib(28))));
    container.guard.end(ms(502));
    // Nobody has to wait for rest to show.
    container.look.idle = false;
    container.at = 502;
    container.uses(10, 100);
    assert_eq!(container.grant(), Some(18));
    // Without a class it may be any, and none of them ever grew faster.
    let granted = container.guard.begin(ms(700), None, None);
    assert_eq!(granted, Some(Some(mib(30))));
}

/// I4.
#[test]
fn a_container_works_until_the_last_of_its_requests_has_ended() {
    let (small, large): (ClassName, ClassName) =
        ("small".parse().unwrap(), "large".parse().unwrap());
    let mut container = Container::new(&plan(Mode::Static));
    container.uses(10, 20);
    let static_grant = container.grant();
    container.guard.begin(ms(20), Some(&small), None);
    container.guard.begin(ms(22), Some(&large), None);
    container.guard.end(ms(24));
    // One still works, of whichever class: it is not shrunk as one that is idle.
    container.uses(10, 300);
    assert_eq!(container.grant(), static_grant);
    container.guard.end(ms(320));
    container.look.idle = true;
    container.uses(10, 300);
    assert!(container.grant() < static_grant);
    // Whoever forgets to tell of an end costs ten seconds of rest.
    container.guard.begin(ms(container.at), None, None);
    container.uses(10, 9_000);
    assert_eq!(container.grant(), static_grant);
    container.uses(10, 1_500);
    assert!(container.grant() < static_grant);
}

#[test]
fn i4_a_limit_that_somebody_else_wrote_is_left_alone() {
    let mut container = Container::new(&plan(Mode::Elastic));
    container.uses(10, 100);
    container.look.limit = Some(limit_of(mib(300)));
    let step = container.uses(10, 2);
    let found = limit_of(mib(300));
    assert_eq!(step.note, Some(Note::Foreign { found }));
    assert_eq!(step.grant, None);
    assert_eq!(container.uses(50, 9_000), Step::default());
    // Still theirs after a while.
    container.at += 2_000;
    container.look.limit = Some(found);
    assert_eq!(container.uses(50, 2), Step::default());
    // Reset to what was declared, as systemd does when it reloads: applied again after one hold.
    container.at += 11_000;
    container.look.limit = Some(limit_of(mib(512)));
    let step = container.uses(50, 2);
    assert_eq!(step.note, Some(Note::Restored));
    assert_eq!(step.grant, Some(Some(mib(75))));
    // What it wrote itself is its own.
    container.look.limit = Some(limit_of(mib(75)));
    assert_eq!(container.uses(50, 2).note, None);
}

#[test]
fn a_limit_that_was_met_is_raised_for_longer_each_time() {
    let mut container = Container::new(&plan(Mode::Elastic));
    container.uses(10, 100);
    container.look.met = 3;
    let step = container.uses(10, 2);
    let grant = mib(18);
    assert_eq!(step.note, Some(Note::Met { times: 3, grant }));
    assert_eq!(step.grant, Some(None));
    container.uses(10, 9_900);
    assert_eq!(container.grant(), None);
    container.uses(10, 300);
    assert_eq!(container.grant(), Some(26));
    container.look.met = 4;
    container.uses(10, 19_000);
    assert_eq!(container.grant(), None);
}

#[test]
fn tasks_that_wait_for_memory_are_harm() {
    let mut container = Container::new(&plan(Mode::Elastic));
    container.uses(10, 100);
    container.look.waited = Some(ms(3));
    assert_eq!(container.uses(10, 2).note, None);
    // 4 of 100 ms.
    container.look.waited = None;
    container.uses(15, 2);
    container.uses(10, 96);
    container.look.waited = Some(ms(7));
    assert_eq!(container.uses(10, 2).note, None);
    // More, but far from the limit.
    container.look.waited = None;
    container.uses(10, 98);
    container.look.waited = Some(ms(20));
    assert_eq!(container.uses(10, 2).note, None);
    container.look.waited = None;
    container.uses(15, 2);
    container.uses(10, 96);
    container.look.waited = Some(ms(33));
    let (waited, grant) = (ms(13), container.guard.grant().unwrap());
    let step = container.uses(10, 2);
    assert_eq!(step.note, Some(Note::Pressed { waited, grant }));
    assert_eq!(step.grant, Some(None));
}

#[test]
fn a_hold_grants_the_ceiling_until_all_let_go() {
    let mut container = Container::new(&plan(Mode::Elastic));
    container.uses(10, 100);
    assert_eq!(container.guard.hold(), Some(None));
    assert_eq!(container.guard.hold(), None);
    // An Update meanwhile is none of our business.
    container.look.limit = Some(limit_of(mib(200)));
    assert_eq!(container.uses(10, 1_000), Step::default());
    let (at, declared) = (ms(container.at), limit_of(mib(200)));
    container.guard.release(at, Some(mib(200)), declared);
    assert_eq!(container.uses(10, 500), Step::default());
    container
        .guard
        .release(at + ms(500), Some(mib(200)), declared);
    container.uses(10, 800);
    assert_eq!(container.grant(), None);
    container.uses(10, 400);
    assert_eq!(container.grant(), Some(18));
    container.uses(250, 2);
    assert_eq!(
        (container.grant(), container.guard.ceiling()),
        (None, Some(mib(200)))
    );
}

#[test]
fn without_a_ceiling_no_limit_is_the_ceiling() {
    let mut plan = plan(Mode::Elastic);
    plan.ceiling = None;
    let mut container = Container::new(&plan);
    container.uses(10, 20);
    assert_eq!(container.grant(), Some(18));
    container.uses(150, 2);
    assert_eq!(container.grant(), None);
}

/// I6.
#[test]
fn i6_the_same_looks_give_the_same_grants() {
    let run = || {
        let mut container = Container::new(&plan(Mode::Elastic));
        (0..100u64)
            .map(|n| {
                container.uses(n * n % 97, 6);
                container.grant()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
