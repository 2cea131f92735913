//! The grammar between the braces of a template: small enough to be read by hand, one function
//! for each rule.

use crate::pattern;

use super::{Expression, Replacement, TemplateError};

/// How deep functions may stand in each other: nobody needs more, and it bounds the recursion.
const DEEPEST: usize = 4;

/// Why the text between the braces is no expression.
pub(super) enum Problem {
    /// It is nothing we know; the whole template is shown.
    Unknown,
    /// It is, and this is wrong with it.
    Refused(TemplateError),
}

impl From<TemplateError> for Problem {
    fn from(error: TemplateError) -> Self {
        Self::Refused(error)
    }
}

/// Reads the whole of `text`.
pub(super) fn expression(text: &str) -> Result<Expression, Problem> {
    let mut reader = Reader { rest: text };
    let expression = reader.expression(0)?;
    reader.skip_blanks();
    if reader.rest.is_empty() {
        Ok(expression)
    } else {
        Err(Problem::Unknown)
    }
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn expression(&mut self, depth: usize) -> Result<Expression, Problem> {
        if depth > DEEPEST {
            return Err(TemplateError::TooDeep(DEEPEST).into());
        }
        self.skip_blanks();
        match self.word() {
            "user.metadata.name" => Ok(Expression::UserName),
            "email.local" => {
                self.sign('(')?;
                let of = self.expression(depth + 1)?;
                self.sign(')')?;
                Ok(Expression::EmailLocal(Box::new(of)))
            }
            "regexp.replace" => {
                self.sign('(')?;
                let of = self.expression(depth + 1)?;
                self.sign(',')?;
                let expression = self.text()?;
                self.sign(',')?;
                let with = self.text()?;
                self.sign(')')?;
                let pattern =
                    pattern::compile(&expression, &expression).map_err(TemplateError::Pattern)?;
                pattern::check_references(&with, &pattern, &expression)
                    .map_err(TemplateError::Pattern)?;
                let replacement = Box::new(Replacement { pattern, with });
                Ok(Expression::Replace(Box::new(of), replacement))
            }
            function @ ("regexp.match" | "regexp.not_match") => {
                Err(TemplateError::NotServed(format!("{function}(…)")).into())
            }
            "internal" | "external" => self.quoted_trait(),
            word => {
                let name = word
                    .strip_prefix("internal.")
                    .or_else(|| word.strip_prefix("external."));
                match name {
                    Some(name) if !name.is_empty() && !name.contains('.') => {
                        Ok(Expression::Trait(name.to_owned()))
                    }
                    Some(_) | None => Err(Problem::Unknown),
                }
            }
        }
    }

    /// `["a.b"]`, for names with dots or blanks.
    fn quoted_trait(&mut self) -> Result<Expression, Problem> {
        self.sign('[')?;
        let name = self.text()?;
        self.sign(']')?;
        if name.is_empty() {
            return Err(Problem::Unknown);
        }
        Ok(Expression::Trait(name))
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// The longest run of what names are made of.
    fn word(&mut self) -> &'t str {
        let part = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn sign(&mut self, sign: char) -> Result<(), Problem> {
        self.skip_blanks();
        self.rest = self.rest.strip_prefix(sign).ok_or(Problem::Unknown)?;
        Ok(())
    }

    /// A text in quotes with `\"` and `\\`, or in backquotes, where nothing is an escape.
    fn text(&mut self) -> Result<String, Problem> {
        self.skip_blanks();
        if let Some(raw) = self.rest.strip_prefix('`') {
            let (text, rest) = raw.split_once('`').ok_or(Problem::Unknown)?;
            self.rest = rest;
            return Ok(text.to_owned());
        }
        self.sign('"')?;
        let mut text = String::new();
        let mut chars = self.rest.chars();
        loop {
            match chars.next().ok_or(Problem::Unknown)? {
                '"' => break,
                '\\' => match chars.next().ok_or(Problem::Unknown)? {
                    escaped @ ('"' | '\\') => text.push(escaped),
                    other => return Err(TemplateError::Escape(other).into()),
                },
                plain => text.push(plain),
            }
        }
        self.rest = chars.as_str();
        Ok(text)
    }
}
