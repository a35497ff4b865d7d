//! A container that is looked after by the sampler of this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::record::Folder;
use super::server::{Doing, Subject, Tuner};
use crate::config::Config;
use crate::grant::{self, Declared, Described, Prepared};
use crate::kernel::cgroup::Cgroup;
use crate::model::status::Status;
use crate::model::{ClassName, ContainerId, Mode};
use crate::policy::identity::{CLASS, FUNCTION, Facts, PREFIX, Trusted};
use crate::runtime::chain;
use crate::sampler::{Edge, Publish, Tell, Watched};

/// What the plan of a container depends on.
#[derive(Debug, Clone)]
pub struct Known {
    /// The namespace of containerd, or what stands for it.
    pub namespace: String,
    /// Its id.
    pub id: String,
    /// Annotations of its configuration.
    pub annotations: HashMap<String, String>,
    /// `NAME=VALUE` of its init process.
    pub environment: Vec<String>,
    /// Command of its init process.
    pub command: Vec<String>,
    /// What counts of annotations and environment.
    pub trusted: Trusted,
    /// What it says of its memory.
    pub declared: Declared,
}

impl Known {
    /// What tells which function it is.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            namespace: &self.namespace,
            id: &self.id,
            annotations: &self.annotations,
            environment: &self.environment,
            command: &self.command,
            trusted: &self.trusted,
        }
    }

    /// The same container as an instance of another function of its namespaces, which may stand before the name. Whoever
    /// says so is trusted.
    fn renamed(&self, function: &str, class: Option<&ClassName>) -> Self {
        let namespace = self.facts().function_namespace();
        let short = function
            .strip_prefix(namespace.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
            .filter(|rest| !rest.is_empty());
        let mut renamed = self.clone();
        let name = short.unwrap_or(function).to_owned();
        renamed.annotations.insert(FUNCTION.to_owned(), name);
        match class {
            Some(class) => renamed
                .annotations
                .insert(CLASS.to_owned(), class.to_string()),
            // It was one of the other function.
            None => renamed.annotations.remove(CLASS),
        };
        for key in [FUNCTION, CLASS] {
            let key = key.trim_start_matches(PREFIX).to_owned();
            if !renamed.trusted.annotations.contains(&key) {
                renamed.trusted.annotations.push(key);
            }
        }
        renamed
    }
}

/// A container, whoever looks after its memory, and what that depends on.
#[derive(Debug, Clone)]
pub struct Tuned {
    /// Who looks after it.
    pub watched: Watched,
    /// What is known of it.
    pub known: Known,
    /// Its control group.
    pub cgroup: Cgroup,
    /// How functions are treated.
    pub config: Arc<Config>,
    /// Its record.
    pub folder: Folder,
}

impl From<Tuned> for Subject {
    fn from(tuned: Tuned) -> Self {
        Self {
            folder: tuned.folder.clone(),
            tuner: Box::new(tuned),
        }
    }
}

impl Tuner for Tuned {
    fn hold(&self) -> Doing {
        let held = self.watched.hold();
        Box::pin(async move { held.await.is_ok() })
    }

    fn release(&self) {
        self.watched.release();
    }

    fn edge(&self, edge: Edge) {
        self.watched.edge(edge);
    }

    fn status(&self) -> Option<(Duration, Status)> {
        self.watched.status()
    }

    fn bind(&self, function: &str, class: Option<&ClassName>) -> Result<(), String> {
        let known = self.known.renamed(function, class);
        let facts = known.facts();
        let declared = Declared {
            moves_high: self.folder.mode().grants(),
            ..known.declared
        };
        let prepared = grant::prepare(&self.config, &facts, declared, Some(&self.cgroup));
        let function = facts.function();
        let Some(Prepared { context, plan }) = prepared else {
            return Err(format!(
                "the mode of {function} is off, and this container is looked after already"
            ));
        };
        let mode = plan.mode;
        self.watched.bind(context, mode.grants().then_some(plan));
        self.folder
            .bind(function, class.cloned(), mode)
            .map_err(|err| chain(&err))
    }
}

/// Whether a container gets a socket inside, by its configuration. The namespace is that of [`Known`].
pub fn wants_socket(config: &Config, namespace: &str, id: &ContainerId, spec: &Value) -> bool {
    let is_wanted = config.memory_socket.value || !config.functions.is_empty();
    // Nothing else has to be known in the usual case.
    is_wanted && {
        let described = Described::by(spec);
        let trusted = config.trusted();
        let facts = described.facts(namespace, id.as_str(), &trusted);
        // What is ignored is told by whoever looks after the container.
        let (settings, _) = config
            .for_function(&facts.function())
            .tightened(facts.annotations, &trusted.annotations);
        settings.socket.value && settings.mode.value != Mode::Off && !facts.is_sandbox()
    }
}

/// Writes grants into the record of a container.
pub fn publish(folder: &Folder) -> Publish {
    let folder = folder.clone();
    Arc::new(move |grant, ceiling| {
        if let Err(err) = folder.publish(grant.or(ceiling), ceiling) {
            tracing::debug!("grant not published: {}", chain(&err));
        }
    })
}

/// Writes what was done for the placement of a container into its record.
pub fn tell(folder: &Folder) -> Tell {
    let folder = folder.clone();
    Arc::new(move |placed| {
        if let Err(err) = folder.tell(placed) {
            tracing::debug!("placement not published: {}", chain(&err));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(annotations: &[(&str, &str)]) -> Known {
        let pairs = annotations.iter();
        Known {
            namespace: "ns".to_owned(),
            id: "a".to_owned(),
            annotations: pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            environment: vec!["K_SERVICE=svc".to_owned()],
            command: Vec::new(),
            trusted: Trusted {
                annotations: Vec::new(),
                environment: vec!["K_SERVICE".to_owned()],
            },
            declared: Declared::default(),
        }
    }

    #[test]
    fn a_late_binding_stays_in_the_namespaces_of_the_container() {
        let pod = known(&[("io.kubernetes.cri.sandbox-namespace", "pods")]);
        assert_eq!(pod.facts().function().as_str(), "ns/pods/svc");
        for (name, function) in [
            ("thumb", "ns/pods/thumb"),
            ("ns/pods/thumb", "ns/pods/thumb"),
            ("other/thumb", "ns/pods/other/thumb"),
            ("ns/pods/", "ns/pods/ns/pods/"),
        ] {
            let bound = pod.renamed(name, None);
            assert_eq!(bound.facts().function().as_str(), function);
        }
    }

    #[test]
    fn a_late_binding_brings_its_class_or_none() {
        let classed = known(&[(CLASS, "old")]);
        let class: ClassName = "new".parse().unwrap();
        let bound = classed.renamed("f", Some(&class));
        assert_eq!(bound.facts().class(), Some(class));
        assert_eq!(classed.renamed("f", None).facts().class(), None);
    }
}
