//! Finds a container: by its record wherever the project keeps some, else by the state of the runtime.

use std::collections::BTreeSet;
use std::path::Path;

use super::Roots;
use crate::cli::Failure;
use crate::config::nearest;
use crate::control::{self, ControlError, Record};
use crate::model::ContainerId;
use crate::runtime::{Container, RuntimeError, Store};

/// A container.
pub(in crate::cli) struct Found {
    pub(in crate::cli) namespace: String,
    pub(in crate::cli) container: Container,
    /// What whoever looks after it has written down.
    pub(in crate::cli) record: Option<Record>,
}

/// The container of that name.
///
/// # Errors
/// There is none, with the name that is most like it; several namespaces have one; its state cannot be read.
pub(in crate::cli) fn find(
    id: &ContainerId,
    namespace: Option<&str>,
    roots: &Roots,
) -> Result<Found, Failure> {
    let recorded = match &roots.given {
        Some(root) => control::by_root(id, root),
        None => match control::by_name(id, namespace) {
            Ok(found) => Some(found),
            // Nobody looks after it.
            Err(ControlError::NotFound { .. }) => None,
            Err(err) => return Err(err.into()),
        },
    };
    if let Some(control::Found {
        namespace, record, ..
    }) = recorded
    {
        let container = Store::new(&record.runtime_root).load(id)?;
        return Ok(Found {
            namespace,
            container,
            record: Some(record),
        });
    }
    let root = roots.given.as_ref().unwrap_or(&roots.usual);
    match Store::new(root).load(id) {
        Ok(container) => Ok(Found {
            namespace: namespace.map_or_else(|| name_of(root), str::to_owned),
            container,
            record: None,
        }),
        Err(RuntimeError::NotFound) => Err(Failure::new(unknown(id, root, roots))),
        Err(err) => Err(err.into()),
    }
}

/// The namespace of containers that only their runtime knows, as the monitor would call it.
fn name_of(root: &Path) -> String {
    let name = root.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn unknown(id: &ContainerId, root: &Path, roots: &Roots) -> String {
    let mut known = match roots.given {
        Some(_) => BTreeSet::new(),
        None => control::ids(),
    };
    let stored = Store::new(root).list().unwrap_or_default();
    known.extend(stored.into_iter().map(|container| container.state.id));
    let near = nearest::nearest(id.as_str(), known.iter().map(String::as_str));
    let hint = match near {
        Some(name) => format!(", did you mean {name:?}?"),
        None => "; a bundle folder is given with a slash, as ./NAME".to_owned(),
    };
    let records = match roots.given {
        Some(_) => String::new(),
        None => format!("{} and ", control::STATE),
    };
    format!(
        "there is no container {:?} (looked in {records}{}){hint}",
        id.as_str(),
        root.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_has_is_told_with_where_it_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots {
            given: Some(dir.path().to_path_buf()),
            usual: Default::default(),
        };
        let text = match find(&"x".parse().unwrap(), None, &roots) {
            Err(failure) => failure.text,
            Ok(_) => panic!("found"),
        };
        let place = dir.path().display();
        let begin = format!("there is no container \"x\" (looked in {place})");
        assert!(text.starts_with(&begin), "{text}");
        assert!(text.ends_with("./NAME"), "{text}");
    }
}
