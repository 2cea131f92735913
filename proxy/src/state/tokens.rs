//! Tokens, and the machines that come in by them. Tokens are made and removed like everything that
//! administrators keep; see [`super::objects`].

use std::net::SocketAddr;
use std::sync::Arc;

use anteroom_ca::Certificate;
use anteroom_core::enrol::{self, Admitted, Asked, Refused};
use anteroom_core::id::NodeId;
use anteroom_core::node::Node;
use anteroom_core::token::{LONGEST_LIFE, MOST_TOKENS, Token};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use super::certificates::{CertifyHost, issue_host};
use super::draft::Draft;
use super::{By, IssueError, State, rfc3339};
use crate::audit::{Entry, Event, PROXY};
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

impl State {
    /// Issues the host certificate of a node that has just come in. Otherwise as [`State::issue_host`].
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn issue_enrolled_host<F>(
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
