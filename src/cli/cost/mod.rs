//! `cost`: reads price files and traces, asks [`crate::cost`], prints.

mod form;
mod input;
mod plot;

use std::fmt;

use rust_decimal::Decimal;

use super::args::Cost;
use super::{Failure, output, picture};
use crate::config::Config;
use crate::cost::{
    Bill, Catalog, Currency, MemoryBilling, Month, Tariff, TraceBill, Usage, bill, bill_trace,
};
use crate::model::Bytes;
use crate::runtime::chain;

/// The bill of one provider, for one size.
struct Row<'a> {
    tariff: Tariff<'a>,
    usage: Usage,
    bill: Bill,
    trace: Option<TraceBill>,
}

/// A provider without a bill, and why.
struct Missing {
    provider: String,
    /// The size, where several are compared.
    size: Option<Bytes>,
    reason: String,
    /// Where it is known from that there is no such offer any more.
    source: Option<String>,
}

/// What is printed.
struct Report<'a> {
    rows: Vec<Row<'a>>,
    missing: Vec<Missing>,
    currency: Currency,
    date: Option<Month>,
}

pub(super) fn run(args: &Cost, config: &Config) -> Result<(), Failure> {
    let catalog = input::catalog(args)?;
    let cases = input::cases(args, config)?;
    let bin = input::bin(args, &cases)?;
    let (tariffs, mut missing) = tariffs(args, &catalog)?;
    let mut rows = Vec::new();
    for tariff in &tariffs {
        if !args.what_if.is_empty() && tariff.memory.value.billing == MemoryBilling::Use {
            missing.push(Missing {
                provider: tariff.provider.id.clone(),
                size: None,
                source: None,
                reason: "memory in use is billed: there is no size to choose".to_owned(),
            });
            continue;
        }
        for case in &cases {
            let billed = match &case.trace {
                None => bill(tariff, &case.usage).map(|bill| (bill, None)),
                Some(trace) => bill_trace(tariff, trace, &case.usage, bin)
                    .map(|billed| (billed.bill, Some(billed))),
            };
            match billed {
                Ok((bill, trace)) => rows.push(Row {
                    tariff: *tariff,
                    usage: case.usage,
                    bill,
                    trace,
                }),
                Err(err) if !args.provider.is_empty() && cases.len() == 1 => {
                    return Err(Failure::new(format!("{}: {err}", tariff.provider.id)));
                }
                Err(err) => missing.push(Missing {
                    provider: tariff.provider.id.clone(),
                    size: case.usage.allocated.filter(|_| !args.what_if.is_empty()),
                    reason: err.to_string(),
                    source: None,
                }),
            }
        }
    }
    if rows.is_empty() {
        return Err(no_bill(&tariffs, &cases, &missing));
    }
    rows.sort_by_key(|row| row.bill.gross);
    let report = Report {
        rows,
        missing,
        currency: args.rate.clone().unwrap_or_else(Currency::usd),
        date: args.date,
    };
    if let Some((path, case)) = args.plot.as_ref().zip(cases.first()) {
        picture::save(
            &plot::figure(&tariffs, &case.usage, &report.currency)?,
            path,
        )?;
    }
    if args.json {
        return Ok(output::json(&form::json(&report)?)?);
    }
    let text = if args.csv {
        form::csv(&report)?
    } else if args.sentence {
        form::sentences(&report)?
    } else if args.trace.is_some() || args.function.is_some() {
        form::policies(&report)?
    } else {
        form::table(&report)?
    };
    Ok(output::text(&text)?)
}

/// Why nobody has a bill: in short if it is the size.
fn no_bill(tariffs: &[Tariff<'_>], cases: &[input::Case], missing: &[Missing]) -> Failure {
    let largest = tariffs
        .iter()
        .map(|tariff| (tariff.memory.value.sizes.largest(), &tariff.provider.id))
        .rev()
        .max_by_key(|(size, _)| *size);
    let wanted = cases
        .iter()
        .map(|case| case.usage.allocated.unwrap_or(case.usage.peak))
        .min();
    if let Some(((largest, id), wanted)) = largest.zip(wanted)
        && wanted > largest
    {
        return Failure::new(format!(
            "{wanted} are more than any of these providers has: the largest size is {largest}, of {id}"
        ));
    }
    let why: Vec<String> = missing.iter().map(Missing::to_string).collect();
    Failure::new(format!(
        "no provider has a bill for this: {}",
        why.join("; ")
    ))
}

/// The prices of the providers asked for, and who has none.
fn tariffs<'a>(
    args: &Cost,
    catalog: &'a Catalog,
) -> Result<(Vec<Tariff<'a>>, Vec<Missing>), Failure> {
    let date = args.date.unwrap_or(Month::LATEST);
    let mut tariffs = Vec::new();
    let mut missing = Vec::new();
    for name in &args.provider {
        let provider = catalog.find(name)?;
        // Who is named must have a price.
        let tariff = provider
            .tariff(date)
            .map_err(|err| Failure::new(format!("{}: {}", provider.id, chain(&err))))?;
        tariffs.push(tariff);
    }
    if !args.provider.is_empty() {
        return Ok((tariffs, missing));
    }
    for provider in catalog.providers() {
        match provider.tariff(date) {
            Ok(tariff) => tariffs.push(tariff),
            Err(err) => missing.push(Missing {
                provider: provider.id.clone(),
                size: None,
                reason: chain(&err),
                source: provider.ended.as_ref().map(|ended| &ended.source).cloned(),
            }),
        }
    }
    Ok((tariffs, missing))
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.provider)?;
        if let Some(size) = self.size {
            write!(f, " at {size}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl Report<'_> {
    /// An amount in the currency of the report.
    fn money(&self, usd: Decimal) -> Result<Decimal, Failure> {
        Ok(self.currency.convert(usd)?)
    }
}
