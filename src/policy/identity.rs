//! Which function a container is an instance of.
//!
//! The first of these that is there: annotation `elastic-mem.io/function`; environment variable
//! `ELASTIC_MEM_FUNCTION`, `K_SERVICE` or `NUCLIO_FUNCTION_NAME`; the container's name in its pod, unless all
//! pods of that engine have it; the pod's name without what Kubernetes adds; the image; the container's id,
//! unless it is a random one; the command. Which annotations and variables count is the operator's choice
//! ([`Trusted`]).

use std::collections::{BTreeMap, HashMap};
use std::hash::Hasher;
use std::str::FromStr;

use crate::model::trace::Context;
use crate::model::{ClassName, FunctionKey, RunId};

/// What the annotations of this project begin with.
pub const PREFIX: &str = "elastic-mem.io/";
/// Annotation with the function's name.
pub const FUNCTION: &str = "elastic-mem.io/function";
/// Annotation with the input class.
pub const CLASS: &str = "elastic-mem.io/class";
/// Annotation with the size of the input.
pub const INPUT_BYTES: &str = "elastic-mem.io/input-bytes";
/// Annotation with the mode.
pub const MODE: &str = "elastic-mem.io/mode";

/// Annotation with the bound of the latency, in milliseconds.
pub const SLO: &str = "elastic-mem.io/slo-ms";
/// Annotation with a lower ceiling.
pub const CEILING: &str = "elastic-mem.io/ceiling";
/// Annotation with a higher floor.
pub const FLOOR: &str = "elastic-mem.io/floor";

/// Annotation with the local ratio.
pub const LOCAL_RATIO: &str = "elastic-mem.io/local-ratio";
/// Annotation with the placement.
pub const PLACEMENT: &str = "elastic-mem.io/placement";

/// All keys of annotations, without [`PREFIX`].
pub const ANNOTATIONS: [&str; 9] = [
    "function",
    "class",
    "input-bytes",
    "mode",
    "slo-ms",
    "ceiling",
    "floor",
    "local-ratio",
    "placement",
];
/// Those that count unless the operator says otherwise: they tighten, or name what the container is.
const TIGHTENING: usize = 7;

/// Arguments of a command that a trace keeps.
const MOST_ARGUMENTS: usize = 16;
/// Characters of each.
const MOST_CHARACTERS: usize = 128;

/// Name of the feature that [`INPUT_BYTES`] gives.
pub const INPUT_BYTES_FEATURE: &str = "input-bytes";

const VARIABLES: [&str; 3] = ["ELASTIC_MEM_FUNCTION", "K_SERVICE", "NUCLIO_FUNCTION_NAME"];
// Annotations of containerd's CRI plugin (containerd, `pkg/cri/annotations`).
/// The namespace of the pod.
pub const POD_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
/// The pod.
pub const POD_NAME: &str = "io.kubernetes.cri.sandbox-name";
/// The name of the container in its pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
const IMAGE: &str = "io.kubernetes.cri.image-name";
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// Containers that every pod of Knative, Nuclio and OpenWhisk has by the same name.
const GENERIC: [&str; 3] = ["user-container", "nuclio", "user-action"];

/// What counts of that which a container says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// Keys of annotations, without [`PREFIX`].
    pub annotations: Vec<String>,
    /// Environment variables that may name the function; the first one that is there counts.
    pub environment: Vec<String>,
}

impl Default for Trusted {
    fn default() -> Self {
        let annotations = ANNOTATIONS.into_iter().take(TIGHTENING);
        Self {
            annotations: annotations.map(str::to_owned).collect(),
            environment: VARIABLES.map(str::to_owned).to_vec(),
        }
    }
}

/// What is known of a container at its creation.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The namespace of containerd, or what stands for it.
    pub namespace: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Annotations of its configuration.
    pub annotations: &'a HashMap<String, String>,
    /// `NAME=VALUE` of its init process.
    pub environment: &'a [String],
    /// Command of its init process.
    pub command: &'a [String],
    /// What counts of annotations and environment.
    pub trusted: &'a Trusted,
}

impl Facts<'_> {
    /// The function, with its namespaces.
    pub fn function(&self) -> FunctionKey {
        FunctionKey::new(&self.function_namespace(), &self.name())
    }

    /// The namespaces of its function: nobody can name a function of others.
    pub fn function_namespace(&self) -> String {
        let pod_namespace = self.annotation(POD_NAMESPACE);
        match pod_namespace {
            Some(pod) => format!("{}/{pod}", self.namespace),
            None => self.namespace.to_owned(),
        }
    }

    /// Numbers that describe its input.
    pub fn features(&self) -> BTreeMap<String, f64> {
        let bytes = self.input_bytes();
        bytes
            .map(|bytes| (INPUT_BYTES_FEATURE.to_owned(), bytes))
            .into_iter()
            .collect()
    }

    /// What a trace says of the container: all that is told by these facts.
    pub fn context(&self, run: RunId) -> Context {
        let short = |text: &String| text.chars().take(MOST_CHARACTERS).collect();
        Context {
            class: self.class(),
            features: self.features(),
            container: Some(self.id.to_owned()),
            image: self.image().map(str::to_owned),
            command: self
                .command
                .iter()
                .take(MOST_ARGUMENTS)
                .map(short)
                .collect(),
            ..Context::new(run, self.function())
        }
    }

    /// The input class that was given.
    pub fn class(&self) -> Option<ClassName> {
        self.annotation(CLASS)?.parse().ok()
    }

    /// The size of the input that was given: a whole number.
    pub fn input_bytes(&self) -> Option<f64> {
        whole_number(self.annotation(INPUT_BYTES)?)
    }

    /// The image, if the engine tells.
    pub fn image(&self) -> Option<&str> {
        self.annotation(IMAGE)
    }

    /// Whether it only holds the namespaces of a pod.
    pub fn is_sandbox(&self) -> bool {
        self.annotation(CONTAINER_TYPE) == Some("sandbox")
    }

    /// An annotation that counts: one of an engine always, one of ours if it is trusted.
    fn annotation(&self, key: &str) -> Option<&str> {
        let counts = |name| self.trusted.annotations.iter().any(|key| key == name);
        self.annotations
            .get(key)
            .filter(|_| key.strip_prefix(PREFIX).is_none_or(counts))
            .map(|text| text.trim())
            .filter(|text| !text.is_empty())
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(found, value)| (found == name && !value.is_empty()).then_some(value))
    }

    fn name(&self) -> String {
        let given = self
            .annotation(FUNCTION)
            .or_else(|| {
                let variables = &self.trusted.environment;
                variables.iter().find_map(|name| self.variable(name))
            })
            .or_else(|| {
                self.annotation(CONTAINER_NAME)
                    .filter(|name| !GENERIC.contains(name))
            })
            .or_else(|| self.annotation(POD_NAME).map(without_pod_suffix))
            .or_else(|| self.image().map(without_tag))
            .or_else(|| Some(self.id).filter(|id| !is_random(id)));
        match (given, self.command.first()) {
            (Some(name), _) => name.to_owned(),
            (None, Some(program)) => {
                let base = program.rsplit('/').next().unwrap_or_default();
                let hash = hash(self.command.iter().map(String::as_str));
                format!("{base}-{hash:016x}")
            }
            (None, None) => self.id.to_owned(),
        }
    }
}

/// A number in digits alone.
pub(super) fn whole_number<T: FromStr>(text: &str) -> Option<T> {
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit());
    is_whole.then(|| text.parse().ok()).flatten()
}

/// Random ids of Docker and of containerd's CRI plugin.
fn is_random(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A deployment's name from that of its pod: without `-REPLICASET-POD`.
fn without_pod_suffix(pod: &str) -> &str {
    let ends = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        let (rest, last) = text.rsplit_once('-')?;
        let is_word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        (lengths.contains(&last.len()) && last.bytes().all(is_word)).then_some(rest.len())
    };
    let both = || {
        let end = ends(pod, 5..=5)?;
        let end = ends(pod.get(..end)?, 6..=10)?;
        pod.get(..end).filter(|rest| !rest.is_empty())
    };
    both().unwrap_or(pod)
}

/// An image without tag and digest.
pub fn without_tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        // Else it is the port of a registry.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

/// Stable over versions and hosts.
fn hash<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let mut hasher = fnv::FnvHasher::default();
    for text in texts {
        hasher.write(text.as_bytes());
        hasher.write_u8(0);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static TRUSTED: LazyLock<Trusted> = LazyLock::new(Trusted::default);

    fn facts<'a>(
        id: &'a str,
        annotations: &'a HashMap<String, String>,
        environment: &'a [String],
        command: &'a [String],
    ) -> Facts<'a> {
        Facts {
            namespace: "default",
            id,
            annotations,
            environment,
            command,
            trusted: &TRUSTED,
        }
    }

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    const RANDOM: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn what_was_said_comes_before_what_is_guessed() {
        let environment = ["K_SERVICE=svc".to_owned()];
        let annotations = map(&[
            (FUNCTION, "thumb"),
            (POD_NAMESPACE, "fn"),
            (POD_NAME, "thumb-7c9d8f6b5-abcde"),
            (CONTAINER_NAME, "user-container"),
        ]);
        let name = |annotations: &HashMap<String, String>, environment: &[String]| {
            facts(RANDOM, annotations, environment, &[])
                .function()
                .to_string()
        };
        assert_eq!(name(&annotations, &environment), "default/fn/thumb");
        let without = map(&[(POD_NAMESPACE, "fn"), (CONTAINER_NAME, "user-container")]);
        assert_eq!(name(&without, &environment), "default/fn/svc");
        let pod = map(&[
            (POD_NAME, "thumb-7c9d8f6b5-abcde"),
            (CONTAINER_NAME, "user-container"),
        ]);
        assert_eq!(name(&pod, &[]), "default/thumb");
        let image = map(&[(IMAGE, "host:5000/lib/scale:1@sha256:00")]);
        assert_eq!(name(&image, &[]), "default/host:5000/lib/scale");
    }

    #[test]
    fn only_what_is_trusted_counts() {
        let annotations = map(&[
            (FUNCTION, "thumb"),
            (CLASS, "small"),
            (INPUT_BYTES, "5"),
            (IMAGE, "scale:1"),
        ]);
        let environment = ["K_SERVICE=svc", "F=f", "G=g"].map(str::to_owned);
        let of = |annotations_trusted: &[&str], variables: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            let trusted = Trusted {
                annotations: owned(annotations_trusted),
                environment: owned(variables),
            };
            let facts = Facts {
                trusted: &trusted,
                ..facts("x", &annotations, &environment, &[])
            };
            let name = facts.function().to_string();
            let class = facts.class().map(String::from);
            (name, class, facts.input_bytes())
        };
        let small = Some("small".to_owned());
        assert_eq!(
            of(&["function", "class", "input-bytes"], &[]),
            ("default/thumb".to_owned(), small.clone(), Some(5.0))
        );
        assert_eq!(
            of(&["class"], &["K_SERVICE"]),
            ("default/svc".to_owned(), small, None)
        );
        assert_eq!(of(&[], &["NONE", "G", "F"]).0, "default/g");
        // What engines say of a container always counts.
        assert_eq!(of(&[], &[]), ("default/scale".to_owned(), None, None));
    }

    #[test]
    fn a_name_of_a_pod_that_no_controller_made_stays() {
        for pod in ["thumb", "a-b", "-7c9d8f6b5-abcde", "thumb-UPPER-abcde", ""] {
            assert_eq!(without_pod_suffix(pod), pod);
        }
    }

    #[test]
    fn a_random_id_says_nothing() {
        let none = map(&[]);
        let command = ["/usr/bin/python3".to_owned(), "f.py".to_owned()];
        assert_eq!(
            facts("resize", &none, &[], &command).function().as_str(),
            "default/resize"
        );
        let by_command = facts(RANDOM, &none, &[], &command).function();
        assert!(
            by_command.as_str().starts_with("default/python3-"),
            "{by_command}"
        );
        let other = ["/usr/bin/python3".to_owned(), "g.py".to_owned()];
        assert_ne!(facts(RANDOM, &none, &[], &other).function(), by_command);
        assert_eq!(facts(RANDOM, &none, &[], &command).function(), by_command);
    }

    #[test]
    fn hostile_names_are_made_plain() {
        let annotations = map(&[(FUNCTION, "a\nb,c")]);
        assert_eq!(
            facts("x", &annotations, &[], &[]).function().as_str(),
            "default/a_b_c"
        );
        let long = map(&[(FUNCTION, &"x".repeat(300))]);
        let key = facts("x", &long, &[], &[]).function();
        assert!(key.as_str().len() <= 256, "{key}");
        let other = map(&[(FUNCTION, &"x".repeat(301))]);
        assert_ne!(facts("x", &other, &[], &[]).function(), key);
    }
}
