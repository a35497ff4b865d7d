//! What a look sees, and what it leads to.

use std::time::Duration;

use crate::model::{Bytes, MemoryLimit};

/// What was seen of a container at one moment. Limits of cgroup v1 are those of `memory.limit_in_bytes`, of cgroup v2
/// those of `memory.high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// Since the start of the function.
    pub at: Duration,
    /// All memory that is charged.
    pub usage: Bytes,
    /// CPU time used.
    pub cpu: Option<Duration>,
    /// Page cache without shared memory, if it was read.
    pub file: Option<Bytes>,
    /// How often the limit has been met since the control group was made.
    pub met: u64,
    /// Time in which some task waited for memory, if it was read.
    pub waited: Option<Duration>,
    /// The limit in force, if it was read and nothing was about to change it.
    pub limit: Option<MemoryLimit>,
    /// Whether the container waits for the next request.
    pub idle: bool,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// The new grant. `Some(None)` is the ceiling.
    pub grant: Option<Option<Bytes>>,
    /// So much page cache is to be dropped.
    pub drop_cache: Option<Bytes>,
    /// What is worth telling.
    pub note: Option<Note>,
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// It used more than any run that is known. Told once.
    Outside {
        /// What it used.
        usage: Bytes,
        /// The most that was known.
        most: Bytes,
    },
    /// It used more than any run that is known had until then. Told once.
    Early {
        /// What it used.
        usage: Bytes,
        /// The most that was known until then.
        known: Bytes,
    },
    /// It met its limit.
    Met {
        /// How often.
        times: u64,
        /// The grant that was too little.
        grant: Bytes,
    },
    /// Tasks waited for memory below the ceiling.
    Pressed {
        /// So long, lately.
        waited: Duration,
        /// The grant then.
        grant: Bytes,
    },
    /// Somebody else wrote the limit: it is left alone.
    Foreign {
        /// What was found.
        found: MemoryLimit,
    },
    /// The limit is as it was declared again: it is granted again.
    Restored,
}
