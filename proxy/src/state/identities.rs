//! Identity certificates: a login, a drop, and the alarm over one that was never issued.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anteroom_ca::key::{UserCa, fingerprint};
use anteroom_ca::user::{CertifyIdentityError, certify};
use anteroom_ca::{Certificate, ClockError, Serial};
use anteroom_core::credential::IssuedCredential;
use anteroom_core::id::{KeyFingerprint, LockId, RequestId, UserName};
use anteroom_core::lock::{Lock, LockTarget, MOST_LOCKS};
use anteroom_core::policy::{self, Identity, LoginPermit, LoginRefused, LoginWanted};
use anteroom_core::request::{Action, Actor, TransitionError, apply};
use ssh_key::PublicKey;
use thiserror::Error;
use uuid::Uuid;

use super::State;
use super::certificates::{about_certificate, remember};
use super::draft::Draft;
use super::locks::about_lock;
use super::signing::{Signing, Ticket, Wants};
use crate::audit::{Entry, Event, PROXY};
use crate::authority::{AuthorityKind, Unavailable};
use crate::store::{IdentityIssuance, Issuance, Kind, StoreError};

/// Why a login or a drop gave no certificate.
#[derive(Debug, Error)]
pub enum LoginError {
    /// It may not be had, or not like this.
    #[error(transparent)]
    Refused(#[from] LoginRefused),
    /// A request could not be taken up, dropped or ended.
    #[error(transparent)]
    Request(#[from] TransitionError),
    /// The proxy's clock was set back.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The authority's key does not sign now.
    #[error(transparent)]
    Authority(#[from] Unavailable),
    /// It carries more than fits, or the linter held it back.
    #[error("{}", certify_text(.0))]
    Certify(#[from] CertifyIdentityError),
    /// It could not be recorded, so it was not handed out.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn certify_text(error: &CertifyIdentityError) -> String {
    if error.is_too_large() {
        return "the certificate would be larger than 16 KiB; ask for fewer resources, or for a role"
            .to_owned();
    }
    error.to_string()
}

/// A drop of requests from a certificate: which, and whether for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropping {
    /// The requests; empty means all of them.
    pub requests: BTreeSet<RequestId>,
    /// Whether they end, rather than being set aside.
    pub end: bool,
}

/// A certificate that is committed and may leave the process, with its terms.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    /// What it says.
    pub permit: LoginPermit,
    /// The certificate.
    pub certificate: Certificate,
}

impl State {
    /// Issues an identity certificate. A request named that this key does not hold, because it
    /// dropped it or another of the user's keys filed it, is taken up in the same transaction.
    ///
    /// # Errors
    /// [`LoginError`]; nothing is changed, and the attempt is in the log.
    pub async fn login(
        &self,
        identity: &Identity,
        wanted: LoginWanted,
        from: SocketAddr,
    ) -> Result<LoggedIn, LoginError> {
        let identity = identity.clone();
        self.write_signed(move |draft, ticket| {
            take_up(draft, &identity, &wanted.requests)
                .and_then(|()| {
                    let signing = who_signs(draft, ticket)?;
                    let login = |now| policy::login(draft.view(), &identity, &wanted, now);
                    // As of now, whatever its terms were when the signature was asked for.
                    login(draft.now())?;
                    let permit = login(signing.at.now())?;
                    issue(draft, ticket, &signing, permit, from, None)
                })
                .inspect_err(|error| refused(draft, &identity, from, error))
        })
        .await
    }

    /// Takes back a certificate that was issued a moment ago and reached nobody.
    ///
    /// # Errors
    /// [`StoreError`]: it counts until its end, and is where it was sent to.
    pub async fn take_back(
        &self,
        issued: &LoggedIn,
        why: &'static str,
        from: SocketAddr,
    ) -> Result<(), StoreError> {
        let serial = issued.certificate.serial().get();
        let entry = Entry::failed(
            Event::CertCreate,
            format!("certificate {serial} is revoked: {why}"),
        )
        .user(issued.permit.user())
        .key(issued.permit.key())
        .remote_addr(from);
        self.write(move |draft| {
            draft.log(entry);
            draft.revoke_credential(serial, why);
            Ok(())
        })
        .await
    }

    /// Issues the certificate that takes the presented one's place, without the requests named, and
    /// revokes the presented one. The requests are set aside for the key as well, so that the plain
    /// key does not bring back what was just given up.
    ///
    /// # Errors
    /// [`LoginError`]; nothing is changed, and the attempt is in the log.
    pub async fn drop_from_certificate(
        &self,
        identity: &Identity,
        dropping: Dropping,
        from: SocketAddr,
    ) -> Result<LoggedIn, LoginError> {
        let identity = identity.clone();
        self.write_signed(move |draft, ticket| {
            drop_and_issue(draft, ticket, &identity, &dropping, from)
                .inspect_err(|error| refused(draft, &identity, from, error))
        })
        .await
    }

    /// Looks once more, in the database itself, for a certificate that memory knows nothing of, and
    /// writes the alarm if it is not there either: somebody else has the user CA's key.
    ///
    /// # Errors
    /// [`StoreError`]: it is not in the log.
    pub async fn never_issued(
        &self,
        serial: u64,
        sha256: [u8; 32],
        from: SocketAddr,
    ) -> Result<(), StoreError> {
        let hash = crate::audit::hex(&sha256);
        if self.reader().issued(serial).await?.as_deref() == Some(hash.as_str()) {
            // Issued, and over or revoked for long. It stays refused, also if the clock was set back.
            let why = "a certificate was refused: it has ended or was revoked";
            let entry = Entry::failed(Event::Auth, why).serial(serial);
            return self.audit(entry.remote_addr(from)).await;
        }
        let why = "ALARM: a certificate that the user CA signed was never issued here; its key is in \
                   other hands, so rotate it";
        tracing::error!(serial, from = %from.ip(), "{why}");
        let entry = Entry::failed(Event::Auth, why)
            .serial(serial)
            .certificate_sha256(hash)
            .remote_addr(from);
        self.write(move |draft| {
            draft.log(entry);
            lock_serial(draft, serial, from);
            Ok(())
        })
        .await
    }
}

/// Locks a forged certificate's serial number, so that it stands in the revocation list as well.
fn lock_serial(draft: &mut Draft, serial: u64, from: SocketAddr) {
    let locks = draft.view().locks();
    // Bounded, so that whoever forges certificates leaves room for an administrator's locks.
    let full = locks.len() >= MOST_LOCKS / 2;
    if serial == 0 || full || locks.on_serial(serial, draft.now()).is_some() {
        return;
    }
    let lock = Lock {
        id: LockId::from_uuid(Uuid::new_v4()),
        target: LockTarget::Serial(serial),
        message: "it was never issued".to_owned(),
        created: draft.now(),
        created_by: PROXY.to_owned(),
        expires: None,
    };
    let entry = Entry::new(Event::LockCreate).user(PROXY).remote_addr(from);
    draft.log(about_lock(entry, &lock));
    draft.put_lock(lock);
}

/// How many identity certificates of one user count at a time. Who needs another one while so many
/// are in use, on as many machines, has lost count; and every one takes room in memory until its end.
pub(super) const MOST_LIVE: usize = 64;

/// Why a certificate counts no more that had to make room.
const DISPLACED: &str = "newer ones took its place, and a user has 64 at most";

/// Why a certificate that something was dropped from counts no more.
const DROPPED: &str = "its requests were dropped";

fn refused(draft: &mut Draft, identity: &Identity, from: SocketAddr, error: &LoginError) {
    if error.wanted().is_some() {
        return;
    }
    let entry = Entry::failed(Event::CertCreate, error)
        .user(identity.user())
        .key(identity.key())
        .remote_addr(from);
    draft.log(entry);
}

/// Takes up what is the user's own and approved, and not held by this key yet. Whether it may be
/// used is decided afterwards.
fn take_up(
    draft: &mut Draft,
    identity: &Identity,
    requests: &BTreeSet<RequestId>,
) -> Result<(), LoginError> {
    for id in requests {
        let Some(request) = draft.view().request(id).cloned() else {
            continue;
        };
        let foreign = request.user != *identity.user();
        if foreign || !request.is_open(draft.now()) || request.is_held_by(identity.key()) {
            continue;
        }
        act(
            draft,
            identity,
            *id,
            &Action::Assume {
                key: identity.key().clone(),
            },
        )?;
    }
    Ok(())
}

fn act(
    draft: &mut Draft,
    identity: &Identity,
    id: RequestId,
    action: &Action,
) -> Result<(), LoginError> {
    let Some(request) = draft.view().request(&id).cloned() else {
        return Ok(());
    };
    let actor = Actor::User(identity.user().clone());
    let next = apply(&request, action, &actor, draft.now())?;
    let entry = Entry::new(Event::AccessRequestUpdate)
        .user(identity.user())
        .key(identity.key())
        .request_id(id)
        .state(next.state)
        .name(action.as_participle())
        .reason(action.as_participle());
    draft.log(entry);
    draft.update_request(next, request.state);
    Ok(())
}

fn who_signs(draft: &Draft, ticket: &Ticket) -> Result<Signing<UserCa>, LoginError> {
    ticket.signing(draft, AuthorityKind::User, |all| Some(all.user.signer()))
}

fn drop_and_issue(
    draft: &mut Draft,
    ticket: &Ticket,
    identity: &Identity,
    dropping: &Dropping,
    from: SocketAddr,
) -> Result<LoggedIn, LoginError> {
    let now = draft.now();
    let signing = who_signs(draft, ticket)?;
    let address = Some(from.ip().to_canonical());
    let dropped =
        |now| policy::drop_requests(draft.view(), identity, &dropping.requests, address, now);
    dropped(now)?;
    let permit = dropped(signing.at.now())?;
    let carried = identity
        .credential()
        .map(|presented| presented.claims.requests.clone())
        .unwrap_or_default();
    // Of those that are named, and no others: what the new certificate can't carry at this moment,
    // for another reason, is not given up by it.
    let given_up = if dropping.requests.is_empty() {
        &carried
    } else {
        &dropping.requests
    };
    for id in given_up {
        let Some(request) = draft.view().request(id) else {
            continue;
        };
        let action = if dropping.end {
            Action::End
        } else {
            let key = identity.key().clone();
            Action::Drop { key }
        };
        // What is over needs nothing done to it, nor what was set aside before. To end it for good
        // is another matter: the plain key's having set it aside leaves it to be taken up again.
        let has_effect = dropping.end || request.is_held_by(identity.key());
        if request.is_open(now) && has_effect {
            act(draft, identity, *id, &action)?;
        }
    }
    issue(draft, ticket, &signing, permit, from, Some(DROPPED))
}

/// Signs, and writes the row and its entry: both are on the disk before anybody sees the signature.
fn issue(
    draft: &mut Draft,
    ticket: &Ticket,
    signing: &Signing<UserCa>,
    permit: LoginPermit,
    from: SocketAddr,
    revokes: Option<&str>,
) -> Result<LoggedIn, LoginError> {
    let mut rng = ticket.rng();
    let serial = Serial::random(&mut rng);
    let certificate = certify(&permit, serial, signing.at, &signing.ca, &mut rng)?;
    let request = permit.claims().requests.first().copied();
    let revokes = revoked_by(draft, &permit, revokes);
    let row = Issuance {
        user: Some(permit.user().clone()),
        request,
        identity: Some(IdentityIssuance {
            login_key: permit.key().clone(),
            presented: permit.presented(),
            revokes: revokes.clone(),
        }),
        ..remember(&certificate, Kind::User)
    };
    let mut entry = Entry::new(Event::CertCreate)
        .user(permit.user())
        .key(permit.key())
        .name(certificate.key_id())
        .remote_addr(from);
    entry.request_id = request.map(|id| id.to_string());
    entry.roles = permit
        .claims()
        .roles
        .iter()
        .map(ToString::to_string)
        .collect();
    entry.reason = revocations(&revokes);
    draft.issue(row, about_certificate(entry, &certificate));
    draft.remember_credential(credential(&permit, &certificate)?, &revokes);
    Ok(LoggedIn {
        permit,
        certificate,
    })
}

/// What counts no more when this certificate is issued, and why: the presented one, if it is
/// replaced, and of too many the ones that end first. One that is presented and stays is spared.
fn revoked_by(
    draft: &Draft,
    permit: &LoginPermit,
    replaced: Option<&str>,
) -> BTreeMap<u64, String> {
    let presented = permit.presented();
    let mut others: Vec<_> = draft
        .view()
        .credentials_of(permit.user())
        .filter(|issued| issued.is_live(draft.now()) && Some(issued.serial) != presented)
        .collect();
    others.sort_by_key(|issued| (issued.valid_before, issued.serial));
    let stays = usize::from(presented.is_some() && replaced.is_none());
    let excess = (others.len() + stays + 1).saturating_sub(MOST_LIVE);
    let displaced = others.iter().take(excess);
    let displaced = displaced.map(|issued| (issued.serial, DISPLACED.to_owned()));
    let replaced = presented.zip(replaced.map(str::to_owned));
    displaced.chain(replaced).collect()
}

/// Revokes what of the user's was got with a key that `stays` says nothing for: added again later,
/// it gives nothing back. What was revoked, as the log has it.
pub(super) fn revoke_certificates_of(
    draft: &mut Draft,
    user: &UserName,
    stays: impl Fn(&KeyFingerprint) -> bool,
    why: &str,
) -> Option<String> {
    let (view, now) = (draft.view(), draft.now());
    let gone = view
        .credentials_of(user)
        .filter(|issued| issued.is_live(now) && !stays(&issued.login_key));
    let revoked: BTreeMap<u64, String> =
        gone.map(|issued| (issued.serial, why.to_owned())).collect();
    let said = revocations(&revoked);
    for (serial, why) in &revoked {
        draft.revoke_credential(*serial, why);
    }
    said
}

/// What the log says of revoked certificates; nothing where there are none.
fn revocations(revoked: &BTreeMap<u64, String>) -> Option<String> {
    let reasons = revoked
        .iter()
        .map(|(serial, why)| format!("certificate {serial} is revoked: {why}"));
    let reasons: Vec<String> = reasons.collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn credential(
    permit: &LoginPermit,
    certificate: &Certificate,
) -> Result<IssuedCredential, LoginError> {
    let certified = PublicKey::from(certificate.as_ssh().public_key().clone());
    let subject = KeyFingerprint::parse(&fingerprint(&certified).to_string())
        .map_err(|_| CertifyIdentityError::Subject)?;
    Ok(IssuedCredential {
        serial: certificate.serial().get(),
        sha256: certificate.sha256(),
        user: permit.user().clone(),
        login_key: permit.key().clone(),
        subject,
        valid_before: certificate.valid_before(),
        revoked: None,
    })
}
