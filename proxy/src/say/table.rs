//! Tables in the layout of `tsh`: a header, dashes, columns as wide as their widest cell.

use std::fmt;

use super::text;

/// A table whose cells are cleaned as they are added: no caller can forget it. Made for very many
/// rows: all cells lie in one text.
#[derive(Debug, Clone)]
pub struct Table {
    header: Vec<String>,
    /// Of each column, in terminal columns.
    widths: Vec<usize>,
    /// The cells, row by row, one after the other.
    text: String,
    cells: Vec<Cell>,
}

/// A cell, which begins where the one before it ends.
#[derive(Debug, Clone, Copy)]
struct Cell {
    end: usize,
    width: usize,
}

impl Table {
    /// A table with these column names and no rows.
    #[must_use]
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self {
            header: header.iter().map(|h| (*h).to_owned()).collect(),
            widths: header.iter().map(|h| text::width(h)).collect(),
            text: String::new(),
            cells: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are empty, cells beyond the last column are not shown.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut cells = cells.into_iter();
        for widest in &mut self.widths {
            let mut width = 0;
            if let Some(cell) = cells.next() {
                let cell = text::clean(cell.as_ref());
                width = text::width(&cell);
                self.text.push_str(&cell);
            }
            *widest = (*widest).max(width);
            let end = self.text.len();
            self.cells.push(Cell { end, width });
        }
    }
}

/// The table's lines, without trailing blanks, separated by `\n`, no final one.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header.iter().map(|h| (h.as_str(), text::width(h)));
        write_row(f, header, &self.widths)?;
        f.write_str("\n")?;
        let dashes: Vec<String> = self.widths.iter().map(|w| "-".repeat(*w)).collect();
        let dashes = dashes.iter().map(|d| (d.as_str(), d.len()));
        write_row(f, dashes, &self.widths)?;
        let mut start = 0;
        for row in self.cells.chunks(self.widths.len().max(1)) {
            f.write_str("\n")?;
            let cells = row.iter().map(|cell| {
                let text = self.text.get(start..cell.end).unwrap_or_default();
                start = cell.end;
                (text, cell.width)
            });
            write_row(f, cells, &self.widths)?;
        }
        Ok(())
    }
}

/// Writes the cells, each with its width. Blanks are written before a cell, never after the last.
fn write_row<'a>(
    f: &mut fmt::Formatter<'_>,
    cells: impl Iterator<Item = (&'a str, usize)>,
    widths: &[usize],
) -> fmt::Result {
    let mut gap = 0;
    for ((cell, width), widest) in cells.zip(widths) {
        let shown = cell.trim_end();
        if !shown.is_empty() {
            write!(f, "{:gap$}{shown}", "")?;
            gap = cell.len() - shown.len();
        }
        // Two blanks between columns, since names of columns hold single ones.
        gap += widest.saturating_sub(width) + 2;
        if shown.is_empty() {
            gap += width;
        }
    }
    Ok(())
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
