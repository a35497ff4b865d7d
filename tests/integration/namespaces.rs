//! Namespaces: made, joined, inherited.

use std::fs;

use serde_json::json;

use crate::harness::{Case, differential, ours_beyond_runc, strip};

/// The kinds runc 1.1 knows, as `/proc/PID/ns` and the specification name them.
const KINDS: [(&str, &str); 7] = [
    ("cgroup", "cgroup"),
    ("ipc", "ipc"),
    ("mnt", "mount"),
    ("net", "network"),
    ("pid", "pid"),
    ("user", "user"),
    ("uts", "uts"),
];

/// For every kind, whether the container shares the namespace of the host.
fn shared_with_host(case: &mut Case) -> Vec<(&'static str, bool)> {
    let seen = case.probe(
        "cd /proc/self/ns; for n in *; do readlink $n; done >/dev/null; \
        for n in cgroup ipc mnt net pid user uts; do readlink $n; done",
    );
    // The numbers are the kernel's; only equality is a property.
    case.transcript.pop();
    let result: Vec<_> = KINDS
        .iter()
        .zip(seen.lines())
        .map(|((kind, _), inside)| {
            let host = fs::read_link(format!("/proc/self/ns/{kind}")).expect("host namespace");
            (*kind, host.as_os_str() == inside)
        })
        .collect();
    assert_eq!(result.len(), KINDS.len(), "{seen}");
    case.note("shared with the host", &format!("{result:?}"));
    result
}

fn set_namespaces(case: &mut Case, kinds: &[&str]) {
    case.spec()["linux"]["namespaces"] = kinds.iter().map(|kind| json!({"type": kind})).collect();
}

#[test]
fn default_namespaces_are_new_and_the_rest_is_the_hosts() {
    differential(|c| {
        let shared = shared_with_host(c);
        let names: Vec<_> = shared.iter().filter(|(_, s)| *s).map(|(k, _)| *k).collect();
        assert_eq!(names, ["cgroup", "user"]);
    });
}

#[test]
fn absent_network_and_ipc_and_uts_are_the_hosts() {
    differential(|c| {
        set_namespaces(c, &["mount", "pid"]);
        strip(c.spec(), "", "hostname");
        let shared = shared_with_host(c);
        assert_eq!(shared.iter().filter(|(_, s)| *s).count(), 5);
    });
}

#[test]
fn absent_pid_namespace_is_the_hosts() {
    differential(|c| {
        set_namespaces(c, &["mount", "network", "ipc", "uts"]);
        let shared = shared_with_host(c);
        assert!(shared.contains(&("pid", true)));
    });
}

#[test]
fn a_new_cgroup_namespace_is_not_the_hosts() {
    differential(|c| {
        set_namespaces(c, &["mount", "pid", "network", "ipc", "uts", "cgroup"]);
        let shared = shared_with_host(c);
        assert!(shared.contains(&("cgroup", false)));
    });
}

#[test]
fn the_process_is_pid_one_of_a_new_pid_namespace() {
    differential(|c| {
        assert_eq!(
            c.probe("echo $$; [ -d /proc/1000 ] || echo few"),
            "1\nfew\n"
        );
    });
}

#[test]
fn a_new_network_has_only_a_loopback_that_is_up() {
    differential(|c| {
        let seen = c.probe("ls /sys/class/net; ip addr | grep -v valid_lft");
        assert!(seen.contains("LOOPBACK"), "{seen}");
    });
}

/// Joins the namespaces of a first container by their paths.
#[test]
fn namespaces_are_joined_by_path() {
    differential(|c| {
        let mut holder = Case::new(c.program().to_owned());
        holder.up();
        let pid = holder.pid();
        let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
        c.spec()["linux"]["namespaces"] = json!([
            {"type": "mount"},
            {"type": "pid", "path": path("pid")},
            {"type": "network", "path": path("net")},
            {"type": "ipc", "path": path("ipc")},
            {"type": "uts", "path": path("uts")},
        ]);
        strip(c.spec(), "", "hostname");
        let seen = c.probe("cd /proc/self/ns; for n in net ipc uts pid; do readlink $n; done");
        c.transcript.pop();
        let joined: Vec<_> = ["net", "ipc", "uts", "pid"]
            .iter()
            .zip(seen.lines())
            .map(|(kind, inside)| fs::read_link(path(kind)).expect("link").as_os_str() == inside)
            .collect();
        assert_eq!(joined, [true; 4], "{seen}");
    });
}

#[test]
fn a_missing_namespace_path_is_refused() {
    differential(|c| {
        c.spec()["linux"]["namespaces"][1] =
            json!({"type": "network", "path": "/proc/self/ns/no-such-namespace"});
        c.run_fails(&["no-such-namespace"]);
    });
}

#[test]
fn a_namespace_twice_is_refused() {
    differential(|c| {
        c.push("/linux/namespaces", [json!({"type": "network"})]);
        c.run_fails(&["network"]);
    });
}

#[test]
fn a_hostname_without_a_uts_namespace_is_refused() {
    differential(|c| {
        set_namespaces(c, &["mount", "pid"]);
        c.run_fails(&["hostname"]);
    });
}

#[test]
fn the_hostname_is_the_one_of_the_bundle() {
    differential(|c| {
        c.spec()["hostname"] = json!("zebra");
        let seen = c.probe("hostname; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname");
        assert!(seen.starts_with("zebra\nzebra\n"), "{seen}");
    });
}

/// runc 1.1 predates `domainname`; it is ours alone.
#[test]
fn the_domainname_is_the_one_of_the_bundle() {
    ours_beyond_runc(|c| {
        c.spec()["domainname"] = json!("savanna.example");
        let seen = c.probe("cat /proc/sys/kernel/domainname");
        assert_eq!(seen, "savanna.example\n");
    });
}

/// All hierarchies, named ones and v2 included, put the process in the group.
#[test]
fn every_hierarchy_has_the_process_in_its_group() {
    differential(|c| {
        let seen = c.probe("cat /proc/self/cgroup");
        let cgroup = c.cgroup().to_owned();
        assert!(seen.lines().all(|line| line.ends_with(&cgroup)), "{seen}");
    });
}

#[test]
fn a_cgroup_namespace_shows_the_group_as_its_root() {
    differential(|c| {
        c.push("/linux/namespaces", [json!({"type": "cgroup"})]);
        let seen =
            c.probe("cat /proc/self/cgroup; grep cgroup /proc/self/mountinfo | cut -d' ' -f4,5");
        assert!(seen.contains("cpu:/\n"), "{seen}");
    });
}
