//! What a machine that shows a token may become, without a runtime: every refusal beside what is let in.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anteroom_core::documents::parse_role;
use anteroom_core::enrol::{Admitted, Asked, HostKey, NotYours, Place, Refused, admit, is_nobodys};
use anteroom_core::id::{
    ClusterName, KeyFingerprint, LockId, NodeId, NodeName, RoleName, TokenId, UserName,
};
use anteroom_core::lock::{Lock, LockTarget};
use anteroom_core::node::{HostProof, Node, NodeAddr, SaidLabelError, said_labels};
use anteroom_core::token::{Token, TokenKind};
use anteroom_core::user::User;
use anteroom_core::view::{Settings, View};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);
const SECRET: &str = "00";

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn token() -> Token {
    Token {
        id: TokenId::parse("t1").unwrap(),
        kind: TokenKind::Node,
        node: Some(NodeName::parse("iot").unwrap()),
        addr: None,
        labels: labels(&[("env", "staging")]),
        uses: 1,
        created: datetime!(2026-11-20 11:30 UTC),
        created_by: "the local administrator".to_owned(),
        expires: datetime!(2026-11-20 12:30 UTC),
        secret_sha256: SECRET.to_owned(),
        uses_left: 1,
        enrolled: Vec::new(),
    }
}

fn host_key(word: &str) -> HostKey {
    let fingerprint = format!("SHA256:{word:A<43}");
    HostKey {
        openssh: format!("ssh-ed25519 {word}"),
        fingerprint: KeyFingerprint::parse(&fingerprint).unwrap(),
    }
}

fn asked() -> Asked {
    Asked {
        secret_sha256: SECRET.to_owned(),
        id: NodeId::from_uuid(Uuid::from_u128(1)),
        name: Some(NodeName::parse("iot").unwrap()),
        labels: labels(&[]),
        place: Place::Unsaid {
            source: NodeAddr::parse("192.0.2.7:22").unwrap(),
            verdict: Ok(()),
        },
        host_keys: vec![host_key("one"), host_key("two")],
    }
}

fn view(token: Token) -> View {
    View::new(ClusterName::parse("ex").unwrap(), Settings::default()).with_tokens([token])
}

fn other_node(name: &str, key: &str) -> Node {
    Node {
        id: NodeId::from_uuid(Uuid::from_u128(9)),
        name: NodeName::parse(name).unwrap(),
        addr: NodeAddr::parse("192.0.2.9:22").unwrap(),
        labels: labels(&[]),
        said_labels: Default::default(),
        host_proof: HostProof::Pinned(vec![format!("ssh-ed25519 {key} a comment")]),
        egress_addresses: Vec::new(),
    }
}

/// The view after `asked` has come in.
fn after(view: &View, asked: &Asked) -> View {
    match admit(view, asked, NOW) {
        Ok(Admitted::New { node, token }) => {
            let used = token.used_by(node.id);
            view.clone().with_node(node).with_tokens([used])
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_machine_becomes_what_its_token_says() {
    let asked = Asked {
        labels: labels(&[("env", "prod"), ("kernel", "6.1")]),
        ..asked()
    };
    let Ok(Admitted::New { node, token }) = admit(&view(token()), &asked, NOW) else {
        panic!("it is let in");
    };
    assert_eq!(node.name.as_str(), "iot");
    assert_eq!(node.addr.to_string(), "192.0.2.7:22");
    assert_eq!(
        node.labels,
        labels(&[("env", "staging"), ("kernel", "6.1")])
    );
    assert!(
        node.said_labels.iter().eq(["kernel"]),
        "{:?}",
        node.said_labels
    );
    assert_eq!(node.pinned_keys().count(), 2);
    assert_eq!(token.uses_left, 1);
}

#[test]
fn unknown_used_up_and_ended_tokens_are_refused_with_one_sentence() {
    let unknown = Asked {
        secret_sha256: "01".to_owned(),
        ..asked()
    };
    let used = Token {
        uses_left: 0,
        ..token()
    };
    let ended = Token {
        expires: NOW,
        ..token()
    };
    let refused = [
        admit(&view(token()), &unknown, NOW),
        admit(&view(used), &asked(), NOW),
        admit(&view(ended), &asked(), NOW),
        admit(
            &view(token()).without_token(&TokenId::parse("t1").unwrap()),
            &asked(),
            NOW,
        ),
    ];
    for refused in refused {
        assert_eq!(refused, Err(Refused::Token));
    }
    assert!(Refused::Token.is_of_the_token());
}

fn erin(locked: bool) -> User {
    User {
        roles: [RoleName::parse("narrow").unwrap()].into(),
        locked: locked.then(|| "gone".to_owned()),
        ..User::new(UserName::parse("erin").unwrap())
    }
}

fn view_of_erin(token: &Token, rules: &str) -> View {
    let role = format!(
        "kind: role\nversion: v8\nmetadata: {{name: narrow}}\nspec: {{allow: {{rules: [{rules}]}}}}\n"
    );
    let role = parse_role(&role).unwrap();
    view(Token {
        created_by: "erin".to_owned(),
        ..token.clone()
    })
    .with_role(role)
    .with_user(erin(false))
}

#[test]
fn a_token_is_worth_nothing_once_its_maker_is_locked_or_gone() {
    let made = view_of_erin(&token(), "{resources: [node], verbs: [create]}");
    assert!(admit(&made, &asked(), NOW).is_ok());
    let came_in = after(&made, &asked());
    for view in [&made, &came_in] {
        let locked = view.clone().with_user(erin(true));
        let gone = view.clone().without_user(&UserName::parse("erin").unwrap());
        for view in [locked, gone] {
            assert_eq!(admit(&view, &asked(), NOW), Err(Refused::Token));
        }
    }
    // A name that is nobody's any more is no administrator's either.
    let nobody = Token {
        created_by: String::new(),
        ..token()
    };
    assert_eq!(admit(&view(nobody), &asked(), NOW), Err(Refused::Token));
}

#[test]
fn a_token_lets_nothing_in_that_its_maker_may_not_register() {
    let staging = "{resources: [node], verbs: [create], where: 'resource.metadata.labels[\"env\"] == \"staging\"'}";
    let not_admitted = |view: &View, asked: &Asked| {
        let refused = admit(view, asked, NOW).unwrap_err();
        assert!(matches!(refused, Refused::NotTheMakers(_)), "{refused}");
    };
    assert!(admit(&view_of_erin(&token(), staging), &asked(), NOW).is_ok());
    not_admitted(
        &view_of_erin(&token(), "{resources: [token], verbs: [create]}"),
        &asked(),
    );
    // What the machine says of itself neither widens her rights nor gets round what they exclude.
    let bare = Token {
        labels: labels(&[]),
        ..token()
    };
    let says = |value| Asked {
        labels: labels(&[("env", value)]),
        ..asked()
    };
    not_admitted(&view_of_erin(&bare, staging), &says("staging"));
    let not_prod = "{resources: [node], verbs: [create], where: 'resource.metadata.labels[\"env\"] != \"prod\"'}";
    assert!(admit(&view_of_erin(&bare, not_prod), &says("dev"), NOW).is_ok());
    not_admitted(&view_of_erin(&bare, not_prod), &says("prod"));
}

#[test]
fn the_same_machine_may_repeat_it_and_changes_nothing() {
    let view = after(&view(token()), &asked());
    let again = Asked {
        id: NodeId::from_uuid(Uuid::from_u128(2)),
        host_keys: vec![host_key("two"), host_key("one")],
        ..asked()
    };
    let Ok(Admitted::Again { node, .. }) = admit(&view, &again, NOW) else {
        panic!("it is the same");
    };
    assert_eq!(node.id, asked().id);
    // Wherever it comes from by now.
    let elsewhere = Place::Unsaid {
        source: NodeAddr::parse("198.51.100.1:22").unwrap(),
        verdict: Ok(()),
    };
    let moved = Asked {
        place: elsewhere,
        ..again.clone()
    };
    assert!(matches!(
        admit(&view, &moved, NOW),
        Ok(Admitted::Again { .. })
    ));
}

#[test]
fn another_machine_gets_nothing_of_a_used_token() {
    let view = after(&view(token()), &asked());
    for keys in [vec!["one"], vec!["one", "two", "three"], vec!["three"]] {
        let other = Asked {
            host_keys: keys.into_iter().map(host_key).collect(),
            ..asked()
        };
        assert_eq!(admit(&view, &other, NOW), Err(Refused::Token));
    }
    let renamed = Asked {
        name: Some(NodeName::parse("n9").unwrap()),
        ..asked()
    };
    assert_eq!(admit(&view, &renamed, NOW), Err(Refused::Token));
    // Nor does the same one when the token's time is over, or the node was removed.
    let later = datetime!(2026-11-20 12:30 UTC);
    assert_eq!(admit(&view, &asked(), later), Err(Refused::Token));
    let removed = view.without_node(&asked().id);
    assert_eq!(admit(&removed, &asked(), NOW), Err(Refused::Token));
}

#[test]
fn a_repetition_that_asks_for_something_else_is_told_so() {
    let view = after(&view(token()), &asked());
    let elsewhere = Asked {
        place: Place::Said {
            addr: NodeAddr::parse("192.0.2.8:22").unwrap(),
            verdict: Ok(()),
        },
        ..asked()
    };
    let otherwise = Asked {
        labels: labels(&[("kernel", "6.1")]),
        ..asked()
    };
    for asked in [elsewhere, otherwise] {
        let refused = admit(&view, &asked, NOW);
        assert!(
            matches!(refused, Err(Refused::Different { .. })),
            "{refused:?}"
        );
    }
    let overruled = Asked {
        labels: labels(&[("env", "prod")]),
        ..asked()
    };
    let repeated = admit(&view, &overruled, NOW);
    assert!(
        matches!(repeated, Ok(Admitted::Again { .. })),
        "{repeated:?}"
    );
}

#[test]
fn names_are_the_tokens_or_free() {
    let named = |name: Option<&str>| Asked {
        name: name.map(|name| NodeName::parse(name).unwrap()),
        ..asked()
    };
    let any = Token {
        node: None,
        ..token()
    };
    let refused = admit(&view(token()), &named(Some("n2")), NOW);
    assert!(
        matches!(refused, Err(Refused::OtherName { .. })),
        "{refused:?}"
    );
    assert!(admit(&view(token()), &named(None), NOW).is_ok());
    assert!(admit(&view(any.clone()), &named(Some("n2")), NOW).is_ok());
    assert_eq!(admit(&view(any), &named(None), NOW), Err(Refused::NoName));
    let taken = view(token()).with_node(other_node("iot", "nine"));
    let refused = admit(&taken, &asked(), NOW);
    assert!(matches!(refused, Err(Refused::NameTaken(_))), "{refused:?}");
    let reads = view(token()).with_user(User::new(UserName::parse("root@iot.ex").unwrap()));
    let any = Token {
        node: None,
        ..token()
    };
    let refused = admit(&reads.with_tokens([any]), &named(Some("iot.ex")), NOW);
    assert!(
        matches!(refused, Err(Refused::ReadsAsUser(_))),
        "{refused:?}"
    );
}

#[test]
fn a_node_is_set_up_again_by_another_token_and_changes_nothing() {
    let came_in = after(&view(token()), &asked());
    let second = |token: Token| {
        let id = TokenId::parse("t2").unwrap();
        let secret_sha256 = "02".to_owned();
        came_in.clone().with_tokens([Token {
            id,
            secret_sha256,
            ..token
        }])
    };
    let again = Asked {
        secret_sha256: "02".to_owned(),
        id: NodeId::from_uuid(Uuid::from_u128(2)),
        ..asked()
    };
    let Ok(Admitted::Known { node, token: used }) = admit(&second(token()), &again, NOW) else {
        panic!("it is known");
    };
    assert_eq!(node.id, asked().id);
    assert_eq!((used.id.as_str(), used.uses_left), ("t2", 1));
    // A token without a name does too, where the machine says its own.
    let any = Token {
        node: None,
        ..token()
    };
    let named = admit(&second(any.clone()), &again, NOW);
    assert!(matches!(named, Ok(Admitted::Known { .. })), "{named:?}");
    // Not a key less or more, not another name, and no token that is used or says something else.
    for keys in [vec!["one"], vec!["one", "two", "three"], vec!["three"]] {
        let other = Asked {
            host_keys: keys.into_iter().map(host_key).collect(),
            ..again.clone()
        };
        let refused = admit(&second(token()), &other, NOW);
        assert!(matches!(refused, Err(Refused::NameTaken(_))), "{refused:?}");
    }
    let renamed = Asked {
        name: Some(NodeName::parse("n9").unwrap()),
        ..again.clone()
    };
    let refused = admit(&second(any), &renamed, NOW);
    assert!(matches!(refused, Err(Refused::KeyTaken(_))), "{refused:?}");
    let spent = Token {
        uses_left: 0,
        ..token()
    };
    assert_eq!(admit(&second(spent), &again, NOW), Err(Refused::Token));
    for other in [
        Token {
            labels: labels(&[("env", "prod")]),
            ..token()
        },
        Token {
            addr: Some(NodeAddr::Tunnel),
            ..token()
        },
    ] {
        let refused = admit(&second(other), &again, NOW);
        assert!(
            matches!(refused, Err(Refused::Different { .. })),
            "{refused:?}"
        );
    }
    // Nor under a lock.
    let lock = |target| Lock {
        id: LockId::from_uuid(Uuid::from_u128(5)),
        target,
        message: String::new(),
        created: NOW,
        created_by: String::new(),
        expires: None,
    };
    let locked = second(token()).with_lock(lock(LockTarget::Node(asked().id)));
    let refused = admit(&locked, &again, NOW);
    assert!(
        matches!(refused, Err(Refused::NodeLocked(_))),
        "{refused:?}"
    );
    let locked = second(token()).with_lock(lock(LockTarget::Key(host_key("one").fingerprint)));
    let refused = admit(&locked, &again, NOW);
    assert!(matches!(refused, Err(Refused::KeyLocked(_))), "{refused:?}");
}

#[test]
fn a_host_key_that_another_node_has_or_that_is_locked_is_refused() {
    let taken = view(token()).with_node(other_node("n2", "two"));
    let refused = admit(&taken, &asked(), NOW);
    assert_eq!(refused, Err(Refused::KeyTaken(host_key("two").fingerprint)));
    let lock = Lock {
        id: LockId::from_uuid(Uuid::from_u128(5)),
        target: LockTarget::Key(host_key("one").fingerprint),
        message: String::new(),
        created: NOW,
        created_by: String::new(),
        expires: None,
    };
    let refused = admit(&view(token()).with_lock(lock), &asked(), NOW);
    assert_eq!(
        refused,
        Err(Refused::KeyLocked(host_key("one").fingerprint))
    );
}

#[test]
fn an_operators_address_counts_whatever_it_is_and_a_machines_own_is_judged() {
    let not_yours = NotYours {
        addr: "127.0.0.1:22".to_owned(),
        what: "a loopback address",
    };
    let said = |addr: &str, verdict: Result<(), NotYours>| Asked {
        place: Place::Said {
            addr: NodeAddr::parse(addr).unwrap(),
            verdict,
        },
        ..asked()
    };
    let loopback = said("127.0.0.1:22", Err(not_yours.clone()));
    let refused = admit(&view(token()), &loopback, NOW);
    assert_eq!(refused, Err(Refused::NotYours(not_yours)));
    let by_operator = Token {
        addr: Some(NodeAddr::parse("127.0.0.1:22").unwrap()),
        ..token()
    };
    let view_with = view(by_operator);
    assert!(admit(&view_with, &loopback, NOW).is_ok());
    assert!(admit(&view_with, &asked(), NOW).is_ok());
    let refused = admit(&view_with, &said("192.0.2.8:22", Ok(())), NOW);
    assert!(
        matches!(refused, Err(Refused::OtherPlace { .. })),
        "{refused:?}"
    );
    let tunnel = Asked {
        place: Place::Tunnel,
        ..asked()
    };
    let refused = admit(&view_with, &tunnel, NOW);
    assert!(
        matches!(refused, Err(Refused::OtherPlace { .. })),
        "{refused:?}"
    );
    let Ok(Admitted::New { node, .. }) = admit(&view(token()), &tunnel, NOW) else {
        panic!("a tunnel is anybody's");
    };
    assert_eq!(node.addr, NodeAddr::Tunnel);
}

#[test]
fn a_token_of_several_uses_lets_as_many_in() {
    let several = Token {
        node: None,
        uses: 2,
        uses_left: 2,
        ..token()
    };
    let mut view = view(several);
    for n in 1..=3u128 {
        let asked = Asked {
            id: NodeId::from_uuid(Uuid::from_u128(n)),
            name: Some(NodeName::parse(&format!("n{n}")).unwrap()),
            host_keys: vec![host_key(&format!("k{n}"))],
            ..asked()
        };
        if n == 3 {
            assert_eq!(admit(&view, &asked, NOW), Err(Refused::Token));
        } else {
            view = after(&view, &asked);
        }
    }
    let token: &Arc<Token> = view.token_by_secret(SECRET).unwrap();
    assert_eq!((token.uses_left, token.enrolled.len()), (0, 2));
}

#[test]
fn addresses_that_mean_nobody_elsewhere_are_known_in_every_spelling() {
    let nobodys = [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.1.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ];
    for text in nobodys {
        let ip: IpAddr = text.parse().unwrap();
        assert!(is_nobodys(ip).is_some(), "{text}");
    }
    for text in [
        "10.0.0.1",
        "192.168.1.1",
        "198.51.100.7",
        "fd00::1",
        "2001:db8::7",
        "::ffff:10.0.0.1",
    ] {
        let ip: IpAddr = text.parse().unwrap();
        assert_eq!(is_nobodys(ip), None, "{text}");
    }
}

#[test]
fn what_a_node_says_of_itself_is_bounded_and_plain() {
    let said = |pairs: Vec<(String, String)>| said_labels(pairs);
    let pair = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
    assert!(said(pair("env", "a b/ü")).is_ok());
    assert!(said(pair(&"k".repeat(256), &"v".repeat(256))).is_ok());
    let many = (0..10_000).map(|n| (n.to_string(), String::new()));
    assert_eq!(said(many.collect()), Err(SaidLabelError::TooMany));
    assert_eq!(said(pair("", "x")), Err(SaidLabelError::Size));
    assert_eq!(said(pair("x", &"v".repeat(257))), Err(SaidLabelError::Size));
    for hostile in ["\x1b[2J", "\n", "\u{202e}", "\u{200b}", "\0"] {
        assert_eq!(said(pair("env", hostile)), Err(SaidLabelError::Control));
        assert_eq!(said(pair(hostile, "x")), Err(SaidLabelError::Control));
    }
    assert_eq!(said(pair("anteroom/x", "y")), Err(SaidLabelError::Reserved));
    let twice = [pair("env", "a"), pair("env", "b")].concat();
    assert!(matches!(said(twice), Err(SaidLabelError::Twice(_))));
}
