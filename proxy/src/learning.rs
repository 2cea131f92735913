//! What nodes have learnt of a rotation, seen from their logins.
//!
//! A login says which node CA the node trusts, and with `--host-ca` which host CA has signed what it shows. While
//! a new node CA is announced, the old one still signs, so logins would say nothing of the new one. Then, beside a
//! login that has succeeded, the node is asked by a second one with a certificate of the new CA: for the same
//! person, login and permit, ended at once, and recorded like every certificate. The person's own connection is not
//! touched by it; a node that refuses has one failed login in its log every ten minutes at most.

use std::sync::Arc;
use std::time::Duration;

use anteroom_core::id::{NodeId, SessionId};
use anteroom_core::node::HostProof;
use anteroom_core::policy::Permit;
use ssh_key::PublicKey;
use ssh_key::public::KeyData;
use tokio::sync::Semaphore;

use crate::authority::{AuthorityKind, Stage};
use crate::dial::{self, Caller};
use crate::proxy::Proxy;

/// Nodes that are asked at a time: it is nobody's haste, and each costs a key exchange.
static ASKING: Semaphore = Semaphore::const_new(4);

/// How long one may take in all: each step of a dial has its own limit below this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A login on a node that has succeeded.
pub(crate) struct Login {
    pub(crate) permit: Permit,
    pub(crate) caller: Caller,
    pub(crate) session: SessionId,
    /// Which authority signed what the node took.
    pub(crate) taken: KeyData,
    /// Which one signed what the node showed, if it showed a certificate.
    pub(crate) shown: Option<KeyData>,
}

/// Takes note of a login, in the background; outside of a rotation it does nothing.
pub(crate) fn after_login(proxy: &Arc<Proxy>, login: Login) {
    let Some(authorities) = proxy.state.authorities() else {
        return;
    };
    let node = login.permit.node();
    let host = &authorities.host.record;
    if host.stage != Stage::Stable
        && node.host_proof == HostProof::HostCa
        && login.shown.as_ref() == Some(host.newest().key_data())
    {
        note(proxy, AuthorityKind::Host, node.id, host.newest());
    }
    let record = &authorities.node.record;
    match &record.stage {
        Stage::Stable => {}
        Stage::Signing { .. } if login.taken == *record.signing.key_data() => {
            note(proxy, AuthorityKind::Node, node.id, &record.signing);
        }
        // Signed a moment before the new key was.
        Stage::Signing { .. } => {}
        Stage::Announced { next } => {
            if proxy.state.is_to_be_asked(node.id) {
                ask(Arc::clone(proxy), login, next.clone());
            }
        }
    }
}

fn note(proxy: &Arc<Proxy>, kind: AuthorityKind, node: NodeId, key: &PublicKey) {
    let (proxy, key) = (Arc::clone(proxy), key.clone());
    tokio::spawn(async move {
        if let Err(error) = proxy.state.learnt(kind, node, &key).await {
            tracing::warn!(%node, "what a node has learnt could not be written down: {error}");
        }
    });
}

/// Logs in on the node with a certificate of the announced CA, and leaves.
fn ask(proxy: Arc<Proxy>, login: Login, next: PublicKey) {
    tokio::spawn(async move {
        // It is never closed: waiting for it can't fail.
        let _place = ASKING.acquire().await.ok();
        let node = login.permit.node().name.clone();
        let asked = dial::try_announced(&proxy, &login.permit, &login.caller, login.session);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(connection)) => {
                note(&proxy, AuthorityKind::Node, login.permit.node().id, &next);
                connection.disconnect().await;
                tracing::info!(%node, "the node trusts the announced node CA");
            }
            Ok(Err(error)) => {
                let why = error.sentence();
                tracing::info!(%node, "the node does not take the announced node CA yet: {why}");
            }
            Err(_) => {
                tracing::info!(%node, "the node did not answer whether it trusts the announced node CA")
            }
        }
    });
}
