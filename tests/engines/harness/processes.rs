//! The processes of daemons and containers.

use std::fs;

use nix::sys::signal::Signal;

pub use crate::common::processes::{Process, all, is_alive, signal};

impl Process {
    /// Whether it comes from the daemon with the namespace, and is none of its containers'.
    pub fn is_marked(&self, namespace: &str) -> bool {
        self.has_environment(super::containerd::MARK, namespace)
    }
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
