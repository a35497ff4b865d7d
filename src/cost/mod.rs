//! What providers of functions charge, and how much of it is for memory and time that were not used.
//!
//! No input or output, no clock, no logging. The prices are the files of `data/providers`, built in; a caller
//! adds further ones as text. Amounts are decimal numbers of 28 digits, in US dollars for one month, and
//! memory over time is a whole number of byte nanoseconds: the sums of a month have no rounding error of
//! binary fractions. `docs/cost.md` defines every figure.

mod bill;
mod catalog;
mod money;
mod month;
mod policy;
mod schema;
mod tariff;
#[cfg(test)]
mod tests;

pub use bill::{Bill, CpuReason, MemoryReason, Parts, Reason, TimeReason, Usage, bill};
pub use catalog::{Catalog, Entry, Provenance, Provider};
pub use money::{Currency, amount, percent, rounded};
pub use month::{InvalidMonth, Month};
pub use policy::{Kind, PolicyBill, TraceBill, bill_trace};
pub use tariff::{
    CpuAmount, CpuPrice, CpuRule, CpuUnit, FreeTier, LoadPrice, MemoryBilling, MemoryRule, PerSize,
    Sizes, Tariff, Tier, TimeRule,
};

use std::time::Duration;

use crate::model::Bytes;

/// Why prices cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// A file is no TOML.
    #[error("parse {origin}")]
    Syntax {
        /// The file.
        origin: String,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value of a file is wrong.
    #[error("{origin}: {key}: {reason}")]
    Invalid {
        /// The file, or the provider.
        origin: String,
        /// The key with its tables.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no provider of that name.
    #[error("unknown provider {name:?} (known: {known})")]
    UnknownProvider {
        /// The name asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// The prices of that month are not known.
    #[error("no prices for {date}: {}", since(what, *first))]
    NoPrice {
        /// The month asked for.
        date: Month,
        /// The table that has no value.
        what: &'static str,
        /// The first month of that table.
        first: Option<Month>,
    },
    /// The offer had ended by then.
    #[error("no longer offered since {ended}")]
    Ended {
        /// The first month without it.
        ended: Month,
    },
}

fn since(what: &str, first: Option<Month>) -> String {
    first.map_or_else(
        || format!("there are none of {what}"),
        |first| format!("those of {what} begin with {first}"),
    )
}

/// Why there is no bill.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CostError {
    /// The provider has no size that is large enough.
    #[error("{wanted} do not fit: the largest size is {largest}")]
    DoesNotFit {
        /// What is needed.
        wanted: Bytes,
        /// What there is.
        largest: Bytes,
    },
    /// More was used than allocated.
    #[error("{used} used is more than {allocated} allocated")]
    MoreThanAllocated {
        /// Used memory.
        used: Bytes,
        /// Allocated memory.
        allocated: Bytes,
    },
    /// The area is larger than its peak allows.
    #[error("the memory over time is more than the peak of {peak} over {duration:?}")]
    MoreThanPeak {
        /// The peak.
        peak: Bytes,
        /// The duration.
        duration: Duration,
    },
    /// A run without duration.
    #[error("the duration is zero")]
    NoDuration,
    /// A trace whose memory was never read.
    #[error("no sample of the trace has a value in column {0}")]
    NothingMeasured(&'static str),
    /// Beyond 28 digits, or 2^128 byte nanoseconds.
    #[error("the amount is too large to be counted")]
    TooLarge,
}
