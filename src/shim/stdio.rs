//! Standard streams: named pipes of containerd, files, loggers; terminals are in `terminal`.
//!
//! Nothing is copied where it need not be: a process gets the end of containerd's pipe itself, so its
//! output does not pass through the shim. The shim keeps the other end open, as long as the process lives,
//! so that neither a client that leaves nor a restart of containerd ends the process by a broken pipe.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::libc;
use rustix::fs::OFlags;
use tokio::time::{Instant, sleep};

use super::children::Children;
use super::engine::Streams;
use super::error::{Result, ShimError};
use super::logger::Logger;
use super::terminal::Terminal;

/// How long a client may take to open its end of a pipe.
const READER_PATIENCE: Duration = Duration::from_secs(5);

/// Where the streams of a process lead to, as the request has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) terminal: bool,
    pub(super) stdin: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// One stream (containerd, `runtime/v2/README.md`, "IO").
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Null,
    Pipe(PathBuf),
    File(PathBuf),
    Logger(String),
}

impl Target {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text.split_once("://") {
            _ if text.is_empty() => Self::Null,
            None => Self::Pipe(text.into()),
            Some(("fifo", path)) => Self::Pipe(path.into()),
            Some(("file", path)) => Self::File(super::logger::decode(path).into()),
            Some(("binary", _)) => Self::Logger(text.to_owned()),
            Some((scheme, _)) => {
                return Err(ShimError::Invalid(format!(
                    "unknown STDIO scheme {scheme:?} of {text:?}; there are: fifo, file, binary"
                )));
            }
        })
    }
}

/// What the shim holds for the streams of one process.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Ends for reading of the pipes that the process writes to.
    readers: Vec<OwnedFd>,
    /// End for writing of the pipe that the process reads from: its input ends when this and the client's
    /// end are closed.
    stdin: Option<OwnedFd>,
    logger: Option<Logger>,
    pub(super) terminal: Option<Terminal>,
}

impl Held {
    #[cfg(test)]
    pub(super) fn with_stdin(stdin: OwnedFd) -> Self {
        Self {
            stdin: Some(stdin),
            ..Self::default()
        }
    }

    /// The input of the process ends here, as far as the shim is concerned.
    pub(super) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until everything that the process wrote has gone its way, then lets go of it all.
    pub(super) async fn finish(mut self) {
        if let Some(terminal) = self.terminal.take() {
            terminal.finish().await;
        }
        self.readers.clear();
        if let Some(logger) = self.logger.take() {
            logger.finish().await;
        }
    }
}

/// Opens the streams of a process that has no terminal.
///
/// # Errors
/// `Failed` with the path that could not be opened, `Invalid` for an unknown scheme.
pub(super) async fn open(paths: &Paths, context: &Context<'_>) -> Result<(Streams, Held)> {
    let mut held = Held::default();
    let mut streams = Streams::null();
    if let Target::Pipe(path) = Target::parse(&paths.stdin)? {
        let (reader, writer) = open_input(&path)?;
        context.give(&reader)?;
        set_blocking(&reader).map_err(|err| failed("open", &path, err))?;
        streams.stdin = reader.into();
        held.stdin = Some(writer);
    }
    let (stdout, stderr) = (Target::parse(&paths.stdout)?, Target::parse(&paths.stderr)?);
    if let Target::Logger(uri) = &stdout {
        let (logger, out, err) = Logger::start(uri, context).await?;
        context.give(&out)?;
        context.give(&err)?;
        (streams.stdout, streams.stderr) = (out.into(), err.into());
        held.logger = Some(logger);
        return Ok((streams, held));
    }
    for (target, stream) in [(stdout, &mut streams.stdout), (stderr, &mut streams.stderr)] {
        if let Some((writer, reader)) = open_output(&target).await? {
            context.give(&writer)?;
            set_blocking(&writer).map_err(ShimError::from_io("standard stream"))?;
            *stream = Stdio::from(writer);
            held.readers.extend(reader);
        }
    }
    Ok((streams, held))
}

/// Opens the streams of a process with a terminal, which the shim itself copies to and from.
///
/// # Errors
/// As [`open`].
pub(super) async fn open_for_terminal(
    paths: &Paths,
    context: &Context<'_>,
) -> Result<(Option<OwnedFd>, Option<OwnedFd>, Held)> {
    let mut held = Held::default();
    let mut input = None;
    if let Target::Pipe(path) = Target::parse(&paths.stdin)? {
        let (reader, writer) = open_input(&path)?;
        input = Some(reader);
        held.stdin = Some(writer);
    }
    let target = Target::parse(&paths.stdout)?;
    if let Target::Logger(uri) = &target {
        let (logger, out, _) = Logger::start(uri, context).await?;
        held.logger = Some(logger);
        return Ok((input, Some(out), held));
    }
    let output = open_output(&target).await?;
    let output = output.map(|(writer, reader)| {
        held.readers.extend(reader);
        writer
    });
    Ok((input, output, held))
}

/// What opening a stream needs to know of its process.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) children: &'a Children,
    pub(super) namespace: &'a str,
    /// The container, or the exec'ed process.
    pub(super) id: &'a str,
    /// User and group of the container's root, where that is not the host's.
    pub(super) owner: (u32, u32),
}

impl Context<'_> {
    /// Gives a stream to the container's root, so that it can be opened again under /dev/stdout.
    fn give(&self, fd: &OwnedFd) -> Result<()> {
        let (uid, gid) = self.owner;
        if (uid, gid) == (0, 0) {
            return Ok(());
        }
        std::os::unix::fs::fchown(fd, Some(uid), Some(gid))
            .map_err(ShimError::from_io("owner of a standard stream"))
    }
}

/// Both ends of a pipe that a client writes to; neither blocks.
fn open_input(path: &Path) -> Result<(OwnedFd, OwnedFd)> {
    let fail = |err| failed("open", path, err);
    let reader = nonblocking().read(true).open(path).map_err(fail)?;
    // There is a reader, so this does not wait for one.
    let writer = nonblocking().write(true).open(path).map_err(fail)?;
    Ok((reader.into(), writer.into()))
}

/// The end that a process writes to, and for a pipe the one that keeps it from breaking; neither blocks.
async fn open_output(target: &Target) -> Result<Option<(OwnedFd, Option<OwnedFd>)>> {
    match target {
        Target::Null => Ok(None),
        Target::Pipe(path) => {
            let writer = open_for_reader(path).await?;
            let reader = nonblocking().read(true).open(path);
            let reader = reader.map_err(|err| failed("open", path, err))?;
            Ok(Some((writer.into(), Some(reader.into()))))
        }
        Target::File(path) => {
            let fail = |err| failed("open", path, err);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(fail)?;
            }
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o644)
                .open(path)
                .map_err(fail)?;
            Ok(Some((file.into(), None)))
        }
        Target::Logger(uri) => Err(ShimError::Invalid(format!(
            "{uri:?} takes standard output and standard error together"
        ))),
    }
}

/// Opens a pipe for writing when its client has opened it for reading, or is about to.
///
/// Were it opened before, a short-lived process could be gone before the client comes, and the client would
/// wait for a writer for ever.
async fn open_for_reader(path: &Path) -> Result<File> {
    let deadline = Instant::now() + READER_PATIENCE;
    let mut pause = Duration::from_micros(200);
    loop {
        match nonblocking().write(true).open(path) {
            Err(err) if err.raw_os_error() == Some(libc::ENXIO) && Instant::now() < deadline => {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            // A client that never reads: what is written stays in the pipe.
            Err(err) if err.raw_os_error() == Some(libc::ENXIO) => {
                let both = nonblocking().read(true).write(true).open(path);
                return both.map_err(|err| failed("open", path, err));
            }
            other => return other.map_err(|err| failed("open", path, err)),
        }
    }
}

fn nonblocking() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(libc::O_NONBLOCK);
    options
}

fn set_blocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags - OFlags::NONBLOCK)?)
}

fn failed(what: &str, path: &Path, err: io::Error) -> ShimError {
    let reason = crate::kernel::reason(&err);
    ShimError::Failed(format!("{what} {}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_by_scheme() {
        let parse = |text| Target::parse(text).unwrap();
        assert_eq!(parse(""), Target::Null);
        assert_eq!(parse("/run/x"), Target::Pipe("/run/x".into()));
        assert_eq!(parse("fifo:///run/x"), Target::Pipe("/run/x".into()));
        assert_eq!(parse("file:///a%20b"), Target::File("/a b".into()));
        assert!(matches!(parse("binary:///x?a=b"), Target::Logger(_)));
        let err = Target::parse("npipe:////./x").unwrap_err();
        assert!(err.to_string().contains("npipe"), "{err}");
    }
}
