//! What the control groups of a host can do, found out with a group that is made for it and removed.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Cgroup, Directory, Hierarchies, Lever, Version};
use crate::kernel::{KernelError, Result, process, read_text};
use crate::model::MemoryLimit;

/// Enough for a group without processes.
const TRIAL: i64 = 64 << 20;

/// What the control groups of a host can do.
#[derive(Debug)]
pub struct Survey {
    /// The version that holds the resource controllers.
    pub version: Version,
    /// Whether there is a hierarchy of version 2 beside those of version 1.
    pub is_hybrid: bool,
    /// Controllers that there are.
    pub controllers: Vec<String>,
    /// Those that groups below the root have; on version 1 all.
    pub delegated: Vec<String>,
    /// Whether a memory limit can be written. `None` if that was not tried: without the right to make groups, or where
    /// groups below the root have no memory controller.
    pub limit: Option<Result<()>>,
    /// Whether swapped memory counts.
    pub counts_swap: Option<bool>,
    /// Whether page cache can be dropped on request.
    pub drops_cache: Option<bool>,
}

impl Survey {
    /// Looks at the host, and with `trial` makes a group, sets its limit and removes it.
    ///
    /// # Errors
    /// `Unsupported` when no cgroup file system is mounted.
    pub fn take(trial: bool) -> Result<Self> {
        let hierarchies = Hierarchies::probe()?;
        let root = Cgroup::for_spec(&hierarchies, Some(Path::new("/")), "")?;
        let (controllers, delegated) = match hierarchies.version {
            Version::V2 => {
                let root = root.directories.first().map(|dir| dir.path.as_path());
                let words = |file| root.map_or_else(Vec::new, |root| words(&root.join(file)));
                (words("cgroup.controllers"), words("cgroup.subtree_control"))
            }
            Version::V1 => {
                let names = root
                    .directories
                    .iter()
                    .flat_map(|dir| dir.controllers.split(','));
                let names: Vec<String> = names.map(str::to_owned).collect();
                (names.clone(), names)
            }
        };
        let mut survey = Self {
            version: hierarchies.version,
            is_hybrid: hierarchies.version == Version::V1
                && root
                    .directories
                    .iter()
                    .any(|dir| dir.controllers.is_empty()),
            limit: None,
            counts_swap: None,
            drops_cache: None,
            controllers,
            delegated,
        };
        let memory = root.controller("memory");
        if trial
            && let Some(memory) = memory
            && survey.delegated.iter().any(|name| name == "memory")
        {
            survey.limit = Some(survey.try_out(memory));
        }
        Ok(survey)
    }

    fn try_out(&mut self, memory: &Path) -> Result<()> {
        let group = Group::make(memory)?;
        let (swap, cache) = match self.version {
            Version::V1 => ("memory.memsw.limit_in_bytes", "memory.force_empty"),
            Version::V2 => ("memory.swap.max", "memory.reclaim"),
        };
        self.counts_swap = Some(group.0.join(swap).exists());
        self.drops_cache = Some(group.0.join(cache).exists());
        let lever = Lever::open(&Cgroup {
            version: self.version,
            directories: vec![Directory {
                controllers: "memory".to_owned(),
                path: group.0.clone(),
            }],
        })?;
        let wanted = MemoryLimit::Bytes(TRIAL);
        lever.set(wanted)?;
        match lever.get()? {
            found if found == wanted => Ok(()),
            found => Err(KernelError::Unsupported(format!(
                "wrote {TRIAL} to the limit of {}, and read {found:?}",
                group.0.display()
            ))),
        }
    }
}

/// Before the id of the process that has made a group.
const PREFIX: &str = "elastic-mem-doctor-";

/// Removes the groups that processes which were killed have left.
fn sweep(below: &Path) {
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        if pid.is_some_and(|pid: i32| process::stat(pid).is_err()) {
            // Nobody is in it.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// A group that is removed when this is dropped.
struct Group(PathBuf);

impl Group {
    fn make(below: &Path) -> Result<Self> {
        sweep(below);
        let path = below.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path).map_err(|err| KernelError::io("create cgroup", &path, err))?;
        Ok(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Nobody is in it.
        let _ = fs::remove_dir(&self.0);
    }
}

/// The words of a file; none if it cannot be read.
fn words(path: &Path) -> Vec<String> {
    let text = read_text(path).unwrap_or_default();
    text.split_ascii_whitespace().map(str::to_owned).collect()
}
