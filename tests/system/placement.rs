//! Where the memory of containers lies on a machine with local and remote memory, and the interleave weights of the host.
//!
//! Weights and huge pages are settings of the whole machine: one of these tests at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::nodes::{self, HugePages};
use crate::common::wait_until;
use crate::harness::{Case, eventually, ours_beyond_runc, processes, skip};
use crate::machine::{MIB, anon_on, far_node, far_nodes};

const WEIGHTS: &str = "/sys/kernel/mm/mempolicy/weighted_interleave";
const LEASE: &str = "/run/elastic-mem/weights.json";

/// The settings of the machine, as they were before the test.
pub struct Host {
    weights: Vec<(PathBuf, String)>,
    huge: HugePages,
}

/// The weights in force, `auto` last: writing the others turns it off.
fn weights() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(WEIGHTS).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| {
            let text = fs::read_to_string(entry.path()).expect("weight");
            (entry.path(), text.trim().to_owned())
        })
        .collect();
    found.sort_by_key(|(path, _)| (path.ends_with("auto"), path.clone()));
    found
}

fn set_weights(weights: &[(PathBuf, String)]) {
    for (path, text) in weights {
        if !path.ends_with("auto") {
            fs::write(path, text).expect("weight");
        } else if text == "true" {
            knows_bandwidths(path);
        }
    }
}

/// Has the kernel make the weights itself, by this file. One that knows no bandwidths refuses.
fn knows_bandwidths(auto: &Path) -> bool {
    match fs::write(auto, "true") {
        Ok(()) => true,
        Err(err) => {
            assert_eq!(err.raw_os_error(), Some(libc::ENODEV), "{err}");
            false
        }
    }
}

impl Host {
    /// Without huge pages: ratios are exact to the page.
    pub fn new() -> Option<Self> {
        far_node()?;
        if !Path::new(WEIGHTS).exists() {
            skip("the kernel has no interleave weights");
            return None;
        }
        let huge = HugePages::never();
        Some(Self {
            weights: weights(),
            huge,
        })
    }

    /// Whether they were given back.
    pub fn has_its_weights(&self) {
        let (mut then, now) = (self.weights.clone(), weights());
        if let (Some(then), Some(now)) = (then.last_mut(), now.last())
            && then != now
            && then.0.ends_with("auto")
            && !knows_bandwidths(&then.0)
        {
            // The kernel begins with it and never goes back there.
            then.1 = "false".to_owned();
        }
        assert_eq!(now, then);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_file(LEASE);
        set_weights(&self.weights);
    }
}

/// Has functions of the container placed with this ratio.
pub fn configure(c: &mut Case, ratio: f64, own: bool) {
    let settings = c.bundle.path().join("settings.toml");
    let folder = c.bundle.path().join("store");
    let text = format!(
        "memory.mode = \"observe\"\nprofile.folder = {:?}\nweights.own = {own}\n\
         [functions.\"*\"]\nlocal-ratio = {ratio}\n",
        folder.display().to_string()
    );
    fs::write(&settings, text).expect("settings");
    c.configure(settings);
}

/// A container with this much memory, of which nothing grows any more, and this ratio.
fn hold(c: &mut Case, mib: u64, ratio: f64, own: bool) {
    hold_while(c, mib, ratio, own, |_| {});
}

/// The same, with something done right after its start.
fn hold_while(c: &mut Case, mib: u64, ratio: f64, own: bool, after: impl Fn(&Case)) {
    configure(c, ratio, own);
    let bytes = mib * MIB;
    c.script(&format!(
        "x=$(head -c {bytes} /dev/zero | tr '\\0' x); echo holding ${{#x}}; while :; do sleep 1000; done"
    ));
    let outcome = c.create();
    c.ok("start ID");
    after(c);
    wait_until("it holds its memory", || {
        outcome.stdout_now().contains("holding")
    });
}

/// Whoever looks after the container.
pub fn monitor(c: &Case) -> i32 {
    // On a busy machine it gets ready a moment after the start.
    let text = eventually(|| {
        let states = fs::read_dir("/run/elastic-mem").ok()?.flatten();
        states
            .map(|entry| entry.path().join(c.id()).join("state.json"))
            .find_map(|path| fs::read_to_string(path).ok())
    });
    let text = text.expect("a record");
    let record: Value = serde_json::from_str(&text).expect("JSON");
    let pid = record["owner"]["pid"].as_i64().expect("pid");
    i32::try_from(pid).expect("pid")
}

/// The local share of its anonymous memory, in percent.
pub fn local(c: &Case) -> f64 {
    // At one moment: while a program builds up its memory some of it comes and goes.
    let stat = c.cgroup_file("memory.numa_stat");
    let anon = |node: u32| nodes::anon_on(&stat, node);
    let far: u64 = far_nodes().iter().map(|node| anon(*node)).sum();
    let near: u64 = (0..64)
        .filter(|node| !far_nodes().contains(node))
        .filter(|node| Path::new(&format!("/sys/devices/system/node/node{node}")).exists())
        .map(anon)
        .sum();
    #[allow(clippy::cast_precision_loss, reason = "counts of some megabytes")]
    let share = near as f64 / (near + far).max(1) as f64;
    share * 100.0
}

pub fn is_near(c: &Case, ratio: f64, points: f64) -> bool {
    (local(c) - ratio * 100.0).abs() <= points
}

pub fn placement(c: &Case) -> Value {
    let outcome = c.call("placement --json ID");
    assert_eq!(outcome.code, 0, "{outcome}");
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

#[test]
fn the_split_after_creation_is_the_target() {
    let Some(host) = Host::new() else { return };
    for ratio in [0.0, 0.25, 0.5, 0.75, 0.9, 1.0] {
        ours_beyond_runc(|c| {
            hold(c, 12, ratio, true);
            // The kernel's counters are up to two seconds late.
            let split = eventually(|| is_near(c, ratio, 2.0).then_some(()));
            let stat = c.cgroup_file("memory.numa_stat");
            assert!(split.is_some(), "{ratio}: {stat}");
            let found = placement(c);
            assert_eq!(found["placement"]["means"], "allocation", "{found}");
            assert_eq!(found["isHeld"], true, "{found}");
            // Nothing was moved for it.
            assert_eq!(found["moved"], Value::Null, "{found}");
            c.ok("delete --force ID");
        });
        assert_eq!(weights(), host.weights, "after {ratio}");
    }
}

/// So little that it may lie on a device of which each access is emulated.
#[test]
fn a_few_megabytes_of_data_are_split_too() {
    let Some(host) = Host::new() else { return };
    for ratio in [0.5, 0.75] {
        ours_beyond_runc(|c| {
            hold(c, 4, ratio, true);
            let split = eventually(|| is_near(c, ratio, 2.0).then_some(()));
            let found = placement(c);
            assert!(split.is_some(), "{ratio}: {found}");
            assert_eq!(found["placement"]["means"], "allocation", "{found}");
            assert_eq!(found["isHeld"], true, "{found}");
            c.ok("delete --force ID");
        });
        host.has_its_weights();
    }
}

#[test]
fn a_ratio_that_the_weights_do_not_give_is_reached_with_the_fewest_moves_and_then_nothing_is_done()
{
    let Some(host) = Host::new() else { return };
    for ratio in [0.3, 0.9] {
        ours_beyond_runc(|c| {
            // It gets to moving once all of the memory is there.
            hold_while(c, 12, ratio, false, |c| {
                processes::signal(monitor(c), Signal::SIGSTOP);
            });
            processes::signal(monitor(c), Signal::SIGCONT);
            let moved = |found: &Value| found["moved"]["moved"].as_u64().unwrap_or(0);
            wait_until("the ratio is reached", || {
                let found = placement(c);
                is_near(c, ratio, 2.0) && moved(&found) > 0 && found["moved"]["pending"] == 0
            });
            let found = placement(c);
            assert_eq!(found["placement"]["means"], "correction", "{found}");
            // All of it was local: so much had to go.
            let far: u64 = far_nodes().iter().map(|node| anon_on(c, *node)).sum();
            let least = far / 4096;
            assert!(
                moved(&found) <= least + least / 100 + 16,
                "{least} pages were enough: {found}"
            );
            // At the target it is looked at, and nothing else.
            let done = |found: &Value| {
                [
                    found["moved"]["searches"].clone(),
                    found["moved"]["moved"].clone(),
                ]
            };
            std::thread::sleep(Duration::from_secs(4));
            let later = placement(c);
            assert_eq!(done(&later), done(&found), "{later}");
            assert_eq!(later["moved"].get("why"), None, "{later}");
            c.ok("delete --force ID");
        });
    }
    assert_eq!(weights(), host.weights, "nobody may set them");
}

#[test]
fn three_containers_hold_three_ratios_at_once() {
    let Some(host) = Host::new() else { return };
    ours_beyond_runc(|a| {
        ours_beyond_runc(|b| {
            ours_beyond_runc(|c| {
                let ratios = [0.75, 0.5, 0.2];
                for (case, ratio) in [&mut *a, b, c].into_iter().zip(ratios) {
                    churn(case, ratio);
                }
                let all = [&*a, b, c];
                // The first one has the weights; the others are corrected.
                assert_eq!(placement(a)["placement"]["means"], "allocation");
                assert_eq!(placement(c)["placement"]["means"], "correction");
                for (case, ratio) in all.iter().zip(ratios) {
                    let reached = eventually(|| {
                        // Whoever moves pages comes after all others.
                        std::thread::sleep(Duration::from_millis(500));
                        is_near(case, ratio, 5.0).then_some(())
                    });
                    assert!(reached.is_some(), "{ratio}: {}", placement(case));
                }
                let end = Instant::now() + Duration::from_secs(60);
                while Instant::now() < end {
                    for (case, ratio) in all.iter().zip(ratios) {
                        let found = local(case);
                        assert!(
                            (found - ratio * 100.0).abs() <= 5.0,
                            "{ratio}: {found} of {}",
                            placement(case)
                        );
                    }
                    std::thread::sleep(Duration::from_millis(500));
                }
                for case in [&mut *a, b, c] {
                    case.ok("delete --force ID");
                }
            });
        });
    });
    assert_eq!(weights(), host.weights);
}

/// Memory that stays, and some that comes and goes.
fn churn(c: &mut Case, ratio: f64) {
    configure(c, ratio, true);
    c.script(
        "x=$(head -c 12582912 /dev/zero | tr '\\0' x); echo holding ${#x}; \
         while :; do y=$(head -c 262144 /dev/zero | tr '\\0' y); sleep 0.3; y=; done",
    );
    let outcome = c.create();
    c.ok("start ID");
    wait_until("it holds its memory", || {
        outcome.stdout_now().contains("holding")
    });
}

#[test]
fn an_exec_has_the_policy_too() {
    let Some(_host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        hold(c, 4, 0.5, true);
        let policy = c.exec("", "head -n 1 /proc/self/numa_maps");
        assert!(policy.contains(" weighted interleave=static:"), "{policy}");
        let file = c.bundle.config();
        let spec = fs::read_to_string(file).expect("config.json");
        assert!(!spec.contains("memoryPolicy"), "the bundle is as it was");
        let text = c.call("explain ID").stdout;
        assert!(text.contains("MPOL_WEIGHTED_INTERLEAVE"), "{text}");
    });
}

#[test]
fn i7_weights_are_given_back_with_the_last_container() {
    let Some(host) = Host::new() else { return };
    ours_beyond_runc(|a| {
        ours_beyond_runc(|b| {
            hold(a, 4, 0.6, true);
            hold(b, 4, 0.6, true);
            assert_ne!(weights(), host.weights);
            let shown = a.call("weights show").stdout;
            assert!(shown.contains(a.id()) && shown.contains(b.id()), "{shown}");
            a.fails("weights release", &["rely on the weights", b.id()]);
            a.fails("weights set 0=7", &["rely on the weights"]);
            a.ok("delete --force ID");
            assert_ne!(weights(), host.weights, "the other one relies on them");
            b.ok("delete --force ID");
            assert_eq!(weights(), host.weights);
            assert!(!Path::new(LEASE).exists());
        });
    });
}

#[test]
fn i7_weights_are_given_back_by_the_next_verb_when_their_containers_were_killed() {
    let Some(host) = Host::new() else { return };
    ours_beyond_runc(|a| {
        hold(a, 4, 0.6, true);
        assert_ne!(weights(), host.weights);
        processes::signal(a.pid(), Signal::SIGKILL);
        a.wait_for("stopped");
        // Whoever starts next, with whatever settings, cleans up.
        ours_beyond_runc(|b| {
            b.up();
            assert_eq!(weights(), host.weights);
        });
    });
}

#[test]
fn i7_weights_of_another_boot_are_not_given_back() {
    let Some(host) = Host::new() else { return };
    ours_beyond_runc(|a| {
        hold(a, 4, 0.6, true);
        let text = fs::read_to_string(LEASE).expect("lease");
        let mut lease: Value = serde_json::from_str(&text).expect("JSON");
        lease["bootId"] = json!("another");
        fs::write(LEASE, lease.to_string()).expect("lease");
        let ours = weights();
        a.ok("delete --force ID");
        assert_eq!(weights(), ours, "they are not what was found then");
        assert!(!Path::new(LEASE).exists());
    });
    set_weights(&host.weights);
}

#[test]
fn i7_weights_that_somebody_else_has_written_stay() {
    let Some(host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        hold(c, 4, 0.6, true);
        fs::write(format!("{WEIGHTS}/node0"), "17").expect("weight");
        let theirs = weights();
        let shown = c.call("weights show").stdout;
        assert!(shown.contains("changed by somebody else"), "{shown}");
        c.ok("delete --force ID");
        assert_eq!(weights(), theirs);
        assert!(!Path::new(LEASE).exists());
    });
    set_weights(&host.weights);
}

#[test]
fn i7_weights_that_were_set_by_hand_are_given_back_by_hand() {
    let Some(host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        c.ok("weights set 0=4");
        c.ok("weights set 0=3 1=1");
        let of = |node: u32| fs::read_to_string(format!("{WEIGHTS}/node{node}")).expect("weight");
        assert_eq!((of(0).trim(), of(1).trim()), ("3", "1"));
        c.up();
        c.ok("delete --force ID");
        assert_eq!(of(0).trim(), "3", "nobody else gives them back");
        c.ok("weights release");
        assert_eq!(weights(), host.weights);
        let again = c.ok("weights release");
        assert!(again.stderr.contains("nothing to give back"), "{again}");
    });
}

#[test]
fn i1_a_container_runs_without_a_policy_that_the_kernel_refuses() {
    let Some(_host) = Host::new() else { return };
    let folder = format!("/sys/fs/cgroup/emt-near-{}", std::process::id());
    fs::create_dir(&folder).expect("group");
    let near = |file: &str, text: &str| fs::write(format!("{folder}/{file}"), text).expect("write");
    near("cgroup.subtree_control", "+cpuset +memory +pids");
    near("cpuset.mems", "0");
    ours_beyond_runc(|c| {
        let name = Path::new(&folder)
            .file_name()
            .expect("name")
            .to_string_lossy();
        c.spec()["linux"]["cgroupsPath"] = json!(format!("/{name}/c"));
        configure(c, 0.0, false);
        c.idle();
        let created = c.create();
        let said = "the kernel has refused the memory policy";
        assert!(created.stderr.contains(said), "{}", created.stderr);
        c.ok("start ID");
        assert_eq!(c.status(), "running");
        assert!(c.exec("", "echo here").contains("here"));
        c.ok("delete --force ID");
    });
    fs::remove_dir(&folder).expect("group");
}

#[test]
fn huge_pages_are_moved_whole() {
    let Some(host) = Host::new() else { return };
    host.huge.always();
    ours_beyond_runc(|c| {
        hold(c, 32, 0.5, false);
        // Half of a huge page, and what the shell has besides.
        wait_until("it has its ratio", || is_near(c, 0.5, 5.0));
        let found = placement(c);
        assert_eq!(found["isHeld"], true, "{found}");
    });
}
