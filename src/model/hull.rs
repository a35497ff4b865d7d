//! Memory over time in bins.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Bytes;

/// Width of the bins of a hull: 20 ms, halved up to five times or doubled.
///
/// As there are no others, bins of one width fill those of a larger one, and hulls of different widths merge exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct BinWidth {
    micros: u64,
}

/// The time is no width of bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "bins cannot be {0:?} wide (want 20 ms, halved up to five times or doubled, such as 10ms, 20ms, 40ms)"
)]
pub struct InvalidWidth(Duration);

impl BinWidth {
    /// 20 ms halved five times. Half of it is no whole number of microseconds.
    pub const FINEST: Self = Self { micros: 625 };
    /// So wide that 128 of them are more than 2^64 microseconds.
    pub const WIDEST: Self = Self { micros: 625 << 53 };

    /// Twice as wide, at most [`Self::WIDEST`].
    #[must_use]
    pub fn doubled(self) -> Self {
        Self {
            micros: self.micros.saturating_mul(2),
        }
        .min(Self::WIDEST)
    }

    /// The time.
    pub const fn as_duration(self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// The time in microseconds.
    pub const fn micros(self) -> u64 {
        self.micros
    }
}

impl Default for BinWidth {
    /// 20 ms.
    fn default() -> Self {
        Self { micros: 20_000 }
    }
}

impl TryFrom<Duration> for BinWidth {
    type Error = InvalidWidth;

    fn try_from(time: Duration) -> Result<Self, InvalidWidth> {
        let width = u64::try_from(time.as_micros())
            .ok()
            .filter(|micros| Duration::from_micros(*micros) == time)
            .map(|micros| Self { micros });
        width
            .filter(|width| {
                let fits = width.micros.is_multiple_of(Self::FINEST.micros);
                let times = width.micros / Self::FINEST.micros;
                fits && times.is_power_of_two() && *width <= Self::WIDEST
            })
            .ok_or(InvalidWidth(time))
    }
}

impl TryFrom<u64> for BinWidth {
    type Error = InvalidWidth;

    /// From microseconds.
    fn try_from(micros: u64) -> Result<Self, InvalidWidth> {
        Duration::from_micros(micros).try_into()
    }
}

impl From<BinWidth> for u64 {
    /// In microseconds.
    fn from(width: BinWidth) -> Self {
        width.micros
    }
}

/// Memory of one kind over time: the value of bin `i` is the largest in `[i * width, (i + 1) * width)`.
///
/// Over several runs this is the hull of the runs (Spillner, WoSC 2020, section 3, there called convex hull).
/// After the last bin there is nothing: the run has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hull {
    /// Width of a bin.
    #[serde(rename = "widthUs")]
    pub width: BinWidth,
    /// One value for each bin, without gaps.
    pub bins: Vec<Bytes>,
}

impl Hull {
    /// The value at a moment; `None` after the last bin.
    pub fn at(&self, time: Duration) -> Option<Bytes> {
        let index = time.as_micros() / u128::from(self.width.micros);
        self.bins.get(usize::try_from(index).ok()?).copied()
    }

    /// The largest value; `None` without bins.
    pub fn largest(&self) -> Option<Bytes> {
        self.bins.iter().copied().max()
    }

    /// The end of the last bin.
    pub fn end(&self) -> Duration {
        let bins = u64::try_from(self.bins.len()).unwrap_or(u64::MAX);
        Duration::from_micros(self.width.micros.saturating_mul(bins))
    }

    /// The same with wider bins, each the largest of those that fill it; unchanged if its bins are as wide already.
    #[must_use]
    pub fn widened(&self, width: BinWidth) -> Self {
        let times = usize::try_from(width.micros / self.width.micros).unwrap_or(usize::MAX);
        if times <= 1 {
            return self.clone();
        }
        let bins = self.bins.chunks(times);
        Self {
            width,
            bins: bins
                .map(|chunk| chunk.iter().copied().max().unwrap_or_default())
                .collect(),
        }
    }

    /// The hull of the two: in each bin the larger value, in bins of the larger width.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let width = self.width.max(other.width);
        let mut union = self.widened(width);
        let other = other.widened(width);
        for (mine, theirs) in union.bins.iter_mut().zip(&other.bins) {
            *mine = (*mine).max(*theirs);
        }
        let more = other.bins.iter().skip(union.bins.len());
        union.bins.extend(more);
        union
    }
}

/// Hulls of the two kinds of memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hulls {
    /// Anonymous, shared and kernel memory: what cannot be dropped.
    pub held: Hull,
    /// Page cache without shared memory.
    pub file: Hull,
}

impl Hulls {
    /// All memory that is charged, over time.
    pub fn sum(&self) -> Hull {
        let width = self.held.width.max(self.file.width);
        let (held, file) = (self.held.widened(width), self.file.widened(width));
        let at = |hull: &Hull, bin: usize| hull.bins.get(bin).map_or(0, |bytes| bytes.get());
        let bins = 0..held.bins.len().max(file.bins.len());
        Hull {
            width,
            bins: bins
                .map(|bin| Bytes::new(at(&held, bin).saturating_add(at(&file, bin))))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hull(width: u64, bins: &[u64]) -> Hull {
        Hull {
            width: BinWidth::try_from(width).unwrap(),
            bins: bins.iter().copied().map(Bytes::new).collect(),
        }
    }

    #[test]
    fn widths_are_20_ms_halved_or_doubled() {
        for good in [625, 10_000, 20_000, 40_000, 625 << 53] {
            assert_eq!(BinWidth::try_from(good).unwrap().micros(), good);
        }
        for bad in [0, 1, 312, 30_000, 100_000, 625 << 54] {
            assert!(BinWidth::try_from(bad).is_err(), "{bad}");
        }
        assert!(BinWidth::try_from(Duration::from_nanos(20_000_001)).is_err());
        assert_eq!(BinWidth::WIDEST.doubled(), BinWidth::WIDEST);
        assert!(u128::from(BinWidth::WIDEST.micros()) * 128 > u128::from(u64::MAX));
    }

    #[test]
    fn a_moment_has_the_value_of_its_bin() {
        let hull = hull(20_000, &[1, 5, 2]);
        let at = |micros| hull.at(Duration::from_micros(micros)).map(Bytes::get);
        assert_eq!(
            [at(0), at(19_999), at(20_000), at(59_999), at(60_000)],
            [Some(1), Some(1), Some(5), Some(2), None]
        );
        assert_eq!(hull.largest(), Some(Bytes::new(5)));
        assert_eq!(hull.end(), Duration::from_millis(60));
    }

    #[test]
    fn hulls_of_different_widths_have_one_hull() {
        let fine = hull(20_000, &[1, 5, 2]);
        let wide = hull(40_000, &[4, 4, 4]);
        assert_eq!(fine.union(&wide), hull(40_000, &[5, 4, 4]));
        assert_eq!(wide.union(&fine), fine.union(&wide));
        assert_eq!(fine.union(&Hull::default()), fine);
        assert_eq!(fine.widened(BinWidth::FINEST), fine);
    }

    #[test]
    fn a_document_with_another_width_is_refused() {
        let text = r#"{"widthUs":20000,"bins":[1,2]}"#;
        assert_eq!(
            serde_json::from_str::<Hull>(text).unwrap(),
            hull(20_000, &[1, 2])
        );
        let error = serde_json::from_str::<Hull>(&text.replace("20000", "30000")).unwrap_err();
        assert!(
            error.to_string().contains("bins cannot be 30ms wide"),
            "{error}"
        );
    }
}
