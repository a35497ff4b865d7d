//! Our lines in a text file of somebody else, between two comments. Pure: text in, text out.
//!
//! They stand at the end, so that every other byte of the file stays where it is, and taking them out gives the text
//! from before. TOML, Go templates of TOML and units of systemd have the same comments.

/// The comment before our lines. It is found by its beginning; the rest may change from version to version.
const BEGIN: &str =
    "# elastic-mem: begin (`elastic-mem install` wrote this, `elastic-mem uninstall` takes it out)";
const BEGIN_MARK: &str = "# elastic-mem: begin";
/// The comment after them.
const END: &str = "# elastic-mem: end";

/// A beginning without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unended {
    /// The line of the beginning, from 1.
    pub(super) line: usize,
}

/// The text with our lines at its end. It must not hold any.
pub(super) fn with(text: &str, lines: &str) -> String {
    let eol = line_end(text);
    // One line end belongs to us, so that `without` knows what to take: it separates, or ends a last line that has none.
    let gap = if text.is_empty() { "" } else { eol };
    let mut out = format!("{text}{gap}{BEGIN}{eol}");
    for line in lines.lines() {
        out.push_str(line);
        out.push_str(eol);
    }
    out.push_str(END);
    out.push_str(eol);
    out
}

/// The text without our lines; `None` if there are none.
///
/// # Errors
/// `Unended` when somebody has removed a part of them.
pub(super) fn without(text: &str) -> Result<Option<String>, Unended> {
    let Some((begin, line)) = find_line(text, 0, BEGIN_MARK) else {
        return Ok(None);
    };
    let Some((end, _)) = find_line(text, begin, END) else {
        return Err(Unended { line });
    };
    let (before, rest) = text.split_at(begin);
    let after_end = rest.get(end.saturating_sub(begin)..).unwrap_or_default();
    let after = after_end.find('\n').map_or("", |at| {
        after_end.get(at.saturating_add(1)..).unwrap_or_default()
    });
    let before = before
        .strip_suffix("\r\n")
        .or_else(|| before.strip_suffix('\n'))
        .unwrap_or(before);
    // Lines that somebody has added behind ours must not run into the line before.
    let gap = match before.is_empty() || before.ends_with('\n') || after.is_empty() {
        true => "",
        false => line_end(text),
    };
    Ok(Some(format!("{before}{gap}{after}")))
}

/// Whether our lines are in the text.
pub(super) fn is_in(text: &str) -> bool {
    find_line(text, 0, BEGIN_MARK).is_some()
}

/// Where the first line from an offset on begins that begins with `mark`, and its number in the whole text, from 1.
fn find_line(text: &str, from: usize, mark: &str) -> Option<(usize, usize)> {
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if offset >= from && line.starts_with(mark) {
            return Some((offset, index.saturating_add(1)));
        }
        offset = offset.saturating_add(line.len());
    }
    None
}

/// How the lines of a text end: as the first one does.
fn line_end(text: &str) -> &'static str {
    match text.find('\n').and_then(|at| text.get(..at)) {
        Some(line) if line.ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn our_lines_stand_at_the_end() {
        assert_eq!(
            with("a = 1\n", "b = 2"),
            format!("a = 1\n\n{BEGIN}\nb = 2\n{END}\n")
        );
        assert_eq!(with("", "b = 2\n"), format!("{BEGIN}\nb = 2\n{END}\n"));
    }

    #[test]
    fn line_ends_are_those_of_the_file() {
        let text = with("a = 1\r\nb = 2\r\n", "c = 3\nd = 4");
        assert!(
            text.split('\n')
                .rev()
                .skip(1)
                .all(|line| line.ends_with('\r')),
            "{text:?}"
        );
        assert_eq!(without(&text), Ok(Some("a = 1\r\nb = 2\r\n".to_owned())));
    }

    #[test]
    fn what_somebody_wrote_around_them_stays() {
        let text = with("a = 1\n", "b = 2") + "c = 3\n";
        assert_eq!(without(&text), Ok(Some("a = 1\nc = 3\n".to_owned())));
        let text = with("a = 1", "b = 2") + "c = 3\n";
        assert_eq!(without(&text), Ok(Some("a = 1\nc = 3\n".to_owned())));
    }

    #[test]
    fn a_beginning_without_an_end_is_said() {
        let text = with("a = 1\n", "b = 2").replace(END, "");
        assert_eq!(without(&text), Err(Unended { line: 3 }));
        assert_eq!(without("# elastic-mem is good\n"), Ok(None));
    }

    proptest! {
        #[test]
        fn taking_out_gives_what_was_before(text in "([ a-z=#\"]|\n|\r\n){0,60}", lines in "[a-z]{1,9}(\n[a-z]{1,9}){0,3}") {
            prop_assert_eq!(without(&with(&text, &lines)), Ok(Some(text)));
        }
    }
}
