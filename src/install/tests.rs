//! Golden texts of the pure edits: before and after.

use std::path::{Path, PathBuf};

use super::containerd::drop_in;
use super::cri::{Class, FileVersion, Mistake, Release, drop_in_folder, facts};
use super::daemon_json::{self, Runtimes};
use super::{block, unit};

fn release(major: u32, minor: u32) -> Release {
    Release { major, minor }
}

#[test]
fn releases_are_found_in_what_engines_say_of_themselves() {
    for (answer, expected) in [
        (
            "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3",
            Some(release(1, 6)),
        ),
        (
            "containerd github.com/containerd/containerd/v2 v2.1.9 abcdef",
            Some(release(2, 1)),
        ),
        (
            "containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da",
            Some(release(1, 7)),
        ),
        (
            "containerd github.com/containerd/containerd/v2 v2.4.0-beta.0",
            Some(release(2, 4)),
        ),
        (
            "Docker version 20.10.24+dfsg1, build 297e128",
            Some(release(20, 10)),
        ),
        ("no version", None),
    ] {
        assert_eq!(Release::parse(answer), expected, "{answer}");
    }
}

#[test]
fn a_file_of_version_2_gets_the_class_and_runc_s_at_its_end() {
    let before = "version = 2\n# mine\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"p\" # keep\n";
    let class = Class {
        with_runc: true,
        ..Class::default()
    };
    let after = block::with(before, &class.tables(FileVersion(2)));
    let expected = r#"version = 2
# mine
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "p" # keep

# elastic-mem: begin (`elastic-mem install` wrote this, `elastic-mem uninstall` takes it out)
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.elastic-mem]
runtime_type = "io.containerd.elastic-mem.v1"
pod_annotations = ["elastic-mem.io/*", "com.openfaas.*", "serving.knative.dev/*"]
container_annotations = ["elastic-mem.io/*"]
# elastic-mem: end
"#;
    assert_eq!(after, expected);
    assert_eq!(facts(&after).unwrap().classes, ["elastic-mem", "runc"]);
}

#[test]
fn a_file_of_version_3_has_other_tables() {
    let class = Class {
        shim: Some(PathBuf::from("/opt/a \"b\"/bin/shim")),
        config: Some(PathBuf::from("/opt/etc/elastic-mem/config.toml")),
        ..Class::default()
    };
    let expected = r#"version = 3

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.elastic-mem]
runtime_type = "io.containerd.elastic-mem.v1"
runtime_path = '/opt/a "b"/bin/shim'
pod_annotations = ["elastic-mem.io/*", "com.openfaas.*", "serving.knative.dev/*"]
container_annotations = ["elastic-mem.io/*"]

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.elastic-mem.options]
TypeUrl = "io.containerd.elastic-mem.v1.options"
ConfigPath = "/opt/etc/elastic-mem/config.toml"
"#;
    assert_eq!(class.file(FileVersion(3)), expected);
    assert_eq!(facts(expected).unwrap().classes, ["elastic-mem"]);
}

#[test]
fn the_example_has_what_is_written() {
    let class = Class {
        config: Some(PathBuf::from("/etc/elastic-mem/config.toml")),
        with_runc: true,
        ..Class::default()
    };
    let table = |text: &str| text.parse::<toml::Table>().unwrap();
    let written = table(&class.file(FileVersion(2)));
    assert_eq!(table(super::CONTAINERD_EXAMPLE), written);
}

#[test]
fn a_file_without_a_version_has_the_tables_of_version_1() {
    let before = "root = \"/r\"\n";
    let found = facts(before).unwrap();
    let after = block::with(before, &Class::default().tables(found.version));
    assert!(
        after.contains("\n[plugins.cri.containerd.runtimes.elastic-mem]\n"),
        "{after}"
    );
    assert_eq!(facts(&after).unwrap().classes, ["elastic-mem"]);
}

#[test]
fn the_cgroup_driver_of_runc_is_carried_over() {
    let runc = "plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc";
    let before = format!("version = 2\n[{runc}.options]\nSystemdCgroup = true\n");
    let class = Class {
        systemd_cgroup: facts(&before).unwrap().systemd_cgroup,
        ..Class::default()
    };
    let tables = class.tables(FileVersion(2));
    // With ConfigPath beside it, it would not reach the shim.
    assert!(
        tables.contains("SystemdCgroup = true\n") && !tables.contains("ConfigPath"),
        "{tables}"
    );
    assert!(!facts("version = 2\n").unwrap().systemd_cgroup);
}

#[test]
fn a_file_that_is_no_toml_is_an_error_with_its_line() {
    let Err(Mistake { line, text }) = facts("version = 2\n\n[plugins\n") else {
        panic!("no error");
    };
    assert_eq!(line, 3);
    assert!(!text.is_empty() && !text.contains('\n'), "{text}");
}

#[test]
fn tables_that_cannot_follow_are_noticed() {
    let before =
        "version = 2\nplugins = {\"io.containerd.grpc.v1.cri\" = {sandbox_image = \"p\"}}\n";
    facts(before).unwrap();
    let after = block::with(before, &Class::default().tables(FileVersion(2)));
    facts(&after).unwrap_err();
}

#[test]
fn a_disabled_plugin_is_seen_under_each_of_its_names() {
    for name in [
        "cri",
        "io.containerd.grpc.v1.cri",
        "io.containerd.cri.v1.runtime",
    ] {
        assert!(
            facts(&format!("disabled_plugins = [{name:?}]\n"))
                .unwrap()
                .cri_is_off
        );
    }
    assert!(!facts("disabled_plugins = [\"aufs\"]\n").unwrap().cri_is_off);
}

#[test]
fn a_folder_of_imports_is_used_only_when_all_its_files_are_read() {
    let main = Path::new("/etc/containerd/config.toml");
    let folder = |patterns: &[&str]| {
        let patterns: Vec<_> = patterns.iter().map(|text| (*text).to_owned()).collect();
        drop_in_folder(&patterns, main)
    };
    assert_eq!(
        folder(&["/etc/x.toml", "/etc/containerd/conf.d/*.toml"]),
        Some(PathBuf::from("/etc/containerd/conf.d"))
    );
    assert_eq!(
        folder(&["conf.d/*.toml"]),
        Some(PathBuf::from("/etc/containerd/conf.d"))
    );
    assert_eq!(
        folder(&[
            "/etc/containerd/*/a.toml",
            "/etc/*/*.toml",
            "/etc/nvidia-*.toml"
        ]),
        None
    );
    assert_eq!(folder(&[]), None);
}

#[test]
fn a_file_of_ours_has_the_version_that_each_containerd_can_merge() {
    let main = Path::new("/etc/containerd/config.toml");
    let import = "imports = [\"conf.d/*.toml\"]\n";
    let version_of = |version: u32, release: Option<Release>| {
        let text = match version {
            1 => import.to_owned(),
            version => format!("version = {version}\n{import}"),
        };
        let file = drop_in(main, release, &facts(&text).unwrap());
        file.map(|(path, FileVersion(version))| {
            assert_eq!(path, Path::new("/etc/containerd/conf.d/elastic-mem.toml"));
            version
        })
    };
    for (version, release, expected) in [
        // They replace whole sections.
        (2, Some(release(1, 6)), None),
        (2, Some(release(1, 7)), None),
        // They merge files of one version.
        (2, Some(release(2, 1)), Some(2)),
        (3, Some(release(2, 2)), Some(3)),
        // They migrate each file, and none may be above the main file.
        (2, Some(release(2, 3)), Some(2)),
        (4, Some(release(2, 4)), Some(2)),
        (1, Some(release(2, 3)), None),
        // Version 3 is of containerd 2.
        (3, None, Some(3)),
        (2, None, None),
    ] {
        assert_eq!(
            version_of(version, release),
            expected,
            "{version}, {release:?}"
        );
    }
    assert_eq!(
        drop_in(main, Some(release(2, 1)), &facts("version = 3\n").unwrap()),
        None
    );
}

fn runtimes(major: u32) -> Runtimes {
    Runtimes {
        release: Some(release(major, 0)),
        command: PathBuf::from("/usr/local/bin/elastic-mem"),
        shim: None,
        config: None,
        is_default: false,
    }
}

#[test]
fn docker_gets_both_ways_and_everything_else_stays_as_it_is() {
    let before = "{\n    \"z\": 1,\n    \"log-opts\": {\"max-size\": \"1m\"},\n    \"runtimes\": {\n        \"nvidia\": {\"path\": \"n\"}\n    },\n    \"a\": 12345678901234567890\n}\n";
    let after = runtimes(28).added_to(before).unwrap();
    let expected = r#"{
    "z": 1,
    "log-opts": {"max-size": "1m"},
    "runtimes": {
        "nvidia": {"path": "n"},
        "elastic-mem": {
            "runtimeType": "io.containerd.elastic-mem.v1"
        },
        "elastic-mem-oci": {
            "path": "/usr/local/bin/elastic-mem"
        }
    },
    "a": 12345678901234567890
}
"#;
    assert_eq!(after, expected);
    assert_eq!(daemon_json::without(&after, None).unwrap(), before);
    assert_eq!(runtimes(28).added_to(&after).unwrap(), after);
}

#[test]
fn docker_before_24_knows_commands_only() {
    let after = runtimes(20).added_to("").unwrap();
    let expected = "{\n  \"runtimes\": {\n    \"elastic-mem-oci\": {\n      \"path\": \"/usr/local/bin/elastic-mem\"\n    }\n  }\n}\n";
    assert_eq!(after, expected);
}

#[test]
fn another_configuration_file_is_named_on_both_ways() {
    let runtimes = Runtimes {
        config: Some(PathBuf::from("/c.toml")),
        shim: Some(PathBuf::from("/opt/bin/shim")),
        ..runtimes(28)
    };
    let value: serde_json::Value = serde_json::from_str(&runtimes.added_to("{}").unwrap()).unwrap();
    let value = &value["runtimes"];
    assert_eq!(value["elastic-mem"]["runtimeType"], "/opt/bin/shim");
    assert_eq!(value["elastic-mem"]["options"]["ConfigPath"], "/c.toml");
    assert_eq!(value["elastic-mem-oci"]["runtimeArgs"][1], "/c.toml");
}

#[test]
fn the_default_runtime_comes_back() {
    let ours = Runtimes {
        is_default: true,
        ..runtimes(28)
    };
    let before = "{\n  \"default-runtime\": \"nvidia\"\n}\n";
    let after = ours.added_to(before).unwrap();
    assert!(
        after.contains("\"default-runtime\": \"elastic-mem\""),
        "{after}"
    );
    assert_eq!(daemon_json::without(&after, Some(before)).unwrap(), before);
    let after = ours.added_to("{\n}\n").unwrap();
    let rest = daemon_json::without(&after, None).unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&rest).unwrap(),
        serde_json::json!({})
    );
}

#[test]
fn json_keeps_its_line_ends() {
    let before = "{\r\n  \"a\": 1\r\n}\r\n";
    let after = runtimes(28).added_to(before).unwrap();
    assert!(
        after.lines().count() > 8 && !after.replace("\r\n", "").contains('\n'),
        "{after:?}"
    );
    assert_eq!(daemon_json::without(&after, None).unwrap(), before);
}

#[test]
fn what_docker_would_not_read_is_an_error_with_its_line() {
    for (text, line) in [
        ("{\n  \"a\": 1,\n}\n", 3),
        ("{\n  // no comment\n}\n", 2),
        ("[]", 1),
        ("{\"runtimes\": []}", 1),
    ] {
        let mistake = runtimes(28).added_to(text).unwrap_err();
        assert_eq!(mistake.line, line, "{text}: {}", mistake.text);
    }
}

#[test]
fn the_path_of_a_service_is_the_last_one_that_is_set() {
    let texts = [
        "[Service]\nEnvironment=A=1 \"PATH=/one\"\n".to_owned(),
        "[Service]\n# Environment=PATH=/no\nEnvironment=PATH=/two:/usr/bin\n".to_owned(),
    ];
    assert_eq!(unit::path_of(&texts), "/two:/usr/bin");
    assert_eq!(unit::path_of(&[]), unit::DEFAULT_PATH);
    let lines = unit::path_drop_in(Path::new("/f"), "/f:/two");
    assert_eq!(lines, "[Service]\nEnvironment=PATH=/f:/two\n");
}
