//! Options of `cost`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use rust_decimal::Decimal;

use crate::cost::{Currency, Month, amount};
use crate::model::{Bytes, ClassName, FunctionKey, duration};

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct Cost {
    /// Only this provider; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) provider: Vec<String>,
    /// Month whose prices hold; the newest known if absent
    #[arg(long, value_name = "YYYY-MM")]
    pub(in crate::cli) date: Option<Month>,
    /// Most memory that is in use, such as 772MB (1 MB is 2^20 bytes)
    #[arg(
        long,
        value_name = "SIZE",
        conflicts_with = "trace",
        allow_hyphen_values = true
    )]
    pub(in crate::cli) used: Option<Bytes>,
    /// Memory that the function declares; the smallest size that holds what is used if absent
    #[arg(
        long,
        value_name = "SIZE",
        conflicts_with = "what_if",
        allow_hyphen_values = true
    )]
    pub(in crate::cli) allocated: Option<Bytes>,
    /// How long one run takes, such as 2100ms
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration::parse,
        conflicts_with = "trace",
        allow_hyphen_values = true
    )]
    pub(in crate::cli) duration: Option<Duration>,
    /// Runs in a month
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1_000_000,
        allow_hyphen_values = true
    )]
    pub(in crate::cli) requests: u64,
    /// CPU time of one run, where that is billed; all CPU all the time if absent
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(in crate::cli) cpu_time: Option<Duration>,
    /// CPUs of an instance, where they are chosen apart from memory
    #[arg(long, value_name = "N", value_parser = amount, allow_hyphen_values = true)]
    pub(in crate::cli) vcpu: Option<Decimal>,
    /// Count the free amounts and the fee of a month
    #[arg(long)]
    pub(in crate::cli) free: bool,
    /// Trace of a run: peak, area, duration and CPU time come from it
    #[arg(long, value_name = "FILE", conflicts_with = "what_if")]
    pub(in crate::cli) trace: Option<PathBuf>,
    /// Function with a profile: the hulls of its runs stand for one run
    #[arg(long, value_name = "FUNCTION", conflicts_with_all = ["trace", "used", "duration", "what_if"])]
    pub(in crate::cli) function: Option<FunctionKey>,
    /// Input class of that function; all inputs if absent
    #[arg(long, value_name = "CLASS", requires = "function")]
    pub(in crate::cli) class: Option<ClassName>,
    /// Width of the bins of the hull of a trace; 20ms if absent
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(in crate::cli) bin: Option<Duration>,
    /// Compare sizes, each with the duration or the trace measured at it, such as 512MB=3s,1024MB=run.csv
    #[arg(long, value_name = "LIST", value_parser = what_if, value_delimiter = ',')]
    pub(in crate::cli) what_if: Vec<WhatIf>,
    /// Price file of a further provider, or with other values for a known one; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) providers: Vec<PathBuf>,
    /// Print amounts in another currency, such as EUR=0.92 for one dollar
    #[arg(long, value_name = "CURRENCY=N", value_parser = Currency::parse)]
    pub(in crate::cli) rate: Option<Currency>,
    /// Print JSON
    #[arg(long, group = "form")]
    pub(in crate::cli) json: bool,
    /// Print CSV
    #[arg(long, group = "form")]
    pub(in crate::cli) csv: bool,
    /// Print sentences
    #[arg(long, group = "form")]
    pub(in crate::cli) sentence: bool,
    /// Also draw cost over memory size as SVG
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "function", "what_if"])]
    pub(in crate::cli) plot: Option<PathBuf>,
}

/// A size, and what was measured at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct WhatIf {
    /// The size.
    pub(in crate::cli) size: Bytes,
    /// What was measured; the duration of `--duration` if absent.
    pub(in crate::cli) measured: Option<Measured>,
}

/// What was measured at a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Measured {
    /// How long one run takes.
    Duration(Duration),
    /// The trace of a run: a file.
    Trace(PathBuf),
}

fn what_if(text: &str) -> Result<WhatIf, String> {
    let (size, measured) = match text.split_once('=') {
        Some((size, measured)) => (size, Some(measured)),
        None => (text, None),
    };
    Ok(WhatIf {
        size: size
            .parse()
            .map_err(|err: crate::model::InvalidSize| err.to_string())?,
        measured: measured.map(|text| {
            duration::parse(text).map_or_else(|_| Measured::Trace(text.into()), Measured::Duration)
        }),
    })
}
