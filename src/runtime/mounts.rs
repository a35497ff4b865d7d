//! The mounts of a bundle, made ready for libcontainer.
//!
//! What libcontainer would do differently from every other runtime is settled here, before it begins: links
//! in a target, the mode of a tmpfs, targets inside /proc, and the cgroup file systems of cgroup v1, which it
//! would mount writable.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nix::mount::MsFlags;
use serde_json::{Value, json};

use super::error::{Result, RuntimeError};
use crate::kernel::cgroup::{Cgroup, Version};

/// Files of /proc that a container engine may cover; everything else there describes the process itself.
const COVERABLE: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Mounts for libcontainer, and what is left to us.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// In the order of the bundle.
    pub(super) list: Vec<Value>,
    /// Links to make below the cgroup mount: name and target.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
    /// A bind mount of a ready-made /dev, made last: libcontainer cannot live with nodes that exist.
    pub(super) dev: Option<PathBuf>,
    /// Propagation to set once all mounts are made: libcontainer leaves it out.
    pub(super) propagation: Vec<(PathBuf, MsFlags)>,
}

/// Prepares the mounts of a bundle.
///
/// # Errors
/// `InvalidSpec` or `Unsupported`, naming the mount.
pub(super) fn prepare(config: &Value, rootfs: &Path, cgroup: &Cgroup) -> Result<Mounts> {
    let mut out = Mounts::default();
    let list = match config.get("mounts") {
        None | Some(Value::Null) => return Ok(out),
        Some(list) => list.as_array(),
    };
    let list =
        list.ok_or_else(|| RuntimeError::InvalidSpec("mounts is not an array".to_owned()))?;
    for mount in list {
        prepare_one(mount, rootfs, cgroup, &mut out)?;
    }
    Ok(out)
}

fn prepare_one(mount: &Value, rootfs: &Path, cgroup: &Cgroup, out: &mut Mounts) -> Result<()> {
    let mut mount = mount.clone();
    let destination = mount
        .get("destination")
        .and_then(Value::as_str)
        .ok_or_else(|| RuntimeError::InvalidSpec("a mount has no destination".to_owned()))?
        .to_owned();
    let kind = mount
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    refuse_unsupported(&mount, &destination)?;
    let target = resolve(rootfs, Path::new(&destination));
    check_proc(&mount, &kind, &target)?;
    if let Some(fields) = mount.as_object_mut() {
        fields.insert("destination".to_owned(), json!(target));
    }
    let own = options(&mount).filter_map(propagation);
    out.propagation
        .extend(own.map(|flags| (target.clone(), flags)));
    if kind == "tmpfs" {
        keep_mode(&mut mount, rootfs, &target);
    }
    if kind == "cgroup" && cgroup.version == Version::V1 {
        cgroup_v1(&mount, &target, cgroup, out);
        return Ok(());
    }
    if is_bind(&mount) {
        check_kinds(&mount, rootfs, &target, &out.list)?;
    }
    if is_bind(&mount) && target == Path::new("/dev") {
        out.dev = mount
            .get("source")
            .and_then(Value::as_str)
            .map(PathBuf::from);
        // In its place until then, for the nodes that libcontainer makes.
        mount = json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]});
    }
    out.list.push(mount);
    Ok(())
}

fn options(mount: &Value) -> impl Iterator<Item = &str> {
    mount
        .get("options")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn propagation(option: &str) -> Option<MsFlags> {
    let (name, recursive) = match option.strip_prefix('r') {
        Some(name) => (name, MsFlags::MS_REC),
        None => (option, MsFlags::empty()),
    };
    let kind = match name {
        "shared" => MsFlags::MS_SHARED,
        "slave" => MsFlags::MS_SLAVE,
        "private" => MsFlags::MS_PRIVATE,
        "unbindable" => MsFlags::MS_UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

fn is_bind(mount: &Value) -> bool {
    mount.get("type").and_then(Value::as_str) == Some("bind")
        || options(mount).any(|option| matches!(option, "bind" | "rbind"))
}

/// Refuses to bind a file over a folder or the reverse, in the words that callers match on.
///
/// What an earlier mount of the container covers cannot be seen yet and is left to the kernel.
fn check_kinds(mount: &Value, rootfs: &Path, target: &Path, earlier: &[Value]) -> Result<()> {
    let destination = |mount: &Value| Some(PathBuf::from(mount.get("destination")?.as_str()?));
    let is_covered = earlier
        .iter()
        .filter_map(destination)
        .any(|above| target.starts_with(above));
    let Some(source) = mount.get("source").and_then(Value::as_str) else {
        return Ok(());
    };
    let inside = rootfs.join(target.strip_prefix("/").unwrap_or(target));
    if is_covered || !Path::new(source).is_absolute() {
        return Ok(());
    }
    match (std::fs::metadata(source), std::fs::symlink_metadata(inside)) {
        (Ok(source_is), Ok(target_is)) if source_is.is_dir() != target_is.is_dir() => {
            let target = target.display();
            Err(RuntimeError::InvalidSpec(format!(
                "error mounting {source:?} to rootfs at \"{target}\": mount {source}:{target}: not a directory"
            )))
        }
        _ => Ok(()),
    }
}

fn refuse_unsupported(mount: &Value, destination: &str) -> Result<()> {
    let refuse = |what: &str| {
        Err(RuntimeError::Unsupported(format!(
            "mount {destination}: {what} not supported"
        )))
    };
    let mapped = ["uidMappings", "gidMappings"].iter().any(|key| {
        mount
            .get(key)
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty())
    });
    if mapped || options(mount).any(|option| matches!(option, "idmap" | "ridmap")) {
        return refuse("idmapped mounts are");
    }
    if options(mount).any(|option| option == "tmpcopyup") {
        return refuse("tmpcopyup is");
    }
    Ok(())
}

/// Where a target is inside the root file system once links are followed; what does not exist yet stays.
///
/// Nobody changes the root file system meanwhile; libcontainer resolves the result again, safely.
fn resolve(rootfs: &Path, destination: &Path) -> PathBuf {
    /// As many links as the kernel follows (path_resolution(7)).
    const MOST_LINKS: usize = 40;
    let mut links = 0;
    let mut inside = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = names(destination).collect();
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            inside.pop();
            continue;
        }
        let found = rootfs
            .join(inside.strip_prefix("/").unwrap_or(&inside))
            .join(&name);
        match std::fs::read_link(found) {
            Ok(link) if links < MOST_LINKS => {
                links = links.saturating_add(1);
                if link.is_absolute() {
                    inside = PathBuf::from("/");
                }
                for name in names(&link).collect::<Vec<_>>().into_iter().rev() {
                    rest.push_front(name);
                }
            }
            _ => inside.push(name),
        }
    }
    inside
}

/// The names of a path, `..` included.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// A mount over a file of /proc could make the runtime act on what the container chooses (CVE-2019-16884).
fn check_proc(mount: &Value, kind: &str, target: &Path) -> Result<()> {
    let Ok(inside) = target.strip_prefix("/proc") else {
        return Ok(());
    };
    if inside.as_os_str().is_empty() {
        let is_proc = kind == "proc"
            || (is_bind(mount)
                && mount
                    .get("source")
                    .and_then(Value::as_str)
                    .is_some_and(|source| crate::kernel::process::is_procfs(Path::new(source))));
        return if is_proc {
            Ok(())
        } else {
            Err(RuntimeError::InvalidSpec(format!(
                "{:?} cannot be mounted because it is not of type proc",
                target.display()
            )))
        };
    }
    if COVERABLE.iter().any(|path| Path::new(path) == target) {
        return Ok(());
    }
    Err(RuntimeError::InvalidSpec(format!(
        "\"{}\" cannot be mounted because it is inside /proc",
        target.display()
    )))
}

/// A tmpfs without a mode takes over that of the folder it covers.
fn keep_mode(mount: &mut Value, rootfs: &Path, target: &Path) {
    if options(mount).any(|option| option.starts_with("mode=")) {
        return;
    }
    let covered = rootfs.join(target.strip_prefix("/").unwrap_or(target));
    let Ok(meta) = std::fs::symlink_metadata(covered) else {
        return;
    };
    let mode = meta.permissions().mode() & 0o7777;
    let Some(fields) = mount.as_object_mut() else {
        return;
    };
    let options = fields.entry("options").or_insert_with(|| json!([]));
    if options.is_null() {
        *options = json!([]);
    }
    if let Some(options) = options.as_array_mut() {
        options.push(json!(format!("mode={mode:o}")));
    }
}

/// The cgroup mount of a v1 host: a tmpfs with one bind mount of the container's own group per hierarchy.
fn cgroup_v1(mount: &Value, target: &Path, cgroup: &Cgroup, out: &mut Mounts) {
    out.list.push(json!({
        "destination": target,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "noexec", "nodev", "mode=755"],
    }));
    let mut flags: Vec<&str> = vec!["bind", "nosuid", "noexec", "nodev", "relatime"];
    if options(mount).any(|option| option == "ro") {
        flags.push("ro");
    }
    for dir in &cgroup.directories {
        let name = match dir.controllers.as_str() {
            // The v2 hierarchy beside v1 has no place in the classic layout.
            "" => continue,
            controllers => controllers.trim_start_matches("name="),
        };
        out.list.push(json!({
            "destination": target.join(name),
            "type": "bind",
            "source": dir.path,
            "options": flags,
        }));
        if name.contains(',') {
            out.links.extend(
                name.split(',')
                    .map(|controller| (target.join(controller), PathBuf::from(name))),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::cgroup::Directory;
    use std::os::unix::fs::symlink;

    fn cgroup() -> Cgroup {
        let dir = |controllers: &str, path: &str| Directory {
            controllers: controllers.to_owned(),
            path: PathBuf::from(path),
        };
        Cgroup {
            version: Version::V1,
            directories: vec![
                dir("cpu,cpuacct", "/c/cpu/x"),
                dir("name=systemd", "/c/systemd/x"),
                dir("", "/c/unified/x"),
            ],
        }
    }

    fn one(mount: Value, rootfs: &Path) -> Result<Mounts> {
        prepare(&json!({"mounts": [mount]}), rootfs, &cgroup())
    }

    #[test]
    fn links_in_a_target_are_followed_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("run")).unwrap();
        std::fs::create_dir(root.join("var")).unwrap();
        symlink("/run", root.join("var/run")).unwrap();
        symlink("../../../etc", root.join("up")).unwrap();
        let at = |path: &str| resolve(&root, Path::new(path));
        assert_eq!(at("/var/run"), Path::new("/run"));
        assert_eq!(at("/var/run/secrets/a"), Path::new("/run/secrets/a"));
        assert_eq!(at("/none/../b"), Path::new("/b"));
        assert_eq!(at("/up/a"), Path::new("/etc/a"));
        symlink("/none/yet", root.join("dangling")).unwrap();
        assert_eq!(at("/dangling/a"), Path::new("/none/yet/a"));
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(at("/loop"), Path::new("/loop"));
    }

    #[test]
    fn nothing_is_mounted_inside_proc_but_what_engines_cover() {
        let root = tempfile::tempdir().unwrap();
        let bind = |target: &str| json!({"destination": target, "type": "bind", "source": "/etc", "options": ["bind"]});
        for bad in ["/proc/self", "/proc/../proc/sys/kernel", "/proc"] {
            let err = one(bind(bad), root.path()).unwrap_err().to_string();
            assert!(err.contains("cannot be mounted"), "{bad}: {err}");
        }
        one(bind("/proc/meminfo"), root.path()).unwrap();
        one(
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            root.path(),
        )
        .unwrap();
    }

    #[test]
    fn a_file_is_not_bound_over_a_folder() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/x")).unwrap();
        let bind = |to: &str| json!({"type": "bind", "source": "/etc/passwd", "destination": to});
        let err = one(bind("/etc"), root.path()).unwrap_err().to_string();
        assert!(err.contains("not a directory"), "{err}");
        assert!(one(bind("/etc/passwd"), root.path()).is_ok());
        // A mount above it decides what is there.
        let mounts = json!({"mounts": [{"type": "tmpfs", "destination": "/etc"}, bind("/etc/x")]});
        assert!(prepare(&mounts, root.path(), &cgroup()).is_ok());
    }

    #[test]
    fn a_tmpfs_keeps_the_mode_of_what_it_covers() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("d")).unwrap();
        std::fs::set_permissions(
            root.path().join("d"),
            std::fs::Permissions::from_mode(0o1710),
        )
        .unwrap();
        let mounts = one(
            json!({"destination": "/d", "type": "tmpfs", "source": "x"}),
            root.path(),
        )
        .unwrap();
        assert_eq!(mounts.list[0]["options"], json!(["mode=1710"]));
        let given =
            json!({"destination": "/d", "type": "tmpfs", "source": "x", "options": ["mode=700"]});
        assert_eq!(
            one(given, root.path()).unwrap().list[0]["options"],
            json!(["mode=700"])
        );
    }

    #[test]
    fn a_readonly_cgroup_mount_is_readonly_in_every_hierarchy() {
        let root = tempfile::tempdir().unwrap();
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]});
        let mounts = one(mount, root.path()).unwrap();
        let binds = &mounts.list[1..];
        assert_eq!(binds.len(), 2, "{binds:?}");
        for bind in binds {
            assert!(options(bind).any(|option| option == "ro"), "{bind}");
        }
        assert_eq!(mounts.links.len(), 2);
    }

    #[test]
    fn propagation_options_are_told_from_others_that_begin_alike() {
        assert_eq!(
            propagation("rshared"),
            Some(MsFlags::MS_SHARED | MsFlags::MS_REC)
        );
        assert_eq!(propagation("unbindable"), Some(MsFlags::MS_UNBINDABLE));
        for other in ["ro", "rw", "rbind", "relatime", "rprivat"] {
            assert_eq!(propagation(other), None, "{other}");
        }
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for option in ["idmap", "tmpcopyup"] {
            let mount = json!({"destination": "/m", "type": "bind", "source": "/etc", "options": ["bind", option]});
            assert!(matches!(
                one(mount, root.path()),
                Err(RuntimeError::Unsupported(_))
            ));
        }
    }
}
