//! YAML as a tree in which every key and value knows its line.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::{DocumentProblem, Mistake};

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Yaml {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// A number that is no `i64`; nothing that is read takes one.
    OtherNumber(f64),
    Text(String),
    List(Vec<Yaml>),
    Map(Vec<(Name, Yaml)>),
}

/// A key of a map and where it stands.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) text: String,
}

/// Levels of maps and lists in each other.
const DEEPEST: usize = 32;

/// The trees of all documents in `text`; empty ones are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Yaml>, Mistake> {
    let options = serde_saphyr::options! {
        // `yes`, `no`, `on` and `off` are words, as in YAML 1.2.
        strict_booleans: true,
        with_snippet: false,
        // INVARIANT: the tree is read by recursion, on whatever stack the caller has left. The deepest
        // document that means anything has ten levels.
        budget: serde_saphyr::budget! { max_depth: DEEPEST },
    };
    let trees: Result<Vec<Yaml>, _> = serde_saphyr::from_multiple_with_options(text, options);
    trees.map_err(|error| {
        let (line, column) = error
            .location()
            .map_or((0, 0), |at| (at.line(), at.column()));
        Mistake {
            line,
            column,
            problem: DocumentProblem::Syntax(said(error.without_snippet())),
        }
    })
}

/// What the parser says, without the position, which [`super::DocumentError`] says, and without
/// advice on how to program the parser.
fn said(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::DuplicateMappingKey { key, .. } = error {
        let key = key.as_deref().map(crate::id::printable).unwrap_or_default();
        return format!("the key `{key}` is there twice; remove one");
    }
    let text = error.to_string();
    if text.contains("budget breached") {
        return "the text is nested too deeply, or repeats itself too often by aliases".to_owned();
    }
    match text.rsplit_once(" at line ") {
        Some((before, after)) if after.starts_with(|c: char| c.is_ascii_digit()) => {
            before.to_owned()
        }
        Some(_) | None => text,
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let spanned: Spanned<Value> = Spanned::deserialize(from)?;
        let at = spanned.referenced;
        Ok(Self {
            line: at.line(),
            column: at.column(),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct AnyValue;

        impl<'de> Visitor<'de> for AnyValue {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
                from.deserialize_any(self)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Int(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "read by nothing, only named a number"
                )]
                Ok(i64::try_from(value).map_or(Value::OtherNumber(value as f64), Value::Int))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::OtherNumber(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(Value::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = from.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
                let mut map: Vec<(Name, Yaml)> = Vec::new();
                while let Some(key) = from.next_key::<Spanned<String>>()? {
                    let (at, text) = (key.referenced, key.value);
                    if map.iter().any(|(known, _)| known.text == text) {
                        return Err(de::Error::custom(format!(
                            "the key `{text}` is there twice"
                        )));
                    }
                    let name = Name {
                        line: at.line(),
                        column: at.column(),
                        text,
                    };
                    map.push((name, from.next_value()?));
                }
                Ok(Value::Map(map))
            }
        }

        from.deserialize_any(AnyValue)
    }
}

impl Yaml {
    /// The value under `key`, if this is a map that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(map) => map
                .iter()
                .find(|(name, _)| name.text == key)
                .map(|(_, value)| value),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::OtherNumber(_)
            | Value::Text(_)
            | Value::List(_) => None,
        }
    }

    /// The text, if this is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::OtherNumber(_)
            | Value::List(_)
            | Value::Map(_) => None,
        }
    }

    /// The items, if it is a list.
    pub(super) fn items(&self) -> Option<&[Yaml]> {
        match &self.value {
            Value::List(items) => Some(items),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::OtherNumber(_)
            | Value::Text(_)
            | Value::Map(_) => None,
        }
    }

    /// `problem`, here.
    pub(super) fn mistake(&self, problem: DocumentProblem) -> Mistake {
        Mistake {
            line: self.line,
            column: self.column,
            problem,
        }
    }

    /// Whether there is nothing in it: an empty list is nothing, and so are an empty map and text.
    pub(super) fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Text(text) => text.is_empty(),
            Value::List(items) => items.is_empty(),
            Value::Map(map) => map.is_empty(),
            Value::Bool(_) | Value::Int(_) | Value::OtherNumber(_) => false,
        }
    }

    /// The same as JSON.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::OtherNumber(value) => (*value).into(),
            Value::Text(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(map) => map
                .iter()
                .map(|(name, value)| (name.text.clone(), value.to_json()))
                .collect(),
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        match &self.value {
            Value::Null => "empty",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::OtherNumber(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// A value to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    /// A boolean, however Teleport spells it.
    Flag(bool),
    /// A number.
    Number(i64),
    /// A text.
    Text(&'static str),
    /// A list of texts, in any order.
    List(&'static [&'static str]),
}

impl Plain {
    pub(super) fn is(self, yaml: &Yaml) -> bool {
        match (self, &yaml.value) {
            (Self::Flag(wanted), Value::Bool(found)) => wanted == *found,
            (Self::Flag(wanted), Value::Text(text)) => as_flag(text) == Some(wanted),
            (Self::Number(wanted), Value::Int(found)) => wanted == *found,
            (Self::Text(wanted), Value::Text(found)) => wanted == found,
            (Self::List(wanted), Value::List(items)) => {
                wanted.len() == items.len()
                    && wanted
                        .iter()
                        .all(|text| items.iter().any(|item| item.text() == Some(*text)))
            }
            (Self::Flag(_) | Self::Number(_) | Self::Text(_) | Self::List(_), _) => false,
        }
    }
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text("") => f.write_str("''"),
            Self::Text(text) => f.write_str(text),
            Self::List(texts) => write!(f, "[{}]", texts.join(", ")),
        }
    }
}

/// The words that Teleport takes for booleans beside YAML's own.
pub(super) fn as_flag(text: &str) -> Option<bool> {
    match text {
        "yes" | "on" => Some(true),
        "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_too_deeply_is_refused_and_not_followed() {
        let lists = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let maps = |depth: usize| "{a: ".repeat(depth) + &"}".repeat(depth);
        assert!(parse(&lists(30)).is_ok() && parse(&maps(30)).is_ok());
        for depth in [40, 250, 5000] {
            for text in [
                lists(depth),
                maps(depth),
                "- ".repeat(depth),
                "? ".repeat(depth),
            ] {
                assert!(parse(&text).is_err(), "{depth}");
            }
        }
    }
}
