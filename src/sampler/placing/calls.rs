//! The calls that move pages: how many pages each has, what has become of them, what fails.

use std::time::{Duration, Instant};

use super::{LATER, LOOK, Task};
use crate::kernel::{numa, pages, wait};
use crate::sampler::search::HUGE;

/// The pages of one call take no longer, for their process may stand still meanwhile.
const CALL: Duration = Duration::from_millis(20);
/// What a call is sized for: pages are not all alike. What any call takes, however few its pages are, does not count: the
/// kernel first has all processors empty their lists. Nobody stands still for that, and smaller calls make it more.
const AIM: Duration = Duration::from_millis(10);
/// Pages of the first call, and of the smallest.
pub(super) const FIRST: usize = 64;
/// And of the largest.
const MOST: usize = 4096;

impl Task {
    /// One call that moves pages of one process to one node.
    pub(super) fn call(&mut self) -> Duration {
        let Some((process, node)) = self
            .queue
            .front()
            .map(|found| (found.unit.process, found.to))
        else {
            return LOOK;
        };
        let mut addresses = Vec::new();
        let size = pages::size();
        while let Some(next) = self.queue.front() {
            let count = usize::try_from(next.unit.pages).unwrap_or(HUGE);
            let is_full = !addresses.is_empty() && addresses.len() + count > self.batch;
            if (next.unit.process, next.to) != (process, node) || is_full {
                break;
            }
            let first = next.unit.page;
            addresses.extend((0..u64::from(next.unit.pages)).map(|page| (first + page) * size));
            self.queue.pop_front();
        }
        let (begun, cpu) = (Instant::now(), wait::thread_cpu());
        let moved = numa::move_pages(process, &addresses, &vec![node; addresses.len()]);
        let (took, worked) = (begun.elapsed(), wait::thread_cpu().saturating_sub(cpu));
        self.placed.longest_call_us = self
            .placed
            .longest_call_us
            .max(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.size_for(addresses.len(), worked);
        // Some may have been moved before a failure.
        self.read_back(process, &addresses, node);
        if let Err(err) = moved {
            self.failed(process, node, &err);
            if self.exchange.is_under_way() {
                // What goes the other way would cost the ratio.
                self.queue.clear();
            }
        }
        if self.queue.is_empty() {
            // Nothing was gained: what the kernel refuses now, it will refuse in a moment.
            return if self.gained == 0 { LATER } else { LOOK };
        }
        let bytes = u64::try_from(addresses.len()).unwrap_or(0) * size;
        let rate = self.placement.bandwidth.get().max(1);
        let micros = bytes.saturating_mul(1_000_000) / rate;
        Duration::from_micros(micros).saturating_sub(took)
    }

    /// Goes on with other pages: of other processes, or to another node.
    fn failed(&mut self, process: i32, node: u32, err: &std::io::Error) {
        let reason = match err.raw_os_error() {
            // It has ended. What others have is another matter.
            Some(libc::ESRCH) => {
                self.queue.retain(|found| found.unit.process != process);
                return;
            }
            Some(libc::ENOMEM) => format!("node {node} is full"),
            Some(libc::ENODEV) => format!("node {node} is offline"),
            Some(libc::EACCES) => {
                format!("cpuset.mems of its control group leaves out node {node}")
            }
            _ => {
                self.queue.retain(|found| found.unit.process != process);
                let reason = crate::kernel::reason(err);
                self.placed.why = Some(format!("the kernel moves no pages: {reason}"));
                return;
            }
        };
        self.placed.why = Some(reason.clone());
        self.shut.insert(node, reason);
        let side = match self.placement.local.contains(node) {
            true => &self.placement.local,
            false => &self.placement.remote,
        };
        let other = side.iter().find(|other| !self.shut.contains_key(other));
        match other {
            Some(other) => {
                let there = self.queue.iter_mut().filter(|found| found.to == node);
                there.for_each(|found| found.to = other);
            }
            None => self.queue.retain(|found| found.to != node),
        }
    }

    /// So that the pages of the next call take as long as they should.
    fn size_for(&mut self, pages: usize, worked: Duration) {
        let least = self.least.map_or(worked, |least| least.min(worked));
        self.least = Some(least);
        let (for_pages, aim) = ((worked - least).as_micros().max(1), AIM.as_micros());
        let fitting = (pages as u128).saturating_mul(aim) / for_pages;
        let fitting = usize::try_from(fitting).unwrap_or(MOST);
        // Not all at once: the first pages of a process take longer.
        self.batch = fitting.min(self.batch.saturating_mul(2)).clamp(FIRST, MOST);
        if for_pages > CALL.as_micros() {
            self.batch = (self.batch / 2).max(FIRST);
        }
    }

    fn read_back(&mut self, process: i32, addresses: &[u64], node: u32) {
        let Ok(found) = numa::nodes_of(process, addresses) else {
            return;
        };
        let (mut here, mut stayed) = (0, 0);
        for placed in found {
            match placed {
                numa::Placed::On(other) if other == node => here += 1,
                numa::Placed::On(_) => stayed += 1,
                // It was freed meanwhile.
                numa::Placed::Not(_) => {}
            }
        }
        let is_out = self.placement.remote.contains(node);
        self.gained = self.gained.saturating_add(here);
        self.placed.moved = self.placed.moved.saturating_add(here);
        if let Some(life) = &mut self.life {
            life.count(here, is_out);
        }
        let (exchanged, may_go_on) = self.exchange.count(here, is_out);
        self.placed.exchanged = self.placed.exchanged.saturating_add(exchanged);
        if !may_go_on {
            self.queue.clear();
        }
        self.placed.refused = self.placed.refused.saturating_add(stayed);
        if stayed > 0 && self.shut.is_empty() {
            self.placed.why = Some("some pages were not moved: they are in use".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::task;
    use super::*;
    use crate::model::placement::LocalRatio;

    #[test]
    fn a_call_that_works_long_makes_the_next_one_small() {
        let Some(mut task) = task(LocalRatio::of(1, 1).unwrap()) else {
            return;
        };
        // What each call takes is not for its pages.
        task.size_for(64, Duration::from_millis(500));
        assert_eq!(task.batch, 128, "at most twice as many");
        task.size_for(128, Duration::from_millis(505));
        assert_eq!(task.batch, 256);
        task.size_for(512, Duration::from_millis(540));
        assert_eq!(task.batch, 64);
        task.size_for(64, Duration::from_secs(1));
        assert_eq!(task.batch, FIRST, "no fewer");
        for _ in 0..20 {
            task.size_for(task.batch, Duration::from_micros(1));
        }
        assert_eq!(task.batch, MOST);
    }
}
