//! Second factors: secrets and the codes they make, how they are kept, and who has given one a moment ago.
//!
//! A code is what authenticator apps show: TOTP (RFC 6238) with HMAC-SHA-1, six digits, steps of 30 seconds. One
//! step before and after now counts too, because clocks drift (section 5.2). What was used is remembered by the
//! state, which spends each code once.

mod recent;
mod seal;

use rand::Rng;
use time::OffsetDateTime;
use totp_rs::{Builder, Totp, TotpError};
use zeroize::Zeroizing;

pub use recent::Recent;
pub use seal::{SealError, Sealer};

/// Bytes of a secret: what HMAC-SHA-1 makes full use of (RFC 4226 section 4, R6).
const SECRET: usize = 20;

/// What a device and the proxy share.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A new one.
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut bytes = Zeroizing::new(vec![0; SECRET]);
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// One that was kept.
    pub fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// What is to be kept, sealed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The `otpauth://` URI that apps read, and the secret in base32 for those that are typed into.
    ///
    /// # Errors
    /// A name with a colon, which the URI can't hold.
    pub fn shown(&self, issuer: &str, account: &str) -> Result<(String, String), TotpError> {
        let totp = self
            .builder()
            .with_issuer(Some(issuer))
            .with_account_name(account)
            .build()?;
        Ok((totp.to_url()?, totp.secret().to_base32()))
    }

    /// The time step whose code this is, if it is that of `now` or a neighbour's. What people put between the
    /// digits is left out.
    pub fn step_of(&self, code: &str, now: OffsetDateTime) -> Option<u64> {
        let digits: String = code
            .chars()
            .filter(|c| !c.is_ascii_whitespace() && *c != '-')
            .collect();
        if digits.len() != 6 || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let now = u64::try_from(now.unix_timestamp()).ok()?;
        self.totp()?.check(&digits, now)
    }

    fn builder(&self) -> Builder {
        Builder::new().with_secret(self.0.to_vec())
    }

    fn totp(&self) -> Option<Totp> {
        self.builder().build().ok()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
impl Secret {
    /// What a device would show at `at`.
    pub(crate) fn code(&self, at: OffsetDateTime) -> String {
        let at = u64::try_from(at.unix_timestamp()).unwrap();
        self.totp().unwrap().generate(at).to_string()
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    /// The secret of RFC 6238, appendix B.
    fn rfc() -> Secret {
        Secret::from_bytes(Zeroizing::new(b"12345678901234567890".to_vec()))
    }

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // The last six of the eight digits of appendix B.
        for (time, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
        ] {
            let step = u64::try_from(time / 30).unwrap();
            assert_eq!(rfc().step_of(code, at(time)), Some(step), "{time}");
        }
    }

    #[test]
    fn a_step_to_either_side_counts_and_the_next_one_does_not() {
        let now = at(1_234_567_890);
        for (steps, counts) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let then = now + Duration::seconds(30 * steps);
            let found = rfc().step_of(&rfc().code(then), now);
            let expected = u64::try_from(then.unix_timestamp() / 30).unwrap();
            assert_eq!(found, counts.then_some(expected), "{steps}");
        }
    }

    #[test]
    fn only_six_digits_are_a_code() {
        let now = at(59);
        for good in ["287082", " 287 082\n", "287-082"] {
            assert!(rfc().step_of(good, now).is_some(), "{good:?}");
        }
        for bad in [
            "",
            "28708",
            "2870822",
            "94287082",
            "28708a",
            "２８７０８２",
            "+287082",
            "287082\0",
        ] {
            assert_eq!(rfc().step_of(bad, now), None, "{bad:?}");
        }
    }

    #[test]
    fn the_uri_is_what_apps_read() {
        let (uri, secret) = rfc().shown("example.com", "alice@example.org").unwrap();
        assert_eq!(secret, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_eq!(
            uri,
            "otpauth://totp/example.com:alice%40example.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=example.com"
        );
    }
}
