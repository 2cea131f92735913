//! Once a session runs.

use std::io::Result;
use std::time::{Duration, Instant};

use anteroom_tests::raw::wire::{Msg, msg};
use anteroom_tests::raw::{Raw, RawKey, RawNode, Tricks};
use anteroom_tests::{FourThings, Way, World, login};
use nix::sys::signal::Signal;

use super::{Case, HOSTILE, is_clean, others_are_served, visit, world};

/// Sends this until the other side has enough, or so much was sent.
fn flood(raw: &mut Raw, message: &Msg, mebibytes: usize) -> Result<()> {
    let mut sent = 0;
    while sent < mebibytes << 20 {
        raw.send_all((0..20).map(|_| message.clone()))?;
        sent += 20 * message.0.len();
    }
    Ok(())
}

fn on_channel(channel: u32, name: &str, reply: u8) -> Msg {
    Msg::new(msg::CHANNEL_REQUEST)
        .u32(channel)
        .string(name)
        .byte(reply)
}

/// The program ends with this status.
fn done(raw: &mut Raw, channel: u32, status: u32) -> Result<()> {
    raw.send(on_channel(channel, "exit-status", 0).u32(status))?;
    raw.send(Msg::new(msg::CHANNEL_EOF).u32(channel))?;
    raw.send(Msg::new(msg::CHANNEL_CLOSE).u32(channel))
}

/// Things that a node may say, however odd, and that end with the status it says.
const ODD: &[Case] = &[
    ("channels that nobody asked for", |raw, key| {
        raw.let_in(key)?;
        let channel = raw.session_runs()?;
        let open = |kind: &str, n: u32| {
            Msg::new(msg::CHANNEL_OPEN)
                .string(kind)
                .u32(n)
                .u32(1 << 21)
                .u32(1 << 15)
        };
        for n in 0..300 {
            raw.send(open("session", 5 * n + 10))?;
            raw.send(open("auth-agent@openssh.com", 5 * n + 11))?;
            raw.send(open("x11", 5 * n + 12).string(HOSTILE).u32(1))?;
            let forwarded = open("forwarded-tcpip", 5 * n + 13)
                .string("127.0.0.1")
                .u32(22);
            raw.send(forwarded.string(HOSTILE).u32(1))?;
            let direct = open("direct-tcpip", 5 * n + 14).string("127.0.0.1").u32(22);
            raw.send(direct.string(HOSTILE).u32(1))?;
            let mut refused = 0;
            while refused < 5 {
                match raw.hear()?[0] {
                    msg::CHANNEL_OPEN_FAILURE => refused += 1,
                    msg::CHANNEL_OPEN_CONFIRMATION => return done(raw, channel, 99),
                    _ => {}
                }
            }
        }
        done(raw, channel, 7)
    }),
    (
        "a thousand ends of its input and many statuses",
        |raw, key| {
            raw.let_in(key)?;
            let channel = raw.session_runs()?;
            raw.send(on_channel(channel, "exit-status", 0).u32(7))?;
            for n in 0..1000 {
                raw.send(Msg::new(msg::CHANNEL_EOF).u32(channel))?;
                raw.send(on_channel(channel, "exit-status", 0).u32(n))?;
            }
            raw.send(Msg::new(msg::CHANNEL_CLOSE).u32(channel))
        },
    ),
    ("requests of its own on the session", |raw, key| {
        raw.let_in(key)?;
        let channel = raw.session_runs()?;
        for _ in 0..1000 {
            raw.send(on_channel(channel, "keepalive@openssh.com", 1))?;
            raw.send(on_channel(channel, HOSTILE, 1).raw([0; 1000]))?;
            raw.send(on_channel(channel, "exec", 1).string("reboot"))?;
            raw.send(Msg::new(msg::CHANNEL_SUCCESS).u32(channel))?;
            raw.send(Msg::new(msg::CHANNEL_FAILURE).u32(channel))?;
        }
        done(raw, channel, 7)
    }),
    ("messages on channels that are not there", |raw, key| {
        raw.let_in(key)?;
        let channel = raw.session_runs()?;
        for other in [channel + 1, channel + 1000, u32::MAX] {
            raw.send(Msg::new(msg::CHANNEL_DATA).u32(other).string("x"))?;
            raw.send(Msg::new(msg::CHANNEL_WINDOW_ADJUST).u32(other).u32(9))?;
            raw.send(Msg::new(msg::CHANNEL_EOF).u32(other))?;
            raw.send(Msg::new(msg::CHANNEL_CLOSE).u32(other))?;
        }
        done(raw, channel, 7)
    }),
    ("a window of 2^32 bytes, again and again", |raw, key| {
        raw.let_in(key)?;
        let channel = raw.session_runs()?;
        for _ in 0..100 {
            raw.send(
                Msg::new(msg::CHANNEL_WINDOW_ADJUST)
                    .u32(channel)
                    .u32(u32::MAX),
            )?;
        }
        done(raw, channel, 7)
    }),
    ("fifty key exchanges", |raw, key| {
        raw.let_in(key)?;
        let channel = raw.session_runs()?;
        for _ in 0..50 {
            raw.exchange(&Tricks::default(), Some(key))?;
        }
        done(raw, channel, 7)
    }),
];

#[test]
fn what_an_odd_node_says_beside_its_session_reaches_nobody() {
    let world = world();
    let things = FourThings::before(&world);
    for (case, finished) in visit(&world, ODD) {
        assert_eq!(finished.code(), Some(7), "{case}: {finished}");
        assert_eq!(finished.stderr, "", "{case}");
    }
    others_are_served(&world);
    super::only_what_was_issued(&things, &world, "odd nodes", ODD.len());
}

/// Ways to end a session that are none.
const BROKEN: &[Case] = &[
    ("gone in the middle", |raw, key| {
        raw.let_in(key)?;
        raw.session_runs()?;
        raw.stream().shutdown(std::net::Shutdown::Both)
    }),
    ("a hostile goodbye in the middle", |raw, key| {
        raw.let_in(key)?;
        raw.session_runs()?;
        raw.send(Msg::new(msg::DISCONNECT).u32(2).string(HOSTILE).string(""))
    }),
    ("a packet that nobody sealed", |raw, key| {
        raw.let_in(key)?;
        raw.session_runs()?;
        std::io::Write::write_all(raw.stream(), &[0xaa; 200])
    }),
];

#[test]
fn a_session_that_its_node_breaks_off_ends_with_69_and_a_clean_sentence() {
    let world = world();
    let things = FourThings::before(&world);
    for (case, finished) in visit(&world, BROKEN) {
        assert_eq!(finished.code(), Some(69), "{case}: {finished}");
        assert!(finished.stderr.contains("ERROR: "), "{case}: {finished}");
        is_clean(case, &finished.stderr);
    }
    others_are_served(&world);
    super::only_what_was_issued(&things, &world, "broken nodes", BROKEN.len());
}

/// What a flood does to the others while it goes on, and to the proxy's memory.
#[track_caller]
fn floods(world: &World, case: &str, behaviour: fn(&mut Raw, &RawKey) -> Result<()>) {
    let things = FourThings::before(world);
    RawNode::start(world, "evil", behaviour);
    let target = format!("{}@evil", login());
    // A client that takes what comes, and one that takes nothing: a pager that waits for a key.
    let client = world
        .person("carol")
        .ssh(Way::OneHop, &[], &target, &["flood"])
        .start();
    let stopped = world
        .person("carol")
        .ssh(Way::OneHop, &[], &target, &["flood"])
        .start();
    stopped.signal(Signal::SIGSTOP);
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        others_are_served(world);
        std::thread::sleep(Duration::from_millis(300));
    }
    drop((client, stopped));
    others_are_served(world);
    super::only_what_was_issued(&things, world, case, 1);
}

#[test]
fn data_beyond_any_window_is_not_kept() {
    floods(&world(), "data beyond the window", |raw, key| {
        raw.let_in(key)?;
        let channel = raw.session_runs()?;
        let data = Msg::new(msg::CHANNEL_DATA)
            .u32(channel)
            .string([b'x'; 30_000]);
        flood(raw, &data, 1024)
    });
}

#[test]
fn standard_error_without_end_is_not_kept() {
    floods(&world(), "standard error without end", |raw, key| {
        raw.let_in(key)?;
        let channel = raw.session_runs()?;
        let data = Msg::new(msg::CHANNEL_EXTENDED_DATA)
            .u32(channel)
            .u32(1)
            .string([b'x'; 30_000]);
        flood(raw, &data, 1024)
    });
}

#[test]
fn global_requests_without_end_harm_nobody_else() {
    floods(&world(), "global requests", |raw, key| {
        raw.let_in(key)?;
        raw.session_runs()?;
        let request = Msg::new(msg::GLOBAL_REQUEST)
            .string("keepalive@openssh.com")
            .byte(1);
        flood(raw, &request, 64)
    });
}

#[test]
fn one_byte_packets_without_end_harm_nobody_else() {
    floods(&world(), "packets of one byte", |raw, key| {
        raw.let_in(key)?;
        let channel = raw.session_runs()?;
        let data = Msg::new(msg::CHANNEL_DATA).u32(channel).string("x");
        flood(raw, &data, 64)
    });
}

#[test]
fn an_exit_signal_with_a_hostile_message_is_cleaned() {
    let world = world();
    let things = FourThings::before(&world);
    RawNode::start(&world, "evil", |raw, key| {
        raw.let_in(key)?;
        let channel = raw.session_runs()?;
        raw.send(
            on_channel(channel, "exit-signal", 0)
                .string("KILL")
                .byte(0)
                .string(HOSTILE)
                .string(""),
        )?;
        raw.send(Msg::new(msg::CHANNEL_CLOSE).u32(channel))
    });
    // Heard by hand: what a client makes of the message is its own affair.
    let mut raw = Raw::ready(world.port).unwrap();
    let key = RawKey::read(&world.person("carol").key);
    let request = key.login(&raw.session, &format!("{}@evil", login()));
    raw.send(request).unwrap();
    assert_eq!(raw.hear().unwrap()[0], msg::USERAUTH_SUCCESS);
    let channel = raw.open_session(0).unwrap();
    raw.send(on_channel(channel, "exec", 0).string("true"))
        .unwrap();
    let said = loop {
        let message = raw.hear().unwrap();
        if message[0] == msg::CHANNEL_REQUEST {
            break String::from_utf8(message[5..].to_vec()).unwrap();
        }
    };
    assert!(
        said.contains("exit-signal") && said.contains("KILL"),
        "{said:?}"
    );
    for hostile in ["\x1b", "\x07", "\u{202e}", "\u{9b}", "\x08"] {
        assert!(!said.contains(hostile), "{said:?}");
    }
    super::only_what_was_issued(&things, &world, "an exit signal", 1);
}
