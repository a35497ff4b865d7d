//! What the host offers to place memory with.

use super::Finding;
use crate::model::nodes::{Layout, Node, NodeSet};

/// Memory nodes, and the means to move pages between them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Placement {
    /// Nodes, tiers, weights.
    pub layout: Layout,
    /// Why the kernel refuses weighted interleaving; none if it takes it.
    pub no_interleaving: Option<String>,
    /// Whether reclaim moves pages to a slower tier; none if the kernel cannot.
    pub demotes: Option<bool>,
    /// Whether the multi-generational LRU is on, and whether its file in debugfs is there.
    pub generations: (bool, bool),
    /// Why it cannot be found out which pages are touched; none if it can.
    pub no_touched: Option<String>,
    /// Whether there is DAMON.
    pub has_damon: bool,
    /// Who uses DAMON.
    pub damon_user: Option<String>,
}

pub(super) fn judge(placement: &Placement) -> Vec<Finding> {
    let layout = &placement.layout;
    let nodes = layout.with_memory();
    if nodes.len() < 2 {
        return vec![Finding::ok(
            "placement.nodes",
            "one memory node: there is nothing to place",
        )];
    }
    vec![
        self::nodes(layout, &nodes),
        interleaving(placement),
        weights(layout, &nodes),
        touched(placement),
        demotion(placement.demotes),
        generations(placement.generations),
        damon(placement),
    ]
}

fn nodes(layout: &Layout, nodes: &NodeSet) -> Finding {
    let remote = layout.remote();
    let tiers: Vec<String> = layout
        .nodes
        .iter()
        .filter_map(|node: &Node| Some(format!("{} in tier {}", node.number, node.tier?)))
        .collect();
    let mut seen = format!("memory nodes {nodes}");
    if !remote.is_empty() {
        seen.push_str(&format!(": local {}, remote {remote}", layout.local()));
    }
    if !tiers.is_empty() {
        seen.push_str(&format!(" ({})", tiers.join(", ")));
    }
    Finding::ok("placement.nodes", seen)
}

fn interleaving(placement: &Placement) -> Finding {
    const ID: &str = "placement.interleaving";
    match &placement.no_interleaving {
        None => Finding::ok(ID, "the kernel takes weighted interleaving"),
        Some(why) => Finding::note(ID, format!("no weighted interleaving: {why}"))
            .means("new pages go to one node; a share of local memory between none and all takes moving them later")
            .fix("Linux 6.9 or newer"),
    }
}

fn weights(layout: &Layout, nodes: &NodeSet) -> Finding {
    const ID: &str = "placement.weights";
    let Some(weights) = &layout.weights else {
        return Finding::note(ID, "the kernel has no weights of nodes")
            .means("interleaving is one to one")
            .fix("Linux 6.9 or newer");
    };
    let each = nodes
        .iter()
        .map(|node| format!("{node}={}", weights.of(node)));
    let each: Vec<String> = each.collect();
    let by = match weights.auto {
        Some(true) => ", as the firmware says",
        Some(false) => ", set by somebody",
        None => "",
    };
    Finding::ok(ID, format!("{}{by}", each.join(", ")))
}

fn touched(placement: &Placement) -> Finding {
    const ID: &str = "placement.touched";
    match &placement.no_touched {
        None => Finding::ok(ID, "which pages are touched can be found out"),
        Some(why) => Finding::note(ID, format!("which pages are touched cannot be found out: {why}"))
            .means("faasmem and pond move nothing that requests left untouched, and ratios do not tell cold pages from hot ones")
            .fix("Linux 5.10 or newer, with CONFIG_PROC_PAGE_MONITOR and CAP_SYS_NICE"),
    }
}

fn demotion(demotes: Option<bool>) -> Finding {
    const ID: &str = "placement.demotion";
    match demotes {
        Some(true) => Finding::note(ID, "reclaim moves pages to a slower tier")
            .means("what an idle container gives up is moved and not freed, as long as the slower tier has room")
            .fix("echo 0 > /sys/kernel/mm/numa/demotion_enabled"),
        Some(false) => Finding::ok(ID, "reclaim frees pages and moves none"),
        None => Finding::ok(ID, "this kernel moves no pages when it reclaims"),
    }
}

fn generations((enabled, debugfs): (bool, bool)) -> Finding {
    const ID: &str = "placement.generations";
    match (enabled, debugfs) {
        (true, true) => Finding::ok(
            ID,
            "the multi-generational LRU tells cold pages from warm ones",
        ),
        (true, false) => Finding::note(
            ID,
            "the multi-generational LRU is on, without its file in debugfs",
        )
        .means("the coldest pages of a container cannot be asked for")
        .fix("mount -t debugfs none /sys/kernel/debug"),
        (false, _) => Finding::note(ID, "the multi-generational LRU is off")
            .means("which pages are cold has to be found out by other means")
            .fix("echo y > /sys/kernel/mm/lru_gen/enabled"),
    }
}

fn damon(placement: &Placement) -> Finding {
    const ID: &str = "placement.damon";
    match (&placement.damon_user, placement.has_damon) {
        (Some(user), _) => Finding::note(ID, format!("DAMON is used by {user}"))
            .means("one user at a time: accesses of containers cannot be watched by it"),
        (None, true) => Finding::ok(ID, "DAMON can watch accesses"),
        (None, false) => Finding::note(ID, "no DAMON")
            .means("accesses of containers cannot be watched by it")
            .fix("a kernel with CONFIG_DAMON_SYSFS=y"),
    }
}
