//! Integration tests of the `elastic-mem` command.
//!
//! Most tests are *differential*: the same scenario runs under runc (the
//! oracle) and under the command under test, and everything a caller or the
//! contained process could see is compared. The rest states a property of our
//! command alone (faults, load, bad input).
//!
//! Environment:
//! * `ELASTIC_MEM_BIN` - the command under test (default: the one cargo built)
//! * `RUNC_BIN` - the oracle (default: `runc` from `PATH` or an sbin directory)
//! * `ELASTIC_MEM_MAX_SKIPS` - `0` turns every skip into a failure
//! * `ELASTIC_MEM_TEST_SEED` - seed of the randomised fault test

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a test fails by panicking, and nothing here is an interface"
)]

#[allow(dead_code, reason = "shared with the other test binaries")]
#[path = "../common/mod.rs"]
mod common;
mod harness;

mod bad_config;
mod bad_usage;
mod capabilities;
mod characterize;
mod concurrency;
mod config;
mod control;
mod cost;
mod crash;
mod devices;
mod doctor;
mod engine;
mod exec;
mod exit;
mod explain;
mod grants;
mod guardian;
mod hooks;
mod install;
mod kernel_mounts;
mod kill;
mod lever;
mod lifecycle;
mod limits;
mod listing;
mod metrics;
mod mounts;
mod namespaces;
mod output;
mod pause;
mod placement;
mod plot;
mod process;
mod profile;
mod program;
mod propagation;
mod report;
mod sampler;
mod seccomp;
mod seccomp_profile;
mod stdio;
mod sysctl;
mod tidy;
mod top;
mod trace;
mod trace_modes;
mod tty;
mod update;
mod user_namespace;
