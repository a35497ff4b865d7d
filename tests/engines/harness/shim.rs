//! A shim without containerd's part in it: the test starts it and calls it.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use super::differential::Route;
use super::ttrpc::{Client, Status};
use super::{Case, Cmd, Outcome, host, image};

pub const V2: &str = "containerd.task.v2.Task";
pub const V3: &str = "containerd.task.v3.Task";

/// A bundle as containerd makes it, and the shim that was started for it.
pub struct Shim {
    pub id: String,
    pub bundle: PathBuf,
    pub socket: PathBuf,
    /// The service that the oracle of this containerd has.
    service: &'static str,
    /// Containerd reads what the shim logs.
    _log: File,
}

/// The shim of the route.
pub fn program(c: &Case) -> PathBuf {
    match c.route {
        Route::Shim => c.daemon.dir().join("bin").join(host::SHIM),
        Route::Oracle | Route::Cli => {
            let package = host::engine(&c.daemon.engine).expect("engine");
            package.join("usr/bin/containerd-shim-runc-v2")
        }
    }
}

/// Makes the bundle of a container that runs a shell script.
pub fn make_bundle(
    c: &Case,
    name: &str,
    script: &str,
    change: impl FnOnce(&mut Value),
) -> (PathBuf, File) {
    let id = c.id(name);
    let bundle = c.daemon.dir().join("bundles").join(&id);
    fs::create_dir_all(bundle.join("rootfs")).expect("bundle");
    let text = c.ok("oci spec").stdout;
    let mut spec: Value = serde_json::from_str(&text).expect("spec");
    spec["process"]["args"] = json!(["sh", "-c", script]);
    spec["process"]["env"] = json!(["PATH=/bin"]);
    spec["linux"]["cgroupsPath"] = json!(format!("/{}/{id}", c.daemon.namespace));
    spec["annotations"] = json!({});
    change(&mut spec);
    fs::write(bundle.join("config.json"), spec.to_string()).expect("config");
    let fifo = bundle.join("log");
    mkfifo(&fifo, Mode::from_bits_truncate(0o700)).expect("log");
    let log = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&fifo)
        .expect("log");
    (bundle, log)
}

/// The call of the shim with an action, as containerd makes it.
pub fn command(c: &Case, bundle: &Path, id: &str, ttrpc: &Path) -> Cmd {
    let path = format!(
        "{}:/usr/sbin:/usr/bin:/sbin:/bin",
        c.daemon.dir().join("bin").display()
    );
    Cmd::new(program(c))
        .dir(bundle)
        .env("PATH", path)
        .env("ELASTIC_MEM_CONFIG", c.daemon.settings())
        .env("TTRPC_ADDRESS", ttrpc)
        .env("GRPC_ADDRESS", c.daemon.socket())
        .env("NAMESPACE", &c.daemon.namespace)
        .env("MAX_SHIM_VERSION", "2")
        .env(super::containerd::MARK, &c.daemon.namespace)
        .args(["-namespace", &c.daemon.namespace, "-address"])
        .arg(c.daemon.socket())
        .args(["-publish-binary", "/bin/true", "-id", id, "-bundle"])
        .arg(bundle)
}

/// The socket that an answer to `start` names.
pub fn socket_of(answer: &str) -> PathBuf {
    let address = match serde_json::from_str::<Value>(answer) {
        Ok(value) => value["address"].as_str().unwrap_or_default().to_owned(),
        Err(_) => answer.to_owned(),
    };
    let path = address
        .strip_prefix("unix://")
        .unwrap_or_else(|| panic!("no address: {answer:?}"));
    PathBuf::from(path)
}

impl Shim {
    pub fn start(c: &mut Case, name: &str, script: &str) -> Self {
        Self::start_with(c, name, script, |_| {})
    }

    pub fn start_with(
        c: &mut Case,
        name: &str,
        script: &str,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let ttrpc = c.daemon.dir().join("c.sock.ttrpc");
        Self::start_below(c, name, script, change, &ttrpc)
    }

    /// Starts the shim with the address to send events to.
    pub fn start_below(
        c: &mut Case,
        name: &str,
        script: &str,
        change: impl FnOnce(&mut Value),
        ttrpc: &Path,
    ) -> Self {
        let id = c.id(name);
        let (bundle, log) = make_bundle(c, name, script, change);
        let started = command(c, &bundle, &id, ttrpc).arg("start").output();
        assert_eq!(started.code, 0, "{started}");
        assert_eq!(
            started.stderr, "",
            "it would be a part of the answer: {started}"
        );
        let socket = socket_of(&started.stdout);
        c.watch_socket(&socket);
        let mut shim = Self {
            id,
            bundle,
            socket,
            service: V3,
            _log: log,
        };
        if c.daemon.engine != "containerd-2.1" {
            shim.service = V2;
        }
        shim
    }

    pub fn service(&self) -> &'static str {
        self.service
    }

    /// Calls it under another name from now on.
    pub fn call_as(&mut self, service: &'static str) {
        self.service = service;
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.socket, self.service)
    }

    pub fn call<A: Message>(&self, method: &str, request: &impl Message) -> Result<A, Status> {
        self.client().call(method, request)
    }

    /// Calls a method whose answer holds nothing.
    pub fn order(&self, method: &str, request: &impl Message) -> Result<(), Status> {
        self.call::<api::Empty>(method, request).map(drop)
    }

    pub fn create(&self, name: &str) -> Result<u32, Status> {
        self.create_with(name, |_| {})
    }

    /// Creates the container of the bundle, on a bind mount of the image.
    pub fn create_with(
        &self,
        id: &str,
        change: impl FnOnce(&mut api::CreateTaskRequest),
    ) -> Result<u32, Status> {
        let mut request = api::CreateTaskRequest::new();
        request.id = id.to_owned();
        request.bundle = self
            .bundle
            .with_file_name(id)
            .to_string_lossy()
            .into_owned();
        let mut mount = api::Mount::new();
        mount.type_ = "bind".into();
        mount.source = image::rootfs_dir().to_string_lossy().into_owned();
        mount.options = vec!["rbind".into(), "rw".into()];
        request.rootfs.push(mount);
        change(&mut request);
        self.call::<api::CreateTaskResponse>("Create", &request)
            .map(|answer| answer.pid)
    }

    pub fn start_task(&self, id: &str, exec: &str) -> Result<u32, Status> {
        let mut request = api::StartRequest::new();
        request.id = id.to_owned();
        request.exec_id = exec.to_owned();
        self.call::<api::StartResponse>("Start", &request)
            .map(|answer| answer.pid)
    }

    pub fn state(&self, id: &str, exec: &str) -> Result<api::StateResponse, Status> {
        let mut request = api::StateRequest::new();
        request.id = id.to_owned();
        request.exec_id = exec.to_owned();
        self.call("State", &request)
    }

    pub fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> Result<(), Status> {
        let mut request = api::KillRequest::new();
        request.id = id.to_owned();
        request.exec_id = exec.to_owned();
        request.signal = signal;
        request.all = all;
        self.order("Kill", &request)
    }

    pub fn wait(&self, id: &str, exec: &str) -> Result<u32, Status> {
        self.call::<api::WaitResponse>("Wait", &wait_request(id, exec))
            .map(|answer| answer.exit_status)
    }

    pub fn delete(&self, id: &str, exec: &str) -> Result<api::DeleteResponse, Status> {
        let mut request = api::DeleteRequest::new();
        request.id = id.to_owned();
        request.exec_id = exec.to_owned();
        self.call("Delete", &request)
    }

    pub fn exec(&self, id: &str, exec: &str, script: &str) -> Result<(), Status> {
        let mut request = api::ExecProcessRequest::new();
        request.id = id.to_owned();
        request.exec_id = exec.to_owned();
        let process = json!({"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0}});
        request.spec = Some(any(
            "types.containerd.io/opencontainers/runtime-spec/1/Process",
            &process,
        ))
        .into();
        self.order("Exec", &request)
    }

    pub fn connect(&self, id: &str) -> Result<api::ConnectResponse, Status> {
        let mut request = api::ConnectRequest::new();
        request.id = id.to_owned();
        self.call("Connect", &request)
    }

    pub fn shutdown(&self, id: &str) -> Result<(), Status> {
        let mut request = api::ShutdownRequest::new();
        request.id = id.to_owned();
        // The answer may be lost with the shim.
        let mut client = self.client();
        client.send("Shutdown", &request);
        client.receive_or_end().map_or(Ok(()), |response| {
            super::ttrpc::parse::<api::Empty>(response).map(drop)
        })
    }

    /// Kills and deletes the container, and ends the shim, which leaves nothing.
    pub fn end(self, c: &Case) {
        let pid = self.connect(&self.id).map(|answer| answer.shim_pid);
        let _ = self.kill(&self.id, "", 9, true);
        let _ = self.wait(&self.id, "");
        let _ = self.delete(&self.id, "");
        let ended = self.shutdown(&self.id);
        assert_eq!(ended, Ok(()));
        if let Ok(pid) = pid {
            let pid = i32::try_from(pid).expect("pid");
            super::wait_until("the shim has ended", || !super::processes::is_alive(pid));
        }
        self.delete_action(c);
        fs::remove_dir_all(&self.bundle).expect("a bundle without mounts");
    }

    /// Kills the shim, and lets `delete` do all there is to do.
    pub fn kill_shim_and_clear(self, c: &Case, pid: i32) {
        super::processes::signal(pid, nix::sys::signal::Signal::SIGKILL);
        super::wait_until("the shim has ended", || !super::processes::is_alive(pid));
        self.delete_action(c);
        let mounts = super::leaks::mounts(&self.bundle.to_string_lossy());
        assert!(mounts.is_empty(), "mounts are left: {mounts:?}");
        fs::remove_dir_all(&self.bundle).expect("bundle");
        // containerd does so.
        let _ = fs::remove_file(&self.socket);
    }

    /// The action `delete`, which containerd calls in the end, or in the place of all else.
    pub fn delete_action(&self, c: &Case) -> Outcome {
        let ttrpc = c.daemon.dir().join("c.sock.ttrpc");
        let outcome = command(c, &self.bundle, &self.id, &ttrpc)
            .arg("delete")
            .output();
        assert_eq!(outcome.code, 0, "{outcome}");
        outcome
    }
}

pub fn wait_request(id: &str, exec: &str) -> api::WaitRequest {
    let mut request = api::WaitRequest::new();
    request.id = id.to_owned();
    request.exec_id = exec.to_owned();
    request
}

/// A JSON document as containerd sends it.
pub fn any(type_url: &str, value: &Value) -> Any {
    let mut any = Any::new();
    any.type_url = type_url.to_owned();
    any.value = value.to_string().into_bytes();
    any
}
