//! A verb that is run by a process of its own, for callers that must not become containers themselves.
//!
//! libcontainer forks without regard for other threads and changes the working directory, so it never runs
//! inside the shim or the tracer (docs/adr/0001-engine.md). The helper is this executable under its other name.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::memfd::{MemFdCreateFlag, memfd_create};
use serde::Deserialize;

use crate::kernel::{children, exe};

/// What a helper says about itself in messages; engines know a runtime by this.
const NAME: &str = "elastic-mem";

/// What a helper is given: its log, and what one verb or other needs besides.
const LOG: usize = 0;
const EXTRA: usize = 1;

/// The options of all verbs that a caller chooses.
#[derive(Debug)]
pub(crate) struct Settings {
    /// State folder of the runtime.
    pub(crate) root: PathBuf,
    /// Use the systemd cgroup driver.
    pub(crate) systemd_cgroup: bool,
    /// Configuration file in place of the usual one.
    pub(crate) config: Option<PathBuf>,
    /// Log in detail.
    pub(crate) debug: bool,
}

/// Standard streams of a helper, which `create` and `exec` hand on to the new process.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

impl Streams {
    /// Nothing to read, and nobody to write to.
    pub(crate) fn null() -> Self {
        Self {
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        }
    }
}

/// What a helper says about its work.
#[derive(Debug)]
pub(crate) struct Log(File);

/// Why a verb failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    pub(crate) text: String,
    /// Whether the helper was killed, and so could not clean up after itself.
    pub(crate) cut_off: bool,
}

impl Failure {
    /// What kept the helper from running.
    pub(crate) fn new(what: &str, err: &io::Error) -> Self {
        Self {
            text: format!("{what}: {}", crate::kernel::reason(err)),
            cut_off: false,
        }
    }
}

/// Prepares a verb with its arguments, its streams and one more descriptor, which it finds at [`extra_path`].
///
/// The command is to be dropped once it is started: it holds the streams open.
///
/// # Errors
/// [`Failure`] when there are no descriptors left.
pub(crate) fn prepare<I>(
    settings: &Settings,
    args: I,
    streams: Streams,
    extra: Option<OwnedFd>,
) -> Result<(Command, Log), Failure>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let fail = |err| Failure::new("log of a helper", &err);
    let log = memory_file(&[]).map_err(fail)?;
    let given = log.try_clone().map(OwnedFd::from).map_err(fail)?;
    let mut command = Command::new(exe::SELF);
    command
        .arg0(NAME)
        .arg("--root")
        .arg(&settings.root)
        .arg("--log")
        .arg(children::given_path(LOG))
        .args(["--log-format", "json", "--observed"]);
    exe::keep_heap_fast(&mut command);
    if settings.systemd_cgroup {
        command.arg("--systemd-cgroup");
    }
    if settings.debug {
        command.arg("--debug");
    }
    if let Some(config) = &settings.config {
        command.arg("--config").arg(config);
    }
    command
        .args(args)
        .stdin(streams.stdin)
        .stdout(streams.stdout)
        .stderr(streams.stderr);
    // If the caller is killed, somebody cleans up at once: nobody may still be building then.
    children::end_with_parent(&mut command);
    children::give_descriptors(
        &mut command,
        [Some(given), extra].into_iter().flatten().collect(),
    )
    .map_err(|err| Failure::new("cannot run a helper", &err))?;
    Ok((command, Log(log)))
}

impl Log {
    /// What came of the verb, by its exit code (128 and the number of the signal that ended it). What a helper that did
    /// its work had to say goes into our own log.
    ///
    /// # Errors
    /// [`Failure`] with the last error of the helper's log, without any words before it.
    pub(crate) fn outcome(self, code: u32) -> Result<(), Failure> {
        let lines = read_all(self.0);
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
pub(crate) fn extra_path() -> PathBuf {
    children::given_path(EXTRA)
}

/// A file in memory with this content, to be read from its beginning.
///
/// # Errors
/// The kernel's reason.
pub(crate) fn memory_file(content: &[u8]) -> io::Result<File> {
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
