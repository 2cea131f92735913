//! From an expression and an environment to true or false. Nothing is allocated for the common
//! forms, which compare texts that are there; a decision evaluates them for every role.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::ControlFlow;

use time::OffsetDateTime;

use super::scope::{Lookup, Visit};
use super::typed::{Bool, Change, List, Text};

/// How much one evaluation may do: every value looked at costs one, and every text that is made
/// or searched one more for each 16 bytes. Comparing 200 values of a trait with 200 labels takes
/// 40,000; a step takes some nanoseconds, so that the worst expression holds a decision up for
/// milliseconds.
const STEPS: usize = 100_000;

/// The longest text that an expression may make. Labels and traits are shorter; without a limit,
/// replacements inside replacements would double a text again and again.
const MADE_TEXT_LIMIT: usize = 16 * 1024;

/// Why an expression that makes sense has no value for these values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// `email.local` of something else.
    #[error("`{0}` is not an e-mail address")]
    NotAnEmail(String),
    /// A name that what is asked about has not.
    #[error("`{name}` is not a name of `{of}`")]
    NoSuchName {
        /// The name.
        name: &'static str,
        /// The kind of what is asked about.
        of: &'static str,
    },
    /// Too much to do.
    #[error("the expression has too much to do with these values; write a simpler one")]
    TooMuch,
}

/// Why a visit ended early.
pub enum Stop {
    /// The answer is known.
    Found,
    /// There is none.
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

type Evaluated<T> = Result<T, Fault>;

/// Evaluates `condition`.
pub(super) fn evaluate<'e, C: Lookup>(condition: &'e Bool<C>, env: &C::Env<'e>) -> Evaluated<bool> {
    let run = Run::<C> {
        env,
        left: Cell::new(STEPS),
    };
    run.bool(condition)
}

struct Run<'r, 'e, C: Lookup> {
    env: &'r C::Env<'e>,
    left: Cell<usize>,
}

impl<'e, C: Lookup> Run<'_, 'e, C> {
    /// Takes one step, and as many more as `bytes` are worth.
    fn step(&self, bytes: usize) -> Evaluated<()> {
        let left = self.left.get().checked_sub(1 + bytes / 16);
        self.left.set(left.ok_or(Fault::TooMuch)?);
        Ok(())
    }

    fn bool(&self, condition: &'e Bool<C>) -> Evaluated<bool> {
        self.step(0)?;
        match condition {
            Bool::Const(value) => Ok(*value),
            Bool::Not(inner) => Ok(!self.bool(inner)?),
            Bool::And(parts) => self.all(parts, true),
            Bool::Or(parts) => self.all(parts, false).map(|all_false| !all_false),
            Bool::Equal(a, b) => Ok(self.text(a)? == self.text(b)?),
            Bool::Alike(a, b) => Ok(self.bool(a)? == self.bool(b)?),
            Bool::Contains(list, item) => {
                let item = self.text(item)?;
                self.contains(list, &item)
            }
            Bool::ContainsAny(list, items) => {
                self.any(items, &mut |item| self.contains(list, &item))
            }
            Bool::ContainsAll(list, items) => {
                let missing = self.any(items, &mut |item| Ok(!self.contains(list, &item)?))?;
                Ok(!missing && !self.is_empty(items)?)
            }
            Bool::IsEmpty(list) => self.is_empty(list),
            Bool::Matches(list, pattern) => self.any(list, &mut |value| {
                self.step(value.len())?;
                Ok(pattern.matches(&value))
            }),
            Bool::HasPrefix(text, prefix) => {
                Ok(self.text(text)?.starts_with(self.text(prefix)?.as_ref()))
            }
            Bool::HasLabel(map, key) => {
                let key = self.text(key)?;
                Ok(C::labels(self.env, *map)?.contains_key(key.as_ref()))
            }
            Bool::Search(words) => {
                for word in words {
                    self.step(word.len())?;
                    if !C::search(self.env, word) {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Bool::ClockBetween(time, start, end) => {
                let clock = C::time(self.env, *time).time();
                Ok(*start < clock && clock < *end)
            }
        }
    }

    /// Whether every part is `value`; the first that is not ends it.
    fn all(&self, parts: &'e [Bool<C>], value: bool) -> Evaluated<bool> {
        for part in parts {
            if self.bool(part)? != value {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn text(&self, text: &'e Text<C>) -> Evaluated<Cow<'e, str>> {
        self.step(0)?;
        match text {
            Text::Literal(text) => Ok(Cow::Borrowed(text)),
            Text::Name(name) => C::text(self.env, *name),
            Text::Label(map, key) => {
                let key = self.text(key)?;
                let label = C::labels(self.env, *map)?.get(key.as_ref());
                Ok(Cow::Borrowed(label.map_or("", String::as_str)))
            }
            Text::Change(change, inner) => self.change(change, self.text(inner)?),
            Text::Day(time) => Ok(Cow::Borrowed(day(C::time(self.env, *time)))),
        }
    }

    fn change(&self, change: &Change, text: Cow<'e, str>) -> Evaluated<Cow<'e, str>> {
        let made = match change {
            Change::Upper => Cow::Owned(text.to_uppercase()),
            Change::Lower => Cow::Owned(text.to_lowercase()),
            Change::EmailLocal => email_local(text)?,
            Change::Replace(from, to) => {
                // Bounded before it is made: an occurrence becomes `to`, at most.
                self.step(text.len().saturating_mul(1 + to.len()))?;
                Cow::Owned(text.replace(from.as_str(), to))
            }
        };
        self.made(made)
    }

    /// Counts a text that was made.
    fn made(&self, text: Cow<'e, str>) -> Evaluated<Cow<'e, str>> {
        if text.len() > MADE_TEXT_LIMIT {
            return Err(Fault::TooMuch);
        }
        self.step(text.len())?;
        Ok(text)
    }

    /// Whether `item` is in the list; nothing is never in one.
    fn contains(&self, list: &'e List<C>, item: &str) -> Evaluated<bool> {
        if item.is_empty() {
            return Ok(false);
        }
        self.any(list, &mut |value| Ok(value == item))
    }

    fn is_empty(&self, list: &'e List<C>) -> Evaluated<bool> {
        Ok(!self.any(list, &mut |_| Ok(true))?)
    }

    /// Whether `test` holds for one value of the list.
    fn any(
        &self,
        list: &'e List<C>,
        test: &mut dyn FnMut(Cow<'e, str>) -> Evaluated<bool>,
    ) -> Evaluated<bool> {
        let visited = self.each(list, &mut |value| match test(value) {
            Ok(true) => ControlFlow::Break(Stop::Found),
            Ok(false) => ControlFlow::Continue(()),
            Err(fault) => ControlFlow::Break(Stop::Fault(fault)),
        });
        match visited {
            ControlFlow::Continue(()) => Ok(false),
            ControlFlow::Break(Stop::Found) => Ok(true),
            ControlFlow::Break(Stop::Fault(fault)) => Err(fault),
        }
    }

    /// Visits the values of a list that are not empty.
    fn each(&self, list: &'e List<C>, visit: Visit<'_, 'e>) -> ControlFlow<Stop> {
        let visit: Visit<'_, 'e> = &mut |value: Cow<'e, str>| {
            flow(self.step(0))?;
            if value.is_empty() {
                return ControlFlow::Continue(());
            }
            visit(value)
        };
        match list {
            List::One(text) => visit(flow(self.text(text))?),
            List::Set(texts) => texts
                .iter()
                .try_for_each(|text| visit(flow(self.text(text))?)),
            List::Union(lists) => lists.iter().try_for_each(|list| self.each(list, visit)),
            List::Without(list, texts) => self.each(list, &mut |value| {
                for text in texts {
                    if flow(self.text(text))? == value {
                        return ControlFlow::Continue(());
                    }
                }
                visit(value)
            }),
            List::Name(name) => C::list(self.env, *name, visit),
            List::Entry(map, key) => {
                let key = flow(self.text(key))?;
                C::values(self.env, *map, &key, visit)
            }
            List::LabelsMatching(map, pattern) => flow(C::labels(self.env, *map))?
                .iter()
                .try_for_each(|(key, value)| {
                    flow(self.step(key.len()))?;
                    if pattern.matches(key) {
                        visit(Cow::Borrowed(value))
                    } else {
                        ControlFlow::Continue(())
                    }
                }),
            List::Change(change, inner) => {
                self.each(inner, &mut |value| visit(flow(self.change(change, value))?))
            }
            List::RegexReplace(inner, regex, replacement) => {
                self.each(
                    inner,
                    &mut |value| match flow(self.replace(regex, replacement, &value))? {
                        Some(made) => visit(made),
                        None => ControlFlow::Continue(()),
                    },
                )
            }
            List::Split(inner, separator) => {
                let separator = flow(self.text(separator))?;
                self.each(inner, &mut |value| {
                    value
                        .split(separator.as_ref())
                        .try_for_each(|part| visit(Cow::Owned(part.to_owned())))
                })
            }
        }
    }

    /// `value` with every match replaced, or nothing if there is none.
    fn replace(
        &self,
        regex: &regex::Regex,
        replacement: &str,
        value: &str,
    ) -> Evaluated<Option<Cow<'e, str>>> {
        self.step(value.len())?;
        let mut out = String::new();
        let mut end = None;
        for captures in regex.captures_iter(value) {
            let Some(whole) = captures.get(0) else {
                continue;
            };
            let before = value.get(end.unwrap_or(0)..whole.start());
            out.push_str(before.unwrap_or_default());
            captures.expand(replacement, &mut out);
            end = Some(whole.end());
            // Each match in turn, so that many can't make too much before it is noticed.
            self.step(replacement.len())?;
            if out.len() > MADE_TEXT_LIMIT {
                return Err(Fault::TooMuch);
            }
        }
        let Some(end) = end else {
            return Ok(None);
        };
        out.push_str(value.get(end..).unwrap_or_default());
        self.made(Cow::Owned(out)).map(Some)
    }
}

fn flow<T>(evaluated: Evaluated<T>) -> ControlFlow<Stop, T> {
    match evaluated {
        Ok(value) => ControlFlow::Continue(value),
        Err(fault) => ControlFlow::Break(Stop::Fault(fault)),
    }
}

/// What stands before the `@` of an e-mail address; nothing for a label that is not there. A
/// template drops what is no address; here that is a fault, because a condition may deny.
fn email_local(text: Cow<'_, str>) -> Evaluated<Cow<'_, str>> {
    if text.is_empty() {
        return Ok(text);
    }
    match crate::template::local(Cow::Borrowed(&text)) {
        Some(local) => Ok(Cow::Owned(local.into_owned())),
        None => Err(Fault::NotAnEmail(crate::id::printable(&text))),
    }
}

fn day(at: OffsetDateTime) -> &'static str {
    use time::Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};
    match at.weekday() {
        Monday => "Monday",
        Tuesday => "Tuesday",
        Wednesday => "Wednesday",
        Thursday => "Thursday",
        Friday => "Friday",
        Saturday => "Saturday",
        Sunday => "Sunday",
    }
}
