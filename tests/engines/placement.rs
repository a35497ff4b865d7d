//! Local and remote memory of containers that engines run.

use serde_json::Value;

use crate::common::nodes::{HugePages, anon_on, far_nodes};
use crate::harness::{Case, Cmd, Docker, cgroups, host, skip, wait_until};

// The guests that have such memory run them (scripts/vm).
ours_on_every_containerd! {
    #[ignore = "wants a memory node without processors, and cgroup v2"]
    a_container_has_the_ratio_of_its_annotation,
    a_container_has_the_ratio_of_its_function,
}

on_every_docker! {
    #[ignore = "wants a memory node without processors, and cgroup v2"]
    a_container_of_docker_has_the_ratio_of_its_function,
}

const HOLD: &str =
    "x=$(head -c 12582912 /dev/zero | tr '\\0' x); while :; do sleep 1000 & wait; done";

/// None where there is no remote memory.
fn tiered() -> Option<HugePages> {
    if far_nodes().is_empty() || !cgroups::is_unified() {
        skip("no memory node without processors, or no cgroup v2");
        return None;
    }
    Some(HugePages::never())
}

/// Whether it holds its memory, and that lies so.
fn lies(numa_stat: &str, ratio: f64) -> bool {
    let far: u64 = far_nodes()
        .iter()
        .map(|node| anon_on(numa_stat, *node))
        .sum();
    let all = far + anon_on(numa_stat, 0);
    #[allow(clippy::cast_precision_loss, reason = "some megabytes")]
    let local = 1.0 - far as f64 / all.max(1) as f64;
    all > 12 << 20 && (local - ratio).abs() < 0.02
}

/// `placement` finds it, whoever runs it, and says that the ratio is held.
fn is_told(id: &str) {
    let outcome = Cmd::new(host::our_program())
        .args(["placement", "--json", id])
        .output();
    assert_eq!(outcome.code, 0, "{outcome}");
    let found: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(found["isHeld"], true, "{found}");
}

fn has_ratio(c: &mut Case, flags: &str, ratio: f64) {
    let Some(_turn) = tiered() else { return };
    c.up_with(flags, "a", HOLD);
    wait_until("it lies as it should", || {
        lies(&c.cgroup_file("a", "memory.numa_stat"), ratio)
    });
    is_told(&c.id("a"));
    let policy = "head -n 1 /proc/self/numa_maps";
    let exec = c.exec("", "a", "x", policy).output();
    assert!(
        exec.stdout.contains(" weighted interleave=static:"),
        "{exec}"
    );
    c.down("a");
}

fn a_container_has_the_ratio_of_its_annotation(c: &mut Case) {
    has_ratio(c, "--annotation elastic-mem.io/local-ratio=0.5", 0.5);
}

fn a_container_has_the_ratio_of_its_function(c: &mut Case) {
    has_ratio(c, "--annotation elastic-mem.io/function=placed", 0.25);
}

/// As shim, and by its path: then the monitor looks after it. runc is asked only so that the scenario is known to be right.
fn a_container_of_docker_has_the_ratio_of_its_function(d: &mut Docker) {
    let Some(_turn) = tiered() else { return };
    let flags = "--detach --env ELASTIC_MEM_FUNCTION=placed";
    let outcome = d.run(flags, "a", HOLD).output();
    assert_eq!(outcome.code, 0, "{outcome}");
    let id = d.full_id("a");
    if d.is_ours() {
        wait_until("it lies as it should", || {
            lies(&d.cgroup_file(&id, "memory.numa_stat"), 0.25)
        });
        is_told(&id);
        let exec = d.exec("", "a", "head -n 1 /proc/self/numa_maps").output();
        assert!(
            exec.stdout.contains(" weighted interleave=static:"),
            "{exec}"
        );
    }
    d.remove("a");
}
