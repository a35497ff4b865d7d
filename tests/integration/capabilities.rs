//! The five capability sets of the process.

use serde_json::{Value, json};

use crate::harness::{Case, differential, strip};

const STATUS: &str = "grep -e ^Cap -e ^NoNew -e ^Uid -e ^Gid -e ^Groups /proc/self/status";

const SETS: [&str; 5] = [
    "bounding",
    "effective",
    "permitted",
    "inheritable",
    "ambient",
];

/// Every capability up to CAP_PERFMON/BPF/CHECKPOINT_RESTORE that an
/// unprivileged-by-limits root still has (no SYS_RESOURCE).
const MANY: [&str; 20] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_ADMIN",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
    "CAP_SYSLOG",
    "CAP_BPF",
];

fn set_all(c: &mut Case, sets: &[&str], caps: &[&str]) {
    c.spec()["process"]["capabilities"] = json!({});
    for set in sets {
        c.spec()["process"]["capabilities"][set] = json!(caps);
    }
}

fn line(seen: &str, name: &str) -> u64 {
    let text = seen
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:\t")))
        .unwrap_or_else(|| panic!("no {name} in {seen}"));
    u64::from_str_radix(text, 16).expect("hexadecimal")
}

#[test]
fn the_default_sets_are_runcs() {
    differential(|c| {
        let seen = c.probe(STATUS);
        assert_eq!(line(&seen, "CapBnd"), 0x2000_0420);
    });
}

#[test]
fn empty_sets_leave_nothing() {
    differential(|c| {
        set_all(c, &SETS, &[]);
        let seen = c.probe(STATUS);
        assert_eq!(line(&seen, "CapEff") | line(&seen, "CapBnd"), 0);
    });
}

#[test]
fn absent_capabilities_are_runcs() {
    differential(|c| {
        strip(c.spec(), "/process", "capabilities");
        c.probe(STATUS);
    });
}

#[test]
fn many_capabilities_are_all_there() {
    differential(|c| {
        set_all(c, &SETS, &MANY);
        let seen = c.probe(STATUS);
        assert_eq!(line(&seen, "CapEff").count_ones() as usize, MANY.len());
        assert_eq!(line(&seen, "CapAmb").count_ones() as usize, MANY.len());
    });
}

#[test]
fn sets_may_differ() {
    differential(|c| {
        c.spec()["process"]["capabilities"] = json!({
            "bounding": MANY, "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
            "effective": ["CAP_KILL"], "inheritable": ["CAP_CHOWN", "CAP_KILL"],
            "ambient": ["CAP_CHOWN"]
        });
        c.probe(STATUS);
    });
}

#[test]
fn a_user_has_the_ambient_capabilities() {
    differential(|c| {
        set_all(c, &SETS, &["CAP_CHOWN", "CAP_NET_RAW"]);
        c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        let seen = c.probe(STATUS);
        assert_eq!(line(&seen, "CapEff"), 0x2001);
    });
}

#[test]
fn a_user_without_ambient_capabilities_has_none() {
    differential(|c| {
        set_all(c, &SETS[..4], &["CAP_CHOWN", "CAP_NET_RAW"]);
        c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        let seen = c.probe(STATUS);
        assert_eq!(line(&seen, "CapEff"), 0);
    });
}

#[test]
fn ambient_without_inheritable_is_runcs() {
    differential(|c| {
        set_all(
            c,
            &["bounding", "effective", "permitted", "ambient"],
            &["CAP_CHOWN"],
        );
        c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        c.probe(STATUS);
    });
}

#[test]
fn a_dropped_capability_cannot_be_used() {
    differential(|c| {
        c.spec()["root"]["readonly"] = json!(false);
        set_all(c, &SETS, &["CAP_KILL"]);
        let seen = c.probe("touch /tmp/x; chown 1000 /tmp/x || echo refused");
        assert!(seen.contains("refused"), "{seen}");
    });
}

#[test]
fn an_unknown_capability_is_runcs() {
    differential(|c| {
        let unknown: Value = json!(["CAP_KILL", "CAP_DOES_NOT_EXIST"]);
        c.spec()["process"]["capabilities"]["bounding"] = unknown;
        c.script(STATUS);
        c.bundle.write();
        let outcome = c.call("run --bundle BUNDLE ID");
        // runc warns and goes on.
        c.note("run", &format!("{}\n{}", outcome.code, outcome.stdout));
        assert!(outcome.stderr.contains("CAP_DOES_NOT_EXIST"), "{outcome}");
    });
}

#[test]
fn no_new_privileges_is_what_the_bundle_says() {
    for value in [Some(true), Some(false), None] {
        differential(move |c| {
            match value {
                Some(value) => c.spec()["process"]["noNewPrivileges"] = json!(value),
                None => strip(c.spec(), "/process", "noNewPrivileges"),
            }
            let seen = c.probe(STATUS);
            let bit = u64::from(value == Some(true));
            assert_eq!(line(&seen, "NoNewPrivs"), bit);
        });
    }
}
