//! Revocation lists: what the node agent's reader takes, `ssh-keygen -Q` takes as well, and the two find the same
//! certificates on it.
//!
//! The certificates that both are asked about are in `tests/fuzz/krl`, made by `ssh-keygen -s` of three authorities
//! that are gone: nothing else has their keys.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anteroom_ca::krl::Revoked;
use ssh_key::{Certificate, PublicKey};

use crate::need;

const MAGIC: &[u8] = b"SSHKRL\n\0";

/// The section of an authority's certificates (PROTOCOL.krl); it alone has sections in itself.
const CERTIFICATES: u8 = 1;

/// Sections that there are, and some that there are not.
const KINDS: [u8; 7] = [CERTIFICATES, 2, 5, 3, 4, 0, 255];
const KINDS_INSIDE: [u8; 7] = [0x20, 0x21, BITMAP, KEY_IDS, 0x39, 0, 1];
const BITMAP: u8 = 0x22;
const KEY_IDS: u8 = 0x23;

/// A certificate that is asked about, with its file.
struct Asked {
    file: PathBuf,
    certificate: Certificate,
}

fn all() -> &'static [Asked] {
    static READ: OnceLock<Vec<Asked>> = OnceLock::new();
    READ.get_or_init(|| {
        need("ssh-keygen");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/krl");
        let files = fs::read_dir(&folder).expect("a folder of certificates");
        let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
        files.sort();
        assert!(files.len() > 5, "{files:?}");
        let read = |file: PathBuf| {
            let line = fs::read_to_string(&file).expect("it can be read");
            let certificate = Certificate::from_openssh(line.trim()).expect("a certificate");
            Asked { file, certificate }
        };
        files.into_iter().map(read).collect()
    })
}

/// Whether each is on the list by `ssh-keygen -Q`; if it takes the list for none, why.
fn by_ssh_keygen(list: &[u8]) -> Result<Vec<bool>, String> {
    let mut asking = Command::new("ssh-keygen")
        .args(["-Q", "-f", "/dev/stdin"])
        .args(all().iter().map(|asked| &asked.file))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ssh-keygen runs");
    let mut input = asking.stdin.take().expect("a pipe");
    // Who has seen enough reads no more.
    let _written = input.write_all(list);
    drop(input);
    let said = asking.wait_with_output().expect("it ends");
    let verdicts = String::from_utf8_lossy(&said.stdout);
    let verdicts: Vec<bool> = verdicts
        .lines()
        .map(|line| match line.rsplit_once(' ') {
            Some((_, "REVOKED")) => true,
            Some((_, "ok")) => false,
            _ => panic!("ssh-keygen says {line}"),
        })
        .collect();
    match verdicts.len() == all().len() {
        true => Ok(verdicts),
        false => Err(String::from_utf8_lossy(&said.stderr).into_owned()),
    }
}

/// A list; or what a list is made of, each part with its kind and its length in a byte, so that a change of one
/// leaves the others where they were.
pub(super) fn krl(input: &[u8]) {
    let list = match input.starts_with(MAGIC) {
        true => input.to_vec(),
        false => framed(input),
    };
    let Ok(revoked) = Revoked::parse(&list) else {
        return;
    };
    let verdicts = match by_ssh_keygen(&list) {
        Ok(verdicts) => verdicts,
        Err(why) if has_an_impossible_authority(&list, &why) => return,
        Err(why) => panic!("the reader takes a list that is none to ssh-keygen: {why}"),
    };
    for (asked, verdict) in all().iter().zip(verdicts) {
        let name = asked.file.display();
        assert_eq!(revoked.holds(&asked.certificate), verdict, "{name}");
    }
}

/// Whether an authority is well-formed and still no key: no point of its curve, or an RSA key of a few bits. It can
/// have signed nothing that anybody takes, so that whether such a list is refused makes no difference.
fn has_an_impossible_authority(list: &[u8], why: &str) -> bool {
    const CURVE: &[u8] = b"ecdsa-sha2-nistp";
    let keys = all().iter().map(|asked| asked.certificate.signature_key());
    let keys: Vec<Vec<u8>> = keys
        .map(|key| {
            PublicKey::from(key.clone())
                .to_bytes()
                .expect("it was read")
        })
        .collect();
    let on_a_curve = list.windows(CURVE.len()).enumerate();
    let mut unknown = on_a_curve.filter(|(at, part)| {
        let key = list.get(at.saturating_sub(4)..).unwrap_or_default();
        *part == CURVE && !keys.iter().any(|known| key.starts_with(known))
    });
    unknown.next().is_some() || why.to_lowercase().contains("key length")
}

fn framed(input: &[u8]) -> Vec<u8> {
    let mut parts = Parts(input);
    let mut list = MAGIC.to_vec();
    list.extend(1_u32.to_be_bytes());
    list.extend([0; 24]);
    put(&mut list, &[]);
    put(&mut list, parts.part());
    while let Some(kind) = parts.byte() {
        let kind = KINDS[usize::from(kind) % KINDS.len()];
        let mut section = Vec::new();
        match kind {
            CERTIFICATES => {
                let mut inside = Parts(parts.part());
                put(&mut section, &authority(&mut inside));
                put(&mut section, &[]);
                while let Some(which) = inside.byte() {
                    let kind = KINDS_INSIDE[usize::from(which) % KINDS_INSIDE.len()];
                    let part = inside.part();
                    section.push(kind);
                    match kind {
                        KEY_IDS => put(&mut section, &strings(part)),
                        BITMAP => put(&mut section, &bitmap(part)),
                        _ => put(&mut section, part),
                    }
                }
            }
            _ => section = strings(parts.part()),
        }
        list.push(kind);
        put(&mut list, &section);
    }
    list
}

/// The authority of a section: one that there is, any, or one that is spelt in an odd way.
fn authority(parts: &mut Parts<'_>) -> Vec<u8> {
    let which = parts.byte().unwrap_or_default();
    let known = &all()[usize::from(which >> 4) % all().len()].certificate;
    let key = PublicKey::from(known.signature_key().clone());
    let mut key = key.to_bytes().expect("it was read");
    match which & 0x0f {
        0..10 => key,
        10 => Vec::new(),
        11 => parts.part().to_vec(),
        12 => [key, vec![0]].concat(),
        13 => {
            key.pop();
            key
        }
        // A zero in front of its last field.
        _ => spelt_longer(&key),
    }
}

/// The same key with a zero in front of its last field, as no writer has it.
fn spelt_longer(key: &[u8]) -> Vec<u8> {
    let mut at = 0;
    let mut last = 0;
    while let Some(length) = key.get(at..at + 4) {
        last = at;
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        at += 4 + usize::try_from(length).expect("it fits");
    }
    let mut longer = key[..last].to_vec();
    put(&mut longer, &[&[0], &key[last + 4..]].concat());
    longer
}

/// A serial number and the bits behind it.
fn bitmap(bytes: &[u8]) -> Vec<u8> {
    let (first, bits) = bytes.split_at(bytes.len().min(8));
    let mut out = first.to_vec();
    put(&mut out, bits);
    out
}

/// What there is, as strings of the lengths that their first bytes say; a first byte of 255 stands for the
/// authority or the fingerprint of the certificate that the next one chooses.
fn strings(bytes: &[u8]) -> Vec<u8> {
    let mut parts = Parts(bytes);
    let mut out = Vec::new();
    while !parts.0.is_empty() {
        if parts.0.first() == Some(&255) {
            parts.byte();
            let which = usize::from(parts.byte().unwrap_or_default());
            let known = &all()[which % all().len()].certificate;
            let key = match which & 0x40 {
                0 => known.signature_key(),
                _ => known.public_key(),
            };
            let key = PublicKey::from(key.clone());
            match which & 0x80 {
                0 => put(&mut out, &key.to_bytes().expect("it was read")),
                _ => put(
                    &mut out,
                    key.fingerprint(ssh_key::HashAlg::Sha256).as_bytes(),
                ),
            }
        } else {
            put(&mut out, parts.part());
        }
    }
    out
}

fn put(out: &mut Vec<u8>, data: &[u8]) {
    out.extend(u32::try_from(data.len()).expect("short").to_be_bytes());
    out.extend(data);
}

struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// As many bytes as the next one says, or as there are.
    fn part(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte().unwrap_or_default());
        let (part, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        part
    }
}
