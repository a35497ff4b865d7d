//! The process that stays: one thread that waits for requests, for the ends of processes, and for signals.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::shim_async::create_task;
use containerd_shim_protos::ttrpc::r#async::Server;
use containerd_shim_protos::ttrpc::r#async::transport::Listener;
use nix::libc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tracing::Level;

use super::args::Args;
use super::bootstrap::ADDRESS_FILE;
use super::events::Queue;
use super::service::Service;
use super::shim::Shim;
use crate::config::LogFormat;
use crate::kernel::{children, exe};
use crate::log::{self, Sink};
use crate::runtime::chain;

/// Where containerd takes events.
pub(super) const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";
/// The pipe in the working folder from which containerd copies our log into its own.
const LOG: &str = "log";
/// Both names of the service; the messages are the same.
const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
/// How long the last events may take.
const LAST_EVENTS: Duration = Duration::from_secs(2);
/// How often a server that never had a container looks for its bundle.
const UNWANTED: Duration = Duration::from_secs(2);
/// How long a server waits for the request to end, once its last container is gone.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// How long nothing may have been done before memory is given up.
const REST: Duration = Duration::from_millis(250);
/// Turns of the event loop for the last answer to leave; it needs three.
const LAST_ANSWER_TURNS: usize = 32;

/// Serves until there is nothing left to look after.
///
/// # Errors
/// What was tried and why it failed, for the user.
pub(super) fn serve(args: &Args) -> Result<(), String> {
    start_log(args.debug);
    children::become_subreaper().map_err(|err| format!("become a subreaper: {err}"))?;
    let listener = children::take_given(0)
        .map(UnixListener::from)
        .map_err(|err| format!("the socket that start hands over: {err}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|err| format!("event loop: {err}"))?;
    let result = runtime.block_on(run(args, listener));
    if let Err(text) = &result {
        tracing::error!("{text}");
    }
    // Nobody is waited for: what still runs are connections and timers.
    runtime.shutdown_background();
    result
}

async fn run(args: &Args, listener: UnixListener) -> Result<(), String> {
    let path = listener
        .local_addr()
        .ok()
        .and_then(|address| address.as_pathname().map(Path::to_path_buf));
    let events = Queue::start(&args.namespace, events_address(&args.address));
    let shim = Arc::new(Shim::new(&args.namespace, events, args.debug));
    let mut child_ended = signal(SignalKind::child()).map_err(|err| format!("signals: {err}"))?;
    let mut terminated =
        signal(SignalKind::terminate()).map_err(|err| format!("signals: {err}"))?;
    let mut interrupted =
        signal(SignalKind::interrupt()).map_err(|err| format!("signals: {err}"))?;
    let mut server = serve_requests(&shim, listener)?;
    server
        .start()
        .await
        .map_err(|err| format!("serve requests: {err}"))?;
    tokio::spawn(shrink_at_rest(Arc::clone(&shim)));
    tokio::spawn(leave_if_forgotten(Arc::clone(&shim)));
    loop {
        tokio::select! {
            _ = child_ended.recv() => {
                while let Some(ended) = children::reap() {
                    shim.reaped(ended);
                }
            }
            () = shim.done.notified() => {
                // Somebody may have come in between.
                if shim.is_empty() {
                    break;
                }
            }
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
        }
    }
    // Not after the next shim of this group has made its own.
    if let Some(path) = path {
        remove_own_socket(&path);
    }
    shim.events.drained(LAST_EVENTS).await;
    shim.observer.finish().await;
    // The last answer leaves: it is handed on from task to task, then written without waiting.
    for _ in 0..LAST_ANSWER_TURNS {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Makes the process small again whenever it has been at rest for a while.
async fn shrink_at_rest(shim: Arc<Shim>) {
    loop {
        shim.worked.notified().await;
        while timeout(REST, shim.worked.notified()).await.is_ok() {}
        if let Err(err) = exe::give_up_unused_memory() {
            tracing::debug!("memory not given up: {}", chain(&err));
        }
    }
}

/// Ends a server that containerd has forgotten, as it can when it is killed: before the first container, once
/// the bundle is gone; after the last one, if the request to end does not come.
async fn leave_if_forgotten(shim: Arc<Shim>) {
    loop {
        let had_containers = shim.had_containers();
        if shim.is_empty() {
            let patience = if had_containers { FORGOTTEN } else { UNWANTED };
            // The next container counts as a sign of life.
            if timeout(patience, shim.changed.notified()).await.is_ok() {
                continue;
            }
            // In the working folder, which is the bundle; written by `start` a moment after we were started.
            let is_wanted = !had_containers && Path::new(ADDRESS_FILE).exists();
            if shim.is_empty() && !is_wanted {
                tracing::warn!("no container and no request: this shim was forgotten");
                shim.done.notify_one();
            }
        } else {
            shim.changed.notified().await;
        }
    }
}

fn remove_own_socket(path: &Path) {
    // Gone already if containerd cleaned up before us.
    let _ = std::fs::remove_file(path);
}

fn serve_requests(shim: &Arc<Shim>, listener: UnixListener) -> Result<Server, String> {
    let fail = |err: std::io::Error| format!("the socket that start hands over: {err}");
    listener.set_nonblocking(true).map_err(fail)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(fail)?;
    let mut server = Server::new().add_listener(Listener::from(listener));
    for name in SERVICES {
        let service = create_task(Arc::new(Service(Arc::clone(shim))));
        let renamed = service
            .into_values()
            .map(|service| (name.to_owned(), service))
            .collect();
        server = server.register_service(renamed);
    }
    Ok(server)
}

/// containerd tells where; its older versions always listen beside their main socket.
fn events_address(address: &str) -> String {
    let told = std::env::var(TTRPC_ADDRESS)
        .ok()
        .filter(|text| !text.is_empty());
    let path = told.unwrap_or_else(|| format!("{address}.ttrpc"));
    match path.contains("://") {
        true => path,
        false => format!("unix://{path}"),
    }
}

/// Logs into containerd's log. Opened for reading too, so that it neither waits for containerd nor breaks
/// while containerd restarts; what does not fit meanwhile is lost.
fn start_log(debug: bool) {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(PathBuf::from(LOG));
    if let Ok(file) = file {
        log::install(Arc::new(Sink {
            format: LogFormat::Text,
            file: Some(file),
            level: if debug { Level::DEBUG } else { Level::INFO },
        }));
    }
}
