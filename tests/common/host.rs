//! What the host offers: the two programs and the privileges.

use std::path::{Path, PathBuf};

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

/// The oracle, if this machine has one or `scripts/engines` has fetched it.
pub fn runc_program() -> Option<PathBuf> {
    std::env::var_os("RUNC_BIN")
        .map(PathBuf::from)
        .or_else(|| find("runc"))
        .or_else(|| Some(engine("runc")?.join("usr/sbin/runc")))
}

/// The unpacked package of an engine, if `scripts/engines` has been run.
pub fn engine(name: &str) -> Option<PathBuf> {
    let store = std::env::var_os("ELASTIC_MEM_ENGINES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/engines"),
        PathBuf::from,
    );
    let dir = store.join(name);
    dir.join(".stamp").is_file().then_some(dir)
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

/// Why containers cannot be made here at all, if so.
pub fn unfit() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("containers with these settings need root");
    }
    if find("busybox").is_none() {
        return Some("no static busybox to fill a root filesystem with");
    }
    None
}

/// The name the program reports itself under.
pub fn name_of(program: &Path) -> String {
    program
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
