//! Listings of very many rows, in pieces: a row is made, written and let go of before the next one.
//!
//! What such a listing takes is one piece of [`PIECE`] bytes and one row, however many rows there are and however slowly they
//! are read. To the letter it is what [`json`](super::json), [`yaml`](super::yaml) and [`Table`](super::Table) make of all
//! rows at once, with the final line break.

use serde::Serialize;

use super::data::{write_json_entry, write_yaml_entry, yaml};
use super::table::{Cells, Columns};

/// A piece is handed on once it has so many bytes: one packet of an SSH channel, which is then not cut again. It may be longer
/// by one row.
const PIECE: usize = 32 << 10;

/// Rows, and what is written of each; see [`pieces`].
struct Pieces<I, W> {
    rows: I,
    write: W,
    over: bool,
}

/// What `write` writes of each row and then, once, of `None`: the end.
fn pieces<I: Iterator>(
    rows: I,
    write: impl FnMut(&mut String, Option<I::Item>),
) -> impl Iterator<Item = String> {
    Pieces {
        rows,
        write,
        over: false,
    }
}

impl<I: Iterator, W: FnMut(&mut String, Option<I::Item>)> Iterator for Pieces<I, W> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        let mut piece = String::new();
        while piece.len() < PIECE && !self.over {
            let row = self.rows.next();
            self.over = row.is_none();
            (self.write)(&mut piece, row);
        }
        Some(piece)
    }
}

/// A pretty-printed JSON list.
pub fn json_in_pieces<R: Serialize>(rows: impl Iterator<Item = R>) -> impl Iterator<Item = String> {
    let mut first = true;
    pieces(rows, move |out, row| {
        let nothing = std::mem::replace(&mut first, false);
        match row {
            Some(row) => {
                out.push_str(if nothing { "[\n" } else { ",\n" });
                write_json_entry(out, &row);
            }
            None => out.push_str(if nothing { "[]\n" } else { "\n]\n" }),
        }
    })
}

/// A YAML list in block style.
pub fn yaml_in_pieces<R: Serialize>(rows: impl Iterator<Item = R>) -> impl Iterator<Item = String> {
    let mut first = true;
    pieces(rows, move |out, row| {
        let nothing = std::mem::replace(&mut first, false);
        match row {
            Some(row) => write_yaml_entry(out, &row),
            None if nothing => out.push_str("[]\n"),
            None => {}
        }
    })
}

/// YAML documents, each opened by `---`.
pub fn documents_in_pieces<R: Serialize>(
    documents: impl Iterator<Item = R>,
) -> impl Iterator<Item = String> {
    pieces(documents, |out, document| {
        if let Some(document) = document {
            out.push_str("---\n");
            out.push_str(&yaml(&document));
            out.push('\n');
        }
    })
}

/// A table whose columns have been measured with the same rows. `cells` adds the cells of one row.
pub fn table_in_pieces<T>(
    columns: Columns,
    rows: impl Iterator<Item = T>,
    cells: impl Fn(T, &mut Cells),
) -> impl Iterator<Item = String> {
    let mut row_cells = Cells::default();
    let mut first = true;
    pieces(rows, move |out, row| {
        // A text takes everything.
        if std::mem::replace(&mut first, false) {
            let _ = columns.write_head(out);
        }
        match row {
            Some(row) => {
                row_cells.clear();
                cells(row, &mut row_cells);
                let _ = columns.write_rows(out, &row_cells);
            }
            None => out.push('\n'),
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::{Table, json};
    use super::*;

    #[derive(Serialize, Debug, Clone)]
    struct Row {
        name: String,
        labels: std::collections::BTreeMap<String, String>,
        logins: Vec<String>,
    }

    fn any_row() -> impl Strategy<Value = Row> {
        let labels = proptest::collection::btree_map("\\PC{0,4}", any::<String>(), 0..3);
        let logins = proptest::collection::vec("[a-z\n-]{0,5}", 0..3);
        let row = (any::<String>(), labels, logins);
        row.prop_map(|(name, labels, logins)| Row {
            name,
            labels,
            logins,
        })
    }

    fn table_at_once(rows: &[Row]) -> String {
        let mut table = Table::new(["Name", "Logins"]);
        for row in rows {
            table.row([&row.name, &row.logins.join(",")]);
        }
        table.to_string()
    }

    fn table(rows: &[Row]) -> impl Iterator<Item = String> {
        let cells = |row: &Row, cells: &mut Cells| {
            cells.push(&row.name);
            cells.push_joined(&row.logins);
        };
        let mut columns = Columns::new(&["Name", "Logins"]);
        for row in rows {
            let mut measured = Cells::default();
            cells(row, &mut measured);
            columns.measure(&measured);
        }
        table_in_pieces(columns, rows.iter(), cells)
    }

    proptest! {
        #[test]
        fn rows_one_by_one_are_to_the_letter_what_all_at_once_are(
            rows in proptest::collection::vec(any_row(), 0..4)
        ) {
            let one_by_one: String = json_in_pieces(rows.iter()).collect();
            prop_assert_eq!(one_by_one, json(&rows) + "\n");
            let one_by_one: String = yaml_in_pieces(rows.iter()).collect();
            prop_assert_eq!(one_by_one, yaml(&rows) + "\n");
            let one_by_one: String = table(&rows).collect();
            prop_assert_eq!(one_by_one, table_at_once(&rows) + "\n");
            let documents: Vec<String> =
                rows.iter().map(|row| format!("---\n{}\n", yaml(row))).collect();
            let one_by_one: String = documents_in_pieces(rows.iter()).collect();
            prop_assert_eq!(one_by_one, documents.concat());
        }
    }

    #[test]
    fn no_piece_is_longer_than_one_packet_and_one_row() {
        let row = Row {
            name: "n".repeat(100),
            labels: Default::default(),
            logins: Vec::new(),
        };
        let rows = vec![row; 10_000];
        let longest = |pieces: &mut dyn Iterator<Item = String>| pieces.map(|p| p.len()).max();
        let bound = Some(PIECE + 400);
        assert!(longest(&mut json_in_pieces(rows.iter())) < bound);
        assert!(longest(&mut yaml_in_pieces(rows.iter())) < bound);
        assert!(longest(&mut documents_in_pieces(rows.iter())) < bound);
        assert!(longest(&mut table(&rows)) < bound);
    }

    #[test]
    fn a_row_is_not_made_before_it_is_wanted() {
        let made = std::cell::Cell::new(0);
        let rows = (0..100_000).map(|n: u32| {
            made.set(made.get() + 1);
            Value::from(n.to_string().repeat(20))
        });
        let mut pieces = json_in_pieces(rows);
        pieces.next();
        assert!(made.get() < 3000, "{}", made.get());
    }
}
