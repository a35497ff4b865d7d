//! The test bench: bundles, commands with deadlines, comparison with runc.

pub mod at_exit;
pub mod bundle;
pub mod case;
pub mod cgroups;
pub mod command;
pub mod diff;
pub mod differential;
pub mod host;
pub mod leaks;
pub mod pty;
pub mod rootfs;
pub mod skip;
pub mod text;

pub use bundle::strip;
pub use case::{Case, ours, ours_beyond_runc};
pub use command::{Cmd, Outcome};
pub use differential::differential;
pub use skip::{say, skip};

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: the suite
/// must hold on a machine that is busy compiling. `ELASTIC_MEM_PATIENCE` is
/// how many times as long, for a machine that is an emulator.
pub static DEADLINE: LazyLock<Duration> = LazyLock::new(|| {
    let factor = std::env::var("ELASTIC_MEM_PATIENCE")
        .map_or(1, |text| text.parse().expect("ELASTIC_MEM_PATIENCE"));
    Duration::from_secs(20) * factor
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
        std::thread::sleep(Duration::from_millis(4));
    }
}
