//! One container that is being sampled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;

use super::pace::{self, Pace};
use super::placing::Left;
use super::record::Record;
use super::tally::{Shared, Standing, Tally};
use super::tuning::{Hands, Tuning};
use super::writing::{Collected, Writing};
use super::{Edge, Subject};
use crate::guardian::Guardian;
use crate::kernel::cgroup::Meter;
use crate::model::plan::Plan;
use crate::model::trace::{Context, End, Phase, Sample};
use crate::model::{Bytes, MemoryLimit, Mode};

/// `memory.stat` is read at every such look, and whenever usage has changed.
const STAT_EVERY: u32 = 5;
/// Pressure, events, limits and nodes are read at every such look.
const REST_EVERY: u32 = 50;
/// So much change of usage is worth a look at what it consists of.
const CHANGE: u64 = 1 << 20;
/// A peak that is higher by this share than the last one of which that is known is worth it too: what a run needs is
/// its peak, to one percent.
const PEAK_SHARE: u64 = 256;

/// A container before its start.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) key: u64,
    pub(super) subject: Subject,
    pub(super) status: Shared,
    /// Who looked after its limit until it was bound to another function.
    pub(super) tuning: Option<Tuning>,
    /// How often it is held.
    pub(super) holds: u32,
}

impl Waiting {
    /// Whether its limit is to be moved.
    pub(super) fn needs_hands(&self) -> bool {
        let plan = self.subject.plan.as_ref();
        plan.is_some_and(|plan| plan.mode.grants())
    }
}

/// A container from its start to its end.
#[derive(Debug)]
pub(super) struct Run {
    meter: Meter,
    trace: Keeper,
    pace: Pace,
    start: Duration,
    pub(super) due: Duration,
    looks: u32,
    phase: Option<Phase>,
    /// At the last reading of `memory.stat`.
    usage_then: Bytes,
    /// The most usage at any of them.
    peak_then: Bytes,
    sample: Sample,
    nodes: Vec<u32>,
    subject: Subject,
    tuning: Option<Tuning>,
    /// How often somebody outside holds it, moved or not: it may be bound to another function meanwhile.
    holds: u32,
    status: Shared,
    tally: Tally,
    /// The limit in force of a container whose limit is not moved.
    limit: Option<Bytes>,
}

/// What goes back to whoever asked for the end of a run.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) read: oneshot::Sender<()>,
    pub(super) written: oneshot::Sender<Option<PathBuf>>,
}

impl Run {
    /// Opens everything and takes the first sample.
    ///
    /// # Errors
    /// What failed, for the log.
    pub(super) fn start(
        waiting: Waiting,
        spool: &Path,
        now: Duration,
        mut hands: Option<&mut Hands>,
        writing: Option<&Writing>,
    ) -> Result<Self, String> {
        let Waiting {
            key,
            mut subject,
            status,
            tuning,
            holds,
        } = waiting;
        let meter = Meter::open(&subject.cgroup).map_err(|err| crate::runtime::chain(&err))?;
        let tuning = hands
            .as_deref_mut()
            .and_then(|hands| tune(key, &mut subject, &meter, (tuning, holds), hands));
        let mut nodes = Vec::new();
        meter.nodes(|node, _| {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        });
        nodes.sort_unstable();
        // All memory is on the only one.
        if nodes.len() < 2 {
            nodes.clear();
        }
        let context = &subject.context;
        let path = spool.join(format!("{}.csv", context.run));
        let fail = |err: std::io::Error| {
            format!("create {}: {}", path.display(), crate::kernel::reason(&err))
        };
        let record = Record::create(path.clone(), context, &nodes).map_err(fail)?;
        let trace = Keeper::of(record, key, writing.filter(|_| tuning.is_some()));
        let mut run = Self {
            sample: Sample {
                nodes: vec![None; nodes.len()],
                ..Sample::default()
            },
            meter,
            trace,
            pace: Pace::start(now),
            start: now,
            due: now,
            looks: 0,
            phase: None,
            usage_then: Bytes::ZERO,
            peak_then: Bytes::ZERO,
            nodes,
            tally: Tally::new(status.clone(), subject.context.run.clone()),
            limit: subject.context.ceiling,
            subject,
            tuning,
            holds,
            status,
        };
        run.look(now, hands)?;
        Ok(run)
    }

    /// Whether its limit is moved.
    pub(super) fn is_tuned(&self) -> bool {
        self.tuning.is_some()
    }

    /// Takes a sample.
    ///
    /// # Errors
    /// The control group is gone, or the file cannot be written.
    pub(super) fn look(&mut self, now: Duration, hands: Option<&mut Hands>) -> Result<(), String> {
        let first = self.looks == 0;
        self.read(now)?;
        let mut hands = hands;
        if let Some(hands) = hands.as_deref_mut() {
            self.follow_freezer(now, hands);
        }
        if let Some((tuning, hands)) = self.tuning.as_mut().zip(hands) {
            let phase = self.pace.phase(now);
            tuning.look(&mut self.sample, &self.meter, phase, first, hands);
            self.due = self.due.min(pace::due(now, tuning.period(phase)));
        }
        self.count();
        self.write()
    }

    /// Adds the look to the sums.
    fn count(&mut self) {
        let sample = &self.sample;
        if let (None, Some(limit)) = (&self.tuning, sample.limit) {
            self.limit = limit.bytes();
        }
        let standing = match &self.tuning {
            Some(tuning) => tuning.standing(),
            None => Standing {
                ceiling: self.limit,
                ..Standing::default()
            },
        };
        if let Some(waited) = sample.psi_some {
            self.tally.waited(waited);
        }
        let phase = self.phase.unwrap_or(Phase::Init);
        let usage = sample.usage.unwrap_or_default();
        self.tally.look(sample.at, usage, phase, &standing);
    }

    /// A container that is frozen has its ceiling until it is thawed: it cannot give anything back, and whoever froze it
    /// may need memory in it.
    fn follow_freezer(&mut self, now: Duration, hands: &mut Hands) {
        let Some(tuning) = &mut self.tuning else {
            return;
        };
        match tuning.has_turned(self.sample.cpu) {
            Some(true) => tuning.hold(now.saturating_sub(self.start), hands, None),
            Some(false) => self.end_hold(now, hands),
            None => {}
        }
    }

    /// Raises the grant to the ceiling until it is released.
    pub(super) fn hold(
        &mut self,
        now: Duration,
        hands: Option<&mut Hands>,
        held: Option<oneshot::Sender<()>>,
    ) {
        self.holds = self.holds.saturating_add(1);
        let at = now.saturating_sub(self.start);
        match (self.tuning.as_mut().zip(hands), held) {
            (Some((tuning, hands)), held) => tuning.hold(at, hands, held),
            // There is nothing to raise.
            (None, Some(held)) => {
                let _ = held.send(());
            }
            (None, None) => {}
        }
    }

    /// Ends a hold.
    pub(super) fn release(&mut self, now: Duration, hands: Option<&mut Hands>) {
        self.holds = self.holds.saturating_sub(1);
        if let Some(hands) = hands {
            self.end_hold(now, hands);
        }
    }

    fn end_hold(&mut self, now: Duration, hands: &mut Hands) {
        let at = now.saturating_sub(self.start);
        let Some(tuning) = &mut self.tuning else {
            return;
        };
        if let Err(reason) = tuning.release(at, &self.meter, hands) {
            tracing::warn!(run = %self.subject.context.run, reason, "its limit is not moved any more");
            self.let_go(hands);
        }
    }

    /// Something woke the thread: a container whose limit follows it is looked at.
    pub(super) fn alarmed(&mut self, now: Duration) {
        if self.tuning.is_some() {
            self.due = self.due.min(now);
        }
    }

    /// A request begins or ends.
    pub(super) fn edge(&mut self, now: Duration, edge: &Edge, hands: Option<&mut Hands>) {
        let at = now.saturating_sub(self.start);
        if let Some((tuning, hands)) = self.tuning.as_mut().zip(hands) {
            tuning.edge(at, edge, hands);
        }
        // What it does now is worth a look.
        self.due = now;
    }

    /// Has another guardian watch over it.
    ///
    /// # Errors
    /// What failed, for the log.
    pub(super) fn guard_again(&self, guardian: &mut Guardian) -> Result<(), String> {
        match &self.tuning {
            Some(tuning) => tuning.guard_again(guardian),
            None => Ok(()),
        }
    }

    /// Gives the limit back; it is sampled on.
    pub(super) fn let_go(&mut self, hands: &mut Hands) {
        if let Some(tuning) = self.tuning.take() {
            tuning.detach(hands);
        }
    }

    /// Gives up the trace so far; goes on with another context and plan.
    pub(super) fn unbound(self, key: u64, context: Context, plan: Option<Plan>) -> Waiting {
        self.trace.discard();
        Waiting {
            key,
            subject: Subject {
                context,
                plan,
                published: false,
                ..self.subject
            },
            status: self.status,
            tuning: self.tuning,
            holds: self.holds,
        }
    }

    /// Gives up everything. The trace is cut off, and what is told of the container holds no grant any more.
    pub(super) fn abandon(mut self, hands: Option<&mut Hands>) {
        if let Some(hands) = hands {
            self.let_go(hands);
        }
        self.tuning = None;
        self.count();
    }

    fn read(&mut self, now: Duration) -> Result<(), String> {
        let usage = self
            .meter
            .usage()
            .map_err(|err| crate::runtime::chain(&err))?;
        let cpu = self.meter.cpu();
        let sample = &mut self.sample;
        clear(sample);
        sample.at = now.saturating_sub(self.start);
        sample.usage = Some(usage);
        sample.cpu = cpu;
        let changed = usage.get().abs_diff(self.usage_then.get()) > CHANGE;
        let higher = usage.saturating_sub(self.peak_then).get();
        // A short run may have no other sample near its peak.
        let is_peak = match self.pace.starts(now) {
            true => higher > 0,
            false => higher > self.peak_then.get() / PEAK_SHARE,
        };
        if changed || is_peak || self.looks.is_multiple_of(STAT_EVERY) {
            if let Ok(found) = self.meter.composition() {
                sample.anon = Some(found.anon);
                sample.file = Some(found.file);
                sample.shmem = Some(found.shmem);
                sample.refault = Some(found.refault);
                sample.kernel = found.kernel.or_else(|| {
                    let rest = [found.anon, found.file, found.shmem];
                    Some(rest.into_iter().fold(usage, Bytes::saturating_sub))
                });
            }
            self.usage_then = usage;
            self.peak_then = self.peak_then.max(usage);
        }
        if self.looks.is_multiple_of(REST_EVERY) {
            self.read_rest();
        }
        self.looks = self.looks.wrapping_add(1);
        self.due = pace::due(now, self.pace.next(now, usage, cpu));
        let phase = self.pace.phase(now);
        // Written where it changes.
        if self.phase.replace(phase) != Some(phase) {
            self.sample.phase = Some(phase);
        }
        Ok(())
    }

    /// What it does, as of the last look.
    pub(super) fn phase(&self) -> Option<Phase> {
        self.phase
    }

    /// Takes the last sample and completes the file.
    pub(super) fn end(
        mut self,
        left: Option<Left>,
        now: Duration,
        code: Option<i32>,
        answers: Answers,
        hands: Option<&mut Hands>,
    ) {
        // Everything is read at the end.
        self.looks = 0;
        let mut result = self.read(now);
        let (_, oom_kills) = self.meter.events();
        self.tell_of_kills(oom_kills.unwrap_or(0));
        if result.is_ok() {
            self.phase = Some(Phase::Exit);
            self.tally.kills(oom_kills.unwrap_or(0));
            self.count();
        }
        // Before anybody looks for what is left in the container.
        if let Some(hands) = hands {
            self.let_go(hands);
        }
        let end = End {
            code,
            peak: self.meter.peak(),
            oom_kills: oom_kills.unwrap_or(0),
            seen: left.map(|left| left.seen).unwrap_or_default(),
            placed: left.map(|left| left.counts),
        };
        // Whoever asked may not want to know any more.
        let _ = answers.read.send(());
        if result.is_ok() {
            self.sample.phase = Some(Phase::Exit);
            result = self.write();
        }
        if let Err(reason) = result {
            tracing::debug!(reason, "end of a trace");
        }
        self.trace.finish(end, answers.written);
    }

    fn tell_of_kills(&self, kills: u64) {
        if kills == 0 {
            return;
        }
        let run = &self.subject.context.run;
        let met = self.tuning.as_ref().map_or(0, Tuning::times_met);
        let limit = self.meter.limits().0.map_or(-1, MemoryLimit::as_spec);
        tracing::warn!(
            %run,
            kills,
            limit,
            met_below_the_ceiling = met,
            "the OOM killer ended processes of this container; its trace has the curve"
        );
    }

    fn read_rest(&mut self) {
        let sample = &mut self.sample;
        (sample.limit, sample.high) = self.meter.limits();
        sample.psi_some = self.meter.pressure();
        (sample.ev_high, sample.ev_oom) = self.meter.events();
        if !self.nodes.is_empty() {
            let nodes = &self.nodes;
            self.meter.nodes(|node, bytes| {
                let place = nodes.iter().position(|known| *known == node);
                if let Some(sum) = place.and_then(|place| sample.nodes.get_mut(place)) {
                    let before = sum.map_or(0, Bytes::get);
                    *sum = Some(Bytes::new(before.saturating_add(bytes.get())));
                }
            });
        }
    }

    fn write(&mut self) -> Result<(), String> {
        self.trace
            .add(&self.sample)
            .map_err(|err| format!("write the trace: {}", crate::kernel::reason(&err)))
    }
}

/// Who writes a trace.
#[derive(Debug)]
enum Keeper {
    /// This thread.
    Here(Box<Record>),
    /// Another one.
    There(Collected),
}

impl Keeper {
    fn of(record: Record, key: u64, writing: Option<&Writing>) -> Self {
        let record = Box::new(record);
        match writing {
            Some(writing) => Self::There(writing.take_over(key, record)),
            None => Self::Here(record),
        }
    }

    fn add(&mut self, sample: &Sample) -> std::io::Result<()> {
        match self {
            Self::Here(record) => record.add(sample),
            Self::There(collected) => {
                collected.add(sample);
                Ok(())
            }
        }
    }

    fn finish(self, end: End, written: oneshot::Sender<Option<PathBuf>>) {
        match self {
            Self::Here(record) => {
                let path = record
                    .finish(&end)
                    .inspect_err(|err| tracing::debug!(%err, "end of a trace"));
                // Whoever asked may not want to know any more.
                let _ = written.send(path.ok());
            }
            Self::There(collected) => collected.finish(end, written),
        }
    }

    fn discard(self) {
        match self {
            Self::Here(record) => record.discard(),
            Self::There(collected) => collected.discard(),
        }
    }
}

/// Takes over the limit, if that is planned and possible; the context says what is done.
fn tune(
    key: u64,
    subject: &mut Subject,
    meter: &Meter,
    (before, holds): (Option<Tuning>, u32),
    hands: &mut Hands,
) -> Option<Tuning> {
    let Some(plan) = subject.plan.as_ref().filter(|plan| plan.mode.grants()) else {
        if let Some(before) = before {
            before.detach(hands);
        }
        return None;
    };
    let attached = match before {
        Some(tuning) => tuning.rebind(plan, meter, hands),
        None => Tuning::attach(key, subject, plan, meter, hands),
    };
    let attached = attached.map(|mut tuning| {
        (0..holds).for_each(|_| tuning.hold(Duration::ZERO, hands, None));
        tuning
    });
    if let Err(reason) = &attached {
        let container = subject.context.container.as_deref();
        tracing::warn!(container, reason, "its limit is not moved");
        subject.context.mode = Some(Mode::Observe.to_string());
    }
    attached.ok()
}

/// Nothing was read yet; the room of the nodes stays.
fn clear(sample: &mut Sample) {
    let mut nodes = std::mem::take(&mut sample.nodes);
    nodes.fill(None);
    *sample = Sample {
        nodes,
        ..Sample::default()
    };
}
