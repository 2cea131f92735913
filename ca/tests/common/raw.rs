//! Identity certificates made byte by byte, so that each part can be wrong by itself (PROTOCOL.certkeys).

use ed25519_dalek::{Signer, SigningKey};
use time::OffsetDateTime;

pub(crate) const ALGORITHM: &str = "ssh-ed25519-cert-v01@openssh.com";
pub(crate) const CA: [u8; 32] = [5; 32];
pub(crate) const SUBJECT: [u8; 32] = [3; 32];

/// The parts of a certificate. [`Raw::genuine`] is right in every one of them.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) algorithm: String,
    pub(crate) subject: Vec<u8>,
    pub(crate) serial: u64,
    pub(crate) kind: u32,
    pub(crate) key_id: String,
    pub(crate) principals: Vec<Vec<u8>>,
    pub(crate) after: u64,
    pub(crate) before: u64,
    /// Name and content; content `None` is an empty field, else a string inside the field.
    pub(crate) options: Vec<(String, Option<String>)>,
    pub(crate) extensions: Vec<(String, Option<String>)>,
    /// Bytes behind the last option, inside the field.
    pub(crate) options_tail: Vec<u8>,
    pub(crate) reserved: Vec<u8>,
    /// The public key of the authority as the certificate names it.
    pub(crate) authority: Vec<u8>,
    pub(crate) signer: [u8; 32],
    pub(crate) signature_algorithm: String,
    /// What is done to the bytes after signing.
    pub(crate) spoil: fn(&mut Vec<u8>),
}

impl Raw {
    pub(crate) fn genuine(user: &str, now: OffsetDateTime) -> Self {
        let now_seconds = u64::try_from(now.unix_timestamp()).unwrap();
        let ends = (now + time::Duration::hours(1))
            .replace_nanosecond(0)
            .unwrap();
        let text = |value: &str| Some(value.to_owned());
        let ends = ends
            .format(&time::format_description::well_known::Rfc3339)
            .unwrap();
        Self {
            algorithm: ALGORITHM.to_owned(),
            subject: public(&SUBJECT),
            serial: 4711,
            kind: 1,
            key_id: user.to_owned(),
            principals: vec![user.as_bytes().to_vec()],
            after: now_seconds - 60,
            before: now_seconds + 3600,
            options: Vec::new(),
            extensions: vec![
                ("active-requests@anteroom".to_owned(), text("[]")),
                ("permit-pty".to_owned(), None),
                ("role=access@anteroom".to_owned(), None),
                ("roles@anteroom".to_owned(), text("[\"access\"]")),
                ("session-ends@anteroom".to_owned(), text(&ends)),
                (
                    "traits@anteroom".to_owned(),
                    text("{\"logins\":[\"root\"]}"),
                ),
            ],
            options_tail: Vec::new(),
            reserved: Vec::new(),
            authority: ed25519(&public(&CA)),
            signer: CA,
            signature_algorithm: "ssh-ed25519".to_owned(),
            spoil: |_| {},
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Adds an extension in its place, or replaces it.
    pub(crate) fn extension(&mut self, name: &str, value: Option<&str>) {
        self.extensions.retain(|(known, _)| known != name);
        self.extensions
            .push((name.to_owned(), value.map(str::to_owned)));
        self.extensions.sort();
    }

    pub(crate) fn option(&mut self, name: &str, value: Option<&str>) {
        self.options
            .push((name.to_owned(), value.map(str::to_owned)));
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        string(&mut out, self.algorithm.as_bytes());
        string(&mut out, &[9; 32]);
        string(&mut out, &self.subject);
        out.extend(self.serial.to_be_bytes());
        out.extend(self.kind.to_be_bytes());
        string(&mut out, self.key_id.as_bytes());
        let mut principals = Vec::new();
        for principal in &self.principals {
            string(&mut principals, principal);
        }
        string(&mut out, &principals);
        out.extend(self.after.to_be_bytes());
        out.extend(self.before.to_be_bytes());
        let mut options = fields(&self.options);
        options.extend(&self.options_tail);
        string(&mut out, &options);
        string(&mut out, &fields(&self.extensions));
        string(&mut out, &self.reserved);
        string(&mut out, &self.authority);
        let signature = SigningKey::from_bytes(&self.signer).sign(&out);
        let mut wrapped = Vec::new();
        string(&mut wrapped, self.signature_algorithm.as_bytes());
        string(&mut wrapped, &signature.to_bytes());
        string(&mut out, &wrapped);
        (self.spoil)(&mut out);
        out
    }
}

/// The line of a `-cert.pub` file.
pub(crate) fn line(blob: &[u8]) -> String {
    format!("{ALGORITHM} {}\n", base64(blob))
}

pub(crate) fn public(seed: &[u8; 32]) -> Vec<u8> {
    SigningKey::from_bytes(seed)
        .verifying_key()
        .to_bytes()
        .to_vec()
}

pub(crate) fn ed25519(public: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    string(&mut out, b"ssh-ed25519");
    string(&mut out, public);
    out
}

fn fields(fields: &[(String, Option<String>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        string(&mut out, name.as_bytes());
        let mut inner = Vec::new();
        if let Some(value) = value {
            string(&mut inner, value.as_bytes());
        }
        string(&mut out, &inner);
    }
    out
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = usize::try_from(group >> (18 - 6 * digit) & 63).unwrap();
            out.push(if digit > chunk.len() {
                '='
            } else {
                char::from(DIGITS[value])
            });
        }
    }
    out
}
