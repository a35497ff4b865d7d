//! Private Docker daemons, each on a private containerd.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::command::spawn_plain;
use super::containerd::{Containerd, MARK};
use super::daemon::{self, Shared};
use super::diff::Transcript;
use super::differential::{LEFT, Route, compare_routes};
use super::{
    Cmd, DEADLINE, Outcome, cgroups, eventually, host, image, leaks, processes, skip, wait_until,
    with_words,
};

/// A dockerd and the containerd below it.
pub struct Dockerd {
    pub engine: String,
    package: PathBuf,
    containerd: Containerd,
    child: Mutex<Option<Child>>,
}

fn shared(engine: &str) -> Arc<Dockerd> {
    static SHARED: Shared<Dockerd> = Shared::new();
    SHARED.get(engine, Dockerd::start, || SHARED.end())
}

pub fn containerd_of(engine: &str) -> &'static str {
    if engine == "docker-20" {
        "containerd-1.6"
    } else {
        "containerd-2.1"
    }
}

impl Dockerd {
    fn start(engine: &str) -> Self {
        Self::prepare_and_start(engine, |_| {})
    }

    /// Starts the daemon after a change of its folder, in which everything is that it will find.
    pub fn prepare_and_start(engine: &str, prepare: impl FnOnce(&Path)) -> Self {
        let daemon = Self {
            engine: engine.to_owned(),
            package: host::engine(engine).expect("the engine is there"),
            containerd: Containerd::start(containerd_of(engine)),
            child: Mutex::new(None),
        };
        let dir = daemon.dir();
        let mut config = json!({
            "iptables": false, "ip6tables": false, "bridge": "none", "ip-forward": false,
            "ip-masq": false, "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": format!("/{}", daemon.containerd.namespace),
            "data-root": dir.join("data"), "exec-root": dir.join("exec"),
            "pidfile": dir.join("docker.pid"), "hosts": [daemon.host()],
            "containerd": daemon.containerd.socket(),
            "runtimes": {"elastic-mem": {"path": host::our_program()}}});
        if engine == "docker-20" {
            // Otherwise it writes below /etc.
            config["deprecated-key-path"] = json!(dir.join("key.json"));
        } else {
            config["runtimes"]["elastic-mem-shim"] =
                json!({"runtimeType": "io.containerd.elastic-mem.v1"});
        }
        fs::write(dir.join("daemon.json"), config.to_string()).expect("config");
        prepare(dir);
        let log = File::create(dir.join("dockerd.log")).expect("log");
        let mut command = Command::new(daemon.package.join("usr/sbin/dockerd"));
        command
            .arg("--config-file")
            .arg(dir.join("daemon.json"))
            .env(
                "PATH",
                format!(
                    "{}:{}:{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    dir.join("bin").display(),
                    daemon.package.join("usr/bin").display(),
                    daemon.package.join("usr/sbin").display(),
                ),
            )
            .env(MARK, &daemon.containerd.namespace)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("clone"))
            .stderr(log);
        *daemon.child.lock().expect("child") = Some(spawn_plain(&mut command));
        let answers =
            eventually(|| (daemon.docker().arg("version").output().code == 0).then_some(()));
        assert!(
            answers.is_some(),
            "{engine} does not start:\n{}",
            daemon.log_tail()
        );
        let import = daemon
            .docker()
            .arg("import")
            .args(["--change", "ENV PATH=/bin"])
            .arg(image::rootfs_tar())
            .arg(Docker::IMAGE)
            .output();
        assert_eq!(import.code, 0, "{import}");
        daemon
    }

    /// The folder of the daemon and of its containerd.
    pub fn dir(&self) -> &Path {
        self.containerd.dir()
    }

    fn host(&self) -> String {
        format!("unix://{}", self.dir().join("d.sock").display())
    }

    /// The client.
    pub fn docker(&self) -> Cmd {
        Cmd::new(self.package.join("usr/bin/docker"))
            .env("DOCKER_CONFIG", self.dir().join("client"))
            .arg("--host")
            .arg(self.host())
    }

    fn log_tail(&self) -> String {
        daemon::tail(&self.dir().join("dockerd.log"))
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let child = self.child.lock().ok().and_then(|mut child| child.take());
        if let Some(child) = child {
            // Containers that a failed test left would be stopped one after the other, 10 s each.
            leaks::kill_containers(&self.containerd.namespace);
            daemon::stop(child, Signal::SIGTERM);
        }
    }
}

/// A scenario's view of a dockerd.
pub struct Docker {
    daemon: Arc<Dockerd>,
    route: Route,
    tag: String,
    pub transcript: Transcript,
}

impl Docker {
    pub const IMAGE: &str = "bb:1";

    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.tag)
    }

    /// Whether the daemon is at least Docker 23.
    pub fn is_new(&self) -> bool {
        self.daemon.engine != "docker-20"
    }

    /// Whether containers are run by the command under test.
    pub fn is_ours(&self) -> bool {
        self.route != Route::Oracle
    }

    /// A client command; words with `@` in front become names of containers.
    pub fn docker(&self, line: &str) -> Cmd {
        with_words(self.daemon.docker(), line, |name| self.name(name))
    }

    /// `docker run` of a shell script.
    pub fn run(&self, flags: &str, name: &str, script: &str) -> Cmd {
        self.run_program(flags, name, &["sh", "-c", script])
    }

    pub fn run_program(&self, flags: &str, name: &str, program: &[&str]) -> Cmd {
        self.start_of_run(name)
            .args(flags.split_whitespace())
            .arg(Self::IMAGE)
            .args(program)
    }

    /// `docker run` up to further flags.
    pub fn start_of_run(&self, name: &str) -> Cmd {
        let runtime = match self.route {
            Route::Oracle => "runc",
            Route::Cli => "elastic-mem",
            Route::Shim => "elastic-mem-shim",
        };
        self.docker("run --network none --runtime")
            .arg(runtime)
            .arg("--name")
            .arg(self.name(name))
    }

    /// The shim of the route, as containerd names it.
    pub fn runtime_type(&self) -> &'static str {
        match self.route {
            Route::Shim => "io.containerd.elastic-mem.v1",
            Route::Oracle | Route::Cli => "io.containerd.runc.v2",
        }
    }

    /// A control file of a container's cgroup, by its name in v1 or in v2.
    pub fn cgroup_file(&self, id: &str, file: &str) -> String {
        let group = format!("{}/{id}", self.daemon.containerd.namespace);
        cgroups::read(&group, file)
    }

    /// Starts a container that stays.
    pub fn up(&self, flags: &str, name: &str) {
        let script = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done";
        let outcome = self
            .run(&format!("--detach {flags}"), name, script)
            .output();
        assert_eq!(outcome.code, 0, "{outcome}");
    }

    pub fn call(&self, line: &str) -> Outcome {
        self.docker(line).output()
    }

    pub fn ok(&self, line: &str) -> Outcome {
        let outcome = self.call(line);
        assert_eq!(outcome.code, 0, "{outcome}");
        outcome
    }

    /// Runs a client command and records how it ended.
    pub fn record(&mut self, line: &str) -> Outcome {
        let outcome = self.call(line);
        self.note_outcome(line, &outcome);
        outcome
    }

    pub fn note(&mut self, label: &str, text: &str) {
        let text = text.replace(&self.tag, "@");
        self.transcript
            .push((label.to_owned(), text.trim_end().to_owned()));
    }

    pub fn note_outcome(&mut self, label: &str, outcome: &Outcome) {
        self.note(label, &outcome.transcript());
    }

    /// `docker exec` of a shell script.
    pub fn exec(&self, flags: &str, name: &str, script: &str) -> Cmd {
        self.docker("exec")
            .args(flags.split_whitespace())
            .arg(self.name(name))
            .args(["sh", "-c", script])
    }

    /// A field of `docker inspect`.
    pub fn inspect(&self, name: &str, format: &str) -> String {
        let outcome = self
            .docker("inspect --format")
            .arg(format)
            .arg(self.name(name))
            .output();
        outcome.stdout.trim().to_owned()
    }

    pub fn wait_for(&self, name: &str, status: &str) {
        wait_until(&format!("{name} is {status}"), || {
            self.inspect(name, "{{.State.Status}}") == status
        });
    }

    pub fn full_id(&self, name: &str) -> String {
        self.inspect(name, "{{.Id}}")
    }

    /// What there is of a container, anywhere on the host.
    pub fn leftovers(&self, id: &str) -> Vec<String> {
        let mut found = Vec::new();
        for process in processes::all() {
            if process.command_line.contains(id) || process.cgroups.contains(id) {
                found.push(format!("process {process}"));
            }
        }
        for mount in leaks::mounts(id) {
            found.push(format!("mount {mount}"));
        }
        for group in cgroups::dirs(&self.daemon.containerd.namespace) {
            for entry in leaks::entries(&group, id) {
                found.push(format!("cgroup {}", entry.display()));
            }
        }
        let dir = self.daemon.dir();
        for place in [
            &dir.join("state"),
            &dir.join("root/io.containerd.runtime.v2.task"),
            &dir.join("exec"),
            Path::new("/run/elastic-mem"),
        ] {
            for entry in leaks::named(place, id) {
                found.push(format!("state {}", entry.display()));
            }
        }
        found
    }

    /// Removes the container and records that nothing of it is left.
    pub fn remove(&mut self, name: &str) {
        let id = self.full_id(name);
        self.ok(&format!("rm --force @{name}"));
        self.nothing_left(&id);
    }

    pub fn nothing_left(&mut self, id: &str) {
        assert_eq!(id.len(), 64, "not an id: {id:?}");
        let end = Instant::now() + *DEADLINE;
        let left = loop {
            let left = self.leftovers(id);
            if left.is_empty() || Instant::now() > end {
                break left;
            }
            std::thread::sleep(Duration::from_millis(30));
        };
        self.note(LEFT, &left.join("\n"));
    }
}

/// Runs the scenario with runc and on every route, and compares.
///
/// # Panics
/// When transcripts differ, or the scenario itself panics.
pub fn differential(engine: &str, name: &str, scenario: impl Fn(&mut Docker)) {
    if let Some(reason) = host::unfit() {
        return skip(reason);
    }
    for needed in [engine, containerd_of(engine)] {
        if host::engine(needed).is_none() {
            return skip(&format!("no {needed}; run scripts/engines"));
        }
    }
    let daemon = shared(engine);
    compare_routes(&format!("{engine} {name}"), |route| {
        if route == Route::Shim && engine == "docker-20" {
            // It knows runtimes by path only.
            return None;
        }
        Some(transcript(&daemon, route, &scenario))
    });
}

fn transcript(
    daemon: &Arc<Dockerd>,
    route: Route,
    scenario: &impl Fn(&mut Docker),
) -> Result<Transcript, (Transcript, super::differential::Panic)> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut docker = Docker {
        daemon: Arc::clone(daemon),
        route,
        tag: format!("emd{number}x"),
        transcript: Vec::new(),
    };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scenario(&mut docker)));
    if result.is_err() {
        eprintln!(
            "--- {} on {route:?}, end of its log\n{}",
            daemon.engine,
            daemon.log_tail()
        );
    }
    let left = docker
        .docker("ps --all --quiet --filter")
        .arg(format!("name={}", docker.tag))
        .output();
    for id in left.stdout.split_whitespace() {
        docker.call(&format!("rm --force {id}"));
    }
    match result {
        Ok(()) => Ok(docker.transcript),
        Err(panic) => Err((docker.transcript, panic)),
    }
}
