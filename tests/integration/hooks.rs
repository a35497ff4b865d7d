//! Lifecycle hooks.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Case, differential, eventually, host, ours_beyond_runc};

/// Without `poststart`: runc 1.1 runs it at `create`, which the specification
/// (and later runc) puts at `start`. It has tests of its own.
const KINDS: [&str; 5] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststop",
];

/// The shell as the hook sees it: `startContainer` runs inside the container.
fn shell(kind: &str) -> String {
    match kind {
        "startContainer" => "/bin/sh".to_owned(),
        _ => host::find("sh").expect("sh").to_string_lossy().into_owned(),
    }
}

fn hook(kind: &str, script: &str) -> Value {
    json!({"path": shell(kind), "args": ["sh", "-c", script]})
}

/// Where a hook writes so that the test finds it: in the root filesystem,
/// which the two kinds of hooks know under different names.
fn log_path(c: &Case, kind: &str) -> String {
    match kind {
        "startContainer" => "/hooks.log".to_owned(),
        _ => c.rootfs().join("hooks.log").to_string_lossy().into_owned(),
    }
}

fn log(c: &Case) -> String {
    fs::read_to_string(c.rootfs().join("hooks.log")).unwrap_or_default()
}

/// A hook of every kind that appends `what` (a shell word list) to the log.
fn with_every_hook(c: &mut Case, what: &str) {
    c.spec()["root"]["readonly"] = json!(false);
    for kind in KINDS {
        let script = format!("echo {kind} {what} >> {}", log_path(c, kind));
        c.push(&format!("/hooks/{kind}"), [hook(kind, &script)]);
    }
}

fn case_with_hooks(c: &mut Case) {
    c.spec()["hooks"] = json!({});
}

#[test]
fn hooks_run_in_their_order_at_their_time() {
    differential(|c| {
        case_with_hooks(c);
        with_every_hook(c, "ran");
        c.idle();
        c.create();
        let seen = log(c);
        c.note("after create", &seen);
        assert_eq!(
            seen,
            "prestart ran\ncreateRuntime ran\ncreateContainer ran\n"
        );
        c.ok("start ID");
        eventually(|| log(c).contains("startContainer").then_some(())).expect("startContainer ran");
        let seen = log(c);
        c.note("after start", &seen);
        assert!(seen.ends_with("startContainer ran\n"), "{seen}");
        c.ok("kill ID KILL");
        c.wait_for("stopped");
        assert!(!log(c).contains("poststop"), "poststop belongs to delete");
        c.ok("delete ID");
        let seen = log(c);
        c.note("after delete", &seen);
        assert!(seen.ends_with("poststop ran\n"), "{seen}");
    });
}

#[test]
fn hooks_run_in_order_with_run_too() {
    differential(|c| {
        case_with_hooks(c);
        with_every_hook(c, "ran");
        c.script("echo process >> /hooks.log");
        c.run();
        let seen = log(c);
        c.note("order", &seen);
        assert!(
            seen.ends_with("startContainer ran\nprocess\npoststop ran\n"),
            "{seen}"
        );
    });
}

/// After the process was started, before `start` returns.
#[test]
fn poststart_runs_at_start() {
    ours_beyond_runc(|c| {
        case_with_hooks(c);
        c.spec()["root"]["readonly"] = json!(false);
        let path = log_path(c, "poststart");
        c.push(
            "/hooks/poststart",
            [hook("poststart", &format!("echo ran $(cat) >> {path}"))],
        );
        c.idle();
        c.create();
        assert_eq!(log(c), "", "not at create");
        c.ok("start ID");
        let seen = log(c);
        let document = seen.strip_prefix("ran ").expect("it ran");
        let state: Value = serde_json::from_str(document).expect("state");
        assert_eq!(
            (&state["status"], &state["pid"]),
            (&json!("running"), &json!(c.pid()))
        );
    });
}

#[test]
fn several_hooks_of_a_kind_run_in_order() {
    differential(|c| {
        case_with_hooks(c);
        c.spec()["root"]["readonly"] = json!(false);
        for number in 1..=3 {
            let path = log_path(c, "prestart");
            c.push(
                "/hooks/prestart",
                [hook("prestart", &format!("echo {number} >> {path}"))],
            );
        }
        c.run();
        assert_eq!(log(c), "1\n2\n3\n");
    });
}

/// Each hook's log line is its kind and the state document it was given.
#[test]
fn hooks_get_the_state_on_standard_input() {
    differential(|c| {
        case_with_hooks(c);
        c.spec()["annotations"] = json!({"org.example.key": "value"});
        with_every_hook(c, "$(cat)");
        c.idle();
        c.create();
        let pid = c.pid();
        c.ok("start ID");
        eventually(|| log(c).contains("startContainer").then_some(())).expect("startContainer ran");
        c.ok("delete --force ID");
        let seen = log(c);
        assert_eq!(seen.lines().count(), 5, "{seen}");
        for line in seen.lines() {
            let (kind, document) = line.split_once(' ').expect("kind and document");
            // echo has removed the quotes' need: the document has no blanks.
            let mut state: Value = serde_json::from_str(document)
                .unwrap_or_else(|error| panic!("{kind}: {error}: {document}"));
            assert_eq!(state["id"], c.id(), "{kind}");
            let host_pid = state["pid"].as_i64() == Some(i64::from(pid));
            state["pid"] = match (state["pid"].as_i64(), host_pid) {
                (_, true) => json!("the host's"),
                (Some(1..), _) => json!("another"),
                _ => json!("none"),
            };
            c.note(kind, &state.to_string());
        }
    });
}

#[test]
fn hooks_get_their_arguments_and_environment_only() {
    differential(|c| {
        case_with_hooks(c);
        c.spec()["root"]["readonly"] = json!(false);
        for kind in KINDS {
            let file = log_path(c, kind);
            let script = format!(
                "echo {kind} $0 $1 $(cat /proc/self/environ | tr '\\000' '\\n' | grep -v -e ^PWD= -e ^SHLVL= | sort) \
                 >> {file}"
            );
            let mut hook = hook(kind, &script);
            hook["args"] = json!(["sh", "-c", script, "zero", "one"]);
            hook["env"] = json!(["PATH=/bin:/usr/bin", "KEY=value", "OTHER="]);
            c.push(&format!("/hooks/{kind}"), [hook]);
        }
        c.idle();
        c.create();
        c.ok("start ID");
        eventually(|| log(c).contains("startContainer").then_some(())).expect("startContainer ran");
        c.ok("delete --force ID");
        let seen = log(c);
        c.note("seen", &seen);
        assert!(
            seen.contains("prestart zero one KEY=value OTHER= PATH=/bin:/usr/bin\n"),
            "{seen}"
        );
    });
}

/// The kinds differ in the namespaces and the root they run in.
#[test]
fn hooks_run_in_their_namespaces() {
    differential(|c| {
        case_with_hooks(c);
        c.spec()["root"]["readonly"] = json!(false);
        let own = |kind: &str| {
            fs::read_link(format!("/proc/self/ns/{kind}"))
                .expect("own namespace")
                .to_string_lossy()
                .into_owned()
        };
        let (mnt, net, pid) = (own("mnt"), own("net"), own("pid"));
        for kind in KINDS {
            let file = log_path(c, kind);
            // The host's /proc is what is mounted until the root is changed.
            let script = format!(
                "a=no; b=no; d=no; \
                 [ \"$(readlink /proc/self/ns/mnt)\" = '{mnt}' ] && a=host; \
                 [ \"$(readlink /proc/self/ns/net)\" = '{net}' ] && b=host; \
                 [ \"$(readlink /proc/self/ns/pid)\" = '{pid}' ] && d=host; \
                 echo {kind} $a $b $d >> {file}"
            );
            let mut hook = hook(kind, &script);
            hook["env"] = json!(["PATH=/bin:/usr/bin"]);
            c.push(&format!("/hooks/{kind}"), [hook]);
        }
        c.idle();
        c.create();
        c.ok("start ID");
        eventually(|| log(c).contains("startContainer").then_some(())).expect("startContainer ran");
        c.ok("delete --force ID");
        let seen = log(c);
        c.note("seen", &seen);
        assert!(seen.contains("createRuntime host host host\n"), "{seen}");
    });
}

#[test]
fn a_failing_create_hook_aborts_and_leaves_nothing() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        differential(move |c| {
            case_with_hooks(c);
            c.push(
                &format!("/hooks/{kind}"),
                [hook(kind, "echo broken >&2; exit 3")],
            );
            c.idle();
            c.bundle.write();
            let outcome = c.fails("create --bundle BUNDLE ID", &["hook"]);
            assert!(outcome.stderr.contains("exit status 3"), "{outcome}");
            let left = c.settle();
            assert!(left.is_empty(), "{left:?}");
        });
    }
}

#[test]
fn a_failing_start_container_hook_fails_start() {
    differential(|c| {
        case_with_hooks(c);
        c.push("/hooks/startContainer", [hook("startContainer", "exit 3")]);
        c.idle();
        c.bundle.write();
        let created = c.call("create --bundle BUNDLE ID");
        c.note("create", &created.code.to_string());
        let started = c.call("start ID");
        c.note("start", &started.code.to_string());
        c.wait_for("stopped");
    });
}

/// The process may already have done its work: the specification asks for a
/// warning, runc also ends the container. Either way the message says why.
#[test]
fn a_failing_poststart_hook_is_reported() {
    differential(|c| {
        case_with_hooks(c);
        c.push("/hooks/poststart", [hook("poststart", "exit 3")]);
        c.idle();
        c.bundle.write();
        let created = c.call("create --bundle BUNDLE ID");
        let started = c.call("start ID");
        let said = created.stderr + &started.stderr;
        assert!(
            said.contains("hook") && said.contains("exit status 3"),
            "{said}"
        );
    });
}

#[test]
fn a_failing_poststop_hook_does_not_keep_the_container() {
    differential(|c| {
        case_with_hooks(c);
        c.push("/hooks/poststop", [hook("poststop", "exit 3")]);
        c.up();
        c.code_of("delete --force ID");
        assert_eq!(c.status(), "unknown");
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn a_hook_that_takes_too_long_is_killed() {
    differential(|c| {
        case_with_hooks(c);
        let mut slow = hook("createRuntime", "exec sleep 1000");
        slow["timeout"] = json!(1);
        c.push("/hooks/createRuntime", [slow]);
        c.idle();
        c.bundle.write();
        let outcome = c.fails("create --bundle BUNDLE ID", &["hook"]);
        let says = |text| outcome.stderr.contains(text);
        assert!(says("timeout") || says("timed out"), "{outcome}");
        let left = c.settle();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn a_missing_hook_program_fails_create() {
    differential(|c| {
        case_with_hooks(c);
        c.push("/hooks/createRuntime", [json!({"path": "/no/such/hook"})]);
        c.bundle.write();
        c.fails("create --bundle BUNDLE ID", &["/no/such/hook"]);
    });
}

#[test]
fn poststop_runs_at_forced_delete_and_at_the_end_of_run() {
    differential(|c| {
        case_with_hooks(c);
        c.spec()["root"]["readonly"] = json!(false);
        let path = log_path(c, "poststop");
        c.push(
            "/hooks/poststop",
            [hook("poststop", &format!("echo stopped >> {path}"))],
        );
        c.script("true");
        c.run();
        assert_eq!(log(c), "stopped\n");
        c.up();
        c.ok("delete --force ID");
        assert_eq!(log(c), "stopped\nstopped\n");
    });
}
