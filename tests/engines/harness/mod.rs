//! The test bench: private daemons, commands with deadlines, comparison with runc.

pub mod case;
pub mod containerd;
pub mod daemon;
pub mod differential;
pub mod dockerd;
pub mod events;
pub mod grpc;
pub mod host;
pub mod image;
pub mod leaks;
pub mod processes;
pub mod shim;
pub mod terminal;
pub mod ttrpc;

pub use case::Case;
pub use differential::{Route, differential};
pub use dockerd::Docker;

pub use crate::common::{
    Cmd, DEADLINE, Outcome, at_exit, cgroups, command, diff, eventually, pty, say, skip, wait_until,
};

/// The command with the words of a line; those with `@` in front are names of containers.
pub fn with_words(cmd: Cmd, line: &str, full_name: impl Fn(&str) -> String) -> Cmd {
    line.split_whitespace()
        .fold(cmd, |cmd, word| match word.strip_prefix('@') {
            Some(name) => cmd.arg(full_name(name)),
            None => cmd.arg(word),
        })
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
        ours_on_every_containerd!(#[cfg(all())] $($scenario),*);
    };
    (#[$meta:meta] $($scenario:ident),* $(,)?) => {
        ours_on_every_containerd!(@ ($meta) containerd_1_6 "containerd-1.6" $($scenario)*);
        ours_on_every_containerd!(@ ($meta) containerd_1_7 "containerd-1.7" $($scenario)*);
        ours_on_every_containerd!(@ ($meta) containerd_2_1 "containerd-2.1" $($scenario)*);
    };
    (@ ($meta:meta) $module:ident $engine:literal $($scenario:ident)*) => {
        mod $module {
            $(
                #[test]
                #[$meta]
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
        on_every_docker!(#[cfg(all())] $($scenario),*);
    };
    (#[$meta:meta] $($scenario:ident),* $(,)?) => {
        on_every_docker!(@ ($meta) docker_20 "docker-20" $($scenario)*);
        on_every_docker!(@ ($meta) docker_28 "docker-28" $($scenario)*);
    };
    (@ ($meta:meta) $module:ident $engine:literal $($scenario:ident)*) => {
        mod $module {
            $(
                #[test]
                #[$meta]
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
