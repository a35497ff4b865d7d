//! The children of the shim: helpers that it starts itself, and processes of containers that fall to it as
//! orphans. One place reaps them all, since waitpid(2) cannot be told to leave a child to somebody else.

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::kernel::children::Ended;

/// Processes that nobody knows are remembered up to this number; it takes milliseconds to ask for one.
const MOST_EARLY: usize = 1024;

/// Who waits for which child.
///
/// The shim has one thread, so nothing can be reaped between the start of a child and its entry here.
#[derive(Debug, Default)]
pub(super) struct Children(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    helpers: HashMap<i32, oneshot::Sender<u32>>,
    /// How many processes of containers are being started, whose ids are not known yet.
    expected: usize,
    /// Processes that ended while somebody was expected: they may be the ones.
    early: Vec<Ended>,
}

/// A helper that runs.
#[derive(Debug)]
pub(super) struct Helper {
    pub(super) pid: i32,
    code: oneshot::Receiver<u32>,
}

impl Helper {
    /// Waits for its end; the exit code.
    pub(super) async fn ended(&mut self) -> u32 {
        // The sender is dropped only together with the shim.
        (&mut self.code).await.unwrap_or(255)
    }
}

/// While it lives, processes that end are remembered until somebody knows whose they were.
#[derive(Debug)]
pub(super) struct Expecting<'a>(&'a Children);

impl Children {
    /// Starts a helper.
    ///
    /// # Errors
    /// When the program cannot be executed.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Helper> {
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let (sender, code) = oneshot::channel();
        self.lock().helpers.insert(pid, sender);
        Ok(Helper { pid, code })
    }

    /// Announces a process whose id is not known yet.
    pub(super) fn expect(&self) -> Expecting<'_> {
        self.lock().expected += 1;
        Expecting(self)
    }

    /// Takes note of a child that was reaped; gives it back if it is no helper.
    pub(super) fn reaped(&self, ended: Ended) -> Option<Ended> {
        let mut inner = self.lock();
        match inner.helpers.remove(&ended.pid) {
            // Nobody may be waiting any more.
            Some(sender) => {
                let _ = sender.send(ended.code);
                None
            }
            None => Some(ended),
        }
    }

    /// Remembers a process of which nobody knows anything, if one is expected.
    pub(super) fn keep(&self, ended: Ended) {
        let mut inner = self.lock();
        if inner.expected > 0 {
            if inner.early.len() == MOST_EARLY {
                inner.early.remove(0);
            }
            inner.early.push(ended);
        }
    }

    /// The end of a process that was expected, if it ended before its id was known.
    pub(super) fn early(&self, pid: i32) -> Option<Ended> {
        let mut inner = self.lock();
        let at = inner.early.iter().rposition(|ended| ended.pid == pid)?;
        // Older ones of the same number were other processes.
        Some(inner.early.remove(at))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.expected = inner.expected.saturating_sub(1);
        if inner.expected == 0 {
            inner.early.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_early_end_is_kept_only_while_somebody_is_expected() {
        let children = Children::default();
        let ended = Ended { pid: 7, code: 3 };
        children.keep(ended);
        assert_eq!(children.early(7), None);
        let expecting = children.expect();
        children.keep(ended);
        assert_eq!(children.early(8), None);
        assert_eq!(children.early(7), Some(ended));
        assert_eq!(children.early(7), None);
        children.keep(ended);
        drop(expecting);
        assert_eq!(children.early(7), None);
    }
}
