//! Device rules: which device nodes a container may open or make.
//!
//! cgroup v1 has the `devices` controller; on cgroup v2 a BPF program of type `BPF_PROG_TYPE_CGROUP_DEVICE`
//! decides, which libcgroups compiles.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use libcgroups::v2::devices::bpf::{BpfError, prog};
use libcgroups::v2::devices::emulator::Emulator;
use libcgroups::v2::devices::program::Program;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Cgroup, Version};
use crate::kernel::{KernelError, Result, write_text};

use LinuxDeviceType::{B, C};

/// The rules that every container gets after its own: nodes may be made, and the standard devices opened.
const STANDARD: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 11] = [
    (C, None, None, "m"),
    (B, None, None, "m"),
    (C, Some(1), Some(3), "rwm"),
    (C, Some(1), Some(8), "rwm"),
    (C, Some(1), Some(7), "rwm"),
    (C, Some(5), Some(0), "rwm"),
    (C, Some(1), Some(5), "rwm"),
    (C, Some(1), Some(9), "rwm"),
    (C, Some(136), None, "rwm"),
    (C, Some(5), Some(2), "rwm"),
    (C, Some(10), Some(200), "rwm"),
];

/// Programs whose licence is compatible may call more helpers; these call none.
const LICENCE: &str = "Apache";

/// More memory than any program needs.
const ENOUGH: u64 = 128 << 20;

pub(super) fn apply(cgroup: &Cgroup, limits: &LinuxResources) -> Result<()> {
    let rules = limits.devices();
    match cgroup.version {
        Version::V1 => match cgroup.controller("devices") {
            Some(dir) => apply_v1(dir, rules.as_deref().unwrap_or_default()),
            None if rules.as_ref().is_none_or(Vec::is_empty) => Ok(()),
            None => Err(KernelError::Unsupported(
                "device rules need the devices cgroup, which the host does not have".to_owned(),
            )),
        },
        Version::V2 => match cgroup.controller("devices") {
            Some(dir) => apply_v2(dir, rules.as_deref().unwrap_or_default()),
            None => Ok(()),
        },
    }
}

fn standard() -> impl Iterator<Item = LinuxDeviceCgroup> {
    STANDARD.into_iter().map(|(kind, major, minor, access)| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true)
            .set_typ(Some(kind))
            .set_major(major)
            .set_minor(minor)
            .set_access(Some(access.to_owned()));
        rule
    })
}

fn apply_v1(dir: &Path, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    // A new cgroup has its parent's rules, mostly "everything": begin with nothing, as cgroup v2 does.
    write_text(&dir.join("devices.deny"), "a")?;
    for rule in rules {
        let file = if rule.allow() {
            "devices.allow"
        } else {
            "devices.deny"
        };
        write_text(&dir.join(file), &line(rule))?;
    }
    standard().try_for_each(|rule| write_text(&dir.join("devices.allow"), &line(&rule)))
}

/// Attaches a program of the rules in place of those that are there.
///
/// Not `Devices::apply_devices` of libcgroups 0.7: that leaves the descriptors of all programs open, and fails where
/// `RLIMIT_MEMLOCK` cannot be raised, though the kernel does not count programs against it since Linux 5.11.
fn apply_v2(dir: &Path, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let failed = |err: std::io::Error| KernelError::io("attach device rules to", dir, err);
    let mut emulator = Emulator::with_default_allow(false);
    emulator.add_rules(rules);
    emulator.add_rules(&standard().collect::<Vec<_>>());
    let program = Program::from_rules(&emulator.rules, emulator.default_allow)
        .map_err(|err| failed(std::io::Error::other(err)))?;
    let group = File::open(dir).map_err(failed)?;
    let attach = || -> std::result::Result<(), BpfError> {
        let program = owned(load(program.bytecodes())?);
        let before = prog::query(group.as_raw_fd())?;
        let before: Vec<OwnedFd> = before.into_iter().map(|old| owned(old.fd)).collect();
        prog::attach(program.as_raw_fd(), group.as_raw_fd())?;
        before
            .iter()
            .try_for_each(|old| prog::detach2(old.as_raw_fd(), group.as_raw_fd()))
    };
    attach().map_err(|err| {
        failed(match err {
            BpfError::Errno(errno) => std::io::Error::from(errno),
            other => std::io::Error::other(other),
        })
    })
}

/// Kernels before 5.11 count the memory of programs against `RLIMIT_MEMLOCK`: it is raised for the moment, for a container
/// inherits it.
fn load(bytecodes: &[u8]) -> std::result::Result<RawFd, BpfError> {
    prog::load(LICENCE, bytecodes).or_else(|err| {
        let before = getrlimit(Resource::Memlock);
        let raised = Rlimit {
            current: before.current.map(|limit| limit.max(ENOUGH)),
            maximum: before.maximum.map(|limit| limit.max(ENOUGH)),
        };
        if setrlimit(Resource::Memlock, raised).is_err() {
            return Err(err);
        }
        let loaded = prog::load(LICENCE, bytecodes);
        if let Err(err) = setrlimit(Resource::Memlock, before) {
            tracing::warn!(%err, "cannot set RLIMIT_MEMLOCK back");
        }
        loaded
    })
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for the caller, who keeps no other copy of its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// One rule in the kernel's form `TYPE MAJOR:MINOR ACCESS`.
fn line(rule: &LinuxDeviceCgroup) -> String {
    let number = |n: Option<i64>| match n {
        Some(n) if n >= 0 => n.to_string(),
        _ => "*".to_owned(),
    };
    let access = rule.access().as_deref().unwrap_or("rwm");
    match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => "a".to_owned(),
        kind => format!(
            "{} {}:{} {access}",
            kind.as_str(),
            number(rule.major()),
            number(rule.minor())
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    #[test]
    fn absent_and_negative_numbers_mean_any() {
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(10_i64)
            .minor(-1_i64)
            .access("r")
            .build()
            .unwrap();
        assert_eq!(line(&rule), "c 10:* r");
    }

    #[test]
    fn a_rule_for_all_types_is_the_bare_letter() {
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(false)
            .access("rwm")
            .build()
            .unwrap();
        assert_eq!(line(&rule), "a");
    }
}
