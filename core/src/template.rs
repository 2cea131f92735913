//! Templates: texts of a role in which the user's traits stand, as Teleport writes them.
//!
//! `PREFIX{{EXPRESSION}}SUFFIX`, where the expression is a trait (`internal.NAME`,
//! `external["a.b"]`), the user's name, or one of Teleport's two functions over such a thing:
//! `email.local(…)` and `regexp.replace(…, "pattern", "replacement")`. A template stands for a
//! list of texts, one for each value of the trait; a value to which a function does not apply is
//! dropped, and what expands to nothing grants nothing.

mod parse;

use std::borrow::Cow;

use regex::Regex;

use crate::pattern::{PatternError, same};
use crate::user::User;

/// A text that a trait of the user may stand in: `PREFIX{{external.NAME}}SUFFIX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    prefix: String,
    suffix: String,
    source: Source,
}

/// Where a template's values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// No braces: the text itself.
    Literal,
    /// What stands in the braces.
    Values(Expression),
}

/// What stands between the braces.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    /// `internal.NAME` or `external.NAME`: the values of a trait.
    Trait(String),
    /// `user.metadata.name`: the user's name.
    UserName,
    /// `email.local(…)`: what stands before the `@` of an e-mail address.
    EmailLocal(Box<Self>),
    /// `regexp.replace(…, "pattern", "replacement")`.
    Replace(Box<Self>, Box<Replacement>),
}

/// The two texts of `regexp.replace`, compiled and checked.
#[derive(Debug, Clone)]
struct Replacement {
    pattern: Regex,
    with: String,
}

impl PartialEq for Replacement {
    fn eq(&self, other: &Self) -> bool {
        self.pattern.as_str() == other.pattern.as_str() && self.with == other.with
    }
}

impl Eq for Replacement {}

/// Why a template or label value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A function of Teleport's that has no meaning in a template here.
    #[error("`{0}` is a Teleport field that Anteroom does not serve yet")]
    NotServed(String),
    /// The braces do not hold what we know.
    #[error(
        "`{0}` is not a template; write {{{{internal.logins}}}}, {{{{external.TRAIT}}}}, \
         {{{{external[\"TRAIT\"]}}}}, {{{{user.metadata.name}}}}, {{{{email.local(external.TRAIT)}}}} or \
         {{{{regexp.replace(external.TRAIT, \"PATTERN\", \"REPLACEMENT\")}}}}, with plain text before and after"
    )]
    Malformed(String),
    /// A backslash before something that needs none.
    #[error(
        "`\\{0}` is no escape in a template's text; write `\\\\` for a backslash and `\\\"` for a quote"
    )]
    Escape(char),
    /// Functions in functions, deeper than the limit.
    #[error("the functions of the template stand in each other more than {0} deep; write fewer")]
    TooDeep(usize),
    /// A template in a place where none is read.
    #[error("`{0}` has braces, and no template is read here; write plain text")]
    NotHere(String),
    /// A regular expression does not compile, or a replacement names a group that is not in it.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// The longest text, in bytes, that one value expands to: a replacement can multiply what it is
/// given, and nothing that a role names is longer. A longer one is dropped like any other value
/// that does not fit.
const LONGEST_VALUE: usize = 4096;

impl Template {
    /// Reads a text with at most one pair of braces.
    ///
    /// # Errors
    /// [`TemplateError`] if the braces hold something else than an expression.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let malformed = || TemplateError::Malformed(crate::id::printable(text));
        let Some((prefix, rest)) = text.split_once("{{") else {
            if text.contains("}}") {
                return Err(malformed());
            }
            return Ok(Self {
                text: text.to_owned(),
                prefix: text.to_owned(),
                suffix: String::new(),
                source: Source::Literal,
            });
        };
        // The last pair closes: a pattern inside may have braces of its own, text outside has none.
        let (inner, suffix) = rest.rsplit_once("}}").ok_or_else(malformed)?;
        let stray = |text: &str| text.contains(['{', '}']);
        if stray(prefix) || stray(suffix) {
            return Err(malformed());
        }
        let expression = parse::expression(inner).map_err(|problem| match problem {
            parse::Problem::Unknown => malformed(),
            parse::Problem::Refused(error) => error,
        })?;
        Ok(Self {
            text: text.to_owned(),
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
            source: Source::Values(expression),
        })
    }

    /// Whether `wanted` is one of the texts this expands to for `user`. Allocates nothing where
    /// no function is used: this is on the path of every decision.
    #[must_use]
    pub fn expands_to(&self, user: &User, wanted: &str) -> bool {
        let expression = match &self.source {
            Source::Literal => return same(&self.text, wanted),
            Source::Values(expression) => expression,
        };
        let Some(value) = self.inside(wanted) else {
            return false;
        };
        match expression {
            Expression::Trait(name) => user.trait_values(name).any(|v| same(v, value)),
            Expression::UserName => same(user.name.as_str(), value),
            Expression::EmailLocal(_) | Expression::Replace(..) => {
                expression.values(user).iter().any(|v| same(v, value))
            }
        }
    }

    /// What of `text` stands between prefix and suffix. Nothing, if nothing is left: what expands
    /// to nothing grants nothing.
    fn inside<'t>(&self, text: &'t str) -> Option<&'t str> {
        let inside = if self.prefix.is_empty() && self.suffix.is_empty() {
            text
        } else {
            text.strip_prefix(self.prefix.as_str())?
                .strip_suffix(self.suffix.as_str())?
        };
        Some(inside).filter(|inside| !inside.is_empty())
    }

    /// The texts this expands to for `user`; empty values expand to nothing.
    #[must_use]
    pub fn expand(&self, user: &User) -> Vec<String> {
        let mut texts = Vec::new();
        self.expand_into(user, &mut texts);
        texts.into_iter().map(Cow::into_owned).collect()
    }

    /// Appends the texts this expands to, borrowed where there is no prefix or suffix.
    pub(crate) fn expand_into<'a>(&'a self, user: &'a User, texts: &mut Vec<Cow<'a, str>>) {
        let expression = match &self.source {
            Source::Literal => return texts.push(Cow::Borrowed(&self.text)),
            Source::Values(expression) => expression,
        };
        let whole = self.prefix.is_empty() && self.suffix.is_empty();
        let expanded = |value: Cow<'a, str>| {
            if whole {
                value
            } else {
                Cow::Owned(format!("{}{value}{}", self.prefix, self.suffix))
            }
        };
        texts.extend(expression.values(user).into_iter().map(expanded));
    }

    /// Whether there are no braces in it.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.source == Source::Literal
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Expression {
    /// The values for `user`, none of them empty.
    fn values<'a>(&'a self, user: &'a User) -> Vec<Cow<'a, str>> {
        let mut values: Vec<Cow<'a, str>> = match self {
            Self::Trait(name) => user.trait_values(name).map(Cow::Borrowed).collect(),
            Self::UserName => vec![Cow::Borrowed(user.name.as_str())],
            Self::EmailLocal(of) => of.values(user).into_iter().filter_map(local).collect(),
            Self::Replace(of, replacement) => {
                let values = of.values(user).into_iter();
                values
                    .filter_map(|value| replacement.apply(&value))
                    .collect()
            }
        };
        values.retain(|value| !value.is_empty() && value.len() <= LONGEST_VALUE);
        values
    }
}

impl Replacement {
    /// `value` with every match replaced; `None` if the pattern matches nowhere: Teleport drops
    /// such values, and so they grant nothing.
    fn apply<'a>(&self, value: &str) -> Option<Cow<'a, str>> {
        if !self.pattern.is_match(value) {
            return None;
        }
        let replaced = self.pattern.replace_all(value, self.with.as_str());
        Some(Cow::Owned(replaced.into_owned()))
    }
}

/// What stands before the `@` of an address as mail programs write it, `alice@example.com` or
/// `Alice <alice@example.com>`; `None` if it is no such address. A quoted local part
/// (`"a b"@example.com`, RFC 5322 section 3.4.1) is none here: nothing that it could stand for in
/// a role has blanks or quotes.
pub(crate) fn local(value: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let address = match value.trim().strip_suffix('>') {
        Some(named) => named.rsplit_once('<')?.1,
        None => value.trim(),
    };
    let (local, domain) = address.split_once('@')?;
    let atom = |c: char| c.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~-.".contains(c);
    let dots = local.starts_with('.') || local.ends_with('.') || local.contains("..");
    let domain_char = |c: char| c.is_alphanumeric() || "-._[]:".contains(c);
    let valid = !local.is_empty()
        && local.chars().all(atom)
        && !dots
        && !domain.is_empty()
        && domain.chars().all(domain_char);
    valid.then(|| Cow::Owned(local.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(values: &[&str]) -> User {
        let mut user = User::new("alice@example.com".parse().unwrap());
        let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        user.traits.insert("x".to_owned(), values.clone());
        user.traits.insert("a.b c".to_owned(), values);
        user
    }

    fn expand(text: &str, values: &[&str]) -> Vec<String> {
        let template = Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let user = user(values);
        let out = template.expand(&user);
        for value in &out {
            assert!(template.expands_to(&user, value), "{text} {value}");
        }
        out
    }

    #[test]
    fn email_local_gives_what_stands_before_the_at_and_drops_what_is_no_address() {
        let values = [
            "bob@example.com",
            "Al <al@x.org>",
            "nobody",
            "@x",
            "a@",
            "a b@x",
            "a@b@c",
            "",
        ];
        assert_eq!(
            expand("{{email.local(external.x)}}", &values),
            ["bob", "al"]
        );
        assert_eq!(
            expand("u-{{email.local(user.metadata.name)}}-x", &[]),
            ["u-alice-x"]
        );
    }

    #[test]
    fn regexp_replace_drops_the_values_that_do_not_match() {
        let values = ["dev-alice", "ops", "dev-"];
        let text = r#"{{regexp.replace(external.x, "^dev-(.*)$", "$1")}}"#;
        assert_eq!(expand(text, &values), ["alice"]);
        // Not anchored unless it says so, as in Teleport; every match is replaced.
        let text = r#"{{regexp.replace(external.x, "-", "_")}}"#;
        assert_eq!(expand(text, &values), ["dev_alice", "dev_"]);
        let text = r#"{{regexp.replace(external.x, "^(?P<t>[a-z]+)-([a-z]{2}).*$", "${2}_$t")}}"#;
        assert_eq!(expand(text, &values), ["al_dev"]);
    }

    #[test]
    fn functions_stand_in_functions() {
        let text = r#"x-{{ regexp.replace( email.local(external["a.b c"]), `^(.)\w*$`, "$1") }}"#;
        assert_eq!(expand(text, &["bob@example.com", "eve"]), ["x-b"]);
    }

    #[test]
    fn a_pattern_may_have_braces_of_its_own() {
        let text = r#"{{regexp.replace(internal.x, "^(a{2}).*}}$", "$1")}}"#;
        assert_eq!(expand(text, &["aab}}", "ab}}"]), ["aa"]);
        let text = r#"{{regexp.replace(internal["x"], "^\\w+\"q$", "y")}}"#;
        assert_eq!(expand(text, &["ab\"q"]), ["y"]);
    }

    #[test]
    fn what_multiplies_without_end_is_dropped() {
        let long = "a".repeat(LONGEST_VALUE / 2 + 1);
        let text = r#"{{regexp.replace(external.x, "^.*$", "$0$0")}}"#;
        assert_eq!(expand(text, &[&long, "b"]), ["bb"]);
    }

    #[test]
    fn whatever_is_no_expression_is_refused_with_what_to_write() {
        let refused = |text: &str| Template::parse(text).unwrap_err().to_string();
        for text in [
            "{{}}",
            "{{x}}",
            "{{external}}",
            "{{external.}}",
            "{{external.a.b}}",
            "{{external[x]}}",
            "{{external[\"\"]}}",
            "{{email.local()}}",
            "{{email.local(external.x}}",
            "{{email.local(\"a@b\")}}",
            "{{email.local(external.x, external.y)}}",
            "{{regexp.replace(external.x, \"a\")}}",
            "{{regexp.replace(external.x, a, b)}}",
            "{{external.x}}{{external.y}}",
            "{a}{{external.x}}",
            "}}",
            "a{{",
            "{{external.x }x}}",
            "{{strings.upper(external.x)}}",
            "{{regexp.replace(external.x, \"a, \"b\")}}",
        ] {
            let said = refused(text);
            assert!(
                said.contains("is not a template; write {{internal.logins}}"),
                "{text}: {said}"
            );
        }
        let said = refused("{{regexp.replace(external.x, \"(\", \"\")}}");
        assert_eq!(
            said,
            "`(` is not a valid regular expression: unclosed group"
        );
        let said = refused("{{regexp.replace(external.x, \"(a)\", \"$2\")}}");
        assert_eq!(
            said,
            "`$2` names a group that `(a)` has not; number its groups from 1, or write `$$` for a dollar sign"
        );
        let said = refused("{{regexp.replace(external.x, \"\\.\", \"\")}}");
        assert!(
            said.starts_with("`\\.` is no escape in a template's text"),
            "{said}"
        );
        let said = refused("{{regexp.match(\"a\")}}");
        assert_eq!(
            said,
            "`regexp.match(…)` is a Teleport field that Anteroom does not serve yet"
        );
        let deep = "email.local(".repeat(9) + "external.x" + &")".repeat(9);
        assert!(refused(&format!("{{{{{deep}}}}}")).contains("more than 4 deep"));
        let huge = refused("{{regexp.replace(external.x, \"(a{1000}){1000}\", \"\")}}");
        assert!(huge.contains("needs more than"), "{huge}");
    }
}
