//! System call filters.

use serde_json::{Value, json};

use crate::harness::{Case, differential, ours_beyond_runc, strip};

const STATUS: &str = "grep -e Seccomp: -e NoNew /proc/self/status";

fn filter(default: &str, rules: Value) -> Value {
    json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

fn with(c: &mut Case, default: &str, rules: Value) {
    c.spec()["linux"]["seccomp"] = filter(default, rules);
}

fn deny_mkdir(action: &str) -> Value {
    json!([{"names": ["mkdir", "mkdirat"], "action": action}])
}

fn writable(c: &mut Case) {
    c.spec()["root"]["readonly"] = json!(false);
}

#[test]
fn without_a_filter_there_is_none() {
    differential(|c| {
        let seen = c.probe(STATUS);
        assert!(seen.contains("Seccomp:\t0"), "{seen}");
    });
}

#[test]
fn a_filter_is_in_place() {
    differential(|c| {
        with(c, "SCMP_ACT_ALLOW", deny_mkdir("SCMP_ACT_ERRNO"));
        let seen = c.probe(STATUS);
        assert!(seen.contains("Seccomp:\t2"), "{seen}");
    });
}

#[test]
fn errno_is_eperm_by_default() {
    differential(|c| {
        writable(c);
        with(c, "SCMP_ACT_ALLOW", deny_mkdir("SCMP_ACT_ERRNO"));
        let seen = c.probe("mkdir /tmp/x 2>&1; ls /tmp");
        assert!(seen.contains("Operation not permitted"), "{seen}");
    });
}

#[test]
fn errno_is_the_one_of_the_rule() {
    differential(|c| {
        writable(c);
        let mut rules = deny_mkdir("SCMP_ACT_ERRNO");
        rules[0]["errnoRet"] = json!(libc::ENOSPC);
        with(c, "SCMP_ACT_ALLOW", rules);
        let seen = c.probe("mkdir /tmp/x 2>&1; ls /tmp");
        assert!(seen.contains("No space left"), "{seen}");
    });
}

#[test]
fn the_default_errno_is_the_one_of_the_filter() {
    differential(|c| {
        writable(c);
        let allowed = everything_but(&["mkdir", "mkdirat"]);
        with(
            c,
            "SCMP_ACT_ERRNO",
            json!([{"names": allowed, "action": "SCMP_ACT_ALLOW"}]),
        );
        c.spec()["linux"]["seccomp"]["defaultErrnoRet"] = json!(libc::EXDEV);
        let seen = c.probe("mkdir /tmp/x 2>&1; ls /tmp");
        assert!(seen.contains("link"), "{seen}");
    });
}

#[test]
fn a_default_of_errno_denies_what_is_not_named() {
    differential(|c| {
        writable(c);
        let allowed = everything_but(&["chmod", "fchmodat"]);
        with(
            c,
            "SCMP_ACT_ERRNO",
            json!([{"names": allowed, "action": "SCMP_ACT_ALLOW"}]),
        );
        let seen = c.probe("chmod 700 /tmp 2>&1; mkdir /tmp/x && ls /tmp");
        assert!(seen.contains("Operation not permitted"), "{seen}");
    });
}

#[test]
fn a_rule_may_kill() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        differential(move |c| {
            writable(c);
            with(c, "SCMP_ACT_ALLOW", deny_mkdir(action));
            let seen = c.probe("mkdir /tmp/x 2>/dev/null; echo $?; ls /tmp");
            assert_eq!(seen, "159\n");
        });
    }
}

#[test]
fn a_rule_may_kill_init() {
    differential(|c| {
        with(c, "SCMP_ACT_ALLOW", deny_mkdir("SCMP_ACT_KILL_PROCESS"));
        c.spec()["process"]["args"] = json!(["mkdir", "/tmp/x"]);
        c.run_to(159);
    });
}

#[test]
fn a_rule_may_log() {
    differential(|c| {
        writable(c);
        with(c, "SCMP_ACT_ALLOW", deny_mkdir("SCMP_ACT_LOG"));
        c.probe("mkdir /tmp/x && ls /tmp");
    });
}

/// socket(2) of one family only: the argument decides.
#[test]
fn a_condition_on_an_argument_decides() {
    differential(|c| {
        let family = |family: i32, op: &str| json!([{"index": 0, "value": family, "op": op}]);
        with(
            c,
            "SCMP_ACT_ALLOW",
            json!([{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EAFNOSUPPORT,
                    "args": family(libc::AF_INET, "SCMP_CMP_EQ")}]),
        );
        // `ip` opens a netlink socket, `nc` an internet one.
        let seen = c.probe(
            "ip link >/dev/null && echo netlink; nc -w 1 127.0.0.1 1 2>&1 | grep -o Address",
        );
        assert_eq!(seen, "netlink\nAddress\n");
    });
}

#[test]
fn a_masked_condition_decides() {
    differential(|c| {
        writable(c);
        // The file mode of mkdir is its second argument (third of mkdirat).
        let masked = |index: u32| json!([{"index": index, "value": 0o001, "valueTwo": 0o001, "op": "SCMP_CMP_MASKED_EQ"}]);
        with(
            c,
            "SCMP_ACT_ALLOW",
            json!([
                {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": masked(1)},
                {"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "args": masked(2)}
            ]),
        );
        let seen =
            c.probe("mkdir -m 700 /tmp/a; mkdir -m 711 /tmp/b; mkdir -m 707 /tmp/c; ls /tmp");
        c.note("made", &seen);
    });
}

/// Conditions on one argument are alternatives, on several they must all hold.
#[test]
fn several_conditions_are_combined_as_runc_does() {
    differential(|c| {
        writable(c);
        let cond =
            |index: u32, value: u64, op: &str| json!({"index": index, "value": value, "op": op});
        with(
            c,
            "SCMP_ACT_ALLOW",
            json!([
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO",
                 "args": [cond(1, 10, "SCMP_CMP_EQ"), cond(1, 12, "SCMP_CMP_EQ")]},
                {"names": ["dup2"], "action": "SCMP_ACT_ERRNO",
                 "args": [cond(0, 90, "SCMP_CMP_GE"), cond(1, 100, "SCMP_CMP_LT")]}
            ]),
        );
        let seen = c.probe(
            "sleep 9 & for s in 10 12 0; do kill -$s $! 2>/dev/null; echo $s $?; done; kill -9 $!",
        );
        assert!(seen.contains("0 0"), "{seen}");
    });
}

#[test]
fn unknown_system_calls_are_ignored() {
    differential(|c| {
        with(
            c,
            "SCMP_ACT_ALLOW",
            json!([{"names": ["no_such_call", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]),
        );
        let seen = c.probe("mkdir /tmp/x 2>&1 | grep -o 'not permitted'");
        assert_eq!(seen, "not permitted\n");
    });
}

#[test]
fn several_architectures_are_accepted() {
    differential(|c| {
        with(c, "SCMP_ACT_ALLOW", deny_mkdir("SCMP_ACT_ERRNO"));
        c.spec()["linux"]["seccomp"]["architectures"] =
            json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        let seen = c.probe("mkdir /tmp/x 2>&1 | grep -o 'not permitted'");
        assert_eq!(seen, "not permitted\n");
    });
}

#[test]
fn absent_architectures_are_the_native_one() {
    differential(|c| {
        with(c, "SCMP_ACT_ALLOW", deny_mkdir("SCMP_ACT_ERRNO"));
        strip(c.spec(), "/linux/seccomp", "architectures");
        let seen = c.probe("mkdir /tmp/x 2>&1 | grep -o 'not permitted'");
        assert_eq!(seen, "not permitted\n");
    });
}

#[test]
fn a_filter_works_with_and_without_new_privileges() {
    for value in [Some(true), Some(false), None] {
        differential(move |c| {
            match value {
                Some(value) => c.spec()["process"]["noNewPrivileges"] = json!(value),
                None => strip(c.spec(), "/process", "noNewPrivileges"),
            }
            c.spec()["process"]["capabilities"] = json!({});
            with(c, "SCMP_ACT_ALLOW", deny_mkdir("SCMP_ACT_ERRNO"));
            let seen = c.probe(STATUS);
            let bit = u8::from(value == Some(true));
            assert_eq!(seen, format!("NoNewPrivs:\t{bit}\nSeccomp:\t2\n"));
        });
    }
}

#[test]
fn a_filter_works_for_a_user_without_capabilities() {
    for no_new_privileges in [true, false] {
        differential(move |c| {
            c.spec()["process"]["noNewPrivileges"] = json!(no_new_privileges);
            c.spec()["process"]["capabilities"] = json!({});
            c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [50]});
            with(c, "SCMP_ACT_ALLOW", deny_mkdir("SCMP_ACT_ERRNO"));
            let seen = c.probe(&format!(
                "{STATUS}; id -u; mkdir /tmp/x 2>&1 | grep -o 'not permitted'"
            ));
            assert!(seen.ends_with("1000\nnot permitted\n"), "{seen}");
        });
    }
}

/// The calls a runtime itself makes between the filter and the program
/// (capset, setuid, ...) are not its to forbid when no-new-privileges is on:
/// then the filter is the last thing to be set.
#[test]
fn a_filter_may_forbid_what_the_runtime_does_before() {
    differential(|c| {
        let rules = json!([{"names": [
            "capset", "setuid", "setgid", "setgroups", "setresuid", "setresgid", "prctl",
            "mount", "umount2", "pivot_root", "unshare", "setns", "chroot", "sethostname", "keyctl"
        ], "action": "SCMP_ACT_ERRNO"}]);
        c.spec()["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        with(c, "SCMP_ACT_ALLOW", rules);
        let seen = c.probe(STATUS);
        assert!(seen.contains("Seccomp:\t2"), "{seen}");
    });
}

/// runc 1.1 knows no flags and refuses them.
#[test]
fn flags_are_accepted() {
    ours_beyond_runc(|c| {
        with(c, "SCMP_ACT_ALLOW", deny_mkdir("SCMP_ACT_ERRNO"));
        c.spec()["linux"]["seccomp"]["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG"]);
        assert!(c.probe(STATUS).contains("Seccomp:\t2"));
    });
}

#[test]
fn an_unknown_action_is_refused() {
    differential(|c| {
        with(c, "SCMP_ACT_ALLOW", deny_mkdir("SCMP_ACT_PERHAPS"));
        c.run_fails(&["SCMP_ACT_PERHAPS"]);
    });
}

#[test]
fn an_unknown_operator_is_refused() {
    differential(|c| {
        let mut rules = deny_mkdir("SCMP_ACT_ERRNO");
        rules[0]["args"] = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_ALMOST"}]);
        with(c, "SCMP_ACT_ALLOW", rules);
        c.run_fails(&["SCMP_CMP_ALMOST"]);
    });
}

#[test]
fn a_large_profile_lets_ordinary_programs_work() {
    differential(|c| {
        writable(c);
        c.spec()["linux"]["seccomp"] = crate::seccomp_profile::profile();
        let seen = c.probe(
            "grep Seccomp: /proc/self/status; mkdir /tmp/x && echo hi > /tmp/x/f && cat /tmp/x/f; \
             ls -l / >/dev/null && (sleep 0.01 & wait) && echo forked; ip link >/dev/null && echo socket; \
             unshare -U true 2>&1 | grep -o 'not permitted'; mount -t tmpfs x /mnt 2>&1 | grep -c denied",
        );
        assert!(seen.contains("Seccomp:\t2\nhi\nforked\nsocket\n"), "{seen}");
    });
}

/// The x86-64 system calls of a general profile, without `omitted`.
fn everything_but(omitted: &[&str]) -> Vec<&'static str> {
    crate::seccomp_profile::ALLOWED
        .iter()
        .chain(crate::seccomp_profile::PRIVILEGED)
        .copied()
        .filter(|name| !omitted.contains(name))
        .collect()
}
