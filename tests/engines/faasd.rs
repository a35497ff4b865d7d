//! faasd's calls, where our program stands in for runc's shim or for runc: its functions are ours, and nothing else is.
//!
//! faasd names no runtime and gives no options (faasd 0.19, `pkg/provider/handlers/deploy.go`): a container from a
//! snapshot of the image, a task whose streams go to a program (`binary://`), its network, then the start. A task that
//! has stopped is made again of the same container; to end one is SIGTERM, then SIGKILL.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::command::write_executable;
use crate::harness::grpc::{self, Service, base64};
use crate::harness::{
    Case, Cmd, Route, cgroups, eventually, host, image, processes, say, skip, wait_until,
};

ours_on_every_containerd! {
    functions_are_ours_and_everything_else_is_runcs,
    what_the_real_shim_has_made_stays_with_it,
    the_same_below_the_name_of_runc,
}

/// Where faasd has its functions, and its own services.
const FUNCTIONS: &str = "openfaas-fn";
const SERVICES: &str = "openfaas";

/// As faasd's log program: it takes both streams and says when it is ready.
const LOGGER: &str = "#!/bin/sh
exec 5>&-
cat <&3 >>\"${0%/*}/$CONTAINER_ID.out\" &
cat <&4 >/dev/null &
wait
";

/// One container as faasd treats it; gone with everything when this is dropped.
struct Function {
    socket: PathBuf,
    namespace: &'static str,
    id: String,
    folder: PathBuf,
}

impl Function {
    fn service(&self, file: &'static str, name: &'static str) -> Service<'_> {
        Service {
            socket: &self.socket,
            namespace: Some(self.namespace),
            file,
            name,
        }
    }

    fn containers(&self) -> Service<'_> {
        self.service(
            "containers.proto",
            "containerd.services.containers.v1.Containers",
        )
    }

    fn snapshots(&self) -> Service<'_> {
        self.service(
            "snapshots.proto",
            "containerd.services.snapshots.v1.Snapshots",
        )
    }

    fn tasks(&self) -> Service<'_> {
        self.service("tasks.proto", "containerd.services.tasks.v1.Tasks")
    }

    /// The calls of a deployment up to the task.
    fn deploy(c: &Case, namespace: &'static str, name: &str) -> Self {
        let function = Self {
            socket: c.daemon.socket(),
            namespace,
            id: c.id(name),
            folder: c.daemon.dir().join("functions"),
        };
        fs::create_dir_all(&function.folder).expect("folder");
        write_executable(&function.folder.join("logger"), LOGGER.as_bytes());
        let ctr = host::engine(&c.daemon.engine)
            .expect("engine")
            .join("usr/bin/ctr");
        let import = Cmd::new(ctr)
            .arg("-a")
            .arg(&function.socket)
            .args(["-n", namespace, "images", "import"])
            .arg(image::oci_tar())
            .output();
        assert_eq!(import.code, 0, "{import}");
        let all = function
            .snapshots()
            .ok("List", &json!({"snapshotter": "overlayfs"}));
        let base = all["info"].as_array().expect("snapshots").iter();
        let base = base
            .clone()
            .find(|info| info["kind"] == "COMMITTED")
            .expect("the image");
        let snapshot = format!("{}-snapshot", function.id);
        // In place of the lease that Go's client takes: without either, it is garbage until the container is there.
        let labels = json!({"containerd.io/gc.root": "now"});
        function.snapshots().ok(
            "Prepare",
            &json!({"snapshotter": "overlayfs", "key": snapshot, "parent": base["name"], "labels": labels}),
        );
        let spec = function.spec(c).to_string();
        function.containers().ok(
            "Create",
            &json!({"container": {
                "id": function.id,
                "image": image::NAME,
                "labels": {"com.openfaas.annotations.topic": "x"},
                "runtime": {"name": "io.containerd.runc.v2"},
                "snapshotter": "overlayfs",
                "snapshot_key": snapshot,
                "spec": {
                    "type_url": "types.containerd.io/opencontainers/runtime-spec/1/Spec",
                    "value": base64(spec.as_bytes()),
                },
            }}),
        );
        function
    }

    /// What faasd makes of a function: no annotations, no control group namespace, one limit.
    fn spec(&self, c: &Case) -> Value {
        let mut spec: Value = serde_json::from_str(&c.ok("oci spec").stdout).expect("spec");
        let script = "echo ready; trap 'exit 0' TERM; while :; do sleep 1000 & wait; done";
        spec["process"]["args"] = json!(["sh", "-c", script]);
        spec["process"]["env"] = json!(["PATH=/bin", "fprocess=cat"]);
        spec["process"]["noNewPrivileges"] = json!(true);
        spec["process"]["terminal"] = json!(false);
        let capabilities = spec["process"]["capabilities"].as_object_mut();
        for set in capabilities.expect("capabilities").values_mut() {
            *set = json!(["CAP_NET_RAW"]);
        }
        spec["hostname"] = json!(self.id);
        spec["annotations"] = Value::Null;
        spec["linux"]["cgroupsPath"] = json!(format!("/{}/{}", self.namespace, self.id));
        spec["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        spec["linux"]
            .as_object_mut()
            .expect("linux")
            .remove("seccomp");
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("list");
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        spec
    }

    /// A task of the container: create, network, start. Its process.
    fn run(&self) -> i32 {
        let key = json!({"snapshotter": "overlayfs", "key": format!("{}-snapshot", self.id)});
        let mounts = self.snapshots().ok("Mounts", &key)["mounts"].clone();
        let logger = format!("binary://{}", self.folder.join("logger").display());
        let created = self.tasks().ok(
            "Create",
            &json!({"container_id": self.id, "rootfs": mounts, "stdout": logger, "stderr": logger}),
        );
        let pid = i32::try_from(created["pid"].as_i64().expect("pid")).expect("pid");
        self.connect(pid);
        self.tasks().ok("Start", &json!({"container_id": self.id}));
        self.wait_for("RUNNING");
        processes::wait_until_it_catches(pid, Signal::SIGTERM);
        pid
    }

    /// Gives a container its network, as faasd does between create and start. The bridge is in a network of its own, so
    /// that the host's stays as it is.
    fn connect(&self, pid: i32) {
        let Some(plugin) = ["/opt/cni/bin/bridge", "/usr/lib/cni/bridge"]
            .iter()
            .find(|path| Path::new(path).is_file())
        else {
            return say("no CNI plugins: the network of functions is left out");
        };
        let config = json!({
            "cniVersion": "0.4.0", "name": "openfaas-cni-bridge", "type": "bridge", "bridge": "emf0", "isGateway": true,
            "ipam": {"type": "host-local", "subnet": "10.62.0.0/24", "dataDir": self.folder.join("cni")},
        });
        // Both ends are gone with the network of the bridge, so they are looked at while it is there.
        let look = format!("\"$0\" && nsenter --net -t {pid} ip -o -4 address show eth1");
        let out = Cmd::new("unshare")
            .args(["--net", "sh", "-c", &look, plugin])
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", format!("{}-{pid}", self.id))
            .env("CNI_NETNS", format!("/proc/{pid}/ns/net"))
            .env("CNI_IFNAME", "eth1")
            .env("CNI_PATH", Path::new(plugin).parent().expect("folder"))
            .stdin(config.to_string())
            .output();
        assert_eq!(out.code, 0, "{out}");
        assert!(out.stdout.contains("inet 10.62.0."), "{out}");
    }

    fn status(&self) -> String {
        let process = self.tasks().ok("Get", &json!({"container_id": self.id}));
        process["process"]["status"]
            .as_str()
            .expect("status")
            .to_owned()
    }

    fn wait_for(&self, status: &str) {
        wait_until(status, || self.status() == status);
    }

    /// As faasd ends a task: SIGTERM, and SIGKILL if it does not hear.
    fn end(&self) {
        let kill = |signal: u32| {
            let request = json!({"container_id": self.id, "signal": signal});
            self.tasks().call("Kill", &request)
        };
        kill(15).expect("SIGTERM");
        if eventually(|| (self.status() == "STOPPED").then_some(())).is_none() {
            kill(9).expect("SIGKILL");
        }
        self.wait_for("STOPPED");
        self.tasks().ok("Delete", &json!({"container_id": self.id}));
    }

    fn remove(&self) {
        self.containers().ok("Delete", &json!({"id": self.id}));
        let snapshot = format!("{}-snapshot", self.id);
        self.snapshots().ok(
            "Remove",
            &json!({"snapshotter": "overlayfs", "key": snapshot}),
        );
    }

    /// The record of ours.
    fn record(&self) -> Option<Value> {
        let path = Path::new("/run/elastic-mem")
            .join(self.namespace)
            .join(&self.id);
        let bytes = fs::read(path.join("state.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The state folder of a container below runc's shim.
    fn runc_state(&self) -> PathBuf {
        Path::new("/run/containerd/runc")
            .join(self.namespace)
            .join(&self.id)
    }

    /// Whether the shim of the container is our program; it must be there.
    fn shim(&self) -> (i32, bool) {
        let found = eventually(|| {
            fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let line = fs::read(entry.path().join("cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).into_owned();
                let words: Vec<_> = line.split('\0').collect();
                let is_shim = words[0].ends_with("containerd-shim-runc-v2")
                    && words.contains(&self.namespace)
                    && words.contains(&self.id.as_str());
                is_shim.then_some(pid)
            })
        });
        let pid = found.unwrap_or_else(|| panic!("no shim of {}", self.id));
        let program = fs::canonicalize(format!("/proc/{pid}/exe")).expect("exe");
        let ours = fs::canonicalize(host::our_program()).expect("program");
        (pid, program == ours)
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // What a failed test leaves, and the folders of the namespace, which are nobody's.
        for group in [
            format!("{}/{}", self.namespace, self.id),
            self.namespace.to_owned(),
        ] {
            for dir in cgroups::dirs(&group) {
                if group.ends_with(&self.id) {
                    cgroups::kill(&dir);
                    cgroups::remove_empty(&dir);
                }
                // Stays while others use it.
                let _ = fs::remove_dir(&dir);
            }
        }
        let ours = Path::new("/run/elastic-mem").join(self.namespace);
        for folder in [self.runc_state(), ours.join(&self.id)] {
            let _ = fs::remove_dir_all(folder);
        }
        for empty in [
            self.runc_state().parent().expect("folder"),
            &ours.join(".oci"),
            &ours,
        ] {
            let _ = fs::remove_dir(empty);
        }
    }
}

fn unfit() -> bool {
    let reason = grpc::unfit();
    if let Some(reason) = reason {
        skip(reason);
    }
    reason.is_some()
}

fn functions_are_ours_and_everything_else_is_runcs(c: &mut Case) {
    if unfit() {
        return;
    }
    assert_eq!(c.route, Route::Shim);
    c.private_daemon_with_stand_in("containerd-shim-runc-v2");
    let service = Function::deploy(c, SERVICES, "gateway");
    service.run();
    assert!(!service.shim().1, "a service of faasd is below our shim");
    assert!(service.record().is_none() && service.runc_state().is_dir());
    let function = Function::deploy(c, FUNCTIONS, "figlet");
    function.run();
    assert!(function.shim().1, "a function is not below our shim");
    assert!(!function.runc_state().exists());
    let record = function.record().expect("a record");
    let key = format!("{FUNCTIONS}/{}", function.id);
    assert_eq!(record["function"], key);
    assert_eq!(record["ceiling"], 64 << 20);
    let out = function.folder.join(format!("{}.out", function.id));
    wait_until("the logger has its lines", || {
        fs::read_to_string(&out).is_ok_and(|text| text == "ready\n")
    });
    // Scaled to zero and back: a stopped task is made again of the same container.
    function.end();
    assert!(function.record().is_none());
    function.run();
    assert!(function.shim().1);
    // A task that is paused is killed and deleted.
    let id = json!({"container_id": function.id});
    function.tasks().ok("Pause", &id);
    function.wait_for("PAUSED");
    let kill = json!({"container_id": function.id, "signal": 9});
    function.tasks().ok("Kill", &kill);
    function.wait_for("STOPPED");
    assert_eq!(function.tasks().ok("Delete", &id)["exit_status"], 137);
    function.run();
    function.end();
    function.remove();
    service.end();
    service.remove();
    // Each of the three runs was learned from.
    let runs = || {
        let out = Cmd::new(host::our_program())
            .arg("--config")
            .arg(c.daemon.settings())
            .args(["profile", "export", &key])
            .output();
        let document: Value = serde_json::from_str(&out.stdout).ok()?;
        Some(document["digests"].as_array()?.len())
    };
    wait_until("three runs are known", || runs() == Some(3));
}

fn what_the_real_shim_has_made_stays_with_it(c: &mut Case) {
    if unfit() {
        return;
    }
    assert_eq!(c.route, Route::Shim);
    c.private_daemon_with_stand_in("containerd-shim-runc-v2");
    let settings = fs::read_to_string(c.daemon.settings()).expect("settings");
    let none = format!("stand-in.namespaces = []\n{settings}");
    fs::write(c.daemon.settings(), none).expect("settings");
    let (first, second) = (
        Function::deploy(c, FUNCTIONS, "first"),
        Function::deploy(c, FUNCTIONS, "second"),
    );
    first.run();
    let pid = second.run();
    assert!(!first.shim().1 && !second.shim().1);
    fs::write(c.daemon.settings(), settings).expect("settings");
    first.end();
    assert!(!first.runc_state().exists());
    first.remove();
    // containerd cleans up after a shim that was killed, by the name of the shim.
    assert!(processes::signal(second.shim().0, Signal::SIGKILL));
    wait_until("the real shim has cleaned up", || {
        !processes::is_alive(pid) && !second.runc_state().exists()
    });
    let third = Function::deploy(c, FUNCTIONS, "third");
    third.run();
    let (shim, is_ours) = third.shim();
    assert!(is_ours);
    let folder = Path::new("/run/elastic-mem")
        .join(FUNCTIONS)
        .join(&third.id);
    // The same for ours, also when its namespace is none of ours any more.
    let text = fs::read_to_string(c.daemon.settings()).expect("settings");
    fs::write(
        c.daemon.settings(),
        format!("stand-in.namespaces = []\n{text}"),
    )
    .expect("settings");
    assert!(processes::signal(shim, Signal::SIGKILL));
    wait_until("our shim has cleaned up", || !folder.exists());
}

fn the_same_below_the_name_of_runc(c: &mut Case) {
    if unfit() {
        return;
    }
    if host::find("runc").is_none() {
        return skip("no runc in PATH besides the one that we stand in for");
    }
    assert_eq!(c.route, Route::Shim);
    c.private_daemon_with_stand_in("runc");
    let (service, function) = (
        Function::deploy(c, SERVICES, "gateway"),
        Function::deploy(c, FUNCTIONS, "figlet"),
    );
    service.run();
    function.run();
    let state = |of: &Function| {
        let bytes = fs::read(of.runc_state().join("state.json")).expect("state");
        serde_json::from_slice::<Value>(&bytes).expect("JSON")
    };
    assert!(state(&service).get("init_process_pid").is_some());
    assert!(service.record().is_none());
    assert!(state(&function).get("init_process_pid").is_none());
    // Its monitor keeps the record.
    let key = format!("{FUNCTIONS}/{}", function.id);
    wait_until("it has a record", || {
        function
            .record()
            .is_some_and(|record| record["function"] == key)
    });
    for one in [&service, &function] {
        one.end();
        assert!(!one.runc_state().exists());
        one.remove();
    }
    wait_until("the monitor has gone", || function.record().is_none());
}
