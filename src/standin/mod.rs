//! Stands in for runc and for runc's shim under their names, where an engine can be told of no other runtime: faasd.
//!
//! A link named `containerd-shim-runc-v2` (or `runc`) that leads to this program lies first in the PATH of containerd.
//! Containers of the namespaces of `stand-in.namespaces` are ours then. Every other call goes to the real program, which
//! is found in PATH past this one: it is executed in place of this process, with the same arguments and streams. A
//! container stays with whoever made it. Whatever is not understood goes to the real program too: a call that fails here
//! is one that somebody else's container needs.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::config::{Config, main_file};
use crate::control::Folder;
use crate::kernel::{exe, process, reason};
use crate::model::ContainerId;
use crate::runtime::Store;

/// The name of runc's shim.
pub const SHIM: &str = "containerd-shim-runc-v2";
/// The name of runc.
const RUNTIME: &str = "runc";

/// What the real program is told of the files that this process was: `PID DEVICE:INODE ...`.
const VISITED: &str = "ELASTIC_MEM_STAND_IN";
/// Files that runc's shim leaves in a bundle (containerd, `cmd/containerd-shim-runc-v2/runc`).
const TRACES_OF_SHIM: [&str; 2] = ["options.json", "runtime"];
/// Where programs are when no PATH says so (execvp(3), and where runc lies).
const USUAL: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who has made a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    Ours,
    Theirs,
    /// There is none yet, or none any more.
    Nobody,
}

/// Executes runc's shim in place of this process, unless the call is about a container of ours. Returns if it is.
///
/// # Errors
/// When there is no real shim, and no namespace of ours is meant.
pub fn shim(words: &[OsString]) -> Result<(), String> {
    let call = ShimCall::of(words);
    if call.serves {
        // Only `start` of ours calls like this: the real one calls itself by its path.
        return Ok(());
    }
    let namespace = call.namespace.as_deref();
    let maker = match (&call.bundle_of, namespace) {
        (Some((id, bundle)), Some(namespace)) => shim_maker(namespace, id, bundle),
        _ => Maker::Nobody,
    };
    decide(SHIM, namespace, maker, words)
}

/// Whether this process was called as `runc` through PATH. Who names a path wants the program that is there.
pub fn is_runtime() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|word| word == RUNTIME)
}

/// The same for runc.
///
/// # Errors
/// As [`shim`].
pub fn runtime(words: &[OsString]) -> Result<(), String> {
    let root = flag(words, "root").map(PathBuf::from);
    let namespace = root.as_deref().and_then(Path::file_name);
    let maker = root
        .as_deref()
        .map_or(Maker::Nobody, |root| runtime_maker(root, words));
    decide(RUNTIME, namespace.and_then(OsStr::to_str), maker, words)
}

fn decide(
    name: &str,
    namespace: Option<&str>,
    maker: Maker,
    words: &[OsString],
) -> Result<(), String> {
    let listed = || {
        let config = Config::load(&main_file(None)).unwrap_or_default();
        config.stand_in_namespaces.value
    };
    if is_ours(namespace, maker, listed) {
        return Ok(());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| USUAL.into());
    // containerd looks into its own folder too.
    let beside = process::executable(std::os::unix::process::parent_id().cast_signed());
    let beside = beside
        .ok()
        .and_then(|program| Some(program.parent()?.to_path_buf()));
    let own = Identity::of(Path::new(exe::SELF));
    let visited: Vec<Identity> = visited().into_iter().chain(own).collect();
    let folders = std::env::split_paths(&path).chain(beside);
    match (find(name, folders, &visited), namespace) {
        (Some(real), _) => Err(execute(&real, words, &visited)),
        // Nobody asks for a container: what this program says of itself.
        (None, None) => Ok(()),
        (None, Some(namespace)) => Err(format!(
            "namespace {namespace} is not one of stand-in.namespaces, and there is no {name} besides this program to hand \
             over to (looked in {}): install runc, or add the namespace",
            Path::new(&path).display()
        )),
    }
}

fn is_ours(namespace: Option<&str>, maker: Maker, listed: impl FnOnce() -> Vec<String>) -> bool {
    match (maker, namespace) {
        (Maker::Ours, _) => true,
        (Maker::Theirs, _) | (Maker::Nobody, None) => false,
        (Maker::Nobody, Some(namespace)) => listed().iter().any(|listed| listed == namespace),
    }
}

/// What of the command line of a shim counts here. Flags that nobody knows are no error.
#[derive(Debug, PartialEq, Eq)]
struct ShimCall {
    namespace: Option<String>,
    /// The container that is to be cleaned up, and its bundle.
    bundle_of: Option<(String, PathBuf)>,
    /// Whether it is called to serve: without an action.
    serves: bool,
}

impl ShimCall {
    fn of(words: &[OsString]) -> Self {
        let has = |word: &str| words.iter().any(|found| found == word);
        let namespace = flag(words, "namespace").filter(|text| !text.is_empty());
        let bundle_of = flag(words, "id").filter(|_| has("delete")).map(|id| {
            // containerd calls from the bundle folder.
            let bundle = flag(words, "bundle").unwrap_or_else(|| ".".to_owned());
            (id, PathBuf::from(bundle))
        });
        Self {
            serves: namespace.is_some() && !has("start") && !has("delete"),
            namespace,
            bundle_of,
        }
    }
}

/// The value of a flag: `-NAME VALUE`, `--NAME VALUE` or with `=`.
fn flag(words: &[OsString], name: &str) -> Option<String> {
    let mut words = words.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let Some(rest) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            continue;
        };
        if rest == name {
            return words.next().map(std::borrow::Cow::into_owned);
        }
        if let Some(value) = rest
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='))
        {
            return Some(value.to_owned());
        }
    }
    None
}

fn shim_maker(namespace: &str, id: &str, bundle: &Path) -> Maker {
    if Folder::of(namespace, id).read().is_some() {
        Maker::Ours
    } else if TRACES_OF_SHIM.iter().any(|file| bundle.join(file).exists()) {
        Maker::Theirs
    } else {
        Maker::Nobody
    }
}

/// The first word that names something in the state folder is the container: the values of options are paths.
fn runtime_maker(root: &Path, words: &[OsString]) -> Maker {
    let ids = words
        .iter()
        .filter_map(|word| word.to_str()?.parse::<ContainerId>().ok());
    let mut there = ids.filter(|id| root.join(id).is_dir());
    match there.next() {
        None => Maker::Nobody,
        Some(id) if Store::new(root).load(&id).is_ok() => Maker::Ours,
        Some(_) => Maker::Theirs,
    }
}

/// Names a file, whatever links lead to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
        })
    }
}

/// The first executable of the name that is none of the visited files.
fn find(
    name: &str,
    folders: impl Iterator<Item = PathBuf>,
    visited: &[Identity],
) -> Option<PathBuf> {
    folders
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|path| {
            path.is_file()
                && process::check_may_execute(path).is_ok()
                && Identity::of(path).is_some_and(|found| !visited.contains(&found))
        })
}

/// The files that this very process was before: copies of this program, each of which looked for the real one.
fn visited() -> Vec<Identity> {
    let text = std::env::var(VISITED).unwrap_or_default();
    let mut words = text.split(' ');
    // Children of a process that was handed over have the variable too; it says nothing of them.
    if words.next() != Some(std::process::id().to_string().as_str()) {
        return Vec::new();
    }
    let pairs = words.filter_map(|word| word.split_once(':'));
    pairs
        .filter_map(|(device, inode)| {
            Some(Identity {
                device: device.parse().ok()?,
                inode: inode.parse().ok()?,
            })
        })
        .collect()
}

/// Returns only if it fails, with the reason.
fn execute(real: &Path, words: &[OsString], visited: &[Identity]) -> String {
    let mut mark = std::process::id().to_string();
    for Identity { device, inode } in visited {
        mark.push_str(&format!(" {device}:{inode}"));
    }
    let err = Command::new(real).args(words).env(VISITED, mark).exec();
    format!("hand over to {}: {}", real.display(), reason(&err))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::cgroup::{Cgroup, Version};
    use crate::runtime::State;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(Into::into).collect()
    }

    #[test]
    fn a_container_stays_with_whoever_made_it_and_new_ones_go_by_their_namespace() {
        let listed = || vec!["openfaas-fn".to_owned()];
        for (namespace, maker, is) in [
            (Some("openfaas-fn"), Maker::Nobody, true),
            (Some("openfaas"), Maker::Nobody, false),
            (Some("openfaas-fn2"), Maker::Nobody, false),
            (Some("openfaas-fn"), Maker::Theirs, false),
            (Some("openfaas"), Maker::Ours, true),
            (None, Maker::Nobody, false),
        ] {
            assert_eq!(
                is_ours(namespace, maker, listed),
                is,
                "{namespace:?} {maker:?}"
            );
        }
    }

    #[test]
    fn calls_of_shims_are_understood_with_flags_of_the_future() {
        let call = |line: &str| ShimCall::of(&words(line));
        let start = call("-namespace openfaas-fn -new-flag x -id a -bundle /b start");
        assert_eq!(start.namespace.as_deref(), Some("openfaas-fn"));
        assert_eq!((start.bundle_of, start.serves), (None, false));
        let delete = call("--namespace=n -id=a delete");
        assert_eq!(delete.bundle_of, Some(("a".to_owned(), ".".into())));
        assert!(call("-namespace n -id a -address /s").serves);
        for line in ["-v", "-info", "-namespace"] {
            let call = call(line);
            assert_eq!((call.namespace, call.serves), (None, false), "{line}");
        }
    }

    #[test]
    fn who_made_a_container_of_runc_is_seen_in_the_state_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let id: ContainerId = "ours".parse().unwrap();
        let cgroup = Cgroup {
            version: Version::V2,
            directories: Vec::new(),
        };
        let folder = Store::new(root).reserve(&id).unwrap();
        let state = State::new(&id, Path::new("/b"), Path::new("/r"), cgroup);
        folder.save(&state).unwrap();
        std::fs::create_dir(root.join("theirs")).unwrap();
        std::fs::write(
            root.join("theirs/state.json"),
            "{\"id\":\"theirs\",\"config\":{}}",
        )
        .unwrap();
        for (line, maker) in [
            ("--root R --log /x/ours delete --force ours", Maker::Ours),
            ("kill theirs 15", Maker::Theirs),
            ("exec --process /p --pid-file /f theirs ours", Maker::Theirs),
            ("create --bundle /b new", Maker::Nobody),
        ] {
            assert_eq!(runtime_maker(root, &words(line)), maker, "{line}");
        }
    }

    #[test]
    fn who_made_a_container_of_a_shim_is_seen_in_the_bundle() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(shim_maker("no-such", "a", dir.path()), Maker::Nobody);
        std::fs::write(dir.path().join("options.json"), "{}").unwrap();
        assert_eq!(shim_maker("no-such", "a", dir.path()), Maker::Theirs);
    }

    #[test]
    fn the_real_program_is_found_past_links_and_copies() {
        let dir = tempfile::tempdir().unwrap();
        let put = |folder: &str| {
            let folder = dir.path().join(folder);
            std::fs::create_dir(&folder).unwrap();
            folder
        };
        let (link, copy, real) = (put("link"), put("copy"), put("real"));
        let program = dir.path().join("program");
        std::fs::copy("/bin/true", &program).unwrap();
        std::os::unix::fs::symlink(&program, link.join("runc")).unwrap();
        std::fs::copy("/bin/true", copy.join("runc")).unwrap();
        std::fs::copy("/bin/true", real.join("runc")).unwrap();
        let own = Identity::of(&program).unwrap();
        let folders = || [link.clone(), "relative".into(), copy.clone(), real.clone()].into_iter();
        let first = find("runc", folders(), &[own]);
        assert_eq!(first, Some(copy.join("runc")));
        let second = Identity::of(&copy.join("runc")).unwrap();
        let found = find("runc", folders(), &[own, second]);
        assert_eq!(found, Some(real.join("runc")));
        let third = Identity::of(&real.join("runc")).unwrap();
        assert_eq!(find("runc", folders(), &[own, second, third]), None);
    }
}
