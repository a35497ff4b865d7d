//! `plot`: reads traces, has them digested, draws.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{PlotFiles, PlotHull, PlotInputs, PlotKind, PlotRun};
use super::{Failure, args, picture};
use crate::cost::{Catalog, Month};
use crate::kernel::reason;
use crate::model::ClassName;
use crate::model::profile::{BinWidth, Digest, Hull};
use crate::model::trace::{Step, Trace};
use crate::plot::{self, Bin, Figure, HullPicture, Input, Memory, ProviderSteps, Shape};
use crate::policy::learn::{self, Buffer, Digests, Rules, barrel};

/// How much earlier than needed memory is given, when nobody says.
const LEAD: Duration = Duration::from_millis(20);

/// A trace with the file that it is from, and what is kept of it.
struct Run {
    path: PathBuf,
    trace: Trace,
    digest: Digest,
}

pub(super) fn run(args: &args::Plot) -> Result<(), Failure> {
    let (mut figure, target) = match &args.kind {
        PlotKind::Hull(args) => (hull(args)?, &args.files.target),
        PlotKind::Shapes(args) => (shapes(args)?, &args.target),
        PlotKind::Classes(args) => (classes(args)?, &args.target),
        PlotKind::Inputs(args) => (inputs(args)?, &args.files.target),
        PlotKind::Run(args) => (one_run(args)?, &args.target),
    };
    if let Some(title) = &target.title {
        figure.retitle(title);
    }
    picture::show(&figure, target)
}

/// Draws one trace, or the hull of several, into a file, as `plot` does when it is told nothing else.
pub(super) fn draw(mut traces: Vec<PathBuf>, file: &Path) -> Result<(), Failure> {
    let target = args::Target {
        output: Some(file.to_owned()),
        ..args::Target::default()
    };
    let kind = match (traces.pop(), traces.is_empty()) {
        (None, _) => return Err(Failure::new("nothing was measured that could be drawn")),
        (Some(trace), true) => PlotKind::Run(PlotRun { trace, target }),
        (Some(last), false) => {
            traces.push(last);
            PlotKind::Hull(PlotHull {
                files: PlotFiles {
                    traces,
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
    run(&args::Plot { kind })
}

/// Reads a trace that has samples.
pub(super) fn read_trace(path: &Path) -> Result<Trace, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|err| Failure::new(format!("read {}: {}", path.display(), reason(&err))))?;
    text.parse()
        .map_err(|err| Failure::new(format!("{}: {err}", path.display())))
}

impl Run {
    fn read(path: &Path, width: BinWidth) -> Result<Self, Failure> {
        let trace = read_trace(path)?;
        let digest = learn::digest(&trace, width)
            .map_err(|err| Failure::new(format!("{}: {err}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            trace,
            digest,
        })
    }

    fn all(paths: &[PathBuf], width: BinWidth) -> Result<Vec<Self>, Failure> {
        paths.iter().map(|path| Self::read(path, width)).collect()
    }

    fn function(&self) -> Option<&str> {
        let context = self.trace.context.as_ref()?;
        Some(context.function.as_str())
    }

    fn steps(&self, memory: Memory) -> Result<Vec<Step>, Failure> {
        memory
            .steps(&self.trace)
            .map_err(|err| Failure::new(format!("{}: {err}", self.path.display())))
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
                    first.path.display(),
                    run.path.display(),
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

fn hull(args: &PlotHull) -> Result<Figure, Failure> {
    let memory = args.files.memory;
    let runs = Run::all(&args.files.traces, args.bin)?;
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

fn shapes(args: &PlotFiles) -> Result<Figure, Failure> {
    let runs = Run::all(&args.traces, BinWidth::default())?;
    let groups = grouped(&runs, |run| match run.function() {
        Some(function) => function.to_owned(),
        None => run.path.display().to_string(),
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

fn classes(args: &PlotFiles) -> Result<Figure, Failure> {
    let runs = Run::all(&args.traces, BinWidth::default())?;
    let shapes = shapes_of(grouped(&runs, class), args.memory)?;
    Ok(plot::classes(&function(&runs)?, args.memory, &shapes))
}

fn inputs(args: &PlotInputs) -> Result<Figure, Failure> {
    let memory = args.files.memory;
    let runs = Run::all(&args.files.traces, BinWidth::default())?;
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
                run.path.display(),
                args.feature,
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

fn one_run(args: &PlotRun) -> Result<Figure, Failure> {
    let trace = read_trace(&args.trace)?;
    let name = trace.context.as_ref().map_or_else(
        || args.trace.display().to_string(),
        |context| format!("{}, run {}", context.function, context.run),
    );
    plot::run(&name, &trace).map_err(|err| Failure::new(format!("{}: {err}", args.trace.display())))
}
