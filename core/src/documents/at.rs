//! Values at their places in a document: each question takes a value as what it has to be, and a mistake
//! names the field and the line.

use crate::id::IdError;
use crate::predicate::{Context, Predicate};
use crate::selector::TemplateError;
use crate::typing;

use super::tree::{Name, Value, Yaml, as_flag};
use super::{DocumentProblem, Mistake, nothing};

/// The fields of one kind of map.
pub(super) struct Fields {
    /// Those we read.
    pub(super) served: &'static [&'static str],
    /// Those that Teleport reads and we do not yet.
    pub(super) teleport: &'static [&'static str],
    /// Those of our own that nothing serves yet.
    pub(super) later: &'static [&'static str],
    /// Those that `allow` has and `deny` has not; empty where there is no such difference.
    pub(super) only_allow: &'static [&'static str],
}

/// A value at a path.
#[derive(Clone)]
pub(super) struct At<'a> {
    path: String,
    yaml: &'a Yaml,
}

impl<'a> At<'a> {
    /// The whole document.
    pub(super) fn top(yaml: &'a Yaml) -> Self {
        Self {
            path: String::new(),
            yaml,
        }
    }

    /// The path, as in `spec.allow.logins`.
    pub(super) fn path(&self) -> String {
        self.path.clone()
    }

    /// `problem`, here.
    pub(super) fn mistake(&self, problem: DocumentProblem) -> Mistake {
        self.yaml.mistake(problem)
    }

    fn wrong_type(&self, wanted: &'static str) -> Mistake {
        let (field, found) = (self.path(), self.yaml.type_name());
        let field = if field.is_empty() {
            "the document".to_owned()
        } else {
            field
        };
        self.mistake(DocumentProblem::Type {
            field,
            found,
            wanted,
        })
    }

    /// A map with only these fields.
    pub(super) fn map(&self, fields: &Fields) -> Result<Map<'a>, Mistake> {
        for (name, value) in self.names()? {
            let key = name.text.as_str();
            if fields.served.contains(&key) {
                continue;
            }
            let field = join(&self.path, &crate::id::printable(key));
            let foreign = fields.teleport.contains(&key) || fields.later.contains(&key);
            let quiet = nothing::values(&field);
            if foreign && (value.is_empty() || quiet.iter().any(|plain| plain.is(value))) {
                continue;
            }
            let problem = if fields.only_allow.contains(&key) {
                DocumentProblem::OnlyAllow { field }
            } else if fields.teleport.contains(&key) && !quiet.is_empty() {
                let quiet: Vec<String> = quiet.iter().map(ToString::to_string).collect();
                let quiet: Vec<&str> = quiet.iter().map(String::as_str).collect();
                DocumentProblem::AsksFor {
                    field,
                    accepted: alternatives(&quiet),
                }
            } else if fields.teleport.contains(&key) {
                DocumentProblem::NotServed { field }
            } else if fields.later.contains(&key) {
                DocumentProblem::NotYet { field }
            } else {
                DocumentProblem::UnknownField {
                    field,
                    similar: similar(key, fields.served).or_else(|| similar(key, fields.teleport)),
                    known: match fields.served {
                        [] => "none".to_owned(),
                        served => served.join(", "),
                    },
                }
            };
            return Err(Mistake {
                line: name.line,
                column: name.column,
                problem,
            });
        }
        Ok(Map {
            path: self.path.clone(),
            yaml: self.yaml,
        })
    }

    fn names(&self) -> Result<&'a [(Name, Yaml)], Mistake> {
        match &self.yaml.value {
            Value::Map(map) => Ok(map),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::OtherNumber(_)
            | Value::Text(_)
            | Value::List(_) => Err(self.wrong_type("a map, `key: value`")),
        }
    }

    /// The entries of a map with free keys.
    pub(super) fn entries(&self) -> Result<Vec<(&'a str, Self)>, Mistake> {
        let entry = |(name, yaml): &'a (Name, Yaml)| {
            let path = join(&self.path, &crate::id::printable(&name.text));
            (name.text.as_str(), Self { path, yaml })
        };
        Ok(self.names()?.iter().map(entry).collect())
    }

    /// The same, where the keys are read as they are: neither empty, nor with a control character
    /// or braces in them.
    pub(super) fn free_entries(&self) -> Result<Vec<(&'a str, Self)>, Mistake> {
        let entries = self.entries()?;
        for (key, value) in &entries {
            if key.is_empty() {
                let field = self.path();
                return Err(value.mistake(DocumentProblem::NoName { field }));
            }
            if key.chars().any(char::is_control) {
                let field = value.path();
                return Err(value.mistake(DocumentProblem::Control { field }));
            }
            if key.contains("{{") {
                return Err(value.no_template(key));
            }
        }
        Ok(entries)
    }

    /// The items of a list.
    pub(super) fn list(&self) -> Result<Vec<Self>, Mistake> {
        match &self.yaml.value {
            Value::List(items) => {
                let item = |(at, yaml): (usize, &'a Yaml)| Self {
                    path: format!("{}[{at}]", self.path),
                    yaml,
                };
                Ok(items.iter().enumerate().map(item).collect())
            }
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::OtherNumber(_)
            | Value::Text(_)
            | Value::Map(_) => Err(self.wrong_type("a list, `[a, b]`")),
        }
    }

    /// The items of a list, or one text that stands for a list of one.
    pub(super) fn one_or_many(&self) -> Result<Vec<Self>, Mistake> {
        match &self.yaml.value {
            Value::Text(_) => Ok(vec![self.clone()]),
            Value::List(_) => self.list(),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::OtherNumber(_)
            | Value::Map(_) => Err(self.wrong_type("a text in quotes, or a list of them")),
        }
    }

    /// A text in which nothing can disturb a terminal.
    pub(super) fn text(&self) -> Result<&'a str, Mistake> {
        // A number or `true` in place of a text would be kept in another spelling than it was
        // written in: `1.10` as `1.1`.
        let text = self
            .yaml
            .text()
            .ok_or_else(|| self.wrong_type("a text, in quotes"))?;
        if text.chars().any(char::is_control) {
            return Err(self.mistake(DocumentProblem::Control { field: self.path() }));
        }
        Ok(text)
    }

    /// A text in which no template is read.
    pub(super) fn plain(&self) -> Result<&'a str, Mistake> {
        let text = self.text()?;
        if text.contains("{{") {
            return Err(self.no_template(text));
        }
        Ok(text)
    }

    fn no_template(&self, text: &str) -> Mistake {
        self.mistake(DocumentProblem::Template {
            field: self.path(),
            problem: TemplateError::NotHere(crate::id::printable(text)),
        })
    }

    /// A condition, which may be written over several lines.
    pub(super) fn condition<C: Context>(&self) -> Result<Predicate<C>, Mistake> {
        let text = self
            .yaml
            .text()
            .ok_or_else(|| self.wrong_type("an expression, in quotes"))?;
        let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        if text.chars().any(control) {
            return Err(self.mistake(DocumentProblem::Control { field: self.path() }));
        }
        Predicate::parse(text).map_err(|problem| {
            self.mistake(DocumentProblem::Predicate {
                field: self.path(),
                problem,
            })
        })
    }

    /// A text that parses.
    pub(super) fn parsed<T>(&self, parse: fn(&str) -> Result<T, IdError>) -> Result<T, Mistake> {
        let problem = |problem| {
            self.mistake(DocumentProblem::Id {
                field: self.path(),
                problem,
            })
        };
        parse(self.text()?).map_err(problem)
    }

    /// A text that parses as a template or a value with one.
    pub(super) fn template<T>(
        &self,
        parse: fn(&str) -> Result<T, TemplateError>,
    ) -> Result<T, Mistake> {
        let problem = |problem| {
            self.mistake(DocumentProblem::Template {
                field: self.path(),
                problem,
            })
        };
        parse(self.text()?).map_err(problem)
    }

    /// A list of texts that parse.
    pub(super) fn all<T, C: FromIterator<T>>(
        &self,
        parse: fn(&str) -> Result<T, IdError>,
    ) -> Result<C, Mistake> {
        self.list()?.iter().map(|item| item.parsed(parse)).collect()
    }

    /// `true` or `false`.
    pub(super) fn bool(&self) -> Result<bool, Mistake> {
        match &self.yaml.value {
            Value::Bool(value) => Ok(*value),
            Value::Null
            | Value::Int(_)
            | Value::OtherNumber(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Map(_) => Err(self.wrong_type("true or false")),
        }
    }

    /// The same, or `yes`, `no`, `on` or `off`.
    pub(super) fn flag(&self) -> Result<bool, Mistake> {
        match self.yaml.text().and_then(as_flag) {
            Some(flag) => Ok(flag),
            None => self.bool(),
        }
    }

    /// A whole number from 0.
    pub(super) fn count(&self) -> Result<u32, Mistake> {
        let wrong = || self.wrong_type("a whole number from 0 to 1000");
        match &self.yaml.value {
            Value::Int(value) => u32::try_from(*value)
                .ok()
                .filter(|value| *value <= 1000)
                .ok_or_else(wrong),
            Value::Null
            | Value::Bool(_)
            | Value::OtherNumber(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Map(_) => Err(wrong()),
        }
    }

    /// A positive duration.
    pub(super) fn duration(&self) -> Result<time::Duration, Mistake> {
        let problem = |problem| {
            self.mistake(DocumentProblem::Duration {
                field: self.path(),
                problem,
            })
        };
        crate::duration::parse(self.text()?).map_err(problem)
    }

    /// One of these words.
    pub(super) fn word(&self, words: &[&'static str]) -> Result<&'static str, Mistake> {
        let text = self.text()?;
        words
            .iter()
            .find(|word| **word == text)
            .copied()
            .ok_or_else(|| {
                self.mistake(DocumentProblem::Value {
                    field: self.path(),
                    value: crate::id::printable(text),
                    wanted: alternatives(words),
                })
            })
    }
}

/// A map whose keys have all been found to be served.
pub(super) struct Map<'a> {
    path: String,
    yaml: &'a Yaml,
}

impl<'a> Map<'a> {
    /// The value of `field`; a field that is there without a value is absent.
    pub(super) fn get(&self, field: &str) -> Option<At<'a>> {
        let yaml = self
            .yaml
            .get(field)
            .filter(|yaml| !matches!(yaml.value, Value::Null))?;
        Some(At {
            path: join(&self.path, field),
            yaml,
        })
    }

    /// The path of a field that may not be there.
    pub(super) fn path_of(&self, field: &str) -> String {
        join(&self.path, field)
    }

    /// The value of `field`, which must be there.
    pub(super) fn required(&self, field: &str, hint: &'static str) -> Result<At<'a>, Mistake> {
        let missing = || DocumentProblem::Missing {
            field: join(&self.path, field),
            hint,
        };
        self.get(field).ok_or_else(|| self.yaml.mistake(missing()))
    }

    /// The list under `field`, every item parsed; empty if it is absent.
    pub(super) fn all<T, C: FromIterator<T> + Default>(
        &self,
        field: &str,
        parse: fn(&str) -> Result<T, IdError>,
    ) -> Result<C, Mistake> {
        self.get(field)
            .map_or_else(|| Ok(C::default()), |at| at.all(parse))
    }

    /// The list of texts under `field`; empty if it is absent.
    pub(super) fn texts(&self, field: &str) -> Result<Vec<String>, Mistake> {
        let Some(at) = self.get(field) else {
            return Ok(Vec::new());
        };
        at.list()?
            .iter()
            .map(|item| item.text().map(str::to_owned))
            .collect()
    }

    /// `true` or `false` under `field`, if it is there.
    pub(super) fn bool(&self, field: &str) -> Result<Option<bool>, Mistake> {
        self.get(field).map(|at| at.bool()).transpose()
    }

    /// The text under `field`, if it is there.
    pub(super) fn text(&self, field: &str) -> Result<Option<String>, Mistake> {
        self.get(field)
            .map(|at| at.text().map(str::to_owned))
            .transpose()
    }

    /// The condition under `field`, if it is there: as everywhere, an empty text is nothing.
    pub(super) fn condition<C: Context>(
        &self,
        field: &str,
    ) -> Result<Option<Predicate<C>>, Mistake> {
        let at = self.get(field).filter(|at| at.yaml.text() != Some(""));
        at.map(|at| at.condition()).transpose()
    }

    /// The duration under `field`, if it is there.
    pub(super) fn duration(&self, field: &str) -> Result<Option<time::Duration>, Mistake> {
        self.get(field).map(|at| at.duration()).transpose()
    }

    /// `problem`, here.
    pub(super) fn mistake(&self, problem: DocumentProblem) -> Mistake {
        self.yaml.mistake(problem)
    }
}

/// `a, b or c`.
pub(super) fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The one of `fields` that is spelt almost like `key`: two letters added, left out, changed or
/// swapped at most, and not more than a third of them.
fn similar(key: &str, fields: &[&'static str]) -> Option<&'static str> {
    let allowed = (key.len() / 3).min(2);
    let close = fields
        .iter()
        .map(|field| (typing::errors(key, field), *field));
    close
        .filter(|(far, _)| *far <= allowed)
        .min_by_key(|(far, _)| *far)
        .map(|(_, field)| field)
}
