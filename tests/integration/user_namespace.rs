//! User namespaces: mappings, ownership, identity.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use serde_json::json;

use crate::harness::{Case, differential, skip};

/// A host range that nothing on the machine uses.
const BASE: u32 = 100_000;
const SIZE: u32 = 65_536;

pub fn with_user_namespace(c: &mut Case) {
    c.push("/linux/namespaces", [json!({"type": "user"})]);
    let map = json!([{"containerID": 0, "hostID": BASE, "size": SIZE}]);
    c.spec()["linux"]["uidMappings"] = map.clone();
    c.spec()["linux"]["gidMappings"] = map;
    // The container's root must be able to make mount targets.
    for dir in [".", "dev", "proc", "sys", "tmp", "etc", "root", "mnt"] {
        chown(c.rootfs().join(dir), Some(BASE), Some(BASE)).expect("chown");
    }
}

pub fn available() -> bool {
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let enabled = limit.trim().parse::<u64>().is_ok_and(|n| n > 0);
    if !enabled {
        skip("user namespaces are switched off");
    }
    enabled
}

#[test]
fn mappings_are_what_the_bundle_says() {
    if !available() {
        return;
    }
    differential(|c| {
        with_user_namespace(c);
        let seen = c.probe("cat /proc/self/uid_map /proc/self/gid_map; cat /proc/self/setgroups");
        assert!(seen.contains("100000"), "{seen}");
    });
}

#[test]
fn two_ranges_are_mapped() {
    if !available() {
        return;
    }
    differential(|c| {
        with_user_namespace(c);
        let map = json!([
            {"containerID": 0, "hostID": BASE, "size": 1000},
            {"containerID": 1000, "hostID": BASE + 5000, "size": 10}
        ]);
        c.spec()["linux"]["uidMappings"] = map.clone();
        c.spec()["linux"]["gidMappings"] = map;
        c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [50]});
        let seen =
            c.probe("id; cat /proc/self/uid_map; grep -e Uid -e Gid -e Groups /proc/self/status");
        assert!(seen.contains("uid=1000(user)"), "{seen}");
    });
}

#[test]
fn root_inside_is_the_mapped_user_outside() {
    if !available() {
        return;
    }
    differential(|c| {
        with_user_namespace(c);
        c.spec()["root"]["readonly"] = json!(false);
        c.probe("id; touch /tmp/made; stat -c '%u %g %a' /tmp/made / /bin/busybox /proc /dev/null");
        let made = fs::metadata(c.rootfs().join("tmp/made")).expect("the file outside");
        assert_eq!((made.uid(), made.gid()), (BASE, BASE));
    });
}

#[test]
fn a_user_inside_is_the_mapped_user_outside() {
    if !available() {
        return;
    }
    differential(|c| {
        with_user_namespace(c);
        c.spec()["root"]["readonly"] = json!(false);
        c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        c.probe("id; touch /tmp/made; stat -c '%U %u %g' /tmp/made");
        let made = fs::metadata(c.rootfs().join("tmp/made")).expect("the file outside");
        assert_eq!((made.uid(), made.gid()), (BASE + 1000, BASE + 1000));
    });
}

#[test]
fn devices_and_mounts_of_a_user_namespace_are_usable() {
    if !available() {
        return;
    }
    differential(|c| {
        with_user_namespace(c);
        let seen = c.probe(
            "echo gone > /dev/null && head -c 3 /dev/zero | od -An -tx1; \
             cd /dev; stat -c '%n %F %a %u %g' [!m]*; \
             cut -d' ' -f5 /proc/self/mountinfo | sort; \
             hostname other || echo refused",
        );
        assert!(seen.contains("/dev/pts"), "{seen}");
    });
}

#[test]
fn namespaces_of_a_user_namespace_belong_to_it() {
    if !available() {
        return;
    }
    differential(|c| {
        with_user_namespace(c);
        for set in [
            "bounding",
            "effective",
            "permitted",
            "ambient",
            "inheritable",
        ] {
            c.spec()["process"]["capabilities"][set] = json!(["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        }
        // Both need rights over the container's own namespaces.
        let seen = c.probe("ip link set lo down && echo changed; hostname other && hostname");
        assert!(seen.ends_with("other\n"), "{seen}");
    });
}

#[test]
fn exec_enters_the_user_namespace() {
    if !available() {
        return;
    }
    differential(|c| {
        with_user_namespace(c);
        c.up();
        let seen = c.exec("", "id -u; cat /proc/self/uid_map");
        assert!(seen.starts_with("0\n"), "{seen}");
        c.exec("--user 1000:1000", "id");
        c.ok("kill ID KILL");
        c.wait_for("stopped");
    });
}

#[test]
fn a_user_namespace_without_mappings_is_refused() {
    if !available() {
        return;
    }
    differential(|c| {
        c.push("/linux/namespaces", [json!({"type": "user"})]);
        c.run_fails(&["mapping"]);
    });
}

#[test]
fn mappings_without_a_user_namespace_are_ignored() {
    differential(|c| {
        c.spec()["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": BASE, "size": 10}]);
        let seen = c.probe("id; cat /proc/self/uid_map");
        assert!(seen.contains("4294967295"), "{seen}");
    });
}

#[test]
fn a_user_that_is_not_mapped_is_refused() {
    if !available() {
        return;
    }
    differential(|c| {
        with_user_namespace(c);
        c.spec()["process"]["user"] = json!({"uid": 70000, "gid": 0});
        c.run_fails(&[]);
    });
}
