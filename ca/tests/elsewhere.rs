//! Authorities whose key is elsewhere: a certificate is made of a signature for the very same bytes, or not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use anteroom_ca::authority::{Authority, Signed, ToSign, check_served};
use anteroom_ca::key::NodeCa;
use anteroom_ca::node::CertifyError;
use anteroom_ca::{Certificate, SignError};
use anteroom_core::role::Options;
use common::{IOT, WEB, access_role, issuing, rng, standing};
use signature::Signer;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, PrivateKey, Signature};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const NOW: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);

fn key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut rng(), algorithm).unwrap()
}

fn certify(ca: &NodeCa, node: &str, now: OffsetDateTime) -> Result<Certificate, CertifyError> {
    let role = access_role(&["root"], Options::default());
    issuing(now).certify(&standing(role, "root", node, now), ca)
}

fn wanted(ca: &NodeCa, node: &str, now: OffsetDateTime) -> ToSign {
    match certify(ca, node, now).unwrap_err() {
        CertifyError::Sign(SignError::Wanted(wanted)) => wanted,
        other @ (CertifyError::Sign(_)
        | CertifyError::PermitEnded { .. }
        | CertifyError::NotDirect) => panic!("{other}"),
    }
}

fn elsewhere(key: &PrivateKey, signed: Option<Signed>) -> NodeCa {
    NodeCa::elsewhere(key.public_key().clone(), signed)
}

fn sign(key: &PrivateKey, wanted: ToSign) -> Signed {
    let signature: Signature = key.try_sign(wanted.message()).unwrap();
    wanted.signed(signature).unwrap()
}

#[test]
fn a_signature_from_elsewhere_makes_the_certificate_it_was_asked_for() {
    for algorithm in [
        Algorithm::Ed25519,
        Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP256,
        },
        Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP384,
        },
        Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP521,
        },
        Algorithm::Rsa {
            hash: Some(HashAlg::Sha512),
        },
    ] {
        let key = key(algorithm.clone());
        check_served(key.public_key()).unwrap();
        let wanted = wanted(&elsewhere(&key, None), IOT, NOW);
        assert_eq!(wanted.authority(), key.public_key());
        let signed = sign(&key, wanted);
        let cert = certify(&elsewhere(&key, Some(signed)), IOT, NOW).unwrap();
        assert_eq!(
            cert.as_ssh().signature_key(),
            key.public_key().key_data(),
            "{algorithm}"
        );
        cert.as_ssh().verify_signature().unwrap();
    }
}

#[test]
fn a_signature_for_anything_else_is_asked_for_again() {
    let key = key(Algorithm::Ed25519);
    let signed = sign(&key, wanted(&elsewhere(&key, None), IOT, NOW));
    let ca = elsewhere(&key, Some(signed));
    certify(&ca, IOT, NOW).unwrap();
    // Another node, and another time: other bytes.
    for (node, now) in [(WEB, NOW), (IOT, NOW + Duration::SECOND)] {
        wanted(&ca, node, now);
    }
}

#[test]
fn a_signature_by_another_key_or_for_other_bytes_is_refused() {
    let mut rng = rng();
    let mut key = || PrivateKey::random(&mut rng, Algorithm::Ed25519).unwrap();
    let (ours, other) = (key(), key());
    let wanted = wanted(&elsewhere(&ours, None), IOT, NOW);
    let foreign: Signature = other.try_sign(wanted.message()).unwrap();
    assert!(wanted.clone().signed(foreign).is_err());
    let other_bytes: Signature = ours.try_sign(b"something else").unwrap();
    assert!(wanted.signed(other_bytes).is_err());
}

#[test]
fn keys_that_want_a_touch_are_no_authorities() {
    let touch = ssh_key::PublicKey::from_openssh(
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIJbAsEUJfjvfTQBxMXcYwaaPpW9hGh6TpJgRkZXHDWMnAAAABHNzaDo=",
    );
    let refused = check_served(&touch.unwrap()).unwrap_err().to_string();
    assert!(refused.contains("sk-ssh-ed25519@openssh.com"), "{refused}");
    assert!(
        refused.contains("ssh-ed25519, ecdsa-sha2-nistp256"),
        "{refused}"
    );
}
