//! Which columns a screen has room for.

use super::rows;
use crate::cli::survey::Row;

/// Which side of a column its cells stand at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    /// Numbers.
    Right,
}

/// A column that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// One for each row.
    pub(super) cells: Vec<String>,
    align: Align,
    /// Those with the largest number go first.
    dispensable: u8,
    width: usize,
}

/// Between two columns.
const GAP: usize = 2;
/// Names are cut before columns go, down to this.
const SHORT_NAME: usize = 12;
const LONG_NAME: usize = 40;

impl Column {
    /// The text of a cell in the width of the column.
    pub(super) fn cell(&self, text: &str) -> String {
        let length = text.chars().count();
        let cut: String = match length > self.width {
            // The end of a name tells more than its begin: instances of one function differ there.
            true => std::iter::once('~')
                .chain(text.chars().skip(length + 1 - self.width))
                .collect(),
            false => text.to_owned(),
        };
        match self.align {
            Align::Left => format!("{cut:<width$}", width = self.width),
            Align::Right => format!("{cut:>width$}", width = self.width),
        }
    }

    /// From its begin to that of the next one.
    pub(super) fn advance(&self) -> u16 {
        u16::try_from(self.width + GAP).unwrap_or(u16::MAX)
    }
}

/// All columns of which anything is known.
fn all(rows: &[Row]) -> Vec<Column> {
    let column = |title, align, dispensable, cell: &dyn Fn(&Row) -> String| Column {
        title,
        align,
        dispensable,
        width: 0,
        cells: rows.iter().map(cell).collect(),
    };
    let (left, right) = (Align::Left, Align::Right);
    let known =
        |index: usize| move |row: &Row| rows::cells(row).get(index).cloned().unwrap_or_default();
    let decision = |row: &Row| rows::decision(row);
    let mut columns = vec![
        column("NAMESPACE", left, 12, &known(0)),
        column("ID", left, 0, &known(1)),
        column("FUNCTION", left, 4, &known(2)),
        column("CLASS", left, 11, &known(3)),
        column("PHASE", left, 5, &known(4)),
        column("MODE", left, 9, &known(5)),
        column("USE", right, 1, &known(6)),
        column("GRANT", right, 2, &known(7)),
        column("CEILING", right, 3, &known(8)),
        column("SAVED", right, 6, &known(9)),
        column("PSI", right, 10, &known(10)),
        column("LOCAL", right, 6, &|row| rows::size_or_dash(row.local)),
        column("REMOTE", right, 6, &|row| rows::size_or_dash(row.remote)),
        column("CHANGED", right, 8, &|row| {
            decision(row).map_or_else(rows::dash, |(_, age)| age)
        }),
        column("BECAUSE", left, 7, &|row| {
            decision(row).map_or_else(rows::dash, |(cause, _)| cause.to_owned())
        }),
    ];
    columns.retain(|column| {
        let is_optional = ["CLASS", "LOCAL", "REMOTE"].contains(&column.title);
        !is_optional || column.cells.iter().any(|cell| cell != "-")
    });
    for column in &mut columns {
        let cells = column.cells.iter().map(|cell| cell.chars().count());
        let widest = cells.max().unwrap_or(0).max(column.title.len());
        column.width = widest.min(LONG_NAME);
    }
    columns
}

/// As many columns as fit: long names are cut first, then whole columns go.
pub(super) fn fitting(rows: &[Row], width: usize) -> Vec<Column> {
    let mut columns = all(rows);
    let total = |columns: &[Column]| {
        let widths: usize = columns.iter().map(|column| column.width + GAP).sum();
        widths.saturating_sub(GAP)
    };
    while total(&columns) > width {
        let excess = total(&columns) - width;
        let longest = columns
            .iter_mut()
            .filter(|column| column.align == Align::Left && column.width > SHORT_NAME)
            .max_by_key(|column| column.width);
        if let Some(column) = longest {
            column.width = (column.width - excess.min(column.width)).max(SHORT_NAME);
            continue;
        }
        let first = columns
            .iter()
            .enumerate()
            .max_by_key(|(_, column)| column.dispensable)
            .map(|(index, _)| index);
        match first {
            Some(index) if columns.len() > 1 => {
                columns.remove(index);
            }
            _ => break,
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::survey::tests::row;

    fn titles(width: usize) -> Vec<&'static str> {
        let rows = [row("a-container-with-quite-a-long-name-1")];
        let columns = fitting(&rows, width);
        let total: usize = columns.iter().map(|column| column.width + GAP).sum();
        assert!(total <= width + GAP, "{width}");
        columns.iter().map(|column| column.title).collect()
    }

    #[test]
    fn what_matters_most_stays() {
        assert_eq!(titles(200).len(), 13);
        let narrow = titles(80);
        assert!(narrow.contains(&"FUNCTION") && narrow.contains(&"CEILING"));
        assert!(!narrow.contains(&"NAMESPACE"));
        assert_eq!(titles(40), ["ID", "USE", "GRANT", "CEILING"]);
        assert_eq!(titles(20), ["ID", "USE"]);
    }

    #[test]
    fn long_names_keep_their_end() {
        let rows = [row("a-container-with-quite-a-long-name-1")];
        let columns = fitting(&rows, 60);
        let id = columns.iter().find(|column| column.title == "ID").unwrap();
        let text = id.cell(&id.cells[0]);
        assert!(text.starts_with('~') && text.ends_with("name-1"), "{text}");
    }
}
