//! Certificates for questions to a node, recorded as all others are.

use anteroom_ca::authority::ToSign;
use anteroom_ca::node::{CertifyError, Question, Terms, probe};
use anteroom_ca::{Certificate, ClockError, Serial, SignError, SourceAddresses};
use anteroom_core::admin::AdminVerb;
use anteroom_core::id::{KeyFingerprint, Login, NodeId, SessionId};
use anteroom_core::policy::{ProbeRefused, permit_probe};
use ssh_key::PublicKey;
use thiserror::Error;

use super::certificates::{about_certificate, remember};
use super::draft::Draft;
use super::objects::{NotAllowed, ObjectId, may};
use super::signing::{Signing, Ticket, Wants};
use super::{By, FromNode, NotAdmitted, State, not_from_a_node};
use crate::audit::Event;
use crate::authority::{AuthorityKind, Unavailable};
use crate::exit::{Exit, Exits};
use crate::store::{Issuance, Kind, StoreError};

/// A question to a node.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Which node.
    pub node: NodeId,
    /// About which login.
    pub login: Login,
    /// What is asked.
    pub question: Question,
    /// The check that it belongs to.
    pub session: SessionId,
    /// A key that is dropped unused.
    pub key: PublicKey,
    /// Where the node will see the proxy coming from.
    pub source_addresses: SourceAddresses,
}

/// Why a question is not asked.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// It is not permitted.
    #[error(transparent)]
    Refused(#[from] ProbeRefused),
    /// The proxy's clock was set back.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The linter held the certificate back.
    #[error(transparent)]
    Certify(#[from] CertifyError),
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
    /// It could not be recorded, so it is not asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Exits for ProbeError {
    fn exit(&self) -> Exit {
        match self {
            ProbeError::Refused(ProbeRefused::NoNode) => Exit::NotFound,
            ProbeError::Refused(ProbeRefused::NotAllowed)
            | ProbeError::NotAdmitted(_)
            | ProbeError::FromNode(_)
            | ProbeError::NotAllowed(_) => Exit::Denied,
            ProbeError::Refused(ProbeRefused::Locked { .. }) | ProbeError::Certify(_) => {
                Exit::Failed
            }
            ProbeError::Clock(_) | ProbeError::Authority(_) => Exit::Unavailable,
            ProbeError::Store(error) => error.exit(),
        }
    }
}

impl Wants for ProbeError {
    fn wanted(&self) -> Option<&ToSign> {
        match self {
            Self::Certify(CertifyError::Sign(SignError::Wanted(wanted))) => Some(wanted),
            Self::Refused(_)
            | Self::Clock(_)
            | Self::Certify(_)
            | Self::Authority(_)
            | Self::NotAdmitted(_)
            | Self::FromNode(_)
            | Self::NotAllowed(_)
            | Self::Store(_) => None,
        }
    }
}

impl State {
    /// Issues the certificate for a question, for an administrator who may change the node. Permitted, signed
    /// and recorded in one transaction, as every certificate is.
    ///
    /// # Errors
    /// [`ProbeError`].
    pub async fn issue_probe(&self, by: &By, asked: Probe) -> Result<Certificate, ProbeError> {
        let by = by.clone();
        self.write_signed(move |draft, ticket| issue(draft, ticket, &by, &asked))
            .await
    }
}

fn issue(
    draft: &mut Draft,
    ticket: &Ticket,
    by: &By,
    asked: &Probe,
) -> Result<Certificate, ProbeError> {
    by.admit(draft)?;
    not_from_a_node(draft, by.from)?;
    let node = ObjectId::Node(asked.node);
    may(draft.view(), by, AdminVerb::Update, &node)?;
    let permit = permit_probe(
        draft.view(),
        &by.actor,
        &asked.node,
        &asked.login,
        draft.now(),
    )?;
    let signing: Signing<_> =
        ticket
            .signing::<_, ProbeError>(draft, AuthorityKind::Node, |all| Some(all.node.signer()))?;
    let mut rng = ticket.rng();
    let terms = Terms {
        cluster: draft.view().cluster(),
        session: asked.session,
        serial: Serial::random(&mut rng),
        source_addresses: &asked.source_addresses,
        at: signing.at,
    };
    let (question, key) = (asked.question, &asked.key);
    let certificate = probe(&permit, question, key, &terms, &signing.ca, &mut rng)?;
    let issuance = Issuance {
        user: Some(permit.by().clone()),
        session: Some(asked.session),
        node: Some(asked.node),
        login: Some(asked.login.to_string()),
        ..remember(&certificate, Kind::Node)
    };
    // As of every certificate that is no host's: whose it is, and for which key. This one is nobody's.
    let subject = KeyFingerprint::parse(&issuance.subject).ok();
    let mut entry = by
        .entry(Event::CertCreate)
        .user(permit.by())
        .node_id(asked.node)
        .node(&permit.node().name)
        .login(&asked.login)
        .session_id(asked.session);
    entry.key = subject.map(|key| key.to_string());
    entry.name = Some("check".to_owned());
    draft.issue(issuance, about_certificate(entry, &certificate));
    Ok(certificate)
}
