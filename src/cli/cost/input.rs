//! Price files, traces and figures, checked before anything is billed.

use std::path::Path;
use std::time::Duration;

use crate::cli::args::{Cost, Measured};
use crate::cli::{Failure, profile};
use crate::config::Config;
use crate::cost::{Catalog, Usage};
use crate::kernel::reason;
use crate::model::trace::{Trace, TraceError};
use crate::model::{Bytes, ClassName, FunctionKey};
use crate::profile::Store;

/// What is billed at each provider.
pub(super) struct Case {
    pub(super) usage: Usage,
    /// Where the usage comes from, unless from figures.
    pub(super) trace: Option<Trace>,
}

/// Width of the bins of the hull.
const BIN: Duration = Duration::from_millis(20);

/// One run, as given or recorded.
struct Run {
    peak: Bytes,
    duration: Duration,
    trace: Option<Trace>,
    /// What gave the peak, for errors.
    origin: String,
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|err| Failure::new(format!("read {}: {}", path.display(), reason(&err))))
}

/// The built-in prices and those of `--providers`.
pub(super) fn catalog(args: &Cost) -> Result<Catalog, Failure> {
    let mut catalog = Catalog::built_in()?;
    for path in &args.providers {
        catalog.add(&read(path)?, &path.display().to_string())?;
    }
    Ok(catalog)
}

/// A run as the options say.
fn given(args: &Cost, duration: Option<Duration>) -> Result<Run, Failure> {
    let peak = args.used.ok_or_else(|| {
        Failure::new("--used is missing: give the memory in use, a --trace or a --function")
    })?;
    let duration = duration.or(args.duration).ok_or_else(|| {
        Failure::new(
            "--duration is missing: give how long one run takes, a --trace or a --function",
        )
    })?;
    if duration.is_zero() {
        return Err(Failure::new(
            "the duration is zero: give how long one run takes",
        ));
    }
    Ok(Run {
        peak,
        duration,
        trace: None,
        origin: "--used".to_owned(),
    })
}

/// A run as a trace has it.
fn recorded(path: &Path) -> Result<Run, Failure> {
    let wrong = |reason: &str| Failure::new(format!("{}: {reason}", path.display()));
    let trace: Trace = read(path)?
        .parse()
        .map_err(|err: TraceError| wrong(&err.to_string()))?;
    if trace.samples.is_empty() {
        return Err(wrong("the trace has no sample"));
    }
    let duration = trace.duration();
    if duration.is_zero() {
        return Err(wrong(
            "the trace has no duration: samples of at least two moments are needed",
        ));
    }
    let peak = trace
        .peak(|sample| sample.usage)
        .ok_or_else(|| wrong("no sample has a value in column usage"))?;
    Ok(Run {
        peak,
        duration,
        trace: Some(trace),
        origin: format!("{}: the peak of", path.display()),
    })
}

/// A run as the profile of a function has it.
fn learned(args: &Cost, function: &FunctionKey, config: &Config) -> Result<Run, Failure> {
    let store = Store::new(&config.profile_folder.value, config.keep_traces.value);
    let profile = profile::known(&store, function, store.profile(function))?;
    let name = args.class.clone().unwrap_or_else(ClassName::all);
    let class = profile.classes.get(&name).ok_or_else(|| {
        let names = profile.classes.keys().map(ClassName::as_str);
        Failure::new(profile::unknown(
            &format!("{function} has no class"),
            name.as_str(),
            names,
        ))
    })?;
    let trace = class.as_trace();
    let peak = trace.peak(|sample| sample.usage).unwrap_or_default();
    if class.duration.is_zero() {
        return Err(Failure::new(format!(
            "the runs of {function} have no duration: trace it again"
        )));
    }
    Ok(Run {
        peak,
        duration: class.duration,
        trace: Some(trace),
        origin: format!("{function}: the peak of"),
    })
}

/// The usage at a run, with the memory that an option declares.
fn case(args: &Cost, run: Run, declared: Option<(&str, Bytes)>) -> Result<Case, Failure> {
    if let Some((option, size)) = declared.filter(|(_, size)| run.peak > *size) {
        return Err(Failure::new(format!(
            "{} {} is more than {option} {size}: a function cannot use more than it declares",
            run.origin, run.peak
        )));
    }
    Ok(Case {
        usage: Usage {
            allocated: declared.map(|(_, size)| size),
            cpu_time: args.cpu_time,
            cpus: args.vcpu,
            free: args.free,
            ..Usage::flat(run.peak, run.duration, args.requests)
        },
        trace: run.trace,
    })
}

/// What is billed: one case, or one for each size of `--what-if`.
pub(super) fn cases(args: &Cost, config: &Config) -> Result<Vec<Case>, Failure> {
    if args.what_if.is_empty() {
        let run = match (&args.trace, &args.function) {
            (Some(path), _) => recorded(path)?,
            (None, Some(function)) => learned(args, function, config)?,
            (None, None) => given(args, None)?,
        };
        let declared = args.allocated.map(|size| ("--allocated", size));
        return Ok(vec![case(args, run, declared)?]);
    }
    args.what_if
        .iter()
        .map(|what_if| {
            let run = match &what_if.measured {
                Some(Measured::Trace(path)) => recorded(path).map_err(|err| {
                    // A duration with a mistake is taken for a file.
                    if path.exists() {
                        return err;
                    }
                    let given = path.display();
                    Failure::new(format!(
                        "--what-if {given}: no duration, such as 1.6s, and no trace: {}",
                        err.text
                    ))
                })?,
                Some(Measured::Duration(duration)) => given(args, Some(*duration))?,
                None => given(args, None)?,
            };
            case(args, run, Some(("--what-if", what_if.size)))
        })
        .collect()
}

/// The width of the bins of the hull.
pub(super) fn bin(args: &Cost, cases: &[Case]) -> Result<Duration, Failure> {
    match args.bin {
        None => Ok(BIN),
        Some(_) if cases.iter().all(|case| case.trace.is_none()) => Err(Failure::new(
            "--bin is the width of the bins of a trace: give a --trace or a --function",
        )),
        Some(bin) if bin.is_zero() => Err(Failure::new("--bin is zero: a bin has a width")),
        Some(bin) => Ok(bin),
    }
}
