//! Memory of several tiers: what the kernel makes of the firmware's tables, and demotion.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use serde_json::json;

use crate::harness::{differential, skip};
use crate::machine::{MIB, anon_on, far_node, field, group, hold};

const TIERS: &str = "/sys/devices/virtual/memory_tiering";
const DEMOTION: &str = "/sys/kernel/mm/numa/demotion_enabled";

/// The numbers of a list as the kernel writes it: `0-2,4`.
fn numbers(list: &str) -> Vec<u32> {
    let number = |text: &str| text.trim().parse().expect("a number");
    list.split(',')
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            number(first)..=number(last)
        })
        .collect()
}

/// The nodes of each tier, the fastest first.
fn tiers() -> Vec<Vec<u32>> {
    let entries = fs::read_dir(TIERS).into_iter().flatten().flatten();
    let mut found: Vec<(u32, Vec<u32>)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = name.strip_prefix("memory_tier")?.parse().ok()?;
            let nodes = fs::read_to_string(entry.path().join("nodelist")).ok()?;
            Some((number, numbers(&nodes)))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, nodes)| nodes).collect()
}

fn has_tiers() -> bool {
    let here = tiers().len() > 1 && Path::new(DEMOTION).exists();
    if !here {
        skip("all memory is in one tier");
    }
    here
}

/// Demotion is a setting of the whole machine: one test at a time, and back to what it was.
struct Demotion {
    before: String,
    _turn: std::sync::MutexGuard<'static, ()>,
}

impl Demotion {
    fn on() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = fs::read_to_string(DEMOTION).expect("setting");
        fs::write(DEMOTION, "1").expect("demotion on");
        Self {
            before,
            _turn: turn,
        }
    }
}

impl Drop for Demotion {
    fn drop(&mut self) {
        let _ = fs::write(DEMOTION, self.before.trim());
    }
}

#[test]
fn a_range_holds_all_its_numbers() {
    assert_eq!(numbers("0-2,4\n"), [0, 1, 2, 4]);
}

#[test]
fn nodes_without_processors_are_in_slower_tiers() {
    if !has_tiers() {
        return;
    }
    let tiers = tiers();
    for far in crate::machine::far_nodes() {
        let fastest = tiers.first().expect("a tier");
        assert!(
            !fastest.contains(&far),
            "node {far} is in the fastest of {tiers:?}"
        );
    }
}

#[test]
fn reclaim_of_a_container_demotes_its_memory() {
    let Some(far) = far_node() else { return };
    if !has_tiers() {
        return;
    }
    differential(move |c| {
        let _on = Demotion::on();
        // Memory comes from where the processor is.
        c.spec()["linux"]["resources"]["cpu"] = json!({"cpus": "0"});
        hold(c);
        assert!(anon_on(c, 0) >= 8 * MIB, "not near");
        let demoted = |c: &crate::harness::Case| -> u64 {
            // Its name depends on the kernel: _direct, _proactive, ...
            let text = c.cgroup_file("memory.stat");
            let lines = text.lines().filter_map(|line| line.split_once(' '));
            lines
                .filter(|(key, _)| key.starts_with("pgdemote_"))
                .filter_map(|(_, count)| count.parse::<u64>().ok())
                .sum()
        };
        assert_eq!(demoted(c), 0);
        // It ends with EAGAIN when it finds less than that.
        let _ = fs::write(group(c).join("memory.reclaim"), "4M");
        let (far, count) = (anon_on(c, far), demoted(c));
        assert!(far >= 2 * MIB, "{far} bytes are far");
        assert!(count >= 512, "{count} pages were demoted");
        // The limit still counts both.
        assert!(field(&c.cgroup_file("memory.stat"), "anon") >= 8 * MIB);
    });
}
