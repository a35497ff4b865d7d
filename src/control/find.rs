//! Which folder belongs to which container.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::path::Path;

use super::error::{ControlError, Result};
use super::record::{Folder, Record};
use super::{RUNTIME_STATE, STATE};
use crate::model::ContainerId;

/// A container that somebody looks after, or did.
#[derive(Debug)]
pub struct Found {
    /// Its namespace.
    pub namespace: String,
    /// Its folder.
    pub folder: Folder,
    /// What is recorded.
    pub record: Record,
}

impl Found {
    /// The name of the container.
    pub fn id(&self) -> Option<String> {
        Some(self.folder.path().file_name()?.to_str()?.to_owned())
    }
}

/// The namespace of containers whose state lies in `root`: that of containerd, `moby`, or else a name made from the
/// folder's. It is short, so that the path of a socket below it fits into an address (unix(7)).
pub fn namespace_of(root: &Path) -> String {
    let parent = root.parent().unwrap_or(root);
    let is = |path: &Path, name: &str| path.file_name().is_some_and(|last| last == name);
    let named = if parent.parent() == Some(Path::new(STATE)) && is(root, RUNTIME_STATE) {
        // Of our shim.
        parent.file_name()
    } else if is(root, "moby") || parent.ends_with("containerd/runc") {
        // Of Docker; of runc's shim.
        root.file_name()
    } else {
        None
    };
    named
        .and_then(|name| name.to_str())
        .map_or_else(|| hash(root), str::to_owned)
}

fn hash(root: &Path) -> String {
    let mut hasher = fnv::FnvHasher::default();
    hasher.write(root.as_os_str().as_encoded_bytes());
    format!("{:08x}", hasher.finish() >> 32)
}

/// The container of that name, in the namespace or in any.
///
/// # Errors
/// `NotFound`; `Ambiguous` when several namespaces have one.
pub fn by_name(id: &ContainerId, namespace: Option<&str>) -> Result<Found> {
    by_name_in(Path::new(STATE), id, namespace)
}

fn by_name_in(state: &Path, id: &ContainerId, namespace: Option<&str>) -> Result<Found> {
    let mut found: Vec<Found> = all_of(state, id)
        .filter(|found| namespace.is_none_or(|name| name == found.namespace))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(last), false) => {
            found.push(last);
            let mut namespaces: Vec<_> = found.into_iter().map(|one| one.namespace).collect();
            namespaces.sort();
            Err(ControlError::Ambiguous {
                id: id.clone(),
                namespaces,
            })
        }
        (None, _) => Err(ControlError::NotFound {
            id: id.clone(),
            place: state.join(namespace.unwrap_or("*")),
        }),
    }
}

/// The container of that name whose runtime has its state in `root`.
pub fn by_root(id: &ContainerId, root: &Path) -> Option<Found> {
    all_of(Path::new(STATE), id).find(|found| found.record.runtime_root == root)
}

/// The names of all containers that somebody looks after.
pub fn ids() -> BTreeSet<String> {
    all().filter_map(|found| found.id()).collect()
}

/// The names of all containers that there is anything of, as `NAMESPACE/NAME`, whether somebody looks after them or not.
pub fn all_names() -> Vec<String> {
    all_names_in(Path::new(STATE))
}

fn all_names_in(state: &Path) -> Vec<String> {
    let mut found = BTreeSet::new();
    // The command line's own folder is not below that of a namespace.
    found.extend(names(&state.join(RUNTIME_STATE)));
    for namespace in namespaces(state) {
        let folder = state.join(&namespace);
        let ids = names(&folder).chain(names(&folder.join(RUNTIME_STATE)));
        found.extend(ids.map(|id| format!("{namespace}/{id}")));
    }
    found.into_iter().collect()
}

fn all_of(state: &Path, id: &ContainerId) -> impl Iterator<Item = Found> {
    namespaces(state).filter_map(move |namespace| {
        let folder = Folder::at(state.join(&namespace).join(id));
        let record = folder.read()?;
        Some(Found {
            namespace,
            folder,
            record,
        })
    })
}

/// All containers of the host.
pub fn all() -> impl Iterator<Item = Found> {
    all_in(Path::new(STATE))
}

/// The same below another folder.
pub(super) fn all_in(state: &Path) -> impl Iterator<Item = Found> {
    namespaces(state).flat_map(move |namespace| {
        let ids = names(&state.join(&namespace));
        ids.filter_map(move |id| {
            let folder = Folder::at(state.join(&namespace).join(&id));
            Some(Found {
                record: folder.read()?,
                namespace: namespace.clone(),
                folder,
            })
        })
    })
}

pub(super) fn namespaces(state: &Path) -> impl Iterator<Item = String> + use<> {
    names(state)
}

/// Names of folders that are no other ones of ours, which begin with a dot.
pub(super) fn names(folder: &Path) -> impl Iterator<Item = String> + use<> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_give_namespaces_and_other_folders_a_short_name() {
        for (root, namespace) in [
            ("/run/elastic-mem/default/.oci", "default"),
            ("/run/docker/runtime-elastic-mem/moby", "moby"),
            ("/run/containerd/runc/k8s.io", "k8s.io"),
        ] {
            assert_eq!(namespace_of(Path::new(root)), namespace);
        }
        let other = namespace_of(Path::new("/run/elastic-mem/.oci"));
        assert_eq!(other.len(), 8);
        assert_ne!(other, namespace_of(Path::new("/run/mine")));
        // The longest ids of engines fit into the address of a socket.
        let socket = format!("{STATE}/{other}/{}/control.sock", "a".repeat(64));
        assert!(socket.len() <= 107, "{}", socket.len());
    }

    fn put(state: &Path, namespace: &str, id: &str, root: &str) {
        let record = Record::new(Path::new("/b"), Path::new(root), None).unwrap();
        let folder = Folder::at(state.join(namespace).join(id));
        folder.write(record).unwrap();
    }

    #[test]
    fn every_container_is_named_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        assert!(all_names_in(state).is_empty());
        put(state, "one", "a", "/r1");
        for folder in [".oci/cli", "one/.oci/a", "two/.oci/b", ".console/x"] {
            std::fs::create_dir_all(state.join(folder)).unwrap();
        }
        assert_eq!(all_names_in(state), ["cli", "one/a", "two/b"]);
    }

    #[test]
    fn a_name_that_several_namespaces_have_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        put(state, "one", "a", "/r1");
        put(state, "two", "a", "/r2");
        put(state, "two", "b", "/r2");
        let id: ContainerId = "a".parse().unwrap();
        let err = by_name_in(state, &id, None).unwrap_err().to_string();
        assert!(
            err.contains("one, two") && err.contains("--namespace"),
            "{err}"
        );
        let found = by_name_in(state, &id, Some("two")).unwrap();
        assert_eq!(found.record.runtime_root, Path::new("/r2"));
        let b: ContainerId = "b".parse().unwrap();
        assert_eq!(by_name_in(state, &b, None).unwrap().namespace, "two");
        let none: ContainerId = "c".parse().unwrap();
        let err = by_name_in(state, &none, Some("one"))
            .unwrap_err()
            .to_string();
        assert!(err.contains("/one)") && err.contains("c"), "{err}");
        assert_eq!(all_in(state).count(), 3);
    }
}
