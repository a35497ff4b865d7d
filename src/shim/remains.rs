//! `delete`: what containerd calls when a server no longer answers, and, by some versions, after every
//! normal end. Then there is nothing left to do, and it must be quick.

use std::path::{Path, PathBuf};

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};

use super::args::Args;
use super::options::Options;
use super::{bootstrap, rootfs, terminal};
use crate::control::Folder;
use crate::model::ContainerId;
use crate::runtime::{self, Store, chain};

/// The exit code of a process that was ended by SIGKILL.
const KILLED: u32 = 137;

/// Removes everything that a container may have left; the answer for containerd.
///
/// # Errors
/// What could not be removed and why. The rest has been removed nevertheless.
pub(super) fn delete(args: &Args) -> Result<Vec<u8>, String> {
    let id: ContainerId = args.id.parse().map_err(|err| format!("{err}"))?;
    let folder = Folder::of(&args.namespace, id.as_str());
    let record = folder.read();
    let default = Options::default().runtime_root(&args.namespace);
    let root = record
        .as_ref()
        .map_or(default, |record| record.runtime_root.clone());
    let bundle = bundle(args, record.as_ref().map(|record| record.bundle.as_path()))?;
    let store = Store::new(root);
    let pid = store
        .load(&id)
        .ok()
        .and_then(|container| container.state.init)
        .map_or(0, |init| init.pid);
    let deleted = runtime::delete(&store, &id, true);
    rootfs::unmount(&bundle.join("rootfs"));
    bootstrap::remove_socket(&bundle);
    terminal::sweep();
    folder.remove();
    deleted.map_err(|err| format!("delete {id}: {}", chain(&err)))?;
    let response = DeleteResponse {
        pid: u32::try_from(pid).unwrap_or(0),
        exit_status: KILLED,
        exited_at: MessageField::some(super::process::now()),
        ..DeleteResponse::default()
    };
    response
        .write_to_bytes()
        .map_err(|err| format!("encode the answer: {err}"))
}

/// The bundle by the flag, the record, or the working folder.
fn bundle(args: &Args, recorded: Option<&Path>) -> Result<PathBuf, String> {
    match (&args.bundle, recorded) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(path)) => Ok(path.to_path_buf()),
        (None, None) => std::env::current_dir().map_err(|err| format!("working folder: {err}")),
    }
}
