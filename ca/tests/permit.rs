//! What an access certificate says, given what a permit says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use anteroom_ca::SourceAddresses;
use anteroom_ca::node::CertifyError;
use anteroom_core::role::Options;
use common::{IOT, REQUEST, SESSION, access_role, issuing, node_ca, requested, standing};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const NOW: OffsetDateTime = datetime!(2026-11-20 12:00:00.75 UTC);
const SECOND: u64 = 1_795_176_000;

fn plain() -> anteroom_core::role::Role {
    access_role(&["root", "deploy"], Options::default())
}

#[test]
fn the_one_principal_is_the_login_at_the_nodes_uuid() {
    for login in ["root", "deploy"] {
        let cert = issuing(NOW)
            .certify(&standing(plain(), login, IOT, NOW), &node_ca())
            .unwrap();
        assert_eq!(cert.as_ssh().valid_principals(), [format!("{login}@{IOT}")]);
    }
}

#[test]
fn the_key_id_names_user_session_and_the_request_if_there_is_one() {
    let cert = issuing(NOW)
        .certify(&standing(plain(), "root", IOT, NOW), &node_ca())
        .unwrap();
    assert_eq!(cert.key_id(), format!("alice sess={SESSION}"));
    let permit = requested("root", IOT, NOW, Duration::minutes(5));
    let cert = issuing(NOW).certify(&permit, &node_ca()).unwrap();
    assert_eq!(cert.key_id(), format!("carol req={REQUEST} sess={SESSION}"));
}

#[test]
fn it_begins_a_minute_before_now_and_lives_two_minutes() {
    let cert = issuing(NOW)
        .certify(&standing(plain(), "root", IOT, NOW), &node_ca())
        .unwrap();
    assert_eq!(
        (cert.as_ssh().valid_after(), cert.as_ssh().valid_before()),
        (SECOND - 60, SECOND + 60)
    );
    assert_eq!(
        cert.valid_before().unix_timestamp().unsigned_abs(),
        SECOND + 60
    );
}

#[test]
fn it_never_ends_after_the_permit() {
    // The permit ends at a fraction of a second, as `now` does.
    for (seconds, lives) in [(300, 60), (60, 60), (59, 59), (1, 1)] {
        let permit = requested("root", IOT, NOW, Duration::seconds(seconds));
        assert_eq!(permit.ends(), Some(NOW + Duration::seconds(seconds)));
        let cert = issuing(NOW).certify(&permit, &node_ca()).unwrap();
        assert_eq!(cert.as_ssh().valid_before(), SECOND + lives);
        assert!(cert.valid_before() <= permit.ends().unwrap());
    }
}

#[test]
fn a_permit_that_is_over_or_ends_within_the_second_certifies_nothing() {
    // It ends in the middle of a second, and a certificate ends with one.
    let decided = NOW + Duration::milliseconds(900);
    let permit = requested("root", IOT, decided, Duration::MINUTE);
    let at = NOW + Duration::milliseconds(60_500);
    let refused = issuing(at).certify(&permit, &node_ca());
    assert!(
        matches!(refused, Err(CertifyError::PermitEnded { .. })),
        "{refused:?}"
    );
    // Decided in time, issued too late.
    let permit = requested("root", IOT, NOW, Duration::MINUTE);
    let late = issuing(NOW + Duration::seconds(60)).certify(&permit, &node_ca());
    assert!(matches!(late, Err(CertifyError::PermitEnded { .. })));
    assert!(
        issuing(NOW + Duration::seconds(59))
            .certify(&permit, &node_ca())
            .is_ok()
    );
}

#[test]
fn the_source_address_is_its_one_critical_option() {
    let mut issuing = issuing(NOW);
    issuing.source = SourceAddresses::parse(&["192.0.2.7", "2001:db8::/32"]).unwrap();
    let cert = issuing
        .certify(&standing(plain(), "root", IOT, NOW), &node_ca())
        .unwrap();
    let options: Vec<_> = cert.as_ssh().critical_options().iter().collect();
    assert_eq!(
        options,
        [(
            &"source-address".to_owned(),
            &"192.0.2.7/32,2001:db8::/32".to_owned()
        )]
    );
}

#[test]
fn extensions_follow_the_permits_capabilities() {
    let extensions = |options: Options| {
        let permit = standing(access_role(&["root"], options), "root", IOT, NOW);
        let cert = issuing(NOW).certify(&permit, &node_ca()).unwrap();
        let names = cert
            .as_ssh()
            .extensions()
            .keys()
            .map(|name| name.replace("permit-", ""));
        names.collect::<Vec<_>>().join(" ")
    };
    let own = "allowed-resources@anteroom";
    let with = |change: fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        extensions(options)
    };
    assert_eq!(with(|_| ()), format!("{own} port-forwarding pty"));
    assert_eq!(
        with(|o| o.port_forwarding = Some(false)),
        format!("{own} pty")
    );
    let remote_only =
        |o: &mut Options| (o.local_forwarding, o.remote_forwarding) = (Some(false), Some(true));
    assert_eq!(with(remote_only), format!("{own} port-forwarding pty"));
    assert_eq!(
        with(|o| o.forward_agent = Some(true)),
        format!("{own} agent-forwarding port-forwarding pty")
    );
    assert_eq!(
        with(|o| o.permit_x11_forwarding = Some(true)),
        format!("{own} X11-forwarding port-forwarding pty")
    );
}

#[test]
fn the_allowed_resources_are_a_json_list_of_the_one_node() {
    let cert = issuing(NOW)
        .certify(&standing(plain(), "root", IOT, NOW), &node_ca())
        .unwrap();
    let value = cert
        .as_ssh()
        .extensions()
        .get("allowed-resources@anteroom")
        .unwrap();
    assert_eq!(value, &format!("[\"/example.com/node/{IOT}\"]"));
}

#[test]
fn what_is_signed_is_what_leaves() {
    let cert = issuing(NOW)
        .certify(&standing(plain(), "root", IOT, NOW), &node_ca())
        .unwrap();
    let read = ssh_key::Certificate::from_openssh(cert.to_openssh()).unwrap();
    assert_eq!(read.to_bytes().unwrap(), cert.blob());
    assert_eq!(read.serial(), cert.serial().get());
    assert_eq!(read.signature_key(), node_ca().public_key().key_data());
}
