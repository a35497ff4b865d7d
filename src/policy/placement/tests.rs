use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::Origin;
use crate::model::nodes::Node;

fn set(text: &str) -> NodeSet {
    text.parse().unwrap()
}

fn ratio(text: &str) -> LocalRatio {
    text.parse().unwrap()
}

fn weights(of: &[(u32, u8)]) -> Weights {
    Weights {
        nodes: of.iter().copied().collect(),
        auto: None,
    }
}

/// Node 0 with processors, the others in a slower tier, with these weights.
fn layout(of: &[(u32, u8)]) -> Layout {
    let node = |number| Node {
        number,
        has_cpus: number == 0,
        memory: Bytes::new(1 << 30),
        tier: Some(if number == 0 { 4 } else { 22 }),
        ..Node::default()
    };
    Layout {
        nodes: of.iter().map(|(number, _)| node(*number)).collect(),
        weights: Some(weights(of)),
    }
}

fn decided(layout: &Layout, wanted: &str, rights: Rights) -> Placement {
    with(layout, wanted, rights, Ok(()), None)
}

fn with(
    layout: &Layout,
    wanted: &str,
    rights: Rights,
    weighted_interleave: Result<(), String>,
    declared: Option<&'static str>,
) -> Placement {
    let ratio = Setting {
        value: ratio(wanted),
        origin: Origin::Annotation("x"),
    };
    let request = Request {
        learned: None,
        semi_warm_after: &(Duration::from_secs(60), "default".to_owned()),
        layout,
        weighted_interleave,
        policy: &Setting::default(PlacementPolicy::Off),
        ratio: Some(&ratio),
        bandwidth: Bytes::new(1),
        declared,
        rights,
    };
    let placement = decide(&request);
    assert_eq!(decide(&request), placement, "the same again");
    placement
}

const FOREIGN: Rights = Rights::None("weights.own is false");

#[test]
fn all_and_nothing_need_no_weights() {
    let host = layout(&[(0, 1), (1, 1)]);
    let near = decided(&host, "1", FOREIGN);
    assert_eq!(near.means, Means::Allocation);
    assert_eq!(near.policy.unwrap().mode, PolicyMode::Local);
    let far = decided(&host, "0", FOREIGN);
    let policy = far.policy.unwrap();
    assert_eq!(policy.mode, PolicyMode::Preferred, "never MPOL_BIND");
    assert_eq!(policy.nodes, set("1"));
    let far = decided(&layout(&[(0, 1), (1, 1), (2, 1)]), "0", FOREIGN);
    assert_eq!(far.policy.unwrap().mode, PolicyMode::PreferredMany);
}

#[test]
fn a_ratio_that_was_learned_is_told_from_one_that_was_set() {
    let host = layout(&[(0, 1), (1, 1)]);
    assert!(!decided(&host, "0.5", FOREIGN).is_learned);
    let decided = |policy| {
        decide(&Request {
            learned: Some((ratio("0.5"), "measured".to_owned())),
            semi_warm_after: &(Duration::from_secs(60), "default".to_owned()),
            layout: &host,
            weighted_interleave: Ok(()),
            policy: &Setting::default(policy),
            ratio: None,
            bandwidth: Bytes::new(1),
            declared: None,
            rights: FOREIGN,
        })
    };
    let learned = decided(PlacementPolicy::Adaptive);
    assert_eq!(
        (learned.target, learned.is_learned),
        (Some(ratio("0.5")), true)
    );
    let set = decided("interleave=1:1".parse().unwrap());
    assert_eq!((set.target, set.is_learned), (Some(ratio("0.5")), false));
    let text = serde_json::to_string(&set).unwrap();
    assert!(!text.contains("isLearned"), "{text}");
    assert_eq!(serde_json::from_str::<Placement>(&text).unwrap(), set);
}

#[test]
fn weights_that_give_the_ratio_are_used() {
    let host = layout(&[(0, 3), (1, 1)]);
    let placement = decided(&host, "0.75", FOREIGN);
    assert_eq!(placement.means, Means::Allocation);
    let policy = placement.policy.unwrap();
    assert_eq!(policy.mode, PolicyMode::WeightedInterleave);
    assert_eq!(policy.flags, [PolicyFlag::StaticNodes]);
    assert_eq!(policy.nodes, set("0-1"));
    assert_eq!(placement.wants, None);
    assert_eq!(placement.relies_on, host.weights);
}

#[test]
fn a_part_of_the_remote_nodes_gives_another_ratio() {
    let host = layout(&[(0, 3), (1, 1), (2, 2)]);
    for (wanted, nodes) in [("0.75", "0-1"), ("0.6", "0,2"), ("0.5", "0-2")] {
        let placement = decided(&host, wanted, FOREIGN);
        assert_eq!(placement.policy.unwrap().nodes, set(nodes), "{wanted}");
        assert_eq!(placement.remote, placement.remote.within(&set(nodes)));
    }
    assert_eq!(decided(&host, "0.9", FOREIGN).means, Means::Correction);
}

#[test]
fn weights_are_designed_only_where_they_are_free() {
    let host = layout(&[(0, 1), (1, 1)]);
    for rights in [FOREIGN, Rights::Kept] {
        let placement = decided(&host, "0.9", rights);
        assert_eq!(placement.means, Means::Correction);
        assert_eq!(placement.wants, None);
        assert_eq!(placement.policy.unwrap().mode, PolicyMode::Local);
        let text = &placement.reasons.last().unwrap().because;
        assert!(text.contains("the weights of the host give 0.5"), "{text}");
    }
    let placement = decided(&host, "0.9", Rights::Free);
    assert_eq!(placement.means, Means::Allocation);
    assert_eq!(placement.wants, Some(weights(&[(0, 9), (1, 1)])));
    assert_eq!(placement.relies_on, placement.wants);
    // Those that are right already stay.
    assert_eq!(decided(&host, "0.5", Rights::Free).wants, None);
}

#[test]
fn a_host_of_one_kind_and_an_old_kernel_run_as_plain_or_are_corrected() {
    let one = decided(&layout(&[(0, 1)]), "0.5", Rights::Free);
    assert_eq!((one.means, one.policy), (Means::Plain, None));
    assert_eq!(one.reasons.len(), 1);
    assert_eq!(decided(&Layout::default(), "0", FOREIGN).reasons.len(), 1);
    let host = layout(&[(0, 1), (1, 1)]);
    let refused = || Err("invalid argument".to_owned());
    let even = with(&host, "0.5", FOREIGN, refused(), None);
    assert_eq!(even.policy.unwrap().mode, PolicyMode::Interleave);
    let odd = with(&host, "0.9", Rights::Free, refused(), None);
    assert_eq!((odd.means, odd.wants), (Means::Correction, None));
    assert!(odd.reasons[1].because.contains("invalid argument"));
}

#[test]
fn what_a_container_says_itself_is_left_alone() {
    let host = layout(&[(0, 1), (1, 1)]);
    let field = Some("linux.memoryPolicy");
    let placement = with(&host, "0.5", Rights::Free, Ok(()), field);
    assert_eq!(placement.means, Means::Foreign);
    assert_eq!((placement.policy, placement.target), (None, None));
    assert_eq!(placement.reasons.len(), 1);
    assert!(placement.reasons[0].because.contains("linux.memoryPolicy"));
}

#[test]
fn the_more_specific_layer_counts_and_a_ratio_before_a_policy() {
    fn at<T>(value: T, origin: Origin) -> Setting<T> {
        Setting { value, origin }
    }
    let file = || Origin::File("f".into());
    let annotation = || Origin::Annotation("a");
    let policy = at(PlacementPolicy::Local, file());
    let half = at(ratio("0.5"), file());
    assert_eq!(target(&policy, Some(&half)).unwrap().0, ratio("0.5"));
    let policy = at(PlacementPolicy::Remote, annotation());
    assert_eq!(target(&policy, Some(&half)).unwrap().0, LocalRatio::REMOTE);
    assert_eq!(
        target(&at(PlacementPolicy::Off, annotation()), Some(&half)),
        None
    );
}

/// Pages of a process that is one page after the other.
fn pages(nodes: &[u32]) -> Vec<Unit> {
    let page = |(at, node): (usize, &u32)| Unit {
        process: 1,
        page: 1000 + u64::try_from(at).unwrap(),
        pages: 1,
        node: *node,
    };
    nodes.iter().enumerate().map(page).collect()
}

#[test]
fn pages_go_where_weighted_interleaving_would_have_put_them() {
    let (local, remote, weights) = (set("0"), set("1"), weights(&[(0, 3), (1, 1)]));
    let goal = Goal {
        target: ratio("0.75"),
        local: &local,
        remote: &remote,
        weights: &weights,
        heat: None,
    };
    let moved = moves(&pages(&[0; 16]), &goal);
    let places: Vec<u64> = moved.iter().map(|found| found.unit.page % 4).collect();
    assert_eq!(places, [3; 4], "the last of each four is remote");
    // Nothing is to be done.
    let mut done = vec![0; 12];
    done.extend([1; 4]);
    assert_eq!(moves(&pages(&done), &goal), []);
}

fn units() -> impl Strategy<Value = Vec<Unit>> {
    let unit = (0_u64..5000, prop_oneof![Just(1_u32), Just(512)], 0_u32..4);
    prop::collection::btree_map(0_u64..5000, unit, 0..120).prop_map(|found| {
        let found: BTreeMap<u64, _> = found;
        found
            .into_iter()
            .map(|(page, (_, pages, node))| Unit {
                process: i32::try_from(page % 3).unwrap(),
                page: page * 512,
                pages,
                node,
            })
            .collect()
    })
}

fn local_pages(units: &[Unit], local: &NodeSet) -> u64 {
    let here = units.iter().filter(|unit| local.contains(unit.node));
    here.map(|unit| u64::from(unit.pages)).sum()
}

proptest! {
    #[test]
    fn moves_are_the_fewest_that_reach_the_ratio(
        nodes in prop::collection::vec(0_u32..3, 0..300), parts in 0_u16..=10_000, each in 1_u8..20,
    ) {
        let (local, remote) = (set("0"), set("1-2"));
        let weights = weights(&[(0, each), (1, 1), (2, 2)]);
        let target = LocalRatio::of(u64::from(parts), u64::from(10_000 - parts)).unwrap();
        let goal = Goal { target, local: &local, remote: &remote, weights: &weights, heat: None };
        let before = pages(&nodes);
        let moved = moves(&before, &goal);
        let wanted = target.share(u64::try_from(before.len()).unwrap());
        let held = local_pages(&before, &local);
        prop_assert_eq!(u64::try_from(moved.len()).unwrap(), wanted.abs_diff(held));
        let mut after = before.clone();
        for found in &moved {
            let at = after.iter().position(|unit| *unit == found.unit);
            prop_assert!(at.is_some(), "each page at most once");
            after[at.unwrap()].node = found.to;
        }
        prop_assert_eq!(local_pages(&after, &local), wanted);
        prop_assert_eq!(moves(&after, &goal), vec![]);
        let mut turned = before;
        turned.reverse();
        prop_assert_eq!(moves(&turned, &goal), moved, "in whatever order they come");
    }

    #[test]
    fn huge_pages_bring_it_as_close_as_they_can(units in units(), parts in 0_u16..=10_000) {
        let (local, remote, weights) = (set("0-1"), set("2-3"), Weights::default());
        let target = LocalRatio::of(u64::from(parts), u64::from(10_000 - parts)).unwrap();
        let goal = Goal { target, local: &local, remote: &remote, weights: &weights, heat: None };
        let whole: u64 = units.iter().map(|unit| u64::from(unit.pages)).sum();
        let (wanted, held) = (target.share(whole), local_pages(&units, &local));
        let moved = moves(&units, &goal);
        let pages: u64 = moved.iter().map(|found| u64::from(found.unit.pages)).sum();
        let crosses = |found: &Move| local.contains(found.unit.node) != local.contains(found.to);
        prop_assert!(moved.iter().all(crosses), "from one side to the other");
        let off = wanted.abs_diff(held);
        // Half a huge page is as near as it gets.
        prop_assert!(pages.abs_diff(off) <= off.min(256), "{} moved of {}", pages, off);
    }

    #[test]
    fn designed_weights_give_the_ratio(parts in 100_u16..9_900, remote in 1_u32..4) {
        let (local, remote): (NodeSet, NodeSet) = (set("0"), (1..=remote).collect());
        let target = LocalRatio::of(u64::from(parts), u64::from(10_000 - parts)).unwrap();
        if let Some((weights, given)) = designed(target, &local, &remote) {
            let (found, ratio) = super::weights::subset(target, &local, &remote, &weights);
            prop_assert!(ratio.distance(target) <= given.distance(target), "{:?}", found);
            if (1_000..=9_000).contains(&parts) {
                prop_assert!(given.distance(target) <= TOLERANCE, "{} for {}", given, target);
            }
        } else {
            prop_assert!(false, "none for {}", target);
        }
    }
}

#[test]
fn a_host_without_remote_memory_is_told_apart_from_one_whose_remote_memory_is_offline() {
    let mut host = layout(&[(0, 1), (1, 1), (2, 1)]);
    let mut said = |empty: &[u32]| {
        for node in &mut host.nodes {
            node.memory = Bytes::new(u64::from(!empty.contains(&node.number)) << 30);
        }
        without_remote(&host)
    };
    assert!(said(&[1, 2]).ends_with("(nodes 1-2 have none online)"));
    host.nodes.truncate(2);
    let mut said = |has_cpus, bytes| {
        let node = host.nodes.last_mut().unwrap();
        (node.has_cpus, node.memory, node.tier) = (has_cpus, Bytes::new(bytes), Some(4));
        without_remote(&host)
    };
    assert!(said(false, 0).ends_with("(node 1 has none online)"));
    assert!(said(true, 1 << 30).ends_with("(2 nodes, all of one kind)"));
    // Processors of which no memory is near are no remote memory.
    assert!(said(true, 0).ends_with("(1 node)"));
}
