//! Identity certificates: what they say, who may have which, and that every other one is refused, here and,
//! where it is a question for sshd as well, there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "sshd reads the real clock, so these tests do as well"
)]

mod common;
#[path = "common/raw.rs"]
mod raw;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anteroom_ca::key::Key;
use anteroom_ca::user::{self, Conditions, Refused, VerifiedIdentity};
use anteroom_ca::{Certificate, IssueTime, Serial, export};
use anteroom_core::credential::{AllowedResources, IssuedCredential};
use anteroom_core::id::{KeyFingerprint, Login, RequestId, UserName};
use anteroom_core::policy::{
    self, Access, Decision, Identity, LoginPermit, LoginRefused, LoginWanted, Reason, decide,
};
use anteroom_core::role::{Demand, Options};
use anteroom_core::view::View;
use common::{
    IOT, REQUEST, WEB, access_role, identity, key_of, node_id, person_key, rng, user_ca, view,
    view_with_request,
};
use proptest::prelude::*;
use raw::{Raw, line};
use sha2::{Digest, Sha256};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const NOW: OffsetDateTime = datetime!(2026-11-20 12:00:00.75 UTC);
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn wanted(requests: &[&str]) -> LoginWanted {
    LoginWanted {
        requests: requests
            .iter()
            .map(|id| RequestId::parse(id).unwrap())
            .collect(),
        ..LoginWanted::default()
    }
}

fn certified(permit: &LoginPermit, serial: u64, now: OffsetDateTime) -> Certificate {
    let at = IssueTime::new(now, None).unwrap();
    user::certify(
        permit,
        Serial::new(serial).unwrap(),
        at,
        &user_ca(),
        &mut rng(),
    )
    .unwrap()
}

/// What the proxy remembers of a certificate.
fn remembered(cert: &Certificate, permit: &LoginPermit) -> IssuedCredential {
    IssuedCredential {
        serial: cert.serial().get(),
        sha256: cert.sha256(),
        user: permit.user().clone(),
        login_key: permit.key().clone(),
        subject: permit.key().clone(),
        valid_before: cert.valid_before(),
        revoked: None,
    }
}

fn verified(blob: &[u8], view: &View, now: OffsetDateTime) -> Result<VerifiedIdentity, Refused> {
    let authorities = [user_ca().public_key().clone()];
    let conditions = Conditions {
        authorities: &authorities,
        retired: &[],
        now,
        from: HOME,
    };
    user::verify(blob, &conditions, |serial| {
        view.credential(serial.get()).cloned()
    })
}

/// Issues, remembers, and presents.
fn presented(
    permit: &LoginPermit,
    serial: u64,
    view: View,
    now: OffsetDateTime,
) -> (View, Identity) {
    let cert = certified(permit, serial, now);
    let view = view.with_credentials([remembered(&cert, permit)]);
    let identity = verified(cert.blob(), &view, now).unwrap().into_identity();
    (view, identity)
}

fn carols(now: OffsetDateTime) -> View {
    view_with_request("root", IOT, now, Duration::hours(1))
}

fn decided(view: &View, who: &Identity, login: &str, node: &str, now: OffsetDateTime) -> Decision {
    let access = Access {
        login: Login::parse(login).unwrap(),
        node: node_id(node),
    };
    decide(view, who, &access, now)
}

#[track_caller]
fn reason(decision: Decision) -> Reason {
    match decision {
        Decision::Deny(denial) => denial.reasons[0].clone(),
        other @ (Decision::Permit(_) | Decision::Ask(_)) => panic!("not denied: {other:?}"),
    }
}

#[test]
fn a_login_certifies_the_key_it_was_made_with_for_the_users_name_alone() {
    let view = view(access_role(&["root"], Options::default()), NOW);
    let permit = policy::login(&view, &identity("alice"), &wanted(&[]), NOW).unwrap();
    let cert = certified(&permit, 1, NOW);
    let wire = cert.as_ssh();
    assert_eq!(wire.valid_principals(), ["alice"]);
    assert_eq!(wire.key_id(), "alice");
    assert_eq!(
        wire.public_key(),
        person_key("alice").public_key().key_data()
    );
    assert_eq!(wire.valid_after(), 1_795_176_000 - 60);
    assert_eq!(cert.valid_before(), datetime!(2026-11-21 00:00:00 UTC));
    assert!(!wire.extensions().contains_key("allowed-resources@anteroom"));
    let who = verified(
        cert.blob(),
        &view.with_credentials([remembered(&cert, &permit)]),
        NOW,
    );
    let who = who.unwrap();
    assert_eq!(who.user().as_str(), "alice");
    assert_eq!(who.credential().claims, *permit.claims());
}

#[test]
fn with_a_resource_request_it_ends_with_the_access_and_names_what_it_opens() {
    let view = carols(NOW);
    let permit = policy::login(&view, &identity("carol"), &wanted(&[REQUEST]), NOW).unwrap();
    let (view, who) = presented(&permit, 1, view, NOW);
    assert_eq!(permit.valid_before(), datetime!(2026-11-20 13:00:00 UTC));
    let claims = permit.claims();
    // The login could last longer than the access: as long as the request says of sessions.
    assert_eq!(claims.session_ends, datetime!(2026-11-20 13:30:00 UTC));
    assert_eq!(
        claims.roles.iter().map(|r| r.as_str()).collect::<Vec<_>>(),
        ["access", "requester"]
    );
    let AllowedResources::Only(ids) = &claims.allowed else {
        panic!("unrestricted")
    };
    assert_eq!(ids.len(), 1);
    let Decision::Permit(permit) = decided(&view, &who, "root", IOT, NOW) else {
        panic!("no permit")
    };
    assert_eq!(permit.ends(), Some(datetime!(2026-11-20 13:00:00 UTC)));
}

#[test]
fn restricted_means_restricted_and_dropping_restores_the_rest_until_the_very_same_end() {
    let view = carols(NOW);
    let permit = policy::login(&view, &identity("carol"), &wanted(&[REQUEST]), NOW).unwrap();
    let (view, who) = presented(&permit, 1, view, NOW);
    let other = reason(decided(&view, &who, "root", WEB, NOW));
    assert_eq!(
        other.as_sentence(),
        format!(
            "not in the allowed resources of your certificate; drop the request with \
             `ssh access request drop {REQUEST}`"
        )
    );
    let login = reason(decided(&view, &who, "deploy", IOT, NOW));
    assert!(matches!(login, Reason::NotAllowedByCertificate { .. }));
    let shown = policy::visible_nodes(&view, &who, NOW);
    assert_eq!(
        shown
            .iter()
            .map(|n| n.node.name.as_str())
            .collect::<Vec<_>>(),
        ["iot"]
    );
    assert!(policy::requestable_nodes(&view, &who, NOW).is_empty());

    let later = NOW + Duration::minutes(20);
    let dropped = policy::drop_requests(&view, &who, &BTreeSet::new(), None, later).unwrap();
    assert_eq!(dropped.valid_before(), permit.valid_before());
    assert_eq!(dropped.subject(), who.credential().unwrap().subject);
    assert_eq!(dropped.presented(), Some(1));
    assert_eq!(dropped.claims().allowed, AllowedResources::Unrestricted);
    assert!(dropped.claims().requests.is_empty());
    let (view, who) = presented(&dropped, 2, view, later);
    // Carol's standing roles open nothing, but she may ask again.
    assert!(matches!(
        decided(&view, &who, "root", WEB, later),
        Decision::Ask(_)
    ));
}

#[test]
fn a_certificate_with_standing_roles_opens_what_they_open_and_no_more_than_it_names() {
    let view = view(access_role(&["root"], Options::default()), NOW);
    let permit = policy::login(&view, &identity("alice"), &wanted(&[]), NOW).unwrap();
    let (view, who) = presented(&permit, 1, view, NOW);
    for node in [IOT, WEB] {
        assert!(matches!(
            decided(&view, &who, "root", node, NOW),
            Decision::Permit(_)
        ));
    }
    // The role is taken away: at once, for the certificate as well.
    let taken = view.clone().with_user(common::user("alice", &[], NOW));
    assert!(matches!(
        decided(&taken, &who, "root", IOT, NOW),
        Decision::Deny(_)
    ));
    // A role that came later is not in it.
    let nobody = common::user("alice", &["requester"], NOW);
    let before = view.clone().with_user(nobody);
    let permit = policy::login(&before, &identity("alice"), &wanted(&[]), NOW).unwrap();
    let (before, who) = presented(&permit, 2, before, NOW);
    let after = before.with_user(common::user("alice", &["requester", "access"], NOW));
    assert!(matches!(
        decided(&after, &who, "root", IOT, NOW),
        Decision::Ask(_)
    ));
}

#[test]
fn a_certificate_is_judged_anew_at_every_use() {
    let view = view(access_role(&["root"], Options::default()), NOW);
    let permit = policy::login(&view, &identity("alice"), &wanted(&[]), NOW).unwrap();
    let (view, who) = presented(&permit, 1, view, NOW);
    let at_its_end = decided(&view, &who, "root", IOT, permit.valid_before());
    assert_eq!(reason(at_its_end), Reason::CertificateEnded);
    let mut issued = IssuedCredential::clone(view.credential(1).unwrap());
    issued.revoked = Some("dropped".to_owned());
    let revoked = view.clone().with_credentials([issued]);
    assert!(matches!(
        reason(decided(&revoked, &who, "root", IOT, NOW)),
        Reason::CertificateRevoked { .. }
    ));
    let forgotten = view.clone().without_credential(1);
    assert!(matches!(
        reason(decided(&forgotten, &who, "root", IOT, NOW)),
        Reason::CertificateRevoked { .. }
    ));
    let mut keyless = common::user("alice", &["access"], NOW);
    keyless.keys.clear();
    let without_key = view.with_user(keyless);
    assert_eq!(
        reason(decided(&without_key, &who, "root", IOT, NOW)),
        Reason::UnknownKey
    );
}

#[test]
fn no_certificate_for_requests_that_are_not_ones_own_open_and_held() {
    let view = carols(NOW);
    let refused = |who: &str, id: &str, at| {
        policy::login(&view, &identity(who), &wanted(&[id]), at).unwrap_err()
    };
    let id = RequestId::parse(REQUEST).unwrap();
    assert_eq!(
        refused("alice", REQUEST, NOW),
        LoginRefused::NoSuchRequest(id)
    );
    assert!(matches!(
        refused("carol", "00000000-893b-471b-872e-ae65eb24fd76", NOW),
        LoginRefused::NoSuchRequest(_)
    ));
    let ends = NOW + Duration::hours(1);
    assert_eq!(
        refused("carol", REQUEST, ends),
        LoginRefused::Over { id, ended: ends }
    );
    let mut aside = anteroom_core::request::AccessRequest::clone(view.request(&id).unwrap());
    aside.set_aside.insert(key_of("carol"));
    let dropped = view.clone().with_request(aside);
    assert_eq!(
        policy::login(&dropped, &identity("carol"), &wanted(&[REQUEST]), NOW),
        Err(LoginRefused::NotHeld(id))
    );
    assert_eq!(
        policy::drop_requests(&view, &identity("carol"), &BTreeSet::new(), None, NOW),
        Err(LoginRefused::NoCertificate)
    );
}

#[test]
fn the_address_of_a_pinned_login_is_enforced() {
    let demands = BTreeSet::from([Demand::PinnedCertificate]);
    let options = Options {
        demands,
        ..Options::default()
    };
    let view = view(access_role(&["root"], options), NOW);
    let pinned = LoginWanted {
        from: Some("192.0.2.7".parse().unwrap()),
        ..LoginWanted::default()
    };
    let permit = policy::login(&view, &identity("alice"), &pinned, NOW).unwrap();
    let cert = certified(&permit, 1, NOW);
    let options = cert.as_ssh().critical_options();
    assert_eq!(options.get("source-address").unwrap(), "192.0.2.7/32");
    let view = view.with_credentials([remembered(&cert, &permit)]);
    assert_eq!(
        verified(cert.blob(), &view, NOW),
        Err(Refused::Source(HOME))
    );
}

#[test]
fn what_was_never_issued_is_an_alarm_even_if_it_is_genuine() {
    let view = view(access_role(&["root"], Options::default()), NOW);
    let genuine = Raw::genuine("alice", NOW).bytes();
    assert_eq!(
        verified(&genuine, &view, NOW),
        Err(Refused::NeverIssued(4711))
    );
    // A certificate of the same serial number was issued, but not this one.
    let permit = policy::login(&view, &identity("alice"), &wanted(&[]), NOW).unwrap();
    let view = view.with_credentials([remembered(&certified(&permit, 4711, NOW), &permit)]);
    assert_eq!(
        verified(&genuine, &view, NOW),
        Err(Refused::NeverIssued(4711))
    );
}

#[test]
fn more_than_fits_is_not_issued() {
    let view = view(access_role(&["root"], Options::default()), NOW);
    let mut alice = common::user("alice", &["access"], NOW);
    alice
        .traits
        .insert("groups".to_owned(), vec!["g".repeat(17_000)]);
    let permit = policy::login(
        &view.with_user(alice),
        &identity("alice"),
        &wanted(&[]),
        NOW,
    )
    .unwrap();
    let at = IssueTime::new(NOW, None).unwrap();
    let error =
        user::certify(&permit, Serial::new(1).unwrap(), at, &user_ca(), &mut rng()).unwrap_err();
    assert!(error.is_too_large(), "{error}");
}

#[test]
fn ssh_keygen_shows_who_what_and_until_when() {
    let view = carols(NOW);
    let permit = policy::login(&view, &identity("carol"), &wanted(&[REQUEST]), NOW).unwrap();
    let text = listed(&certified(&permit, 42, NOW));
    let path = format!("{}/tests/golden/identity.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap());
    for shown in [
        "carol",
        "role=access@anteroom",
        &format!("request={REQUEST}@anteroom"),
        &format!("resource=/example.com/node/{IOT}?logins=root@anteroom"),
        "to 2026-11-20T13:00:00",
    ] {
        assert!(text.contains(shown), "`{shown}` is not in\n{text}");
    }
}

fn listed(cert: &Certificate) -> String {
    let mut child = Command::new("ssh-keygen")
        .args(["-L", "-f", "-"])
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", cert.to_openssh()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

// ---- the table

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Yes,
    No,
}

use Says::{No, Yes};

/// Name, certificate, what Anteroom says, what sshd says.
type Case = (&'static str, Raw, Says, Says);

/// Well-formed and malformed certificates. Anteroom sees them as if each had been issued.
fn table(user: &str, now: OffsetDateTime) -> Vec<Case> {
    let good = Raw::genuine(user, now);
    let raw = |change: &dyn Fn(&mut Raw)| good.clone().with(|raw| change(raw));
    let resources = format!("[\"/example.com/node/{IOT}\"]");
    let resource = format!("resource=/example.com/node/{IOT}@anteroom");
    let seconds = u64::try_from(now.unix_timestamp()).unwrap();
    vec![
        ("as it is issued", good.clone(), Yes, Yes),
        (
            "restricted",
            raw(&|c| {
                c.extension("allowed-resources@anteroom", Some(&resources));
                c.extension(&resource, None);
            }),
            Yes,
            Yes,
        ),
        (
            "pinned to here",
            raw(&|c| {
                c.option("source-address", Some("127.0.0.1/32"));
                c.extension("login-ip@anteroom", Some("127.0.0.1"));
            }),
            Yes,
            Yes,
        ),
        (
            "all of OpenSSH's permissions",
            raw(&|c| {
                for name in [
                    "permit-X11-forwarding",
                    "permit-agent-forwarding",
                    "permit-port-forwarding",
                ] {
                    c.extension(name, None);
                }
            }),
            Yes,
            Yes,
        ),
        ("a host's", raw(&|c| c.kind = 2), No, No),
        (
            "neither a user's nor a host's",
            raw(&|c| c.kind = 3),
            No,
            No,
        ),
        ("without principals", raw(&|c| c.principals.clear()), No, No),
        (
            "for two principals",
            raw(&|c| c.principals.push(b"other".to_vec())),
            No,
            Yes,
        ),
        (
            "for another user",
            raw(&|c| c.principals = vec![b"other".to_vec()]),
            No,
            No,
        ),
        (
            "for an empty principal",
            raw(&|c| c.principals = vec![Vec::new()]),
            No,
            No,
        ),
        (
            "for a principal with NUL",
            raw(&|c| c.principals[0].push(0)),
            No,
            Yes,
        ),
        (
            "for a principal with a tail behind NUL",
            raw(&|c| c.principals[0].extend(b"\0x")),
            No,
            No,
        ),
        (
            "for any principal, as a pattern",
            raw(&|c| c.principals = vec![b"*".to_vec()]),
            No,
            No,
        ),
        (
            "for a list in one principal",
            raw(&|c| c.principals[0].extend(b",other")),
            No,
            No,
        ),
        (
            "for the user in capitals",
            raw(&|c| c.principals[0].make_ascii_uppercase()),
            No,
            No,
        ),
        (
            "for no text",
            raw(&|c| c.principals = vec![vec![0xff, 0xfe]]),
            No,
            No,
        ),
        (
            "for 5,000 principals",
            raw(&|c| {
                c.principals = (0..5000).map(|n| format!("p{n}").into_bytes()).collect();
            }),
            No,
            No,
        ),
        (
            "for the user and 256 more",
            raw(&|c| {
                c.principals
                    .extend((0..256).map(|n| format!("p{n}").into_bytes()));
            }),
            No,
            No,
        ),
        (
            "with another key ID",
            raw(&|c| c.key_id = "other".to_owned()),
            No,
            Yes,
        ),
        ("with an empty key ID", raw(&|c| c.key_id.clear()), No, Yes),
        (
            "with a key ID of two lines",
            raw(&|c| c.key_id.push_str("\nx")),
            No,
            Yes,
        ),
        (
            "by a foreign authority",
            raw(&|c| {
                c.signer = [8; 32];
                c.authority = raw::ed25519(&raw::public(&[8; 32]));
            }),
            No,
            No,
        ),
        (
            "by its own key",
            raw(&|c| {
                c.signer = raw::SUBJECT;
                c.authority = raw::ed25519(&raw::public(&raw::SUBJECT));
            }),
            No,
            No,
        ),
        (
            "by another than it names",
            raw(&|c| c.signer = [8; 32]),
            No,
            No,
        ),
        (
            "by an authority that is a certificate",
            raw(&|c| c.authority = good.bytes()),
            No,
            No,
        ),
        (
            "by an authority with bytes left over",
            raw(&|c| c.authority.push(0)),
            No,
            No,
        ),
        ("by no authority", raw(&|c| c.authority.clear()), No, No),
        (
            "with a signature called by another name",
            raw(&|c| c.signature_algorithm = "ssh-rsa".into()),
            No,
            No,
        ),
        (
            "with a changed signature",
            raw(&|c| c.spoil = |b| *b.last_mut().unwrap() ^= 1),
            No,
            No,
        ),
        (
            "with a changed serial number",
            raw(&|c| c.spoil = |b| b[36 + 36 + 36 + 7] ^= 1),
            No,
            No,
        ),
        (
            "with a changed key",
            raw(&|c| c.spoil = |b| b[36 + 36 + 10] ^= 1),
            No,
            No,
        ),
        (
            "with a byte behind it",
            raw(&|c| c.spoil = |b| b.push(0)),
            No,
            No,
        ),
        (
            "twice over",
            raw(&|c| c.spoil = |b| b.extend(b.clone())),
            No,
            No,
        ),
        (
            "without its last byte",
            raw(&|c| {
                c.spoil = |b| {
                    b.pop();
                }
            }),
            No,
            No,
        ),
        (
            "without its second half",
            raw(&|c| c.spoil = |b| b.truncate(b.len() / 2)),
            No,
            No,
        ),
        (
            "a key and no certificate",
            raw(&|c| c.spoil = |b| *b = raw::ed25519(&raw::public(&raw::SUBJECT))),
            No,
            No,
        ),
        ("nothing", raw(&|c| c.spoil = |b| b.clear()), No, No),
        (
            "ended a second ago",
            raw(&|c| c.before = seconds - 1),
            No,
            No,
        ),
        (
            "valid from tomorrow",
            raw(&|c| {
                c.after = seconds + 1800;
            }),
            No,
            No,
        ),
        (
            "valid from the far end of time",
            raw(&|c| c.after = 1 << 63),
            No,
            No,
        ),
        ("valid for ever", raw(&|c| c.before = u64::MAX), No, Yes),
        (
            "valid for eight days",
            raw(&|c| c.before = seconds + 8 * 86_400),
            No,
            Yes,
        ),
        (
            "valid longer than its login",
            raw(&|c| c.before += 1),
            No,
            Yes,
        ),
        (
            "valid until before it begins",
            raw(&|c| (c.after, c.before) = (c.before, c.after)),
            No,
            No,
        ),
        (
            "with an unknown critical option",
            raw(&|c| c.option("anteroom@anteroom", None)),
            No,
            No,
        ),
        (
            "with a forced command",
            raw(&|c| c.option("force-command", Some("echo forced"))),
            No,
            No,
        ),
        (
            "with a demand for a present person",
            raw(&|c| c.option("verify-required", None)),
            No,
            Yes,
        ),
        (
            "pinned to elsewhere",
            raw(&|c| {
                c.option("source-address", Some("192.0.2.7/32"));
                c.extension("login-ip@anteroom", Some("192.0.2.7"));
            }),
            No,
            No,
        ),
        (
            "pinned for sshd alone",
            raw(&|c| c.option("source-address", Some("127.0.0.1/32"))),
            No,
            Yes,
        ),
        (
            "pinned for Anteroom alone",
            raw(&|c| c.extension("login-ip@anteroom", Some("127.0.0.1"))),
            No,
            Yes,
        ),
        (
            "pinned to no address",
            raw(&|c| c.option("source-address", Some("here"))),
            No,
            No,
        ),
        (
            "pinned twice",
            raw(&|c| {
                c.option("source-address", Some("127.0.0.1/32"));
                c.option("source-address", Some("127.0.0.1/32"));
                c.extension("login-ip@anteroom", Some("127.0.0.1"));
            }),
            No,
            No,
        ),
        (
            "with bytes behind its options",
            raw(&|c| c.options_tail = vec![0, 0]),
            No,
            No,
        ),
        (
            "with a flag that has a value",
            raw(&|c| c.extension("permit-pty", Some("x"))),
            No,
            No,
        ),
        (
            "with an unknown extension",
            raw(&|c| c.extension("other@anteroom", None)),
            No,
            Yes,
        ),
        (
            "with somebody else's extension",
            raw(&|c| c.extension("login@github.com", Some("x"))),
            No,
            Yes,
        ),
        (
            "with leave to run ~/.ssh/rc",
            raw(&|c| c.extension("permit-user-rc", None)),
            No,
            Yes,
        ),
        (
            "without roles",
            raw(&|c| c.extensions.retain(|(name, _)| name != "roles@anteroom")),
            No,
            Yes,
        ),
        (
            "with roles in no list",
            raw(&|c| c.extension("roles@anteroom", Some("access"))),
            No,
            Yes,
        ),
        (
            "with roles written otherwise",
            raw(&|c| c.extension("roles@anteroom", Some("[ \"access\" ]"))),
            No,
            Yes,
        ),
        (
            "with other roles than it shows",
            raw(&|c| c.extension("roles@anteroom", Some("[\"editor\"]"))),
            No,
            Yes,
        ),
        (
            "showing a role that it does not have",
            raw(&|c| c.extension("role=editor@anteroom", None)),
            No,
            Yes,
        ),
        (
            "restricted to nothing",
            raw(&|c| c.extension("allowed-resources@anteroom", Some("[]"))),
            No,
            Yes,
        ),
        (
            "restricted to no resource ID",
            raw(&|c| c.extension("allowed-resources@anteroom", Some("[\"iot\"]"))),
            No,
            Yes,
        ),
        (
            "restricted by an empty value",
            raw(&|c| c.extension("allowed-resources@anteroom", None)),
            No,
            Yes,
        ),
        (
            "restricted without showing it",
            raw(&|c| c.extension("allowed-resources@anteroom", Some(&resources))),
            No,
            Yes,
        ),
        (
            "with an extension twice",
            raw(&|c| {
                let again = c.extensions[0].clone();
                c.extensions.insert(0, again);
            }),
            No,
            Yes,
        ),
        (
            "with extensions out of order",
            raw(&|c| c.extensions.reverse()),
            No,
            Yes,
        ),
        ("with the serial number 0", raw(&|c| c.serial = 0), No, Yes),
        (
            "with a serial number beyond ours",
            raw(&|c| c.serial = 1 << 63),
            No,
            Yes,
        ),
        (
            "for a key that is too short",
            raw(&|c| {
                c.subject.pop();
            }),
            No,
            No,
        ),
        (
            "of a type that it is not",
            raw(&|c| c.algorithm = "ssh-rsa-cert-v01@openssh.com".into()),
            No,
            No,
        ),
        (
            "of a type that there is not",
            raw(&|c| c.algorithm = "ssh-dss-cert-v01@openssh.com".into()),
            No,
            No,
        ),
        (
            "of more than 16 KiB",
            raw(&|c| {
                c.extension(
                    "traits@anteroom",
                    Some(&format!("{{\"logins\":[\"{}\"]}}", "x".repeat(17_000))),
                );
            }),
            No,
            Yes,
        ),
    ]
}

fn says(raw: &Raw, now: OffsetDateTime) -> Result<VerifiedIdentity, Refused> {
    let blob = raw.bytes();
    let authorities = [user_ca().public_key().clone()];
    let conditions = Conditions {
        authorities: &authorities,
        retired: &[],
        now,
        from: HOME,
    };
    let user = raw.principals.first().cloned().unwrap_or_default();
    let user = UserName::parse(&String::from_utf8_lossy(&user));
    user::verify(&blob, &conditions, |serial| {
        Some(Arc::new(IssuedCredential {
            serial: serial.get(),
            sha256: Sha256::digest(&blob).into(),
            user: user.ok()?,
            login_key: KeyFingerprint::parse(
                &Key::from_seed("", &raw::SUBJECT).fingerprint().to_string(),
            )
            .unwrap(),
            subject: KeyFingerprint::parse(
                &Key::from_seed("", &raw::SUBJECT).fingerprint().to_string(),
            )
            .unwrap(),
            valid_before: now + Duration::HOUR,
            revoked: None,
        }))
    })
}

#[test]
fn of_more_than_forty_certificates_anteroom_takes_the_right_ones_and_sshd_none_less() {
    let node = Sshd::new();
    let now = OffsetDateTime::now_utc();
    let mut wrong = Vec::new();
    let cases = table(&node.login, now);
    assert!(cases.len() >= 40);
    for (name, raw, ours, theirs) in &cases {
        let found = says(raw, now);
        let anteroom = if found.is_ok() { Yes } else { No };
        let sshd = node.lets_in(&raw.bytes());
        // The one word that matters: never laxer.
        assert!(!(anteroom == Yes && sshd == No), "{name}: laxer than sshd");
        // "For another user" is that user's own certificate here: who she is decides the session.
        let another = *name == "for another user";
        if (anteroom != *ours && !another) || sshd != *theirs {
            wrong.push(format!(
                "{name}: Anteroom {anteroom:?} ({found:?}), sshd {sshd:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An sshd that trusts the user authority for the login that runs the tests.
struct Sshd {
    dir: tempfile::TempDir,
    login: String,
}

impl Sshd {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        let login = Command::new("id").arg("-un").output().unwrap().stdout;
        let login = String::from_utf8(login).unwrap().trim().to_owned();
        if login == "root" {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let at = |name: &str| dir.path().join(name);
        Key::from_seed("", &raw::SUBJECT)
            .create_new(&at("id"))
            .unwrap();
        Key::from_seed("", &[4; 32])
            .create_new(&at("host_key"))
            .unwrap();
        let trusted = export::authorized_keys_line(user_ca().public_key(), "user CA").unwrap();
        fs::write(at("user_ca.pub"), trusted + "\n").unwrap();
        let config = format!(
            "HostKey {}\nPidFile none\nTrustedUserCAKeys {}\nAuthorizedKeysFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n",
            at("host_key").display(),
            at("user_ca.pub").display()
        );
        fs::write(at("sshd_config"), config).unwrap();
        Self { dir, login }
    }

    fn lets_in(&self, blob: &[u8]) -> Says {
        let at = |name: &str| self.dir.path().join(name);
        fs::write(at("id-cert.pub"), line(blob)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut ssh = Command::new("ssh");
        ssh.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
        ssh.args([
            "-F",
            "none",
            "-oBatchMode=yes",
            "-oIdentitiesOnly=yes",
            "-oStrictHostKeyChecking=no",
        ]);
        ssh.args([
            "-oUserKnownHostsFile=/dev/null",
            "-oGlobalKnownHostsFile=none",
            "-oConnectTimeout=30",
        ]);
        ssh.arg("-i")
            .arg(at("id"))
            .arg(format!("-oCertificateFile={}", at("id-cert.pub").display()));
        ssh.args([
            "-l",
            &self.login,
            "-p",
            &address.port().to_string(),
            "127.0.0.1",
            "echo let in",
        ]);
        let client = thread::spawn(move || {
            let output = ssh.output().unwrap();
            drop(TcpStream::connect(address));
            output
        });
        let (socket, _) = listener.accept().unwrap();
        let sshd = Command::new("/usr/sbin/sshd")
            .args(["-i", "-e", "-f"])
            .arg(at("sshd_config"))
            .stdin(OwnedFd::from(socket.try_clone().unwrap()))
            .stdout(OwnedFd::from(socket))
            .stderr(Stdio::null())
            .status();
        sshd.unwrap();
        let output = client.join().unwrap();
        // A forced command says something else.
        if output.status.success() && output.stdout == b"let in\n" {
            Yes
        } else {
            No
        }
    }
}

proptest! {
    #[test]
    fn no_change_of_a_bit_survives(at in 0_usize..600, bit in 0_u8..8) {
        let good = Raw::genuine("alice", NOW).bytes();
        let mut blob = good.clone();
        let at = at % blob.len();
        blob[at] ^= 1 << bit;
        let view = view(access_role(&["root"], Options::default()), NOW);
        let found = verified(&blob, &view, NOW);
        prop_assert!(!matches!(found, Ok(_) | Err(Refused::NeverIssued(_))), "{found:?}");
    }

    #[test]
    fn no_bytes_panic_the_verifier(blob in proptest::collection::vec(any::<u8>(), 0..400)) {
        let view = view(access_role(&["root"], Options::default()), NOW);
        prop_assert!(verified(&blob, &view, NOW).is_err());
    }

    #[test]
    fn nor_does_a_certificate_with_a_part_taken_out(from in 0_usize..600, length in 1_usize..80) {
        let mut blob = Raw::genuine("alice", NOW).bytes();
        let from = from % blob.len();
        let to = (from + length).min(blob.len());
        blob.drain(from..to);
        let view = view(access_role(&["root"], Options::default()), NOW);
        let found = verified(&blob, &view, NOW);
        prop_assert!(!matches!(found, Ok(_) | Err(Refused::NeverIssued(_))), "{found:?}");
    }
}
