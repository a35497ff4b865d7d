//! Signs of harm, and of other writers: what makes the guard stand back.

use std::time::Duration;

use super::{Guard, Look, Note, Stance};
use crate::model::status::Cause;
use crate::model::{Bytes, MemoryLimit};

/// Tasks may wait for memory for this share of the time: what page faults of files take is more than nothing.
const PRESSURE_SHARE: u32 = 20;
/// Tasks that wait while more than this share of the pad is left wait for something else: for page cache that the host has
/// dropped, for a limit above.
const PRESSED_SHARE: u64 = 2;
/// A hold is doubled each time that a limit was met, so often.
const MOST_DOUBLINGS: u32 = 8;

impl Guard {
    pub(super) fn check_met(&mut self, look: &Look) -> Option<Note> {
        let times = look.met.saturating_sub(self.met);
        self.met = look.met;
        let grant = self.grant?;
        if times == 0 {
            return None;
        }
        self.counts.met = self.counts.met.saturating_add(times);
        self.back_off(look.at, Cause::Met);
        Some(Note::Met { times, grant })
    }

    /// Tasks that wait for memory (PSI `some`) near their limit are harm before that is met. Elsewhere the ceiling helps
    /// nobody, and costs savings alone.
    pub(super) fn check_pressure(&mut self, look: &Look) -> Option<Note> {
        if let Some(grant) = self.grant {
            self.left = self.left.min(grant.saturating_sub(look.usage).get());
        }
        let now = look.waited?;
        let left = std::mem::replace(&mut self.left, u64::MAX);
        let (at, before) = self.waited.replace((look.at, now))?;
        let grant = self.grant?;
        if left > self.margins.pad.get() / PRESSED_SHARE {
            return None;
        }
        let waited = now.saturating_sub(before);
        let most = look.at.saturating_sub(at) / PRESSURE_SHARE;
        if waited <= most {
            return None;
        }
        self.counts.pressed = self.counts.pressed.saturating_add(1);
        self.back_off(look.at, Cause::Pressed);
        Some(Note::Pressed { waited, grant })
    }

    /// Longer each time.
    fn back_off(&mut self, at: Duration, cause: Cause) {
        let hold = self.margins.hold.saturating_mul(1 << self.doublings);
        self.doublings = (self.doublings + 1).min(MOST_DOUBLINGS);
        self.stance = Stance::Waiting(at.saturating_add(hold), cause);
        self.outside = true;
    }

    pub(super) fn check_limit(&mut self, look: &Look) -> Option<Note> {
        let found = look.limit?;
        if let Stance::Aside(until) = self.stance {
            if look.at < until {
                return None;
            }
            if found != self.declared {
                self.stance = Stance::Aside(look.at.saturating_add(self.margins.hold));
                return None;
            }
            self.stance = Stance::Following;
            self.decided(Cause::Restored);
            return Some(Note::Restored);
        }
        let ours = self.grant.map_or(self.declared, limit_of);
        if self.holds > 0 || found == ours {
            return None;
        }
        Some(self.step_aside(look.at, found))
    }

    /// Somebody else has written the limit.
    pub fn step_aside(&mut self, at: Duration, found: MemoryLimit) -> Note {
        self.stance = Stance::Aside(at.saturating_add(self.margins.hold));
        self.now = at;
        self.grant = None;
        self.wants.clear();
        self.counts.foreign = self.counts.foreign.saturating_add(1);
        self.decided(Cause::Foreign);
        Note::Foreign { found }
    }
}

pub(super) fn limit_of(grant: Bytes) -> MemoryLimit {
    i64::try_from(grant.get()).map_or(MemoryLimit::None, MemoryLimit::Bytes)
}
