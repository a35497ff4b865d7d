//! Control groups that somebody else has made, by their paths and by their names.

use std::path::{Path, PathBuf};

use super::{Cgroup, Hierarchies, Version};
use crate::kernel::{KernelError, Result};

impl Cgroup {
    /// The control group at a path: a directory of any hierarchy, or a path below the roots of all of them.
    ///
    /// # Errors
    /// `Io` when nothing is there, `Unsupported` for the root group or without a memory controller.
    pub fn at(hierarchies: &Hierarchies, path: &Path) -> Result<Self> {
        let inside = hierarchies
            .mounts()
            .find_map(|mount| path.strip_prefix(mount).ok())
            .or_else(|| path.strip_prefix("/").ok())
            .unwrap_or(path);
        let cgroup = Self::for_spec(hierarchies, Some(&Path::new("/").join(inside)), "")?;
        let memory = cgroup.memory()?;
        if !memory.is_dir() {
            let source = std::io::Error::from_raw_os_error(libc::ENOENT);
            return Err(KernelError::io("open control group", memory, source));
        }
        cgroup.below_root(hierarchies)
    }

    /// The control groups that are named after a container's id or the first digits of it. If some have the whole id,
    /// only these.
    ///
    /// # Errors
    /// `Unsupported` without a memory controller.
    pub fn named_after(hierarchies: &Hierarchies, id: &str) -> Result<Vec<Self>> {
        let root = Self::for_spec(hierarchies, Some(Path::new("/")), "")?;
        let root = root.memory()?;
        let mut found: Vec<(PathBuf, Match)> = Vec::new();
        let mut rest = vec![root.to_path_buf()];
        while let Some(folder) = rest.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                match matches(&entry.file_name().to_string_lossy(), id) {
                    // What is below belongs to it.
                    Some(how) => found.push((entry.path(), how)),
                    None => rest.push(entry.path()),
                }
            }
        }
        let best = found.iter().map(|(_, how)| *how).max();
        found.retain(|(_, how)| Some(*how) == best);
        found.sort();
        found
            .into_iter()
            .map(|(path, _)| Self::at(hierarchies, &path))
            .collect()
    }

    /// This group, unless it is the root of the hierarchy that counts memory: that would be the whole host.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn below_root(self, hierarchies: &Hierarchies) -> Result<Self> {
        if hierarchies
            .mounts()
            .any(|mount| self.memory().is_ok_and(|own| own == mount))
        {
            return Err(KernelError::Unsupported(
                "the root control group is the whole host and no container".to_owned(),
            ));
        }
        Ok(self)
    }

    /// The directory that counts memory.
    ///
    /// # Errors
    /// `Unsupported` when the host has no memory controller.
    pub fn memory(&self) -> Result<&Path> {
        self.controller("memory")
            .ok_or_else(|| KernelError::Unsupported("the host has no memory controller".to_owned()))
    }
}

impl Version {
    /// 1 or 2.
    pub fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// How well a directory's name fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    /// It begins with what was given.
    Begins,
    /// It is the whole id.
    Whole,
}

/// Whether a directory is named after a container: `ID` as engines do it themselves, `ENGINE-ID.scope` as they have it
/// done by systemd. Podman's and CRI-O's monitor of a container has a scope too, which is not the container's.
fn matches(name: &str, id: &str) -> Option<Match> {
    /// Shorter ones fit by chance.
    const LEAST_DIGITS: usize = 4;
    if id.is_empty() {
        return None;
    }
    let own = match name.strip_suffix(".scope") {
        None => name,
        Some(unit) if unit.contains("-conmon-") => return None,
        // An id may hold a minus too.
        Some(unit)
            if unit
                .strip_suffix(id)
                .is_some_and(|rest| rest.ends_with('-')) =>
        {
            id
        }
        Some(unit) => unit.rsplit('-').next().unwrap_or(unit),
    };
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    if own == id {
        Some(Match::Whole)
    } else if id.len() >= LEAST_DIGITS && own.len() == 64 && is_hex(own) && own.starts_with(id) {
        Some(Match::Begins)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_named_as_engines_do_it() {
        let id = "0123456789abcdef".repeat(4);
        for name in [
            id.clone(),
            format!("docker-{id}.scope"),
            format!("cri-containerd-{id}.scope"),
        ] {
            assert_eq!(matches(&name, &id), Some(Match::Whole), "{name}");
            assert_eq!(matches(&name, "01234567"), Some(Match::Begins), "{name}");
            assert_eq!(matches(&name, "012"), None, "{name}");
            assert_eq!(matches(&name, "12345"), None, "{name}");
        }
        assert_eq!(matches(&format!("crio-conmon-{id}.scope"), &id), None);
        assert_eq!(matches("my-function", "my-function"), Some(Match::Whole));
        assert_eq!(
            matches("elastic-mem-my-function.scope", "my-function"),
            Some(Match::Whole)
        );
        assert_eq!(matches("other-my-function", "my-function"), None);
        assert_eq!(matches("system.slice", "system"), None);
    }

    #[test]
    fn the_root_and_what_is_not_there_are_no_containers() {
        let hierarchies = Hierarchies::probe().unwrap();
        assert!(Cgroup::at(&hierarchies, Path::new("/no/such/group")).is_err());
        assert!(Cgroup::at(&hierarchies, Path::new("/")).is_err());
        assert!(
            Cgroup::named_after(&hierarchies, "no-such-container")
                .unwrap()
                .is_empty()
        );
    }
}
