//! One object into the draft, with its log, and what follows from it for certificates of users and nodes.

use anteroom_ca::key::fingerprint;
use anteroom_core::id::KeyFingerprint;
use anteroom_core::node::{HostProof, Node, SetLabelError, bounded_labels};
use anteroom_core::view::View;
use ssh_key::PublicKey;

use super::check::twins;
use super::{Existing, Object, ObjectId, PutError, Stored, Written, and_reason};
use crate::audit::{Entry, Event};
use crate::state::By;
use crate::state::draft::Draft;
use crate::state::identities::revoke_certificates_of;
use crate::state::locks::{about_lock, put_lock};
use crate::state::monitoring::put_rule;
use crate::state::tokens::{about_token, put_token};
use crate::store::{HostRevocation, RENAMED};

/// Whether the object is there, and nothing about it differs, so that it is left alone: a node whether or not it
/// may be replaced, so that its document can be applied again; anything else where it may. A lock and a token
/// are something new each time that they are written.
pub(super) fn is_as_it_was(view: &View, object: &Object, existing: Existing) -> bool {
    match object {
        Object::Role(_) | Object::User(_) | Object::MonitoringRule(_) | Object::Resource(_)
            if existing == Existing::Refuse =>
        {
            false
        }
        Object::Role(role) => view
            .role(&role.name)
            .is_some_and(|before| **before == *role),
        Object::User(user) => view
            .user(&user.name)
            .is_some_and(|before| **before == *user),
        Object::Node(node) => view.node(&node.id).is_some_and(|before| **before == *node),
        Object::MonitoringRule(rule) => {
            let before = view.monitoring_rule(&rule.name);
            before.is_some_and(|before| **before == *rule)
        }
        Object::Resource(resource) => {
            let before = view.resource(resource.kind(), resource.name.as_str());
            before.is_some_and(|before| **before == *resource)
        }
        Object::Lock(_) | Object::Token(_) => false,
    }
}

/// Whether its labels are within their bounds. What was stored before there were any stays until it is changed.
fn labels_fit(view: &View, object: &Object) -> Result<(), SetLabelError> {
    match object {
        Object::Node(node) => {
            let before = view.node(&node.id);
            match before.is_some_and(|before| before.labels_set().eq(node.labels_set())) {
                true => Ok(()),
                false => bounded_labels(node.labels_set()),
            }
        }
        Object::Resource(resource) => {
            let before = view.resource(resource.kind(), resource.name.as_str());
            match before.is_some_and(|before| before.labels == resource.labels) {
                true => Ok(()),
                false => bounded_labels(&resource.labels),
            }
        }
        Object::Token(token) => bounded_labels(&token.labels),
        Object::Role(_) | Object::User(_) | Object::Lock(_) | Object::MonitoringRule(_) => Ok(()),
    }
}

pub(super) fn put(
    draft: &mut Draft,
    by: &By,
    object: Object,
    existing: Existing,
) -> Result<Stored, PutError> {
    let id = object.id();
    let written = match (id.is_in(draft.view()), existing) {
        (false, Existing::Refuse | Existing::Replace) => Written::Created,
        (true, Existing::Replace) => Written::Replaced,
        (true, Existing::Refuse) => return Err(PutError::Exists(id)),
    };
    if let (ObjectId::User(name), Written::Created) = (&id, written)
        && let Some(why) = name.reserved()
    {
        let user = name.clone();
        return Err(PutError::ReservedName { user, why });
    }
    if let Err(why) = labels_fit(draft.view(), &object) {
        return Err(PutError::Labels { id, why });
    }
    let mut warnings = match &object {
        Object::Node(node) => twins(draft.view(), node),
        Object::Lock(lock) => {
            let stored = put_lock(draft, by, lock)?;
            return Ok(Stored {
                id,
                written,
                warnings: stored,
            });
        }
        Object::Token(token) => {
            put_token(draft, by, token.clone())?;
            Vec::new()
        }
        Object::Role(_) | Object::User(_) | Object::Resource(_) | Object::MonitoringRule(_) => {
            Vec::new()
        }
    };
    let event = match (&object, written) {
        (Object::Role(_), Written::Created) => Event::RoleCreate,
        (Object::Role(_), Written::Replaced) => Event::RoleUpdate,
        (Object::User(_), Written::Created) => Event::UserCreate,
        (Object::User(_), Written::Replaced) => Event::UserUpdate,
        (Object::Node(_), Written::Created) => Event::NodeCreate,
        (Object::Node(_), Written::Replaced) => Event::NodeUpdate,
        (Object::Lock(_), _) => Event::LockCreate,
        (Object::Resource(resource), Written::Created) => Event::ResourceCreate(resource.kind()),
        (Object::Resource(resource), Written::Replaced) => Event::ResourceUpdate(resource.kind()),
        (Object::MonitoringRule(_), Written::Created) => Event::MonitoringRuleCreate,
        (Object::MonitoringRule(_), Written::Replaced) => Event::MonitoringRuleUpdate,
        // It has logged itself; what was the same was left alone above.
        (Object::Token(_), _) | (_, Written::Unchanged) => {
            return Ok(Stored {
                id,
                written,
                warnings,
            });
        }
    };
    let mut entry = named(by.entry(event), &object);
    if let Object::User(user) = &object {
        let key_removed = "its key was removed from the user";
        let has = |key: &KeyFingerprint| user.has_key(key);
        let revoked = revoke_certificates_of(draft, &user.name, has, key_removed);
        entry = and_reason(entry, revoked);
    }
    if let Object::Node(node) = &object {
        entry = and_reason(entry, rekeyed(draft.view(), node));
    }
    draft.log(entry);
    if let Object::Node(node) = &object {
        revoke_what_is_not_pinned(draft, by, node);
        warnings.extend(revoke_the_old_name(draft, by, node));
    }
    match object {
        Object::Role(role) => draft.put_role(role),
        Object::User(user) => draft.put_user(user),
        Object::Node(node) => draft.put_node(node),
        Object::Lock(lock) => draft.put_lock(lock),
        Object::Resource(resource) => draft.put_resource(resource),
        Object::MonitoringRule(rule) => put_rule(draft, by, rule)?,
        Object::Token(_) => {}
    }
    Ok(Stored {
        id,
        written,
        warnings,
    })
}

/// Where an operator says by which keys a node is known from now on, certificates for other keys of
/// it are of the past. The node is as it was before.
fn revoke_what_is_not_pinned(draft: &mut Draft, by: &By, node: &Node) {
    let HostProof::Pinned(keys) = &node.host_proof else {
        return;
    };
    let before = draft.view().node(&node.id);
    if before.is_none_or(|before| before.host_proof == node.host_proof) {
        return;
    }
    let pinned = keys.iter().filter_map(|key| {
        let key = PublicKey::from_openssh(key).ok()?;
        Some(fingerprint(&key).to_string())
    });
    let which = HostRevocation {
        node: node.id,
        but_for: pinned.collect(),
        key_type: None,
        why: "the node is known by other keys now".to_owned(),
    };
    let entry = by.entry(Event::NodeUpdate).name(&node.name);
    draft.revoke_hosts(which, entry.node(&node.name).node_id(node.id));
}

/// A name that a node has no more may be another's soon, and a certificate with it would be that node's proof. Which
/// of its certificates carry the name is not in the view, and hardly any does not. Says so where there were any.
fn revoke_the_old_name(draft: &mut Draft, by: &By, node: &Node) -> Option<String> {
    let before = draft.view().node(&node.id)?;
    if before.name == node.name {
        return None;
    }
    let had = draft.view().certified_keys_of(&node.id).next().is_some();
    let which = HostRevocation {
        node: node.id,
        but_for: Vec::new(),
        key_type: None,
        why: RENAMED.to_owned(),
    };
    let entry = by.entry(Event::NodeUpdate).name(&node.name);
    draft.revoke_hosts(which, entry.node(&node.name).node_id(node.id));
    had.then(|| {
        format!(
            "the host certificates of `{}` count no more, since it had another name; make new ones with `nodes host-cert`",
            node.name
        )
    })
}

/// By what the node was known and is known now, where that changes.
fn rekeyed(view: &View, node: &Node) -> Option<String> {
    let before = view.node(&node.id)?;
    let known_by = |proof: &HostProof| match proof {
        HostProof::HostCa => "a host certificate".to_owned(),
        HostProof::Pinned(keys) => {
            let keys = keys
                .iter()
                .filter_map(|key| PublicKey::from_openssh(key).ok());
            let keys: Vec<String> = keys.map(|key| fingerprint(&key).to_string()).collect();
            keys.join(", ")
        }
    };
    (before.host_proof != node.host_proof).then(|| {
        format!(
            "known by {} in the place of {}",
            known_by(&node.host_proof),
            known_by(&before.host_proof)
        )
    })
}

fn named(entry: Entry, object: &Object) -> Entry {
    match object {
        Object::Role(role) => entry.name(&role.name),
        Object::User(user) => {
            let entry = entry.name(&user.name);
            match &user.locked {
                Some(message) => entry.state("locked").reason(message),
                None => entry,
            }
        }
        Object::Node(node) => entry.name(&node.name).node(&node.name).node_id(node.id),
        Object::Lock(lock) => about_lock(entry, lock),
        Object::Resource(resource) => entry.name(&resource.name),
        Object::MonitoringRule(rule) => entry.name(&rule.name).state(rule.decision.as_str()),
        Object::Token(token) => about_token(entry, token),
    }
}
