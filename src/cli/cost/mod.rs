//! `cost`: reads price files and traces, asks [`crate::cost`], prints.

mod form;
mod plot;

use std::path::Path;

use rust_decimal::Decimal;

use super::args::Cost;
use super::{Failure, output};
use crate::cost::{Bill, Catalog, Currency, Month, Tariff, TraceBill, Usage, bill, bill_trace};
use crate::kernel::reason;
use crate::model::trace::Trace;
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
    reason: String,
}

/// What is printed.
struct Report<'a> {
    rows: Vec<Row<'a>>,
    missing: Vec<Missing>,
    currency: Currency,
    date: Option<Month>,
}

pub(super) fn run(args: &Cost) -> Result<(), Failure> {
    let catalog = catalog(args)?;
    let usages = usages(args)?;
    let trace = args.trace.as_deref().map(trace).transpose()?;
    if args.bin.is_zero() {
        return Err(Failure::new("--bin is zero: a bin has a width"));
    }
    let date = args.date.unwrap_or(Month::LATEST);
    let mut tariffs = Vec::new();
    let mut missing = Vec::new();
    let chosen = if args.provider.is_empty() {
        catalog.providers().iter().collect()
    } else {
        let found: Result<Vec<_>, _> = args.provider.iter().map(|n| catalog.find(n)).collect();
        found?
    };
    for provider in chosen {
        match provider.tariff(date) {
            Ok(tariff) => tariffs.push(tariff),
            // Who is named must have a price.
            Err(err) if !args.provider.is_empty() => {
                return Err(Failure::new(format!("{}: {}", provider.id, chain(&err))));
            }
            Err(err) => missing.push(Missing {
                provider: provider.id.clone(),
                reason: chain(&err),
            }),
        }
    }
    let mut rows = Vec::new();
    for tariff in &tariffs {
        for usage in &usages {
            let billed = match &trace {
                None => bill(tariff, usage).map(|bill| (bill, None)),
                Some(trace) => bill_trace(tariff, trace, usage, args.bin)
                    .map(|billed| (billed.bill, Some(billed))),
            };
            match billed {
                Ok((bill, trace)) => rows.push(Row {
                    tariff: *tariff,
                    usage: *usage,
                    bill,
                    trace,
                }),
                Err(err) if !args.provider.is_empty() && usages.len() == 1 => {
                    return Err(Failure::new(format!("{}: {err}", tariff.provider.id)));
                }
                Err(err) => missing.push(Missing {
                    provider: tariff.provider.id.clone(),
                    reason: err.to_string(),
                }),
            }
        }
    }
    if rows.is_empty() {
        let why = missing
            .iter()
            .map(|missing| format!("{}: {}", missing.provider, missing.reason));
        return Err(Failure::new(format!(
            "no provider has a bill for this: {}",
            why.collect::<Vec<_>>().join("; ")
        )));
    }
    rows.sort_by_key(|row| row.bill.gross);
    let report = Report {
        rows,
        missing,
        currency: args.rate.clone().unwrap_or_else(Currency::usd),
        date: args.date,
    };
    if let Some(path) = &args.plot {
        let usage = usages
            .first()
            .copied()
            .ok_or_else(|| Failure::new("nothing to draw"))?;
        let picture = plot::draw(&tariffs, &usage, &report.currency)?;
        std::fs::write(path, picture)
            .map_err(|err| Failure::new(format!("write {}: {}", path.display(), reason(&err))))?;
    }
    if args.json {
        return Ok(output::json(&form::json(&report)?)?);
    }
    let text = if args.csv {
        form::csv(&report)?
    } else if args.sentence {
        form::sentences(&report)?
    } else if trace.is_some() {
        form::policies(&report)?
    } else {
        form::table(&report)?
    };
    Ok(output::text(&text)?)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|err| Failure::new(format!("read {}: {}", path.display(), reason(&err))))
}

fn catalog(args: &Cost) -> Result<Catalog, Failure> {
    let mut catalog = Catalog::built_in()?;
    for path in &args.providers {
        catalog.add(&read(path)?, &path.display().to_string())?;
    }
    Ok(catalog)
}

fn trace(path: &Path) -> Result<Trace, Failure> {
    read(path)?
        .parse()
        .map_err(|err| Failure::new(format!("{}: {err}", path.display())))
}

/// What is billed: one usage, or one for each size of `--what-if`.
fn usages(args: &Cost) -> Result<Vec<Usage>, Failure> {
    let usage = |used, duration| Usage {
        allocated: args.allocated,
        cpu_time: args.cpu_time,
        cpus: args.vcpu,
        free: args.free,
        ..Usage::flat(used, duration, args.requests)
    };
    if args.trace.is_some() {
        return Ok(vec![usage(Default::default(), Default::default())]);
    }
    let used = args
        .used
        .ok_or_else(|| Failure::new("--used is missing: give the memory in use, or a --trace"))?;
    let no_duration =
        || Failure::new("--duration is missing: give how long one run takes, or a --trace");
    if args.what_if.is_empty() {
        return Ok(vec![usage(used, args.duration.ok_or_else(no_duration)?)]);
    }
    args.what_if
        .iter()
        .map(|case| {
            let duration = case.duration.or(args.duration).ok_or_else(no_duration)?;
            Ok(Usage {
                allocated: Some(case.size),
                ..usage(used, duration)
            })
        })
        .collect()
}

impl Report<'_> {
    /// An amount in the currency of the report.
    fn money(&self, usd: Decimal) -> Result<Decimal, Failure> {
        Ok(self.currency.convert(usd)?)
    }
}
