//! A folder for one command: the unpacked image, what runs write, their containers. It goes with the command; what a
//! command that was killed has left, the next one removes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::error::{Result, TracerError};
use crate::runtime::{self, Store, chain};

/// Held by whoever makes or removes folders.
const GATE: &str = "lock";
/// Held by the owner of a folder for as long as it lives.
const LOCK: &str = "lock";
/// The state folder of the runtime.
const STATE: &str = "state";

/// The folder.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes one below `parent`, and removes those that nobody owns any more.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn create(parent: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|err| TracerError::io("create", parent, err))?;
        let gate = open_lock(&parent.join(GATE))?;
        lock(&gate, FlockOperation::LockExclusive)
            .map_err(|err| TracerError::io("lock", parent.join(GATE), err))?;
        sweep(parent);
        let path = (0_u32..)
            .map(|n| parent.join(format!("{}-{n}", std::process::id())))
            .find(|path| !path.exists())
            .unwrap_or_default();
        // Containers whose users are not root walk through it.
        DirBuilder::new()
            .mode(0o711)
            .create(&path)
            .map_err(|err| TracerError::io("create", &path, err))?;
        let file = path.join(LOCK);
        let own = open_lock(&file)?;
        lock(&own, FlockOperation::NonBlockingLockExclusive)
            .map_err(|err| TracerError::io("lock", &file, err))?;
        Ok(Self { path, _lock: own })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The state folder of the runtime.
    pub(super) fn state(&self) -> PathBuf {
        self.path.join(STATE)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|err| TracerError::io("open", path, err))
}

fn lock(file: &File, operation: FlockOperation) -> std::io::Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Removes the folders whose owners are gone.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        // Without a lock it was never in use, or its removal was cut off.
        let is_owned = File::open(entry.path().join(LOCK))
            .is_ok_and(|file| lock(&file, FlockOperation::NonBlockingLockExclusive).is_err());
        if !is_owned {
            tracing::info!(path = %entry.path().display(), "removing what an earlier command left");
            remove(&entry.path());
        }
    }
}

/// Removes a folder with the containers that are recorded in it.
fn remove(path: &Path) {
    let store = Store::new(path.join(STATE));
    for container in store.list().unwrap_or_default() {
        let id = container.state.id.parse();
        let deleted = id.map(|id| runtime::delete(&store, &id, true));
        if let Ok(Err(err)) = deleted {
            tracing::warn!(
                reason = chain(&err),
                id = container.state.id,
                "container left behind"
            );
            return;
        }
    }
    if let Err(err) = fs::remove_dir_all(path)
        && err.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%err, path = %path.display(), "folder left behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_owns_is_removed_by_the_next_one() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir_all(parent.path().join("1-0/rootfs/a")).unwrap();
        fs::write(parent.path().join("1-0").join(LOCK), "").unwrap();
        let one = Scratch::create(parent.path()).unwrap();
        assert!(!parent.path().join("1-0").exists());
        let other = Scratch::create(parent.path()).unwrap();
        assert_ne!(one.path(), other.path());
        assert!(one.path().is_dir());
        let path = one.path().to_path_buf();
        drop(one);
        assert!(!path.exists());
        assert!(other.path().is_dir());
    }
}
