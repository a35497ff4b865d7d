//! `plot`: reads traces from files or from the store, has them digested, draws.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{PlotFiles, PlotHull, PlotInputs, PlotKind, PlotRun};
use super::{Failure, args, profile};
use crate::config::Config;
use crate::cost::{Catalog, Month};
use crate::kernel::reason;
use crate::model::profile::{BinWidth, Digest, Hull};
use crate::model::trace::{Step, Trace};
use crate::model::{ClassName, FunctionKey};
use crate::plot::{self, Bin, Figure, HullPicture, Input, Memory, ProviderSteps, Shape};
use crate::policy::learn::{self, Buffer, Digests, Rules, barrel};
use crate::profile::Store;

/// How much earlier than needed memory is given, when nobody says.
const LEAD: Duration = Duration::from_millis(20);

/// A trace, where it is from, and what is kept of it.
struct Run {
    origin: String,
    trace: Trace,
    digest: Digest,
}

pub(super) fn run(args: &args::Plot, config: &Config) -> Result<(), Failure> {
    let store = Store::new(&config.profile_folder.value, config.keep_traces.value);
    picture(&args.kind, &store)
}

fn picture(kind: &PlotKind, store: &Store) -> Result<(), Failure> {
    let (mut figure, target) = match kind {
        PlotKind::Hull(args) => (hull(args, store)?, &args.files.target),
        PlotKind::Shapes(args) => (shapes(args, store)?, &args.target),
        PlotKind::Classes(args) => (classes(args, store)?, &args.target),
        PlotKind::Inputs(args) => (inputs(args, store)?, &args.files.target),
        PlotKind::Run(args) => (one_run(args, store)?, &args.target),
    };
    if let Some(title) = &target.title {
        figure.retitle(title);
    }
    super::picture::show(&figure, target)
}

/// Draws one trace, or the hull of several, into a file, as `plot` does when it is told nothing else.
pub(super) fn draw(mut traces: Vec<PathBuf>, file: &Path, store: &Store) -> Result<(), Failure> {
    let target = args::Target {
        output: Some(file.to_owned()),
        ..args::Target::default()
    };
    let kind = match (traces.pop(), traces.is_empty()) {
        (None, _) => return Err(Failure::new("nothing was measured that could be drawn")),
        (Some(trace), true) => PlotKind::Run(PlotRun {
            trace: Some(trace),
            function: None,
            target,
        }),
        (Some(last), false) => {
            traces.push(last);
            PlotKind::Hull(PlotHull {
                files: PlotFiles {
                    traces,
                    function: Vec::new(),
                    memory: Memory::Held,
                    target,
                },
                bin: BinWidth::default(),
                lead: LEAD,
                buffer: 0,
                provider: None,
                date: None,
            })
        }
    };
    picture(&kind, store)
}

/// Reads a trace that has samples.
pub(super) fn read_trace(path: &Path) -> Result<Trace, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|err| Failure::new(format!("read {}: {}", path.display(), reason(&err))))?;
    text.parse()
        .map_err(|err| Failure::new(format!("{}: {err}", path.display())))
}

/// The traces that are kept of a function, the oldest first, with the names of their runs.
fn kept(function: &FunctionKey, store: &Store) -> Result<Vec<(String, Trace)>, Failure> {
    let traces = profile::known(store, function, store.traces(function))?;
    if traces.is_empty() {
        return Err(Failure::new(format!(
            "no trace of {function} is kept in {} (profile.keep-traces says how many are)",
            store.root().display()
        )));
    }
    traces
        .into_iter()
        .map(|(run, text)| {
            let origin = format!("run {run}");
            let trace = text.parse();
            let trace = trace.map_err(|err| Failure::new(format!("{origin}: {err}")))?;
            Ok((origin, trace))
        })
        .collect()
}

impl Run {
    fn new(origin: String, trace: Trace, width: BinWidth) -> Result<Self, Failure> {
        let digest =
            learn::digest(&trace, width).map_err(|err| Failure::new(format!("{origin}: {err}")))?;
        Ok(Self {
            origin,
            trace,
            digest,
        })
    }

    fn all(files: &PlotFiles, store: &Store, width: BinWidth) -> Result<Vec<Self>, Failure> {
        let mut runs = Vec::new();
        for path in &files.traces {
            let trace = read_trace(path)?;
            runs.push(Self::new(path.display().to_string(), trace, width)?);
        }
        for function in &files.function {
            for (origin, trace) in kept(function, store)? {
                runs.push(Self::new(origin, trace, width)?);
            }
        }
        Ok(runs)
    }

    fn function(&self) -> Option<&str> {
        let context = self.trace.context.as_ref()?;
        Some(context.function.as_str())
    }

    fn steps(&self, memory: Memory) -> Result<Vec<Step>, Failure> {
        memory
            .steps(&self.trace)
            .map_err(|err| Failure::new(format!("{}: {err}", self.origin)))
    }

    fn hull(&self, memory: Memory) -> &Hull {
        match memory {
            Memory::File => &self.digest.wall.file,
            Memory::Held | Memory::Usage => &self.digest.wall.held,
        }
    }
}

/// The name of the function that all runs are of.
fn function(runs: &[Run]) -> Result<String, Failure> {
    let mut known: Option<(&Run, &str)> = None;
    for run in runs {
        let Some(function) = run.function() else {
            continue;
        };
        match known {
            Some((first, name)) if name != function => {
                return Err(Failure::new(format!(
                    "{} is of {name}, {} of {function}: this picture is of one function (`plot shapes` draws several)",
                    first.origin, run.origin,
                )));
            }
            _ => known = Some((run, function)),
        }
    }
    Ok(known.map_or_else(
        || "unknown function".to_owned(),
        |(_, name)| name.to_owned(),
    ))
}

/// The hull of runs.
fn hull_of(runs: &[&Run], memory: Memory) -> Hull {
    runs.iter()
        .map(|run| run.hull(memory).clone())
        .reduce(|hull, other| hull.union(&other))
        .unwrap_or_default()
}

fn hull(args: &PlotHull, store: &Store) -> Result<Figure, Failure> {
    let memory = args.files.memory;
    let runs = Run::all(&args.files, store, args.bin)?;
    let steps: Result<Vec<_>, _> = runs.iter().map(|run| run.steps(memory)).collect();
    let hull = hull_of(&runs.iter().collect::<Vec<_>>(), memory);
    let buffer = Buffer {
        percent: args.buffer,
        ..Buffer::NONE
    };
    let barrelled = barrel(&hull, args.lead, &buffer);
    let sizes = args
        .provider
        .as_deref()
        .map(|name| sizes(name, args.date, &hull))
        .transpose()?;
    Ok(plot::hull(&HullPicture {
        title: &function(&runs)?,
        memory,
        runs: &steps?,
        hull: &hull,
        barrelled: &barrelled,
        provider: sizes
            .as_deref()
            .zip(args.provider.as_deref())
            .map(|(sizes, name)| ProviderSteps { name, sizes }),
    }))
}

/// The smallest sizes of a provider that hold a hull, over the time that it bills.
fn sizes(provider: &str, date: Option<Month>, hull: &Hull) -> Result<Vec<Step>, Failure> {
    let catalog = Catalog::built_in()?;
    let tariff = catalog
        .find(provider)?
        .tariff(date.unwrap_or(Month::LATEST))?;
    let width = hull.width.as_duration();
    let mut steps = Vec::new();
    for (value, index) in hull.bins.iter().zip(0_u32..) {
        let from = width.saturating_mul(index);
        steps.push(Step {
            from,
            to: from.saturating_add(width),
            value: tariff.size(*value)?.0,
        });
    }
    if let Some(last) = steps.last_mut() {
        last.to = tariff.billed_time(last.to)?;
    }
    Ok(steps)
}

/// Runs in groups by name, in the order of the names.
fn grouped(runs: &[Run], name: impl Fn(&Run) -> String) -> BTreeMap<String, Vec<&Run>> {
    let mut groups: BTreeMap<String, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        groups.entry(name(run)).or_default().push(run);
    }
    groups
}

fn shapes_of(groups: BTreeMap<String, Vec<&Run>>, memory: Memory) -> Result<Vec<Shape>, Failure> {
    let shape = |(name, runs): (String, Vec<&Run>)| {
        let steps: Result<Vec<_>, Failure> = runs.iter().map(|run| run.steps(memory)).collect();
        Ok(Shape {
            name,
            hull: hull_of(&runs, memory),
            runs: steps?,
        })
    };
    groups.into_iter().map(shape).collect()
}

fn shapes(args: &PlotFiles, store: &Store) -> Result<Figure, Failure> {
    let runs = Run::all(args, store, BinWidth::default())?;
    let groups = grouped(&runs, |run| match run.function() {
        Some(function) => function.to_owned(),
        None => run.origin.clone(),
    });
    Ok(plot::shapes(args.memory, &shapes_of(groups, args.memory)?))
}

fn class(run: &Run) -> String {
    run.digest
        .class
        .clone()
        .unwrap_or_else(ClassName::all)
        .to_string()
}

fn classes(args: &PlotFiles, store: &Store) -> Result<Figure, Failure> {
    let runs = Run::all(args, store, BinWidth::default())?;
    let shapes = shapes_of(grouped(&runs, class), args.memory)?;
    Ok(plot::classes(&function(&runs)?, args.memory, &shapes))
}

fn inputs(args: &PlotInputs, store: &Store) -> Result<Figure, Failure> {
    let memory = args.files.memory;
    let runs = Run::all(&args.files, store, BinWidth::default())?;
    let mut points = Vec::new();
    for run in &runs {
        let features = &run.digest.features;
        let value = features
            .get(&args.feature)
            .copied()
            .filter(|value| value.is_finite());
        let value = value.ok_or_else(|| {
            let known: Vec<&str> = features.keys().map(String::as_str).collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            Failure::new(format!(
                "{}: the input has no feature {:?} (known: {known})",
                run.origin, args.feature,
            ))
        })?;
        points.push(Input {
            class: run.digest.class.as_ref().map(ToString::to_string),
            value,
            peak: run.hull(memory).largest().unwrap_or_default(),
        });
    }
    let mut edges = args.edges.clone();
    if edges.is_empty() {
        edges = learned_edges(&runs, &args.feature);
    }
    edges.sort_by(f64::total_cmp);
    edges.dedup();
    let mut bins: Vec<Bin> = Vec::new();
    let mut from = f64::NEG_INFINITY;
    for edge in edges.into_iter().map(Some).chain([None]) {
        let is_inside = |value: f64| value > from && edge.is_none_or(|edge| value <= edge);
        let inside = points.iter().filter(|point| is_inside(point.value));
        // A bin without runs says nothing; what falls into it belongs to the next one.
        if let Some(bound) = inside.map(|point| point.peak).max() {
            bins.push(Bin { edge, bound });
            from = edge.unwrap_or(f64::INFINITY);
        }
    }
    // Nothing may lie above the last bin that has runs.
    if let Some(last) = bins.last_mut() {
        last.edge = None;
    }
    Ok(plot::inputs(
        &function(&runs)?,
        &args.feature,
        memory,
        &points,
        &bins,
    ))
}

/// The edges that the profile of these runs would have.
fn learned_edges(runs: &[Run], feature: &str) -> Vec<f64> {
    // Given classes would be left out of learning: here they are what the edges are compared with.
    let digests: Digests = runs
        .iter()
        .map(|run| Digest {
            class: None,
            ..run.digest.clone()
        })
        .collect();
    let candidates = learn::candidates(&digests, &Rules::default());
    let mut of_feature = candidates
        .into_iter()
        .filter(|bins| bins.feature == feature);
    of_feature.next().map_or_else(Vec::new, |bins| bins.edges)
}

fn one_run(args: &PlotRun, store: &Store) -> Result<Figure, Failure> {
    let found = match (&args.trace, &args.function) {
        (Some(path), _) => Some((path.display().to_string(), read_trace(path)?)),
        (None, Some(function)) => kept(function, store)?.pop(),
        (None, None) => None,
    };
    let (origin, trace) = found.ok_or_else(|| Failure::new("no trace is named"))?;
    let name = trace.context.as_ref().map_or_else(
        || origin.clone(),
        |context| format!("{}, run {}", context.function, context.run),
    );
    plot::run(&name, &trace).map_err(|err| Failure::new(format!("{origin}: {err}")))
}
