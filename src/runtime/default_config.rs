//! `spec`: a configuration to begin with, the one that every OCI runtime prints.

use serde_json::{Value, json};

/// The starting configuration; `rootless` for a user without privileges, mapped to root inside.
pub fn default_config(rootless: bool) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mut pts = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    if !rootless {
        // The group of terminals, which is not mapped for a user without privileges.
        pts.push("gid=5");
    }
    // sysfs needs a network namespace of one's own.
    let sys = if rootless {
        let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
        mount("/sys", "none", "/sys", &options)
    } else {
        let options = ["nosuid", "noexec", "nodev", "ro"];
        mount("/sys", "sysfs", "sysfs", &options)
    };
    json!({
        "ociVersion": super::OCI_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
                "ambient": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "elastic-mem",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &pts),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            sys,
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": linux(rootless),
    })
}

fn linux(rootless: bool) -> Value {
    let kinds: &[&str] = if rootless {
        &["pid", "ipc", "uts", "mount", "user"]
    } else {
        &["pid", "network", "ipc", "uts", "mount"]
    };
    let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    let mut linux = if rootless {
        json!({
            "uidMappings": map_to_root(nix::unistd::geteuid().as_raw()),
            "gidMappings": map_to_root(nix::unistd::getegid().as_raw()),
        })
    } else {
        json!({"resources": {"devices": [{"allow": false, "access": "rwm"}]}})
    };
    if let Some(fields) = linux.as_object_mut() {
        fields.insert("namespaces".to_owned(), Value::Array(namespaces));
        fields.insert("maskedPaths".to_owned(), json!(MASKED));
        fields.insert("readonlyPaths".to_owned(), json!(READONLY));
    }
    linux
}

/// What shows or changes the host through its kernel files.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

/// What may be read but not changed.
const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

fn map_to_root(id: u32) -> Value {
    json!([{"containerID": 0, "hostID": id, "size": 1}])
}
