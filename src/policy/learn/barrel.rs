//! A hull as limits: raised ahead of need, with a buffer.

use std::time::Duration;

use crate::model::Bytes;
use crate::model::profile::Hull;

/// What is added to a need (the safety buffer of Spillner, WoSC 2020): a share of it, so many bytes, and what is missing
/// to the next size that may be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// Percent of the need.
    pub percent: u32,
    /// Bytes.
    pub bytes: Bytes,
    /// The sizes that may be granted.
    pub sizes: Sizes,
}

/// Sizes that may be granted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Sizes {
    /// Every one.
    #[default]
    Every,
    /// Multiples of a step, such as 64 MB.
    MultiplesOf(Bytes),
    /// Powers of two.
    PowersOfTwo,
    /// These.
    These(Vec<Bytes>),
}

impl Sizes {
    /// The smallest of them that holds `need`; if there is none, `need`.
    pub fn holding(&self, need: Bytes) -> Bytes {
        let size = match self {
            Self::Every => None,
            Self::MultiplesOf(step) => need.round_up(*step),
            Self::PowersOfTwo => need.get().checked_next_power_of_two().map(Bytes::new),
            Self::These(sizes) => sizes.iter().copied().filter(|size| *size >= need).min(),
        };
        size.unwrap_or(need)
    }
}

impl Default for Buffer {
    /// 5 % and 2 MiB: with bins of 100 ms, 5 of 250 recorded runs left the hull of the others, without it 57.
    fn default() -> Self {
        Self {
            percent: 5,
            bytes: Bytes::new(2 << 20),
            sizes: Sizes::Every,
        }
    }
}

impl Buffer {
    /// No buffer.
    pub const NONE: Self = Self {
        percent: 0,
        bytes: Bytes::ZERO,
        sizes: Sizes::Every,
    };

    /// What is granted for a need.
    pub fn above(&self, need: Bytes) -> Bytes {
        let share = u128::from(need.get())
            .saturating_mul(self.percent.into())
            .div_ceil(100);
        let sum = share
            .saturating_add(need.get().into())
            .saturating_add(self.bytes.get().into());
        self.sizes
            .holding(Bytes::new(u64::try_from(sum).unwrap_or(u64::MAX)))
    }
}

/// The hull with upscaling moved ahead by `lead`, downscaling unmoved, and the buffer added: hull barrelling.
///
/// At each moment `t` it is at least what the hull is at any moment of `[t, t + lead]`, and after the end of the hull
/// there is nothing to raise for. A lead that is no multiple of the bins' width counts as the next one.
///
/// Differs from the published tool of the paper, which takes the larger of bin `i` and `i + 2`, and so misses a peak of
/// one bin in between.
pub fn barrel(hull: &Hull, lead: Duration, buffer: &Buffer) -> Hull {
    let ahead = lead
        .as_micros()
        .div_ceil(hull.width.as_duration().as_micros());
    let ahead = usize::try_from(ahead).unwrap_or(usize::MAX);
    let bins = (0..hull.bins.len()).map(|first| {
        let rest = hull.bins.iter().skip(first);
        let need = rest.take(ahead.saturating_add(1)).max();
        buffer.above(need.copied().unwrap_or_default())
    });
    Hull {
        width: hull.width,
        bins: bins.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn hull(bins: &[u64]) -> Hull {
        Hull {
            bins: bins.iter().map(|mib| Bytes::new(mib * MIB)).collect(),
            ..Hull::default()
        }
    }

    /// The figure's rule with two bins of lead: memory is there two bins early and goes when it is no longer needed.
    #[test]
    fn rises_move_ahead_and_falls_do_not() {
        let lead = Duration::from_millis(40);
        assert_eq!(
            barrel(
                &hull(&[10, 10, 10, 90, 90, 30, 30, 60, 0]),
                lead,
                &Buffer::NONE
            ),
            hull(&[10, 90, 90, 90, 90, 60, 60, 60, 0])
        );
    }

    #[test]
    fn a_peak_of_one_bin_is_there_all_the_time_before_it() {
        let spike = hull(&[1, 1, 1, 50, 1]);
        let barrelled = |millis| barrel(&spike, Duration::from_millis(millis), &Buffer::NONE);
        assert_eq!(barrelled(0), spike);
        assert_eq!(barrelled(20), hull(&[1, 1, 50, 50, 1]));
        assert_eq!(barrelled(21), hull(&[1, 50, 50, 50, 1]));
        assert_eq!(barrelled(40), hull(&[1, 50, 50, 50, 1]));
        assert_eq!(barrelled(1 << 40), hull(&[50, 50, 50, 50, 1]));
    }

    #[test]
    fn the_buffer_is_a_share_bytes_and_the_next_size() {
        let above = |percent, mib, sizes, need| {
            let bytes = Bytes::new(mib * MIB);
            let buffer = Buffer {
                percent,
                bytes,
                sizes,
            };
            buffer.above(Bytes::new(need * MIB)).get() / MIB
        };
        assert_eq!(above(5, 2, Sizes::Every, 100), 107);
        assert_eq!(
            above(0, 0, Sizes::MultiplesOf(Bytes::new(64 * MIB)), 129),
            192
        );
        assert_eq!(
            above(0, 0, Sizes::MultiplesOf(Bytes::new(64 * MIB)), 128),
            128
        );
        assert_eq!(above(10, 0, Sizes::PowersOfTwo, 120), 256);
        let list = || Sizes::These([512, 128, 256].map(|mib| Bytes::new(mib * MIB)).into());
        assert_eq!(above(0, 1, list(), 128), 256);
        assert_eq!(above(0, 0, list(), 600), 600);
        let all = Buffer::default().above(Bytes::new(u64::MAX));
        assert_eq!(all, Bytes::new(u64::MAX));
    }
}
