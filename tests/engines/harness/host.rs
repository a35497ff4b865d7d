//! What the host offers: the programs, the daemons and the privileges.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::Cmd;

/// The name containerd looks for when asked for `io.containerd.elastic-mem.v1`.
pub const SHIM: &str = "containerd-shim-elastic-mem-v1";

/// The command under test.
///
/// # Panics
/// When neither `ELASTIC_MEM_BIN` nor cargo names one.
pub fn our_program() -> PathBuf {
    let path = std::env::var_os("ELASTIC_MEM_BIN")
        .map(PathBuf::from)
        .or_else(|| option_env!("CARGO_BIN_EXE_elastic-mem").map(PathBuf::from))
        .expect("ELASTIC_MEM_BIN must name the command under test");
    assert!(path.is_absolute(), "{} is not absolute", path.display());
    path
}

/// The oracle, if this machine has one.
pub fn runc_program() -> Option<PathBuf> {
    std::env::var_os("RUNC_BIN")
        .map(PathBuf::from)
        .or_else(|| find("runc"))
        .or_else(|| Some(engine("runc")?.join("usr/sbin/runc")))
}

/// Looks a program up in `PATH` and in the sbin directories, which are not in
/// the `PATH` of every CI user.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// The unpacked package of a daemon, if `scripts/engines` has been run.
pub fn engine(name: &str) -> Option<PathBuf> {
    let store = std::env::var_os("ELASTIC_MEM_ENGINES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/engines"),
        PathBuf::from,
    );
    let dir = store.join(name);
    dir.join(".stamp").is_file().then_some(dir)
}

/// Whether the command under test answers as a shim when it has a shim's name.
pub fn has_shim() -> bool {
    static ANSWER: LazyLock<bool> = LazyLock::new(|| {
        let dir = tempfile::tempdir().expect("directory");
        let shim = dir.path().join(SHIM);
        std::os::unix::fs::symlink(our_program(), &shim).expect("link");
        let outcome = Cmd::new(&shim).arg("-v").output();
        outcome.code == 0 && outcome.stdout.contains(SHIM)
    });
    *ANSWER
}

/// Why daemons cannot be run here at all, if so.
pub fn unfit() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("daemons with containers need root");
    }
    if find("busybox").is_none() {
        return Some("no static busybox to make an image of");
    }
    if runc_program().is_none() {
        return Some("no runc to compare with");
    }
    None
}
