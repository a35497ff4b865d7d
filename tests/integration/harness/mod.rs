//! The test bench: bundles, commands with deadlines, comparison with runc.

pub mod bundle;
pub mod case;
pub mod cgroups;
pub mod differential;
pub mod group;
pub mod leaks;
pub mod rootfs;
pub mod text;

pub use bundle::strip;
pub use case::{Case, ours, ours_beyond_runc};
pub use differential::differential;

pub use crate::common::{
    Cmd, Outcome, at_exit, command, diff, eventually, host, processes, pty, say, skip,
};
