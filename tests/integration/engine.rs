//! Where the engine below falls short of a runtime, and ours must not.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::json;

use crate::harness::command::spawn_plain;
use crate::harness::{Case, cgroups, differential, eventually, host, ours_beyond_runc, skip};

/// Runs a scenario with a copy of our command that nobody else executes: a
/// file in use is safe from writers for that reason alone.
fn with_own_copy(scenario: impl FnOnce(&mut Case, &Path)) {
    if let Some(reason) = host::unfit() {
        return skip(reason);
    }
    let dir = tempfile::tempdir().expect("folder");
    let copy = dir.path().join("elastic-mem");
    fs::copy(host::our_program(), &copy).expect("copy");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("mode");
    let mut case = Case::new(copy.clone());
    scenario(&mut case, &copy);
    let left = case.finish();
    assert!(left.is_empty(), "left behind: {left:#?}");
}

/// Opens a file that is held open read-only once more, to write; the way of
/// CVE-2019-5736 once the program has ended.
fn reopen_to_write(held: &File) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{}", held.as_raw_fd()))
}

#[test]
fn the_executable_cannot_be_overwritten_through_a_created_container() {
    with_own_copy(|c, copy| {
        c.idle();
        c.create();
        let held = File::open(format!("/proc/{}/exe", c.pid())).expect("exe");
        c.ok("delete --force ID");
        let error = reopen_to_write(&held).expect_err("must not open");
        assert_eq!(error.raw_os_error(), Some(nix::libc::EROFS), "{error}");
        // The file itself is an ordinary one: it is the view that protects it.
        OpenOptions::new().write(true).open(copy).expect("writable");
    });
}

#[test]
fn the_executable_cannot_be_overwritten_through_exec() {
    with_own_copy(|c, _| {
        c.up();
        let words = c.words("exec ID sleep 1000");
        let mut command = spawn_plain(&mut c.cmd().args(words).into_inner());
        // The command and the process it prepares run from the same view.
        let exe = format!("/proc/{}/exe", command.id());
        let held = eventually(|| {
            let held = File::open(&exe).ok()?;
            let view = statvfs(exe.as_str()).ok()?;
            view.flags().contains(FsFlags::ST_RDONLY).then_some(held)
        })
        .expect("a read-only view");
        c.ok("kill ID KILL");
        command.wait().expect("wait");
        let error = reopen_to_write(&held).expect_err("must not open");
        assert_eq!(error.raw_os_error(), Some(nix::libc::EROFS), "{error}");
    });
}

#[test]
fn the_memory_policy_holds_for_init_and_for_exec() {
    for (mode, shown) in [
        ("MPOL_BIND", "bind:0"),
        ("MPOL_INTERLEAVE", "interleave:0"),
        ("MPOL_WEIGHTED_INTERLEAVE", "weighted interleave:0"),
    ] {
        if shown.starts_with("weighted")
            && !Path::new("/sys/kernel/mm/mempolicy/weighted_interleave").exists()
        {
            return skip("the kernel has no weighted interleave (Linux 6.9)");
        }
        ours_beyond_runc(move |c| {
            c.spec()["linux"]["memoryPolicy"] = json!({"mode": mode, "nodes": "0"});
            c.up();
            let of_init = fs::read_to_string(format!("/proc/{}/numa_maps", c.pid()));
            let of_init = of_init.expect("numa_maps");
            assert!(of_init.contains(shown), "init: {of_init}");
            let of_exec = c.exec("", "cat /proc/self/numa_maps");
            assert!(of_exec.contains(shown), "exec: {of_exec}");
        });
    }
}

#[test]
fn a_filter_need_not_allow_what_the_runtime_does_while_it_waits() {
    differential(|c| {
        c.spec()["process"]["noNewPrivileges"] = json!(false);
        c.spec()["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{
                "names": ["socket", "accept", "accept4", "recvmsg", "recvfrom", "sendmsg", "mount",
                          "umount2", "pivot_root", "setns", "unshare", "clone3", "chroot", "mkdir"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 1
            }]
        });
        c.probe("grep Seccomp: /proc/self/status");
        c.up();
        c.exec("", "grep Seccomp: /proc/self/status");
    });
}

#[test]
fn systemd_is_refused_by_name_where_it_does_not_run() {
    if Path::new("/run/systemd/system").exists() {
        return skip("systemd runs here");
    }
    differential(|c| {
        c.spec()["linux"]["cgroupsPath"] = json!("system.slice:elastic-mem:x");
        c.idle();
        c.bundle.write();
        let line = "--systemd-cgroup create --bundle BUNDLE ID";
        let outcome = c.call(line);
        c.expect_failure(line, &outcome, &["systemd"]);
    });
}

#[test]
fn a_control_group_shared_with_others_is_never_emptied() {
    if !cgroups::has_v1("pids") {
        return skip("no v1 pids hierarchy");
    }
    differential(|c| {
        let dir = format!("/sys/fs/cgroup/pids{}", c.cgroup());
        fs::create_dir_all(&dir).expect("group");
        let mut other = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("sleep");
        fs::write(format!("{dir}/cgroup.procs"), other.id().to_string()).expect("join");
        c.idle();
        c.bundle.write();
        let created = c.call("run --detach --bundle BUNDLE ID");
        assert_eq!(created.code, 0, "{created}");
        let deleted = c.call("delete --force ID");
        let alive = other.try_wait().expect("wait").is_none();
        other.kill().expect("kill");
        other.wait().expect("wait");
        assert_eq!(deleted.code, 0, "{deleted}");
        assert!(alive, "a process of others was killed");
        fs::remove_dir(&dir).expect("the group is there still");
    });
}
