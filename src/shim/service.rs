//! The Task service of containerd: each request to what the shim does with it, and back.

use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{EnumOrUnknown, Message, MessageField};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::ttrpc::r#async::TtrpcContext;
use containerd_shim_protos::ttrpc::{self, Error};

use super::error::{Result, ShimError};
use super::metrics;
use super::process::Phase;
use super::shim::Shim;
use crate::runtime::chain;

/// Type of the resources of an update (runtime-spec, `linux.resources`, as JSON).
const RESOURCES: &str = "opencontainers/runtime-spec/1/LinuxResources";

/// The service of one shim.
#[derive(Debug, Clone)]
pub(super) struct Service(pub(super) Arc<Shim>);

impl Service {
    /// Does what must not stop half-way, as it would if the caller's patience ended first.
    async fn whole<T, F>(&self, work: impl FnOnce(Arc<Shim>) -> F) -> ttrpc::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let done = tokio::spawn(work(Arc::clone(&self.0))).await;
        self.0.worked.notify_one();
        match done {
            Ok(result) => result.map_err(Error::from),
            Err(err) => Err(ShimError::Failed(format!("the request was cut off: {err}")).into()),
        }
    }
}

#[async_trait]
impl Task for Service {
    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let container = self.0.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let status = match process.phase() {
            Phase::Stopped => Status::STOPPED,
            _ if process.is_init() && container.is_paused() => Status::PAUSED,
            Phase::Created | Phase::Starting => Status::CREATED,
            Phase::Running => Status::RUNNING,
        };
        let exit = process.exit();
        let paths = &process.paths;
        Ok(StateResponse {
            id: if process.is_init() {
                container.id.clone()
            } else {
                process.exec_id.clone()
            },
            bundle: container.bundle.display().to_string(),
            pid: process.wire_pid(),
            status: EnumOrUnknown::new(status),
            stdin: paths.stdin.clone(),
            stdout: paths.stdout.clone(),
            stderr: paths.stderr.clone(),
            terminal: paths.terminal,
            exit_status: exit.as_ref().map_or(0, |exit| exit.code),
            exited_at: exit.map(|exit| exit.at).into(),
            exec_id: request.exec_id,
            ..StateResponse::default()
        })
    }

    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        let pid = self
            .whole(|shim| async move { shim.create(request).await })
            .await?;
        Ok(CreateTaskResponse {
            pid,
            ..CreateTaskResponse::default()
        })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let pid = self
            .whole(|shim| async move {
                let pid = shim.start(&request.id, &request.exec_id).await?;
                if request.exec_id.is_empty() {
                    let container = shim.container(&request.id)?;
                    tokio::spawn(Arc::clone(&shim).watch_oom(container));
                }
                Ok(pid)
            })
            .await?;
        Ok(StartResponse {
            pid,
            ..StartResponse::default()
        })
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: DeleteRequest,
    ) -> ttrpc::Result<DeleteResponse> {
        let (pid, exit) = self
            .whole(|shim| async move { shim.delete(&request.id, &request.exec_id).await })
            .await?;
        Ok(DeleteResponse {
            pid,
            exit_status: exit.code,
            exited_at: MessageField::some(exit.at),
            ..DeleteResponse::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let container = self.0.container(&request.id)?;
        let names = container.exec_pids();
        let pids = container
            .cgroup
            .processes()
            .map_err(|err| ShimError::Failed(chain(&err)))?;
        let info = |pid: i32| -> ProcessInfo {
            let details = names.get(&pid).and_then(|name| {
                let details = ProcessDetails {
                    exec_id: name.clone(),
                    ..ProcessDetails::default()
                };
                any("containerd.runc.v1.ProcessDetails", &details).ok()
            });
            ProcessInfo {
                pid: u32::try_from(pid).unwrap_or(0),
                info: details.into(),
                ..ProcessInfo::default()
            }
        };
        Ok(PidsResponse {
            processes: pids.into_iter().map(info).collect(),
            ..PidsResponse::default()
        })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        self.whole(|shim| async move { shim.pause(&request.id).await })
            .await?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        self.whole(|shim| async move { shim.resume(&request.id).await })
            .await?;
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        let text = "checkpoints are not supported by elastic-mem";
        Err(ShimError::Unsupported(text.to_owned()).into())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        self.whole(|shim| async move {
            let KillRequest {
                id,
                exec_id,
                signal,
                all,
                ..
            } = request;
            shim.kill(&id, &exec_id, signal, all).await
        })
        .await?;
        Ok(Empty::new())
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        self.0.exec(request)?;
        Ok(Empty::new())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: ResizePtyRequest,
    ) -> ttrpc::Result<Empty> {
        let process = self.0.container(&request.id)?.process(&request.exec_id)?;
        process.resize(request.height, request.width)?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let process = self.0.container(&request.id)?.process(&request.exec_id)?;
        if request.stdin {
            process.close_stdin();
        }
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        self.whole(|shim| async move {
            let resources = request.resources.into_option().unwrap_or_default();
            if !resources.type_url.ends_with(RESOURCES) {
                return Err(ShimError::Invalid(format!(
                    "resources of type {:?}, expected {RESOURCES}",
                    resources.type_url
                )));
            }
            shim.update(&request.id, &resources.value).await
        })
        .await?;
        Ok(Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let process = self.0.container(&request.id)?.process(&request.exec_id)?;
        let exit = process.wait().await;
        Ok(WaitResponse {
            exit_status: exit.code,
            exited_at: MessageField::some(exit.at),
            ..WaitResponse::default()
        })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let container = self.0.container(&request.id)?;
        Ok(StatsResponse {
            stats: MessageField::some(metrics::of(&container.cgroup)?),
            ..StatsResponse::default()
        })
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: ConnectRequest,
    ) -> ttrpc::Result<ConnectResponse> {
        // A container that was never created has no process, which is no error here.
        let task = self.0.container(&request.id);
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task.map_or(0, |container| container.init.wire_pid()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ConnectResponse::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        if self.0.is_empty() {
            self.0.done.notify_one();
        }
        Ok(Empty::new())
    }
}

/// A message with its type, as containerd writes it.
///
/// # Errors
/// `Failed` when it cannot be encoded.
pub(super) fn any(name: &str, message: &impl Message) -> Result<Any> {
    Ok(Any {
        type_url: name.to_owned(),
        value: message
            .write_to_bytes()
            .map_err(|err| ShimError::failed(format_args!("encode {name}"), err))?,
        ..Any::default()
    })
}
