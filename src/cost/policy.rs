//! What a recorded run would cost under four ways of allocating memory.

use std::time::Duration;

use rust_decimal::Decimal;

use super::CostError;
use super::bill::{Bill, Frame, Usage, bill};
use super::money::percent;
use super::tariff::{MemoryBilling, Tariff};
use crate::model::trace::{Step, Trace};
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

    /// Its name for programs.
    pub fn id(self) -> &'static str {
        match self {
            Self::StaticSize => "static-size",
            Self::StaticPeak => "static-peak",
            Self::DynamicHull => "dynamic-hull",
            Self::DynamicGrant => "dynamic-grant",
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

fn area(steps: &[Step]) -> Result<MemoryTime, CostError> {
    Step::area_of(steps).ok_or(CostError::TooLarge)
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

/// What was granted over time, or why there is nothing.
fn granted(trace: &Trace) -> Result<Vec<Step>, &'static str> {
    trace
        .granted()
        .ok_or("the trace has no value in the columns limit and high")?
        .into_iter()
        .filter(|step| step.from < step.to)
        .map(|step| match step.value {
            MemoryLimit::Bytes(bytes) => Ok(Step {
                from: step.from,
                to: step.to,
                // A trace has no negative limits.
                value: Bytes::new(u64::try_from(bytes).unwrap_or(0)),
            }),
            MemoryLimit::None => Err("there was a time without any limit"),
        })
        .collect()
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

    fn trace(lines: &[&str]) -> Trace {
        format!("{}{}\n", Trace::header(None, &[]), lines.join("\n"))
            .parse()
            .unwrap()
    }

    #[test]
    fn an_empty_cell_of_one_limit_leaves_the_value_before_in_force() {
        // limit is read once, high changes: 300 and 500 above and below the limit of 400.
        let trace = trace(&[
            "0,1,,,,,400,300,,,,,,",
            "1000,1,,,,,,500,,,,,,",
            "2000,1,,,,,,max,,,,,,",
            "3000,1,,,,,,,,,,,,",
        ]);
        assert_eq!(
            granted(&trace),
            Ok(vec![step(0, 1, 300), step(1, 2, 400), step(2, 3, 400)])
        );
    }

    #[test]
    fn a_column_that_was_read_later_holds_from_the_start() {
        let trace = trace(&[
            "0,1,,,,,max,,,,,,,",
            "1000,1,,,,,,200,,,,,,",
            "2000,1,,,,,150,,,,,,,",
            "3000,1,,,,,,,,,,,,",
        ]);
        assert_eq!(
            granted(&trace),
            Ok(vec![step(0, 1, 200), step(1, 2, 200), step(2, 3, 150)])
        );
    }

    #[test]
    fn no_limit_at_some_time_is_no_grant_but_at_no_time_it_does_not_matter() {
        let without = trace(&[
            "0,1,,,,,max,7,,,,,,",
            "1000,1,,,,,,max,,,,,,",
            "2000,1,,,,,,,,,,,,",
        ]);
        assert_eq!(granted(&without), Err("there was a time without any limit"));
        // The last sample holds for no time, and so does one that another of the same moment replaces.
        let moment = trace(&[
            "0,1,,,,,max,,,,,,,",
            "0,1,,,,,5,,,,,,,",
            "1000,1,,,,,max,,,,,,,",
        ]);
        assert_eq!(granted(&moment), Ok(vec![step(0, 1, 5)]));
        let never = trace(&["0,1,,,,,,,,,,,,", "1000,1,,,,,,,,,,,,"]);
        assert_eq!(
            granted(&never),
            Err("the trace has no value in the columns limit and high")
        );
    }

    #[test]
    fn a_bin_wider_than_the_run_is_the_peak_for_the_run() {
        let steps = [step(0, 5, 10), step(5, 12, 30), step(12, 65, 20)];
        assert_eq!(hull(&steps, Duration::from_secs(1)), [step(0, 65, 30)]);
    }
}
