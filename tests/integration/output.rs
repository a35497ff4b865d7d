//! What the command itself says: specs, logs, versions, its own name.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::harness::{Case, differential, ours, ours_beyond_runc, strip};

/// Records the generated config.json without the two fields that name the
/// program and its version of the specification.
fn note_spec(c: &mut Case) -> Value {
    let text = fs::read_to_string(c.bundle.config()).expect("config.json");
    let mut spec: Value = serde_json::from_str(&text).expect("JSON");
    let version = spec["ociVersion"].as_str().unwrap_or_default();
    assert!(version.starts_with("1."), "{text}");
    assert!(spec["hostname"].is_string(), "{text}");
    strip(&mut spec, "", "ociVersion");
    strip(&mut spec, "", "hostname");
    c.note(
        "spec",
        &serde_json::to_string_pretty(&spec).expect("serialise"),
    );
    spec
}

#[test]
fn the_generated_spec_is_runcs() {
    differential(|c| {
        let outcome = c.ok("spec");
        assert_eq!(outcome.stdout, "");
        let spec = note_spec(c);
        assert!(spec["process"]["args"].is_array());
    });
}

#[test]
fn the_generated_rootless_spec_is_runcs() {
    differential(|c| {
        c.ok("spec --rootless");
        let spec = note_spec(c);
        assert!(spec["linux"]["uidMappings"].is_array());
    });
}

#[test]
fn spec_writes_into_the_bundle_it_is_told() {
    differential(|c| {
        let dir = c.bundle.path().join("elsewhere");
        fs::create_dir(&dir).expect("dir");
        c.ok("spec --bundle elsewhere");
        assert!(dir.join("config.json").exists());
        assert!(!c.bundle.config().exists());
    });
}

#[test]
fn spec_does_not_overwrite() {
    differential(|c| {
        fs::write(c.bundle.config(), "precious").expect("write");
        c.fails("spec", &["config.json"]);
        assert_eq!(fs::read(c.bundle.config()).expect("read"), b"precious");
    });
}

/// A generated spec is a working one.
#[test]
fn a_container_of_the_generated_spec_runs() {
    differential(|c| {
        c.ok("spec");
        let text = fs::read_to_string(c.bundle.config()).expect("config.json");
        let path = c.spec()["linux"]["cgroupsPath"].clone();
        *c.spec() = serde_json::from_str(&text).expect("JSON");
        c.spec()["linux"]["cgroupsPath"] = path;
        c.spec()["process"]["terminal"] = false.into();
        assert_eq!(c.probe("echo works"), "works\n");
    });
}

fn log_lines(c: &Case) -> Vec<Value> {
    let text = fs::read_to_string(c.bundle.path().join("log")).expect("log file");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// containerd and dockerd show the last error of this file to their user.
#[test]
fn a_json_log_ends_with_the_error() {
    differential(|c| {
        c.spec()["process"]["args"] = serde_json::json!(["no-such-program"]);
        c.bundle.write();
        let outcome = c.call("--log log --log-format json create --bundle BUNDLE ID");
        c.note("code", &outcome.code.to_string());
        let lines = log_lines(c);
        for line in &lines {
            for key in ["level", "msg", "time"] {
                assert!(line[key].is_string(), "{line}");
            }
        }
        let last = lines.last().expect("a line");
        assert_eq!(last["level"], "error");
        let message = last["msg"].as_str().expect("msg");
        assert!(
            message.contains("executable file not found in $PATH"),
            "{message}"
        );
        c.note(
            "keys",
            &format!(
                "{:?}",
                last.as_object().map(|map| map.keys().collect::<Vec<_>>())
            ),
        );
        c.note("message", message);
        // The user of the command sees the message as well.
        assert!(
            outcome
                .stderr
                .contains("executable file not found in $PATH"),
            "{outcome}"
        );
    });
}

#[test]
fn a_json_log_of_a_success_has_no_error() {
    differential(|c| {
        c.idle();
        c.bundle.write();
        c.ok("--log log --log-format json create --bundle BUNDLE ID");
        c.ok("--log log --log-format json start ID");
        c.ok("--log log --log-format json delete --force ID");
        let text = fs::read_to_string(c.bundle.path().join("log")).unwrap_or_default();
        assert!(!text.contains("\"level\":\"error\""), "{text}");
    });
}

/// A message up to the end of runc's words: ours goes on to name the container
/// and the folder that was searched.
fn runcs_words(text: &str) -> String {
    const WORDS: &str = "container does not exist";
    match text.find(WORDS) {
        Some(at) => text[..at + WORDS.len()].to_owned(),
        None => text.to_owned(),
    }
}

#[test]
fn a_log_is_appended_to() {
    differential(|c| {
        c.fails("--log log --log-format json state ID", &[]);
        c.fails("--log log --log-format json start ID", &[]);
        let messages: Vec<_> = log_lines(c)
            .iter()
            .map(|line| runcs_words(line["msg"].as_str().unwrap_or_default()))
            .collect();
        c.note("messages", &messages.join("\n"));
        assert_eq!(messages, ["container does not exist"; 2]);
    });
}

#[test]
fn a_text_log_has_time_level_and_message() {
    differential(|c| {
        c.fails("--log log state ID", &[]);
        let text = fs::read_to_string(c.bundle.path().join("log")).expect("log file");
        c.note("log", &runcs_words(&text));
        assert!(
            text.contains("level=error msg=\"container does not exist"),
            "{text}"
        );
        c.fails("state ID", &["level=error msg=\"container does not exist"]);
    });
}

#[test]
fn debug_logs_are_json_lines_too() {
    ours(|c| {
        c.script("true");
        c.bundle.write();
        c.ok("--debug --log log --log-format json run --bundle BUNDLE ID");
        for line in log_lines(c) {
            for key in ["level", "msg", "time"] {
                assert!(line[key].is_string(), "{line}");
            }
        }
    });
}

#[test]
fn an_unknown_log_format_is_refused() {
    differential(|c| {
        c.fails("--log-format xml list", &["xml"]);
    });
}

#[test]
fn a_log_that_cannot_be_written_is_refused() {
    differential(|c| {
        c.fails("--log /proc/no/such/log list", &["/proc/no/such/log"]);
    });
}

/// Engines parse the first lines of this.
#[test]
fn the_version_names_the_specification() {
    differential(|c| {
        let outcome = c.bare().arg("--version").output();
        assert_eq!(outcome.code, 0, "{outcome}");
        let first = outcome.stdout.lines().next().unwrap_or_default().to_owned();
        assert!(first.contains(" version "), "{outcome}");
        let spec = outcome
            .stdout
            .lines()
            .any(|line| line.starts_with("spec: 1."));
        assert!(spec, "{outcome}");
        c.note("code", &outcome.code.to_string());
    });
}

#[test]
fn features_are_a_document_with_runcs_sections() {
    differential(|c| {
        let outcome = c.call("features");
        assert_eq!(outcome.code, 0, "{outcome}");
        let features: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        for key in [
            "ociVersionMin",
            "ociVersionMax",
            "hooks",
            "mountOptions",
            "linux",
        ] {
            assert!(!features[key].is_null(), "{key}: {features}");
        }
        for key in ["namespaces", "capabilities", "cgroup", "seccomp"] {
            assert!(!features["linux"][key].is_null(), "{key}: {features}");
        }
        c.note("hooks", &features["hooks"].to_string());
    });
}

#[test]
fn help_is_no_error() {
    differential(|c| {
        for line in ["--help", "help", "create --help", "exec --help", ""] {
            let outcome = c.bare().args(c.words(line)).output();
            c.note(&format!("help by {line:?}"), &outcome.code.to_string());
            assert!(outcome.stdout.to_lowercase().contains("usage"), "{outcome}");
        }
    });
}

/// Installed as `runc`, messages must say `runc`: scripts match them.
/// (runc itself says `runc` whatever its file is called.)
#[test]
fn messages_carry_the_name_of_the_program() {
    ours_beyond_runc(|c| {
        let link = c.bundle.path().join("other-name");
        symlink(c.program(), &link).expect("symlink");
        c.spec()["process"]["args"] = serde_json::json!(["no-such-program"]);
        c.bundle.write();
        for line in [
            "state",
            "create --bundle BUNDLE ID",
            "run --bundle BUNDLE ID",
        ] {
            let outcome = crate::harness::Cmd::new(&link)
                .arg("--root")
                .arg(c.root())
                .args(c.words(line))
                .dir(c.bundle.path())
                .output();
            assert!(outcome.stderr.contains("other-name"), "{outcome}");
            assert!(!outcome.stderr.contains("elastic-mem:"), "{outcome}");
        }
    });
}
