//! What `elastic-mem doctor` finds of containerds that run.

use std::fs;

use serde_json::Value;

use crate::harness::{Case, Cmd, Route, host, skip};

ours_on_every_containerd! {
    what_is_wrong_with_a_containerd_is_found,
}

/// What is said of the containerd of a scenario: its process is named if there are several.
fn findings(c: &Case) -> Vec<Value> {
    let out = Cmd::new(host::our_program())
        .arg("--config")
        .arg(c.daemon.settings())
        .args(["doctor", "--json"])
        .output();
    let report: Value = serde_json::from_str(&out.stdout).expect("JSON");
    let all = report["findings"].as_array().expect("findings");
    let own = format!("process {}", c.daemon.pid());
    let of_it = |finding: &&Value| {
        finding["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("containerd."))
            && finding["about"].as_str().is_none_or(|about| about == own)
    };
    all.iter().filter(of_it).cloned().collect()
}

fn find(c: &Case, id: &str) -> Value {
    let found = findings(c);
    let one = found.iter().find(|finding| finding["id"] == id);
    one.unwrap_or_else(|| panic!("no {id}: {found:#?}")).clone()
}

fn check(c: &Case, id: &str, status: &str, word: &str) {
    let found = find(c, id);
    assert_eq!(found["status"], status, "{found:#}");
    assert!(found.to_string().contains(word), "{word}: {found:#}");
}

fn what_is_wrong_with_a_containerd_is_found(c: &mut Case) {
    assert_eq!(c.route, Route::Shim);
    c.private_daemon();
    let version = c.daemon.engine.trim_start_matches("containerd-").to_owned();
    check(c, "containerd.process", "ok", &version);
    check(
        c,
        "containerd.shim",
        "ok",
        "bin/containerd-shim-elastic-mem-v1",
    );
    check(
        c,
        "containerd.shim-version",
        "ok",
        env!("CARGO_PKG_VERSION"),
    );
    check(c, "containerd.config", "note", "RuntimeClass");
    // Files are read anew: the daemon need not be.
    let file = c.daemon.dir().join("config.toml");
    let plain = fs::read_to_string(&file).expect("config");
    let write = |plugin: &str, keys: &str| {
        let table = format!(
            "{plain}\n[plugins.{plugin:?}.containerd.runtimes.elastic-mem]\nruntime_type = \"io.containerd.elastic-mem.v1\"\n{keys}\n"
        );
        fs::write(&file, table).expect("config");
    };
    let (old, new) = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime");
    let passes = "pod_annotations = [\"elastic-mem.io/*\"]";
    write(old, passes);
    check(c, "containerd.config", "ok", "handler elastic-mem");
    write(new, passes);
    check(c, "containerd.config", "warning", "of version 2");
    write(old, "pod_annotations = [\"*\"]");
    check(c, "containerd.config", "warning", "slash");
    write(old, "runtime_path = \"/no/such/shim\"");
    check(c, "containerd.config", "error", "/no/such/shim");
    fs::write(&file, "version = ").expect("config");
    check(c, "containerd.config", "warning", "does not start again");
    fs::write(&file, &plain).expect("config");
    // A shim that is none.
    let shim = c.daemon.dir().join("bin").join(host::SHIM);
    fs::remove_file(&shim).expect("remove");
    std::os::unix::fs::symlink("/bin/false", &shim).expect("link");
    check(
        c,
        "containerd.shim-version",
        "error",
        "does not tell its version",
    );
    fs::remove_file(&shim).expect("remove");
    if host::find(host::SHIM).is_some() {
        return skip("the shim is installed on this host");
    }
    check(c, "containerd.shim", "error", "binary not installed");
    let failed = c.run("--rm", "a", "true").output();
    assert_ne!(failed.code, 0, "{failed}");
    let words = "runtime \"io.containerd.elastic-mem.v1\" binary not installed \"containerd-shim-elastic-mem-v1\"";
    assert!(failed.stderr.contains(words), "{failed}");
}

#[test]
fn runtimes_of_docker_are_found() {
    crate::harness::dockerd::differential(
        "docker-28",
        "doctor runtimes_of_docker_are_found",
        |d| {
            let out = Cmd::new(host::our_program())
                .args(["doctor", "--json"])
                .output();
            let report: Value = serde_json::from_str(&out.stdout).expect("JSON");
            let all = report["findings"].as_array().expect("findings");
            let found = all
                .iter()
                .find(|finding| finding["id"] == "docker.runtimes");
            let found = found.expect("docker.runtimes");
            let seen = found["seen"].as_str().expect("text");
            assert!(seen.contains("elastic-mem ("), "{found:#}");
            let unknown = d.call("run --rm --runtime elastic-mem-none test.local/busybox:1 true");
            let words = "unknown or invalid runtime name: elastic-mem-none";
            assert!(unknown.stderr.contains(words), "{unknown}");
            d.note("status", found["status"].as_str().expect("status"));
        },
    );
}
