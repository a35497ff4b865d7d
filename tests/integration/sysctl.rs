//! Kernel parameters: namespaced ones are set, others refused.

use serde_json::json;

use crate::harness::{differential, strip};

#[test]
fn ipc_parameters_are_set_in_the_new_namespace() {
    differential(|c| {
        c.spec()["linux"]["sysctl"] = json!({"kernel.shm_rmid_forced": "1", "kernel.msgmax": "9000", "fs.mqueue.msg_max": "11"});
        let seen = c.probe(
            "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max",
        );
        assert_eq!(seen, "1\n9000\n11\n");
    });
}

#[test]
fn network_parameters_are_set_in_the_new_namespace() {
    differential(|c| {
        c.spec()["linux"]["sysctl"] =
            json!({"net.ipv4.ip_forward": "1", "net/ipv4/ip_default_ttl": "77"});
        let seen = c.probe("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_default_ttl");
        assert_eq!(seen, "1\n77\n");
    });
}

#[test]
fn network_parameters_of_the_host_are_refused() {
    differential(|c| {
        c.spec()["linux"]["namespaces"] =
            json!([{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}]);
        strip(c.spec(), "", "hostname");
        c.spec()["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        c.run_fails(&["net.ipv4.ip_forward"]);
    });
}

#[test]
fn ipc_parameters_of_the_host_are_refused() {
    differential(|c| {
        c.spec()["linux"]["namespaces"] =
            json!([{"type": "mount"}, {"type": "pid"}, {"type": "network"}]);
        strip(c.spec(), "", "hostname");
        c.spec()["linux"]["sysctl"] = json!({"kernel.shm_rmid_forced": "1"});
        c.run_fails(&["kernel.shm_rmid_forced"]);
    });
}

#[test]
fn parameters_that_are_not_namespaced_are_refused() {
    for key in [
        "vm.swappiness",
        "kernel.pid_max",
        "fs.file-max",
        "kernel.hostname",
    ] {
        differential(move |c| {
            c.spec()["linux"]["sysctl"] = json!({key: "1"});
            c.run_fails(&[key]);
        });
    }
}

#[test]
fn an_unknown_parameter_is_refused() {
    differential(|c| {
        c.spec()["linux"]["sysctl"] = json!({"net.no.such.parameter": "1"});
        c.run_fails(&["no"]);
    });
}
