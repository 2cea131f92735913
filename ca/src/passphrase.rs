//! The passphrase that the authorities' key files are encrypted with.

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

/// A passphrase: zeroized when dropped, and printed by nothing.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// What a file, a variable or a credential holds, without the one line end that editors put
    /// behind it.
    ///
    /// # Errors
    /// [`PassphraseError`]: nothing is left, or more than a passphrase has.
    pub fn new(mut text: Zeroizing<Vec<u8>>) -> Result<Self, PassphraseError> {
        if text.last() == Some(&b'\n') {
            text.pop();
            if text.last() == Some(&b'\r') {
                text.pop();
            }
        }
        if text.is_empty() {
            return Err(PassphraseError::Empty);
        }
        if text.len() > Self::LONGEST {
            return Err(PassphraseError::TooLong);
        }
        // A second line is a file of something else; ssh-keygen would have read the first alone.
        if text.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
            return Err(PassphraseError::SeveralLines);
        }
        Ok(Self(text))
    }

    /// Bytes; what `ssh-keygen` reads of one.
    pub const LONGEST: usize = 1023;

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Why a text is no passphrase. The text itself is in no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PassphraseError {
    /// Nothing is there.
    #[error("it is empty")]
    Empty,
    /// More than `ssh-keygen` takes.
    #[error("it has more than {} bytes", Passphrase::LONGEST)]
    TooLong,
    /// A line end or a zero byte in the middle.
    #[error("it has more than one line")]
    SeveralLines,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Passphrase, PassphraseError> {
        Passphrase::new(Zeroizing::new(text.to_vec()))
    }

    #[test]
    fn one_line_end_is_no_part_of_it_and_blanks_are() {
        for (text, meant) in [
            (&b"open sesame\n"[..], &b"open sesame"[..]),
            (b"open sesame\r\n", b"open sesame"),
            (b"  x ", b"  x "),
        ] {
            assert_eq!(read(text).unwrap().as_bytes(), meant);
        }
    }

    #[test]
    fn what_is_no_passphrase_is_refused_without_being_shown() {
        for (text, why) in [
            (&b""[..], PassphraseError::Empty),
            (b"\n", PassphraseError::Empty),
            (b"secret\n\n", PassphraseError::SeveralLines),
            (b"secret\nother", PassphraseError::SeveralLines),
            (b"sec\0ret", PassphraseError::SeveralLines),
            (&[b'x'; 1024], PassphraseError::TooLong),
        ] {
            let refused = read(text).unwrap_err();
            assert_eq!(refused, why);
            assert!(!refused.to_string().contains("secret"));
        }
        assert_eq!(format!("{:?}", read(b"secret").unwrap()), "Passphrase(..)");
    }
}
