"""Bundles of the containers that are measured."""

import json
import os

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SECCOMP = os.path.join(BENCH, "data", "seccomp-docker-default.json")
MEMORY_LIMIT = 256 << 20

DOCKER_CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW "
        "SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
    ).split()
]


def make_config(args, configuration, cgroups_path):
    linux = {
        "cgroupsPath": cgroups_path,
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        "maskedPaths": [
            "/proc/acpi",
            "/proc/kcore",
            "/proc/keys",
            "/proc/timer_list",
            "/proc/scsi",
            "/sys/firmware",
        ],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
    }
    if configuration == "seccomp":
        with open(SECCOMP, encoding="utf-8") as file:
            linux["seccomp"] = json.load(file)
    if configuration == "memory":
        linux["resources"]["memory"] = {"limit": MEMORY_LIMIT}

    def mount(destination, kind, *options, source=None):
        return {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}

    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {kind: DOCKER_CAPABILITIES for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": False,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", "nosuid", "noexec", "nodev"),
            mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k", source="shm"),
            mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        ],
        "linux": linux,
    }
