//! What a trace says of its run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::nodes::NodeSet;
use super::placement::{LocalRatio, Placement};
use super::{Bytes, ClassName, FunctionKey, RunId};

/// What ran, and under which conditions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Context {
    /// The run.
    pub run: RunId,
    /// The function.
    pub function: FunctionKey,
    /// The input class, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassName>,
    /// Numbers that describe the input, such as `input-bytes` and `pixels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, f64>,
    /// The container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The image, if the engine says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The command with its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Name of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Release of its kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Version of the control groups, 1 or 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u8>,
    /// What was done with the limits: `off`, `observe`, `static`, `replay` or `elastic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The declared limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Bytes>,
    /// The local ratio that its memory was to have; none where it was not placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_ratio: Option<LocalRatio>,
    /// The nodes that counted as local then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_nodes: Option<NodeSet>,
}

impl Context {
    /// A run of a function, of which nothing else is known.
    pub const fn new(run: RunId, function: FunctionKey) -> Self {
        Self {
            run,
            function,
            class: None,
            features: BTreeMap::new(),
            container: None,
            image: None,
            command: Vec::new(),
            host: None,
            kernel: None,
            cgroup: None,
            mode: None,
            ceiling: None,
            local_ratio: None,
            local_nodes: None,
        }
    }

    /// Takes down how the memory is placed.
    pub fn place(&mut self, placement: &Placement) {
        if placement.is_watched() {
            self.local_ratio = placement.target;
            self.local_nodes = Some(placement.local.clone());
        }
    }
}
