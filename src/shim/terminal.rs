//! The terminal of a process: its master side, which the shim copies to and from.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::error::{Result, ShimError};
use crate::control::{STATE, create_folder};
use crate::kernel::tty::{self, TerminalSize};
use crate::kernel::watch::watch;

/// Below the state folder; no namespace can have its name.
const SOCKETS: &str = ".console";
/// How long a slow client may take to fetch what was written before a process is forgotten.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// As much as is copied at a time.
const CHUNK: usize = 8192;

/// A socket on which the runtime hands over the master side of a new terminal.
#[derive(Debug)]
pub(super) struct ConsoleSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    /// Opens a socket under a name of its own.
    ///
    /// # Errors
    /// `Failed` with the path.
    pub(super) fn open() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = Path::new(STATE).join(SOCKETS);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{count}", std::process::id()));
        create_folder(&folder)?;
        // Left by a shim that had our process id.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|err| ShimError::failed(format_args!("bind {}", path.display()), err))?;
        Ok(Self { path, listener })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The master side, once the runtime has said that the process is there.
    ///
    /// # Errors
    /// `Failed` when none was sent.
    pub(super) fn receive(self) -> Result<OwnedFd> {
        self.listener
            .accept()
            .and_then(|(socket, _)| tty::receive_fd(socket.as_fd()))
            .map_err(ShimError::from_io("receive the terminal"))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // A leftover is swept by `sweep`.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes the sockets of shims that are gone.
pub(super) fn sweep() {
    let Ok(entries) = std::fs::read_dir(Path::new(STATE).join(SOCKETS)) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.split('-').next()?.parse().ok());
        if owner.is_none_or(|pid: i32| crate::kernel::process::stat(pid).is_err()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The terminal of a process that runs.
#[derive(Debug)]
pub(super) struct Terminal {
    master: Arc<AsyncFd<OwnedFd>>,
    input: Option<JoinHandle<()>>,
    output: JoinHandle<()>,
}

impl Terminal {
    /// Starts to copy between the terminal and the client.
    ///
    /// # Errors
    /// `Failed` when a descriptor cannot be waited for.
    pub(super) fn start(
        master: OwnedFd,
        input: Option<OwnedFd>,
        output: Option<OwnedFd>,
    ) -> Result<Self> {
        let fail = ShimError::from_io("terminal");
        let master = Arc::new(watch(master).map_err(&fail)?);
        let input = match input {
            Some(fd) => {
                let (from, to) = (watch(fd).map_err(&fail)?, Arc::clone(&master));
                Some(tokio::spawn(async move {
                    copy(&from, Some(&Sink::Waits(&to))).await;
                }))
            }
            None => None,
        };
        let output = output.map(OwnedSink::new).transpose().map_err(&fail)?;
        let from = Arc::clone(&master);
        let output = tokio::spawn(async move {
            copy(&from, output.as_ref().map(OwnedSink::borrow).as_ref()).await;
        });
        Ok(Self {
            master,
            input,
            output,
        })
    }

    /// Sets its size.
    ///
    /// # Errors
    /// `Failed` with the kernel's reason.
    pub(super) fn resize(&self, size: TerminalSize) -> Result<()> {
        tty::set_size(self.master.get_ref().as_fd(), size)
            .map_err(ShimError::from_io("resize the terminal"))
    }

    /// Waits for the output that is left, then closes the terminal.
    pub(super) async fn finish(mut self) {
        if timeout(DRAIN_PATIENCE, &mut self.output).await.is_err() {
            tracing::warn!("output of a terminal given up: the client does not read it");
        }
        self.output.abort();
        if let Some(input) = &self.input {
            input.abort();
        }
    }
}

/// Where output goes: epoll(7) knows pipes and terminals, but no files.
#[derive(Debug)]
enum OwnedSink {
    Waits(AsyncFd<OwnedFd>),
    File(OwnedFd),
}

enum Sink<'a> {
    Waits(&'a AsyncFd<OwnedFd>),
    File(&'a OwnedFd),
}

impl OwnedSink {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
        if kind == rustix::fs::FileType::RegularFile {
            return Ok(Self::File(fd));
        }
        watch(fd).map(Self::Waits)
    }

    fn borrow(&self) -> Sink<'_> {
        match self {
            Self::Waits(fd) => Sink::Waits(fd),
            Self::File(fd) => Sink::File(fd),
        }
    }
}

impl Sink<'_> {
    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = match self {
                Self::Waits(fd) => {
                    fd.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?))
                        .await?
                }
                Self::File(fd) => rustix::io::write(fd, bytes)?,
            };
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Copies until the end of one side or the other. Without a sink, what comes is thrown away.
async fn copy(from: &AsyncFd<OwnedFd>, to: Option<&Sink<'_>>) {
    loop {
        let read = from
            .async_io(Interest::READABLE, |fd| {
                let mut chunk = [0; CHUNK];
                let count = rustix::io::read(fd, &mut chunk)?;
                Ok(chunk.get(..count).unwrap_or_default().to_vec())
            })
            .await;
        // A terminal without processes answers with EIO.
        let Ok(bytes) = read else { return };
        if bytes.is_empty() {
            return;
        }
        if let Some(to) = to
            && let Err(err) = to.write_all(&bytes).await
        {
            tracing::debug!(%err, "terminal output not written");
            return;
        }
    }
}
