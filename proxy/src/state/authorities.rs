//! The certificate authorities: taking them over at the start, turning them, and what nodes have learnt.

use std::collections::{HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

use anteroom_core::admin::{AdminObject, AdminVerb, allowed};
use anteroom_core::id::NodeId;
use anteroom_core::node::HostProof;
use anteroom_core::request::Actor;
use ssh_key::PublicKey;
use time::{Duration, OffsetDateTime};

use super::objects::proven;
use super::{By, NotAllowed, State, not_from_a_node};
use crate::audit::{Entry, Event, PROXY};
use crate::authority::{
    Authorities, AuthorityKind, Record, Retired, RotateError, Stage, Turn, Unavailable, print,
};
use crate::store::{Learnt, StoreError};

/// How long until a node that refused the announced CA is asked again. Each time is a failed login in
/// its log.
const ASK_AGAIN: Duration = Duration::minutes(10);

/// What is known of what nodes have learnt.
#[derive(Debug, Default)]
pub(super) struct Learning {
    learnt: HashMap<Learnt, OffsetDateTime>,
    /// Being written down.
    noting: HashSet<Learnt>,
    /// When a node was last asked whether it takes an announced key.
    asked: HashMap<Learnt, OffsetDateTime>,
    /// When a node first fetched a new key by itself. That it has it is not yet that its sshd trusts it.
    fetched: HashMap<Learnt, OffsetDateTime>,
}

/// An authority as the start has found it.
#[derive(Debug)]
pub struct Adopted {
    /// How it is.
    pub record: Record,
    /// The key that it had, if an operator has replaced it.
    pub replaced: Option<PublicKey>,
}

/// A node during a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learner {
    /// The node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Since when it is known to go by the new key.
    pub learnt: Option<OffsetDateTime>,
    /// When it last refused the announced key, since the proxy was started.
    pub refused: Option<OffsetDateTime>,
    /// Since when it has fetched the new key by itself, since the proxy was started.
    pub fetched: Option<OffsetDateTime>,
}

impl State {
    /// Has `authorities` sign from now on, and writes down what the database does not know of them
    /// yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn adopt(
        &self,
        authorities: Authorities,
        unrecorded: Vec<Adopted>,
    ) -> Result<(), StoreError> {
        let known = self.reader().authorities_learnt().await?;
        self.learning().learnt.extend(known);
        self.write(move |draft| {
            let now = draft.now();
            for Adopted { record, replaced } in unrecorded {
                let kind = record.kind;
                let mut why = format!("{} signs", print(&record.signing));
                if let Some(old) = replaced {
                    why = format!("{why}: its file took the place of {}'s", print(&old));
                    draft.forget_authority(kind);
                    draft.retire_authority(Retired {
                        kind,
                        key: old,
                        at: now,
                    });
                }
                let entry = Entry::new(Event::CaRotate).user(PROXY).name(kind);
                draft.log(entry.reason(why));
                draft.put_authority(record);
            }
            draft.set_authorities(authorities);
            Ok(())
        })
        .await
    }

    /// Turns an authority: stage, keys and log entry in one commit, and from then on its certificates
    /// are signed by whom the new stage says.
    pub(crate) async fn rotate(&self, by: &By, turn: Turn) -> Result<Record, RotateError> {
        let by = by.clone();
        self.write(move |draft| {
            let kind = turn.before.kind;
            let turned = (|| {
                by.admit(draft)?;
                not_from_a_node(draft, by.from)?;
                may_rotate(draft, &by, kind)?;
                let now = draft.authorities().ok_or(Unavailable(kind))?;
                match *now.record(kind) == turn.before {
                    true => Ok(()),
                    false => Err(RotateError::Changed(kind)),
                }
            })();
            if let Err(error) = turned {
                let entry = by.entry(Event::CaRotate).refused(&error);
                draft.log(entry.name(kind));
                return Err(error);
            }
            let now = draft.now();
            if let Some(key) = turn.retired.clone() {
                draft.retire_authority(Retired { kind, key, at: now });
            }
            draft.log(by.entry(Event::CaRotate).name(kind).reason(told(&turn)));
            draft.put_authority(turn.after.clone());
            draft.set_authorities(turn.authorities);
            Ok(turn.after)
        })
        .await
    }

    /// Writes down that a node goes by a key, once.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn learnt(
        &self,
        kind: AuthorityKind,
        node: NodeId,
        key: &PublicKey,
    ) -> Result<(), StoreError> {
        let learnt = Learnt {
            kind,
            node,
            fingerprint: print(key),
        };
        {
            let mut learning = self.learning();
            if learning.learnt.contains_key(&learnt) || !learning.noting.insert(learnt.clone()) {
                return Ok(());
            }
        }
        let noted = learnt.clone();
        let written = self
            .write(move |draft| {
                draft.note_learnt(noted);
                Ok(())
            })
            .await;
        let now = self.now();
        let mut learning = self.learning();
        learning.noting.remove(&learnt);
        if written.is_ok() {
            learning.asked.remove(&learnt);
            learning.learnt.insert(learnt, now);
        }
        written
    }

    /// Whether it is time to ask a node if it takes certificates of the announced node CA; says so
    /// once in ten minutes.
    #[must_use]
    pub fn is_to_be_asked(&self, node: NodeId) -> bool {
        let Some(authorities) = self.authorities() else {
            return false;
        };
        let Stage::Announced { next } = &authorities.node.record.stage else {
            return false;
        };
        let learnt = Learnt {
            kind: AuthorityKind::Node,
            node,
            fingerprint: print(next),
        };
        let now = self.now();
        let mut learning = self.learning();
        let lately = |at: &OffsetDateTime| now - *at < ASK_AGAIN;
        if learning.learnt.contains_key(&learnt) || learning.asked.get(&learnt).is_some_and(lately)
        {
            return false;
        }
        // Bounded by the nodes there are: what was asked of another key is of no use any more.
        let key = &learnt.fingerprint;
        learning.asked.retain(|asked, _| asked.fingerprint == *key);
        learning.asked.insert(learnt, now);
        true
    }

    /// Takes note that a node has fetched the keys of the node CA; outside of a rotation it does nothing. It is
    /// no more than what it was told: what it trusts is seen at a login.
    pub fn fetched_node_authorities(&self, node: NodeId) {
        let kind = AuthorityKind::Node;
        let Some(authorities) = self.authorities() else {
            return;
        };
        let record = authorities.record(kind);
        if record.stage == Stage::Stable {
            return;
        }
        let fingerprint = print(record.newest());
        let now = self.now();
        let mut learning = self.learning();
        // Bounded by the nodes there are, as `asked` is.
        learning
            .fetched
            .retain(|old, _| old.fingerprint == fingerprint);
        let learnt = Learnt {
            kind,
            node,
            fingerprint,
        };
        learning.fetched.entry(learnt).or_insert(now);
    }

    /// What every node knows of the rotation of an authority: those that have to learn of it, by name.
    #[must_use]
    pub fn learners(&self, kind: AuthorityKind) -> Vec<Learner> {
        let Some(authorities) = self.authorities() else {
            return Vec::new();
        };
        let record = authorities.record(kind);
        if record.stage == Stage::Stable {
            return Vec::new();
        }
        let fingerprint = print(record.newest());
        let learning = self.learning();
        let mut found: Vec<Learner> = self
            .view()
            .nodes()
            .filter(|node| match kind {
                // What people hold is for proxies alone.
                AuthorityKind::User => false,
                AuthorityKind::Node => true,
                AuthorityKind::Host => node.host_proof == HostProof::HostCa,
            })
            .map(|node| {
                let key = Learnt {
                    kind,
                    node: node.id,
                    fingerprint: fingerprint.clone(),
                };
                Learner {
                    id: node.id,
                    name: node.name.to_string(),
                    learnt: learning.learnt.get(&key).copied(),
                    refused: learning.asked.get(&key).copied(),
                    fetched: learning.fetched.get(&key).copied(),
                }
            })
            .collect();
        found.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        found
    }

    /// The nodes that are not known to go by the new key of an authority.
    #[must_use]
    pub fn yet_to_learn(&self, kind: AuthorityKind) -> Vec<Learner> {
        let mut all = self.learners(kind);
        all.retain(|node| node.learnt.is_none());
        all
    }

    /// The user CAs that are trusted, and those that were once.
    #[must_use]
    pub fn user_authorities(&self) -> (Vec<PublicKey>, Vec<PublicKey>) {
        // Without keys nothing is trusted.
        self.authorities().map_or_else(Default::default, |all| {
            (
                all.user.record.trusted(),
                all.retired_of(AuthorityKind::User),
            )
        })
    }

    fn learning(&self) -> MutexGuard<'_, Learning> {
        // A panic in between leaves a note out, which is written at the next login.
        self.shared
            .learning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn may_rotate(draft: &super::Draft, by: &By, kind: AuthorityKind) -> Result<(), NotAllowed> {
    let (verb, object) = (AdminVerb::Update, AdminObject::CertAuthority(kind.as_str()));
    let may = match &by.actor {
        Actor::User(name) => allowed(draft.view(), name, verb, object) && proven(draft.view(), by),
        Actor::LocalAdministrator => true,
        Actor::Clock | Actor::Rule(_) => false,
    };
    match may {
        true => Ok(()),
        false => Err(NotAllowed {
            verb,
            resource: object.resource(),
        }),
    }
}

/// What the log says of a step.
fn told(turn: &Turn) -> String {
    let signing = print(&turn.after.signing);
    let step = turn.step.as_str();
    let beside = turn.after.stage.other().map(print);
    let retired = turn.retired.as_ref().map(print);
    match (beside, retired) {
        (Some(other), _) => format!("{step}: {signing} signs, {other} is trusted too"),
        (None, Some(gone)) => format!("{step}: {signing} signs, {gone} is trusted no more"),
        (None, None) => format!("{step}: {signing} signs"),
    }
}
