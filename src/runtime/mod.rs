//! Containers: the verbs of an OCI runtime on libcontainer.
//!
//! One verb per process, and the process has one thread: libcontainer forks without regard for other threads
//! and changes the working directory (docs/adr/0001-engine.md). Nothing here decides a memory limit.
//!
//! The way of a container: [`create`] reads the bundle (`bundle`), reserves the name (`state`), makes the
//! control group (`driver`) and brings a process to the point before the user's program (`launch`, `stage`,
//! `workload`); [`start`] lets it go; [`exec`] adds processes; [`kill`], [`delete`] and so on (`lifecycle`)
//! end it. [`run`] does all of it and stays in the foreground.

pub mod account;
mod bundle;
mod create;
mod default_config;
mod driver;
mod error;
mod exec;
mod features;
mod foreground;
mod handshake;
pub(crate) mod helper;
mod hooks;
mod inside;
mod json;
mod launch;
mod lifecycle;
mod mounts;
mod report;
mod stage;
mod state;
mod update;
mod workload;

pub use create::{Additions, CreateOptions, Place, create};
pub use default_config::default_config;
pub use error::{Result, RuntimeError, chain};
pub use exec::ExecOptions;
pub use features::features;
pub use foreground::{exec, run};
pub use inside::INSIDE;
pub use lifecycle::{delete, kill, pause, resume, start};
pub use report::{OomWatch, StateReport, list, process_table, processes, state, stats_event};
pub(crate) use state::write_atomic;
pub use state::{Container, Init, State, Status, Store};
pub use update::{UpdateOptions, update, update_from};

/// The version of the runtime-spec that is implemented.
pub const OCI_VERSION: &str = "1.3.0";
