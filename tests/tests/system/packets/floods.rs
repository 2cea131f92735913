//! More of anything than anybody needs.

use std::collections::BTreeSet;
use std::io::Result;
use std::time::{Duration, Instant};

use anteroom_tests::raw::wire::{Fields, Msg, msg};
use anteroom_tests::raw::{Raw, RawKey, Tricks};
use anteroom_tests::{FourThings, Way};

use super::{Doors, Verdict, answers_until, inside, output, ready, request, said, session};

/// Counts the answers to a flood until the last one, to `none` channel requests, has come, or the connection has
/// ended: by their number.
fn answers(raw: &mut Raw, limit: usize) -> [usize; 256] {
    let mut counts = [0; 256];
    for _ in 0..limit {
        match raw.hear().as_deref() {
            Ok([kind, ..]) => counts[usize::from(*kind)] += 1,
            Ok([]) => {}
            Err(_) => break,
        }
    }
    counts
}

/// Sends from a thread of its own, so that the answers are read meanwhile.
fn flood(raw: &mut Raw, messages: impl IntoIterator<Item = Msg>) -> Result<()> {
    // In pieces: the peer holds back who does not read.
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        let piece: Vec<Msg> = messages.by_ref().take(200).collect();
        raw.send_all(piece)?;
    }
    Ok(())
}

#[test]
fn of_three_thousand_probes_a_hundred_and_twenty_eight_are_looked_at() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    let mut raw = ready(doors.proxy());
    let _gone = flood(&mut raw, (0..3000).map(|_| doors.key.offer("carol")));
    let counts = answers(&mut raw, 3000);
    assert!(counts[usize::from(msg::USERAUTH_PK_OK)] <= 128);
    assert_eq!(counts[usize::from(msg::USERAUTH_SUCCESS)], 0);
    let mut raw = ready(doors.proxy());
    let began = Instant::now();
    let _gone = flood(&mut raw, (0..3000).map(|_| RawKey::random().offer("carol")));
    let counts = answers(&mut raw, 3000);
    assert!(counts[usize::from(msg::USERAUTH_FAILURE)] <= 7);
    assert!(began.elapsed() < Duration::from_secs(20));
    things.hold(&doors.world, "probes");
}

#[test]
fn of_twenty_thousand_opens_ten_are_sessions() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    let mut raw = inside(doors.proxy());
    let first = raw.open_session(1 << 30).unwrap();
    let mut open = 1;
    for number in (0..20_000).step_by(200) {
        if raw.send_all((number..number + 200).map(session)).is_err() {
            break;
        }
        let counts = answers(&mut raw, 200);
        open += counts[usize::from(msg::CHANNEL_OPEN_CONFIRMATION)];
    }
    assert!((1..=10).contains(&open), "{open} sessions");
    // The connection is as good as before.
    raw.send(request(first, "exec", 1).string("whoami"))
        .unwrap();
    assert!(answers_until(&mut raw, msg::CHANNEL_SUCCESS));
    // Beside it there is room, and while it lives its memory is within bounds.
    let mut other = inside(doors.proxy());
    other.open_session(0).unwrap();
    things.hold(&doors.world, "opens, while the connection lives");
    drop(raw);
    things.hold(&doors.world, "opens");
}

/// The channel of ours whose opening is refused next.
fn refused(raw: &mut Raw) -> u32 {
    let message = raw.hear().unwrap();
    assert_eq!(message[0], msg::CHANNEL_OPEN_FAILURE, "{message:?}");
    Fields(&message[1..]).u32().unwrap()
}

#[test]
fn rejected_opens_of_any_kind_leave_nothing_behind() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    let mut raw = inside(doors.proxy());
    let open = |kind: &str, number: u32| {
        Msg::new(msg::CHANNEL_OPEN)
            .string(kind)
            .u32(number)
            .u32(1 << 21)
            .u32(1 << 15)
    };
    let long = "x".repeat(30_000);
    for round in 0..25 {
        let number = round * 1000;
        let sent = 200;
        let messages = (0..sent).map(|n| match n % 4 {
            0 => open("x11", number + n).string("127.0.0.1").u32(6000),
            1 => open(
                if n == 1 { &long } else { "nothing@example.com" },
                number + n,
            ),
            2 => open("direct-tcpip", number + n)
                .string("github.com")
                .u32(22)
                .string("127.0.0.1")
                .u32(1),
            _ => open("direct-streamlocal@openssh.com", number + n)
                .string("/var/run/anything")
                .string("")
                .u32(0),
        });
        let messages: Vec<Msg> = messages.collect();
        raw.send_all(messages).unwrap();
        // The library answers twice where it does not know the kind.
        let mut left: BTreeSet<u32> = (number..number + sent).collect();
        while !left.is_empty() {
            left.remove(&refused(&mut raw));
        }
    }
    things.hold(&doors.world, "rejected opens, while the connection lives");
    raw.send(session(0)).unwrap();
    assert!(answers_until(&mut raw, msg::CHANNEL_OPEN_CONFIRMATION));
    drop(raw);
    things.hold(&doors.world, "rejected opens");
}

#[test]
fn requests_without_number_are_answered_or_end_it() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    let mut raw = inside(doors.proxy());
    let channel = raw.open_session(0).unwrap();
    let value = "v".repeat(4000);
    for round in 0..100 {
        let messages = (0..100).map(|n| match n % 5 {
            0 => request(channel, "env", 1)
                .string(format!("LC_{round}_{n}"))
                .string(&value),
            1 => request(channel, "pty-req", 1)
                .string("xterm")
                .u32(u32::MAX)
                .u32(u32::MAX)
                .u32(u32::MAX)
                .u32(u32::MAX)
                .string(""),
            2 => request(channel, "auth-agent-req@openssh.com", 1),
            3 => request(channel, "nothing@example.com", 1).raw([0; 2000]),
            _ => Msg::new(msg::GLOBAL_REQUEST)
                .string("nothing@example.com")
                .byte(1)
                .raw([0; 2000]),
        });
        let messages: Vec<Msg> = messages.collect();
        raw.send_all(messages).unwrap();
        let counts = answers(&mut raw, 100);
        let count = |kind: u8| counts[usize::from(kind)];
        let answered =
            count(msg::CHANNEL_SUCCESS) + count(msg::CHANNEL_FAILURE) + count(msg::REQUEST_FAILURE);
        assert_eq!(answered, 100, "{counts:?}");
    }
    things.hold(&doors.world, "requests, while the connection lives");
    raw.send(request(channel, "exec", 1).string("whoami"))
        .unwrap();
    assert!(output(&mut raw).contains("carol"));
    things.hold(&doors.world, "requests");
}

#[test]
fn a_client_that_asks_and_never_reads_is_held_back_or_ended() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    let mut raw = inside(doors.proxy());
    raw.stream()
        .set_write_timeout(Some(Duration::from_secs(3)))
        .unwrap();
    let ask = || {
        Msg::new(msg::GLOBAL_REQUEST)
            .string("keepalive@openssh.com")
            .byte(1)
    };
    // Replies of ten bytes to requests without number: more than any buffer between us holds.
    for _ in 0..20_000 {
        if raw.send_all((0..100).map(|_| ask())).is_err() {
            break;
        }
    }
    things.hold(&doors.world, "a client that never reads, while it is there");
    let mut other = inside(doors.proxy());
    other.open_session(0).unwrap();
    drop(raw);
    things.hold(&doors.world, "a client that never reads");
}

#[test]
fn enormous_terminals_are_clamped_or_refused() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    let pty = |channel: u32, term: &str, modes: &[u8]| {
        request(channel, "pty-req", 1)
            .string(term)
            .u32(u32::MAX)
            .u32(u32::MAX)
            .u32(u32::MAX)
            .u32(u32::MAX)
            .string(modes)
    };
    let modes: Vec<u8> = [1, 0, 0, 0, 3].repeat(200_000 / 5);
    let term = "x".repeat(100_000);
    let mut raw = inside(doors.proxy());
    for (n, (term, modes)) in [
        ("xterm", &[][..]),
        ("xterm", &modes[..]),
        ("xterm", &[0xff; 100][..]),
        (&term, &[][..]),
    ]
    .into_iter()
    .enumerate()
    {
        let number = u32::try_from(n).unwrap();
        let Ok(channel) = raw.open_session(number) else {
            raw = inside(doors.proxy());
            continue;
        };
        let _gone = raw.send(pty(channel, term, modes));
        if raw.hear().is_err() {
            raw = inside(doors.proxy());
        }
    }
    // One of a mebibyte is no packet.
    let mut raw = inside(doors.proxy());
    let channel = raw.open_session(0).unwrap();
    let _gone = raw.send(pty(channel, "xterm", &[1, 0, 0, 0, 3].repeat(1 << 18)));
    assert!(raw.end(Duration::from_secs(10)).is_ok());
    things.hold(&doors.world, "enormous terminals");
}

#[test]
fn windows_that_are_overrun_or_overflow_harm_nobody_else() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    // Far more data than the window allows, on a channel where nothing reads.
    let mut raw = inside(doors.proxy());
    raw.stream()
        .set_write_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let channel = raw.open_session(0).unwrap();
    let data = Msg::new(msg::CHANNEL_DATA)
        .u32(channel)
        .string([b'x'; 32_000]);
    let mut sent = 0;
    while sent < 64 << 20 {
        if raw.send(&data).is_err() {
            break;
        }
        sent += 32_000;
    }
    things.hold(
        &doors.world,
        "an overrun window, while the connection lives",
    );
    // The same with extended data, which no client has a use for, and on channels that are not there.
    for to in [channel, 4711] {
        let mut raw = inside(doors.proxy());
        raw.open_session(0).unwrap();
        let data = Msg::new(msg::CHANNEL_EXTENDED_DATA)
            .u32(to)
            .u32(1)
            .string([b'x'; 32_000]);
        for _ in 0..1000 {
            if raw.send(&data).is_err() {
                break;
            }
        }
        things.hold(&doors.world, "extended data");
    }
    // More room than there are bytes.
    let mut raw = inside(doors.proxy());
    let channel = raw.open_session(0).unwrap();
    for _ in 0..100 {
        let adjust = Msg::new(msg::CHANNEL_WINDOW_ADJUST)
            .u32(channel)
            .u32(u32::MAX);
        let _gone = raw.send(adjust);
    }
    let _gone = raw.send(request(channel, "exec", 1).string("whoami"));
    let _ended = raw.end(Duration::from_secs(5));
    let mut other = inside(doors.proxy());
    let channel = other.open_session(0).unwrap();
    other
        .send(request(channel, "exec", 1).string("whoami"))
        .unwrap();
    assert!(output(&mut other).contains("carol"));
    things.hold(&doors.world, "windows");
}

#[test]
fn five_hundred_key_exchanges_are_made_and_the_session_goes_on() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    let mut raw = inside(doors.proxy());
    let first = raw.session.clone();
    for _ in 0..500 {
        raw.exchange(&Tricks::default(), None).unwrap();
    }
    assert_eq!(raw.session, first);
    let channel = raw.open_session(0).unwrap();
    raw.send(request(channel, "exec", 1).string("whoami"))
        .unwrap();
    assert!(output(&mut raw).contains("carol"));
    things.hold(&doors.world, "key exchanges");
    // Before the login as well: they count for nothing, and the grace time goes on.
    let mut raw = ready(doors.proxy());
    for _ in 0..50 {
        raw.exchange(&Tricks::default(), None).unwrap();
    }
    let request = doors.key.login(&raw.session, "carol");
    assert_eq!(said(&mut raw, [request]), Verdict::In);
    things.hold(&doors.world, "key exchanges before the login");
}

#[test]
fn names_that_nobody_has_are_certified_for_a_while_and_not_without_end() {
    let mut doors = Doors::new();
    doors
        .world
        .set_config("max_host_names_per_user_per_hour: 50");
    doors.world.stop_proxy().exits(0);
    doors.world.start_proxy();
    let things = FourThings::before(&doors.world);
    let mut raw = inside(doors.proxy());
    let open = |number: u32, host: &str| {
        Msg::new(msg::CHANNEL_OPEN)
            .string("direct-tcpip")
            .u32(number)
            .u32(1 << 21)
            .u32(1 << 15)
            .string(host)
            .u32(22)
            .string("127.0.0.1")
            .u32(1)
    };
    let mut taken = 0;
    for number in 0..500 {
        raw.send(open(number, &format!("name{number}"))).unwrap();
        let answer = loop {
            let answer = raw.hear().unwrap();
            if [msg::CHANNEL_OPEN_CONFIRMATION, msg::CHANNEL_OPEN_FAILURE].contains(&answer[0]) {
                break answer;
            }
        };
        let mut fields = Fields(&answer[5..]);
        if answer[0] == msg::CHANNEL_OPEN_CONFIRMATION {
            taken += 1;
            let theirs = fields.u32().unwrap();
            raw.send(Msg::new(msg::CHANNEL_CLOSE).u32(theirs)).unwrap();
        } else {
            fields.u32();
            assert!(fields.text().contains("max_host_names_per_user_per_hour"));
        }
    }
    assert_eq!(taken, 50);
    // What she may know costs nothing of it, and somebody else has his own.
    let carol = doors.world.person("carol");
    let target = format!("{}@iot", anteroom_tests::login());
    let entered = carol.ssh(Way::Jump, &[], &target, &["echo in"]).run();
    entered.exits(0).prints("in\n");
    let bob = doors.world.person("bob");
    let unknown = format!("{}@name777", anteroom_tests::login());
    bob.ssh(Way::Jump, &[], &unknown, &["true"]).run().exits(77);
    let of_hers = [("issuances", 50 + 3), ("sessions", 1)];
    things.hold_but_for(&doors.world, "names that nobody has", &of_hers);
}
