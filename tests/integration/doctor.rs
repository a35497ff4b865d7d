//! The command `doctor`: what it finds on a real host that was broken for it.

use std::fs;
use std::path::{Path, PathBuf};

use elastic_mem::control::{Folder, Record};
use elastic_mem::model::Bytes;
use serde_json::Value;

use crate::harness::group::{Group, MIB};
use crate::harness::{Cmd, Outcome, host, skip};

/// A configuration of its own, so that what others have on this host does not count.
struct Bench {
    folder: tempfile::TempDir,
}

/// `None` under another command than ours.
fn bench(config: &str) -> Option<Bench> {
    if host::name_of(&host::our_program()) == "runc" {
        skip("runc has no doctor");
        return None;
    }
    let folder = tempfile::tempdir().expect("folder");
    let store = format!("profile.folder = {:?}\n", folder.path().join("store"));
    fs::write(folder.path().join("config.toml"), store + config).expect("config");
    Some(Bench { folder })
}

impl Bench {
    fn run(&self, args: &[&str]) -> Outcome {
        Cmd::new(host::our_program())
            .arg("--config")
            .arg(self.folder.path().join("config.toml"))
            .arg("doctor")
            .args(args)
            .output()
    }

    fn findings(&self) -> Vec<Value> {
        let outcome = self.run(&["--json"]);
        let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        let code = match report["status"].as_str().expect("status") {
            "ok" | "note" => 0,
            "warning" => 1,
            "error" => 2,
            other => panic!("{other}"),
        };
        assert_eq!(outcome.code, code, "{outcome}");
        report["findings"].as_array().expect("findings").clone()
    }

    /// Findings of an id whose words include a text.
    fn find(&self, id: &str, text: &str) -> Vec<Value> {
        let mut found = self.findings();
        found.retain(|finding| {
            let words = format!("{} {}", finding["seen"], finding["fix"]);
            finding["id"] == id && words.contains(text)
        });
        found
    }

    fn only(&self, id: &str, text: &str, status: &str) -> Value {
        let mut found = self.find(id, text);
        assert_eq!(found.len(), 1, "{id} {text}: {:#?}", self.findings());
        assert_eq!(found[0]["status"], status, "{found:#?}");
        found.remove(0)
    }
}

#[test]
fn the_host_is_looked_at_and_nothing_is_left() {
    let Some(bench) = bench("") else { return };
    let findings = bench.findings();
    for id in [
        "process.root",
        "kernel.release",
        "cgroup.layout",
        "cgroup.controllers",
        "cgroup.limit",
        "cgroup.swap",
        "cgroup.reclaim",
        "kernel.pressure",
        "process.capabilities",
        "process.priority",
        "host.clock",
        "containerd.process",
        "config.files",
        "config.mode",
        "state.folder",
        "state.records",
        "profiles.store",
    ] {
        assert!(
            findings.iter().any(|finding| finding["id"] == id),
            "no {id}"
        );
    }
    let out = bench.run(&[]);
    assert_eq!(out.stderr, "", "{out}");
    for id in ["kernel.release: ", "looked at: "] {
        assert!(out.stdout.contains(id), "{out}");
    }
    if !nix::unistd::geteuid().is_root() {
        return skip("only root sees whether limits can be written");
    }
    assert_eq!(bench.only("cgroup.limit", "", "ok")["fix"], Value::Null);
    let left = Cmd::new("find")
        .args(["/sys/fs/cgroup", "-name", "elastic-mem-doctor-*"])
        .output();
    assert_eq!(left.stdout, "");
}

#[test]
fn a_configuration_with_mistakes_is_found_once() {
    let Some(bench) = bench("memory.mod = \"elastic\"\nmemory.pad = 7\n") else {
        return;
    };
    let found = bench.only("config.files", "memory.mod", "error");
    let seen = found["seen"].as_str().expect("text");
    assert!(seen.ends_with("and 1 other mistake"), "{seen}");
    let out = bench.run(&[]);
    assert_eq!(out.code, 2, "{out}");
    assert_eq!(out.stderr, "", "it is a finding, and no warning besides");
}

#[test]
fn what_the_configuration_says_of_the_mode_is_told() {
    let Some(bench) = bench("memory.mode = \"off\"\n") else {
        return;
    };
    bench.only("config.mode", "elastic", "note");
    fs::write(
        bench.folder.path().join("config.toml"),
        "memory.mode = \"elastic\"\n[functions.a]\nmode = \"off\"\n",
    )
    .expect("config");
    bench.only("config.mode", "tables of functions say otherwise", "ok");
}

#[test]
fn a_profile_that_cannot_be_used_is_found() {
    let Some(bench) = bench("") else { return };
    if !nix::unistd::geteuid().is_root() {
        return skip("profiles are for root alone");
    }
    bench.only("profiles.store", "0 functions", "ok");
    let trace = bench.folder.path().join("r.csv");
    fs::write(
        &trace,
        "# elastic-mem trace 1\n# context {\"run\":\"r\",\"function\":\"default/f\"}\n\
         t_us,usage,anon,file,shmem,kernel,limit,high,cpu_us,refault,psi_some_us,ev_high,ev_oom,phase\n\
         0,1000,1000,0,0,0,,,0,,,,,\n1000,2000,2000,0,0,0,,,10,,,,,\n# end {\"code\":0,\"oomKills\":0}\n",
    )
    .expect("trace");
    let imported = Cmd::new(host::our_program())
        .arg("--config")
        .arg(bench.folder.path().join("config.toml"))
        .args(["profile", "import"])
        .arg(&trace)
        .output();
    assert_eq!(imported.code, 0, "{imported}");
    bench.only("profiles.store", "1 function", "ok");
    let file = profile(&bench.folder.path().join("store"));
    fs::write(&file, "{").expect("break");
    bench.only("profiles.store", "profile.json", "warning");
    fs::remove_dir_all(bench.folder.path().join("store")).expect("remove");
    fs::write(bench.folder.path().join("store"), "").expect("a file in its place");
    bench.only("profiles.store", "", "error");
}

fn profile(store: &Path) -> PathBuf {
    let functions = fs::read_dir(store.join("functions")).expect("functions");
    let function = functions.flatten().next().expect("one function").path();
    function.join("profile.json")
}

/// A record below the real state folder, gone with its namespace.
struct Left(Folder, String);

impl Left {
    fn new(name: &str, record: Record) -> Self {
        let namespace = format!("emd-{}-{name}", std::process::id());
        let folder = Folder::of(&namespace, "a");
        folder.write(record).expect("record");
        Self(folder, namespace)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("state.json")
    }

    /// Has it written by a process that is gone.
    fn kill_owner(&self) {
        let text = fs::read_to_string(self.file()).expect("record");
        let dead = text.replace("\"startTime\":", "\"startTime\":1");
        assert_ne!(text, dead);
        fs::write(self.file(), dead).expect("record");
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.path().parent().expect("namespace"));
    }
}

#[test]
fn what_the_dead_have_left_is_found() {
    let Some(bench) = bench("") else { return };
    if !nix::unistd::geteuid().is_root() {
        return skip("records are for root alone");
    }
    let record = || {
        let ceiling = Some(Bytes::new(64 * MIB));
        Record::new(Path::new("/b"), Path::new("/r"), ceiling).expect("record")
    };
    // The container is gone as well.
    let gone = Left::new("gone", record());
    gone.kill_owner();
    bench.only("state.records", &gone.1, "note");
    drop(gone);
    // It stands, and has its ceiling.
    let group = Group::new();
    let alone = Left::new("alone", {
        let mut record = record();
        record.stands(1, &group.cgroup);
        record
    });
    // This process lives, and has no guardian; nothing is owed.
    assert_eq!(bench.find("state.records", &alone.1).len(), 0);
    alone.kill_owner();
    bench.only("state.records", &alone.1, "warning");
    drop(alone);
    // It stands below its ceiling.
    let lowered = Left::new("lowered", {
        let mut record = record();
        record.stands(1, &group.cgroup);
        record
    });
    let (grant, ceiling) = (Bytes::new(32 * MIB), Bytes::new(64 * MIB));
    lowered
        .0
        .publish(Some(grant), Some(ceiling))
        .expect("publish");
    bench.only("state.guardians", &lowered.1, "warning");
    lowered.kill_owner();
    bench.only("state.records", &lowered.1, "error");
    drop(lowered);
    let broken = Left::new("broken", record());
    fs::write(broken.file(), "{").expect("break");
    bench.only("state.records", &broken.1, "warning");
}
