//! `characterize`: measures a function at several local ratios, and chooses one under a latency bound.
//!
//! Each run is stored when it has ended: a call that was interrupted goes on where it was, and what is measured already
//! is not measured again.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::args;
use super::trace::{INTERRUPTED, Surroundings, failure, labels, learn, options, source};
use super::{Failure, output, picture};
use crate::kernel::probe;
use crate::model::placed::Measured;
use crate::model::placement::LocalRatio;
use crate::model::{Bytes, Mode, Origin, Setting};
use crate::plot::{RatioPoint, ratios};
use crate::policy::pareto::{self, Choice, MOST_ALIKE, Point, Rules, Slo, choose, fewest_runs};
use crate::policy::placement::without_remote;
use crate::profile::Store;
use crate::tracer::{Function, Outcome, Plan, Settings, Tracer, Verdict};

pub(super) fn run(args: &args::Characterize, around: Surroundings) -> Result<(), Failure> {
    let layout = probe::layout(Path::new("/"));
    if layout.remote().is_empty() {
        return Err(Failure::new(format!(
            "nothing can be measured: {}; a node without processors or of a slower tier is needed, and elastic-mem doctor \
             shows what there is",
            without_remote(&layout)
        )));
    }
    let config = around.config.clone();
    let store = Store::new(&config.profile_folder.value, config.keep_traces.value);
    let quantile = args.quantile.unwrap_or(config.placement_quantile.value);
    let rules = Rules {
        rate: args.rate,
        ..Rules::default()
    };
    let fewest = fewest_runs(quantile.into(), rules.confidence);
    if args.runs.is_none() && fewest > MOST_ALIKE {
        return Err(Failure::new(format!(
            "a bound of the quantile {quantile} takes {fewest} runs at each ratio, and {MOST_ALIKE} are kept: choose a \
             lower --quantile"
        )));
    }
    let wanted = args
        .runs
        .and_then(|runs| usize::try_from(runs).ok())
        .unwrap_or(fewest);
    let mut tracer = Tracer::start(Settings {
        folder: config.profile_folder.value.join("tracing"),
        systemd_cgroup: around.systemd_cgroup,
        config_file: around.config_file,
        config: around.config,
        mode: Setting {
            value: Mode::Observe,
            origin: Origin::Option("characterize"),
        },
        debug: around.debug,
    })?;
    let mut function = tracer
        .prepare(
            &source(&args.function)?,
            &options(&args.function),
            labels(&args.function),
        )
        .map_err(failure)?;
    let slo = args
        .slo
        .or_else(|| function.settings().slo.as_ref().map(|slo| slo.value));
    let measured = measured(&store, &function);
    let todo = todo(&args.ratios, wanted, &measured);
    let sweep = Sweep {
        store: &store,
        plan: Plan {
            runs: 1,
            retries: args.retries,
            keep_going: false,
            allow_failure: false,
            stdin: args.function.stdin.clone(),
            show_output: false,
            timeout: args.timeout,
        },
        todo,
    };
    let done = sweep.go(&mut tracer, &mut function);
    // What was measured is shown, however it ended.
    let measured = self::measured(&store, &function);
    let choice = slo.map(|latency| {
        let slo = Slo {
            latency,
            quantile: quantile.into(),
        };
        choose(&measured, &slo, &rules)
    });
    // Without a bound there is no choice, and each point stands for itself.
    let open = Slo {
        latency: std::time::Duration::MAX,
        quantile: quantile.into(),
    };
    let points = pareto::points(&measured, &open, &rules);
    if args.json {
        output::json(&document(&function, &points, choice.as_ref()))?;
    } else if !points.is_empty() {
        output::text(&table(&points, choice.as_ref(), rules.rate.is_some()))?;
        match (&choice, slo) {
            (Some(choice), Some(slo)) => output::text(&format!(
                "local ratio {} for {quantile} of runs within {slo:?}: {}\n",
                choice.ratio, choice.why
            ))?,
            _ => output::text("no latency bound is given (--slo, or slo-ms of the function)\n")?,
        }
    }
    if let Some(path) = &args.plot
        && !points.is_empty()
    {
        let note = match (&choice, slo) {
            (Some(choice), Some(slo)) => {
                let ratio = choice.ratio;
                format!("local ratio {ratio} is chosen for {quantile} of runs within {slo:?}")
            }
            _ => "no latency bound is given".to_owned(),
        };
        let chosen = choice.as_ref().map(|choice| f64::from(choice.ratio));
        let title = format!("{} by local ratio", function.key());
        let figure = ratios(&title, note, &drawn(&points), slo, chosen);
        picture::save(&figure, path)?;
    }
    done
}

/// What is known of the function, for the class and the input that it is run with.
fn measured(store: &Store, function: &Function) -> Vec<Measured> {
    let profile = store.lookup(function.key());
    let known = profile.as_ref().and_then(|profile| {
        profile.placed_runs(
            function.labels().class.as_ref(),
            &function.labels().features,
        )
    });
    known.unwrap_or_default().to_vec()
}

/// The ratios of the runs that are missing, in the order in which they are made: each ratio once, then each once more,
/// forwards and backwards, so that what changes on the host meanwhile meets them all alike.
fn todo(ratios: &[LocalRatio], wanted: usize, known: &[Measured]) -> Vec<LocalRatio> {
    let mut missing: BTreeMap<LocalRatio, usize> = BTreeMap::new();
    for ratio in ratios {
        let known = known.iter().find(|one| one.ratio == *ratio);
        let known = known.map_or(0, |one| one.latencies.len());
        missing.insert(*ratio, wanted.saturating_sub(known));
    }
    let rounds = missing.values().copied().max().unwrap_or(0);
    let mut order = Vec::new();
    for round in 0..rounds {
        let due = missing.iter().filter(|(_, runs)| **runs > round);
        let mut due: Vec<LocalRatio> = due.map(|(ratio, _)| *ratio).collect();
        if round % 2 == 0 {
            due.reverse();
        }
        order.extend(due);
    }
    order
}

/// The runs that are made.
struct Sweep<'a> {
    store: &'a Store,
    plan: Plan,
    todo: Vec<LocalRatio>,
}

impl Sweep<'_> {
    fn go(&self, tracer: &mut Tracer, function: &mut Function) -> Result<(), Failure> {
        let bar = bar(self.todo.len());
        for (number, ratio) in (1..).zip(&self.todo) {
            bar.set_message(format!("local ratio {ratio}"));
            function.place_at(*ratio);
            let series = tracer
                .series(function, &self.plan, &mut |_| bar.tick())
                .map_err(failure)?;
            if series.interrupted {
                bar.finish_and_clear();
                return Err(Failure {
                    code: INTERRUPTED,
                    text: format!(
                        "interrupted after {} of {} runs, which are stored: the same command goes on from there",
                        number - 1,
                        self.todo.len()
                    ),
                });
            }
            let taken = self.take(function, series.outcomes.first(), *ratio);
            if taken.is_err() {
                bar.finish_and_clear();
                return taken;
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn take(
        &self,
        function: &Function,
        outcome: Option<&Outcome>,
        ratio: LocalRatio,
    ) -> Result<(), Failure> {
        let why = match outcome.map(|outcome| &outcome.verdict) {
            Some(Verdict::Good) => {
                let traced = outcome.and_then(|outcome| outcome.traced.as_ref());
                let Some(traced) = traced else {
                    return Err(Failure::new("a run has no trace"));
                };
                let context = traced.trace.context.as_ref();
                if context.is_none_or(|context| context.local_ratio != Some(ratio)) {
                    return Err(Failure::new(format!(
                        "the memory of a run was not placed at the local ratio {ratio}; elastic-mem explain on its \
                         bundle says why"
                    )));
                }
                learn(self.store, function.key(), &[traced])?;
                return Ok(());
            }
            Some(Verdict::Failed(why) | Verdict::NotMeasured(why)) => why.clone(),
            None => "it was not made".to_owned(),
        };
        Err(Failure::new(format!(
            "a run at local ratio {ratio} was not measured: {why}; those before are stored"
        )))
    }
}

fn bar(length: usize) -> ProgressBar {
    let hidden = ProgressBar::hidden;
    if !std::io::stderr().is_terminal() {
        return hidden();
    }
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} runs, {eta} left  {msg}");
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    style.map_or_else(
        |_| hidden(),
        |style| ProgressBar::new(length).with_style(style),
    )
}

fn table(points: &[Point], choice: Option<&Choice>, has_rate: bool) -> String {
    let head = [
        "RATIO",
        "RUNS",
        "MEAN",
        "BOUND",
        "LOCAL",
        match has_rate {
            true => "INSTANCES",
            false => "SECONDS",
        },
        match has_rate {
            true => "ALL INSTANCES",
            false => "MB-SECONDS",
        },
        "",
    ];
    let set = pareto::pareto_set(points);
    let mut rows = vec![head.map(str::to_owned)];
    for point in points.iter().rev() {
        let is_chosen = choice.is_some_and(|choice| choice.ratio == point.ratio);
        let is_best = set.iter().any(|one| one.ratio == point.ratio);
        let mark = match (is_chosen, is_best) {
            (true, _) => "chosen",
            (false, true) => "Pareto",
            (false, false) => "",
        };
        rows.push([
            point.ratio.to_string(),
            point.runs.to_string(),
            format!("{:.1?}", point.mean),
            point
                .bound
                .map_or_else(|| "-".to_owned(), |bound| format!("{bound:.1?}")),
            point.local.to_megabytes(),
            format!("{:.2}", point.instances),
            format!("{:.1}", point.footprint() / 1_048_576.0),
            mark.to_owned(),
        ]);
    }
    output::table(&rows, 0, 2)
}

fn drawn(points: &[Point]) -> Vec<RatioPoint> {
    let set = pareto::pareto_set(points);
    let drawn = |point: &Point| RatioPoint {
        ratio: point.ratio.into(),
        mean: point.mean,
        bound: point.bound,
        local: point.local,
        is_best: set.iter().any(|one| one.ratio == point.ratio),
    };
    points.iter().map(drawn).collect()
}

fn document(function: &Function, points: &[Point], choice: Option<&Choice>) -> Value {
    let set = pareto::pareto_set(points);
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let points: Vec<Value> = points
        .iter()
        .map(|point| {
            json!({
                "localRatio": point.ratio,
                "runs": point.runs,
                "meanUs": micros(point.mean),
                "boundUs": point.bound.map(micros),
                "local": Bytes::get(point.local),
                "instances": point.instances,
                "footprint": point.footprint(),
                "pareto": set.iter().any(|one| one.ratio == point.ratio),
            })
        })
        .collect();
    json!({
        "function": function.key(),
        "points": points,
        "chosen": choice.map(|choice| json!({
            "localRatio": choice.ratio,
            "because": choice.why.to_string(),
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(text: &str) -> LocalRatio {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_missing_is_made_forwards_and_backwards() {
        let ratios = ["1", "0.5", "0"].map(ratio);
        let shown = |todo: Vec<LocalRatio>| -> Vec<String> {
            todo.iter().map(LocalRatio::to_string).collect()
        };
        let all = shown(todo(&ratios, 2, &[]));
        assert_eq!(all, ["1", "0.5", "0", "0", "0.5", "1"]);
        let known = [
            Measured {
                ratio: ratio("1"),
                latencies: vec![std::time::Duration::ZERO; 2],
                ..Measured::default()
            },
            Measured {
                ratio: ratio("0"),
                latencies: vec![std::time::Duration::ZERO],
                ..Measured::default()
            },
        ];
        assert_eq!(shown(todo(&ratios, 2, &known)), ["0.5", "0", "0.5"]);
        assert!(todo(&ratios, 0, &known).is_empty());
    }
}
