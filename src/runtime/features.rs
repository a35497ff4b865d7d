//! `features`: what this runtime can do, for engines that ask before they use it (runtime-spec, "Features").

use libcontainer::syscall::linux::MountOption;
use serde_json::{Value, json};

const SECCOMP_ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
];

const SECCOMP_OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

const SECCOMP_ARCHES: [&str; 12] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

const MEMORY_POLICY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

const MEMORY_POLICY_FLAGS: [&str; 3] = [
    "MPOL_F_NUMA_BALANCING",
    "MPOL_F_RELATIVE_NODES",
    "MPOL_F_STATIC_NODES",
];

/// The features document.
pub fn features() -> Value {
    let mut capabilities: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    capabilities.sort();
    let mut mount_options = MountOption::known_options();
    mount_options.sort();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": super::OCI_VERSION,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
        ],
        "mountOptions": mount_options,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": true,
                "systemdUser": false,
                "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": SECCOMP_ACTIONS,
                "operators": SECCOMP_OPERATORS,
                "archs": SECCOMP_ARCHES,
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "memoryPolicy": {
                "modes": MEMORY_POLICY_MODES,
                "flags": MEMORY_POLICY_FLAGS,
            },
            "mountExtensions": {"idmap": {"enabled": false}},
            "netDevices": {"enabled": true},
        },
        "annotations": {
            "io.elastic-mem.version": env!("CARGO_PKG_VERSION"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_sorted_and_without_doubles() {
        let mut lists = vec![
            SECCOMP_ACTIONS.to_vec(),
            SECCOMP_OPERATORS.to_vec(),
            SECCOMP_ARCHES.to_vec(),
            MEMORY_POLICY_MODES.to_vec(),
            MEMORY_POLICY_FLAGS.to_vec(),
        ];
        for list in &mut lists {
            let before = list.clone();
            list.sort_unstable();
            list.dedup();
            assert_eq!(*list, before);
        }
    }

    /// Nothing that is not true: libcontainer's own types know every name.
    #[test]
    fn the_engine_knows_every_name() {
        use oci_spec::runtime::{
            Arch, LinuxSeccompAction, LinuxSeccompOperator, MemoryPolicyFlagType,
            MemoryPolicyModeType,
        };
        fn known<T: serde::de::DeserializeOwned>(names: &[&str]) {
            for name in names {
                assert!(serde_json::from_value::<T>(json!(name)).is_ok(), "{name}");
            }
        }
        known::<LinuxSeccompAction>(&SECCOMP_ACTIONS);
        known::<LinuxSeccompOperator>(&SECCOMP_OPERATORS);
        known::<Arch>(&SECCOMP_ARCHES);
        known::<MemoryPolicyModeType>(&MEMORY_POLICY_MODES);
        known::<MemoryPolicyFlagType>(&MEMORY_POLICY_FLAGS);
    }
}
