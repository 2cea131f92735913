//! Untrusted text on its way to a person: what could move a cursor, turn a line around or hide
//! is written out as a visible escape, so that nobody can make a list, a prompt or a verdict
//! look like something else. Cutting is by display width, never inside a character.

use std::borrow::Cow;

pub use anteroom_core::text::is_hostile;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Combining marks in a row beyond which the rest is written out: two cover every living script's
/// ordinary text, towers of them paint over the lines above.
const COMBINING_RUN: usize = 2;

/// The text with every hostile character written out (`\n`, `\x1b`, `\u{202e}`). The result is one
/// line. Text without such characters is returned as it is.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.is_ascii() && !text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    push_clean(&mut out, text, Backslash::AsIs);
    Cow::Owned(out)
}

/// Like [`clean`] for bytes that are meant to be UTF-8: what isn't is written as `\xNN`.
#[must_use]
pub fn clean_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        push_clean(&mut out, chunk.valid(), Backslash::AsIs);
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// The text in double quotes, on one line, unambiguous: `"` and `\` inside are escaped as well.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    push_clean(&mut out, text, Backslash::Escaped);
    out.push('"');
    out
}

/// The display width of a text in terminal columns.
#[must_use]
pub fn width(text: &str) -> usize {
    // Most texts, and by far the quicker answer.
    if text.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
        return text.len();
    }
    UnicodeWidthStr::width(text)
}

/// A cleaned text of at most `columns` columns; what was cut off ends in `...`.
#[must_use]
pub fn cut(text: &str, columns: usize) -> String {
    cut_with(text, columns, "...")
}

/// Like [`cut`], with another mark for what was cut off. The mark counts towards `columns`.
#[must_use]
pub fn cut_with(text: &str, columns: usize, mark: &str) -> String {
    // What nobody will see need not be cleaned: a character takes at most four bytes, and one
    // that takes no column is either escaped (and then takes some) or in a bounded run.
    let enough = columns
        .saturating_mul(4 * (COMBINING_RUN + 1))
        .saturating_add(4);
    let head = head(text, enough);
    let cleaned = clean(head);
    if head.len() == text.len() && width(&cleaned) <= columns {
        return cleaned.into_owned();
    }
    let room = columns.saturating_sub(width(mark));
    let mut out = String::new();
    let mut used = 0;
    for c in cleaned.chars() {
        let w = c.width().unwrap_or(0);
        if used + w > room {
            break;
        }
        used += w;
        out.push(c);
    }
    out.push_str(mark);
    out
}

/// The longest start of `text` that has at most `bytes` bytes and ends between two characters.
#[must_use]
pub fn head(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    AsIs,
    Escaped,
}

fn push_clean(out: &mut String, text: &str, backslash: Backslash) {
    // Marks at the very start would join whatever is printed before the text.
    let mut run = COMBINING_RUN;
    for c in text.chars() {
        let combining = c.width() == Some(0);
        if is_hostile(c) || (combining && run >= COMBINING_RUN) {
            push_escape(out, c);
            continue;
        }
        run = if combining { run + 1 } else { 0 };
        if backslash == Backslash::Escaped && (c == '"' || c == '\\') {
            out.push('\\');
        }
        out.push(c);
    }
}

fn push_escape(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_text_of_any_language_stays_as_it_is() {
        for text in [
            "responding to incident 123",
            "störung in Zürich",
            "障害対応",
            "cafe\u{301}",
            "📟 pager",
        ] {
            assert_eq!(clean(text), text);
        }
    }

    #[test]
    fn what_moves_a_cursor_or_turns_a_line_around_is_written_out() {
        assert_eq!(clean("a\x1b[2Jb"), "a\\x1b[2Jb");
        assert_eq!(clean("a\u{9b}2J"), "a\\x9b2J");
        assert_eq!(
            clean("a\nStatus:      APPROVED"),
            "a\\nStatus:      APPROVED"
        );
        assert_eq!(clean("a\r\t\u{7f}"), "a\\r\\t\\x7f");
        assert_eq!(clean("evil\u{202e}txt"), "evil\\u{202e}txt");
        assert_eq!(clean("ro\u{200b}ot\u{feff}"), "ro\\u{200b}ot\\u{feff}");
        assert_eq!(clean("a\u{2028}b"), "a\\u{2028}b");
    }

    #[test]
    fn marks_never_join_what_stands_before_and_never_pile_up() {
        assert_eq!(clean("\u{301}x"), "\\u{301}x");
        assert_eq!(clean("x\u{301}\u{302}\u{303}"), "x\u{301}\u{302}\\u{303}");
    }

    #[test]
    fn a_quoted_text_cannot_close_its_quotes() {
        assert_eq!(quote("okay"), "\"okay\"");
        assert_eq!(quote("a\" (approved) \\"), "\"a\\\" (approved) \\\\\"");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_numbers() {
        assert_eq!(clean_bytes(b"ok\xff\xfe\x1b"), "ok\\xff\\xfe\\x1b");
    }

    #[test]
    fn a_cut_counts_columns_and_says_that_it_cut() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abc...");
        assert_eq!(cut("障害対応", 7), "障害...");
        assert_eq!(width(&cut("障害対応中", 8)), 7);
        assert_eq!(cut("\x1b\x1b\x1b\x1b", 7), "\\x1b...");
    }

    proptest! {
        #[test]
        fn nothing_hostile_survives_in_any_text(text in any::<String>()) {
            prop_assert!(!clean(&text).chars().any(is_hostile));
            prop_assert!(!quote(&text).chars().any(is_hostile));
            prop_assert!(!cut(&text, 20).chars().any(is_hostile));
        }

        #[test]
        fn a_cut_text_is_never_wider_than_asked(text in any::<String>(), columns in 3usize..60) {
            let narrow: usize = cut(&text, columns).chars().map(|c| c.width().unwrap_or(0)).sum();
            prop_assert!(narrow <= columns);
        }

        #[test]
        fn any_bytes_become_clean_text(bytes in any::<Vec<u8>>()) {
            prop_assert!(!clean_bytes(&bytes).chars().any(is_hostile));
        }
    }
}
