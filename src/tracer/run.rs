//! One run: an overlay, a bundle, a container, a trace.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::error::{Result, TracerError};
use super::image::make_folder;
use super::series::Event;
use super::unwatched::Unwatched;
use super::{Function, Traced, Tracer};
use crate::grant;
use crate::kernel::{children, mount};
use crate::model::placement::LocalRatio;
use crate::model::plan::Plan;
use crate::model::trace::Context;
use crate::model::{ContainerId, Mode};
use crate::runtime::helper::{Failure, Streams, prepare};
use crate::runtime::{self, Container, Store, chain};
use crate::sampler::{Subject, Watched};

/// So much of what a function wrote is kept.
const LAST_WORDS: u64 = 4096;
/// So many lines of it are told.
const MOST_LINES: usize = 10;

/// Begins what `create` says; engines want it, and who reads our message knows it.
const CREATE_FAILED: &str = "elastic-mem create failed: ";

/// What a run is given, besides what the function is.
#[derive(Debug, Clone, Default)]
pub(super) struct Circumstances {
    /// What the function reads from its standard input; nothing, if absent.
    pub(super) stdin: Option<PathBuf>,
    /// Whether its output goes where ours goes.
    pub(super) show_output: bool,
    /// It is killed after that.
    pub(super) timeout: Option<Duration>,
}

/// How a run ended.
#[derive(Debug)]
pub(super) enum Ran {
    /// It ended with this code, and this is the trace if there is one.
    Ended(i32, Option<Box<Traced>>),
    /// It was killed for taking too long.
    TimedOut,
}

/// Who looks at a run.
enum Looks {
    /// The sampler, all the time.
    Sampler(Watched),
    /// Nobody but at its ends.
    Ends(Box<Unwatched>),
}

impl Tracer {
    /// Runs a function once.
    ///
    /// # Errors
    /// `Verb` when it cannot be run, `Interrupted`; `Io`, `Sys` when the circumstances cannot be made.
    pub(super) fn run(
        &mut self,
        function: &Function,
        circumstances: &Circumstances,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Ran> {
        self.count = self.count.wrapping_add(1);
        let ground = Ground::lay(
            &self.scratch.path().join(format!("run-{}", self.count)),
            function,
        )?;
        let store = Store::new(&self.helper.root);
        let id = format!("trace-{}-{}", std::process::id(), self.count);
        let id: ContainerId = id.parse().map_err(runtime::RuntimeError::from)?;
        let mut output = Output::open(&ground.path, circumstances)?;
        let removal = Removal {
            store: &store,
            id: &id,
        };
        self.create(&ground.path, &id, function.local_ratio, &mut output)?;
        let container = store.load(&id)?;
        let init = container
            .state
            .init
            .ok_or(runtime::RuntimeError::NotRunning)?;

        let cgroup = &container.state.cgroup;
        let plan = grant::plan_for(
            &self.config,
            &function.key,
            &function.settings,
            &function.labels.features,
            function.declared,
            Some(cgroup),
        );
        watch(Event::Planned(&plan));
        let mut context = self.context(id.as_str(), function.key.clone(), cgroup, plan.mode)?;
        context.class.clone_from(&function.labels.class);
        context.features.clone_from(&function.labels.features);
        context.image.clone_from(&function.image);
        context.command = function.command();
        context.ceiling = function.declared.limit;
        if let Some(placement) = &container.state.placement {
            context.place(placement);
        }
        let file = self.file_of(&context.run);
        let looks = self.look_after(&container, context, plan)?;
        let ended = start(&container).and_then(|()| {
            let mut tick = || watch(Event::Goes);
            self.wait_for(init.pid, circumstances.timeout, &mut tick)
        });
        let code = ended.as_ref().ok().copied().flatten();
        // The last sample is taken before the control group goes.
        let written = match looks {
            Looks::Sampler(watched) => {
                let ended = watched.ended(code);
                // An error means that there is no trace.
                let _ = ended.read.blocking_recv();
                drop(removal);
                matches!(ended.written.blocking_recv(), Ok(Some(_)))
            }
            Looks::Ends(unwatched) => unwatched.end(code, &file)?,
        };
        let Some(code) = ended? else {
            return Ok(Ran::TimedOut);
        };
        let trace = match written {
            true => Some(Box::new(Traced {
                last_words: output.last_words(),
                ..self.traced(file)?
            })),
            false => None,
        };
        Ok(Ran::Ended(code, trace))
    }

    /// Has a container that was created looked after; its first grant is in force when this returns.
    fn look_after(&self, container: &Container, context: Context, plan: Plan) -> Result<Looks> {
        let cgroup = &container.state.cgroup;
        if plan.mode == Mode::Off {
            return Unwatched::begin(cgroup, context)
                .map(Box::new)
                .map(Looks::Ends);
        }
        let grants = plan.mode.grants();
        let watched = self.sampler.watch(Subject {
            cgroup: cgroup.clone(),
            context,
            plan: grants.then_some(plan),
            placement: container.state.placement.clone(),
            tell: None,
            publish: None,
            published: false,
        });
        // Without grants the first sample is taken while the program is let go.
        let granted = watched.started();
        if grants {
            // An error means that there is no trace.
            let _ = granted.blocking_recv();
        }
        Ok(Looks::Sampler(watched))
    }

    fn create(
        &self,
        bundle: &Path,
        id: &ContainerId,
        ratio: Option<LocalRatio>,
        output: &mut Output,
    ) -> Result<()> {
        let fail = |failure: Failure| TracerError::Verb {
            verb: "create",
            reason: match failure.text.strip_prefix(CREATE_FAILED) {
                Some(reason) => reason.to_owned(),
                None => failure.text,
            },
            cut_off: failure.cut_off,
        };
        let bundle = bundle.as_os_str();
        let ratio = ratio.map(|ratio| format!("--local-ratio={ratio}"));
        let args = ["create".as_ref(), "--bundle".as_ref(), bundle]
            .into_iter()
            .chain(ratio.as_ref().map(std::ffi::OsStr::new))
            .chain([id.as_ref().as_os_str()]);
        let (mut process, log) = {
            let (mut command, log) =
                prepare(&self.helper, args, output.streams()?, None).map_err(fail)?;
            let process = command
                .spawn()
                .map_err(|err| fail(Failure::new("cannot run a helper", &err)))?;
            (process, log)
        };
        let status = process
            .wait()
            .map_err(|err| TracerError::Sys("wait for a helper", err))?;
        log.outcome(children::code_of(status)).map_err(fail)
    }

    /// Waits for the end of a process that has become our child; its exit code, none if it was killed after `timeout`.
    fn wait_for(
        &self,
        pid: i32,
        timeout: Option<Duration>,
        tick: &mut dyn FnMut(),
    ) -> Result<Option<i32>> {
        let deadline = timeout.and_then(|time| Instant::now().checked_add(time));
        loop {
            while let Some(ended) = children::reap() {
                if ended.pid == pid {
                    return Ok(Some(i32::try_from(ended.code).unwrap_or(i32::MAX)));
                }
            }
            if self.interrupted() {
                return Err(TracerError::Interrupted);
            }
            let now = Instant::now();
            let left = match deadline {
                Some(deadline) if now >= deadline => return Ok(None),
                Some(deadline) => (deadline - now).min(super::TICK),
                None => super::TICK,
            };
            self.wait(None, left)?;
            tick();
        }
    }
}

impl Function {
    fn command(&self) -> Vec<String> {
        let args = self.template.config.pointer("/process/args");
        args.and_then(|args| serde_json::from_value(args.clone()).ok())
            .unwrap_or_default()
    }
}

fn start(container: &Container) -> Result<()> {
    runtime::start(container).map_err(|err| TracerError::Verb {
        verb: "start",
        reason: chain(&err),
        cut_off: false,
    })
}

/// Kills and removes a container, whatever became of it.
struct Removal<'a> {
    store: &'a Store,
    id: &'a ContainerId,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        if let Err(err) = runtime::delete(self.store, self.id, true) {
            tracing::warn!(reason = chain(&err), id = %self.id, "container left behind");
        }
        // Its init, if nobody has waited for it.
        while children::reap().is_some() {}
    }
}

/// The bundle of a run: the root file system of the function, and a place for what the run changes.
struct Ground {
    path: PathBuf,
}

impl Ground {
    fn lay(path: &Path, function: &Function) -> Result<Self> {
        make_folder(path)?;
        let ground = Self {
            path: path.to_path_buf(),
        };
        let [upper, work, rootfs] = ["upper", "work", "rootfs"].map(|name| path.join(name));
        for folder in [&upper, &work, &rootfs] {
            make_folder(folder)?;
        }
        let lower = &function.template.lower;
        mount::overlay(lower, &upper, &work, &rootfs).map_err(|err| match err.raw_os_error() {
            Some(libc::EINVAL) => TracerError::Usage(format!(
                "no overlay over {} with what is changed in {}: this kernel has none, or that file system cannot hold \
                 changes (an overlay cannot; profile.folder says where it is)",
                lower.display(),
                upper.display()
            )),
            _ => TracerError::io("mount an overlay over", lower, err),
        })?;
        let config = path.join("config.json");
        fs::write(&config, function.template.config.to_string())
            .map_err(|err| TracerError::io("write", &config, err))?;
        Ok(ground)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let result = mount::unmount_all(&self.path.join("rootfs"))
            .and_then(|()| fs::remove_dir_all(&self.path));
        if let Err(err) = result {
            tracing::warn!(%err, path = %self.path.display(), "folder left behind");
        }
    }
}

/// The streams of a run.
struct Output {
    stdin: Option<PathBuf>,
    /// What it writes, if that is not shown.
    kept: Option<File>,
}

impl Output {
    fn open(folder: &Path, circumstances: &Circumstances) -> Result<Self> {
        let path = folder.join("output");
        let kept = match circumstances.show_output {
            true => None,
            false => Some(
                File::options()
                    .read(true)
                    .append(true)
                    .create_new(true)
                    .open(&path)
                    .map_err(|err| TracerError::io("create", &path, err))?,
            ),
        };
        Ok(Self {
            stdin: circumstances.stdin.clone(),
            kept,
        })
    }

    fn streams(&self) -> Result<Streams> {
        let dup = |file: &File| {
            file.try_clone()
                .map(Stdio::from)
                .map_err(|err| TracerError::Sys("duplicate a descriptor", err))
        };
        let stdin = match &self.stdin {
            None => Stdio::null(),
            Some(path) => File::open(path)
                .map(Stdio::from)
                .map_err(|err| TracerError::io("read", path, err))?,
        };
        let (stdout, stderr) = match &self.kept {
            // Standard output is for what this command itself has to say.
            None => {
                let ours = || {
                    let fd = std::os::fd::AsFd::as_fd(&std::io::stderr()).try_clone_to_owned();
                    fd.map(Stdio::from)
                        .map_err(|err| TracerError::Sys("duplicate a descriptor", err))
                };
                (ours()?, ours()?)
            }
            Some(file) => (dup(file)?, dup(file)?),
        };
        Ok(Streams {
            stdin,
            stdout,
            stderr,
        })
    }

    fn last_words(&mut self) -> Vec<String> {
        let Some(file) = &mut self.kept else {
            return Vec::new();
        };
        let mut bytes = Vec::new();
        let length = file.metadata().map_or(0, |meta| meta.len());
        // What cannot be read is not told.
        let _ = file
            .seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))
            .and_then(|_| file.read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let skipped = lines.len().saturating_sub(MOST_LINES);
        lines.into_iter().skip(skipped).map(str::to_owned).collect()
    }
}
