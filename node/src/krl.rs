//! The revocation list as the proxy sends it: read strictly, and never replaced by an older one.

use std::sync::Arc;

use anteroom_ca::krl::{KrlReadError, Revoked};
use base64ct::{Base64, Encoding};

/// A revocation list in OpenSSH's format (PROTOCOL.krl), as it came. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Krl {
    base64: Arc<str>,
    revoked: Arc<Revoked>,
}

/// Why a revocation list is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KrlError {
    /// Not base64.
    #[error("the revocation list is not base64")]
    Base64,
    /// Not a list, or cut off, or with bytes left over.
    #[error("the revocation list is not taken: {0}")]
    Format(#[from] KrlReadError),
}

impl Krl {
    /// Reads a list in base64.
    ///
    /// # Errors
    /// [`KrlError`]; a list that is not understood as a whole is not used in part.
    pub fn parse(base64: &str) -> Result<Krl, KrlError> {
        let bytes = Base64::decode_vec(base64).map_err(|_| KrlError::Base64)?;
        Ok(Krl {
            base64: base64.into(),
            revoked: Arc::new(Revoked::parse(&bytes)?),
        })
    }

    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.revoked.version()
    }

    /// The list, to be asked.
    #[must_use]
    pub fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    pub(crate) fn as_base64(&self) -> &str {
        &self.base64
    }
}

/// The same list is the same bytes.
impl PartialEq for Krl {
    fn eq(&self, other: &Self) -> bool {
        self.base64 == other.base64
    }
}

impl Eq for Krl {}

#[cfg(test)]
pub(crate) mod tests {
    use anteroom_ca::krl::{Edition, RevocationList};
    use time::OffsetDateTime;

    use super::*;

    /// An edition of a list, in base64.
    pub(crate) fn list(version: u64) -> String {
        let mut list = RevocationList::default();
        list.fingerprints.insert([7; 32]);
        let edition = Edition {
            version,
            generated: OffsetDateTime::UNIX_EPOCH,
            comment: "test".to_owned(),
        };
        Base64::encode_string(&list.to_bytes(&edition).unwrap())
    }

    #[test]
    fn a_list_of_the_proxy_is_read_with_its_version() {
        assert_eq!(Krl::parse(&list(7)).unwrap().version(), 7);
    }

    #[test]
    fn what_is_cut_off_or_goes_on_or_is_something_else_is_refused() {
        let whole = Base64::decode_vec(&list(7)).unwrap();
        // Where the list without its one section ends it is whole as well.
        let header = whole.len() - 5 - 4 - 32;
        for length in (0..whole.len()).filter(|length| *length != header) {
            let cut = Base64::encode_string(&whole[..length]);
            assert!(Krl::parse(&cut).is_err(), "{length}");
        }
        for more in [&[0][..], &[9, 0, 0, 0, 0], &[1, 0, 0, 0, 9]] {
            let longer = [&whole, more].concat();
            assert!(Krl::parse(&Base64::encode_string(&longer)).is_err());
        }
        assert_eq!(Krl::parse("!").unwrap_err(), KrlError::Base64);
    }
}
