//! The second evaluator, written naively from the semantics alone: it knows no index and no parsed
//! role, only the wishes.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::wishes::{
    CertificateWish, ExpressionWish, LOGINS, LoginWish, ROLES, RequestWish, Selector, Stored, World,
};
use anteroom_core::request::State;

#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Answer {
    Standing,
    /// This request.
    Request(usize),
    /// Through one of these roles.
    Ask(BTreeSet<usize>),
    Deny,
}

/// How alice asks: in a session that runs this and nothing else, and whether locks are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    pub runs_command: bool,
    locked: bool,
}

impl Question {
    pub const fn session(runs_command: bool) -> Self {
        Self {
            runs_command,
            locked: true,
        }
    }

    const fn if_nothing_were_locked(self) -> Self {
        Self {
            locked: false,
            ..self
        }
    }
}

impl World {
    fn selects(&self, selector: &Selector, node: usize) -> Option<bool> {
        match selector {
            Selector::Absent => None,
            Selector::Everything => Some(true),
            Selector::Keys(keys) => Some(keys.iter().all(|(key, values)| {
                let label = self.nodes[node].get(key);
                label.is_some_and(|label| values.iter().any(|value| value.takes.contains(label)))
            })),
        }
    }

    /// What an expression says of a node: nothing where there is none, and `fault` where it can't
    /// be evaluated.
    fn expressed(
        &self,
        expression: Option<ExpressionWish>,
        node: usize,
        fault: bool,
    ) -> Option<bool> {
        expression.map(|wish| (wish.means)(&self.nodes[node]).unwrap_or(fault))
    }

    fn has(wishes: &[LoginWish], login: &str) -> bool {
        wishes.iter().any(|wish| wish.means.contains(&login))
    }

    fn broken(&self, role: usize) -> bool {
        self.roles[role].stored == Stored::Unreadable
    }

    pub fn grants(&self, role: usize, node: usize, login: &str) -> bool {
        let wish = &self.roles[role];
        let labels = self.selects(&wish.labels, node);
        let expression = self.expressed(wish.expression, node, false);
        let selected = match (labels, expression) {
            (None, None) => wish.version == "v3",
            (labels, expression) => labels.unwrap_or(true) && expression.unwrap_or(true),
        };
        !self.broken(role) && selected && Self::has(&wish.logins, login)
    }

    fn denies(&self, role: usize, node: usize, login: &str) -> bool {
        let wish = &self.roles[role];
        self.broken(role)
            || self.selects(&wish.denied_labels, node) == Some(true)
            || self.expressed(wish.denied_expression, node, true) == Some(true)
            || Self::has(&wish.denied_logins, login)
    }

    /// The roles that count for alice: with a certificate those of hers that it names.
    fn standing(&self) -> BTreeSet<usize> {
        match &self.certificate {
            None => self.held.clone(),
            Some(wish) => self.held.intersection(&wish.roles).copied().collect(),
        }
    }

    fn demanded(&self) -> bool {
        let mut held = self.held.iter();
        held.any(|role| !self.broken(*role) && self.roles[*role].request_access != "optional")
    }

    /// Whether a lock keeps her from everything: on a role that she has, or that her certificate
    /// names.
    pub fn shut_out(&self) -> bool {
        let named = self.certificate.iter().flat_map(|wish| &wish.roles);
        let mut roles = self.held.iter().chain(named);
        roles.any(|role| self.locked_roles.contains(role))
    }

    fn asking_denied(&self, role: usize, by_resource: bool) -> bool {
        self.held.iter().any(|held| {
            let wish = &self.roles[*held];
            let denied = if by_resource {
                &wish.denied_search_as
            } else {
                &wish.denied_asks_for
            };
            self.broken(*held) || denied.contains(&role)
        })
    }

    fn may_ask(&self, role: usize, by_resource: bool) -> bool {
        let allowed = self.standing().iter().any(|held| {
            let wish = &self.roles[*held];
            let allowed = if by_resource {
                &wish.search_as
            } else {
                &wish.asks_for
            };
            !self.broken(*held) && allowed.contains(&role)
        });
        allowed && !self.asking_denied(role, by_resource)
    }

    /// Whether an approved request still gives one of its roles.
    fn gives(&self, wish: &RequestWish, role: usize) -> bool {
        let by_resource = wish.resources.is_some();
        if wish.overridden.contains(&role) {
            !self.asking_denied(role, by_resource)
        } else {
            self.may_ask(role, by_resource)
        }
    }

    /// The requests that are open to the key, or to the certificate, that asks.
    fn open(&self) -> impl Iterator<Item = (usize, &RequestWish)> {
        let named = |n: usize| match &self.certificate {
            None => true,
            Some(CertificateWish { requests, .. }) => requests.contains(&n),
        };
        self.requests.iter().enumerate().filter(move |(n, wish)| {
            wish.state == State::Approved
                && wish.own_key
                && !wish.dropped
                && wish.starts <= 0
                && 0 < wish.ends
                && named(*n)
        })
    }

    fn extends(wish: &RequestWish, asked: Question) -> bool {
        !wish.scoped || asked.runs_command
    }

    fn is_locked(&self, wish: &RequestWish) -> bool {
        wish.roles
            .iter()
            .any(|role| self.locked_roles.contains(role))
    }

    fn listed(wish: &RequestWish, node: usize, login: &str) -> bool {
        wish.resources.as_ref().is_none_or(|resources| {
            let logins = resources.get(&(node as u128 + 1));
            logins.is_some_and(|logins| {
                logins
                    .as_ref()
                    .is_none_or(|logins| logins.iter().any(|n| LOGINS[*n] == login))
            })
        })
    }

    fn in_certificate(&self, node: usize, login: &str) -> bool {
        let Some(CertificateWish {
            allowed: Some(allowed),
            ..
        }) = &self.certificate
        else {
            return true;
        };
        let logins = allowed.get(&(node as u128 + 1));
        logins.is_some_and(|logins| {
            logins
                .as_ref()
                .is_none_or(|logins| logins.iter().any(|n| LOGINS[*n] == login))
        })
    }

    /// Whether a role speaks against it by every path. The roles of a request for resources speak
    /// against that request only; a locked one gives nothing, and denies all the same.
    fn against(&self, node: usize, login: &str, asked: Question) -> bool {
        let everywhere = self.open().filter(|(_, wish)| wish.resources.is_none());
        let requested = everywhere
            .filter(|(_, wish)| Self::extends(wish, asked))
            .flat_map(|(_, wish)| &wish.roles);
        let mut against = self.held.iter().chain(requested);
        against.any(|role| self.denies(*role, node, login))
    }

    /// Whether one open request by itself gives the login on the node.
    fn opened_by(&self, wish: &RequestWish, node: usize, login: &str) -> bool {
        let mut roles = wish.roles.iter();
        let refused = wish
            .roles
            .iter()
            .any(|role| self.denies(*role, node, login));
        Self::listed(wish, node, login)
            && !refused
            && roles.any(|role| self.gives(wish, *role) && self.grants(*role, node, login))
    }

    /// The requests through which it works.
    fn requests_that_open(&self, node: usize, login: &str, asked: Question) -> BTreeSet<usize> {
        let giving: Vec<(usize, &RequestWish)> = self
            .open()
            .filter(|(_, wish)| Self::extends(wish, asked))
            .filter(|(_, wish)| !asked.locked || !self.is_locked(wish))
            .collect();
        let mut by: BTreeSet<usize> = giving
            .iter()
            .filter(|(_, wish)| self.opened_by(wish, node, login))
            .map(|(n, _)| *n)
            .collect();
        let standing = self.standing();
        let has = standing.iter().any(|role| self.grants(*role, node, login));
        if has && self.demanded() {
            // What unlocks standing roles is the role request that lasts longest.
            let unlocks = giving.iter().filter(|(_, wish)| {
                let mut roles = wish.roles.iter();
                wish.resources.is_none() && roles.any(|role| self.gives(wish, *role))
            });
            by.extend(
                unlocks
                    .max_by_key(|(n, wish)| (wish.ends, Reverse(*n)))
                    .map(|(n, _)| *n),
            );
        }
        by
    }

    fn asks_through(&self, node: usize, login: &str, asked: Question) -> BTreeSet<usize> {
        (0..ROLES)
            .filter(|role| self.may_ask(*role, true))
            .filter(|role| !asked.locked || !self.locked_roles.contains(role))
            .filter(|role| self.grants(*role, node, login) && !self.denies(*role, node, login))
            .collect()
    }

    /// The roles that she may ask for by name.
    pub fn requestable_roles(&self) -> BTreeSet<usize> {
        let free = |role: &usize| !self.locked_roles.contains(role) && !self.held.contains(role);
        let roles = (0..ROLES).filter(free).filter(|_| !self.shut_out());
        roles.filter(|role| self.may_ask(*role, false)).collect()
    }

    /// The roles as which she may ask for nodes.
    pub fn search_as(&self) -> BTreeSet<usize> {
        let free = |role: &usize| !self.locked_roles.contains(role);
        let roles = (0..ROLES).filter(free).filter(|_| !self.shut_out());
        roles.filter(|role| self.may_ask(*role, true)).collect()
    }

    pub fn answer(&self, node: usize, login: &str, asked: Question) -> Answer {
        let of_login = |n: &usize| LOGINS[*n] == login;
        let locked = self.locked_nodes.contains(&node) || self.locked_logins.iter().any(of_login);
        if self.shut_out()
            || !self.in_certificate(node, login)
            || locked
            || self.against(node, login, asked)
        {
            return Answer::Deny;
        }
        let standing = self.standing();
        let has = standing.iter().any(|role| self.grants(*role, node, login));
        if has && !self.demanded() {
            return Answer::Standing;
        }
        let by = self.requests_that_open(node, login, asked);
        let best = |n: &usize| {
            let wish = &self.requests[*n];
            (!wish.scoped, wish.ends, Reverse(*n))
        };
        if let Some(request) = by.into_iter().max_by_key(best) {
            return Answer::Request(request);
        }
        // What would work if nothing were locked is not asked for once more.
        let free = asked.if_nothing_were_locked();
        if !self.requests_that_open(node, login, free).is_empty() {
            return Answer::Deny;
        }
        let through = self.asks_through(node, login, asked);
        if through.is_empty() {
            Answer::Deny
        } else {
            Answer::Ask(through)
        }
    }

    /// Whether she may know of the node. A lock shuts and does not hide, and so do a restricted
    /// certificate and a role that demands a request; what works with one command is known.
    pub fn known(&self, node: usize, asked: Question) -> bool {
        let free = asked.if_nothing_were_locked();
        let standing = self.standing();
        !self.shut_out()
            && LOGINS.iter().any(|login| {
                !self.against(node, login, free)
                    && (standing.iter().any(|role| self.grants(*role, node, login))
                        || self
                            .open()
                            .any(|(_, wish)| self.opened_by(wish, node, login))
                        || !self.asks_through(node, login, free).is_empty())
            })
    }

    /// How many logins alice has through the role.
    pub fn width(&self, role: usize) -> usize {
        let wishes = self.roles[role].logins.iter();
        let logins: BTreeSet<&str> = wishes.flat_map(|wish| wish.means).copied().collect();
        logins.len()
    }
}
