//! The prices of one provider in one month.

use std::fmt;
use std::time::Duration;

use rust_decimal::{Decimal, RoundingStrategy};
use serde::Deserialize;

use super::catalog::{Entry, Provenance, Provider};
use super::money::{plus, times};
use super::{CatalogError, CostError, Month};
use crate::model::{Bytes, MemoryTime};

/// Byte nanoseconds of 1 GB (2^30 bytes) for one second.
const GB_SECOND: u128 = (1 << 30) * 1_000_000_000;

/// The memory sizes that can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sizes {
    /// From a smallest to a largest size in equal steps.
    Range {
        /// The smallest.
        min: Bytes,
        /// The largest.
        max: Bytes,
        /// The step.
        step: Bytes,
    },
    /// These, rising.
    List(Vec<Bytes>),
}

impl Sizes {
    /// The smallest size that holds `wanted`, with its place in the list.
    fn holding(&self, wanted: Bytes) -> Option<(Bytes, usize)> {
        match self {
            Self::Range { min, max, step } => {
                let above = wanted.saturating_sub(*min).round_up(*step)?;
                let size = Bytes::new(min.get().checked_add(above.get())?);
                (size <= *max).then_some((size, 0))
            }
            Self::List(list) => {
                let place = list.partition_point(|size| *size < wanted);
                list.get(place).map(|size| (*size, place))
            }
        }
    }

    /// The largest size.
    pub fn largest(&self) -> Bytes {
        match self {
            Self::Range { max, .. } => *max,
            Self::List(list) => list.last().copied().unwrap_or_default(),
        }
    }

    /// The smallest size.
    pub fn smallest(&self) -> Bytes {
        match self {
            Self::Range { min, .. } => *min,
            Self::List(list) => list.first().copied().unwrap_or_default(),
        }
    }
}

/// What memory is billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryBilling {
    /// The allocated size for the whole time.
    Allocated,
    /// What is in use at each moment, rounded up to a size.
    Use,
}

/// Sizes and what of them is billed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryRule {
    /// The sizes; for [`MemoryBilling::Use`] the steps to which use is rounded up.
    pub sizes: Sizes,
    /// What is billed.
    pub billing: MemoryBilling,
}

/// How the duration is rounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeRule {
    /// Rounded up to a multiple of this.
    pub step: Duration,
    /// At least this.
    pub least: Duration,
}

/// A price up to an amount in a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// GB-s of a month up to which it holds; `None`: all others.
    pub up_to_gb_s: Option<u64>,
    /// USD per GB-s.
    pub usd_per_gb_s: Decimal,
}

/// A published price of each size, rounded: AWS Lambda of 2020.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerSize {
    /// The time to which the price belongs.
    pub step: Duration,
    /// USD per GB and `step`, before rounding.
    pub usd_per_gb: Decimal,
    /// Places to which the price of a size is rounded.
    pub digits: u32,
}

/// The price of memory over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadPrice {
    /// Prices by the amount of a month.
    pub tiers: Vec<Tier>,
    /// If each size has a price of its own, the rule for it; it then decides, not `tiers`.
    pub per_size: Option<PerSize>,
}

/// What of CPU is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum CpuUnit {
    /// Virtual CPUs.
    #[default]
    #[serde(rename = "vCPU")]
    Vcpu,
    /// Clock speed.
    #[serde(rename = "GHz")]
    Ghz,
}

impl fmt::Display for CpuUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcpu => "vCPU",
            Self::Ghz => "GHz",
        })
    }
}

/// How much CPU is billed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuAmount {
    /// By the size of memory, in the order of its list.
    PerSize(Vec<Decimal>),
    /// So much unless the user says otherwise.
    Fixed(Decimal),
}

/// The price of CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuPrice {
    /// What is counted.
    pub unit: CpuUnit,
    /// Whether CPU time in use is billed in place of what is allocated.
    pub by_use: bool,
    /// How much is allocated.
    pub amount: CpuAmount,
    /// USD per unit and second.
    pub usd_per_unit_s: Decimal,
}

/// How CPU goes with memory, and its price if it has one of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuRule {
    /// In words.
    pub coupling: String,
    /// The price.
    pub price: Option<CpuPrice>,
}

/// What a month includes, and the fee for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FreeTier {
    /// Requests.
    pub requests: u64,
    /// GB-s.
    pub gb_s: u64,
    /// CPU in its unit times seconds.
    pub cpu_s: u64,
    /// USD.
    pub usd_per_month: Decimal,
}

/// The prices of one provider in one month.
#[derive(Debug, Clone, Copy)]
pub struct Tariff<'a> {
    /// The provider.
    pub provider: &'a Provider,
    /// Memory sizes.
    pub memory: &'a Entry<MemoryRule>,
    /// Rounding of time.
    pub time: &'a Entry<TimeRule>,
    /// Price of memory over time.
    pub load: &'a Entry<LoadPrice>,
    /// USD per request.
    pub request: &'a Entry<Decimal>,
    /// CPU.
    pub cpu: Option<&'a Entry<CpuRule>>,
    /// What is free.
    pub free: Option<&'a Entry<FreeTier>>,
}

impl<'a> Tariff<'a> {
    pub(super) fn new(
        provider: &'a Provider,
        memory: &'a Entry<MemoryRule>,
        time: &'a Entry<TimeRule>,
        load: &'a Entry<LoadPrice>,
        request: &'a Entry<Decimal>,
        cpu: Option<&'a Entry<CpuRule>>,
        free: Option<&'a Entry<FreeTier>>,
    ) -> Result<Self, CatalogError> {
        let tariff = Self {
            provider,
            memory,
            time,
            load,
            request,
            cpu,
            free,
        };
        if let Some(CpuAmount::PerSize(amounts)) = tariff.cpu_price().map(|price| &price.amount) {
            let sizes = match &memory.value.sizes {
                Sizes::List(list) => list.len(),
                Sizes::Range { .. } => 0,
            };
            if amounts.len() != sizes {
                return Err(CatalogError::Invalid {
                    origin: provider.id.clone(),
                    key: "cpu.per_size".to_owned(),
                    reason: format!(
                        "{} amounts of CPU for {sizes} sizes of memory in {}",
                        amounts.len(),
                        memory.from().max(cpu.map_or(memory.from(), Entry::from)),
                    ),
                });
            }
        }
        Ok(tariff)
    }

    /// The price of CPU, if it has one of its own.
    pub fn cpu_price(&self) -> Option<&'a CpuPrice> {
        self.cpu.and_then(|cpu| cpu.value.price.as_ref())
    }

    /// The provenance of each value that enters a bill, by the name of its table. `free`: whether the free
    /// amounts do.
    pub fn values(&self, free: bool) -> impl Iterator<Item = (&'static str, &'a Provenance)> {
        let cpu = self.cpu_price().and(self.cpu);
        let free = self.free.filter(|_| free);
        [
            Some(("memory", &self.memory.provenance)),
            Some(("time", &self.time.provenance)),
            Some(("load", &self.load.provenance)),
            Some(("request", &self.request.provenance)),
            cpu.map(|cpu| ("cpu", &cpu.provenance)),
            free.map(|free| ("free", &free.provenance)),
        ]
        .into_iter()
        .flatten()
    }

    /// The newest month from which one of these values holds.
    pub fn date(&self, free: bool) -> Month {
        let months = self.values(free).map(|(_, value)| value.from);
        months.fold(self.memory.from(), Month::max)
    }

    /// Whether the source of one of these values leaves doubt.
    pub fn unconfirmed(&self, free: bool) -> bool {
        self.values(free).any(|(_, value)| value.unconfirmed)
    }

    /// The smallest size that holds `wanted`, with its place in the list of sizes.
    pub fn size(&self, wanted: Bytes) -> Result<(Bytes, usize), CostError> {
        let sizes = &self.memory.value.sizes;
        sizes.holding(wanted).ok_or(CostError::DoesNotFit {
            wanted,
            largest: sizes.largest(),
        })
    }

    /// The time that is billed for a run.
    pub fn billed_time(&self, duration: Duration) -> Result<Duration, CostError> {
        let rule = &self.time.value;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).ok();
        nanos(duration.max(rule.least))
            .zip(nanos(rule.step))
            .and_then(|(time, step)| time.checked_next_multiple_of(step))
            .map(Duration::from_nanos)
            .ok_or(CostError::TooLarge)
    }

    /// USD for the memory over time of a month, at the price of `size`.
    pub(super) fn load_cost(
        &self,
        month: MemoryTime,
        size: Bytes,
        free: bool,
    ) -> Result<Decimal, CostError> {
        let mut month = month;
        if let Some(tier) = self.free.filter(|_| free) {
            let amount = GB_SECOND
                .checked_mul(u128::from(tier.value.gb_s))
                .map(MemoryTime::from_byte_nanos)
                .ok_or(CostError::TooLarge)?;
            month = month.saturating_sub(amount);
        }
        match &self.load.value.per_size {
            Some(rule) => self.published(rule, month, size),
            None => self.tiered(month),
        }
    }

    fn tiered(&self, month: MemoryTime) -> Result<Decimal, CostError> {
        let mut below = MemoryTime::ZERO;
        let mut sum = Decimal::ZERO;
        for tier in &self.load.value.tiers {
            let top = match tier.up_to_gb_s {
                None => month,
                Some(gb_s) => GB_SECOND
                    .checked_mul(u128::from(gb_s))
                    .map(MemoryTime::from_byte_nanos)
                    .ok_or(CostError::TooLarge)?
                    .min(month),
            };
            sum = plus(sum, usd(top.saturating_sub(below), tier.usd_per_gb_s)?)?;
            below = top;
            if top == month {
                break;
            }
        }
        Ok(sum)
    }

    fn published(
        &self,
        rule: &PerSize,
        month: MemoryTime,
        size: Bytes,
    ) -> Result<Decimal, CostError> {
        let second = Duration::from_secs(1);
        let gb = gb_seconds(size.held_for(second).ok_or(CostError::TooLarge)?)?;
        let price = times(gb, rule.usd_per_gb)?
            .round_dp_with_strategy(rule.digits, RoundingStrategy::MidpointAwayFromZero);
        let one_step = gb_seconds(size.held_for(rule.step).ok_or(CostError::TooLarge)?)?;
        times(gb_seconds(month)?, price)?
            .checked_div(one_step)
            .ok_or(CostError::TooLarge)
    }

    /// USD for the requests of a month.
    pub(super) fn request_cost(&self, requests: u64, free: bool) -> Result<Decimal, CostError> {
        let included = self
            .free
            .filter(|_| free)
            .map_or(0, |tier| tier.value.requests);
        let billed = requests.saturating_sub(included);
        times(Decimal::from(billed), self.request.value)
    }

    /// USD for CPU of a month, `amount` units for `time` in each of `requests`.
    pub(super) fn cpu_cost(
        &self,
        price: &CpuPrice,
        amount: Decimal,
        time: Duration,
        requests: u64,
        free: bool,
    ) -> Result<Decimal, CostError> {
        let seconds = time
            .as_nanos()
            .checked_mul(u128::from(requests))
            .and_then(|nanos| decimal(nanos, 9))
            .ok_or(CostError::TooLarge)?;
        let mut used = times(seconds, amount)?;
        if let Some(tier) = self.free.filter(|_| free) {
            used = plus(used, -Decimal::from(tier.value.cpu_s))?.max(Decimal::ZERO);
        }
        times(used, price.usd_per_unit_s)
    }

    /// The fee of a month.
    pub(super) fn fee(&self, free: bool) -> Decimal {
        let tier = self.free.filter(|_| free);
        tier.map_or(Decimal::ZERO, |tier| tier.value.usd_per_month)
    }
}

/// USD for memory over time at a price per GB-s: exact if that has at most 28 digits and places, else rounded
/// down to as many as there are.
fn usd(area: MemoryTime, usd_per_gb_s: Decimal) -> Result<Decimal, CostError> {
    match integer_product(area.byte_nanos(), usd_per_gb_s) {
        Some(amount) => Ok(amount),
        None => times(gb_seconds(area)?, usd_per_gb_s),
    }
}

/// The product in one multiplication of integers, which is what most bills consist of; `None` beyond 128 bits.
fn integer_product(byte_nanos: u128, usd_per_gb_s: Decimal) -> Option<Decimal> {
    let price = usd_per_gb_s.mantissa().unsigned_abs();
    let product = byte_nanos.checked_mul(price)?;
    // Of a byte nanosecond 2^30 x 10^9 are a GB-s.
    let scale = usd_per_gb_s.scale().checked_add(9)?;
    let twos = product.trailing_zeros().min(30);
    let (product, twos) = (product >> twos, 30 - twos);
    // A division by 2^n is a multiplication by 5^n and n more places.
    let places = Decimal::MAX_SCALE.checked_sub(scale)?;
    if twos <= places {
        decimal(product.checked_mul(5_u128.pow(twos))?, scale + twos)
    } else {
        decimal(
            product.checked_mul(10_u128.pow(places))? >> twos,
            Decimal::MAX_SCALE,
        )
    }
}

/// `number` x 10^-`scale`; `None` beyond 28 digits.
fn decimal(number: u128, scale: u32) -> Option<Decimal> {
    Decimal::try_from_i128_with_scale(i128::try_from(number).ok()?, scale).ok()
}

/// GB-s: exact if that has at most 28 digits, else to 18 places of a GB nanosecond.
pub(super) fn gb_seconds(area: MemoryTime) -> Result<Decimal, CostError> {
    const SCALE: u128 = 1_000_000_000_000_000_000;
    // A division by 2^n is a multiplication by 5^n and n more places: exact, and few digits where it is short.
    let twos = area.byte_nanos().trailing_zeros().min(30);
    let places = 30 - twos;
    let short = (area.byte_nanos() >> twos)
        .checked_mul(5_u128.pow(places))
        .and_then(|number| decimal(number, places + 9));
    if let Some(exact) = short {
        return Ok(exact);
    }
    let whole = decimal(area.byte_nanos() >> 30, 9).ok_or(CostError::TooLarge)?;
    let rest = area.byte_nanos() & ((1 << 30) - 1);
    let rest = decimal((rest * SCALE) >> 30, 27).ok_or(CostError::TooLarge)?;
    plus(whole, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_give_the_amount_that_decimals_give() {
        let price = Decimal::from_str_exact("0.0000166667").unwrap();
        let mut byte_nanos = 1_u128;
        let mut quick = 0;
        while byte_nanos < 1 << 100 {
            let area = MemoryTime::from_byte_nanos(byte_nanos);
            let slow = times(gb_seconds(area).unwrap(), price).unwrap();
            let fast = integer_product(byte_nanos, price);
            quick += u32::from(fast.is_some());
            let error = (fast.unwrap_or(slow) - slow).abs();
            assert!(
                error <= Decimal::new(1, 27),
                "{byte_nanos}: {fast:?} {slow}"
            );
            byte_nanos = byte_nanos * 3 + 1;
        }
        // 2^67 byte nanoseconds are 137 GB-s: what a run uses.
        assert!(quick > 42, "{quick}");
    }

    #[test]
    fn what_has_few_digits_is_exact() {
        let price = Decimal::from_str_exact("0.0000166667").unwrap();
        let area = Bytes::from_mib(1)
            .and_then(|mb| mb.held_for(Duration::from_millis(1)))
            .unwrap();
        let exact = Decimal::from_str_exact("0.0000000000162760742187500").unwrap();
        assert_eq!(integer_product(area.byte_nanos(), price), Some(exact));
    }
}
