//! Mounts that libcontainer does not make the way we need them.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::statvfs::FsFlags;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

/// Gives the caller mounts of its own, and with it the threads and processes that it starts later: what is mounted
/// then is seen by nobody else and goes with the last of them. Mounts that the host makes later still appear.
///
/// # Errors
/// The kernel's reason: `EPERM` without CAP_SYS_ADMIN.
pub fn enter_own_namespace() -> io::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    set_propagation(Path::new("/"), MsFlags::MS_SLAVE | MsFlags::MS_REC)
}

/// Mounts a view of the folder `lower` at `target`: what is changed there goes to `upper` (overlayfs). `work` is an
/// empty folder on the file system of `upper`.
///
/// # Errors
/// The kernel's reason; `EINVAL` when `upper` is on a file system that cannot hold changes, such as an overlay.
pub fn overlay(lower: &Path, upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    let mut options = Vec::new();
    for (name, path) in [("lowerdir", lower), ("upperdir", upper), ("workdir", work)] {
        if !options.is_empty() {
            options.push(b',');
        }
        options.extend_from_slice(name.as_bytes());
        options.push(b'=');
        options.extend_from_slice(&escape_option(path));
    }
    let kind = Some("overlay");
    let flags = MsFlags::empty();
    Ok(nix::mount::mount(
        kind,
        target,
        kind,
        flags,
        Some(options.as_slice()),
    )?)
}

/// A path as a value among the options of an overlay: commas end an option, colons a folder.
fn escape_option(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b',' | b':' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

/// A copy of the mounts at `path`, with those below it, attached nowhere yet (open_tree(2)).
///
/// # Errors
/// The kernel's reason: `ENOENT`, or `EPERM` without CAP_SYS_ADMIN.
pub fn detached_copy(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(rustix::mount::open_tree(rustix::fs::CWD, path, flags)?)
}

/// Unmounts everything at `path` and below; a path that is no mount point or does not exist is fine.
///
/// What is in use is taken out of the tree and goes when its last user does.
///
/// # Errors
/// The kernel's reason.
pub fn unmount_all(path: &Path) -> io::Result<()> {
    use nix::errno::Errno;
    use nix::mount::{MntFlags, umount2};
    loop {
        match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
            // There may be another mount beneath.
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            // Mounts below it, or an open file: the kernel takes the whole tree.
            Err(Errno::EBUSY) => umount2(path, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)?,
            Err(err) => return Err(err.into()),
        }
    }
}

/// Attaches a detached copy at `target` (move_mount(2)).
///
/// # Errors
/// The kernel's reason.
pub fn attach(tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(
        tree,
        "",
        rustix::fs::CWD,
        target,
        flags,
    )?)
}

/// Sets how mounts below `path` spread (mount_namespaces(7)): one of the propagation flags, with or without
/// `MS_REC`.
///
/// # Errors
/// The kernel's reason; `EINVAL` when `path` is no mount point.
pub fn set_propagation(path: &Path, flags: MsFlags) -> io::Result<()> {
    let none = None::<&str>;
    Ok(nix::mount::mount(none, path, none, flags, none)?)
}

/// Hides what is at `path`: a file behind /dev/null, a folder behind an empty one; a path that does not exist
/// is fine.
///
/// # Errors
/// The kernel's reason.
pub fn mask(path: &Path) -> io::Result<()> {
    let none = None::<&str>;
    match nix::mount::mount(Some("/dev/null"), path, none, MsFlags::MS_BIND, none) {
        Err(nix::errno::Errno::ENOENT) => Ok(()),
        Err(nix::errno::Errno::ENOTDIR) => {
            let kind = Some("tmpfs");
            Ok(nix::mount::mount(
                kind,
                path,
                kind,
                MsFlags::MS_RDONLY,
                none,
            )?)
        }
        other => Ok(other?),
    }
}

/// Makes what is at `path` read-only, keeping its other flags; a path that does not exist is fine.
///
/// # Errors
/// The kernel's reason.
pub fn make_read_only(path: &Path) -> io::Result<()> {
    let none = None::<&str>;
    match nix::mount::mount(
        Some(path),
        path,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    ) {
        Err(nix::errno::Errno::ENOENT) => return Ok(()),
        other => other?,
    }
    remount(path, MsFlags::MS_RDONLY)
}

/// Makes the mount at `path` one that can only be read, without devices, programs and set-user-id bits.
///
/// # Errors
/// The kernel's reason; `EINVAL` when `path` is no mount point.
pub fn seal(path: &Path) -> io::Result<()> {
    let sealed = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    remount(path, sealed)
}

/// Adds flags to a mount and keeps the others.
fn remount(path: &Path, added: MsFlags) -> io::Result<()> {
    let none = None::<&str>;
    // A remount that leaves out a locked flag is refused, and one that adds a flag would change too much.
    let now = nix::sys::statvfs::statvfs(path)?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | added;
    for (set, flag) in [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if now.contains(set) {
            flags |= flag;
        }
    }
    Ok(nix::mount::mount(Some(path), path, none, flags, none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_with_a_meaning_among_options_are_escaped() {
        assert_eq!(escape_option(Path::new("/a,b:c\\d")), b"/a\\,b\\:c\\\\d");
    }
}
