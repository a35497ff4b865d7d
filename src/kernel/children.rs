//! Children: adopting orphans, reaping, and starting programs with descriptors at fixed numbers.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{WaitOptions, WaitStatus};

use super::cgroup::{Cgroup, Hierarchies};
use super::{KernelError, Result, read_text, write_text};

/// Makes the caller the parent of every orphan below it (`PR_SET_CHILD_SUBREAPER`, prctl(2)).
///
/// # Errors
/// The kernel's reason; none is known in practice.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// A child that has ended and was reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its process id, free for reuse from now on.
    pub pid: i32,
    /// The exit code, or 128 and the number of the signal that ended it.
    pub code: u32,
}

/// Reaps one child that has ended; `None` when there is none at this moment.
pub fn reap() -> Option<Ended> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                // Stopped and continued children are not reported without being asked for.
                if let Some(code) = exit_code(status) {
                    let pid = pid.as_raw_nonzero().get();
                    return Some(Ended { pid, code });
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

fn exit_code(status: WaitStatus) -> Option<u32> {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => signal.checked_add(128)?,
        (None, None) => return None,
    };
    u32::try_from(code).ok()
}

/// The exit code of a child that was waited for, or 128 and the number of the signal that ended it.
pub fn code_of(status: std::process::ExitStatus) -> u32 {
    use std::os::unix::process::ExitStatusExt;
    let signal = || status.signal().and_then(|signal| signal.checked_add(128));
    let code = status.code().or_else(signal);
    code.and_then(|code| u32::try_from(code).ok())
        .unwrap_or(255)
}

/// The number of the first descriptor that a program is given besides the standard streams.
const FIRST_GIVEN: RawFd = 3;

/// Where a program finds the descriptor with this index of those that it was given.
pub fn given_path(index: usize) -> PathBuf {
    PathBuf::from(format!(
        "/proc/self/fd/{}",
        index.saturating_add(FIRST_GIVEN.unsigned_abs() as usize)
    ))
}

/// Gives the program that `command` will start these descriptors as numbers 3, 4 and so on.
///
/// The caller must itself have those numbers in use: a free one might be taken by the standard library
/// for reporting that the program could not be executed, and would then be overwritten.
///
/// # Errors
/// When the caller has too many descriptors open.
pub fn give_descriptors(command: &mut Command, descriptors: Vec<OwnedFd>) -> io::Result<()> {
    // Above every target, so that no source is overwritten before its turn.
    const OUT_OF_THE_WAY: RawFd = 64;
    let sources: Vec<OwnedFd> = descriptors
        .into_iter()
        .map(|fd| rustix::io::fcntl_dupfd_cloexec(&fd, OUT_OF_THE_WAY))
        .collect::<rustix::io::Result<_>>()?;
    let enter = move || {
        for (target, source) in (FIRST_GIVEN..).zip(&sources) {
            // SAFETY: two integers; dup2 may be called between fork and execve (signal-safety(7)).
            if unsafe { libc::dup2(source.as_raw_fd(), target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: `enter` allocates nothing, takes no lock and calls only dup2.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// Gives the program that `command` will start a session of its own, so that signals to the caller's do not reach it
/// (setsid(2)).
pub fn detach(command: &mut Command) {
    // SAFETY: setsid takes nothing and may be called between fork and execve (signal-safety(7)).
    let enter = || match unsafe { libc::setsid() } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    // SAFETY: `enter` allocates nothing, takes no lock and calls only setsid.
    unsafe { command.pre_exec(enter) };
}

/// Has the program that `command` will start begin with all signals blocked: none but SIGKILL and SIGSTOP reaches it, at
/// no moment.
pub fn block_signals(command: &mut Command) {
    let enter = || Ok(nix::sys::signal::SigSet::all().thread_block()?);
    // SAFETY: `enter` allocates nothing, takes no lock and calls only sigfillset and pthread_sigmask.
    unsafe { command.pre_exec(enter) };
}

/// Closes what this process inherited besides the standard streams and the first so many descriptors after them. To be
/// done before it opens anything.
pub fn close_inherited(kept: u32) {
    let first = FIRST_GIVEN.unsigned_abs().saturating_add(kept);
    // SAFETY: three integers. Nobody in this process owns a descriptor of those numbers yet. An old kernel refuses.
    let _ = unsafe { libc::close_range(first, libc::c_uint::MAX, 0) };
}

/// Makes a process that was just forked independent of those who started its parent: a session of its own, the root as
/// its folder, nothing at its standard streams, and no descriptor that its parent was started with. Those that the parent
/// has opened itself stay open: they are closed on execve(2), and the others are not.
///
/// # Errors
/// The kernel's reason.
pub fn leave_caller() -> io::Result<()> {
    nix::unistd::setsid()?;
    std::env::set_current_dir("/")?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for stream in 0..FIRST_GIVEN {
        // SAFETY: two integers; the standard streams belong to nobody in this process.
        if unsafe { libc::dup2(null.as_raw_fd(), stream) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let mut inherited = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_string_lossy().parse::<RawFd>();
        inherited.extend(number.into_iter().filter(|number| *number >= FIRST_GIVEN));
    }
    for number in inherited {
        // SAFETY: two integers; an error means that it is not open, such as that of the folder that was read.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            // SAFETY: one integer; nothing in this process has opened it.
            unsafe { libc::close(number) };
        }
    }
    nix::sys::prctl::set_name(c"elastic-mem-mon")?;
    Ok(())
}

/// Has the kernel kill the program that `command` will start when the caller ends (`PR_SET_PDEATHSIG`, prctl(2)).
///
/// For a caller with a single thread: it is the end of the starting thread that counts.
pub fn end_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let enter = move || {
        // SAFETY: two integers; prctl may be called between fork and execve.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before that.
        if std::os::unix::process::parent_id() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: `enter` allocates nothing, takes no lock and calls only prctl and getppid.
    unsafe { command.pre_exec(enter) };
}

/// Takes over a descriptor that whoever started this process gave it; to be done once, before any other.
///
/// # Errors
/// When there is none of that number.
pub fn take_given(index: usize) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(index).map_err(io::Error::other)?;
    let number = number.saturating_add(FIRST_GIVEN);
    // Fails for a number that is not open, and keeps it from our own children.
    nix::fcntl::fcntl(
        number,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
    )?;
    Ok(super::process::adopt_fd(number))
}

/// Moves a process into an existing cgroup, given by its path below the root of every hierarchy.
///
/// # Errors
/// `Io` with the file that refused.
pub fn enter_cgroup(pid: u32, path: &Path) -> Result<()> {
    let hierarchies = Hierarchies::probe()?;
    let path = Path::new("/").join(path);
    let cgroup = Cgroup::for_spec(&hierarchies, Some(&path), "")?;
    cgroup.attach(pid.cast_signed())
}

/// Sets how willingly the OOM killer takes a process, -1000 to 1000 (`/proc/PID/oom_score_adj`).
///
/// # Errors
/// `Io`; lowering the value needs CAP_SYS_RESOURCE.
pub fn set_oom_score_adj(pid: u32, value: i32) -> Result<()> {
    let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
    write_text(&path, &value.to_string())
}

/// How willingly the OOM killer takes a process.
///
/// # Errors
/// `Io` when the process is gone, `Malformed`.
pub fn oom_score_adj(pid: u32) -> Result<i32> {
    let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
    let text = read_text(&path)?;
    text.parse()
        .map_err(|_| KernelError::Malformed { path, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn descriptors_arrive_at_their_numbers() {
        // 3 and 4 are in use in the test process, or taken here.
        let _guards: Vec<_> = (0..4).map(|_| std::fs::File::open("/").unwrap()).collect();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo hello >&3"]);
        give_descriptors(&mut command, vec![writer.into()]).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(text, "hello\n");
    }
}
