//! What the host offers: the programs, the daemons and the privileges.

use std::sync::LazyLock;

use crate::common::host;
pub use crate::common::host::{engine, find, our_program, runc_program};

use super::Cmd;

/// The name containerd looks for when asked for `io.containerd.elastic-mem.v1`.
pub const SHIM: &str = "containerd-shim-elastic-mem-v1";

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
    let no_runc = || {
        runc_program()
            .is_none()
            .then_some("no runc to compare with")
    };
    host::unfit().or_else(no_runc)
}
