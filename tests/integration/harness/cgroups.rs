//! The control groups of the tests.

use std::fs;
use std::sync::LazyLock;

pub use crate::common::cgroups::{by_version, dirs, has, has_v1, is_unified, read};
use crate::common::cgroups::{kill, remove_empty};

use super::at_exit::at_exit;
use super::{eventually, say};

/// Kills what is in the group and removes it from every hierarchy.
pub fn remove(path: &str) {
    assert!(path.starts_with("/elastic-mem-test/"), "not ours: {path}");
    for dir in dirs(path) {
        let gone = eventually(|| {
            kill(&dir);
            remove_empty(&dir);
            (!dir.exists()).then_some(())
        });
        if gone.is_none() {
            say(&format!("cannot remove {}", dir.display()));
        }
    }
}

/// The parent group of everything this test process makes.
pub fn prefix() -> &'static str {
    static PREFIX: LazyLock<String> = LazyLock::new(|| {
        at_exit(|| {
            for dir in dirs(prefix()).into_iter().chain(dirs("/elastic-mem-test")) {
                let _ = fs::remove_dir(dir);
            }
        });
        format!("/elastic-mem-test/{}", std::process::id())
    });
    &PREFIX
}
