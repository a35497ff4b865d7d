//! The root file system of a container, mounted from what a snapshotter prepared.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use containerd_shim_protos::types::mount::Mount;
use nix::mount::MsFlags;

use super::children::Children;
use super::error::{Result, ShimError};
use crate::kernel::{mount, reason};

/// mount(2) takes at most one page of options.
const MOST_DATA: usize = 4096 - 1;

/// Options of mount(8) that are flags, and whether they set (true) or clear them.
const FLAGS: [(&str, MsFlags, bool); 24] = [
    ("async", MsFlags::MS_SYNCHRONOUS, false),
    ("atime", MsFlags::MS_NOATIME, false),
    ("bind", MsFlags::MS_BIND, true),
    ("dev", MsFlags::MS_NODEV, false),
    ("diratime", MsFlags::MS_NODIRATIME, false),
    ("dirsync", MsFlags::MS_DIRSYNC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("mand", MsFlags::MS_MANDLOCK, true),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("nodev", MsFlags::MS_NODEV, true),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("nomand", MsFlags::MS_MANDLOCK, false),
    ("norelatime", MsFlags::MS_RELATIME, false),
    ("nostrictatime", MsFlags::MS_STRICTATIME, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("rbind", MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
    ("relatime", MsFlags::MS_RELATIME, true),
    ("remount", MsFlags::MS_REMOUNT, true),
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("strictatime", MsFlags::MS_STRICTATIME, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
];

#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    flags: MsFlags,
    data: Vec<String>,
    /// Needs a loop device.
    is_loop: bool,
}

fn parse(options: &[String]) -> Result<Parsed> {
    let mut parsed = Parsed {
        flags: MsFlags::empty(),
        data: Vec::new(),
        is_loop: false,
    };
    for option in options {
        match option.as_str() {
            "defaults" | "" => {}
            "loop" => parsed.is_loop = true,
            // Meant for containerd alone.
            other if other.starts_with("X-containerd.") => {}
            other if other.starts_with("uidmap=") || other.starts_with("gidmap=") => {
                return Err(ShimError::Unsupported(format!(
                    "mount option {other}: this runtime makes no idmapped root file systems"
                )));
            }
            other => match FLAGS.iter().find(|(name, ..)| *name == other) {
                Some((_, flag, true)) => parsed.flags.insert(*flag),
                Some((_, flag, false)) => parsed.flags.remove(*flag),
                None => parsed.data.push(other.to_owned()),
            },
        }
    }
    Ok(parsed)
}

/// Mounts everything at `target`, in order; if one mount fails, none stays.
///
/// # Errors
/// `Failed` with the mount and the kernel's reason, `Unsupported` for idmapped mounts.
pub(super) async fn mount_all(mounts: &[Mount], target: &Path, children: &Children) -> Result<()> {
    for request in mounts {
        if let Err(err) = mount_one(request, target, children).await {
            unmount(target);
            return Err(err);
        }
    }
    Ok(())
}

/// Unmounts what is at `target`; what cannot be unmounted is told in the log.
pub(super) fn unmount(target: &Path) {
    if let Err(err) = mount::unmount_all(target) {
        tracing::warn!(%err, path = %target.display(), "not unmounted");
    }
}

async fn mount_one(request: &Mount, root: &Path, children: &Children) -> Result<()> {
    let inside = request.target.trim_start_matches('/');
    let target = if inside.is_empty() {
        root.to_path_buf()
    } else {
        root.join(inside)
    };
    let fail = |err: io::Error| {
        ShimError::Failed(format!(
            "failed to mount rootfs component: mount {} of type {:?} at {}: {}",
            request.source,
            request.type_,
            target.display(),
            reason(&err)
        ))
    };
    let parsed = parse(&request.options)?;
    if parsed.is_loop || request.type_.starts_with("fuse") {
        return mount_by_command(request, &target, children).await;
    }
    mount_by_kernel(request, parsed, &target).map_err(fail)
}

fn mount_by_kernel(request: &Mount, parsed: Parsed, target: &Path) -> io::Result<()> {
    let Parsed { flags, data, .. } = parsed;
    let mut data = data.join(",");
    let back = if data.len() > MOST_DATA && request.type_ == "overlay" {
        let (base, shorter) = shorten_lower_dirs(&data).unwrap_or_default();
        if shorter.is_empty() {
            None
        } else {
            data = shorter;
            Some(WorkingFolder::enter(&base)?)
        }
    } else {
        None
    };
    if data.len() > MOST_DATA {
        return Err(io::Error::other("mount options are too long"));
    }
    let none = None::<&str>;
    let kind = Some(request.type_.as_str());
    nix::mount::mount(
        Some(request.source.as_str()),
        target,
        kind,
        flags,
        Some(data.as_str()),
    )?;
    drop(back);
    // A bind mount ignores every other flag at first (mount(2)).
    if flags.contains(MsFlags::MS_BIND) && !(flags - MsFlags::MS_BIND - MsFlags::MS_REC).is_empty()
    {
        nix::mount::mount(none, target, none, flags | MsFlags::MS_REMOUNT, none)?;
    }
    Ok(())
}

/// The working folder while relative paths are mounted. Nothing else runs meanwhile: no await lies between.
struct WorkingFolder(std::os::fd::OwnedFd);

impl WorkingFolder {
    fn enter(path: &Path) -> io::Result<Self> {
        let before = std::fs::File::open(".")?;
        std::env::set_current_dir(path)?;
        Ok(Self(before.into()))
    }
}

impl Drop for WorkingFolder {
    fn drop(&mut self) {
        if let Err(err) = nix::unistd::fchdir(std::os::fd::AsRawFd::as_raw_fd(&self.0)) {
            tracing::error!(%err, "cannot go back to the working folder");
        }
    }
}

/// Options of an overlay with lower folders relative to their common folder, which is returned too.
fn shorten_lower_dirs(data: &str) -> Option<(PathBuf, String)> {
    let lower = data
        .split(',')
        .find_map(|option| option.strip_prefix("lowerdir="))?;
    let folders: Vec<&Path> = lower.split(':').map(Path::new).collect();
    let common = folders.iter().skip(1).fold(
        folders.first()?.parent()?.to_path_buf(),
        |common, folder| {
            common
                .components()
                .zip(folder.components())
                .take_while(|(a, b)| a == b)
                .map(|(part, _)| part)
                .collect()
        },
    );
    // At the root nothing gets shorter, and a folder equal to the common one would have no name left.
    if common.components().count() < 2 || folders.iter().any(|folder| *folder == common) {
        return None;
    }
    let relative: Option<Vec<&str>> = folders
        .iter()
        .map(|folder| folder.strip_prefix(&common).ok()?.to_str())
        .collect();
    let options: Vec<String> = data
        .split(',')
        .map(|option| match option.starts_with("lowerdir=") {
            true => format!(
                "lowerdir={}",
                relative.as_deref().unwrap_or_default().join(":")
            ),
            false => option.to_owned(),
        })
        .collect();
    relative.as_ref()?;
    Some((common, options.join(",")))
}

/// mount(8) sets up loop devices and finds the helpers of file systems in user space.
async fn mount_by_command(request: &Mount, target: &Path, children: &Children) -> Result<()> {
    let what = format!("mount {} at {}", request.source, target.display());
    let mut helper = {
        let mut command = Command::new("mount");
        command
            .args(["-t", &request.type_, &request.source])
            .arg(target);
        if !request.options.is_empty() {
            command.args(["-o", &request.options.join(",")]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        children
            .start(&mut command)
            .map_err(|err| ShimError::failed(&what, reason(&err)))?
    };
    match helper.ended().await {
        0 => Ok(()),
        code => Err(ShimError::Failed(format!(
            "{what}: mount(8) ended with exit code {code}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn flags_and_data_are_told_apart() {
        let parsed = parse(&options(
            "rbind,ro,rw,nosuid,index=off,X-containerd.a=b,defaults",
        ))
        .unwrap();
        assert_eq!(
            parsed.flags,
            MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_NOSUID
        );
        assert_eq!(parsed.data, ["index=off"]);
        assert!(parse(&options("uidmap=0:0:1")).is_err());
        assert!(parse(&options("loop")).unwrap().is_loop);
    }

    #[test]
    fn lower_folders_become_relative_to_their_common_folder() {
        let data =
            "workdir=/s/3/work,lowerdir=/s/snapshots/1/fs:/s/snapshots/2/fs,upperdir=/s/3/fs";
        let (base, shorter) = shorten_lower_dirs(data).unwrap();
        assert_eq!(base, Path::new("/s/snapshots"));
        assert_eq!(
            shorter,
            "workdir=/s/3/work,lowerdir=1/fs:2/fs,upperdir=/s/3/fs"
        );
        assert_eq!(shorten_lower_dirs("lowerdir=/a:/b"), None);
        assert_eq!(shorten_lower_dirs("upperdir=/a"), None);
    }
}
