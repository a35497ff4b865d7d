//! Shares of runs.

use std::fmt;
use std::str::FromStr;

/// A share of all runs, above 0 and below 1, in ten-thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantile(u16);

/// The text is no quantile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no share of runs (want a number above 0 and below 1, such as 0.95)")]
pub struct InvalidQuantile(String);

impl Quantile {
    const WHOLE: u16 = 10_000;
    /// 95 of 100 runs.
    pub const P95: Self = Self(9_500);
}

impl From<Quantile> for f64 {
    fn from(quantile: Quantile) -> Self {
        Self::from(quantile.0) / Self::from(Quantile::WHOLE)
    }
}

impl FromStr for Quantile {
    type Err = InvalidQuantile;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || InvalidQuantile(text.to_owned());
        let digits = text.strip_prefix("0.").ok_or_else(bad)?;
        if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let parts = format!("{digits:0<4}").parse::<u16>().map_err(|_| bad())?;
        (parts > 0).then_some(Self(parts)).ok_or_else(bad)
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f64::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_share_between_none_and_all() {
        for text in ["0.95", "0.5", "0.999", "0.0001"] {
            assert_eq!(text.parse::<Quantile>().unwrap().to_string(), text);
        }
        for bad in [
            "", "0", "1", "0.", "0.0", "1.5", "-0.5", "0.99999", ".5", "0.5x", "95",
        ] {
            assert!(bad.parse::<Quantile>().is_err(), "{bad}");
        }
        assert_eq!(Quantile::P95, "0.95".parse().unwrap());
    }
}
