//! Device rules of control groups v2, which are a program in the kernel: told from what opens.

use serde_json::{Value, json};

use crate::harness::{Case, differential, strip};
use crate::machine::has_cgroup2;

/// Devices of every kind of number, with the name they get in the container.
const NODES: [(&str, &str, u32, u32); 7] = [
    ("fuse", "c", 10, 229),
    ("control", "c", 10, 237),
    ("mem", "c", 1, 1),
    ("kmsg", "c", 1, 11),
    ("serial", "c", 4, 64),
    ("loop", "b", 7, 0),
    ("disk", "b", 254, 0),
];

/// For each node how reading, writing and making it end.
const PROBE: &str = "cd /dev; for n in fuse control mem kmsg serial loop disk null; do \
    r=$( (: < $n) 2>&1 && echo ok ); w=$( (: >> $n) 2>&1 && echo ok ); echo $n $r / $w; done; \
    i=0; for d in 'c 1 3' 'c 10 229' 'c 4 64' 'b 7 0' 'b 254 0' 'c 250 5'; do i=$((i+1)); \
    m=$(mknod /dev/made$i $d 2>&1 && echo ok); echo $d: $m; done";

fn prepare(c: &mut Case) {
    let nodes = NODES.map(|(name, kind, major, minor)| {
        json!({"path": format!("/dev/{name}"), "type": kind, "major": major, "minor": minor,
               "fileMode": 0o666})
    });
    c.spec()["linux"]["devices"] = json!(nodes);
    let caps = json!(["CAP_MKNOD", "CAP_SYS_RAWIO", "CAP_SYS_ADMIN", "CAP_SYSLOG"]);
    for set in ["bounding", "effective", "permitted"] {
        c.spec()["process"]["capabilities"][set] = caps.clone();
    }
    c.spec()["process"]["capabilities"]["ambient"] = json!([]);
}

fn with_rules(rules: Value) -> String {
    let seen = std::cell::RefCell::new(String::new());
    differential(|c| {
        prepare(c);
        c.spec()["linux"]["resources"]["devices"] = rules.clone();
        *seen.borrow_mut() = c.probe(PROBE);
    });
    seen.into_inner()
}

#[test]
fn nothing_is_allowed_beyond_the_defaults() {
    if !has_cgroup2() {
        return;
    }
    let seen = with_rules(json!([{"allow": false, "access": "rwm"}]));
    assert!(seen.contains("null ok / ok"), "{seen}");
    assert!(seen.contains("fuse") && !seen.contains("fuse ok"), "{seen}");
}

#[test]
fn everything_can_be_allowed() {
    if !has_cgroup2() {
        return;
    }
    let seen = with_rules(json!([{"allow": true, "access": "rwm"}]));
    assert!(seen.contains("fuse ok / ok"), "{seen}");
    assert!(seen.contains("c 250 5: ok"), "{seen}");
}

#[test]
fn rules_add_up_and_the_later_one_wins() {
    if !has_cgroup2() {
        return;
    }
    let seen = with_rules(json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": true, "type": "b", "major": 254, "access": "r"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"},
        {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "w"}
    ]));
    assert!(seen.contains("fuse ok / ok"), "{seen}");
    assert!(
        seen.contains("kmsg ok / ") && !seen.contains("kmsg ok / ok"),
        "{seen}"
    );
}

#[test]
fn a_major_number_stands_for_all_its_devices() {
    if !has_cgroup2() {
        return;
    }
    let seen = with_rules(json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "access": "r"},
        {"allow": true, "type": "b", "access": "m"}
    ]));
    assert!(seen.contains("fuse ok / "), "{seen}");
    assert!(seen.contains("b 7 0: ok"), "{seen}");
}

#[test]
fn exceptions_from_everything_hold() {
    if !has_cgroup2() {
        return;
    }
    let seen = with_rules(json!([
        {"allow": true, "access": "rwm"},
        {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rw"}
    ]));
    assert!(seen.contains("kmsg ok"), "{seen}");
}

#[test]
fn without_rules_the_defaults_apply() {
    if !has_cgroup2() {
        return;
    }
    differential(|c| {
        prepare(c);
        strip(c.spec(), "/linux/resources", "devices");
        let seen = c.probe(PROBE);
        assert!(seen.contains("null ok / ok"), "{seen}");
    });
    differential(|c| {
        prepare(c);
        strip(c.spec(), "/linux", "resources");
        c.probe(PROBE);
    });
}

/// An update of other limits must not open or close anything, nor may exec be outside of the rules.
#[test]
fn rules_hold_for_exec_and_after_an_update() {
    if !has_cgroup2() {
        return;
    }
    differential(|c| {
        prepare(c);
        c.spec()["linux"]["resources"]["devices"] = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}
        ]);
        c.up();
        let reads = "for n in fuse kmsg null; do (: < /dev/$n) 2>/dev/null && echo $n; done";
        let before = c.exec("", &format!("{reads}; true"));
        c.ok("update --pids-limit 30 ID");
        let after = c.exec("", &format!("{reads}; true"));
        assert_eq!(before, "fuse\nnull\n");
        assert_eq!(after, before);
    });
}

/// Kernels before 5.11 counted the memory of such a program against `RLIMIT_MEMLOCK`. Nobody has to be able to raise it,
/// and a container has that of the caller.
#[test]
fn rules_need_no_right_to_raise_limits_and_leave_them_alone() {
    if !has_cgroup2() {
        return;
    }
    for (limit, drop, kibibytes) in [
        ("65536", "-sys_resource", "64"),
        ("1073741824", "+all", "1048576"),
    ] {
        differential(|c| {
            prepare(c);
            c.script("ulimit -l; (: < /dev/fuse) 2>/dev/null || echo closed");
            c.bundle.write();
            let limit = format!("--memlock={limit}:{limit}");
            let limited = c
                .below("prlimit", &[&limit, "setpriv", "--bounding-set", drop])
                .args(c.words("run --bundle BUNDLE ID"));
            let outcome = limited.output();
            c.expect_code("run", &outcome, 0);
            assert_eq!(outcome.stdout, format!("{kibibytes}\nclosed\n"));
        });
    }
}
