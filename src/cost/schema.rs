//! The layout of a price file, checked when it is read.

use std::collections::BTreeMap;
use std::time::Duration;

use rust_decimal::Decimal;
use serde::Deserialize;

use super::catalog::{Entry, Provenance, Provider};
use super::money::Amount;
use super::tariff::{
    CpuAmount, CpuPrice, CpuRule, CpuUnit, FreeTier, LoadPrice, MemoryBilling, MemoryRule, PerSize,
    Sizes, Tier, TimeRule,
};
use super::{CatalogError, Month};
use crate::model::Bytes;

/// The version of the layout that this program reads.
const SCHEMA: u32 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: u32,
    id: String,
    name: Option<String>,
    #[serde(default)]
    aliases: Vec<String>,
    region: Option<String>,
    ended: Option<Ended>,
    sources: BTreeMap<String, String>,
    #[serde(default)]
    memory: Vec<Memory>,
    #[serde(default)]
    time: Vec<Time>,
    #[serde(default)]
    load: Vec<Load>,
    #[serde(default)]
    request: Vec<Request>,
    #[serde(default)]
    cpu: Vec<Cpu>,
    #[serde(default)]
    free: Vec<Free>,
}

/// A table of a file with the month from which it holds, and its source.
trait Dated {
    type Value;
    fn dated(&self) -> (Month, &str, Option<&str>, bool);
    fn value(&self) -> Result<Self::Value, (&'static str, String)>;
}

macro_rules! dated {
    ($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* } -> $value:ty, $method:expr) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            from: Month,
            source: String,
            note: Option<String>,
            #[serde(default)]
            unconfirmed: bool,
            $($(#[$attribute])* $field: $type,)*
        }

        impl Dated for $name {
            type Value = $value;

            fn dated(&self) -> (Month, &str, Option<&str>, bool) {
                (self.from, &self.source, self.note.as_deref(), self.unconfirmed)
            }

            fn value(&self) -> Result<$value, (&'static str, String)> {
                $method(self)
            }
        }
    };
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Billed {
    Allocated,
    Use,
}

dated!(Memory {
    billed: Billed,
    min_mb: Option<u64>,
    max_mb: Option<u64>,
    step_mb: Option<u64>,
    sizes_mb: Option<Vec<u64>>,
} -> MemoryRule, memory);

dated!(Time {
    step_ms: u64,
    #[serde(default)]
    min_ms: u64,
} -> TimeRule, time);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTier {
    up_to_gb_s: Option<u64>,
    usd_per_gb_s: Amount,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPerSize {
    ms: u64,
    usd_per_gb: Amount,
    digits: u32,
}

dated!(Load {
    usd_per_gb_s: Option<Amount>,
    usd_per_gb_h: Option<Amount>,
    tiers: Option<Vec<RawTier>>,
    per_size: Option<RawPerSize>,
} -> LoadPrice, load);

dated!(Request {
    usd_per_million: Amount,
} -> Decimal, request);

dated!(Cpu {
    coupling: String,
    unit: Option<CpuUnit>,
    billed: Option<Billed>,
    per_size: Option<Vec<Amount>>,
    fixed: Option<Amount>,
    usd_per_unit_s: Option<Amount>,
    usd_per_unit_h: Option<Amount>,
} -> CpuRule, cpu);

dated!(Free {
    #[serde(default)]
    requests: u64,
    #[serde(default)]
    gb_s: u64,
    #[serde(default)]
    cpu_s: u64,
    usd_per_month: Option<Amount>,
} -> FreeTier, free);

dated!(Ended {} -> (), |_| Ok(()));

type Wrong = (&'static str, String);

fn mb(key: &'static str, value: u64) -> Result<Bytes, Wrong> {
    if value == 0 {
        return Err((key, "0 MB is no memory size".to_owned()));
    }
    Bytes::from_mib(value).ok_or_else(|| (key, format!("{value} MB is more than can be counted")))
}

fn memory(raw: &Memory) -> Result<MemoryRule, Wrong> {
    let sizes = match (&raw.sizes_mb, raw.min_mb, raw.max_mb, raw.step_mb) {
        (Some(list), None, None, None) => {
            let list: Vec<Bytes> = list
                .iter()
                .map(|size| mb("sizes_mb", *size))
                .collect::<Result<_, _>>()?;
            if list.is_empty() || !list.is_sorted_by(|a, b| a < b) {
                return Err((
                    "sizes_mb",
                    "want at least one size, each larger than the one before".to_owned(),
                ));
            }
            Sizes::List(list)
        }
        (None, Some(min), Some(max), Some(step)) => {
            if min > max {
                return Err(("min_mb", format!("{min} is more than max_mb, {max}")));
            }
            if step == 0 || (max - min) % step != 0 {
                return Err((
                    "step_mb",
                    format!("steps of {step} MB do not lead from {min} to {max} MB"),
                ));
            }
            Sizes::Range {
                min: mb("min_mb", min)?,
                max: mb("max_mb", max)?,
                step: mb("step_mb", step)?,
            }
        }
        _ => {
            return Err((
                "sizes_mb",
                "want either sizes_mb, or min_mb, max_mb and step_mb".to_owned(),
            ));
        }
    };
    let billing = match raw.billed {
        Billed::Allocated => MemoryBilling::Allocated,
        Billed::Use => MemoryBilling::Use,
    };
    Ok(MemoryRule { sizes, billing })
}

fn time(raw: &Time) -> Result<TimeRule, Wrong> {
    if raw.step_ms == 0 {
        return Err(("step_ms", "0 is no step".to_owned()));
    }
    Ok(TimeRule {
        step: Duration::from_millis(raw.step_ms),
        least: Duration::from_millis(raw.min_ms),
    })
}

/// The price for a second of what is given for an hour: 28 digits.
fn of_an_hour(price: Amount) -> Decimal {
    price.0 / Decimal::from(3600_u32)
}

fn load(raw: &Load) -> Result<LoadPrice, Wrong> {
    let one = |usd_per_gb_s| {
        vec![Tier {
            up_to_gb_s: None,
            usd_per_gb_s,
        }]
    };
    let tiers = match (raw.usd_per_gb_s, raw.usd_per_gb_h, &raw.tiers) {
        (Some(price), None, None) => one(price.0),
        (None, Some(price), None) => one(of_an_hour(price)),
        (None, None, Some(tiers)) => tiers
            .iter()
            .map(|tier| Tier {
                up_to_gb_s: tier.up_to_gb_s,
                usd_per_gb_s: tier.usd_per_gb_s.0,
            })
            .collect(),
        _ => {
            return Err((
                "usd_per_gb_s",
                "want one of usd_per_gb_s, usd_per_gb_h and tiers".to_owned(),
            ));
        }
    };
    let rising = tiers.is_sorted_by(|a, b| match (a.up_to_gb_s, b.up_to_gb_s) {
        (Some(a), Some(b)) => a < b,
        (Some(_), None) => true,
        (None, _) => false,
    });
    if !rising || tiers.last().is_none_or(|tier| tier.up_to_gb_s.is_some()) {
        return Err((
            "tiers",
            "want rising up_to_gb_s, and none in the last tier".to_owned(),
        ));
    }
    let per_size = match &raw.per_size {
        None => None,
        Some(rule) if rule.ms == 0 || rule.digits > 20 => {
            return Err((
                "per_size",
                "want ms of at least 1 and digits of at most 20".to_owned(),
            ));
        }
        Some(rule) => Some(PerSize {
            step: Duration::from_millis(rule.ms),
            usd_per_gb: rule.usd_per_gb.0,
            digits: rule.digits,
        }),
    };
    Ok(LoadPrice { tiers, per_size })
}

fn request(raw: &Request) -> Result<Decimal, Wrong> {
    // A request is a millionth: six more places.
    raw.usd_per_million
        .0
        .checked_mul(Decimal::new(1, 6))
        .ok_or_else(|| ("usd_per_million", "has too many digits".to_owned()))
}

fn cpu(raw: &Cpu) -> Result<CpuRule, Wrong> {
    let price = match (raw.usd_per_unit_s, raw.usd_per_unit_h) {
        (Some(price), None) => Some(price.0),
        (None, Some(price)) => Some(of_an_hour(price)),
        (None, None) => None,
        (Some(_), Some(_)) => {
            return Err((
                "usd_per_unit_h",
                "want only one of usd_per_unit_s and usd_per_unit_h".to_owned(),
            ));
        }
    };
    let Some(usd_per_unit_s) = price else {
        let amount = raw.per_size.is_some() || raw.fixed.is_some();
        if amount || raw.billed.is_some() || raw.unit.is_some() {
            return Err((
                "usd_per_unit_s",
                "is missing; unit, billed, per_size and fixed belong to it".to_owned(),
            ));
        }
        return Ok(CpuRule {
            coupling: raw.coupling.clone(),
            price: None,
        });
    };
    let amount = match (&raw.per_size, raw.fixed) {
        (Some(list), None) => CpuAmount::PerSize(list.iter().map(|amount| amount.0).collect()),
        (None, Some(amount)) => CpuAmount::Fixed(amount.0),
        _ => return Err(("fixed", "want one of per_size and fixed".to_owned())),
    };
    let billed = raw
        .billed
        .ok_or_else(|| ("billed", "is missing beside a price".to_owned()))?;
    Ok(CpuRule {
        coupling: raw.coupling.clone(),
        price: Some(CpuPrice {
            unit: raw.unit.unwrap_or_default(),
            by_use: billed == Billed::Use,
            amount,
            usd_per_unit_s,
        }),
    })
}

fn free(raw: &Free) -> Result<FreeTier, Wrong> {
    Ok(FreeTier {
        requests: raw.requests,
        gb_s: raw.gb_s,
        cpu_s: raw.cpu_s,
        usd_per_month: raw.usd_per_month.map_or(Decimal::ZERO, |fee| fee.0),
    })
}

/// Reads one price file. `origin` stands in errors.
pub(super) fn parse(text: &str, origin: &str) -> Result<Provider, CatalogError> {
    let wrong = |key: String, reason: String| CatalogError::Invalid {
        origin: origin.to_owned(),
        key,
        reason,
    };
    let deserializer = toml::Deserializer::parse(text).map_err(|source| CatalogError::Syntax {
        origin: origin.to_owned(),
        source: Box::new(source),
    })?;
    let file: File = serde_path_to_error::deserialize(deserializer)
        .map_err(|err| wrong(err.path().to_string(), err.inner().message().to_owned()))?;
    if file.schema != SCHEMA {
        return Err(wrong(
            "schema".to_owned(),
            format!(
                "{} is not {SCHEMA}, the layout this program reads",
                file.schema
            ),
        ));
    }
    for name in std::iter::once(&file.id).chain(&file.aliases) {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(wrong(
                "id".to_owned(),
                format!("{name:?} is not made of small letters, digits and hyphens"),
            ));
        }
    }
    let provider = Provider {
        name: file.name.clone().unwrap_or_else(|| file.id.clone()),
        aliases: file.aliases.clone(),
        region: file.region.clone(),
        ended: match &file.ended {
            None => None,
            Some(ended) => Some(entry(&file, "ended", ended, &wrong)?.provenance),
        },
        memory: entries(&file, "memory", &file.memory, &wrong)?,
        time: entries(&file, "time", &file.time, &wrong)?,
        load: entries(&file, "load", &file.load, &wrong)?,
        request: entries(&file, "request", &file.request, &wrong)?,
        cpu: entries(&file, "cpu", &file.cpu, &wrong)?,
        free: entries(&file, "free", &file.free, &wrong)?,
        id: file.id,
    };
    Ok(provider)
}

fn entries<T: Dated>(
    file: &File,
    table: &str,
    raw: &[T],
    wrong: &impl Fn(String, String) -> CatalogError,
) -> Result<Vec<Entry<T::Value>>, CatalogError> {
    let mut entries: Vec<Entry<T::Value>> = Vec::new();
    for (index, item) in raw.iter().enumerate() {
        let table = format!("{table}[{index}]");
        let entry = entry(file, &table, item, wrong)?;
        let from = entry.from();
        if entries.last().is_some_and(|last| last.from() >= from) {
            return Err(wrong(
                format!("{table}.from"),
                format!("{from} is not later than the month of the table before"),
            ));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry<T: Dated>(
    file: &File,
    table: &str,
    item: &T,
    wrong: &impl Fn(String, String) -> CatalogError,
) -> Result<Entry<T::Value>, CatalogError> {
    let key = |name: &str| format!("{table}.{name}");
    let (from, source, note, unconfirmed) = item.dated();
    let source = file.sources.get(source).ok_or_else(|| {
        wrong(
            key("source"),
            format!("{source:?} is not in the table sources"),
        )
    })?;
    let value = item
        .value()
        .map_err(|(name, reason)| wrong(key(name), reason))?;
    Ok(Entry {
        provenance: Provenance {
            from,
            source: source.clone(),
            note: note.map(str::to_owned),
            unconfirmed,
        },
        value,
    })
}
