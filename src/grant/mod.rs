//! Gathers what the plan of a container depends on: settings, the profile of its function, and what its control group
//! allows. What follows from that is decided by `policy::plan`.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::config::Config;
use crate::kernel::cgroup::{Cgroup, Hierarchies, Lever, Version};
use crate::model::plan::Plan;
use crate::model::trace::Context;
use crate::model::{Bytes, FunctionKey, MemoryLimit, Mode};
use crate::policy::identity::{Facts, Trusted};
use crate::policy::plan::{Request, plan};
use crate::policy::settings::FunctionSettings;
use crate::profile::Store;
use crate::sampler;

/// What the configuration of a container says of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Declared {
    /// Its limit, if there is one.
    pub limit: Option<Bytes>,
    /// Whether it sets `memory.high`.
    pub sets_high: bool,
    /// Whether `memory.high` is what it is because we move it already.
    pub moves_high: bool,
}

impl Declared {
    /// Of a `config.json` (runtime-spec, "Memory" and "Unified").
    pub fn of(config: &Value) -> Self {
        let limit = config
            .pointer("/linux/resources/memory/limit")
            .and_then(Value::as_i64);
        Self {
            limit: limit
                .and_then(|limit| u64::try_from(limit).ok())
                .filter(|limit| *limit > 0)
                .map(Bytes::new),
            sets_high: config
                .pointer("/linux/resources/unified/memory.high")
                .is_some(),
            moves_high: false,
        }
    }

    /// The limit that an update declares: `None` if it says nothing of one, `Some(None)` if there is none from now on.
    pub fn limit_in(resources: &Value) -> Option<Option<Bytes>> {
        let limit = resources.pointer("/memory/limit")?.as_i64()?;
        // 0 is how Go writes a limit that is not given.
        (limit != 0).then(|| u64::try_from(limit).ok().map(Bytes::new))
    }
}

/// What the configuration of a container says of who it is.
#[derive(Debug, Clone, Default)]
pub struct Described {
    /// Its annotations.
    pub annotations: HashMap<String, String>,
    /// `NAME=VALUE` of its init process.
    pub environment: Vec<String>,
    /// Command of its init process.
    pub command: Vec<String>,
}

impl Described {
    /// By a `config.json`; what has another form than it should counts as absent.
    pub fn by(config: &Value) -> Self {
        let texts = |pointer: &str| -> Vec<String> {
            let list = config.pointer(pointer).and_then(Value::as_array);
            let words = list.into_iter().flatten();
            words.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let annotations = config.pointer("/annotations").and_then(Value::as_object);
        Self {
            annotations: annotations
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
            environment: texts("/process/env"),
            command: texts("/process/args"),
        }
    }

    /// The same, with what stands beside the configuration.
    pub fn facts<'a>(&'a self, namespace: &'a str, id: &'a str, trusted: &'a Trusted) -> Facts<'a> {
        Facts {
            namespace,
            id,
            annotations: &self.annotations,
            environment: &self.environment,
            command: &self.command,
            trusted,
        }
    }
}

/// What is known before the first instruction of a container.
#[derive(Debug)]
pub struct Prepared {
    /// What its trace says of it.
    pub context: Context,
    /// What is to be done with its memory.
    pub plan: Plan,
}

/// The settings of a function with what the container tightens; what it cannot is warned of.
pub fn settings(config: &Config, function: &FunctionKey, facts: &Facts<'_>) -> FunctionSettings {
    let (settings, warnings) = config
        .for_function(function)
        .tightened(facts.annotations, &facts.trusted.annotations);
    for warning in warnings {
        tracing::warn!(id = facts.id, "{warning}");
    }
    settings
}

/// Whether the limit of a container that is about to be created will be moved, as far as can be told without its control
/// group and its profile.
pub fn is_likely(config: &Config, facts: &Facts<'_>, declared: Declared) -> bool {
    let settings = config.for_function(&facts.function());
    // What is warned of here is warned of again with the plan.
    let (settings, _) = settings.tightened(facts.annotations, &facts.trusted.annotations);
    settings.mode.value.grants() && declared.limit.is_some()
}

/// The plan of a container, and what its trace says of it. Without a control group, as for a bundle that no container
/// was made of yet, the limits of those above are not known. None if nothing is to be done with its memory.
pub fn prepare(
    config: &Config,
    facts: &Facts<'_>,
    declared: Declared,
    cgroup: Option<&Cgroup>,
) -> Option<Prepared> {
    let settings = settings(config, &facts.function(), facts);
    if settings.mode.value == Mode::Off {
        return None;
    }
    let host = crate::kernel::host_name();
    let run = sampler::new_run(host.as_deref().unwrap_or("host"), facts.id)?;
    let mut context = facts.context(run);
    context.class = settings.class.as_ref().map(|class| class.value.clone());
    let plan = plan_for(
        config,
        &context.function,
        &settings,
        &context.features,
        declared,
        cgroup,
    );
    Some(Prepared {
        context: Context {
            host,
            kernel: crate::kernel::release(),
            cgroup: cgroup.map(|cgroup| cgroup.version.number()),
            mode: Some(plan.mode.to_string()),
            ceiling: declared.limit,
            ..context
        },
        plan,
    })
}

/// The plan of a container of which the settings are known.
pub fn plan_for(
    config: &Config,
    function: &FunctionKey,
    settings: &FunctionSettings,
    features: &BTreeMap<String, f64>,
    declared: Declared,
    cgroup: Option<&Cgroup>,
) -> Plan {
    let version = cgroup.map_or_else(
        || Hierarchies::probe().map_or(Version::V2, |found| found.version),
        |cgroup| cgroup.version,
    );
    // Nothing of this is needed to do nothing.
    let profile = settings.mode.value.grants().then(|| {
        let store = Store::new(&config.profile_folder.value, config.keep_traces.value);
        store.lookup(function)
    });
    let has_high = || {
        let high = cgroup.and_then(|cgroup| Lever::open(cgroup).ok()?.get().ok());
        version == Version::V2 && high.is_some_and(|high| high != MemoryLimit::None)
    };
    plan(&Request {
        settings,
        cgroup: version.number(),
        declared: declared.limit,
        above: cgroup.and_then(Cgroup::limit_above),
        high_is_taken: declared.sets_high || (!declared.moves_high && has_high()),
        profile: profile.flatten().as_ref(),
        features,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_limit_that_limits_nothing_is_none() {
        let of = |memory: Value| Declared::of(&json!({"linux": {"resources": {"memory": memory}}}));
        assert_eq!(of(json!({"limit": 1024})).limit, Some(Bytes::new(1024)));
        assert_eq!(of(json!({"limit": -1})), Declared::default());
        assert_eq!(of(json!({"limit": 0})), Declared::default());
        assert_eq!(Declared::of(&json!({})), Declared::default());
        let update = |memory: Value| Declared::limit_in(&json!({"memory": memory}));
        assert_eq!(update(json!({"limit": 1024})), Some(Some(Bytes::new(1024))));
        assert_eq!(update(json!({"limit": -1})), Some(None));
        assert_eq!(update(json!({"limit": 0})), None);
        assert_eq!(update(json!({"swap": 1})), None);
        assert_eq!(Declared::limit_in(&json!({"cpu": {}})), None);
        let high = json!({"linux": {"resources": {"unified": {"memory.high": "1"}}}});
        assert!(Declared::of(&high).sets_high);
    }
}
