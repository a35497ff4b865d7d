//! What has become of the placement of a container: wanted, held, not held and why.

use serde::Serialize;

use crate::kernel::cgroup::Meter;
use crate::kernel::numa;
use crate::model::Bytes;
use crate::model::placement::{LocalRatio, Means, Placement};
use crate::policy::placement::HELD;
use crate::runtime::{Container, Status, chain};
use crate::sampler::Placed;

/// Anonymous memory of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OnNode {
    /// Its number.
    pub node: u32,
    /// How much of it.
    pub anon: Bytes,
    /// Whether the node counts as local.
    pub is_local: bool,
}

/// How the memory of a container lies, and how it should.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Its name.
    pub id: String,
    /// Whether it runs.
    pub status: Status,
    /// What was decided; none if nothing was wanted.
    pub placement: Option<Placement>,
    /// The local share of its anonymous memory; none without any.
    pub ratio: Option<LocalRatio>,
    /// Whether that is within five points of what is wanted; none if nothing is.
    pub is_held: Option<bool>,
    /// Why it is not held.
    pub why: Option<String>,
    /// Its anonymous memory by node.
    pub nodes: Vec<OnNode>,
    /// The memory policy of its init as the kernel tells it.
    pub policy: Option<String>,
    /// What was moved, if somebody looks after it.
    pub moved: Option<Placed>,
}

/// Looks at a container. `placed` is what whoever looks after it has written down.
pub fn held(container: &Container, placed: Option<Placed>) -> Held {
    let placement = container.state.placement.clone();
    let mut nodes: Vec<OnNode> = Vec::new();
    let meter = Meter::open(&container.state.cgroup);
    if let Ok(meter) = &meter {
        let local = placement.as_ref().map(|placement| &placement.local);
        meter.anon_on_nodes(|node, anon| {
            nodes.push(OnNode {
                node,
                anon,
                is_local: local.is_some_and(|local| local.contains(node)),
            });
        });
    }
    let on = |local: bool| -> u64 {
        let here = nodes.iter().filter(|node| node.is_local == local);
        here.map(|node| node.anon.get()).sum()
    };
    let ratio = placement
        .as_ref()
        .filter(|placement| !placement.local.is_empty())
        .and_then(|_| LocalRatio::of(on(true), on(false)));
    let policy = container
        .init()
        .and_then(|init| numa::policy_of(init.pid()).ok());
    let target = placement.as_ref().and_then(|placement| placement.target);
    let is_held = target.map(|target| ratio.is_none_or(|held| held.distance(target) <= HELD));
    let why = match (is_held, &placement) {
        (Some(false), Some(placement)) => {
            Some(reason(placement, policy.as_deref(), placed.as_ref()))
        }
        _ => meter.err().map(|err| chain(&err)),
    };
    Held {
        id: container.state.id.clone(),
        status: container.status(),
        placement,
        ratio,
        is_held,
        why,
        nodes,
        policy,
        moved: placed,
    }
}

/// Why a ratio is not held.
fn reason(placement: &Placement, policy: Option<&str>, placed: Option<&Placed>) -> String {
    if placement.policy.is_some() && policy == Some("default") {
        return "the kernel has refused the memory policy".to_owned();
    }
    match placed {
        Some(placed) if placed.pending > 0 => {
            format!("{} pages are still to be moved", placed.pending)
        }
        Some(Placed { why: Some(why), .. }) => why.clone(),
        Some(_) => "its pages are looked at once a second".to_owned(),
        None if placement.means == Means::Allocation => {
            "memory was given where there was room; nobody has moved any yet".to_owned()
        }
        None => "nobody has moved pages yet".to_owned(),
    }
}
