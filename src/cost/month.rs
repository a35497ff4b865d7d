//! Calendar months: prices are known by the month.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// A month of a year, `YYYY-MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: u16,
    month: u8,
}

/// The text is no month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid month {0:?}: want YYYY-MM, such as 2020-08")]
pub struct InvalidMonth(String);

impl Month {
    /// After every price: asks for the newest.
    pub const LATEST: Self = Self {
        year: 9999,
        month: 12,
    };
}

impl FromStr for Month {
    type Err = InvalidMonth;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMonth(text.chars().take(40).collect());
        let (year, month) = text.split_once('-').ok_or_else(invalid)?;
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if year.len() != 4 || month.len() != 2 || !digits(year) || !digits(month) {
            return Err(invalid());
        }
        let year = year.parse().map_err(|_| invalid())?;
        let month = month.parse().map_err(|_| invalid())?;
        if (1..=12).contains(&month) {
            Ok(Self { year, month })
        } else {
            Err(invalid())
        }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_have_an_order() {
        let month = |text: &str| text.parse::<Month>().unwrap();
        assert!(month("2020-08") < month("2020-12") && month("2020-12") < month("2021-01"));
        assert_eq!(month("2020-08").to_string(), "2020-08");
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "2020",
            "2020-13",
            "2020-00",
            "20-08",
            "2020-8",
            "2020-08-01",
            "+020-08",
        ] {
            assert!(bad.parse::<Month>().is_err(), "{bad:?}");
        }
    }
}
