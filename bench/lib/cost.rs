//! What `bench/cost` measures: bills of many runs at every offer, by `elastic_mem::cost` and by plain binary
//! fractions (`f64`) as a calculator would have them that reads the price lists in GB and seconds.
//!
//! `cost exact|plain RUNS SEED` bills and prints what came out; `cost compare RUNS SEED` bills in both ways and
//! prints by how much the plain one errs.

#[path = "random.rs"]
#[allow(dead_code, reason = "whole numbers are wanted here, and no shares")]
mod random;

use std::error::Error;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use elastic_mem::cost::{
    Catalog, CpuAmount, MemoryBilling, Month, Provider, Sizes, Tariff, Usage, bill,
};
use elastic_mem::model::{Bytes, MemoryTime};
use random::Random;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::{Value, json};

/// The runs need no more, so that every offer has a bill for each.
const LARGEST_MB: u64 = 128;
/// A relative error above this is no rounding of binary fractions: another size or step was billed.
const ROUNDING: f64 = 1e-9;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("cost: {err}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<Value, Box<dyn Error>> {
    let [what, runs, seed] = args else {
        return Err("want exact, plain or compare, then RUNS and SEED; run bench/cost".into());
    };
    let (runs, seed) = (runs.parse()?, seed.parse()?);
    let catalog = Catalog::built_in()?;
    let tariffs = newest(&catalog)?;
    match what.as_str() {
        "exact" => exact(&tariffs, runs, seed),
        "plain" => Ok(plain(&tariffs, runs, seed)),
        "compare" => compare(&tariffs, runs, seed),
        _ => Err(format!("{what:?} is neither exact, plain nor compare").into()),
    }
}

/// The newest prices of every offer: those of before its end where it has ended.
fn newest(catalog: &Catalog) -> Result<Vec<Tariff<'_>>, Box<dyn Error>> {
    let first = |provider: &Provider| provider.load.first().map(|load| load.from());
    catalog
        .providers()
        .iter()
        .map(|provider| {
            let ended = provider.ended.as_ref().and_then(|_| first(provider));
            Ok(provider.tariff(ended.unwrap_or(Month::LATEST))?)
        })
        .collect()
}

// Runs

/// One run as a log has it: peak, memory over time, duration in whole milliseconds.
#[derive(Clone, Copy)]
struct Run {
    peak: Bytes,
    area: MemoryTime,
    duration: Duration,
}

impl Run {
    fn any(random: &mut Random) -> Self {
        let peak = 1 + random.next() % (LARGEST_MB << 20);
        let millis = 1 + random.next() % 10_000;
        // Between a half of the peak and all of it, all the time.
        let most = u128::from(peak) * u128::from(millis) * 1_000_000;
        let area = most / 2 + u128::from(random.next()) % (most / 2);
        Self {
            peak: Bytes::new(peak),
            area: MemoryTime::from_byte_nanos(area),
            duration: Duration::from_millis(millis),
        }
    }
}

/// What a bill consists of, under the names of `elastic_mem::cost::Bill`.
#[allow(dead_code, reason = "what is computed is what is measured")]
struct Figures<T> {
    gross: T,
    net: T,
    exact_time: T,
    exact_memory: T,
}

// Exact

fn exact_bill(tariff: &Tariff<'_>, run: &Run) -> Result<Figures<Decimal>, Box<dyn Error>> {
    let usage = Usage {
        area: Some(run.area),
        ..Usage::flat(run.peak, run.duration, 1)
    };
    let bill = bill(tariff, &usage).map_err(|err| format!("{}: {err}", tariff.provider.id))?;
    Ok(Figures {
        gross: bill.gross,
        net: bill.net,
        exact_time: bill.exact_time,
        exact_memory: bill.exact_memory,
    })
}

fn exact(tariffs: &[Tariff<'_>], runs: u64, seed: u64) -> Result<Value, Box<dyn Error>> {
    let mut random = Random(seed);
    let mut gross = Decimal::ZERO;
    let mut bills = 0_u64;
    for _ in 0..runs {
        let run = Run::any(&mut random);
        for tariff in tariffs {
            let bill = exact_bill(tariff, &run)?;
            gross += bill.gross;
            // What is not summed is not left out either.
            black_box(bill);
            bills += 1;
        }
    }
    Ok(json!({ "bills": bills, "gross": gross.to_string() }))
}

// Plain

/// An offer in binary fractions, GB and seconds.
struct Plain {
    sizes: PlainSizes,
    by_use: bool,
    step: f64,
    least: f64,
    tiers: Vec<(f64, f64)>,
    request: f64,
    cpu: Option<PlainCpu>,
}

enum PlainSizes {
    Range { min: f64, step: f64 },
    List(Vec<f64>),
}

struct PlainCpu {
    by_use: bool,
    per_size: Vec<f64>,
    fixed: f64,
    price: f64,
}

fn number(decimal: Decimal) -> f64 {
    decimal.to_f64().unwrap_or(f64::NAN)
}

fn gb(bytes: Bytes) -> f64 {
    bytes.get() as f64 / f64::from(1_u32 << 30)
}

impl Plain {
    fn new(tariff: &Tariff<'_>) -> Self {
        let memory = &tariff.memory.value;
        Self {
            sizes: match &memory.sizes {
                Sizes::Range { min, step, .. } => PlainSizes::Range {
                    min: gb(*min),
                    step: gb(*step),
                },
                Sizes::List(list) => PlainSizes::List(list.iter().map(|size| gb(*size)).collect()),
            },
            by_use: memory.billing == MemoryBilling::Use,
            step: tariff.time.value.step.as_secs_f64(),
            least: tariff.time.value.least.as_secs_f64(),
            tiers: tariff
                .load
                .value
                .tiers
                .iter()
                .map(|tier| {
                    let top = tier.up_to_gb_s.map_or(f64::INFINITY, |top| top as f64);
                    (top, number(tier.usd_per_gb_s))
                })
                .collect(),
            request: number(tariff.request.value),
            cpu: tariff.cpu_price().map(|price| PlainCpu {
                by_use: price.by_use,
                per_size: match &price.amount {
                    CpuAmount::PerSize(list) => list.iter().copied().map(number).collect(),
                    CpuAmount::Fixed(_) => Vec::new(),
                },
                fixed: match &price.amount {
                    CpuAmount::PerSize(_) => f64::NAN,
                    CpuAmount::Fixed(amount) => number(*amount),
                },
                price: number(price.usd_per_unit_s),
            }),
        }
    }

    fn size(&self, wanted: f64) -> (f64, usize) {
        match &self.sizes {
            PlainSizes::Range { min, step } => {
                let steps = ((wanted - min) / step).ceil().max(0.0);
                (min + steps * step, 0)
            }
            PlainSizes::List(list) => {
                let place = list.partition_point(|size| *size < wanted);
                (list.get(place).copied().unwrap_or(f64::NAN), place)
            }
        }
    }

    fn load(&self, gb_s: f64) -> f64 {
        let mut below = 0.0;
        let mut sum = 0.0;
        for (top, price) in &self.tiers {
            let top = top.min(gb_s);
            sum += (top - below) * price;
            below = top;
        }
        sum
    }

    fn bill(&self, run: &Run) -> Figures<f64> {
        let duration = run.duration.as_secs_f64();
        let used = run.area.byte_nanos() as f64 / f64::from(1_u32 << 30) / 1e9;
        let billed_time = (duration.max(self.least) / self.step).ceil() * self.step;
        let (peak_size, place) = self.size(gb(run.peak));
        let billed = if self.by_use {
            self.size(used / duration).0
        } else {
            peak_size
        };
        let (billed_cpu, cpu) = match &self.cpu {
            None => (0.0, 0.0),
            Some(cpu) => {
                let amount = cpu.per_size.get(place).copied().unwrap_or(cpu.fixed);
                let exact = amount * duration * cpu.price;
                if cpu.by_use {
                    (exact, exact)
                } else {
                    (amount * billed_time * cpu.price, exact)
                }
            }
        };
        Figures {
            gross: self.load(billed * billed_time) + billed_cpu + self.request,
            net: self.load(used) + cpu + self.request,
            exact_time: self.load(billed * duration) + cpu + self.request,
            exact_memory: self.load(used / duration * billed_time) + billed_cpu + self.request,
        }
    }
}

fn plain(tariffs: &[Tariff<'_>], runs: u64, seed: u64) -> Value {
    let offers: Vec<Plain> = tariffs.iter().map(Plain::new).collect();
    let mut random = Random(seed);
    let mut gross = 0.0;
    let mut bills = 0_u64;
    for _ in 0..runs {
        let run = Run::any(&mut random);
        for offer in &offers {
            let bill = offer.bill(&run);
            gross += bill.gross;
            // What is not summed is not left out either.
            black_box(bill);
            bills += 1;
        }
    }
    json!({
        "bills": bills,
        "gross": gross.to_string(),
    })
}

// Comparison

fn compare(tariffs: &[Tariff<'_>], runs: u64, seed: u64) -> Result<Value, Box<dyn Error>> {
    let offers: Vec<Plain> = tariffs.iter().map(Plain::new).collect();
    let mut random = Random(seed);
    let (mut bills, mut wrong_steps) = (0_u64, 0_u64);
    let (mut largest_rounding, mut largest) = (0.0_f64, 0.0_f64);
    let (mut exact_sum, mut plain_sum) = (Decimal::ZERO, 0.0);
    for _ in 0..runs {
        let run = Run::any(&mut random);
        for (tariff, offer) in tariffs.iter().zip(&offers) {
            let exact = exact_bill(tariff, &run)?.gross;
            let plain = offer.bill(&run).gross;
            let error = (plain / number(exact) - 1.0).abs();
            if error > ROUNDING {
                wrong_steps += 1;
            } else {
                largest_rounding = largest_rounding.max(error);
            }
            largest = largest.max(error);
            exact_sum += exact;
            plain_sum += plain;
            bills += 1;
        }
    }
    Ok(json!({
        "bills": bills,
        "wrong_steps": wrong_steps,
        "largest_error": largest,
        "largest_rounding_error": largest_rounding,
        "error_of_sum": plain_sum - number(exact_sum),
        "gross": exact_sum.to_string(),
    }))
}
