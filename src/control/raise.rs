//! Limits go up before somebody changes a container, and when whoever lowered them is dead.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::client::Client;
use super::error::Result;
use super::find::{self, Found};
use super::message::Request;
use super::record::Folder;
use super::{STATE, create_folder};
use crate::model::ContainerId;
use crate::runtime::chain;

/// How long a verb waits until the limit is raised.
const PATIENCE: Duration = Duration::from_millis(50);
/// How often the records of the host are looked through, at most.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// When that was done last.
const SWEPT: &str = ".swept";

/// Keeps the limit of a container at its ceiling until it is dropped, or until the process ends.
#[derive(Debug)]
#[must_use = "the limit may be lowered again when this is dropped"]
pub struct Hold {
    _client: Option<Client>,
}

/// Raises the limit of a container to its ceiling, through whoever looks after it, or else by its record. Nothing is done
/// for a container whose limit nobody changes.
pub fn hold(id: &ContainerId, root: &Path) -> Hold {
    let none = Hold { _client: None };
    let Some(found) = find::by_root(id, root) else {
        return none;
    };
    if !found.record.mode.grants() && !found.record.is_lowered() {
        return none;
    }
    let asked = Client::connect(&found.folder, PATIENCE).and_then(|mut client| {
        client.ask(&Request::Hold)?;
        Ok(client)
    });
    match asked {
        Ok(client) => Hold {
            _client: Some(client),
        },
        Err(err) => {
            tracing::warn!(%id, "memory limit not raised by asking: {}", chain(&err));
            give_back(&found.folder);
            none
        }
    }
}

/// Gives back what a container is owed, if whoever looked after it is dead.
pub fn restore(id: &ContainerId, root: &Path) {
    if let Some(found) = find::by_root(id, root) {
        restore_of_dead(&found);
    }
}

/// Removes what a dead owner has left of a container that was removed.
pub fn forget(id: &ContainerId, root: &Path) {
    if let Some(found) = find::by_root(id, root).filter(|found| !found.record.is_kept()) {
        found.folder.remove();
    }
}

fn restore_of_dead(found: &Found) {
    // Neither needs a system call in the usual case.
    if found.record.is_lowered() && !found.record.is_kept() {
        give_back(&found.folder);
    }
}

/// Raises the limit of a container by its record: whoever looks after it does not answer.
pub fn give_back(folder: &Folder) {
    // It may have been lowered, or somebody else may have been here, since it was read.
    let Some(mut record) = folder.read().filter(|record| record.is_lowered()) else {
        return;
    };
    let path = folder.path().display();
    match record.restore() {
        Ok(true) => {
            tracing::warn!(folder = %path, "memory limit raised to the ceiling by its record")
        }
        Ok(false) => {}
        Err(err) => {
            let reason = chain(&err);
            tracing::warn!(folder = %path, reason, "memory limit not raised to the ceiling");
            return;
        }
    }
    // So that it is done once.
    if let Err(err) = folder.save(&record) {
        tracing::debug!(folder = %path, "record not written: {}", chain(&err));
    }
}

/// Looks through the records of the host: gives back what is owed by the dead, and removes what is said of containers
/// that are gone. At most once a minute, whoever asks.
pub fn sweep() {
    if let Err(err) = sweep_in(Path::new(STATE)) {
        tracing::debug!("records not looked through: {}", chain(&err));
    }
}

/// Whether it was time to.
fn sweep_in(state: &Path) -> Result<bool> {
    let stamp = state.join(SWEPT);
    let age = std::fs::metadata(&stamp)
        .and_then(|meta| meta.modified())
        .ok()
        .and_then(|time| time.elapsed().ok());
    if age.is_some_and(|age| age < SWEEP_EVERY) {
        return Ok(false);
    }
    create_folder(state)?;
    File::create(&stamp).map_err(|err| super::ControlError::io("create", &stamp, err))?;
    for found in find::all_in(state) {
        if found.record.is_stale() {
            tracing::info!(folder = %found.folder.path().display(), "stale record removed");
            found.folder.remove();
        } else {
            restore_of_dead(&found);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::record::{Folder, Record};
    use super::*;

    #[test]
    fn what_is_said_of_containers_that_are_gone_is_removed_once_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        let put = |id: &str| {
            let folder = Folder::at(state.join("ns").join(id));
            let record = Record::new(Path::new("/b"), Path::new("/r"), None).unwrap();
            folder.write(record).unwrap();
            folder
        };
        let (alive, dead) = (put("alive"), put("dead"));
        let path = dead.path().join("state.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let start = text.find("\"startTime\":").unwrap();
        let mut other = text.clone();
        other.insert(start + "\"startTime\":".len(), '1');
        std::fs::write(&path, other).unwrap();
        assert!(sweep_in(state).unwrap());
        assert!(alive.read().is_some());
        assert!(!dead.path().exists());
        std::fs::create_dir(dead.path()).unwrap();
        std::fs::write(&path, text).unwrap();
        assert!(!sweep_in(state).unwrap());
    }
}
