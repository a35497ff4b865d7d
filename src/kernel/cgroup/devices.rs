//! Device rules: which device nodes a container may open or make.
//!
//! cgroup v1 has the `devices` controller; on cgroup v2 a BPF program of type `BPF_PROG_TYPE_CGROUP_DEVICE`
//! decides, which libcgroups compiles and attaches.

use std::path::Path;

use libcgroups::v2::devices::Devices;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use super::{Cgroup, Version};
use crate::kernel::{KernelError, Result, write_text};

/// The rules that every container gets after its own: nodes may be made, and the standard devices opened.
const STANDARD: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:8 rwm",
    "c 1:7 rwm",
    "c 5:0 rwm",
    "c 1:5 rwm",
    "c 1:9 rwm",
    "c 136:* rwm",
    "c 5:2 rwm",
    "c 10:200 rwm",
];

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
        Version::V2 => {
            let Some(dir) = cgroup.controller("devices") else {
                return Ok(());
            };
            Devices::apply_devices(dir, rules).map_err(|err| {
                KernelError::io("attach device rules to", dir, std::io::Error::other(err))
            })
        }
    }
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
    STANDARD
        .iter()
        .try_for_each(|rule| write_text(&dir.join("devices.allow"), rule))
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
