//! Processes: identity that survives the reuse of process ids, signals, waiting, forking.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::unistd::{ForkResult, Pid};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use super::{KernelError, Result};

/// What `/proc/PID/stat` tells of a process (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// One letter: `R`, `S`, `D`, `T`, `Z` and so on.
    pub state: char,
    /// Process id of the parent.
    pub parent: i32,
    /// Clock ticks after boot at which the process started. With the process id it names a process for good.
    pub start_time: u64,
}

impl ProcessStat {
    /// Whether the process has ended and only waits to be reaped.
    pub fn has_ended(self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Reads state and start time of a process.
///
/// # Errors
/// `Io` (see [`KernelError::is_gone`]) when there is no such process, `Malformed` when the line is cut short.
pub fn stat(pid: i32) -> Result<ProcessStat> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = super::read_text(&path)?;
    parse_stat(&text).ok_or(KernelError::Malformed { path, text })
}

fn parse_stat(text: &str) -> Option<ProcessStat> {
    // The command name, field 2, is in parentheses and may itself hold blanks and parentheses.
    let rest = text.get(text.rfind(')')?.checked_add(1)?..)?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // Field 22 of the line; `parent` was field 4.
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(ProcessStat {
        state,
        parent,
        start_time,
    })
}

/// The command of a process with its arguments (proc_pid_cmdline(5)); empty for one of the kernel's.
///
/// # Errors
/// `Io` when there is no such process.
pub fn command_line(pid: i32) -> Result<Vec<String>> {
    let path = PathBuf::from(format!("/proc/{pid}/cmdline"));
    let bytes = std::fs::read(&path).map_err(|err| KernelError::io("read", &path, err))?;
    let text = String::from_utf8_lossy(&bytes);
    let words = text.strip_suffix('\0').unwrap_or(&text).split('\0');
    Ok(words
        .filter(|_| !text.is_empty())
        .map(str::to_owned)
        .collect())
}

/// The ids of all processes that can be seen.
pub fn all() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<i32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

/// The executable of a process, in its own view of the file system.
///
/// # Errors
/// `Io` when there is no such process, it is one of the kernel's, or belongs to somebody else.
pub fn executable(pid: i32) -> Result<PathBuf> {
    read_link(format!("/proc/{pid}/exe"))
}

/// The working folder of a process, in its own view of the file system.
///
/// # Errors
/// As [`executable`].
pub fn working_folder(pid: i32) -> Result<PathBuf> {
    read_link(format!("/proc/{pid}/cwd"))
}

fn read_link(path: String) -> Result<PathBuf> {
    std::fs::read_link(&path).map_err(|err| KernelError::io("read", &path, err))
}

/// A variable of the environment that a process was started with (proc_pid_environ(5)).
///
/// # Errors
/// `Io` when there is no such process or it belongs to somebody else.
pub fn variable(pid: i32, name: &str) -> Result<Option<String>> {
    let path = PathBuf::from(format!("/proc/{pid}/environ"));
    let bytes = std::fs::read(&path).map_err(|err| KernelError::io("read", &path, err))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    Ok(pairs.find_map(|(found, value)| (found == name).then(|| value.to_owned())))
}

/// A handle to one process, safe against reuse of its id (pidfd_open(2)).
#[derive(Debug)]
pub struct ProcessHandle {
    pid: i32,
    fd: OwnedFd,
}

impl AsFd for ProcessHandle {
    /// Readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl ProcessHandle {
    /// Opens the process `pid` if it is still the one that started at `start_time`.
    ///
    /// # Errors
    /// `Io` with `ESRCH` when the process is gone or the id now belongs to another one.
    pub fn open(pid: i32, start_time: u64) -> Result<Self> {
        let gone = || {
            let source = io::Error::from_raw_os_error(libc::ESRCH);
            KernelError::io("open process", format!("/proc/{pid}"), source)
        };
        let raw = rustix::process::Pid::from_raw(pid).ok_or_else(gone)?;
        let fd = pidfd_open(raw, PidfdFlags::empty())
            .map_err(|err| KernelError::io("open process", format!("/proc/{pid}"), err.into()))?;
        // Read after the handle is held: from here on the id cannot change its meaning unseen.
        if stat(pid)?.start_time != start_time {
            return Err(gone());
        }
        Ok(Self { pid, fd })
    }

    /// Opens the process that has the id `pid` now.
    ///
    /// # Errors
    /// As [`ProcessHandle::open`].
    pub fn of(pid: i32) -> Result<Self> {
        Self::open(pid, stat(pid)?.start_time)
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal by number, real-time signals included.
    ///
    /// # Errors
    /// `Io`: `ESRCH` when the process has ended, `EPERM`, `EINVAL` for a number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let Some(signal) = rustix::process::Signal::from_named_raw(signal) else {
            return signal_pid(self.pid, signal);
        };
        pidfd_send_signal(&self.fd, signal).map_err(|err| {
            KernelError::io("signal process", format!("/proc/{}", self.pid), err.into())
        })
    }

    /// Waits until the process has ended, at most `timeout`; tells whether it has.
    ///
    /// # Errors
    /// `Io` when polling fails.
    pub fn wait_ended(&self, timeout: Duration) -> Result<bool> {
        poll_in(self.fd.as_fd(), timeout)
            .map_err(|err| KernelError::io("wait for", format!("/proc/{}", self.pid), err.into()))
    }
}

fn poll_in(fd: BorrowedFd<'_>, timeout: Duration) -> nix::Result<bool> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    loop {
        match nix::poll::poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            other => return other.map(|ready| ready > 0),
        }
    }
}

/// Sends a signal by process id. Use it for members of a cgroup, whose ids were read a moment ago.
///
/// # Errors
/// `Io` with the kernel's reason.
pub fn signal_pid(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill takes two integers and touches no memory of ours.
    let rc = unsafe { libc::kill(pid, signal) };
    if rc == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    Err(KernelError::io(
        "signal process",
        format!("/proc/{pid}"),
        source,
    ))
}

/// Runs `child` in a new process and returns its id; the new process ends with what `child` returns.
///
/// Only for a process with a single thread: the child may then allocate and take locks.
///
/// # Errors
/// The reason of fork(2), usually a limit on processes or memory.
///
/// # Panics
/// Never in the caller. A panic of `child` ends the new process with code 70.
pub fn fork(child: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: called from the single-threaded command only, so no lock is held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(70);
            // SAFETY: _exit ends the process at once; exit handlers belong to the parent and must not run twice.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Takes over a descriptor that came as a bare number from another library or across fork(2).
pub(crate) fn adopt_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass a descriptor that was just received or forked and that nothing else closes.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Gives every signal its default action and blocks none, as a program expects to be started.
///
/// The Rust runtime ignores SIGPIPE, callers ignore others, and an ignored signal stays ignored over execve(2).
///
/// # Errors
/// The kernel's reason; none is known in practice.
pub fn reset_signals() -> io::Result<()> {
    // The C library hides two real-time signals that it uses itself, so by the system call.
    const SIGNALS: i32 = 64;
    // As large as the kernel's struct sigaction; all zero is the default action.
    let default = [0_u64; 4];
    for signal in 1..=SIGNALS {
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
            continue;
        }
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: `default` lives across the call and sets no handler; 8 is the size of the kernel's signal set.
        let rc =
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8) };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Calls `f` with the file permissions of another user and group, in addition to the caller's own groups.
///
/// Only file access follows these ids (setfsuid(2)), and the capabilities that override it are off meanwhile.
pub fn with_file_system_ids<T>(uid: u32, gid: u32, f: impl FnOnce() -> T) -> T {
    // SAFETY: integers only; a refused call keeps the old id.
    let old_gid = unsafe { libc::setfsgid(gid) };
    // SAFETY: as above.
    let old_uid = unsafe { libc::setfsuid(uid) };
    let result = f();
    // SAFETY: as above; the old id goes back as the bits that came.
    unsafe { libc::setfsuid(old_uid.cast_unsigned()) };
    // SAFETY: as above.
    unsafe { libc::setfsgid(old_gid.cast_unsigned()) };
    result
}

/// Whether the file system ids of the caller may execute a file; false also on a mount without exec.
///
/// # Errors
/// The kernel's reason.
pub fn check_may_execute(path: &Path) -> nix::Result<()> {
    // Without AT_EACCESS the kernel asks for the real ids.
    nix::unistd::faccessat(
        None,
        path,
        nix::unistd::AccessFlags::X_OK,
        nix::fcntl::AtFlags::AT_EACCESS,
    )
}

/// Sets the loopback interface of the caller's network namespace up (netdevice(7)).
///
/// # Errors
/// The kernel's reason; a namespace without loopback has `ENODEV`.
pub fn bring_up_loopback() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: `request` is an ifreq that lives across the call.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether a path lies on a proc file system.
pub fn is_procfs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

/// Whether the caller was given a descriptor by whoever executed it: our own are all close-on-exec.
pub fn is_inherited(fd: u32) -> bool {
    i32::try_from(fd).is_ok_and(|fd| {
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD)
            .is_ok_and(|flags| flags & libc::FD_CLOEXEC == 0)
    })
}

/// The process to adjust in [`set_oom_score_adj`]: always the caller.
const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// Sets the caller's bias in the choice of an OOM victim, -1000 to 1000; children inherit it.
///
/// # Errors
/// `Io`; lowering the value needs CAP_SYS_RESOURCE.
pub fn set_oom_score_adj(value: i32) -> Result<()> {
    super::write_text(Path::new(OOM_SCORE_ADJ), &value.to_string())
}

/// Writes the id mappings of a new user namespace (user_namespaces(7)).
///
/// `uid_map` and `gid_map` are lines `INSIDE OUTSIDE LENGTH`.
///
/// # Errors
/// `Io` with the kernel's reason.
pub fn write_id_maps(pid: i32, uid_map: &str, gid_map: &str, privileged: bool) -> Result<()> {
    if !privileged {
        // Without privilege the kernel accepts a gid map only after this (CVE-2014-8989).
        super::write_text(&PathBuf::from(format!("/proc/{pid}/setgroups")), "deny")?;
    }
    super::write_text(&PathBuf::from(format!("/proc/{pid}/uid_map")), uid_map)?;
    super::write_text(&PathBuf::from(format!("/proc/{pid}/gid_map")), gid_map)
}

/// Writes the clock offsets of a new time namespace, lines `CLOCK SECONDS NANOSECONDS` (time_namespaces(7)).
///
/// # Errors
/// `Io` with the kernel's reason.
pub fn write_time_offsets(pid: i32, offsets: &str) -> Result<()> {
    super::write_text(
        &PathBuf::from(format!("/proc/{pid}/timens_offsets")),
        offsets,
    )
}

/// The namespace file of a process: `kind` is `mnt`, `pid`, `net` and so on (namespaces(7)).
pub fn namespace_path(pid: i32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/{kind}"))
}

/// The root directory of a process, seen through its own mount namespace.
pub fn root_path(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root"))
}

/// The path under which another process's descriptor can be opened again.
pub fn fd_path(pid: i32, fd: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/fd/{fd}"))
}

/// Whether the host runs SELinux.
pub fn selinux_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Whether the host runs AppArmor.
pub fn apparmor_enabled() -> bool {
    super::read_text(Path::new("/sys/module/apparmor/parameters/enabled"))
        .is_ok_and(|text| text.starts_with('Y'))
}

/// Sets the SELinux label that the next execve(2) of the caller takes on.
///
/// # Errors
/// `Io` when the policy refuses the label.
pub fn set_exec_label(label: &str) -> Result<()> {
    super::write_text(Path::new("/proc/thread-self/attr/exec"), label)
}

/// Whether systemd is the service manager of the host (sd_booted(3)).
pub fn systemd_booted() -> bool {
    std::fs::symlink_metadata("/run/systemd/system").is_ok_and(|meta| meta.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_name_with_blanks_and_parentheses_is_skipped() {
        let line = "42 (a) b) c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 88729 100 200";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_time), ('S', 1, 88729));
    }

    #[test]
    fn short_line_is_an_error_and_no_panic() {
        assert_eq!(parse_stat("42 (cat) S 1 2"), None);
        assert_eq!(parse_stat("no parenthesis"), None);
    }

    #[test]
    fn handle_refuses_a_reused_id() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = stat(pid).unwrap();
        assert!(ProcessHandle::open(pid, own.start_time).is_ok());
        let err = ProcessHandle::open(pid, own.start_time + 1).unwrap_err();
        assert!(err.is_gone(), "{err}");
    }
}
