//! What there is to see of all containers of this host, for `top`, `metrics` and `report`.
//!
//! There is no daemon: the records say which containers there are, whoever looks after one answers at its socket, and
//! everything else is read from its control group.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Failure;
use crate::control::{self, Client, Found, Request, Seen};
use crate::kernel::cgroup::Meter;
use crate::kernel::host::{self, Node};
use crate::kernel::reason;
use crate::model::status::{Areas, Cause, Counts};
use crate::model::{Bytes, ClassName, ContainerId, FunctionKey, MemoryLimit, Mode, RunId};
use crate::runtime::Store;
use crate::sampler::Placed;

/// How long one container may take to answer, and all of them together: those that stand still must not keep the others
/// from being seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    one: Duration,
    all: Duration,
}

impl Patience {
    /// Of somebody who looks on.
    pub(super) const SHORT: Self = Self {
        one: Duration::from_millis(100),
        all: Duration::from_millis(500),
    };
    /// Of a program, for which a missing figure is worse than a late one.
    pub(super) const LONG: Self = Self {
        one: Duration::from_secs(2),
        all: Duration::from_secs(5),
    };
}

/// What came of a question.
enum Answer {
    /// What it knows: nothing of a container that has not started yet.
    Said(Option<Box<Seen>>),
    /// Whoever looks after it lives and does not answer.
    Silent,
    /// Nobody is left to ask.
    Nobody,
}

/// The host.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) memory_total: Bytes,
    pub(super) memory_available: Bytes,
    /// One, unless memory is not the same for all.
    pub(super) nodes: Vec<HostNode>,
}

/// A memory node of the host.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostNode {
    pub(super) number: u32,
    pub(super) has_cpus: bool,
    pub(super) total: Bytes,
    pub(super) free: Bytes,
}

/// The last change of a grant.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LastDecision {
    pub(super) cause: Cause,
    pub(super) reason: &'static str,
    pub(super) seconds_ago: f64,
    /// None is the ceiling.
    pub(super) grant: Option<Bytes>,
}

/// A container. What is not known is none: of one that nobody looks after, or that has no limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) namespace: String,
    pub(super) id: String,
    pub(super) function: Option<FunctionKey>,
    pub(super) class: Option<ClassName>,
    /// As Kubernetes names it.
    pub(super) pod_namespace: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) container: Option<String>,
    pub(super) pid: Option<i32>,
    pub(super) run: Option<RunId>,
    /// How long it has run.
    pub(super) seconds: Option<f64>,
    pub(super) mode: Mode,
    /// Whether whoever looks after it has answered.
    pub(super) attended: bool,
    /// Whether whoever looks after it lives and does not answer.
    #[serde(skip)]
    pub(super) silent: bool,
    pub(super) phase: Option<String>,
    /// All memory that is charged, and what it consists of.
    pub(super) usage: Option<Bytes>,
    pub(super) anon: Option<Bytes>,
    pub(super) file: Option<Bytes>,
    pub(super) shmem: Option<Bytes>,
    /// By the kernel's counter where it has one.
    pub(super) peak: Option<Bytes>,
    /// The limit in force.
    pub(super) grant: Option<Bytes>,
    pub(super) ceiling: Option<Bytes>,
    pub(super) reclaimable: Option<Bytes>,
    #[serde(flatten)]
    pub(super) areas: Option<Areas>,
    pub(super) saved_byte_seconds: Option<u64>,
    #[serde(flatten)]
    pub(super) counts: Option<Counts>,
    pub(super) last_decision: Option<LastDecision>,
    pub(super) oom_kills: Option<u64>,
    /// Time in which some task waited for memory.
    pub(super) psi_some_seconds: Option<f64>,
    /// The share of it since the last look.
    pub(super) psi_some_share: Option<f64>,
    /// Memory on each node, where there are several.
    pub(super) nodes: BTreeMap<u32, Bytes>,
    /// The sum over nodes with processors, and over the others, where there are both.
    pub(super) local: Option<Bytes>,
    pub(super) remote: Option<Bytes>,
    /// What was done for the placement of its memory.
    pub(super) placed: Option<Placed>,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    /// Raised when the meaning of a field changes.
    pub(super) version: u32,
    /// RFC 3339.
    pub(super) time: String,
    pub(super) host: Host,
    pub(super) containers: Vec<Row>,
}

/// The form of [`View`].
const VERSION: u32 = 1;

/// What is kept from one look to the next.
#[derive(Debug)]
pub(super) struct Survey {
    patience: Patience,
    known: BTreeMap<Name, Known>,
}

type Name = (String, String, Option<i32>);

/// What of a container does not change.
#[derive(Debug)]
struct Known {
    meter: Option<Meter>,
    /// When the time that tasks waited for memory was read last, and what it was.
    waited: Option<(Instant, Duration)>,
}

impl Survey {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            known: BTreeMap::new(),
        }
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// The folder of records cannot be read, or the kernel does not tell of its memory.
    pub(super) fn look(&mut self) -> Result<View, Failure> {
        may_read(Path::new(control::STATE))?;
        let nodes = host::nodes();
        let memory = host::memory()?;
        let deadline = Instant::now() + self.patience.all;
        let mut before = std::mem::take(&mut self.known);
        let mut containers = Vec::new();
        for found in control::all() {
            if found.record.is_stale() {
                continue;
            }
            let Some(id) = found.id() else { continue };
            let name = (found.namespace.clone(), id.clone(), found.record.pid);
            let mut known = before.remove(&name).unwrap_or_else(|| Known::of(&found));
            let answer = ask(&found, self.patience.one, deadline);
            containers.push(row(&found, id, answer, &mut known, &nodes));
            self.known.insert(name, known);
        }
        Ok(View {
            version: VERSION,
            time: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            host: Host {
                name: crate::kernel::host_name().unwrap_or_default(),
                memory_total: memory.total,
                memory_available: memory.available,
                nodes: nodes.iter().map(HostNode::of).collect(),
            },
            containers,
        })
    }
}

impl HostNode {
    fn of(node: &Node) -> Self {
        Self {
            number: node.number,
            has_cpus: node.has_cpus,
            total: node.total,
            free: node.free,
        }
    }
}

/// A folder that is not there holds nothing; one that cannot be read may hold anything.
fn may_read(folder: &Path) -> Result<(), Failure> {
    match std::fs::read_dir(folder) {
        Ok(_) => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(Failure::new(format!(
            "read {}, where the records of containers are: {}; run this as root",
            folder.display(),
            reason(&err)
        ))),
    }
}

/// What whoever looks after it says.
fn ask(found: &Found, patience: Duration, deadline: Instant) -> Answer {
    if !found.record.is_kept() {
        return Answer::Nobody;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Answer::Silent;
    }
    let answer = Client::connect(&found.folder, left.min(patience))
        .and_then(|mut client| client.ask(&Request::Status));
    match answer {
        // One of an older version says less.
        Ok(fields) => Answer::Said(serde_json::from_value(fields.into()).ok().map(Box::new)),
        Err(err) => {
            tracing::debug!("no answer: {}", crate::runtime::chain(&err));
            Answer::Silent
        }
    }
}

impl Known {
    fn of(found: &Found) -> Self {
        let container = found
            .id()
            .and_then(|id| id.parse::<ContainerId>().ok())
            .and_then(|id| Store::new(&found.record.runtime_root).load(&id).ok());
        Self {
            meter: container
                .as_ref()
                .and_then(|container| Meter::open(&container.state.cgroup).ok()),
            waited: None,
        }
    }

    /// The time that tasks waited for memory, and its share since the last look; the first time since the start.
    fn waited(&mut self, seconds: Option<f64>) -> (Option<f64>, Option<f64>) {
        let Some(waited) = self.meter.as_ref().and_then(Meter::pressure) else {
            return (None, None);
        };
        let now = Instant::now();
        let share = |waited: f64, time: f64| (time > 0.0).then(|| (waited / time).clamp(0.0, 1.0));
        let share = match self.waited.replace((now, waited)) {
            Some((then, before)) => share(
                waited.saturating_sub(before).as_secs_f64(),
                now.saturating_duration_since(then).as_secs_f64(),
            ),
            None => seconds.and_then(|seconds| share(waited.as_secs_f64(), seconds)),
        };
        (Some(waited.as_secs_f64()), share)
    }
}

fn row(found: &Found, id: String, answer: Answer, known: &mut Known, nodes: &[Node]) -> Row {
    let record = &found.record;
    let attended = matches!(answer, Answer::Said(_));
    let silent = matches!(answer, Answer::Silent);
    let seen = match answer {
        Answer::Said(seen) => seen,
        Answer::Silent | Answer::Nobody => None,
    };
    let (psi_some_seconds, psi_some_share) = known.waited(seen.as_ref().map(|seen| seen.seconds));
    let meter = known.meter.as_ref();
    let composition = meter.and_then(|meter| meter.composition().ok());
    let (limit, high) = meter.map(Meter::limits).unwrap_or_default();
    let in_force = limit.into_iter().chain(high).reduce(MemoryLimit::lower);
    let ceiling = match &seen {
        Some(seen) => seen.ceiling,
        None => record.ceiling,
    };
    let grant = match in_force {
        Some(limit) => limit.bytes(),
        None => record.grant,
    };
    let mut by_node = BTreeMap::new();
    if let (Some(meter), true) = (meter, nodes.len() > 1) {
        meter.nodes(|node, bytes| {
            let sum = by_node.entry(node).or_insert(Bytes::ZERO);
            *sum = Bytes::new(sum.get().saturating_add(bytes.get()));
        });
    }
    let sum = |has_cpus: bool| {
        let of_kind = nodes.iter().filter(|node| node.has_cpus == has_cpus);
        let bytes = of_kind.filter_map(|node| by_node.get(&node.number));
        Bytes::new(bytes.map(|bytes| bytes.get()).fold(0, u64::saturating_add))
    };
    let is_tiered = nodes.iter().any(|node| !node.has_cpus) && !by_node.is_empty();
    let (local, remote) = (is_tiered.then(|| sum(true)), is_tiered.then(|| sum(false)));
    let areas = seen.as_ref().map(|seen| seen.areas);
    Row {
        namespace: found.namespace.clone(),
        id,
        function: record.function.clone(),
        class: record.class.clone(),
        pod_namespace: record.pod_namespace.clone(),
        pod: record.pod.clone(),
        container: record.container.clone(),
        pid: record.pid,
        run: seen.as_ref().map(|seen| seen.run.clone()),
        seconds: seen.as_ref().map(|seen| seen.seconds),
        mode: record.mode,
        attended,
        // Nobody listens for one that is not looked after.
        silent: silent && record.mode != Mode::Off,
        phase: seen.as_ref().map(|seen| seen.phase.clone()),
        usage: meter.and_then(|meter| meter.usage().ok()),
        anon: composition.map(|found| found.anon),
        file: composition.map(|found| found.file),
        shmem: composition.map(|found| found.shmem),
        peak: meter
            .and_then(Meter::peak)
            .or_else(|| seen.as_ref().map(|seen| seen.peak)),
        grant,
        ceiling,
        reclaimable: ceiling
            .zip(grant)
            .map(|(ceiling, grant)| ceiling.saturating_sub(grant)),
        areas,
        saved_byte_seconds: areas.map(|areas| areas.saved().byte_seconds()),
        counts: seen.as_ref().map(|seen| seen.counts),
        last_decision: seen.and_then(|seen| {
            let last = seen.last_decision?;
            Some(LastDecision {
                cause: last.cause,
                reason: last.cause.reason(),
                seconds_ago: last.seconds_ago,
                grant: last.grant,
            })
        }),
        oom_kills: meter.and_then(|meter| meter.events().1),
        psi_some_seconds,
        psi_some_share,
        nodes: by_node,
        local,
        remote,
        placed: record.placed.clone(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::MemoryTime;
    use serde_json::Value;

    const MIB: u64 = 1 << 20;

    /// A container of a function that rests.
    pub(in crate::cli) fn row(id: &str) -> Row {
        let areas = Areas {
            used: MemoryTime::from_byte_nanos(1 << 60),
            granted: MemoryTime::from_byte_nanos(1_000_000_000 << 30),
            ceiling: MemoryTime::from_byte_nanos(2_500_000_000 << 30),
            fixed: MemoryTime::from_byte_nanos(1_500_000_000 << 30),
        };
        Row {
            namespace: "default".to_owned(),
            id: id.to_owned(),
            function: Some(FunctionKey::new("default", "thumb")),
            class: Some("small".parse().unwrap()),
            pod_namespace: None,
            pod: None,
            container: None,
            pid: Some(7),
            run: Some("run-1".parse().unwrap()),
            seconds: Some(10.0),
            mode: Mode::Elastic,
            attended: true,
            silent: false,
            phase: Some("keep-alive".to_owned()),
            usage: Some(Bytes::new(64 * MIB)),
            anon: Some(Bytes::new(40 * MIB)),
            file: Some(Bytes::new(20 * MIB)),
            shmem: Some(Bytes::ZERO),
            peak: Some(Bytes::new(70 * MIB)),
            grant: Some(Bytes::new(76 * MIB)),
            ceiling: Some(Bytes::new(256 * MIB)),
            reclaimable: Some(Bytes::new(180 * MIB)),
            areas: Some(areas),
            saved_byte_seconds: Some(areas.saved().byte_seconds()),
            counts: Some(Counts {
                raises: 3,
                lowers: 4,
                ..Counts::default()
            }),
            last_decision: Some(LastDecision {
                cause: Cause::Rest,
                reason: Cause::Rest.reason(),
                seconds_ago: 2.5,
                grant: Some(Bytes::new(76 * MIB)),
            }),
            oom_kills: Some(0),
            psi_some_seconds: Some(0.05),
            psi_some_share: Some(0.005),
            nodes: BTreeMap::new(),
            local: None,
            remote: None,
            placed: None,
        }
    }

    /// A host with these containers.
    pub(in crate::cli) fn view(containers: Vec<Row>) -> View {
        View {
            version: VERSION,
            time: "2026-11-26T20:00:00.000Z".to_owned(),
            host: Host {
                name: "node-1".to_owned(),
                memory_total: Bytes::new(24 << 30),
                memory_available: Bytes::new(12 << 30),
                nodes: Vec::new(),
            },
            containers,
        }
    }

    #[test]
    fn the_json_form_is_flat() {
        let json = serde_json::to_value(row("a")).unwrap();
        assert_eq!(json["savedByteSeconds"], 3_u64 << 29);
        assert_eq!(json["grantedByteSeconds"], 1_u64 << 30);
        assert_eq!(json["raises"], 3);
        assert_eq!(json["lastDecision"]["cause"], "rest");
        assert_eq!(json["remote"], Value::Null);
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(may_read(&dir.path().join("none")).is_ok());
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let err = may_read(&file).unwrap_err();
        assert!(err.text.contains("run this as root"), "{}", err.text);
    }
}
