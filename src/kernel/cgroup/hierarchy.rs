//! Which cgroup hierarchies the host has and where they are mounted.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Cgroup, Directory};
use crate::kernel::{KernelError, Result, read_text};

const ROOT: &str = "/sys/fs/cgroup";
const CGROUP2_SUPER_MAGIC: libc::c_long = 0x6367_7270;

/// The cgroup version that holds the resource controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One hierarchy for each controller; a v2 hierarchy may stand beside them (hybrid layout).
    V1,
    /// One hierarchy for all.
    V2,
}

/// The hierarchies of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    /// The version that holds the resource controllers.
    pub version: Version,
    /// Controllers and mount point of each hierarchy.
    mounts: Vec<Directory>,
}

impl Hierarchies {
    /// Looks at the host.
    ///
    /// # Errors
    /// `Unsupported` when no cgroup file system is mounted.
    pub fn probe() -> Result<Self> {
        let fs = nix::sys::statfs::statfs(ROOT)
            .map_err(|err| KernelError::io("look for control groups at", ROOT, err.into()))?;
        if fs.filesystem_type().0 == CGROUP2_SUPER_MAGIC {
            return Ok(Self {
                version: Version::V2,
                mounts: vec![Directory {
                    controllers: String::new(),
                    path: PathBuf::from(ROOT),
                }],
            });
        }
        let mounts = parse_mounts(&read_text(Path::new("/proc/self/mountinfo"))?);
        if mounts.iter().all(|mount| mount.controllers.is_empty()) {
            return Err(KernelError::Unsupported(format!(
                "no cgroup file system is mounted under {ROOT}"
            )));
        }
        Ok(Self {
            version: Version::V1,
            mounts,
        })
    }

    /// Where the hierarchies are mounted.
    pub(super) fn mounts(&self) -> impl Iterator<Item = &Path> {
        self.mounts.iter().map(|mount| mount.path.as_path())
    }

    /// Turns the text of `/proc/PID/cgroup` into directories, with `place` choosing each path in its hierarchy.
    pub(super) fn resolve(&self, text: &str, place: impl Fn(&Path) -> PathBuf) -> Cgroup {
        // In the order of the mounts, which is the order in which people read them.
        let directories = self
            .mounts
            .iter()
            .filter_map(|mount| {
                let (controllers, own) = text.lines().find_map(|line| {
                    let (controllers, own) = line.split_once(':')?.1.split_once(':')?;
                    same_hierarchy(&mount.controllers, controllers).then_some((controllers, own))
                })?;
                let path = place(Path::new(own));
                let inside = path.strip_prefix("/").unwrap_or(&path);
                Some(Directory {
                    controllers: controllers.to_owned(),
                    path: mount.path.join(inside),
                })
            })
            .collect();
        Cgroup {
            version: self.version,
            directories,
        }
    }
}

/// The two files may list the controllers of one hierarchy in different orders.
fn same_hierarchy(a: &str, b: &str) -> bool {
    a == b
        || (!a.is_empty()
            && a.split(',')
                .all(|name| b.split(',').any(|other| other == name)))
}

/// The cgroup file systems of a mountinfo text (proc_pid_mountinfo(5)), each hierarchy once.
fn parse_mounts(mountinfo: &str) -> Vec<Directory> {
    let mut mounts: Vec<Directory> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut right = right.split(' ');
        let (Some(kind), Some(options)) = (right.next(), right.nth(1)) else {
            continue;
        };
        let Some(point) = left.split(' ').nth(4) else {
            continue;
        };
        let controllers = match kind {
            "cgroup" => options
                .split(',')
                .filter(|option| {
                    !matches!(
                        *option,
                        "rw" | "ro"
                            | "xattr"
                            | "clone_children"
                            | "noprefix"
                            | "all"
                            | "none"
                            | "favordynmods"
                            | "cpuset_v2_mode"
                    ) && !option.starts_with("release_agent=")
                })
                .collect::<Vec<_>>()
                .join(","),
            "cgroup2" => String::new(),
            _ => continue,
        };
        if mounts.iter().all(|mount| mount.controllers != controllers) {
            mounts.push(Directory {
                controllers,
                path: PathBuf::from(unescape(point)),
            });
        }
    }
    mounts
}

/// Undoes the octal escapes of blanks, tabs, newlines and backslashes in mountinfo.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 31 0:32 / /mnt/again rw,relatime - cgroup cgroup rw,memory";

    fn hybrid() -> Hierarchies {
        Hierarchies {
            version: Version::V1,
            mounts: parse_mounts(HYBRID),
        }
    }

    #[test]
    fn every_hierarchy_is_found_once() {
        let names: Vec<_> = hybrid().mounts.into_iter().map(|m| m.controllers).collect();
        assert_eq!(names, ["cpu,cpuacct", "memory", "name=systemd", ""]);
    }

    #[test]
    fn controllers_in_another_order_are_the_same_hierarchy() {
        let cgroup = hybrid().resolve("4:cpuacct,cpu:/a\n3:memory:/b\n0::/c", Path::to_path_buf);
        let paths: Vec<_> = cgroup.directories.iter().map(|d| d.path.clone()).collect();
        assert_eq!(
            paths,
            [
                Path::new("/sys/fs/cgroup/cpu,cpuacct/a"),
                Path::new("/sys/fs/cgroup/memory/b"),
                Path::new("/sys/fs/cgroup/unified/c"),
            ]
        );
        assert_eq!(cgroup.controller("cpuacct"), Some(paths[0].as_path()));
        assert_eq!(cgroup.controller("pids"), None);
    }
}
