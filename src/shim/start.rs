//! Starts containers and processes that are added to them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use containerd_shim_protos::events::task::{TaskExecStarted, TaskStart};
use nix::libc;

use super::container::Container;
use super::engine::{self, Streams, memory_file};
use super::error::{Result, ShimError};
use super::launch::{Launch, PidFile, Unlaunched};
use super::process::{Phase, Process};
use super::shim::{Shim, lock};
use crate::kernel::process::signal_pid;

/// Result of a start.
type Launched = std::result::Result<(), Unlaunched>;

impl Shim {
    /// Starts the program of a created container, or a process that was added.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    pub(super) async fn start(&self, id: &str, exec_id: &str) -> Result<u32> {
        let container = self.container(id)?;
        let process = container.process(exec_id)?;
        let turn = container.turn_of(&process).await;
        let word = match process.phase() {
            Phase::Created => None,
            Phase::Stopped => Some("stopped"),
            Phase::Running | Phase::Starting if process.is_init() && container.is_paused() => {
                Some("paused")
            }
            Phase::Running | Phase::Starting => Some("running"),
        };
        if let Some(word) = word {
            return Err(ShimError::Failed(format!("cannot start a {word} process")));
        }
        process.enter(Phase::Starting);
        let result = if process.is_init() {
            self.start_init(&container).await
        } else {
            self.start_exec(&container, &process).await
        };
        if let Err(Unlaunched { err, cut_off }) = result {
            // Without a process there is nothing to wait for.
            let is_gone = process.pid() == 0;
            if is_gone {
                process.end(255);
            }
            process.enter(Phase::Created);
            if is_gone {
                process.tell_exit();
            }
            self.settle(&container, &process);
            drop(turn);
            if cut_off {
                let _alone = container.alone().await;
                self.end_strangers(&container);
            }
            return Err(err);
        }
        process.enter(Phase::Running);
        let pid = process.wire_pid();
        if process.is_init() {
            self.events.push(&TaskStart {
                container_id: container.id.clone(),
                pid,
                ..TaskStart::default()
            });
        } else {
            self.events.push(&TaskExecStarted {
                container_id: container.id.clone(),
                exec_id: exec_id.to_owned(),
                pid,
                ..TaskExecStarted::default()
            });
        }
        // It may have ended before its start was told.
        self.settle(&container, &process);
        Ok(pid)
    }

    async fn start_init(&self, container: &Arc<Container>) -> Launched {
        let (id, observed) = (&container.id, &container.observed);
        let started = if observed.grants() {
            let (granted, grants) = std::io::pipe().map_err(ShimError::from_io("first grant"))?;
            let first = async {
                observed.started().await;
                drop(grants);
            };
            // Its process is made ready meanwhile.
            let path = engine::extra_path();
            let args = [
                "start".as_ref(),
                "--after".as_ref(),
                path.as_os_str(),
                id.as_ref(),
            ];
            let extra = Some(OwnedFd::from(granted));
            tokio::join!(
                first,
                container.engine.run_with(args, Streams::null(), extra)
            )
            .1
        } else {
            observed.started().await;
            container.engine.run(["start", id]).await
        };
        started.map_err(|failure| ShimError::failed("OCI runtime start failed", failure).into())
    }

    async fn start_exec(&self, container: &Arc<Container>, process: &Arc<Process>) -> Launched {
        if container.is_paused() {
            return Err(ShimError::Failed("cannot exec in a paused state".to_owned()).into());
        }
        if container.init.phase() == Phase::Stopped {
            return Err(ShimError::Failed("cannot exec in a stopped state".to_owned()).into());
        }
        let spec =
            memory_file(&process.take_spec()).map_err(ShimError::from_io("process description"))?;
        let pid_file = PidFile::new(container.folder.path());
        let _held = container.hold().await;
        let launch = Launch {
            args: vec![
                "exec".into(),
                "--process".into(),
                engine::extra_path(),
                "--detach".into(),
                "--pid-file".into(),
                pid_file.0.clone(),
            ],
            id: &container.id,
            name: &process.exec_id,
            owner: container.io_owner,
            extra: Some(OwnedFd::from(spec)),
        };
        let expecting = self.children.expect();
        let held = self
            .launch(&container.engine, launch, &process.paths)
            .await
            .map_err(|failure| failure.of("OCI runtime exec failed"))?;
        let pid = pid_file
            .read()
            .map_err(|err| Unlaunched { err, cut_off: true })?;
        process.exists(pid, held);
        self.watch(container, process);
        drop(expecting);
        Ok(())
    }

    /// Ends processes that were put into a container by a helper that was killed before it told of them.
    /// Nobody else may be starting one.
    ///
    /// Our own children in a PID namespace that is not ours are its init or came by Exec. Without such a
    /// namespace they may as well be orphans of the container, and stay.
    fn end_strangers(&self, container: &Container) {
        if container.outlives_init {
            return;
        }
        let own = std::process::id().cast_signed();
        for pid in container.cgroup.processes().unwrap_or_default() {
            let is_child = crate::kernel::process::stat(pid).is_ok_and(|stat| stat.parent == own);
            if is_child && !lock(&self.running).contains_key(&pid) {
                // It may have ended meanwhile.
                let _ = signal_pid(pid, libc::SIGKILL);
            }
        }
    }
}
