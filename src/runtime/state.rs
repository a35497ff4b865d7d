//! Where containers are remembered between commands: one folder each below the state folder (`--root`).
//!
//! `state.json` is written twice, before the container's first process exists and after it stands ready;
//! `config.json` is the bundle as it was used; `start.sock` exists from creation until `start`. What changes
//! later (running, paused, stopped) is never written but read from the kernel, so it cannot be stale.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Result, RuntimeError};
use crate::kernel::cgroup::Cgroup;
use crate::kernel::process::{self, ProcessHandle};
use crate::model::ContainerId;
use crate::model::placement::Placement;

const STATE: &str = "state.json";
const CONFIG: &str = "config.json";
/// The socket on which a created container waits for `start`.
pub(crate) const START_SOCKET: &str = "start.sock";
/// Raised when the meaning of a field changes.
const VERSION: u32 = 1;

/// Life of a container (runtime-spec, "State", with `paused` as every runtime adds it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is under way, or was cut off.
    Creating,
    /// Ready, the user's program not yet started.
    Created,
    /// The user's program runs.
    Running,
    /// Frozen.
    Paused,
    /// The init process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// The init process, named so that a reused process id is not mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Init {
    /// Process id on the host.
    pub pid: i32,
    /// Clock ticks after boot at which it started.
    pub start_time: u64,
}

/// What is remembered of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of this form.
    pub version: u32,
    /// `ociVersion` of the bundle.
    pub oci_version: String,
    /// The name.
    pub id: String,
    /// The init process, once there is one.
    pub init: Option<Init>,
    /// The bundle folder.
    pub bundle: PathBuf,
    /// The root file system on the host.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// User id of the creator.
    pub owner: u32,
    /// Annotations of the bundle.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The control groups.
    pub cgroup: Cgroup,
    /// Whether others had processes in the control group before us; they are never killed then.
    #[serde(default)]
    pub cgroup_shared: bool,
    /// `slice:prefix:name` when systemd manages the control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd_unit: Option<String>,
    /// Where its memory is to lie, if somebody has decided that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

impl State {
    /// A new record in the current form.
    pub(crate) fn new(id: &ContainerId, bundle: &Path, rootfs: &Path, cgroup: Cgroup) -> Self {
        Self {
            version: VERSION,
            oci_version: super::OCI_VERSION.to_owned(),
            id: id.to_string(),
            init: None,
            bundle: bundle.to_path_buf(),
            rootfs: rootfs.to_path_buf(),
            created: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true),
            owner: nix::unistd::geteuid().as_raw(),
            annotations: BTreeMap::new(),
            cgroup,
            cgroup_shared: false,
            systemd_unit: None,
            placement: None,
        }
    }
}

/// The state folder of all containers of one caller (`--root`).
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Takes the name `id` for a new container.
    ///
    /// # Errors
    /// `Exists` when it is taken, `Io` when the folder cannot be made.
    pub(crate) fn reserve(&self, id: &ContainerId) -> Result<Folder> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(|err| RuntimeError::io("create state folder", &self.root, err))?;
        let path = self.root.join(id);
        // One atomic step decides between two creators of the same name.
        match fs::DirBuilder::new().mode(0o711).create(&path) {
            Ok(()) => Ok(Folder(path)),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Err(RuntimeError::Exists),
            Err(err) => Err(RuntimeError::io("create state folder", path, err)),
        }
    }

    /// Loads a container.
    ///
    /// # Errors
    /// `NotFound`; `Io` or `Json` when the record cannot be read.
    pub fn load(&self, id: &ContainerId) -> Result<Container> {
        let folder = Folder(self.root.join(id));
        let state = folder.read()?;
        Ok(Container { folder, state })
    }

    /// The folder of a container, whether or not it holds a record; `None` when there is none.
    pub(crate) fn folder(&self, id: &ContainerId) -> Option<Folder> {
        let path = self.root.join(id);
        path.is_dir().then_some(Folder(path))
    }

    /// All containers, by name; folders without a usable record are skipped with a warning.
    ///
    /// # Errors
    /// `Io` when the state folder cannot be listed. A folder that does not exist holds no containers.
    pub fn list(&self) -> Result<Vec<Container>> {
        let entries = match fs::read_dir(&self.root) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|err| RuntimeError::io("list", &self.root, err))?,
        };
        let mut ids: Vec<ContainerId> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        ids.sort();
        let load = |id: ContainerId| match self.load(&id) {
            Ok(container) => Some(container),
            // Deleted while we looked, or its creation is under way.
            Err(RuntimeError::NotFound) => None,
            Err(err) => {
                tracing::warn!(%id, %err, "container left out");
                None
            }
        };
        Ok(ids.into_iter().filter_map(load).collect())
    }
}

/// The folder of one container.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn read(&self) -> Result<State> {
        let path = self.0.join(STATE);
        let bytes = match fs::read(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err(RuntimeError::NotFound);
            }
            other => other.map_err(|err| RuntimeError::io("read", &path, err))?,
        };
        let state: State = serde_json::from_slice(&bytes)
            .map_err(|err| RuntimeError::json(path.display().to_string(), err))?;
        if state.version > VERSION {
            return Err(RuntimeError::Unsupported(format!(
                "{} was written by a newer version (form {}, known up to {VERSION})",
                path.display(),
                state.version
            )));
        }
        Ok(state)
    }

    /// Writes the record in one step: a reader sees the old one or the new one.
    pub(crate) fn save(&self, state: &State) -> Result<()> {
        let bytes = serde_json::to_vec(state).map_err(|err| RuntimeError::json("state", err))?;
        write_atomic(&self.0.join(STATE), &bytes, 0o600)
    }

    pub(crate) fn save_config(&self, config: &[u8]) -> Result<()> {
        write_atomic(&self.0.join(CONFIG), config, 0o600)
    }

    /// Forgets the container.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|err| RuntimeError::io("remove state folder", &self.0, err)),
        }
    }
}

/// Replaces a file in one step.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::io::Write;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let result = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path));
    result.map_err(|err| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        RuntimeError::io("write", path, err)
    })
}

/// A container as remembered.
#[derive(Debug, Clone)]
pub struct Container {
    pub(crate) folder: Folder,
    /// The record.
    pub state: State,
}

impl Container {
    /// A handle to the init process, if it still is the one that was created and has not ended.
    pub fn init(&self) -> Option<ProcessHandle> {
        let init = self.state.init?;
        let alive = process::stat(init.pid)
            .is_ok_and(|stat| stat.start_time == init.start_time && !stat.has_ended());
        alive
            .then(|| ProcessHandle::open(init.pid, init.start_time).ok())
            .flatten()
    }

    /// What the container does at this moment.
    pub fn status(&self) -> Status {
        if self.init().is_none() {
            return Status::Stopped;
        }
        if self.state.cgroup.is_frozen() {
            return Status::Paused;
        }
        if self.start_socket().exists() {
            return Status::Created;
        }
        Status::Running
    }

    pub(crate) fn start_socket(&self) -> PathBuf {
        self.folder.path().join(START_SOCKET)
    }

    /// The bundle's configuration as it was used at creation.
    ///
    /// # Errors
    /// `Io` or `Json` when it cannot be read.
    pub fn config(&self) -> Result<Value> {
        let path = self.folder.path().join(CONFIG);
        let bytes = fs::read(&path).map_err(|err| RuntimeError::io("read", &path, err))?;
        serde_json::from_slice(&bytes)
            .map_err(|err| RuntimeError::json(path.display().to_string(), err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::cgroup::Version;

    fn state() -> State {
        let cgroup = Cgroup {
            version: Version::V2,
            directories: Vec::new(),
        };
        let id = "a".parse().unwrap();
        State::new(&id, Path::new("/b"), Path::new("/b/rootfs"), cgroup)
    }

    #[test]
    fn a_name_can_be_reserved_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("deep/root"));
        let id: ContainerId = "a".parse().unwrap();
        store.reserve(&id).unwrap();
        assert!(matches!(store.reserve(&id), Err(RuntimeError::Exists)));
    }

    #[test]
    fn a_record_survives_the_way_to_disk_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let id: ContainerId = "a".parse().unwrap();
        let folder = store.reserve(&id).unwrap();
        assert!(matches!(store.load(&id), Err(RuntimeError::NotFound)));
        folder.save(&state()).unwrap();
        let container = store.load(&id).unwrap();
        assert_eq!(container.state, state_with_time(&container.state.created));
        assert_eq!(container.status(), Status::Stopped);
        assert_eq!(store.list().unwrap().len(), 1);
    }

    fn state_with_time(created: &str) -> State {
        State {
            created: created.to_owned(),
            ..state()
        }
    }

    #[test]
    fn a_record_of_a_newer_version_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let id: ContainerId = "a".parse().unwrap();
        let newer = State {
            version: VERSION + 1,
            ..state()
        };
        store.reserve(&id).unwrap().save(&newer).unwrap();
        let err = store.load(&id).unwrap_err().to_string();
        assert!(err.contains("newer version"), "{err}");
    }

    #[test]
    fn a_process_id_that_was_reused_is_not_the_init() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let id: ContainerId = "a".parse().unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        let mut state = state();
        state.init = Some(Init { pid, start_time: 1 });
        store.reserve(&id).unwrap().save(&state).unwrap();
        assert_eq!(store.load(&id).unwrap().status(), Status::Stopped);
    }
}
