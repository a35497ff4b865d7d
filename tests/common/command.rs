//! Commands that cannot outlive their deadline.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use super::DEADLINE;

/// Held for reading while a child is between fork and exec, for writing while
/// an executable file is open for writing: the child would inherit the open
/// file for an instant, and executing it would fail with ETXTBSY.
static FORKS: RwLock<()> = RwLock::new(());

/// Keeps other threads from forking while `action` runs.
pub fn without_forks<T>(action: impl FnOnce() -> T) -> T {
    let _no_forks = FORKS.write().expect("fork lock");
    action()
}

/// Writes an executable file; see [`FORKS`].
pub fn write_executable(path: &Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    without_forks(|| std::fs::write(path, content)).expect("write executable");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// A command under construction. Its output goes to anonymous files, not to
/// pipes: a container that outlives the command keeps the write end open and
/// a reader of a pipe would wait for it.
pub struct Cmd {
    inner: Command,
    deadline: Duration,
    stdin: Option<Vec<u8>>,
    line: String,
}

impl Cmd {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let line = program.as_ref().to_string_lossy().into_owned();
        Self {
            inner: Command::new(program),
            deadline: *DEADLINE,
            stdin: None,
            line,
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.line.push(' ');
        self.line.push_str(&arg.as_ref().to_string_lossy());
        self.inner.arg(arg);
        self
    }

    pub fn args(self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    pub fn dir(mut self, dir: &Path) -> Self {
        self.inner.current_dir(dir);
        self
    }

    /// Bytes to read on standard input; without, it is `/dev/null`.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Starts the command and returns at once.
    pub fn spawn(mut self) -> Running {
        let stdout = Arc::new(tempfile::tempfile().expect("stdout file"));
        let stderr = Arc::new(tempfile::tempfile().expect("stderr file"));
        let clone = |file: &File| Stdio::from(file.try_clone().expect("clone"));
        let stdin = match self.stdin.take() {
            None => Stdio::null(),
            Some(bytes) => {
                let mut file = tempfile::tempfile().expect("stdin file");
                file.write_all(&bytes).expect("fill stdin");
                file.rewind().expect("rewind stdin");
                Stdio::from(file)
            }
        };
        let child = {
            let _forking = FORKS.read().expect("fork lock");
            self.inner
                .stdin(stdin)
                .stdout(clone(&stdout))
                .stderr(clone(&stderr))
                .spawn()
                .unwrap_or_else(|error| panic!("{}: {error}", self.line))
        };
        Running {
            child,
            stdout,
            stderr,
            line: self.line,
            deadline: Instant::now() + self.deadline,
        }
    }

    /// Runs the command to its end.
    ///
    /// # Panics
    /// When the deadline passes.
    pub fn output(self) -> Outcome {
        self.spawn().wait()
    }

    /// The plain command, for callers that bring their own descriptors.
    pub fn into_inner(self) -> Command {
        self.inner
    }
}

/// Starts a plain command under the fork lock.
pub fn spawn_plain(command: &mut Command) -> Child {
    let _forking = FORKS.read().expect("fork lock");
    command.spawn().expect("spawn")
}

/// A started command; killed if it is dropped before it was waited for.
pub struct Running {
    pub child: Child,
    stdout: Arc<File>,
    stderr: Arc<File>,
    line: String,
    deadline: Instant,
}

impl Running {
    /// What has arrived on standard output by now.
    pub fn stdout_now(&self) -> String {
        contents(&self.stdout)
    }

    pub fn wait(mut self) -> Outcome {
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return self.outcome(status);
            }
            if Instant::now() > self.deadline {
                let _ = self.child.kill();
                let status = self.child.wait().expect("wait");
                panic!("deadline passed: {}", self.outcome(status));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn outcome(&self, status: ExitStatus) -> Outcome {
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Outcome {
            code,
            stdout: contents(&self.stdout),
            stderr: contents(&self.stderr),
            line: self.line.clone(),
            stdout_file: Arc::clone(&self.stdout),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a command ended.
pub struct Outcome {
    /// The exit code, or 128 + signal as a shell says it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// What was run, for messages.
    pub line: String,
    stdout_file: Arc<File>,
}

impl Outcome {
    /// All that a caller sees.
    pub fn transcript(&self) -> String {
        format!(
            "code {}\nstdout:\n{}\nstderr:\n{}",
            self.code, self.stdout, self.stderr
        )
    }

    /// What has arrived on standard output by now: a detached container
    /// writes to it after the command has ended.
    pub fn stdout_now(&self) -> String {
        contents(&self.stdout_file)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.line, self.code, self.stdout, self.stderr
        )
    }
}

/// Reads by position: the descriptor shares its offset with the writer's.
fn contents(file: &File) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    while let Ok(read @ 1..) = file.read_at(&mut chunk, bytes.len() as u64) {
        bytes.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
