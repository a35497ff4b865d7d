//! A folder of the store, by descriptor.
//!
//! Nothing in it is reached through a symbolic link, and everything that is read from it belongs to this user and
//! can be written by nobody else. A file is replaced by rename: readers see the old one or the new one.

use std::ffi::CStr;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::{Result, StoreError};

/// How long a writer waits for another one, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);
/// How often a folder is emptied again that others put something into.
const ATTEMPTS: u32 = 100;

const OPEN: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o700);

/// A file as it was when it was read: another one of the same name differs in this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A folder that is open.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// The writers' lock of a folder; dropped, it is free again.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "held open, that is all")] File);

impl Folder {
    /// A folder by its path; `None` when there is none.
    pub(super) fn root(path: &Path) -> Result<Option<Self>> {
        Self::opened(rustix::fs::open(path, OPEN, Mode::empty()), path)
    }

    /// A folder by its path, made if it is not there.
    pub(super) fn make_root(path: &Path) -> Result<Self> {
        if let Some(folder) = Self::root(path)? {
            return Ok(folder);
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|err| StoreError::io("create folder", path, err))?;
        Self::root(path)?.ok_or_else(|| StoreError::io("open folder", path, Errno::NOENT))
    }

    /// A folder inside; `None` when there is none.
    pub(super) fn sub(&self, name: &str) -> Result<Option<Self>> {
        let path = self.path.join(name);
        Self::opened(
            rustix::fs::openat(&self.fd, name, OPEN, Mode::empty()),
            &path,
        )
    }

    /// A folder inside, made if it is not there.
    pub(super) fn make(&self, name: &str) -> Result<Self> {
        let path = self.path.join(name);
        // Whoever forgets a function may remove it as soon as it is there.
        for _ in 0..ATTEMPTS {
            if let Some(folder) = self.sub(name)? {
                return Ok(folder);
            }
            match rustix::fs::mkdirat(&self.fd, name, FOLDER_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(err) => return Err(StoreError::io("create folder", path, err)),
            }
        }
        Err(StoreError::Busy(path))
    }

    fn opened(fd: rustix::io::Result<OwnedFd>, path: &Path) -> Result<Option<Self>> {
        let fd = match fd {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(StoreError::NotOurs {
                    path: path.to_path_buf(),
                    reason: "is a symbolic link or no folder",
                });
            }
            other => other.map_err(|err| StoreError::io("open folder", path, err))?,
        };
        let stat =
            rustix::fs::fstat(&fd).map_err(|err| StoreError::io("look at folder", path, err))?;
        owned(stat.st_uid, stat.st_mode, path)?;
        Ok(Some(Self {
            fd,
            path: path.to_path_buf(),
        }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this still is the folder of its path.
    pub(super) fn is_linked(&self) -> bool {
        let here = rustix::fs::fstat(&self.fd);
        let there = rustix::fs::lstat(&self.path);
        here.is_ok_and(|here| {
            there.is_ok_and(|there| (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino))
        })
    }

    /// A file that is there, for reading, or for reading and writing; `None` when there is none. Never blocks.
    pub(super) fn open(&self, name: &str, write: bool) -> Result<Option<(File, Identity, u64)>> {
        let path = self.path.join(name);
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        // A pipe would block, and a terminal would become ours.
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => {
                return Err(StoreError::NotOurs {
                    path,
                    reason: "is a symbolic link",
                });
            }
            other => File::from(other.map_err(|err| StoreError::io("open", &path, err))?),
        };
        let metadata = file
            .metadata()
            .map_err(|err| StoreError::io("look at", &path, err))?;
        if !metadata.is_file() {
            return Err(StoreError::NotOurs {
                path,
                reason: "is no regular file",
            });
        }
        owned(metadata.uid(), metadata.mode(), &path)?;
        Ok(Some((file, Identity::of(&metadata), metadata.len())))
    }

    /// A file's content; `None` when there is none.
    pub(super) fn read(&self, name: &str, most: u64) -> Result<Option<(Vec<u8>, Identity)>> {
        let Some((mut file, identity, length)) = self.open(name, false)? else {
            return Ok(None);
        };
        let path = self.path.join(name);
        let bytes = read_whole(&mut file, length, most, &path)?;
        Ok(Some((bytes, identity)))
    }

    /// Which file has the name at this moment.
    pub(super) fn identity(&self, name: &str) -> Option<Identity> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(Identity {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }

    /// Replaces a file in one step. Only for whom holds the [`Lock`]: writers share the temporary name, so that one
    /// that was killed leaves at most one such file. Without `safe` a power failure may leave the new name with no content
    /// or part of it.
    pub(super) fn replace(&self, name: &str, bytes: &[u8], safe: bool) -> Result<()> {
        let path = self.path.join(name);
        let temporary = format!("{TEMPORARY}{name}");
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::TRUNC
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC
            | OFlags::NONBLOCK;
        let written = rustix::fs::openat(&self.fd, &temporary, flags, FILE_MODE)
            .map_err(io::Error::from)
            .and_then(|fd| {
                let mut file = File::from(fd);
                file.write_all(bytes)?;
                match safe {
                    true => file.sync_data(),
                    false => Ok(()),
                }
            })
            .and_then(|()| Ok(rustix::fs::renameat(&self.fd, &temporary, &self.fd, name)?));
        written.map_err(|err| {
            // The first error is the one to tell.
            let _ = self.remove(&temporary);
            StoreError::io("write", path, err)
        })
    }

    /// Moves a file to a folder of the same store.
    pub(super) fn rename(&self, name: &str, to: &Self, new_name: &str) -> Result<()> {
        rustix::fs::renameat(&self.fd, name, &to.fd, new_name)
            .map_err(|err| StoreError::io("move", self.path.join(name), err))
    }

    /// Removes a file; one that is not there is removed.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(err) => Err(StoreError::io("remove", self.path.join(name), err)),
        }
    }

    /// Removes a folder inside with the files in it and in the folders in it.
    pub(super) fn remove_folder(&self, name: &str) -> Result<()> {
        let mut attempts = ATTEMPTS;
        loop {
            if let Some(folder) = self.sub(name)? {
                for (entry, kind) in folder.entries()? {
                    if kind == FileType::Directory {
                        folder.remove_folder(&entry)?;
                    } else {
                        folder.remove(&entry)?;
                    }
                }
            }
            match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // A writer that had opened the folder has made the file of its lock before it saw that it is gone.
                Err(Errno::NOTEMPTY) if attempts > 0 => attempts -= 1,
                Err(err) => return Err(StoreError::io("remove", self.path.join(name), err)),
            }
        }
    }

    /// The names inside, sorted.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        Ok(self.entries()?.into_iter().map(|(name, _)| name).collect())
    }

    fn entries(&self) -> Result<Vec<(String, FileType)>> {
        let fail = |err| StoreError::io("list", &self.path, err);
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name: &CStr = entry.file_name();
            let name = name.to_string_lossy().into_owned();
            if name != "." && name != ".." {
                entries.push((name, entry.file_type()));
            }
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(entries)
    }

    /// Gets what was renamed to the disk.
    pub(super) fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.fd).map_err(|err| StoreError::io("write", &self.path, err))
    }

    /// The lock of the writers of this folder.
    ///
    /// # Errors
    /// `Busy` when another one holds it for longer than any of them should.
    pub(super) fn lock(&self) -> Result<Lock> {
        let deadline = Instant::now() + PATIENCE;
        let (file, path) = self.lock_file()?;
        while !take_lock(&file, &path)? {
            if Instant::now() > deadline {
                return Err(StoreError::Busy(self.path.clone()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(Lock(file))
    }

    /// The lock, if it is free at this moment.
    pub(super) fn try_lock(&self) -> Result<Option<Lock>> {
        let (file, path) = self.lock_file()?;
        Ok(take_lock(&file, &path)?.then_some(Lock(file)))
    }

    fn lock_file(&self) -> Result<(File, PathBuf)> {
        let path = self.path.join(LOCK);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::openat(&self.fd, LOCK, flags, FILE_MODE) {
            Ok(fd) => Ok((File::from(fd), path)),
            Err(err) => Err(StoreError::io("open", path, err)),
        }
    }
}

/// The file of the writers' lock.
pub(super) const LOCK: &str = "lock";

/// Begins the name of a file that is being written.
pub(super) const TEMPORARY: &str = ".new-";

/// Takes the flock(2) of a file if it is free.
pub(super) fn take_lock(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(err)) => Err(StoreError::io("lock", path, err)),
    }
}

/// Whether a file still has the name under which it was opened.
pub(super) fn is_named(file: &File, folder: &Folder, name: &str) -> bool {
    let identity = file.metadata().map(|metadata| Identity::of(&metadata)).ok();
    identity.is_some() && identity == folder.identity(name)
}

/// Reads a file whose length is known to be sensible.
pub(super) fn read_whole(file: &mut File, length: u64, most: u64, path: &Path) -> Result<Vec<u8>> {
    if length > most {
        return Err(StoreError::unfit(
            path,
            format!("{length} bytes are more than the {most} that such a file can have"),
        ));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(|err| StoreError::io("read", path, err))?;
    Ok(bytes)
}

fn owned(uid: u32, mode: u32, path: &Path) -> Result<()> {
    let reason = if uid != rustix::process::geteuid().as_raw() {
        "belongs to another user"
    } else if mode & 0o022 != 0 {
        "can be written by other users"
    } else {
        return Ok(());
    };
    Err(StoreError::NotOurs {
        path: path.to_path_buf(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::make_root(&dir.path().join("deep/root")).unwrap();
        (dir, folder)
    }

    #[test]
    fn a_file_is_replaced_and_read_and_nobody_else_may_read_it() {
        let (_dir, folder) = folder();
        assert_eq!(folder.read("a", 10).unwrap(), None);
        folder.replace("a", b"one", true).unwrap();
        let (_, first) = folder.read("a", 10).unwrap().unwrap();
        folder.replace("a", b"two", true).unwrap();
        let (bytes, second) = folder.read("a", 10).unwrap().unwrap();
        assert_eq!(bytes, b"two");
        assert_ne!(first, second);
        assert_eq!(folder.names().unwrap(), ["a"]);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("a")), 0o600);
        assert_eq!(mode(folder.path()), 0o700);
        assert!(
            folder
                .read("a", 2)
                .unwrap_err()
                .to_string()
                .contains("3 bytes")
        );
    }

    #[test]
    fn links_pipes_and_what_others_can_write_are_refused() {
        let (dir, folder) = folder();
        let refused = |err: StoreError| matches!(err, StoreError::NotOurs { .. });
        std::fs::write(dir.path().join("elsewhere"), "x").unwrap();
        symlink(dir.path().join("elsewhere"), folder.path().join("link")).unwrap();
        assert!(refused(folder.read("link", 10).unwrap_err()));
        symlink(dir.path(), folder.path().join("linked")).unwrap();
        assert!(refused(folder.sub("linked").unwrap_err()));
        assert!(refused(
            Folder::root(&folder.path().join("linked")).unwrap_err()
        ));
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(refused(folder.read("pipe", 10).unwrap_err()));
        folder.replace("open", b"x", true).unwrap();
        let everybody = PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(folder.path().join("open"), everybody).unwrap();
        assert!(refused(folder.read("open", 10).unwrap_err()));
    }

    #[test]
    fn the_lock_has_one_holder() {
        let (_dir, folder) = folder();
        let lock = folder.try_lock().unwrap().unwrap();
        assert!(folder.try_lock().unwrap().is_none());
        drop(lock);
        assert!(folder.try_lock().unwrap().is_some());
    }

    #[test]
    fn a_folder_is_removed_with_all_that_is_in_it_but_not_what_links_lead_to() {
        let (dir, folder) = folder();
        std::fs::write(dir.path().join("kept"), "x").unwrap();
        let inner = folder.make("a").unwrap().make("b").unwrap();
        inner.replace("file", b"x", true).unwrap();
        symlink(dir.path(), inner.path().join("link")).unwrap();
        folder.remove_folder("a").unwrap();
        assert!(!inner.is_linked());
        assert!(folder.is_linked());
        assert!(dir.path().join("kept").exists());
        assert_eq!(folder.names().unwrap(), [""; 0]);
    }
}
