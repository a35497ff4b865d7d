//! News of the OOM killer.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use super::{Cgroup, KernelError, Result, Version, write_text};

impl Cgroup {
    /// A descriptor that becomes readable when the OOM killer has been at work in the cgroup, and when the
    /// cgroup is removed. What can be read from it has no meaning; [`Cgroup::oom_kills`] tells how often.
    ///
    /// cgroup v1: an eventfd on `memory.oom_control` (cgroup-v1/memory.rst, section 10). cgroup v2: inotify
    /// on `memory.events` (cgroup-v2.rst). It does not block.
    ///
    /// # Errors
    /// `Unsupported` without a memory controller, `Io` with the file that refused.
    pub fn watch_oom(&self) -> Result<OwnedFd> {
        let dir = self.controller("memory").ok_or_else(|| {
            KernelError::Unsupported("the host has no memory controller".to_owned())
        })?;
        match self.version {
            Version::V1 => {
                let file = dir.join("memory.oom_control");
                let fail = |err: io::Error| KernelError::io("watch", &file, err);
                let control = std::fs::File::open(&file).map_err(fail)?;
                let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                    .map_err(|err| fail(err.into()))?;
                let request = format!("{} {}", event.as_raw_fd(), control.as_fd().as_raw_fd());
                write_text(&dir.join("cgroup.event_control"), &request)?;
                Ok(event)
            }
            Version::V2 => {
                let file = dir.join("memory.events");
                let fail = |err: rustix::io::Errno| KernelError::io("watch", &file, err.into());
                let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                let watch = inotify::init(flags).map_err(fail)?;
                inotify::add_watch(&watch, &file, inotify::WatchFlags::MODIFY).map_err(fail)?;
                Ok(watch)
            }
        }
    }
}
