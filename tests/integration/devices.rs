//! Device nodes and the rules that guard them.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use serde_json::json;

use crate::harness::text::sorted;
use crate::harness::{cgroups, differential, skip, strip};

/// Type, mode, owner and numbers; times are not a property.
const LIST: &str = "cd /dev; for f in * .*; do [ -h $f ] && echo $f $(readlink $f) || \
    stat -c '%n %F %a %u %g %t %T' $f; done";

#[test]
fn dev_has_the_default_nodes() {
    differential(|c| {
        let seen = c.probe(LIST);
        assert!(
            seen.contains("null character special file 666 0 0 1 3"),
            "{seen}"
        );
    });
}

#[test]
fn default_nodes_can_be_used() {
    differential(|c| {
        let seen = c.probe(
            "echo gone > /dev/null; head -c 2 /dev/zero | od -An -tx1; head -c 9 /dev/urandom | wc -c; \
             head -c 9 /dev/random | wc -c; echo x > /dev/full || echo full; : > /dev/ptmx && echo ptmx",
        );
        assert!(seen.contains("full"), "{seen}");
    });
}

#[test]
fn extra_nodes_are_made_with_mode_and_owner() {
    differential(|c| {
        c.spec()["linux"]["devices"] = json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640,
             "uid": 1000, "gid": 50},
            {"path": "/dev/deep/er/block", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o622},
            {"path": "/dev/plain", "type": "c", "major": 1, "minor": 3},
            {"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 3}
        ]);
        let script = format!(
            "{LIST}; stat -c '%n %F %a %u %g %t %T' /dev/deep /dev/deep/er /dev/deep/er/block"
        );
        let seen = c.probe(&script);
        assert!(
            seen.contains("fuse character special file 640 1000 50 a e5"),
            "{seen}"
        );
    });
}

#[test]
fn an_extra_node_may_be_outside_dev() {
    differential(|c| {
        c.spec()["linux"]["devices"] =
            json!([{"path": "/tmp/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}]);
        c.probe("stat -c '%F %a' /tmp/null");
        use std::os::unix::fs::MetadataExt;
        let node = c.rootfs().join("tmp/null").metadata().expect("node");
        assert!(node.file_type().is_char_device() && node.rdev() == 0x103);
    });
}

#[test]
fn an_extra_node_may_replace_a_default_one() {
    differential(|c| {
        c.spec()["linux"]["devices"] = json!([
            {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 5}
        ]);
        c.probe(LIST);
    });
}

#[test]
fn an_unknown_device_type_is_refused() {
    differential(|c| {
        c.spec()["linux"]["devices"] =
            json!([{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}]);
        c.run_fails(&[]);
    });
}

/// v2 keeps no list that one could read; tests/system opens devices there.
fn has_device_list() -> bool {
    let here = cgroups::has_v1("devices");
    if !here {
        skip("no list of device rules in cgroup v2");
    }
    here
}

#[test]
fn the_device_list_has_runcs_rules() {
    if !has_device_list() {
        return;
    }
    differential(|c| {
        c.up();
        let list = sorted(&c.cgroup_file("devices.list"));
        c.note("devices.list", &list);
        assert!(list.contains("c 1:3 rwm"), "{list}");
    });
}

#[test]
fn allowed_and_denied_devices_add_up() {
    if !has_device_list() {
        return;
    }
    differential(|c| {
        c.spec()["linux"]["resources"]["devices"] = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": true, "type": "b", "major": 7, "access": "r"},
            {"allow": true, "type": "c", "major": 4, "minor": 64, "access": "rwm"},
            {"allow": false, "type": "c", "major": 4, "minor": 64, "access": "w"}
        ]);
        c.up();
        let list = sorted(&c.cgroup_file("devices.list"));
        c.note("devices.list", &list);
        assert!(list.contains("c 10:229 rw"), "{list}");
    });
}

#[test]
fn an_allowed_device_opens_and_a_denied_one_does_not() {
    if !Path::new("/dev/fuse").exists() {
        return skip("the kernel has no fuse device");
    }
    differential(|c| {
        // A device that a user may open and that nothing allows by default.
        c.spec()["linux"]["devices"] = json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666},
            {"path": "/dev/mem", "type": "c", "major": 1, "minor": 1, "fileMode": 0o666}
        ]);
        c.push(
            "/linux/resources/devices",
            [json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"})],
        );
        let seen = c.probe(
            "(: < /dev/fuse) && echo readable; (: > /dev/fuse) || echo not writable; \
             (: < /dev/mem) || echo mem denied",
        );
        assert_eq!(seen, "readable\nnot writable\nmem denied\n");
    });
}

#[test]
fn all_devices_may_be_allowed() {
    if !has_device_list() {
        return;
    }
    differential(|c| {
        c.spec()["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
        c.up();
        let list = c.cgroup_file("devices.list");
        c.note("devices.list", &list);
        assert_eq!(list, "a *:* rwm");
    });
}

#[test]
fn without_rules_the_defaults_apply() {
    if !has_device_list() {
        return;
    }
    differential(|c| {
        strip(c.spec(), "/linux/resources", "devices");
        c.up();
        let list = sorted(&c.cgroup_file("devices.list"));
        c.note("devices.list", &list);
    });
}

#[test]
fn without_resources_the_defaults_apply() {
    if !has_device_list() {
        return;
    }
    differential(|c| {
        strip(c.spec(), "/linux", "resources");
        c.up();
        let list = sorted(&c.cgroup_file("devices.list"));
        c.note("devices.list", &list);
    });
}

/// Nodes may be made where their use would be denied (mknod is allowed by
/// default, opening is not).
#[test]
fn making_nodes_needs_the_capability_and_the_rule() {
    differential(|c| {
        for set in ["bounding", "effective", "permitted"] {
            c.spec()["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
        }
        c.spec()["process"]["capabilities"]["ambient"] = json!([]);
        c.spec()["root"]["readonly"] = json!(false);
        let seen = c.probe("mknod /tmp/kmsg c 1 11 && echo made; (: < /tmp/kmsg) || echo denied");
        assert!(seen.contains("denied"), "{seen}");
    });
}
