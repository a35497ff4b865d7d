//! Arguments of `characterize`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args as ClapArgs};

use super::trace::Function;
use crate::model::placement::LocalRatio;
use crate::model::{Quantile, duration};

/// Options of `characterize`.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("what").required(true).args(["image", "rootfs", "bundle"]))]
pub(in crate::cli) struct Characterize {
    #[command(flatten)]
    pub(in crate::cli) function: Function,

    /// Local ratios to measure
    #[arg(
        long,
        value_name = "RATIO,...",
        value_delimiter = ',',
        default_value = "1,0.9,0.8,0.7,0.6,0.5,0.4,0.3,0.2,0.1,0"
    )]
    pub(in crate::cli) ratios: Vec<LocalRatio>,
    /// How many runs are wanted at each ratio; those that are stored count. Without, as many as a bound of the quantile
    /// takes
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(in crate::cli) runs: Option<u32>,
    /// How often a run that was not measured is repeated
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(in crate::cli) retries: u32,
    /// Kill a run after that
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(in crate::cli) timeout: Option<Duration>,

    /// Latency bound to choose a ratio for; without, that of the function's settings (slo-ms)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(in crate::cli) slo: Option<Duration>,
    /// Share of runs that is to keep to it; without, placement.quantile
    #[arg(long, value_name = "SHARE")]
    pub(in crate::cli) quantile: Option<Quantile>,
    /// Requests per second, by which instances are counted
    #[arg(long, value_name = "NUMBER", value_parser = rate)]
    pub(in crate::cli) rate: Option<f64>,

    /// Picture of local memory against latency, with the chosen ratio: a name that ends in .svg or .png
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("want a number above 0, such as 2.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_above_none() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for bad in ["0", "-1", "inf", "NaN", "", "x"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
