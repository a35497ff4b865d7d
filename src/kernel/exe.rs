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
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{AtFlags, FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use rustix::mount::OpenTreeFlags;

use super::{KernelError, Result, read_text};

/// The running executable, also after its file was replaced.
pub const SELF: &str = "/proc/self/exe";
/// Settings of glibc's allocator, read when a program begins (GNU C Library manual, "Tunables").
const TUNABLES: &str = "GLIBC_TUNABLES";
/// No blocks that each thread keeps for itself, and one heap for all. What one thread allocates and another frees fills
/// these stores over hundreds of containers.
const SMALL_HEAP: &str = "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1";
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

/// Has the program that `command` will start, which lives long, keep no more memory than it needs, at some cost of each
/// allocation. Settings that were given from outside stay.
pub fn keep_heap_small(command: &mut Command) {
    if std::env::var_os(TUNABLES).is_none() {
        command.env(TUNABLES, SMALL_HEAP);
    }
}

/// Has the program that `command` will start, which lives for a moment, allocate fast again.
pub fn keep_heap_fast(command: &mut Command) {
    if std::env::var_os(TUNABLES).is_some_and(|value| value == SMALL_HEAP) {
        command.env_remove(TUNABLES);
    }
}

/// Gives up what the caller does not need at the moment: freed memory of the heap, and its view of pages of
/// the executable that are unchanged. They stay in the page cache and come back when they are touched.
///
/// The kernel maps pages around each one that is used, so that a process that has just started counts
/// megabytes of code that ran once or never. For a process in which no thread changes how the executable is mapped.
///
/// # Errors
/// `Io` when the kernel does not tell what is mapped, or refuses.
pub fn give_up_unused_memory() -> Result<()> {
    let path = Path::new("/proc/self/smaps");
    let own = std::fs::metadata(SELF).map_err(|err| KernelError::io("stat", SELF, err))?;
    for (start, end) in unchanged_mappings(&read_text(path)?, own.ino()) {
        let length = end.saturating_sub(start);
        // SAFETY: the range is one mapping of a file that is not writable and of which no page has a private
        // copy: what is dropped is read from the file again. No thread maps the executable in another way meanwhile.
        let rc = unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(start),
                length,
                libc::MADV_DONTNEED,
            )
        };
        if rc != 0 {
            let err = io::Error::last_os_error();
            return Err(KernelError::io("madvise a mapping of", SELF, err));
        }
    }
    // SAFETY: takes one integer; the allocator keeps its own locks.
    unsafe { libc::malloc_trim(0) };
    Ok(())
}

/// Address ranges of the mappings of a file that cannot be written and of which no page was copied, from the
/// text of `/proc/PID/smaps` (proc_pid_smaps(5)).
fn unchanged_mappings(smaps: &str, inode: u64) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some(first) = fields.next() else { continue };
        match first {
            "Anonymous:" => {
                if let Some(range) = current.take()
                    && fields.next() == Some("0")
                {
                    found.push(range);
                }
            }
            // A line with a colon at its first word describes the mapping above it.
            word if !word.ends_with(':') => {
                let is_read_only = fields.next().is_some_and(|flags| !flags.contains('w'));
                let is_own = fields.nth(2).and_then(|text| text.parse().ok()) == Some(inode);
                current = parse_range(word).filter(|_| is_read_only && is_own);
            }
            _ => {}
        }
    }
    found
}

fn parse_range(text: &str) -> Option<(usize, usize)> {
    let (start, end) = text.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some((number(start)?, number(end)?))
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

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-2000 r--p 00000000 fd:00 42                         /bin/x
Rss:                   4 kB
Anonymous:             0 kB
2000-3000 r-xp 00001000 fd:00 42                         /bin/x
Anonymous:             0 kB
3000-4000 r--p 00002000 fd:00 42                         /bin/x
Anonymous:             4 kB
4000-5000 rw-p 00003000 fd:00 42                         /bin/x
Anonymous:             0 kB
5000-6000 r--p 00000000 fd:00 43                         /bin/y
Anonymous:             0 kB
6000-7000 rw-p 00000000 00:00 0
Anonymous:             0 kB
VmFlags: rd ex mr mw me
";

    #[test]
    fn only_unchanged_mappings_of_the_file_are_given_up() {
        assert_eq!(
            unchanged_mappings(SMAPS, 42),
            [(0x1000, 0x2000), (0x2000, 0x3000)]
        );
    }

    #[test]
    fn the_program_goes_on_without_its_pages() {
        // The test itself has several threads, but none that copies a page of the executable.
        give_up_unused_memory().unwrap();
        assert_eq!(std::hint::black_box("x".repeat(3)), "xxx");
    }
}
