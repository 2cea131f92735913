//! When a host certificate is to be renewed, and with which key.

use std::sync::Arc;

use ssh_key::PrivateKey;
use time::OffsetDateTime;

use crate::dir::{DirError, StateDir};
use crate::identity::Identity;
use crate::join::certified;

/// A renewal that was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The key that the certificate is to be for: the one there is, or the next one.
    key: Arc<PrivateKey>,
}

impl Asked {
    /// The key's public half, a line of OpenSSH's format.
    pub(crate) fn line(&self) -> Option<String> {
        self.key.public_key().to_openssh().ok()
    }

    /// Takes the certificate that came: with it the next key takes the place of the present one.
    ///
    /// # Errors
    /// Why it is not taken, in a sentence.
    pub(crate) fn answered(self, identity: &mut Identity, line: &str) -> Result<(), String> {
        let public = self.key.public_key();
        let certificate = certified(line, public, &identity.host_ca, &identity.node_id)?;
        identity.host_certificate = certificate;
        let is_next = |next: &Arc<PrivateKey>| next.public_key() == public;
        if identity.next_key.as_ref().is_some_and(is_next) {
            identity.next_key = None;
        }
        identity.host_key = self.key;
        Ok(())
    }
}

/// Whether the certificate is to be renewed: a third of its life is left, it is for a key that this node no
/// longer uses, or its authority is trusted no more or on its way out (the proxy names the one that signs
/// first).
pub(crate) fn is_due(identity: &Identity, now: OffsetDateTime) -> bool {
    let certificate = &identity.host_certificate;
    let (from, until) = (certificate.valid_after(), certificate.valid_before());
    let now = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    let renewed_from = until.saturating_sub(until.saturating_sub(from) / 3);
    let signs = identity.host_ca.first().map(|key| key.key_data());
    now >= renewed_from
        || certificate.public_key() != identity.host_key.public_key().key_data()
        || Some(certificate.signature_key()) != signs
}

/// Begins a renewal: with the next key if one was asked for or left over, else with the present one.
///
/// The next key is on disk before the proxy hears of it. The proxy knows this node by it as soon as it has
/// answered; should the answer be lost, the agent logs in with it.
pub(crate) fn begin(
    dir: &StateDir,
    identity: &Identity,
    fresh: impl FnOnce() -> PrivateKey,
) -> Result<(Asked, Option<Identity>), DirError> {
    if let Some(next) = &identity.next_key {
        return Ok((Asked { key: next.clone() }, None));
    }
    if !dir.wants_new_key() {
        let key = identity.host_key.clone();
        return Ok((Asked { key }, None));
    }
    let key = Arc::new(fresh());
    let mut changed = identity.clone();
    changed.next_key = Some(key.clone());
    dir.store(&changed)?;
    Ok((Asked { key }, Some(changed)))
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::dir::ask_for_new_key;
    use crate::identity::tests::{certificate, identity, key};

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        let identity = identity();
        let now = OffsetDateTime::now_utc();
        assert!(!is_due(&identity, now));
        assert!(!is_due(
            &identity,
            now + Duration::days(7) * 2 / 3 - Duration::hours(1)
        ));
        assert!(is_due(
            &identity,
            now + Duration::days(7) * 2 / 3 + Duration::hours(1)
        ));
    }

    #[test]
    fn a_certificate_for_another_key_or_of_an_authority_on_its_way_out_is_renewed() {
        let now = OffsetDateTime::now_utc();
        let mut other = identity();
        other.host_key = Arc::new(key(9).private_key().clone());
        assert!(is_due(&other, now));
        let mut rotated = identity();
        rotated.host_ca.insert(0, key(8).public_key().clone());
        assert!(is_due(&rotated, now));
        let mut announced = identity();
        announced.host_ca.push(key(8).public_key().clone());
        assert!(!is_due(&announced, now));
    }

    #[test]
    fn a_new_key_is_on_disk_before_it_is_told_and_takes_over_with_its_certificate() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("node");
        let dir = StateDir::create(&path).unwrap();
        let mut own = identity();
        own.next_key = None;
        dir.store(&own).unwrap();
        ask_for_new_key(&path).unwrap();
        let fresh = || key(6).private_key().clone();
        let (asked, changed) = begin(&dir, &own, fresh).unwrap();
        let mut stored = dir.load().unwrap().unwrap();
        assert_eq!(Some(&stored), changed.as_ref());
        assert_eq!(stored.host_key.public_key(), own.host_key.public_key());
        // After a crash it is the same key again.
        let (again, _) = begin(&dir, &stored, || panic!("there is one")).unwrap();
        assert_eq!(asked.line(), again.line());
        let line = certificate(key(6).public_key(), Duration::days(7)).to_openssh();
        asked.answered(&mut stored, &line.unwrap()).unwrap();
        assert_eq!(stored.host_key.public_key(), key(6).public_key());
        assert!(stored.next_key.is_none() && !is_due(&stored, OffsetDateTime::now_utc()));
    }

    #[test]
    fn a_certificate_for_another_key_is_not_taken() {
        let mut own = identity();
        let before = own.clone();
        let asked = Asked {
            key: own.host_key.clone(),
        };
        let line = certificate(key(6).public_key(), Duration::days(7)).to_openssh();
        let refused = asked.answered(&mut own, &line.unwrap()).unwrap_err();
        assert!(refused.contains("another key"), "{refused}");
        assert_eq!(own, before);
    }
}
