//! What is to be logged, before it has a place in the log. Strings may come from peers as they are.

use std::fmt;

use super::{Event, Outcome};

/// Who did it where nobody else did. It has a space, as no user name can: what the log tells of a
/// user is never told of the proxy.
pub const PROXY: &str = "the proxy";

/// What is to be logged. Time, number, cluster and hashes are added by the store when the
/// entry is committed.
///
/// Every field is optional but the event; a field that is `None` is not written. Strings may come
/// from peers as they are: the log escapes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What happened.
    pub event: Event,
    /// Whether it was done or refused.
    pub outcome: Outcome,
    /// Who did it: an Anteroom user name, `the local administrator`, or [`PROXY`].
    pub user: Option<String>,
    /// Where the user came from, as `address:port`.
    pub remote_addr: Option<String>,
    /// The fingerprint of the key that was used.
    pub key: Option<String>,
    /// The node's UUID.
    pub node_id: Option<String>,
    /// The node's name.
    pub node: Option<String>,
    /// The login on the node.
    pub login: Option<String>,
    /// The access request.
    pub request_id: Option<String>,
    /// The session.
    pub session_id: Option<String>,
    /// The request's state after the event, or the verdict of a review.
    pub state: Option<String>,
    /// A certificate's serial number, in decimal.
    pub serial: Option<String>,
    /// Why: the reason a person gave, or the sentence a refusal said.
    pub reason: Option<String>,
    /// The name of the object that was created, changed or removed, or the target of a forward.
    pub name: Option<String>,
    /// The command that was run or stated.
    pub command: Option<String>,
    /// How it ended: exit status or signal.
    pub exit: Option<String>,
    /// Bytes from the user to the node.
    pub bytes_sent: Option<u64>,
    /// Bytes from the node to the user.
    pub bytes_received: Option<u64>,
    /// When what was granted ends, RFC 3339.
    pub expires: Option<String>,
    /// Lower-case hexadecimal SHA-256 of a certificate.
    pub certificate_sha256: Option<String>,
    /// What a review says the request's state should be.
    pub proposed_state: Option<String>,
    /// On whose behalf it was decided.
    pub delegator: Option<String>,
    /// Attributes that were given with it, as `key=value` with commas.
    pub annotations: Option<String>,
    /// What did it by itself: `access_monitoring_rule/NAME` or `pre_approval/ID`.
    pub automatic: Option<String>,
    /// The roles that were asked for. `core` bounds how many.
    pub roles: Vec<String>,
    /// The resources that were asked for. `core` bounds how many.
    pub resource_ids: Vec<String>,
    /// The lock that was made or taken away; `name` is then what it shuts, as `KIND/NAME`.
    pub lock_id: Option<String>,
    /// The pre-approval that was given or taken back; `name` is then the user it is for.
    pub pre_approval_id: Option<String>,
    /// The labels of nodes that it names, as `key=value` with commas.
    pub labels: Option<String>,
}

impl Entry {
    /// An entry about something that was done.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Self {
            event,
            outcome: Outcome::Succeeded,
            user: None,
            remote_addr: None,
            key: None,
            node_id: None,
            node: None,
            login: None,
            request_id: None,
            session_id: None,
            state: None,
            serial: None,
            reason: None,
            name: None,
            command: None,
            exit: None,
            bytes_sent: None,
            bytes_received: None,
            expires: None,
            certificate_sha256: None,
            proposed_state: None,
            delegator: None,
            annotations: None,
            automatic: None,
            roles: Vec::new(),
            resource_ids: Vec::new(),
            lock_id: None,
            pre_approval_id: None,
            labels: None,
        }
    }

    /// An entry about something that was refused or failed, and why.
    #[must_use]
    pub fn failed(event: Event, why: impl fmt::Display) -> Self {
        Self::new(event).refused(why)
    }

    /// The same, but it was refused or failed, and why.
    #[must_use]
    pub fn refused(self, why: impl fmt::Display) -> Self {
        Self {
            outcome: Outcome::Failed,
            reason: Some(why.to_string()),
            ..self
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        impl Entry {
            $($(#[$doc])* #[must_use] pub fn $field(mut self, value: impl fmt::Display) -> Self {
                self.$field = Some(value.to_string());
                self
            })*
        }
    };
}

setters! {
    /// Says who did it.
    user,
    /// Says where the user came from.
    remote_addr,
    /// Names the key that was used.
    key,
    /// Names the node by UUID.
    node_id,
    /// Names the node by name.
    node,
    /// Names the login on the node.
    login,
    /// Names the access request.
    request_id,
    /// Names the session.
    session_id,
    /// Says what state the request is in.
    state,
    /// Names the certificate.
    serial,
    /// Says why.
    reason,
    /// Names the object.
    name,
    /// Says which command.
    command,
    /// Says how it ended.
    exit,
    /// Says until when.
    expires,
    /// Says which certificate, byte for byte.
    certificate_sha256,
    /// Says what a review is for.
    proposed_state,
    /// Names the lock.
    lock_id,
    /// Says on whose behalf.
    delegator,
    /// Says with which attributes.
    annotations,
    /// Says which rule or pre-approval did it.
    automatic,
    /// Names the pre-approval.
    pre_approval_id,
}
