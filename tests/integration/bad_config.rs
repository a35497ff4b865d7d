//! Bundles that must be refused: with runc's exit code, with a message that
//! names the cause, and with nothing left behind.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};

use crate::harness::{Case, differential, ours, strip};

/// Runs every row and reports all rows that failed, not only the first.
fn each_row<T>(rows: &[T], name: impl Fn(&T) -> String, test: impl Fn(&T)) {
    let failed: Vec<_> = rows
        .iter()
        .filter(|row| catch_unwind(AssertUnwindSafe(|| test(row))).is_err())
        .map(name)
        .collect();
    assert!(failed.is_empty(), "rows that failed: {failed:#?}");
}

fn refused(c: &mut Case, needles: &[&str]) {
    c.fails("create --bundle BUNDLE ID", needles);
    let left = c.settle();
    assert!(left.is_empty(), "{left:?}");
    c.fails("run --bundle BUNDLE ID", needles);
    let left = c.settle();
    assert!(left.is_empty(), "{left:?}");
}

/// Bundle texts that are no configuration, and what the message must name.
const TEXTS: &[(&str, Option<&str>, &str)] = &[
    ("missing", None, "config.json"),
    ("empty", Some(""), "EOF"),
    (
        "truncated",
        Some("{\"ociVersion\": \"1.0.2\", \"process\": {"),
        "EOF",
    ),
    ("an array", Some("[]"), "array"),
    ("not JSON", Some("ociVersion: 1.0.2"), "invalid"),
    ("an empty object", Some("{}"), "process"),
];

#[test]
fn texts_that_are_no_configuration_are_refused() {
    each_row(
        TEXTS,
        |row| row.0.to_owned(),
        |(_, text, needle)| {
            // The wording of a syntax error is the parser's.
            let exact = ["config.json", "process"].contains(needle);
            let needles: Vec<&str> = exact.then_some(*needle).into_iter().collect();
            differential(|c| {
                if let Some(text) = text {
                    fs::write(c.bundle.config(), text).expect("write");
                }
                refused(c, &needles);
            });
        },
    );
}

/// runc crashes here (exit code 2 and a stack trace); ours refuses.
#[test]
fn a_null_document_is_refused() {
    ours(|c| {
        fs::write(c.bundle.config(), "null").expect("write");
        let outcome = c.call("create --bundle BUNDLE ID");
        assert_ne!(outcome.code, 0, "{outcome}");
        assert!(!outcome.stderr.is_empty(), "{outcome}");
    });
}

/// A value of the wrong type: where, the value, and the name to be told.
fn wrong_types() -> Vec<(&'static str, Value)> {
    vec![
        ("/process/args", json!("true")),
        ("/process/args", json!([1])),
        ("/process/env", json!([1])),
        ("/process/terminal", json!("no")),
        ("/process/user/uid", json!("root")),
        ("/process/user/uid", json!(-1)),
        ("/process/user/gid", json!(1.5)),
        ("/hostname", json!(5)),
        ("/mounts", json!({})),
        ("/root/readonly", json!("yes")),
        ("/linux/cgroupsPath", json!(5)),
        ("/linux/maskedPaths", json!("/proc")),
        ("/linux/sysctl", json!({"net.ipv4.ip_forward": 1})),
        ("/linux/resources", json!({"memory": {"limit": "1g"}})),
        ("/linux/resources", json!({"cpu": {"cpus": 1}})),
        ("/linux/resources", json!({"pids": {"limit": 1e30}})),
        ("/hooks", json!({"prestart": "x"})),
    ]
}

fn set(c: &mut Case, pointer: &str, value: &Value) {
    let (parent, key) = pointer.rsplit_once('/').expect("pointer");
    c.spec().pointer_mut(parent).expect("parent")[key] = value.clone();
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    each_row(
        &wrong_types(),
        |(pointer, value)| format!("{pointer} = {value}"),
        |(pointer, value)| {
            differential(|c| {
                set(c, pointer, value);
                c.bundle.write();
                c.fails("create --bundle BUNDLE ID", &[]);
                let left = c.settle();
                assert!(left.is_empty(), "{left:?}");
            });
        },
    );
}

/// An engine's user sees only this text: it must lead to the field.
#[test]
fn the_message_names_the_field_of_the_wrong_type() {
    each_row(
        &wrong_types(),
        |(pointer, value)| format!("{pointer} = {value}"),
        |(pointer, value)| {
            ours(|c| {
                set(c, pointer, value);
                c.bundle.write();
                // The innermost object's field: `limit` of `resources`.
                let mut name = pointer.rsplit('/').next().unwrap_or_default().to_owned();
                if name == "resources" || name == "hooks" {
                    let (key, below) = value
                        .as_object()
                        .and_then(|o| o.iter().next())
                        .expect("row");
                    name = below
                        .as_object()
                        .and_then(|o| o.keys().next())
                        .unwrap_or(key)
                        .clone();
                }
                c.fails("create --bundle BUNDLE ID", &[&name]);
            });
        },
    );
}

#[test]
fn what_is_needed_is_missed() {
    each_row(
        &[
            ("", "process", "process"),
            ("", "root", "root"),
            ("/process", "args", "args"),
            ("/process", "cwd", "wd"),
        ],
        |row| format!("{row:?}"),
        |(parent, key, needle)| {
            differential(|c| {
                strip(c.spec(), parent, key);
                c.bundle.write();
                refused(c, &[needle]);
            });
        },
    );
}

/// Edits runc refuses, and what its message names.
fn refusals() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    vec![
        ("no program", "/process/args", json!([]), "args"),
        (
            "an empty program",
            "/process/args",
            json!([""]),
            "executable file not found in $PATH",
        ),
        (
            "a program that is missing",
            "/process/args",
            json!(["/no/such"]),
            "/no/such",
        ),
        (
            "a NUL in an argument",
            "/process/args",
            json!(["tr\u{0}ue"]),
            "",
        ),
        (
            "a NUL in a variable",
            "/process/env",
            json!(["A=\u{0}"]),
            "",
        ),
        (
            "a root that is missing",
            "/root/path",
            json!("no-such-root"),
            "no-such-root",
        ),
        (
            "a root that is a file",
            "/root/path",
            json!("config.json"),
            "not a directory",
        ),
        (
            "an unknown rlimit",
            "/process/rlimits",
            json!([{"type": "RLIMIT_X", "hard": 1, "soft": 1}]),
            "RLIMIT_X",
        ),
        (
            "an unknown namespace",
            "/linux/namespaces",
            json!([{"type": "galaxy"}, {"type": "mount"}]),
            "galaxy",
        ),
        (
            "an unknown seccomp action",
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_X"}),
            "SCMP_ACT_X",
        ),
        (
            "an unknown architecture",
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X"]}),
            "SCMP_ARCH_X",
        ),
        (
            "an unknown propagation",
            "/linux/rootfsPropagation",
            json!("sideways"),
            "sideways",
        ),
        (
            "an unknown device rule type",
            "/linux/resources/devices",
            json!([{"allow": true, "type": "x", "access": "rwm"}]),
            "device",
        ),
        (
            "an out-of-range OOM score",
            "/process/oomScoreAdj",
            json!(5000),
            "oom_score_adj",
        ),
        (
            "a missing AppArmor profile",
            "/process/apparmorProfile",
            json!("no-such"),
            "apparmor",
        ),
        (
            "an SELinux label without SELinux",
            "/process/selinuxLabel",
            json!("a:b:c:d"),
            "selinux",
        ),
    ]
}

#[test]
fn values_without_a_meaning_are_refused() {
    each_row(
        &refusals(),
        |row| row.0.to_owned(),
        |(_, pointer, value, needle)| {
            differential(|c| {
                set(c, pointer, value);
                c.bundle.write();
                refused(c, &[needle]);
            });
        },
    );
}

#[test]
fn mounts_that_cannot_be_made_are_refused() {
    each_row(
        &[
            (
                json!({"destination": "/mnt", "type": "nofs", "source": "x"}),
                "/mnt",
            ),
            (
                json!({"destination": "/mnt", "type": "bind", "source": "/no/such/source",
                    "options": ["bind"]}),
                "/no/such/source",
            ),
            (
                json!({"destination": "/mnt", "type": "tmpfs", "source": "x",
                    "options": ["bogus=1"]}),
                "/mnt",
            ),
            (
                json!({"destination": "/etc/passwd/x", "type": "tmpfs", "source": "x"}),
                "/etc/passwd",
            ),
        ],
        |row| format!("{row:?}"),
        |(mount, needle)| {
            differential(|c| {
                c.push("/mounts", [mount.clone()]);
                c.bundle.write();
                refused(c, &[needle]);
            });
        },
    );
}

/// Oddities runc lives with: engines have sent them for years.
fn tolerated() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("an empty version", "/ociVersion", json!("")),
        ("an unknown field", "/frobnicate", json!({"x": 1})),
        (
            "an unknown field of linux",
            "/linux/frobnicate",
            json!(true),
        ),
        (
            "an unknown system call",
            "/linux/seccomp",
            json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]}),
        ),
        ("null hooks", "/hooks", json!(null)),
        ("null devices", "/linux/devices", json!(null)),
        ("null mounts options", "/mounts/0/options", json!(null)),
        ("null annotations", "/annotations", json!(null)),
        ("null capabilities", "/process/capabilities", json!(null)),
        ("null rlimits", "/process/rlimits", json!(null)),
        ("null seccomp", "/linux/seccomp", json!(null)),
        ("null resources", "/linux/resources", json!(null)),
        ("null memory", "/linux/resources/memory", json!(null)),
        (
            "an absolute masked path that is missing",
            "/linux/maskedPaths",
            json!(["/no/such"]),
        ),
        (
            "an umask with more bits",
            "/process/user/umask",
            json!(0o7022),
        ),
        ("a solaris section", "/solaris", json!({"milestone": "x"})),
    ]
}

#[test]
fn oddities_runc_lives_with_are_accepted() {
    each_row(
        &tolerated(),
        |row| row.0.to_owned(),
        |(_, pointer, value)| {
            differential(|c| {
                set(c, pointer, value);
                assert_eq!(c.probe("echo runs"), "runs\n");
            });
        },
    );
}

#[test]
fn an_absent_version_is_accepted() {
    differential(|c| {
        strip(c.spec(), "", "ociVersion");
        assert_eq!(c.probe("echo runs"), "runs\n");
    });
}

/// runc does not look at it. Ours may warn, so only code and output count.
#[test]
fn a_version_of_another_major_is_no_reason_to_fail() {
    for version in ["2.0.0", "0.9.0", "garbage"] {
        differential(|c| {
            c.spec()["ociVersion"] = json!(version);
            c.script("echo runs");
            c.bundle.write();
            let outcome = c.code_of("run --bundle BUNDLE ID");
            assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "runs\n"));
        });
    }
}

#[test]
fn an_absent_linux_section_is_refused() {
    differential(|c| {
        strip(c.spec(), "", "linux");
        c.bundle.write();
        refused(c, &[]);
    });
}

#[test]
fn a_bundle_that_is_missing_is_named() {
    differential(|c| {
        c.fails("create --bundle /no/such/bundle ID", &["/no/such/bundle"]);
        c.fails("run --bundle /no/such/bundle ID", &["/no/such/bundle"]);
    });
}
