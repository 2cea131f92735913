use anteroom_core::id::NodeId;
use ssh_key::certificate::{Builder, CertType};
use ssh_key::{Certificate as Wire, PublicKey};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::cert::MAX_BYTES;
use crate::key::Key;
use crate::test_rng;

const NOW: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);

fn key(byte: u8) -> Key {
    Key::from_seed("", &[byte; 32])
}

fn public(byte: u8) -> PublicKey {
    key(byte).public_key().clone()
}

fn ca() -> HostCa {
    HostCa::new(key(1))
}

fn node() -> NodeId {
    NodeId::parse("b1168402-9340-421a-a344-af66a6675738").unwrap()
}

fn other_node() -> NodeId {
    NodeId::parse("bbb56211-7b54-4f9e-bee9-b68ea156be5f").unwrap()
}

fn terms(lifetime: Duration) -> HostTerms {
    HostTerms {
        serial: Serial::new(5).unwrap(),
        lifetime,
        at: IssueTime::new(NOW, None).unwrap(),
    }
}

fn rule() -> HostNames {
    HostNames::new(["example.com", "access"], ["lan"]).unwrap()
}

fn issued() -> Wire {
    let names = [
        rule().admit("iot").unwrap(),
        rule().admit("iot.lan").unwrap(),
    ];
    let cert = certify_node(
        &node(),
        &names,
        &public(2),
        terms(Duration::days(7)),
        &ca(),
        &mut test_rng(),
    );
    cert.unwrap().into_ssh()
}

/// A host certificate with the faults that `certify_node` would not make.
fn by_hand(change: impl FnOnce(&mut Builder)) -> Wire {
    let start = u64::try_from(NOW.unix_timestamp()).unwrap();
    let mut builder = Builder::new([0; 32], public(2), start, start + 60).unwrap();
    builder
        .serial(1)
        .unwrap()
        .key_id("hand")
        .unwrap()
        .cert_type(CertType::Host)
        .unwrap();
    change(&mut builder);
    builder.sign(key(1).private_key()).unwrap()
}

fn named(builder: &mut Builder) {
    builder.valid_principal(node().to_string()).unwrap();
}

fn check(
    cert: &Wire,
    trusted: &[PublicKey],
    node: &NodeId,
    now: OffsetDateTime,
) -> Result<(), HostRefused> {
    verify(
        PresentedHost::Certificate(cert),
        HostExpectation::Authority { trusted, node, now },
    )
}

#[test]
fn a_node_certificate_carries_the_uuid_first_and_verifies() {
    let cert = issued();
    assert_eq!(
        cert.valid_principals(),
        [node().to_string(), "iot".to_owned(), "iot.lan".to_owned()]
    );
    assert_eq!(cert.key_id(), format!("node {}", node()));
    assert_eq!(check(&cert, &[public(8), public(1)], &node(), NOW), Ok(()));
    assert_eq!(check(&by_hand(named), &[public(1)], &node(), NOW), Ok(()));
}

#[test]
fn an_inner_certificate_carries_the_name_asked_for_alone() {
    let name = rule().admit("IoT").unwrap();
    let cert = certify_inner(
        &name,
        &public(2),
        terms(Duration::minutes(10)),
        &ca(),
        &mut test_rng(),
    )
    .unwrap();
    assert_eq!(cert.as_ssh().valid_principals(), ["iot"]);
    assert!(cert.as_ssh().extensions().is_empty() && cert.as_ssh().critical_options().is_empty());
    assert_eq!(cert.valid_before(), NOW + Duration::minutes(10));
}

#[test]
fn the_proxys_certificate_carries_its_names_alone() {
    let cert = certify_proxy(
        &rule(),
        &public(2),
        terms(Duration::days(7)),
        &ca(),
        &mut test_rng(),
    )
    .unwrap();
    assert_eq!(cert.as_ssh().valid_principals(), ["access", "example.com"]);
}

#[test]
fn a_lifetime_outside_the_class_is_refused() {
    let name = rule().admit("iot").unwrap();
    let ask = |lifetime| certify_inner(&name, &public(2), terms(lifetime), &ca(), &mut test_rng());
    assert!(ask(Duration::minutes(59)).is_ok());
    for lifetime in [Duration::minutes(60), Duration::ZERO, Duration::seconds(-1)] {
        assert!(
            matches!(ask(lifetime), Err(CertifyHostError::Lifetime { .. })),
            "{lifetime}"
        );
    }
}

#[test]
fn a_nodes_name_cannot_be_another_nodes_uuid() {
    let name = rule().admit(&other_node().to_string()).unwrap();
    let found = certify_node(
        &node(),
        &[name],
        &public(2),
        terms(Duration::DAY),
        &ca(),
        &mut test_rng(),
    );
    assert!(matches!(found, Err(CertifyHostError::AnotherNode { .. })));
}

#[test]
fn a_pinned_key_of_any_type_is_recognised_by_its_data() {
    let rsa = PublicKey::from_openssh(include_str!("../../tests/keys/rsa2048.pub")).unwrap();
    let mut commented = public(2);
    commented.set_comment("another comment");
    let pins = [rsa.clone(), public(2)];
    for shown in [&rsa, &commented] {
        assert_eq!(
            verify(PresentedHost::Key(shown), HostExpectation::Pinned(&pins)),
            Ok(())
        );
    }
    let cert = issued();
    assert_eq!(
        verify(
            PresentedHost::Certificate(&cert),
            HostExpectation::Pinned(&pins)
        ),
        Ok(())
    );
}

#[test]
fn a_key_that_is_not_pinned_is_refused() {
    let stranger = public(3);
    let pinned = [public(2)];
    let found = verify(
        PresentedHost::Key(&stranger),
        HostExpectation::Pinned(&pinned),
    );
    assert!(matches!(found, Err(HostRefused::NotPinned { .. })));
    // A certificate of our own authority does not stand in for the pinned key.
    let cert = issued();
    let found = verify(
        PresentedHost::Certificate(&cert),
        HostExpectation::Pinned(&[public(3)]),
    );
    assert!(matches!(found, Err(HostRefused::NotPinned { .. })));
    let found = verify(PresentedHost::Key(&stranger), HostExpectation::Pinned(&[]));
    assert_eq!(found, Err(HostRefused::NothingPinned));
}

#[test]
fn a_plain_key_is_refused_where_a_certificate_is_wanted() {
    let trusted = [public(1)];
    // Not even the authority's own.
    let expected = HostExpectation::Authority {
        trusted: &trusted,
        node: &node(),
        now: NOW,
    };
    let found = verify(PresentedHost::Key(&public(1)), expected);
    assert!(matches!(found, Err(HostRefused::NoCertificate { .. })));
}

#[test]
fn a_proxy_is_known_by_its_clusters_name_and_no_node_can_stand_for_it() {
    let trusted = [public(1)];
    let named = |name| HostExpectation::Named {
        trusted: &trusted,
        name,
        now: NOW,
    };
    let proxy = certify_proxy(
        &rule(),
        &public(2),
        terms(Duration::days(7)),
        &ca(),
        &mut test_rng(),
    );
    let proxy = proxy.unwrap().into_ssh();
    let shown = PresentedHost::Certificate(&proxy);
    assert_eq!(verify(shown, named("access")), Ok(()));
    let found = verify(shown, named("acces"));
    assert!(matches!(found, Err(HostRefused::OtherName { .. })));
    let found = verify(PresentedHost::Certificate(&issued()), named("access"));
    assert!(matches!(found, Err(HostRefused::OtherName { .. })));
    let found = verify(PresentedHost::Key(&public(2)), named("access"));
    assert!(matches!(found, Err(HostRefused::NoCertificateFor { .. })));
}

#[test]
fn another_nodes_certificate_is_refused() {
    let found = check(&issued(), &[public(1)], &other_node(), NOW);
    assert!(matches!(found, Err(HostRefused::Principals { .. })));
}

#[test]
fn a_certificate_for_every_host_or_by_name_alone_is_refused() {
    let every = by_hand(|builder| {
        builder.all_principals_valid().unwrap();
    });
    let name = by_hand(|builder| {
        builder
            .valid_principal("iot")
            .unwrap()
            .valid_principal(format!("{}x", node()))
            .unwrap();
    });
    let upper = by_hand(|builder| {
        builder
            .valid_principal(node().to_string().to_uppercase())
            .unwrap();
    });
    let pattern = by_hand(|builder| {
        builder.valid_principal("*").unwrap();
    });
    for cert in [every, name, upper, pattern] {
        assert!(matches!(
            check(&cert, &[public(1)], &node(), NOW),
            Err(HostRefused::Principals { .. })
        ));
    }
}

#[test]
fn a_certificate_of_an_authority_that_is_not_trusted_is_refused() {
    let retired = check(&issued(), &[public(7), public(8)], &node(), NOW);
    assert!(matches!(retired, Err(HostRefused::UnknownAuthority { .. })));
    assert!(matches!(
        check(&issued(), &[], &node(), NOW),
        Err(HostRefused::UnknownAuthority { .. })
    ));
}

#[test]
fn a_user_certificate_is_no_host_certificate() {
    let start = u64::try_from(NOW.unix_timestamp()).unwrap();
    let mut builder = Builder::new([0; 32], public(2), start, start + 60).unwrap();
    builder
        .cert_type(CertType::User)
        .unwrap()
        .valid_principal(node().to_string())
        .unwrap();
    let cert = builder.sign(key(1).private_key()).unwrap();
    assert_eq!(
        check(&cert, &[public(1)], &node(), NOW),
        Err(HostRefused::UserCertificate)
    );
}

#[test]
fn the_window_is_half_open() {
    let at = |seconds| {
        check(
            &by_hand(named),
            &[public(1)],
            &node(),
            NOW + Duration::milliseconds(seconds),
        )
    };
    assert!(matches!(at(-1), Err(HostRefused::NotYetValid { .. })));
    assert_eq!(at(0), Ok(()));
    assert_eq!(at(59_999), Ok(()));
    assert!(matches!(at(60_000), Err(HostRefused::Expired { .. })));
    let before_1970 = check(
        &by_hand(named),
        &[public(1)],
        &node(),
        datetime!(1969-12-31 23:59 UTC),
    );
    assert!(matches!(before_1970, Err(HostRefused::NotYetValid { .. })));
}

#[test]
fn any_critical_option_is_refused() {
    for option in ["source-address", "force-command", "anything@example.com"] {
        let cert = by_hand(|builder| {
            named(builder);
            builder.critical_option(option, "x").unwrap();
        });
        let found = check(&cert, &[public(1)], &node(), NOW);
        assert_eq!(
            found,
            Err(HostRefused::CriticalOption {
                name: option.to_owned()
            })
        );
    }
}

#[test]
fn a_changed_bit_anywhere_is_refused() {
    let blob = by_hand(named).to_bytes().unwrap();
    for position in 0..blob.len() {
        let mut changed = blob.clone();
        changed[position] ^= 1;
        let verdict =
            parse_certificate(&changed).and_then(|cert| check(&cert, &[public(1)], &node(), NOW));
        assert!(verdict.is_err(), "byte {position}");
    }
}

#[test]
fn bytes_left_over_are_refused_wherever_they_hide() {
    let blob = by_hand(named).to_bytes().unwrap();
    assert!(parse_certificate(&blob).is_ok());
    let behind = [blob.as_slice(), b"\0"].concat();
    assert_eq!(parse_certificate(&behind), Err(HostRefused::BytesLeftOver));
    // Inside the signature's string: its length is the 4 bytes before the last 83 of an Ed25519 one.
    let at = blob.len() - 83 - 4;
    assert_eq!(blob[at..at + 4], 83_u32.to_be_bytes());
    let inside = [&blob[..at], &84_u32.to_be_bytes(), &blob[at + 4..], b"\0"].concat();
    assert_eq!(parse_certificate(&inside), Err(HostRefused::BytesLeftOver));
    assert_eq!(
        parse_certificate(&blob[..blob.len() - 1]),
        Err(HostRefused::Malformed)
    );
    assert!(matches!(
        parse_certificate(&vec![0; MAX_BYTES + 1]),
        Err(HostRefused::TooLong { .. })
    ));
}

#[test]
fn an_authority_that_is_a_certificate_is_refused() {
    // A certificate whose signature key is itself a certificate, put together by hand.
    let inner = by_hand(named).to_bytes().unwrap();
    let outer = by_hand(named).to_bytes().unwrap();
    let ca_key = public(1).to_bytes().unwrap();
    let tail = 4 + ca_key.len() + 4 + 83;
    let head = &outer[..outer.len() - tail];
    let signature = &outer[outer.len() - 4 - 83..];
    let length = u32::try_from(inner.len()).unwrap().to_be_bytes();
    let chained = parse_certificate(&[head, &length, &inner, signature].concat()).unwrap();
    let found = check(&chained, &[public(1)], &node(), NOW);
    assert_eq!(found, Err(HostRefused::AuthorityIsCertificate));
}

#[test]
fn a_hosts_text_reaches_messages_escaped_and_cut() {
    let cert = by_hand(|builder| {
        builder
            .valid_principal(format!("\u{1b}[2J\u{202e}{}", "x".repeat(9_000)))
            .unwrap();
    });
    let message = check(&cert, &[public(1)], &node(), NOW)
        .unwrap_err()
        .to_string();
    assert!(
        message.is_ascii() && !message.contains('\u{1b}') && message.len() < 400,
        "{message}"
    );
}
