//! The language once more, as plainly as possible: values of any type, lists in memory, no
//! budget. Shares nothing with the real evaluator but the tree.

use std::collections::BTreeMap;

use regex::Regex;

use crate::predicate::syntax::{Expr, Node};
use crate::user::User;

#[derive(Clone, Debug)]
enum Value {
    Bool(bool),
    Text(String),
    List(Vec<String>),
}

struct World<'w> {
    labels: &'w BTreeMap<String, String>,
    user: &'w User,
}

/// `None` for a fault.
pub(super) fn evaluate(
    tree: &Node,
    labels: &BTreeMap<String, String>,
    user: &User,
) -> Option<bool> {
    match (World { labels, user }).value(tree)? {
        Value::Bool(value) => Some(value),
        other @ (Value::Text(_) | Value::List(_)) => panic!("{other:?}"),
    }
}

impl World<'_> {
    fn value(&self, node: &Node) -> Option<Value> {
        Some(match &node.expr {
            Expr::Bool(value) => Value::Bool(*value),
            Expr::Text(text) => Value::Text(text.clone()),
            Expr::Not(inner) => Value::Bool(!self.bool(inner)?),
            Expr::And(parts) => {
                for part in parts {
                    if !self.bool(part)? {
                        return Some(Value::Bool(false));
                    }
                }
                Value::Bool(true)
            }
            Expr::Or(parts) => {
                for part in parts {
                    if self.bool(part)? {
                        return Some(Value::Bool(true));
                    }
                }
                Value::Bool(false)
            }
            Expr::Equal(a, b) => Value::Bool(self.same(a, b)?),
            Expr::Differ(a, b) => Value::Bool(!self.same(a, b)?),
            Expr::Index(map, key) => self.at(&map.to_string(), &self.text(key)?),
            Expr::Name(_) | Expr::Member(..) => match node.to_string().as_str() {
                "user.metadata.name" => Value::Text(self.user.name.to_string()),
                path => {
                    let (map, key) = path.rsplit_once('.').unwrap();
                    self.at(map, key)
                }
            },
            Expr::Call(callee, arguments) => self.call(callee, arguments)?,
        })
    }

    fn at(&self, map: &str, key: &str) -> Value {
        match map {
            "labels" => Value::Text(self.labels.get(key).cloned().unwrap_or_default()),
            "user.spec.traits" => {
                Value::List(self.user.trait_values(key).map(str::to_owned).collect())
            }
            other => panic!("{other}"),
        }
    }

    fn same(&self, a: &Node, b: &Node) -> Option<bool> {
        Some(match (self.value(a)?, self.value(b)?) {
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => a == b,
            other => panic!("{other:?}"),
        })
    }

    fn bool(&self, node: &Node) -> Option<bool> {
        match self.value(node)? {
            Value::Bool(value) => Some(value),
            other @ (Value::Text(_) | Value::List(_)) => panic!("{other:?}"),
        }
    }

    fn text(&self, node: &Node) -> Option<String> {
        match self.value(node)? {
            Value::Text(value) => Some(value),
            other @ (Value::Bool(_) | Value::List(_)) => panic!("{other:?}"),
        }
    }

    fn call(&self, callee: &Node, arguments: &[Node]) -> Option<Value> {
        let name = callee.to_string();
        if let Expr::Member(receiver, method) = &callee.expr
            && method == "remove"
        {
            let mut list = self.list(receiver)?;
            for argument in arguments {
                let removed = self.text(argument)?;
                list.retain(|item| *item != removed);
            }
            return Some(Value::List(list));
        }
        Some(match (name.as_str(), arguments) {
            ("set", items) => {
                let items: Option<Vec<String>> = items.iter().map(|item| self.text(item)).collect();
                Value::List(items?)
            }
            ("union", lists) => {
                let lists: Option<Vec<Vec<String>>> = lists.iter().map(|l| self.list(l)).collect();
                Value::List(lists?.concat())
            }
            // The real evaluator looks at the lists as far as it has to, so a fault in what it
            // need not look at is none.
            ("contains", [list, item]) => {
                let item = self.text(item)?;
                Value::Bool(!item.is_empty() && self.finds(list, &item)?)
            }
            ("contains_any", [list, items]) => {
                let mut found = false;
                for item in self.lazily(items) {
                    let item = item?;
                    if !found && self.finds(list, &item)? {
                        found = true;
                        break;
                    }
                }
                Value::Bool(found)
            }
            ("contains_all", [list, items]) => {
                let mut any = false;
                for item in self.lazily(items) {
                    let item = item?;
                    any = true;
                    if !self.finds(list, &item)? {
                        return Some(Value::Bool(false));
                    }
                }
                Value::Bool(any)
            }
            ("is_empty", [list]) => {
                let first = self.lazily(list).into_iter().next();
                Value::Bool(match first {
                    None => true,
                    Some(fault_or_value) => fault_or_value.map(|_| false)?,
                })
            }
            ("regexp.match", [list, pattern]) => {
                let pattern = Regex::new(&self.text(pattern)?).unwrap();
                let mut found = false;
                for item in self.lazily(list) {
                    if pattern.is_match(&item?) {
                        found = true;
                        break;
                    }
                }
                Value::Bool(found)
            }
            ("hasPrefix", [text, prefix]) => {
                let text = self.text(text)?;
                Value::Bool(text.starts_with(&self.text(prefix)?))
            }
            ("exists", [label]) => {
                let Expr::Index(_, key) = &label.expr else {
                    panic!("{label}")
                };
                Value::Bool(self.labels.contains_key(&self.text(key)?))
            }
            ("labels_matching", [pattern]) => {
                let pattern = self.text(pattern)?;
                let matches = |key: &str| pattern == "*" || pattern == key;
                let found = self.labels.iter().filter(|(key, _)| matches(key));
                Value::List(found.map(|(_, value)| value.clone()).collect())
            }
            ("strings.upper", [text]) => Value::Text(self.text(text)?.to_uppercase()),
            ("strings.lower", [text]) => Value::Text(self.text(text)?.to_lowercase()),
            ("strings.replaceall", [text, from, to]) => {
                let (from, to) = (self.text(from)?, self.text(to)?);
                Value::Text(self.text(text)?.replace(&from, &to))
            }
            ("email.local", [what]) => match self.value(what)? {
                Value::Text(text) => Value::Text(local(&text)?),
                Value::List(list) => {
                    let full = list.iter().filter(|item| !item.is_empty());
                    let locals: Option<Vec<String>> = full.map(|item| local(item)).collect();
                    Value::List(locals?)
                }
                Value::Bool(_) => panic!("{what}"),
            },
            ("regexp.replace", [list, regex, to]) => {
                let (regex, to) = (Regex::new(&self.text(regex)?).unwrap(), self.text(to)?);
                let list = self
                    .list(list)?
                    .into_iter()
                    .filter(|item| regex.is_match(item));
                Value::List(
                    list.map(|item| regex.replace_all(&item, &to).into_owned())
                        .collect(),
                )
            }
            ("split", [list, separator]) => {
                let separator = self.text(separator)?;
                let list = self.list(list)?;
                let parts = list.iter().flat_map(|item| item.split(&separator));
                Value::List(parts.map(str::to_owned).collect())
            }
            _ => panic!("{name}"),
        })
    }

    fn finds(&self, list: &Node, item: &str) -> Option<bool> {
        for value in self.lazily(list) {
            if value? == item {
                return Some(true);
            }
        }
        Some(false)
    }

    fn list(&self, node: &Node) -> Option<Vec<String>> {
        self.lazily(node).into_iter().collect()
    }

    /// The values up to the first fault.
    fn lazily(&self, node: &Node) -> Vec<Option<String>> {
        let full = |list: Vec<Option<String>>| -> Vec<Option<String>> {
            list.into_iter()
                .filter(|item| item.as_deref() != Some(""))
                .collect()
        };
        if let Expr::Call(callee, arguments) = &node.expr {
            match (callee.to_string().as_str(), arguments.as_slice()) {
                ("set", items) => return full(items.iter().map(|item| self.text(item)).collect()),
                ("union", lists) => return lists.iter().flat_map(|l| self.lazily(l)).collect(),
                ("email.local", [list]) => {
                    let items = self.lazily(list).into_iter();
                    return full(items.map(|item| local(&item?)).collect());
                }
                ("regexp.replace" | "split", [list, _, ..]) => {
                    let mut out = Vec::new();
                    for item in self.lazily(list) {
                        match item {
                            None => out.push(None),
                            Some(item) => out.extend(self.derived(&node.expr, &item)),
                        }
                    }
                    return full(out);
                }
                (other, _) if other.ends_with(".remove") => {
                    let Expr::Member(receiver, _) = &callee.expr else {
                        panic!("{callee}")
                    };
                    let removed = self.text(&arguments[0]);
                    let items = self.lazily(receiver).into_iter();
                    return items
                        .filter(|item| item.is_none() || *item != removed)
                        .collect();
                }
                _ => {}
            }
        }
        match self.value(node) {
            None => vec![None],
            Some(Value::Text(text)) => full(vec![Some(text)]),
            Some(Value::List(list)) => full(list.into_iter().map(Some).collect()),
            Some(Value::Bool(_)) => panic!("{node}"),
        }
    }

    fn derived(&self, call: &Expr, item: &str) -> Vec<Option<String>> {
        let Expr::Call(callee, arguments) = call else {
            panic!("no call")
        };
        let second = self.text(&arguments[1]).unwrap();
        if callee.to_string() == "split" {
            return item.split(&second).map(|p| Some(p.to_owned())).collect();
        }
        let regex = Regex::new(&second).unwrap();
        let to = self.text(&arguments[2]).unwrap();
        let replaced = regex
            .is_match(item)
            .then(|| regex.replace_all(item, &to).into_owned());
        replaced.into_iter().map(Some).collect()
    }
}

fn local(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some(String::new());
    }
    let (local, domain) = text.split_once('@')?;
    let plain = |part: &str| !part.is_empty() && !part.contains('@');
    (plain(local) && plain(domain)).then(|| local.to_owned())
}
