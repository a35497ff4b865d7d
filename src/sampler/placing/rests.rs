//! The rests of one container between its requests, and when the next one is expected (`policy::placement::arrivals`).

use std::time::{Duration, Instant};

use crate::model::duration::text;
use crate::policy::placement::arrivals::{Arrival, expected};

/// The newest rests are remembered.
const MOST_RESTS: usize = 128;

/// The rests of one container.
#[derive(Debug, Default)]
pub(super) struct Rests {
    known: Vec<Duration>,
    /// When the last request was over, as long as there is no other.
    since: Option<Instant>,
    /// When the next one is expected.
    arrival: Option<Arrival>,
    /// What requests touch went out in this rest, and is to be back when so much of it has passed.
    away: Option<Duration>,
    /// Rests in which that was so, and those of them that were over before it was back.
    predicted: u32,
    early: u32,
    /// When the next request is expected, or why that is not known.
    expected: String,
}

impl Rests {
    /// Those that are remembered, the newest last.
    pub(super) fn known(&self) -> &[Duration] {
        &self.known
    }

    /// What was a rest until now is none.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Whether one is under way, whatever the container does in it.
    pub(super) fn is_under_way(&self) -> bool {
        self.since.is_some()
    }

    /// For how long.
    pub(super) fn elapsed(&self) -> Option<Duration> {
        self.since.map(|since| since.elapsed())
    }

    /// When the next request is expected, if it is.
    pub(super) fn arrival(&self) -> Option<&Arrival> {
        self.arrival.as_ref()
    }

    /// In how many of them what requests touch went out, and how many of those were over too early.
    pub(super) fn predictions(&self) -> (u32, u32) {
        (self.predicted, self.early)
    }

    /// When the next request is expected, or why that is not known.
    pub(super) fn expected(&self) -> &str {
        &self.expected
    }

    /// A request is over. What it needs takes so long to come back.
    pub(super) fn begin(&mut self, now: Instant, returning: Duration) {
        self.since = Some(now);
        let found = expected(&self.known, returning);
        self.expected = match &found {
            Ok(arrival) => format!("expected {} after the last one", text(arrival.head)),
            Err(reason) => reason.clone(),
        };
        self.arrival = found.ok();
    }

    /// What requests touch is out until the next one is expected.
    pub(super) fn is_away(&mut self) {
        self.away = self.arrival.map(|arrival| arrival.ready);
    }

    /// The container does something, which is a request or is not.
    pub(super) fn works(&mut self, now: Instant, is_request: bool) {
        if is_request && let Some(since) = self.since.take() {
            self.end(now.saturating_duration_since(since));
        } else if self.away.is_some() {
            // What comes back for it stays.
            self.arrival = None;
        }
    }

    fn end(&mut self, rest: Duration) {
        if self.known.len() >= MOST_RESTS {
            self.known.remove(0);
        }
        self.known.push(rest);
        self.arrival = None;
        if let Some(ready) = self.away.take() {
            self.predicted = self.predicted.saturating_add(1);
            if rest < ready {
                self.early = self.early.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_request_that_comes_too_early_is_counted() {
        let (mut rests, at) = (Rests::default(), Instant::now());
        rests.known = vec![60 * SECOND; 20];
        for (rest, early) in [(60, 0), (54, 0), (53, 1)] {
            rests.begin(at, SECOND);
            assert!(rests.arrival.is_some());
            rests.is_away();
            rests.works(at + rest * SECOND, true);
            assert_eq!(rests.early, early);
        }
        assert_eq!(rests.predictions(), (3, 1));
        // What came back for something else stays until the request.
        rests.begin(at, SECOND);
        rests.is_away();
        rests.works(at + 5 * SECOND, false);
        assert_eq!(rests.arrival, None);
        rests.works(at + 20 * SECOND, true);
        assert_eq!(rests.predictions(), (4, 2));
    }

    #[test]
    fn only_the_newest_are_remembered() {
        let (mut rests, at) = (Rests::default(), Instant::now());
        for rest in 1..=200 {
            rests.begin(at, SECOND);
            rests.works(at + rest * SECOND, true);
        }
        assert_eq!(rests.known.len(), MOST_RESTS);
        assert_eq!(rests.known.last(), Some(&(200 * SECOND)));
        rests.forget();
        rests.begin(at, SECOND);
        assert_eq!(rests.arrival(), None);
        assert!(rests.is_under_way());
    }
}
