//! libcontainer's account of a failure.
//!
//! Its errors often say one or two words ("failed syscall") while its log events, in the process where it
//! happened, name the path and the reason. The events are collected in a file in memory that parent and
//! children share, and the parent adds the first of them to the error.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MemFdCreateFlag, memfd_create};

static ACCOUNT: OnceLock<Option<File>> = OnceLock::new();

/// Starts collecting; call it before the first fork.
pub fn begin() {
    ACCOUNT.get_or_init(|| {
        let file = File::from(memfd_create(c"account", MemFdCreateFlag::MFD_CLOEXEC).ok()?);
        fcntl(file.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_APPEND)).ok()?;
        Some(file)
    });
}

/// Adds one event, from whichever process.
pub fn record(event: &str) {
    if let Some(Some(mut file)) = ACCOUNT.get().map(Option::as_ref) {
        let line = format!("{}\n", event.replace('\n', " "));
        // What cannot be collected is missed in an error message and nowhere else.
        let _ = file.write_all(line.as_bytes());
    }
}

/// The first event since the last call: the one nearest to the cause.
pub(super) fn take() -> Option<String> {
    let mut file = ACCOUNT.get()?.as_ref()?;
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    file.set_len(0).ok()?;
    text.lines().next().map(str::to_owned)
}
