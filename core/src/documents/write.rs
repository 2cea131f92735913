//! Stored objects as documents again, so that what `get` prints goes back into `create`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::lock::Lock;
use crate::node::{HostProof, Node};
use crate::token::Token;
use crate::user::User;

/// `user` as a document. Everything is in it but the fingerprints, which follow from the keys.
#[must_use]
pub fn user_to_json(user: &User) -> Value {
    let mut traits = serde_json::Map::new();
    for (name, values) in &user.traits {
        traits.insert(name.clone(), json!(values));
    }
    traits.insert("logins".to_owned(), json!(user.logins));
    let mut spec = json!({
        "roles": user.roles,
        "traits": traits,
        "keys": user.keys.iter().map(|key| key.openssh.as_str()).collect::<Vec<_>>(),
    });
    if let (Some(message), Some(spec)) = (&user.locked, spec.as_object_mut()) {
        spec.insert("locked".to_owned(), json!(message));
    }
    json!({"kind": "user", "version": "v2", "metadata": {"name": user.name}, "spec": spec})
}

/// `node` as a document, with its UUID.
#[must_use]
pub fn node_to_json(node: &Node) -> Value {
    let mut spec = json!({"hostname": node.name, "addr": node.addr});
    if let Some(spec) = spec.as_object_mut() {
        match &node.host_proof {
            HostProof::Pinned(keys) => spec.insert("host_keys".to_owned(), json!(keys)),
            HostProof::HostCa => spec.insert("host_ca".to_owned(), json!(true)),
        };
        if !node.egress_addresses.is_empty() {
            spec.insert("egress_addresses".to_owned(), json!(node.egress_addresses));
        }
    }
    // What the node says of itself would be the operator's word when this is read again.
    let labels: BTreeMap<_, _> = node.labels_set().collect();
    let metadata = json!({"name": node.id, "labels": labels});
    json!({"kind": "node", "version": "v2", "metadata": metadata, "spec": spec})
}

/// `lock` as a document. Who made it and when is not in it: that is of this one lock, in the log.
#[must_use]
pub fn lock_to_json(lock: &Lock) -> Value {
    let mut target = serde_json::Map::new();
    target.insert(lock.target.kind().to_owned(), json!(lock.target.value()));
    let mut spec = json!({"target": target, "message": lock.message});
    if let (Some(end), Some(spec)) = (lock.expires, spec.as_object_mut()) {
        let end = end.format(&time::format_description::well_known::Rfc3339);
        spec.insert("expires".to_owned(), json!(end.unwrap_or_default()));
    }
    json!({"kind": "lock", "version": "v2", "metadata": {"name": lock.id}, "spec": spec})
}

/// `token` as a document. Its secret is in nobody's hands but its bearer's, and what is left of its uses is of
/// this one token.
#[must_use]
pub fn token_to_json(token: &Token) -> Value {
    let end = token
        .expires
        .format(&time::format_description::well_known::Rfc3339);
    let mut spec = json!({
        "type": token.kind,
        "uses": token.uses,
        "labels": token.labels,
        "expires": end.unwrap_or_default(),
    });
    if let Some(spec) = spec.as_object_mut() {
        spec.extend(
            token
                .node
                .as_ref()
                .map(|node| ("node".to_owned(), json!(node))),
        );
        spec.extend(
            token
                .addr
                .as_ref()
                .map(|addr| ("addr".to_owned(), json!(addr))),
        );
    }
    json!({"kind": "token", "version": "v2", "metadata": {"name": token.id}, "spec": spec})
}

/// A document as YAML, with a newline at the end.
///
/// # Errors
/// The writer's, for a value nested deeper than it goes; no document is.
pub fn to_yaml(document: &Value) -> Result<String, serde_saphyr::SerializeError> {
    let mut text = serde_saphyr::to_string(document)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
