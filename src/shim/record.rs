//! What other programs of this host can read of a container: `/run/elastic-mem/NAMESPACE/ID/state.json`.
//!
//! Written before the container is created and again once it stands, removed with it.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{Result, ShimError};
use super::options::STATE;
use crate::kernel::cgroup::Cgroup;
use crate::kernel::process;
use crate::model::{ClassName, FunctionKey};
use crate::policy::identity::Facts;
use crate::runtime::chain;

const FILE: &str = "state.json";
/// Raised when the meaning of a field changes.
const VERSION: u32 = 1;

/// A process, named so that a reused id is not mistaken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Owner {
    pid: u32,
    /// Clock ticks after boot at which it started.
    start_time: u64,
}

/// The control group that holds the memory limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemoryGroup {
    path: PathBuf,
    /// A group of the same path that was made later has another one.
    inode: u64,
}

/// The content of the file. Sizes in bytes; absent means none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    version: u32,
    /// Names the boot of the host in which this was written.
    boot_id: String,
    /// The shim.
    owner: Owner,
    pub(super) bundle: PathBuf,
    /// State folder of the runtime.
    pub(super) runtime_root: PathBuf,
    /// Process id of the init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cgroup: Option<MemoryGroup>,
    /// The declared limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ceiling: Option<u64>,
    /// The limit in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant: Option<u64>,
    /// `ceiling - grant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reclaimable: Option<u64>,
    /// What is done with the memory: `off` is nothing, `observe` is sampling alone.
    mode: String,
    /// The function that it is an instance of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    function: Option<FunctionKey>,
    /// The input class that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<ClassName>,
}

/// The folder of one container.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn of(namespace: &str, id: &str) -> Self {
        Self([STATE, namespace, id].iter().collect())
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the record.
    ///
    /// # Errors
    /// `Failed` with the path.
    pub(super) fn write(&self, record: &Record) -> Result<()> {
        create_folder(&self.0)?;
        let bytes =
            serde_json::to_vec(record).map_err(|err| ShimError::failed("encode record", err))?;
        crate::runtime::write_atomic(&self.0.join(FILE), &bytes, 0o600)
            .map_err(|err| ShimError::Failed(chain(&err)))
    }

    /// The record, if there is one of this form.
    pub(super) fn read(&self) -> Option<Record> {
        let bytes = std::fs::read(self.0.join(FILE)).ok()?;
        serde_json::from_slice(&bytes)
            .inspect_err(|err| tracing::warn!(%err, folder = %self.0.display(), "record not used"))
            .ok()
    }

    /// Removes the folder, and that of the namespace if it was the last one.
    pub(super) fn remove(&self) {
        if let Err(err) = std::fs::remove_dir_all(&self.0)
            && err.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%err, folder = %self.0.display(), "record not removed");
        }
        if let Some(parent) = self.0.parent() {
            // Stays while there are others.
            let _ = std::fs::remove_dir(parent);
        }
    }
}

impl Record {
    /// What is known before the container is created.
    ///
    /// # Errors
    /// `Failed` when the kernel does not say who we are.
    pub(super) fn new(bundle: &Path, runtime_root: &Path, ceiling: Option<u64>) -> Result<Self> {
        let fail = |err: crate::kernel::KernelError| ShimError::Failed(chain(&err));
        let pid = std::process::id();
        let stat = process::stat(pid.cast_signed()).map_err(fail)?;
        Ok(Self {
            version: VERSION,
            boot_id: crate::kernel::boot_id().map_err(fail)?,
            owner: Owner {
                pid,
                start_time: stat.start_time,
            },
            bundle: bundle.to_path_buf(),
            runtime_root: runtime_root.to_path_buf(),
            pid: None,
            cgroup: None,
            ceiling,
            grant: ceiling,
            reclaimable: ceiling.map(|_| 0),
            mode: "off".to_owned(),
            function: None,
            class: None,
        })
    }

    /// Adds what is known of the function, and what is done with its memory.
    pub(super) fn is_of(&mut self, facts: &Facts<'_>, mode: &str) {
        self.mode = mode.to_owned();
        self.function = Some(facts.function());
        self.class = facts.class();
    }

    /// Adds what is known once it stands.
    pub(super) fn stands(&mut self, pid: i32, cgroup: &Cgroup) {
        self.pid = Some(pid);
        self.cgroup = cgroup.controller("memory").and_then(|path| {
            Some(MemoryGroup {
                path: path.to_path_buf(),
                inode: std::fs::metadata(path).ok()?.ino(),
            })
        });
    }
}

/// Makes a folder of ours, for root alone.
///
/// # Errors
/// `Failed` with the path.
pub(super) fn create_folder(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|err| {
            let reason = crate::kernel::reason(&err);
            ShimError::Failed(format!("create {}: {reason}", path.display()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_way_to_disk_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder(dir.path().join("ns/a"));
        assert_eq!(folder.read(), None);
        let record = Record::new(Path::new("/b"), Path::new("/r"), Some(1 << 20)).unwrap();
        folder.write(&record).unwrap();
        assert_eq!(folder.read(), Some(record));
        folder.remove();
        assert!(!dir.path().join("ns").exists());
    }

    #[test]
    fn what_cannot_be_read_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Folder(dir.path().to_path_buf()).read(), None);
    }
}
