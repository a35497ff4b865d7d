//! A generator of numbers for what is replayed: the same luck each time.

/// Steele et al., Fast splittable pseudorandom number generators, OOPSLA 2014.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Any whole number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between 0 and 1.
    pub(crate) fn share(&mut self) -> f64 {
        let bits = u32::try_from(self.next() >> 32).unwrap_or(0);
        f64::from(bits) / f64::from(u32::MAX)
    }
}
