//! Runs a function to have its memory traced, or finds a container that somebody else runs.
//!
//! A function is an image, a root file system or a bundle (`bundle`, `image`, `layer`); what a run changes goes to an
//! overlay of its own (`run`), in a folder that does not outlive the command (`scratch`). `create` is run by a process
//! of its own (`runtime::helper`), since libcontainer forks and this process has the sampler's thread. Runs
//! that were not measured are repeated (`series`). A container of any runtime is found by what runtimes leave behind
//! (`attach`).

mod attach;
mod bundle;
mod error;
mod figures;
mod image;
mod input;
mod layer;
mod run;
mod scratch;
mod series;
mod unwatched;
mod user;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::grant::{self, Declared, Described};
use crate::kernel::signals::Signals;
use crate::kernel::{children, mount};
use crate::model;
use crate::model::placement::LocalRatio;
use crate::model::trace::{Context, Trace};
use crate::model::{ClassName, FunctionKey, Mode, Priority, RunId, Setting};
use crate::policy::identity::without_tag;
use crate::policy::settings::FunctionSettings;
use crate::runtime::helper::Settings as HelperSettings;
use crate::sampler::{Sampler, Subject, new_run};
pub use bundle::{Options, Source};
pub use error::{Result, TracerError};
pub use figures::Figures;
pub use image::{ImageConfig, Origin};
pub use input::Bind;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
pub use series::{Event, Outcome, Plan, Series, Verdict};

/// How often those who wait are told so.
const TICK: Duration = Duration::from_millis(100);

/// How this command works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder below which it keeps what it needs for a while. On a disk: what a function writes to its root file
    /// system is page cache there, as it is below an engine.
    pub folder: PathBuf,
    /// Use the systemd cgroup driver.
    pub systemd_cgroup: bool,
    /// The configuration file for the verbs of the runtime.
    pub config_file: Option<PathBuf>,
    /// What it says.
    pub config: Config,
    /// What is done with the memory of functions that are run.
    pub mode: Setting<Mode>,
    /// Log in detail.
    pub debug: bool,
}

/// What a trace says of itself. What is not given is found out.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// `NAMESPACE/NAME`, or `NAME` in the namespace `default`.
    pub function: Option<String>,
    /// The input class.
    pub class: Option<ClassName>,
    /// Numbers that describe the input, besides those that are found out.
    pub features: BTreeMap<String, f64>,
}

/// A function that is ready to run.
#[derive(Debug)]
pub struct Function {
    template: bundle::Template,
    labels: Labels,
    key: FunctionKey,
    image: Option<String>,
    declared: Declared,
    settings: FunctionSettings,
    local_ratio: Option<LocalRatio>,
}

impl Function {
    /// Its name.
    pub fn key(&self) -> &FunctionKey {
        &self.key
    }

    /// How it is treated.
    pub fn settings(&self) -> &FunctionSettings {
        &self.settings
    }

    /// What its traces say.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Has the memory of the next runs placed at this local ratio, whatever the configuration says.
    pub fn place_at(&mut self, ratio: LocalRatio) {
        self.local_ratio = Some(ratio);
    }
}

/// A run or a part of one that was traced.
#[derive(Debug)]
pub struct Traced {
    /// The file, until the tracer is dropped.
    pub file: PathBuf,
    /// Its content.
    pub trace: Trace,
    /// The last lines that the function wrote, if it failed.
    pub last_words: Vec<String>,
}

/// One command that traces. It makes mounts of its own, takes the signals that end a program, adopts orphans, and has
/// a thread that samples.
#[derive(Debug)]
pub struct Tracer {
    sampler: Sampler,
    signals: Signals,
    helper: HelperSettings,
    config: Config,
    mode: Setting<Mode>,
    count: u32,
    // The last one: containers are gone when the folder goes.
    scratch: scratch::Scratch,
}

impl Tracer {
    /// Begins. For a process with a single thread, since threads keep the mounts that they have.
    ///
    /// # Errors
    /// `Sys` without the privileges, `Io` when the folder cannot be made.
    pub fn start(settings: Settings) -> Result<Self> {
        let sys = |what| move |err| TracerError::Sys(what, err);
        mount::enter_own_namespace().map_err(sys("make mounts of its own (this needs root)"))?;
        children::become_subreaper().map_err(sys("adopt orphans"))?;
        let mut set = SigSet::empty();
        for signal in ENDING.into_iter().chain([Signal::SIGCHLD]) {
            set.add(signal);
        }
        let signals = Signals::block(set).map_err(sys("take signals"))?;
        let scratch = scratch::Scratch::create(&settings.folder)?;
        let sampler = Sampler::start(&scratch.path().join("spool"), Priority::Normal)
            .map_err(TracerError::Usage)?;
        Ok(Self {
            sampler,
            signals,
            helper: HelperSettings {
                root: scratch.state(),
                systemd_cgroup: settings.systemd_cgroup,
                config: settings.config_file,
                debug: settings.debug,
            },
            config: settings.config,
            mode: settings.mode,
            count: 0,
            scratch,
        })
    }

    /// Gets a function ready to run.
    ///
    /// # Errors
    /// `Image`, `Usage` or `Io` with what is missing or wrong; `Interrupted`.
    pub fn prepare(
        &self,
        source: &Source,
        options: &Options,
        mut labels: Labels,
    ) -> Result<Function> {
        let mut features = input::features(&options.inputs)?;
        features.append(&mut labels.features);
        labels.features = features;
        let folder = self.scratch.path().join("image");
        image::make_folder(&folder)?;
        let template =
            bundle::prepare(source, options, &folder).map_err(|err| match self.interrupted() {
                // A client of an engine ended by the same Ctrl-C.
                true => TracerError::Interrupted,
                false => err,
            })?;
        let image = match source {
            Source::Image { name, .. } => Some(name.clone()),
            Source::Rootfs(_) | Source::Bundle(_) => None,
        };
        let given = labels.function.as_deref();
        let trusted = self.config.trusted();
        let described = Described::by(&template.config);
        let (namespace, id) = name(source);
        let facts = described.facts(namespace, &id, &trusted);
        let key = given.map_or_else(|| facts.function(), key_of);
        let mut settings = grant::settings(&self.config, &key, &facts);
        // Who sits at the command line comes last.
        settings.mode = self.mode.clone();
        if let Some(class) = &labels.class {
            settings.class = Some(Setting {
                value: class.clone(),
                origin: model::Origin::Option("--class"),
            });
        }
        Ok(Function {
            key,
            declared: Declared::of(&template.config),
            settings,
            template,
            labels,
            image,
            local_ratio: None,
        })
    }

    /// Traces a container that somebody else runs, without touching it, until it ends, `duration` is over or a signal
    /// asks to end; a signal is no error here.
    ///
    /// # Errors
    /// `Container` if there is no such container; `Kernel`.
    pub fn attach(
        &self,
        name: &str,
        root: &Path,
        duration: Option<Duration>,
        labels: Labels,
        tick: &mut dyn FnMut(&Context),
    ) -> Result<Traced> {
        let found = attach::find(name, root)?;
        let function = match labels.function.as_deref() {
            Some(given) => key_of(given),
            None => FunctionKey::new(DEFAULT_NAMESPACE, &found.name),
        };
        let mut context = self.context(&found.name, function, &found.cgroup, Mode::Observe)?;
        context.class = labels.class;
        context.features = labels.features;
        context.image = found.image;
        context.command = found.command;
        let file = self.file_of(&context.run);
        let watched = self.sampler.watch(Subject {
            cgroup: found.cgroup.clone(),
            context: context.clone(),
            plan: None,
            placement: None,
            tell: None,
            publish: None,
            published: false,
        });
        let _granted = watched.started();
        let deadline = duration.and_then(|time| Instant::now().checked_add(time));
        loop {
            let now = Instant::now();
            if self.interrupted() || deadline.is_some_and(|deadline| now >= deadline) {
                break;
            }
            let left = deadline.map_or(TICK, |deadline| (deadline - now).min(TICK));
            let has_ended = match &found.init {
                Some(init) => self.wait(Some(init.as_fd()), left)?,
                None => !self.wait(None, left)? && found.cgroup.is_empty(),
            };
            if has_ended {
                break;
            }
            tick(&context);
        }
        // Nobody else tells how it ended. If its runtime has removed the control group already, the trace ends before.
        let _ = watched.ended(None).written.blocking_recv();
        self.traced(file)
    }

    /// Waits for a descriptor, a signal, or some time; tells whether it was the descriptor.
    fn wait(&self, fd: Option<BorrowedFd<'_>>, time: Duration) -> Result<bool> {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(fd.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, time) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(err) => return Err(TracerError::Sys("wait for the container", err.into())),
        }
        Ok(fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false)))
    }

    /// Whether a signal has asked to end since the last look.
    fn interrupted(&self) -> bool {
        let taken = self.signals.take();
        ENDING
            .iter()
            .any(|signal| taken.contains(&(*signal as i32)))
    }

    fn file_of(&self, run: &RunId) -> PathBuf {
        let name = format!("{run}.csv");
        self.scratch.path().join("spool").join(name)
    }

    /// A trace that was just written.
    fn traced(&self, file: PathBuf) -> Result<Traced> {
        let text =
            std::fs::read_to_string(&file).map_err(|err| TracerError::io("read", &file, err))?;
        let trace = text
            .parse()
            .map_err(|err| TracerError::Usage(format!("{}: {err}", file.display())))?;
        Ok(Traced {
            file,
            trace,
            last_words: Vec::new(),
        })
    }

    fn context(
        &self,
        container: &str,
        function: FunctionKey,
        cgroup: &crate::kernel::cgroup::Cgroup,
        mode: Mode,
    ) -> Result<Context> {
        let host = crate::kernel::host_name();
        let run = new_run(host.as_deref().unwrap_or("host"), container).ok_or_else(|| {
            TracerError::Usage(format!("no run can be named after {container:?}"))
        })?;
        Ok(Context {
            container: Some(container.to_owned()),
            host,
            kernel: crate::kernel::release(),
            cgroup: Some(cgroup.version.number()),
            mode: Some(mode.to_string()),
            ..Context::new(run, function)
        })
    }
}

/// Signals that ask to end.
const ENDING: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// The namespace of functions that nobody put into one.
const DEFAULT_NAMESPACE: &str = "default";

fn key_of(given: &str) -> FunctionKey {
    match given.split_once('/') {
        Some((namespace, name)) => FunctionKey::new(namespace, name),
        None => FunctionKey::new(DEFAULT_NAMESPACE, given),
    }
}

/// The namespace and the id by which the shim would know a function.
fn name(source: &Source) -> (&str, String) {
    match source {
        Source::Image {
            name, namespace, ..
        } => {
            let path = Path::new(name);
            let name = match path.exists() {
                true => path.file_stem().map(|stem| stem.to_string_lossy()),
                false => None,
            };
            let name = name.unwrap_or_else(|| without_tag(path.to_str().unwrap_or("image")).into());
            (namespace.as_str(), name.into_owned())
        }
        Source::Rootfs(path) | Source::Bundle(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            let name = path.file_name().map(|name| name.to_string_lossy());
            (DEFAULT_NAMESPACE, name.unwrap_or_default().into_owned())
        }
    }
}
