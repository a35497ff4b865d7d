//! What takes cgroup v2, several memory nodes, tiers, swap or systemd.
//!
//! The tests run on any machine that has these: in the guests of `scripts/vm`,
//! and with `make test-host` on real hardware. What a machine lacks is skipped
//! with the reason. As in tests/integration, most scenarios run under runc
//! first and what could be seen is compared.

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
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with the other test binary"
)]
#[path = "../integration/harness/mod.rs"]
mod harness;

mod adaptive;
mod cgroup2;
mod devices;
mod faults;
#[allow(unused_imports, reason = "shared with the other test binary")]
#[path = "../integration/grants.rs"]
mod grants;
mod lever;
mod life;
mod machine;
mod nodes;
mod placement;
mod swap;
mod systemd;
mod tiers;
#[path = "../integration/top.rs"]
mod top;
