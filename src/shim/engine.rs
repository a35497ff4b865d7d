//! The verbs of the runtime, each run by a process of its own ([`crate::runtime::helper`]).

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::children::Children;
use super::error::ShimError;
use super::options::Options;
pub(super) use crate::runtime::helper::{Failure, Streams, extra_path, memory_file};
use crate::runtime::helper::{Settings, prepare};

/// Runs verbs with the settings of one container.
#[derive(Debug)]
pub(super) struct Engine {
    children: Arc<Children>,
    settings: Settings,
}

impl From<Failure> for ShimError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.text)
    }
}

/// Result of a verb.
type Result = std::result::Result<(), Failure>;

impl Engine {
    pub(super) fn new(
        children: Arc<Children>,
        options: &Options,
        namespace: &str,
        debug: bool,
    ) -> Self {
        Self {
            children,
            settings: Settings {
                root: options.runtime_root(namespace),
                systemd_cgroup: options.systemd_cgroup,
                config: options.config.clone(),
                debug,
            },
        }
    }

    /// The state folder of the runtime.
    pub(super) fn root(&self) -> &Path {
        &self.settings.root
    }

    /// Runs a verb to its end.
    ///
    /// # Errors
    /// [`Failure`] with the last error of the helper's log, without any words before it.
    pub(super) async fn run<I>(&self, args: I) -> Result
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.run_with(args, Streams::null(), None).await
    }

    /// Runs a verb with standard streams and one more descriptor, which it finds at [`extra_path`].
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub(super) async fn run_with<I>(
        &self,
        args: I,
        streams: Streams,
        extra: Option<OwnedFd>,
    ) -> Result
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let (mut helper, log) = {
            let (mut command, log) = prepare(&self.settings, args, streams, extra)?;
            let helper = self
                .children
                .start(&mut command)
                .map_err(|err| Failure::new("cannot run a helper", &err))?;
            (helper, log)
        };
        log.outcome(helper.ended().await)
    }
}
