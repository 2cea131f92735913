//! Words, texts and signs of an expression, each with its place.

use winnow::combinator::{alt, dispatch, fail, peek};
use winnow::error::EmptyError;
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{any, one_of, take_till, take_while};

use super::error::{PredicateError, Problem};

/// One token and the byte where it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Word(String),
    Text(String),
    Sign(Sign),
}

/// Everything that is no word and no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Equal,
    Differ,
    And,
    Or,
    Not,
    Open,
    Close,
    OpenIndex,
    CloseIndex,
    Dot,
    Comma,
}

impl Sign {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Differ => "!=",
            Self::And => "&&",
            Self::Or => "||",
            Self::Not => "!",
            Self::Open => "(",
            Self::Close => ")",
            Self::OpenIndex => "[",
            Self::CloseIndex => "]",
            Self::Dot => ".",
            Self::Comma => ",",
        }
    }
}

type Input<'t> = LocatingSlice<&'t str>;
type Lexed<T> = Result<T, EmptyError>;

/// The tokens of `text`.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, PredicateError> {
    let mut input = LocatingSlice::new(text);
    let mut tokens = Vec::new();
    loop {
        blank(&mut input).ok();
        let at = input.current_token_start();
        let Ok(first) = peek_char(&mut input) else {
            return Ok(tokens);
        };
        let kind = match first {
            '"' | '\'' | '`' => Kind::Text(quoted(text, &mut input)?),
            c if c == '_' || c.is_ascii_alphabetic() => {
                Kind::Word(word(&mut input).unwrap_or_default().to_owned())
            }
            c => match sign(&mut input) {
                Ok(sign) => Kind::Sign(sign),
                Err(EmptyError) => return Err(PredicateError::new(text, at, misplaced(c))),
            },
        };
        tokens.push(Token { at, kind });
    }
}

fn blank(input: &mut Input<'_>) -> Lexed<()> {
    take_while(0.., char::is_whitespace)
        .void()
        .parse_next(input)
}

fn peek_char(input: &mut Input<'_>) -> Lexed<char> {
    peek(any).parse_next(input)
}

fn word<'t>(input: &mut Input<'t>) -> Lexed<&'t str> {
    take_while(1.., |c: char| c == '_' || c.is_ascii_alphanumeric()).parse_next(input)
}

fn sign(input: &mut Input<'_>) -> Lexed<Sign> {
    alt((
        "==".value(Sign::Equal),
        "!=".value(Sign::Differ),
        "&&".value(Sign::And),
        "||".value(Sign::Or),
        dispatch! { any;
            '!' => winnow::combinator::empty.value(Sign::Not),
            '(' => winnow::combinator::empty.value(Sign::Open),
            ')' => winnow::combinator::empty.value(Sign::Close),
            '[' => winnow::combinator::empty.value(Sign::OpenIndex),
            ']' => winnow::combinator::empty.value(Sign::CloseIndex),
            '.' => winnow::combinator::empty.value(Sign::Dot),
            ',' => winnow::combinator::empty.value(Sign::Comma),
            _ => fail,
        },
    ))
    .parse_next(input)
}

/// What people mean by characters that start nothing.
fn misplaced(c: char) -> Problem {
    let hint = match c {
        '=' => "; equality is `==`",
        '&' => "; and is `&&`",
        '|' => "; or is `||`",
        '-' => "; write a label with a dash in brackets, as in `labels[\"my-label\"]`",
        '<' | '>' | '+' | '*' | '/' | '%' => "; the operators are `==`, `!=`, `&&`, `||` and `!`",
        '0'..='9' => "; values are texts in quotes, as in `\"1\"`",
        '\u{201c}' | '\u{201d}' | '\u{2018}' | '\u{2019}' => "; write plain quotes, `\"` or `'`",
        _ => "",
    };
    Problem::Character {
        found: crate::id::printable(&c.to_string()),
        hint,
    }
}

/// A text in `"` or `'`, with escapes, or in backticks, where a backslash is itself.
fn quoted(text: &str, input: &mut Input<'_>) -> Result<String, PredicateError> {
    let start = input.current_token_start();
    let unclosed = |quote| PredicateError::new(text, start, Problem::Unclosed(quote));
    let quote: char = one_of::<_, _, EmptyError>(['"', '\'', '`'])
        .parse_next(input)
        .map_err(|_| unclosed('"'))?;
    let mut out = String::new();
    loop {
        let plain: Lexed<&str> =
            take_till(0.., |c: char| c == quote || (c == '\\' && quote != '`')).parse_next(input);
        out.push_str(plain.unwrap_or_default());
        let at = input.current_token_start();
        let next: Lexed<char> = any.parse_next(input);
        match next {
            Err(EmptyError) => return Err(unclosed(quote)),
            Ok('\\') => out.push(escape(input).map_err(|wrong| {
                wrong.map_or_else(
                    || unclosed(quote),
                    |wrong| PredicateError::new(text, at, Problem::Escape(wrong)),
                )
            })?),
            Ok(_) => return Ok(out),
        }
    }
}

/// What a backslash and what follows stand for, as in Go. The error is what followed, or nothing
/// at the end of the input.
fn escape(input: &mut Input<'_>) -> Result<char, Option<String>> {
    let next: Lexed<char> = any.parse_next(input);
    let next = next.map_err(|_| None)?;
    let digits = match next {
        '\\' | '"' | '\'' | '`' => return Ok(next),
        'n' => return Ok('\n'),
        't' => return Ok('\t'),
        'r' => return Ok('\r'),
        'x' => 2_usize,
        'u' => 4,
        other => return Err(Some(crate::id::printable(&other.to_string()))),
    };
    let hex: Lexed<&str> =
        take_while(digits..=digits, |c: char| c.is_ascii_hexdigit()).parse_next(input);
    let value = hex.ok().and_then(|hex| u32::from_str_radix(hex, 16).ok());
    value
        .and_then(char::from_u32)
        .ok_or_else(|| Some(next.to_string()))
}
