//! Certificates whose signature may have to be waited for.
//!
//! The one writer must not wait for an ssh-agent, a token, or a person who confirms. So where the key is not in
//! this process, an issuance is decided twice: the first time it ends, changing nothing, with what is to be
//! signed; then the agent is asked, outside of any transaction; then it is decided again, on what is true by
//! then, and becomes a certificate only if that comes to the very same bytes. What does not (a grant that ended,
//! a CA that was rotated meanwhile) is signed anew or refused. As ever, the row is committed before anybody sees
//! the certificate.

use std::sync::Arc;

use anteroom_ca::authority::{Authority as Kind, Signed, ToSign};
use anteroom_ca::host::CertifyHostError;
use anteroom_ca::node::CertifyError;
use anteroom_ca::user::CertifyIdentityError;
use anteroom_ca::{ClockError, IssueTime, SignError};
use rand::SeedableRng;
use rand::rngs::StdRng;
use time::{Duration, OffsetDateTime};

use super::State;
use super::certificates::IssueError;
use super::draft::Draft;
use super::identities::LoginError;
use crate::authority::{Authorities, AuthorityKind, Signer, Unavailable};
use crate::store::StoreError;

/// How often one certificate is signed anew because the decision came out differently meanwhile. More
/// is somebody who changes roles in a loop.
const ATTEMPTS: usize = 3;

/// How old the time of issuing may be when the signature is there. An access certificate lives a
/// minute from then, and has to be used in what is left.
const OLDEST: Duration = Duration::seconds(45);

/// What has to come out the same when an issuance is decided again.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    seed: [u8; 32],
    at: OffsetDateTime,
    signed: Option<Signed>,
    unavailable: bool,
}

impl Ticket {
    fn new(at: OffsetDateTime) -> Self {
        let mut seed = [0; 32];
        rand::Rng::fill_bytes(&mut rand::rng(), &mut seed);
        Self {
            seed,
            at,
            signed: None,
            unavailable: false,
        }
    }

    /// The randomness of serial number and nonce.
    pub(super) fn rng(&self) -> StdRng {
        StdRng::from_seed(self.seed)
    }

    /// Who signs what the transaction decides, and as of when: of the authority that `of` picks.
    pub(super) fn signing<C, E>(
        &self,
        draft: &Draft,
        kind: AuthorityKind,
        of: impl Fn(&Authorities) -> Option<&Signer<C>>,
    ) -> Result<Signing<C>, E>
    where
        C: Kind,
        E: From<Unavailable> + From<ClockError>,
    {
        let unavailable = Unavailable(kind);
        let signer = draft.authorities().and_then(|all| of(all));
        let now = IssueTime::new(draft.now(), draft.last_issued())?;
        match signer.ok_or(unavailable.clone())? {
            Signer::Here(ca) => Ok(Signing {
                ca: Arc::clone(ca),
                at: now,
            }),
            Signer::Agent(_) if self.unavailable => Err(unavailable.into()),
            // That of the first decision, or the second one would never come to the same bytes.
            Signer::Agent(key) => Ok(Signing {
                ca: Arc::new(C::elsewhere(key.clone(), self.signed.clone())),
                at: IssueTime::new(self.at, draft.last_issued())?,
            }),
        }
    }
}

/// An authority that is ready to sign as far as it can, and the time of issuing.
pub(super) struct Signing<C> {
    pub(super) ca: Arc<C>,
    pub(super) at: IssueTime,
}

/// An error that may only say what is to be signed first.
pub(super) trait Wants: From<Unavailable> {
    /// What is to be signed.
    fn wanted(&self) -> Option<&ToSign>;
}

impl Wants for IssueError {
    fn wanted(&self) -> Option<&ToSign> {
        match self {
            Self::Certify(CertifyError::Sign(SignError::Wanted(wanted)))
            | Self::Host(CertifyHostError::Sign(SignError::Wanted(wanted))) => Some(wanted),
            Self::NotPermitted(_)
            | Self::Clock(_)
            | Self::Certify(_)
            | Self::Host(_)
            | Self::Authority(_)
            | Self::NotAdmitted(_)
            | Self::KeyLocked { .. }
            | Self::FromNode(_)
            | Self::NotAllowed(_)
            | Self::Store(_) => None,
        }
    }
}

impl Wants for LoginError {
    fn wanted(&self) -> Option<&ToSign> {
        match self {
            Self::Certify(CertifyIdentityError::Sign(SignError::Wanted(wanted))) => Some(wanted),
            Self::Refused(_)
            | Self::Request(_)
            | Self::Clock(_)
            | Self::Certify(_)
            | Self::Authority(_)
            | Self::Store(_) => None,
        }
    }
}

impl State {
    /// Has the writer run `decide`, as [`State::write`] does, once or, where a signature has to be
    /// got first, again when it is there. What ends with [`Wants::wanted`] must have changed and
    /// logged nothing.
    pub(super) async fn write_signed<T, E, F>(&self, decide: F) -> Result<T, E>
    where
        F: Fn(&mut Draft, &Ticket) -> Result<T, E> + Send + Sync + 'static,
        T: Send + 'static,
        E: Wants + From<StoreError> + Send + 'static,
    {
        let decide = Arc::new(decide);
        let mut ticket = Ticket::new(self.now());
        for _ in 0..=ATTEMPTS {
            let (again, using) = (Arc::clone(&decide), ticket.clone());
            let outcome = self.write(move |draft| again(draft, &using)).await;
            let Some(wanted) = outcome.as_ref().err().and_then(Wants::wanted).cloned() else {
                return outcome;
            };
            ticket.signed = self.sign_elsewhere(wanted).await;
            let age = self.now() - ticket.at;
            ticket.unavailable = ticket.signed.is_none() || age > OLDEST;
        }
        // The last word is the decision's own, so that the refusal is in the log like any other.
        ticket.unavailable = true;
        self.write(move |draft| decide(draft, &ticket)).await
    }

    /// Asks the agent. Why it did not sign is for the log.
    async fn sign_elsewhere(&self, wanted: ToSign) -> Option<Signed> {
        let authorities = self.authorities()?;
        let by = crate::authority::print(wanted.authority());
        let Some(agent) = authorities.agent.as_ref() else {
            tracing::error!(%by, "a certificate has to be signed in an ssh-agent, and there is none");
            return None;
        };
        match agent.sign(wanted).await {
            Ok(signed) => Some(signed),
            Err(error) => {
                tracing::error!(%by, "no certificate can be signed: {error}");
                None
            }
        }
    }

    /// The authorities; `None` until the keys are there.
    #[must_use]
    pub fn authorities(&self) -> Option<Arc<Authorities>> {
        self.shared.authorities.load_full()
    }
}
