//! One question about every node at once.
//!
//! What a subject may do on a node depends on the node only through the label conditions of her
//! roles that it satisfies, and on its ID where one of her requests or a lock names it. So nodes
//! that satisfy the same conditions get the same answer: the first of them is evaluated, as for
//! a decision, and the others take its answer over. A survey decides nothing itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use time::OffsetDateTime;

use crate::id::NodeId;
use crate::lock::Locks;
use crate::node::Node;
use crate::role::Conditions;
use crate::selector::{LabelSelector, LabelValue};
use crate::user::User;

use super::subject::Subject;

/// How many values of one label are remembered: enough for every label that groups nodes, and a
/// bound for those that tell them apart.
const VALUES: usize = 4096;

/// How many answers are remembered; what comes after them is evaluated every time.
const ANSWERS: usize = 16_384;

/// The answers to one question about the nodes of one view.
pub(crate) struct Survey<'a, T> {
    user: &'a User,
    locks: &'a Locks,
    now: OffsetDateTime,
    /// Sorted by length, then by name: most labels of a node are told from these by their length.
    keys: Vec<Key<'a>>,
    /// Those with an expression, which may look at any label: one more numbered condition each.
    expressions: Vec<(usize, &'a LabelSelector)>,
    /// Nodes that open requests name: what holds there holds nowhere else.
    named: HashSet<NodeId>,
    answers: HashMap<Box<[u64]>, Arc<T>>,
    /// The conditions that the node at hand satisfies.
    satisfied: Vec<u64>,
}

/// A condition's number and the values that satisfy it.
type Numbered<'a> = (usize, &'a [LabelValue]);

/// What the subject's roles want of one label.
struct Key<'a> {
    name: &'a str,
    /// Numbered through all keys; each is satisfied by any of its values.
    conditions: Vec<Numbered<'a>>,
    /// The conditions that a value satisfies.
    seen: HashMap<&'a str, Box<[u64]>>,
}

impl<'a, T> Survey<'a, T> {
    pub(crate) fn new(subject: &Subject<'a>) -> Self {
        let mut conditions: BTreeMap<(usize, &str), Vec<Numbered<'_>>> = BTreeMap::new();
        let mut expressions = Vec::new();
        let mut count = 0;
        for role in subject.concerned() {
            for selector in [selector(&role.allow), selector(&role.deny)] {
                for (name, values) in selector.conditions() {
                    let of_key = conditions.entry(by_length(name)).or_default();
                    of_key.push((count, values));
                    count += 1;
                }
                if selector.expression().is_some() {
                    expressions.push((count, selector));
                    count += 1;
                }
            }
        }
        let keys = conditions.into_iter().map(|((_, name), conditions)| Key {
            name,
            conditions,
            seen: HashMap::new(),
        });
        Self {
            user: subject.user,
            locks: subject.locks,
            now: subject.now,
            keys: keys.collect(),
            expressions,
            named: subject.named_nodes().collect(),
            answers: HashMap::new(),
            satisfied: vec![0; count.div_ceil(64)],
        }
    }

    /// The answer for `node`, which `evaluate` finds if no node like it has been asked about.
    pub(crate) fn answer(&mut self, node: &'a Node, evaluate: impl FnOnce(&Node) -> T) -> Arc<T> {
        let locked = self.locks.on_node(&node.id, self.now).is_some();
        if locked || self.named.contains(&node.id) {
            return Arc::new(evaluate(node));
        }
        self.satisfied.fill(0);
        for (name, value) in &node.labels {
            let wanted = by_length(name);
            let found = self
                .keys
                .binary_search_by(|key| by_length(key.name).cmp(&wanted));
            if let Some(key) = found.ok().and_then(|place| self.keys.get_mut(place)) {
                key.add_satisfied(value, self.user, &mut self.satisfied);
            }
        }
        for (number, selector) in &self.expressions {
            if selector.expression_matches(&node.labels, self.user) == Some(true) {
                set(&mut self.satisfied, *number);
            }
        }
        if let Some(answer) = self.answers.get(self.satisfied.as_slice()) {
            return Arc::clone(answer);
        }
        let answer = Arc::new(evaluate(node));
        if self.answers.len() < ANSWERS {
            let satisfied = self.satisfied.clone().into_boxed_slice();
            self.answers.insert(satisfied, Arc::clone(&answer));
        }
        answer
    }
}

impl<'a> Key<'a> {
    /// Adds to `satisfied` the conditions that the label's `value` satisfies.
    fn add_satisfied(&mut self, value: &'a str, user: &User, satisfied: &mut [u64]) {
        if let Some(seen) = self.seen.get(value) {
            union(satisfied, seen);
            return;
        }
        let mut found = vec![0; satisfied.len()];
        for (number, values) in &self.conditions {
            if values.iter().any(|wanted| wanted.matches(value, user)) {
                set(&mut found, *number);
            }
        }
        union(satisfied, &found);
        if self.seen.len() < VALUES {
            self.seen.insert(value, found.into_boxed_slice());
        }
    }
}

fn set(satisfied: &mut [u64], number: usize) {
    if let Some(word) = satisfied.get_mut(number / 64) {
        *word |= 1_u64 << (number % 64);
    }
}

fn by_length(name: &str) -> (usize, &str) {
    (name.len(), name)
}

fn union(into: &mut [u64], from: &[u64]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into |= from;
    }
}

/// The part of `conditions` that looks at a node. Every field is named here: one that looks at a
/// node in another way has to become a condition of the survey as well.
fn selector(conditions: &Conditions) -> &LabelSelector {
    let Conditions {
        logins: _,
        node_labels,
        resources: _,
        request: _,
        review_requests: _,
        rules: _,
    } = conditions;
    node_labels
}
