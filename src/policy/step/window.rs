//! The largest of the values of a time that has just passed.

use std::collections::VecDeque;
use std::time::Duration;

/// Values with their moments; only those that can still be the largest are kept.
#[derive(Debug, Clone)]
pub(super) struct Window {
    span: Duration,
    /// Descending values, ascending moments.
    values: VecDeque<(Duration, u64)>,
}

impl Window {
    pub(super) fn new(span: Duration) -> Self {
        Self {
            span,
            values: VecDeque::with_capacity(32),
        }
    }

    /// Adds a value, and tells the largest of those not older than the span.
    pub(super) fn add(&mut self, at: Duration, value: u64) -> u64 {
        while self.values.back().is_some_and(|(_, last)| *last <= value) {
            self.values.pop_back();
        }
        self.values.push_back((at, value));
        let begin = at.saturating_sub(self.span);
        while self.values.front().is_some_and(|(then, _)| *then < begin) {
            self.values.pop_front();
        }
        self.values.front().map_or(value, |(_, largest)| *largest)
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_stays_for_its_span() {
        let mut window = Window::new(Duration::from_millis(10));
        let mut add = |millis, value| window.add(Duration::from_millis(millis), value);
        assert_eq!(add(0, 5), 5);
        assert_eq!(add(4, 9), 9);
        assert_eq!(add(8, 2), 9);
        assert_eq!(add(14, 3), 9);
        assert_eq!(add(15, 1), 3);
        assert_eq!(add(40, 0), 0);
    }
}
