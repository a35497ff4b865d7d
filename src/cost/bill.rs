//! The bill of one function for a month.

use std::fmt;
use std::time::Duration;

use rust_decimal::Decimal;

use super::CostError;
use super::money::{percent, plus};
use super::tariff::{CpuAmount, CpuPrice, CpuUnit, MemoryBilling, Tariff};
use crate::model::{Bytes, MemoryTime};

/// What a function did: every run of the month is like this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The most memory that was in use at any time.
    pub peak: Bytes,
    /// The memory in use over the time of one run; absent: the peak, all the time.
    pub area: Option<MemoryTime>,
    /// The same with each moment rounded up to the sizes of a provider that bills use; absent: from `area`.
    pub stepped_area: Option<MemoryTime>,
    /// The memory that the function declares; absent: the smallest size that holds the peak.
    pub allocated: Option<Bytes>,
    /// How long one run takes.
    pub duration: Duration,
    /// CPU time of one run; absent: all allocated CPU, all the time.
    pub cpu_time: Option<Duration>,
    /// vCPUs of the instance where they are chosen apart from memory; absent: what the price file says.
    pub cpus: Option<Decimal>,
    /// Runs in a month.
    pub requests: u64,
    /// Whether the free amounts and the fee of a month are counted.
    pub free: bool,
}

impl Usage {
    /// So much memory, flat, for so long, so many times in a month; no free amounts.
    pub fn flat(peak: Bytes, duration: Duration, requests: u64) -> Self {
        Self {
            peak,
            area: None,
            stepped_area: None,
            allocated: None,
            duration,
            cpu_time: None,
            cpus: None,
            requests,
            free: false,
        }
    }
}

/// USD of one month, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Memory over time.
    pub memory: Decimal,
    /// CPU, where it has a price of its own.
    pub cpu: Decimal,
    /// Requests.
    pub requests: Decimal,
    /// The fee of the month.
    pub fee: Decimal,
}

impl Parts {
    /// All of them.
    ///
    /// # Errors
    /// [`CostError::TooLarge`].
    pub fn sum(&self) -> Result<Decimal, CostError> {
        plus(self.memory, self.others()?)
    }

    /// All but memory.
    fn others(&self) -> Result<Decimal, CostError> {
        plus(self.cpu, plus(self.requests, self.fee)?)
    }
}

/// How the billed memory came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryReason {
    /// It was asked for and is a size.
    Asked(Bytes),
    /// The smallest size that holds what was asked for.
    SizeAboveAsked {
        /// What was asked for.
        asked: Bytes,
        /// The size.
        size: Bytes,
    },
    /// The smallest size that holds the peak.
    SizeAbovePeak {
        /// The peak.
        peak: Bytes,
        /// The size.
        size: Bytes,
    },
    /// Use over time, each moment rounded up; the size is that of the peak.
    UseOverTime {
        /// The size of the peak.
        size: Bytes,
    },
    /// The mean of use over time, rounded up: the curve is not known.
    MeanUse {
        /// The mean.
        mean: Bytes,
        /// The size.
        size: Bytes,
    },
}

/// How the billed time came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeReason {
    /// The duration is a multiple of the step.
    Exact(Duration),
    /// Rounded up to the step, or to the least time.
    RoundedUp {
        /// The duration.
        from: Duration,
        /// What is billed.
        to: Duration,
    },
}

/// How the billed CPU came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuReason {
    /// It has no price of its own.
    InMemoryPrice,
    /// So much as is allocated, for the billed time.
    Allocated(Decimal, CpuUnit),
    /// CPU time as measured.
    Used(Duration),
    /// CPU time is billed but not known: so much as is allocated, all the time, which is the most it can be.
    AssumedBusy(Decimal, CpuUnit),
}

/// Why a bill is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Memory.
    pub memory: MemoryReason,
    /// Time.
    pub time: TimeReason,
    /// CPU.
    pub cpu: CpuReason,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.memory {
            MemoryReason::Asked(size) => write!(f, "{size} as asked for")?,
            MemoryReason::SizeAboveAsked { asked, size } => {
                write!(
                    f,
                    "{size} is the smallest size that holds the {asked} asked for"
                )?;
            }
            MemoryReason::SizeAbovePeak { peak, size } => {
                write!(f, "{size} is the smallest size that holds {peak}")?;
            }
            MemoryReason::UseOverTime { size } => {
                write!(f, "memory in use is billed over time, {size} at most")?;
            }
            MemoryReason::MeanUse { mean, size } => write!(
                f,
                "memory in use is billed over time: {size}, the mean of {mean} rounded up, for want of the curve"
            )?,
        }
        match self.time {
            TimeReason::Exact(time) => write!(f, "; {time:?} as measured")?,
            TimeReason::RoundedUp { from, to } => write!(f, "; {from:?} is billed as {to:?}")?,
        }
        match self.cpu {
            CpuReason::InMemoryPrice => f.write_str("; CPU has no price of its own"),
            CpuReason::Allocated(amount, unit) => {
                write!(f, "; {amount} {unit} for the billed time")
            }
            CpuReason::Used(time) => write!(f, "; CPU time {time:?}"),
            CpuReason::AssumedBusy(amount, unit) => write!(
                f,
                "; CPU time is not known: {amount} {unit} busy for the whole duration, the most it can be"
            ),
        }
    }
}

/// What a month costs, in USD. `docs/cost.md` defines each figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bill {
    /// The memory size; of a provider that bills use, the size of the peak.
    pub size: Bytes,
    /// The billed time of one run.
    pub billed_time: Duration,
    /// What is paid, by what it is for.
    pub parts: Parts,
    /// What is paid.
    pub gross: Decimal,
    /// The same for the memory in use and the duration as it was, without rounding.
    pub net: Decimal,
    /// With the billed memory for the duration as it was: what lies above `net` is wasted memory.
    pub exact_time: Decimal,
    /// With the memory in use for the billed time: what lies above `net` is wasted time.
    pub exact_memory: Decimal,
    /// Memory that is billed above the peak.
    pub wasted_memory: Bytes,
    /// Time that is billed above the duration.
    pub wasted_time: Duration,
    /// Why.
    pub reason: Reason,
}

impl Bill {
    /// Gross minus net.
    pub fn overhead(&self) -> Decimal {
        self.gross - self.net
    }

    /// Overhead as surcharge on use: in percent of net. None if net is zero.
    pub fn surcharge_on_use(&self) -> Option<Decimal> {
        percent(self.overhead(), self.net)
    }

    /// Overhead as share of the bill: in percent of gross. None if gross is zero.
    pub fn share_of_bill(&self) -> Option<Decimal> {
        percent(self.overhead(), self.gross)
    }

    /// Increase over net by wasted memory, in percent.
    pub fn memory_waste(&self) -> Option<Decimal> {
        percent(self.exact_time - self.net, self.net)
    }

    /// Increase over net by wasted time, in percent.
    pub fn time_waste(&self) -> Option<Decimal> {
        percent(self.exact_memory - self.net, self.net)
    }
}

/// The amounts of a bill that do not depend on how memory is billed.
pub(super) struct Frame<'a> {
    tariff: &'a Tariff<'a>,
    pub(super) size: Bytes,
    pub(super) billed_time: Duration,
    requests: u64,
    free: bool,
    request_cost: Decimal,
    fee: Decimal,
    /// For the billed time and for the duration.
    cpu: (Decimal, Decimal),
    cpu_reason: CpuReason,
    memory_reason: MemoryReason,
}

impl<'a> Frame<'a> {
    pub(super) fn new(tariff: &'a Tariff<'a>, usage: &Usage) -> Result<Self, CostError> {
        if usage.duration.is_zero() {
            return Err(CostError::NoDuration);
        }
        let (size, place, memory_reason) = choose(tariff, usage)?;
        let billed_time = tariff.billed_time(usage.duration)?;
        let (cpu, cpu_reason) = match tariff.cpu_price() {
            None => ((Decimal::ZERO, Decimal::ZERO), CpuReason::InMemoryPrice),
            Some(price) => cpu(tariff, price, usage, place, billed_time)?,
        };
        Ok(Self {
            tariff,
            size,
            billed_time,
            requests: usage.requests,
            free: usage.free,
            request_cost: tariff.request_cost(usage.requests, usage.free)?,
            fee: tariff.fee(usage.free),
            cpu,
            cpu_reason,
            memory_reason,
        })
    }

    /// USD for the memory over time of one run.
    pub(super) fn load(&self, area: MemoryTime) -> Result<Decimal, CostError> {
        let month = area.checked_mul(self.requests).ok_or(CostError::TooLarge)?;
        self.tariff.load_cost(month, self.size, self.free)
    }

    /// The parts of a bill with this much for memory, and CPU of the billed time.
    pub(super) fn parts(&self, memory: Decimal) -> Parts {
        Parts {
            memory,
            cpu: self.cpu.0,
            requests: self.request_cost,
            fee: self.fee,
        }
    }

    /// The same with CPU of the duration as it was.
    fn exact_parts(&self, memory: Decimal) -> Parts {
        Parts {
            cpu: self.cpu.1,
            ..self.parts(memory)
        }
    }
}

/// The size, its place in the list, and why.
fn choose(tariff: &Tariff<'_>, usage: &Usage) -> Result<(Bytes, usize, MemoryReason), CostError> {
    let peak = usage.peak;
    if tariff.memory.value.billing == MemoryBilling::Use {
        // Nothing is declared: the size follows use.
        let (size, place) = tariff.size(peak)?;
        let reason = match (usage.stepped_area, usage.area) {
            (None, Some(area)) => {
                let mean = area.mean_over(usage.duration).ok_or(CostError::TooLarge)?;
                let (size, _) = tariff.size(mean)?;
                MemoryReason::MeanUse { mean, size }
            }
            _ => MemoryReason::UseOverTime { size },
        };
        return Ok((size, place, reason));
    }
    match usage.allocated {
        Some(allocated) if allocated < peak => Err(CostError::MoreThanAllocated {
            used: peak,
            allocated,
        }),
        Some(asked) => {
            let (size, place) = tariff.size(asked)?;
            let reason = if size == asked {
                MemoryReason::Asked(size)
            } else {
                MemoryReason::SizeAboveAsked { asked, size }
            };
            Ok((size, place, reason))
        }
        None => {
            let (size, place) = tariff.size(peak)?;
            Ok((size, place, MemoryReason::SizeAbovePeak { peak, size }))
        }
    }
}

fn cpu(
    tariff: &Tariff<'_>,
    price: &CpuPrice,
    usage: &Usage,
    place: usize,
    billed_time: Duration,
) -> Result<((Decimal, Decimal), CpuReason), CostError> {
    let amount = match &price.amount {
        // The lists have the same length: `Tariff::new`.
        CpuAmount::PerSize(list) => list.get(place).copied().unwrap_or_default(),
        CpuAmount::Fixed(amount) => match price.unit {
            CpuUnit::Vcpu => usage.cpus.unwrap_or(*amount),
            CpuUnit::Ghz => *amount,
        },
    };
    let cost = |amount, time| tariff.cpu_cost(price, amount, time, usage.requests, usage.free);
    if !price.by_use {
        let exact = cost(amount, usage.duration)?;
        let billed = if billed_time == usage.duration {
            exact
        } else {
            cost(amount, billed_time)?
        };
        return Ok(((billed, exact), CpuReason::Allocated(amount, price.unit)));
    }
    let (cost, reason) = match usage.cpu_time {
        Some(time) => (cost(Decimal::ONE, time)?, CpuReason::Used(time)),
        None => (
            cost(amount, usage.duration)?,
            CpuReason::AssumedBusy(amount, price.unit),
        ),
    };
    Ok(((cost, cost), reason))
}

/// What a month of such runs costs.
///
/// # Errors
/// [`CostError`].
pub fn bill(tariff: &Tariff<'_>, usage: &Usage) -> Result<Bill, CostError> {
    let frame = Frame::new(tariff, usage)?;
    let (size, duration, billed_time) = (frame.size, usage.duration, frame.billed_time);
    let held = |memory: Bytes, time| memory.held_for(time).ok_or(CostError::TooLarge);
    let most = held(usage.peak, duration)?;
    let used = usage.area.unwrap_or(most);
    if used > most {
        return Err(CostError::MoreThanPeak {
            peak: usage.peak,
            duration,
        });
    }
    let extra_time = billed_time.saturating_sub(duration);
    let billed_for_duration = match (frame.memory_reason, usage.stepped_area) {
        (MemoryReason::UseOverTime { .. }, Some(area)) => area,
        (MemoryReason::MeanUse { size, .. }, _) => held(size, duration)?,
        _ => held(size, duration)?,
    };
    let used_memory = frame.load(used)?;
    let memory = if billed_for_duration == used {
        used_memory
    } else {
        frame.load(billed_for_duration)?
    };
    let others = frame.exact_parts(Decimal::ZERO).others()?;
    let net = plus(used_memory, others)?;
    let exact_time = plus(memory, others)?;
    let (parts, gross, exact_memory) = if extra_time.is_zero() {
        (frame.parts(memory), exact_time, net)
    } else {
        let longer = |area| stretched(area, duration, extra_time);
        let parts = frame.parts(frame.load(longer(billed_for_duration)?)?);
        let exact_memory = frame.parts(frame.load(longer(used)?)?).sum()?;
        (parts, parts.sum()?, exact_memory)
    };
    Ok(Bill {
        size,
        billed_time,
        parts,
        gross,
        net,
        exact_time,
        exact_memory,
        wasted_memory: size.saturating_sub(usage.peak),
        wasted_time: extra_time,
        reason: Reason {
            memory: frame.memory_reason,
            time: if extra_time.is_zero() {
                TimeReason::Exact(duration)
            } else {
                TimeReason::RoundedUp {
                    from: duration,
                    to: billed_time,
                }
            },
            cpu: frame.cpu_reason,
        },
    })
}

/// `area` of `duration` when the same mean is held for `extra` longer; rounded up to a byte nanosecond.
fn stretched(
    area: MemoryTime,
    duration: Duration,
    extra: Duration,
) -> Result<MemoryTime, CostError> {
    area.byte_nanos()
        .checked_mul(extra.as_nanos())
        .map(|more| MemoryTime::from_byte_nanos(more.div_ceil(duration.as_nanos())))
        .and_then(|more| area.checked_add(more))
        .ok_or(CostError::TooLarge)
}
