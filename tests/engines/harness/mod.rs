//! The test bench: private daemons, commands with deadlines, comparison with runc.

// What the two test binaries have in common.
#[path = "../../integration/harness/at_exit.rs"]
pub mod at_exit;
#[allow(dead_code, reason = "shared with the other test binary")]
#[path = "../../integration/harness/cgroups.rs"]
pub mod cgroups;
#[allow(dead_code, reason = "shared with the other test binary")]
#[path = "../../integration/harness/command.rs"]
pub mod command;
#[path = "../../integration/harness/diff.rs"]
pub mod diff;
#[allow(dead_code, reason = "shared with the other test binary")]
#[path = "../../integration/harness/pty.rs"]
pub mod pty;
#[path = "../../integration/harness/skip.rs"]
pub mod skip;

pub mod case;
pub mod containerd;
pub mod differential;
pub mod dockerd;
pub mod events;
pub mod host;
pub mod image;
pub mod leaks;
pub mod processes;
pub mod shim;
pub mod terminal;
pub mod ttrpc;

pub use case::Case;
pub use command::{Cmd, Outcome};
pub use differential::{Route, differential};
pub use dockerd::Docker;
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
        std::thread::sleep(Duration::from_millis(15));
    }
}

/// Polls until `holds`.
///
/// # Panics
/// When it does not before the deadline.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(|| holds().then_some(())).unwrap_or_else(|| panic!("never: {what}"));
}

/// Makes a test per containerd of each scenario.
macro_rules! on_every_containerd {
    ($($scenario:ident),* $(,)?) => {
        on_every_containerd!(@ containerd_1_6 "containerd-1.6" $($scenario)*);
        on_every_containerd!(@ containerd_1_7 "containerd-1.7" $($scenario)*);
        on_every_containerd!(@ containerd_2_1 "containerd-2.1" $($scenario)*);
    };
    (@ $module:ident $engine:literal $($scenario:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $scenario() {
                    $crate::harness::differential($engine, stringify!($scenario), super::$scenario);
                }
            )*
        }
    };
}

/// Makes a test per containerd, without the route of the command line: for
/// scenarios that have to do with the shim alone.
macro_rules! on_every_shim {
    ($($scenario:ident),* $(,)?) => {
        on_every_shim!(@ containerd_1_6 "containerd-1.6" $($scenario)*);
        on_every_shim!(@ containerd_1_7 "containerd-1.7" $($scenario)*);
        on_every_shim!(@ containerd_2_1 "containerd-2.1" $($scenario)*);
    };
    (@ $module:ident $engine:literal $($scenario:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $scenario() {
                    $crate::harness::differential::shims($engine, stringify!($scenario), super::$scenario);
                }
            )*
        }
    };
}

/// Makes a test per containerd that holds our shim alone to what it says.
macro_rules! ours_on_every_containerd {
    ($($scenario:ident),* $(,)?) => {
        ours_on_every_containerd!(@ containerd_1_6 "containerd-1.6" $($scenario)*);
        ours_on_every_containerd!(@ containerd_1_7 "containerd-1.7" $($scenario)*);
        ours_on_every_containerd!(@ containerd_2_1 "containerd-2.1" $($scenario)*);
    };
    (@ $module:ident $engine:literal $($scenario:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $scenario() {
                    $crate::harness::differential::ours($engine, stringify!($scenario), super::$scenario);
                }
            )*
        }
    };
}

/// Makes a test of each scenario beside the newest containerd only.
macro_rules! on_one_shim {
    ($($scenario:ident),* $(,)?) => {
        mod alone {
            $(
                #[test]
                fn $scenario() {
                    $crate::harness::differential::shims("containerd-2.1", stringify!($scenario), super::$scenario);
                }
            )*
        }
    };
}

/// Makes a test per Docker of each scenario.
macro_rules! on_every_docker {
    ($($scenario:ident),* $(,)?) => {
        on_every_docker!(@ docker_20 "docker-20" $($scenario)*);
        on_every_docker!(@ docker_28 "docker-28" $($scenario)*);
    };
    (@ $module:ident $engine:literal $($scenario:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $scenario() {
                    $crate::harness::dockerd::differential($engine, stringify!($scenario), super::$scenario);
                }
            )*
        }
    };
}

/// Makes a test of each scenario below the newest Docker only.
macro_rules! on_one_docker {
    ($($scenario:ident),* $(,)?) => {
        mod alone {
            $(
                #[test]
                fn $scenario() {
                    $crate::harness::dockerd::differential("docker-28", stringify!($scenario), super::$scenario);
                }
            )*
        }
    };
}
