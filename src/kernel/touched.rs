//! Which pages of a process were touched, read or written, by the accessed bits of its page tables.
//!
//! The kernel shows these bits nowhere page by page but in files that most distributions leave out
//! (`CONFIG_IDLE_PAGE_TRACKING`), and DAMON has one user at a time. But it counts them for each area (`Referenced` in
//! `/proc/PID/smaps`), clears them for a process (`/proc/PID/clear_refs`) and for a part of an area
//! (process_madvise(2) with `MADV_COLD`). So what a part is counted less by once it was cleared was touched in it.
//! Nothing of this outlives the caller, and the process notices nothing but that a part of its translations is looked up
//! again.

use std::io;
use std::os::fd::AsRawFd;

use super::process::ProcessHandle;
use super::{Result, pages, write_text};

/// Clear the bits of anonymous pages alone (Documentation/filesystems/proc.rst).
const ANONYMOUS: &str = "2";

/// Has the kernel forget what a process has touched of its anonymous memory until now.
///
/// # Errors
/// `Io`: it is gone, or we may not.
pub fn forget(pid: i32) -> Result<()> {
    write_text(&pages::file(pid, "clear_refs"), ANONYMOUS)
}

/// The same for the pages from `start` to before `end`. To the kernel they are the first to be given up then, until they
/// are touched again.
///
/// # Errors
/// `ESRCH` when it is gone, `EPERM` without CAP_SYS_NICE, `EINVAL` for memory that is locked, `ENOSYS` before Linux 5.10.
pub fn forget_part(process: &ProcessHandle, start: u64, end: u64) -> io::Result<()> {
    let length = usize::try_from(end.saturating_sub(start)).unwrap_or_default();
    let address = usize::try_from(start).unwrap_or_default();
    let part = libc::iovec {
        // An address of the other process: nothing is read through it.
        iov_base: std::ptr::without_provenance_mut(address),
        iov_len: length,
    };
    advise(process, &[part])
}

/// Whether this can be found out here: of this process, which is left as it is.
///
/// # Errors
/// What is missing.
pub fn can_tell() -> std::result::Result<(), String> {
    let own = std::process::id().cast_signed();
    if !pages::file(own, "clear_refs").exists() {
        return Err("the kernel has no /proc/PID/clear_refs (CONFIG_PROC_PAGE_MONITOR)".to_owned());
    }
    let process = ProcessHandle::of(own).map_err(|err| err.to_string())?;
    advise(&process, &[]).map_err(|err| match err.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has no process_madvise (Linux 5.10)".to_owned(),
        _ => format!("process_madvise: {}", super::reason(&err)),
    })
}

fn advise(process: &ProcessHandle, parts: &[libc::iovec]) -> io::Result<()> {
    use std::os::fd::AsFd;
    // SAFETY: the list has as many entries as is said, and the kernel reads it only; it does not follow the addresses
    // in this process, and the advice changes no content.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            process.as_fd().as_raw_fd(),
            parts.as_ptr(),
            parts.len(),
            libc::MADV_COLD,
            0,
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    const PAGES: u64 = 1024;

    /// A process with some memory of its own that touches a part of it when it is told to.
    const PROGRAM: &str = "import mmap,sys\n\
        n=4096\nm=mmap.mmap(-1,1024*n,mmap.MAP_PRIVATE|mmap.MAP_ANONYMOUS)\nm.madvise(15)\n\
        for i in range(1024): m[i*n]=1\n\
        import ctypes\nprint(ctypes.addressof(ctypes.c_char.from_buffer(m)),flush=True)\n\
        for line in sys.stdin:\n a,b=map(int,line.split())\n s=sum(m[i*n] for i in range(a,b))\n print(s,flush=True)\n";

    #[test]
    fn what_was_read_is_counted_and_parts_are_told_apart() {
        if let Err(reason) = can_tell() {
            eprintln!("SKIPPED: {reason}");
            return;
        }
        let Ok(mut child) = Command::new("python3")
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            eprintln!("SKIPPED: no python3");
            return;
        };
        let pid = child.id().cast_signed();
        let mut answers = child.stdout.take().unwrap();
        let mut line = || {
            let mut text = String::new();
            let mut byte = [0];
            while answers.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
                text.push(char::from(byte[0]));
            }
            text
        };
        let start: u64 = line().parse().unwrap();
        let area = |_: ()| {
            let all = pages::areas(pid).unwrap();
            let inside = |area: &&pages::Area| area.start <= start && start < area.end;
            *all.iter().find(inside).unwrap()
        };
        let size = pages::size();
        forget(pid).unwrap();
        assert!(area(()).touched.get() < 16 * size, "{:?}", area(()));
        // Read only.
        writeln!(child.stdin.as_mut().unwrap(), "256 512").unwrap();
        assert_eq!(line(), "256");
        let process = ProcessHandle::of(pid).unwrap();
        let mut touched = Vec::new();
        for part in 0..8 {
            let first = start + part * PAGES / 8 * size;
            let before = area(()).touched;
            forget_part(&process, first, first + PAGES / 8 * size).unwrap();
            touched.push(before.saturating_sub(area(()).touched).get() / size);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for (part, pages) in touched.iter().enumerate() {
            let wanted = if part == 2 || part == 3 { 128 } else { 0 };
            assert!(pages.abs_diff(wanted) <= 2, "{touched:?}");
        }
        assert!(forget(pid).is_err());
    }
}
