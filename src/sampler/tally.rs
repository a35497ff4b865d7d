//! What was seen and done of one container so far, for whoever asks while it runs.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::model::status::{Counts, Decision, Status};
use crate::model::trace::Phase;
use crate::model::{Bytes, MemoryTime, RunId};

/// Where the thread that looks leaves what it has seen, and others read it. Neither waits for the other for longer than a
/// copy of some numbers takes, and the thread that looks not at all.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Option<(Instant, Status)>>>);

impl Shared {
    /// What was seen last, and how long the function has run by now.
    pub(super) fn read(&self) -> Option<(Duration, Status)> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, status) = seen.as_ref()?;
        // The two clocks begin a moment apart.
        Some((start.elapsed().max(status.at), status.clone()))
    }

    fn write(&self, start: Instant, status: &Status) {
        let mut seen = match self.0.try_lock() {
            Ok(seen) => seen,
            Err(TryLockError::Poisoned(err)) => err.into_inner(),
            // Somebody reads: the next look comes soon.
            Err(TryLockError::WouldBlock) => return,
        };
        match seen.as_mut() {
            // Without a copy of the name.
            Some((then, known)) if known.run == status.run => {
                *then = start;
                known.at = status.at;
                known.phase = status.phase;
                known.usage = status.usage;
                known.peak = status.peak;
                known.grant = status.grant;
                known.ceiling = status.ceiling;
                known.areas = status.areas;
                known.counts = status.counts;
                known.last = status.last;
                known.waited = status.waited;
                known.oom_kills = status.oom_kills;
            }
            _ => *seen = Some((start, status.clone())),
        }
    }
}

/// What is done with the limit at a look.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    pub(super) grant: Option<Bytes>,
    pub(super) ceiling: Option<Bytes>,
    /// A grant that never moves.
    pub(super) fixed: Option<Bytes>,
    pub(super) counts: Counts,
    pub(super) last: Option<Decision>,
}

/// The sums of one run.
#[derive(Debug)]
pub(super) struct Tally {
    shared: Shared,
    start: Instant,
    fixed: Option<Bytes>,
    status: Status,
}

impl Tally {
    /// Of a run that starts now.
    pub(super) fn new(shared: Shared, run: RunId) -> Self {
        Self {
            shared,
            start: Instant::now(),
            fixed: None,
            status: Status {
                run,
                at: Duration::ZERO,
                phase: Phase::Init,
                usage: Bytes::ZERO,
                peak: Bytes::ZERO,
                grant: None,
                ceiling: None,
                areas: Default::default(),
                counts: Counts::default(),
                last: None,
                waited: None,
                oom_kills: 0,
            },
        }
    }

    /// So long tasks have waited for memory by now.
    pub(super) fn waited(&mut self, waited: Duration) {
        self.status.waited = Some(waited);
    }

    /// So many processes were ended by the OOM killer.
    pub(super) fn kills(&mut self, kills: u64) {
        self.status.oom_kills = kills;
    }

    /// Adds a look: what was seen before held until now.
    pub(super) fn look(&mut self, at: Duration, usage: Bytes, phase: Phase, standing: &Standing) {
        let status = &mut self.status;
        let time = at.saturating_sub(status.at);
        let add = |area: &mut MemoryTime, held: Option<Bytes>| {
            let more = held.and_then(|held| held.held_for(time));
            *area = more
                .and_then(|more| area.checked_add(more))
                .unwrap_or(*area);
        };
        add(&mut status.areas.used, Some(status.usage));
        add(&mut status.areas.granted, status.grant.or(status.ceiling));
        add(&mut status.areas.ceiling, status.ceiling);
        add(&mut status.areas.fixed, self.fixed);
        status.at = at;
        status.usage = usage;
        status.peak = status.peak.max(usage);
        status.phase = phase;
        status.grant = standing.grant;
        status.ceiling = standing.ceiling;
        status.counts = standing.counts;
        status.last = standing.last;
        self.fixed = standing.fixed;
        self.shared.write(self.start, status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn seconds_of(mib: u64) -> MemoryTime {
        Bytes::new(mib * MIB)
            .held_for(Duration::from_secs(1))
            .unwrap()
    }

    #[test]
    fn what_was_seen_holds_until_the_next_look() {
        let shared = Shared::default();
        assert!(shared.read().is_none());
        let mut tally = Tally::new(shared.clone(), "r".parse().unwrap());
        let mut standing = Standing {
            grant: Some(Bytes::new(16 * MIB)),
            ceiling: Some(Bytes::new(64 * MIB)),
            fixed: Some(Bytes::new(32 * MIB)),
            ..Standing::default()
        };
        let mut look = |at: u64, mib: u64, standing: &Standing| {
            let at = Duration::from_secs(at);
            tally.look(at, Bytes::new(mib * MIB), Phase::Execution, standing);
        };
        look(0, 10, &standing);
        look(2, 4, &standing);
        standing.grant = None;
        standing.counts.raises = 1;
        look(3, 8, &standing);
        look(5, 8, &standing);
        let (_, status) = shared.read().unwrap();
        assert_eq!(status.areas.used, seconds_of(2 * 10 + 4 + 2 * 8));
        assert_eq!(status.areas.granted, seconds_of(3 * 16 + 2 * 64));
        assert_eq!(status.areas.ceiling, seconds_of(5 * 64));
        assert_eq!(status.areas.fixed, seconds_of(5 * 32));
        assert_eq!(status.peak, Bytes::new(10 * MIB));
        assert_eq!((status.grant, status.counts.raises), (None, 1));
    }

    #[test]
    fn whoever_looks_waits_for_no_reader() {
        let shared = Shared::default();
        let mut tally = Tally::new(shared.clone(), "r".parse().unwrap());
        let reading = shared.0.lock().unwrap();
        tally.look(
            Duration::ZERO,
            Bytes::new(1),
            Phase::Init,
            &Standing::default(),
        );
        drop(reading);
        assert!(shared.read().is_none());
        tally.look(
            Duration::ZERO,
            Bytes::new(2),
            Phase::Init,
            &Standing::default(),
        );
        assert_eq!(shared.read().unwrap().1.usage, Bytes::new(2));
    }
}
