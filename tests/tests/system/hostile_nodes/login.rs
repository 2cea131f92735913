//! Up to the opened channel.

use std::io::{Result, Write};
use std::thread;
use std::time::Duration;

use anteroom_tests::raw::wire::{Msg, msg};
use anteroom_tests::raw::{Raw, RawKey, Tricks};
use anteroom_tests::{FourThings, KeyType, login};

use super::{Case, HOSTILE, STEP, is_clean, only_what_was_issued, others_are_served, visit, world};

/// Writes until the other side has enough, but for no longer than this many mebibytes.
fn forever(raw: &mut Raw, bytes: &[u8], mebibytes: usize) -> Result<()> {
    let mut sent = 0;
    while sent < mebibytes << 20 {
        raw.stream().write_all(bytes)?;
        sent += bytes.len();
    }
    Ok(())
}

/// Sends messages until the other side has enough.
fn message_forever(raw: &mut Raw, message: &Msg, mebibytes: usize) -> Result<()> {
    let mut sent = 0;
    while sent < mebibytes << 20 {
        raw.send_all((0..20).map(|_| message.clone()))?;
        sent += 20 * message.0.len();
    }
    Ok(())
}

/// The question for codes.
fn prompts(number: u32) -> Msg {
    Msg::new(msg::USERAUTH_INFO_REQUEST)
        .string(HOSTILE)
        .string(HOSTILE)
        .string("")
        .u32(number)
        .string(HOSTILE)
        .byte(1)
}

fn goodbye() -> Msg {
    Msg::new(msg::DISCONNECT).u32(11).string(HOSTILE).string("")
}

const CASES: &[Case] = &[
    ("lines before the version, without end", |raw, _| {
        forever(raw, &b"welcome\r\n".repeat(1000), 64)
    }),
    ("a line without end", |raw, _| {
        forever(raw, &[b'x'; 65536], 64)
    }),
    ("a version of a mebibyte", |raw, _| {
        raw.stream().write_all(b"SSH-2.0-")?;
        raw.stream().write_all(&vec![b'x'; 1 << 20])?;
        raw.stream().write_all(b"\r\n")
    }),
    ("hostile lines before the version", |raw, key| {
        raw.stream().write_all(HOSTILE.as_bytes())?;
        raw.stream().write_all(b"\r\n")?;
        raw.let_in(key)?;
        raw.asked_for_session()?;
        raw.send(goodbye())
    }),
    ("another protocol", |raw, _| {
        raw.stream().write_all(b"HTTP/1.1 200 OK\r\n\r\n")
    }),
    ("version 1", |raw, _| {
        raw.stream().write_all(b"SSH-1.5-old\r\n")
    }),
    ("a hostile version", |raw, _| {
        raw.stream().write_all(b"SSH-2.0-")?;
        raw.stream().write_all(HOSTILE.as_bytes())?;
        raw.stream().write_all(b"\r\n")
    }),
    ("silence from the first byte on", |_, _| Ok(())),
    ("silence after the version", |raw, _| raw.say_version()),
    ("the version a byte a second", |raw, _| {
        for byte in b"SSH-2.0-OpenSSH_9.2p1" {
            raw.stream().write_all(&[*byte])?;
            thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    }),
    ("a packet of impossible length", |raw, _| {
        raw.say_version()?;
        raw.stream().write_all(&[0xff; 64])
    }),
    ("messages to be ignored, without end", |raw, _| {
        raw.say_version()?;
        message_forever(raw, &Msg::new(msg::IGNORE).string([b'x'; 30_000]), 256)
    }),
    ("algorithms that nobody has", |raw, key| {
        let none = Tricks {
            methods: Some(HOSTILE.to_owned()),
            ..Tricks::default()
        };
        raw.say_version()?;
        raw.read_version()?;
        raw.exchange(&none, Some(key))
    }),
    ("a public key of zeroes", |raw, key| {
        let zeroes = Tricks {
            public: Some(vec![0; 32]),
            ..Tricks::default()
        };
        raw.say_version()?;
        raw.read_version()?;
        raw.exchange(&zeroes, Some(key))
    }),
    ("another host key", |raw, _| raw.let_in(&RawKey::random())),
    (
        "the right host key, and a signature of another",
        |raw, key| raw.let_in(&RawKey::random().showing("ssh-ed25519", key.shown.clone())),
    ),
    ("a message before NEWKEYS", |raw, key| {
        let early = Tricks {
            before_newkeys: vec![Msg::new(msg::USERAUTH_SUCCESS)],
            ..Tricks::default()
        };
        raw.say_version()?;
        raw.read_version()?;
        raw.exchange(&early, Some(key))
    }),
    ("success before anything was asked", |raw, key| {
        raw.greet(key)?;
        raw.send(Msg::new(msg::USERAUTH_SUCCESS))
    }),
    ("silence after the keys", |raw, key| raw.greet(key)),
    ("silence after the service", |raw, key| {
        raw.greet(key)?;
        raw.serve_service()
    }),
    ("banners without end", |raw, key| {
        raw.greet(key)?;
        raw.serve_service()?;
        let banner = Msg::new(msg::USERAUTH_BANNER)
            .string(HOSTILE.repeat(300))
            .string("");
        message_forever(raw, &banner, 256)
    }),
    ("no method is good enough", |raw, key| {
        raw.greet(key)?;
        raw.serve_service()?;
        raw.recv_until(msg::USERAUTH_REQUEST)?;
        raw.send(Msg::new(msg::USERAUTH_FAILURE).string(HOSTILE).byte(0))
    }),
    ("partial success for ever", |raw, key| {
        raw.greet(key)?;
        raw.serve_service()?;
        for _ in 0..10_000 {
            raw.recv_until(msg::USERAUTH_REQUEST)?;
            raw.send(
                Msg::new(msg::USERAUTH_FAILURE)
                    .string("publickey,password")
                    .byte(1),
            )?;
        }
        Ok(())
    }),
    ("2^32 prompts", |raw, key| {
        raw.greet(key)?;
        raw.serve_service()?;
        raw.recv_until(msg::USERAUTH_REQUEST)?;
        raw.send(prompts(u32::MAX))
    }),
    ("prompts instead of an answer, for ever", |raw, key| {
        raw.greet(key)?;
        raw.serve_service()?;
        raw.recv_until(msg::USERAUTH_REQUEST)?;
        message_forever(raw, &prompts(1), 64)
    }),
    ("a hostile goodbye instead of an answer", |raw, key| {
        raw.greet(key)?;
        raw.serve_service()?;
        raw.recv_until(msg::USERAUTH_REQUEST)?;
        raw.send(goodbye())
    }),
    ("the key is fine, and then silence", |raw, key| {
        raw.greet(key)?;
        raw.serve_service()?;
        raw.recv_until(msg::USERAUTH_REQUEST)?;
        Ok(())
    }),
    ("silence when a session is opened", |raw, key| {
        raw.let_in(key)?;
        raw.asked_for_session().map(|_| ())
    }),
    ("a session refused with a hostile text", |raw, key| {
        raw.let_in(key)?;
        let channel = raw.asked_for_session()?;
        let failure = Msg::new(msg::CHANNEL_OPEN_FAILURE).u32(channel).u32(1);
        raw.send(failure.string(HOSTILE).string(""))
    }),
    ("a session refused with a text of 30 KB", |raw, key| {
        raw.let_in(key)?;
        let channel = raw.asked_for_session()?;
        let failure = Msg::new(msg::CHANNEL_OPEN_FAILURE).u32(channel).u32(1);
        raw.send(failure.string(HOSTILE.repeat(500)).string(""))
    }),
    (
        "data before the session is confirmed, without end",
        |raw, key| {
            raw.let_in(key)?;
            let channel = raw.asked_for_session()?;
            let data = Msg::new(msg::CHANNEL_DATA)
                .u32(channel)
                .string([b'x'; 30_000]);
            message_forever(raw, &data, 256)
        },
    ),
    (
        "another session is confirmed than the one that was asked for",
        |raw, key| {
            raw.let_in(key)?;
            let channel = raw.asked_for_session()?;
            raw.confirm(channel + 7)
        },
    ),
    (
        "global requests without end before the session",
        |raw, key| {
            raw.let_in(key)?;
            raw.asked_for_session()?;
            let request = Msg::new(msg::GLOBAL_REQUEST)
                .string(HOSTILE)
                .byte(1)
                .raw([0; 1000]);
            message_forever(raw, &request, 64)
        },
    ),
    ("gone at once", |raw, _| {
        raw.stream().shutdown(std::net::Shutdown::Both)
    }),
];

#[test]
fn a_node_that_breaks_the_protocol_before_the_session_ends_with_69_and_a_clean_sentence() {
    let world = world();
    let things = FourThings::before(&world);
    for (case, finished) in visit(&world, CASES) {
        assert_eq!(finished.code(), Some(69), "{case}: {finished}");
        assert!(finished.stdout.is_empty(), "{case}: {finished}");
        assert!(
            finished.stderr.contains("ERROR: evil"),
            "{case}: {finished}"
        );
        assert!(finished.stderr.len() < 1000, "{case}: {finished}");
        is_clean(case, &finished.stderr);
        assert!(finished.took < 2 * STEP, "{case}: {finished}");
    }
    others_are_served(&world);
    only_what_was_issued(&things, &world, "hostile nodes", CASES.len());
    let log = world.proxy_log();
    assert!(
        !log.contains('\u{202e}') && !log.contains("\x1b]0;"),
        "{log}"
    );
}

#[test]
fn a_node_whose_host_key_changes_between_two_connections_is_refused() {
    let mut world = world();
    let node = world.node("iot");
    node.change_host_key(KeyType::Ed25519);
    world.node_mut("iot").restart();
    let target = format!("{}@iot", login());
    let refused = world
        .person("carol")
        .ssh(anteroom_tests::Way::OneHop, &[], &target, &["echo in"])
        .run();
    refused
        .exits(69)
        .prints("")
        .says("did not prove that it is this node");
}
