//! Issuing: decide, sign, write the row and its log entry, commit, and only then hand it out.

use std::net::SocketAddr;

use anteroom_ca::host::{CertifyHostError, HostTerms};
use anteroom_ca::key::{HostCa, NodeCa};
use anteroom_ca::node::{CertifyError, Terms, certify, certify_direct};
use anteroom_ca::{Certificate, ClockError, Serial, SourceAddresses};
use anteroom_core::admin::AdminVerb;
use anteroom_core::id::{KeyFingerprint, NodeId, SessionId};
use anteroom_core::policy::{Access, Decision, Identity, Permit, decide_for};
use rand::rngs::StdRng;
use ssh_key::PublicKey;
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use super::draft::Draft;
use super::objects::{NotAllowed, ObjectId, may};
use super::sessions::about_session;
use super::signing::{Signing, Ticket, Wants};
use super::{By, FromNode, NotAdmitted, State, not_from_a_node, rfc3339};
use crate::audit::{Entry, Event, PROXY, hex};
use crate::authority::{AuthorityKind, Unavailable, print};
use crate::store::{HostRevocation, Issuance, Kind, StoreError};

/// What an access certificate is to be made for.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The session that will use it.
    pub session: SessionId,
    /// The key that it certifies: an ephemeral one, or the user's own for direct use.
    pub key: PublicKey,
    /// Where the node will see the proxy coming from, or the user where she connects directly.
    pub source_addresses: SourceAddresses,
    /// The command that the session is going to run, if that is all it does.
    pub command: Option<Vec<u8>>,
    /// Where the user came from, for the log.
    pub from: Option<SocketAddr>,
}

/// A certificate that is committed and may leave the process.
#[derive(Debug, Clone)]
pub struct Issued {
    /// What the transaction decided; to be used from now on instead of any earlier permit.
    pub permit: Permit,
    /// The certificate.
    pub certificate: Certificate,
}

/// Why no certificate was issued.
#[derive(Debug, Error)]
pub enum IssueError {
    /// The decision, made again inside the transaction, is no longer a permit.
    #[error("access is not permitted any more")]
    NotPermitted(Box<Decision>),
    /// The proxy's clock was set back.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The permit is over, or the linter held the certificate back.
    #[error(transparent)]
    Certify(#[from] CertifyError),
    /// A host certificate was to be made for a key that is locked.
    #[error("the key {key} is locked{}; take the lock away with `locks rm`, or give the node another key", said(.message))]
    KeyLocked {
        /// Its fingerprint.
        key: String,
        /// What the lock says.
        message: String,
    },
    /// A host certificate could not be made.
    #[error(transparent)]
    Host(#[from] CertifyHostError),
    /// The authority's key does not sign now.
    #[error(transparent)]
    Authority(#[from] Unavailable),
    /// Who asks may do nothing any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It comes from a registered node.
    #[error(transparent)]
    FromNode(#[from] FromNode),
    /// The administrator's roles don't allow it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// It could not be recorded, so it was not handed out.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl State {
    /// Issues the certificate that opens one login on one node for one session.
    ///
    /// Decided, signed and recorded in one transaction: a grant that ended a moment ago issues
    /// nothing, and when this returns `Ok` the row and its entry are on the disk.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn issue(
        &self,
        identity: &Identity,
        access: &Access,
        subject: Subject,
    ) -> Result<Issued, IssueError> {
        self.issue_for(Use::Bridge, identity, access, subject).await
    }

    /// Issues a certificate of the announced node CA, to see whether the node takes it. Otherwise as
    /// [`State::issue`].
    ///
    /// # Errors
    /// [`IssueError`]; [`IssueError::Authority`] also if none is announced.
    pub async fn issue_trial(
        &self,
        identity: &Identity,
        access: &Access,
        subject: Subject,
    ) -> Result<Issued, IssueError> {
        self.issue_for(Use::Trial, identity, access, subject).await
    }

    /// Issues a certificate that the user takes to the node herself, past the proxy. Otherwise as
    /// [`State::issue`].
    ///
    /// # Errors
    /// [`IssueError`]; [`CertifyError::NotDirect`] if her roles do not let her.
    pub async fn issue_direct(
        &self,
        identity: &Identity,
        access: &Access,
        subject: Subject,
    ) -> Result<Issued, IssueError> {
        self.issue_for(Use::Direct, identity, access, subject).await
    }

    async fn issue_for(
        &self,
        purpose: Use,
        identity: &Identity,
        access: &Access,
        subject: Subject,
    ) -> Result<Issued, IssueError> {
        let (identity, access) = (identity.clone(), access.clone());
        self.write_signed(move |draft, ticket| {
            issue(draft, ticket, purpose, &identity, &access, &subject).inspect_err(|error| {
                if error.wanted().is_some() {
                    return;
                }
                let mut entry = Entry::failed(Event::CertCreate, error)
                    .user(identity.user())
                    .key(identity.key())
                    .node_id(access.node)
                    .login(&access.login)
                    .session_id(subject.session);
                entry.remote_addr = subject.from.map(|from| from.to_string());
                draft.log(entry);
            })
        })
        .await
    }

    /// Issues a host certificate: `certify` makes it (one of the makers in [`anteroom_ca::host`]),
    /// this records it first.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn issue_host<F>(
        &self,
        lifetime: Duration,
        certify: F,
    ) -> Result<Certificate, IssueError>
    where
        F: CertifyHost,
    {
        self.write_signed(move |draft, ticket| {
            let entry = Entry::new(Event::CertCreate).user(PROXY);
            issue_host(draft, ticket, lifetime, None, entry, &certify)
        })
        .await
    }

    /// Issues the host certificate of a node for an administrator, and remembers which node it is of.
    /// Those for other keys of the same type count no more from then on: a node has one of each. What
    /// was issued for the same key goes on, since it is in use until the node's sshd is reloaded.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn issue_node_host<F>(
        &self,
        by: &By,
        node: NodeId,
        lifetime: Duration,
        certify: F,
    ) -> Result<Certificate, IssueError>
    where
        F: CertifyHost,
    {
        let by = by.clone();
        self.write_signed(move |draft, ticket| {
            by.admit(draft)?;
            not_from_a_node(draft, by.from)?;
            may(draft.view(), &by, AdminVerb::Update, &ObjectId::Node(node))?;
            let entry = by.entry(Event::CertCreate).node_id(node);
            let certificate = issue_host(draft, ticket, lifetime, Some(node), entry, &certify)?;
            let key = PublicKey::from(certificate.as_ssh().public_key().clone());
            let which = HostRevocation {
                node,
                but_for: vec![print(&key)],
                key_type: Some(key.algorithm().to_string()),
                why: "the node has a certificate for another key".to_owned(),
            };
            draft.revoke_hosts(which, by.entry(Event::NodeUpdate).node_id(node));
            Ok(certificate)
        })
        .await
    }
}

/// A lock's message, where it has one.
fn said(message: &str) -> String {
    if message.is_empty() {
        return String::new();
    }
    format!(": {message}")
}

/// What an access certificate is issued for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// The proxy logs in with it.
    Bridge,
    /// The user does.
    Direct,
    /// The proxy finds out whether the node takes the announced CA's certificates.
    Trial,
}

/// Makes a host certificate, on the terms and by the authority given; again, with the same randomness, if
/// its signature had to be waited for.
pub trait CertifyHost:
    Fn(HostTerms, &HostCa, &mut StdRng) -> Result<Certificate, CertifyHostError> + Send + Sync + 'static
{
}

impl<F> CertifyHost for F where
    F: Fn(HostTerms, &HostCa, &mut StdRng) -> Result<Certificate, CertifyHostError>
        + Send
        + Sync
        + 'static
{
}

pub(super) fn issue_host(
    draft: &mut Draft,
    ticket: &Ticket,
    lifetime: Duration,
    node: Option<NodeId>,
    entry: Entry,
    certify: &impl CertifyHost,
) -> Result<Certificate, IssueError> {
    let signing: Signing<HostCa> =
        ticket
            .signing::<_, IssueError>(draft, AuthorityKind::Host, |all| Some(all.host.signer()))?;
    let mut rng = ticket.rng();
    let terms = HostTerms {
        serial: Serial::random(&mut rng),
        lifetime,
        at: signing.at,
    };
    let certificate = certify(terms, &signing.ca, &mut rng)?;
    let key = PublicKey::from(certificate.as_ssh().public_key().clone());
    let issuance = Issuance {
        node,
        host_key_type: Some(key.algorithm().to_string()),
        ..remember(&certificate, Kind::Host)
    };
    // The database refuses it as well; a proxy that could not certify itself would serve nobody.
    let locked = KeyFingerprint::parse(&issuance.subject)
        .ok()
        .filter(|_| node.is_some())
        .and_then(|key| draft.view().locks().on_key(&key, draft.now()).cloned());
    if let Some(lock) = locked {
        return Err(IssueError::KeyLocked {
            key: issuance.subject,
            message: lock.message.clone(),
        });
    }
    let entry = entry.name(certificate.key_id());
    draft.issue(issuance, about_certificate(entry, &certificate));
    Ok(certificate)
}

fn issue(
    draft: &mut Draft,
    ticket: &Ticket,
    purpose: Use,
    identity: &Identity,
    access: &Access,
    subject: &Subject,
) -> Result<Issued, IssueError> {
    let permit = match decide_for(
        draft.view(),
        identity,
        access,
        subject.command.as_deref(),
        draft.now(),
    ) {
        Decision::Permit(permit) => permit,
        other @ (Decision::Ask(_) | Decision::Deny(_)) => {
            return Err(IssueError::NotPermitted(Box::new(other)));
        }
    };
    let signing: Signing<NodeCa> =
        ticket.signing::<_, IssueError>(draft, AuthorityKind::Node, |all| match purpose {
            Use::Bridge | Use::Direct => Some(all.node.signer()),
            Use::Trial => all.node.next(),
        })?;
    let mut rng = ticket.rng();
    let terms = Terms {
        cluster: draft.view().cluster(),
        session: subject.session,
        serial: Serial::random(&mut rng),
        source_addresses: &subject.source_addresses,
        at: signing.at,
    };
    let certificate = match purpose {
        Use::Bridge | Use::Trial => certify(&permit, &subject.key, &terms, &signing.ca, &mut rng)?,
        Use::Direct => certify_direct(&permit, &subject.key, &terms, &signing.ca, &mut rng)?,
    };
    let issuance = Issuance {
        user: Some(permit.user().clone()),
        request: permit.request(),
        session: Some(subject.session),
        node: Some(permit.node().id),
        login: Some(permit.login().to_string()),
        login_key: Some(permit.key().clone()),
        ..remember(&certificate, Kind::Node)
    };
    let mut entry = about_session(Event::CertCreate, &permit, subject.session);
    entry.remote_addr = subject.from.map(|from| from.to_string());
    entry.name = match purpose {
        Use::Bridge => None,
        Use::Direct => Some("direct".to_owned()),
        Use::Trial => Some("announced CA".to_owned()),
    };
    draft.issue(issuance, about_certificate(entry, &certificate));
    Ok(Issued {
        permit,
        certificate,
    })
}

pub(super) fn remember(certificate: &Certificate, kind: Kind) -> Issuance {
    let wire = certificate.as_ssh();
    let valid_after = i64::try_from(wire.valid_after())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    Issuance {
        serial: certificate.serial().get(),
        kind,
        user: None,
        key_id: certificate.key_id().to_owned(),
        principals: wire.valid_principals().to_vec(),
        subject: print(&PublicKey::from(wire.public_key().clone())),
        authority: print(&PublicKey::from(wire.signature_key().clone())),
        request: None,
        session: None,
        node: None,
        login: None,
        sha256: hex(&certificate.sha256()),
        valid_after,
        valid_before: certificate.valid_before(),
        login_key: None,
        host_key_type: None,
        identity: None,
    }
}

pub(super) fn about_certificate(entry: Entry, certificate: &Certificate) -> Entry {
    entry
        .serial(certificate.serial().get())
        .expires(rfc3339(certificate.valid_before()))
        .certificate_sha256(hex(&certificate.sha256()))
}
