//! A table of results: who called whom, and what came of it.

use std::fmt;

/// Result of one pair, or of one check of one language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Passed,
    /// Failed, with the command, what was expected and what it printed.
    Failed(String),
    /// Not run, with the reason.
    Skipped(String),
}

/// Results by row and column.
#[derive(Debug)]
pub(super) struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<(String, Vec<Cell>)>,
}

impl Table {
    pub(super) fn new(title: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.to_owned(), columns, rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: &str, cells: Vec<Cell>) {
        self.rows.push((row.to_owned(), cells));
    }

    pub(super) fn passed(&self) -> usize {
        self.cells().filter(|(_, cell)| **cell == Cell::Passed).count()
    }

    /// The reports of what failed, each below a line that names it.
    pub(super) fn failures(&self) -> Vec<String> {
        self.cells()
            .filter_map(|(name, cell)| match cell {
                Cell::Failed(report) => Some(format!("--- {name}\n{report}")),
                Cell::Passed | Cell::Skipped(_) => None,
            })
            .collect()
    }

    fn cells(&self) -> impl Iterator<Item = (String, &Cell)> {
        self.rows.iter().flat_map(move |(row, cells)| {
            cells
                .iter()
                .zip(&self.columns)
                .map(move |(cell, column)| (format!("{}: {row}, {column}", self.title), cell))
        })
    }

    /// The reasons of cells that were skipped, each once, in the order of the numbers that stand for them.
    fn reasons(&self) -> Vec<&str> {
        let mut reasons = Vec::new();
        for (_, cell) in self.cells() {
            if let Cell::Skipped(why) = cell
                && !reasons.contains(&why.as_str())
            {
                reasons.push(why.as_str());
            }
        }
        reasons
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = self.reasons();
        let first = self.rows.iter().map(|(row, _)| row.len()).max().unwrap_or(0);
        let widths: Vec<usize> = self.columns.iter().map(|column| column.len().max(6)).collect();
        writeln!(f, "{}", self.title)?;
        write!(f, "  {:first$}", "")?;
        for (column, width) in self.columns.iter().zip(&widths) {
            write!(f, "  {column:width$}")?;
        }
        writeln!(f)?;
        for (row, cells) in &self.rows {
            write!(f, "  {row:first$}")?;
            for (cell, width) in cells.iter().zip(&widths) {
                let text = match cell {
                    Cell::Passed => "ok".to_owned(),
                    Cell::Failed(_) => "FAILED".to_owned(),
                    Cell::Skipped(why) => {
                        let number = reasons.iter().position(|reason| reason == why);
                        format!("[{}]", number.map_or(0, |number| number + 1))
                    }
                };
                write!(f, "  {text:width$}")?;
            }
            writeln!(f)?;
        }
        for (number, reason) in (1..).zip(reasons) {
            writeln!(f, "  [{number}] {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_hosts_as_rows_and_names_reasons_once() {
        let mut table = Table::new("greeter", &["c", "python"]);
        let skipped = || Cell::Skipped("missing: go".to_owned());
        table.push("c", vec![Cell::Passed, Cell::Failed("$ host guest".to_owned())]);
        table.push("go", vec![skipped(), skipped()]);
        let lines: Vec<String> =
            table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(
            lines,
            [
                "greeter",
                "      c       python",
                "  c   ok      FAILED",
                "  go  [1]     [1]",
                "  [1] missing: go"
            ]
        );
        assert_eq!(table.passed(), 1);
        assert_eq!(table.failures(), ["--- greeter: c, python\n$ host guest"]);
    }
}
