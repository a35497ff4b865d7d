//! The known name that is most like a mistyped one.

/// The candidate with the least edit distance, if it is near enough to be what was meant.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let leaf = |text: &str| {
        text.rsplit(['.', '/'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    known
        .map(|candidate| {
            // The right key in the wrong table is a near miss as well, or the right function in the wrong namespace.
            let whole = distance(name, candidate);
            (
                whole.min(distance(&leaf(name), &leaf(candidate)).saturating_add(1)),
                candidate,
            )
        })
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal.saturating_add(usize::from(x != *y));
            diagonal = *cell;
            *cell = replaced
                .min(left.saturating_add(1))
                .min(diagonal.saturating_add(1));
            left = *cell;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn nothing_is_suggested_for_a_name_unlike_all() {
        assert_eq!(nearest("zzzzzz", ["log.level"].into_iter()), None);
        assert_eq!(
            nearest("level", ["log.level", "log.format"].into_iter()),
            Some("log.level")
        );
    }
}
