//! Text from a peer, made fit for a terminal and a log.

use anteroom_core::text::is_hostile;

/// Characters that are kept of it: a sentence or two.
const LONGEST: usize = 600;

/// In one line, without control characters, overrides of writing direction and invisible characters.
pub(crate) fn clean(text: &str) -> String {
    let spaced = text
        .trim()
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c });
    spaced.filter(|c| !is_hostile(*c)).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_the_cursor_or_hides_is_left() {
        assert_eq!(clean(" a\x1b[2J\r\nb\u{202e}c\u{200b}\n"), "a[2J  bc");
        assert_eq!(clean(&"x".repeat(5000)).len(), LONGEST);
    }
}
