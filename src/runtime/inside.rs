//! A folder of the host that a container sees at [`INSIDE`]: whoever looks after its memory listens there for what the
//! function says of itself.
//!
//! It is a folder and not the socket, so that the socket can come later and be replaced. The mounts of the bundle stay as
//! they are: a copy of the mount is handed to the container's own process ([`mount::detached_copy`]), which in a user
//! namespace could not find the folder by its path, since everything around it is for root alone.
//!
//! Nothing here stops a container: without the folder it only cannot speak.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::mount::MsFlags;
use serde_json::Value;

use super::state::{Container, Folder};
use crate::kernel::{mount, process};

/// Where a container sees it.
pub const INSIDE: &str = "/run/elastic-mem-control";
/// Its name in the state folder of the container.
const FOLDER: &str = "inside";

impl Container {
    /// The folder that the container sees, if it was to have one.
    pub fn inside(&self) -> Option<PathBuf> {
        let path = self.folder.path().join(FOLDER);
        path.is_dir().then_some(path)
    }
}

/// Makes the folder; what is to be mounted.
///
/// # Errors
/// Why it cannot be, for the log.
pub(super) fn prepare(config: &Value, folder: &Folder) -> Result<Rc<OwnedFd>, String> {
    if !has_own_mounts(config) {
        return Err("it has no mount namespace of its own".to_owned());
    }
    let mounts = config.get("mounts").and_then(Value::as_array);
    let is_taken = mounts.into_iter().flatten().any(|mount| {
        let target = mount.get("destination").and_then(Value::as_str);
        target.is_some_and(|target| Path::new(target).starts_with(INSIDE))
    });
    if is_taken {
        return Err(format!("its bundle mounts something at {INSIDE}"));
    }
    let path = folder.path().join(FOLDER);
    make(&path)
        .and_then(|()| mount::detached_copy(&path))
        .map(Rc::new)
        .map_err(|err| format!("{}: {}", path.display(), crate::kernel::reason(&err)))
}

/// Every user of the container may look into it.
fn make(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Whether the container gets a mount namespace that nobody else has.
fn has_own_mounts(config: &Value) -> bool {
    let namespaces = config
        .pointer("/linux/namespaces")
        .and_then(Value::as_array);
    namespaces.into_iter().flatten().any(|namespace| {
        let path = namespace.get("path").and_then(Value::as_str);
        namespace.get("type").and_then(Value::as_str) == Some("mount")
            && path.is_none_or(str::is_empty)
    })
}

/// Attaches the folder, seen from inside the container. It can only be read there.
pub(super) fn attach(tree: &OwnedFd) -> io::Result<()> {
    let target = Path::new(INSIDE);
    mount::attach(tree.as_fd(), target)?;
    // What the container mounts there stays its own.
    mount::set_propagation(target, MsFlags::MS_PRIVATE)
        .and_then(|()| mount::seal(target))
        .inspect_err(|_| {
            // The container is not to write into a folder of the host.
            let _ = mount::unmount_all(target);
        })
}

/// Whether the container has the folder.
pub(super) fn is_there(folder: &Folder, init: i32) -> bool {
    let inside = process::root_path(init).join(INSIDE.trim_start_matches('/'));
    let identity = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino()))
    };
    let own = identity(&folder.path().join(FOLDER));
    own.is_some() && own == identity(&inside)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_mount_namespace_of_its_own_is_changed() {
        let with = |namespace: Value| json!({"linux": {"namespaces": [namespace]}});
        assert!(has_own_mounts(&with(json!({"type": "mount"}))));
        assert!(has_own_mounts(&with(json!({"type": "mount", "path": ""}))));
        assert!(!has_own_mounts(&with(
            json!({"type": "mount", "path": "/proc/1/ns/mnt"})
        )));
        assert!(!has_own_mounts(&with(json!({"type": "pid"}))));
        assert!(!has_own_mounts(&json!({})));
    }
}
