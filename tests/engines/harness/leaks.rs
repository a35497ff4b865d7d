//! What containers and daemons must not leave behind.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use super::{cgroups, processes};

/// The mount points of the host whose line in the table contains `word`.
pub fn mounts(word: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    table
        .lines()
        .filter(|line| line.contains(word))
        .filter_map(|line| line.split(' ').nth(4))
        .map(str::to_owned)
        .collect()
}

/// The entries of a directory whose names start with `prefix`.
pub fn entries(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

/// The files and directories below `dir` whose names contain `word`.
pub fn named(dir: &Path, word: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(word) {
            found.push(entry.path());
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(named(&entry.path(), word));
        }
    }
    found
}

/// Whether somebody listens at the socket.
pub fn is_served(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Kills the daemon's descendants and the processes of its containers.
pub fn kill_processes(namespace: &str) {
    let group = format!("/{namespace}/");
    for _ in 0..200 {
        let left: Vec<_> = processes::all()
            .into_iter()
            .filter(|p| p.is_marked(namespace) || p.cgroups.contains(&group))
            .collect();
        if left.is_empty() {
            return;
        }
        kill_containers(namespace);
        for process in left {
            processes::signal(process.pid, Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Kills the processes of the daemon's containers.
pub fn kill_containers(namespace: &str) {
    for dir in cgroups::dirs(namespace) {
        cgroups::kill(&dir);
    }
}

/// Removes everything of a daemon whose own process has ended.
pub fn destroy(namespace: &str, dir: &Path) {
    kill_processes(namespace);
    for mount in mounts(&dir.to_string_lossy()).iter().rev() {
        let _ = umount2(mount.as_str(), MntFlags::MNT_DETACH);
    }
    for group in cgroups::dirs(namespace) {
        cgroups::remove_empty(&group);
    }
    for state in named(Path::new("/run/containerd/runc"), namespace) {
        let _ = fs::remove_dir_all(state);
    }
    // The folder of a namespace stays when its last container goes, as runc's does.
    let _ = fs::remove_dir_all(Path::new("/run/elastic-mem").join(namespace));
}
