//! Starting a process by the runtime, with its streams: the init of a container, or one more.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::engine::{self, Engine, Streams};
use super::error::{Result, ShimError};
use super::shim::Shim;
use super::stdio::{self, Held, Paths};
use super::terminal::{ConsoleSocket, Terminal};

impl Shim {
    /// Runs a verb that starts a process, with the process's streams.
    pub(super) async fn launch(
        &self,
        engine: &Engine,
        launch: Launch<'_>,
        paths: &Paths,
    ) -> std::result::Result<Held, Unlaunched> {
        let context = stdio::Context {
            children: &self.children,
            namespace: &self.namespace,
            id: launch.name,
            owner: launch.owner,
        };
        let Launch {
            mut args,
            id,
            extra,
            ..
        } = launch;
        if !paths.terminal {
            let (streams, held) = stdio::open(paths, &context).await?;
            args.push(id.into());
            return match engine.run_with(args, streams, extra).await {
                Ok(()) => Ok(held),
                Err(failure) => {
                    held.finish().await;
                    Err(failure.into())
                }
            };
        }
        let console = ConsoleSocket::open()?;
        let (input, output, mut held) = stdio::open_for_terminal(paths, &context).await?;
        args.extend(["--console-socket".into(), console.path().to_path_buf()]);
        args.push(id.into());
        let ran = engine.run_with(args, Streams::null(), extra).await;
        let terminal = match ran {
            Ok(()) => console
                .receive()
                .and_then(|master| Terminal::start(master, input, output))
                .map_err(|err| Unlaunched { err, cut_off: true }),
            Err(failure) => Err(failure.into()),
        };
        match terminal {
            Ok(terminal) => {
                held.terminal = Some(terminal);
                Ok(held)
            }
            Err(failure) => {
                held.finish().await;
                Err(failure)
            }
        }
    }
}

/// A process that the runtime is to start.
pub(super) struct Launch<'a> {
    pub(super) args: Vec<PathBuf>,
    /// The container.
    pub(super) id: &'a str,
    /// The container or the exec'ed process, for its logger.
    pub(super) name: &'a str,
    pub(super) owner: (u32, u32),
    pub(super) extra: Option<OwnedFd>,
}

/// Why there is no process, and whether whoever was to start it could clean up.
pub(super) struct Unlaunched {
    pub(super) err: ShimError,
    pub(super) cut_off: bool,
}

impl Unlaunched {
    /// Puts what was tried before the runtime's own words.
    pub(super) fn of(self, what: &str) -> Self {
        let err = match self.err {
            ShimError::Failed(text) => ShimError::failed(what, text),
            other => other,
        };
        Self { err, ..self }
    }
}

impl From<ShimError> for Unlaunched {
    fn from(err: ShimError) -> Self {
        Self {
            err,
            cut_off: false,
        }
    }
}

impl From<engine::Failure> for Unlaunched {
    fn from(failure: engine::Failure) -> Self {
        Self {
            cut_off: failure.cut_off,
            err: failure.into(),
        }
    }
}

/// The file in which the runtime leaves the id of a process; removed when it is read or not needed.
pub(super) struct PidFile(pub(super) PathBuf);

impl PidFile {
    pub(super) fn new(folder: &Path) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(folder.join(format!("exec-{count}.pid")))
    }

    pub(super) fn read(&self) -> Result<i32> {
        let text = std::fs::read_to_string(&self.0)
            .map_err(ShimError::from_io("read the id of the process"))?;
        text.trim()
            .parse()
            .map_err(|_| ShimError::Failed(format!("{text:?} is no process id")))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Not there if the process was not started.
        let _ = std::fs::remove_file(&self.0);
    }
}
