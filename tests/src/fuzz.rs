//! Everything that reads what somebody else wrote, as functions of bytes: nothing may panic, and what is accepted
//! is what it says it is.
//!
//! `tests/tests/fuzz.rs` runs them on stable Rust, on the inputs in `tests/fuzz/` and on changes of these; `fuzz/` is
//! for cargo-fuzz by hand, which finds more. Both share these functions.

mod krl;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

use anteroom_ca::user::{Conditions, Refused, verify};
use anteroom_core::id::{
    ClusterName, KeyFingerprint, Login, NodeId, NodeName, ResourceId, RoleName, UserName,
};
use anteroom_core::node::NodeAddr;
use anteroom_core::pattern::Pattern;
use anteroom_core::predicate::{
    MonitoringRule, NodeLabels, Predicate, Resource, ReviewWhere, RuleWhere, ThresholdFilter,
};
use anteroom_core::target::{NodeRef, Target};
use anteroom_core::{documents, duration};
use anteroom_node::protocol::{FromNode, FromProxy, Joined};
use anteroom_proxy::admin::CommandLine;
use anteroom_proxy::audit::{Record, Verifier};
use anteroom_proxy::say;
use ed25519_dalek::SigningKey;
use ssh_key::certificate::{Builder, CertType};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::{Certificate, PrivateKey, PublicKey};
use time::OffsetDateTime;

/// One way in.
pub struct FuzzTarget {
    /// Its name, and that of its folder in `tests/fuzz/corpus`.
    pub name: &'static str,
    /// Looks at an input, and panics if something is wrong.
    pub run: fn(&[u8]),
    /// Words that its inputs are made of.
    pub words: &'static [&'static str],
}

/// All of them.
pub const TARGETS: &[FuzzTarget] = &[
    FuzzTarget {
        name: "ids",
        run: ids,
        words: &[
            "/example.com/node/",
            "?logins=",
            "kube:ns:",
            "kube:cw:",
            "/db/",
            "root@",
            "+",
            "@",
            "..",
            "-",
            "*",
            "SHA256:",
            ":22",
            "[::1]:",
            "tunnel",
            "enroll+",
            "node+",
            "bbb56211-7b54-4f9e-bee9-b68ea156be5f",
            "\u{202e}",
            "\0",
            "\n",
        ],
    },
    FuzzTarget {
        name: "predicates",
        run: predicates,
        words: &[
            "labels[\"env\"]",
            "==",
            "!=",
            "&&",
            "||",
            "!",
            "(",
            ")",
            "contains(",
            "equals(",
            "user.spec.traits",
            "request.reason",
            "reviewer.roles",
            "resource.metadata.name",
            "search(",
            "hasPrefix(",
            "\"x\"",
            ",",
            "true",
            "regexp.match(",
            "name",
            ".",
            "[",
            "]",
        ],
    },
    FuzzTarget {
        name: "documents",
        run: documents_,
        words: &[
            "kind: role\n",
            "kind: user\n",
            "kind: node\n",
            "kind: lock\n",
            "metadata: {name: x}\n",
            "spec:\n",
            "  allow:\n",
            "    logins: [",
            "  options: {",
            "---\n",
            "'{{internal.logins}}'",
            "node_labels: {'*': '*'}",
            "&a",
            "*a",
            "<<: ",
            "!!binary ",
            "? ",
            "|\n",
            "\t",
            "{",
            "}",
            "max_session_ttl: 1h",
            "version: v7\n",
        ],
    },
    FuzzTarget {
        name: "commands",
        run: commands,
        words: &[
            "request ",
            "create ",
            "review ",
            "--approve ",
            "--reason=",
            "--resource ",
            "users add ",
            "--key -",
            "'",
            "\"",
            "\\",
            "ls ",
            "--format json ",
            "-- ",
            "nodes add ",
            "audit ls --since ",
            "status --server",
            "login ",
            " ",
        ],
    },
    FuzzTarget {
        name: "certificates",
        run: certificates,
        words: &["root", "permit-pty", "force-command", "\0\0\0\x20"],
    },
    FuzzTarget {
        name: "audit",
        run: audit,
        words: &[
            "\"seq\":",
            "\"time\":",
            "\"event\":",
            "null",
            "1e999",
            "{",
            "}",
            ",",
        ],
    },
    FuzzTarget {
        name: "node_protocol",
        run: node_protocol,
        words: &[
            "{\"say\":\"",
            "hello",
            "heartbeat",
            "renew",
            "welcome",
            "\"labels\":{",
            "\"version\":\"",
            "\",\"",
            "}",
            "1e400",
        ],
    },
    FuzzTarget {
        name: "krl",
        run: krl::krl,
        words: &[
            "SSHKRL\n\0",
            "alice",
            "bob",
            "carol",
            "\u{5}alice",
            "\u{4}bob\0",
            "\0\0\0\0\0\0\0\u{5}",
            "\0\0\0\0\0\0\u{1}\u{2c}",
            "\0\0\0\0\0\0\0\0",
            "\0\u{8}",
            "\u{1}\u{10}",
            "\0\0\0\u{1}",
        ],
    },
    FuzzTarget {
        name: "texts",
        run: texts,
        words: &[
            "\u{1b}[2J",
            "\u{202e}",
            "\u{200b}",
            "\u{e0041}",
            "e\u{301}",
            "\u{9b}",
            "\r\n",
            "\\x1b",
            "漢",
        ],
    },
];

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// What is accepted is written as it was read, and is harmless in a line.
fn ids(input: &[u8]) {
    let Some(text) = text(input) else { return };
    macro_rules! as_written {
        ($($kind:ty),*) => {$(
            if let Ok(id) = <$kind>::parse(text) {
                let printed = id.to_string();
                assert!(!printed.chars().any(char::is_control), "{printed:?}");
                let again = <$kind>::parse(&printed);
                assert!(again.is_ok_and(|again| again == id), "{printed:?}");
            }
        )*};
    }
    as_written!(
        UserName,
        Login,
        NodeName,
        ClusterName,
        RoleName,
        NodeId,
        KeyFingerprint
    );
    as_written!(ResourceId, NodeRef, Target, NodeAddr);
    if let (Ok(a), Ok(b)) = (ResourceId::parse(text), ResourceId::parse(text)) {
        assert!(a.covers(&b), "{text}");
    }
    if let Ok(length) = duration::parse(text) {
        assert!(!length.is_negative(), "{text}");
    }
    if let Ok(pattern) = Pattern::parse(text) {
        let _matched = pattern.matches("staging");
    }
}

/// What is accepted is accepted again in its own words.
fn predicates(input: &[u8]) {
    let Some(text) = text(input) else { return };
    macro_rules! each {
        ($($context:ty),*) => {$(
            match Predicate::<$context>::parse(text) {
                Ok(predicate) => {
                    assert!(Predicate::<$context>::parse(predicate.as_str()).is_ok(), "{text:?}");
                }
                Err(error) => {
                    let _said = error.to_string();
                }
            }
        )*};
    }
    each!(
        NodeLabels,
        Resource,
        RuleWhere,
        ReviewWhere,
        ThresholdFilter,
        MonitoringRule
    );
}

/// Every mistake has a place, and what is accepted is accepted twice alike.
fn documents_(input: &[u8]) {
    let Some(text) = text(input) else { return };
    match documents::parse(text) {
        Ok(read) => {
            let again = documents::parse(text).expect("it was read before");
            assert_eq!(read.len(), again.len());
            for document in &read {
                assert!(!document.title().chars().any(char::is_control), "{text:?}");
            }
        }
        Err(error) => {
            let _said = error.to_string();
        }
    }
}

/// What the log keeps of a command line is the same words to a shell. (Read as an SSH client's it may be others: quotes
/// that the user's own shell has taken away are guessed at.)
fn commands(input: &[u8]) {
    let Ok(line) = CommandLine::from_exec(input) else {
        return;
    };
    let logged = line.to_text();
    assert_eq!(
        shlex::split(&logged).as_deref(),
        Some(line.words()),
        "{logged:?}"
    );
    assert!(CommandLine::from_exec(logged.as_bytes()).is_ok() || logged.len() > 60_000);
    let _stdin = line.reads_stdin();
}

/// A certificate, and the authority that signed it.
fn authority() -> &'static (Vec<u8>, PublicKey) {
    static MADE: OnceLock<(Vec<u8>, PublicKey)> = OnceLock::new();
    MADE.get_or_init(|| {
        let key = |seed: u8| {
            let secret = SigningKey::from_bytes(&[seed; 32]);
            let pair = Ed25519Keypair {
                public: ssh_key::public::Ed25519PublicKey(secret.verifying_key().to_bytes()),
                private: Ed25519PrivateKey::from_bytes(&[seed; 32]),
            };
            PrivateKey::new(KeypairData::from(pair), "").expect("a key")
        };
        let (ca, subject) = (key(1), key(2));
        let subject = subject.public_key().key_data().clone();
        let mut builder = Builder::new(vec![3; 16], subject, 1_000, 4_000_000_000).expect("times");
        builder.serial(7).expect("a serial");
        builder.cert_type(CertType::User).expect("a type");
        builder.key_id("alice").expect("an id");
        builder.valid_principal("alice").expect("a principal");
        builder.extension("permit-pty", "").expect("an extension");
        let certificate: Certificate = builder.sign(&ca).expect("signed");
        (
            certificate.to_bytes().expect("bytes"),
            ca.public_key().clone(),
        )
    })
}

/// Nothing is let in that was not issued, and nothing is genuine but the certificate itself, to the byte.
fn certificates(input: &[u8]) {
    let (genuine, ca) = authority();
    // Short inputs are changes of the genuine one: where, and by what.
    let changed: Vec<u8> = match input {
        [high, low, rest @ ..] if rest.len() <= 8 => {
            let at = usize::from(u16::from_be_bytes([*high, *low])) % genuine.len();
            let mut changed = genuine.clone();
            for (byte, by) in changed.iter_mut().skip(at).zip(rest) {
                *byte ^= by;
            }
            changed
        }
        other => other.to_vec(),
    };
    let authorities = [ca.clone()];
    let conditions = Conditions {
        authorities: &authorities,
        retired: &[],
        now: OffsetDateTime::from_unix_timestamp(2_000_000).expect("a time"),
        from: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    match verify(&changed, &conditions, |_| None) {
        Ok(_) => panic!("let in, though nothing was issued"),
        Err(Refused::NeverIssued(_)) => assert_eq!(&changed, genuine, "another one is genuine"),
        Err(refused) => {
            let _said = refused.to_string();
        }
    }
}

/// No entry is taken whose text does not hash to what is recorded.
fn audit(input: &[u8]) {
    let text = String::from_utf8_lossy(input).into_owned();
    let record = Record {
        seq: 1,
        time: "2026-11-20T12:00:00Z".to_owned(),
        event: "user.login".to_owned(),
        prev: "0".repeat(64),
        hash: "0".repeat(64),
        text,
    };
    let _fields = record.fields();
    assert!(Verifier::new(Vec::new()).next(&record).is_err());
}

/// A message is read as what it is written as.
fn node_protocol(input: &[u8]) {
    macro_rules! each {
        ($($kind:ty),*) => {$(
            if let Ok(message) = serde_json::from_slice::<$kind>(input) {
                let written = serde_json::to_vec(&message).expect("it can be written");
                let again: $kind = serde_json::from_slice(&written).expect("it can be read");
                assert_eq!(again, message);
            }
        )*};
    }
    each!(FromNode, FromProxy, Joined);
}

/// Cleaned texts are clean, whatever they were, and stay as they are when they are cleaned again.
fn texts(input: &[u8]) {
    let cleaned = say::clean_bytes(input);
    assert!(!cleaned.chars().any(say::is_hostile), "{cleaned:?}");
    assert_eq!(say::clean(&cleaned), cleaned.as_str());
    let Some(text) = text(input) else { return };
    assert_eq!(say::clean(text), cleaned.as_str());
    for columns in [0, 1, 3, 10, 40] {
        let cut = say::cut(text, columns);
        assert!(say::width(&cut) <= columns.max(3), "{cut:?} in {columns}");
        assert!(!cut.chars().any(say::is_hostile), "{cut:?}");
    }
    let quoted = say::quote(text);
    assert!(
        quoted.len() >= 2 && !quoted.chars().any(say::is_hostile),
        "{quoted:?}"
    );
    let inner = &quoted[1..quoted.len() - 1];
    assert!(
        !inner.replace("\\\\", "").replace("\\\"", "").contains('"'),
        "{quoted}"
    );
}
