//! What a choice of the local ratio is worth: requests to functions on a host with remote memory, under latency bounds, by
//! policy.
//!
//! `cargo run --release --example adaptive -- FILE REQUESTS SEED` prints a line of JSON for each input, bound and policy.
//! FILE has latencies with local memory and what remote memory costs (bench/data/remote.csv); a run with a part of its
//! memory remote takes longer by that part of the cost, since interleaved pages are used alike wherever they lie. What
//! varies from run to run is drawn from what varied when the runs were recorded.

#[path = "random.rs"]
mod random;

use std::error::Error;
use std::time::Duration;

use elastic_mem::model::Bytes;
use elastic_mem::model::placed::Measured;
use elastic_mem::model::placement::LocalRatio;
use elastic_mem::policy::pareto::{Choice, MOST_ALIKE, Rules, Slo, choose, explore, fewest_runs};
use random::Random;

const QUANTILE: f64 = 0.95;
/// Of the quantile with local memory alone.
const BOUNDS: [f64; 7] = [0.9, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0];
/// Ratios that are measured before, in percent.
const STEPS: [u64; 11] = [100, 90, 80, 70, 60, 50, 40, 30, 20, 10, 0];
/// A choice stands for so many requests.
const EVERY: u32 = 10;

struct Function {
    name: String,
    input: String,
    slowdown: f64,
    memory: Bytes,
    latency: f64,
    /// Latencies in shares of their mean, ascending.
    spread: Vec<f64>,
}

enum Policy {
    Static(u64),
    /// All local or all remote.
    Adrias,
    /// All ratios were measured before.
    Adaptive,
    /// Nothing was: it learns from requests alone.
    Learning,
}

/// One run.
struct Outcome {
    ratio: LocalRatio,
    latency: Duration,
    local: Bytes,
}

/// What was seen so far, from remote to local.
#[derive(Default)]
struct Seen(Vec<Measured>);

impl Seen {
    fn add(&mut self, outcome: &Outcome) {
        match self.0.iter_mut().find(|one| one.ratio == outcome.ratio) {
            Some(known) => {
                known.latencies.push(outcome.latency);
                // As the store keeps them.
                if known.latencies.len() > MOST_ALIKE {
                    known.latencies.remove(0);
                }
            }
            None => {
                self.0.push(Measured {
                    ratio: outcome.ratio,
                    local: outcome.local,
                    latencies: vec![outcome.latency],
                });
                self.0.sort_by_key(|one| one.ratio);
            }
        }
    }
}

impl Function {
    fn parse(line: &str) -> Result<Self, Box<dyn Error>> {
        let bad = || format!("no function: {line:?}");
        let cells: Vec<&str> = line.split(',').collect();
        let [name, input, slowdown, memory, latencies] = cells[..] else {
            return Err(bad().into());
        };
        let mut latencies: Vec<f64> = latencies
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        latencies.sort_by(f64::total_cmp);
        let count = u32::try_from(latencies.len())?;
        let latency = latencies.iter().sum::<f64>() / f64::from(count);
        Ok(Self {
            name: name.to_owned(),
            input: input.to_owned(),
            slowdown: slowdown.parse()?,
            memory: Bytes::from_mib(memory.parse()?).ok_or_else(bad)?,
            latency,
            spread: latencies.iter().map(|one| one / latency).collect(),
        })
    }

    /// Between two recorded ones, so that no value comes twice.
    fn luck(&self, random: &mut Random) -> f64 {
        let gaps = u32::try_from(self.spread.len() - 1).unwrap_or(0);
        let at = random.share() * f64::from(gaps);
        let pairs = (0..gaps).zip(self.spread.iter().zip(self.spread.iter().skip(1)));
        let pair = pairs.rev().find(|(below, _)| f64::from(*below) <= at);
        pair.map_or(1.0, |(below, (low, high))| {
            low + (high - low) * (at - f64::from(below))
        })
    }

    fn run(&self, ratio: LocalRatio, luck: f64) -> Outcome {
        let slower = 1.0 + self.slowdown * (1.0 - f64::from(ratio));
        Outcome {
            ratio,
            latency: Duration::from_secs_f64(self.latency * slower * luck),
            local: Bytes::new(ratio.share(self.memory.get())),
        }
    }
}

fn ratio(percent: u64) -> LocalRatio {
    LocalRatio::of(percent, 100 - percent).unwrap_or_default()
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, file, requests, seed] = &args[..] else {
        return Err("usage: adaptive FILE REQUESTS SEED".into());
    };
    let (requests, seed): (u32, u64) = (requests.parse()?, seed.parse()?);
    let text = std::fs::read_to_string(file)?;
    let lines = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    for line in lines {
        let function = Function::parse(line)?;
        let mut random = Random(seed);
        let mut many: Vec<f64> = (0..100_000).map(|_| function.luck(&mut random)).collect();
        many.sort_by(f64::total_cmp);
        let quantile = many.get(95_000).ok_or("too few")? * function.latency;
        for factor in BOUNDS {
            let slo = Slo {
                latency: Duration::from_secs_f64(quantile * factor),
                quantile: QUANTILE,
            };
            let policies = [
                Policy::Static(100),
                Policy::Static(75),
                Policy::Static(50),
                Policy::Static(25),
                Policy::Static(0),
                Policy::Adrias,
                Policy::Adaptive,
                Policy::Learning,
            ];
            for policy in &policies {
                let figures = serve(&function, policy, &slo, requests, seed);
                let (name, over, local, all_local, last) = figures;
                println!(
                    "{}",
                    serde_json::json!({
                        "function": function.name,
                        "input": function.input,
                        "bound": factor,
                        "policy": name,
                        "requests": requests,
                        "over": over,
                        "local": local / all_local,
                        "ratio": f64::from(last),
                    })
                );
            }
        }
    }
    Ok(())
}

/// Name of the policy, requests over the bound, local byte-seconds, those with local memory alone, and the last ratio.
fn serve(
    function: &Function,
    policy: &Policy,
    slo: &Slo,
    requests: u32,
    seed: u64,
) -> (String, u32, f64, f64, LocalRatio) {
    let rules = Rules::default();
    // The same luck for each policy.
    let mut random = Random(seed ^ 0x5eed);
    let mut seen = Seen::default();
    let measured: &[u64] = match policy {
        Policy::Adrias => &[100, 0],
        Policy::Adaptive => &STEPS,
        _ => &[],
    };
    let mut before = Random(seed ^ 0xbef0);
    for percent in measured {
        for _ in 0..fewest_runs(QUANTILE, rules.confidence) {
            seen.add(&function.run(ratio(*percent), function.luck(&mut before)));
        }
    }
    let (mut over, mut local, mut all_local) = (0, 0.0, 0.0);
    let mut chosen = LocalRatio::LOCAL;
    let bytes_seconds = |outcome: &Outcome| {
        let kib = u32::try_from(outcome.local.get() >> 10).unwrap_or(u32::MAX);
        f64::from(kib) * outcome.latency.as_secs_f64()
    };
    for number in 0..requests {
        if number % EVERY == 0 {
            let choice = |seen: &Seen| -> Choice { choose(&seen.0, slo, &rules) };
            chosen = match policy {
                Policy::Static(percent) => ratio(*percent),
                Policy::Adrias | Policy::Adaptive => choice(&seen).ratio,
                Policy::Learning => explore(&choice(&seen), slo, &rules),
            };
        }
        let luck = function.luck(&mut random);
        let outcome = function.run(chosen, luck);
        over += u32::from(outcome.latency > slo.latency);
        local += bytes_seconds(&outcome);
        all_local += bytes_seconds(&function.run(LocalRatio::LOCAL, luck));
        if !matches!(policy, Policy::Static(_)) {
            seen.add(&outcome);
        }
    }
    let name = match policy {
        Policy::Static(100) => "local".to_owned(),
        Policy::Static(0) => "remote".to_owned(),
        Policy::Static(percent) => format!("interleave={}:{}", percent / 25, 4 - percent / 25),
        Policy::Adrias => "adrias".to_owned(),
        Policy::Adaptive => "adaptive".to_owned(),
        Policy::Learning => "adaptive, nothing measured before".to_owned(),
    };
    (name, over, local, all_local, chosen)
}
