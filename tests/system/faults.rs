//! What goes wrong with placement costs a function speed and nothing else: it comes to its end, its output is right, and
//! `placement` says what is not held and why.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::nodes::has_memory;
use crate::common::{eventually, wait_until};
use crate::harness::{Case, Outcome, ours_beyond_runc, skip};
use crate::machine::{MIB, far_nodes, field, group};
use crate::placement::{Host, configure, is_near, placement};

const NODES: &str = "/sys/devices/system/node";

/// A function that holds some memory and works until it is told to end; then it says whether all is as it was.
struct Function {
    outcome: Outcome,
}

impl Function {
    /// Has the container run [`memory`] of this test program.
    fn start(c: &mut Case, ratio: f64, own: bool, is_cut: bool) -> Self {
        let program = std::env::current_exe().expect("own path");
        let bind = |from: &Path, to: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", "ro"]});
        let mut mounts = vec![bind(&program, "/test")];
        for folder in ["/lib", "/lib64", "/usr/lib"] {
            if Path::new(folder).exists() {
                mounts.push(bind(Path::new(folder), folder));
            }
        }
        c.push("/mounts", mounts);
        c.push("/process/env", [json!(format!("IS_CUT={is_cut}"))]);
        let words = [
            "/test",
            "--ignored",
            "--exact",
            "--nocapture",
            "faults::memory",
        ];
        c.spec()["process"]["args"] = json!(words);
        Self::run(c, ratio, own)
    }

    /// A shell with 12 MiB, and this to do again and again.
    fn shell(c: &mut Case, ratio: f64, work: &str) -> Self {
        c.script(&format!(
            "x=$(head -c 12582912 /dev/zero | tr '\\0' x); a=$(printf %s $x | md5sum); echo holding; \
             until [ -e /stop ]; do {work}; done; b=$(printf %s $x | md5sum); [ \"$a\" = \"$b\" ] && echo all is there"
        ));
        Self::run(c, ratio, false)
    }

    fn run(c: &mut Case, ratio: f64, own: bool) -> Self {
        configure(c, ratio, own);
        let outcome = c.create();
        c.ok("start ID");
        wait_until("it holds its memory", || {
            outcome.stdout_now().contains("holding")
        });
        Self { outcome }
    }

    /// Tells it to end, and looks at how it has: what it says, it says when everything else is done.
    fn end(self, c: &Case) {
        let kills = field(&c.cgroup_file("memory.events"), "oom_kill");
        assert_eq!(kills, 0, "killed for want of memory");
        fs::write(c.rootfs().join("stop"), "").expect("stop");
        c.wait_for("stopped");
        let said = self.outcome.stdout_now();
        assert!(said.contains("all is there"), "{said}");
    }
}

/// Waits until `placement` gives this reason for a ratio that is not held.
fn not_held_for(c: &Case, reason: &str) {
    let mut found = Value::Null;
    let seen = eventually(|| {
        found = placement(c);
        let why = found["why"].as_str().unwrap_or_default();
        (found["isHeld"] == false && why.contains(reason)).then_some(())
    });
    let left = || -> Vec<[u64; 3]> {
        let uses = ["MemFree", "FilePages", "KReclaimable"];
        let nodes = far_nodes().into_iter();
        nodes
            .map(|node| uses.map(|what| of_node(node, what)))
            .collect()
    };
    assert!(
        seen.is_some(),
        "not for {reason:?}: {found}, left {:?}",
        left()
    );
}

fn held(c: &Case, ratio: f64) {
    let mut found = Value::Null;
    let seen = eventually(|| {
        found = placement(c);
        (is_near(c, ratio, 5.0) && found["isHeld"] == true).then_some(())
    });
    assert!(seen.is_some(), "{ratio} is not held: {found}");
}

/// Memory of remote nodes that nobody else can have, until this is dropped.
struct Filled(Vec<u32>);

impl Filled {
    fn new() -> Option<Self> {
        let nodes = far_nodes();
        if !nodes.iter().all(|node| pool(*node).exists()) {
            skip("no pool of huge pages");
            return None;
        }
        let filled = Self(nodes);
        // All that there are: the kernel stops where there are no more, and page cache and scattered pages stand in its
        // way. What is dropped for one node may have been on another.
        let mut times = 0;
        wait_until("nothing is left of the nodes", || {
            fs::write("/proc/sys/vm/drop_caches", "3").expect("drop_caches");
            fs::write("/proc/sys/vm/compact_memory", "1").expect("compact_memory");
            let is_full = |node: &u32| {
                let is_full = of_node(*node, "MemFree") < 16 * MIB;
                fs::write(pool(*node), "1000000").expect("huge pages");
                is_full
            };
            let are_full = filled.0.iter().filter(|node| is_full(node)).count() == filled.0.len();
            times = if are_full { times + 1 } else { 0 };
            times == 3
        });
        Some(filled)
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        for node in &self.0 {
            let _ = fs::write(pool(*node), "0");
        }
    }
}

/// Where it is said how many huge pages a node is to have.
fn pool(node: u32) -> PathBuf {
    format!("{NODES}/node{node}/hugepages/hugepages-2048kB/nr_hugepages").into()
}

/// Memory of a node by its use, as its `meminfo` names it.
fn of_node(node: u32, what: &str) -> u64 {
    let text = fs::read_to_string(format!("{NODES}/node{node}/meminfo")).expect("meminfo");
    let name = format!("{what}:");
    let line = text.lines().find(|line| line.contains(&name));
    let kib = line.and_then(|line| line.split_whitespace().nth(3));
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") << 10
}

#[test]
fn a_full_node_is_done_without() {
    let Some(_host) = Host::new() else { return };
    // Moved there, and given there.
    for (ratio, own) in [(0.2, false), (0.0, true)] {
        ours_beyond_runc(|c| {
            let Some(filled) = Filled::new() else { return };
            let function = Function::start(c, ratio, own, false);
            not_held_for(c, "is full");
            // What does not fit there is local.
            assert!(!is_near(c, ratio, 10.0), "{}", placement(c));
            drop(filled);
            held(c, ratio);
            function.end(c);
        });
    }
}

#[test]
fn a_narrower_cpuset_counts_and_a_wider_one_is_used_again() {
    let Some(_host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        let function = Function::start(c, 0.3, false, false);
        held(c, 0.3);
        let mems = group(c).join("cpuset.mems");
        fs::write(&mems, "0").expect("cpuset.mems");
        not_held_for(c, "cpuset.mems");
        assert!(is_near(c, 1.0, 1.0), "{}", placement(c));
        let all = fs::read_to_string(format!("{NODES}/has_memory")).expect("has_memory");
        fs::write(&mems, all).expect("cpuset.mems");
        held(c, 0.3);
        function.end(c);
    });
}

#[test]
fn processes_that_fork_and_end_are_placed_meanwhile() {
    let Some(_host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        // Children share the memory of their parent, write a little of their own, and are gone in a moment.
        let work = "(y=$(head -c 4096 /dev/zero | tr '\\0' y)) & (sleep 0.05) & (sleep 0.2) & wait";
        let function = Function::shell(c, 0.3, work);
        wait_until("0.3 is reached", || is_near(c, 0.3, 5.0));
        let moved = |found: &Value| found["moved"]["moved"].as_u64().unwrap_or(0);
        let before = placement(c);
        // Shared pages count once: nothing is moved there and back.
        std::thread::sleep(Duration::from_secs(10));
        let after = placement(c);
        let pages = 12 * MIB / 4096;
        assert!(
            moved(&after) - moved(&before) < pages / 4,
            "{before} and then {after}"
        );
        function.end(c);
    });
}

/// Pages of [`memory`].
const PAGES: usize = 10_000;
const PAGE: usize = 4096;

#[test]
#[ignore = "runs in the container of another test"]
#[allow(
    unsafe_code,
    reason = "nothing else gives a page a protection of its own"
)]
fn memory() {
    if !Path::new("/test").exists() {
        return;
    }
    let mut memory = vec![0_u8; (PAGES + 1) * PAGE];
    let first = memory.as_ptr().align_offset(PAGE);
    let of = |page: usize| u8::try_from(page % 251).expect("a byte");
    for page in 0..PAGES {
        memory[first + page * PAGE] = of(page);
    }
    let memory: &'static [u8] = memory.leak();
    // Each second page has a protection of its own: as many areas as there are pages.
    let is_cut = std::env::var("IS_CUT").is_ok_and(|text| text == "true");
    for page in (0..PAGES).step_by(2).filter(|_| is_cut) {
        let start = memory[first + page * PAGE..].as_ptr().cast_mut().cast();
        // SAFETY: a page of memory that is only read, and never given back.
        let done = unsafe { libc::mprotect(start, PAGE, libc::PROT_READ) };
        assert_eq!(done, 0, "mprotect");
    }
    println!("holding");
    while !Path::new("/stop").exists() {
        for page in 0..PAGES {
            assert_eq!(memory[first + page * PAGE], of(page));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("all is there");
}

#[test]
fn a_process_of_ten_thousand_areas_is_placed() {
    let Some(_host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        let function = Function::start(c, 0.4, false, true);
        let maps = fs::read_to_string(format!("/proc/{}/maps", c.pid())).expect("maps");
        assert!(maps.lines().count() >= PAGES, "{}", maps.lines().count());
        held(c, 0.4);
        function.end(c);
    });
}

/// The data access monitor of the kernel, as somebody else uses it.
struct Damon(PathBuf);

impl Damon {
    fn watch(process: i32) -> Option<Self> {
        let root = Path::new("/sys/kernel/mm/damon/admin/kdamonds");
        if !root.exists() {
            skip("the kernel has no DAMON");
            return None;
        }
        // What is on by default keeps others out.
        let default = Path::new("/sys/module/damon_stat/parameters/enabled");
        if default.exists() {
            fs::write(default, "N").expect("damon_stat");
        }
        let write = |path: &str, text: &str| {
            fs::write(root.join(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
        };
        write("nr_kdamonds", "1");
        write("0/contexts/nr_contexts", "1");
        write("0/contexts/0/operations", "vaddr");
        write("0/contexts/0/targets/nr_targets", "1");
        write("0/contexts/0/targets/0/pid_target", &process.to_string());
        write("0/state", "on");
        Some(Self(root.to_owned()))
    }

    fn is_on(&self) -> bool {
        fs::read_to_string(self.0.join("0/state")).is_ok_and(|state| state.trim() == "on")
    }

    /// The thread of the kernel that does it.
    fn thread(&self) -> String {
        fs::read_to_string(self.0.join("0/pid")).expect("pid")
    }
}

impl Drop for Damon {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("0/state"), "off");
        let _ = fs::write(self.0.join("nr_kdamonds"), "0");
    }
}

#[test]
fn damon_in_the_hands_of_another_stays_there() {
    let Some(_host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        let function = Function::start(c, 0.3, false, false);
        let Some(damon) = Damon::watch(c.pid()) else {
            function.end(c);
            return;
        };
        let thread = damon.thread();
        held(c, 0.3);
        assert!(damon.is_on());
        assert_eq!(damon.thread(), thread);
        function.end(c);
    });
}

/// Blocks of a node's memory, which can be taken away one by one, and how each comes back.
struct Offline(Vec<(PathBuf, &'static str)>);

impl Offline {
    fn new(node: u32) -> Self {
        // Those in which the kernel has something of its own stay.
        let gone = blocks(node).into_iter().filter_map(|block| {
            let back = match is_movable(&block) {
                // Into the zone in which it was: nobody else remembers it when the node has lost all of them.
                true => "online_movable",
                false => "online",
            };
            let state = block.join("state");
            fs::write(&state, "offline")
                .is_ok()
                .then_some((state, back))
        });
        Self(gone.collect())
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        for (state, back) in &self.0 {
            let _ = fs::write(state, back);
        }
    }
}

/// The blocks of a node's memory.
fn blocks(node: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("{NODES}/node{node}")).expect("node");
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| path.join("state").exists()).collect()
}

/// Whether the kernel keeps nothing of its own in a block that is online.
fn is_movable(block: &Path) -> bool {
    fs::read_to_string(block.join("valid_zones")).is_ok_and(|zones| zones.trim() == "Movable")
}

#[test]
fn memory_that_goes_offline_is_left_and_used_again() {
    let Some(_host) = Host::new() else { return };
    ours_beyond_runc(|c| {
        let function = Function::start(c, 0.3, false, false);
        held(c, 0.3);
        let nodes = far_nodes();
        let far = *nodes.last().expect("a node");
        let offline = Offline::new(far);
        assert!(
            !offline.0.is_empty(),
            "nothing of node {far} can be taken away"
        );
        // All of it where the kernel has nothing of its own there.
        match nodes.len() == 1 && !has_memory(far) {
            true => not_held_for(c, "is offline"),
            false => held(c, 0.3),
        }
        drop(offline);
        held(c, 0.3);
        function.end(c);
    });
}

#[test]
fn a_node_that_goes_offline_as_a_whole_is_done_without() {
    let Some(host) = Host::new() else { return };
    let nodes = far_nodes();
    let [far] = *nodes else {
        skip("there are several remote nodes, or none");
        return;
    };
    if !blocks(far).iter().all(|block| is_movable(block)) {
        skip("the kernel has memory of its own on the remote node");
        return;
    }
    ours_beyond_runc(|a| {
        ours_beyond_runc(|b| {
            ours_beyond_runc(|c| {
                let moved = Function::start(a, 0.3, false, false);
                let given = Function::start(b, 0.6, true, false);
                held(a, 0.3);
                held(b, 0.6);
                assert_eq!(placement(b)["placement"]["means"], "allocation");
                let offline = Offline::new(far);
                assert!(!has_memory(far), "node {far} still has memory");
                for case in [&*a, b] {
                    not_held_for(case, "is offline");
                    assert!(is_near(case, 1.0, 1.0), "{}", placement(case));
                    assert_eq!(case.status(), "running");
                }
                // Who comes now runs all the same, and is told why once.
                configure(c, 0.3, true);
                c.script("x=$(head -c 4194304 /dev/zero | tr '\\0' x); echo ${#x}; sleep 1000");
                let created = c.create();
                let said = format!("no remote memory (node {far} has none online)");
                assert_eq!(created.stderr.matches(&said).count(), 1, "{created}");
                c.ok("start ID");
                wait_until("it has its memory", || {
                    created.stdout_now().contains("4194304")
                });
                assert!(is_near(c, 1.0, 0.0), "{}", placement(c));
                c.ok("delete --force ID");
                drop(offline);
                held(a, 0.3);
                held(b, 0.6);
                moved.end(a);
                a.ok("delete --force ID");
                // The other one has the weights, of which the kernel may show those of nodes that are online.
                let offline = Offline::new(far);
                given.end(b);
                b.ok("delete --force ID");
                drop(offline);
                // Whoever comes next gives them back.
                ours_beyond_runc(|d| {
                    d.up();
                    host.has_its_weights();
                });
            });
        });
    });
}
