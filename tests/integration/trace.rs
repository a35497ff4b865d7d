//! The command `trace`: real runs of a function, and containers that somebody else runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use elastic_mem::model::trace::{Sample, Trace};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Case, Cmd, Outcome, eventually, host, ours_beyond_runc};

/// A configuration with a store of its own, and a folder for traces.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Self {
            folder: tempfile::Builder::new()
                .prefix("elastic-mem-trace-")
                .tempdir()
                .expect("folder"),
        };
        let text = format!("[profile]\nfolder = {:?}\n", place.path("store"));
        fs::write(place.path("config.toml"), text).expect("configuration");
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn cmd(&self, c: &Case) -> Cmd {
        c.cmd()
            .arg("--config")
            .arg(self.path("config.toml"))
            .args(["trace", "--output"])
            .arg(self.path("traces"))
    }

    /// Runs a shell script in the container's root file system.
    pub fn script(&self, c: &Case, options: &[&str], script: &str) -> Outcome {
        self.cmd(c)
            .arg("--rootfs")
            .arg(c.rootfs())
            .args(options)
            .args(["--", "sh", "-c", script])
            .output()
    }

    pub fn traces(&self) -> Vec<Trace> {
        let mut paths: Vec<PathBuf> = fs::read_dir(self.path("traces"))
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("entry").path())
            .collect();
        paths.sort();
        paths
            .iter()
            .map(|path| {
                let text = fs::read_to_string(path).expect("trace");
                text.parse().unwrap_or_else(|err| panic!("{path:?}: {err}"))
            })
            .collect()
    }

    /// What the command keeps below its store between commands.
    pub fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("store/tracing"))
            .into_iter()
            .flatten();
        entries
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .filter(|name| name != "lock")
            .collect()
    }
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

fn held(trace: &Trace) -> u64 {
    trace.peak(Sample::held).expect("held").get()
}

/// Holds so much memory in a variable of the shell, for a while: the shell goes on after that, and so does not become
/// the program that waits.
const HOLD_16_MIB: &str = "x=$(head -c 16777216 /dev/zero | tr '\\0' x); sleep 0.3; :";

#[test]
fn every_run_of_a_function_is_traced() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let out = place.script(c, &["-n", "2", "--class", "small"], HOLD_16_MIB);
        assert_eq!(out.code, 0, "{out}");
        assert_eq!(out.stdout.matches(" ok\n").count(), 2, "{out}");
        assert!(out.stderr.contains("run 2 of 2: "), "{out}");
        let traces = place.traces();
        assert_eq!(traces.len(), 2);
        for trace in &traces {
            let context = trace.context.as_ref().expect("context");
            assert_eq!(context.function.as_str(), "default/rootfs");
            assert_eq!(context.class.as_ref().expect("class").as_str(), "small");
            assert_eq!(context.command[0], "sh");
            let end = trace.end.expect("end");
            assert_eq!(end.code, Some(0));
            // The shell keeps one copy, and has a second one for an instant.
            assert!((16..40).contains(&mib(held(trace))), "{}", held(trace));
            assert!(end.peak.expect("peak").get() >= held(trace));
            assert!(trace.duration() >= Duration::from_millis(200));
            assert!(trace.cpu_time().expect("CPU") > Duration::ZERO);
            assert!(trace.samples.len() > 10, "{}", trace.samples.len());
        }
        let runs: Vec<_> = traces
            .iter()
            .map(|t| t.context.as_ref().expect("context").run.clone())
            .collect();
        assert!(runs[0] < runs[1], "{runs:?}");
    });
}

#[test]
fn good_runs_are_learned_from_and_drawn() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let picture = place.path("hull.svg");
        let plot = picture.to_string_lossy().into_owned();
        let out = place.script(
            c,
            &["-n", "3", "--class", "a", "--plot", &plot],
            HOLD_16_MIB,
        );
        assert_eq!(out.code, 0, "{out}");
        assert!(
            out.stdout
                .contains("default/rootfs: learned from 3 more runs, 3 in all"),
            "{out}"
        );
        let drawn = fs::read_to_string(&picture).expect("picture");
        assert!(
            drawn.contains("default/rootfs") && drawn.ends_with("</svg>\n"),
            "{drawn}"
        );
        let shown = || {
            let out = c
                .cmd()
                .arg("--config")
                .arg(place.path("config.toml"))
                .args(["profile", "show", "default/rootfs", "--json"])
                .output();
            assert_eq!(out.code, 0, "{out}");
            serde_json::from_str::<Value>(&out.stdout).expect("JSON")
        };
        let before = shown();
        // What failed, and what is not to be learned, changes nothing.
        place.script(c, &["-n", "1"], "exit 3");
        let out = place.script(c, &["-n", "1", "--no-store"], "true");
        assert_eq!(out.code, 0, "{out}");
        assert!(!out.stdout.contains("learned"), "{out}");
        assert_eq!(shown(), before);
        let out = place.script(c, &["-n", "1"], "true");
        assert!(
            out.stdout.contains("learned from 1 more run, 4 in all"),
            "{out}"
        );
        assert_ne!(shown(), before);
    });
}

#[test]
fn the_shortest_run_has_a_trace() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let out = place
            .cmd(c)
            .arg("--rootfs")
            .arg(c.rootfs())
            .args(["-n", "5", "--", "true"])
            .output();
        assert_eq!(out.code, 0, "{out}");
        assert_eq!(place.traces().len(), 5);
    });
}

#[test]
fn a_run_changes_nothing_and_leaves_nothing() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        // Each run finds the root file system as it was.
        let script = "test ! -e /made && echo x > /made && rm /etc/group && mkdir /folder";
        let out = place.script(c, &["-n", "2"], script);
        assert_eq!(out.code, 0, "{out}");
        let rootfs = c.rootfs();
        assert!(!rootfs.join("made").exists() && !rootfs.join("folder").exists());
        assert!(rootfs.join("etc/group").exists());
        assert_eq!(place.left(), Vec::<String>::new());
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        assert!(
            !mounts.contains(&*place.folder.path().to_string_lossy()),
            "{mounts}"
        );

        c.script("echo x > /tmp/made; cat /proc/self/cgroup; exit 7");
        c.bundle.spec["root"]["readonly"] = json!(false);
        c.bundle.write();
        let before = fs::read(c.bundle.config()).expect("config");
        let out = place
            .cmd(c)
            .arg("--bundle")
            .arg(c.bundle.path())
            .args(["--show-output", "-n", "1"])
            .output();
        assert_eq!(out.code, 1, "{out}");
        assert!(
            out.stderr.contains("the function ended with code 7"),
            "{out}"
        );
        // The group that the bundle names belongs to somebody else.
        assert!(!out.stderr.contains(c.cgroup()), "{out}");
        assert_eq!(fs::read(c.bundle.config()).expect("config"), before);
        assert!(!c.rootfs().join("tmp/made").exists());
        assert_eq!(place.left(), Vec::<String>::new());
    });
}

#[test]
fn inputs_are_there_and_described() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let gif = b"GIF89a\x03\x00\x05\x00\x00\x00\x00;";
        fs::write(place.path("in.gif"), gif).expect("input");
        fs::write(place.path("words"), "from standard input").expect("input");
        let input = format!("{}:/in/picture", place.path("in.gif").display());
        let words = place.path("words").to_string_lossy().into_owned();
        let script = "cat; cmp /in/picture /in/picture && echo \" $A\"; : > /in/picture";
        let options = [
            "--input",
            &input,
            "--stdin",
            &words,
            "--env",
            "A=b",
            "--feature",
            "z=2.5",
            "--function",
            "ns/f",
            "--show-output",
            "--allow-failure",
            "-n",
            "1",
        ];
        let out = place.script(c, &options, script);
        assert_eq!(out.code, 0, "{out}");
        assert!(out.stderr.contains("from standard input b"), "{out}");
        assert_eq!(fs::read(place.path("in.gif")).expect("input"), gif);
        let trace = place.traces().pop().expect("trace");
        let context = trace.context.expect("context");
        assert_eq!(context.function.as_str(), "ns/f");
        let features: Vec<(&str, f64)> = context
            .features
            .iter()
            .map(|(k, v)| (k.as_str(), *v))
            .collect();
        assert_eq!(
            features,
            [("input-bytes", 14.0), ("pixels", 15.0), ("z", 2.5)]
        );
    });
}

#[test]
fn a_function_that_fails_is_told_apart_from_one_that_is_killed() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let out = place.script(c, &["-n", "3"], "echo why >&2; exit 3");
        assert_eq!(out.code, 1, "{out}");
        assert!(out.stderr.contains("  | why\n"), "{out}");
        assert!(
            out.stderr
                .contains("0 of 3 runs were measured: run 1: the function ended with code 3"),
            "{out}"
        );
        assert_eq!(place.traces().len(), 1, "it goes on after a failure");
        let out = place.script(c, &["-n", "2", "--keep-going"], "exit 3");
        assert_eq!(out.stdout.matches("ended with code 3").count(), 2, "{out}");
        let out = place.script(c, &["-n", "1", "--allow-failure"], "exit 3");
        assert_eq!(out.code, 0, "{out}");
        let out = place.script(
            c,
            &["-n", "1", "--memory", "8m", "--allow-failure"],
            HOLD_16_MIB,
        );
        assert_eq!(out.code, 1, "{out}");
        assert!(out.stderr.contains("OOM killer"), "{out}");
        let out = place.script(c, &["-n", "1", "--timeout", "100ms"], "sleep 100");
        assert_eq!(out.code, 1, "{out}");
        assert!(out.stderr.contains("not ended after 100ms"), "{out}");
        assert_eq!(place.left(), Vec::<String>::new());
    });
}

#[test]
fn an_interrupted_command_keeps_what_was_finished() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let flag = place.path("flag");
        fs::create_dir(&flag).expect("folder");
        let mount = format!("{}:/flag", flag.display());
        // The first run ends; the second one waits for ever.
        let script =
            "if [ -e /flag/first ]; then touch /flag/second; sleep 1000; fi; touch /flag/first";
        let running = place
            .cmd(c)
            .arg("--rootfs")
            .arg(c.rootfs())
            .args(["-n", "2", "--mount", &mount, "--", "sh", "-c", script])
            .spawn();
        eventually(|| flag.join("second").exists().then_some(())).expect("the second run");
        let pid = i32::try_from(running.child.id()).expect("pid");
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGINT,
        )
        .expect("signal");
        let out = running.wait();
        assert_eq!(out.code, 130, "{out}");
        assert!(
            out.stderr
                .contains("1 of 2 runs were measured: interrupted"),
            "{out}"
        );
        assert_eq!(place.traces().len(), 1);
        assert_eq!(place.left(), Vec::<String>::new());
    });
}

#[test]
fn what_a_killed_command_left_is_removed_by_the_next() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let flag = place.path("flag");
        fs::create_dir(&flag).expect("folder");
        let mount = format!("{}:/flag", flag.display());
        let mut running = place
            .cmd(c)
            .arg("--rootfs")
            .arg(c.rootfs())
            .args([
                "--mount",
                &mount,
                "--",
                "sh",
                "-c",
                "touch /flag/up; sleep 1000",
            ])
            .spawn();
        let is_up = eventually(|| flag.join("up").exists().then_some(())).is_some();
        running.child.kill().expect("kill");
        if !is_up {
            panic!("no run: {}", running.wait());
        }
        running.child.wait().expect("wait");
        let left = place.left();
        assert_eq!(left.len(), 1, "{left:?}");
        let state = place.path("store/tracing").join(&left[0]).join("state");
        let container = fs::read_dir(state)
            .expect("state")
            .flatten()
            .next()
            .expect("container");
        let state = fs::read(container.path().join("state.json")).expect("state");
        let state: Value = serde_json::from_slice(&state).expect("JSON");
        let process = PathBuf::from(format!("/proc/{}", state["init"]["pid"]));
        assert!(process.exists(), "the container should outlive the command");
        let out = place.script(c, &["-n", "1"], "true");
        assert_eq!(out.code, 0, "{out}");
        assert_eq!(place.left(), Vec::<String>::new());
        assert!(eventually(|| (!process.exists()).then_some(())).is_some());
    });
}

#[test]
fn json_says_the_same_as_csv() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let out = place.script(c, &["-n", "1", "--format", "json"], "true");
        assert_eq!(out.code, 0, "{out}");
        let file = fs::read_dir(place.path("traces"))
            .expect("traces")
            .next()
            .expect("one")
            .expect("entry");
        assert!(file.file_name().to_string_lossy().ends_with(".json"));
        let value: Value =
            serde_json::from_slice(&fs::read(file.path()).expect("read")).expect("JSON");
        assert_eq!(value["end"]["code"], 0);
        assert_eq!(value["columns"][1], "usage");
        let samples = value["samples"].as_array().expect("samples");
        assert!(samples.len() > 1 && samples[0][1].is_u64(), "{value}");
    });
}

/// An image of one layer over the container's root file system, as a folder with an image layout.
fn image(c: &Case, folder: &Path, config: &Value) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("folder");
    let layer = blobs.join("layer");
    let tar = Cmd::new("tar")
        .args(["-C"])
        .arg(c.rootfs())
        .args(["-czf"])
        .arg(&layer)
        .arg(".")
        .output();
    assert_eq!(tar.code, 0, "{tar}");
    let document = |name: &str, value: Value| {
        fs::write(blobs.join(name), value.to_string()).expect("blob");
    };
    document("config", json!({"config": config}));
    document(
        "manifest",
        json!({"config": {"digest": "sha256:config"}, "layers": [{"digest": "sha256:layer"}]}),
    );
    let index = json!({"manifests": [{"digest": "sha256:manifest"}]});
    fs::write(folder.join("index.json"), index.to_string()).expect("index");
}

#[test]
fn an_image_is_run_as_it_says() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let layout = place.path("my-image");
        let config = json!({
            "Entrypoint": ["sh", "-c"], "Cmd": ["exit 9"], "Env": ["A=from-the-image"],
            "User": "user", "WorkingDir": "/home/user"
        });
        image(c, &layout, &config);
        let run = |what: &Path, rest: &[&str]| {
            place
                .cmd(c)
                .arg(what)
                .args(["-n", "1", "--show-output"])
                .args(rest)
                .output()
        };
        let out = run(&layout, &[]);
        assert!(out.stderr.contains("ended with code 9"), "{out}");
        let out = run(&layout, &["--", "echo $A; id -u; id -G; pwd"]);
        assert_eq!(out.code, 0, "{out}");
        assert!(
            out.stderr
                .contains("from-the-image\n1000\n1000 50\n/home/user\n"),
            "{out}"
        );
        let context = place
            .traces()
            .pop()
            .expect("trace")
            .context
            .expect("context");
        assert_eq!(context.function.as_str(), "default/my-image");
        // The same as a file, which is what engines save; a client of one that hands it out.
        let file = place.path("saved.tar");
        let tar = Cmd::new("tar")
            .arg("-C")
            .arg(&layout)
            .arg("-cf")
            .arg(&file)
            .arg(".")
            .output();
        assert_eq!(tar.code, 0, "{tar}");
        let out = run(&file, &["--", "true"]);
        assert_eq!(out.code, 0, "{out}");
        assert_eq!(place.left(), Vec::<String>::new());
        let damaged = place.path("damaged.tar");
        let bytes = fs::read(&file).expect("read");
        fs::write(&damaged, &bytes[..bytes.len() / 2]).expect("write");
        let out = run(&damaged, &["--", "true"]);
        assert_eq!(out.code, 1, "{out}");
        assert!(out.stderr.contains("damaged.tar is no image"), "{out}");
        assert_eq!(place.left(), Vec::<String>::new());
    });
}

/// Attaches while a container of `program` runs, and checks the trace of what it did meanwhile.
fn attach(c: &Case, program: &Path, how: impl FnOnce(&Case) -> String) {
    let place = Place::new();
    let call = |args: &[&str]| {
        Cmd::new(program)
            .arg("--root")
            .arg(c.root())
            .args(args)
            .dir(c.bundle.path())
            .output()
    };
    let out = call(&["run", "--detach", c.id()]);
    assert_eq!(out.code, 0, "{out}");
    let tracing = place.cmd(c).args(["--attach", &how(c)]).spawn();
    let out = tracing.wait();
    call(&["delete", "--force", c.id()]);
    assert_eq!(out.code, 0, "{out}");
    let trace = place.traces().pop().expect("trace");
    assert!((16..40).contains(&mib(held(&trace))), "{out}\n{trace}");
    assert!(
        trace.duration() >= Duration::from_millis(200),
        "{:?}",
        trace.duration()
    );
    assert_eq!(place.left(), Vec::<String>::new());
}

#[test]
fn a_running_container_is_traced_until_it_ends() {
    ours_beyond_runc(|c| {
        // Late enough for whoever attaches.
        c.script(&format!("sleep 1; {HOLD_16_MIB}"));
        c.bundle.write();
        let ours = host::our_program();
        attach(c, &ours, |c| c.id().to_owned());
        attach(c, &ours, |c| c.pid().to_string());
        attach(c, &ours, |c| c.cgroup().to_owned());
        // By the name of its control group: nobody has a record where we look.
        let parent = Path::new(c.cgroup()).parent().expect("parent");
        let path = parent.join(format!("0123{}", "ab".repeat(30)));
        c.bundle.spec["linux"]["cgroupsPath"] = json!(path);
        c.bundle.write();
        attach(c, &ours, |_| "0123abab".to_owned());
        if let Some(runc) = host::runc_program() {
            attach(c, &runc, |_| "0123abab".to_owned());
        }
    });
}

#[test]
fn attaching_ends_after_a_time_and_leaves_the_container_alone() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        c.up();
        let out = place
            .cmd(c)
            .args(["--attach", c.id(), "--duration", "200ms"])
            .output();
        assert_eq!(out.code, 0, "{out}");
        assert_eq!(c.status(), "running");
        let trace = place.traces().pop().expect("trace");
        assert!(trace.duration() < Duration::from_secs(10));
        assert_eq!(trace.end.expect("end").code, None);
    });
}

#[test]
fn what_is_wrong_is_named() {
    ours_beyond_runc(|c| {
        let place = Place::new();
        let none = place.path("none").to_string_lossy().into_owned();
        let rootfs = c.rootfs().to_string_lossy().into_owned();
        let cases: [(&[&str], &str); 12] = [
            (&[], "required"),
            (
                &["--rootfs", &rootfs, "--bundle", &rootfs],
                "cannot be used with",
            ),
            (&["--rootfs", &none, "--", "true"], "open root file system"),
            (&["--rootfs", &rootfs], "give the command after --"),
            (
                &["--rootfs", &rootfs, "--", "no-such-program"],
                "no-such-program",
            ),
            (&["--bundle", &rootfs], "config.json"),
            (&["--from", "file", &none], "no such file"),
            (
                &["--rootfs", &rootfs, "--input", &none, "--", "true"],
                "read input",
            ),
            (
                &["--rootfs", &rootfs, "--user", "nobody-here", "--", "true"],
                "in /etc/passwd of the container",
            ),
            (
                &["--rootfs", &rootfs, "--stdin", &none, "--", "true"],
                "no such file",
            ),
            (
                &["--attach", "no-such-container"],
                "no control group is named after it",
            ),
            (
                &["--rootfs", &rootfs, "-n", "0", "--", "true"],
                "0 is not in",
            ),
        ];
        for (args, expected) in cases {
            let out = place.cmd(c).args(args).output();
            assert_eq!(out.code, 1, "{args:?}: {out}");
            assert!(out.stderr.contains(expected), "{args:?}: {out}");
        }
        assert!(place.traces().is_empty());
        assert_eq!(place.left(), Vec::<String>::new());
    });
}
