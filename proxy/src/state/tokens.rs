//! Tokens, and the machines that come in by them. Tokens are made and removed like everything that
//! administrators keep; see [`super::objects`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_ca::Certificate;
use anteroom_ca::names::AdmittedName;
use anteroom_core::enrol::{self, Admitted, Asked, Refused};
use anteroom_core::id::{KeyFingerprint, NodeId};
use anteroom_core::node::Node;
use anteroom_core::token::{LONGEST_LIFE, MOST_TOKENS, Token};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use super::certificates::{CertifyHost, issue_host};
use super::draft::Draft;
use super::{By, IssueError, State, rfc3339};
use crate::audit::{Entry, Event, PROXY};
use crate::authority::Authorities;
use crate::store::StoreError;

/// Why a token was not made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It would be over at once.
    #[error("the token would have ended at {}; name a time to come", rfc3339(*.0))]
    Over(OffsetDateTime),
    /// It would live too long.
    #[error("the token would live until {}; the limit is {} days", rfc3339(*.0), LONGEST_LIFE.whole_days())]
    TooLong(OffsetDateTime),
    /// There are as many as there may be.
    #[error("there are {MOST_TOKENS} tokens already; remove some with `tokens rm` first")]
    TooMany,
}

/// A machine that was let in.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// What it is now.
    pub node: Arc<Node>,
    /// The token that it came by, as it was before.
    pub token: Arc<Token>,
    /// Whether it was so before.
    pub again: bool,
}

/// Why a machine was not let in.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// By the rules.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes the token; who and when is written here.
pub(super) fn put_token(draft: &mut Draft, by: &By, token: Token) -> Result<(), TokenError> {
    let now = draft.now();
    if token.expires <= now {
        return Err(TokenError::Over(token.expires));
    }
    if token.expires - now > LONGEST_LIFE {
        return Err(TokenError::TooLong(token.expires));
    }
    let replaced = draft.view().token(&token.id).is_some();
    if !replaced && draft.view().tokens().len() >= MOST_TOKENS {
        return Err(TokenError::TooMany);
    }
    if replaced {
        // A token is used up, and nothing else of it changes: what has its name is another one.
        draft.log(about_token(by.entry(Event::TokenDelete), &token).reason("replaced"));
        draft.remove_token(&token.id);
    }
    let token = Token {
        created: now,
        created_by: by.actor.to_string(),
        uses_left: token.uses,
        enrolled: Vec::new(),
        ..token
    };
    draft.log(about_token(by.entry(Event::TokenCreate), &token));
    draft.add_token(token);
    Ok(())
}

/// What the log says of a token.
pub(super) fn about_token(entry: Entry, token: &Token) -> Entry {
    let entry = entry.name(&token.id).expires(rfc3339(token.expires));
    let entry = match &token.node {
        Some(node) => entry.node(node),
        None => entry,
    };
    if token.labels.is_empty() {
        return entry;
    }
    let labels: Vec<String> = token
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Entry {
        labels: Some(labels.join(",")),
        ..entry
    }
}

/// Removes tokens whose time is over. Nothing hangs on it: a use looks at the time itself.
pub(super) fn let_tokens_end(draft: &mut Draft) {
    for id in draft.view().ended_tokens(draft.now()) {
        let Some(token) = draft.view().token(&id).cloned() else {
            continue;
        };
        let entry = about_token(Entry::new(Event::TokenDelete).user(PROXY), &token);
        draft.log(entry.reason("its time is over"));
        draft.remove_token(&id);
    }
}

impl State {
    /// Lets a machine in that shows a token: decides, takes one use of the token, registers the node and
    /// logs it, in one transaction. Of many who show one token of one use, one comes in.
    ///
    /// # Errors
    /// [`EnrolError`]; a refusal is in the log, without the secret.
    pub async fn enrol(&self, asked: Asked, from: SocketAddr) -> Result<Enrolled, EnrolError> {
        let enrolled = self.write(move |draft| enrol(draft, &asked, from)).await;
        self.shared.nodes.notify_one();
        enrolled
    }
}

/// The certificates that machines got by their tokens since the start, so that who gives the line again, for which
/// the token and public keys do, gets the same ones. At most [`MOST_HANDED_OUT`].
#[derive(Debug, Default)]
pub(super) struct HandedOut(Mutex<HashMap<(NodeId, KeyFingerprint), Handed>>);

#[derive(Debug)]
struct Handed {
    certificate: Certificate,
    names: Vec<AdmittedName>,
    authorities: Arc<Authorities>,
}

/// A large fleet from one image, with a key of each type. Beyond that the ones that end first are made anew.
const MOST_HANDED_OUT: usize = 32_768;

impl HandedOut {
    fn find(
        &self,
        key: &(NodeId, KeyFingerprint),
        is_good: impl Fn(&Handed) -> bool,
    ) -> Option<Certificate> {
        let handed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = handed.get(key).filter(|handed| is_good(handed));
        found.map(|handed| handed.certificate.clone())
    }

    fn keep(&self, key: (NodeId, KeyFingerprint), new: Handed) {
        let mut handed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if handed.len() >= MOST_HANDED_OUT && !handed.contains_key(&key) {
            let first = handed.iter();
            let first = first.min_by_key(|(_, one)| one.certificate.valid_before());
            if let Some(first) = first.map(|(key, _)| key.clone()) {
                handed.remove(&first);
            }
        }
        handed.insert(key, new);
    }
}

impl State {
    /// The host certificate of a node that came in by a token: the one that it got before while that does, with the
    /// same names and two thirds of its time left, or else a new one. Otherwise as [`State::issue_host`].
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn issue_enrolled_host<F>(
        &self,
        (node, key): (NodeId, &KeyFingerprint),
        from: SocketAddr,
        names: &[AdmittedName],
        lifetime: Duration,
        certify: F,
    ) -> Result<Certificate, IssueError>
    where
        F: CertifyHost,
    {
        let (view, now) = (self.view(), self.now());
        let (authorities, key) = (self.authorities(), (node, key.clone()));
        let locks = view.locks();
        let is_good = |handed: &Handed| {
            let (serial, ends) = (
                handed.certificate.serial().get(),
                handed.certificate.valid_before(),
            );
            let certified = view.certified_hosts_of(&node).iter();
            let locked =
                locks.on_key(&key.1, now).is_some() || locks.on_serial(serial, now).is_some();
            let signs = |now: &Arc<Authorities>| Arc::ptr_eq(now, &handed.authorities);
            !locked
                && handed.names == names
                && authorities.as_ref().is_some_and(signs)
                && certified.into_iter().any(|one| one.serial == serial)
                && (ends - now) * 3 > lifetime * 2
        };
        if let Some(certificate) = self.shared.handed_out.find(&key, is_good) {
            return Ok(certificate);
        }
        let certificate = self
            .issue_new_to_enrolled(node, from, lifetime, certify)
            .await?;
        if let Some(authorities) = authorities {
            let new = Handed {
                certificate: certificate.clone(),
                names: names.to_vec(),
                authorities,
            };
            self.shared.handed_out.keep(key, new);
        }
        Ok(certificate)
    }

    async fn issue_new_to_enrolled<F>(
        &self,
        node: NodeId,
        from: SocketAddr,
        lifetime: Duration,
        certify: F,
    ) -> Result<Certificate, IssueError>
    where
        F: CertifyHost,
    {
        self.write_signed(move |draft, ticket| {
            // It may have been removed a moment ago.
            if draft.view().node(&node).is_none() {
                return Err(StoreError::Conflict(format!("node `{node}`")).into());
            }
            let entry = Entry::new(Event::CertCreate).user(PROXY).node_id(node);
            let entry = entry.remote_addr(from);
            issue_host(draft, ticket, lifetime, Some(node), entry, &certify)
        })
        .await
    }
}

fn enrol(draft: &mut Draft, asked: &Asked, from: SocketAddr) -> Result<Enrolled, EnrolError> {
    let entry = |event| Entry::new(event).user(PROXY).remote_addr(from);
    let admitted = enrol::admit(draft.view(), asked, draft.now());
    let admitted = admitted.inspect_err(|refused| {
        let mut entry = entry(Event::InstanceJoin).refused(refused);
        // Without a token anybody could write names into the log that look like nodes.
        if !refused.is_of_the_token() {
            entry.node = asked.name.as_ref().map(ToString::to_string);
            entry.name = draft
                .view()
                .token_by_secret(&asked.secret_sha256)
                .map(|token| token.id.to_string());
        }
        draft.log(entry);
    })?;
    let joined = |node: &Node, token: &Token| {
        entry(Event::InstanceJoin)
            .name(&token.id)
            .delegator(&token.created_by)
            .node(&node.name)
            .node_id(node.id)
    };
    Ok(match admitted {
        Admitted::New { node, token } => {
            draft.log(joined(&node, &token));
            let created = entry(Event::NodeCreate).name(&node.name);
            draft.log(created.node(&node.name).node_id(node.id));
            draft.put_node(node.clone());
            draft.use_token(&token, node.id, from);
            Enrolled {
                node: Arc::new(node),
                token,
                again: false,
            }
        }
        Admitted::Known { node, token } => {
            draft.log(joined(&node, &token).reason("a node already, set up again"));
            draft.use_token(&token, node.id, from);
            Enrolled {
                node,
                token,
                again: true,
            }
        }
        Admitted::Again { node, token } => {
            draft.log(joined(&node, &token).reason("again"));
            Enrolled {
                node,
                token,
                again: true,
            }
        }
    })
}
