//! Machine-readable output: JSON and YAML whose bytes are safe on a terminal too. Everything that isn't plain text
//! is written as an escape of the format itself, so a reader gets back exactly what was stored.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::text::is_hostile;

/// Pretty-printed JSON, fields in the order of the type, no final line break.
#[must_use]
pub fn json<T: Serialize>(value: &T) -> String {
    match serde_json::to_string_pretty(value) {
        Ok(text) => escape_json(&text),
        // Only maps with keys that are no strings, or a failing Serialize, get here: neither exists in what we print.
        Err(error) => escape_json(&Value::String(error.to_string()).to_string()),
    }
}

/// JSON on one line.
#[must_use]
pub fn json_line<T: Serialize>(value: &T) -> String {
    escape_json(&serde_json::to_string(value).unwrap_or_default())
}

/// YAML in block style, no final line break.
#[must_use]
pub fn yaml<T: Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).unwrap_or(Value::Null);
    let mut out = String::new();
    write_yaml(&mut out, &value, 0, Place::Line);
    out.trim_start_matches('\n').to_owned()
}

/// Appends `value` as one entry of a pretty-printed list, indented, without what separates it from others.
pub(super) fn write_json_entry<T: Serialize>(out: &mut String, value: &T) {
    const INDENT: &str = "  ";
    out.push_str(INDENT);
    match serde_json::to_string_pretty(value) {
        Ok(text) => write_escaped(out, &text, INDENT),
        Err(error) => write_escaped(out, &Value::String(error.to_string()).to_string(), INDENT),
    }
}

/// Appends `value` as one entry of a list in block style, and a line break.
pub(super) fn write_yaml_entry<T: Serialize>(out: &mut String, value: &T) {
    let value = serde_json::to_value(value).unwrap_or(Value::Null);
    out.push_str("- ");
    write_yaml(out, &value, 2, Place::Dash);
    out.push('\n');
}

fn escape_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    write_escaped(&mut out, text, "");
    out
}

/// Outside of strings JSON is ASCII without hostile characters, so every one found stands inside a string. Line breaks and
/// blanks of the layout are kept, and what is written after a line break begins with `indent`.
fn write_escaped(out: &mut String, text: &str, indent: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| !matches!(c, ' '..='~')) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = special.chars();
        match chars.next() {
            Some('\n') => {
                out.push('\n');
                out.push_str(indent);
            }
            Some(c) if is_hostile(c) => {
                let mut units = [0u16; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            Some(c) => out.push(c),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Behind a key or at the very start: a collection begins on the next line.
    Line,
    /// Behind `- `: the first entry stands on the same line.
    Dash,
}

fn write_yaml(out: &mut String, value: &Value, indent: usize, place: Place) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&n.to_string()),
        Value::String(text) => write_yaml_string(out, text),
        Value::Array(items) if items.is_empty() => out.push_str("[]"),
        Value::Object(fields) if fields.is_empty() => out.push_str("{}"),
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                begin(out, indent, n == 0, place);
                out.push_str("- ");
                write_yaml(out, item, indent + 2, Place::Dash);
            }
        }
        Value::Object(fields) => {
            for (n, (key, field)) in fields.iter().enumerate() {
                begin(out, indent, n == 0, place);
                write_yaml_string(out, key);
                out.push(':');
                let nested = match field {
                    Value::Array(items) => !items.is_empty(),
                    Value::Object(fields) => !fields.is_empty(),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
                };
                if !nested {
                    out.push(' ');
                }
                write_yaml(out, field, indent + 2, Place::Line);
            }
        }
    }
}

fn begin(out: &mut String, indent: usize, first: bool, place: Place) {
    if first && place == Place::Dash {
        return;
    }
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

fn write_yaml_string(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_hostile(c) => {
                let _ = match u32::from(c) {
                    n if n <= 0xff => write!(out, "\\x{n:02x}"),
                    n if n <= 0xffff => write!(out, "\\u{n:04x}"),
                    n => write!(out, "\\U{n:08x}"),
                };
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Text that no YAML 1.1 or 1.2 reader takes for anything but this string. Quoting too much costs nothing.
fn is_plain(text: &str) -> bool {
    let safe = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@' | '+' | '(' | ')')
    };
    let starts_well = text
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '/');
    const WORDS: [&str; 12] = [
        "true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf", "infinity",
    ];
    if is_uuid(text) {
        return true;
    }
    starts_well
        && text.chars().all(|c| safe(c) || c == ' ')
        && !text.ends_with(' ')
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// A UUID is no number and no date in any version of YAML, whatever it begins with.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, b)| match place {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_reads_back_and_carries_nothing_hostile() {
        let value = json!({"reason": "a\u{9b}2J\u{202e}\u{7f}\u{e0001}", "n": [1, {}]});
        let text = super::json(&value);
        assert!(!text.replace('\n', "").chars().any(is_hostile));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn yaml_is_in_block_style() {
        let value = json!({"kind": "role", "spec": {"allow": {"logins": ["root", "{{internal.logins}}"], "labels": {"*": "*"}}, "deny": {}, "nested": [[1, 2], {"a": 1, "b": "yes"}]}});
        let expected = r#"kind: role
spec:
  allow:
    labels:
      "*": "*"
    logins:
      - root
      - "{{internal.logins}}"
  deny: {}
  nested:
    - - 1
      - 2
    - a: 1
      b: "yes""#;
        assert_eq!(yaml(&value), expected);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|n| json!(n)),
            any::<String>().prop_map(Value::String),
            "[a-z0-9~:.-]{0,6}".prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::btree_map("\\PC{1,8}", inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_reads_back_from_yaml_and_json(value in any_value()) {
            let text = yaml(&value);
            prop_assert!(!text.replace('\n', "").chars().any(is_hostile));
            let back: Value = serde_saphyr::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
            prop_assert_eq!(&back, &value, "{}", text);
            let text = super::json(&value);
            prop_assert!(!text.replace('\n', "").chars().any(is_hostile));
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
    }
}
