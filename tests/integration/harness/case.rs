//! One container of one runtime, and the record of what could be seen of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::bundle::Bundle;
use super::command::{Cmd, Outcome};
use super::text::Normaliser;
use super::{cgroups, eventually, host, leaks, skip};

/// A container with its bundle, id, cgroup and private `--root`. Whatever a
/// test does or fails to do, dropping it removes all four.
pub struct Case {
    program: PathBuf,
    root: TempDir,
    pub bundle: Bundle,
    id: String,
    cgroup: String,
    mark: String,
    /// What is compared between the runtimes: a label and a text.
    settings: PathBuf,
    pub transcript: Vec<(String, String)>,
    pub normaliser: Normaliser,
}

/// Runs a scenario under our command only.
pub fn ours(scenario: impl FnOnce(&mut Case)) {
    if let Some(reason) = host::unfit() {
        return skip(reason);
    }
    let mut case = Case::new(host::our_program());
    scenario(&mut case);
    let left = case.finish();
    assert!(left.is_empty(), "left behind: {left:#?}");
}

/// [`ours`] for what runc 1.1 does not have, so that the oracle under test
/// (which validates the suite) is not asked for it.
pub fn ours_beyond_runc(scenario: impl FnOnce(&mut Case)) {
    let version = Cmd::new(host::our_program()).arg("--version").output();
    if version.stdout.starts_with("runc version 1.1.") {
        return skip("runc 1.1 does not have this");
    }
    ours(scenario);
}

/// The configuration of our runtime where no other is given.
const SETTINGS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/integration/harness/off.toml"
);

impl Case {
    pub fn new(program: PathBuf) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{number}", std::process::id());
        let mut case = Self {
            root: tempfile::Builder::new()
                .prefix("elastic-mem-root-")
                .tempdir()
                .expect("root directory"),
            bundle: Bundle::new(),
            id: format!("emt-{mark}"),
            cgroup: format!("{}/g{number}", cgroups::prefix()),
            mark,
            transcript: Vec::new(),
            settings: SETTINGS.into(),
            normaliser: Normaliser::default(),
            program,
        };
        case.bundle.spec["linux"]["cgroupsPath"] = json!(case.cgroup);
        let n = &mut case.normaliser;
        n.word(&case.id, "<ID>");
        n.word(&case.cgroup, "<CGROUP>");
        n.word(&case.cgroup[1..], "<CGROUP>");
        n.path(case.bundle.path().to_owned(), "<BUNDLE>");
        n.path(case.root.path().to_owned(), "<ROOT>");
        n.path(case.program.clone(), "<PROGRAM>");
        n.word(format!("{}:", host::name_of(&case.program)), "<PROGRAM>:");
        n.word(format!("{} ", host::name_of(&case.program)), "<PROGRAM> ");
        case
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn rootfs(&self) -> PathBuf {
        self.bundle.rootfs()
    }

    pub fn spec(&mut self) -> &mut Value {
        &mut self.bundle.spec
    }

    /// Adds entries to the array at `pointer`, which is made if it is absent.
    pub fn push(&mut self, pointer: &str, items: impl IntoIterator<Item = Value>) {
        let (parent, key) = pointer.rsplit_once('/').expect("pointer");
        let list = &mut self.bundle.spec.pointer_mut(parent).expect("parent")[key];
        if list.is_null() {
            *list = json!([]);
        }
        list.as_array_mut().expect("array").extend(items);
    }

    /// Makes a shell script the container's process.
    pub fn script(&mut self, script: &str) {
        self.spec()["process"]["args"] = json!(["sh", "-c", script]);
    }

    /// A container that stays until it is killed.
    pub fn idle(&mut self) {
        self.spec()["process"]["args"] = json!(["sleep", "1000"]);
    }

    /// Another configuration than the usual one of tests.
    pub fn configure(&mut self, file: PathBuf) {
        self.settings = file;
    }

    /// A command without the global flags.
    pub fn bare(&self) -> Cmd {
        self.ours(Cmd::new(&self.program))
    }

    /// The command with our `--root`, which another one starts.
    pub fn below(&self, program: &str, args: &[&str]) -> Cmd {
        let other = Cmd::new(program).args(args).arg(&self.program);
        self.ours(other).arg("--root").arg(self.root.path())
    }

    fn ours(&self, cmd: Cmd) -> Cmd {
        cmd.env(leaks::MARK, &self.mark)
            .env("ELASTIC_MEM_CONFIG", &self.settings)
            .dir(self.bundle.path())
    }

    /// The command with our `--root`.
    pub fn cmd(&self) -> Cmd {
        self.bare().arg("--root").arg(self.root.path())
    }

    /// The words of `line` as arguments; `ID` and `BUNDLE` stand for ours.
    pub fn words(&self, line: &str) -> Vec<String> {
        line.split_whitespace()
            .map(|word| match word {
                "ID" => self.id.clone(),
                "BUNDLE" => self.bundle.path().to_string_lossy().into_owned(),
                other => other.to_owned(),
            })
            .collect()
    }

    /// Runs a verb and records nothing.
    pub fn call(&self, line: &str) -> Outcome {
        self.cmd().args(self.words(line)).output()
    }

    /// Runs a verb that must succeed, and records all of it.
    pub fn ok(&mut self, line: &str) -> Outcome {
        let outcome = self.call(line);
        self.expect_code(line, &outcome, 0);
        outcome
    }

    /// Runs a verb and records its exit code only.
    pub fn code_of(&mut self, line: &str) -> Outcome {
        let outcome = self.call(line);
        self.note(line, &format!("code {}", outcome.code));
        outcome
    }

    /// Runs a verb that must fail with a message that contains `needles`.
    /// Only the exit code and the output are compared: the wording of an
    /// error beyond its needles is not a property.
    pub fn fails(&mut self, line: &str, needles: &[&str]) -> Outcome {
        let outcome = self.call(line);
        self.expect_failure(line, &outcome, needles);
        outcome
    }

    pub fn expect_failure(&mut self, label: &str, outcome: &Outcome, needles: &[&str]) {
        self.note(label, &format!("code {}\n{}", outcome.code, outcome.stdout));
        assert_ne!(outcome.code, 0, "should have failed: {outcome}");
        for needle in needles {
            assert!(
                outcome.stderr.contains(needle),
                "no {needle:?} in the message of {outcome}"
            );
        }
    }

    pub fn expect_code(&mut self, label: &str, outcome: &Outcome, code: i32) {
        self.note(label, &outcome.transcript());
        assert_eq!(outcome.code, code, "{outcome}");
    }

    /// Records something to compare.
    pub fn note(&mut self, label: &str, text: &str) {
        let text = self.normaliser.apply(text);
        self.transcript
            .push((self.normaliser.apply(label), text.trim_end().to_owned()));
    }

    /// `run`s a script in the foreground, which must succeed.
    pub fn probe(&mut self, script: &str) -> String {
        self.script(script);
        self.run()
    }

    /// `run`s the container in the foreground, which must succeed.
    pub fn run(&mut self) -> String {
        self.run_to(0)
    }

    /// `run`s the container in the foreground to the given exit code.
    pub fn run_to(&mut self, code: i32) -> String {
        self.bundle.write();
        let outcome = self.call("run --bundle BUNDLE ID");
        self.expect_code("run", &outcome, code);
        outcome.stdout
    }

    /// `run`s the container, which must fail to start.
    pub fn run_fails(&mut self, needles: &[&str]) -> Outcome {
        self.bundle.write();
        self.fails("run --bundle BUNDLE ID", needles)
    }

    /// `create`s the container. Its output is in the returned outcome's files.
    pub fn create(&mut self) -> Outcome {
        self.bundle.write();
        self.ok("create --bundle BUNDLE ID")
    }

    /// `create`s and `start`s an idle container.
    pub fn up(&mut self) {
        self.idle();
        self.create();
        self.ok("start ID");
    }

    /// Runs a script in the running container, which must succeed.
    pub fn exec(&mut self, flags: &str, script: &str) -> String {
        let outcome = self.exec_call(flags, script);
        self.expect_code(&format!("exec {flags}"), &outcome, 0);
        outcome.stdout
    }

    pub fn exec_call(&self, flags: &str, script: &str) -> Outcome {
        self.cmd()
            .arg("exec")
            .args(self.words(flags))
            .arg(&self.id)
            .args(["sh", "-c", script])
            .output()
    }

    /// The `state` document, if the container is known.
    pub fn state(&self) -> Option<Value> {
        let outcome = self.call("state ID");
        (outcome.code == 0).then(|| {
            serde_json::from_str(&outcome.stdout)
                .unwrap_or_else(|error| panic!("state: {error}: {outcome}"))
        })
    }

    pub fn status(&self) -> String {
        self.state()
            .and_then(|state| state["status"].as_str().map(str::to_owned))
            .unwrap_or_else(|| "unknown".to_owned())
    }

    /// The container's init process as the host sees it.
    pub fn pid(&self) -> i32 {
        let pid = self.state().and_then(|state| state["pid"].as_i64());
        i32::try_from(pid.expect("a running container")).expect("pid")
    }

    /// Waits until the container has the given status.
    pub fn wait_for(&self, status: &str) {
        let reached = eventually(|| (self.status() == status).then_some(()));
        assert!(reached.is_some(), "never {status}: {:?}", self.state());
    }

    /// A control file of the container's group, by its name in v1 or in v2.
    pub fn cgroup_file(&self, file: &str) -> String {
        cgroups::read(&self.cgroup, file)
    }

    /// Records control files of the container's group.
    pub fn note_cgroup(&mut self, files: &[&str]) {
        for file in files {
            let text = self.cgroup_file(file);
            self.note(file, &text);
        }
    }

    /// Processes that carry our mark or are in our group.
    pub fn processes(&self) -> Vec<(i32, String)> {
        leaks::processes(&self.mark, &self.cgroup)
    }

    /// What is left of the container now.
    pub fn leftovers(&self) -> Vec<String> {
        leaks::leftovers(
            &self.mark,
            &self.cgroup,
            self.bundle.path(),
            self.root.path(),
        )
    }

    /// Waits until nothing is left; what is left at the deadline otherwise.
    pub fn settle(&self) -> Vec<String> {
        // Killed processes and their mounts need a moment to disappear.
        let gone = eventually(|| self.leftovers().is_empty().then_some(()));
        gone.map_or_else(|| self.leftovers(), |()| Vec::new())
    }

    /// Deletes the container by force and tells what is left of it.
    pub fn finish(&mut self) -> Vec<String> {
        self.call("delete --force ID");
        self.settle()
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if !self.leftovers().is_empty() {
            if self.root.path().join(&self.id).exists() && !std::thread::panicking() {
                self.call("delete --force ID");
            }
            cgroups::remove(&self.cgroup);
            for (pid, _) in self.processes() {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            for mount in leaks::mounts(self.bundle.path()).iter().rev() {
                let _ = nix::mount::umount2(mount.as_str(), nix::mount::MntFlags::MNT_DETACH);
            }
        }
        let _ = fs::remove_dir_all(self.rootfs());
    }
}
