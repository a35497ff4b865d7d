//! The processes of the host.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A live process.
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub name: String,
    pub command_line: String,
    pub cgroups: String,
    environ: Vec<u8>,
}

impl Process {
    /// Whether a variable of its environment has the value.
    pub fn has_environment(&self, name: &str, value: &str) -> bool {
        let entry = format!("{name}={value}");
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
        if pid == nix::unistd::getpid().as_raw()
            || status.is_empty()
            || status.contains("\nState:\tZ")
            || status.contains("\nState:\tX")
        {
            continue;
        }
        let field = |key: &str| {
            let mut lines = status.lines();
            lines.find_map(|line| Some(line.strip_prefix(key)?.trim()))
        };
        found.push(Process {
            pid,
            parent: field("PPid:")
                .and_then(|parent| parent.parse().ok())
                .unwrap_or_default(),
            name: field("Name:").unwrap_or_default().to_owned(),
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
