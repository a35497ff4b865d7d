//! What is done with the limit of one container that is being sampled.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::alarms::Alarms;
use super::lowering::{Limit, Lowering};
use super::tally::Standing;
use super::{Edge, Subject};
use crate::guardian::Guardian;
use crate::kernel::cgroup::{Failures, Freezer, Lever, Meter, Version};
use crate::kernel::wait::Waker;
use crate::model::plan::Plan;
use crate::model::trace::{Phase, Sample};
use crate::model::{Bytes, MemoryLimit};
use crate::policy::step::{Guard, Look, Note};
use crate::runtime::chain;

/// A container whose limit follows it is looked at so often while it works: what it can grow by in this time and in that
/// of a late look has room in the pad.
const WORKING: Duration = Duration::from_millis(4);
/// The same on cgroup v2, where nothing tells of usage that passes a threshold.
const WORKING_UNTOLD: Duration = Duration::from_millis(2);
/// The same while it rests.
const RESTING: Duration = Duration::from_millis(10);
/// How often others are told of the grant.
const TELLING: Duration = Duration::from_secs(1);

/// What the containers of a process share.
#[derive(Debug)]
pub(super) struct Hands {
    pub(super) lowering: Lowering,
    pub(super) guardian: Guardian,
    /// Of the thread that looks.
    waker: Arc<Waker>,
}

impl Hands {
    /// # Errors
    /// What failed, for the log.
    pub(super) fn new(waker: Arc<Waker>, program: &Path) -> Result<Self, String> {
        Ok(Self {
            lowering: Lowering::start(Arc::clone(&waker))?,
            guardian: Guardian::start_from(program)?,
            waker,
        })
    }
}

/// The limit of one container.
#[derive(Debug)]
pub(super) struct Tuning {
    key: u64,
    name: String,
    version: Version,
    guard: Guard,
    bounds: Bounds,
    /// For raises, and for giving the limit back.
    lever: Lever,
    limit: Arc<Limit>,
    /// Whether page cache can be dropped and nothing else: cgroup v1 would swap out too.
    drops_cache: bool,
    freezer: Option<Freezer>,
    is_frozen: bool,
    /// At the last look.
    cpu: Option<Duration>,
    alarms: Alarms,
    /// Who waits for the ceiling.
    holders: Vec<oneshot::Sender<()>>,
    recorded: Option<MemoryLimit>,
    told: Option<(Duration, Option<Bytes>)>,
    /// The counter at the last look.
    met: u64,
    /// The kernel has refused a change, and that was told.
    is_told: bool,
}

/// What no ceiling is above, whatever is declared in the life of the container.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// By its settings.
    set: Option<Bytes>,
    /// By the control groups above.
    above: Option<Bytes>,
}

impl Bounds {
    fn of(plan: &Plan) -> Self {
        Self {
            set: plan.set,
            above: plan.above,
        }
    }

    /// The ceiling of a container with such a hard limit.
    fn ceiling(self, hard: Option<Bytes>) -> Option<Bytes> {
        [hard, self.set, self.above].into_iter().flatten().min()
    }
}

impl Tuning {
    /// Takes over the limit of a container that waits for its start.
    ///
    /// # Errors
    /// What failed, for the log: the limit is as it was then.
    pub(super) fn attach(
        key: u64,
        subject: &Subject,
        plan: &Plan,
        meter: &Meter,
        hands: &mut Hands,
    ) -> Result<Self, String> {
        let cgroup = &subject.cgroup;
        let lever = Lever::open(cgroup).map_err(|err| chain(&err))?;
        let lowering = Lever::open(cgroup).map_err(|err| chain(&err))?;
        let mut declared = lever.get().map_err(|err| chain(&err))?;
        // It may have been changed since the plan was made.
        let hard = hard(cgroup.version, declared, meter)?;
        let oom_killer = lever.has_oom_killer().map_err(|err| chain(&err))?;
        // Nothing is lowered that nobody watches over.
        hands.guardian.guard(key, &lever, declared, oom_killer)?;
        if let Some(lowered) = plan.lowered {
            declared = declared.lower(Lever::kept(lowered));
            lever.set(declared).map_err(|err| chain(&err))?;
            hands.guardian.ceiling(key, declared)?;
        }
        if cgroup.version == Version::V2
            && let Err(err) = meter.watch_high(&hands.waker)
        {
            tracing::debug!("no alarm of the limit: {}", chain(&err));
        }
        let met = met(cgroup.version, meter);
        let within = below(plan, hard);
        // Unless what they were told is not so any more.
        let is_told = subject.published && within.ceiling == plan.ceiling;
        Ok(Self {
            key,
            name: subject.context.container.clone().unwrap_or_default(),
            version: cgroup.version,
            guard: Guard::new(&within, declared, met),
            bounds: Bounds::of(plan),
            lever,
            limit: Arc::new(Limit::new(
                lowering,
                meter.alarm().ok(),
                oom_killer,
                declared,
                // A late binding needs it again.
                subject.publish.clone(),
            )),
            drops_cache: cgroup.version == Version::V2 || !crate::kernel::has_swap(),
            freezer: Freezer::open(cgroup),
            is_frozen: false,
            cpu: None,
            alarms: Alarms::new(plan.largest.unwrap_or_default()),
            holders: Vec::new(),
            recorded: None,
            told: is_told.then_some((Duration::ZERO, plan.grant)),
            met,
            is_told: false,
        })
    }

    /// Goes on with another plan for the same container, from its ceiling. The limit is not given back in between: while
    /// the other thread may still write it, what is in force then is not what was declared.
    ///
    /// # Errors
    /// What failed, for the log: the limit is given back then.
    pub(super) fn rebind(
        mut self,
        plan: &Plan,
        meter: &Meter,
        hands: &mut Hands,
    ) -> Result<Self, String> {
        // What somebody else has written stays.
        if let Some(found) = self.limit.foreign(&self.lever)
            && !self.guard.is_aside()
        {
            let note = self.guard.step_aside(Duration::ZERO, found);
            self.tell(Duration::ZERO, note, hands);
        }
        let was_aside = self.guard.is_aside();
        if !was_aside {
            if let Some(lowered) = plan.lowered {
                let declared = self.limit.declared();
                self.limit.declare(declared.lower(Lever::kept(lowered)));
            }
            self.apply(Some(None), hands, false);
            if let Err(reason) = hands.guardian.ceiling(self.key, self.limit.declared()) {
                self.detach(hands);
                return Err(reason);
            }
        }
        self.met = met(self.version, meter);
        let declared = self.limit.declared();
        let plan = &match hard(self.version, declared, meter) {
            Ok(hard) => below(plan, hard),
            Err(reason) => {
                self.detach(hands);
                return Err(reason);
            }
        };
        self.bounds = Bounds::of(plan);
        self.guard = Guard::new(plan, declared, self.met);
        if was_aside && let Err(reason) = self.guard_again(&mut hands.guardian) {
            self.detach(hands);
            return Err(reason);
        }
        self.alarms = Alarms::new(plan.largest.unwrap_or_default());
        (self.recorded, self.told) = (None, None);
        if self.is_frozen {
            self.hold(Duration::ZERO, hands, None);
        }
        Ok(self)
    }

    /// How often the container is to be looked at, at least.
    pub(super) fn period(&self, phase: Phase) -> Duration {
        match (phase, self.version) {
            (Phase::KeepAlive, _) => RESTING,
            (_, Version::V1) => WORKING,
            (_, Version::V2) => WORKING_UNTOLD,
        }
    }

    /// Acts on a look. The limit goes into the sample whenever it has changed.
    pub(super) fn look(
        &mut self,
        sample: &mut Sample,
        meter: &Meter,
        phase: Phase,
        first: bool,
        hands: &mut Hands,
    ) {
        let at = sample.at;
        self.tell_holders();
        if self.limit.was_refused() && !self.guard.is_aside() {
            // Also if it was the ceiling that could not be written.
            self.guard.refused(at);
            self.apply(Some(None), hands, false);
        }
        let read = match self.version {
            Version::V1 => sample.limit,
            Version::V2 => sample.high,
        };
        let look = Look {
            at,
            usage: sample.usage.unwrap_or_default(),
            cpu: sample.cpu,
            file: sample.file,
            met: met(self.version, meter),
            waited: sample.psi_some,
            limit: read.and_then(|read| self.foreign(read)),
            idle: phase == Phase::KeepAlive,
        };
        if self.met != look.met {
            self.met = look.met;
            sample.ev_high = Some(look.met);
        }
        let step = self.guard.look(&look);
        if let Some(note) = step.note {
            self.tell(at, note, hands);
        }
        // Before it is lowered, so that whoever finds us dead knows of it.
        self.publish(at, hands, first);
        let grant = step.grant.filter(|_| !self.guard.is_aside());
        self.change(at, grant, hands, first);
        if self.version == Version::V1
            && self.limit.is_at_rest()
            && let Some(above) = self.alarms.next(look.usage)
        {
            hands.lowering.alarm(&self.limit, above);
        }
        if let Some(most) = step.drop_cache.filter(|_| self.drops_cache) {
            hands.lowering.drop_cache(&self.limit, most);
        }
        self.record(sample);
    }

    /// What is in force, where that is somebody else's; `read` may be older than our last change.
    fn foreign(&self, read: MemoryLimit) -> Option<MemoryLimit> {
        if self.guard.is_aside() {
            let is_still = !self.limit.is_being_lowered();
            return self.lever.get().ok().filter(|_| is_still);
        }
        let is_other = read != self.limit.applied();
        is_other.then(|| self.limit.foreign(&self.lever)).flatten()
    }

    /// Whether the container has been frozen (`true`) or thawed since this was last asked, whoever did it. One that uses
    /// CPU time is not asked about.
    pub(super) fn has_turned(&mut self, cpu: Option<Duration>) -> Option<bool> {
        let rests = self.cpu == cpu;
        self.cpu = cpu;
        let freezer = self.freezer.as_ref().filter(|_| rests || self.is_frozen)?;
        let now = freezer.is_frozen();
        let before = std::mem::replace(&mut self.is_frozen, now);
        (before != now).then_some(now)
    }

    /// Raises to the ceiling for whoever is about to change the container; they are told once nothing of ours can write
    /// the limit any more.
    pub(super) fn hold(
        &mut self,
        at: Duration,
        hands: &mut Hands,
        held: Option<oneshot::Sender<()>>,
    ) {
        let grant = self.guard.hold();
        self.change(at, grant, hands, false);
        self.holders.extend(held);
        self.tell_holders();
    }

    fn tell_holders(&mut self) {
        if !self.limit.is_being_lowered() {
            for held in self.holders.drain(..) {
                // Whoever asked may not want to know any more.
                let _ = held.send(());
            }
        }
    }

    /// Ends a hold: the limit in force is the declared one now.
    ///
    /// # Errors
    /// Why the limit cannot be looked after any more.
    pub(super) fn release(
        &mut self,
        at: Duration,
        meter: &Meter,
        hands: &mut Hands,
    ) -> Result<(), String> {
        if self.guard.is_aside() || self.limit.is_being_lowered() {
            // What is in force is not what anybody declared.
            self.guard
                .release(at, self.guard.ceiling(), self.limit.declared());
            return Ok(());
        }
        let declared = self.lever.get().map_err(|err| chain(&err))?;
        let theirs = match hard(self.version, declared, meter) {
            Ok(_) if self.version == Version::V2 && declared != self.limit.declared() => {
                Err("memory.high was set by somebody else".to_owned())
            }
            found => found,
        };
        let hard = match theirs {
            Ok(hard) => hard,
            Err(reason) => {
                // What they wrote stays when this is dropped.
                let ceiling = meter.limits().0.and_then(MemoryLimit::bytes);
                self.guard.release(at, ceiling, declared);
                self.guard.step_aside(at, declared);
                return Err(reason);
            }
        };
        let found = declared;
        let set = self.bounds.set.map(Lever::kept);
        let declared = match (self.version, set) {
            (Version::V1, Some(set)) => found.lower(set),
            _ => found,
        };
        self.limit.declare(declared);
        hands.guardian.ceiling(self.key, declared)?;
        self.guard.release(at, self.bounds.ceiling(hard), declared);
        if declared != found {
            // More was declared than its settings allow.
            self.apply(Some(None), hands, false);
        }
        Ok(())
    }

    /// A request begins or ends.
    pub(super) fn edge(&mut self, at: Duration, edge: &Edge, hands: &mut Hands) {
        match edge {
            Edge::Begin { input, class } => {
                let grant = self.guard.begin(at, class.as_ref(), *input);
                self.change(at, grant, hands, false);
            }
            Edge::End => self.guard.end(at),
        }
    }

    /// Watches over it again: the guardian is a new one.
    ///
    /// # Errors
    /// What failed, for the log.
    pub(super) fn guard_again(&self, guardian: &mut Guardian) -> Result<(), String> {
        if self.guard.is_aside() {
            return Ok(());
        }
        guardian.guard(
            self.key,
            &self.lever,
            self.limit.declared(),
            self.limit.oom_killer(),
        )
    }

    /// Gives the limit back.
    pub(super) fn detach(self, hands: &mut Hands) {
        let key = self.key;
        hands
            .lowering
            .publish(&self.limit, None, self.guard.ceiling());
        drop(self);
        hands.guardian.forget(key);
    }

    /// What is done with the limit now.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            grant: self.guard.grant(),
            ceiling: self.guard.ceiling(),
            fixed: self.guard.fixed(),
            counts: self.guard.counts(),
            last: self.guard.last(),
        }
    }

    /// How often its limit was met.
    pub(super) fn times_met(&self) -> u64 {
        self.guard.counts().met
    }

    /// Changes the limit unless somebody else has since it was last changed.
    fn change(&mut self, at: Duration, grant: Option<Option<Bytes>>, hands: &mut Hands, now: bool) {
        // Who finds the ceiling there when it is due, as after a guardian was at work, need not write it against anybody.
        let is_due = |found: &MemoryLimit| grant == Some(None) && *found == self.limit.declared();
        if grant.is_some()
            && let Some(found) = self.limit.foreign(&self.lever)
            && !is_due(&found)
        {
            let note = self.guard.step_aside(at, found);
            return self.tell(at, note, hands);
        }
        self.apply(grant, hands, now);
    }

    fn apply(&mut self, grant: Option<Option<Bytes>>, hands: &Hands, now: bool) {
        let Some(grant) = grant else { return };
        if let Err(err) = self.limit.grant(grant, &self.lever, &hands.lowering, now)
            && !err.is_gone()
            // It is tried again at each look.
            && !std::mem::replace(&mut self.is_told, true)
        {
            tracing::warn!(container = self.name, "limit not changed: {}", chain(&err));
        }
    }

    fn record(&mut self, sample: &mut Sample) {
        let now = self.limit.applied();
        if self.recorded.replace(now) == Some(now) {
            return;
        }
        match self.version {
            Version::V1 => sample.limit = Some(now),
            Version::V2 => sample.high = Some(now),
        }
    }

    /// `now`: before this returns, and not by the other thread.
    fn publish(&mut self, at: Duration, hands: &Hands, now: bool) {
        let grant = self.guard.grant();
        // That it is below its ceiling cannot wait.
        let due = self.told.is_none_or(|(then, told)| {
            told != grant && (told.is_none() || at.saturating_sub(then) >= TELLING)
        });
        if due {
            self.told = Some((at, grant));
            match now {
                true => self.limit.publish(grant, self.guard.ceiling()),
                false => hands
                    .lowering
                    .publish(&self.limit, grant, self.guard.ceiling()),
            }
        }
    }

    fn tell(&mut self, at: Duration, note: Note, hands: &mut Hands) {
        let container = self.name.as_str();
        match note {
            Note::Outside { usage, most } => tracing::info!(
                container,
                %usage,
                %most,
                "uses more than any run that is known: granted its ceiling, followed from above after that"
            ),
            Note::Early { usage, known } => tracing::info!(
                container,
                %usage,
                %known,
                "uses more than any run that is known had used until then: the profile learns of it at its end"
            ),
            Note::Met { times, grant } => {
                tracing::warn!(container, times, %grant, "met its limit: raised to its ceiling");
            }
            Note::Pressed { waited, grant } => tracing::warn!(
                container,
                ?waited,
                %grant,
                "its tasks waited for memory: raised to its ceiling"
            ),
            Note::Foreign { found } => {
                self.limit.leave(&self.lever);
                // It would raise what they wrote.
                hands.guardian.forget(self.key);
                tracing::warn!(
                    container,
                    found = found.as_spec(),
                    "its limit was written by somebody else: left alone"
                );
            }
            Note::Restored => match self.guard_again(&mut hands.guardian) {
                Ok(()) => tracing::info!(container, "its limit is as declared: granted again"),
                Err(reason) => {
                    tracing::debug!(container, reason, "nobody watches over its limit");
                    self.guard.step_aside(at, self.limit.declared());
                }
            },
        }
    }
}

impl Drop for Tuning {
    /// Also when the sampler panics.
    fn drop(&mut self) {
        if self.guard.is_aside() {
            self.limit.leave(&self.lever);
        } else {
            self.limit.restore(&self.lever);
        }
    }
}

/// The hard limit that is declared, if there is one; `declared` is what the file of the limit holds while nothing is
/// granted.
///
/// # Errors
/// cgroup v1 without one: none is ever set there.
fn hard(version: Version, declared: MemoryLimit, meter: &Meter) -> Result<Option<Bytes>, String> {
    match version {
        Version::V1 => match declared.bytes() {
            None => Err("no limit is declared any more".to_owned()),
            hard => Ok(hard),
        },
        Version::V2 => Ok(meter.limits().0.and_then(MemoryLimit::bytes)),
    }
}

/// The plan, with no ceiling above this hard limit.
fn below(plan: &Plan, hard: Option<Bytes>) -> Plan {
    let ceiling = [plan.ceiling, hard].into_iter().flatten().min();
    Plan {
        ceiling,
        ..plan.clone()
    }
}

/// How often the limit that is moved was met.
fn met(version: Version, meter: &Meter) -> u64 {
    let Failures { limit, high } = meter.failures().unwrap_or_default();
    match version {
        Version::V1 => limit,
        Version::V2 => high,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i2_no_ceiling_is_above_its_bounds_whatever_is_declared() {
        let bytes = |n| Some(Bytes::new(n));
        let bounds = |set, above| Bounds { set, above };
        assert_eq!(bounds(None, None).ceiling(bytes(9)), bytes(9));
        assert_eq!(bounds(bytes(7), None).ceiling(bytes(9)), bytes(7));
        assert_eq!(bounds(bytes(7), bytes(5)).ceiling(bytes(9)), bytes(5));
        assert_eq!(bounds(bytes(7), bytes(5)).ceiling(bytes(3)), bytes(3));
        assert_eq!(bounds(None, bytes(5)).ceiling(None), bytes(5));
        assert_eq!(bounds(None, None).ceiling(None), None);
    }
}
