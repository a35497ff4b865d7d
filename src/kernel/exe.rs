//! Protection of this executable against being overwritten from inside a container (CVE-2019-5736).
//!
//! A process that is about to become the container's init still runs this executable, and the container
//! can reach it as `/proc/PID/exe`. So the command first executes itself again through a view that nobody
//! can write to: a detached read-only bind mount of its own file, or, where that is not allowed, a sealed
//! copy in memory (memfd_create(2)).

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{AtFlags, FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use rustix::mount::OpenTreeFlags;

/// The running executable, also after its file was replaced.
pub const SELF: &str = "/proc/self/exe";
/// Set for the second execution only; stops a loop should the protected view not be recognised.
const MARK: &str = "ELASTIC_MEM_PROTECTED";
const MOUNT_ATTR_RDONLY: u64 = 0x1;

/// Whether the running executable cannot be written through `/proc/self/exe`.
pub fn is_protected() -> bool {
    let Ok(file) = File::open(SELF) else {
        return false;
    };
    let read_only = nix::sys::statvfs::fstatvfs(&file)
        .is_ok_and(|fs| fs.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    read_only
        || fcntl(file.as_raw_fd(), FcntlArg::F_GET_SEALS)
            .is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_WRITE))
}

/// Executes the running command again from a view that cannot be written, unless that is already so.
///
/// Returns only when the executable is protected already; otherwise the process continues from `main`
/// with the same arguments and environment.
///
/// # Errors
/// When neither view can be made; the container must then not be started.
pub fn protect() -> io::Result<()> {
    if is_protected() {
        return Ok(());
    }
    if std::env::var_os(MARK).is_some() {
        return Err(io::Error::other(
            "the protected view is not recognised as such",
        ));
    }
    let view = read_only_mount().or_else(|_| sealed_copy())?;
    let args = c_strings(std::env::args_os())?;
    let mark = std::ffi::OsString::from(format!("{MARK}=1"));
    let environment = std::env::vars_os().map(|(mut pair, value)| {
        pair.push("=");
        pair.push(value);
        pair
    });
    let environment = c_strings(environment.chain(std::iter::once(mark)))?;
    nix::unistd::execveat(
        Some(view.as_raw_fd()),
        c"",
        &args,
        &environment,
        AtFlags::AT_EMPTY_PATH,
    )?;
    Ok(())
}

fn c_strings<S: AsRef<OsStr>>(strings: impl Iterator<Item = S>) -> io::Result<Vec<CString>> {
    strings
        .map(|s| CString::new(s.as_ref().as_bytes()).map_err(io::Error::from))
        .collect()
}

/// A bind mount of the executable, attached nowhere and read-only. Linux 5.12, CAP_SYS_ADMIN.
fn read_only_mount() -> io::Result<OwnedFd> {
    let tree = rustix::mount::open_tree(
        rustix::fs::CWD,
        SELF,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr {
        set: MOUNT_ATTR_RDONLY,
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: `tree` is an open descriptor, the path is an empty NUL-terminated string, and `attr` has the
    // layout of struct mount_attr (mount_setattr(2)) and lives across the call.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(&attr),
            size_of::<MountAttr>(),
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tree)
}

/// A copy of the executable in memory that can neither grow, shrink nor change.
fn sealed_copy() -> io::Result<OwnedFd> {
    let copy = memfd_create(
        c"elastic-mem",
        MemFdCreateFlag::MFD_CLOEXEC | MemFdCreateFlag::MFD_ALLOW_SEALING,
    )?;
    let mut writer = File::from(copy.try_clone()?);
    io::copy(&mut File::open(SELF)?, &mut writer)?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(copy.as_raw_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    // A file that is open for writing cannot be executed.
    drop(writer);
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    let reopened = nix::fcntl::open(
        path.as_str(),
        nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?;
    // SAFETY: the descriptor was opened on the line above and is owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(reopened) })
}

/// Removes the mark of the second execution from the environment, so that no child inherits it.
pub fn forget_mark() {
    // SAFETY: called first thing in `main`, while the process has one thread.
    unsafe { std::env::remove_var(MARK) }
}
