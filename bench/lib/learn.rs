//! What learning costs: CPU time for 10,000 traces of 1,000 samples, and for reading a profile of one class.
//!
//! `cargo run --release --example learn` prints the figures as JSON. The traces are made up, of runs of 2.5 s with three
//! input sizes; making them does not count.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use elastic_mem::model::profile::{BinWidth, Digest, Profile};
use elastic_mem::model::trace::{Context, End, Sample, Trace};
use elastic_mem::model::{Bytes, ClassName};
use elastic_mem::policy::learn::{Digests, Rules, digest, learn};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

const TRACES: u32 = 10_000;
const SAMPLES: u32 = 1_000;
const READS: u32 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut digesting = Duration::ZERO;
    let mut kept: Vec<Digest> = Vec::new();
    for number in 0..TRACES {
        let trace = trace(number)?;
        let begin = cpu_time()?;
        kept.push(digest(&trace, BinWidth::default())?);
        digesting += cpu_time()?.saturating_sub(begin);
    }
    let begin = cpu_time()?;
    let digests: Digests = kept.into_iter().collect();
    let profile = learn("bench/learn".parse()?, &digests, &Rules::default());
    let learning = cpu_time()?.saturating_sub(begin);

    let mut one_class = profile.clone();
    one_class.bins = None;
    one_class
        .classes
        .retain(|name, _| *name == ClassName::all());
    let json = serde_json::to_vec(&one_class)?;
    let begin = cpu_time()?;
    for _ in 0..READS {
        std::hint::black_box(serde_json::from_slice::<Profile>(&json)?);
    }
    let reading = cpu_time()?.saturating_sub(begin) / READS;

    let figures = serde_json::json!({
        "traces": TRACES,
        "samplesPerTrace": SAMPLES,
        "digestSeconds": digesting.as_secs_f64(),
        "learnSeconds": learning.as_secs_f64(),
        "learnedFrom": digests.len(),
        "classes": profile.classes.len(),
        "profileBytes": json.len(),
        "readProfileMicros": reading.as_secs_f64() * 1e6,
    });
    println!("{figures}");
    Ok(())
}

/// CPU time of this process.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let sum = usage.user_time() + usage.system_time();
    Ok(Duration::from_micros(sum.num_microseconds().try_into()?))
}

/// A run with memory that rises with its input and varies a little from run to run.
fn trace(number: u32) -> Result<Trace, Box<dyn Error>> {
    // Knuth's multiplicative generator: the same traces each time.
    let mut random = number;
    let mut below = move |end: u32| {
        random = random.wrapping_mul(2_654_435_761).wrapping_add(12_345);
        (random >> 8) % end
    };
    let size = 1 << (number % 3);
    let context = Context {
        features: BTreeMap::from([(
            "input-bytes".to_owned(),
            f64::from(size * 1000 + below(500)),
        )]),
        ..Context::new(format!("{number:05}").parse()?, "bench/learn".parse()?)
    };
    let mut cpu = Duration::ZERO;
    let samples = (0..SAMPLES).map(|index| {
        cpu += Duration::from_micros(u64::from(3_900 + below(100)));
        let anon = u64::from((index % 700) * size * 50_000 + below(1 << 20));
        Sample {
            at: Duration::from_micros(5_000) * index,
            usage: Some(Bytes::new(anon + (9 << 20))),
            anon: Some(Bytes::new(anon)),
            file: Some(Bytes::new(8 << 20)),
            shmem: Some(Bytes::ZERO),
            kernel: Some(Bytes::new(1 << 20)),
            cpu: Some(cpu),
            ..Sample::default()
        }
    });
    Ok(Trace {
        context: Some(context),
        end: Some(End::default()),
        nodes: Vec::new(),
        samples: samples.collect(),
    })
}
