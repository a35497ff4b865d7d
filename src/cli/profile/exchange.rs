//! Runs from files and to files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Failure, form, known, output, unknown};
use crate::cli::args::profile::{Export, ExportForm, Import, Merge};
use crate::kernel::reason;
use crate::model::profile::{BinWidth, Digest};
use crate::model::trace::{Context, Trace};
use crate::model::{ClassName, FunctionKey, RunId};
use crate::policy::learn::{self, Buffer};
use crate::profile::export;
use crate::profile::import::{self, Form, Imported};
use crate::profile::{Added, Runs, Store, trace_name};

/// What is to be added to one function.
#[derive(Default)]
struct New {
    digests: Vec<Digest>,
    traces: Vec<(RunId, String)>,
}

/// By function.
type News = BTreeMap<FunctionKey, New>;

/// What was added to one function.
pub(super) struct Done {
    pub(super) function: FunctionKey,
    pub(super) added: Added,
    /// How many of the runs that were added did not come to their end.
    pub(super) incomplete: usize,
}

pub(super) fn merge(store: &Store, args: &Merge) -> Result<(), Failure> {
    let mut news = News::new();
    let mut files = Vec::new();
    for path in &args.paths {
        files.extend(exported(path)?);
    }
    if files.is_empty() {
        return Err(Failure::new("there is no exported file in these folders"));
    }
    for file in &files {
        match parse(file, &read(file)?, Form::Runs, None)? {
            Imported::Runs(runs) => add(&mut news, runs.function.clone(), runs),
            Imported::Traces(_) => return Err(Failure::new("runs are no traces")),
        }
    }
    done(store, news, args.json)
}

/// The exported files that a path means: itself, those of a store, or those of a folder.
fn exported(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let functions = path.join("functions");
    if functions.is_dir() {
        let folders = entries(&functions)?.into_iter();
        let files = folders.map(|folder| folder.join("runs.json"));
        return Ok(files.filter(|file| file.is_file()).collect());
    }
    let files = entries(path)?.into_iter();
    Ok(files
        .filter(|file| file.extension().is_some_and(|ending| ending == "json"))
        .collect())
}

/// What is in a folder, by name, without what is hidden.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail =
        |err: std::io::Error| Failure::new(format!("list {}: {}", folder.display(), reason(&err)));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn import(store: &Store, args: &Import) -> Result<(), Failure> {
    let mut news = News::new();
    let mut files = Vec::new();
    for path in &args.paths {
        if path.is_dir() {
            files.extend(entries(path)?.into_iter().filter(|path| path.is_file()));
        } else {
            files.push(path.clone());
        }
    }
    let mut count = 0_usize;
    for file in &files {
        let at = |why: String| Failure::new(format!("{}: {why}", file.display()));
        let text = read(file)?;
        let form = args.form.or_else(|| Form::of(&text)).ok_or_else(|| {
            at("no form of file that is known: if it is one, name it with --form".to_owned())
        })?;
        match parse(file, &text, form, args.interval)? {
            Imported::Runs(runs) => {
                if args.class.is_some() || args.run.is_some() || !args.feature.is_empty() {
                    return Err(at(
                        "an exported file says itself what its runs are called, their classes and features"
                            .to_owned(),
                    ));
                }
                count = count.saturating_add(runs.digests.len());
                let function = args
                    .function
                    .clone()
                    .unwrap_or_else(|| runs.function.clone());
                add(&mut news, function, runs);
            }
            Imported::Traces(traces) => {
                count = count.saturating_add(traces.len());
                for (run, trace) in traces {
                    let trace = with_context(args, run, trace).map_err(at)?;
                    let digest = learn::digest(&trace, BinWidth::default())
                        .map_err(|err| at(err.to_string()))?;
                    let Some(context) = &trace.context else {
                        continue;
                    };
                    let new = news.entry(context.function.clone()).or_default();
                    new.traces.push((digest.run.clone(), trace.to_string()));
                    new.digests.push(digest);
                }
            }
        }
    }
    if count == 0 {
        return Err(Failure::new("there are no files in these folders"));
    }
    if count > 1 && args.run.is_some() {
        return Err(Failure::new(format!(
            "--run names one run, and there are {count}"
        )));
    }
    done(store, news, args.json)
}

/// What the command line says of a run wins over what its file says.
fn with_context(args: &Import, run: RunId, mut trace: Trace) -> Result<Trace, String> {
    let mut context = match (trace.context.take(), &args.function) {
        (Some(context), None) => context,
        (Some(context), Some(function)) => Context {
            function: function.clone(),
            ..context
        },
        (None, Some(function)) => Context::new(run.clone(), function.clone()),
        (None, None) => {
            return Err(
                "does not say which function ran: name it with --function NAMESPACE/NAME"
                    .to_owned(),
            );
        }
    };
    context.run = args.run.clone().unwrap_or(run);
    context.class = args.class.clone().or(context.class);
    context.features.extend(args.feature.iter().cloned());
    trace.context = Some(context);
    Ok(trace)
}

fn add(news: &mut News, function: FunctionKey, runs: Runs) {
    let new = news.entry(function).or_default();
    new.digests.extend(Vec::from(runs.digests));
}

/// Adds, once all files have been read.
fn done(store: &Store, news: News, json: bool) -> Result<(), Failure> {
    let mut done = Vec::new();
    for (function, new) in news {
        let incomplete = new.digests.iter().filter(|digest| !digest.complete).count();
        let added = store.add(&function, new.digests, &new.traces)?;
        done.push(Done {
            function,
            added,
            incomplete,
        });
    }
    if json {
        return Ok(output::json(&form::added_json(&done))?);
    }
    Ok(output::text(&form::added(&done))?)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|err| Failure::new(format!("read {}: {}", path.display(), reason(&err))))
}

fn parse(
    file: &Path,
    text: &str,
    form: Form,
    interval: Option<std::time::Duration>,
) -> Result<Imported, Failure> {
    import::read(text, form, interval)
        .map_err(|err| Failure::new(format!("{}: {err}", file.display())))
}

pub(super) fn export(store: &Store, args: &Export) -> Result<(), Failure> {
    let function = &args.function;
    match args.form {
        ExportForm::Json => {
            let runs = known(store, function, store.runs(function))?;
            let runs = chosen(args, runs)?;
            write(args, &format!("{}\n", serde_json::to_string(&runs)?))
        }
        ExportForm::Uhull => {
            if !args.run.is_empty() {
                return Err(Failure::new("a hull is of a class: --run does not apply"));
            }
            let profile = known(store, function, store.profile(function))?;
            let name = args.class.clone().unwrap_or_else(ClassName::all);
            let class = profile.classes.get(&name).ok_or_else(|| {
                let names = profile.classes.keys().map(ClassName::as_str);
                let what = format!("{function} has no class");
                Failure::new(unknown(&what, name.as_str(), names))
            })?;
            write(
                args,
                &export::upscaling_hull(class, args.lead, &Buffer::default()),
            )
        }
        ExportForm::Csv | ExportForm::Functracer => traces(store, args),
    }
}

/// The runs that were asked for.
fn chosen(args: &Export, runs: Runs) -> Result<Runs, Failure> {
    for run in &args.run {
        if runs.digests.get(run).is_none() {
            let names = runs.digests.iter().map(|digest| digest.run.as_str());
            let what = format!("{} has no run", args.function);
            return Err(Failure::new(unknown(&what, run.as_str(), names)));
        }
    }
    let wanted = |digest: &&Digest| {
        let of_class = args.class.is_none() || digest.class == args.class;
        of_class && (args.run.is_empty() || args.run.contains(&digest.run))
    };
    let digests = runs.digests.iter().filter(wanted).cloned().collect();
    let placed = runs.placed.without(|run| {
        let of_class = args.class.is_none() || run.class == args.class;
        !of_class || !(args.run.is_empty() || args.run.contains(&run.run))
    });
    let chosen = Runs {
        digests,
        placed,
        ..runs
    };
    if chosen.digests.is_empty() {
        return Err(Failure::new(format!(
            "no run of {} was given this class",
            args.function
        )));
    }
    Ok(chosen)
}

fn traces(store: &Store, args: &Export) -> Result<(), Failure> {
    let function = &args.function;
    let all = known(store, function, store.traces(function))?;
    for run in &args.run {
        if !all.iter().any(|(name, _)| name == run) {
            let names = all.iter().map(|(name, _)| name.as_str());
            let what = format!("no trace of {function} is kept of run");
            return Err(Failure::new(unknown(&what, run.as_str(), names)));
        }
    }
    let mut chosen = Vec::new();
    for (run, text) in all {
        let trace: Trace = text.parse()?;
        let class = trace
            .context
            .as_ref()
            .and_then(|context| context.class.clone());
        let of_class = args.class.is_none() || class == args.class;
        if of_class && (args.run.is_empty() || args.run.contains(&run)) {
            let text = match args.form {
                ExportForm::Functracer => export::functracer(&trace),
                _ => text,
            };
            chosen.push((run, text));
        }
    }
    match (chosen.as_slice(), &args.output) {
        ([], _) => Err(Failure::new(format!("no such trace of {function} is kept"))),
        ([(_, text)], None) => write(args, text),
        ([(_, text)], Some(path)) if args.run.len() == 1 && !path.is_dir() => write(args, text),
        (several, None) => Err(Failure::new(format!(
            "there are {} traces: name one with --run, or a folder with --output",
            several.len()
        ))),
        (several, Some(folder)) => {
            std::fs::create_dir_all(folder).map_err(|err| {
                Failure::new(format!("create {}: {}", folder.display(), reason(&err)))
            })?;
            several
                .iter()
                .try_for_each(|(run, text)| to_file(&folder.join(trace_name(run)), text))
        }
    }
}

fn write(args: &Export, text: &str) -> Result<(), Failure> {
    match &args.output {
        Some(path) => to_file(path, text),
        None => Ok(output::text(text)?),
    }
}

fn to_file(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|err| Failure::new(format!("write {}: {}", path.display(), reason(&err))))
}
