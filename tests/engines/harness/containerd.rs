//! Private containerds.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::command::spawn_plain;
use super::daemon::{self, Shared};
use super::{Cmd, eventually, host, image, leaks, processes};

/// The environment variable that every process of a daemon inherits.
pub const MARK: &str = "ELASTIC_MEM_ENGINES_MARK";

/// What our settings say of single functions.
const FUNCTIONS: &str = r#"
weights.own = true
memory.annotations = [
  "function", "class", "input-bytes", "mode", "slo-ms", "ceiling", "floor", "local-ratio", "placement",
]
[functions."*/placed"]
local-ratio = 0.25
[functions."*/tuned"]
mode = "elastic"
"#;

/// A containerd with root, state, sockets and shims of its own.
pub struct Containerd {
    pub engine: String,
    package: PathBuf,
    dir: TempDir,
    /// The containerd namespace of all containers, and their parent cgroup.
    pub namespace: String,
    child: Mutex<Option<Child>>,
    /// How often it was ended by [`Containerd::end`].
    ends: AtomicUsize,
}

/// The containerd that all tests of an engine share.
pub fn shared(engine: &str) -> Arc<Containerd> {
    static SHARED: Shared<Containerd> = Shared::new();
    SHARED.get(engine, Containerd::start, || SHARED.end())
}

impl Containerd {
    /// Starts the daemon and gives it the image.
    pub fn start(engine: &str) -> Self {
        Self::prepare_and_start(engine, |_| {})
    }

    /// The same with a small file system below its state.
    pub fn start_with_small_state(engine: &str) -> Self {
        Self::prepare_and_start(engine, |dir| {
            let state = dir.join("state");
            fs::create_dir(&state).expect("state");
            let kind = Some("tmpfs");
            mount(kind, &state, kind, MsFlags::empty(), Some("size=1m")).expect("tmpfs");
        })
    }

    /// The same with our program in front of one of runc's, under its name.
    pub fn start_with_stand_in(engine: &str, name: &str) -> Self {
        Self::prepare_and_start(engine, |dir| {
            let link = dir.join("bin").join(name);
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(host::our_program(), link).expect("link");
        })
    }

    /// The same with the CRI plugin, which kubelet calls, and the runtime class of `config/containerd.toml`.
    pub fn start_with_cri(engine: &str) -> Self {
        Self::prepare_and_start(engine, |dir| {
            let file = dir.join("config.toml");
            let plain = fs::read_to_string(&file).expect("config");
            // Everything but what makes pods.
            let enabled = [
                "io.containerd.grpc.v1.cri",
                "io.containerd.cri.v1.images",
                "io.containerd.cri.v1.runtime",
            ];
            let plain = enabled.iter().fold(plain, |text, plugin| {
                text.replace(&format!("\"{plugin}\", "), "")
                    .replace(&format!("\"{plugin}\",\n"), "\n")
            });
            let class = include_str!("../../../config/containerd.toml");
            let class = class
                .split("\n# The second form")
                .next()
                .expect("the first form");
            let class = class.replace("\nversion = 2\n", "\n").replace(
                "/etc/elastic-mem/config.toml",
                &dir.join("elastic-mem.toml").to_string_lossy(),
            );
            // Not every machine may lower oom_score_adj.
            let cri = format!(
                r#"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{}"
restrict_oom_score_adj = true
disable_apparmor = true
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "{dir}/cni"
bin_dir = "/usr/lib/cni"
{class}"#,
                image::PAUSE,
                dir = dir.display(),
            );
            fs::write(&file, plain + &cri).expect("config");
        })
    }

    /// The same after a change of its folder, in which everything is that it will find.
    pub fn prepare_and_start(engine: &str, prepare: impl FnOnce(&Path)) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        sweep();
        let package = host::engine(engine).expect("the engine is there");
        let pid = std::process::id();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let daemon = Self {
            engine: engine.to_owned(),
            package,
            dir: tempfile::Builder::new()
                .prefix(&format!("eme-{pid}-{number}-"))
                .tempdir()
                .expect("daemon directory"),
            namespace: format!("eme-{pid}-{number}"),
            child: Mutex::new(None),
            ends: AtomicUsize::new(0),
        };
        let bin = daemon.dir().join("bin");
        fs::create_dir(&bin).expect("bin");
        std::os::unix::fs::symlink(host::our_program(), bin.join(host::SHIM)).expect("link");
        let runc = host::runc_program().expect("runc");
        std::os::unix::fs::symlink(runc, bin.join("runc")).expect("link");
        fs::write(daemon.dir().join("config.toml"), daemon.config()).expect("config");
        let settings = format!(
            "profile.folder = {:?}\n{FUNCTIONS}[functions.\"*-unwatched\"]\nmode = \"off\"\n",
            daemon.profiles()
        );
        fs::write(daemon.settings(), settings).expect("settings");
        prepare(daemon.dir());
        daemon.launch();
        let import = daemon
            .ctr()
            .args(["images", "import"])
            .arg(image::oci_tar())
            .output();
        assert_eq!(import.code, 0, "{import}");
        daemon
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir().join("c.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.dir().join("containerd.log")
    }

    /// The bundle of a container that has a task.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.dir()
            .join("state/io.containerd.runtime.v2.task")
            .join(&self.namespace)
            .join(id)
    }

    fn config(&self) -> String {
        let dir = self.dir().display();
        format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt"]
[grpc]
address = "{dir}/c.sock"
[ttrpc]
address = "{dir}/c.sock.ttrpc"
"#
        )
    }

    /// The configuration of our runtimes below this daemon: as it is without one, but traces lie with the daemon,
    /// functions whose name ends in `-unwatched` leave none, those called `placed` have a local ratio, and the limit of those
    /// called `tuned` is moved.
    pub fn settings(&self) -> PathBuf {
        self.dir().join("elastic-mem.toml")
    }

    /// Where traces lie.
    pub fn profiles(&self) -> PathBuf {
        self.dir().join("profiles")
    }

    /// Starts the daemon's process and waits until it answers.
    pub fn launch(&self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("log");
        let mut command = Command::new(self.package.join("usr/bin/containerd"));
        command
            .arg("--config")
            .arg(self.dir().join("config.toml"))
            .env("PATH", self.path())
            .env("ELASTIC_MEM_CONFIG", self.settings())
            .env(MARK, self.mark())
            .current_dir(self.dir())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("clone"))
            .stderr(log);
        *self.child.lock().expect("child") = Some(spawn_plain(&mut command));
        let answers = eventually(|| (self.ctr().arg("version").output().code == 0).then_some(()));
        assert!(
            answers.is_some(),
            "{} does not start:\n{}",
            self.engine,
            self.log_tail()
        );
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        let child = self.child.lock().expect("child");
        child.as_ref().expect("it runs").id()
    }

    /// Ends the daemon's process. Shims and containers stay.
    pub fn end(&self, signal: Signal) {
        self.ends.fetch_add(1, Ordering::Relaxed);
        let child = self.child.lock().expect("child").take();
        if let Some(child) = child {
            daemon::stop(child, signal);
        }
    }

    /// Whether clients may have lost it in the middle of something.
    pub fn was_killed(&self) -> bool {
        self.ends.load(Ordering::Relaxed) > 0
    }

    /// Our links first, then the daemon's own programs.
    fn path(&self) -> String {
        format!(
            "{}:{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            self.dir().join("bin").display(),
            self.package.join("usr/bin").display()
        )
    }

    fn mark(&self) -> &str {
        &self.namespace
    }

    /// The client, in our namespace.
    pub fn ctr(&self) -> Cmd {
        Cmd::new(self.package.join("usr/bin/ctr"))
            .arg("-a")
            .arg(self.socket())
            .arg("-n")
            .arg(&self.namespace)
    }

    pub fn log_tail(&self) -> String {
        daemon::tail(&self.log())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.end(Signal::SIGTERM);
        leaks::destroy(&self.namespace, self.dir());
    }
}

/// Removes what test processes that were killed have left.
pub fn sweep() {
    static DONE: std::sync::Once = std::sync::Once::new();
    DONE.call_once(|| {
        for entry in fs::read_dir(std::env::temp_dir())
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let mut words = name.split('-');
            let (Some("eme"), Some(pid), Some(number)) = (words.next(), words.next(), words.next())
            else {
                continue;
            };
            if pid.parse().is_ok_and(|pid| !processes::is_alive(pid)) {
                leaks::destroy(&format!("eme-{pid}-{number}"), &entry.path());
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    });
}
