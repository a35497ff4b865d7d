//! Which file is executed, and what is said when none can be.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::command::write_executable;
use crate::harness::{differential, strip};

#[test]
fn the_program_is_found_by_the_containers_path() {
    differential(|c| {
        fs::create_dir(c.rootfs().join("tools")).expect("dir");
        write_executable(
            &c.rootfs().join("tools/greet"),
            b"#!/bin/sh\necho hello $0\n",
        );
        c.spec()["process"]["env"] = json!(["PATH=/nowhere:/tools:/bin"]);
        c.spec()["process"]["args"] = json!(["greet"]);
        assert_eq!(c.run(), "hello /tools/greet\n");
    });
}

#[test]
fn an_absolute_program_needs_no_path() {
    differential(|c| {
        c.spec()["process"]["env"] = json!([]);
        c.spec()["process"]["args"] = json!(["/bin/busybox", "echo", "here"]);
        assert_eq!(c.run(), "here\n");
    });
}

#[test]
fn an_absent_environment_works_with_an_absolute_program() {
    differential(|c| {
        strip(c.spec(), "/process", "env");
        c.spec()["process"]["args"] = json!(["/bin/busybox", "env"]);
        assert_eq!(c.run(), "HOME=/root\n");
    });
}

#[test]
fn a_relative_program_without_a_path_is_refused() {
    differential(|c| {
        c.spec()["process"]["env"] = json!(["A=1"]);
        c.spec()["process"]["args"] = json!(["true"]);
        c.run_fails(&["executable file not found in $PATH"]);
    });
}

/// Relative to the working directory, because it has a slash.
#[test]
fn a_program_with_a_slash_is_relative_to_the_directory() {
    differential(|c| {
        c.spec()["process"]["cwd"] = json!("/bin");
        c.spec()["process"]["args"] = json!(["./busybox", "echo", "here"]);
        assert_eq!(c.run(), "here\n");
    });
}

#[test]
fn a_program_that_is_not_in_the_path_is_named() {
    differential(|c| {
        c.spec()["process"]["args"] = json!(["no-such-program"]);
        c.run_fails(&["no-such-program", "executable file not found in $PATH"]);
    });
}

#[test]
fn an_absolute_program_that_is_missing_is_named() {
    differential(|c| {
        c.spec()["process"]["args"] = json!(["/bin/no-such-program"]);
        c.run_fails(&["/bin/no-such-program", "no such file or directory"]);
    });
}

#[test]
fn a_program_that_is_not_executable_is_refused() {
    differential(|c| {
        let path = c.rootfs().join("bin/plain");
        fs::write(&path, "#!/bin/sh\n").expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        c.spec()["process"]["args"] = json!(["/bin/plain"]);
        c.run_fails(&["/bin/plain", "permission denied"]);
    });
}

#[test]
fn a_directory_is_no_program() {
    differential(|c| {
        c.spec()["process"]["args"] = json!(["/bin"]);
        c.run_fails(&["/bin"]);
    });
}

#[test]
fn a_file_that_is_no_program_is_an_exec_format_error() {
    differential(|c| {
        write_executable(&c.rootfs().join("bin/text"), b"just text\n");
        c.spec()["process"]["args"] = json!(["/bin/text"]);
        c.bundle.write();
        let outcome = c.call("run --bundle BUNDLE ID");
        c.expect_failure("run", &outcome, &["exec format error"]);
    });
}

#[test]
fn a_script_with_a_missing_interpreter_is_refused() {
    differential(|c| {
        write_executable(&c.rootfs().join("bin/script"), b"#!/no/interpreter\n");
        c.spec()["process"]["args"] = json!(["/bin/script"]);
        c.run_fails(&["no such file or directory"]);
    });
}

#[test]
fn a_program_missing_at_create_fails_create_and_leaves_nothing() {
    differential(|c| {
        c.spec()["process"]["args"] = json!(["/bin/no-such-program"]);
        c.bundle.write();
        c.fails("create --bundle BUNDLE ID", &["no such file or directory"]);
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}
