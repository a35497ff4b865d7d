//! `trace`: has a function traced, shows how it goes, and puts the traces where they are wanted.

mod progress;
mod report;

use std::fs;
use std::path::{Path, PathBuf};

use super::args::{self, TraceFormat};
use super::{Failure, output, plot};
use crate::config::Config;
use crate::kernel::reason;
use crate::model::profile::BinWidth;
use crate::model::{FunctionKey, Mode, Origin, Setting};
use crate::policy::learn;
use crate::profile::{Store, TRACING};
use crate::tracer::{
    Figures, Labels, Options, Outcome, Plan, Series, Settings, Source, Traced, Tracer, TracerError,
    Verdict,
};
use progress::Progress;

/// What the command needs of its surroundings.
pub(super) struct Surroundings {
    /// The configuration, and the file that it is from.
    pub(super) config: Config,
    pub(super) config_file: Option<PathBuf>,
    /// State folder of this runtime.
    pub(super) root: PathBuf,
    pub(super) systemd_cgroup: bool,
    pub(super) debug: bool,
}

/// As a shell says that a program was ended by SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

pub(super) fn run(args: &args::Trace, around: Surroundings) -> Result<(), Failure> {
    if let Some(folder) = &args.output {
        // What cannot be written is found out before anything is run.
        fs::create_dir_all(folder).map_err(|err| {
            Failure::new(format!("create {}: {}", folder.display(), reason(&err)))
        })?;
    }
    let labels = labels(&args.function);
    if args.mode == Mode::Off && args.plot.is_some() {
        return Err(Failure::new(
            "--plot: with --mode off nobody looks at the memory, so there is no picture of it",
        ));
    }
    let folder = around.config.profile_folder.value.clone();
    let store = Store::new(&folder, around.config.keep_traces.value);
    let mut tracer = Tracer::start(Settings {
        folder: folder.join(TRACING),
        systemd_cgroup: around.systemd_cgroup,
        config_file: around.config_file,
        config: around.config,
        mode: Setting {
            value: args.mode,
            origin: Origin::Option("--mode"),
        },
        debug: around.debug,
    })?;
    if let Some(name) = &args.attach {
        return attach(&tracer, args, name, &around.root, labels, &store);
    }
    let plan = Plan {
        runs: args.runs,
        retries: args.retries,
        keep_going: args.keep_going,
        allow_failure: args.allow_failure,
        stdin: args.function.stdin.clone(),
        show_output: args.show_output,
        timeout: args.timeout,
    };
    let mut progress = Progress::begin(&plan, args.mode);
    progress.prepares();
    let function = tracer
        .prepare(&source(&args.function)?, &options(&args.function), labels)
        .map_err(failure)?;
    let series = tracer
        .series(&function, &plan, &mut |event| progress.event(&event))
        .map_err(failure);
    progress.end();
    let series = series?;
    for outcome in &series.outcomes {
        if let (Some(folder), Some(traced)) = (&args.output, &outcome.traced) {
            keep(traced, folder, args.format)?;
        }
    }
    if !series.outcomes.is_empty() {
        let table = match args.mode {
            Mode::Observe => report::table(&series.outcomes),
            _ => report::grants(&series.outcomes),
        };
        output::text(&table)?;
    }
    let good: Vec<&Traced> = series
        .outcomes
        .iter()
        .filter(|outcome| outcome.verdict == Verdict::Good)
        .filter_map(|outcome| outcome.traced.as_ref())
        .collect();
    // A run that nobody looked at tells nothing.
    if !args.no_store && args.mode != Mode::Off && !good.is_empty() {
        output::text(&learn(&store, function.key(), &good)?)?;
    }
    if let Some(picture) = &args.plot
        && !good.is_empty()
    {
        // The grant of one run says nothing of that of another.
        let skipped = match args.mode.grants() {
            true => good.len() - 1,
            false => 0,
        };
        let drawn = good.iter().skip(skipped);
        plot::draw(
            drawn.map(|traced| traced.file.clone()).collect(),
            picture,
            &store,
        )?;
    }
    told(&series, &plan)
}

/// An interruption has an exit code of its own.
pub(super) fn failure(err: TracerError) -> Failure {
    let code = match err {
        TracerError::Interrupted => INTERRUPTED,
        _ => 1,
    };
    Failure {
        code,
        ..Failure::from(err)
    }
}

/// What a run is called by.
pub(super) fn labels(args: &args::Function) -> Labels {
    Labels {
        function: args.function.clone(),
        class: args.class.clone(),
        features: args.features.iter().cloned().collect(),
    }
}

/// What is run.
pub(super) fn source(args: &args::Function) -> Result<Source, Failure> {
    match (&args.image, &args.rootfs, &args.bundle) {
        (Some(name), ..) => Ok(Source::Image {
            name: name.clone(),
            origin: args.from,
            namespace: args.namespace.clone(),
        }),
        (_, Some(folder), _) => Ok(Source::Rootfs(folder.clone())),
        (_, _, Some(folder)) => Ok(Source::Bundle(folder.clone())),
        (None, None, None) => Err(Failure::new("give an image, --rootfs or --bundle")),
    }
}

/// What it is run with.
pub(super) fn options(args: &args::Function) -> Options {
    Options {
        command: args.command.clone(),
        env: args.env.clone(),
        mounts: args.mounts.clone(),
        inputs: args.inputs.clone(),
        memory: args.memory,
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        host_network: args.host_network,
    }
}

fn attach(
    tracer: &Tracer,
    args: &args::Trace,
    name: &str,
    root: &Path,
    labels: Labels,
    store: &Store,
) -> Result<(), Failure> {
    let mut progress = Progress::attached(args.duration);
    let traced = tracer.attach(name, root, args.duration, labels, &mut |context| {
        progress.goes(context);
    });
    progress.end();
    let traced = traced.map_err(failure)?;
    if let Some(folder) = &args.output {
        keep(&traced, folder, args.format)?;
    }
    if let Some(picture) = &args.plot {
        plot::draw(vec![traced.file.clone()], picture, store)?;
    }
    let outcome = Outcome {
        number: 1,
        attempts: 1,
        verdict: Verdict::Good,
        traced: Some(traced),
    };
    Ok(output::text(&report::table(&[outcome]))?)
}

/// Adds runs to what is known of a function, all or none; what to tell of that.
pub(super) fn learn(
    store: &Store,
    function: &FunctionKey,
    runs: &[&Traced],
) -> Result<String, Failure> {
    let mut digests = Vec::new();
    let mut traces = Vec::new();
    for traced in runs {
        let digest = learn::digest(&traced.trace, BinWidth::default())
            .map_err(|err| Failure::new(format!("{}: {err}", traced.file.display())))?;
        traces.push((digest.run.clone(), traced.trace.to_string()));
        digests.push(digest);
    }
    let added = store.add(function, digests, &traces)?;
    Ok(format!(
        "{function}: learned from {} more run{}, {} in all\n",
        added.new,
        if added.new == 1 { "" } else { "s" },
        added.kept
    ))
}

/// Puts a trace into a folder; it appears there whole or not at all.
fn keep(traced: &Traced, folder: &Path, format: TraceFormat) -> Result<(), Failure> {
    // The name of a run holds points.
    let name = traced
        .file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let (ending, text) = match format {
        TraceFormat::Csv => ("csv", traced.trace.to_string()),
        TraceFormat::Json => ("json", report::json(&traced.trace)?),
    };
    let path = folder.join(format!("{name}.{ending}"));
    let scratch = folder.join(format!("{name}.new"));
    fs::write(&scratch, text)
        .and_then(|()| fs::rename(&scratch, &path))
        .map_err(|err| Failure::new(format!("write {}: {}", path.display(), reason(&err))))
}

/// Why the command fails, if it does: what was wanted was not measured.
fn told(series: &Series, plan: &Plan) -> Result<(), Failure> {
    if series.is_good(plan) {
        return Ok(());
    }
    let good = series
        .outcomes
        .iter()
        .filter(|outcome| outcome.verdict == Verdict::Good)
        .count();
    let (code, why) = match series.outcomes.iter().find_map(why) {
        _ if series.interrupted => (INTERRUPTED, "interrupted".to_owned()),
        Some(why) => (1, why),
        None => (1, "not all were made".to_owned()),
    };
    Err(Failure {
        code,
        text: format!("{good} of {} runs were measured: {why}", plan.runs),
    })
}

fn why(outcome: &Outcome) -> Option<String> {
    match &outcome.verdict {
        Verdict::Good => None,
        Verdict::Failed(why) | Verdict::NotMeasured(why) => {
            Some(format!("run {}: {why}", outcome.number))
        }
    }
}

/// The figures of an outcome, if it has any.
fn figures(outcome: &Outcome) -> Option<Figures> {
    outcome
        .traced
        .as_ref()
        .map(|traced| Figures::of(&traced.trace))
}
