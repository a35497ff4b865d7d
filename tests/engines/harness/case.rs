//! The containers of one scenario on one route, and the record of what could be seen of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::containerd::Containerd;
use super::differential::Route;
use super::{Cmd, Outcome, cgroups, eventually, image, leaks, processes, wait_until, with_words};

/// A scenario's view of a containerd. Names of containers are the scenario's
/// own: `a` stands for an id that nobody else has.
pub struct Case {
    pub daemon: Arc<Containerd>,
    pub route: Route,
    tag: String,
    fifos: TempDir,
    names: BTreeSet<String>,
    sockets: BTreeSet<PathBuf>,
    pub transcript: Vec<(String, String)>,
}

impl Case {
    pub fn new(daemon: Arc<Containerd>, route: Route) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            tag: format!("emx{}n{number}x", std::process::id()),
            fifos: tempfile::Builder::new()
                .prefix("elastic-mem-fifo-")
                .tempdir()
                .expect("fifo directory"),
            names: BTreeSet::new(),
            sockets: BTreeSet::new(),
            transcript: Vec::new(),
            daemon,
            route,
        }
    }

    /// Takes a containerd of its own, for scenarios that stop it.
    pub fn private_daemon(&mut self) {
        self.daemon = Arc::new(Containerd::start(&self.daemon.engine));
    }

    /// The same with a folder of state that holds little.
    pub fn private_daemon_with_small_state(&mut self) {
        self.daemon = Arc::new(Containerd::start_with_small_state(&self.daemon.engine));
    }

    /// The same with our program in front of one of runc's, under its name.
    pub fn private_daemon_with_stand_in(&mut self, name: &str) {
        self.daemon = Arc::new(Containerd::start_with_stand_in(&self.daemon.engine, name));
    }

    /// The same with the CRI plugin.
    pub fn private_daemon_with_cri(&mut self) {
        self.daemon = Arc::new(Containerd::start_with_cri(&self.daemon.engine));
    }

    /// The id of the container with the given name.
    pub fn id(&self, name: &str) -> String {
        format!("{}{name}", self.tag)
    }

    pub fn fifo_dir(&self) -> &Path {
        self.fifos.path()
    }

    /// A plain client command; words with `@` in front become ids.
    pub fn ctr(&self, line: &str) -> Cmd {
        with_words(self.daemon.ctr(), line, |name| self.id(name))
    }

    /// Runs a client command and records nothing.
    pub fn call(&self, line: &str) -> Outcome {
        self.ctr(line).output()
    }

    /// Runs a client command that must succeed.
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

    /// Runs a client command that must fail with a message that contains `needles`.
    pub fn fails(&mut self, line: &str, needles: &[&str]) {
        let outcome = self.call(line);
        self.note(line, &format!("code {}", outcome.code));
        assert_ne!(outcome.code, 0, "should have failed: {outcome}");
        for needle in needles {
            assert!(
                outcome.stderr.contains(needle),
                "no {needle:?} in {outcome}"
            );
        }
    }

    /// `ctr run` of a shell script.
    pub fn run(&mut self, flags: &str, name: &str, script: &str) -> Cmd {
        self.run_program(flags, name, &["sh", "-c", script])
    }

    pub fn run_program(&mut self, flags: &str, name: &str, program: &[&str]) -> Cmd {
        self.expect_container(name);
        self.run_expected(flags, name, program)
    }

    /// Counts a container to what must be gone in the end.
    pub fn expect_container(&mut self, name: &str) {
        self.names.insert(name.to_owned());
    }

    /// [`Case::run_program`] of a container that is expected.
    pub fn run_expected(&self, flags: &str, name: &str, program: &[&str]) -> Cmd {
        self.daemon
            .ctr()
            .arg("run")
            .args(self.route.flags())
            .arg("--fifo-dir")
            .arg(self.fifos.path())
            .args(self.words(flags))
            .arg(image::NAME)
            .arg(self.id(name))
            .args(program)
    }

    pub fn words(&self, line: &str) -> Vec<String> {
        line.split_whitespace()
            .map(|word| match word.split_once('@') {
                Some((before, name)) => format!("{before}{}", self.id(name)),
                None => word.to_owned(),
            })
            .collect()
    }

    /// Starts a container that stays until it gets SIGTERM.
    pub fn up(&mut self, flags: &str, name: &str) {
        self.up_with(
            flags,
            name,
            "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done",
        );
        processes::wait_until_it_catches(self.pid(name), Signal::SIGTERM);
    }

    /// Starts a detached container with a script.
    pub fn up_with(&mut self, flags: &str, name: &str, script: &str) {
        let outcome = self
            .run(&format!("--detach {flags}"), name, script)
            .output();
        assert_eq!(outcome.code, 0, "{outcome}");
        if let Some(socket) = self.shim_socket(name) {
            self.sockets.insert(socket);
        }
    }

    /// `ctr task exec` of a shell script.
    pub fn exec(&self, flags: &str, name: &str, exec_id: &str, script: &str) -> Cmd {
        self.ctr("task exec")
            .arg("--exec-id")
            .arg(exec_id)
            .arg("--fifo-dir")
            .arg(self.fifos.path())
            .args(self.words(flags))
            .arg(self.id(name))
            .args(["sh", "-c", script])
    }

    /// Kills a container and deletes it; records its exit code.
    pub fn down(&mut self, name: &str) {
        self.ok(&format!("task kill -s KILL @{name}"));
        self.wait_for(name, "STOPPED");
        self.delete(name);
    }

    /// Deletes a stopped container; records its exit code.
    pub fn delete(&mut self, name: &str) {
        let code = self.delete_task(name);
        self.note(
            &format!("task delete @{name}"),
            &format!("exit code {code}"),
        );
        self.ok(&format!("container delete @{name}"));
    }

    /// Deletes a stopped task; the exit code of its process, which the client
    /// mentions in a warning.
    pub fn delete_task(&self, name: &str) -> i32 {
        let outcome = self.ok(&format!("task delete @{name}"));
        let code = outcome
            .stderr
            .split_once("exit with non-zero exit code ")
            .map_or("0", |(_, rest)| rest.trim_end_matches(['"', '\n']));
        code.parse()
            .unwrap_or_else(|_| panic!("no exit code: {outcome}"))
    }

    /// Records something to compare.
    pub fn note(&mut self, label: &str, text: &str) {
        let text = self.normalise(text);
        self.transcript
            .push((label.to_owned(), text.trim_end().to_owned()));
    }

    pub fn note_outcome(&mut self, label: &str, outcome: &Outcome) {
        self.note(label, &outcome.transcript());
    }

    /// Text without the words that differ between two runs.
    pub fn normalise(&self, text: &str) -> String {
        let text = without_times(text);
        text.replace(&self.tag, "@")
            .replace(&self.daemon.namespace, "<NAMESPACE>")
            .replace(&self.daemon.dir().to_string_lossy().into_owned(), "<DIR>")
            .replace(&self.fifos.path().to_string_lossy().into_owned(), "<FIFOS>")
    }

    /// The status of the task, empty if there is none.
    pub fn status(&self, name: &str) -> String {
        self.task_line(name).get(2).cloned().unwrap_or_default()
    }

    /// The process id of the task's init.
    pub fn pid(&self, name: &str) -> i32 {
        let line = self.task_line(name);
        line.get(1)
            .and_then(|pid| pid.parse().ok())
            .unwrap_or_else(|| panic!("no task {name}: {line:?}"))
    }

    fn task_line(&self, name: &str) -> Vec<String> {
        let id = self.id(name);
        let list = self.call("task list").stdout;
        list.lines()
            .map(|line| {
                line.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .find(|words| words.first() == Some(&id))
            .unwrap_or_default()
    }

    pub fn wait_for(&self, name: &str, status: &str) {
        wait_until(&format!("{name} is {status:?}"), || {
            self.status(name) == status
        });
    }

    /// The socket of the shim that serves the container.
    pub fn shim_socket(&self, name: &str) -> Option<PathBuf> {
        let bundle = self.daemon.bundle(&self.id(name));
        let text = fs::read_to_string(bundle.join("bootstrap.json"))
            .ok()
            .and_then(|text| {
                let value: serde_json::Value = serde_json::from_str(&text).ok()?;
                Some(value["address"].as_str()?.to_owned())
            })
            .or_else(|| fs::read_to_string(bundle.join("address")).ok())?;
        Some(PathBuf::from(text.trim().trim_start_matches("unix://")))
    }

    /// The shim's process.
    pub fn shim_pid(&self, name: &str) -> i32 {
        let id = self.id(name);
        let shims: Vec<_> = processes::all()
            .into_iter()
            .filter(|p| {
                let mut words = p.command_line.split(' ');
                words
                    .next()
                    .is_some_and(|program| program.contains("containerd-shim"))
                    && words.any(|word| word == id)
            })
            .collect();
        assert!(!shims.is_empty(), "no shim of {name}");
        shims[0].pid
    }

    /// Counts a socket to what must be gone in the end.
    pub fn watch_socket(&mut self, socket: &Path) {
        self.sockets.insert(socket.to_owned());
    }

    fn cgroup(&self, name: &str) -> String {
        format!("{}/{}", self.daemon.namespace, self.id(name))
    }

    /// A control file of the container's cgroup, by its name in v1 or in v2.
    pub fn cgroup_file(&self, name: &str, file: &str) -> String {
        cgroups::read(&self.cgroup(name), file)
    }

    /// Whether no process is in the container's cgroup.
    ///
    /// # Panics
    /// When there is no such cgroup.
    pub fn has_empty_cgroup(&self, name: &str) -> bool {
        let dirs = cgroups::dirs(&self.cgroup(name));
        assert!(!dirs.is_empty(), "{name} has no cgroup");
        dirs.iter().all(|dir| {
            fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|members| members.is_empty())
        })
    }

    /// What there is of the scenario's containers, anywhere on the host.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut add = |kind: &str, what: String| found.push(format!("{kind} {what}"));
        for process in processes::all() {
            if process.command_line.contains(&self.tag) || process.cgroups.contains(&self.tag) {
                add("process", process.to_string());
            }
        }
        for mount in leaks::mounts(&self.tag) {
            add("mount", mount);
        }
        for group in cgroups::dirs(&self.daemon.namespace) {
            for entry in leaks::entries(&group, &self.tag) {
                add("cgroup", entry.display().to_string());
            }
        }
        let dir = self.daemon.dir();
        for place in [
            &dir.join("state/io.containerd.runtime.v2.task"),
            &dir.join("root/io.containerd.runtime.v2.task"),
            Path::new("/run/containerd/runc"),
            Path::new("/run/elastic-mem"),
        ] {
            for entry in leaks::named(place, &self.tag) {
                add("state", entry.display().to_string());
            }
        }
        for _ in leaks::entries(self.fifos.path(), "") {
            // Their names are the client's, and mean nothing.
            add("fifo", String::new());
        }
        for socket in &self.sockets {
            if socket.exists() {
                add("socket", socket.display().to_string());
            }
        }
        found
    }

    /// Waits until nothing is left; what is left at the deadline otherwise.
    pub fn settle(&self, patience: std::time::Duration) -> Vec<String> {
        let begin = std::time::Instant::now();
        loop {
            let left = self.leftovers();
            // Named pipes are the client's, and it has ended: it will not come back for them.
            let patience = if left.iter().all(|line| line.trim() == "fifo") {
                patience / 8
            } else {
                patience
            };
            if left.is_empty() || begin.elapsed() > patience {
                return left;
            }
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
    }

    /// Deletes every container of the scenario by force.
    pub fn clear(&self) {
        let listed = self.call("containers list --quiet").stdout;
        for name in &self.names {
            let id = self.id(name);
            if !listed.lines().any(|line| line == id) {
                continue;
            }
            self.call(&format!("task resume @{name}"));
            eventually(|| {
                self.call(&format!("task delete --force @{name}"));
                self.status(name).is_empty().then_some(())
            });
            self.call(&format!("container delete @{name}"));
        }
    }
}

/// What a client logs begins with `time="..."`.
fn without_times(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| {
            match line
                .strip_prefix("time=\"")
                .and_then(|rest| rest.split_once('"'))
            {
                Some((_, rest)) => rest,
                None => line,
            }
        })
        .collect()
}

impl Drop for Case {
    fn drop(&mut self) {
        let left = self.leftovers();
        if left.is_empty() {
            return;
        }
        for process in processes::all() {
            if process.command_line.contains(&self.tag) || process.cgroups.contains(&self.tag) {
                processes::signal(process.pid, Signal::SIGKILL);
            }
        }
        for socket in &self.sockets {
            let _ = fs::remove_file(socket);
        }
    }
}
