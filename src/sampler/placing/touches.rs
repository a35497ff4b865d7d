//! What the requests of one container touch: found out after each of them until it is known, and seldom after that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::hotness;
use crate::kernel::cgroup::Cgroup;
use crate::kernel::{pages, touched};
use crate::model::Bytes;
use crate::policy::placement::life::Requests;
use crate::policy::placement::{Heat, Span};

/// Finding it out takes no more than one part of so many of the time, once it is known.
pub(super) const COST: u32 = 100;
/// And of a container with a ratio one of so many: at its ratio it is to cost next to nothing.
pub(super) const COST_AT_RATIO: u32 = 10_000;

/// What requests touch.
#[derive(Debug)]
pub(super) struct Touches {
    heat: Heat,
    /// Where it is not known well enough.
    mixed: Vec<Span>,
    requests: Requests,
    /// One part of so many of the time.
    cost: u32,
    not_before: Instant,
    /// How long it took the last time.
    took: Duration,
    /// Memory that any of the last four requests touched, and memory that none of them did.
    amount: (Bytes, Bytes),
    /// Why nothing can be found out.
    no_means: Option<String>,
    /// Something happened that is more urgent.
    urgent: Arc<AtomicBool>,
}

impl Touches {
    pub(super) fn new(cost: u32, urgent: Arc<AtomicBool>) -> Self {
        let no_means = touched::can_tell().err();
        if let Some(reason) = &no_means {
            tracing::info!(reason, "which pages are touched cannot be found out");
        }
        Self {
            heat: Heat::default(),
            mixed: Vec::new(),
            requests: Requests::default(),
            cost,
            not_before: Instant::now(),
            took: Duration::ZERO,
            amount: (Bytes::ZERO, Bytes::ZERO),
            no_means,
            urgent,
        }
    }

    /// Which pages are hot.
    pub(super) fn heat(&self) -> &Heat {
        &self.heat
    }

    /// What the requests have told.
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// How long it took to find out, the last time.
    pub(super) fn took(&self) -> Duration {
        self.took
    }

    /// Memory that any of the last four requests touched, and memory that none of them did.
    pub(super) fn amount(&self) -> (Bytes, Bytes) {
        self.amount
    }

    /// Why nothing can be found out.
    pub(super) fn no_means(&self) -> Option<&str> {
        self.no_means.as_deref()
    }

    /// What ran until now was no request.
    pub(super) fn begin_anew(&mut self, cgroup: &Cgroup) {
        self.heat = Heat::default();
        self.requests = Requests::default();
        self.mixed.clear();
        self.amount = (Bytes::ZERO, Bytes::ZERO);
        self.forget(cgroup);
    }

    /// What is touched from now on is touched by the next request.
    pub(super) fn forget(&mut self, cgroup: &Cgroup) {
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

    /// Finds out what was touched since the last time, if that can be done and is worth it; whether all is known now.
    pub(super) fn find_out(&mut self, cgroup: &Cgroup, now: Instant) -> bool {
        // As long as it is not known what requests touch, each one is worth it.
        let may = self.not_before <= now || !self.requests.is_settled();
        if !may || self.no_means.is_some() {
            return false;
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
            Err(reason) => {
                self.give_up(reason);
                return false;
            }
        };
        self.not_before = now + found.took * self.cost;
        self.took = found.took;
        let request = self.requests.count.saturating_add(1);
        if !found.is_complete {
            // What was found touched was; of the rest the kernel still knows.
            let touched = found.spans.iter().filter(|(_, touched)| *touched);
            let touched: Vec<Span> = touched.map(|(span, _)| *span).collect();
            self.heat.touched(request, &touched);
            return false;
        }
        self.heat.learn(request, &found.spans);
        self.mixed = found.mixed;
        self.forget(cgroup);
        self.requests.add(self.heat.pages(0).0);
        let (touched, untouched) = self.heat.pages(self.requests.recent());
        let bytes = |count: u64| Bytes::new(count.saturating_mul(pages::size()));
        self.amount = (bytes(touched), bytes(untouched));
        tracing::debug!(
            request,
            touched,
            untouched,
            took = ?found.took,
            "what a request has touched"
        );
        true
    }
}
