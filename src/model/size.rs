//! Quantities.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(u64);

/// Bytes of one MiB, which is what providers of functions call MB.
const MIB: u64 = 1 << 20;

impl Bytes {
    /// None.
    pub const ZERO: Self = Self(0);

    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many times 2^20 bytes; `None` beyond 2^64.
    pub fn from_mib(mib: u64) -> Option<Self> {
        mib.checked_mul(MIB).map(Self)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The text of the number, as it is read back: a whole number of the largest unit that divides it, such as `64MiB`.
    pub fn to_text(self) -> String {
        [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)]
            .into_iter()
            .find(|(_, shift)| self.0 > 0 && self.0.trailing_zeros() >= *shift)
            .map_or_else(
                || self.0.to_string(),
                |(unit, shift)| format!("{}{unit}", self.0 >> shift),
            )
    }

    /// For people: in MB of 2^20 bytes with one digit behind the point, rounded half up.
    pub fn to_megabytes(self) -> String {
        let tenths = (u128::from(self.0) * 10 + (1 << 19)) >> 20;
        format!("{}.{} MB", tenths / 10, tenths % 10)
    }

    /// The whole number of MiB that holds it.
    pub const fn mib_up(self) -> u64 {
        self.0.div_ceil(MIB)
    }

    /// The next multiple of `step`; `None` beyond 2^64 or for a step of zero.
    pub fn round_up(self, step: Self) -> Option<Self> {
        self.0.checked_next_multiple_of(step.0).map(Self)
    }

    /// What remains without `other`, at least zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Held for `time`; `None` beyond 2^128 byte nanoseconds.
    pub fn held_for(self, time: Duration) -> Option<MemoryTime> {
        u128::from(self.0)
            .checked_mul(time.as_nanos())
            .map(MemoryTime)
    }
}

impl fmt::Display for Bytes {
    /// In MB if it is a whole number of them, else in bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(MIB) {
            write!(f, "{} MB", self.mib_up())
        } else {
            write!(f, "{} B", self.0)
        }
    }
}

impl FromStr for Bytes {
    type Err = InvalidSize;

    /// The text form of [`MemoryLimit`], without `-1`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        number_with_unit(text)
            .and_then(|bytes| u64::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| InvalidSize(text.to_owned()))
    }
}

/// Memory held over time: the area below a curve, in byte nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MemoryTime(u128);

impl MemoryTime {
    /// None.
    pub const ZERO: Self = Self(0);

    /// So many byte nanoseconds.
    pub const fn from_byte_nanos(value: u128) -> Self {
        Self(value)
    }

    /// In byte nanoseconds.
    pub const fn byte_nanos(self) -> u128 {
        self.0
    }

    /// In whole byte seconds.
    pub fn byte_seconds(self) -> u64 {
        u64::try_from(self.0 / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// The sum; `None` beyond 2^128 byte nanoseconds.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// So many times; `None` beyond 2^128 byte nanoseconds.
    pub fn checked_mul(self, times: u64) -> Option<Self> {
        self.0.checked_mul(u128::from(times)).map(Self)
    }

    /// What remains without `other`, at least zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The memory that was held on average over `time`, rounded up to bytes; `None` over no time.
    pub fn mean_over(self, time: Duration) -> Option<Bytes> {
        let nanos = Some(time.as_nanos()).filter(|nanos| *nanos > 0)?;
        u64::try_from(self.0.div_ceil(nanos)).ok().map(Bytes)
    }
}

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

/// The text is no number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid size: {0:?} (want a number of bytes with an optional unit such as 64m)")]
pub struct InvalidSize(String);

/// The text is no memory limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid size: {0:?} (want a number of bytes with an optional unit such as 64m, or -1 for no limit)"
)]
pub struct InvalidLimit(String);

impl MemoryLimit {
    /// The one of two limits that is met first.
    pub fn lower(self, other: Self) -> Self {
        match (self, other) {
            (Self::Bytes(a), Self::Bytes(b)) => Self::Bytes(a.min(b)),
            (Self::None, limit) | (limit, Self::None) => limit,
        }
    }

    /// So many bytes; `None` is no limit.
    pub fn bytes(self) -> Option<Bytes> {
        match self {
            Self::Bytes(bytes) => u64::try_from(bytes).ok().map(Bytes::new),
            Self::None => None,
        }
    }

    /// The number that the runtime-spec uses: bytes, or -1.
    pub fn as_spec(self) -> i64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::None => -1,
        }
    }
}

impl FromStr for MemoryLimit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "-1" {
            return Ok(Self::None);
        }
        number_with_unit(text)
            .map(Self::Bytes)
            .ok_or_else(|| InvalidLimit(text.to_owned()))
    }
}

/// A number of bytes with an optional unit; `None` if it is none, negative or too large.
fn number_with_unit(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .trim_end_matches(|c: char| c.is_ascii_alphabetic())
        .trim_end();
    let unit = lower.get(digits.len()..)?.trim();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let number: i64 = digits.parse().ok()?;
    number
        .checked_mul(1_i64 << shift)
        .filter(|bytes| *bytes >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_digit_behind_the_point() {
        assert_eq!(Bytes::new(0).to_megabytes(), "0.0 MB");
        assert_eq!(Bytes::new(1 << 20).to_megabytes(), "1.0 MB");
        assert_eq!(Bytes::new((1 << 20) + 52_429).to_megabytes(), "1.1 MB");
        assert_eq!(Bytes::new((1 << 20) - 1).to_megabytes(), "1.0 MB");
    }

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
    fn bytes_are_no_limit() {
        assert_eq!("772MB".parse(), Ok(Bytes::new(772 << 20)));
        let message = |text: &str| text.parse::<Bytes>().unwrap_err().to_string();
        for bad in ["-1", "-5m", "m", "9999999999t"] {
            assert!(message(bad).contains(bad), "{bad}");
            assert!(!message(bad).contains("no limit"), "{bad}");
        }
        assert_eq!(Bytes::new(1).mib_up(), 1);
        assert_eq!(Bytes::new(772 << 20).to_string(), "772 MB");
        assert_eq!(Bytes::from_mib(u64::MAX), None);
        assert_eq!(Bytes::new(5).round_up(Bytes::ZERO), None);
    }

    #[test]
    fn a_text_reads_back_as_the_same_number() {
        for same in [
            "0", "1", "4097", "4KiB", "1MiB", "1536KiB", "3GiB", "8191TiB",
        ] {
            assert_eq!(same.parse::<Bytes>().unwrap().to_text(), same);
        }
    }

    #[test]
    fn memory_over_time_is_an_area() {
        let area = Bytes::new(10).held_for(Duration::from_nanos(3)).unwrap();
        assert_eq!(area, MemoryTime::from_byte_nanos(30));
        assert_eq!(area.mean_over(Duration::from_nanos(4)), Some(Bytes::new(8)));
        assert_eq!(area.mean_over(Duration::ZERO), None);
        assert_eq!(Bytes::new(u64::MAX).held_for(Duration::MAX), None);
    }

    #[test]
    fn minus_one_is_no_limit_and_other_negatives_are_errors() {
        assert_eq!("-1".parse(), Ok(MemoryLimit::None));
        for bad in ["-2", "", "m", "12x", "9999999999t", "1.5g"] {
            assert!(bad.parse::<MemoryLimit>().is_err(), "{bad:?}");
        }
    }
}
