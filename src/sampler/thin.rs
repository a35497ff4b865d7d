//! A long trace with fewer samples, in which no peak is lost.

use crate::model::trace::Sample;

/// So many samples become one or two.
pub(super) const GROUP: usize = 4;

/// What remains of consecutive samples: the one with the largest usage and the one with the most memory that
/// cannot be dropped, in their order. Columns that they lack come from those before them.
pub(super) fn thin(group: &[Sample]) -> impl Iterator<Item = Sample> {
    let most = |column: fn(&Sample) -> Option<crate::model::Bytes>| {
        // The first of equals.
        (0..group.len())
            .rev()
            .max_by_key(|at| group.get(*at).and_then(column))
    };
    let usage = most(|sample| sample.usage);
    let held = most(Sample::held).filter(|at| group.get(*at).is_some_and(|s| s.held().is_some()));
    let mut kept = [usage, held.filter(|_| held != usage)];
    kept.sort_unstable();
    kept.into_iter().flatten().filter_map(|at| {
        let mut sample = group.get(at)?.clone();
        for before in group.get(..at)?.iter().rev() {
            sample.fill_from(before);
        }
        Some(sample)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Bytes;

    fn sample(at: u64, usage: u64, held: Option<u64>) -> Sample {
        Sample {
            at: Duration::from_micros(at),
            usage: Some(Bytes::new(usage)),
            anon: held.map(Bytes::new),
            shmem: held.map(|_| Bytes::ZERO),
            kernel: held.map(|_| Bytes::ZERO),
            ..Sample::default()
        }
    }

    #[test]
    fn peaks_of_both_kinds_remain() {
        let group = [
            sample(1, 10, Some(9)),
            sample(2, 30, None),
            sample(3, 20, Some(5)),
            sample(4, 25, Some(6)),
        ];
        let thinned: Vec<Sample> = thin(&group).collect();
        assert_eq!(thinned.len(), 2);
        assert_eq!(thinned[0], group[0]);
        // It was not read there, so that the value before it still holds.
        assert_eq!(thinned[1].usage, Some(Bytes::new(30)));
        assert_eq!(thinned[1].held(), Some(Bytes::new(9)));
    }

    #[test]
    fn one_remains_when_it_is_both() {
        let group = [sample(1, 10, Some(9)), sample(2, 9, Some(8))];
        assert_eq!(thin(&group).collect::<Vec<_>>(), group[..1]);
        let none = [sample(1, 10, None), sample(2, 9, None)];
        assert_eq!(thin(&none).collect::<Vec<_>>(), none[..1]);
        assert_eq!(thin(&[]).count(), 0);
    }
}
