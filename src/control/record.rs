//! What other programs of this host can read of a container: `/run/elastic-mem/NAMESPACE/ID/state.json`.
//!
//! Written by whoever looks after its memory, and removed with it. Somebody else changes it only when they are dead: the
//! next verb gives back what they had taken (`raise`).

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::error::{ControlError, Result};
use super::{SOCKET, STATE};
use crate::kernel::cgroup::{Cgroup, Directory, Lever, Version};
use crate::kernel::process;
use crate::model::plan::Plan;
use crate::model::{Bytes, ClassName, FunctionKey, MemoryLimit, Mode};
use crate::policy::identity::{CONTAINER_NAME, Facts, POD_NAME, POD_NAMESPACE};
use crate::sampler::Placed;

const FILE: &str = "state.json";
/// Raised when the meaning of a field changes.
const VERSION: u32 = 2;

/// A process, named so that a reused id is not mistaken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Owner {
    pid: u32,
    /// Clock ticks after boot at which it started.
    start_time: u64,
}

impl Owner {
    /// This process.
    fn this() -> Result<Self> {
        let pid = std::process::id();
        let stat = process::stat(pid.cast_signed())?;
        Ok(Self {
            pid,
            start_time: stat.start_time,
        })
    }

    fn is_alive(&self) -> bool {
        process::stat(self.pid.cast_signed())
            .is_ok_and(|stat| stat.start_time == self.start_time && !stat.has_ended())
    }
}

/// The control group that holds the memory limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemoryGroup {
    path: PathBuf,
    /// A group of the same path that was made later has another one.
    inode: u64,
    version: Version,
    before: Before,
}

/// What was in force before anything was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Before {
    /// `memory.limit_in_bytes` or `memory.high`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<Bytes>,
    /// Whether the OOM killer was on.
    oom_killer: bool,
}

impl MemoryGroup {
    /// The memory group of a container; `None` where there is none.
    fn of(cgroup: &Cgroup) -> Option<Self> {
        let path = cgroup.controller("memory")?;
        let lever = Lever::open(cgroup).ok()?;
        let limit = match lever.get().ok()? {
            MemoryLimit::Bytes(bytes) => u64::try_from(bytes).ok().map(Bytes::new),
            MemoryLimit::None => None,
        };
        Some(Self {
            path: path.to_path_buf(),
            inode: inode(path)?,
            version: cgroup.version,
            before: Before {
                limit,
                oom_killer: lever.has_oom_killer().ok()?,
            },
        })
    }

    /// Whether it is still there.
    fn exists(&self) -> bool {
        inode(&self.path) == Some(self.inode)
    }

    /// Gives back what the container had: its ceiling first, since turning the OOM killer on kills whoever waits at the
    /// limit. Whether there was anything to give back.
    fn restore(&self, ceiling: Option<Bytes>) -> Result<bool> {
        let cgroup = Cgroup {
            version: self.version,
            directories: vec![Directory {
                controllers: "memory".to_owned(),
                path: self.path.clone(),
            }],
        };
        let lever = Lever::open(&cgroup)?;
        let limit = match self.version {
            Version::V1 => ceiling.or(self.before.limit),
            Version::V2 => self.before.limit,
        };
        let limit = limit.map_or(MemoryLimit::None, |bytes| {
            i64::try_from(bytes.get()).map_or(MemoryLimit::None, MemoryLimit::Bytes)
        });
        let mut changed = lever.raise(limit)?;
        if self.before.oom_killer && !lever.has_oom_killer()? {
            lever.set_oom_killer(true)?;
            changed = true;
        }
        Ok(changed)
    }
}

fn inode(path: &Path) -> Option<u64> {
    Some(std::fs::metadata(path).ok()?.ino())
}

/// The content of the file. Sizes in bytes; absent means none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    version: u32,
    /// Names the boot of the host in which this was written.
    boot_id: String,
    /// The shim or the monitor.
    owner: Owner,
    /// The bundle folder.
    pub bundle: PathBuf,
    /// State folder of the runtime.
    pub runtime_root: PathBuf,
    /// Process id of the init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cgroup: Option<MemoryGroup>,
    /// The declared limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Bytes>,
    /// The limit in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Bytes>,
    /// `ceiling - grant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaimable: Option<Bytes>,
    /// What is done with the memory.
    pub mode: Mode,
    /// What was done for its placement, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Placed>,
    /// The function that it is an instance of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionKey>,
    /// The input class that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassName>,
    /// The pod of Kubernetes that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The namespace of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// Its name in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

impl Record {
    /// What is known before the container is created.
    ///
    /// # Errors
    /// `Kernel` when it does not say who we are.
    pub fn new(bundle: &Path, runtime_root: &Path, ceiling: Option<Bytes>) -> Result<Self> {
        let mut record = Self {
            version: VERSION,
            boot_id: crate::kernel::boot_id()?,
            owner: Owner::this()?,
            bundle: bundle.to_path_buf(),
            runtime_root: runtime_root.to_path_buf(),
            pid: None,
            cgroup: None,
            ceiling: None,
            grant: None,
            reclaimable: None,
            mode: Mode::Off,
            placed: None,
            function: None,
            class: None,
            pod: None,
            pod_namespace: None,
            container: None,
        };
        record.set_grant(ceiling, ceiling);
        Ok(record)
    }

    /// Adds what is known of the function, and what is done with its memory.
    /// The first grant is said before it is in force: see [`Folder::publish`].
    pub fn is_of(&mut self, facts: &Facts<'_>, plan: Option<&Plan>) {
        self.mode = plan.map_or(Mode::Off, |plan| plan.mode);
        if let Some(plan) = plan.filter(|plan| plan.mode.grants()) {
            self.set_grant(plan.grant.or(plan.ceiling), plan.ceiling);
        }
        self.function = Some(facts.function());
        self.class = facts.class();
        let annotation = |key: &str| facts.annotations.get(key).cloned();
        self.pod = annotation(POD_NAME);
        self.pod_namespace = annotation(POD_NAMESPACE);
        self.container = annotation(CONTAINER_NAME);
    }

    /// Adds what is known once it stands.
    pub fn stands(&mut self, pid: i32, cgroup: &Cgroup) {
        self.pid = Some(pid);
        self.cgroup = MemoryGroup::of(cgroup);
    }

    fn set_grant(&mut self, grant: Option<Bytes>, ceiling: Option<Bytes>) {
        self.grant = grant;
        self.ceiling = ceiling;
        self.reclaimable = ceiling
            .zip(grant)
            .map(|(ceiling, grant)| ceiling.saturating_sub(grant));
    }

    /// Whether the container is granted less than it may have.
    pub(super) fn is_lowered(&self) -> bool {
        match (self.grant, self.ceiling) {
            (Some(grant), Some(ceiling)) => grant < ceiling,
            (grant, None) => grant.is_some(),
            (None, Some(_)) => false,
        }
    }

    /// Whether whoever wrote it still lives.
    pub fn is_kept(&self) -> bool {
        self.owner.is_alive()
    }

    /// The process that wrote it, if that still lives.
    pub(super) fn keeper(&self) -> Option<i32> {
        self.is_kept().then(|| self.owner.pid.cast_signed())
    }

    /// Whether it says nothing of any container that there is: it was written in another boot of the host, or both its
    /// owner and the control group are gone.
    pub fn is_stale(&self) -> bool {
        if crate::kernel::boot_id().is_ok_and(|id| id != self.boot_id) {
            return true;
        }
        let stands = self.cgroup.as_ref().is_some_and(MemoryGroup::exists);
        !stands && !self.is_kept()
    }

    /// Raises the limit in force to the ceiling and turns the OOM killer on, if the container still has the control group
    /// that it had. Whether it had less.
    ///
    /// # Errors
    /// `Kernel` with the file that refused.
    pub(super) fn restore(&mut self) -> Result<bool> {
        let changed = match &self.cgroup {
            Some(group) if group.exists() => group.restore(self.ceiling)?,
            _ => false,
        };
        self.set_grant(self.ceiling, self.ceiling);
        Ok(changed)
    }
}

/// The folder of one container, for all threads of a process.
#[derive(Debug, Clone)]
pub struct Folder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// What was written last by this process; none before that, and once the folder is removed.
    record: Mutex<Option<Record>>,
}

impl Folder {
    /// The folder of a container, which need not be there.
    pub fn of(namespace: &str, id: &str) -> Self {
        Self::at([STATE, namespace, id].iter().collect())
    }

    pub(super) fn at(path: PathBuf) -> Self {
        Self(Arc::new(Inner {
            path,
            record: Mutex::default(),
        }))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The namespace of the container.
    pub(super) fn namespace(&self) -> Option<String> {
        let name = self.path().parent()?.file_name()?;
        name.to_str().map(str::to_owned)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path().join(SOCKET)
    }

    /// Writes the record; the folder is made if it is missing.
    ///
    /// # Errors
    /// `Io` or `Runtime` with the path.
    pub fn write(&self, record: Record) -> Result<()> {
        create_folder(self.path())?;
        let mut kept = self.lock();
        self.save(&record)?;
        *kept = Some(record);
        Ok(())
    }

    /// Says what is granted; `None` is no limit. Cheap, but not free: at most once a second, and **before** the first
    /// grant below the ceiling, so that whoever finds this process dead knows that there is something to give back.
    ///
    /// # Errors
    /// `Runtime` with the path. A record that was removed meanwhile is none.
    pub fn publish(&self, grant: Option<Bytes>, ceiling: Option<Bytes>) -> Result<()> {
        self.change(|record| record.set_grant(grant, ceiling))
    }

    /// Says which function it is, and what is done with its memory for that.
    ///
    /// # Errors
    /// As [`Folder::publish`].
    pub(super) fn bind(
        &self,
        function: FunctionKey,
        class: Option<ClassName>,
        mode: Mode,
    ) -> Result<()> {
        self.change(|record| {
            record.function = Some(function);
            record.class = class;
            record.mode = mode;
        })
    }

    /// Says what was done for its placement.
    ///
    /// # Errors
    /// As [`Folder::publish`].
    pub(super) fn tell(&self, placed: &Placed) -> Result<()> {
        self.change(|record| record.placed = Some(placed.clone()))
    }

    /// What is done with its memory, as this process has written it; nothing before that.
    pub fn mode(&self) -> Mode {
        self.lock().as_ref().map_or(Mode::Off, |record| record.mode)
    }

    fn change(&self, change: impl FnOnce(&mut Record)) -> Result<()> {
        let mut kept = self.lock();
        let Some(record) = kept.as_mut() else {
            return Ok(());
        };
        change(record);
        self.save(record)
    }

    pub(super) fn save(&self, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record).map_err(ControlError::Encode)?;
        Ok(crate::runtime::write_atomic(
            &self.path().join(FILE),
            &bytes,
            0o600,
        )?)
    }

    /// What this process has written last.
    pub(super) fn written(&self) -> Option<Record> {
        self.lock().clone()
    }

    /// The record on disk, if there is one of this form.
    pub fn read(&self) -> Option<Record> {
        let bytes = std::fs::read(self.path().join(FILE)).ok()?;
        serde_json::from_slice(&bytes)
            .inspect_err(
                |err| tracing::debug!(%err, folder = %self.path().display(), "record not used"),
            )
            .ok()
            .filter(|record: &Record| record.version <= VERSION)
    }

    /// Removes the folder, and that of the namespace if it was the last one. What this process has written is left alone
    /// if somebody else looks after a container of the same name by now.
    pub fn remove(&self) {
        let mut kept = self.lock();
        if let Some(ours) = kept.take()
            && self.read().is_some_and(|there| there.owner != ours.owner)
        {
            return;
        }
        if let Err(err) = std::fs::remove_dir_all(self.path())
            && err.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%err, folder = %self.path().display(), "record not removed");
        }
        if let Some(parent) = self.path().parent() {
            // Stays while there are others.
            let _ = std::fs::remove_dir(parent);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Record>> {
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a folder of ours, for root alone.
///
/// # Errors
/// `Io` with the path.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|err| ControlError::io("create", path, err))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn record() -> Record {
        Record::new(Path::new("/b"), Path::new("/r"), Some(Bytes::new(64 * MIB))).unwrap()
    }

    #[test]
    fn a_record_survives_the_way_to_disk_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path().join("ns/a"));
        assert_eq!(folder.read(), None);
        folder.write(record()).unwrap();
        assert_eq!(folder.read(), Some(record()));
        folder.remove();
        assert!(!dir.path().join("ns").exists());
    }

    #[test]
    fn what_cannot_be_read_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path().to_path_buf());
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(folder.read(), None);
        let newer = Record {
            version: VERSION + 1,
            ..record()
        };
        folder.save(&newer).unwrap();
        assert_eq!(folder.read(), None);
    }

    #[test]
    fn what_is_published_is_there_and_can_be_reclaimed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path().join("ns/a"));
        folder.write(record()).unwrap();
        assert!(!folder.read().unwrap().is_lowered());
        let (grant, ceiling) = (Bytes::new(24 * MIB), Bytes::new(64 * MIB));
        folder.publish(Some(grant), Some(ceiling)).unwrap();
        let there = folder.read().unwrap();
        assert_eq!(
            (there.grant, there.reclaimable),
            (Some(grant), Some(Bytes::new(40 * MIB)))
        );
        assert!(there.is_lowered() && there.is_kept() && !there.is_stale());
        // Without a limit a grant is less than what it may have.
        folder.publish(Some(grant), None).unwrap();
        let there = folder.read().unwrap();
        assert!(there.is_lowered() && there.reclaimable.is_none());
    }

    #[test]
    fn what_was_removed_is_not_published_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path().join("ns/a"));
        folder.write(record()).unwrap();
        folder.clone().remove();
        folder.publish(Some(Bytes::ZERO), None).unwrap();
        assert!(!dir.path().join("ns").exists());
    }

    #[test]
    fn a_record_of_a_later_owner_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (
            Folder::at(dir.path().join("ns/a")),
            Folder::at(dir.path().join("ns/a")),
        );
        ours.write(record()).unwrap();
        let mut later = record();
        later.owner.start_time += 1;
        theirs.write(later.clone()).unwrap();
        ours.remove();
        assert_eq!(theirs.read(), Some(later));
        // A process that has written nothing removes what it finds.
        Folder::at(dir.path().join("ns/a")).remove();
        assert_eq!(theirs.read(), None);
    }

    #[test]
    fn a_record_of_another_boot_or_of_a_dead_owner_without_a_group_is_stale() {
        let mut other = record();
        other.boot_id = "another".to_owned();
        assert!(other.is_stale());
        let mut dead = record();
        dead.owner.start_time += 1;
        assert!(!dead.is_kept() && dead.is_stale());
        assert!(!record().is_stale());
    }
}
