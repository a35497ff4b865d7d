//! The plain table.

use super::rows::{self, COLUMNS};
use crate::cli::output;
use crate::cli::survey::View;

/// The line of the host, and a line for each container.
pub(super) fn table(view: &View) -> String {
    let has_remote = view.containers.iter().any(|row| row.remote.is_some());
    let mut lines: Vec<Vec<String>> = vec![COLUMNS.map(str::to_owned).to_vec()];
    if let (Some(head), true) = (lines.first_mut(), has_remote) {
        head.extend(["LOCAL", "REMOTE"].map(str::to_owned));
    }
    if let Some(head) = lines.first_mut() {
        head.extend(["CHANGED", "BECAUSE"].map(str::to_owned));
    }
    for row in &view.containers {
        let mut cells = rows::cells(row).to_vec();
        if has_remote {
            cells.extend([row.local, row.remote].map(rows::size_or_dash));
        }
        match rows::decision(row) {
            Some((cause, age)) => cells.extend([age, cause.to_owned()]),
            None => cells.extend([rows::dash(), rows::dash()]),
        }
        lines.push(cells);
    }
    format!(
        "{}\n{}",
        rows::host_line(view),
        output::columns(&lines, 0, 2)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::survey::tests::{row, view};
    use crate::model::Bytes;

    #[test]
    fn a_table_has_a_line_for_each_container() {
        let mut off = row("idle-sandbox");
        off.mode = crate::model::Mode::Off;
        (off.phase, off.attended, off.last_decision) = (None, false, None);
        (off.function, off.class, off.areas) = (None, None, None);
        (off.saved_byte_seconds, off.psi_some_share) = (None, None);
        (off.grant, off.ceiling) = (None, None);
        let text = table(&view(vec![row("thumb-1"), off]));
        assert_eq!(
            text,
            "node-1: 24.0G of memory, 12.0G available; 2 containers, 360.0M reclaimable, 1.50 GiB-s saved\n\
             NAMESPACE  ID            FUNCTION  CLASS  PHASE       MODE     USE    GRANT  CEILING  SAVED  PSI   CHANGED  BECAUSE\n\
             default    thumb-1       thumb     small  keep-alive  elastic  64.0M  76.0M  256.0M   1.50   0.5%  2.5s     rest\n\
             default    idle-sandbox  -         -      -           off      64.0M  -      -        -      -     -        -\n"
        );
    }

    #[test]
    fn tiers_have_columns_where_there_are_some() {
        let mut tiered = row("a");
        (tiered.local, tiered.remote) = (Some(Bytes::new(48 << 20)), Some(Bytes::new(16 << 20)));
        let text = table(&view(vec![tiered, row("b")]));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("LOCAL  REMOTE"), "{text}");
        assert!(lines[2].contains("48.0M  16.0M"), "{text}");
        assert!(lines[3].contains("-      -     "), "{text}");
    }
}
