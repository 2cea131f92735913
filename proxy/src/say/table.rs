//! Tables in the layout of `tsh`: a header, dashes, columns as wide as their widest cell.

use std::fmt;

use super::text;

/// A table whose cells are cleaned as they are added: no caller can forget it.
#[derive(Debug, Clone)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column names and no rows.
    #[must_use]
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self {
            header: header.iter().map(|h| (*h).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are empty, cells beyond the last column are not shown.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut row: Vec<String> = cells
            .into_iter()
            .map(|cell| text::clean(cell.as_ref()).into_owned())
            .collect();
        row.resize(self.header.len(), String::new());
        self.rows.push(row);
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.header.iter().map(|h| text::width(h)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(text::width(cell));
            }
        }
        widths
    }
}

/// The table's lines, without trailing blanks, separated by `\n`, no final one.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let dashes: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
        write_row(f, &self.header, &widths)?;
        f.write_str("\n")?;
        write_row(f, &dashes, &widths)?;
        for row in &self.rows {
            f.write_str("\n")?;
            write_row(f, row, &widths)?;
        }
        Ok(())
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, cells: &[String], widths: &[usize]) -> fmt::Result {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        // Two blanks between columns, since names of columns hold single ones.
        let gap = width.saturating_sub(text::width(cell)) + 2;
        line.extend(std::iter::repeat_n(' ', gap));
    }
    f.write_str(line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_is_its_header() {
        let table = Table::new(["Node Name", "Address", "Labels"]);
        assert_eq!(
            table.to_string(),
            "Node Name  Address  Labels\n---------  -------  ------"
        );
    }

    #[test]
    fn columns_line_up_by_display_width() {
        let mut table = Table::new(["Name", "Note"]);
        table.row(["iot", "x"]);
        table.row(["障害対応", "y"]);
        assert_eq!(
            table.to_string(),
            "Name      Note\n--------  ----\niot       x\n障害対応  y"
        );
    }

    #[test]
    fn a_cell_cannot_add_a_row() {
        let mut table = Table::new(["Name"]);
        table.row(["iot\nroot\x1b[31m"]);
        assert_eq!(
            table.to_string(),
            "Name\n-----------------\niot\\nroot\\x1b[31m"
        );
    }
}
