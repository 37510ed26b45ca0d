//! Aligned columns of text. Knows nothing of what stands in them.

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// Between two columns.
const GAP: &str = "  ";

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When it has not one cell per column.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.columns.len(), "a row has one cell per column");
        self.rows.push(row);
    }

    /// Whether it has no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table with `indent` before each line; columns without any cell text are left out.
    pub(crate) fn text(&self, indent: &str) -> String {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<(usize, usize)> = (0..self.columns.len())
            .map(|column| (column, width(column)))
            .filter(|(_, width)| *width > 0)
            .map(|(column, width)| (column, width.max(self.columns[column].0.chars().count())))
            .collect();
        let line = |cell: &dyn Fn(usize) -> String| {
            let cells = widths.iter().map(|&(column, width)| match self.columns[column].1 {
                Align::Left => format!("{:<width$}", cell(column)),
                Align::Right => format!("{:>width$}", cell(column)),
            });
            format!("{indent}{}", cells.collect::<Vec<_>>().join(GAP)).trim_end().to_owned() + "\n"
        };
        let header = line(&|column| self.columns[column].0.to_owned());
        let rows = self.rows.iter().map(|row| line(&|column| row[column].clone()));
        std::iter::once(header).chain(rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_ones_vanish() {
        let mut table = Table::new(&[("name", Align::Left), ("zone", Align::Left), ("$/h", Align::Right)]);
        table.push(vec!["ä".into(), String::new(), "10.25".into()]);
        table.push(vec!["longer".into(), String::new(), "1".into()]);
        assert_eq!(table.text(" "), " name      $/h\n ä       10.25\n longer      1\n");
    }
}
