//! What containerds and Docker daemons have in common.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::at_exit::at_exit;
use super::processes;

/// The daemons that all tests of an engine share, by engine.
pub struct Shared<T>(Mutex<BTreeMap<String, Arc<T>>>);

impl<T> Shared<T> {
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The daemon of the engine, started if it is the first time. `end` is
    /// run when the test process ends, and calls [`Shared::end`].
    pub fn get(&self, engine: &str, start: impl FnOnce(&str) -> T, end: fn()) -> Arc<T> {
        let mut daemons = self.lock();
        if daemons.is_empty() {
            at_exit(end);
        }
        if let Some(daemon) = daemons.get(engine) {
            return Arc::clone(daemon);
        }
        let daemon = Arc::new(start(engine));
        daemons.insert(engine.to_owned(), Arc::clone(&daemon));
        daemon
    }

    /// Ends the daemons.
    pub fn end(&self) {
        self.lock().clear();
    }

    /// A daemon that did not start is tried again by the next test.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a daemon's process with the signal; with SIGKILL when that takes too long.
pub fn stop(mut child: Child, signal: Signal) {
    processes::signal(child.id() as i32, signal);
    let end = Instant::now() + Duration::from_secs(20);
    while child.try_wait().is_ok_and(|status| status.is_none()) {
        if Instant::now() > end {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The end of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
