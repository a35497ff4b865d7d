//! The thread of the sampler: takes messages, looks at the containers that are due, sees to the guardian.

use std::any::Any;
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::placing::{Event, Placing};
use super::run::{Run, Waiting};
use super::tuning::Hands;
use super::writing::Writing;
use super::{Edge, Message};
use crate::guardian::Guardian;
use crate::kernel::wait::{self, Waker};
use crate::model::Priority;
use crate::model::plan::Plan;
use crate::model::trace::{Context, Phase};

/// How often the guardian gets a sign of life, and is looked after: not at every look, for that costs a system call.
const GUARDIAN_EVERY: Duration = Duration::from_millis(50);

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Thread {
    epoch: Instant,
    program: PathBuf,
    spool: PathBuf,
    receiver: Receiver<Message>,
    waker: Arc<Waker>,
    waiting: BTreeMap<u64, Waiting>,
    running: BTreeMap<u64, Run>,
    /// Started for the first container whose limit is moved.
    hands: Option<Hands>,
    /// The same. Behind `running`: it ends after all traces.
    writing: Option<Writing>,
    /// Started for the first container whose pages may have to be moved.
    placing: Option<Placing>,
    /// When the guardian is to be seen to.
    guardian_due: Duration,
    priority: Priority,
}

impl Thread {
    pub(super) fn new(
        program: &Path,
        spool: &Path,
        receiver: Receiver<Message>,
        waker: Arc<Waker>,
        priority: Priority,
    ) -> Self {
        Self {
            epoch: Instant::now(),
            program: program.to_path_buf(),
            spool: spool.to_path_buf(),
            receiver,
            waker,
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            hands: None,
            writing: None,
            placing: None,
            guardian_due: Duration::ZERO,
            priority,
        }
    }

    /// Until it is told to stop.
    pub(super) fn run(&mut self) {
        if let Err(err) = wait::raise_priority(self.priority) {
            tracing::debug!("sampler: {}", crate::runtime::chain(&err));
        }
        loop {
            while let Ok(message) = self.receiver.try_recv() {
                if matches!(message, Message::Stop) {
                    return;
                }
                let about = message.about();
                self.guarded(about, |thread| thread.take(message));
            }
            self.guarded(None, Self::look_after_guardian);
            self.look();
            let next = self.running.values().map(|run| run.due).min();
            let now = self.epoch.elapsed();
            if self.waker.wait(next.map(|due| due.saturating_sub(now))) {
                // It may have been an alarm of usage: of whom it does not say.
                self.running.values_mut().for_each(|run| run.alarmed(now));
            }
        }
    }

    /// A panic ends the trace of the container that the work was about and gives its limit back; those of all where it was
    /// about none. It does not end the process, and containers that it was not about are looked after as before.
    fn guarded(&mut self, about: Option<u64>, work: impl FnOnce(&mut Self)) {
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(self))) else {
            return;
        };
        let reason = said(&*panic);
        let Some(key) = about else {
            tracing::error!(
                reason,
                "the sampler panicked: all traces are cut off, all limits are given back"
            );
            self.running.clear();
            self.waiting.clear();
            self.hands = None;
            return;
        };
        self.abandon(key, &reason);
    }

    /// Leaves a container alone from here on: what was done for it panicked.
    fn abandon(&mut self, key: u64, reason: &str) {
        tracing::error!(
            reason,
            "the sampler panicked: the trace of a container is cut off, its limit is given back"
        );
        self.waiting.remove(&key);
        if let Some(run) = self.running.remove(&key) {
            run.abandon(self.hands.as_mut());
        }
        self.forget(key);
    }

    /// Nothing is done for the limit and the pages of a container any more.
    fn forget(&mut self, key: u64) {
        if let Some(hands) = &mut self.hands {
            hands.guardian.forget(key);
        }
        if let Some(placing) = &mut self.placing {
            placing.forget(key);
        }
    }

    fn take(&mut self, message: Message) {
        let now = self.epoch.elapsed();
        match message {
            Message::GetReady => self.get_ready(),
            Message::Watch(key, waiting) => {
                if waiting.needs_hands() {
                    self.get_ready();
                }
                self.waiting.insert(key, *waiting);
            }
            Message::Started(key, granted) => {
                if let Some(waiting) = self.waiting.remove(&key) {
                    self.place(&waiting);
                    self.start(waiting, now);
                }
                // Whoever asked may not want to know any more.
                let _ = granted.send(());
            }
            Message::Ended(key, code, answers) => {
                self.waiting.remove(&key);
                let placing = self.placing.as_mut();
                let left = placing.and_then(|placing| placing.forget(key));
                if let Some(run) = self.running.remove(&key) {
                    run.end(left, now, code, answers, self.hands.as_mut());
                }
                self.forget(key);
            }
            Message::Forget(key) => {
                self.waiting.remove(&key);
            }
            Message::Hold(key, held) => {
                if let Some(run) = self.running.get_mut(&key) {
                    run.hold(now, self.hands.as_mut(), Some(held));
                    return;
                }
                if let Some(waiting) = self.waiting.get_mut(&key) {
                    waiting.holds = waiting.holds.saturating_add(1);
                }
                // There is nothing to raise.
                let _ = held.send(());
            }
            Message::Release(key) => {
                self.tell_of(key, Event::Released);
                if let Some(run) = self.running.get_mut(&key) {
                    run.release(now, self.hands.as_mut());
                } else if let Some(waiting) = self.waiting.get_mut(&key) {
                    waiting.holds = waiting.holds.saturating_sub(1);
                }
            }
            Message::Edge(key, edge) => {
                let event = match edge {
                    Edge::Begin { .. } => Event::Begin,
                    Edge::End => Event::End,
                };
                self.tell_of(key, event);
                if let Some(run) = self.running.get_mut(&key) {
                    run.edge(now, &edge, self.hands.as_mut());
                }
            }
            Message::Bind(key, binding) => self.bind(key, *binding, now),
            Message::Stop => {}
        }
    }

    /// Starts whatever moves limits, if there is none.
    fn get_ready(&mut self) {
        if self.hands.is_none() {
            self.hands = Hands::new(Arc::clone(&self.waker), &self.program)
                .inspect_err(|reason| tracing::warn!(reason, "no limit is moved"))
                .ok();
        }
        if self.writing.is_none() {
            self.writing = Writing::start()
                .inspect_err(|reason| {
                    tracing::warn!(reason, "traces are written where limits are moved")
                })
                .ok();
        }
    }

    fn start(&mut self, waiting: Waiting, now: Duration) {
        if waiting.needs_hands() {
            self.get_ready();
            // It may have died while there was nothing to guard.
            self.guardian_due = now;
            self.look_after_guardian();
        }
        let key = waiting.key;
        let name = waiting.subject.context.run.to_string();
        let retraction = waiting.subject.retraction();
        let started = make_folder(&self.spool).and_then(|()| {
            let writing = self.writing.as_ref();
            Run::start(waiting, &self.spool, now, self.hands.as_mut(), writing)
        });
        let is_tuned = started.as_ref().is_ok_and(Run::is_tuned);
        if let Some(retract) = retraction.filter(|_| !is_tuned) {
            retract();
        }
        match started {
            Ok(run) => {
                self.running.insert(key, run);
            }
            Err(reason) => tracing::warn!(run = name, reason, "no trace of this run"),
        }
    }

    /// Has the ratio of a container held that is to have one.
    fn place(&mut self, waiting: &Waiting) {
        let subject = &waiting.subject;
        let wanted = subject.placement.as_ref();
        let Some(placement) = wanted.filter(|placement| placement.is_watched()) else {
            return;
        };
        if self.placing.is_none() {
            self.placing = Placing::start()
                .inspect_err(|reason| tracing::warn!(reason, "no pages are moved"))
                .ok();
        }
        if let Some(placing) = &mut self.placing {
            let tell = subject.tell.clone();
            placing.watch(waiting.key, &subject.cgroup, placement.clone(), tell);
        }
    }

    /// Tells whoever places the memory of a container what happens to it.
    fn tell_of(&self, key: u64, event: Event) {
        if let Some(placing) = &self.placing {
            placing.event(key, event);
        }
    }

    fn bind(&mut self, key: u64, (context, plan): (Context, Option<Plan>), now: Duration) {
        if let Some(waiting) = self.waiting.get_mut(&key) {
            let subject = &mut waiting.subject;
            if let Some(retract) = subject.retraction() {
                retract();
            }
            subject.published = false;
            subject.context = context;
            subject.plan = plan;
        } else if let Some(run) = self.running.remove(&key) {
            self.start(run.unbound(key, context, plan), now);
        }
    }

    fn look_after_guardian(&mut self) {
        let now = self.epoch.elapsed();
        if let Some(hands) = &mut self.hands
            && now >= self.guardian_due
        {
            self.guardian_due = now + GUARDIAN_EVERY;
            hands.guardian.beat();
            if !hands.guardian.is_alive() {
                self.replace_guardian();
            }
        }
    }

    fn look(&mut self) {
        let now = self.epoch.elapsed();
        let (hands, placing) = (&mut self.hands, &self.placing);
        let mut panicked = Vec::new();
        self.running.retain(|key, run| {
            if run.due > now {
                return true;
            }
            let before = run.phase();
            let looked = catch_unwind(AssertUnwindSafe(|| run.look(now, hands.as_mut())));
            if let Some(placing) = placing
                && run.phase() != before
            {
                let event = match run.phase() {
                    Some(Phase::KeepAlive) => Event::Rests,
                    _ => Event::Works,
                };
                placing.event(*key, event);
            }
            match looked {
                Ok(looked) => looked
                    .inspect_err(|reason| tracing::warn!(reason, "a trace is cut off"))
                    .is_ok(),
                Err(panic) => {
                    panicked.push((*key, said(&*panic)));
                    true
                }
            }
        });
        for (key, reason) in panicked {
            self.abandon(key, &reason);
        }
    }

    /// Nothing is below its ceiling without somebody who watches over it.
    fn replace_guardian(&mut self) {
        let Some(hands) = &mut self.hands else { return };
        let now = self.epoch.elapsed();
        for run in self.running.values_mut() {
            run.hold(now, Some(hands), None);
        }
        tracing::warn!("the guardian of limits is gone: another one is started");
        let again = Guardian::start_from(&self.program).and_then(|guardian| {
            hands.guardian = guardian;
            self.running
                .values()
                .try_for_each(|run| run.guard_again(&mut hands.guardian))
        });
        match again {
            Ok(()) => {
                let now = self.epoch.elapsed();
                for run in self.running.values_mut() {
                    run.release(now, Some(hands));
                }
            }
            Err(reason) => {
                tracing::error!(reason, "no limit is moved any more");
                for run in self.running.values_mut() {
                    run.let_go(hands);
                    run.release(Duration::ZERO, None);
                }
                self.hands = None;
            }
        }
    }
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason given").to_owned()
}

/// The spool folder, for us alone.
fn make_folder(path: &Path) -> Result<(), String> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|err| format!("create {}: {}", path.display(), crate::kernel::reason(&err)))
}
