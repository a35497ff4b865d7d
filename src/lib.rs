//! elastic-mem: an OCI runtime for serverless functions with elastic memory.
//!
//! The map, from effects to what is pure; arrows never point back:
//!
//! - [`cli`]: the command line; prints.
//! - [`shim`]: the containerd shim; runs the verbs of [`runtime`] as processes of their own.
//! - [`install`]: puts the program onto a host, and tells engines of it.
//! - [`standin`]: stands in for runc or its shim under their names, and hands over what is not ours.
//! - [`monitor`]: looks after a container that no shim of ours looks after.
//! - [`log`]: log lines of both.
//! - [`runtime`]: the verbs of an OCI runtime, one per process, on libcontainer.
//! - [`config`]: the configuration files with the origin of every value.
//! - [`profile`]: profiles on disk, import and export.
//! - [`kernel`]: control groups, processes, terminals; the only room with paths under `/sys` and `/proc`
//!   and the only one with `unsafe`.
//! - [`grant`]: gathers what the plan of a container depends on.
//! - [`doctor`]: gathers what holds on this host.
//! - [`tracer`]: runs a function to have it traced, or finds a container that runs.
//! - [`control`]: records and sockets of containers, for other programs of the host.
//! - [`sampler`]: the thread that looks at the memory of containers and writes traces.
//! - [`guardian`]: a process that gives limits back when the tuner has died or stands still.
//! - [`policy`]: what is decided, such as profiles learned from traces; pure.
//! - [`cost`]: what providers charge for a run; pure.
//! - [`plot`]: pictures; pure.
//! - [`model`]: names and quantities.
//!
//! `ARCHITECTURE.md` has the rules and the reasons.

pub mod cli;
pub mod config;
pub mod control;
pub mod cost;
pub mod doctor;
pub mod grant;
pub mod guardian;
pub mod install;
#[allow(
    unsafe_code,
    reason = "system calls; every other room denies unsafe code"
)]
pub mod kernel;
pub mod log;
pub mod model;
pub mod monitor;
pub mod placement;
pub mod plot;
pub mod policy;
pub mod profile;
pub mod runtime;
pub mod sampler;
pub mod shim;
pub mod standin;
pub mod tracer;
