//! Tables in the layout of `tsh`: a header, dashes, columns as wide as their widest cell.

use std::fmt::{self, Write as _};

use super::text;

/// The cells of one or more rows, row by row, cleaned as they are added: no caller can forget it.
/// All of them lie in one text, which is used again for the next row where there are very many.
#[derive(Debug, Clone, Default)]
pub struct Cells {
    text: String,
    cells: Vec<Cell>,
    /// Where a cell is written that is not there as a text yet.
    scratch: String,
}

/// A cell, which begins where the one before it ends.
#[derive(Debug, Clone, Copy)]
struct Cell {
    end: usize,
    width: usize,
}

impl Cells {
    /// Adds a cell.
    pub fn push(&mut self, cell: &str) {
        let cell = text::clean(cell);
        self.text.push_str(&cell);
        self.cells.push(Cell {
            end: self.text.len(),
            width: text::width(&cell),
        });
    }

    /// Adds a cell with what `write` writes.
    pub fn push_with(&mut self, write: impl FnOnce(&mut String)) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        write(&mut scratch);
        self.push(&scratch);
        self.scratch = scratch;
    }

    /// Adds a cell with what `value` shows.
    pub fn push_shown(&mut self, value: impl fmt::Display) {
        self.push_with(|text| {
            // A text takes everything.
            let _ = write!(text, "{value}");
        });
    }

    /// Adds a cell with these, separated by commas.
    pub fn push_joined<T: fmt::Display>(&mut self, values: impl IntoIterator<Item = T>) {
        self.push_with(|text| {
            let mut separator = "";
            for value in values {
                let _ = write!(text, "{separator}{value}");
                separator = ",";
            }
        });
    }

    /// Takes all cells out, and keeps the room that they took.
    pub fn clear(&mut self) {
        self.text.clear();
        self.cells.clear();
    }

    /// The rows of so many cells.
    fn rows(&self, columns: usize) -> impl Iterator<Item = impl Iterator<Item = (&str, usize)>> {
        let mut start = 0;
        self.cells.chunks(columns.max(1)).map(move |row| {
            let mut from = start;
            start = row.last().map_or(start, |cell| cell.end);
            row.iter().map(move |cell| {
                let text = self.text.get(from..cell.end).unwrap_or_default();
                from = cell.end;
                (text, cell.width)
            })
        })
    }
}

/// The columns of a table: their names, and how wide they are. Made for rows that are made twice,
/// once to be measured and once to be written, because nobody wants to keep them all.
#[derive(Debug, Clone)]
pub struct Columns {
    header: Vec<String>,
    /// In terminal columns.
    widths: Vec<usize>,
}

impl Columns {
    /// Columns of these names, as wide as the names.
    #[must_use]
    pub fn new(header: &[&str]) -> Self {
        Self {
            header: header.iter().map(|h| (*h).to_owned()).collect(),
            widths: header.iter().map(|h| text::width(h)).collect(),
        }
    }

    /// Makes them as wide as this row, or these rows, need.
    pub fn measure(&mut self, cells: &Cells) {
        for row in cells.cells.chunks(self.widths.len().max(1)) {
            for (widest, cell) in self.widths.iter_mut().zip(row) {
                *widest = (*widest).max(cell.width);
            }
        }
    }

    /// Writes the names and the dashes, without a final line break.
    pub fn write_head(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let header = self.header.iter().map(|h| (h.as_str(), text::width(h)));
        write_row(out, header, &self.widths)?;
        out.write_char('\n')?;
        let dashes: Vec<String> = self.widths.iter().map(|w| "-".repeat(*w)).collect();
        let dashes = dashes.iter().map(|d| (d.as_str(), d.len()));
        write_row(out, dashes, &self.widths)
    }

    /// Writes rows, each behind a line break.
    pub fn write_rows(&self, out: &mut impl fmt::Write, cells: &Cells) -> fmt::Result {
        for row in cells.rows(self.widths.len()) {
            out.write_char('\n')?;
            write_row(out, row, &self.widths)?;
        }
        Ok(())
    }
}

/// A table that is kept until it is complete. For very many rows see [`Columns`].
#[derive(Debug, Clone)]
pub struct Table {
    columns: Columns,
    cells: Cells,
}

impl Table {
    /// A table with these column names and no rows.
    #[must_use]
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self {
            columns: Columns::new(&header),
            cells: Cells::default(),
        }
    }

    /// Adds a row. Missing cells are empty, cells beyond the last column are not shown.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut cells = cells.into_iter();
        for _ in &self.columns.widths {
            match cells.next() {
                Some(cell) => self.cells.push(cell.as_ref()),
                None => self.cells.push(""),
            }
        }
    }
}

/// The table's lines, without trailing blanks, separated by `\n`, no final one.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut columns = self.columns.clone();
        columns.measure(&self.cells);
        columns.write_head(f)?;
        columns.write_rows(f, &self.cells)
    }
}

/// Writes the cells, each with its width. Blanks are written before a cell, never after the last.
fn write_row<'a>(
    out: &mut impl fmt::Write,
    cells: impl Iterator<Item = (&'a str, usize)>,
    widths: &[usize],
) -> fmt::Result {
    let mut gap = 0;
    for ((cell, width), widest) in cells.zip(widths) {
        let shown = cell.trim_end();
        if !shown.is_empty() {
            write_blanks(out, gap)?;
            out.write_str(shown)?;
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

fn write_blanks(out: &mut impl fmt::Write, mut count: usize) -> fmt::Result {
    const BLANKS: &str = "                                ";
    while let Some(blanks) = BLANKS.get(..count.min(BLANKS.len()))
        && !blanks.is_empty()
    {
        out.write_str(blanks)?;
        count -= blanks.len();
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
