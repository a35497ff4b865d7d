//! When the kernel is to tell of usage (cgroup v1).

use std::collections::BTreeSet;

use crate::model::Bytes;

/// Thresholds of usage are at least so far from each other, and so many at most: the kernel looks at every 128th page that
/// a processor charges.
const LEAST_STEP: u64 = 2 << 20;
const MOST_ALARMS: u64 = 48;

/// Thresholds of usage at which the thread that looks is woken, so that a growth between two looks is not seen too late.
///
/// To set one takes the kernel 10 to 20 ms, and it stays for the life of the control group: they are set one by one, over
/// all that the function is known to use, the next one above its usage first.
#[derive(Debug)]
pub(super) struct Alarms {
    step: u64,
    most: u64,
    set: BTreeSet<u64>,
}

impl Alarms {
    /// For a container that is known to use so much.
    pub(super) fn new(most: Bytes) -> Self {
        Self {
            step: LEAST_STEP.max(most.get() / MOST_ALARMS),
            most: most.get(),
            set: BTreeSet::new(),
        }
    }

    /// The threshold to set now, if any is missing.
    pub(super) fn next(&mut self, usage: Bytes) -> Option<Bytes> {
        let known = self.most / self.step;
        let above = usage.get() / self.step + 1;
        let is_missing = |number: &u64| !self.set.contains(number);
        let number = (above..=known)
            .chain(1..above.min(known + 1))
            .find(is_missing)?;
        self.set.insert(number);
        number.checked_mul(self.step).map(Bytes::new)
    }
}
