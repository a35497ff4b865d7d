//! A bound of a quantile from few runs, whatever their distribution.

use std::time::Duration;

/// With probability `confidence` the `quantile` of what `latencies` are a sample of is not above the result: the
/// smallest order statistic for which that holds (Hahn and Meeker, Statistical Intervals, section 5.3; the number of
/// runs at or below the quantile is binomial). `None` if there are too few.
pub fn upper_bound(latencies: &[Duration], quantile: f64, confidence: f64) -> Option<Duration> {
    let rank = rank(latencies.len(), quantile, confidence)?;
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    sorted.get(rank.checked_sub(1)?).copied()
}

/// How many runs it takes at least for a bound of the quantile: the largest of fewer may be below it.
pub fn fewest_runs(quantile: f64, confidence: f64) -> usize {
    let is_open = |share: f64| share > 0.0 && share < 1.0;
    if !is_open(quantile) || !is_open(confidence) {
        return usize::MAX;
    }
    let mut runs = 1;
    // The probability that all are below the quantile.
    let mut all_below = quantile;
    while 1.0 - all_below < confidence {
        runs += 1;
        all_below *= quantile;
    }
    runs
}

/// The smallest k for which at most k - 1 of n are at or below the quantile with this probability.
fn rank(n: usize, quantile: f64, confidence: f64) -> Option<usize> {
    let is_open = |share: f64| share > 0.0 && share < 1.0;
    let count = f64::from(u32::try_from(n).ok()?);
    if n == 0 || !is_open(quantile) || !is_open(confidence) {
        return None;
    }
    // Binomial probabilities, one from the other, by their logarithms: the first ones are below what a number holds.
    let odds = (quantile / (1.0 - quantile)).ln();
    let mut term = count * (1.0 - quantile).ln();
    let mut sum = 0.0;
    let mut at = 0.0;
    for k in 1..=n {
        sum += term.exp();
        if sum >= confidence {
            return Some(k);
        }
        term += odds + ((count - at) / (at + 1.0)).ln();
        at += 1.0;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_tables() {
        // One-sided upper bounds, as given by the binomial distribution.
        assert_eq!(rank(59, 0.95, 0.95), Some(59));
        assert_eq!(rank(58, 0.95, 0.95), None);
        assert_eq!(rank(22, 0.90, 0.90), Some(22));
        assert_eq!(rank(21, 0.90, 0.90), None);
        assert_eq!(rank(100, 0.90, 0.95), Some(96));
        assert_eq!(rank(10, 0.50, 0.95), Some(9));
        assert_eq!(rank(100, 0.50, 0.95), Some(59));
        assert_eq!(rank(5000, 0.99, 0.90), Some(4960));
        for wrong in [0.0, 1.0, -1.0, f64::NAN, 2.0] {
            assert_eq!(rank(100, wrong, 0.9), None);
            assert_eq!(rank(100, 0.9, wrong), None);
            assert_eq!(fewest_runs(wrong, 0.9), usize::MAX);
        }
    }

    #[test]
    fn the_fewest_runs_are_the_first_that_have_a_bound() {
        for quantile in [0.5, 0.9, 0.95, 0.99] {
            for confidence in [0.5, 0.9, 0.95] {
                let fewest = fewest_runs(quantile, confidence);
                assert!(rank(fewest, quantile, confidence).is_some());
                assert_eq!(rank(fewest - 1, quantile, confidence), None);
            }
        }
    }
}
