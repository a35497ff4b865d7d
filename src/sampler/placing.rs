//! Moves pages of containers whose memory does not lie as it should, by a thread of its own that runs after all others.
//!
//! Each container is looked at once a second: how much of its anonymous memory is local and how much remote, one reading
//! of its control group. Only if that is off by more than the hysteresis, its pages are looked for and some of them are
//! moved (`policy::placement::moves`), in calls whose pages take 20 ms at most and with pauses that keep to the bandwidth. What
//! came of it is read back and told.

mod calls;
mod exchange;
mod hotness;
mod life;
mod rests;
mod touches;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use exchange::Exchange;
pub(super) use life::Event;
use life::Life;
pub use life::Lived;

use crate::kernel::cgroup::{Cgroup, Meter};
use crate::kernel::wait;
use crate::model::nodes::Weights;
use crate::model::placed::{PlacedCounts, Seen};
use crate::model::placement::{LocalRatio, Placement};
use crate::policy::placement::{Goal, HYSTERESIS, Move, Unit, designed, moves};
use crate::sampler::search::Search;

/// How often a container is looked at that is as it should be.
const LOOK: Duration = Duration::from_secs(1);
/// And one whose memory comes or goes: what is moved now may be gone in a moment. So often at most.
const SOON: Duration = Duration::from_millis(250);
const MOST_WAITS: u32 = 8;
/// And one of which nothing more could be moved.
const LATER: Duration = Duration::from_secs(5);
/// Pages that are looked for at once, so that little memory is needed: what is beyond is the next part, with the same ratio.
const MOST_PAGES: u64 = 65_536;
/// Containers with less than this have no ratio that could be held.
const LEAST: u64 = 1 << 20;

/// What was done for the placement of one container since its start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Placed {
    /// How often it was looked at.
    pub looks: u64,
    /// How often its pages had to be looked for.
    pub searches: u64,
    /// Pages that were moved.
    pub moved: u64,
    /// Of these, hot pages that came in while as many cold ones went out, at a ratio that was held.
    pub exchanged: u64,
    /// Pages that the kernel did not move.
    pub refused: u64,
    /// Pages that are still to be moved.
    pub pending: u64,
    /// The longest call that moved pages, in microseconds.
    pub longest_call_us: u64,
    /// Why the ratio is not held, if it is not and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What became of it in the phases of its life, if it is placed by them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life: Option<Lived>,
}

impl Placed {
    /// What is counted of it when the run has ended.
    pub fn counts(&self) -> PlacedCounts {
        let of = |count: fn(&Lived) -> u32| self.life.as_ref().map_or(0, count).into();
        PlacedCounts {
            moved: self.moved,
            exchanged: self.exchanged,
            refused: self.refused,
            predicted: of(|life| life.predicted),
            early: of(|life| life.early),
        }
    }
}

/// What is left of a container that was looked after here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Left {
    /// What its requests were seen to do.
    pub(super) seen: Seen,
    /// What was done.
    pub(super) counts: PlacedCounts,
}

/// Called with what was done, whenever something was.
pub type Tell = Arc<dyn Fn(&Placed) + Send + Sync>;

enum Job {
    Watch(u64, Box<Task>),
    Event(u64, Event),
    Forget(u64),
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Placing {
    jobs: Sender<Job>,
    /// Set with each job: what takes long is left for it.
    urgent: Arc<AtomicBool>,
    /// What is known of each container by now.
    known: BTreeMap<u64, Arc<Mutex<Left>>>,
}

impl Placing {
    /// # Errors
    /// What failed, for the log.
    pub(super) fn start() -> Result<Self, String> {
        let (sender, receiver) = channel();
        std::thread::Builder::new()
            .name("placing".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                if let Err(err) = wait::lower_priority() {
                    tracing::debug!("placing: {}", crate::runtime::chain(&err));
                }
                run(&receiver);
            })
            .map_err(|err| format!("start the thread that moves pages: {err}"))?;
        Ok(Self {
            jobs: sender,
            urgent: Arc::default(),
            known: BTreeMap::new(),
        })
    }

    fn send(&self, job: Job) {
        self.urgent.store(true, Ordering::Relaxed);
        // The thread is gone only when the process ends.
        drop(self.jobs.send(job));
    }

    /// Sees to it that the memory of a container lies as it should.
    pub(super) fn watch(
        &mut self,
        key: u64,
        cgroup: &Cgroup,
        placement: Placement,
        tell: Option<Tell>,
    ) {
        match Task::new(cgroup, placement, tell) {
            Ok(mut task) => {
                task.life = Life::of(&task.placement, Arc::clone(&self.urgent));
                self.known.insert(key, Arc::clone(&task.left));
                self.send(Job::Watch(key, Box::new(task)));
            }
            Err(reason) => tracing::warn!(reason, "its placement is not looked after"),
        }
    }

    /// Something happens to a container that may be watched here.
    pub(super) fn event(&self, key: u64, event: Event) {
        if self.known.contains_key(&key) {
            self.send(Job::Event(key, event));
        }
    }

    /// The container has ended; what is left of it, if it was looked after.
    pub(super) fn forget(&mut self, key: u64) -> Option<Left> {
        let left = self.known.remove(&key)?;
        self.send(Job::Forget(key));
        Some(*left.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn run(jobs: &Receiver<Job>) {
    let mut tasks: Vec<(u64, Box<Task>)> = Vec::new();
    loop {
        let due = tasks.iter().map(|(_, task)| task.due).min();
        let job = match due {
            Some(due) => jobs.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match job {
            Ok(Job::Watch(key, task)) => {
                tasks.retain(|(other, _)| *other != key);
                tasks.push((key, task));
            }
            Ok(Job::Event(key, event)) => {
                let task = tasks.iter_mut().find(|(other, _)| *other == key);
                if let Some((_, task)) = task {
                    task.take(event);
                }
            }
            Ok(Job::Forget(key)) => tasks.retain(|(other, _)| *other != key),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        // One call of one container, then the next: each has its turn.
        if let Some((_, task)) = tasks
            .iter_mut()
            .filter(|(_, task)| task.due <= now)
            .min_by_key(|(_, task)| task.due)
        {
            let work = std::panic::AssertUnwindSafe(|| task.turn());
            if std::panic::catch_unwind(work).is_err() {
                tracing::error!("moving pages of a container panicked");
                task.due = Instant::now() + LATER;
                task.queue.clear();
            }
        }
    }
}

/// One container.
struct Task {
    cgroup: Cgroup,
    meter: Meter,
    placement: Placement,
    target: LocalRatio,
    weights: Weights,
    tell: Option<Tell>,
    due: Instant,
    queue: VecDeque<Move>,
    /// Pages of the next call.
    batch: usize,
    /// The least that a call has worked: so much of each is not for its pages.
    least: Option<Duration>,
    placed: Placed,
    told: Placed,
    /// Moved since the last search.
    gained: u64,
    /// Nodes that take no pages since the last search, and why.
    shut: BTreeMap<u32, String>,
    /// Pages of the parts that were looked for in this round.
    done: u64,
    /// Its memory at the last look.
    size_then: u64,
    /// How often it was waited for its memory to settle.
    waits: u32,
    /// The phases of its life, where something depends on them.
    life: Option<Life>,
    exchange: Exchange,
    left: Arc<Mutex<Left>>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("target", &self.target)
            .field("placed", &self.placed)
            .finish_non_exhaustive()
    }
}

impl Task {
    fn new(cgroup: &Cgroup, placement: Placement, tell: Option<Tell>) -> Result<Self, String> {
        let target = match placement.life {
            // What goes out goes by what is touched.
            Some(_) => LocalRatio::LOCAL,
            None => placement.target.ok_or("it has no local ratio")?,
        };
        let meter = Meter::open(cgroup).map_err(|err| crate::runtime::chain(&err))?;
        // What the kernel deals out by, or would.
        let weights = placement.relies_on.clone().or_else(|| {
            designed(target, &placement.local, &placement.remote).map(|(weights, _)| weights)
        });
        Ok(Self {
            cgroup: cgroup.clone(),
            meter,
            target,
            weights: weights.unwrap_or_default(),
            placement,
            tell,
            due: Instant::now(),
            queue: VecDeque::new(),
            batch: calls::FIRST,
            least: None,
            placed: Placed::default(),
            told: Placed::default(),
            gained: 0,
            shut: BTreeMap::new(),
            done: 0,
            size_then: 0,
            waits: 0,
            life: None,
            exchange: Exchange::default(),
            left: Arc::default(),
        })
    }

    fn take(&mut self, event: Event) {
        let Some(life) = &mut self.life else { return };
        let Some(pause) = life.take(event, &self.cgroup) else {
            return;
        };
        if life.has_cycle() {
            // It was meant for another phase.
            if !self.queue.is_empty() || self.done > 0 {
                life.interrupted();
            }
            self.queue.clear();
            self.done = 0;
        } else if !self.queue.is_empty() {
            // What is under way goes on, no faster.
            return;
        }
        self.due = Instant::now() + pause;
    }

    fn turn(&mut self) {
        let mut pause = match self.queue.is_empty() {
            true => self.look(),
            false => self.call(),
        };
        if let Some(life) = self.life.as_ref().filter(|life| life.has_cycle()) {
            self.placed.life = Some(life.lived());
            if self.queue.is_empty() && self.done > 0 {
                // Another part.
                pause = Duration::ZERO;
            }
        }
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Left {
            seen: self.life.as_ref().map(Life::seen).unwrap_or_default(),
            counts: self.placed.counts(),
        };
        self.due = Instant::now() + pause;
        self.placed.pending = self
            .queue
            .iter()
            .map(|found| u64::from(found.unit.pages))
            .sum();
        self.report();
    }

    /// Tells of what has changed; looks alone are not worth a word.
    fn report(&mut self) {
        let mut told = self.told.clone();
        told.looks = self.placed.looks;
        if told != self.placed
            && let Some(tell) = &self.tell
        {
            tell(&self.placed);
            self.told = self.placed.clone();
        }
    }

    /// Reads how it lies; looks for the pages to move only if that is not as it should be.
    fn look(&mut self) -> Duration {
        self.placed.looks += 1;
        let (mut near, mut far) = (0_u64, 0_u64);
        self.meter.anon_on_nodes(|node, bytes| {
            if self.placement.local.contains(node) {
                near = near.saturating_add(bytes.get());
            } else if self.placement.remote.contains(node) {
                far = far.saturating_add(bytes.get());
            }
        });
        if let Some(life) = &mut self.life {
            life.find_out(&self.cgroup);
            if life.has_cycle() {
                return self.live(near, far);
            }
        }
        let held = LocalRatio::of(near, far).filter(|_| near.saturating_add(far) >= LEAST);
        if held.is_none_or(|held| held.distance(self.target) <= HYSTERESIS) {
            self.placed.why = None;
            self.waits = 0;
            return match held {
                Some(_) => self.exchange(near, far),
                None => LOOK,
            };
        }
        if self.exchange.stop() {
            self.done = 0;
        }
        let size = near.saturating_add(far);
        let change = size.abs_diff(std::mem::replace(&mut self.size_then, size));
        if change > size / 8 && self.waits < MOST_WAITS {
            self.waits += 1;
            self.placed.why =
                Some("its memory comes and goes: it is waited for a moment".to_owned());
            return SOON;
        }
        self.waits = 0;
        let Some(units) = self.search() else {
            return LATER;
        };
        let goal = Goal {
            target: self.target,
            local: &self.placement.local,
            remote: &self.placement.remote,
            weights: &self.weights,
            heat: self.life.as_ref().and_then(Life::heat),
        };
        let mut queue = moves(&units, &goal);
        // A call goes to one node: the kernel begins anew where the node changes, and what fails is the fault of that one.
        queue.sort_by_key(|found| (found.unit.process, found.to));
        self.queue = queue.into();
        if self.queue.is_empty() {
            if self.done > 0 {
                // Another part.
                return SOON;
            }
            self.placed.why = Some("its pages cannot be divided any finer".to_owned());
            return LATER;
        }
        Duration::ZERO
    }

    /// Anonymous pages of all its processes, and where they lie: those of the next part of its memory, if it is large.
    /// Looks for all pages anew; none where that cannot be done, which is told.
    fn search(&mut self) -> Option<Vec<Unit>> {
        self.placed.searches += 1;
        self.placed.why = None;
        self.gained = 0;
        self.shut.clear();
        self.units()
            .map_err(|reason| self.placed.why = Some(reason))
            .ok()
    }

    fn units(&mut self) -> Result<Vec<Unit>, String> {
        let processes = self
            .cgroup
            .processes()
            .map_err(|err| crate::runtime::chain(&err))?;
        let mut search = Search::new(self.done, MOST_PAGES);
        for process in processes {
            search.process(process);
        }
        self.done = match search.room == 0 {
            // There may be more.
            true => self.done.saturating_add(MOST_PAGES),
            false => 0,
        };
        match (search.units.is_empty(), search.failure) {
            (true, Some(reason)) => Err(reason),
            _ => Ok(search.units),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task of the control group that this test runs in, at such a ratio; none where there is nothing to be read.
    pub(super) fn task(target: LocalRatio) -> Option<Task> {
        let hierarchies = crate::kernel::cgroup::Hierarchies::probe().ok()?;
        let own = Cgroup::of_process(&hierarchies, std::process::id().cast_signed()).ok()?;
        let placement = Placement {
            means: crate::model::placement::Means::Correction,
            target: Some(target),
            is_learned: false,
            life: None,
            policy: None,
            local: "0".parse().unwrap(),
            remote: "1".parse().unwrap(),
            relies_on: None,
            wants: None,
            bandwidth: crate::model::Bytes::new(1 << 20),
            reasons: Vec::new(),
        };
        let mut task = Task::new(&own, placement, None).ok()?;
        task.life = Life::of(&task.placement, Arc::default());
        Some(task)
    }

    /// Calls of this thread that read, and calls that wrote, by the kernel's own count.
    fn calls() -> Option<[u64; 2]> {
        let text = std::fs::read_to_string("/proc/thread-self/io").ok()?;
        let of = |key| text.lines().find_map(|line| line.strip_prefix(key));
        Some([of("syscr: ")?.parse().ok()?, of("syscw: ")?.parse().ok()?])
    }

    #[test]
    fn at_its_ratio_each_look_is_one_reading_whatever_the_container_does() {
        // All that this process has is local: two hundredths less is its ratio, too.
        for target in [LocalRatio::of(98, 2).unwrap(), LocalRatio::LOCAL] {
            let (Some(mut task), Some(first)) = (task(target), calls()) else {
                return;
            };
            let mut near = 0;
            task.meter.anon_on_nodes(|node, bytes| {
                near += if node == 0 { bytes.get() } else { 0 };
            });
            if near < LEAST {
                return;
            }
            let own = calls().unwrap()[0] - first[0] - 1;
            let before = calls().unwrap();
            for _ in 0..8 {
                task.turn();
                for event in [Event::Rests, Event::Works] {
                    let due = task.due;
                    task.take(event);
                    assert_eq!(task.due, due, "not out of turn");
                }
            }
            let after = calls().unwrap();
            assert_eq!(after[0] - before[0], 8 + own, "calls that read");
            assert_eq!(after[1], before[1], "calls that wrote");
            let placed = &task.placed;
            assert_eq!((placed.looks, placed.searches, placed.moved), (8, 0, 0));
        }
    }
}
