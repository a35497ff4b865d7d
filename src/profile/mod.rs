//! Profiles on disk: the store, import and export.
//!
//! The store is a folder, `/var/lib/elastic-mem` unless the configuration names another one:
//!
//! | path | content |
//! |---|---|
//! | `spool/RUN.csv` | a trace that is being written; its writer holds the flock(2) of the file |
//! | `functions/FUNCTION/profile.json` | what was learned, the one file that is read when a container is created |
//! | `functions/FUNCTION/runs.json` | the digests that it was learned from |
//! | `functions/FUNCTION/traces/RUN.csv` | the newest traces |
//! | `tracing` | not of the store: what `elastic-mem trace` unpacks and writes while it runs |
//! | `functions/FUNCTION/lock` | its flock(2) is the writers' lock; readers never lock |
//!
//! [`Store::lookup`] is for the way of a container to its start: it waits for nobody, and a file that cannot be used
//! is set aside with a warning. [`Store::take_in`] turns a finished trace into knowledge. It may be killed at any
//! moment and by any number of processes be called at once: digests are written before the trace leaves the spool, so
//! what was interrupted is done again, and a run that is taken in twice counts once.

mod document;
mod error;
pub mod export;
mod folder;
pub mod import;
mod name;
mod spool;
mod store;
#[cfg(test)]
mod tests;
mod verify;

pub use document::Runs;
pub use error::{Result, StoreError};
pub use spool::Taken;
pub use store::{Added, Forget, Store, TRACING, trace_name};
pub use verify::{Finding, Findings};
