//! The lease of the interleave weights of the host: `/run/elastic-mem/weights.json`.
//!
//! The kernel has one table of weights for all processes. Whoever sets it here first writes down what was there, and which
//! containers rely on it; the last of them gives it back when it is removed, or whatever verb comes next when they are
//! gone without a word. Weights that somebody else has written meanwhile are theirs: they stay.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::control::STATE;
use crate::kernel::{KernelError, boot_id, numa, process};
use crate::model::ContainerId;
use crate::model::nodes::{NodeSet, Weights};
use crate::model::placement::Placement;
use crate::policy::placement::Rights;
use crate::runtime::{RuntimeError, Status, Store, chain, write_atomic};

/// The record.
const FILE: &str = "weights.json";
/// Its flock(2) is held while the record or the weights change.
const LOCK: &str = ".weights.lock";
/// So long whoever holds it is waited for, and how often it is looked at. Nobody holds it for long, but one that stands
/// still: no start of a container waits for that.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(2);
/// Raised when the meaning of a field changes.
const VERSION: u32 = 1;

/// Why the weights could not be shown, set or given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The kernel has none.
    #[error(
        "this kernel has no interleave weights (want Linux 6.9 or newer with NUMA: /sys/kernel/mm/mempolicy/weighted_interleave)"
    )]
    None,
    /// A node that is not there.
    #[error("there is no node {0} (elastic-mem weights show lists them)")]
    NoNode(u32),
    /// Containers rely on them.
    #[error(
        "{0} rely on the weights; --force gives them back all the same, and their pages are moved then"
    )]
    InUse(String),
    /// A node of those that were found has no weight now.
    #[error(
        "node {0} is offline and has no weight: the weights are given back once it is online, by the next command that \
         starts or removes a container"
    )]
    Offline(NodeSet),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The record cannot be read or written.
    #[error("{op} {}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The record cannot be written.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

type Result<T> = std::result::Result<T, WeightsError>;

/// A container that relies on the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    /// State folder of its runtime.
    root: PathBuf,
    id: String,
    /// The process that creates it, and when that started: until there is a state of the container.
    creator: u32,
    creator_start: u64,
}

impl Holder {
    fn new(root: &Path, id: &ContainerId) -> Self {
        let creator = std::process::id();
        let stat = process::stat(creator.cast_signed());
        Self {
            root: root.to_path_buf(),
            id: id.to_string(),
            creator,
            creator_start: stat.map_or(0, |stat| stat.start_time),
        }
    }

    fn is(&self, root: &Path, id: &ContainerId) -> bool {
        self.root == root && self.id == id.as_str()
    }

    /// Whether it is still being created, or there.
    fn is_live(&self) -> bool {
        let creator = process::stat(self.creator.cast_signed());
        if creator.is_ok_and(|stat| stat.start_time == self.creator_start && !stat.has_ended()) {
            return true;
        }
        let Ok(id) = self.id.parse() else {
            return false;
        };
        Store::new(&self.root)
            .load(&id)
            .is_ok_and(|container| container.status() != Status::Stopped)
    }
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    version: u32,
    /// Names the boot of the host in which this was written.
    boot_id: String,
    /// What was found.
    pub before: Weights,
    /// What was set.
    pub set: Weights,
    /// Set by hand: kept until it is released by hand.
    #[serde(default)]
    pub by_hand: bool,
    containers: Vec<Holder>,
}

impl Lease {
    /// The names of the containers that rely on it.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        self.containers.iter().map(|holder| holder.id.as_str())
    }

    /// Whether the weights are what was set.
    pub fn is_in_force(&self, now: &Weights) -> bool {
        let is_as_set = |(node, weight)| now.nodes.get(node).is_none_or(|found| found == weight);
        // Weights that the kernel makes are nobody's.
        self.set.nodes.iter().all(is_as_set) && now.auto != Some(true)
    }

    /// Nodes that are offline. The kernel keeps the weight of such a node, shows it no more, and cannot be told another.
    fn offline(&self, now: &Weights) -> NodeSet {
        let nodes = self.set.nodes.keys().copied();
        nodes.filter(|node| !now.nodes.contains_key(node)).collect()
    }
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// The weights in force.
    pub weights: Weights,
    /// Who has set them, if that was us.
    pub lease: Option<Lease>,
    /// Whether somebody else has written them since.
    pub overwritten: bool,
}

/// The file of the lease, the weights beneath it, and the lock of both.
struct Table {
    folder: PathBuf,
    /// Kept for its lock.
    _lock: File,
}

impl Table {
    fn lock() -> Result<Self> {
        Self::lock_in(Path::new(STATE))
    }

    fn lock_in(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let fail = |op, source| WeightsError::Io {
            op,
            path: path.clone(),
            source,
        };
        crate::control::create_folder(folder)
            .map_err(|err| fail("create the folder of", io::Error::other(chain(&err))))?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|err| fail("open", err))?;
        let end = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(LOOK),
                Err(err) => return Err(fail("lock", err.into())),
            }
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            _lock: lock,
        })
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// The lease of this boot, without those who are gone. A record that cannot be read is none: what was there before is
    /// lost with it.
    fn read(&self) -> Option<Lease> {
        read(&self.path())
    }

    fn write(&self, lease: &Lease) -> Result<()> {
        let bytes = serde_json::to_vec(lease).map_err(|err| WeightsError::Io {
            op: "write",
            path: self.path(),
            source: io::Error::other(err),
        })?;
        Ok(write_atomic(&self.path(), &bytes, 0o600)?)
    }

    fn remove(&self) {
        if let Err(err) = fs::remove_file(self.path())
            && err.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(
                "record of the weights not removed: {}",
                crate::kernel::reason(&err)
            );
        }
    }

    /// Drops those who are gone, and gives the weights back if nobody is left. What remains.
    fn tidy(&self) -> Option<Lease> {
        let mut lease = self.read()?;
        let before = lease.containers.len();
        lease.containers.retain(Holder::is_live);
        if lease.containers.is_empty() && !lease.by_hand {
            return match self.give_back(&lease) {
                Ok(()) => None,
                Err(err) => {
                    // The record stays: the next verb tries again.
                    tracing::warn!("interleave weights not given back: {}", chain(&err));
                    Some(lease)
                }
            };
        }
        if lease.containers.len() != before {
            self.write(&lease)
                .unwrap_or_else(|err| tracing::warn!("weights: {}", chain(&err)));
        }
        Some(lease)
    }

    /// Restores what was found, unless somebody else has written the weights since.
    fn give_back(&self, lease: &Lease) -> Result<()> {
        match numa::weights() {
            Some(now) if lease.is_in_force(&now) => {
                let offline = lease.offline(&now);
                if !offline.is_empty() {
                    return Err(WeightsError::Offline(offline));
                }
                numa::set_weights(&lease.before)?;
                tracing::info!("the interleave weights of the host are as they were");
            }
            Some(_) => tracing::info!(
                "the interleave weights of the host were changed by somebody else: they stay"
            ),
            None => {}
        }
        self.remove();
        Ok(())
    }

    /// Sets weights for the first time. The record comes first: whoever finds us dead knows what was there.
    fn take(&self, set: &Weights, containers: Vec<Holder>, by_hand: bool) -> Result<()> {
        let before = numa::weights().ok_or(WeightsError::None)?;
        let mut whole = before.clone();
        whole.auto = before.auto.map(|_| false);
        whole.nodes.extend(&set.nodes);
        let lease = Lease {
            version: VERSION,
            boot_id: boot_id()?,
            before,
            set: whole.clone(),
            by_hand,
            containers,
        };
        self.write(&lease)?;
        // Those of the other nodes too: the kernel made them, and now does so no more.
        numa::set_weights(&whole).map_err(|err| {
            self.give_back_part(&lease);
            err.into()
        })
    }

    /// After a failure half way.
    fn give_back_part(&self, lease: &Lease) {
        if let Err(err) = numa::set_weights(&lease.before) {
            tracing::warn!("interleave weights not given back: {}", chain(&err));
        }
        self.remove();
    }
}

/// The lease in a file, if there is one of this boot.
fn read(path: &Path) -> Option<Lease> {
    let bytes = fs::read(path).ok()?;
    let lease: Lease = serde_json::from_slice(&bytes)
        .inspect_err(|err| tracing::warn!(%err, path = %path.display(), "record not used"))
        .ok()?;
    let is_now = boot_id().is_ok_and(|id| id == lease.boot_id);
    // After another boot the weights are the kernel's again.
    (is_now && lease.version <= VERSION).then_some(lease)
}

/// Whether there is anything to look at: one system call, which is all that most hosts ever pay.
fn is_there() -> bool {
    Path::new(STATE).join(FILE).exists()
}

/// What may be done with the weights now, for a look ahead.
pub(super) fn rights() -> Rights {
    match read(&Path::new(STATE).join(FILE)) {
        Some(lease) => of(&lease),
        None => Rights::Free,
    }
}

fn of(lease: &Lease) -> Rights {
    match numa::weights() {
        Some(now) if lease.is_in_force(&now) => Rights::Kept,
        _ => Rights::None("somebody else has set them"),
    }
}

/// Has a container placed with what may be done with the weights, sets those that it wants, and writes down that it
/// relies on them.
pub(super) fn with(
    root: &Path,
    id: &ContainerId,
    decide: impl Fn(Rights) -> Placement,
) -> Placement {
    let table = match Table::lock() {
        Ok(table) => table,
        Err(err) => {
            tracing::warn!("weights: {}", chain(&err));
            return decide(Rights::None("their record cannot be locked"));
        }
    };
    let lease = table.tidy();
    let rights = lease.as_ref().map_or(Rights::Free, of);
    let placement = decide(rights);
    let holder = Holder::new(root, id);
    let done = match (&placement.wants, lease) {
        (Some(set), _) => table.take(set, vec![holder], false),
        (None, Some(mut lease)) if rights == Rights::Kept && placement.relies_on.is_some() => {
            lease.containers.retain(|other| !other.is(root, id));
            lease.containers.push(holder);
            table.write(&lease)
        }
        _ => Ok(()),
    };
    match done {
        Ok(()) => placement,
        Err(err) => {
            tracing::warn!(%id, "weights: {}", chain(&err));
            decide(Rights::None("they could not be set"))
        }
    }
}

/// A container is removed: it relies on the weights no more.
pub fn forget(root: &Path, id: &ContainerId) {
    change(|lease| lease.containers.retain(|holder| !holder.is(root, id)));
}

/// Gives the weights back if all who relied on them are gone.
pub fn sweep() {
    change(|_| {});
}

fn change(change: impl FnOnce(&mut Lease)) {
    if !is_there() {
        return;
    }
    let done = Table::lock().and_then(|table| {
        let Some(mut lease) = table.read() else {
            // Of another boot.
            table.remove();
            return Ok(());
        };
        let before = lease.clone();
        change(&mut lease);
        if lease != before {
            table.write(&lease)?;
        }
        table.tidy();
        Ok(())
    });
    if let Err(err) = done {
        tracing::warn!("weights: {}", chain(&err));
    }
}

/// What is there.
///
/// # Errors
/// `None` without weights.
pub fn show() -> Result<Found> {
    let weights = numa::weights().ok_or(WeightsError::None)?;
    let lease = read(&Path::new(STATE).join(FILE));
    Ok(Found {
        overwritten: lease
            .as_ref()
            .is_some_and(|lease| !lease.is_in_force(&weights)),
        weights,
        lease,
    })
}

/// Sets weights by hand, until they are released by hand.
///
/// # Errors
/// Of every kind; the weights are as they were then.
pub fn set(wanted: &Weights) -> Result<()> {
    let now = numa::weights().ok_or(WeightsError::None)?;
    if let Some(node) = wanted
        .nodes
        .keys()
        .find(|node| !now.nodes.contains_key(node))
    {
        return Err(WeightsError::NoNode(*node));
    }
    let table = Table::lock()?;
    match table.tidy() {
        None => table.take(wanted, Vec::new(), true),
        Some(lease) if !lease.containers.is_empty() => Err(in_use(&lease)),
        Some(mut lease) => {
            lease.set.nodes.extend(&wanted.nodes);
            lease.by_hand = true;
            table.write(&lease)?;
            Ok(numa::set_weights(&lease.set)?)
        }
    }
}

/// Gives the weights back. Whether there was anything to give back.
///
/// # Errors
/// `InUse` while containers rely on them, unless `force`; `Offline` while a node is.
pub fn release(force: bool) -> Result<bool> {
    let table = Table::lock()?;
    let Some(lease) = table.tidy() else {
        return Ok(false);
    };
    if !lease.containers.is_empty() && !force {
        return Err(in_use(&lease));
    }
    table.give_back(&lease)?;
    Ok(true)
}

fn in_use(lease: &Lease) -> WeightsError {
    let names: Vec<&str> = lease.containers().collect();
    WeightsError::InUse(names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(nodes: &[(u32, u8)], auto: Option<bool>) -> Weights {
        Weights {
            nodes: nodes.iter().copied().collect(),
            auto,
        }
    }

    fn lease(boot_id: String) -> Lease {
        Lease {
            version: VERSION,
            boot_id,
            before: weights(&[(0, 25), (1, 6)], Some(true)),
            set: weights(&[(0, 3), (1, 1)], Some(false)),
            by_hand: false,
            containers: vec![Holder::new(Path::new("/r"), &"a".parse().unwrap())],
        }
    }

    #[test]
    fn a_lease_survives_the_way_to_disk_and_another_boot_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::lock_in(dir.path()).unwrap();
        assert_eq!(table.read(), None);
        let written = lease(boot_id().unwrap());
        table.write(&written).unwrap();
        assert_eq!(table.read(), Some(written));
        table.write(&lease("other".to_owned())).unwrap();
        assert_eq!(table.read(), None);
        fs::write(table.path(), "{").unwrap();
        assert_eq!(table.read(), None);
        table.remove();
        table.remove();
    }

    #[test]
    fn weights_that_somebody_else_has_written_are_not_in_force() {
        let lease = lease(String::new());
        assert!(lease.is_in_force(&weights(&[(0, 3), (1, 1)], Some(false))));
        assert!(lease.is_in_force(&weights(&[(0, 3), (1, 1)], None)));
        assert!(!lease.is_in_force(&weights(&[(0, 3), (1, 1)], Some(true))));
        assert!(!lease.is_in_force(&weights(&[(0, 3), (1, 2)], Some(false))));
    }

    #[test]
    fn the_weight_of_a_node_that_is_offline_is_nobodys_change() {
        let lease = lease(String::new());
        let both = weights(&[(0, 3), (1, 1)], Some(false));
        let one = weights(&[(0, 3)], Some(false));
        assert!(lease.is_in_force(&one) && lease.offline(&both).is_empty());
        assert_eq!(lease.offline(&one), "1".parse().unwrap());
        assert!(!lease.is_in_force(&weights(&[(0, 4)], Some(false))));
        // One that was not there then has a weight of its own.
        assert!(lease.is_in_force(&weights(&[(0, 3), (1, 1), (2, 9)], Some(false))));
    }

    #[test]
    fn a_holder_lives_as_long_as_its_creator_or_its_container() {
        let dir = tempfile::tempdir().unwrap();
        let id: ContainerId = "a".parse().unwrap();
        let mut holder = Holder::new(dir.path(), &id);
        assert!(holder.is_live() && holder.is(dir.path(), &id));
        // Another process that has its id.
        holder.creator_start += 1;
        assert!(!holder.is_live());
    }
}
