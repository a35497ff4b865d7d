//! Where memory lies on a machine with a node without processors.

use serde_json::json;

use crate::harness::{differential, eventually, ours_beyond_runc};
use crate::machine::{MIB, anon_on, far_node, hold};

/// The shell and its libraries, which may lie anywhere.
const REST: u64 = 3 * MIB;

#[test]
fn a_cpuset_binds_memory_to_a_node() {
    let Some(far) = far_node() else { return };
    differential(move |c| {
        c.spec()["linux"]["resources"]["cpu"] = json!({"mems": far.to_string()});
        hold(c);
        c.note_cgroup(&["cpuset.mems", "cpuset.mems.effective"]);
        let (near, far) = (anon_on(c, 0), anon_on(c, far));
        assert!(far >= 8 * MIB && near < REST, "near {near}, far {far}");
        // What an exec takes goes there too.
        let seen = c.exec("", "grep Mems_allowed_list /proc/self/status");
        c.note("exec", &seen);
    });
}

#[test]
fn an_update_of_the_cpuset_moves_the_memory() {
    let Some(far) = far_node() else { return };
    differential(move |c| {
        c.spec()["linux"]["resources"]["cpu"] = json!({"mems": "0"});
        hold(c);
        assert!(anon_on(c, 0) >= 8 * MIB && anon_on(c, far) < REST);
        c.ok(&format!("update --cpuset-mems {far} ID"));
        c.note_cgroup(&["cpuset.mems"]);
        let moved = eventually(|| (anon_on(c, far) >= 8 * MIB).then_some(()));
        assert!(moved.is_some(), "{}", c.cgroup_file("memory.numa_stat"));
        assert!(anon_on(c, 0) < REST);
    });
}

#[test]
fn a_node_that_is_not_there_is_refused() {
    if far_node().is_none() {
        return;
    }
    differential(|c| {
        c.spec()["linux"]["resources"]["cpu"] = json!({"mems": "63"});
        c.run_fails(&["cpuset.mems"]);
    });
}

#[test]
fn a_memory_policy_binds_to_a_node() {
    let Some(far) = far_node() else { return };
    ours_beyond_runc(move |c| {
        c.spec()["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": far.to_string()});
        hold(c);
        let (near, far) = (anon_on(c, 0), anon_on(c, far));
        assert!(far >= 8 * MIB && near < REST, "near {near}, far {far}");
    });
}

#[test]
fn a_memory_policy_interleaves_two_nodes() {
    let Some(far) = far_node() else { return };
    ours_beyond_runc(move |c| {
        c.spec()["linux"]["memoryPolicy"] =
            json!({"mode": "MPOL_INTERLEAVE", "nodes": format!("0,{far}")});
        hold(c);
        // Huge pages are dealt out whole: 8 MiB are four of them.
        let (near, far) = (anon_on(c, 0), anon_on(c, far));
        assert!(near >= 2 * MIB && far >= 2 * MIB, "near {near}, far {far}");
        let of_init = std::fs::read_to_string(format!("/proc/{}/numa_maps", c.pid()));
        assert!(of_init.expect("numa_maps").contains("interleave:0"));
    });
}
