//! Quantities.

use std::str::FromStr;

/// A memory limit as it stands on a command line: a number of bytes, or none at all (`-1`).
///
/// The text form is that of Docker and runc: a number with an optional unit `b`, `k`, `m`, `g`, `t`, `p`
/// (powers of 1024; `KiB`, `MB` and so on mean the same).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// At most this many bytes.
    Bytes(i64),
    /// No limit.
    None,
}

/// The text is no memory limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid size: {0:?} (want a number of bytes with an optional unit such as 64m, or -1 for no limit)"
)]
pub struct InvalidSize(String);

impl MemoryLimit {
    /// The number that the runtime-spec uses: bytes, or -1.
    pub fn as_spec(self) -> i64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::None => -1,
        }
    }
}

impl FromStr for MemoryLimit {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "-1" {
            return Ok(Self::None);
        }
        let invalid = || InvalidSize(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower
            .trim_end_matches(|c: char| c.is_ascii_alphabetic())
            .trim_end();
        let unit = lower.get(digits.len()..).ok_or_else(invalid)?.trim();
        let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            "p" => 50,
            _ => return Err(invalid()),
        };
        let number: i64 = digits.parse().map_err(|_| invalid())?;
        number
            .checked_mul(1_i64 << shift)
            .filter(|bytes| *bytes >= 0)
            .map(Self::Bytes)
            .ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64m", 64 << 20),
            ("1GiB", 1 << 30),
            ("2 kb", 2048),
        ] {
            assert_eq!(text.parse(), Ok(MemoryLimit::Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn minus_one_is_no_limit_and_other_negatives_are_errors() {
        assert_eq!("-1".parse(), Ok(MemoryLimit::None));
        for bad in ["-2", "", "m", "12x", "9999999999t", "1.5g"] {
            assert!(bad.parse::<MemoryLimit>().is_err(), "{bad:?}");
        }
    }
}
