//! What a recorded run would cost under four ways of allocating memory.

use std::time::Duration;

use rust_decimal::Decimal;

use super::CostError;
use super::bill::{Bill, Frame, Usage, bill};
use super::money::percent;
use super::tariff::{MemoryBilling, Tariff};
use crate::model::trace::{Sample, Step, Trace};
use crate::model::{Bytes, MemoryLimit, MemoryTime};

/// A way of allocating memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One size of the provider for the whole run: what is paid today.
    StaticSize,
    /// The exact peak for the whole run.
    StaticPeak,
    /// The largest use of each bin, for that bin.
    DynamicHull,
    /// The limit that was in force in the run.
    DynamicGrant,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::StaticSize => "static, size of the provider",
            Self::StaticPeak => "static, exact peak",
            Self::DynamicHull => "dynamic, along the hull",
            Self::DynamicGrant => "dynamic, along the grant",
        }
    }
}

/// What one way of allocating costs in a month, at the prices of the provider per GB-s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyBill {
    /// The way.
    pub kind: Kind,
    /// The memory over time that is billed for one run.
    pub area: MemoryTime,
    /// USD.
    pub gross: Decimal,
    /// Overhead as surcharge on use, in percent of net.
    pub surcharge_on_use: Option<Decimal>,
    /// Overhead as share of the bill, in percent of gross.
    pub share_of_bill: Option<Decimal>,
    /// What it saves of the first way, in percent of that.
    pub saved: Option<Decimal>,
}

/// The bill of a recorded run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceBill {
    /// As the provider bills today.
    pub bill: Bill,
    /// The ways of allocating, in the order of [`Kind`]; without the grant if there was none.
    pub policies: Vec<PolicyBill>,
    /// Why there is no bill along the grant.
    pub no_grant: Option<&'static str>,
}

/// The lowest limit in force at a sample; `None` if neither was read.
fn grant(sample: &Sample) -> Option<MemoryLimit> {
    match (sample.limit, sample.high) {
        (Some(MemoryLimit::Bytes(a)), Some(MemoryLimit::Bytes(b))) => {
            Some(MemoryLimit::Bytes(a.min(b)))
        }
        (Some(MemoryLimit::Bytes(a)), _) | (_, Some(MemoryLimit::Bytes(a))) => {
            Some(MemoryLimit::Bytes(a))
        }
        (None, None) => None,
        _ => Some(MemoryLimit::None),
    }
}

fn area(steps: &[Step]) -> Result<MemoryTime, CostError> {
    steps.iter().try_fold(MemoryTime::ZERO, |sum, step| {
        step.area()
            .and_then(|area| sum.checked_add(area))
            .ok_or(CostError::TooLarge)
    })
}

/// The largest value of each bin, held for that bin.
fn hull(steps: &[Step], bin: Duration) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::new();
    let nanos = bin.as_nanos().max(1);
    for step in steps.iter().filter(|step| step.from < step.to) {
        let first = step.from.as_nanos() / nanos;
        // The end belongs to the next bin.
        let last = step.to.as_nanos().saturating_sub(1) / nanos;
        let edge = |index: u128| {
            u64::try_from(index.saturating_mul(nanos)).map_or(Duration::MAX, Duration::from_nanos)
        };
        let begin = edge(first);
        match out.last_mut() {
            Some(bin) if bin.from == begin => {
                bin.value = bin.value.max(step.value);
                bin.to = step.to.min(edge(first.saturating_add(1)));
            }
            _ => out.push(Step {
                from: begin,
                to: step.to.min(edge(first.saturating_add(1))),
                value: step.value,
            }),
        }
        if last > first {
            // The bins that it fills alone, as one step, and the one that others may share.
            let shared = edge(last);
            if last > first.saturating_add(1) {
                out.push(Step {
                    from: edge(first.saturating_add(1)),
                    to: shared,
                    value: step.value,
                });
            }
            out.push(Step {
                from: shared,
                to: step.to,
                value: step.value,
            });
        }
    }
    out
}

/// What a month of runs like a recorded one costs. `usage` gives requests and what the trace does not have; its
/// peak, areas and duration come from the trace. `bin` is the width of the hull's bins.
///
/// # Errors
/// [`CostError`].
pub fn bill_trace(
    tariff: &Tariff<'_>,
    trace: &Trace,
    usage: &Usage,
    bin: Duration,
) -> Result<TraceBill, CostError> {
    let steps = trace
        .steps(|sample| sample.usage)
        .ok_or(CostError::NothingMeasured("usage"))?;
    let peak = trace
        .peak(|sample| sample.usage)
        .ok_or(CostError::NothingMeasured("usage"))?;
    let used = area(&steps)?;
    let stepped_area = match tariff.memory.value.billing {
        MemoryBilling::Allocated => None,
        MemoryBilling::Use => {
            let mut up = steps.clone();
            for step in &mut up {
                step.value = tariff.size(step.value)?.0;
            }
            Some(area(&up)?)
        }
    };
    let usage = Usage {
        peak,
        area: Some(used),
        stepped_area,
        duration: trace.duration(),
        cpu_time: usage.cpu_time.or(trace.cpu_time()),
        ..*usage
    };
    let today = bill(tariff, &usage)?;
    let frame = Frame::new(tariff, &usage)?;
    let extra = frame.billed_time.saturating_sub(usage.duration);
    let held = |memory: Bytes, time| memory.held_for(time).ok_or(CostError::TooLarge);
    // What is rounded up of the time costs as much memory as was held last.
    let ended = |steps: &[Step]| -> Result<MemoryTime, CostError> {
        let last = steps.last().map_or(Bytes::ZERO, |step| step.value);
        area(steps)?
            .checked_add(held(last, extra)?)
            .ok_or(CostError::TooLarge)
    };
    let mut areas = vec![
        (Kind::StaticSize, held(frame.size, frame.billed_time)?),
        (Kind::StaticPeak, held(peak, frame.billed_time)?),
        (Kind::DynamicHull, ended(&hull(&steps, bin))?),
    ];
    let no_grant = match granted(trace) {
        Ok(steps) => {
            areas.push((Kind::DynamicGrant, ended(&steps)?));
            None
        }
        Err(why) => Some(why),
    };
    let mut policies: Vec<PolicyBill> = Vec::new();
    for (kind, area) in areas {
        let gross = frame.parts(frame.load(area)?).sum()?;
        let overhead = gross - today.net;
        let first = policies.first().map_or(gross, |first| first.gross);
        policies.push(PolicyBill {
            kind,
            area,
            gross,
            surcharge_on_use: percent(overhead, today.net),
            share_of_bill: percent(overhead, gross),
            saved: percent(first - gross, first),
        });
    }
    Ok(TraceBill {
        bill: today,
        policies,
        no_grant,
    })
}

/// The limit in force over time, or why there is none.
fn granted(trace: &Trace) -> Result<Vec<Step>, &'static str> {
    let limits: Vec<MemoryLimit> = trace.samples.iter().filter_map(grant).collect();
    if limits.is_empty() {
        return Err("the trace has no value in the columns limit and high");
    }
    if limits.contains(&MemoryLimit::None) {
        return Err("there was a time without any limit");
    }
    trace
        .steps(|sample| match grant(sample) {
            Some(MemoryLimit::Bytes(bytes)) => u64::try_from(bytes).ok().map(Bytes::new),
            _ => None,
        })
        .ok_or("the trace has no value in the columns limit and high")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from: u64, to: u64, value: u64) -> Step {
        Step {
            from: Duration::from_millis(from),
            to: Duration::from_millis(to),
            value: Bytes::new(value),
        }
    }

    #[test]
    fn the_hull_is_the_largest_value_of_each_bin() {
        let bin = Duration::from_millis(20);
        let steps = [
            step(0, 5, 10),
            step(5, 12, 30),
            step(12, 65, 20),
            step(65, 70, 5),
        ];
        assert_eq!(
            hull(&steps, bin),
            [step(0, 20, 30), step(20, 60, 20), step(60, 70, 20),]
        );
    }

    #[test]
    fn a_bin_wider_than_the_run_is_the_peak_for_the_run() {
        let steps = [step(0, 5, 10), step(5, 12, 30), step(12, 65, 20)];
        assert_eq!(hull(&steps, Duration::from_secs(1)), [step(0, 65, 30)]);
    }
}
