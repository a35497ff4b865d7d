//! The processes of the host.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A live process.
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub command_line: String,
    pub cgroups: String,
    environ: Vec<u8>,
}

impl Process {
    /// Whether it comes from the daemon with the namespace, and is none of its containers'.
    pub fn is_marked(&self, namespace: &str) -> bool {
        self.has_environment(&format!("{}={namespace}", super::containerd::MARK))
    }

    fn has_environment(&self, entry: &str) -> bool {
        self.environ
            .split(|byte| *byte == 0)
            .any(|line| line == entry.as_bytes())
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.command_line, self.pid)
    }
}

/// All live processes but this one. A zombie waits for its parent, which may
/// be any reaper of the host, and does not count.
pub fn all() -> Vec<Process> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let status = String::from_utf8_lossy(&read("status")).into_owned();
        if pid == std::process::id() as i32
            || status.is_empty()
            || status.contains("\nState:\tZ")
            || status.contains("\nState:\tX")
        {
            continue;
        }
        found.push(Process {
            pid,
            parent: status
                .lines()
                .find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
                .unwrap_or_default(),
            command_line: String::from_utf8_lossy(&read("cmdline"))
                .replace('\0', " ")
                .trim_end()
                .to_owned(),
            cgroups: String::from_utf8_lossy(&read("cgroup")).into_owned(),
            environ: read("environ"),
        });
    }
    found
}

pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit(") ").next().unwrap_or_default();
        !state.starts_with(['Z', 'X'])
    })
}

/// Whether there is such a process still.
pub fn signal(pid: i32, signal: Signal) -> bool {
    kill(Pid::from_raw(pid), signal).is_ok()
}

/// Waits until the program of a container has a handler for the signal. Before it is executed, the process is
/// the runtime's, which for runc has handlers of its own.
pub fn wait_until_it_catches(pid: i32, signal: Signal) {
    super::wait_until("a handler", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let is_runtime = ["runc", "elastic"]
            .iter()
            .any(|name| status.starts_with(&format!("Name:\t{name}")));
        let mask = status
            .lines()
            .find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
        !is_runtime && mask.is_some_and(|mask| mask & 1 << (signal as i32 - 1) != 0)
    });
}
