//! A line diff for failure reports.

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
