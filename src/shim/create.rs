//! Creation of a container: root file system, streams, the runtime's `create`, and what to do if it fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_shim_protos::api::CreateTaskRequest;
use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use containerd_shim_protos::protobuf::MessageField;

use super::bundle::Bundle;
use super::container::{Container, Live};
use super::engine::Engine;
use super::error::{Result, ShimError};
use super::launch::{Launch, Unlaunched};
use super::observe::Observed;
use super::options::Options;
use super::process::Process;
use super::rootfs;
use super::shim::{Shim, lock};
use super::stdio::{Held, Paths};
use crate::control::{Folder, Record, Tuned};
use crate::model::ContainerId;
use crate::runtime::{Store, chain};

impl Shim {
    /// Creates a container.
    ///
    /// # Errors
    /// Of every kind; nothing is left of it then.
    pub(super) async fn create(&self, request: CreateTaskRequest) -> Result<u32> {
        if !request.checkpoint.is_empty() {
            return Err(ShimError::Unsupported(
                "checkpoints are not supported by elastic-mem".to_owned(),
            ));
        }
        let id = request.id.clone();
        if lock(&self.containers).contains_key(&id) || !lock(&self.creating).insert(id.clone()) {
            return Err(ShimError::Exists(format!("container {id}")));
        }
        let result = self.create_named(request).await;
        lock(&self.creating).remove(&id);
        self.changed.notify_one();
        result
    }

    async fn create_named(&self, request: CreateTaskRequest) -> Result<u32> {
        let id: ContainerId = request
            .id
            .parse()
            .map_err(|err| ShimError::Invalid(format!("{err}")))?;
        let options = Options::decode(request.options.as_ref()).map_err(ShimError::Invalid)?;
        let bundle_path = PathBuf::from(&request.bundle);
        let bundle = Bundle::read(&bundle_path)?;
        let engine = Engine::new(
            Arc::clone(&self.children),
            &options,
            &self.namespace,
            self.debug,
        );
        let folder = Folder::of(&self.namespace, id.as_str());
        let mut record = Record::new(&bundle_path, engine.root(), bundle.memory_limit())?;
        folder.write(record.clone())?;
        let target = bundle_path.join("rootfs");
        if let Err(err) = rootfs::mount_all(&request.rootfs, &target, &self.children).await {
            folder.remove();
            return Err(err);
        }
        let paths = Paths {
            terminal: request.terminal,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
        };
        let expecting = self.children.expect();
        // While the runtime creates it.
        let meanwhile = async {
            let config = self.observer.config(options.config.as_deref());
            let trusted = config.trusted();
            let facts = bundle.facts(&self.namespace, id.as_str(), &trusted);
            self.observer.expect(&facts, bundle.declared(), &config);
            (config, trusted)
        };
        let (started, (config, trusted)) = tokio::join!(
            self.create_process(&engine, &id, &bundle_path, &paths, &options),
            meanwhile
        );
        let (held, created) = match started {
            Ok(started) => started,
            Err(err) => {
                rootfs::unmount(&target);
                folder.remove();
                return Err(err);
            }
        };
        let inside = created.inside();
        let state = created.state;
        let pid = state.init.map_or(0, |init| init.pid);
        let facts = bundle.facts(&self.namespace, id.as_str(), &trusted);
        let declared = bundle.declared();
        let prepared = self
            .observer
            .prepare(&facts, declared, &state.cgroup, &config);
        record.stands(pid, &state.cgroup);
        record.is_of(&facts, prepared.as_ref().map(|prepared| &prepared.plan));
        let recorded = folder.write(record);
        if let Err(err) = &recorded {
            // Only other programs read it.
            tracing::warn!("record not written: {}", chain(err));
        }
        let observed = prepared.map_or_else(Observed::default, |prepared| {
            let placement = state.placement.clone();
            self.observer.observe(
                prepared,
                &state.cgroup,
                placement,
                &folder,
                recorded.is_ok(),
            )
        });
        let door = observed.watched().and_then(|watched| {
            let tuned = Tuned {
                watched: watched.clone(),
                known: bundle.known(&self.namespace, id.as_str(), trusted.clone()),
                cgroup: state.cgroup.clone(),
                config: Arc::clone(&config),
                folder: folder.clone(),
            };
            self.doors.open(tuned, inside.as_deref())
        });
        let init = Arc::new(Process::new("", paths.clone()));
        init.exists(pid, held);
        let container = Arc::new(Container {
            live: Live::new(&state.cgroup),
            observed,
            _door: door,
            id: request.id.clone(),
            bundle: bundle_path,
            engine,
            folder,
            cgroup: state.cgroup,
            cgroup_shared: state.cgroup_shared,
            outlives_init: bundle.outlives_init(),
            io_owner: options.io_owner,
            init: Arc::clone(&init),
        });
        self.add(&container);
        self.events.push(&TaskCreate {
            container_id: request.id,
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: MessageField::some(TaskIO {
                stdin: paths.stdin,
                stdout: paths.stdout,
                stderr: paths.stderr,
                terminal: paths.terminal,
                ..TaskIO::default()
            }),
            pid: init.wire_pid(),
            ..TaskCreate::default()
        });
        self.watch(&container, &init);
        drop(expecting);
        Ok(init.wire_pid())
    }

    /// Has the runtime create the init process and looks at what it recorded.
    async fn create_process(
        &self,
        engine: &Engine,
        id: &ContainerId,
        bundle: &Path,
        paths: &Paths,
        options: &Options,
    ) -> Result<(Held, crate::runtime::Container)> {
        let mut args = vec!["create".into(), "--bundle".into(), bundle.to_path_buf()];
        if options.no_pivot {
            args.push("--no-pivot".into());
        }
        if options.no_new_keyring {
            args.push("--no-new-keyring".into());
        }
        let launch = Launch {
            args,
            id: id.as_str(),
            name: id.as_str(),
            owner: options.io_owner,
            extra: None,
        };
        let held = self.launch(engine, launch, paths).await;
        let held = match held {
            Ok(held) => held,
            Err(failure) => {
                let Unlaunched { err, cut_off } = failure.of("OCI runtime create failed");
                if cut_off {
                    // It had no chance to clean up after itself.
                    self.remove_remains(engine, id).await;
                }
                return Err(err);
            }
        };
        match Store::new(engine.root()).load(id) {
            Ok(container) => Ok((held, container)),
            Err(err) => {
                self.remove_remains(engine, id).await;
                Err(ShimError::Failed(chain(&err)))
            }
        }
    }

    async fn remove_remains(&self, engine: &Engine, id: &ContainerId) {
        if let Err(err) = engine.run(["delete", "--force", id.as_str()]).await {
            tracing::warn!(%err, %id, "remains of a container not removed");
        }
    }
}
