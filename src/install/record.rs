//! What was installed: `installed.json` beside our configuration. It is written before what it speaks of is done, so
//! that a run that is killed leaves nothing unknown.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{InstallError, Result};
use super::files;
use super::{Host, Part};

/// The version of the form.
const VERSION: u32 = 1;
/// The name of the file.
pub(super) const NAME: &str = "installed.json";

/// What was installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// The folder above `bin` and `share`, as given.
    pub(super) prefix: PathBuf,
    /// Folders that were made, the uppermost first.
    pub(super) folders: Vec<PathBuf>,
    /// Files that were made or changed.
    pub(super) files: Vec<Entry>,
    /// Where earlier content is being kept of files that are not changed yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) begun: Vec<PathBuf>,
}

/// A file that was made or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// What it belongs to.
    pub(super) part: Part,
    /// The file, without the folder that stands for the root of the host.
    pub(super) path: PathBuf,
    /// The SHA-256 of what was written; absent of programs and links, which nobody edits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<String>,
    /// Where the earlier content is; absent if there was no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) backup: Option<PathBuf>,
}

impl Record {
    /// The record of an installation in which there is nothing yet.
    pub(super) fn new(prefix: PathBuf) -> Self {
        Self {
            version: VERSION,
            prefix,
            folders: Vec::new(),
            files: Vec::new(),
            begun: Vec::new(),
        }
    }

    /// Removes what a run that was killed had begun to keep: nothing was changed yet.
    pub(super) fn take_back_begun(&mut self, host: &Host) -> Result<()> {
        for path in std::mem::take(&mut self.begun) {
            let is_kept = |entry: &Entry| entry.backup.as_ref() == Some(&path);
            if !self.files.iter().any(is_kept) {
                files::remove(&host.here(&path))?;
            }
        }
        Ok(())
    }

    /// Reads a record; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let Some(text) = files::read_text(path)? else {
            return Ok(None);
        };
        let wrong = |text: String| InstallError::Record {
            path: path.to_owned(),
            text,
        };
        let record: Self = serde_json::from_str(&text).map_err(|err| wrong(err.to_string()))?;
        match record.version {
            VERSION => Ok(Some(record)),
            other => Err(wrong(format!("its form is version {other}, not {VERSION}"))),
        }
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|err| InstallError::Record {
            path: path.to_owned(),
            text: err.to_string(),
        })?;
        files::write(path, format!("{text}\n").as_bytes())
    }

    /// The entry of a file.
    pub(super) fn entry(&self, path: &Path) -> Option<&Entry> {
        self.files.iter().find(|entry| entry.path == path)
    }

    /// Puts an entry in place of the earlier one of the file.
    pub(super) fn put(&mut self, entry: Entry) {
        match self.files.iter_mut().find(|one| one.path == entry.path) {
            Some(earlier) => *earlier = entry,
            None => self.files.push(entry),
        }
    }

    /// Forgets a file.
    pub(super) fn forget(&mut self, path: &Path) {
        self.files.retain(|entry| entry.path != path);
    }
}
