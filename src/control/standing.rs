//! How each container of the host stands: who looks after it, and whether anything is owed to it.

use std::path::{Path, PathBuf};

use super::STATE;
use super::find::{names, namespaces};
use super::record::Folder;

/// A folder of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its namespace.
    pub namespace: String,
    /// Its id.
    pub id: String,
    /// The folder.
    pub folder: PathBuf,
    /// What is recorded; none if that cannot be read.
    pub record: Option<Recorded>,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The process that looks after the container, if it lives.
    pub keeper: Option<i32>,
    /// Whether the container is granted less than it may have.
    pub is_lowered: bool,
    /// Whether the container is gone.
    pub is_stale: bool,
}

/// All containers of the host. Changes nothing.
pub fn standing() -> Vec<Standing> {
    standing_in(Path::new(STATE))
}

fn standing_in(state: &Path) -> Vec<Standing> {
    let folders = namespaces(state).flat_map(|namespace| {
        let inside = state.join(&namespace);
        names(&inside).map(move |id| (namespace.clone(), inside.join(&id), id))
    });
    let mut all: Vec<Standing> = folders
        .map(|(namespace, folder, id)| {
            let record = Folder::at(folder.clone()).read();
            Standing {
                namespace,
                id,
                folder,
                record: record.map(|record| Recorded {
                    keeper: record.keeper(),
                    is_lowered: record.is_lowered(),
                    is_stale: record.is_stale(),
                }),
            }
        })
        .collect();
    all.sort_by(|a, b| a.folder.cmp(&b.folder));
    all
}

#[cfg(test)]
mod tests {
    use super::super::record::Record;
    use super::*;

    #[test]
    fn the_living_the_dead_and_what_cannot_be_read_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let put = |id: &str| {
            let folder = Folder::at(dir.path().join("ns").join(id));
            let record = Record::new(Path::new("/b"), Path::new("/r"), None).unwrap();
            folder.write(record).unwrap();
            folder.path().join("state.json")
        };
        put("alive");
        let file = put("dead");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("\"startTime\":", "\"startTime\":1")).unwrap();
        std::fs::write(put("broken"), "{").unwrap();
        let found = standing_in(dir.path());
        let kept: Vec<_> = found
            .iter()
            .map(|one| {
                (
                    one.id.as_str(),
                    one.record.map(|record| record.keeper.is_some()),
                )
            })
            .collect();
        let expected = [
            ("alive", Some(true)),
            ("broken", None),
            ("dead", Some(false)),
        ];
        assert_eq!(kept, expected);
    }
}
