//! What the test binaries have in common: commands with deadlines, processes
//! and control groups of the host, skips, differences.

pub mod at_exit;
pub mod cgroups;
pub mod command;
pub mod diff;
pub mod host;
pub mod nodes;
pub mod processes;
pub mod pty;
pub mod skip;

pub use command::{Cmd, Outcome};
pub use skip::{say, skip};

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: the suite
/// must hold on a machine that is busy compiling. `ELASTIC_MEM_PATIENCE` is
/// how many times as long, for a machine that is an emulator.
pub static DEADLINE: LazyLock<Duration> = LazyLock::new(|| {
    let factor = std::env::var("ELASTIC_MEM_PATIENCE")
        .map_or(1, |text| text.parse().expect("ELASTIC_MEM_PATIENCE"));
    Duration::from_secs(60) * factor
});

/// Polls `probe` until it yields a value; `None` after [`DEADLINE`].
pub fn eventually<T>(mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + *DEADLINE;
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(8));
    }
}

/// Polls until `holds`.
///
/// # Panics
/// When it does not before the deadline.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(|| holds().then_some(())).unwrap_or_else(|| panic!("never: {what}"));
}
