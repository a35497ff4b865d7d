//! Tests of `elastic-mem` below real containerds and Docker daemons.
//!
//! Every scenario runs first with runc (the oracle) and then with the command
//! under test, on a daemon that the suite starts for itself, and everything a
//! client could see is compared. Two routes lead to the command: as shim
//! (`io.containerd.elastic-mem.v1`) and as command line below runc's shim.
//!
//! `scripts/engines` fetches the daemons.
//!
//! Environment:
//! * `ELASTIC_MEM_BIN` - the command under test (default: the one cargo built)
//! * `RUNC_BIN` - the oracle (default: `runc` from `PATH` or an sbin directory)
//! * `ELASTIC_MEM_ENGINES` - the daemons (default: `target/engines`)
//! * `ELASTIC_MEM_ROUTES` - `shim`, `cli` or both, separated by a comma (the default);
//!   `oracle` runs every scenario on runc only
//! * `ELASTIC_MEM_MAX_SKIPS` - `0` turns every skip into a failure

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a test fails by panicking, and nothing here is an interface"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "process ids and exit codes, which are small, have several types"
)]

#[allow(dead_code, reason = "shared with the other test binaries")]
#[path = "../common/mod.rs"]
mod common;
#[macro_use]
mod harness;

mod bootstrap;
mod control;
mod cri;
mod docker;
mod doctor;
mod events;
mod exec;
mod faasd;
mod faults;
mod install;
mod life;
mod load;
mod memory;
mod placement;
mod restart;
mod stdio;
mod task_api;
mod terminal;
mod traces;
