//! The process: identity, environment, directory, program.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::{Case, differential, strip};

#[test]
fn uid_gid_and_additional_gids_are_set() {
    differential(|c| {
        c.spec()["process"]["user"] =
            json!({"uid": 1000, "gid": 1000, "additionalGids": [50, 5, 777]});
        let seen = c.probe("id -u; id -g; id -G; grep -e Uid -e Gid -e Groups /proc/self/status");
        assert!(seen.starts_with("1000\n1000\n"), "{seen}");
    });
}

#[test]
fn an_id_without_an_account_is_fine() {
    differential(|c| {
        c.spec()["process"]["user"] = json!({"uid": 4242, "gid": 4343});
        let seen = c.probe("id; env | grep HOME");
        assert!(seen.starts_with("uid=4242 gid=4343"), "{seen}");
    });
}

/// The groups of the account in `/etc/group` are the engine's business.
#[test]
fn groups_of_the_account_are_not_added() {
    differential(|c| {
        c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        assert_eq!(c.probe("id -G"), "1000\n");
    });
}

#[test]
fn umask_is_set() {
    for umask in [Some(0o077), Some(0), None] {
        differential(move |c| {
            if let Some(umask) = umask {
                c.spec()["process"]["user"]["umask"] = json!(umask);
            }
            let seen = c.probe("umask");
            assert_eq!(seen, format!("{:04o}\n", umask.unwrap_or(0o022)));
        });
    }
}

#[test]
fn the_environment_is_in_order() {
    differential(|c| {
        c.spec()["process"]["env"] = json!([
            "Z=1",
            "PATH=/bin",
            "A=two words",
            "EMPTY=",
            "M=a=b=c",
            "HOME=/mine"
        ]);
        c.spec()["process"]["args"] = json!(["env"]);
        let seen = c.run();
        assert!(seen.contains("A=two words\n"), "{seen}");
    });
}

/// The raw block, because a shell would merge duplicates.
#[test]
fn the_last_of_duplicate_variables_counts() {
    differential(|c| {
        c.spec()["process"]["env"] = json!(["PATH=/bin", "A=1", "A=2", "B=x", "A=3"]);
        c.spec()["process"]["args"] =
            json!(["sh", "-c", "tr '\\000' '\\n' < /proc/$$/environ; echo $A"]);
        let seen = c.run();
        assert!(seen.ends_with("3\n"), "{seen}");
    });
}

#[test]
fn malformed_variables_are_runcs() {
    differential(|c| {
        c.spec()["process"]["env"] = json!(["PATH=/bin", "NOEQUALS", "=nothing", "OK=1"]);
        c.script("tr '\\000' '\\n' < /proc/$$/environ");
        c.bundle.write();
        let outcome = c.call("run --bundle BUNDLE ID");
        c.note("run", &format!("{}\n{}", outcome.code, outcome.stdout));
    });
}

#[test]
fn home_is_from_the_account() {
    for (uid, home) in [(0, "/root"), (1000, "/home/user"), (4242, "/")] {
        differential(move |c| {
            c.spec()["process"]["user"]["uid"] = json!(uid);
            assert_eq!(c.probe("echo $HOME"), format!("{home}\n"));
        });
    }
}

#[test]
fn an_empty_home_is_replaced() {
    differential(|c| {
        c.push("/process/env", [json!("HOME=")]);
        assert_eq!(c.probe("echo $HOME"), "/root\n");
    });
}

#[test]
fn home_without_a_passwd_file_is_the_root() {
    differential(|c| {
        fs::remove_file(c.rootfs().join("etc/passwd")).expect("remove");
        assert_eq!(c.probe("echo $HOME"), "/\n");
    });
}

#[test]
fn the_directory_is_set() {
    differential(|c| {
        c.spec()["process"]["cwd"] = json!("/home/user");
        assert_eq!(
            c.probe("pwd; readlink /proc/self/cwd"),
            "/home/user\n/home/user\n"
        );
    });
}

#[test]
fn a_missing_directory_is_made() {
    differential(|c| {
        c.spec()["process"]["cwd"] = json!("/new/work/dir");
        c.spec()["root"]["readonly"] = json!(false);
        let seen = c.probe("pwd; stat -c '%a %u %g' . ..");
        assert!(seen.starts_with("/new/work/dir\n"), "{seen}");
    });
}

#[test]
fn a_missing_directory_of_a_readonly_root_is_made() {
    differential(|c| {
        c.spec()["process"]["cwd"] = json!("/new/work/dir");
        c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        c.bundle.write();
        c.script("pwd; stat -c '%a %u %g' .");
        c.bundle.write();
        let outcome = c.call("run --bundle BUNDLE ID");
        c.note("run", &format!("{}\n{}", outcome.code, outcome.stdout));
    });
}

#[test]
fn a_relative_directory_is_refused() {
    differential(|c| {
        c.spec()["process"]["cwd"] = json!("home");
        c.run_fails(&["absolute path"]);
    });
}

#[test]
fn a_directory_that_is_a_file_is_refused() {
    differential(|c| {
        c.spec()["process"]["cwd"] = json!("/etc/passwd");
        c.run_fails(&["/etc/passwd"]);
    });
}

/// A user may be put into a directory that root cannot list (fuse, NFS) and
/// the other way round.
#[test]
fn a_private_directory_of_the_user_works() {
    differential(|c| {
        let home = c.rootfs().join("home/user");
        fs::set_permissions(home, fs::Permissions::from_mode(0o700)).expect("chmod");
        c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        c.spec()["process"]["cwd"] = json!("/home/user");
        assert_eq!(c.probe("pwd"), "/home/user\n");
    });
}

#[test]
fn oom_score_adj_is_raised() {
    differential(|c| {
        c.spec()["process"]["oomScoreAdj"] = json!(321);
        assert_eq!(c.probe("cat /proc/self/oom_score_adj"), "321\n");
    });
}

#[test]
fn without_oom_score_adj_it_is_the_callers() {
    differential(|c| {
        let own = fs::read_to_string("/proc/self/oom_score_adj").expect("own score");
        assert_eq!(c.probe("cat /proc/self/oom_score_adj"), own);
    });
}

#[test]
fn rlimits_are_lowered() {
    differential(|c| {
        c.spec()["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "hard": 512, "soft": 256},
            {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
            {"type": "RLIMIT_NPROC", "hard": 100, "soft": 90},
            {"type": "RLIMIT_FSIZE", "hard": 1_048_576, "soft": 524_288},
            {"type": "RLIMIT_STACK", "hard": 4_194_304, "soft": 4_194_304},
            {"type": "RLIMIT_CPU", "hard": 1000, "soft": 999},
            {"type": "RLIMIT_AS", "hard": 1_073_741_824_u64, "soft": 1_073_741_824_u64},
            {"type": "RLIMIT_MEMLOCK", "hard": 65536, "soft": 65536}
        ]);
        let seen = c.probe("cat /proc/self/limits");
        assert!(
            seen.lines().any(|line| line.starts_with("Max open files")
                && line.contains("256")
                && line.contains("512")),
            "{seen}"
        );
    });
}

#[test]
fn without_rlimits_they_are_the_callers() {
    differential(|c| {
        strip(c.spec(), "/process", "rlimits");
        let seen = c.probe("cat /proc/self/limits");
        let own = fs::read_to_string("/proc/self/limits").expect("own limits");
        let stack = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("Max stack"));
            line.map(str::to_owned)
        };
        assert_eq!(stack(&seen), stack(&own));
    });
}

#[test]
fn a_caller_need_not_be_able_to_raise_limits() {
    differential(|c| {
        strip(c.spec(), "/process", "rlimits");
        c.script("ulimit -l");
        c.bundle.write();
        let words = [
            "--memlock=65536:65536",
            "setpriv",
            "--bounding-set=-sys_resource",
        ];
        let command = c.below("prlimit", &words);
        let outcome = command.args(c.words("run --bundle BUNDLE ID")).output();
        c.expect_code("run", &outcome, 0);
        assert_eq!(outcome.stdout, "64\n");
    });
}

#[test]
fn an_rlimit_twice_is_runcs() {
    differential(|c| {
        c.push(
            "/process/rlimits",
            [json!({"type": "RLIMIT_NOFILE", "hard": 512, "soft": 256})],
        );
        c.script("ulimit -n");
        c.bundle.write();
        let outcome = c.call("run --bundle BUNDLE ID");
        c.note("run", &format!("{}\n{}", outcome.code, outcome.stdout));
    });
}

#[test]
fn a_soft_limit_above_the_hard_one_is_refused() {
    differential(|c| {
        c.spec()["process"]["rlimits"] =
            json!([{"type": "RLIMIT_NOFILE", "hard": 100, "soft": 200}]);
        c.run_fails(&[]);
    });
}

/// Signal masks and dispositions a runtime sets for itself must not leak.
#[test]
fn signals_are_neither_blocked_nor_ignored() {
    differential(|c| {
        c.spec()["process"]["args"] = json!(["grep", "-e", "^Sig", "/proc/self/status"]);
        let seen = c.run();
        c.transcript.pop();
        // 32 and 33 are the C library's own; a caller may pass them on ignored.
        let own = 0b11_u64 << 31;
        for name in ["SigBlk", "SigIgn", "SigPnd", "ShdPnd"] {
            let Some(set) = seen
                .lines()
                .find_map(|l| l.strip_prefix(&format!("{name}:\t")))
            else {
                continue;
            };
            let set = u64::from_str_radix(set, 16).expect("hexadecimal");
            assert_eq!(set & !own, 0, "{seen}");
        }
        assert!(seen.contains("SigIgn"), "{seen}");
    });
}

#[test]
fn only_stdio_is_open_in_the_process() {
    differential(|c| {
        c.spec()["process"]["args"] = json!(["ls", "/proc/self/fd"]);
        // ls itself holds the directory as descriptor 3.
        assert_eq!(c.run(), "0\n1\n2\n3\n");
    });
}

/// An open file of the program itself would be a way to overwrite it.
#[test]
fn the_process_is_the_program_and_nothing_else() {
    differential(|c| {
        let seen = c.probe(
            "tr '\\000' ' ' < /proc/1/cmdline; echo; readlink /proc/1/exe; cat /proc/1/comm",
        );
        assert!(seen.contains("/bin/busybox"), "{seen}");
    });
}

fn session(c: &mut Case) -> String {
    c.spec()["process"]["args"] = json!([
        "sh",
        "-c",
        "cut -d' ' -f5,6 /proc/1/stat; cut -d' ' -f7 /proc/1/stat"
    ]);
    c.run()
}

#[test]
fn the_process_leads_a_session_without_a_terminal() {
    differential(|c| {
        assert_eq!(session(c), "1 1\n0\n");
    });
}
