//! The three ways in which a document names many things at once: a literal, a `*` glob, or a
//! regular expression from `^` to `$`. Compiled when the document is read, so that a decision
//! never compiles anything; always applied to the whole value.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// A literal, a `*` glob or an anchored regular expression, compiled.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    matcher: Matcher,
}

#[derive(Debug, Clone)]
enum Matcher {
    Anything,
    Literal,
    /// What stands between the stars: the first part is a prefix, the last a suffix.
    Glob(Vec<String>),
    /// A regular expression that is no more than a list of words, as most in roles are.
    OneOf(Vec<String>),
    Regex(Regex),
}

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// The regular expression does not parse, or is larger than the limit when compiled.
    #[error("`{pattern}` is not a valid regular expression: {problem}")]
    Regex {
        /// As it was written.
        pattern: String,
        /// The first line of what the compiler says.
        problem: String,
    },
    /// A replacement names a group that the expression has not.
    #[error(
        "`{reference}` names a group that `{pattern}` has not; number its groups from 1, or write `$$` for a dollar sign"
    )]
    NoGroup {
        /// `$2`, as it was written.
        reference: String,
        /// The expression.
        pattern: String,
    },
}

/// The largest compiled expression in bytes. Expressions are linear in time whatever they are;
/// this bounds the memory of a role written to exhaust it. 64 KiB hold some thousand characters.
const REGEX_SIZE_LIMIT: usize = 64 * 1024;

impl Pattern {
    /// Compiles `text`. `^…$` is a regular expression; anything else with a `*` is a glob.
    ///
    /// # Errors
    /// [`PatternError`] if the regular expression is not one.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let expression = text
            .strip_prefix('^')
            .and_then(|rest| rest.strip_suffix('$'));
        let matcher = match expression {
            Some(inner) => match words(inner) {
                Some(words) => Matcher::OneOf(words),
                None => Matcher::Regex(whole(text, inner)?),
            },
            None if text == "*" => Matcher::Anything,
            None if text.contains('*') => {
                Matcher::Glob(text.split('*').map(str::to_owned).collect())
            }
            None => Matcher::Literal,
        };
        Ok(Self {
            text: text.to_owned(),
            matcher,
        })
    }

    /// `*`.
    #[must_use]
    pub fn anything() -> Self {
        Self {
            text: "*".to_owned(),
            matcher: Matcher::Anything,
        }
    }

    /// `text` itself, whatever is in it.
    #[must_use]
    pub fn literal_of(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            matcher: Matcher::Literal,
        }
    }

    /// Whether every text that `narrower` matches is matched by this. Sound, not complete: of two
    /// different regular expressions neither is ever said to contain the other.
    #[must_use]
    pub fn contains(&self, narrower: &Self) -> bool {
        if self.text == narrower.text {
            return true;
        }
        match (&self.matcher, &narrower.matcher) {
            (Matcher::Anything, _) => true,
            (_, Matcher::Literal) => self.matches(&narrower.text),
            (_, Matcher::OneOf(words)) => words.iter().all(|word| self.matches(word)),
            // No part of a glob holds a star, so a star of the other is taken up by one of ours,
            // and whatever it stands for is as well.
            (Matcher::Glob(parts), Matcher::Glob(_)) => glob_matches(parts, &narrower.text),
            (
                Matcher::Literal | Matcher::OneOf(_) | Matcher::Glob(_) | Matcher::Regex(_),
                Matcher::Anything | Matcher::Glob(_) | Matcher::Regex(_),
            ) => false,
        }
    }

    /// Whether some text might be matched by both. Says yes where it can't be excluded.
    #[must_use]
    pub fn might_share(&self, other: &Self) -> bool {
        let words = |pattern: &Self, other: &Self| match &pattern.matcher {
            Matcher::Literal => Some(other.matches(&pattern.text)),
            Matcher::OneOf(words) => Some(words.iter().any(|word| other.matches(word))),
            Matcher::Anything | Matcher::Glob(_) | Matcher::Regex(_) => None,
        };
        words(self, other)
            .or_else(|| words(other, self))
            .unwrap_or(true)
    }

    /// Whether the whole of `value` matches.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match &self.matcher {
            Matcher::Anything => true,
            Matcher::Literal => same(&self.text, value),
            Matcher::Glob(parts) => glob_matches(parts, value),
            Matcher::OneOf(words) => words.iter().any(|word| same(word, value)),
            Matcher::Regex(regex) => regex.is_match(value),
        }
    }

    /// Whether this is `*`, which matches anything.
    #[must_use]
    pub fn is_anything(&self) -> bool {
        matches!(self.matcher, Matcher::Anything)
    }

    /// The literal, if this is one.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match self.matcher {
            Matcher::Literal => Some(&self.text),
            Matcher::Anything | Matcher::Glob(_) | Matcher::OneOf(_) | Matcher::Regex(_) => None,
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Whether two short texts are equal. Most comparisons of a decision are between words of a few
/// bytes that differ early; the call to `memcmp` behind `==` took half of its time (measured with
/// 100 roles).
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| a == b)
}

/// Matches part after part from the left, each at its first place: for globs the first place is
/// as good as any later one. Linear in the value for each part.
fn glob_matches(parts: &[String], value: &str) -> bool {
    let [first, middle @ .., last] = parts else {
        return false;
    };
    let Some(mut rest) = value.strip_prefix(first.as_str()) else {
        return false;
    };
    for part in middle {
        let Some((_, after)) = rest.split_once(part.as_str()) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last.as_str())
}

/// The alternatives of an expression that has nothing but words and `|`, perhaps in one pair of
/// parentheses: `prod|staging`, `(prod|staging)`.
fn words(expression: &str) -> Option<Vec<String>> {
    let group = expression
        .strip_prefix("(?:")
        .or_else(|| expression.strip_prefix('('));
    let inner = match group {
        Some(rest) => rest.strip_suffix(')')?,
        None => expression,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-|".contains(c);
    inner
        .chars()
        .all(plain)
        .then(|| inner.split('|').map(str::to_owned).collect())
}

/// Compiles `inner` to match whole values only. The group makes `^test|staging$` mean
/// `^(?:test|staging)$`, never "starts with test, or ends with staging".
fn whole(text: &str, inner: &str) -> Result<Regex, PatternError> {
    // Parsed alone first, so that no bracket inside can close the group around it.
    compile(text, inner)?;
    compile(text, &format!("^(?:{inner})$"))
}

/// Compiles a literal, glob or `^…$` so that its groups can be read; a star of a glob is a group.
pub(crate) fn with_groups(text: &str) -> Result<Regex, PatternError> {
    let expression = text
        .strip_prefix('^')
        .and_then(|rest| rest.strip_suffix('$'));
    match expression {
        Some(inner) => whole(text, inner),
        None => whole(text, &regex::escape(text).replace(r"\*", "((?s:.*))")),
    }
}

/// What `$1`, `$name` and `${name}` of a replacement name, in the regex crate's spelling and Go's.
/// `$$` is a dollar sign, and so is one before anything else.
pub(crate) fn references(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('$') {
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('{')
            .and_then(|braced| braced.split_once('}'))
        {
            found.push(name);
            rest = after;
        } else {
            let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            if !name.is_empty() {
                found.push(name);
            }
            rest = after;
        }
    }
    found
}

/// Checks that every group that `replacement` names is in `regex`, which was written as `text`:
/// one that is not would stand for nothing, without a word.
pub(crate) fn check_references(
    replacement: &str,
    regex: &Regex,
    text: &str,
) -> Result<(), PatternError> {
    for name in references(replacement) {
        let known = match name.parse::<usize>() {
            Ok(number) => number < regex.captures_len(),
            Err(_) => regex.capture_names().flatten().any(|known| known == name),
        };
        if !known {
            return Err(PatternError::NoGroup {
                reference: format!("${}", crate::id::printable(name)),
                pattern: crate::id::printable(text),
            });
        }
    }
    Ok(())
}

/// Compiles `expression` within the limits; an error shows `text`.
pub(crate) fn compile(text: &str, expression: &str) -> Result<Regex, PatternError> {
    RegexBuilder::new(expression)
        .size_limit(REGEX_SIZE_LIMIT)
        .build()
        .map_err(|error| {
            let problem = if let regex::Error::CompiledTooBig(limit) = error {
                format!("it needs more than {limit} bytes; write a shorter one")
            } else {
                // The compiler draws the place over several lines; the last one says what is wrong.
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.trim().trim_start_matches("error: ").to_owned()
            };
            PatternError::Regex {
                pattern: crate::id::printable(text),
                problem,
            }
        })
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}
