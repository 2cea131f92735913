//! From a tree to an expression that makes sense in a context, or to what is wrong and where.

use std::cell::RefCell;

use regex::Regex;
use time::Time;

use crate::pattern::Pattern;

use super::error::{PredicateError, Problem, nearest, suggestion};
use super::function::{
    Any, FUNCTIONS, Function, Method, NOT_SERVED, One, Signature, Three, Two, find,
};
use super::scope::{Lookup, Name};
use super::syntax::{Expr, Node};
use super::typed::{Bool, Change, List, Text};

/// The longest replacement of `regexp.replace` and `strings.replaceall`. Each match can expand to
/// that many copies of a group, before the length of the result is looked at.
const REPLACEMENT_LIMIT: usize = 256;

/// A value of whatever type.
enum Typed<C: Lookup> {
    Bool(Bool<C>),
    Text(Text<C>),
    List(List<C>),
    Labels(C::Labels),
    Lists(C::Lists),
    Time(C::Time),
}

impl<C: Lookup> Typed<C> {
    const fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Labels(_) => "a map of labels",
            Self::Lists(_) => "a map of lists",
            Self::Time(_) => "a time",
        }
    }
}

impl<C: Lookup> From<Name<C>> for Typed<C> {
    fn from(name: Name<C>) -> Self {
        match name {
            Name::Text(name) => Self::Text(Text::Name(name)),
            Name::List(name) => Self::List(List::Name(name)),
            Name::Labels(name) => Self::Labels(name),
            Name::Lists(name) => Self::Lists(name),
            Name::Time(name) => Self::Time(name),
        }
    }
}

/// Names with the bytes where they stand.
type Names = Vec<(&'static str, usize)>;

/// Checks the tree of `text`, which has to be true or false; every name in it comes with it.
pub(super) fn condition<C: Lookup>(text: &str, tree: &Node) -> Checked<(Bool<C>, Names)> {
    let names = RefCell::default();
    let checker = Checker {
        text,
        names: &names,
    };
    let condition = checker.bool(tree)?;
    Ok((condition, names.into_inner()))
}

type Checked<T> = Result<T, PredicateError>;

struct Checker<'t> {
    text: &'t str,
    names: &'t RefCell<Names>,
}

impl Checker<'_> {
    fn error(&self, node: &Node, problem: Problem) -> PredicateError {
        PredicateError::new(self.text, node.at, problem)
    }

    fn bool<C: Lookup>(&self, node: &Node) -> Checked<Bool<C>> {
        match self.value(node)? {
            Typed::Bool(value) => Ok(value),
            other @ (Typed::Text(_)
            | Typed::List(_)
            | Typed::Labels(_)
            | Typed::Lists(_)
            | Typed::Time(_)) => Err(self.wrong_type(node, "a condition, true or false", &other)),
        }
    }

    fn text<C: Lookup>(&self, node: &Node) -> Checked<Text<C>> {
        match self.value(node)? {
            Typed::Text(value) => Ok(value),
            other @ (Typed::Bool(_)
            | Typed::List(_)
            | Typed::Labels(_)
            | Typed::Lists(_)
            | Typed::Time(_)) => Err(self.wrong_type(node, "a text", &other)),
        }
    }

    /// A list; a text stands for a list of one.
    fn list<C: Lookup>(&self, node: &Node) -> Checked<List<C>> {
        match self.value(node)? {
            Typed::List(value) => Ok(value),
            Typed::Text(value) => Ok(List::One(value)),
            other @ (Typed::Bool(_) | Typed::Labels(_) | Typed::Lists(_) | Typed::Time(_)) => {
                Err(self.wrong_type(node, "a list or a text", &other))
            }
        }
    }

    fn time<C: Lookup>(&self, node: &Node) -> Checked<C::Time> {
        match self.value::<C>(node)? {
            Typed::Time(value) => Ok(value),
            other @ (Typed::Bool(_)
            | Typed::Text(_)
            | Typed::List(_)
            | Typed::Labels(_)
            | Typed::Lists(_)) => Err(self.wrong_type(node, "a time", &other)),
        }
    }

    fn literal<'n>(&self, node: &'n Node, what: &'static str) -> Checked<&'n str> {
        match &node.expr {
            Expr::Text(text) => Ok(text),
            Expr::Bool(_)
            | Expr::Name(_)
            | Expr::Member(..)
            | Expr::Index(..)
            | Expr::Call(..)
            | Expr::Not(_)
            | Expr::Equal(..)
            | Expr::Differ(..)
            | Expr::And(_)
            | Expr::Or(_) => Err(self.error(node, Problem::NotLiteral(what))),
        }
    }

    fn wrong_type<C: Lookup>(
        &self,
        node: &Node,
        wanted: &'static str,
        found: &Typed<C>,
    ) -> PredicateError {
        let path = path(node).unwrap_or_default();
        let hint = match found {
            Typed::Labels(_) | Typed::Lists(_) => format!("; write `{path}[\"key\"]`"),
            Typed::List(_) => "; look into it with `contains(list, text)`".to_owned(),
            Typed::Text(_) if wanted.starts_with("a condition") => {
                "; compare it, as in `… == \"text\"`".to_owned()
            }
            Typed::Time(_) => "; ask it with `day(time)` or `clock_between(time, …)`".to_owned(),
            Typed::Bool(_) | Typed::Text(_) => String::new(),
        };
        let found = found.type_name();
        self.error(
            node,
            Problem::Type {
                wanted,
                found,
                hint,
            },
        )
    }

    fn value<C: Lookup>(&self, node: &Node) -> Checked<Typed<C>> {
        match &node.expr {
            Expr::Bool(value) => Ok(Typed::Bool(Bool::Const(*value))),
            Expr::Text(text) => Ok(Typed::Text(Text::Literal(text.clone()))),
            Expr::Name(_) | Expr::Member(..) => self.name(node),
            Expr::Index(map, key) => self.index(map, key),
            Expr::Call(callee, arguments) => self.call(callee, arguments),
            Expr::Not(inner) => Ok(Typed::Bool(Bool::Not(Box::new(self.bool(inner)?)))),
            Expr::Equal(a, b) => Ok(Typed::Bool(self.same(a, b)?)),
            Expr::Differ(a, b) => Ok(Typed::Bool(Bool::Not(Box::new(self.same(a, b)?)))),
            Expr::And(parts) => self.bools(parts).map(|parts| Typed::Bool(Bool::And(parts))),
            Expr::Or(parts) => self.bools(parts).map(|parts| Typed::Bool(Bool::Or(parts))),
        }
    }

    fn bools<C: Lookup>(&self, parts: &[Node]) -> Checked<Vec<Bool<C>>> {
        parts.iter().map(|part| self.bool(part)).collect()
    }

    fn same<C: Lookup>(&self, a: &Node, b: &Node) -> Checked<Bool<C>> {
        match (self.value(a)?, self.value(b)?) {
            (Typed::Text(a), Typed::Text(b)) => Ok(Bool::Equal(a, b)),
            (Typed::Bool(a), Typed::Bool(b)) => Ok(Bool::Alike(Box::new(a), Box::new(b))),
            (left, right) => {
                let hint = match (&left, &right) {
                    (Typed::Labels(_) | Typed::Lists(_), _)
                    | (_, Typed::Labels(_) | Typed::Lists(_)) => {
                        "name one of its keys, as in `labels[\"env\"]`"
                    }
                    (Typed::List(_), _) | (_, Typed::List(_)) => {
                        "write `contains(list, text)`, `contains_any` or `contains_all`"
                    }
                    (Typed::Time(_), _) | (_, Typed::Time(_)) => {
                        "write `clock_between(time, \"09:00\", \"17:00\")` or `day(time)`"
                    }
                    (Typed::Bool(_) | Typed::Text(_), Typed::Bool(_) | Typed::Text(_)) => {
                        "compare texts with texts"
                    }
                };
                let problem = Problem::Compare {
                    left: left.type_name(),
                    right: right.type_name(),
                    hint,
                };
                Err(self.error(a, problem))
            }
        }
    }

    /// A name with dots. The last part may be the key of a map: `labels.env`.
    fn name<C: Lookup>(&self, node: &Node) -> Checked<Typed<C>> {
        let named = |path: &str| {
            let (word, name) = C::NAMES.iter().find(|(name, _)| *name == path)?;
            self.names.borrow_mut().push((word, node.at));
            Some(*name)
        };
        let Some(path) = path(node) else {
            // A member of something computed: nothing that is computed has any.
            let Expr::Member(of, name) = &node.expr else {
                return Err(self.error(
                    node,
                    Problem::Expected {
                        wanted: "a name",
                        found: node.to_string(),
                    },
                ));
            };
            let found = self.value::<C>(of)?.type_name();
            let problem = Problem::Type {
                wanted: "a map",
                found,
                hint: format!(", which has no `{}`", crate::id::printable(name)),
            };
            return Err(self.error(node, problem));
        };
        if let Some(name) = named(&path) {
            return Ok(name.into());
        }
        if let Some((map, key)) = path.rsplit_once('.')
            && let Some(name) = named(map)
            && let Some(found) = entry(name.into(), Text::Literal(key.to_owned()))
        {
            return Ok(found);
        }
        Err(self.error(node, self.unknown_name::<C>(&path)))
    }

    fn unknown_name<C: Lookup>(&self, path: &str) -> Problem {
        let shown = crate::id::printable(path);
        if path == "review.annotations" {
            return Problem::NotServed(shown, "; reviews have no annotations here");
        }
        let names = || C::NAMES.iter().map(|(name, _)| *name);
        // Teleport lets a query read any field of a resource.
        if C::SEARCH && path.starts_with("resource.") && nearest(path, names()).is_none() {
            return Problem::NotServed(
                shown,
                "; a query knows labels, name, resource.kind, resource.metadata.name, \
                 resource.metadata.labels, resource.metadata.description, \
                 resource.spec.hostname and resource.spec.addr",
            );
        }
        let hint = if find(path).is_some() {
            "it is a function, which takes its arguments in parentheses".to_owned()
        } else {
            let is_map = |name: &Name<C>| matches!(name, Name::Labels(_) | Name::Lists(_));
            let maps = C::NAMES.iter().filter(|(_, name)| is_map(name));
            suggestion(path, names(), maps.map(|(name, _)| *name))
        };
        Problem::Name {
            name: shown,
            context: C::PLACE,
            hint,
        }
    }

    fn index<C: Lookup>(&self, map: &Node, key: &Node) -> Checked<Typed<C>> {
        let value = self.value(map)?;
        let type_name = value.type_name();
        // `labels[env]`: as documentation often shows it, and what is left when a shell took the
        // quotes away.
        if let Expr::Name(word) = &key.expr {
            let wanted = "a text in quotes";
            let found = format!("`{word}`; write `[\"{word}\"]`");
            return Err(self.error(key, Problem::Expected { wanted, found }));
        }
        let key = self.text(key)?;
        entry(value, key).ok_or_else(|| {
            let problem = Problem::Type {
                wanted: "a map",
                found: type_name,
                hint: ", which has no keys".to_owned(),
            };
            self.error(map, problem)
        })
    }

    fn call<C: Lookup>(&self, callee: &Node, arguments: &[Node]) -> Checked<Typed<C>> {
        let path = path(callee);
        if let Some(path) = &path
            && let Some(signature) = find(path).filter(|known| known.method != Method::Only)
        {
            let arguments: Vec<&Node> = arguments.iter().collect();
            return self.function(callee, signature, &arguments);
        }
        if let Expr::Member(receiver, name) = &callee.expr
            && let Some(signature) = find(name).filter(|known| known.method != Method::No)
        {
            let arguments: Vec<&Node> = std::iter::once(receiver.as_ref())
                .chain(arguments)
                .collect();
            return self.function(callee, signature, &arguments);
        }
        let name = match (&callee.expr, path) {
            (_, Some(path)) => path,
            (Expr::Member(_, name), None) => name.clone(),
            (_, None) => callee.to_string(),
        };
        Err(self.error(callee, unknown_function(&name)))
    }

    fn function<C: Lookup>(
        &self,
        callee: &Node,
        signature: &Signature,
        arguments: &[&Node],
    ) -> Checked<Typed<C>> {
        let arity = |takes: &'static str| {
            let problem = Problem::Arguments {
                signature: signature.form,
                takes,
                given: arguments.len(),
            };
            self.error(callee, problem)
        };
        match (signature.function, arguments) {
            (Function::One(function), [one]) => self.unary(callee, function, one),
            (Function::Two(function), [one, two]) => self.binary(function, one, two),
            (Function::Three(function), [one, two, three]) => {
                self.ternary(function, one, two, three)
            }
            (Function::Any(function), _) => self.variadic(callee, function, arguments),
            (Function::One(_), _) => Err(arity("one argument")),
            (Function::Two(_), _) => Err(arity("two arguments")),
            (Function::Three(_), _) => Err(arity("three arguments")),
        }
    }

    fn variadic<C: Lookup>(
        &self,
        callee: &Node,
        function: Any,
        arguments: &[&Node],
    ) -> Checked<Typed<C>> {
        let texts = |nodes: &[&Node]| {
            nodes
                .iter()
                .map(|node| self.text::<C>(node))
                .collect::<Checked<Vec<Text<C>>>>()
        };
        match function {
            Any::Union => {
                let lists: Checked<Vec<List<C>>> =
                    arguments.iter().map(|node| self.list(node)).collect();
                Ok(Typed::List(List::Union(lists?)))
            }
            Any::Remove => {
                let Some((list, removed)) = arguments.split_first() else {
                    return Ok(Typed::List(List::Set(Vec::new())));
                };
                let list = Box::new(self.list(list)?);
                Ok(Typed::List(List::Without(list, texts(removed)?)))
            }
            Any::Search => {
                if !C::SEARCH {
                    return Err(self.error(
                        callee,
                        Problem::NotHere {
                            function: "search",
                            needs: "a resource",
                            context: C::PLACE,
                        },
                    ));
                }
                let words: Checked<Vec<String>> = arguments
                    .iter()
                    .map(|node| self.literal(node, "word").map(str::to_owned))
                    .collect();
                Ok(Typed::Bool(Bool::Search(words?)))
            }
            Any::Set => Ok(Typed::List(List::Set(texts(arguments)?))),
        }
    }

    fn unary<C: Lookup>(&self, callee: &Node, function: One, argument: &Node) -> Checked<Typed<C>> {
        let change = match function {
            One::IsEmpty => {
                return Ok(Typed::Bool(Bool::IsEmpty(self.list(argument)?)));
            }
            One::Exists => return self.exists(argument).map(Typed::Bool),
            One::Day => return Ok(Typed::Text(Text::Day(self.time::<C>(argument)?))),
            One::LabelsMatching => {
                let Some(map) = C::LABELS else {
                    return Err(self.error(
                        callee,
                        Problem::NotHere {
                            function: "labels_matching",
                            needs: "labels",
                            context: C::PLACE,
                        },
                    ));
                };
                let pattern = self.pattern(argument)?;
                return Ok(Typed::List(List::LabelsMatching(map, pattern)));
            }
            One::Upper => Change::Upper,
            One::Lower => Change::Lower,
            One::EmailLocal => Change::EmailLocal,
        };
        self.changed(argument, change)
    }

    /// A change of one text, or of every text of a list.
    fn changed<C: Lookup>(&self, argument: &Node, change: Change) -> Checked<Typed<C>> {
        match self.value(argument)? {
            Typed::Text(text) => Ok(Typed::Text(Text::Change(change, Box::new(text)))),
            Typed::List(list) => Ok(Typed::List(List::Change(change, Box::new(list)))),
            other @ (Typed::Bool(_) | Typed::Labels(_) | Typed::Lists(_) | Typed::Time(_)) => {
                Err(self.wrong_type(argument, "a list or a text", &other))
            }
        }
    }

    fn exists<C: Lookup>(&self, argument: &Node) -> Checked<Bool<C>> {
        match self.value(argument)? {
            Typed::Text(Text::Label(map, key)) => Ok(Bool::HasLabel(map, *key)),
            Typed::List(list) => Ok(Bool::Not(Box::new(Bool::IsEmpty(list)))),
            Typed::Text(text) => Ok(Bool::Not(Box::new(Bool::Equal(
                text,
                Text::Literal(String::new()),
            )))),
            other @ (Typed::Bool(_) | Typed::Labels(_) | Typed::Lists(_) | Typed::Time(_)) => {
                Err(self.wrong_type(argument, "a label, as in `labels[\"env\"]`", &other))
            }
        }
    }

    fn binary<C: Lookup>(&self, function: Two, a: &Node, b: &Node) -> Checked<Typed<C>> {
        let condition = match function {
            Two::Contains => Bool::Contains(self.list(a)?, self.text(b)?),
            Two::ContainsAny => Bool::ContainsAny(self.list(a)?, self.list(b)?),
            Two::ContainsAll => Bool::ContainsAll(self.list(a)?, self.list(b)?),
            Two::Equals => self.same(a, b)?,
            Two::HasPrefix => Bool::HasPrefix(self.text(a)?, self.text(b)?),
            Two::RegexpMatch => Bool::Matches(self.list(a)?, self.pattern(b)?),
            Two::Split => {
                let list = List::Split(Box::new(self.list(a)?), self.text(b)?);
                return Ok(Typed::List(list));
            }
        };
        Ok(Typed::Bool(condition))
    }

    fn ternary<C: Lookup>(
        &self,
        function: Three,
        a: &Node,
        b: &Node,
        c: &Node,
    ) -> Checked<Typed<C>> {
        match function {
            Three::RegexpReplace => {
                let list = Box::new(self.list(a)?);
                let regex = self.regex(b)?;
                let replacement = self.replacement(c)?;
                crate::pattern::check_references(&replacement, &regex, regex.as_str())
                    .map_err(|problem| self.error(c, problem.into()))?;
                Ok(Typed::List(List::RegexReplace(list, regex, replacement)))
            }
            Three::ReplaceAll => {
                let from = self.literal(b, "text to replace")?.to_owned();
                self.changed(a, Change::Replace(from, self.replacement(c)?))
            }
            Three::ClockBetween => {
                let time = self.time::<C>(a)?;
                let (start, end) = (self.clock(b)?, self.clock(c)?);
                Ok(Typed::Bool(Bool::ClockBetween(time, start, end)))
            }
        }
    }

    fn replacement(&self, node: &Node) -> Checked<String> {
        let text = self.literal(node, "replacement")?;
        if text.len() > REPLACEMENT_LIMIT {
            let problem = Problem::Replacement(text.len(), REPLACEMENT_LIMIT);
            return Err(self.error(node, problem));
        }
        Ok(text.to_owned())
    }

    /// A literal, a glob, or a regular expression from `^` to `$`, for the whole value.
    fn pattern(&self, node: &Node) -> Checked<Pattern> {
        let text = self.literal(node, "pattern")?;
        let whole = text.len() > 1 && text.starts_with('^') && text.ends_with('$');
        let signs = ['\\', '^', '$', '(', ')', '|', '[', ']', '+', '?', '{', '}'];
        if !whole && (text.contains(signs) || text.contains(".*")) {
            let inner = text.trim_start_matches('^').trim_end_matches('$');
            let problem = Problem::HalfRegex {
                pattern: crate::id::printable(text),
                inner: crate::id::printable(inner),
            };
            return Err(self.error(node, problem));
        }
        Pattern::parse(text).map_err(|problem| self.error(node, problem.into()))
    }

    fn regex(&self, node: &Node) -> Checked<Regex> {
        let text = self.literal(node, "regular expression")?;
        crate::pattern::compile(text, text).map_err(|problem| self.error(node, problem.into()))
    }

    fn clock(&self, node: &Node) -> Checked<Time> {
        let text = self.literal(node, "time of day")?;
        let two = |part: &str| {
            let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<u8>().ok().filter(|_| digits)
        };
        let parsed = text
            .split_once(':')
            .and_then(|(hour, minute)| Time::from_hms(two(hour)?, two(minute)?, 0).ok());
        parsed.ok_or_else(|| self.error(node, Problem::Clock(crate::id::printable(text))))
    }
}

/// The value under `key` of a map; `None` if it is none.
fn entry<C: Lookup>(map: Typed<C>, key: Text<C>) -> Option<Typed<C>> {
    match map {
        Typed::Labels(map) => Some(Typed::Text(Text::Label(map, Box::new(key)))),
        Typed::Lists(map) => Some(Typed::List(List::Entry(map, key))),
        Typed::Bool(_) | Typed::Text(_) | Typed::List(_) | Typed::Time(_) => None,
    }
}

/// `a.b.c`, if the node is names and dots only.
fn path(node: &Node) -> Option<String> {
    match &node.expr {
        Expr::Name(name) => Some(name.clone()),
        Expr::Member(of, name) => Some(format!("{}.{name}", path(of)?)),
        Expr::Bool(_)
        | Expr::Text(_)
        | Expr::Index(..)
        | Expr::Call(..)
        | Expr::Not(_)
        | Expr::Equal(..)
        | Expr::Differ(..)
        | Expr::And(_)
        | Expr::Or(_) => None,
    }
}

fn unknown_function(name: &str) -> Problem {
    let last = name.rsplit('.').next().unwrap_or(name);
    let teleport = |known: &&(&str, &'static str)| known.0 == name || known.0 == last;
    let shown = crate::id::printable(name);
    if let Some((_, instead)) = NOT_SERVED.iter().find(teleport) {
        return Problem::NotServed(shown, instead);
    }
    Problem::Function {
        name: shown,
        hint: suggestion(
            name,
            FUNCTIONS.iter().map(|known| known.name),
            std::iter::empty(),
        ),
    }
}
