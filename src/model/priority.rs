//! How urgent the sampler's thread is to the scheduler.

/// How urgent the sampler's thread is to the scheduler (sched(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// Before other threads: nice -10.
    #[default]
    Normal,
    /// `SCHED_FIFO` where that is granted, else as [`Priority::Normal`].
    Realtime,
}

impl Priority {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Normal, Self::Realtime];

    /// Its name in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Realtime => "realtime",
        }
    }
}
