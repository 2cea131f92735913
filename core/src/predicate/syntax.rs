//! The grammar, and the tree that it makes: names and calls with their places, nothing known yet
//! about what they mean. Precedence is Go's: `||`, `&&`, `==` and `!=`, `!`, then what follows a
//! value.

use std::fmt;

use super::error::{PredicateError, Problem};
use super::token::{Kind, Sign, Token, tokens};
use super::{DEPTH_LIMIT, TEXT_LIMIT};

/// A part of an expression and the byte where it starts. Equal to another that says the same.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: usize,
    depth: usize,
    pub(super) expr: Expr,
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    Bool(bool),
    Text(String),
    Name(String),
    Member(Box<Node>, String),
    Index(Box<Node>, Box<Node>),
    Call(Box<Node>, Vec<Node>),
    Not(Box<Node>),
    Equal(Box<Node>, Box<Node>),
    Differ(Box<Node>, Box<Node>),
    /// Two or more.
    And(Vec<Node>),
    /// Two or more.
    Or(Vec<Node>),
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.expr == other.expr
    }
}

impl Eq for Node {}

/// Reads `text` as a whole.
pub(super) fn parse(text: &str) -> Result<Node, PredicateError> {
    if text.len() > TEXT_LIMIT {
        return Err(PredicateError::new(text, 0, Problem::TooLong(text.len())));
    }
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Err(PredicateError::new(text, 0, Problem::Empty));
    }
    let mut parser = Parser {
        text,
        tokens: &tokens,
        level: 0,
    };
    let node = parser.or()?;
    match parser.tokens.first() {
        None => Ok(node),
        Some(_) => Err(parser.expected("`&&`, `||`, `==`, `!=` or the end")),
    }
}

struct Parser<'t> {
    text: &'t str,
    /// What is left.
    tokens: &'t [Token],
    level: usize,
}

type Parsed = Result<Node, PredicateError>;

impl Parser<'_> {
    fn or(&mut self) -> Parsed {
        self.list(Sign::Or, Self::and, Expr::Or)
    }

    fn and(&mut self) -> Parsed {
        self.list(Sign::And, Self::comparison, Expr::And)
    }

    /// A chain is one node with many parts, so that its length costs no depth.
    fn list(
        &mut self,
        sign: Sign,
        part: fn(&mut Self) -> Parsed,
        make: fn(Vec<Node>) -> Expr,
    ) -> Parsed {
        let first = part(self)?;
        if self.peek() != Some(sign) {
            return Ok(first);
        }
        let at = first.at;
        let mut parts = vec![first];
        while self.take(sign) {
            parts.push(part(self)?);
        }
        self.node(at, make(parts))
    }

    fn comparison(&mut self) -> Parsed {
        let mut left = self.unary()?;
        loop {
            let make = match self.peek() {
                Some(Sign::Equal) => Expr::Equal,
                Some(Sign::Differ) => Expr::Differ,
                Some(
                    Sign::And
                    | Sign::Or
                    | Sign::Not
                    | Sign::Open
                    | Sign::Close
                    | Sign::OpenIndex
                    | Sign::CloseIndex
                    | Sign::Dot
                    | Sign::Comma,
                )
                | None => return Ok(left),
            };
            self.advance();
            let right = self.unary()?;
            left = self.node(left.at, make(Box::new(left), Box::new(right)))?;
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        if !self.take(Sign::Not) {
            return self.postfix();
        }
        self.deeper(|parser| {
            let inner = parser.unary()?;
            parser.node(at, Expr::Not(Box::new(inner)))
        })
    }

    /// A value and what follows it: `.name`, `[key]`, `(arguments)`.
    fn postfix(&mut self) -> Parsed {
        let mut node = self.primary()?;
        loop {
            let at = node.at;
            let expr = if self.take(Sign::Dot) {
                Expr::Member(Box::new(node), self.word()?)
            } else if self.take(Sign::OpenIndex) {
                let key = self.deeper(Self::or)?;
                self.close(Sign::CloseIndex, "`]`")?;
                Expr::Index(Box::new(node), Box::new(key))
            } else if self.take(Sign::Open) {
                Expr::Call(Box::new(node), self.arguments()?)
            } else {
                return Ok(node);
            };
            node = self.node(at, expr)?;
        }
    }

    fn arguments(&mut self) -> Result<Vec<Node>, PredicateError> {
        let mut arguments = Vec::new();
        if self.take(Sign::Close) {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.deeper(Self::or)?);
            if !self.take(Sign::Comma) {
                self.close(Sign::Close, "`,` or `)`")?;
                return Ok(arguments);
            }
            // As in Go, a comma may stand behind the last one.
            if self.take(Sign::Close) {
                return Ok(arguments);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        if self.take(Sign::Open) {
            let inner = self.deeper(Self::or)?;
            self.close(Sign::Close, "`)`")?;
            return Ok(inner);
        }
        let expr = match self.tokens.first().map(|token| &token.kind) {
            Some(Kind::Text(text)) => Expr::Text(text.clone()),
            Some(Kind::Word(word)) => match word.as_str() {
                "true" => Expr::Bool(true),
                "false" => Expr::Bool(false),
                _ => Expr::Name(word.clone()),
            },
            Some(Kind::Sign(_)) | None => {
                return Err(self.expected("a name, a text in quotes, `!` or `(`"));
            }
        };
        self.advance();
        self.node(at, expr)
    }

    fn word(&mut self) -> Result<String, PredicateError> {
        match self.tokens.first().map(|token| &token.kind) {
            Some(Kind::Word(word)) => {
                let word = word.clone();
                self.advance();
                Ok(word)
            }
            Some(Kind::Text(_) | Kind::Sign(_)) | None => Err(self.expected("a name after `.`")),
        }
    }

    fn close(&mut self, sign: Sign, wanted: &'static str) -> Result<(), PredicateError> {
        if self.take(sign) {
            Ok(())
        } else {
            Err(self.expected(wanted))
        }
    }

    fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, PredicateError>,
    ) -> Result<T, PredicateError> {
        // INVARIANT: the parser recurses through here only, so never deeper than the limit.
        if self.level >= DEPTH_LIMIT {
            return Err(PredicateError::new(self.text, self.at(), Problem::TooDeep));
        }
        self.level += 1;
        let found = inner(self);
        self.level -= 1;
        found
    }

    fn node(&self, at: usize, expr: Expr) -> Parsed {
        let depth = 1 + expr.depth();
        // INVARIANT: no tree is deeper than the limit, so whatever walks one ends in time.
        if depth > DEPTH_LIMIT {
            return Err(PredicateError::new(self.text, at, Problem::TooDeep));
        }
        Ok(Node { at, depth, expr })
    }

    fn peek(&self) -> Option<Sign> {
        match self.tokens.first()?.kind {
            Kind::Sign(sign) => Some(sign),
            Kind::Word(_) | Kind::Text(_) => None,
        }
    }

    fn take(&mut self, sign: Sign) -> bool {
        let found = self.peek() == Some(sign);
        if found {
            self.advance();
        }
        found
    }

    fn advance(&mut self) {
        self.tokens = self.tokens.get(1..).unwrap_or_default();
    }

    fn at(&self) -> usize {
        self.tokens
            .first()
            .map_or(self.text.len(), |token| token.at)
    }

    fn expected(&self, wanted: &'static str) -> PredicateError {
        let found = match self.tokens.first().map(|token| &token.kind) {
            None => "the end".to_owned(),
            Some(Kind::Word(word)) => match word.as_str() {
                "and" => "`and`, which is written `&&`".to_owned(),
                "or" => "`or`, which is written `||`".to_owned(),
                _ => format!("`{}`", crate::id::printable(word)),
            },
            Some(Kind::Text(text)) => format!("the text `{}`", crate::id::printable(text)),
            Some(Kind::Sign(sign)) => format!("`{}`", sign.as_str()),
        };
        PredicateError::new(self.text, self.at(), Problem::Expected { wanted, found })
    }
}

impl Expr {
    /// The depth of the deepest part.
    fn depth(&self) -> usize {
        let deepest = |nodes: &[Node]| nodes.iter().map(|node| node.depth).max().unwrap_or(0);
        match self {
            Self::Bool(_) | Self::Text(_) | Self::Name(_) => 0,
            Self::Member(of, _) | Self::Not(of) => of.depth,
            Self::Index(a, b) | Self::Equal(a, b) | Self::Differ(a, b) => a.depth.max(b.depth),
            Self::Call(callee, arguments) => callee.depth.max(deepest(arguments)),
            Self::And(parts) | Self::Or(parts) => deepest(parts),
        }
    }

    /// How tightly it binds.
    fn binding(&self) -> Binding {
        match self {
            Self::Or(_) => Binding::Or,
            Self::And(_) => Binding::And,
            Self::Equal(..) | Self::Differ(..) => Binding::Comparison,
            Self::Not(_) => Binding::Not,
            Self::Bool(_)
            | Self::Text(_)
            | Self::Name(_)
            | Self::Member(..)
            | Self::Index(..)
            | Self::Call(..) => Binding::Value,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Or,
    And,
    Comparison,
    Not,
    Value,
}

/// The expression again; parsing it gives an equal tree.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.expr {
            Expr::Bool(value) => write!(f, "{value}"),
            Expr::Text(text) => write_text(f, text),
            Expr::Name(name) => f.write_str(name),
            Expr::Member(of, name) => {
                of.write_within(f, Binding::Value)?;
                write!(f, ".{name}")
            }
            Expr::Index(of, key) => {
                of.write_within(f, Binding::Value)?;
                write!(f, "[{key}]")
            }
            Expr::Call(callee, arguments) => {
                callee.write_within(f, Binding::Value)?;
                f.write_str("(")?;
                for (index, argument) in arguments.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{argument}")?;
                }
                f.write_str(")")
            }
            Expr::Not(inner) => {
                f.write_str("!")?;
                inner.write_within(f, Binding::Not)
            }
            Expr::Equal(a, b) => write_chain(f, [a.as_ref(), b.as_ref()], "==", Binding::Not),
            Expr::Differ(a, b) => write_chain(f, [a.as_ref(), b.as_ref()], "!=", Binding::Not),
            Expr::And(parts) => write_chain(f, parts, "&&", Binding::Comparison),
            Expr::Or(parts) => write_chain(f, parts, "||", Binding::And),
        }
    }
}

fn write_chain<'n>(
    f: &mut fmt::Formatter<'_>,
    parts: impl IntoIterator<Item = &'n Node>,
    sign: &str,
    least: Binding,
) -> fmt::Result {
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            write!(f, " {sign} ")?;
        }
        part.write_within(f, least)?;
    }
    Ok(())
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            '\r' => f.write_str("\\r")?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

impl Node {
    /// In parentheses, if it binds less tightly than `least`.
    fn write_within(&self, f: &mut fmt::Formatter<'_>, least: Binding) -> fmt::Result {
        if self.expr.binding() < least {
            write!(f, "({self})")
        } else {
            write!(f, "{self}")
        }
    }
}
