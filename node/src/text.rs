//! Text from a peer, made fit for a terminal and a log.

/// Characters that are kept of it: a sentence or two.
const LONGEST: usize = 600;

/// In one line, without control characters, overrides of writing direction and invisible characters.
pub(crate) fn clean(text: &str) -> String {
    let spaced = text
        .trim()
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c });
    let plain = |c: &char| {
        let hidden = matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        !c.is_control() && !hidden
    };
    spaced.filter(plain).take(LONGEST).collect()
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
