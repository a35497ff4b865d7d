//! The commands `install` and `uninstall`, below a folder that stands for the root of a host. Needs no root.
//!
//! With real engines: tests/engines/install.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::{Cmd, Outcome, host, skip};

const MAIN: &str = "etc/containerd/config.toml";
const DAEMON: &str = "etc/docker/daemon.json";
const K3S: &str = "var/lib/rancher/k3s/agent/etc/containerd";
const BACKUP: &str = ".before-elastic-mem";
const MAIN_TEXT: &str =
    "version = 2\n# mine\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"p\"\n";
const DAEMON_TEXT: &str = "{\"b\":1,   \"a\": [1,2]}";

/// A host below a folder, with traces of every engine.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("folder"));
        place.write(MAIN, MAIN_TEXT);
        place.write(DAEMON, DAEMON_TEXT);
        place.write(&format!("{K3S}/config.toml"), "version = 3\n");
        place.write("usr/bin/faasd", "#!/bin/sh\n");
        let everyone = fs::Permissions::from_mode(0o755);
        fs::set_permissions(place.path("usr/bin/faasd"), everyone).expect("mode");
        let unit = "[Service]\nEnvironment=PATH=/own/bin:/usr/bin\n";
        place.write("etc/systemd/system/containerd.service", unit);
        place
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, text).expect("write");
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
    }

    fn cmd(&self, line: &str) -> Cmd {
        let cmd = Cmd::new(host::our_program()).args(line.split_whitespace());
        cmd.arg("--destdir").arg(self.0.path())
    }

    fn run(&self, line: &str) -> Outcome {
        self.cmd(line).output()
    }

    fn ok(&self, line: &str) -> String {
        let outcome = self.run(line);
        assert_eq!(outcome.code, 0, "{outcome}");
        outcome.stdout
    }

    /// Every file with mode and content, every link with its target, every folder.
    fn tree(&self) -> Tree {
        let mut found = BTreeMap::new();
        let mut rest = vec![self.0.path().to_owned()];
        while let Some(path) = rest.pop() {
            let data = fs::symlink_metadata(&path).expect("metadata");
            let content = if data.is_dir() {
                let entries = fs::read_dir(&path).expect("folder").flatten();
                rest.extend(entries.map(|entry| entry.path()));
                Vec::new()
            } else if data.is_symlink() {
                let target = fs::read_link(&path).expect("link");
                target.into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).expect("read")
            };
            let inside = path.strip_prefix(self.0.path()).expect("inside");
            let mode = data.permissions().mode();
            found.insert(inside.to_owned(), (mode, content));
        }
        found
    }

    /// # Panics
    /// When a file is not as it was.
    fn assert_is(&self, expected: &Tree, when: &str) {
        let tree = self.tree();
        let paths = tree.keys().chain(expected.keys());
        let different: BTreeSet<_> = paths
            .filter(|path| tree.get(*path) != expected.get(*path))
            .collect();
        assert!(different.is_empty(), "{when}: {different:?}");
    }
}

type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// Whether the command under test has these verbs at all.
fn is_ours() -> bool {
    let is_ours = host::name_of(&host::our_program()) != "runc";
    if !is_ours {
        skip("runc cannot install itself");
    }
    is_ours
}

#[test]
fn every_engine_is_told_and_forgets_byte_for_byte() {
    if !is_ours() {
        return;
    }
    let place = Place::new();
    let before = place.tree();
    place.ok("install");
    for (file, needle) in [
        (
            MAIN,
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.elastic-mem]",
        ),
        (DAEMON, "\"runtimeType\": \"io.containerd.elastic-mem.v1\""),
        (DAEMON, "\"path\": \"/usr/local/bin/elastic-mem\""),
        (
            "etc/systemd/system/containerd.service.d/elastic-mem.conf",
            "Environment=PATH=/usr/local/lib/elastic-mem/runc-compat:/own/bin:/usr/bin\n",
        ),
        ("etc/elastic-mem/config.toml", "#mode = \"elastic\""),
        ("usr/local/share/man/man1/elastic-mem-install.1", "destdir"),
        (
            "usr/local/share/bash-completion/completions/elastic-mem",
            "uninstall",
        ),
    ] {
        let text = place.read(file);
        assert!(text.contains(needle), "{file}: {text}");
    }
    let template = place.read(&format!("{K3S}/config-v3.toml.tmpl"));
    assert!(
        template.starts_with("{{ template \"base\" . }}\n"),
        "{template}"
    );
    assert!(
        template.contains("cri.v1.runtime\".containerd.runtimes.elastic-mem]"),
        "{template}"
    );
    assert!(!place.path(&format!("{K3S}/config.toml.tmpl")).exists());
    let compat = place.path("usr/local/lib/elastic-mem/runc-compat/containerd-shim-runc-v2");
    let program = place.path("usr/local/bin/elastic-mem");
    assert_eq!(
        fs::canonicalize(compat).expect("link"),
        fs::canonicalize(&program).expect("program")
    );

    let installed = place.tree();
    let again = place.ok("install");
    assert!(again.contains("nothing to change"), "{again}");
    place.assert_is(&installed, "now");

    place.ok("uninstall");
    place.assert_is(&before, "now");
    let again = place.ok("uninstall");
    assert!(again.contains("nothing is installed"), "{again}");
}

#[test]
fn the_shim_is_the_same_program_under_its_own_name() {
    if !is_ours() {
        return;
    }
    let place = Place::new();
    place.ok("install none --prefix /usr");
    let shim = place.path("usr/bin/containerd-shim-elastic-mem-v1");
    // It also holds when the tree is moved to its place later.
    assert_eq!(
        fs::read_link(&shim).expect("link"),
        Path::new("elastic-mem")
    );
    let said = Cmd::new(&shim).arg("-v").output();
    assert!(
        said.stdout.contains("containerd-shim-elastic-mem-v1"),
        "{said}"
    );
    // A package manager keeps a list of its own; nothing else is where programs look for configuration.
    let folder = fs::read_dir(place.path("etc/elastic-mem")).expect("folder");
    let names: Vec<_> = folder.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["config.toml"]);
    assert_eq!(place.read(MAIN), MAIN_TEXT);
    // What the operator has made of it stays.
    place.write("etc/elastic-mem/config.toml", "# mine\n");
    place.ok("install none --prefix /usr");
    assert_eq!(place.read("etc/elastic-mem/config.toml"), "# mine\n");
}

#[test]
fn what_would_be_done_is_shown_and_not_done() {
    if !is_ours() {
        return;
    }
    let place = Place::new();
    let before = place.tree();
    let shown = place.ok("install --dry-run");
    place.assert_is(&before, "now");
    for line in [
        "--- /etc/containerd/config.toml\n+++ /etc/containerd/config.toml\n@@ -2,3 +2,",
        "+runtime_type = \"io.containerd.elastic-mem.v1\"\n",
        "\\ No newline at end of file\n",
        "would make /usr/local/bin/elastic-mem\n",
    ] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }
    // No colours where nobody looks.
    assert!(!shown.contains('\x1b'));
    place.ok("install");
    let installed = place.tree();
    let shown = place.ok("uninstall --dry-run");
    assert!(
        shown.contains("would restore /etc/docker/daemon.json"),
        "{shown}"
    );
    place.assert_is(&installed, "now");
}

#[test]
fn of_files_that_somebody_has_changed_our_part_alone_is_taken_out() {
    if !is_ours() {
        return;
    }
    let place = Place::new();
    place.ok("install");
    let main = place.read(MAIN).replace("# mine", "# theirs") + "[debug]\nlevel = \"info\"\n";
    place.write(MAIN, &main);
    let daemon = place.read(DAEMON).replace("\"b\":1", "\"b\":2");
    place.write(DAEMON, &daemon);
    place.write("etc/elastic-mem/config.toml", "[log]\nlevel = \"debug\"\n");
    // A second run takes the changes for what was there before us.
    place.ok("install");
    let said = place.ok("uninstall");
    for line in [
        "restored /etc/containerd/config.toml\n",
        "kept /etc/elastic-mem/config.toml: it is somebody else's by now\n",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }
    let expected = MAIN_TEXT.replace("# mine", "# theirs") + "[debug]\nlevel = \"info\"\n";
    assert_eq!(place.read(MAIN), expected);
    let value: serde_json::Value = serde_json::from_str(&place.read(DAEMON)).expect("JSON");
    assert_eq!(value, serde_json::json!({"b": 2, "a": [1, 2]}));

    // Without a second run in between.
    place.ok("install containerd");
    place.write(MAIN, &place.read(MAIN).replace("# theirs", "# more"));
    let said = place.ok("uninstall containerd");
    assert!(
        said.contains("took our part out of /etc/containerd/config.toml"),
        "{said}"
    );
    assert_eq!(place.read(MAIN), expected.replace("# theirs", "# more"));
    assert!(!place.path(&format!("{MAIN}{BACKUP}")).exists());
    // Named alone, the engine has forgotten us; the program is still there.
    assert!(place.path("usr/local/bin/elastic-mem").exists());
}

#[test]
fn what_is_there_already_is_left_alone() {
    if !is_ours() {
        return;
    }
    let place = Place::new();
    let own = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.elastic-mem]\nruntime_type = \"x\"\n";
    place.write(MAIN, own);
    let daemon = "{\"runtimes\": {\"elastic-mem\": {\"path\": \"/mine\"}}}";
    place.write(DAEMON, daemon);
    let template = format!("{K3S}/config-v3.toml.tmpl");
    place.write(&template, "version = 3\n# all my own\n");
    let said = place.ok("install");
    assert_eq!(place.read(MAIN), own);
    assert_eq!(place.read(DAEMON), daemon);
    assert!(
        said.contains("there already") && said.contains(MAIN) && said.contains(DAEMON),
        "{said}"
    );
    // A template that takes in nothing is somebody's choice: it is kept, with our tables behind it.
    assert!(
        place
            .read(&template)
            .starts_with("version = 3\n# all my own\n\n# elastic-mem: begin")
    );
    place.ok("uninstall");
    assert_eq!(place.read(&template), "version = 3\n# all my own\n");
    // Without the CRI plugin there are no classes.
    place.write(MAIN, "disabled_plugins = [\"cri\"]\n");
    let said = place.ok("install containerd");
    assert!(said.contains("the CRI plugin is off"), "{said}");
    assert_eq!(place.read(MAIN), "disabled_plugins = [\"cri\"]\n");
}

#[test]
fn what_cannot_be_done_is_said_and_nothing_is_half_done() {
    if !is_ours() {
        return;
    }
    let place = Place::new();
    let before = place.tree();
    let fails = |line: &str, needles: &[&str]| {
        let outcome = place.run(line);
        assert_ne!(outcome.code, 0, "{outcome}");
        for needle in needles {
            assert!(
                outcome.stderr.contains(needle),
                "no {needle:?} in {outcome}"
            );
        }
    };
    fails(
        "install rke2 docker",
        &["rke2 was not found", "/var/lib/rancher/rke2"],
    );
    fails("install none docker", &["none stands for no engine"]);
    fails("uninstall none", &["name no engine"]);
    fails("install --prefix usr", &["must be absolute"]);
    fails("install podman", &["invalid value 'podman'", "containerd"]);
    fails("install --restart", &["--destdir"]);
    place.assert_is(&before, "now");

    place.ok("install none --prefix /opt");
    place.ok("install docker --prefix /opt");
    fails("install --prefix /usr", &["installed below /opt already"]);
    place.ok("uninstall");
    fs::remove_dir_all(place.path("opt")).expect("staged files");
    fs::remove_dir_all(place.path("etc/elastic-mem")).expect("staged files");
    place.assert_is(&before, "after it");

    // The others go on.
    place.write(MAIN, "version = 2\n\n[plugins\n");
    place.write(DAEMON, "{\n \"a\": 1,\n}\n");
    fails(
        "install",
        &[
            "config.toml, line 3: ",
            "daemon.json, line 3: trailing comma",
        ],
    );
    assert_eq!(place.read(MAIN), "version = 2\n\n[plugins\n");
    assert!(place.path(&format!("{K3S}/config-v3.toml.tmpl")).exists());

    place.write(
        MAIN,
        "version = 2\nplugins = {\"io.containerd.grpc.v1.cri\" = {}}\n",
    );
    fails(
        "install containerd",
        &["config.toml", "cannot be added at its end"],
    );
    place.write(MAIN, "version = 2\n# elastic-mem: begin\n");
    fails("install containerd", &["line 2: our lines begin here"]);
    fs::write(place.path(MAIN), b"version = 2\n# \xff\n").expect("write");
    fails("install containerd", &["config.toml, line 2: not UTF-8"]);
    place.write("etc/elastic-mem/installed.json", "{\"version\": 9}");
    fails("install", &["installed.json"]);
    fails("uninstall", &["installed.json"]);
}

#[test]
fn links_owners_and_modes_of_files_stay() {
    if !is_ours() {
        return;
    }
    let place = Place::new();
    let real = place.path("srv/daemon.json");
    place.write("srv/daemon.json", DAEMON_TEXT);
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("mode");
    fs::remove_file(place.path(DAEMON)).expect("remove");
    symlink(&real, place.path(DAEMON)).expect("link");
    let before = place.tree();
    place.ok("install docker");
    assert_eq!(fs::read_link(place.path(DAEMON)).expect("link"), real);
    let mode = fs::metadata(&real).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(place.read("srv/daemon.json").contains("elastic-mem-oci"));
    let backup = fs::metadata(place.path(&format!("{DAEMON}{BACKUP}"))).expect("backup");
    assert_eq!(backup.permissions().mode() & 0o777, 0o640);
    place.ok("uninstall");
    place.assert_is(&before, "now");
}

#[test]
fn a_killed_run_is_completed_or_taken_back_by_the_next() {
    if !is_ours() {
        return;
    }
    let place = Place::new();
    let before = place.tree();
    let start = Instant::now();
    place.ok("install");
    // How long it takes depends on how the program was built.
    let whole = start.elapsed();
    let complete = place.tree();
    place.ok("uninstall");
    for step in 0..24_u32 {
        let mut running = place.cmd("install").spawn();
        std::thread::sleep(whole * step / 24);
        let _ = running.child.kill();
        drop(running);
        if step % 2 == 0 {
            place.ok("install");
            let (mut now, mut then) = (place.tree(), complete.clone());
            // Which folders were there is found anew.
            let record = Path::new("etc/elastic-mem/installed.json");
            assert!(now.remove(record).is_some() && then.remove(record).is_some());
            assert_eq!(
                now.keys().collect::<Vec<_>>(),
                then.keys().collect::<Vec<_>>(),
                "step {step}"
            );
            assert!(now == then, "step {step}");
            let mut running = place.cmd("uninstall").spawn();
            std::thread::sleep(Duration::from_millis(u64::from(step) * 2));
            let _ = running.child.kill();
        }
        place.ok("uninstall");
        place.assert_is(&before, &format!("step {step}"));
    }
}

#[test]
fn two_at_once_wait_for_each_other() {
    if !is_ours() {
        return;
    }
    let place = Place::new();
    let before = place.tree();
    let running: Vec<_> = (0..4).map(|_| place.cmd("install").spawn()).collect();
    let outcomes: Vec<_> = running.into_iter().map(|one| one.wait()).collect();
    let (first, rest): (Vec<_>, Vec<_>) = outcomes
        .iter()
        .partition(|one| one.stdout.contains("made /usr/local/bin/elastic-mem\n"));
    assert_eq!((first.len(), rest.len()), (1, 3));
    for outcome in rest {
        assert!(outcome.stdout.contains("nothing to change"), "{outcome}");
    }
    let running: Vec<_> = ["uninstall", "install", "uninstall"]
        .map(|verb| place.cmd(verb).spawn())
        .into();
    for one in running {
        let outcome = one.wait();
        assert_eq!(outcome.code, 0, "{outcome}");
    }
    place.ok("uninstall");
    place.assert_is(&before, "now");
}
