//! Host certificates that a node with a stock sshd renews by itself, with the key that it has proven.
//!
//! Beside the control channel of the node agent, which is the tunnel's, this is for every registered node, however
//! it is reached. Nothing of the registration changes by it.

use anteroom_ca::Certificate;
use anteroom_ca::names::AdmittedName;
use anteroom_core::view::View;
use ssh_key::PublicKey;
use time::{Duration, OffsetDateTime};

use super::State;
use super::agents::{LIFETIME, OwnConnection, OwnError, certify_own};
use crate::store::StoreError;

/// Certificates for one key within [`DAY`]. Each is a row and a log entry that are kept for ever. A node that
/// renews by itself needs one in two weeks: the others are for whoever sets it up and tries. Of a machine's three
/// or four keys all of a day's certificates are among the 32 that the view remembers, so that they are counted.
pub(super) const MOST_A_DAY: usize = 4;

const DAY: Duration = Duration::days(1);

/// How long the certificate that a node has may last for a new one to be made: half of its life, so that a node
/// that was off for two weeks is in time, and a week passes until `nodes ls` warns of one that does not renew.
const RENEWED_BEFORE_END: Duration = Duration::days(14);

impl State {
    /// Issues a host certificate for the very key that the connection was opened with. Earlier ones for other keys
    /// of its type count no more.
    ///
    /// # Errors
    /// [`OwnError`]; [`OwnError::TooOften`] after `MOST_A_DAY`.
    pub async fn renew_for_own_key(
        &self,
        own: OwnConnection,
        names: Vec<AdmittedName>,
    ) -> Result<Certificate, OwnError> {
        let subject = PublicKey::from_openssh(&own.key.openssh).map_err(|_| OwnError::Unusable)?;
        self.write_signed(move |draft, ticket| {
            let (view, now) = (draft.view(), draft.now());
            let node = own.known_in(view, now).ok_or(OwnError::Gone)?.clone();
            if let Some(until) = had_enough(view, &own, now) {
                let count = MOST_A_DAY;
                return Err(OwnError::TooOften { count, until });
            }
            certify_own(draft, ticket, &own, &node, (&subject, &own.key), &names)
        })
        .await
    }

    /// Whether the certificate with that serial number, which the node says that it has, does for now: it is of the
    /// authority that signs, for the very key of this connection, counts, and does not end soon.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn does_for_now(&self, own: &OwnConnection, serial: u64) -> Result<bool, StoreError> {
        let Some(authorities) = self.authorities() else {
            return Ok(false);
        };
        let signs = crate::authority::print(&authorities.host.record.signing);
        let now = self.now();
        let known = self.reader().host_certificates_of(own.node, now).await?;
        Ok(known.iter().any(|one| {
            one.serial == serial
                && one.key == own.key.fingerprint.as_str()
                && one.authority == signs
                && one.revoked.is_none()
                && now + RENEWED_BEFORE_END < one.valid_before
        }))
    }
}

/// Until when there is no other certificate for the key. An administrator's with a shorter life is not counted.
fn had_enough(view: &View, own: &OwnConnection, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let all = view.certified_hosts_of(&own.node).iter();
    let mut issued: Vec<OffsetDateTime> = all
        .filter(|one| one.key == own.key.fingerprint)
        .map(|one| one.valid_before - LIFETIME)
        .filter(|at| now < *at + DAY)
        .collect();
    issued.sort_unstable_by_key(|at| std::cmp::Reverse(*at));
    issued.get(MOST_A_DAY - 1).map(|at| *at + DAY)
}
