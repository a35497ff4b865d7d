//! Clearing up when the test process ends: statics are never dropped.

use std::sync::Mutex;

static ACTIONS: Mutex<Vec<fn()>> = Mutex::new(Vec::new());

/// Runs `action` when the process exits normally, failed tests included.
#[allow(unsafe_code, reason = "the standard library has no exit hook")]
pub fn at_exit(action: fn()) {
    extern "C" fn run_all() {
        let actions = ACTIONS.lock().map(|list| list.clone()).unwrap_or_default();
        for action in actions {
            action();
        }
    }
    let mut actions = ACTIONS.lock().expect("exit actions");
    if actions.is_empty() {
        // SAFETY: `run_all` is an `extern "C"` function that lives as long as
        // the process and does not unwind.
        unsafe { libc::atexit(run_all) };
    }
    actions.push(action);
}
