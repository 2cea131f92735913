//! Key revocation lists in OpenSSH's format (PROTOCOL.krl), which sshd reads as `RevokedKeys` and
//! `ssh-keygen -Q` answers questions about.
//!
//! The writer is pure: what is to be refused goes in, bytes come out, the same bytes for the same input. The
//! reader, [`Revoked`], is for the node agent, which has no sshd to read them.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use ssh_key::PublicKey;
use thiserror::Error;
use time::OffsetDateTime;

pub use read::{KrlReadError, Revoked};

/// What is to be refused, whatever is presented to prove it.
#[derive(Debug, Clone, Default)]
pub struct RevocationList {
    /// Certificates, by the authority that signed them.
    pub certificates: Vec<RevokedCertificates>,
    /// Plain keys, and every certificate for them or signed by them: a retired authority stands here.
    pub keys: Vec<PublicKey>,
    /// The same by their SHA-256 fingerprint, for keys that are known by nothing else.
    pub fingerprints: BTreeSet<[u8; 32]>,
}

/// The certificates of one authority that are to be refused.
#[derive(Debug, Clone)]
pub struct RevokedCertificates {
    /// The authority.
    pub authority: PublicKey,
    /// By serial number. 0 is no serial, and a reader would refuse the whole list for it.
    pub serials: BTreeSet<NonZeroU64>,
    /// By key ID, compared as a whole.
    pub key_ids: BTreeSet<String>,
}

/// Which edition of a list it is.
#[derive(Debug, Clone)]
pub struct Edition {
    /// Grows with every change; shown by `ssh-keygen -Ql`.
    pub version: u64,
    /// When it was made.
    pub generated: OffsetDateTime,
    /// A word for people.
    pub comment: String,
}

/// Why no list was written.
#[derive(Debug, Error)]
pub enum KrlError {
    /// A key ID that a reader could not read: it would refuse the whole list, and so everybody.
    #[error("the key ID `{0}` has a NUL byte in it or is empty, and cannot be revoked by its name")]
    KeyId(String),
    /// A key cannot be encoded.
    #[error("a key cannot be written into the revocation list: {0}")]
    Key(#[from] ssh_key::Error),
    /// More than the format's 32-bit lengths hold.
    #[error("the revocation list is too long to be written")]
    TooLong,
}

impl RevocationList {
    /// The list in binary.
    ///
    /// # Errors
    /// [`KrlError`]; nothing that a reader would trip over is written.
    pub fn to_bytes(&self, edition: &Edition) -> Result<Vec<u8>, KrlError> {
        let mut out = MAGIC.to_vec();
        out.extend(FORMAT_VERSION.to_be_bytes());
        out.extend(edition.version.to_be_bytes());
        let generated = u64::try_from(edition.generated.unix_timestamp()).unwrap_or_default();
        out.extend(generated.to_be_bytes());
        out.extend(0_u64.to_be_bytes());
        put_string(&mut out, &[])?;
        put_string(&mut out, edition.comment.as_bytes())?;
        for certificates in &self.certificates {
            section(&mut out, SECTION_CERTIFICATES, &certificates.to_section()?)?;
        }
        let mut keys = Vec::new();
        for key in &self.keys {
            keys.push(key.to_bytes()?);
        }
        // Sorted, so that the same list is the same bytes.
        keys.sort();
        keys.dedup();
        strings(&mut out, SECTION_EXPLICIT_KEY, &keys)?;
        strings(&mut out, SECTION_FINGERPRINT_SHA256, &self.fingerprints)?;
        Ok(out)
    }
}

impl RevokedCertificates {
    /// Nothing of `authority` yet.
    #[must_use]
    pub fn of(authority: PublicKey) -> Self {
        Self {
            authority,
            serials: BTreeSet::new(),
            key_ids: BTreeSet::new(),
        }
    }

    fn to_section(&self) -> Result<Vec<u8>, KrlError> {
        let mut out = Vec::new();
        put_string(&mut out, &self.authority.to_bytes()?)?;
        put_string(&mut out, &[])?;
        for part in parts(&self.serials) {
            let (kind, data) = part.to_section()?;
            section(&mut out, kind, &data)?;
        }
        for id in &self.key_ids {
            if id.is_empty() || id.contains('\0') {
                return Err(KrlError::KeyId(id.escape_default().to_string()));
            }
        }
        strings(&mut out, SECTION_CERT_KEY_ID, &self.key_ids)?;
        Ok(out)
    }
}

/// Serial numbers as one section carries them.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    List(Vec<u64>),
    /// Both ends included.
    Range(u64, u64),
    /// The first, and how far from it each is.
    Bitmap(u64, Vec<u64>),
}

impl Part {
    fn to_section(&self) -> Result<(u8, Vec<u8>), KrlError> {
        let mut data = Vec::new();
        Ok(match self {
            Self::List(serials) => {
                data.extend(serials.iter().flat_map(|serial| serial.to_be_bytes()));
                (SECTION_CERT_SERIAL_LIST, data)
            }
            Self::Range(first, last) => {
                data.extend(first.to_be_bytes());
                data.extend(last.to_be_bytes());
                (SECTION_CERT_SERIAL_RANGE, data)
            }
            Self::Bitmap(first, distances) => {
                data.extend(first.to_be_bytes());
                put_string(&mut data, &mpint(distances))?;
                (SECTION_CERT_SERIAL_BITMAP, data)
            }
        })
    }
}

/// Parts serials into what is shortest: runs as ranges, crowds as bitmaps, the rest as a list.
fn parts(serials: &BTreeSet<NonZeroU64>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut alone = Vec::new();
    let mut crowd: Vec<u64> = Vec::new();
    let mut close = |crowd: &mut Vec<u64>, parts: &mut Vec<Part>| {
        let (Some(first), Some(last)) = (crowd.first().copied(), crowd.last().copied()) else {
            return;
        };
        let bytes = (last - first) / 8 + 14;
        if crowd.len() as u64 == last - first + 1 && crowd.len() > 1 {
            parts.push(Part::Range(first, last));
        } else if bytes < 8 * crowd.len() as u64 {
            let distances = crowd.iter().map(|serial| serial - first);
            parts.push(Part::Bitmap(first, distances.collect()));
        } else {
            alone.append(crowd);
        }
        crowd.clear();
    };
    for serial in serials.iter().map(|serial| serial.get()) {
        let near = |last: &u64| serial - last <= NEAR;
        let fits = |first: &u64| serial - first < BITMAP_BITS;
        // A run that is a range already grows without bound; anything else stays within a bitmap.
        let run = |crowd: &[u64]| match (crowd.first(), crowd.last()) {
            (Some(first), Some(last)) => {
                serial - last == 1 && last - first + 1 == crowd.len() as u64
            }
            _ => false,
        };
        let joins =
            run(&crowd) || crowd.last().is_some_and(near) && crowd.first().is_some_and(fits);
        if !joins {
            close(&mut crowd, &mut parts);
        }
        crowd.push(serial);
    }
    close(&mut crowd, &mut parts);
    if !alone.is_empty() {
        parts.push(Part::List(alone));
    }
    parts
}

/// A number with these bits set, as the bytes of an SSH mpint (RFC 4251 section 5): big-endian,
/// without leading zeros but the one that keeps it positive.
fn mpint(bits: &[u64]) -> Vec<u8> {
    let mut bytes: BTreeMap<u64, u8> = BTreeMap::new();
    for bit in bits {
        *bytes.entry(bit / 8).or_default() |= 1 << (bit % 8);
    }
    let highest = bytes.keys().next_back().copied().unwrap_or_default();
    let mut out: Vec<u8> = (0..=highest)
        .rev()
        .map(|index| bytes.get(&index).copied().unwrap_or_default())
        .collect();
    if out.first().is_some_and(|byte| byte & 0x80 != 0) {
        out.insert(0, 0);
    }
    out
}

/// A section of strings, left out where there is none: an empty one means nothing.
fn strings<T: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    kind: u8,
    items: impl IntoIterator<Item = T>,
) -> Result<(), KrlError> {
    let mut data = Vec::new();
    for item in items {
        put_string(&mut data, item.as_ref())?;
    }
    if data.is_empty() {
        return Ok(());
    }
    section(out, kind, &data)
}

fn section(out: &mut Vec<u8>, kind: u8, data: &[u8]) -> Result<(), KrlError> {
    out.push(kind);
    put_string(out, data)
}

fn put_string(out: &mut Vec<u8>, data: &[u8]) -> Result<(), KrlError> {
    let length = u32::try_from(data.len()).map_err(|_| KrlError::TooLong)?;
    out.extend(length.to_be_bytes());
    out.extend(data);
    Ok(())
}

const MAGIC: &[u8; 8] = b"SSHKRL\n\0";
const FORMAT_VERSION: u32 = 1;
const SECTION_CERTIFICATES: u8 = 1;
const SECTION_EXPLICIT_KEY: u8 = 2;
const SECTION_FINGERPRINT_SHA256: u8 = 5;
const SECTION_CERT_SERIAL_LIST: u8 = 0x20;
const SECTION_CERT_SERIAL_RANGE: u8 = 0x21;
const SECTION_CERT_SERIAL_BITMAP: u8 = 0x22;
const SECTION_CERT_KEY_ID: u8 = 0x23;

/// OpenSSH reads numbers of at most 16,384 bits.
const BITMAP_BITS: u64 = 8192;

/// Serials further apart than this never are in one bitmap: a list is shorter.
const NEAR: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(serials: impl IntoIterator<Item = u64>) -> BTreeSet<NonZeroU64> {
        serials
            .into_iter()
            .map(|n| NonZeroU64::new(n).unwrap())
            .collect()
    }

    #[test]
    fn runs_are_ranges_crowds_are_bitmaps_and_the_rest_is_a_list() {
        assert_eq!(parts(&set([])), []);
        assert_eq!(parts(&set([7])), [Part::List(vec![7])]);
        assert_eq!(parts(&set([7, 8])), [Part::Range(7, 8)]);
        assert_eq!(parts(&set(1..=50_000)), [Part::Range(1, 50_000)]);
        let even: Vec<u64> = (10..20).map(|n| n * 2).collect();
        let distances = (0..10).map(|n| n * 2).collect();
        assert_eq!(parts(&set(even)), [Part::Bitmap(20, distances)]);
        let far = [5, 5_000_000_000, u64::MAX];
        assert_eq!(parts(&set(far)), [Part::List(far.to_vec())]);
    }

    #[test]
    fn no_bitmap_is_longer_than_openssh_reads() {
        let even = set((1..100_000).map(|n| n * 2));
        let parts = parts(&even);
        let most = parts.iter().map(|part| match part {
            Part::Bitmap(_, distances) => mpint(distances).len(),
            Part::List(_) | Part::Range(..) => panic!("a bitmap everywhere"),
        });
        assert!(most.max().unwrap() <= 1025);
    }

    #[test]
    fn a_number_is_positive_and_has_no_zeros_in_front() {
        assert_eq!(mpint(&[0]), [1]);
        assert_eq!(mpint(&[7]), [0, 0x80]);
        assert_eq!(mpint(&[0, 8]), [1, 1]);
        assert_eq!(mpint(&[15]), [0, 0x80, 0]);
    }

    #[test]
    fn a_key_id_that_a_reader_would_trip_over_is_refused() {
        let key = crate::key::Key::from_seed("", &[1; 32])
            .public_key()
            .clone();
        let edition = Edition {
            version: 1,
            generated: OffsetDateTime::UNIX_EPOCH,
            comment: String::new(),
        };
        for bad in ["", "a\0b"] {
            let mut certificates = RevokedCertificates::of(key.clone());
            certificates.key_ids.insert(bad.to_owned());
            let list = RevocationList {
                certificates: vec![certificates],
                ..RevocationList::default()
            };
            assert!(matches!(list.to_bytes(&edition), Err(KrlError::KeyId(_))));
        }
    }
}
