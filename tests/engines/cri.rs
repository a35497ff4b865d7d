//! Pods, as kubelet makes them through containerd's CRI plugin, with the runtime class of `config/containerd.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::grpc::{self, Service};
use crate::harness::{Case, Cmd, Route, cgroups, eventually, host, image, skip, wait_until};

ours_on_every_containerd! {
    a_pod_of_the_runtime_class,
    pods_without_the_class_stay_with_runc,
}

/// The namespace of containerd in which the CRI plugin works.
const NAMESPACE: &str = "k8s.io";

/// kubelet and one pod.
struct Pod<'a> {
    c: &'a Case,
    socket: PathBuf,
    config: Value,
    id: String,
}

impl<'a> Pod<'a> {
    fn new(c: &'a Case, name: &str, handler: &str, annotations: Value) -> Self {
        let socket = c.daemon.socket();
        let logs = c.daemon.dir().join("pods").join(name);
        fs::create_dir_all(&logs).expect("logs");
        let config = json!({
            "metadata": {"name": name, "uid": format!("uid-{name}"), "namespace": "fn", "attempt": 0},
            "log_directory": logs,
            "annotations": annotations,
            "linux": {
                "cgroup_parent": format!("/{}/pod-{name}", c.daemon.namespace),
                "security_context": {"namespace_options": {"network": "NODE", "pid": "CONTAINER"}},
            },
        });
        let mut pod = Self {
            c,
            socket,
            config,
            id: String::new(),
        };
        // The plugin knows an image a moment after its import.
        let ran = eventually(|| {
            let request = json!({"config": pod.config, "runtime_handler": handler});
            pod.cri().call("RunPodSandbox", &request).ok()
        });
        let ran = ran.unwrap_or_else(|| {
            pod.cri().ok(
                "RunPodSandbox",
                &json!({"config": pod.config, "runtime_handler": handler}),
            )
        });
        pod.id = ran["pod_sandbox_id"].as_str().expect("id").to_owned();
        pod
    }

    fn cri(&self) -> Service<'_> {
        Service {
            socket: &self.socket,
            namespace: None,
            file: "cri.proto",
            name: "runtime.v1.RuntimeService",
        }
    }

    /// Creates and starts a container.
    fn run(&self, name: &str, script: &str) -> Container<'_> {
        let created = self.cri().ok(
            "CreateContainer",
            &json!({
                "pod_sandbox_id": self.id,
                "config": {
                    "metadata": {"name": name, "attempt": 0},
                    "image": {"image": image::NAME},
                    "command": ["sh", "-c", script],
                    "log_path": format!("{name}.log"),
                    "linux": {
                        "resources": {
                            "cpu_period": 100_000, "cpu_quota": 50_000, "cpu_shares": 512,
                            "memory_limit_in_bytes": 64 << 20, "oom_score_adj": 999,
                        },
                        "security_context": {"namespace_options": {"network": "NODE", "pid": "CONTAINER"}},
                    },
                },
                "sandbox_config": self.config,
            }),
        );
        let container = Container {
            pod: self,
            id: created["container_id"].as_str().expect("id").to_owned(),
        };
        container.ok("StartContainer", json!({}));
        container
    }

    fn end(self) {
        let id = json!({"pod_sandbox_id": self.id});
        self.cri().ok("StopPodSandbox", &id);
        self.cri().ok("RemovePodSandbox", &id);
        let left = cgroups::dirs(&format!("{}/pod-{}", self.c.daemon.namespace, self.name()));
        for dir in left {
            // kubelet makes and removes the pod's own group; below it nothing may be left.
            fs::remove_dir(&dir).unwrap_or_else(|err| panic!("{}: {err}", dir.display()));
        }
        wait_until("the shim has gone", || shims(&self.id).is_empty());
    }

    fn name(&self) -> &str {
        self.config["metadata"]["name"].as_str().expect("name")
    }
}

struct Container<'a> {
    pod: &'a Pod<'a>,
    id: String,
}

impl Container<'_> {
    fn ok(&self, method: &str, mut request: Value) -> Value {
        request["container_id"] = json!(self.id);
        self.pod.cri().ok(method, &request)
    }

    fn status(&self) -> Value {
        self.ok("ContainerStatus", json!({"verbose": true}))
    }

    fn record(&self) -> Value {
        let path = Path::new("/run/elastic-mem").join(NAMESPACE).join(&self.id);
        let bytes = fs::read(path.join("state.json")).expect("record");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    fn group_file(&self, file: &str) -> String {
        let namespace = &self.pod.c.daemon.namespace;
        cgroups::read(
            &format!("/{namespace}/pod-{}/{}", self.pod.name(), self.id),
            file,
        )
    }
}

/// The shims that were started for a pod: process and executable.
fn shims(id: &str) -> Vec<(i32, PathBuf)> {
    let processes = fs::read_dir("/proc").expect("proc").flatten();
    let found = processes.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<_> = line.split('\0').collect();
        let is_shim = words[0].contains("containerd-shim-") && words.contains(&id);
        is_shim.then(|| Some((pid, fs::canonicalize(entry.path().join("exe")).ok()?)))?
    });
    found.collect()
}

fn is_fit(c: &mut Case) -> bool {
    if let Some(reason) = grpc::unfit() {
        skip(reason);
        return false;
    }
    assert_eq!(c.route, Route::Shim);
    c.private_daemon_with_cri();
    let ctr = host::engine(&c.daemon.engine)
        .expect("engine")
        .join("usr/bin/ctr");
    let import = Cmd::new(ctr)
        .arg("-a")
        .arg(c.daemon.socket())
        .args(["-n", NAMESPACE, "images", "import"])
        .arg(image::oci_tar())
        .output();
    assert_eq!(import.code, 0, "{import}");
    true
}

fn a_pod_of_the_runtime_class(c: &mut Case) {
    if !is_fit(c) {
        return;
    }
    let annotations = json!({
        "elastic-mem.io/function": "thumb",
        "elastic-mem.io/mode": "observe",
        "other.io/key": "is not passed on",
    });
    let pod = Pod::new(c, "thumb-7c9d8f6b5-abcde", "elastic-mem", annotations);
    let script = "echo begins; trap 'exit 7' TERM; while :; do sleep 1000 & wait; done";
    let container = pod.run("main", script);
    let status = container.status();
    assert_eq!(status["status"]["state"], "CONTAINER_RUNNING", "{status:#}");
    // One shim, ours, for pause and container.
    let ours = fs::canonicalize(host::our_program()).expect("program");
    let running = shims(&pod.id);
    assert_eq!(running.len(), 1, "{running:?}");
    assert_eq!(running[0].1, ours);
    assert!(shims(&container.id).is_empty());
    // What the pod says has arrived, and what the class does not pass on has not.
    let record = container.record();
    assert_eq!(record["function"], "k8s.io/fn/thumb");
    assert_eq!(record["mode"], "observe");
    assert_eq!(record["ceiling"], 64 << 20);
    let info = status["info"]["info"].as_str().expect("info");
    let info: Value = serde_json::from_str(info).expect("JSON");
    let passed = &info["runtimeSpec"]["annotations"];
    assert_eq!(passed["elastic-mem.io/function"], "thumb", "{passed:#}");
    assert_eq!(passed.get("other.io/key"), None);
    // In-place resize: processor and memory together.
    let resize = json!({"linux": {"cpu_period": 100_000, "cpu_quota": 80_000, "cpu_shares": 819,
        "memory_limit_in_bytes": 96 << 20}});
    container.ok("UpdateContainerResources", resize);
    let limit = (96_u64 << 20).to_string();
    assert_eq!(container.group_file("memory.limit_in_bytes"), limit);
    wait_until("the record has the new ceiling", || {
        container.record()["ceiling"] == 96 << 20
    });
    // The processor manager: a cpuset alone. containerd sends all the rest again.
    container.ok(
        "UpdateContainerResources",
        json!({"linux": {"cpuset_cpus": "0"}}),
    );
    assert_eq!(container.group_file("cpuset.cpus"), "0");
    assert_eq!(container.group_file("memory.limit_in_bytes"), limit);
    assert_eq!(container.record()["ceiling"], 96 << 20);
    let stats = container.ok("ContainerStats", json!({}));
    for pointer in [
        "/stats/memory/working_set_bytes/value",
        "/stats/memory/usage_bytes/value",
        "/stats/cpu/usage_core_nano_seconds/value",
    ] {
        let value = stats
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::parse::<u64>);
        assert!(matches!(value, Some(Ok(1..))), "{pointer}: {stats:#}");
    }
    let exec = json!({"cmd": ["sh", "-c", "echo out; echo err >&2; exit 3"], "timeout": 10});
    let executed = container.ok("ExecSync", exec);
    assert_eq!(executed["exit_code"], 3, "{executed}");
    assert_eq!(grpc::text_of(&executed["stdout"]), "out\n");
    assert_eq!(grpc::text_of(&executed["stderr"]), "err\n");
    container.ok("StopContainer", json!({"timeout": 10}));
    let status = container.status();
    assert_eq!(status["status"]["state"], "CONTAINER_EXITED", "{status:#}");
    assert_eq!(status["status"]["exit_code"], 7);
    container.ok("RemoveContainer", json!({}));
    let log = c
        .daemon
        .dir()
        .join("pods")
        .join(pod.name())
        .join("main.log");
    let log = fs::read_to_string(log).expect("log");
    assert!(log.contains("stdout F begins"), "{log}");
    assert!(
        !Path::new("/run/elastic-mem")
            .join(NAMESPACE)
            .join(&container.id)
            .exists()
    );
    pod.end();
    let known = || {
        let out = Cmd::new(host::our_program())
            .arg("--config")
            .arg(c.daemon.settings())
            .args(["profile", "list", "--json"])
            .output();
        out.stdout
    };
    wait_until("the run was learned from", || {
        known().contains("k8s.io/fn/thumb")
    });
    // Of what only holds the namespaces of a pod nothing is learned.
    assert!(!known().contains("pause"), "{}", known());
}

fn pods_without_the_class_stay_with_runc(c: &mut Case) {
    if !is_fit(c) {
        return;
    }
    let pod = Pod::new(c, "plain", "", json!({"elastic-mem.io/function": "thumb"}));
    let running = shims(&pod.id);
    assert_eq!(running.len(), 1, "{running:?}");
    assert!(running[0].1.ends_with("containerd-shim-runc-v2"));
    let folder = Path::new("/run/elastic-mem").join(NAMESPACE).join(&pod.id);
    assert!(!folder.exists());
    let mut other = pod.config.clone();
    other["metadata"]["name"] = json!("none");
    let request = json!({"config": other, "runtime_handler": "elastic-mem-none"});
    let refused = pod.cri().call("RunPodSandbox", &request);
    let refused = refused.expect_err("there is no such handler");
    assert!(
        refused.contains("no runtime for \"elastic-mem-none\" is configured"),
        "{refused}"
    );
    pod.end();
}
