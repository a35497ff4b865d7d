//! Where the memory of a container that is about to start is to lie.
//!
//! The kernel has one table of interleave weights for the whole host and none per container, and its policies place new
//! pages only. So a ratio between all and nothing is given by allocation where the weights of the host, or those of a
//! part of its remote nodes, happen to give it; else pages come local and are moved while the container runs
//! ([`moves`]).

pub mod arrivals;
mod exchange;
mod heat;
mod learned;
pub mod life;
mod moves;
mod weights;

pub use exchange::{Lie, exchange, is_candidate};
pub use heat::{Heat, Span, Warmth};
pub use learned::{Learned, learned};
pub use moves::{Goal, Move, Unit, moves};
pub use weights::designed;

use std::time::Duration;

use crate::model::nodes::{Layout, NodeSet, Weights};
use crate::model::placement::{
    LifeCycle, LocalRatio, Means, MemoryPolicy, Placement, PlacementPolicy, PolicyFlag, PolicyMode,
};
use crate::model::{Bytes, Setting};
use crate::policy::reasons::Reasons;

/// A ratio is given by allocation when the weights give it to so many ten-thousandths.
pub const TOLERANCE: u16 = 150;
/// A ratio that is off by no more than so many ten-thousandths is held.
pub const HELD: u16 = 500;
/// And nothing is moved as long as it is off by no more than these: what moves pages comes before the ratio is lost.
pub const HYSTERESIS: u16 = 300;

/// What may be done with the weights of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Nothing: they are somebody else's. With the reason.
    None(&'static str),
    /// They are ours, and containers rely on them as they are.
    Kept,
    /// They can be set.
    Free,
}

/// What the placement of a container depends on.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Where memory of the host can lie.
    pub layout: &'a Layout,
    /// Whether the kernel takes weighted interleaving; the reason why not.
    pub weighted_interleave: Result<(), String>,
    /// The named policy.
    pub policy: &'a Setting<PlacementPolicy>,
    /// A ratio, which counts before the policy of the same layer.
    pub ratio: Option<&'a Setting<LocalRatio>>,
    /// The ratio of a policy that learns, and why it is this one.
    pub learned: Option<(LocalRatio, String)>,
    /// After how long an idle container gives its memory up in steps, by `faasmem`, and why then.
    pub semi_warm_after: &'a (Duration, String),
    /// At most so much is moved per second.
    pub bandwidth: Bytes,
    /// What the configuration of the container says of its nodes: the name of a field.
    pub declared: Option<&'static str>,
    /// What may be done with the weights.
    pub rights: Rights,
}

/// The ratio that is wanted, and where that comes from; none where none is.
pub fn target(
    policy: &Setting<PlacementPolicy>,
    ratio: Option<&Setting<LocalRatio>>,
) -> Option<(LocalRatio, String)> {
    match ratio {
        Some(ratio) if ratio.origin.layer() >= policy.origin.layer() => {
            Some((ratio.value, format!("local-ratio: {}", ratio.origin)))
        }
        _ => {
            let target = policy.value.target()?;
            Some((
                target,
                format!("placement {}: {}", policy.value, policy.origin),
            ))
        }
    }
}

/// The placement, with a reason for each choice. The same request gives the same placement.
pub fn decide(request: &Request<'_>) -> Placement {
    let mut reasons = Reasons::default();
    let (local, remote) = (request.layout.local(), request.layout.remote());
    let mut placement = Placement {
        means: Means::Plain,
        target: None,
        is_learned: false,
        life: None,
        policy: None,
        local,
        remote,
        relies_on: None,
        wants: None,
        bandwidth: request.bandwidth,
        reasons: Vec::new(),
    };
    if let Some((wanted, because)) = target(request.policy, request.ratio) {
        place(request, wanted, because, &mut placement, &mut reasons);
    } else if let Some((life, because)) = life_cycle(request) {
        live(request, life, because, &mut placement, &mut reasons);
    } else if let Some((wanted, because)) = request.learned.clone() {
        place(request, wanted, because, &mut placement, &mut reasons);
        placement.is_learned = placement.target.is_some();
    } else {
        reasons.add(
            "placement",
            "off",
            format!(
                "placement {}: {}",
                request.policy.value, request.policy.origin
            ),
            "placement.policy, the table of the function",
        );
    }
    placement.reasons = reasons.0;
    placement
}

/// What becomes of the memory of a container whose policy goes by the phases of its life, and why.
fn life_cycle(request: &Request<'_>) -> Option<(LifeCycle, String)> {
    let policy = request.policy;
    let named = format!("placement {}: {}", policy.value, policy.origin);
    match policy.value {
        PlacementPolicy::Faasmem => {
            let (after, why) = request.semi_warm_after;
            let life = LifeCycle {
                least: LocalRatio::REMOTE,
                semi_warm_after: Some(*after),
            };
            let time = crate::model::duration::text(*after);
            Some((life, format!("{named}; semi-warm after {time} ({why})")))
        }
        PlacementPolicy::Pond => {
            let nothing = || {
                let because = "no earlier run tells what requests leave untouched";
                (LocalRatio::LOCAL, because.to_owned())
            };
            let (least, because) = request.learned.clone().unwrap_or_else(nothing);
            let life = LifeCycle {
                least,
                semi_warm_after: None,
            };
            Some((life, format!("{named}; {because}")))
        }
        _ => None,
    }
}

/// Memory is local first, and what is cold goes out later.
fn live(
    request: &Request<'_>,
    life: LifeCycle,
    because: String,
    placement: &mut Placement,
    reasons: &mut Reasons,
) {
    if !is_possible(request, placement, reasons) {
        return;
    }
    reasons.add(
        "life cycle",
        match life.least {
            LocalRatio::REMOTE => "what requests do not touch is remote".to_owned(),
            least => format!("what requests do not touch is remote, {least} stays local"),
        },
        because,
        "placement, local-ratio",
    );
    placement.life = Some(life);
    placement.means = Means::Correction;
    placement.policy = Some(near(request.layout, &placement.local));
    reasons.policy(
        placement,
        "new pages are local; cold ones are moved while it runs",
    );
}

/// That a host has no remote memory, and what it has: nodes of one kind, or remote ones of which all is offline.
#[must_use]
pub fn without_remote(layout: &Layout) -> String {
    let empty: NodeSet = layout
        .nodes
        .iter()
        .filter(|node| !node.has_cpus && node.memory == Bytes::ZERO)
        .map(|node| node.number)
        .collect();
    let what = match (empty.len(), layout.with_memory().len()) {
        (0, 0 | 1) => "1 node".to_owned(),
        (0, nodes) => format!("{nodes} nodes, all of one kind"),
        (1, _) => format!("node {empty} has none online"),
        _ => format!("nodes {empty} have none online"),
    };
    format!("this host has no remote memory ({what})")
}

/// Whether anything can be placed.
fn is_possible(request: &Request<'_>, placement: &mut Placement, reasons: &mut Reasons) -> bool {
    if let Some(field) = request.declared {
        placement.means = Means::Foreign;
        reasons.add(
            "placement",
            "left alone",
            format!("the configuration of the container has {field}"),
            "leave that field out",
        );
        return false;
    }
    if placement.remote.is_empty() || placement.local.is_empty() {
        reasons.add(
            "placement",
            "plain",
            without_remote(request.layout),
            "a node without processors or of a slower tier",
        );
        return false;
    }
    true
}

fn place(
    request: &Request<'_>,
    wanted: LocalRatio,
    because: String,
    placement: &mut Placement,
    reasons: &mut Reasons,
) {
    if !is_possible(request, placement, reasons) {
        return;
    }
    placement.target = Some(wanted);
    reasons.add("local ratio", wanted, because, "placement, local-ratio");
    placement.means = Means::Allocation;
    match wanted {
        LocalRatio::LOCAL => {
            placement.policy = Some(near(request.layout, &placement.local));
            reasons.policy(placement, "new pages are local");
        }
        LocalRatio::REMOTE => {
            // Not MPOL_BIND, under which a process is killed when those nodes are full.
            placement.policy = Some(preferred(&placement.remote));
            reasons.policy(placement, "new pages are remote as long as there is room");
        }
        _ => between(request, wanted, placement, reasons),
    }
}

/// A ratio between all and nothing.
fn between(
    request: &Request<'_>,
    wanted: LocalRatio,
    placement: &mut Placement,
    reasons: &mut Reasons,
) {
    let ones = Weights::default();
    let (weights, mode) = match (&request.weighted_interleave, &request.layout.weights) {
        (Ok(()), Some(weights)) => (weights, PolicyMode::WeightedInterleave),
        // Every node has the same share of it.
        _ => (&ones, PolicyMode::Interleave),
    };
    let is_weighted = mode == PolicyMode::WeightedInterleave;
    let found = weights::subset(wanted, &placement.local, &placement.remote, weights);
    let (used, mut weights) = (found.0, weights.clone());
    let mut given = found.1;
    let mut remote = used;
    if given.distance(wanted) > TOLERANCE && is_weighted && request.rights == Rights::Free {
        let designed = weights::designed(wanted, &placement.local, &placement.remote);
        if let Some((designed, ratio)) = designed {
            (weights, given) = (designed, ratio);
            remote = placement.remote.clone();
            placement.wants = Some(weights.clone());
        }
    }
    if given.distance(wanted) <= TOLERANCE {
        placement.remote = remote;
        placement.policy = Some(MemoryPolicy {
            mode,
            nodes: placement.local.and(&placement.remote),
            flags: vec![PolicyFlag::StaticNodes],
        });
        if is_weighted {
            let shown = weights::shown(&weights, &placement.local.and(&placement.remote));
            placement.relies_on = Some(weights);
            reasons.policy(placement, &format!("the weights {shown} give {given}"));
        } else {
            reasons.policy(
                placement,
                &format!("one page after the other gives {given}"),
            );
        }
        return;
    }
    placement.means = Means::Correction;
    placement.policy = Some(near(request.layout, &placement.local));
    let why = match (&request.weighted_interleave, request.rights) {
        (Err(reason), _) => format!("the kernel refuses weighted interleaving ({reason})"),
        (Ok(()), _) if request.layout.weights.is_none() => {
            "the kernel has no interleave weights".to_owned()
        }
        (Ok(()), Rights::None(reason)) => {
            format!("the weights of the host give {given}, and they stay as they are: {reason}")
        }
        (Ok(()), _) => format!("the weights of the host give {given}, and others rely on them"),
    };
    reasons.policy(placement, &format!("{why}; pages are moved while it runs"));
}

/// New pages are local.
fn near(layout: &Layout, local: &NodeSet) -> MemoryPolicy {
    let far = layout.remote();
    let has_cpus = |node| layout.node(node).is_some_and(|node| node.has_cpus);
    if far.iter().any(has_cpus) {
        // From there, what is next is not what is local.
        return preferred(local);
    }
    MemoryPolicy {
        mode: PolicyMode::Local,
        nodes: NodeSet::default(),
        flags: Vec::new(),
    }
}

fn preferred(nodes: &NodeSet) -> MemoryPolicy {
    MemoryPolicy {
        mode: match nodes.len() {
            1 => PolicyMode::Preferred,
            _ => PolicyMode::PreferredMany,
        },
        nodes: nodes.clone(),
        flags: vec![PolicyFlag::StaticNodes],
    }
}

impl Reasons {
    fn policy(&mut self, placement: &Placement, because: &str) {
        let Some(policy) = &placement.policy else {
            return;
        };
        let name = match policy.mode {
            PolicyMode::Local => "MPOL_LOCAL",
            PolicyMode::Preferred => "MPOL_PREFERRED",
            PolicyMode::PreferredMany => "MPOL_PREFERRED_MANY",
            PolicyMode::Interleave => "MPOL_INTERLEAVE",
            PolicyMode::WeightedInterleave => "MPOL_WEIGHTED_INTERLEAVE",
        };
        let value = match policy.nodes.is_empty() {
            true => name.to_owned(),
            false => format!("{name} {}", policy.nodes),
        };
        let change = match placement.means {
            Means::Correction => "weights.own; elastic-mem weights set",
            _ => "another local ratio",
        };
        self.add("memory policy", value, because.to_owned(), change);
    }
}

#[cfg(test)]
mod tests;
