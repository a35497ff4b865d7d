//! What is kept of a trace.

use crate::model::Bytes;
use crate::model::placed::RunPlacement;
use crate::model::profile::{BinWidth, Digest, Hull, Hulls};
use crate::model::trace::{Context, End, Sample, Trace};

/// A hull has at most so many bins; of a longer run they are wider. A profile is read whenever a container is created,
/// and the time for that grows with the number of bins.
pub const MOST_BINS: usize = 256;

/// Growth is counted over so many microseconds: what happens until a look has led to something, with looks in time and on
/// a busy host.
const JUMP: u64 = 4_000;
const BURST: u64 = 20_000;
/// Between samples that are further apart nobody knows how fast memory grew.
const LONGEST_GAP: u64 = 40_000;

/// Nodes with less than this in all samples together were not looked at in time.
const LEAST_ON_NODES: u128 = 1 << 20;

/// Why nothing can be kept of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoDigest {
    /// Nobody knows what ran.
    #[error("the trace does not say which function ran: it has no line \"# context\"")]
    NoContext,
    /// Memory was never read.
    #[error("the trace has no sample with a value of usage or anon")]
    NoMemory,
}

/// What is kept of one run, in bins of `finest` or, if there would be more than [`MOST_BINS`], of the next width with
/// which there are not.
///
/// Time begins with the first sample. A value holds until the next is read, over as many bins as it takes, and fills
/// each of them that it touches. If only usage was read, as in traces of other tools, all of it counts as held.
///
/// # Errors
///
/// The trace has no context or no memory.
pub fn digest(trace: &Trace, finest: BinWidth) -> Result<Digest, NoDigest> {
    let context = trace.context.as_ref().ok_or(NoDigest::NoContext)?;
    let moments = moments(&trace.samples).ok_or(NoDigest::NoMemory)?;
    let largest = |value: fn(&Moment) -> u64| moments.iter().map(value).max().unwrap_or_default();
    let held_peak = Bytes::new(largest(|moment| moment.held));
    let usage_peak = trace.peak(|sample| sample.usage);
    let kernel_peak = trace.end.and_then(|end| end.peak);
    let features = context.features.iter();
    let cpu = trace.cpu_time();
    let usages = usages(&trace.samples, &moments);
    Ok(Digest {
        run: context.run.clone(),
        class: context.class.clone(),
        // JSON has no other numbers.
        features: features
            .filter(|(_, value)| value.is_finite())
            .map(|(name, value)| (name.clone(), *value))
            .collect(),
        duration: trace.duration(),
        cpu,
        held_peak,
        file_peak: Bytes::new(largest(|moment| moment.file)),
        usage_peak: held_peak.max(usage_peak.max(kernel_peak).unwrap_or_default()),
        jump: growth(&usages, JUMP).map(Bytes::new),
        burst: growth(&usages, BURST).map(Bytes::new),
        complete: trace.end.is_some_and(|end| complete(&end)),
        placement: placement(trace, context, &moments),
        seen: trace.end.map(|end| end.seen).unwrap_or_default(),
        wall: hulls(&moments, |moment| moment.wall, finest),
        by_cpu: cpu.map(|_| hulls(&moments, |moment| moment.cpu, finest)),
    })
}

/// How the memory of the run was placed: the local share of what was seen on nodes, of the mean of all memory. `None`
/// if it was not placed; what nobody saw on nodes, as in a short run, lay as it should.
fn placement(trace: &Trace, context: &Context, moments: &[Moment]) -> Option<RunPlacement> {
    let (ratio, nodes) = context.local_ratio.zip(context.local_nodes.as_ref())?;
    let (mut local, mut all) = (0_u128, 0_u128);
    for sample in &trace.samples {
        for (node, bytes) in trace.nodes.iter().zip(&sample.nodes) {
            let bytes = u128::from(bytes.unwrap_or_default().get());
            all += bytes;
            if nodes.contains(*node) {
                local += bytes;
            }
        }
    }
    let nexts = moments.iter().skip(1);
    let area = moments.iter().zip(nexts).map(|(moment, next)| {
        let usage = u128::from(moment.held) + u128::from(moment.file);
        usage * u128::from(next.wall.saturating_sub(moment.wall))
    });
    let time = moments.last().map_or(0, |moment| u128::from(moment.wall));
    let mean = area.sum::<u128>().checked_div(time).unwrap_or_default();
    // Less than that says nothing.
    let local = match all >= LEAST_ON_NODES {
        true => u64::try_from(mean * local / all).ok()?,
        false => ratio.share(u64::try_from(mean).ok()?),
    };
    Some(RunPlacement {
        ratio,
        local: Bytes::new(local),
    })
}

/// Whether a run that ended so had all the memory that it asked for. SIGINT, SIGKILL and SIGTERM end the life of
/// a server and are no failure; a failed function may have asked for more, had it gone on.
fn complete(end: &End) -> bool {
    end.oom_kills == 0 && matches!(end.code, None | Some(0 | 130 | 137 | 143))
}

/// Memory from one moment on. Times are in microseconds since the first sample, memory is in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    wall: u64,
    cpu: u64,
    held: u64,
    file: u64,
}

/// One moment for each sample; `None` if memory was never read.
fn moments(samples: &[Sample]) -> Option<Vec<Moment>> {
    let begin = samples.first()?.at;
    let cpu_begin = samples.iter().find_map(|sample| sample.cpu);
    let mut cpu = 0;
    let times = samples.iter().map(|sample| {
        let since = sample.cpu.zip(cpu_begin);
        let now = since.map_or(0, |(now, begin)| micros(now.saturating_sub(begin)));
        cpu = now.max(cpu);
        (micros(sample.at.saturating_sub(begin)), cpu)
    });
    Some(
        memory(samples)?
            .into_iter()
            .zip(times)
            .map(|((held, file), (wall, cpu))| Moment {
                wall,
                cpu,
                held,
                file,
            })
            .collect(),
    )
}

/// What was used, by the moments at which it was read: usage is read more often than what it is made of.
fn usages(samples: &[Sample], moments: &[Moment]) -> Vec<(u64, u64)> {
    let times = moments.iter().map(|moment| moment.wall);
    let read = samples.iter().zip(times);
    let read: Vec<(u64, u64)> = read
        .filter_map(|(sample, wall)| Some((wall, sample.usage?.get())))
        .collect();
    match read.is_empty() {
        false => read,
        true => moments
            .iter()
            .map(|moment| (moment.wall, moment.held.saturating_add(moment.file)))
            .collect(),
    }
}

/// The most growth within so many microseconds; none if no two samples are that close.
fn growth(usages: &[(u64, u64)], within: u64) -> Option<u64> {
    let mut most = None;
    let mut first = 0;
    for (last, (now, usage)) in usages.iter().enumerate() {
        let is_before = |index| {
            usages
                .get(index)
                .is_some_and(|(then, _)| now - then > within)
        };
        while first < last && is_before(first) {
            first += 1;
        }
        let window = usages.get(first..last)?;
        let least = window.iter().map(|(_, usage)| *usage).min();
        // The value before the window held at its begin, unless nobody looked for long. Of what came since then half as
        // much again came within the window as if it had come evenly, at most.
        let before = first.checked_sub(1).and_then(|before| usages.get(before));
        let before = before.filter(|(then, _)| now - then <= LONGEST_GAP);
        let since = before.map(|(then, before)| {
            let grown = u128::from(usage.saturating_sub(*before));
            let part = grown * u128::from(within) * 3 / u128::from(2 * (now - then));
            u64::try_from(part.min(grown)).unwrap_or(u64::MAX)
        });
        let grown = least.map(|least| usage.saturating_sub(least));
        most = most.max(grown.max(since));
    }
    most
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Held memory and page cache at each sample; `None` if memory was never read.
fn memory(samples: &[Sample]) -> Option<Vec<(u64, u64)>> {
    let read = |column: fn(&Sample) -> Option<Bytes>| {
        // Before the first value that is read the column has that value.
        let first = samples.iter().find_map(column)?;
        let mut value = first.get();
        Some(samples.iter().map(move |sample| {
            value = column(sample).map_or(value, Bytes::get);
            value
        }))
    };
    let Some(anon) = read(|sample| sample.anon) else {
        return Some(
            read(|sample| sample.usage)?
                .map(|usage| (usage, 0))
                .collect(),
        );
    };
    let mut file = read(|sample| sample.file);
    let mut shmem = read(|sample| sample.shmem);
    let mut kernel = read(|sample| sample.kernel);
    let memory = anon.map(|anon| {
        let [file, shmem, kernel] = [&mut file, &mut shmem, &mut kernel]
            .map(|column| column.as_mut().and_then(Iterator::next).unwrap_or(0));
        (anon.saturating_add(shmem).saturating_add(kernel), file)
    });
    Some(memory.collect())
}

/// The hulls of one run over the time that `clock` tells, which never goes back.
fn hulls(moments: &[Moment], clock: fn(&Moment) -> u64, finest: BinWidth) -> Hulls {
    let end = moments.last().map(clock).unwrap_or_default();
    let bins_of = |width: BinWidth| {
        let bins = end.div_ceil(width.micros()).max(1);
        usize::try_from(bins).unwrap_or(usize::MAX)
    };
    let mut width = finest;
    while bins_of(width) > MOST_BINS && width < BinWidth::WIDEST {
        width = width.doubled();
    }
    let count = bins_of(width).min(MOST_BINS);
    let bin = |time: u64| {
        let index = time / width.micros();
        usize::try_from(index).unwrap_or(usize::MAX).min(count - 1)
    };
    let mut held = vec![Bytes::ZERO; count];
    let mut file = held.clone();
    let nexts = moments.iter().skip(1).chain(moments.last());
    for (moment, next) in moments.iter().zip(nexts) {
        let from = clock(moment);
        let first = bin(from);
        // The next moment itself has the next value.
        let last = bin(clock(next).saturating_sub(1).max(from));
        let value = Bytes::new(moment.held);
        let cache = Bytes::new(moment.file);
        for (held, file) in held.iter_mut().zip(&mut file).take(last + 1).skip(first) {
            *held = value.max(*held);
            *file = cache.max(*file);
        }
    }
    let hull = |bins| Hull { width, bins };
    Hulls {
        held: hull(held),
        file: hull(file),
    }
}
