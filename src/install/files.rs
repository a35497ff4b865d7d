//! Files, each replaced by rename: who reads it meanwhile finds the old one or the new one.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::error::{InstallError, Result};
use crate::kernel::exe;

/// How long another installation is waited for, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// The SHA-256 of some bytes, as sha256sum(1) prints it.
pub(super) fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of a file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(InstallError::io("read", path)(err)),
    }
}

/// The same as text.
pub(super) fn read_text(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read(path)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|err| InstallError::Syntax {
        path: path.to_owned(),
        line: line_of(err.as_bytes(), err.utf8_error().valid_up_to()),
        text: "not UTF-8".to_owned(),
    })?;
    Ok(Some(text))
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    let before = bytes.iter().take(at);
    before
        .filter(|byte| **byte == b'\n')
        .count()
        .saturating_add(1)
}

/// The name under which a file is written before it takes its place. Always the same one, so that what a killed run has
/// left is overwritten by the next.
fn temporary(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".elastic-mem.new");
    path.with_file_name(name)
}

/// Where the earlier content of a file is kept.
pub(super) fn backup(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".before-elastic-mem");
    path.with_file_name(name)
}

/// Writes a file. One that is there keeps its owner and mode, and a link to it stays a link.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    write_as(&path, bytes, &path, 0o644)
}

/// Keeps some bytes in a file that the same users can read as `of`.
pub(super) fn keep(path: &Path, bytes: &[u8], of: &Path) -> Result<()> {
    write_as(path, bytes, of, 0o600)
}

/// Writes a file with owner and mode of another one, or with `mode` if that is not there.
fn write_as(path: &Path, bytes: &[u8], like: &Path, mode: u32) -> Result<()> {
    let found = fs::metadata(like).ok();
    put(path, |file, temporary| {
        file.write_all(bytes)?;
        let mode = found.as_ref().map_or(mode, |found| found.mode() & 0o7777);
        if let Some(found) = &found {
            chown(temporary, Some(found.uid()), Some(found.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(mode))
    })
}

/// Writes the running program to a file. Processes that run the earlier one keep it.
pub(super) fn write_program(path: &Path) -> Result<()> {
    put(path, |file, _| {
        io::copy(&mut File::open(exe::SELF)?, file)?;
        file.set_permissions(Permissions::from_mode(0o755))
    })
}

fn put(path: &Path, fill: impl FnOnce(&mut File, &Path) -> io::Result<()>) -> Result<()> {
    let temporary = temporary(path);
    let written = File::create(&temporary).and_then(|mut file| {
        fill(&mut file, &temporary)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(InstallError::io("write", path))
}

/// Makes a link, in place of whatever file has its name.
pub(super) fn link(path: &Path, target: &Path) -> Result<()> {
    let temporary = temporary(path);
    let _ = fs::remove_file(&temporary);
    symlink(target, &temporary)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(InstallError::io("link", path))
}

/// Whether a file holds the running program.
pub(super) fn is_this_program(path: &Path) -> bool {
    is_same(path).unwrap_or_default()
}

fn is_same(path: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(exe::SELF)?, File::open(path)?);
    let (one_data, other_data) = (one.metadata()?, other.metadata()?);
    if (one_data.dev(), one_data.ino()) == (other_data.dev(), other_data.ino()) {
        return Ok(true);
    }
    if one_data.len() != other_data.len() || other_data.mode() & 0o111 == 0 {
        return Ok(false);
    }
    let mut one_bytes = Vec::new();
    one.read_to_end(&mut one_bytes)?;
    let mut other_bytes = Vec::new();
    other.read_to_end(&mut other_bytes)?;
    Ok(one_bytes == other_bytes)
}

/// Removes what a killed run has left beside a file.
pub(super) fn sweep(path: &Path) {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // There is none as a rule.
    let _ = fs::remove_file(temporary(&path));
}

/// Removes a file.
pub(super) fn remove(path: &Path) -> Result<()> {
    // Of links, that of the link itself.
    let _ = fs::remove_file(temporary(path));
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(InstallError::io("remove", path)(err))
        }
        _ => Ok(()),
    }
}

/// The folders above a path that are not there, the uppermost first.
pub(super) fn missing_folders(path: &Path) -> Vec<PathBuf> {
    let above = path.ancestors().skip(1);
    let missing = above.take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let mut folders: Vec<_> = missing.map(Path::to_owned).collect();
    folders.reverse();
    folders
}

/// The one writer of an installation, as long as it is held.
#[derive(Debug)]
pub(super) struct Lock {
    folder: PathBuf,
    #[allow(dead_code, reason = "held open, that is all")]
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // It may be there for the lock alone; with anything in it, it stays.
        let _ = fs::remove_dir(&self.folder);
    }
}

impl Lock {
    /// Locks a folder, which is made if it is not there.
    pub(super) fn take(folder: &Path) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        loop {
            fs::create_dir_all(folder).map_err(InstallError::io("create", folder))?;
            let file = File::open(folder).map_err(InstallError::io("open", folder))?;
            let is_held = file.try_lock().is_ok();
            // The one that was waited for may have removed the folder.
            let inode = |found: fs::Metadata| (found.dev(), found.ino());
            let is_current =
                fs::metadata(folder).ok().map(inode) == file.metadata().ok().map(inode);
            if is_held && is_current {
                return Ok(Self {
                    folder: folder.to_owned(),
                    file,
                });
            }
            if Instant::now() > end {
                return Err(InstallError::Locked(folder.to_owned()));
            }
            std::thread::sleep(LOOK);
        }
    }
}
