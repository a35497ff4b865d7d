//! Install, use, upgrade under running containers, uninstall: with engines that read what was installed.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::harness::command::write_executable;
use crate::harness::containerd::Containerd;
use crate::harness::dockerd::{Dockerd, containerd_of};
use crate::harness::{Case, Cmd, Outcome, eventually, host, processes, skip};

ours_on_every_containerd! {
    install_use_upgrade_uninstall,
    what_containerd_refuses_is_taken_back,
}

/// An installation whose prefix is the folder of a daemon: its `bin` is first in the PATH of that.
struct Installation {
    dir: PathBuf,
    path: String,
}

impl Installation {
    fn new(dir: &Path, engines: &[&str]) -> Self {
        let mut path = String::new();
        for engine in engines {
            let package = host::engine(engine).expect("engine").display().to_string();
            path += &format!("{package}/usr/bin:{package}/usr/sbin:");
        }
        // This host's systemd is not asked for anything.
        let log = dir.join("systemctl.log");
        let script = format!("#!/bin/sh\necho \"$@\" >>{}\n", log.display());
        let fake = dir.join("fake");
        fs::create_dir_all(&fake).expect("folder");
        write_executable(&fake.join("systemctl"), script.as_bytes());
        Self {
            dir: dir.to_owned(),
            path: format!("{}:{path}/usr/sbin:/usr/bin:/sbin:/bin", fake.display()),
        }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    fn run(&self, program: &Path, line: &str) -> Outcome {
        let install = ["--prefix", "--containerd-config", "--docker-config"]
            .into_iter()
            .zip([
                self.dir.clone(),
                self.file("config.toml"),
                self.file("daemon.json"),
            ]);
        let mut cmd = Cmd::new(program)
            .args(line.split_whitespace())
            .arg("--sysconfdir")
            .arg(self.file("etc"))
            .env("PATH", &self.path);
        if line.starts_with("install") {
            for (option, value) in install {
                cmd = cmd.arg(option).arg(value);
            }
        }
        cmd.output()
    }

    fn ok(&self, program: &Path, line: &str) -> String {
        let outcome = self.run(program, line);
        assert_eq!(outcome.code, 0, "{outcome}");
        outcome.stdout
    }

    fn program(&self) -> PathBuf {
        self.file("bin/elastic-mem")
    }

    /// Another program that does the same: the next version.
    fn newer(&self) -> PathBuf {
        let newer = self.file("newer");
        fs::copy(host::our_program(), &newer).expect("copy");
        let mut file = File::options().append(true).open(&newer).expect("open");
        file.write_all(b"newer").expect("append");
        drop(file);
        fs::set_permissions(&newer, fs::Permissions::from_mode(0o755)).expect("mode");
        newer
    }

    /// Puts the next version in place, and checks that it is another file.
    fn upgrade(&self) {
        let inode = |path: PathBuf| fs::metadata(path).expect("program").ino();
        let before = inode(self.program());
        let newer = self.newer();
        let said = self.ok(&newer, "install none");
        assert!(
            said.contains(&format!("changed {}", self.program().display())),
            "{said}"
        );
        assert_ne!(inode(self.program()), before);
        assert_eq!(
            fs::read(self.program()).expect("read"),
            fs::read(newer).expect("read")
        );
    }

    /// Takes it out. Other containers of this host, which are none of ours, do not count.
    fn uninstall(&self, own: &str) -> String {
        let outcome = self.run(&self.program(), "uninstall --restart");
        if outcome.code != 0
            && outcome
                .stderr
                .contains("containers of elastic-mem are there")
        {
            assert!(!outcome.stderr.contains(own), "{outcome}");
            return self.ok(&self.program(), "uninstall --restart --force");
        }
        assert_eq!(outcome.code, 0, "{outcome}");
        outcome.stdout
    }

    /// What is in the folders that an installation writes to.
    fn is_gone(&self) {
        for path in [
            "etc",
            "share",
            "lib",
            "bin/elastic-mem",
            "bin/containerd-shim-elastic-mem-v1",
        ] {
            assert!(!self.file(path).exists(), "{path} is left");
        }
    }
}

/// The configuration with the CRI plugin, which the shared daemons do without.
fn with_cri(dir: &Path, imports: bool) -> String {
    let file = dir.join("config.toml");
    let mut text = fs::read_to_string(&file).expect("config");
    for plugin in [
        "io.containerd.grpc.v1.cri",
        "io.containerd.cri.v1.images",
        "io.containerd.cri.v1.runtime",
    ] {
        let word = format!("\"{plugin}\",");
        assert!(text.contains(&word), "{text}");
        text = text.replace(&word, "");
    }
    if imports {
        fs::create_dir(dir.join("conf.d")).expect("folder");
        let line = format!(
            "version = 2\nimports = [\"{}/conf.d/*.toml\"]\n",
            dir.display()
        );
        text = text.replacen("version = 2\n", &line, 1);
    }
    fs::write(&file, &text).expect("config");
    // The link of the bench to the command under test: containerd is to find what is installed.
    fs::remove_file(dir.join("bin").join(host::SHIM)).expect("link");
    text
}

fn install_use_upgrade_uninstall(c: &mut Case) {
    let engine = c.daemon.engine.clone();
    let has_imports = engine == "containerd-2.1";
    let mut before = String::new();
    c.daemon = Arc::new(Containerd::prepare_and_start(&engine, |dir| {
        before = with_cri(dir, has_imports);
        let installation = Installation::new(dir, &[&engine]);
        let said = installation.ok(&host::our_program(), "install containerd");
        assert!(said.contains("systemctl restart containerd"), "{said}");
        let again = installation.ok(&host::our_program(), "install containerd");
        assert!(again.contains("nothing to change"), "{again}");
    }));
    let installation = Installation::new(c.daemon.dir(), &[&engine]);
    let main = installation.file("config.toml");
    let text = |path: &Path| fs::read_to_string(path).expect("read");
    // One of the two has the class, by version.
    let drop_in = installation.file("conf.d/elastic-mem.toml");
    assert_eq!(text(&main) == before, has_imports);
    assert_eq!(drop_in.exists(), has_imports);
    // The plugin has started with it.
    let plugins = c.ok("plugins ls").stdout;
    let cri = plugins
        .lines()
        .find(|line| line.contains(" cri ") || line.contains("io.containerd.cri.v1 "));
    assert!(
        cri.is_some_and(|line| line.trim_end().ends_with("ok")),
        "{plugins}"
    );

    c.up("", "a");
    let (pid, shim) = (c.pid("a"), c.shim_pid("a"));
    let refused = installation.run(&installation.program(), "uninstall");
    assert_ne!(refused.code, 0, "{refused}");
    assert!(refused.stderr.contains(&c.id("a")), "{refused}");

    installation.upgrade();
    assert!(processes::is_alive(shim) && processes::is_alive(pid));
    let outcome = c.exec("", "a", "x", "echo hello; exit 3").output();
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (3, "hello\n"),
        "{outcome}"
    );
    // A new container has the new program, beside the old one.
    c.up("", "b");
    assert_eq!(c.shim_pid("a"), shim);
    c.down("b");
    c.down("a");

    let said = installation.uninstall(&c.id(""));
    let (path, word) = match has_imports {
        true => (&drop_in, "removed"),
        false => (&main, "restored"),
    };
    assert!(
        said.contains(&format!("{word} {}", path.display())),
        "{said}"
    );
    assert_eq!(text(&main), before);
    assert!(!drop_in.exists());
    installation.is_gone();
}

/// A section of an imported file that replaces ours, and a file that containerd never understood.
fn what_containerd_refuses_is_taken_back(c: &mut Case) {
    let engine = c.daemon.engine.clone();
    let folder = tempfile::tempdir().expect("folder");
    let dir = folder.path();
    let installation = Installation::new(dir, &[&engine]);
    let program = host::our_program();
    let main = dir.join("config.toml");
    let fails = |needles: &[&str]| {
        let text = fs::read_to_string(&main).expect("config");
        let outcome = installation.run(&program, "install containerd");
        assert_ne!(outcome.code, 0, "{outcome}");
        for needle in needles {
            assert!(
                outcome.stderr.contains(needle),
                "no {needle:?} in {outcome}"
            );
        }
        assert_eq!(fs::read_to_string(&main).expect("config"), text);
        assert!(!dir.join("config.toml.before-elastic-mem").exists());
    };
    fs::write(&main, "version = 2\nroot = 5\n").expect("config");
    fails(&["does not accept", "as it is", "nothing was changed"]);
    let is_old = engine != "containerd-2.1";
    if is_old {
        let import = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.other]\nruntime_type = \"io.containerd.runc.v2\"\n";
        fs::write(dir.join("other.toml"), import).expect("import");
        let text = format!(
            "version = 2\nimports = [\"{}/other.toml\"]\n",
            dir.display()
        );
        fs::write(&main, text).expect("config");
    } else {
        // Version 1 has no table that containerd 2 would take.
        fs::write(&main, "root = \"/var/lib/containerd\"\n").expect("config");
    }
    fails(&[
        "does not accept",
        "with our part",
        "does not show the runtime class",
        "everything is as it was",
    ]);
    // Without a file one is made, and containerd takes it.
    fs::remove_file(&main).expect("remove");
    let said = installation.ok(&program, "install containerd");
    assert!(said.contains(&format!("made {}", main.display())), "{said}");
    installation.ok(&installation.program(), "uninstall --force");
    assert!(!main.exists());
    installation.is_gone();
    c.note("done", "");
}

fn docker(engine: &str) {
    if let Some(reason) = host::unfit() {
        return skip(reason);
    }
    let below = containerd_of(engine);
    for needed in [engine, below] {
        if host::engine(needed).is_none() {
            return skip(&format!("no {needed}; run scripts/engines"));
        }
    }
    let is_new = engine != "docker-20";
    let mut before = String::new();
    let daemon = Dockerd::prepare_and_start(engine, |dir| {
        fs::remove_file(dir.join("bin").join(host::SHIM)).expect("link");
        let file = dir.join("daemon.json");
        let text = fs::read_to_string(&file).expect("config");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        config.as_object_mut().expect("object").remove("runtimes");
        before = config.to_string();
        fs::write(&file, &before).expect("config");
        let installation = Installation::new(dir, &[engine]);
        let said = installation.ok(&host::our_program(), "install docker --default");
        assert!(said.contains("systemctl reload docker"), "{said}");
        assert!(!said.contains("not checked"), "{said}");
        let again = installation.ok(&host::our_program(), "install docker --default");
        assert!(again.contains("nothing to change"), "{again}");
    });
    let installation = Installation::new(daemon.dir(), &[engine]);
    let ok = |line: &str| {
        let outcome = daemon.docker().args(line.split_whitespace()).output();
        assert_eq!(outcome.code, 0, "{outcome}");
        outcome.stdout.trim().to_owned()
    };
    let default = ok("info --format {{.DefaultRuntime}}");
    assert_eq!(
        default,
        if is_new {
            "elastic-mem"
        } else {
            "elastic-mem-oci"
        }
    );
    let runtimes: &[&str] = match is_new {
        true => &["elastic-mem", "elastic-mem-oci"],
        false => &["elastic-mem-oci"],
    };
    let mut ids = Vec::new();
    for runtime in runtimes {
        let run = format!(
            "run --detach --network none --runtime {runtime} --name i-{runtime} bb:1 sleep 1000"
        );
        ids.push(ok(&run));
    }
    let refused = installation.run(&installation.program(), "uninstall");
    assert_ne!(refused.code, 0, "{refused}");
    assert!(
        ids.iter().all(|id| refused.stderr.contains(id)),
        "{refused}"
    );

    installation.upgrade();
    for runtime in runtimes {
        assert_eq!(ok(&format!("exec i-{runtime} echo hello")), "hello");
        ok(&format!("kill i-{runtime}"));
        assert_eq!(ok(&format!("wait i-{runtime}")), "137");
        ok(&format!("rm i-{runtime}"));
        // The new one.
        assert_eq!(
            ok(&format!(
                "run --rm --network none --runtime {runtime} bb:1 echo new"
            )),
            "new"
        );
    }
    // The monitor of a container ends a moment after it.
    let gone = eventually(|| {
        let left = elastic_names();
        ids.iter().all(|id| !left.contains(id)).then_some(())
    });
    assert!(gone.is_some(), "{}", elastic_names());
    let said = installation.uninstall(&ids[0]);
    let file = installation.file("daemon.json");
    assert!(
        said.contains(&format!("restored {}", file.display())),
        "{said}"
    );
    assert_eq!(fs::read_to_string(file).expect("config"), before);
    installation.is_gone();
}

/// The names of everything below the folder of our containers.
fn elastic_names() -> String {
    let outcome = Cmd::new("find")
        .arg("/run/elastic-mem")
        .arg("-maxdepth")
        .arg("3")
        .output();
    outcome.stdout
}

mod docker_20 {
    #[test]
    fn install_use_upgrade_uninstall() {
        super::docker("docker-20");
    }
}

mod docker_28 {
    #[test]
    fn install_use_upgrade_uninstall() {
        super::docker("docker-28");
    }
}
