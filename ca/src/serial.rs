//! Serial numbers of certificates: random, never 0, at home in a database column.

use std::fmt;

use rand::CryptoRng;

/// The serial number of a certificate (PROTOCOL.certkeys): 1 to 2^63 − 1.
///
/// The wire has 64 bits. We use 63 of them, so that a serial is the same number as a signed `INTEGER` of
/// SQLite or PostgreSQL, in the logs of sshd, in a KRL, and when a person reads it aloud. A random 63-bit
/// number repeats among a million with a chance of 1 in 10^7; the database's UNIQUE has the last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(i64);

impl Serial {
    /// A serial drawn from `rng`.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        // Half of all draws are in range, so this ends: 64 refusals in a row have a chance of 2^-64.
        loop {
            if let Some(serial) = Self::new(rng.next_u64()) {
                return serial;
            }
        }
    }

    /// The serial of this number; `None` for 0, which means "not numbered", and from 2^63 on.
    pub fn new(number: u64) -> Option<Self> {
        i64::try_from(number).ok().and_then(Self::from_i64)
    }

    /// The serial that is stored as `stored`; `None` unless it is positive.
    pub fn from_i64(stored: i64) -> Option<Self> {
        (stored > 0).then_some(Self(stored))
    }

    /// The number as the certificate carries it.
    pub fn get(self) -> u64 {
        self.0.unsigned_abs()
    }

    /// The number as the database stores it.
    pub fn as_i64(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    proptest! {
        #[test]
        fn a_serial_survives_its_column(seed: u64) {
            let serial = Serial::random(&mut StdRng::seed_from_u64(seed));
            prop_assert_ne!(serial.get(), 0);
            prop_assert_eq!(Serial::from_i64(serial.as_i64()), Some(serial));
            prop_assert_eq!(Serial::new(serial.get()), Some(serial));
            prop_assert_eq!(serial.to_string(), serial.get().to_string());
        }
    }

    #[test]
    fn zero_and_what_a_signed_column_cannot_hold_are_no_serials() {
        assert_eq!(Serial::new(0), None);
        assert_eq!(Serial::new(1 << 63), None);
        assert_eq!(Serial::new(u64::MAX), None);
        assert_eq!(Serial::from_i64(-1), None);
        assert_eq!(
            Serial::new((1 << 63) - 1).map(Serial::as_i64),
            Some(i64::MAX)
        );
    }
}
