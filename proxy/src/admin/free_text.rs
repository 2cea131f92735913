//! Options for free text, like `--reason`, in what an SSH client sends.
//!
//! In `ssh access request create iot --reason "today's incident"` the user's shell takes the quotes away and ssh joins the rest with
//! blanks, so that what arrives is `request create iot --reason today's incident`. So a text is read as it arrives, up to the next
//! option; where it arrives quoted, it was quoted twice, and is unquoted as by a shell.
//!
//! What stands behind an unquoted text belongs to it. Only where the command lacks its argument otherwise, a last word that can be nothing else (a
//! request's whole ID, a whole resource ID) is that argument: no word of a reason is ever taken for the start of a request's ID.

use anteroom_core::id::{RequestId, ResourceId};

use super::query::Quotes;

/// The options that take free text, in every command that has one of them.
pub(super) const OPTIONS: [&str; 4] = ["--reason", "--request-reason", "--message", "--command"];

/// What the definition of the commands says of a line's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// They are a command.
    Complete,
    /// An argument or option is missing.
    Lacking,
    /// They are no command for another reason.
    Wrong,
}

/// The definition of the commands, as far as it matters here.
pub(super) trait Commands {
    /// Whether the command that `words` start with has `option`.
    fn has(&self, words: &[String], option: &str) -> bool;

    /// What it says of a whole line.
    fn fit(&self, words: &[String]) -> Fit;
}

/// Splits a command line that has an option for free text; `None` leaves it to the shell's rules.
pub(super) fn words(line: &str, commands: &impl Commands) -> Option<Vec<String>> {
    let pieces = pieces(line, commands)?;
    let plain = assemble(&pieces, None);
    if commands.fit(&plain) != Fit::Lacking {
        return Some(plain);
    }
    let behind = (0..pieces.len()).map(|text| assemble(&pieces, Some(text)));
    let fitting = behind
        .into_iter()
        .find(|words| commands.fit(words) == Fit::Complete);
    Some(fitting.unwrap_or(plain))
}

/// A part of a command line.
enum Piece {
    Words(Vec<String>),
    Text {
        option: &'static str,
        text: String,
        /// Its quotes arrived, so that it ends where they end.
        quoted: bool,
    },
}

fn pieces(line: &str, commands: &impl Commands) -> Option<Vec<Piece>> {
    let (at, option) = find_option(line)?;
    let before = shlex::split(line.get(..at)?)?;
    if !commands.has(&before, option) {
        return None;
    }
    let command = before.clone();
    let mut pieces = vec![Piece::Words(before)];
    let mut next = Some((line.get(at..)?, option));
    while let Some((text, option)) = next {
        let value = text.get(option.len()..)?;
        let rest = take_text(value, option, &mut pieces)?;
        next = match find_option(rest) {
            Some((at, option)) if commands.has(&command, option) => {
                pieces.push(Piece::Words(shlex::split(rest.get(..at)?)?));
                Some((rest.get(at..)?, option))
            }
            Some(_) | None => {
                pieces.push(Piece::Words(shlex::split(rest)?));
                None
            }
        };
    }
    Some(pieces)
}

/// Takes the text behind an option, and the words that belong to neither it nor a next option; returns what follows.
fn take_text<'l>(value: &'l str, option: &'static str, pieces: &mut Vec<Piece>) -> Option<&'l str> {
    let given = value.strip_prefix('=');
    let value = given.unwrap_or(value).trim_start();
    if let Some((text, behind, rest)) = quoted(value) {
        pieces.push(Piece::Text {
            option,
            text,
            quoted: true,
        });
        pieces.push(Piece::Words(behind));
        return Some(rest);
    }
    let (text, rest) = value.split_at(next_option(value));
    let (text, format) = split_format(text.trim(), option);
    if text.is_empty() {
        let equals = if given.is_some() { "=" } else { "" };
        pieces.push(Piece::Words(vec![format!("{option}{equals}")]));
    } else {
        pieces.push(Piece::Text {
            option,
            text: text.to_owned(),
            quoted: false,
        });
    }
    pieces.push(Piece::Words(format));
    Some(rest)
}

/// A text whose quotes arrived: the text, the words up to the next option, and what follows. A text may also start with a quote
/// that belongs to it, as in `"urgent" means now`: then what stands behind makes no sense as arguments.
fn quoted(value: &str) -> Option<(String, Vec<String>, &str)> {
    let end = end_of_word(value);
    let (word, behind) = value.split_at(end);
    let mut read = shlex::split(word)?.into_iter();
    let (Some(text), None) = (read.next(), read.next()) else {
        return None;
    };
    let escaped = [r"\ ", r"\'", r#"\""#]
        .iter()
        .any(|pair| word.contains(pair));
    if !word.starts_with(['"', '\'']) && !escaped {
        return None;
    }
    let (behind, rest) = behind.split_at(next_option(behind));
    let behind = shlex::split(behind)?;
    let blanks = text.chars().any(char::is_whitespace);
    let arguments = blanks || behind.iter().all(|word| is_whole_id(word) || word == "-f");
    arguments.then_some((text, behind, rest))
}

/// `looks fine -f json`: the short option has a place behind a reason, but inside a command it is the command's own.
fn split_format<'t>(text: &'t str, option: &str) -> (&'t str, Vec<String>) {
    const FORMATS: [&str; 3] = ["text", "json", "yaml"];
    let split = text.rsplit_once(char::is_whitespace);
    let Some((before, format)) = split.filter(|(_, word)| FORMATS.contains(word)) else {
        return (text, Vec::new());
    };
    match before.trim_end().strip_suffix("-f") {
        Some(text) if option != "--command" && text.ends_with(char::is_whitespace) => {
            (text.trim_end(), vec!["-f".to_owned(), format.to_owned()])
        }
        Some(_) | None => (text, Vec::new()),
    }
}

/// The words of the line; the last word of the text at `behind` is an argument of its own.
fn assemble(pieces: &[Piece], behind: Option<usize>) -> Vec<String> {
    let mut words = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Words(more) => words.extend_from_slice(more),
            Piece::Text {
                option,
                text,
                quoted,
            } => {
                let last = text.rsplit_once(char::is_whitespace);
                let last = last.filter(|(before, last)| {
                    // Of several IDs nobody can tell which belong to the text.
                    let several = before
                        .split_whitespace()
                        .next_back()
                        .is_some_and(is_whole_id);
                    !quoted && !several && is_whole_id(last)
                });
                match last.filter(|_| behind == Some(at)) {
                    Some((text, last)) => {
                        words.push(format!("{option}={}", text.trim_end()));
                        words.push(last.to_owned());
                    }
                    None => words.push(format!("{option}={text}")),
                }
            }
        }
    }
    words
}

/// The whole ID of a request, several of them with commas, or a whole resource ID.
fn is_whole_id(word: &str) -> bool {
    word.split(',')
        .all(|id| id.len() == 36 && RequestId::parse(&id.to_ascii_lowercase()).is_ok())
        || (word.starts_with('/') && ResourceId::parse(word).is_ok())
}

/// Where the first word outside quotes starts that is one of [`OPTIONS`], and which.
fn find_option(line: &str) -> Option<(usize, &'static str)> {
    let mut quotes = Quotes::default();
    let mut word_starts = true;
    for (at, c) in line.char_indices() {
        if word_starts {
            let here = line.get(at..).unwrap_or_default();
            let is = |option: &&&'static str| {
                let after = here.strip_prefix(**option);
                after.is_some_and(|after| {
                    let next = after.chars().next();
                    next.is_none_or(|c| c == '=' || c.is_whitespace())
                })
            };
            if let Some(option) = OPTIONS.iter().find(is) {
                return Some((at, option));
            }
        }
        word_starts = quotes.ends_word(c);
    }
    None
}

/// Where a text ends: before a word that starts like an option. Dashes alone are a text's own.
fn next_option(text: &str) -> usize {
    let mut after_blank = true;
    for (at, c) in text.char_indices() {
        let option = text.get(at..).and_then(|word| word.strip_prefix("--"));
        if after_blank
            && option.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
        {
            return at;
        }
        after_blank = c.is_whitespace();
    }
    text.len()
}

/// Where the first word ends as a shell reads it.
fn end_of_word(text: &str) -> usize {
    let mut quotes = Quotes::default();
    for (at, c) in text.char_indices() {
        if quotes.ends_word(c) {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use crate::admin::line::{Channel, CommandLine};

    const ID: &str = "f406f5d8-3c2a-428f-8547-a1d091a4ddab";
    const OTHER: &str = "bc8ca931-fec9-4b15-9a6f-20c13c5641a9";
    const NODE: &str = "/example.com/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f";

    /// The words of a line that has to be a command.
    fn words(line: &str) -> Vec<String> {
        let line = CommandLine::from_exec(line.as_bytes()).unwrap();
        let parsed = line.parse(Channel::Ssh);
        parsed.unwrap_or_else(|error| panic!("{}: {error}", line.to_text()));
        line.words().to_vec()
    }

    fn refusal(line: &str) -> String {
        let line = CommandLine::from_exec(line.as_bytes()).unwrap();
        line.parse(Channel::Ssh)
            .expect_err(&line.to_text())
            .to_string()
    }

    #[test]
    fn a_text_arrives_whole_however_it_was_quoted() {
        for (line, expected) in [
            (
                "login --request-roles dba --request-reason=two words",
                "--request-reason=two words",
            ),
            (
                "login --request-reason two words --request-roles dba",
                "--request-reason=two words",
            ),
            (
                "request create iot --reason today's migration",
                "--reason=today's migration",
            ),
            (
                "request create iot --reason say \"hi\" twice --nowait",
                "--reason=say \"hi\" twice",
            ),
            (
                "request create iot --reason 'two words' --nowait",
                "--reason=two words",
            ),
            (
                r"request create iot --reason two\ words",
                "--reason=two words",
            ),
            (
                r"request create iot --reason C:\temp is full",
                r"--reason=C:\temp is full",
            ),
            (
                "request create iot --reason \"urgent\" means now",
                "--reason=\"urgent\" means now",
            ),
            (
                "request create iot --reason incident #42 -- see there",
                "--reason=incident #42 -- see there",
            ),
            (
                "request create iot --reason looks ok -f json",
                "--reason=looks ok",
            ),
            (
                "request create root@iot --scope command --command uptime -p --nowait",
                "--command=uptime -p",
            ),
            (
                "request create root@iot --scope command --command ls -f json --reason a b",
                "--command=ls -f json",
            ),
            (
                "request create root@iot --scope command --command systemctl restart \"my app\"",
                "--command=systemctl restart \"my app\"",
            ),
            (
                "request create root@iot --scope command --command 'echo \"a\"' --reason x",
                "--command=echo \"a\"",
            ),
            (
                "lock --user alice --message it's over",
                "--message=it's over",
            ),
            (
                "users lock alice --message it's over",
                "--message=it's over",
            ),
            (
                "requests create alice iot --reason on call",
                "--reason=on call",
            ),
        ] {
            let words = words(line);
            assert!(
                words.iter().any(|word| word == expected),
                "{line}: {words:?}"
            );
        }
        assert_eq!(
            words("request create iot --reason a b --scope command --command c d")[3..],
            ["--reason=a b", "--scope", "command", "--command=c d"]
        );
        assert_eq!(
            words("request create iot --reason looks ok -f json")[4..],
            ["-f", "json"]
        );
        // Another option of the same name's start, and the same word inside quotes, are none.
        assert_eq!(words("ls --search 'x --reason'")[2], "x --reason");
        assert_eq!(words("request create iot --reason=")[3], "--reason=");
    }

    #[test]
    fn a_whole_id_behind_a_text_is_the_argument_that_lacks_otherwise() {
        let guide = format!(
            "requests approve --roles=db-support --reason=approved access to db-support, dba is not necessary {ID}"
        );
        let words_of = |line: &str| words(line)[2..].to_vec();
        assert_eq!(
            words_of(&guide),
            [
                "--roles=db-support",
                "--reason=approved access to db-support, dba is not necessary",
                ID
            ]
        );
        let denial = format!("request deny --reason=today's migration has been canceled {ID}");
        assert_eq!(
            words_of(&denial),
            ["--reason=today's migration has been canceled", ID]
        );
        let upper = ID.to_ascii_uppercase();
        let both = format!("requests rm --reason not any more {upper},{OTHER}");
        assert_eq!(words_of(&both)[1], format!("{upper},{OTHER}"));
        let review = format!("request review --reason looks fine {ID} --approve");
        assert_eq!(words_of(&review), ["--reason=looks fine", ID, "--approve"]);
        let create = format!("request create --reason fix the disk {NODE}");
        assert_eq!(words_of(&create), ["--reason=fix the disk", NODE]);
        // Where the argument is there, the ID belongs to the text.
        let same = format!("requests deny {ID} --reason same as {OTHER}");
        assert_eq!(words_of(&same), [ID, &format!("--reason=same as {OTHER}")]);
        let twice = format!("request create iot --reason as in {NODE}");
        assert_eq!(words_of(&twice)[1], format!("--reason=as in {NODE}"));
        // Quotes that arrived say what the text is.
        assert_eq!(
            words_of("request review --approve --reason 'looks fine' ab43"),
            ["--approve", "--reason=looks fine", "ab43"]
        );
    }

    #[test]
    fn no_word_of_a_reason_is_taken_for_the_start_of_an_id() {
        for line in [
            "request review --approve --reason ok ab43fc70",
            "request review --approve --reason this host looks dead",
            "requests deny --reason we are on it, face to face",
            "requests approve --reason \"ok\" beef",
            &format!("requests approve --reason see {OTHER} {ID}"),
            &format!("requests approve --reason see {OTHER},beef"),
            &format!("requests approve --reason {ID}"),
        ] {
            let said = refusal(line);
            assert!(said.contains("lacks `<ID>"), "{line}: {said}");
        }
        let said = refusal("request review --approve --reason looks fine ab43fc70");
        assert!(
            said.ends_with(
                "put the request ID first, or quote twice, as in --reason '\"two words\"'"
            ),
            "{said}"
        );
    }

    #[test]
    fn the_hint_about_lost_quotes_fits_the_command() {
        for (line, hint) in [
            (
                "request create --reason two words",
                "put what you ask for first, or quote twice",
            ),
            (
                "requests create --reason two words alice iot",
                "put the user first, or quote twice",
            ),
            (
                "login --request-reason two --words here",
                "away; quote twice, as in --request-reason",
            ),
            (
                "lock --user alice --message go --away",
                "away; quote twice, as in --message",
            ),
            (
                "request create --reason work",
                "help request create` explains it",
            ),
            (
                "request review ab43 --reason x",
                "help request review` explains it",
            ),
        ] {
            let said = refusal(line);
            assert!(said.contains(hint), "{line}: {said}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in ".{0,60}", rest in r#"[ \\"'`=a.!/f4-]{0,40}"#) {
            for line in [format!("request create {line} --reason {rest}"), format!("login --request-reason={rest}"), line] {
                if let Ok(line) = CommandLine::from_exec(line.as_bytes()) {
                    let _ = line.parse(Channel::Ssh);
                }
            }
        }
    }
}
