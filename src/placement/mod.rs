//! Places the memory of containers: gathers what that depends on, has it decided (`policy::placement`), writes it into
//! the configuration of a container that is being created, and keeps the interleave weights of the host (`weights`).
//!
//! Nothing here stops a container: where something is missing it runs as plain, and one line says why.

mod held;
mod weights;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

pub use held::{Held, held};
pub use weights::{Found, Lease, WeightsError, forget, release, set, show, sweep};

use crate::config::Config;
use crate::control;
use crate::grant::Described;
use crate::kernel::probe::{self, Accepted};
use crate::model::placed::Seen;
use crate::model::placement::{LocalRatio, Means, Placement, PlacementPolicy};
use crate::model::profile::Profile;
use crate::model::{ContainerId, FunctionKey, Mode, Origin, Setting};
use crate::policy::placement::{Learned, Request, Rights, decide, learned, target};
use crate::policy::settings::FunctionSettings;
use crate::profile::Store;

/// Why weights stay as they are, in most cases.
const NOT_OURS: &str = "weights.own is false";

/// Places a container that is being created: its configuration gets a memory policy, and the host weights if they are
/// needed and ours to set. `ratio` counts before every setting. None if nothing is wanted.
pub fn place(
    config: &Config,
    root: &Path,
    id: &ContainerId,
    spec: &mut Value,
    ratio: Option<LocalRatio>,
) -> Option<Placement> {
    let namespace = namespace(root);
    let described = Described::by(spec);
    let trusted = config.trusted();
    let facts = described.facts(&namespace, id.as_str(), &trusted);
    if facts.is_sandbox() {
        return None;
    }
    // What is ignored is told by whoever looks after the container.
    let (mut settings, _) = config
        .for_function(&facts.function())
        .tightened(facts.annotations, &trusted.annotations);
    // Who sits at the command line comes last.
    if let Some(value) = ratio {
        let origin = Origin::Option("--local-ratio");
        settings.local_ratio = Some(Setting { value, origin });
    }
    if !is_wanted(&settings) {
        return None;
    }
    let subject = Subject {
        config,
        function: &facts.function(),
        settings: &settings,
        features: &facts.features(),
        spec,
    };
    let placement = match config.weights_own.value {
        true => weights::with(root, id, |rights| wanted(&subject, rights)),
        false => wanted(&subject, Rights::None(NOT_OURS)),
    };
    if let Some(policy) = &placement.policy {
        put(spec, json!(policy));
    }
    if let Means::Plain | Means::Foreign = placement.means {
        let because = placement
            .reasons
            .last()
            .map(|reason| reason.because.as_str());
        tracing::info!(%id, "its memory is not placed: {}", because.unwrap_or_default());
    }
    Some(placement)
}

/// What a placement is decided for.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The function.
    pub function: &'a FunctionKey,
    /// What is said of it.
    pub settings: &'a FunctionSettings,
    /// Numbers that describe its input.
    pub features: &'a BTreeMap<String, f64>,
    /// The `config.json` of the container.
    pub spec: &'a Value,
}

/// What would be decided for a container that is not created yet; none if nothing is wanted.
pub fn preview(subject: &Subject<'_>) -> Option<Placement> {
    let rights = match subject.config.weights_own.value {
        true => weights::rights(),
        false => Rights::None(NOT_OURS),
    };
    is_wanted(subject.settings).then(|| wanted(subject, rights))
}

fn is_wanted(settings: &FunctionSettings) -> bool {
    settings.mode.value != Mode::Off
        && (settings.placement.value.learns()
            || settings.placement.value.has_life_cycle()
            || target(&settings.placement, settings.local_ratio.as_ref()).is_some())
}

fn wanted(subject: &Subject<'_>, rights: Rights) -> Placement {
    let Subject {
        config,
        settings,
        spec,
        ..
    } = *subject;
    let layout = probe::layout(Path::new("/"));
    // Not asked where it makes no difference.
    let accepted = match layout.remote().is_empty() {
        true => Accepted::Unknown,
        false => probe::accepts_weighted_interleave(&layout),
    };
    let policy = settings.placement.value;
    // Nothing is looked up where it makes no difference.
    let looks_up = !layout.remote().is_empty() && (policy.learns() || policy.has_life_cycle());
    let profile = looks_up.then(|| {
        let store = Store::new(&config.profile_folder.value, config.keep_traces.value);
        store.lookup(subject.function)
    });
    let profile = profile.flatten();
    decide(&Request {
        layout: &layout,
        weighted_interleave: match accepted {
            Accepted::Yes => Ok(()),
            Accepted::No { reason } => Err(reason),
            Accepted::Unknown => Err("not asked".to_owned()),
        },
        policy: &settings.placement,
        ratio: settings.local_ratio.as_ref(),
        learned: match policy {
            PlacementPolicy::Pond => untouched(&seen(subject, profile.as_ref())),
            _ => (looks_up && policy.learns()).then(|| from_runs(subject, profile.as_ref())),
        },
        semi_warm_after: &semi_warm_after(subject, profile.as_ref()),
        bandwidth: config.placement_bandwidth.value,
        declared: declared(spec),
        rights,
    })
}

/// What earlier runs of the function and its input class tell.
fn from_runs(subject: &Subject<'_>, profile: Option<&Profile>) -> (LocalRatio, String) {
    let Subject {
        config, settings, ..
    } = subject;
    let class = settings.class.as_ref().map(|class| &class.value);
    let measured = profile.and_then(|profile| profile.placed_runs(class, subject.features));
    learned(&Learned {
        policy: settings.placement.value,
        measured: measured.unwrap_or_default(),
        slo: settings.slo.as_ref(),
        quantile: config.placement_quantile.value,
        explores: config.placement_explore.value,
    })
}

/// What earlier requests of the function and its input class were seen to do with memory.
fn seen(subject: &Subject<'_>, profile: Option<&Profile>) -> Seen {
    let class = subject.settings.class.as_ref().map(|class| &class.value);
    let of_class = |profile: &Profile| profile.seen(class, subject.features);
    profile.map(of_class).unwrap_or_default()
}

fn untouched(seen: &Seen) -> Option<(LocalRatio, String)> {
    let touched = seen.touched?;
    let because = format!("requests of earlier runs touched at most {touched} of their memory");
    Some((touched, because))
}

/// After how long an idle container is likely to stay idle, and who says so.
fn semi_warm_after(subject: &Subject<'_>, profile: Option<&Profile>) -> (Duration, String) {
    let given = &subject.config.placement_semi_warm_after;
    match seen(subject, profile).rests {
        Some(rests) if given.origin == Origin::Default => (
            rests,
            "99 of 100 rests of earlier runs were shorter".to_owned(),
        ),
        _ => (given.value, given.origin.to_string()),
    }
}

/// The field by which the configuration of a container places its memory itself.
fn declared(spec: &Value) -> Option<&'static str> {
    let has = |pointer: &str| match spec.pointer(pointer) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    };
    [
        ("/linux/memoryPolicy", "linux.memoryPolicy"),
        ("/linux/resources/cpu/mems", "linux.resources.cpu.mems"),
        (
            "/linux/resources/unified/cpuset.mems",
            "cpuset.mems in linux.resources.unified",
        ),
    ]
    .into_iter()
    .find_map(|(pointer, name)| has(pointer).then_some(name))
}

/// Writes the memory policy into a configuration.
fn put(spec: &mut Value, policy: Value) {
    let Some(spec) = spec.as_object_mut() else {
        return;
    };
    let linux = spec.entry("linux").or_insert(Value::Null);
    if linux.is_null() {
        *linux = json!({});
    }
    if let Some(linux) = linux.as_object_mut() {
        linux.insert("memoryPolicy".to_owned(), policy);
    }
}

/// The namespace of a container by the state folder of its runtime, as whoever looks after it calls it.
pub fn namespace(root: &Path) -> String {
    let ours = root.parent().and_then(Path::parent) == Some(Path::new(control::STATE));
    match ours {
        true => control::namespace_of(root),
        // Engines give each of their namespaces a folder.
        false => {
            let name = root.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_says_of_its_nodes_is_seen() {
        for (spec, field) in [
            (json!({}), None),
            (json!({"linux": {"memoryPolicy": null}}), None),
            (json!({"linux": {"resources": {"cpu": {"mems": ""}}}}), None),
            (
                json!({"linux": {"memoryPolicy": {"mode": "MPOL_DEFAULT"}}}),
                Some("linux.memoryPolicy"),
            ),
            (
                json!({"linux": {"resources": {"cpu": {"mems": "0"}}}}),
                Some("linux.resources.cpu.mems"),
            ),
            (
                json!({"linux": {"resources": {"unified": {"cpuset.mems": "0"}}}}),
                Some("cpuset.mems in linux.resources.unified"),
            ),
        ] {
            assert_eq!(declared(&spec), field, "{spec}");
        }
    }

    #[test]
    fn a_policy_is_put_beside_what_nobody_knows() {
        let mut spec = json!({"linux": {"x": 1}, "y": 2});
        put(&mut spec, json!({"mode": "MPOL_LOCAL"}));
        assert_eq!(
            spec,
            json!({"linux": {"x": 1, "memoryPolicy": {"mode": "MPOL_LOCAL"}}, "y": 2})
        );
        for mut spec in [json!({}), json!({"linux": null})] {
            put(&mut spec, json!(1));
            assert_eq!(spec, json!({"linux": {"memoryPolicy": 1}}));
        }
    }

    #[test]
    fn a_namespace_is_called_as_elsewhere() {
        for (root, name) in [
            ("/run/elastic-mem/ns/.oci", "ns"),
            ("/run/docker/runtime-elastic-mem/moby", "moby"),
            ("/run/containerd/runc/k8s.io", "k8s.io"),
            ("/tmp/root", "root"),
        ] {
            assert_eq!(namespace(Path::new(root)), name);
        }
    }
}
