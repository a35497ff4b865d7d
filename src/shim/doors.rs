//! The control sockets of the containers of this shim, in its event loop.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::shim::lock;
use crate::control::{self, Key, Server, Tuned};
use crate::kernel::watch::watch;
use crate::runtime::chain;

/// All of them. Nothing is there before the first one.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<Option<Arc<Mutex<Server>>>>);

/// The sockets of one container, until it is dropped.
#[derive(Debug)]
pub(super) struct Door {
    server: Arc<Mutex<Server>>,
    keys: Vec<Key>,
}

impl Doors {
    /// Opens the socket of a container, and the one in the folder that it sees, if it has one. Without them it runs all the
    /// same.
    pub(super) fn open(&self, tuned: Tuned, inside: Option<&Path>) -> Option<Door> {
        let mut kept = lock(&self.0);
        let server = match &*kept {
            Some(server) => Arc::clone(server),
            None => start()
                .inspect_err(|reason| tracing::warn!(reason, "no control sockets"))
                .ok()?,
        };
        *kept = Some(Arc::clone(&server));
        let mut keys = Vec::new();
        let mut keep = |opened: control::Result<Key>| match opened {
            Ok(key) => keys.push(key),
            Err(err) => tracing::warn!("no control socket: {}", chain(&err)),
        };
        keep(lock(&server).open(tuned.clone().into()));
        if let Some(inside) = inside {
            keep(lock(&server).open_inside(inside, tuned.into()));
        }
        Some(Door { server, keys })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut server = lock(&self.server);
        self.keys.drain(..).for_each(|key| server.close(key));
    }
}

/// Serves in the event loop of the caller, as long as it runs.
fn start() -> Result<Arc<Mutex<Server>>, String> {
    let server = Server::new().map_err(|err| chain(&err))?;
    let news = server
        .as_fd()
        .try_clone_to_owned()
        .and_then(watch)
        .map_err(|err| crate::kernel::reason(&err))?;
    let server = Arc::new(Mutex::new(server));
    let serving = Arc::clone(&server);
    tokio::spawn(async move {
        while let Ok(mut ready) = news.readable().await {
            // Before the look: what comes during it is news again.
            ready.clear_ready();
            lock(&serving).turn();
        }
    });
    Ok(server)
}
