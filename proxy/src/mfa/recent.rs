//! Who has given a second factor a moment ago, so that she is not asked again at once: by key and address, in
//! memory alone.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use anteroom_core::id::{DeviceName, KeyFingerprint};
use anteroom_core::mfa::{Device, SecondFactors};
use time::{Duration, OffsetDateTime};

/// Entries that are kept. Each is a key with which a code was given within some minutes; where there are more,
/// the oldest goes, and somebody is asked again.
const MOST: usize = 4096;

/// Second factors that were given lately.
#[derive(Debug, Default)]
pub struct Recent {
    given: Mutex<HashMap<(KeyFingerprint, IpAddr), Given>>,
}

#[derive(Debug, Clone)]
struct Given {
    at: OffsetDateTime,
    device: DeviceName,
    /// Tells it from another device that later has its name.
    created: OffsetDateTime,
}

impl Recent {
    /// Remembers that a code of `device` was given on a connection with `key` from `from`.
    pub fn note(&self, key: KeyFingerprint, from: IpAddr, device: &Device, at: OffsetDateTime) {
        let mut given = self.lock();
        if given.len() >= MOST
            && let Some(oldest) = given
                .iter()
                .min_by_key(|(_, given)| given.at)
                .map(|(key, _)| key.clone())
        {
            given.remove(&oldest);
        }
        let (device, created) = (device.name.clone(), device.created);
        let entry = Given {
            at,
            device,
            created,
        };
        given.insert((key, from.to_canonical()), entry);
    }

    /// When one was given with `key` from `from`, if that was less than `lasts` ago and the device is still
    /// among `known`.
    pub fn given(
        &self,
        key: &KeyFingerprint,
        from: IpAddr,
        known: &SecondFactors,
        lasts: Duration,
        now: OffsetDateTime,
    ) -> Option<OffsetDateTime> {
        let given = self.lock();
        let found = given.get(&(key.clone(), from.to_canonical()))?;
        let age = now - found.at;
        let device = known.device(&found.device)?;
        // A clock that goes back makes nothing last longer.
        let counts = !age.is_negative() && age < lasts && device.created == found.created;
        counts.then_some(found.at)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(KeyFingerprint, IpAddr), Given>> {
        // Whole entries are put in and taken out: after a panic what is there is whole.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-21 08:00 UTC);
    const LASTS: Duration = Duration::minutes(5);

    fn key(n: usize) -> KeyFingerprint {
        KeyFingerprint::parse(&format!("SHA256:{n:0>43}")).unwrap()
    }

    fn device(name: &str, created: OffsetDateTime) -> Device {
        Device {
            name: DeviceName::parse(name).unwrap(),
            sealed: Vec::new(),
            created,
            last_step: 0,
            last_used: created,
        }
    }

    #[test]
    fn it_counts_for_the_key_and_the_address_and_for_its_time() {
        let (home, away): (IpAddr, IpAddr) =
            ("192.0.2.7".parse().unwrap(), "192.0.2.8".parse().unwrap());
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        let phone = device("phone", NOW);
        let known = SecondFactors::default().with(phone.clone());
        let recent = Recent::default();
        recent.note(key(1), mapped, &phone, NOW);
        let given = |key, from, known, now| recent.given(&key, from, known, LASTS, now);
        let soon = NOW + LASTS - Duration::NANOSECOND;
        assert_eq!(given(key(1), home, &known, soon), Some(NOW));
        assert_eq!(given(key(2), home, &known, soon), None);
        assert_eq!(given(key(1), away, &known, soon), None);
        assert_eq!(given(key(1), home, &known, NOW + LASTS), None);
        assert_eq!(given(key(1), home, &known, NOW - Duration::SECOND), None);
        assert_eq!(
            recent.given(&key(1), home, &known, Duration::ZERO, NOW),
            None
        );
        // Without the device, and with another one of its name.
        let none = SecondFactors::default();
        assert_eq!(given(key(1), home, &none, soon), None);
        let other = none.with(device("phone", soon));
        assert_eq!(given(key(1), home, &other, soon), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (home, phone) = ("192.0.2.7".parse().unwrap(), device("phone", NOW));
        let recent = Recent::default();
        for n in 0..MOST + 3 {
            let at = NOW + Duration::milliseconds(i64::try_from(n).unwrap());
            recent.note(key(n), home, &phone, at);
        }
        assert_eq!(recent.lock().len(), MOST);
        assert!(!recent.lock().contains_key(&(key(0), home)));
    }
}
