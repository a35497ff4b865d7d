//! Swap limits on a machine that has swap.

use std::fs;

use serde_json::json;

use crate::harness::{differential, skip};
use crate::machine::{MIB, field, group, has_cgroup2, hold};

fn has_swap() -> bool {
    if !has_cgroup2() {
        return false;
    }
    let table = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let here = table.lines().count() > 1;
    if !here {
        skip("no swap");
    }
    here
}

fn swapped(c: &crate::harness::Case) -> u64 {
    c.cgroup_file("memory.swap.current").parse().expect("bytes")
}

#[test]
fn reclaim_swaps_out_what_the_limit_lets_it() {
    if !has_swap() {
        return;
    }
    differential(|c| {
        c.spec()["linux"]["resources"]["memory"] = json!({"limit": 64 * MIB, "swap": 68 * MIB});
        hold(c);
        c.note_cgroup(&["memory.swap.max"]);
        assert_eq!(c.cgroup_file("memory.swap.max"), (4 * MIB).to_string());
        // It ends with EAGAIN when it finds less than that.
        let _ = fs::write(group(c).join("memory.reclaim"), "8M");
        let swapped = swapped(c);
        assert!((MIB..=4 * MIB).contains(&swapped), "{swapped}");
    });
}

#[test]
fn a_container_without_swap_is_not_swapped() {
    if !has_swap() {
        return;
    }
    differential(|c| {
        c.spec()["linux"]["resources"]["memory"] = json!({"limit": 64 * MIB, "swap": 64 * MIB});
        hold(c);
        assert_eq!(c.cgroup_file("memory.swap.max"), "0");
        let _ = fs::write(group(c).join("memory.reclaim"), "8M");
        assert_eq!(swapped(c), 0);
    });
}

#[test]
fn compressed_swap_counts_for_the_container() {
    let enabled = fs::read_to_string("/sys/module/zswap/parameters/enabled").unwrap_or_default();
    if !has_swap() {
        return;
    }
    if enabled.trim() != "Y" {
        return skip("zswap is off");
    }
    differential(|c| {
        c.spec()["linux"]["resources"]["unified"] = json!({"memory.zswap.max": "4194304"});
        hold(c);
        c.note_cgroup(&["memory.zswap.max"]);
        let _ = fs::write(group(c).join("memory.reclaim"), "6M");
        assert!(field(&c.cgroup_file("memory.stat"), "zswpout") > 0);
    });
}
