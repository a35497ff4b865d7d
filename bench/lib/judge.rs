//! What the rules of `policy::step` would have granted to runs that were recorded, and how near these would have come to
//! their limits: a run is followed by what the other runs of its function have taught.
//!
//! `cargo run --release --example judge -- [--known RUNS] [--time SHARE] FOLDER...` reads all traces below the folders, and
//! prints a line for each function and input. The sampler is played: it looks as often as the real one, and late, as was measured. See
//! docs/benchmarks.md.

#[path = "random.rs"]
mod random;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use elastic_mem::config::Config;
use elastic_mem::model::plan::Plan;
use elastic_mem::model::profile::{BinWidth, Digest};
use elastic_mem::model::trace::{Phase, Sample, Trace};
use elastic_mem::model::{Bytes, MemoryLimit, Mode, Origin, Setting};
use elastic_mem::policy::learn::{Digests, LEAST_RUNS, Rules, digest, learn};
use elastic_mem::policy::plan::{Request, plan};
use elastic_mem::policy::step::{Guard, Look};
use random::Random;

const USAGE: &str = "usage: judge [--known RUNS] [--time SHARE] FOLDER...";
const MIB: f64 = 1_048_576.0;
/// A limit counts as met when a stock of pages that a processor takes would not have fitted below it.
const STOCK: f64 = 64.0 * 4096.0;
/// A page is filled so fast at most, in bytes a microsecond: between two samples usage rises as late as it can.
const FASTEST: f64 = 3.0 * MIB / 1000.0;
/// Every run is replayed so often with other luck.
const TIMES: u32 = 15;

/// How late the sampler's thread runs: quantiles of the delay, in microseconds.
struct Lateness {
    name: &'static str,
    quantiles: &'static [(f64, f64)],
}

/// As seen in the traces of 393 runs of bench/elastic: of 133,000 looks at working containers one was 6 ms late.
const QUIET: Lateness = Lateness {
    name: "quiet",
    quantiles: &[
        (0.0, 30.0),
        (0.5, 60.0),
        (0.99, 300.0),
        (0.998_4, 1_000.0),
        (0.999_4, 2_000.0),
        (0.999_9, 4_000.0),
        (1.0, 7_000.0),
    ],
};
/// As measured with other containers at work on all processors.
const LOADED: Lateness = Lateness {
    name: "loaded",
    quantiles: &[
        (0.0, 30.0),
        (0.5, 200.0),
        (0.9, 1_000.0),
        (0.99, 6_000.0),
        (0.999, 10_000.0),
        (0.999_9, 25_000.0),
        (1.0, 150_000.0),
    ],
};

impl Lateness {
    fn draw(&self, random: &mut Random) -> f64 {
        let at = random.share();
        let pairs = self.quantiles.iter().zip(self.quantiles.iter().skip(1));
        let pair = pairs.rev().find(|((share, _), _)| *share <= at);
        pair.map_or(0.0, |((low, from), (high, to))| {
            // Long delays are few.
            from * (to / from).powf((at - low) / (high - low))
        })
    }
}

/// What a container used, from one moment on. Times are in microseconds.
#[derive(Clone, Copy)]
struct Moment {
    at: f64,
    usage: f64,
    cpu: f64,
    file: f64,
}

struct Run {
    /// It served requests one after the other, and rested in between.
    kept: bool,
    moments: Vec<Moment>,
    digest: Digest,
    ceiling: Bytes,
}

impl Run {
    fn read(path: &Path) -> Result<Option<(String, Self)>, Box<dyn Error>> {
        let trace: Trace = std::fs::read_to_string(path)?.parse()?;
        let Some(context) = trace.context.as_ref() else {
            return Ok(None);
        };
        let class = context.class.as_ref().map_or("", |class| class.as_str());
        let name = context.function.as_str();
        let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
        let name = format!("{name} {class}").trim_end().to_owned();
        let digest = digest(&trace, BinWidth::default())?;
        if !digest.complete {
            return Ok(None);
        }
        let (mut usage, mut cpu, mut file) = (0.0, 0.0, 0.0);
        let begin = trace.samples.first().map_or(Duration::ZERO, |s| s.at);
        let moments = trace.samples.iter().map(|sample| {
            usage = sample.usage.map_or(usage, |bytes| bytes.get() as f64);
            cpu = sample.cpu.map_or(cpu, micros);
            file = sample.file.map_or(file, |bytes| bytes.get() as f64);
            let at = micros(sample.at.saturating_sub(begin));
            Moment {
                at,
                usage,
                cpu,
                file,
            }
        });
        let twice = Bytes::new(digest.usage_peak.get().next_power_of_two() * 2);
        let ceiling = context.ceiling.unwrap_or(twice);
        let moments = moments.collect();
        let kept = |sample: &Sample| sample.phase == Some(Phase::KeepAlive);
        let run = Self {
            kept: trace.samples.iter().any(kept),
            moments,
            digest,
            ceiling,
        };
        Ok(Some((name, run)))
    }

    /// The same in this share of its time.
    fn in_time(&self, share: f64) -> Self {
        let moments = self.moments.iter().map(|moment| Moment {
            at: moment.at * share,
            cpu: moment.cpu * share,
            ..*moment
        });
        Self {
            moments: moments.collect(),
            digest: self.digest.clone(),
            ..*self
        }
    }

    fn end(&self) -> f64 {
        self.moments.last().map_or(0.0, |moment| moment.at)
    }

    /// The moment that was recorded last, and those after it.
    fn around(&self, at: f64) -> (&[Moment], &[Moment]) {
        let count = self.moments.partition_point(|moment| moment.at <= at);
        self.moments.split_at(count.max(1))
    }

    fn at(&self, at: f64) -> Moment {
        let (before, after) = self.around(at);
        let Some(last) = before.last().copied() else {
            return Moment {
                at,
                usage: 0.0,
                cpu: 0.0,
                file: 0.0,
            };
        };
        let Some(next) = after.first() else {
            return last;
        };
        let share = (at - last.at) / (next.at - last.at);
        let even = last.usage + (next.usage - last.usage) * share;
        // As late as it can, but no later than at an even pace if that is faster still.
        let late = (next.usage - FASTEST * (next.at - at)).min(even);
        Moment {
            at,
            usage: last.usage.max(late),
            cpu: last.cpu + (next.cpu - last.cpu) * share,
            file: last.file,
        }
    }

    /// The most that was used from one moment to another.
    fn most(&self, from: f64, to: f64) -> f64 {
        let between = self.around(from).1.iter();
        let between = between.take_while(|moment| moment.at <= to);
        let ends = self.at(from).usage.max(self.at(to).usage);
        between.map(|moment| moment.usage).fold(ends, f64::max)
    }

    /// When usage passes a threshold that is above it, if it does so before `until`.
    fn passes(&self, threshold: f64, from: f64, until: f64) -> Option<f64> {
        let (before, after) = self.around(from);
        let mut last = before.last()?;
        for next in after {
            if next.usage >= threshold {
                let rise = (threshold - last.usage) / (next.usage - last.usage);
                let even = last.at + rise * (next.at - last.at);
                let late = next.at - (next.usage - threshold) / FASTEST;
                return Some(even.max(late).max(from)).filter(|at| *at < until);
            }
            if next.at >= until {
                break;
            }
            last = next;
        }
        None
    }

    fn used(&self) -> f64 {
        let pairs = self.moments.iter().zip(self.moments.iter().skip(1));
        pairs
            .map(|(now, next)| now.usage * (next.at - now.at))
            .sum()
    }

    /// What somebody would grant who knows the run: all that it uses until a look has had an effect, and a distance.
    fn foreseen(&self, reaction: f64, distance: f64) -> f64 {
        let pairs = self.moments.iter().zip(self.moments.iter().skip(1));
        let area = |(now, next): (&Moment, &Moment)| {
            (self.most(now.at, now.at + reaction) + distance) * (next.at - now.at)
        };
        pairs.map(area).sum()
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "memory is neither negative nor 8 PiB"
)]
fn bytes(value: f64) -> Bytes {
    Bytes::new(value as u64)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn duration(micros: f64) -> Duration {
    Duration::from_secs_f64(micros.max(0.0) / 1e6)
}

/// How often the sampler looks (`sampler::pace`, `sampler::tuning`).
#[derive(Default)]
struct Pace {
    grew: f64,
    worked: f64,
    last: Option<Moment>,
}

impl Pace {
    /// The time to the next look, and whether the container rests.
    fn next(&mut self, now: &Moment, version: u8) -> (f64, bool) {
        if let Some(last) = self.last.replace(*now) {
            if now.usage - last.usage > STOCK {
                self.grew = now.at;
            }
            let is_busy = (now.cpu - last.cpu) * 500.0 > now.at - last.at;
            if is_busy || (now.usage - last.usage).abs() > STOCK {
                self.worked = now.at;
            }
        }
        let rests = now.at - self.worked >= 300_000.0;
        let period = match (now.at, now.at - self.grew) {
            (at, _) if at < 50_000.0 => 1_000.0,
            (_, since) if since < 50_000.0 => 2_000.0,
            _ if rests => 10_000.0,
            _ if version == 1 => 4_000.0,
            _ => 2_000.0,
        };
        // Looks are taken at multiples of the period.
        (period - now.at % period, rests)
    }
}

/// Thresholds of usage that wake the sampler (cgroup v1): they are set one by one, the next one above usage first.
struct Alarms {
    step: f64,
    set: Vec<bool>,
    ready: f64,
}

impl Alarms {
    fn new(largest: f64) -> Self {
        let step = (2.0 * MIB).max(largest / 48.0);
        let mut set = Vec::new();
        while set.len() < 48 && (set.len() + 1) as f64 * step <= largest {
            set.push(false);
        }
        Self {
            step,
            set,
            ready: 15_000.0,
        }
    }

    fn add(&mut self, at: f64, usage: f64) {
        if at < self.ready {
            return;
        }
        self.ready = at + 15_000.0;
        let step = self.step;
        let is_above = |index: usize| (index + 1) as f64 * step > usage;
        let mut free = self.set.iter_mut().enumerate().filter(|(_, set)| !**set);
        if let Some((_, set)) = free.find(|(index, _)| is_above(*index)) {
            *set = true;
        } else if let Some(set) = self.set.iter_mut().find(|set| !**set) {
            *set = true;
        }
    }

    fn above(&self, usage: f64) -> Option<f64> {
        let thresholds = self.set.iter().enumerate().filter(|(_, set)| **set);
        let mut thresholds = thresholds.map(|(index, _)| (index + 1) as f64 * self.step);
        thresholds.find(|threshold| *threshold > usage)
    }
}

#[derive(Default, Clone)]
struct Outcome {
    granted: f64,
    used: f64,
    /// Distances of grant and usage, with the time that each lasted.
    distances: Vec<(f64, f64)>,
    /// The least that was left.
    slack: f64,
    met: u32,
}

fn follow(run: &Run, plan: &Plan, version: u8, lateness: &Lateness, seed: u64) -> Outcome {
    let mut random = Random(seed);
    let declared = i64::try_from(run.ceiling.get()).map_or(MemoryLimit::None, MemoryLimit::Bytes);
    let mut guard = Guard::new(plan, declared, 0);
    let mut pace = Pace::default();
    let mut alarms = Alarms::new(plan.largest.map_or(0.0, |bytes| bytes.get() as f64));
    let mut outcome = Outcome {
        slack: f64::INFINITY,
        ..Outcome::default()
    };
    let (mut at, end) = (0.0, run.end());
    while at < end {
        let now = run.at(at);
        let (wait, idle) = pace.next(&now, version);
        guard.look(&Look {
            at: duration(at),
            usage: bytes(now.usage),
            cpu: Some(duration(now.cpu)),
            file: Some(bytes(now.file)),
            idle,
            ..Look::default()
        });
        let mut next = at + wait;
        if version == 1 {
            alarms.add(at, now.usage);
            // The kernel looks at every 128th page.
            let lag = random.share() * 2.0 * STOCK;
            let threshold = alarms.above(now.usage).map(|threshold| threshold + lag);
            let passes = threshold.and_then(|threshold| run.passes(threshold, at, next));
            next = passes.unwrap_or(next);
        }
        next = (next + lateness.draw(&mut random)).min(end);
        let grant = guard.grant().unwrap_or(run.ceiling).get() as f64;
        let slack = grant - run.most(at, next);
        outcome.slack = outcome.slack.min(slack);
        outcome.met += u32::from(slack < STOCK);
        let time = next - at;
        outcome.granted += grant * time;
        outcome.used += run.most(at, at) * time;
        outcome.distances.push((grant - now.usage, time));
        at = next;
    }
    outcome
}

/// The plan by which a run would have been followed, had the others come before it.
fn plan_of(run: &Run, others: &[&Run], cgroup: u8) -> Result<Plan, Box<dyn Error>> {
    let digests: Digests = others.iter().map(|run| run.digest.clone()).collect();
    let function = "judge/function".parse()?;
    let profile = learn(function, &digests, &Rules::default());
    let mut settings = Config::default().for_function(&profile.function);
    settings.mode = Setting {
        value: Mode::Elastic,
        origin: Origin::Option("--mode"),
    };
    Ok(plan(&Request {
        settings: &settings,
        cgroup,
        declared: Some(run.ceiling),
        above: None,
        high_is_taken: false,
        profile: Some(&profile),
        features: &BTreeMap::new(),
    }))
}

fn median(mut distances: Vec<(f64, f64)>) -> f64 {
    distances.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = distances.iter().map(|(_, time)| time).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    let middle = distances.iter().find(|(_, time)| {
        sum += time;
        sum >= half
    });
    middle.map_or(0.0, |(distance, _)| *distance)
}

/// What became of all runs of a function with one version of cgroups and one kind of luck.
#[derive(Default)]
struct Case {
    granted: f64,
    used: f64,
    slack: f64,
    met: u32,
    distances: Vec<(f64, f64)>,
}

const CASES: [(u8, &Lateness); 4] = [(1, &QUIET), (1, &LOADED), (2, &QUIET), (2, &LOADED)];

/// What is played with recorded runs.
struct Options {
    /// A run is followed by what so many others have taught.
    known: usize,
    /// Runs take this share of the time that they took, after the others were learned from.
    time: f64,
}

impl Options {
    /// The options, and the folders.
    fn of(
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<(Self, Vec<String>), Box<dyn Error>> {
        let mut options = Self {
            known: usize::MAX,
            time: 1.0,
        };
        let mut folders = Vec::new();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| format!("{argument} needs a value\n{USAGE}"))
            };
            let is_wrong = |value: &str| format!("{argument} {value}: no such value\n{USAGE}");
            match argument.as_str() {
                "--known" => {
                    let value = value()?;
                    options.known = value.parse().map_err(|_| is_wrong(&value))?;
                }
                "--time" => {
                    let value = value()?;
                    let share = value.parse().ok().filter(|share| *share > 0.0);
                    options.time = share.ok_or_else(|| is_wrong(&value))?;
                }
                other if other.starts_with('-') => {
                    return Err(format!("{other}: no such option\n{USAGE}").into());
                }
                _ => folders.push(argument),
            }
        }
        match folders.is_empty() {
            true => Err(USAGE.into()),
            false => Ok((options, folders)),
        }
    }
}

/// Follows every run by what others have taught.
fn follow_all(
    runs: &[Run],
    options: &Options,
    version: u8,
    lateness: &Lateness,
) -> Result<Case, Box<dyn Error>> {
    let mut case = Case {
        slack: f64::INFINITY,
        ..Case::default()
    };
    let mut seed = 0;
    for (number, run) in runs.iter().enumerate() {
        // Those that came after it, and from the first on.
        let others = runs.iter().cycle().skip(number + 1);
        let known = options.known.min(runs.len() - 1);
        let others: Vec<&Run> = others.take(known).collect();
        let plan = plan_of(run, &others, version)?;
        let run = &run.in_time(options.time);
        for _ in 0..TIMES {
            seed += 1;
            let outcome = follow(run, &plan, version, lateness, seed);
            case.granted += outcome.granted;
            case.used += outcome.used;
            case.slack = outcome.slack.min(case.slack);
            case.met += outcome.met;
            case.distances.extend(outcome.distances);
        }
    }
    Ok(case)
}

/// A line of the table, and what means are made of.
struct Row {
    kept: bool,
    seconds: f64,
    peak: f64,
    foreseen: f64,
    ratios: Vec<f64>,
    met: Vec<u32>,
}

type Belongs = fn(&Row) -> bool;

impl Row {
    fn is_big(&self) -> bool {
        self.peak > 100.0 * MIB
    }
}

fn judge(name: &str, runs: &[Run], options: &Options) -> Result<Row, Box<dyn Error>> {
    let count = runs.len() as f64;
    let mean = |value: &dyn Fn(&Run) -> f64| runs.iter().map(value).sum::<f64>() / count;
    let used = mean(&Run::used);
    let seconds = mean(&Run::end) / 1e6;
    let peaks = runs.iter().map(|run| run.digest.usage_peak.get() as f64);
    let peak = peaks.fold(0.0, f64::max);
    let bursts = runs.iter().filter_map(|run| run.digest.burst);
    let burst = bursts.max().unwrap_or_default().get() as f64;
    let foreseen = |reaction: f64, distance: f64| {
        mean(&|run: &Run| run.foreseen(reaction, distance * MIB)) / used
    };
    let row = format!(
        "{name:<18}{:4}{seconds:7.2}{:6.0}{:6.0}{:6.0}{:7.2}{:6.2}{:6.2}{:6.2}",
        runs.len(),
        peak / MIB,
        used / seconds / 1e6 / MIB,
        burst / MIB,
        peak * seconds * 1e6 / used,
        foreseen(0.0, 8.0),
        foreseen(4_000.0, 8.0),
        foreseen(4_000.0, 4.0),
    );
    let mut cells = String::new();
    let (mut ratios, mut met) = (Vec::new(), Vec::new());
    for (version, lateness) in CASES {
        let case = follow_all(runs, options, version, lateness)?;
        let ratio = case.granted / case.used;
        let distance = median(case.distances) / MIB;
        cells += &format!(
            " |{ratio:6.2}{distance:6.1}{:6.1}{:4}",
            case.slack / MIB,
            case.met
        );
        ratios.push(ratio);
        met.push(case.met);
    }
    println!("{row}{cells}");
    Ok(Row {
        kept: runs.iter().all(|run| run.kept),
        seconds,
        peak,
        foreseen: foreseen(4_000.0, 8.0),
        ratios,
        met,
    })
}

fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values {
        sum += value.ln();
        count += 1.0;
    }
    f64::exp(sum / count)
}

fn print_head() {
    let cases = CASES.map(|(version, lateness)| format!("v{version}, {}", lateness.name));
    let cases = cases.map(|case| format!(" | {case:<21}")).concat();
    let line = format!("{:60}foreseen{:10}{cases}", "", "");
    println!("{}", line.trim_end());
    println!(
        "{:<18}{:>4}{:>7}{:>6}{:>6}{:>6}{:>7}{:>6}{:>6}{:>6}{}",
        "function",
        "runs",
        "s",
        "peak",
        "mean",
        "burst",
        "exact",
        "8",
        "4ms 8",
        "4ms 4",
        " | ratio  dist  left met".repeat(CASES.len())
    );
}

fn main() -> Result<(), Box<dyn Error>> {
    let (options, folders) = Options::of(std::env::args().skip(1))?;
    let mut functions: BTreeMap<String, Vec<Run>> = BTreeMap::new();
    for folder in &folders {
        collect(Path::new(folder), &mut functions)?;
    }
    // One to be followed, and those that make a profile.
    functions.retain(|_, runs| u32::try_from(runs.len()).is_ok_and(|runs| runs > LEAST_RUNS));
    if functions.is_empty() {
        let folders = folders.join(" or ");
        return Err(format!(
            "no function has {} complete runs below {folders}",
            LEAST_RUNS + 1
        )
        .into());
    }
    print_head();
    let rows: Vec<Row> = functions
        .iter()
        .map(|(name, runs)| judge(name, runs, &options))
        .collect::<Result<_, _>>()?;
    let groups: [(&str, Belongs); 4] = [
        ("over 0.8 s and 100 MB", |row| {
            row.is_big() && row.seconds > 0.8 && !row.kept
        }),
        ("kept alive", |row| row.is_big() && row.kept),
        ("over 100 MB", Row::is_big),
        ("small", |row| !row.is_big()),
    ];
    for (name, belongs) in groups {
        let of: Vec<&Row> = rows.iter().filter(|row| belongs(row)).collect();
        if of.is_empty() {
            continue;
        }
        let name = format!("{name} ({})", of.len());
        let foreseen = geometric_mean(of.iter().map(|row| row.foreseen));
        let mut line = format!("{name:<60}{foreseen:12.2}{:6}", "");
        for (number, _) in CASES.iter().enumerate() {
            let ratios = of.iter().filter_map(|row| row.ratios.get(number));
            let met: u32 = of.iter().filter_map(|row| row.met.get(number)).sum();
            line += &format!(" |{:6.2}{:12}{met:4}", geometric_mean(ratios.copied()), "");
        }
        println!("{line}");
    }
    Ok(())
}

fn collect(path: &Path, functions: &mut BTreeMap<String, Vec<Run>>) -> Result<(), Box<dyn Error>> {
    let failed = |err: Box<dyn Error>| format!("{}: {err}", path.display());
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|err| failed(err.into()))?;
        let mut entries: Vec<_> = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        entries.sort();
        for entry in entries {
            collect(&entry, functions)?;
        }
    } else if path.extension().is_none_or(|end| end == "csv")
        && let Some((name, run)) = Run::read(path).map_err(failed)?
    {
        functions.entry(name).or_default().push(run);
    }
    Ok(())
}
