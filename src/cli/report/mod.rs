//! `report`: one page of HTML about a function or about this host, to be kept or sent.

mod html;

use std::io::IsTerminal;
use std::time::Duration;

use super::args::Report;
use super::survey::{Patience, Row, Survey, View};
use super::top::rows::{self, gib_seconds, size, size_or_dash};
use super::{Failure, output, profile};
use crate::config::Config;
use crate::cost::{Catalog, Month, Usage, bill, rounded};
use crate::model::profile::{ClassProfile, Profile};
use crate::model::trace::Trace;
use crate::model::{Bytes, ClassName, FunctionKey, MemoryTime};
use crate::plot::{self, HullPicture, Memory, Shape, Theme};
use crate::policy::learn::{Buffer, barrel};
use crate::profile::Store;
use crate::tracer::Figures;
use html::{Column, Page};

/// Requests in a month, as `cost` has it.
const REQUESTS: u64 = 1_000_000;
/// How much earlier than needed memory is given, as `plot hull` draws it.
const LEAD: Duration = Duration::from_millis(20);
/// Runs with a picture of their own, the newest first.
const MOST_RUNS: usize = 5;
/// Functions with a picture on the page of a host.
const MOST_SHAPES: usize = 9;

pub(super) fn run(args: &Report, config: &Config) -> Result<(), Failure> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::new(
            "a page of HTML is not for a terminal: name a file with -o, or redirect it",
        ));
    }
    let store = Store::new(&config.profile_folder.value, config.keep_traces.value);
    let page = match &args.function {
        Some(function) => of_function(&store, function)?,
        None => of_host(&store, &Survey::new(Patience::LONG).look()?)?,
    };
    match &args.output {
        Some(path) => output::replace(path, page.as_bytes()),
        None => Ok(output::text(&page)?),
    }
}

/// When and where the page was made.
fn made(time: &str, host: &str) -> String {
    format!(
        "elastic-mem {} on {host}, {time}",
        env!("CARGO_PKG_VERSION")
    )
}

fn now() -> String {
    chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string()
}

fn host_name() -> String {
    crate::kernel::host_name().unwrap_or_default()
}

fn of_function(store: &Store, function: &FunctionKey) -> Result<String, Failure> {
    let found = profile::known(store, function, store.profile(function))?;
    let traces = traces(store, function)?;
    // What runs now is a part of the page that others than root have to do without.
    let living = Survey::new(Patience::LONG).look();
    let mut page = Page::new(function.as_str());
    page.note(&made(&now(), &host_name()));
    let all = found.classes.get(&ClassName::all());
    if let Some(class) = all {
        page.tiles(&tiles(class, &traces));
        page.heading("Memory over time");
        page.note(
            "Each run, the hull that holds all of them at every moment, and the barrelled hull, which rises earlier by the lead time.",
        );
        page.picture(&hull(function, class, &traces));
    }
    classes(&mut page, &found);
    runs(&mut page, &traces);
    match living {
        Ok(view) => {
            let own = view.containers.iter();
            let own: Vec<&Row> = own
                .filter(|row| row.function.as_ref() == Some(function))
                .collect();
            containers(&mut page, &own);
        }
        Err(failure) => {
            page.heading("Containers now");
            page.note(&failure.text);
        }
    }
    if let Some(class) = all {
        cost(&mut page, class)?;
    }
    Ok(page.end())
}

/// A kept run.
struct Run {
    name: String,
    trace: Trace,
    figures: Figures,
}

/// The kept traces, the newest first.
fn traces(store: &Store, function: &FunctionKey) -> Result<Vec<Run>, Failure> {
    let kept = profile::known(store, function, store.traces(function))?;
    let mut runs = Vec::new();
    for (run, text) in kept {
        let trace: Trace = text
            .parse()
            .map_err(|err| Failure::new(format!("run {run} of {function}: {err}")))?;
        runs.push(Run {
            name: run.to_string(),
            figures: Figures::of(&trace),
            trace,
        });
    }
    runs.reverse();
    Ok(runs)
}

fn tiles(class: &ClassProfile, traces: &[Run]) -> Vec<(&'static str, String)> {
    let mut tiles = vec![
        ("runs that are known", class.runs.to_string()),
        ("most memory of any run", size(class.usage_peak.max)),
        (
            "held by half of the runs at most",
            size(class.held_peak.p50),
        ),
        ("longest run", seconds(class.duration)),
    ];
    let granted = traces.iter().filter_map(|run| {
        let granted = run.figures.granted?;
        Some((run.figures.used?, granted))
    });
    let (used, granted) = granted.fold((0_u128, 0_u128), |sums, (used, granted)| {
        (
            sums.0.saturating_add(used.byte_nanos()),
            sums.1.saturating_add(granted.byte_nanos()),
        )
    });
    if granted > 0 {
        tiles.push((
            "of what was granted in the runs below was not used",
            share(granted.saturating_sub(used), granted),
        ));
    }
    tiles
}

fn share(part: u128, whole: u128) -> String {
    match part.saturating_mul(1000).checked_div(whole) {
        Some(tenths) => format!("{}.{}%", tenths / 10, tenths % 10),
        None => rows::dash(),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn hull(function: &FunctionKey, class: &ClassProfile, traces: &[Run]) -> String {
    let memory = Memory::Held;
    let steps = traces
        .iter()
        .filter_map(|run| memory.steps(&run.trace).ok());
    let steps: Vec<_> = steps.collect();
    let hull = &class.wall.held;
    plot::svg(
        &plot::hull(&HullPicture {
            title: function.as_str(),
            memory,
            runs: &steps,
            hull,
            barrelled: &barrel(hull, LEAD, &Buffer::NONE),
            provider: None,
        }),
        Theme::Page,
    )
}

fn classes(page: &mut Page, found: &Profile) {
    page.heading("Input classes");
    page.note(
        "Class * is of all runs. Held is what cannot be dropped: anonymous, shared and kernel memory. Below the hull: runs that stay below the hull of all others.",
    );
    let columns = [
        Column::Name("class"),
        Column::Number("runs"),
        Column::Number("held, half"),
        Column::Number("held, most"),
        Column::Number("file cache, most"),
        Column::Number("usage, most"),
        Column::Number("longest"),
        Column::Number("below the hull"),
    ];
    let rows = found.classes.iter().map(|(name, class)| {
        let checked = class.wall_confidence;
        vec![
            name.to_string(),
            class.runs.to_string(),
            size(class.held_peak.p50),
            size(class.held_peak.max),
            size(class.file_peak.max),
            size(class.usage_peak.max),
            seconds(class.duration),
            format!(
                "{} of {}",
                checked.runs.saturating_sub(checked.violations),
                checked.runs
            ),
        ]
    });
    page.table(&columns, &rows.collect::<Vec<_>>());
}

fn runs(page: &mut Page, traces: &[Run]) {
    page.heading("Runs");
    if traces.is_empty() {
        return page.note("No trace is kept: see profile.traces of the configuration.");
    }
    page.note(
        "The newest first. Used and granted are memory over time; waste is what was granted and not used.",
    );
    let columns = [
        Column::Name("mode"),
        Column::Number("time"),
        Column::Number("peak"),
        Column::Number("used GiB-s"),
        Column::Number("granted GiB-s"),
        Column::Number("granted / used"),
        Column::Number("waste"),
        Column::Number("limit met"),
        Column::Number("kills"),
        // Long, and what tells least.
        Column::Name("run"),
    ];
    let area = |area: Option<MemoryTime>| {
        area.map_or_else(rows::dash, |area| gib_seconds(area.byte_seconds()))
    };
    let rows = traces.iter().map(|run| {
        let Run { figures, trace, .. } = run;
        let mode = trace
            .context
            .as_ref()
            .and_then(|context| context.mode.clone());
        let both = figures
            .used
            .zip(figures.granted)
            .map(|(used, granted)| (used.byte_nanos(), granted.byte_nanos()));
        let ratio = both.and_then(|(used, granted)| {
            let hundredths = granted.saturating_mul(100).checked_div(used)?;
            Some(format!("{}.{:02}", hundredths / 100, hundredths % 100))
        });
        vec![
            mode.unwrap_or_else(rows::dash),
            seconds(figures.duration),
            size_or_dash(figures.usage_peak),
            area(figures.used),
            area(figures.granted),
            ratio.unwrap_or_else(rows::dash),
            both.map_or_else(rows::dash, |(used, granted)| {
                share(granted.saturating_sub(used), granted)
            }),
            figures.met.map_or_else(rows::dash, |met| met.to_string()),
            figures.kills.to_string(),
            run.name.clone(),
        ]
    });
    page.table(&columns, &rows.collect::<Vec<_>>());
    for run in traces.iter().take(MOST_RUNS) {
        if let Ok(figure) = plot::run(&run.name, &run.trace) {
            page.picture(&plot::svg(&figure, Theme::Page));
        }
    }
}

/// Containers that run, with the last decision on each.
fn containers(page: &mut Page, living: &[&Row]) {
    page.heading("Containers now");
    if living.is_empty() {
        return page.note("None runs.");
    }
    let has_nodes = living.iter().any(|row| !row.nodes.is_empty());
    let mut columns = vec![
        Column::Name("namespace"),
        Column::Name("container"),
        Column::Name("function"),
        Column::Name("phase"),
        Column::Name("mode"),
        Column::Number("use"),
        Column::Number("peak"),
        Column::Number("grant"),
        Column::Number("ceiling"),
        Column::Text("last decision"),
        Column::Number("used GiB-s"),
        Column::Number("granted GiB-s"),
        Column::Number("saved GiB-s"),
        Column::Number("raised"),
        Column::Number("lowered"),
        Column::Number("met"),
    ];
    if has_nodes {
        columns.push(Column::Name("placement"));
    }
    let rows = living.iter().map(|row| {
        let area = |of: fn(&crate::model::status::Areas) -> MemoryTime| {
            row.areas
                .as_ref()
                .map_or_else(rows::dash, |areas| gib_seconds(of(areas).byte_seconds()))
        };
        let count = |of: fn(&crate::model::status::Counts) -> u64| {
            row.counts
                .as_ref()
                .map_or_else(rows::dash, |counts| of(counts).to_string())
        };
        let last = row.last_decision.as_ref().map(|last| {
            let grant = last.grant.map_or_else(|| "the ceiling".to_owned(), size);
            format!(
                "{grant} {} ago: {}",
                rows::age(last.seconds_ago),
                last.reason
            )
        });
        let mut cells = vec![
            row.namespace.clone(),
            row.id.clone(),
            row.function
                .as_ref()
                .map_or_else(rows::dash, ToString::to_string),
            row.phase.clone().unwrap_or_else(rows::dash),
            row.mode.to_string(),
            size_or_dash(row.usage),
            size_or_dash(row.peak),
            size_or_dash(row.grant),
            size_or_dash(row.ceiling),
            last.unwrap_or_else(rows::dash),
            area(|areas| areas.used),
            area(|areas| areas.granted),
            area(|areas| areas.saved()),
            count(|counts| counts.raises),
            count(|counts| counts.lowers),
            count(|counts| counts.met),
        ];
        let mut nodes: Vec<String> = row
            .nodes
            .iter()
            .map(|(node, bytes)| format!("node {node} {}", size(*bytes)))
            .collect();
        if let Some(placed) = &row.placed {
            nodes.push(format!(
                "{} pages moved, {} to be moved, {} exchanged",
                placed.moved, placed.pending, placed.exchanged
            ));
            if let Some(life) = placed.life.as_ref().filter(|life| life.predicted > 0) {
                nodes.push(format!(
                    "{} requests expected, {} came too early",
                    life.predicted, life.early
                ));
            }
            nodes.extend(placed.why.clone());
        }
        cells.push(nodes.join(", "));
        cells
    });
    page.table(&columns, &rows.collect::<Vec<_>>());
}

/// What the function costs where memory is bought by size.
fn cost(page: &mut Page, class: &ClassProfile) -> Result<(), Failure> {
    page.heading("Cost at providers");
    page.note(
        "USD for a million runs a month, each as long as the longest and with the smallest size that holds the largest peak; the cheapest first. `elastic-mem cost` has the rest.",
    );
    if class.duration.is_zero() {
        return Ok(());
    }
    let catalog = Catalog::built_in()?;
    let usage = Usage::flat(class.usage_peak.max, class.duration, REQUESTS);
    let mut bills = Vec::new();
    for provider in catalog.providers() {
        // Some have ended, some have no size that is large enough.
        if let Ok(tariff) = provider.tariff(Month::LATEST)
            && let Ok(bill) = bill(&tariff, &usage)
        {
            bills.push((provider.name.clone(), bill));
        }
    }
    bills.sort_by_key(|(_, bill)| bill.gross);
    let columns = [
        Column::Name("provider"),
        Column::Number("size"),
        Column::Number("billed time"),
        Column::Number("USD"),
        Column::Number("for what is not used"),
    ];
    let rows = bills.iter().map(|(name, bill)| {
        vec![
            name.clone(),
            size(bill.size),
            seconds(bill.billed_time),
            rounded(bill.gross, 2),
            bill.share_of_bill()
                .map_or_else(rows::dash, |share| format!("{}%", rounded(share, 1))),
        ]
    });
    page.table(&columns, &rows.collect::<Vec<_>>());
    Ok(())
}

fn of_host(store: &Store, view: &View) -> Result<String, Failure> {
    let mut page = Page::new(&format!("Memory of containers on {}", view.host.name));
    page.note(&made(&now(), &view.host.name));
    let sum = |of: fn(&Row) -> Option<u64>| {
        let all = view.containers.iter().filter_map(of);
        all.fold(0, u64::saturating_add)
    };
    page.tiles(&[
        ("containers", view.containers.len().to_string()),
        ("memory of the host", size(view.host.memory_total)),
        ("of it available", size(view.host.memory_available)),
        (
            "reclaimable: declared less granted",
            size(Bytes::new(sum(|row| row.reclaimable.map(Bytes::get)))),
        ),
        (
            "GiB-s saved by those that run",
            gib_seconds(sum(|row| row.saved_byte_seconds)),
        ),
    ]);
    let living: Vec<&Row> = view.containers.iter().collect();
    containers(&mut page, &living);
    if view.host.nodes.len() > 1 {
        page.heading("Memory nodes");
        let columns = [
            Column::Number("node"),
            Column::Name("processors"),
            Column::Number("memory"),
            Column::Number("free"),
        ];
        let rows = view.host.nodes.iter().map(|node| {
            vec![
                node.number.to_string(),
                if node.has_cpus { "yes" } else { "no" }.to_owned(),
                size(node.total),
                size(node.free),
            ]
        });
        page.table(&columns, &rows.collect::<Vec<_>>());
    }
    functions(&mut page, store)?;
    Ok(page.end())
}

/// All functions of which something is known.
fn functions(page: &mut Page, store: &Store) -> Result<(), Failure> {
    page.heading("Functions");
    let mut known: Vec<Profile> = Vec::new();
    for function in store.functions()? {
        known.extend(store.lookup(&function));
    }
    if known.is_empty() {
        page.note("Nothing is known of any function yet.");
        return Ok(());
    }
    let of_all = |profile: &Profile| profile.classes.get(&ClassName::all()).cloned();
    let columns = [
        Column::Name("function"),
        Column::Number("runs"),
        Column::Number("classes"),
        Column::Number("held, half"),
        Column::Number("held, most"),
        Column::Number("usage, most"),
        Column::Number("longest"),
    ];
    let rows = known.iter().filter_map(|profile| {
        let class = of_all(profile)?;
        Some(vec![
            profile.function.to_string(),
            class.runs.to_string(),
            profile.classes.len().to_string(),
            size(class.held_peak.p50),
            size(class.held_peak.max),
            size(class.usage_peak.max),
            seconds(class.duration),
        ])
    });
    page.table(&columns, &rows.collect::<Vec<_>>());
    let mut shapes: Vec<Shape> = known
        .iter()
        .filter_map(|profile| {
            Some(Shape {
                name: profile.function.to_string(),
                runs: Vec::new(),
                hull: of_all(profile)?.wall.held,
            })
        })
        .collect();
    // Those with most memory over time are those where there is most to save.
    shapes.sort_by_key(|shape| {
        let bins = shape.hull.bins.iter().map(|bytes| u128::from(bytes.get()));
        let area = bins.sum::<u128>() * shape.hull.width.as_duration().as_nanos();
        std::cmp::Reverse(area)
    });
    shapes.truncate(MOST_SHAPES);
    page.picture(&plot::svg(
        &plot::shapes(Memory::Held, &shapes),
        Theme::Page,
    ));
    Ok(())
}
