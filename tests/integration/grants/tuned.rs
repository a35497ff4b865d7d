//! A container of a function of which some runs are known, what is granted to it, and who does that.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use elastic_mem::model::profile::BinWidth;
use elastic_mem::model::trace::{COLUMNS, Trace, VERSION_LINE};
use elastic_mem::model::{FunctionKey, RunId};
use elastic_mem::policy::learn::digest;
use elastic_mem::profile::Store;
use serde_json::{Value, json};

use crate::common::wait_until;
use crate::harness::{Case, cgroups, host, ours, skip};

pub const MIB: u64 = 1 << 20;
/// What the containers declare.
pub const CEILING: u64 = 256 * MIB;
/// What runs of the function have needed.
pub const KNOWN: u64 = 40 * MIB;

/// A container of a function of which some runs are known, in mode `elastic`.
pub fn elastic(scenario: impl FnOnce(&mut Case)) {
    if !cgroups::has("memory") || !nix::unistd::geteuid().is_root() {
        return skip("no memory controller, or no root");
    }
    if host::name_of(&host::our_program()) == "runc" {
        return skip("runc grants nothing");
    }
    ours(|c| {
        // Beside the bundle's file, which nothing else is compared with.
        let folder = store(c);
        let settings = c.bundle.path().join("settings.toml");
        let text = format!(
            "memory.mode = \"elastic\"\nprofile.folder = {:?}\nmemory.hold = \"2s\"\n",
            folder.display().to_string()
        );
        fs::write(&settings, text).expect("settings");
        c.configure(settings);
        let function = key(c);
        let digests = (0..4).map(|number| {
            let trace: Trace = run(&function, number).parse().expect("trace");
            digest(&trace, BinWidth::default()).expect("digest")
        });
        Store::new(folder, 5)
            .add(&function, digests.collect(), &[])
            .expect("profile");
        let spec = c.spec();
        spec["annotations"]["elastic-mem.io/function"] = json!("known");
        spec["linux"]["resources"]["memory"]["limit"] = json!(CEILING);
        scenario(c);
    });
}

pub fn file() -> &'static str {
    cgroups::by_version("memory.limit_in_bytes", "memory.high")
}

pub fn write_limit(c: &Case, bytes: Option<u64>) {
    let none = cgroups::by_version("268435456", "max").to_owned();
    let file = cgroups::dirs(c.cgroup())
        .into_iter()
        .map(|dir| dir.join(file()))
        .find(|file| file.exists());
    let text = bytes.map_or(none, |bytes| bytes.to_string());
    fs::write(file.expect("the file"), text).expect("write");
}

pub fn store(c: &Case) -> PathBuf {
    c.bundle.path().join("store")
}

pub fn key(c: &Case) -> FunctionKey {
    let namespace = c.root().file_name().expect("name").to_string_lossy();
    FunctionKey::new(&namespace, "known")
}

/// Ten seconds with [`KNOWN`] from the second one on.
pub fn run(function: &FunctionKey, number: u32) -> String {
    let run: RunId = format!("run-{number}").parse().expect("run");
    let mut text = format!(
        "{VERSION_LINE}\n# context {{\"run\":{:?},\"function\":{:?},\"mode\":\"observe\"}}\n{}\n",
        run.as_str(),
        function.as_str(),
        COLUMNS.join(",")
    );
    // It grows slowly: nothing is to be kept ready for what comes at once.
    let growth = (20..200).map(|step| (step * 10_000, step * MIB / 5));
    for (at, held) in growth.chain([(2_000_000, KNOWN), (10_000_000, KNOWN)]) {
        text += &format!("{at},{held},{held},0,0,0,,,{at},0,,,,\n");
    }
    text + "# end {\"code\":0,\"oomKills\":0}\n"
}

/// The grant; `None` is the ceiling.
pub fn grant(c: &Case) -> Option<u64> {
    let text = c.cgroup_file(file());
    let bytes = (text != "max").then(|| text.parse().expect("limit"));
    bytes.filter(|bytes| *bytes != CEILING)
}

pub fn has_oom_killer(c: &Case) -> bool {
    cgroups::is_unified()
        || c.cgroup_file("memory.oom_control")
            .contains("oom_kill_disable 0")
}

pub fn oom_kills(c: &Case) -> String {
    let text = c.cgroup_file(cgroups::by_version("memory.oom_control", "memory.events"));
    let mut lines = text.lines();
    let kills = lines.find_map(|line| line.strip_prefix("oom_kill "));
    kills.expect("a count").to_owned()
}

pub fn is_granted_less(c: &Case) {
    wait_until("less is granted", || {
        grant(c).is_some_and(|grant| grant < 64 * MIB)
    });
}

/// Nobody is about to change it: what is written in the very moment of a change is lost.
pub fn is_granted_steadily(c: &Case) {
    is_granted_less(c);
    let (mut last, mut since) = (grant(c), Instant::now());
    wait_until("the grant rests", || {
        let now = grant(c);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() >= Duration::from_millis(300)
    });
}

pub fn is_given_back(c: &Case) {
    wait_until("the ceiling is granted", || grant(c).is_none());
    wait_until("the OOM killer is on", || has_oom_killer(c));
    assert_eq!(c.status(), "running");
}

pub fn monitor(c: &Case) -> i32 {
    let is_monitor = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("elastic-mem-mon")
    };
    let found = c.processes().into_iter().map(|(pid, _)| pid);
    found.into_iter().find(is_monitor).expect("a monitor")
}

/// The guardian of its monitor, if there is one but `not`.
pub fn guardian(c: &Case, not: i32) -> Option<i32> {
    let found = c.processes().into_iter().map(|(pid, _)| pid);
    found.into_iter().find(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != not && name.contains("guardian")
    })
}

pub fn the_trace(c: &Case) -> Trace {
    let mut found = None;
    wait_until("a trace", || {
        let store = Store::new(store(c), 5);
        let traces = store.traces(&key(c)).unwrap_or_default();
        found = traces.into_iter().next_back().map(|(_, text)| text);
        found.is_some()
    });
    found.expect("a trace").parse().expect("trace")
}

pub fn number(c: &Case, v1: &'static str, v2: &'static str) -> u64 {
    let text = c.cgroup_file(cgroups::by_version(v1, v2));
    text.parse().expect("a number")
}

/// How often a limit was met.
pub fn met(c: &Case) -> u64 {
    if !cgroups::is_unified() {
        return number(c, "memory.failcnt", "");
    }
    let text = c.cgroup_file("memory.events.local");
    let count = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map_or(0, |count| count.trim().parse::<u64>().expect("a count"))
    };
    count("high ") + count("max ")
}

/// What is told of it, by its record.
pub fn told_ceiling(c: &Case) -> Option<u64> {
    let namespaces = fs::read_dir("/run/elastic-mem").ok()?.flatten();
    let mut files = namespaces.map(|namespace| namespace.path().join(c.id()).join("state.json"));
    let text = fs::read_to_string(files.find(|file| file.exists())?).ok()?;
    serde_json::from_str::<Value>(&text).ok()?["ceiling"].as_u64()
}

/// A client of its control socket.
pub fn client(c: &Case) -> UnixStream {
    let namespaces = fs::read_dir("/run/elastic-mem").expect("state").flatten();
    let socket = namespaces
        .map(|namespace| namespace.path().join(c.id()).join("control.sock"))
        .find(|socket| socket.exists());
    let stream = UnixStream::connect(socket.expect("a socket")).expect("connect");
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).expect("timeout");
    stream
}

pub fn ask(client: &UnixStream, line: &str) -> String {
    writeln!({ client }, "{line}").expect("say");
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer).expect("hear");
    answer
}
