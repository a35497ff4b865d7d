//! Traces of the containers of this shim.
//!
//! The sampler's thread is started for the first container that is observed. Nothing here stops a container: what
//! goes wrong is logged, and the container runs without a trace.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Config, main_file};
use crate::control::{self, Folder};
use crate::grant::{self, Declared, Prepared};
use crate::kernel::cgroup::Cgroup;
use crate::model::placement::Placement;
use crate::policy::identity::Facts;
use crate::profile::{Store, StoreError};
use crate::runtime::chain;
use crate::sampler::{Ended, Sampler, Subject, Watched};

/// How long the removal of a container waits for the last reading of its control group.
const LAST_READING: Duration = Duration::from_millis(50);
/// How long a start waits for its first grant.
const FIRST_GRANT: Duration = Duration::from_millis(20);
/// How long a request waits until the limit is raised.
const HOLD: Duration = Duration::from_millis(50);
/// How long the end of this process waits for traces.
const LAST_TRACES: Duration = Duration::from_secs(2);

/// What is done with memory, for all containers of this shim.
#[derive(Debug, Default)]
pub(super) struct Observer {
    inner: Mutex<Inner>,
    /// Traces that are on their way into the store.
    storing: Mutex<JoinSet<()>>,
    /// Whether traces of those who were killed have been looked for.
    swept: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    config: Option<Arc<Config>>,
    sampler: Option<Sampler>,
}

/// The observation of one container.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Whether its start waits for its first grant.
    grants: bool,
    watched: Option<Watched>,
    ended: Mutex<Option<Ended>>,
}

impl Inner {
    /// Whoever looks after containers, from the first one on.
    fn sampler(&mut self, config: &Config) -> Option<&Sampler> {
        if self.sampler.is_none() {
            let spool = config.profile_folder.value.join("spool");
            self.sampler = Sampler::start(&spool, config.memory_priority.value)
                .inspect_err(|reason| tracing::warn!(reason, "no traces"))
                .ok();
        }
        self.sampler.as_ref()
    }
}

impl Observer {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is done with containers: that of the first one.
    pub(super) fn config(&self, given: Option<&Path>) -> Arc<Config> {
        let mut inner = self.lock();
        Arc::clone(inner.config.get_or_insert_with(|| Arc::new(load(given))))
    }

    /// A container is about to be created: while that goes on, whatever moves its limit can be started.
    pub(super) fn expect(&self, facts: &Facts<'_>, declared: Declared, config: &Config) {
        if !facts.is_sandbox()
            && grant::is_likely(config, facts, declared)
            && let Some(sampler) = self.lock().sampler(config)
        {
            sampler.get_ready();
        }
    }

    /// What is to be done with the memory of a container that was created; none if that is nothing.
    pub(super) fn prepare(
        &self,
        facts: &Facts<'_>,
        declared: Declared,
        cgroup: &Cgroup,
        config: &Config,
    ) -> Option<Prepared> {
        if facts.is_sandbox() {
            return None;
        }
        let prepared = grant::prepare(config, facts, declared, Some(cgroup))?;
        self.lock().sampler(config)?;
        Some(prepared)
    }

    /// Begins to do that. `recorded`: the record says what it will be granted first.
    pub(super) fn observe(
        &self,
        prepared: Prepared,
        cgroup: &Cgroup,
        placement: Option<Placement>,
        folder: &Folder,
        recorded: bool,
    ) -> Observed {
        let Prepared { mut context, plan } = prepared;
        if let Some(placement) = &placement {
            context.place(placement);
        }
        let grants = plan.mode.grants();
        let watched = self.lock().sampler.as_ref().map(|sampler| {
            sampler.watch(Subject {
                cgroup: cgroup.clone(),
                context,
                plan: grants.then_some(plan),
                placement,
                tell: Some(control::tell(folder)),
                publish: Some(control::publish(folder)),
                published: recorded,
            })
        });
        Observed {
            grants,
            watched,
            ended: Mutex::default(),
        }
    }

    /// Takes a trace into the store once it is complete, on a thread of its own.
    pub(super) fn store(&self, ended: Ended) {
        let store = {
            let inner = self.lock();
            let Some(config) = &inner.config else { return };
            Store::new(&config.profile_folder.value, config.keep_traces.value)
        };
        let sweep = !self.swept.swap(true, Ordering::Relaxed);
        let mut storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are done.
        while storing.try_join_next().is_some() {}
        storing.spawn(async move {
            if let Ok(Some(path)) = ended.written.await {
                let taken = tokio::task::spawn_blocking(move || take_in(&store, &path, sweep));
                if let Err(err) = taken.await {
                    tracing::error!(%err, "a trace was not stored");
                }
            }
        });
    }

    /// Waits for the traces that are still on their way.
    pub(super) async fn finish(&self) {
        let mut storing = {
            let mut storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *storing)
        };
        let all = async { while storing.join_next().await.is_some() {} };
        if timeout(LAST_TRACES, all).await.is_err() {
            tracing::warn!("traces were left in the spool folder");
        }
        // What is left stays there for the next one who looks.
        storing.detach_all();
    }
}

/// Keeps the limit of a container at its ceiling until it is dropped.
#[derive(Debug)]
pub(super) struct Held(Watched);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Observed {
    /// Whoever looks after it.
    pub(super) fn watched(&self) -> Option<&Watched> {
        self.watched.as_ref()
    }

    /// Has the limit raised to the ceiling before something is done that may need memory, and waits for that a moment.
    /// Without an answer it is raised by the record in this folder.
    pub(super) async fn hold(&self, folder: &Folder) -> Option<Held> {
        let watched = self.watched.as_ref()?;
        let answer = watched.hold();
        let held = Held(watched.clone());
        if timeout(HOLD, answer).await.is_err() {
            tracing::warn!("the memory limit of a container was not raised in time");
            control::give_back(folder);
        }
        Some(held)
    }

    /// Whether its program has something to wait for.
    pub(super) fn grants(&self) -> bool {
        self.watched.is_some() && self.grants
    }

    /// Its program starts: its first grant is in force when this returns, or after a moment without it.
    pub(super) async fn started(&self) {
        if let Some(watched) = &self.watched {
            let granted = watched.started();
            if self.grants && timeout(FIRST_GRANT, granted).await.is_err() {
                tracing::warn!("the first grant comes late");
            }
        }
    }

    /// Its init has ended.
    pub(super) fn ended(&self, code: u32) {
        if let Some(watched) = &self.watched {
            let ended = watched.ended(i32::try_from(code).ok());
            *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        }
    }

    /// Has its end counted, if it has started.
    pub(super) fn count(&self, folder: &Folder) {
        if let Some((_, status)) = self.watched.as_ref().and_then(Watched::status) {
            control::count(folder, &status);
        }
    }

    /// Waits until its control group is not needed any more; what remains of the observation.
    pub(super) async fn leave(&self) -> Option<Ended> {
        let ended = self
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match ended {
            Some(mut ended) => {
                // An error means that there was no trace.
                let _ = timeout(LAST_READING, &mut ended.read).await;
                Some(ended)
            }
            None => {
                if let Some(watched) = &self.watched {
                    watched.forget();
                }
                None
            }
        }
    }
}

/// Takes in a trace and, if `sweep`, what others have left behind.
fn take_in(store: &Store, path: &Path, sweep: bool) {
    match store.take_in(path) {
        // A sweep of somebody else was faster.
        Ok(_) | Err(StoreError::Busy(_)) => {}
        Err(err) => tracing::warn!("a trace was not stored: {}", chain(&err)),
    }
    if sweep {
        control::sweep();
        if let Err(err) = store.sweep_spool() {
            tracing::warn!("traces left behind were not stored: {}", chain(&err));
        }
    }
}

/// A configuration that cannot be used must not stop containers.
fn load(given: Option<&Path>) -> Config {
    Config::load(&main_file(given)).unwrap_or_else(|err| {
        tracing::warn!("configuration not used: {}", chain(&err));
        Config::default()
    })
}
