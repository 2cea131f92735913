//! `ssh-keygen -Q` has the last word on what is written here, for lists made up at random.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::Path;
use std::process::Command;

use anteroom_ca::key::Key;
use anteroom_ca::krl::{Edition, RevocationList, Revoked, RevokedCertificates};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::{Certificate, PublicKey};
use time::macros::datetime;

fn edition() -> Edition {
    Edition {
        version: 7,
        generated: datetime!(2026-11-20 12:00 UTC),
        comment: "anteroom of example.com".to_owned(),
    }
}

fn key(n: u8) -> Key {
    Key::from_seed("", &[n; 32])
}

/// A certificate of no use but to be asked about.
fn certificate(ca: &Key, subject: &PublicKey, serial: u64, key_id: &str) -> String {
    let mut builder =
        Builder::new(vec![1; 16], subject.key_data().clone(), 1, u64::MAX / 4).unwrap();
    builder.serial(serial).unwrap().key_id(key_id).unwrap();
    builder
        .cert_type(CertType::User)
        .unwrap()
        .valid_principal("x")
        .unwrap();
    builder
        .sign(ca.private_key())
        .unwrap()
        .to_openssh()
        .unwrap()
}

/// Asks `ssh-keygen -Q` about each line of public key material; whether it is revoked.
fn asked(dir: &Path, list: &[u8], lines: &[String]) -> Vec<bool> {
    let krl = dir.join("krl");
    std::fs::write(&krl, list).unwrap();
    let mut command = Command::new("ssh-keygen");
    command.arg("-Q").arg("-f").arg(&krl);
    for (number, line) in lines.iter().enumerate() {
        let file = dir.join(format!("{number}.pub"));
        std::fs::write(&file, format!("{line}\n")).unwrap();
        command.arg(file);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let verdicts: Vec<bool> = said
        .lines()
        .map(|line| match line.rsplit_once(' ').unwrap().1 {
            "REVOKED" => true,
            "ok" => false,
            other => panic!("{other} in {said}"),
        })
        .collect();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(verdicts.len(), lines.len(), "{said}{complaint}");
    // The node agent reads the same list, and finds the same certificates on it.
    let revoked = Revoked::parse(list).unwrap();
    for (line, verdict) in lines.iter().zip(&verdicts) {
        if let Ok(cert) = Certificate::from_openssh(line) {
            assert_eq!(revoked.holds(&cert), *verdict, "{line}");
        }
    }
    verdicts
}

fn fingerprint(key: &PublicKey) -> [u8; 32] {
    Sha256::digest(key.to_bytes().unwrap()).into()
}

/// Serials in runs, crowds and far apart.
fn serials() -> impl Strategy<Value = BTreeSet<u64>> {
    let run = (1_u64..300, 0_u64..40).prop_map(|(from, length)| (from..=from + length).collect());
    let crowd = proptest::collection::vec(1_u64..400, 0..40);
    let far = proptest::collection::vec(1_u64..=u64::MAX, 0..6);
    (run, crowd, far).prop_map(|(run, crowd, far): (Vec<u64>, _, _)| {
        run.into_iter().chain(crowd).chain(far).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn ssh_keygen_agrees_on_every_certificate_and_key(
        revoked in serials(),
        asked_about in proptest::collection::btree_set(1_u64..400, 1..24),
        ids in proptest::collection::btree_set("[a-z]{1,2}( req=[0-9a-f]{4})?", 0..4),
        (explicit, hashed) in (proptest::collection::btree_set(10_u8..16, 0..3), proptest::collection::btree_set(10_u8..16, 0..3)),
    ) {
        let (ca, other_ca) = (key(1), key(2));
        let mut certificates = RevokedCertificates::of(ca.public_key().clone());
        certificates.serials = revoked.iter().map(|n| NonZeroU64::new(*n).unwrap()).collect();
        certificates.key_ids.clone_from(&ids);
        let list = RevocationList {
            certificates: vec![certificates],
            keys: explicit.iter().map(|n| key(*n).public_key().clone()).collect(),
            fingerprints: hashed.iter().map(|n| fingerprint(key(*n).public_key())).collect(),
        };
        let bytes = list.to_bytes(&edition()).unwrap();
        prop_assert_eq!(&bytes, &list.to_bytes(&edition()).unwrap());

        let subject = key(3);
        let mut lines = Vec::new();
        let mut expected = Vec::new();
        let edges = revoked.iter().flat_map(|n| [n.saturating_sub(1).max(1), *n, n.saturating_add(1)]);
        for serial in asked_about.iter().copied().chain(edges.take(30)) {
            lines.push(certificate(&ca, subject.public_key(), serial, "nobody"));
            expected.push(revoked.contains(&serial));
            lines.push(certificate(&other_ca, subject.public_key(), serial, "nobody"));
            expected.push(false);
        }
        for id in ids.iter().map(String::as_str).chain(["zz zz", "ab req"]) {
            lines.push(certificate(&ca, subject.public_key(), u64::MAX - 1, id));
            expected.push(ids.contains(id) || revoked.contains(&(u64::MAX - 1)));
        }
        for n in 10..16 {
            let is = explicit.contains(&n) || hashed.contains(&n);
            lines.push(key(n).public_key().to_openssh().unwrap());
            expected.push(is);
            lines.push(certificate(&other_ca, key(n).public_key(), 1, "nobody"));
            expected.push(is);
        }
        let dir = tempfile::tempdir().unwrap();
        prop_assert_eq!(asked(dir.path(), &bytes, &lines), expected);
    }
}

#[test]
fn a_revoked_authority_takes_its_certificates_with_it() {
    let (retired, current, subject) = (key(1), key(2), key(3));
    let list = RevocationList {
        keys: vec![retired.public_key().clone()],
        ..RevocationList::default()
    };
    let lines = [&retired, &current].map(|ca| certificate(ca, subject.public_key(), 5, "alice"));
    let dir = tempfile::tempdir().unwrap();
    let bytes = list.to_bytes(&edition()).unwrap();
    assert_eq!(asked(dir.path(), &bytes, &lines), [true, false]);
}

#[test]
fn an_empty_list_revokes_nothing_and_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = RevocationList::default().to_bytes(&edition()).unwrap();
    let lines = [key(3).public_key().to_openssh().unwrap()];
    assert_eq!(asked(dir.path(), &bytes, &lines), [false]);
    let listed = Command::new("ssh-keygen")
        .args(["-Ql", "-f"])
        .arg(dir.path().join("krl"))
        .output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    assert!(listed.contains("# KRL version 7\n"), "{listed}");
    assert!(listed.contains("anteroom of example.com"), "{listed}");
}

/// A list with one section about an authority's certificates, written byte by byte.
fn by_hand(comment: &[u8], authority: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    let string = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[..], bytes].concat()
    };
    let inner = [&string(authority)[..], &string(b""), &[kind], &string(data)].concat();
    let header = [&b"SSHKRL\n\0"[..], &1_u32.to_be_bytes(), &[0; 24]].concat();
    let head = [header, string(b""), string(comment)].concat();
    [&head[..], &[1], &string(&inner)].concat()
}

#[test]
fn what_ssh_keygen_takes_for_no_list_is_none_here_either() {
    const LIST: u8 = 0x20;
    const RANGE: u8 = 0x21;
    const BITMAP: u8 = 0x22;
    const IDS: u8 = 0x23;
    let dir = tempfile::tempdir().unwrap();
    let ca = key(1).public_key().to_bytes().unwrap();
    let certificate = certificate(&key(1), key(3).public_key(), 5, "alice");
    let numbers = |all: &[u64]| -> Vec<u8> {
        let each = all.iter().flat_map(|number| number.to_be_bytes());
        each.collect()
    };
    let bitmap = |first: u64, bits: &[u8]| {
        let length = u32::try_from(bits.len()).unwrap().to_be_bytes();
        [&first.to_be_bytes()[..], &length, bits].concat()
    };
    for (right, kind, data) in [
        (true, LIST, numbers(&[5])),
        (false, LIST, numbers(&[5, 0])),
        (true, RANGE, numbers(&[4, 6])),
        (false, RANGE, numbers(&[6, 4])),
        (false, RANGE, numbers(&[0, 6])),
        (true, BITMAP, bitmap(0, &[0b10_0000])),
        (false, BITMAP, bitmap(0, &[0b10_0001])),
        (true, BITMAP, bitmap(u64::MAX, &[0, 1])),
        (false, BITMAP, bitmap(u64::MAX, &[2])),
        (true, BITMAP, bitmap(8, &[0, 0x80])),
        (false, BITMAP, bitmap(8, &[0x80])),
        (true, BITMAP, bitmap(8, &[1; 2048])),
        (false, BITMAP, bitmap(8, &[1; 2049])),
        (true, IDS, [&[0, 0, 0, 5][..], b"alice"].concat()),
        (false, IDS, [&[0, 0, 0, 6][..], b"al\0ice"].concat()),
    ] {
        let list = by_hand(b"", &ca, kind, &data);
        let read = Revoked::parse(&list);
        assert_eq!(read.is_ok(), right, "{kind:x} {data:?}");
        assert_eq!(takes(dir.path(), &list), right, "{kind:x} {data:?}");
    }
    // ssh-keygen takes this for `alice`: whoever compares bytes must not pass it over.
    let ends_early = by_hand(b"", &ca, IDS, b"\0\0\0\x06alice\0");
    assert!(Revoked::parse(&ends_early).is_err());
    let five = numbers(&[5]);
    for (comment, authority) in [
        (&b"a\0b"[..], ca.clone()),
        (b"", b"nonsense".to_vec()),
        (b"", [&ca[..], &[0]].concat()),
    ] {
        let list = by_hand(comment, &authority, LIST, &five);
        assert!(Revoked::parse(&list).is_err(), "{comment:?} {authority:?}");
        assert!(!takes(dir.path(), &list), "{comment:?} {authority:?}");
    }
    let list = by_hand(b"a list", &ca, LIST, &five);
    assert_eq!(asked(dir.path(), &list, &[certificate]), [true]);
}

/// Whether `ssh-keygen -Q` takes it for a list.
fn takes(dir: &Path, list: &[u8]) -> bool {
    let krl = dir.join("krl");
    std::fs::write(&krl, list).unwrap();
    let mut listing = Command::new("ssh-keygen");
    let listed = listing.args(["-Q", "-l", "-f"]).arg(&krl).output().unwrap();
    listed.status.success()
}
