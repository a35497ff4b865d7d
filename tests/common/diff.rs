//! What differs between texts and between transcripts, for failure reports.

/// What was seen of a scenario: labels and texts.
pub type Transcript = Vec<Entry>;
pub type Entry = (String, String);

/// The differences between two transcripts. Of texts with the same label that
/// differ, `is_meant` tells whether they may.
pub fn transcripts(
    expected: &[Entry],
    actual: &[Entry],
    is_meant: impl Fn(&str, &str, &str) -> bool,
) -> String {
    let mut report = String::new();
    for (index, (label, text)) in expected.iter().enumerate() {
        let (our_label, our_text) = match actual.get(index) {
            Some((label, text)) => (label.as_str(), text.as_str()),
            None => ("(missing)", ""),
        };
        if label == our_label && (text == our_text || is_meant(label, text, our_text)) {
            continue;
        }
        report.push_str(&format!("== {label}\n"));
        if label != our_label {
            report.push_str(&format!("   ours is at {our_label}\n"));
        }
        report.push_str(&lines(text, our_text));
    }
    for (label, text) in actual.iter().skip(expected.len()) {
        report.push_str(&format!("== only ours: {label}\n{text}\n"));
    }
    report
}

/// The differing lines of two texts with the line before each difference:
/// `-` is the expected text's, `+` the actual one's. Transcripts are short, so
/// the quadratic longest common subsequence will do.
pub fn lines(expected: &str, actual: &str) -> String {
    let old: Vec<_> = expected.lines().collect();
    let new: Vec<_> = actual.lines().collect();
    // `common[i][j]`: length of the longest common subsequence of the tails.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut context = None;
    let mut report = String::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            context = Some(old[i]);
            i += 1;
            j += 1;
            continue;
        }
        if let Some(line) = context.take() {
            report.push_str(&format!("  {line}\n"));
        }
        if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            report.push_str(&format!("- {}\n", old[i]));
            i += 1;
        } else {
            report.push_str(&format!("+ {}\n", new[j]));
            j += 1;
        }
    }
    report
}
