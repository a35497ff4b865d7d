//! Durations as runc takes them: a number with a unit, `5s`, `500ms`, `1m30s`.

use std::time::Duration;

/// The text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration {0:?}: want a number with a unit, such as 500ms, 5s or 1m30s")]
pub struct InvalidDuration(String);

/// Parses a duration.
///
/// # Errors
/// The text is no duration, or a longer one than can be counted.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let wrong = || InvalidDuration(text.to_owned());
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| c != '.' && !c.is_ascii_digit())
            .ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(total)
}

/// The text of a duration, as [`parse`] reads it: a whole number of the largest unit that divides it, up to seconds.
pub fn text(time: Duration) -> String {
    let nanos = time.as_nanos();
    [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)]
        .into_iter()
        .find(|(_, unit)| nanos.is_multiple_of(*unit))
        .map_or_else(
            || format!("{nanos}ns"),
            |(name, unit)| format!("{}{name}", nanos / unit),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1.5s"), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn a_text_reads_back_as_the_same_duration() {
        for same in ["0s", "20ms", "1s", "1500ms", "90s", "15us", "7ns"] {
            assert_eq!(text(parse(same).unwrap()), same);
        }
    }

    #[test]
    fn a_number_without_unit_is_an_error() {
        for bad in ["", "5", "s", "5x", "-1s", "1e400s"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
