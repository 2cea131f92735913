//! Access certificates at a node: the agent's verifier against a stock sshd with the three lines of
//! configuration and a revocation list, for the same certificates.

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
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;

use anteroom_ca::key::Key;
use anteroom_ca::krl::{Edition, RevocationList, Revoked, RevokedCertificates};
use anteroom_ca::node::{self, Conditions, Refused, VerifiedAccess};
use anteroom_ca::{SourceAddresses, export};
use anteroom_core::role::Options;
use common::{IOT, WEB, access_role, issuing, node_ca, node_id, requested_for, standing};
use proptest::prelude::*;
use raw::{Raw, line};
use ssh_key::PublicKey;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const NOW: OffsetDateTime = datetime!(2026-11-20 12:00:00.75 UTC);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Serial number and key ID that the list takes back.
const REVOKED: u64 = 666;
const TAKEN_BACK: &str = "mallory sess=1";

fn key(seed: &[u8; 32]) -> PublicKey {
    Key::from_seed("", seed).public_key().clone()
}

/// A revocation list with every kind of entry in it.
fn list() -> Vec<u8> {
    let mut certificates = RevokedCertificates::of(key(&raw::CA));
    certificates.serials = BTreeSet::from([NonZeroU64::new(REVOKED).unwrap()]);
    certificates.key_ids = BTreeSet::from([TAKEN_BACK.to_owned()]);
    let edition = Edition {
        version: 3,
        generated: NOW,
        comment: String::new(),
    };
    let list = RevocationList {
        certificates: vec![certificates],
        keys: vec![key(&[21; 32])],
        fingerprints: BTreeSet::new(),
    };
    list.to_bytes(&edition).unwrap()
}

fn asked(
    blob: &[u8],
    login: &str,
    ca: PublicKey,
    now: OffsetDateTime,
) -> Result<VerifiedAccess, Refused> {
    let revoked = Revoked::parse(&list()).unwrap();
    // A retired authority is on the list beside being trusted no more; here it is trusted still.
    let authorities = [ca, key(&[21; 32])];
    let conditions = Conditions {
        node: node_id(IOT),
        login,
        authorities: &authorities,
        revoked: &revoked,
        now,
        from: LOOPBACK,
    };
    node::verify(blob, &conditions)
}

fn says(raw: &Raw, login: &str, now: OffsetDateTime) -> Result<VerifiedAccess, Refused> {
    asked(&raw.bytes(), login, key(&raw::CA), now)
}

/// As a proxy issues it for a node behind its tunnel.
fn genuine(login: &str, now: OffsetDateTime) -> Raw {
    Raw::genuine(login, now).with(|c| {
        c.principals = vec![format!("{login}@{IOT}").into_bytes()];
        c.key_id = format!("alice sess={}", common::SESSION);
        c.before = c.after + 120;
        c.options = vec![("source-address".into(), Some("127.0.0.1/32,::1/128".into()))];
        c.extensions.clear();
        c.extension("permit-pty", None);
        let resources = format!("[\"/example.com/node/{IOT}\"]");
        c.extension("allowed-resources@anteroom", Some(&resources));
    })
}

#[test]
fn what_a_proxy_issues_for_the_tunnel_is_let_in_with_what_the_permit_allows() {
    let mut issuing = issuing(NOW);
    issuing.source = SourceAddresses::tunnel();
    let permit = standing(access_role(&["root"], Options::default()), "root", IOT, NOW);
    let cert = issuing.certify(&permit, &node_ca()).unwrap();
    let ca = node_ca().public_key().clone();
    let access = asked(cert.blob(), "root", ca.clone(), NOW).unwrap();
    assert_eq!(access.key_id(), format!("alice sess={}", common::SESSION));
    assert_eq!(access.person().unwrap().as_str(), "alice");
    assert_eq!(access.force_command(), None);
    assert!(access.rights().pty && access.rights().port_forwarding);
    assert!(!access.rights().agent_forwarding && !access.rights().x11_forwarding);
    // Half-open, to the second.
    let end = cert.valid_before();
    assert!(asked(cert.blob(), "root", ca.clone(), end - Duration::SECOND).is_ok());
    let ended = asked(cert.blob(), "root", ca.clone(), end);
    assert!(matches!(ended, Err(Refused::Ended { .. })), "{ended:?}");
    let early = asked(cert.blob(), "root", ca.clone(), NOW - Duration::seconds(62));
    assert!(matches!(early, Err(Refused::NotYet { .. })), "{early:?}");
    let other = asked(cert.blob(), "deploy", ca, NOW);
    assert!(
        matches!(other, Err(Refused::Principals { .. })),
        "{other:?}"
    );
}

#[test]
fn one_for_a_single_command_names_it_and_one_for_another_node_opens_nothing() {
    let mut issuing = issuing(NOW);
    issuing.source = SourceAddresses::tunnel();
    let permit = requested_for(Some("uptime -p"), "root", IOT, NOW, Duration::HOUR);
    let cert = issuing.certify(&permit, &node_ca()).unwrap();
    let ca = node_ca().public_key().clone();
    let access = asked(cert.blob(), "root", ca.clone(), NOW).unwrap();
    assert_eq!(access.force_command(), Some("uptime -p"));
    assert_eq!(access.person().unwrap().as_str(), "carol");
    let permit = standing(access_role(&["root"], Options::default()), "root", WEB, NOW);
    let cert = issuing.certify(&permit, &node_ca()).unwrap();
    let elsewhere = asked(cert.blob(), "root", ca, NOW);
    assert!(
        matches!(elsewhere, Err(Refused::Principals { .. })),
        "{elsewhere:?}"
    );
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Yes,
    No,
}

use Says::{No, Yes};

/// Name, certificate, what the agent says, what sshd says.
type Case = (&'static str, Raw, Says, Says);

fn table(login: &str, now: OffsetDateTime) -> Vec<Case> {
    let good = genuine(login, now);
    let raw = |change: &dyn Fn(&mut Raw)| good.clone().with(|raw| change(raw));
    let by = |raw: &mut Raw, seed: [u8; 32]| {
        raw.signer = seed;
        raw.authority = raw::ed25519(&raw::public(&seed));
    };
    let resources = |c: &mut Raw, ids: &str| c.extension("allowed-resources@anteroom", Some(ids));
    let source = |c: &mut Raw, blocks: &str| {
        c.options = vec![("source-address".into(), Some(blocks.into()))];
    };
    let seconds = u64::try_from(now.unix_timestamp()).unwrap();
    let here = format!("/example.com/node/{IOT}");
    vec![
        ("as it is issued", good.clone(), Yes, Yes),
        (
            "signed by hand in an emergency",
            raw(&|c| {
                c.options.clear();
                c.extensions.clear();
                (c.serial, c.key_id) = (0, "emergency".to_owned());
                for name in [
                    "X11-forwarding",
                    "agent-forwarding",
                    "port-forwarding",
                    "pty",
                    "user-rc",
                ] {
                    c.extension(&format!("permit-{name}"), None);
                }
            }),
            Yes,
            Yes,
        ),
        ("valid for ever", raw(&|c| c.before = u64::MAX), Yes, Yes),
        (
            "with somebody else's extension",
            raw(&|c| c.extension("login@github.com", Some("x"))),
            Yes,
            Yes,
        ),
        (
            "for this login among its resources",
            raw(&|c| resources(c, &format!("[\"{here}?logins={login}\"]"))),
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
            "for two logins",
            raw(&|c| c.principals.push(format!("other@{IOT}").into_bytes())),
            No,
            Yes,
        ),
        (
            "for another login",
            raw(&|c| c.principals = vec![format!("other@{IOT}").into_bytes()]),
            No,
            No,
        ),
        (
            "for the login alone",
            raw(&|c| c.principals = vec![login.as_bytes().to_vec()]),
            No,
            No,
        ),
        (
            "for another node",
            raw(&|c| c.principals = vec![format!("{login}@{WEB}").into_bytes()]),
            No,
            No,
        ),
        (
            "for the node's name in capitals",
            raw(&|c| {
                c.principals = vec![format!("{login}@{}", IOT.to_ascii_uppercase()).into_bytes()]
            }),
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
            raw(&|c| c.principals.iter_mut().for_each(|p| p.push(0))),
            No,
            Yes,
        ),
        (
            "for a principal with a tail behind NUL",
            raw(&|c| c.principals.iter_mut().for_each(|p| p.extend(b"\0x"))),
            No,
            No,
        ),
        (
            "for a pattern",
            raw(&|c| c.principals = vec![format!("*@{IOT}").into_bytes()]),
            No,
            No,
        ),
        (
            "for a list in one principal",
            raw(&|c| c.principals.iter_mut().for_each(|p| p.extend(b",x"))),
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
            "for the login and 256 more",
            raw(&|c| {
                c.principals
                    .extend((0..256).map(|n| format!("p{n}").into_bytes()))
            }),
            No,
            No,
        ),
        (
            "for 5,000 principals",
            raw(&|c| c.principals = (0..5000).map(|n| format!("p{n}").into_bytes()).collect()),
            No,
            No,
        ),
        ("by a foreign authority", raw(&|c| by(c, [8; 32])), No, No),
        ("by its own key", raw(&|c| by(c, raw::SUBJECT)), No, No),
        (
            "by another than it names",
            raw(&|c| c.signer = [8; 32]),
            No,
            No,
        ),
        (
            "by an authority that is on the list",
            raw(&|c| by(c, [21; 32])),
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
            raw(&|c| c.spoil = |b| b.reverse()),
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
        (
            "taken back by its serial number",
            raw(&|c| c.serial = REVOKED),
            No,
            No,
        ),
        (
            "taken back by its key ID",
            raw(&|c| c.key_id = TAKEN_BACK.to_owned()),
            No,
            No,
        ),
        (
            "ended a second ago",
            raw(&|c| c.before = seconds - 1),
            No,
            No,
        ),
        (
            "valid from tomorrow",
            raw(&|c| (c.after, c.before) = (seconds + 86_400, seconds + 90_000)),
            No,
            No,
        ),
        (
            "valid from the far end of time",
            raw(&|c| (c.after, c.before) = (1 << 63, u64::MAX)),
            No,
            No,
        ),
        (
            "valid until before it begins",
            raw(&|c| (c.after, c.before) = (c.before, c.after)),
            No,
            No,
        ),
        (
            "with an unknown critical option",
            raw(&|c| c.option("zzz@anteroom", None)),
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
            "from elsewhere",
            raw(&|c| source(c, "192.0.2.7/32")),
            No,
            No,
        ),
        (
            "from a block with bits beyond its prefix",
            raw(&|c| source(c, "127.0.0.1/8")),
            No,
            No,
        ),
        ("from no address", raw(&|c| source(c, "here")), No, No),
        (
            "from anywhere, in so many words",
            raw(&|c| source(c, "0.0.0.0/0")),
            No,
            Yes,
        ),
        ("from an empty list", raw(&|c| source(c, "")), No, No),
        (
            "from here, twice",
            raw(&|c| c.option("source-address", Some("127.0.0.1/32"))),
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
            "with a limit of a later version",
            raw(&|c| c.extension("hours@anteroom", Some("8-17"))),
            No,
            Yes,
        ),
        (
            "restricted to another node",
            raw(&|c| resources(c, &format!("[\"/example.com/node/{WEB}\"]"))),
            No,
            Yes,
        ),
        (
            "restricted to another login",
            raw(&|c| resources(c, &format!("[\"{here}?logins=other\"]"))),
            No,
            Yes,
        ),
        (
            "restricted to nothing",
            raw(&|c| resources(c, "[]")),
            No,
            Yes,
        ),
        (
            "restricted to no list",
            raw(&|c| resources(c, &here)),
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
            "with an extension twice",
            raw(&|c| c.extensions.insert(0, ("permit-pty".into(), None))),
            No,
            Yes,
        ),
        (
            "with extensions out of order",
            raw(&|c| c.extensions.reverse()),
            No,
            Yes,
        ),
        (
            "for a key that is too short",
            raw(&|c| c.subject.truncate(31)),
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
            "of more than 16 KiB",
            raw(&|c| c.extension("x@example.com", Some(&"x".repeat(17_000)))),
            No,
            Yes,
        ),
    ]
}

#[test]
fn of_sixty_certificates_the_agent_takes_the_right_ones_and_sshd_none_less() {
    let node = Sshd::new();
    let mut wrong = Vec::new();
    for (name, ..) in table(&node.login, NOW) {
        // Made when it is used: a genuine one lives a minute.
        let now = OffsetDateTime::now_utc();
        let case = table(&node.login, now)
            .into_iter()
            .find(|case| case.0 == name);
        let (_, raw, ours, theirs) = case.unwrap();
        let found = says(&raw, &node.login, now);
        let agent = if found.is_ok() { Yes } else { No };
        let sshd = node.lets_in(&raw.bytes());
        // The one word that matters: never laxer.
        assert!(!(agent == Yes && sshd == No), "{name}: laxer than sshd");
        if (agent, sshd) != (ours, theirs) {
            wrong.push(format!(
                "{name}: agent {agent:?} ({found:?}), sshd {sshd:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_forced_command_is_said_and_an_empty_one_refused() {
    let now = OffsetDateTime::now_utc();
    let forced = |command: Option<&str>| {
        let raw = genuine("root", now).with(|c| {
            c.options
                .insert(0, ("force-command".into(), command.map(str::to_owned)));
        });
        says(&raw, "root", now)
    };
    assert_eq!(forced(Some("id")).unwrap().force_command(), Some("id"));
    for empty in [None, Some(""), Some(" ")] {
        assert!(forced(empty).is_err(), "{empty:?}");
    }
}

#[test]
fn a_security_key_whose_touch_nobody_can_verify_is_refused_and_rsa_is_not() {
    let now = u64::try_from(NOW.unix_timestamp()).unwrap();
    let certified = |subject: ssh_key::public::KeyData| {
        let mut builder =
            ssh_key::certificate::Builder::new(vec![1; 32], subject, now - 60, now + 60).unwrap();
        builder
            .cert_type(ssh_key::certificate::CertType::User)
            .unwrap();
        builder.valid_principal(format!("root@{IOT}")).unwrap();
        let ca = Key::from_seed("", &raw::CA);
        let cert = builder.sign(ca.private_key()).unwrap();
        asked(&cert.to_bytes().unwrap(), "root", key(&raw::CA), NOW)
    };
    let plain = key(&raw::SUBJECT).key_data().clone();
    let touched = ssh_key::public::SkEd25519::new(*plain.ed25519().unwrap(), "ssh:");
    assert!(certified(plain).is_ok());
    assert_eq!(certified(touched.into()), Err(Refused::Subject));
    for (file, is) in [("rsa2048", true), ("rsa1024", false)] {
        let path = format!("{}/tests/keys/{file}.pub", env!("CARGO_MANIFEST_DIR"));
        let rsa = PublicKey::read_openssh_file(std::path::Path::new(&path)).unwrap();
        assert_eq!(certified(rsa.key_data().clone()).is_ok(), is, "{file}");
    }
}

/// A node with a stock sshd: `iot`, as `sshd-config` would have it, with a revocation list.
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
        for (name, seed) in [("id", raw::SUBJECT), ("host_key", [4; 32])] {
            Key::from_seed("", &seed).create_new(&at(name)).unwrap();
        }
        let trusted: Vec<_> = [raw::CA, [21; 32]]
            .iter()
            .map(|seed| export::authorized_keys_line(&key(seed), "node CA").unwrap())
            .collect();
        fs::write(at("node_ca.pub"), trusted.join("\n") + "\n").unwrap();
        fs::write(at("krl"), list()).unwrap();
        let user = if login == "root" { "nobody" } else { &login };
        let config = format!(
            "HostKey {0}/host_key\nPidFile none\nTrustedUserCAKeys {0}/node_ca.pub\n\
             RevokedKeys {0}/krl\nAuthorizedPrincipalsCommand /bin/echo %u@{IOT}\n\
             AuthorizedPrincipalsCommandUser {user}\nAuthorizedKeysFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n",
            dir.path().display(),
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
        ssh.args(["-F", "none", "-oBatchMode=yes", "-oIdentitiesOnly=yes"]);
        ssh.args([
            "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null",
        ]);
        ssh.args(["-oGlobalKnownHostsFile=none", "-oConnectTimeout=30", "-i"]);
        ssh.arg(at("id"));
        ssh.arg(format!("-oCertificateFile={}", at("id-cert.pub").display()));
        ssh.args(["-l", &self.login, "-p", &address.port().to_string()]);
        ssh.args(["127.0.0.1", "echo let in"]);
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
        let mut blob = genuine("root", NOW).bytes();
        let at = at % blob.len();
        if let Some(byte) = blob.get_mut(at) {
            *byte ^= 1 << bit;
        }
        prop_assert!(asked(&blob, "root", key(&raw::CA), NOW).is_err());
    }

    #[test]
    fn no_bytes_panic_the_verifier(blob in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(asked(&blob, "root", key(&raw::CA), NOW).is_err());
    }

    #[test]
    fn no_bytes_panic_the_reader_of_lists(cut in 0_usize..400, at in 0_usize..400, with: u8) {
        let mut list = list();
        let length = list.len();
        if let Some(byte) = list.get_mut(at % length) {
            *byte = with;
        }
        list.truncate(length - cut % length);
        let _ = Revoked::parse(&list);
    }
}
