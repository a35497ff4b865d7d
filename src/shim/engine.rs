//! The verbs of the runtime, each run by a process of its own.
//!
//! libcontainer forks without regard for other threads and changes the working directory, so it never runs
//! inside the shim (docs/adr/0001-engine.md). The helper is this executable under its other name.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use serde::Deserialize;

use super::children::Children;
use super::error::ShimError;
use super::options::Options;
use crate::kernel::{children, exe};

/// What a helper says about itself in messages; engines know a runtime by this.
const NAME: &str = "elastic-mem";

/// What a helper is given: its log, and what one verb or other needs besides.
const LOG: usize = 0;
const EXTRA: usize = 1;

/// Runs verbs with the settings of one container.
#[derive(Debug)]
pub(super) struct Engine {
    children: Arc<Children>,
    root: PathBuf,
    systemd_cgroup: bool,
    config: Option<PathBuf>,
    debug: bool,
}

/// Why a verb failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(super) struct Failure {
    pub(super) text: String,
    /// Whether the helper was killed, and so could not clean up after itself.
    pub(super) cut_off: bool,
}

impl Failure {
    fn new(what: &str, err: &std::io::Error) -> Self {
        Self {
            text: format!("{what}: {}", crate::kernel::reason(err)),
            cut_off: false,
        }
    }
}

impl From<Failure> for ShimError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.text)
    }
}

/// Result of a verb.
type Result = std::result::Result<(), Failure>;

/// Standard streams of a helper, which `create` and `exec` hand on to the new process.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: Stdio,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
}

impl Streams {
    /// Nothing to read, and nobody to write to.
    pub(super) fn null() -> Self {
        Self {
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        }
    }
}

impl Engine {
    pub(super) fn new(
        children: Arc<Children>,
        options: &Options,
        namespace: &str,
        debug: bool,
    ) -> Self {
        Self {
            children,
            root: options.runtime_root(namespace),
            systemd_cgroup: options.systemd_cgroup,
            config: options.config.clone(),
            debug,
        }
    }

    /// The state folder of the runtime.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Runs a verb to its end.
    ///
    /// # Errors
    /// [`Failure`] with the last error of the helper's log, without any words before it.
    pub(super) async fn run<I>(&self, args: I) -> Result
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.run_with(args, Streams::null(), None).await
    }

    /// Runs a verb with standard streams and one more descriptor, which it finds at [`extra_path`].
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub(super) async fn run_with<I>(
        &self,
        args: I,
        streams: Streams,
        extra: Option<OwnedFd>,
    ) -> Result
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let log = memory_file(&[]).map_err(|err| Failure::new("log of a helper", &err))?;
        let mut helper = {
            let given = log.try_clone().map(OwnedFd::from);
            let given = given.map_err(|err| Failure::new("log of a helper", &err))?;
            let mut command = Command::new(exe::SELF);
            command
                .arg0(NAME)
                .arg("--root")
                .arg(&self.root)
                .arg("--log")
                .arg(children::given_path(LOG))
                .args(["--log-format", "json"]);
            if self.systemd_cgroup {
                command.arg("--systemd-cgroup");
            }
            if self.debug {
                command.arg("--debug");
            }
            if let Some(config) = &self.config {
                command.arg("--config").arg(config);
            }
            command
                .args(args)
                .stdin(streams.stdin)
                .stdout(streams.stdout)
                .stderr(streams.stderr);
            // If the shim is killed, containerd cleans up at once: nobody may still be building then.
            children::end_with_parent(&mut command);
            children::give_descriptors(
                &mut command,
                [Some(given), extra].into_iter().flatten().collect(),
            )
            .and_then(|()| self.children.start(&mut command))
            .map_err(|err| Failure::new("cannot run a helper", &err))?
        };
        let code = helper.ended().await;
        let lines = read_all(log);
        if code == 0 {
            forward(&lines);
            return Ok(());
        }
        let cut_off = code > 128;
        let text = last_error(&lines).unwrap_or_else(|| {
            if cut_off {
                format!("the helper was ended by signal {}", code - 128)
            } else {
                format!("the helper ended with exit code {code} and said nothing")
            }
        });
        Err(Failure { text, cut_off })
    }
}

/// Where a helper finds the descriptor that it was given besides its log.
pub(super) fn extra_path() -> PathBuf {
    children::given_path(EXTRA)
}

/// A file in memory with this content, to be read from its beginning.
///
/// # Errors
/// The kernel's reason.
pub(super) fn memory_file(content: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"elastic-mem", MemFdCreateFlag::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn read_all(mut log: File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is told as "said nothing".
    let _ = log
        .seek(SeekFrom::Start(0))
        .and_then(|_| log.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A line of the log that runtimes write for engines.
#[derive(Debug, Deserialize)]
struct Line {
    level: String,
    msg: String,
}

fn lines(log: &str) -> impl DoubleEndedIterator<Item = Line> {
    log.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
}

fn last_error(log: &str) -> Option<String> {
    lines(log)
        .rev()
        .find(|line| line.level == "error")
        .map(|line| line.msg)
}

/// What a helper that did its work had to say goes into our own log.
fn forward(log: &str) {
    for line in lines(log) {
        match line.level.as_str() {
            "warning" => tracing::warn!("{}", line.msg),
            "error" => tracing::error!("{}", line.msg),
            "info" => tracing::info!("{}", line.msg),
            _ => tracing::debug!("{}", line.msg),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_the_reason() {
        let log = concat!(
            "{\"level\":\"error\",\"msg\":\"first\",\"time\":\"t\"}\n",
            "cut off {\n",
            "{\"level\":\"error\",\"msg\":\"second\",\"time\":\"t\"}\n",
            "{\"level\":\"debug\",\"msg\":\"later\",\"time\":\"t\"}\n",
        );
        assert_eq!(last_error(log).as_deref(), Some("second"));
        assert_eq!(last_error(""), None);
    }

    #[test]
    fn a_memory_file_is_read_from_its_beginning() {
        let mut text = String::new();
        memory_file(b"abc")
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "abc");
    }
}
