//! Whether the processes of one control group stand still, many times in its life: the file stays open.

use std::fs::File;
use std::os::fd::AsFd;

use super::meter::{find, pread};
use super::{Cgroup, Version};

/// Longer than either file.
const BUFFER: usize = 128;

/// An open file that tells whether a control group is frozen.
#[derive(Debug)]
pub struct Freezer {
    version: Version,
    state: File,
}

impl Freezer {
    /// Opens the file; none where the host has no freezer.
    pub fn open(cgroup: &Cgroup) -> Option<Self> {
        let name = match cgroup.version {
            Version::V1 => "freezer.state",
            Version::V2 => "cgroup.events",
        };
        let state = File::open(cgroup.controller("freezer")?.join(name)).ok()?;
        Some(Self {
            version: cgroup.version,
            state,
        })
    }

    /// Whether it is frozen, by itself or with a control group above it. cgroup v1 counts from the request on, cgroup v2
    /// from when all its processes stand still. A control group that is gone is not.
    pub fn is_frozen(&self) -> bool {
        let mut buffer = [0; BUFFER];
        let Ok(length) = pread(self.state.as_fd(), &mut buffer) else {
            return false;
        };
        let text = buffer.get(..length).unwrap_or_default();
        match self.version {
            Version::V1 => text.trim_ascii() != b"THAWED",
            Version::V2 => find(text, b"frozen") == Some(1),
        }
    }
}
