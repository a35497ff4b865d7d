//! One container with its processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::doors::Door;
use super::engine::Engine;
use super::error::{Result, ShimError};
use super::observe::{Held, Observed};
use super::process::{Phase, Process};
use super::shim::lock;
use crate::control::Folder;
use crate::grant::Declared;
use crate::kernel::cgroup::Cgroup;
use crate::runtime::chain;

/// A container that stands.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) engine: Engine,
    pub(super) folder: Folder,
    pub(super) cgroup: Cgroup,
    /// Whether processes of others may be in the control group: they are left alone.
    pub(super) cgroup_shared: bool,
    /// Whether its processes outlive its init.
    pub(super) outlives_init: bool,
    /// User and group of its root on the host, where they differ.
    pub(super) io_owner: (u32, u32),
    pub(super) init: Arc<Process>,
    pub(super) live: Live,
    pub(super) observed: Observed,
    /// Its control socket.
    pub(super) _door: Option<Door>,
}

/// The right to change a container, or a process of it.
#[derive(Debug)]
pub(super) enum Turn<'a> {
    /// Alone.
    Alone { _guard: RwLockWriteGuard<'a, ()> },
    /// Together with others that each have a process of their own.
    Shared { _guard: RwLockReadGuard<'a, ()> },
}

/// What changes while a container stands.
#[derive(Debug)]
pub(super) struct Live {
    paused: AtomicBool,
    held: Mutex<Option<Held>>,
    oom_kills: AtomicU64,
    execs: Mutex<BTreeMap<String, Arc<Process>>>,
    turn: RwLock<()>,
}

impl Live {
    /// A container that has just been created: only what happens from now on counts.
    pub(super) fn new(cgroup: &Cgroup) -> Self {
        Self {
            paused: AtomicBool::new(false),
            held: Mutex::default(),
            oom_kills: AtomicU64::new(cgroup.oom_kills()),
            execs: Mutex::default(),
            turn: RwLock::default(),
        }
    }
}

impl Container {
    /// Waits until nobody else changes the container.
    pub(super) async fn alone(&self) -> Turn<'_> {
        Turn::Alone {
            _guard: self.live.turn.write().await,
        }
    }

    /// Waits for the right to change a process: exec'ed ones do not wait for each other.
    pub(super) async fn turn_of(&self, process: &Process) -> Turn<'_> {
        if process.is_init() {
            return self.alone().await;
        }
        Turn::Shared {
            _guard: self.live.turn.read().await,
        }
    }

    /// Has its limit raised to the ceiling before something is done that may need memory; nothing to do if nobody changes
    /// it.
    pub(super) async fn hold(&self) -> Option<Held> {
        match self.folder.mode().grants() {
            true => self.observed.hold(&self.folder).await,
            false => None,
        }
    }

    /// Notes the limit that an update declares. Where the limit is moved, whoever moves it finds out.
    pub(super) fn declares(&self, resources: &[u8]) {
        if self.folder.mode().grants() {
            return;
        }
        let limit = serde_json::from_slice(resources)
            .ok()
            .and_then(|resources| Declared::limit_in(&resources));
        if let Some(limit) = limit
            && let Err(err) = self.folder.publish(limit, limit)
        {
            tracing::warn!("record not written: {}", chain(&err));
        }
    }

    /// The mount point of the root file system.
    pub(super) fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// The process of that name; the init for the empty one.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        self.execs()
            .get(exec_id)
            .map(Arc::clone)
            .ok_or_else(|| ShimError::NotFound(format!("process does not exist {exec_id}")))
    }

    /// Adds a process that is to be started later.
    ///
    /// # Errors
    /// `Exists` when the name is taken.
    pub(super) fn add(&self, process: Process) -> Result<()> {
        use std::collections::btree_map::Entry;
        match self.execs().entry(process.exec_id.clone()) {
            Entry::Occupied(entry) => Err(ShimError::Exists(format!("id {}", entry.key()))),
            Entry::Vacant(entry) => {
                entry.insert(Arc::new(process));
                Ok(())
            }
        }
    }

    /// Forgets an exec'ed process.
    pub(super) fn remove(&self, exec_id: &str) {
        self.execs().remove(exec_id);
    }

    /// Names and ids of the exec'ed processes that there are.
    pub(super) fn exec_pids(&self) -> BTreeMap<i32, String> {
        self.execs()
            .values()
            .filter(|process| process.pid() != 0)
            .map(|process| (process.pid(), process.exec_id.clone()))
            .collect()
    }

    /// Whether an exec'ed process still runs or is being started.
    pub(super) fn has_running_exec(&self) -> bool {
        self.execs()
            .values()
            .any(|process| matches!(process.phase(), Phase::Running | Phase::Starting))
    }

    pub(super) fn is_paused(&self) -> bool {
        self.live.paused.load(Ordering::Relaxed)
    }

    /// While it is paused its limit is held.
    pub(super) fn set_paused(&self, paused: bool, held: Option<Held>) {
        self.live.paused.store(paused, Ordering::Relaxed);
        *lock(&self.live.held) = held;
    }

    /// Whether the OOM killer has killed since this was last asked.
    pub(super) fn was_oom_killed(&self) -> bool {
        let now = self.cgroup.oom_kills();
        now > self.live.oom_kills.fetch_max(now, Ordering::Relaxed)
    }

    fn execs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Process>>> {
        lock(&self.live.execs)
    }
}
