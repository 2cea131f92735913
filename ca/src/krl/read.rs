//! Reading a revocation list, as sshd reads it: closed. What cannot be understood whole is no list, since
//! a part that is passed over may be the one that matters.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use ssh_key::{Certificate, PublicKey};
use thiserror::Error;

use super::{
    FORMAT_VERSION, MAGIC, SECTION_CERT_KEY_ID, SECTION_CERT_SERIAL_BITMAP,
    SECTION_CERT_SERIAL_LIST, SECTION_CERT_SERIAL_RANGE, SECTION_CERTIFICATES,
    SECTION_EXPLICIT_KEY, SECTION_FINGERPRINT_SHA256,
};

/// The longest number that OpenSSH reads has 16,384 bits; a zero may stand in front.
const BITMAP_BYTES: usize = 16_384 / 8;

/// A revocation list, to be asked.
#[derive(Debug, Clone, Default)]
pub struct Revoked {
    version: u64,
    certificates: Vec<Certificates>,
    /// Plain public keys by the SHA-256 of their encoding, which is what a fingerprint is.
    keys: BTreeSet<[u8; 32]>,
}

/// What one authority took back.
#[derive(Debug, Clone, Default)]
struct Certificates {
    /// The authority's public key; empty: any.
    authority: Vec<u8>,
    serials: Vec<Serials>,
    key_ids: BTreeSet<Vec<u8>>,
}

#[derive(Debug, Clone)]
enum Serials {
    /// Both ends included.
    Range(u64, u64),
    /// The first, and the number whose bits say how far from it the others are, big-endian.
    Bitmap(u64, Vec<u8>),
}

/// Why bytes are no revocation list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KrlReadError {
    /// Something else, or cut off.
    #[error("it is not a revocation list in OpenSSH's format, or it is cut off")]
    Malformed,
    /// A newer form of list.
    #[error("it has a part of kind {0}, which this version does not know")]
    UnknownSection(u8),
}

impl Revoked {
    /// The list that holds nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Reads a list as [`super::RevocationList::to_bytes`] and `ssh-keygen -k` write it. Signatures, SHA-1
    /// fingerprints and format extensions, which neither writes unasked, are not known.
    ///
    /// # Errors
    /// [`KrlReadError`]; then whoever asked keeps the list that he has.
    pub fn parse(bytes: &[u8]) -> Result<Self, KrlReadError> {
        let mut reader = Reader(bytes);
        if reader.take(MAGIC.len())? != MAGIC || reader.u32()? != FORMAT_VERSION {
            return Err(KrlReadError::Malformed);
        }
        let version = reader.u64()?;
        let (_generated, _flags) = (reader.u64()?, reader.u64()?);
        let (_reserved, _comment) = (reader.string()?, reader.text()?);
        let mut out = Self {
            version,
            ..Self::default()
        };
        while let Some((kind, data)) = reader.section()? {
            match kind {
                SECTION_CERTIFICATES => out.certificates.push(Certificates::parse(data)?),
                SECTION_EXPLICIT_KEY => {
                    out.keys.extend(
                        data.strings()?
                            .map(|key| <[u8; 32]>::from(Sha256::digest(key))),
                    );
                }
                SECTION_FINGERPRINT_SHA256 => {
                    for print in data.strings()? {
                        let print = print.try_into().map_err(|_| KrlReadError::Malformed)?;
                        out.keys.insert(print);
                    }
                }
                other => return Err(KrlReadError::UnknownSection(other)),
            }
        }
        Ok(out)
    }

    /// The list's version, which grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether a certificate is on the list: by its serial number or key ID under its authority, by its key,
    /// or because its authority is. What cannot be encoded again counts as being on it.
    #[must_use]
    pub fn holds(&self, cert: &Certificate) -> bool {
        let subject = PublicKey::from(cert.public_key().clone()).to_bytes();
        let authority = PublicKey::from(cert.signature_key().clone()).to_bytes();
        let (Ok(subject), Ok(authority)) = (subject, authority) else {
            return true;
        };
        let is_listed = |key: &[u8]| self.keys.contains(&<[u8; 32]>::from(Sha256::digest(key)));
        is_listed(&subject)
            || is_listed(&authority)
            || self.certificates.iter().any(|revoked| {
                (revoked.authority.is_empty() || revoked.authority == authority)
                    && revoked.hold(cert)
            })
    }
}

impl Certificates {
    fn parse(mut reader: Reader<'_>) -> Result<Self, KrlReadError> {
        let authority = reader.string()?.to_vec();
        // Compared as bytes: spelt in any other way it would be nobody's, and its list be passed over.
        let canonical = PublicKey::from_bytes(&authority).and_then(|key| key.to_bytes());
        if !authority.is_empty() && canonical.as_ref() != Ok(&authority) {
            return Err(KrlReadError::Malformed);
        }
        let _reserved = reader.string()?;
        let mut out = Self {
            authority,
            ..Self::default()
        };
        while let Some((kind, mut data)) = reader.section()? {
            match kind {
                SECTION_CERT_SERIAL_LIST => {
                    while !data.0.is_empty() {
                        let serial = data.u64()?;
                        out.serials.push(Serials::range(serial, serial)?);
                    }
                }
                SECTION_CERT_SERIAL_RANGE => {
                    out.serials.push(Serials::range(data.u64()?, data.u64()?)?);
                    data.end()?;
                }
                SECTION_CERT_SERIAL_BITMAP => {
                    let first = data.u64()?;
                    let bits = data.string()?.to_vec();
                    data.end()?;
                    out.serials.push(Serials::bitmap(first, bits)?);
                }
                SECTION_CERT_KEY_ID => {
                    while !data.0.is_empty() {
                        out.key_ids.insert(data.text()?.to_vec());
                    }
                }
                other => return Err(KrlReadError::UnknownSection(other)),
            }
        }
        Ok(out)
    }

    fn hold(&self, cert: &Certificate) -> bool {
        // 0 is no serial (PROTOCOL.krl).
        let serial = cert.serial();
        self.key_ids.contains(cert.key_id().as_bytes())
            || serial != 0 && self.serials.iter().any(|some| some.hold(serial))
    }
}

impl Serials {
    /// 0 is no serial, and a range that ends before it begins is a mistake: sshd takes neither.
    fn range(first: u64, last: u64) -> Result<Self, KrlReadError> {
        match first {
            0 => Err(KrlReadError::Malformed),
            _ if first > last => Err(KrlReadError::Malformed),
            _ => Ok(Self::Range(first, last)),
        }
    }

    /// The same: not 0, not beyond the last serial there is, and a number that sshd reads: not negative
    /// (RFC 4251 section 5) and not too long.
    fn bitmap(first: u64, bits: Vec<u8>) -> Result<Self, KrlReadError> {
        let lowest_is_zero = first == 0 && bits.last().is_some_and(|byte| byte & 1 == 1);
        let last = highest(&bits).map_or(Some(first), |highest| first.checked_add(highest));
        let negative = bits.first().is_some_and(|byte| byte & 0x80 != 0);
        let longest = match bits.first() {
            Some(0) => BITMAP_BYTES + 1,
            Some(_) | None => BITMAP_BYTES,
        };
        if lowest_is_zero || last.is_none() || negative || bits.len() > longest {
            return Err(KrlReadError::Malformed);
        }
        Ok(Self::Bitmap(first, bits))
    }

    fn hold(&self, serial: u64) -> bool {
        match self {
            Self::Range(first, last) => (first..=last).contains(&&serial),
            Self::Bitmap(first, bits) => {
                let Some(distance) = serial.checked_sub(*first) else {
                    return false;
                };
                let byte = usize::try_from(distance / 8).ok();
                let byte = byte.and_then(|at| bits.iter().rev().nth(at));
                byte.is_some_and(|byte| byte >> (distance % 8) & 1 == 1)
            }
        }
    }
}

/// The number of the highest bit that is set.
fn highest(bits: &[u8]) -> Option<u64> {
    let zeros = bits.iter().take_while(|byte| **byte == 0).count();
    let byte = bits.get(zeros)?;
    let below = u64::try_from(bits.len() - zeros - 1).ok()?;
    Some(below * 8 + u64::from(7 - byte.leading_zeros()))
}

/// Bytes that are still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], KrlReadError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(KrlReadError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, KrlReadError> {
        let bytes = self.take(4)?.try_into();
        Ok(u32::from_be_bytes(
            bytes.map_err(|_| KrlReadError::Malformed)?,
        ))
    }

    fn u64(&mut self) -> Result<u64, KrlReadError> {
        let bytes = self.take(8)?.try_into();
        Ok(u64::from_be_bytes(
            bytes.map_err(|_| KrlReadError::Malformed)?,
        ))
    }

    fn string(&mut self) -> Result<&'a [u8], KrlReadError> {
        let length = usize::try_from(self.u32()?).map_err(|_| KrlReadError::Malformed)?;
        self.take(length)
    }

    /// A string of characters: sshd ends it at a NUL, or takes it for none.
    fn text(&mut self) -> Result<&'a [u8], KrlReadError> {
        let text = self.string()?;
        match text.contains(&0) {
            true => Err(KrlReadError::Malformed),
            false => Ok(text),
        }
    }

    /// The next section, or `None` at the end.
    fn section(&mut self) -> Result<Option<(u8, Reader<'a>)>, KrlReadError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let kind = self.take(1)?.first().copied();
        Ok(Some((
            kind.ok_or(KrlReadError::Malformed)?,
            Reader(self.string()?),
        )))
    }

    /// All the rest, as strings.
    fn strings(mut self) -> Result<impl Iterator<Item = &'a [u8]>, KrlReadError> {
        let mut out = Vec::new();
        while !self.0.is_empty() {
            out.push(self.string()?);
        }
        Ok(out.into_iter())
    }

    fn end(&self) -> Result<(), KrlReadError> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(KrlReadError::Malformed),
        }
    }
}
