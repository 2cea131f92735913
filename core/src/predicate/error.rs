//! What is wrong with an expression, where, and what to write instead.

use std::fmt;

use crate::pattern::PatternError;

use super::{DEPTH_LIMIT, TEXT_LIMIT};

/// Why an expression was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredicateError {
    line: usize,
    column: usize,
    /// The line of the expression, for [`Self::excerpt`].
    source: String,
    problem: Problem,
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Nothing there.
    #[error("the expression is empty; write a condition like `labels[\"env\"] == \"prod\"`")]
    Empty,
    /// More text than the limit.
    #[error("the expression is {0} bytes long; the limit is {TEXT_LIMIT}")]
    TooLong(usize),
    /// Nested beyond the limit.
    #[error("the expression is nested more than {DEPTH_LIMIT} deep")]
    TooDeep,
    /// A character that starts nothing.
    #[error("`{found}` has no place here{hint}")]
    Character {
        /// The character.
        found: String,
        /// What to write instead, from `; ` on; may be empty.
        hint: &'static str,
    },
    /// A text without its end.
    #[error("the text that starts here has no closing {0}")]
    Unclosed(char),
    /// A backslash before a character that means nothing then.
    #[error(
        "`\\{0}` is no escape; write `\\\\{0}`, or put the text in backticks, where `\\` is itself"
    )]
    Escape(String),
    /// Something else was due.
    #[error("expected {wanted}, found {found}")]
    Expected {
        /// What was due.
        wanted: &'static str,
        /// What is there.
        found: String,
    },
    /// A name that does not exist in this place.
    #[error("`{name}` is not a name in {context}; {hint}")]
    Name {
        /// The name.
        name: String,
        /// What is written.
        context: &'static str,
        /// The nearest name, or all of them.
        hint: String,
    },
    /// A name that nothing has which the rule is about.
    #[error("`{name}` is not a name of {of}; it is one of {known}")]
    OtherKind {
        /// The name.
        name: &'static str,
        /// What the rule is about.
        of: String,
        /// What has it.
        known: String,
    },
    /// A function nobody knows.
    #[error("`{name}` is not a function; {hint}")]
    Function {
        /// The function.
        name: String,
        /// The nearest one, or all of them.
        hint: String,
    },
    /// A function or name of Teleport's.
    #[error("`{0}` is in Teleport's predicate language and Anteroom does not serve it{1}")]
    NotServed(String, &'static str),
    /// A function that needs something which this context hasn't.
    #[error("`{function}` needs {needs}, which {context} does not have")]
    NotHere {
        /// The function.
        function: &'static str,
        /// What it needs.
        needs: &'static str,
        /// What is written.
        context: &'static str,
    },
    /// Too few or too many arguments.
    #[error("`{signature}` takes {takes}, not {given}")]
    Arguments {
        /// How it is called.
        signature: &'static str,
        /// How many it takes, in words.
        takes: &'static str,
        /// How many there are.
        given: usize,
    },
    /// A value of another type.
    #[error("expected {wanted}, but this is {found}{hint}")]
    Type {
        /// What is due.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
        /// What to write instead, from `; ` on; may be empty.
        hint: String,
    },
    /// A comparison of two things that are not alike.
    #[error("{left} can't be compared with {right}; {hint}")]
    Compare {
        /// The left side.
        left: &'static str,
        /// The right side.
        right: &'static str,
        /// What to write instead.
        hint: &'static str,
    },
    /// A pattern that is computed.
    #[error("the {0} has to be a text in quotes, because it is compiled when it is saved")]
    NotLiteral(&'static str),
    /// A broken regular expression.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Half a regular expression.
    #[error(
        "`{pattern}` looks like a regular expression, which goes from `^` to `$`; write `^{inner}$`, or `*` for anything in a plain text"
    )]
    HalfRegex {
        /// As it was written.
        pattern: String,
        /// The same without anchors.
        inner: String,
    },
    /// A replacement that is too long.
    #[error("the replacement is {0} bytes long; the limit is {1}")]
    Replacement(usize, usize),
    /// A word that is no time of day.
    #[error("`{0}` is not a time of day; write HH:MM, as in \"09:30\"")]
    Clock(String),
}

impl PredicateError {
    /// `problem` at byte `offset` of `text`.
    pub(super) fn new(text: &str, offset: usize, problem: Problem) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = text.get(start..).unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(start..).unwrap_or_default().chars().count() + 1,
            source: rest.lines().next().unwrap_or_default().to_owned(),
            problem,
        }
    }

    /// The line of the expression, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// The character in that line, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Two lines: the expression from a little before the place on, and a caret under the place.
    /// Control characters are shown as blanks.
    #[must_use]
    pub fn excerpt(&self) -> String {
        const BEFORE: usize = 30;
        const AFTER: usize = 40;
        let at = self.column.saturating_sub(1);
        let from = at.saturating_sub(BEFORE);
        let plain = |c: char| if crate::id::is_plain(c) { c } else { ' ' };
        let chars = self.source.chars().skip(from).take(at - from + AFTER);
        let line: String = chars.map(plain).collect();
        format!("{line}\n{}^", " ".repeat(at - from))
    }
}

impl fmt::Display for PredicateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 1 {
            write!(f, "line {}, ", self.line)?;
        }
        write!(f, "column {}: {}", self.column, self.problem)
    }
}

impl std::error::Error for PredicateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.problem)
    }
}

/// `did you mean X`, or the whole list where nothing is near; `maps` are the words behind which a
/// key may stand.
pub(super) fn suggestion<'w>(
    wrong: &str,
    words: impl Iterator<Item = &'w str> + Clone,
    maps: impl Iterator<Item = &'w str>,
) -> String {
    if let Some(word) = nearest(wrong, words.clone()) {
        return format!("did you mean `{word}`?");
    }
    // `lables.env`: a map and its key.
    if let Some((map, key)) = wrong.rsplit_once('.')
        && let Some(word) = nearest(map, maps)
    {
        return format!("did you mean `{word}.{}`?", crate::id::printable(key));
    }
    let all: Vec<&str> = words.collect();
    format!("there are {}", all.join(", "))
}

/// The word that is a typing error away.
pub(super) fn nearest<'w>(wrong: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    words
        .map(|word| (distance(wrong, word), word))
        .filter(|(distance, word)| *distance <= 1 + word.len().min(wrong.len()) / 4)
        .min()
        .map(|(_, word)| word)
}

/// The number of single-character changes from `a` to `b`; a long `a` is far from everything.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.chars().zip(row.iter_mut().skip(1)) {
            let cost = diagonal + usize::from(!x.eq_ignore_ascii_case(&y));
            diagonal = *cell;
            *cell = cost.min(left + 1).min(*cell + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}
