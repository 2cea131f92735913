//! `--query EXPR` in what an SSH client sends.
//!
//! In `ssh access ls --query 'labels["env"] == "prod"'` the user's shell takes the outer quotes away and ssh joins the rest
//! with blanks, so that what arrives is `ls --query labels["env"] == "prod"`. Splitting that as a shell would take the
//! inner quotes as well. So an expression is read as it arrives, up to the next option; where that is no expression, it was quoted
//! for a shell, and is unquoted as by one. No text is an expression both ways: a quoted expression is a text, or texts side by side.

use anteroom_core::predicate::{Predicate, Resource};

const OPTION: &str = "--query";

/// Splits a command line that lists resources and has a `--query`; `None` leaves it to the shell's rules.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let option = find_option(line)?;
    let before = shlex::split(line.get(..option)?)?;
    let command: Vec<&str> = before.iter().map(String::as_str).collect();
    match command.as_slice() {
        ["ls", ..] | ["request", "search", ..] | [_, "ls", ..] => {}
        _ => return None,
    }
    let rest = line.get(option + OPTION.len()..)?;
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let (value, after) = rest.split_at(end_of_expression(rest));
    let value = value.trim_end();
    let quoted = rest.starts_with(['"', '\'']) || value.contains('\\');
    let (value, after) = match unquoted(rest) {
        Some(reading) if quoted && !parses(value) => reading,
        Some(_) | None => (value.to_owned(), shlex::split(after)?),
    };
    if value.is_empty() {
        return None;
    }
    let mut words = before;
    words.push(format!("{OPTION}={value}"));
    words.extend(after);
    Some(words)
}

fn parses(text: &str) -> bool {
    Predicate::<Resource>::parse(text).is_ok()
}

/// The first word as a shell reads it, and the words behind.
fn unquoted(rest: &str) -> Option<(String, Vec<String>)> {
    let mut words = shlex::split(rest)?.into_iter();
    Some((words.next()?, words.collect()))
}

/// Where the first word starts that is `--query` or `--query=…`, outside quotes.
fn find_option(line: &str) -> Option<usize> {
    let mut quotes = Quotes::default();
    let mut word_starts = true;
    for (at, c) in line.char_indices() {
        if word_starts
            && let Some(after) = line.get(at..).and_then(|word| word.strip_prefix(OPTION))
        {
            let ends = after
                .chars()
                .next()
                .is_none_or(|c| c == '=' || c.is_whitespace());
            if ends {
                return Some(at);
            }
        }
        word_starts = quotes.take(c) && c.is_whitespace();
    }
    None
}

/// Where an expression ends: before an option or a label that stands behind a blank and outside texts. Neither has a place
/// in an expression, where nothing starts with a dash and `=` is never alone.
fn end_of_expression(text: &str) -> usize {
    let mut quotes = Quotes::default();
    let mut after_blank = false;
    for (at, c) in text.char_indices() {
        if after_blank && (c == '-' || text.get(at..).is_some_and(starts_with_label)) {
            return at;
        }
        after_blank = quotes.take(c) && c.is_whitespace();
    }
    text.len()
}

/// Whether a text starts with `KEY=`.
fn starts_with_label(text: &str) -> bool {
    text.split_once('=').is_some_and(|(key, value)| {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':');
        !key.is_empty() && key.chars().all(plain) && !value.starts_with('=')
    })
}

/// Whether a place is inside quotes.
#[derive(Default)]
pub(super) struct Quotes {
    open: Option<char>,
    escaped: bool,
}

impl Quotes {
    /// Takes the next character; true if it ends a word.
    pub(super) fn ends_word(&mut self, c: char) -> bool {
        let escaped = self.escaped;
        self.take(c) && !escaped && c.is_whitespace()
    }

    /// Takes the next character; true if what follows stands outside quotes and is not escaped.
    fn take(&mut self, c: char) -> bool {
        match self.open {
            _ if self.escaped => self.escaped = false,
            Some('`') if c == '\\' => {}
            _ if c == '\\' => self.escaped = true,
            Some(open) if c == open => self.open = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'' | '`') => self.open = Some(c),
            None => {}
        }
        self.open.is_none() && !self.escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPRESSION: &str = r#"labels["env"] == "a prod""#;

    fn query(line: &str) -> Vec<String> {
        words(line).unwrap_or_else(|| panic!("{line}"))
    }

    #[test]
    fn an_expression_arrives_whole_however_it_was_quoted() {
        let quoted_for_a_shell = shlex::try_quote(EXPRESSION).unwrap().into_owned();
        for value in [
            EXPRESSION,
            // 'labels["env"] == "a prod"', as after two shells, and the same with the other quotes.
            &format!("'{EXPRESSION}'"),
            r#""labels[\"env\"] == \"a prod\"""#,
            r#"labels\[\"env\"\]\ ==\ \"a\ prod\""#,
            &quoted_for_a_shell,
        ] {
            for (line, after) in [
                (format!("ls --query {value}"), vec![]),
                (format!("ls --query={value}"), vec![]),
                (format!("  ls   --query   {value}  "), vec![]),
                (format!("ls --query {value} -v"), vec!["-v"]),
                (
                    format!("ls --query {value} env=a,my-os='b c'"),
                    vec!["env=a,my-os=b c"],
                ),
                (
                    format!("ls --query {value} --format json"),
                    vec!["--format", "json"],
                ),
            ] {
                let expected = format!("--query={EXPRESSION}");
                let mut words = vec!["ls".to_owned(), expected];
                words.extend(after.into_iter().map(str::to_owned));
                assert_eq!(query(&line), words, "{line}");
            }
        }
        let single = "labels['env'] == 'it is'";
        let line = format!("request search --kind node --query {single} --search 'a b'");
        let words = [
            "request",
            "search",
            "--kind",
            "node",
            &format!("--query={single}"),
        ];
        assert_eq!(query(&line)[..5], words);
        assert_eq!(query(&line)[5..], ["--search", "a b"]);
        let line = format!(
            "nodes ls env=dev --query {}",
            shlex::try_quote(single).unwrap()
        );
        assert_eq!(query(&line)[3], format!("--query={single}"));
        // What is quoted ends where the quote ends.
        let line = format!("ls --query '{EXPRESSION}' os=linux");
        assert_eq!(query(&line)[2..], ["os=linux"]);
    }

    #[test]
    fn what_is_no_expression_is_kept_for_the_message() {
        assert_eq!(
            query("ls --query lables.x == \"a\"")[1],
            "--query=lables.x == \"a\""
        );
        assert_eq!(
            query("ls --query 'lables.x == \"a\"'")[1],
            "--query=lables.x == \"a\""
        );
        assert_eq!(
            query("ls --query labels.x == \"a")[1],
            "--query=labels.x == \"a"
        );
        assert_eq!(
            query("ls --query name == \"a -v b\" -v")[1],
            "--query=name == \"a -v b\""
        );
    }

    #[test]
    fn other_lines_are_left_to_the_shells_rules() {
        for line in [
            "ls",
            "ls --query",
            "ls --query=",
            "ls --queryx labels",
            "ls '--query' labels",
            "request create --resource iot --reason --query labels",
            "audit verify --query x",
            "ls \"x --query labels",
        ] {
            assert_eq!(words(line), None, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in ".{0,60}", rest in r#"[ \\"'`=a.!-]{0,40}"#) {
            words(&line);
            words(&format!("ls --query {rest}"));
            words(&format!("ls {line} --query={rest}"));
        }
    }
}
