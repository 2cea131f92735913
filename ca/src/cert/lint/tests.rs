use ssh_key::certificate::{Builder, CertType};
use ssh_key::{Algorithm, Signature};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::authority::Signer;
use crate::cert::{Draft, SignError};
use crate::key::Key;
use crate::test_rng;

const NOW: OffsetDateTime = datetime!(2026-11-20 12:00:00.7 UTC);
const NODE: &str = "b1168402-9340-421a-a344-af66a6675738";
const ACCESS: &str = "root@b1168402-9340-421a-a344-af66a6675738";

fn at() -> IssueTime {
    IssueTime::new(NOW, None).unwrap()
}

fn ca() -> Key {
    Key::from_seed("ca", &[1; 32])
}

fn subject() -> PublicKey {
    Key::from_seed("subject", &[2; 32]).public_key().clone()
}

/// A certificate made by hand: as the linter must find it right, but for one change.
struct Hand {
    class: Class,
    cert_type: CertType,
    subject: PublicKey,
    serial: u64,
    key_id: String,
    principals: Vec<String>,
    from: i64,
    until: i64,
    command: Option<String>,
    options: Vec<(String, String)>,
    extensions: Vec<(String, String)>,
}

impl Hand {
    fn access() -> Self {
        Self {
            class: Class::Access,
            cert_type: CertType::User,
            subject: subject(),
            serial: 7,
            key_id: "alice sess=1".to_owned(),
            principals: vec![ACCESS.to_owned()],
            from: -60,
            until: 60,
            command: None,
            options: vec![("source-address".to_owned(), "192.0.2.1/32".to_owned())],
            extensions: vec![("permit-pty".to_owned(), String::new())],
        }
    }

    fn host(class: Class, principals: &[&str]) -> Self {
        Self {
            class,
            cert_type: CertType::Host,
            principals: principals.iter().map(|&p| p.to_owned()).collect(),
            until: 60,
            options: Vec::new(),
            extensions: Vec::new(),
            ..Self::access()
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn sign(&self) -> Wire {
        let second =
            |offset: i64| u64::try_from(NOW.unix_timestamp().saturating_add(offset)).unwrap();
        let mut builder = Builder::new(
            [9; 32],
            self.subject.clone(),
            second(self.from),
            second(self.until),
        )
        .unwrap();
        builder
            .serial(self.serial)
            .unwrap()
            .key_id(&self.key_id)
            .unwrap()
            .cert_type(self.cert_type)
            .unwrap();
        if self.principals.is_empty() {
            builder.all_principals_valid().unwrap();
        }
        for principal in &self.principals {
            builder.valid_principal(principal).unwrap();
        }
        for (name, value) in &self.options {
            builder.critical_option(name, value).unwrap();
        }
        for (name, value) in &self.extensions {
            builder.extension(name, value).unwrap();
        }
        builder.sign(ca().private_key()).unwrap()
    }

    fn lint(&self) -> Result<(), LintError> {
        let cert = self.sign();
        lint(
            self.class,
            self.command.as_deref(),
            &cert,
            cert.to_bytes().unwrap().len(),
            at(),
            ca().public_key(),
        )
    }
}

#[test]
fn the_linter_passes_what_is_right() {
    assert_eq!(Hand::access().lint(), Ok(()));
    assert_eq!(Hand::host(Class::Inner, &["iot"]).lint(), Ok(()));
    assert_eq!(
        Hand::host(Class::Proxy, &["access", "example.com"]).lint(),
        Ok(())
    );
    assert_eq!(Hand::host(Class::Node, &[NODE, "iot"]).lint(), Ok(()));
}

#[test]
fn a_certificate_of_the_other_type_is_held_back() {
    let access = Hand::access().with(|c| c.cert_type = CertType::Host).lint();
    let host = Hand::host(Class::Inner, &["iot"])
        .with(|c| c.cert_type = CertType::User)
        .lint();
    assert!(matches!(access, Err(LintError::Type { .. })));
    assert!(matches!(host, Err(LintError::Type { .. })));
}

#[test]
fn a_certificate_for_all_principals_or_too_many_is_held_back() {
    let none = Hand::access().with(|c| c.principals.clear()).lint();
    assert_eq!(none, Err(LintError::PrincipalCount { found: 0 }));
    let names = |count: usize| (0..count).map(|i| format!("n{i}")).collect::<Vec<_>>();
    let proxy = |count| {
        Hand::host(Class::Proxy, &[])
            .with(|c| c.principals = names(count))
            .lint()
    };
    assert_eq!(proxy(32), Ok(()));
    assert_eq!(proxy(33), Err(LintError::PrincipalCount { found: 33 }));
    let two = Hand::access()
        .with(|c| c.principals.push(format!("deploy@{NODE}")))
        .lint();
    assert_eq!(two, Err(LintError::PrincipalCount { found: 2 }));
    let inner = Hand::host(Class::Inner, &["iot", "web"]).lint();
    assert_eq!(inner, Err(LintError::PrincipalCount { found: 2 }));
}

#[test]
fn principals_that_some_reader_takes_for_more_are_held_back() {
    let upper = format!("root@{}", NODE.to_ascii_uppercase());
    for principal in [
        "",
        "root",
        "root@",
        "@",
        "root@iot",
        &format!("@{NODE}"),
        &upper,
        &format!("-root@{NODE}"),
        &format!("a,b@{NODE}"),
        &format!("a b@{NODE}"),
        &format!("*@{NODE}"),
        &format!("r?@{NODE}"),
        &format!("!root@{NODE}"),
        &format!("root\n@{NODE}"),
        &format!("root\0@{NODE}"),
        &format!("root@{NODE} "),
        &format!("root@{NODE},x"),
        &format!("röot@{NODE}"),
        &format!("a@b@{NODE}"),
    ] {
        let found = Hand::access()
            .with(|c| c.principals = vec![principal.to_owned()])
            .lint();
        assert!(
            matches!(found, Err(LintError::Principal { .. })),
            "{principal:?}: {found:?}"
        );
    }
    for principal in [
        "*",
        "*.lan",
        "localhost",
        "127.0.0.1",
        "::1",
        "IOT",
        "-iot",
        "a,b",
        "iot\n",
        "root@iot",
        "iot.",
    ] {
        let found = Hand::host(Class::Inner, &[principal]).lint();
        assert!(
            matches!(found, Err(LintError::Principal { .. })),
            "{principal:?}: {found:?}"
        );
    }
}

#[test]
fn a_nodes_certificate_without_its_uuid_in_front_is_held_back() {
    for principals in [&["iot"][..], &["iot", NODE]] {
        assert!(matches!(
            Hand::host(Class::Node, principals).lint(),
            Err(LintError::Principal { .. })
        ));
    }
}

#[test]
fn a_principal_that_stands_twice_is_held_back() {
    let found = Hand::host(Class::Proxy, &["access", "access"]).lint();
    assert!(matches!(found, Err(LintError::DuplicatePrincipal { .. })));
}

#[test]
fn serial_numbers_that_mean_none_or_do_not_fit_are_held_back() {
    for serial in [0, 1 << 63, u64::MAX] {
        let found = Hand::access().with(|c| c.serial = serial).lint();
        assert_eq!(found, Err(LintError::Serial { found: serial }));
    }
}

#[test]
fn a_key_id_is_one_line_of_at_most_256_bytes() {
    let lint = |key_id: String| Hand::access().with(|c| c.key_id = key_id).lint();
    assert_eq!(lint("a".repeat(256)), Ok(()));
    for bad in [
        String::new(),
        "a".repeat(257),
        "a\nb".into(),
        "a\rb".into(),
        "a\0".into(),
        "a\u{2028}b".into(),
        "\u{1b}[2J".into(),
    ] {
        assert_eq!(lint(bad.clone()), Err(LintError::KeyId), "{bad:?}");
    }
}

#[test]
fn times_outside_the_class_are_held_back() {
    let lint = |class: fn() -> Hand, from, until| {
        class().with(|c| (c.from, c.until) = (from, until)).lint()
    };
    let inner = || Hand::host(Class::Inner, &["iot"]);
    assert!(matches!(
        lint(Hand::access, -61, 59),
        Err(LintError::ValidAfter { .. })
    ));
    assert!(matches!(
        lint(Hand::access, 1, 60),
        Err(LintError::ValidAfter { .. })
    ));
    assert!(matches!(
        lint(Hand::access, -60, 61),
        Err(LintError::Lifetime { .. })
    ));
    assert!(matches!(
        lint(Hand::access, 0, 121),
        Err(LintError::Lifetime { .. })
    ));
    assert!(matches!(
        lint(Hand::access, -60, 0),
        Err(LintError::Lifetime { .. })
    ));
    assert_eq!(lint(Hand::access, 0, 120), Ok(()));
    assert_eq!(lint(Hand::access, -60, 1), Ok(()));
    assert_eq!(lint(inner, -60, 3540), Ok(()));
    assert!(matches!(
        lint(inner, -60, 3541),
        Err(LintError::Lifetime { .. })
    ));
    let forever = Hand::access().with(|c| c.until = i64::MAX).lint();
    assert!(matches!(forever, Err(LintError::Lifetime { .. })));
}

#[test]
fn a_certificate_for_one_command_forces_exactly_that() {
    let lint = |command: Option<&str>, options: &[(&str, &str)]| {
        let options = options.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        let options = options.collect();
        let command = command.map(str::to_owned);
        Hand::access()
            .with(|c| (c.command, c.options) = (command, options))
            .lint()
    };
    let source = ("source-address", "192.0.2.1/32");
    assert_eq!(
        lint(Some("uptime"), &[("force-command", "uptime"), source]),
        Ok(())
    );
    let long = "x".repeat(Scope::COMMAND_LIMIT + 1);
    for (command, options) in [
        (Some("uptime"), &[source][..]),
        (Some("uptime"), &[("force-command", "uptime")]),
        (Some("uptime"), &[("force-command", "uptime "), source]),
        (Some("uptime"), &[("force-command", "id"), source]),
        (None, &[("force-command", "uptime"), source]),
        (Some(""), &[("force-command", ""), source]),
        (Some(" "), &[("force-command", " "), source]),
        (Some(&long), &[("force-command", &long), source]),
    ] {
        assert!(
            matches!(
                lint(command, options),
                Err(LintError::CriticalOptions { .. })
            ),
            "{command:?}"
        );
    }
    let host = Hand::host(Class::Inner, &["iot"]).with(|c| c.command = Some("id".into()));
    assert!(matches!(
        host.lint(),
        Err(LintError::CriticalOptions { .. })
    ));
}

#[test]
fn an_access_certificate_has_a_source_address_and_no_other_critical_option() {
    let lint = |options: &[(&str, &str)]| {
        let options = options
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        Hand::access().with(|c| c.options = options).lint()
    };
    assert_eq!(lint(&[("source-address", "192.0.2.0/24,::1/128")]), Ok(()));
    for options in [
        &[][..],
        &[("source-address", "")],
        &[("source-address", "0.0.0.0/0")],
        &[("source-address", "192.0.2.1")],
        &[("source-address", "192.0.2.1/32,")],
        &[("force-command", "true")],
        &[
            ("force-command", "true"),
            ("source-address", "192.0.2.1/32"),
        ],
        &[("source-address", "192.0.2.1/32"), ("verify-required", "")],
    ] {
        assert!(
            matches!(lint(options), Err(LintError::CriticalOptions { .. })),
            "{options:?}"
        );
    }
    let host = Hand::host(Class::Inner, &["iot"])
        .with(|c| c.options = Hand::access().options)
        .lint();
    assert!(matches!(host, Err(LintError::CriticalOptions { .. })));
}

#[test]
fn unknown_extensions_are_held_back_and_hosts_have_none() {
    for name in [
        "permit-user-rc",
        "no-touch-required",
        "roles@anteroom",
        "permit-pty ",
        "",
    ] {
        let found = Hand::access()
            .with(|c| c.extensions = vec![(name.to_owned(), String::new())])
            .lint();
        assert!(
            matches!(found, Err(LintError::Extension { .. })),
            "{name:?}"
        );
    }
    let host = Hand::host(Class::Inner, &["iot"])
        .with(|c| c.extensions = Hand::access().extensions)
        .lint();
    assert!(matches!(host, Err(LintError::Extension { .. })));
}

#[test]
fn the_authority_does_not_certify_itself_nor_weak_keys() {
    let own = Hand::access()
        .with(|c| c.subject = ca().public_key().clone())
        .lint();
    assert_eq!(own, Err(LintError::SelfSigned));
    let weak = PublicKey::from_openssh(include_str!("../../../tests/keys/rsa1024.pub")).unwrap();
    let weak = Hand::access().with(|c| c.subject = weak).lint();
    assert!(matches!(weak, Err(LintError::Subject { .. })));
    let strong = PublicKey::from_openssh(include_str!("../../../tests/keys/rsa2048.pub")).unwrap();
    assert_eq!(Hand::access().with(|c| c.subject = strong).lint(), Ok(()));
}

#[test]
fn a_signature_is_of_the_keys_own_algorithm_and_with_rsa_never_sha_1() {
    use ssh_key::HashAlg::{Sha256, Sha512};
    let rsa = PublicKey::from_openssh(include_str!("../../../tests/keys/rsa2048.pub")).unwrap();
    let with = |hash| Signature::new(Algorithm::Rsa { hash }, vec![1; 256]).unwrap();
    for (hash, is) in [(None, false), (Some(Sha256), true), (Some(Sha512), true)] {
        assert_eq!(is_algorithm_of(rsa.key_data(), &with(hash)), is, "{hash:?}");
    }
    let ed25519 = Signature::new(Algorithm::Ed25519, vec![1; 64]).unwrap();
    assert!(is_algorithm_of(ca().public_key().key_data(), &ed25519));
    assert!(!is_algorithm_of(rsa.key_data(), &ed25519));
    assert!(!is_algorithm_of(
        ca().public_key().key_data(),
        &with(Some(Sha512))
    ));
}

#[test]
fn a_signature_of_another_key_is_held_back() {
    let cert = Hand::access().sign();
    let other = Key::from_seed("", &[3; 32]);
    let found = lint(Class::Access, None, &cert, 1, at(), other.public_key());
    assert_eq!(found, Err(LintError::Signature));
    let mut blob = cert.to_bytes().unwrap();
    *blob.last_mut().unwrap() ^= 1;
    let broken = Wire::from_bytes(&blob).unwrap();
    assert_eq!(
        lint(Class::Access, None, &broken, 1, at(), ca().public_key()),
        Err(LintError::Signature)
    );
}

#[test]
fn a_certificate_longer_than_16_kib_is_held_back() {
    let long = vec![(
        "allowed-resources@anteroom".to_owned(),
        "x".repeat(MAX_BYTES),
    )];
    let found = Hand::access().with(|c| c.extensions = long).lint();
    assert!(matches!(found, Err(LintError::Size { .. })));
}

#[test]
fn a_draft_without_principals_is_not_even_signed() {
    let draft = Draft {
        class: Class::Proxy,
        subject: &subject(),
        serial: Serial::new(1).unwrap(),
        key_id: "proxy".to_owned(),
        principals: Vec::new(),
        valid_before: NOW + Duration::minutes(1),
        force_command: None,
        source_address: None,
        extensions: Vec::new(),
    };
    let found = draft.sign(at(), &Signer::Here(ca()), &mut test_rng());
    assert!(matches!(
        found,
        Err(SignError::Lint(LintError::PrincipalCount { found: 0 }))
    ));
}
