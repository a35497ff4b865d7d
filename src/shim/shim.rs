//! What the shim does with its containers. Requests come from `service`, ends of processes from `server`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim_protos::api::ExecProcessRequest;
use containerd_shim_protos::events::task::{
    TaskDelete, TaskExecAdded, TaskExit, TaskOOM, TaskPaused, TaskResumed,
};
use containerd_shim_protos::protobuf::MessageField;
use nix::libc;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::children::Children;
use super::container::Container;
use super::doors::Doors;
use super::engine::{self, Streams, memory_file};
use super::error::{Result, ShimError};
use super::events::Queue;
use super::observe::Observer;
use super::process::{Exit, Phase, Process};
use super::rootfs;
use super::stdio::Paths;
use crate::kernel::children::Ended;
use crate::kernel::process::signal_pid;
use crate::runtime::chain;

/// How long a created container may take to end once its removal was asked for.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// A process of a container.
pub(super) type Known = (Arc<Container>, Arc<Process>);

/// All containers of this process.
#[derive(Debug)]
pub(super) struct Shim {
    pub(super) namespace: String,
    pub(super) children: Arc<Children>,
    pub(super) events: Queue,
    pub(super) observer: Observer,
    pub(super) doors: Doors,
    /// Awaited by the server: nothing is left to do.
    pub(super) done: Notify,
    /// Awaited by the server: something was done, and memory used for it.
    pub(super) worked: Notify,
    /// Awaited by the server: a container came or went.
    pub(super) changed: Notify,
    pub(super) debug: bool,
    had_containers: AtomicBool,
    pub(super) containers: Mutex<BTreeMap<String, Arc<Container>>>,
    /// Names of containers that are being created.
    pub(super) creating: Mutex<HashSet<String>>,
    /// Processes of containers by their ids.
    pub(super) running: Mutex<HashMap<i32, Known>>,
}

impl Shim {
    pub(super) fn new(namespace: &str, events: Queue, debug: bool) -> Self {
        Self {
            namespace: namespace.to_owned(),
            children: Arc::default(),
            events,
            observer: Observer::default(),
            doors: Doors::default(),
            done: Notify::new(),
            worked: Notify::new(),
            changed: Notify::new(),
            had_containers: AtomicBool::new(false),
            debug,
            containers: Mutex::default(),
            creating: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// A container by its name.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) fn container(&self, id: &str) -> Result<Arc<Container>> {
        lock(&self.containers)
            .get(id)
            .map(Arc::clone)
            .ok_or_else(|| ShimError::NotFound(format!("container not created: {id}")))
    }

    /// Takes note of a new container.
    pub(super) fn add(&self, container: &Arc<Container>) {
        lock(&self.containers).insert(container.id.clone(), Arc::clone(container));
        self.had_containers.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Whether there was ever a container.
    pub(super) fn had_containers(&self) -> bool {
        self.had_containers.load(Ordering::Relaxed)
    }

    /// Whether there is nothing left to look after.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.containers).is_empty() && lock(&self.creating).is_empty()
    }

    /// From now on the end of this process has a meaning; it may lie in the past.
    pub(super) fn watch(&self, container: &Arc<Container>, process: &Arc<Process>) {
        let pid = process.pid();
        match self.children.early(pid) {
            Some(ended) => self.process_ended(container, process, ended),
            None => {
                let known = (Arc::clone(container), Arc::clone(process));
                lock(&self.running).insert(pid, known);
            }
        }
    }

    /// A child was reaped.
    pub(super) fn reaped(&self, ended: Ended) {
        let Some(ended) = self.children.reaped(ended) else {
            return;
        };
        let known = lock(&self.running).remove(&ended.pid);
        match known {
            Some((container, process)) => self.process_ended(&container, &process, ended),
            None => self.children.keep(ended),
        }
    }

    fn process_ended(&self, container: &Container, process: &Arc<Process>, ended: Ended) {
        if process.is_init() {
            container.observed.ended(ended.code);
            self.tell_oom(container);
            if container.outlives_init && !container.cgroup_shared {
                // With a PID namespace of its own the kernel has done so already.
                if let Err(err) = container.cgroup.signal_all(libc::SIGKILL) {
                    tracing::warn!(%err, id = container.id, "processes left behind");
                }
            }
        }
        process.end(ended.code);
        self.settle(container, process);
    }

    /// Tells the end of a process once everything that must be told before it has been.
    pub(super) fn settle(&self, container: &Container, process: &Process) {
        if !process.is_init() {
            self.tell_exit(container, process);
        }
        // The end of the init comes last.
        if !container.has_running_exec() {
            self.tell_exit(container, &container.init);
        }
    }

    fn tell_exit(&self, container: &Container, process: &Process) {
        let Some(exit) = process.tell_exit() else {
            return;
        };
        let id = if process.is_init() {
            &container.id
        } else {
            &process.exec_id
        };
        self.events.push(&TaskExit {
            container_id: container.id.clone(),
            id: id.clone(),
            pid: process.wire_pid(),
            exit_status: exit.code,
            exited_at: MessageField::some(exit.at),
            ..TaskExit::default()
        });
    }

    /// Tells of the OOM killer, if it has been at work since the last look; whether it has.
    pub(super) fn tell_oom(&self, container: &Container) -> bool {
        let killed = container.was_oom_killed();
        if killed {
            self.events.push(&TaskOOM {
                container_id: container.id.clone(),
                ..TaskOOM::default()
            });
        }
        killed
    }

    /// Removes a container that has ended or was never started, or an exec'ed process that has ended.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    pub(super) async fn delete(&self, id: &str, exec_id: &str) -> Result<(u32, Exit)> {
        let container = self.container(id)?;
        let process = container.process(exec_id)?;
        let _turn = container.turn_of(&process).await;
        match process.phase() {
            Phase::Running | Phase::Starting => {
                let word = match process.is_init() && container.is_paused() {
                    true => "paused",
                    false => "running",
                };
                return Err(ShimError::Failed(format!("cannot delete a {word} process")));
            }
            Phase::Created | Phase::Stopped => {}
        }
        let exit = if process.is_init() {
            self.delete_init(&container).await?
        } else {
            if let Some(held) = process.take_held() {
                held.finish().await;
            }
            container.remove(exec_id);
            process.exit().unwrap_or_else(|| Exit {
                code: 0,
                at: super::process::now(),
            })
        };
        Ok((process.wire_pid(), exit))
    }

    async fn delete_init(&self, container: &Arc<Container>) -> Result<Exit> {
        let init = &container.init;
        let _held = match init.phase() {
            Phase::Stopped => None,
            _ => container.hold().await,
        };
        let observed = container.observed.leave().await;
        if observed.is_some() {
            container.observed.count(&container.folder);
        }
        match container.engine.run(["delete", &container.id]).await {
            Err(failure) if failure.text.contains("container does not exist") => {}
            other => {
                other.map_err(|err| ShimError::failed("OCI runtime delete failed", err))?;
            }
        }
        let exit = tokio::time::timeout(END_PATIENCE, init.wait())
            .await
            .map_err(|_| ShimError::Failed("container init still running".to_owned()))?;
        if let Some(held) = init.take_held() {
            held.finish().await;
        }
        if let Some(ended) = observed {
            self.observer.store(ended);
        }
        rootfs::unmount(&container.rootfs());
        container.folder.remove();
        lock(&self.containers).remove(&container.id);
        self.changed.notify_one();
        self.events.push(&TaskDelete {
            container_id: container.id.clone(),
            pid: init.wire_pid(),
            exit_status: exit.code,
            exited_at: MessageField::some(exit.at.clone()),
            ..TaskDelete::default()
        });
        Ok(exit)
    }

    /// Adds a process, to be started later.
    ///
    /// # Errors
    /// `NotFound`, `Exists`, `Invalid` without a description, `Failed` in a container that has stopped.
    pub(super) fn exec(&self, request: ExecProcessRequest) -> Result<()> {
        let container = self.container(&request.id)?;
        if request.exec_id.is_empty() {
            return Err(ShimError::Invalid("exec id cannot be empty".to_owned()));
        }
        if container.process(&request.exec_id).is_ok() {
            return Err(ShimError::Exists(format!("id {}", request.exec_id)));
        }
        let word = match container.init.phase() {
            Phase::Stopped => Some("stopped"),
            _ if container.is_paused() => Some("paused"),
            _ => None,
        };
        if let Some(word) = word {
            return Err(ShimError::Failed(format!("cannot exec in a {word} state")));
        }
        let spec = request
            .spec
            .into_option()
            .ok_or_else(|| ShimError::Invalid("the request describes no process".to_owned()))?;
        let paths = Paths {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let process = Process::new(&request.exec_id, paths);
        process.set_spec(spec.value);
        container.add(process)?;
        self.events.push(&TaskExecAdded {
            container_id: request.id,
            exec_id: request.exec_id,
            ..TaskExecAdded::default()
        });
        Ok(())
    }

    /// Sends a signal to a process, or to all of a container.
    ///
    /// # Errors
    /// `NotFound` when it has ended, `Precondition` before it exists.
    pub(super) async fn kill(&self, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        let container = self.container(id)?;
        let process = container.process(exec_id)?;
        let signal = i32::try_from(signal)
            .map_err(|_| ShimError::Invalid(format!("{signal} is no signal")))?;
        let _held = container.hold().await;
        if all && process.is_init() {
            let number = signal.to_string();
            let args = ["kill", "--all", &container.id, &number];
            return container.engine.run(args).await.map_err(kill_error);
        }
        if process.exit().is_some() {
            return Err(ShimError::NotFound("process already finished".to_owned()));
        }
        if process.pid() == 0 {
            return Err(ShimError::Precondition("process not created".to_owned()));
        }
        // Until it is reaped, which happens on this thread, its id belongs to it.
        signal_pid(process.pid(), signal).map_err(|err| match err.is_gone() {
            true => ShimError::NotFound("process already finished".to_owned()),
            false => ShimError::Failed(chain(&err)),
        })?;
        if signal == libc::SIGKILL && container.cgroup.is_frozen() {
            // A frozen process of cgroup v1 dies only once it is thawed.
            container
                .cgroup
                .thaw()
                .map_err(|err| ShimError::Failed(chain(&err)))?;
        }
        Ok(())
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    pub(super) async fn pause(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let _turn = container.alone().await;
        match container.init.phase() {
            Phase::Running if container.is_paused() => Err("cannot pause a paused container"),
            Phase::Running | Phase::Starting => Ok(()),
            Phase::Created => Err("cannot pause task in created state"),
            Phase::Stopped => Err("cannot pause a stopped container"),
        }
        .map_err(|text| ShimError::Failed(text.to_owned()))?;
        let held = container.hold().await;
        let paused = container.engine.run(["pause", &container.id]).await;
        paused.map_err(|err| ShimError::failed("OCI runtime pause failed", err))?;
        container.set_paused(true, held);
        self.events.push(&TaskPaused {
            container_id: container.id.clone(),
            ..TaskPaused::default()
        });
        Ok(())
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    pub(super) async fn resume(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let _turn = container.alone().await;
        match container.init.phase() {
            Phase::Running if container.is_paused() => Ok(()),
            Phase::Running | Phase::Starting => Err("cannot resume a running process"),
            Phase::Created => Err("cannot resume task in created state"),
            Phase::Stopped => Err("cannot resume a stopped container"),
        }
        .map_err(|text| ShimError::Failed(text.to_owned()))?;
        let resumed = container.engine.run(["resume", &container.id]).await;
        resumed.map_err(|err| ShimError::failed("OCI runtime resume failed", err))?;
        container.set_paused(false, None);
        self.events.push(&TaskResumed {
            container_id: container.id.clone(),
            ..TaskResumed::default()
        });
        Ok(())
    }

    /// Changes limits, given as `linux.resources` JSON.
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    pub(super) async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let container = self.container(id)?;
        let _turn = container.alone().await;
        if container.init.phase() == Phase::Stopped {
            return Err(ShimError::Failed(
                "cannot update a stopped container".to_owned(),
            ));
        }
        let streams = Streams {
            stdin: memory_file(resources)
                .map_err(ShimError::from_io("resources"))?
                .into(),
            ..Streams::null()
        };
        let _held = container.hold().await;
        let args = ["update", "--resources", "-", &container.id];
        container.engine.run_with(args, streams, None).await?;
        container.declares(resources);
        Ok(())
    }

    /// Tells of the OOM killer as long as the container lives.
    pub(super) async fn watch_oom(self: Arc<Self>, container: Arc<Container>) {
        let news = match container
            .cgroup
            .watch_oom()
            .map(crate::kernel::watch::watch)
        {
            Ok(Ok(news)) => news,
            Ok(Err(err)) => {
                tracing::warn!(%err, "no news of the OOM killer");
                return;
            }
            Err(err) => {
                tracing::warn!("no news of the OOM killer: {}", chain(&err));
                return;
            }
        };
        // Before there was anybody to be told.
        self.tell_oom(&container);
        let looking = async {
            while let Ok(mut ready) = news.readable().await {
                let mut bytes = [0; 512];
                // Emptied; what it says does not matter.
                while rustix::io::read(news.get_ref(), &mut bytes).is_ok_and(|count| count > 0) {}
                ready.clear_ready();
                // cgroup v1 tells before it kills.
                for pause in [0, 1, 5, 20, 100] {
                    sleep(Duration::from_millis(pause)).await;
                    if self.tell_oom(&container) {
                        break;
                    }
                }
            }
        };
        tokio::select! {
            () = looking => {}
            _ = container.init.wait() => {}
        }
    }
}

fn kill_error(failure: engine::Failure) -> ShimError {
    let text = failure.text;
    let gone = [
        "container not running",
        "no such process",
        "process already finished",
    ];
    if gone.iter().any(|words| text.contains(words)) {
        return ShimError::NotFound("process already finished".to_owned());
    }
    if text.contains("does not exist") {
        return ShimError::NotFound("no such container".to_owned());
    }
    ShimError::Failed(format!("unknown error after kill: {text}"))
}

/// What a mutex guards; a panic of another holder leaves it as it was.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
