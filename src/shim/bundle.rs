//! The few things that the shim itself must know of a bundle's `config.json`.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Deserializer};

use super::error::{Result, ShimError};
use crate::control::Known;
use crate::grant::Declared;
use crate::model::Bytes;
use crate::policy::identity::{Facts, Trusted};

/// Annotations by which containers share a shim, the first one present counts.
const GROUPING: [&str; 2] = [
    "io.containerd.runc.v2.group",
    "io.kubernetes.cri.sandbox-id",
];

/// Part of an OCI configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Bundle {
    #[serde(deserialize_with = "or_null")]
    annotations: HashMap<String, String>,
    #[serde(deserialize_with = "or_null")]
    process: Init,
    #[serde(deserialize_with = "or_null")]
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Init {
    #[serde(deserialize_with = "or_null")]
    args: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    env: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    #[serde(deserialize_with = "or_null")]
    namespaces: Vec<Namespace>,
    #[serde(deserialize_with = "or_null")]
    resources: Resources,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Namespace {
    #[serde(rename = "type", deserialize_with = "or_null")]
    kind: String,
    #[serde(deserialize_with = "or_null")]
    path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    #[serde(deserialize_with = "or_null")]
    memory: Memory,
    #[serde(deserialize_with = "or_null")]
    unified: HashMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    limit: Option<i64>,
}

/// Go writes what is empty as `null`, such as the annotations of a function of faasd.
fn or_null<'de, D, T>(input: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

impl Bundle {
    /// Reads the configuration in a bundle folder.
    ///
    /// # Errors
    /// `Failed` when it cannot be read or is no JSON of that form.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let fail = |err: &dyn std::fmt::Display| {
            ShimError::Failed(format!("read {}: {err}", path.display()))
        };
        let bytes = std::fs::read(&path).map_err(|err| fail(&crate::kernel::reason(&err)))?;
        serde_json::from_slice(&bytes).map_err(|err| fail(&err))
    }

    /// The name that this container shares with others of its shim; its own id without one.
    pub(super) fn group<'a>(&'a self, id: &'a str) -> &'a str {
        GROUPING
            .iter()
            .find_map(|key| self.annotations.get(*key))
            .map_or(id, String::as_str)
    }

    /// Whether its processes outlive its init: they do unless the kernel ends them with a PID namespace.
    pub(super) fn outlives_init(&self) -> bool {
        let own = |namespace: &Namespace| namespace.kind == "pid" && namespace.path.is_empty();
        !self.linux.namespaces.iter().any(own)
    }

    /// What tells which function it is.
    pub(super) fn facts<'a>(
        &'a self,
        namespace: &'a str,
        id: &'a str,
        trusted: &'a Trusted,
    ) -> Facts<'a> {
        Facts {
            namespace,
            id,
            annotations: &self.annotations,
            environment: &self.process.env,
            command: &self.process.args,
            trusted,
        }
    }

    /// The same, to be kept.
    pub(super) fn known(&self, namespace: &str, id: &str, trusted: Trusted) -> Known {
        Known {
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            annotations: self.annotations.clone(),
            environment: self.process.env.clone(),
            command: self.process.args.clone(),
            trusted,
            declared: self.declared(),
        }
    }

    /// The declared memory limit.
    pub(super) fn memory_limit(&self) -> Option<Bytes> {
        let limit = self.linux.resources.memory.limit?;
        let limit = u64::try_from(limit).ok().filter(|limit| *limit > 0);
        limit.map(Bytes::new)
    }

    /// What it says of its memory.
    pub(super) fn declared(&self) -> Declared {
        Declared {
            limit: self.memory_limit(),
            sets_high: self.linux.resources.unified.contains_key("memory.high"),
            moves_high: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(json: &str) -> Bundle {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn containers_of_a_pod_share_a_name() {
        assert_eq!(bundle("{}").group("a"), "a");
        let pod = bundle(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"p"}}"#);
        assert_eq!(pod.group("a"), "p");
    }

    #[test]
    fn null_is_as_good_as_absent() {
        for text in [
            r#"{"annotations":null,"process":null,"linux":null}"#,
            r#"{"process":{"args":null,"env":null},"linux":{"namespaces":null,"resources":null}}"#,
            r#"{"linux":{"namespaces":[{"type":null,"path":null}],"resources":{"memory":null,"unified":null}}}"#,
        ] {
            assert_eq!(bundle(text).group("a"), "a");
        }
    }

    #[test]
    fn a_pid_namespace_of_its_own_ends_with_the_init() {
        let own = bundle(r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#);
        let shared = bundle(r#"{"linux":{"namespaces":[{"type":"pid","path":"/x"}]}}"#);
        assert!(!own.outlives_init());
        assert!(shared.outlives_init());
        assert!(bundle("{}").outlives_init());
    }

    #[test]
    fn no_limit_is_none() {
        let limit = |json: &str| {
            bundle(&format!(
                r#"{{"linux":{{"resources":{{"memory":{json}}}}}}}"#
            ))
            .memory_limit()
        };
        assert_eq!(limit("{}"), None);
        assert_eq!(limit(r#"{"limit":-1}"#), None);
        assert_eq!(limit(r#"{"limit":1024}"#), Some(Bytes::new(1024)));
    }
}
