//! `explain`: what is to be done with the memory of a container, why, and how it stands.

pub(super) mod find;
mod form;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::args::Explain;
use super::{Failure, output};
use crate::config::Config;
use crate::grant::{self, Declared, Described};
use crate::kernel::cgroup::{Cgroup, Meter, Version};
use crate::kernel::reason;
use crate::model::placement::Placement;
use crate::model::plan::Plan;
use crate::model::{Bytes, ContainerId, FunctionKey, MemoryLimit, Mode};
use crate::runtime::Status;
use find::Found;

/// The namespace of bundles when nobody names one.
const DEFAULT_NAMESPACE: &str = "default";

/// What is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    /// The name of the container, or what it would be.
    id: String,
    namespace: String,
    function: FunctionKey,
    /// None of what holds the namespaces of a pod.
    plan: Option<Plan>,
    /// None if its memory is not to be placed.
    placement: Option<Placement>,
    /// None of a bundle, and of a container that has ended.
    state: Option<State>,
}

impl Explained {
    fn ceiling(&self) -> Option<Bytes> {
        self.plan.as_ref()?.ceiling
    }
}

/// How a container stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    status: Status,
    /// Version of its control group.
    cgroup: u8,
    /// What whoever looks after it does, if that is recorded.
    mode: Option<Mode>,
    ceiling: Option<Bytes>,
    /// The limit in force, none without one.
    limit: Option<Bytes>,
    usage: Bytes,
    anon: Option<Bytes>,
    file: Option<Bytes>,
    shmem: Option<Bytes>,
    /// Ceiling less the limit in force.
    reclaimable: Option<Bytes>,
}

/// Where it is looked for containers: in one folder, or wherever the project keeps some.
pub(super) struct Roots {
    /// Given on the command line.
    pub(super) given: Option<PathBuf>,
    /// Else that of the configuration, besides those of all namespaces.
    pub(super) usual: PathBuf,
}

pub(super) fn run(args: &Explain, roots: &Roots, config: &Config) -> Result<(), Failure> {
    let explained = match container(args, roots)? {
        Some(found) => of_container(found, config)?,
        None => of_bundle(
            Path::new(&args.what),
            args.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
            config,
        )?,
    };
    match args.json {
        true => output::json(&explained)?,
        false => output::text(&form::table(&explained))?,
    }
    Ok(())
}

/// The container that is meant; none if a bundle is.
fn container(args: &Explain, roots: &Roots) -> Result<Option<Found>, Failure> {
    let is_path = args.what.contains('/') || [".", ".."].contains(&args.what.as_str());
    if is_path {
        return Ok(None);
    }
    let found = match args.what.parse::<ContainerId>() {
        Ok(id) => find::find(&id, args.namespace.as_deref(), roots),
        Err(err) => Err(Failure::from(err)),
    };
    match found {
        // A container of that name comes first.
        Err(_) if Path::new(&args.what).is_dir() => Ok(None),
        found => found.map(Some),
    }
}

fn of_bundle(folder: &Path, namespace: &str, config: &Config) -> Result<Explained, Failure> {
    let path = folder.join("config.json");
    let bytes = fs::read(&path).map_err(|err| {
        Failure::new(format!(
            "read {}: {}; a bundle folder holds a config.json (`elastic-mem spec` writes one to begin with)",
            path.display(),
            reason(&err)
        ))
    })?;
    let spec: Value = serde_json::from_slice(&bytes)
        .map_err(|err| Failure::new(format!("{}: {err}", path.display())))?;
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
    let id = folder.file_name().unwrap_or_default().to_string_lossy();
    Ok(explain(&Subject {
        id: &id,
        namespace,
        spec: &spec,
        bound: None,
        declared: Declared::of(&spec),
        cgroup: None,
        config,
    }))
}

fn of_container(found: Found, config: &Config) -> Result<Explained, Failure> {
    let Found {
        namespace,
        container,
        record,
    } = found;
    let spec = container.config()?;
    let cgroup = &container.state.cgroup;
    // Its control group may be gone.
    let meter = Meter::open(cgroup).ok();
    let mode = record.as_ref().map(|record| record.mode);
    let mut subject = Subject {
        id: &container.state.id,
        namespace: &namespace,
        spec: &spec,
        bound: record.as_ref().and_then(|record| record.function.as_ref()),
        declared: Declared {
            moves_high: mode.is_some_and(Mode::grants),
            ..Declared::of(&spec)
        },
        cgroup: meter.as_ref().map(|_| cgroup),
        config,
    };
    let mut explained = explain(&subject);
    let placement = container.state.placement.clone();
    let known = match cgroup.version {
        Version::V1 => record.as_ref().map(|record| record.ceiling),
        // Nobody but the engine changes it.
        Version::V2 => meter.as_ref().map(|meter| meter.limits().0?.bytes()),
    };
    if let Some(known) = known.filter(|known| *known != explained.ceiling()) {
        // It was updated.
        subject.declared.limit = known;
        explained = explain(&subject);
    }
    // As it was decided then.
    explained.placement = placement;
    let ceiling = explained.ceiling().or(subject.declared.limit);
    explained.state = meter.and_then(|meter| {
        let (limit, high) = meter.limits();
        let both = limit.into_iter().chain(high).reduce(MemoryLimit::lower);
        let limit = both.and_then(MemoryLimit::bytes);
        let composition = meter.composition().ok();
        Some(State {
            status: container.status(),
            cgroup: cgroup.version.number(),
            mode,
            ceiling,
            limit,
            usage: meter.usage().ok()?,
            anon: composition.map(|found| found.anon),
            file: composition.map(|found| found.file),
            shmem: composition.map(|found| found.shmem),
            reclaimable: ceiling
                .zip(limit)
                .map(|(ceiling, limit)| ceiling.saturating_sub(limit)),
        })
    });
    Ok(explained)
}

/// What a plan is made for.
struct Subject<'a> {
    id: &'a str,
    namespace: &'a str,
    spec: &'a Value,
    /// The function that it was bound to.
    bound: Option<&'a FunctionKey>,
    declared: Declared,
    cgroup: Option<&'a Cgroup>,
    config: &'a Config,
}

fn explain(subject: &Subject<'_>) -> Explained {
    let config = subject.config;
    let described = Described::by(subject.spec);
    let trusted = config.trusted();
    let facts = described.facts(subject.namespace, subject.id, &trusted);
    let function = subject.bound.cloned().unwrap_or_else(|| facts.function());
    let features = facts.features();
    let (mut plan, mut placement) = (None, None);
    if !facts.is_sandbox() {
        let settings = grant::settings(config, &function, &facts);
        placement = crate::placement::preview(&crate::placement::Subject {
            config,
            function: &function,
            settings: &settings,
            features: &features,
            spec: subject.spec,
        });
        plan = Some(grant::plan_for(
            config,
            &function,
            &settings,
            &features,
            subject.declared,
            subject.cgroup,
        ));
    }
    Explained {
        id: subject.id.to_owned(),
        namespace: subject.namespace.to_owned(),
        function,
        plan,
        placement,
        state: None,
    }
}
