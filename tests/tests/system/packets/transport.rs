//! Key exchanges that are disturbed, and packets that are none.

use std::io::{Result, Write};
use std::time::Duration;

use anteroom_tests::FourThings;
use anteroom_tests::raw::wire::{Msg, msg};
use anteroom_tests::raw::{Packet, Raw, Tricks};

use super::{Door, Doors, Verdict, inside, let_in, output, ready, request, said, session};

/// How a connection fares whose key exchange is disturbed.
fn disturbed(door: Door<'_>, tricks: &Tricks) -> Verdict {
    let attempt = || -> Result<Verdict> {
        let mut raw = Raw::connect(door.port)?;
        raw.exchange(tricks, None)?;
        raw.begin_authentication()?;
        let request = door.key.login(&raw.session, door.user);
        Ok(said(&mut raw, [request]))
    };
    attempt().unwrap_or(Verdict::Ended)
}

#[test]
fn a_disturbed_key_exchange_ends_the_connection() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    let ignore = || vec![Msg::new(msg::IGNORE).string("x")];
    let debug = || vec![Msg::new(msg::DEBUG).byte(0).string("x").string("")];
    let lone = |kind: u8| vec![Msg::new(kind)];
    let usual = Tricks::default;
    let named = |name: &str| Some(name.to_owned());
    // Without strict key exchange a message to be ignored is ignored.
    let verdict = doors.compare("not strict", |door| {
        disturbed(
            door,
            &Tricks {
                not_strict: true,
                after_offer: ignore(),
                ..usual()
            },
        )
    });
    assert_eq!(verdict, Verdict::In);
    let cases: Vec<(&str, Tricks)> = vec![
        (
            "IGNORE before KEXINIT",
            Tricks {
                before_offer: ignore(),
                ..usual()
            },
        ),
        (
            "DEBUG before KEXINIT",
            Tricks {
                before_offer: debug(),
                ..usual()
            },
        ),
        (
            "IGNORE after KEXINIT",
            Tricks {
                after_offer: ignore(),
                ..usual()
            },
        ),
        (
            "DEBUG after KEXINIT",
            Tricks {
                after_offer: debug(),
                ..usual()
            },
        ),
        (
            "IGNORE before NEWKEYS",
            Tricks {
                before_newkeys: ignore(),
                ..usual()
            },
        ),
        (
            "UNIMPLEMENTED before NEWKEYS",
            Tricks {
                before_newkeys: vec![Msg::new(msg::UNIMPLEMENTED).u32(0)],
                ..usual()
            },
        ),
        (
            "KEXINIT twice",
            Tricks {
                after_offer: lone(msg::KEXINIT),
                ..usual()
            },
        ),
        (
            "NEWKEYS too early",
            Tricks {
                after_offer: lone(msg::NEWKEYS),
                ..usual()
            },
        ),
        (
            "a login before NEWKEYS",
            Tricks {
                before_newkeys: vec![Msg::new(msg::SERVICE_REQUEST).string("ssh-userauth")],
                ..usual()
            },
        ),
        (
            "a session before NEWKEYS",
            Tricks {
                before_newkeys: vec![session(0)],
                ..usual()
            },
        ),
        (
            "SUCCESS before NEWKEYS",
            Tricks {
                before_newkeys: lone(msg::USERAUTH_SUCCESS),
                ..usual()
            },
        ),
        (
            "no NEWKEYS",
            Tricks {
                no_newkeys: true,
                ..usual()
            },
        ),
        (
            "group exchange with SHA-1",
            Tricks {
                methods: named("diffie-hellman-group-exchange-sha1"),
                ..usual()
            },
        ),
        (
            "group 1",
            Tricks {
                methods: named("diffie-hellman-group1-sha1"),
                ..usual()
            },
        ),
        (
            "RSA with SHA-1 of the host",
            Tricks {
                host_keys: named("ssh-rsa"),
                ..usual()
            },
        ),
        (
            "a DSA host key",
            Tricks {
                host_keys: named("ssh-dss"),
                ..usual()
            },
        ),
        (
            "no cipher",
            Tricks {
                ciphers: named("none"),
                ..usual()
            },
        ),
        (
            "3DES",
            Tricks {
                ciphers: named("3des-cbc"),
                ..usual()
            },
        ),
        (
            "arcfour",
            Tricks {
                ciphers: named("arcfour"),
                ..usual()
            },
        ),
        (
            "AES in CBC",
            Tricks {
                ciphers: named("aes256-cbc"),
                ..usual()
            },
        ),
        (
            "compression",
            Tricks {
                compressions: named("zlib"),
                ..usual()
            },
        ),
        (
            "an empty public key",
            Tricks {
                public: Some(Vec::new()),
                ..usual()
            },
        ),
        (
            "a public key that is too short",
            Tricks {
                public: Some(vec![9; 31]),
                ..usual()
            },
        ),
        (
            "a public key that is too long",
            Tricks {
                public: Some(vec![9; 33]),
                ..usual()
            },
        ),
        (
            "a public key of zeroes",
            Tricks {
                public: Some(vec![0; 32]),
                ..usual()
            },
        ),
    ];
    for (case, tricks) in cases {
        let verdict = doors.compare(case, |door| disturbed(door, &tricks));
        assert_eq!(verdict, Verdict::Ended, "{case}");
    }
    // Compression that begins after the login, which sshd offers by itself, is not offered here.
    let delayed = Tricks {
        compressions: named("zlib@openssh.com"),
        ..usual()
    };
    assert_eq!(disturbed(doors.proxy(), &delayed), Verdict::Ended);
    let gex = Tricks {
        methods: named("diffie-hellman-group-exchange-sha256"),
        ..usual()
    };
    assert_eq!(disturbed(doors.proxy(), &gex), Verdict::Ended);
    things.hold(&doors.world, "a disturbed key exchange");
}

/// Whether a peer ends the connection over this packet, and promptly.
fn ends_over(raw: &mut Raw, packet: &Packet) -> Verdict {
    let _gone = raw.send_packet(packet);
    // Something right behind it, so that who waits for more is not waited for.
    let _gone = raw.send(Msg::new(msg::IGNORE).string([b'x'; 4096]));
    match raw.end(Duration::from_secs(10)) {
        Ok(_) => Verdict::Ended,
        Err(_) => Verdict::Refused,
    }
}

#[test]
fn packets_of_impossible_lengths_end_the_connection_at_once() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    let right = || Packet::of(Msg::new(msg::IGNORE).string([b'x'; 50]));
    let length = |length: u32| Packet {
        length: Some(length),
        ..right()
    };
    let cases: Vec<(&str, Packet)> = vec![
        ("length 0", length(0)),
        ("length 1", length(1)),
        ("length 4", length(4)),
        ("length 2^31", length(1 << 31)),
        ("length 2^32 - 1", length(u32::MAX)),
        ("a length above 320 KiB", length((320 << 10) + 16)),
        ("a length of no whole blocks", length(61)),
        (
            "more padding than packet",
            Packet {
                padding_length: Some(255),
                ..right()
            },
        ),
    ];
    for (case, packet) in &cases {
        let plain = doors.compare(&format!("{case}, in clear"), |door| {
            let mut raw = Raw::connect(door.port).unwrap();
            ends_over(&mut raw, packet)
        });
        assert_eq!(plain, Verdict::Ended, "{case}, in clear");
        for late in [false, true] {
            let case = format!(
                "{case}, encrypted, {}",
                if late { "inside" } else { "outside" }
            );
            let sealed = doors.compare(&case, |door| {
                let mut raw = if late { inside(door) } else { ready(door) };
                ends_over(&mut raw, packet)
            });
            assert_eq!(sealed, Verdict::Ended, "{case}");
        }
    }
    // A packet without a message is passed over before the keys are agreed, and is one too many for a strict
    // exchange then.
    let empty = Packet {
        padding: Some(15),
        ..Packet::of(b"")
    };
    let verdict = doors.compare("a packet of nothing", |door| {
        let mut raw = Raw::connect(door.port).unwrap();
        let _gone = raw.send_packet(&empty);
        let exchanged = raw.exchange(&Tricks::default(), None);
        exchanged.map_or(Verdict::Ended, |()| Verdict::In)
    });
    assert_eq!(verdict, Verdict::Ended);
    // What nobody sealed.
    let verdict = doors.compare("a wrong tag", |door| {
        let mut raw = inside(door);
        let _gone = raw
            .stream()
            .write_all(&[[0, 0, 0, 32].as_slice(), &[0xaa; 48]].concat());
        match raw.end(Duration::from_secs(10)) {
            Ok(_) => Verdict::Ended,
            Err(_) => Verdict::Refused,
        }
    });
    assert_eq!(verdict, Verdict::Ended);
    things.hold(&doors.world, "impossible lengths");
}

#[test]
fn strings_longer_than_their_packet_end_the_connection_or_are_refused() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    let long = |kind: u8| Msg::new(kind).u32(u32::MAX).raw("short");
    for kind in [
        msg::SERVICE_REQUEST,
        msg::USERAUTH_REQUEST,
        msg::USERAUTH_INFO_RESPONSE,
    ] {
        let verdict = doors.compare(&format!("a long string in {kind}"), |door| {
            let mut raw = ready(door);
            let _gone = raw.send(long(kind));
            let_in(&mut raw)
        });
        assert_ne!(verdict, Verdict::In, "{kind}");
    }
    let inside_cases = [
        long(msg::GLOBAL_REQUEST),
        long(msg::CHANNEL_OPEN),
        Msg::new(msg::CHANNEL_OPEN).string("session"),
        Msg::new(msg::CHANNEL_DATA).u32(0).u32(u32::MAX),
        Msg::new(msg::CHANNEL_EXTENDED_DATA)
            .u32(0)
            .u32(1)
            .u32(u32::MAX),
        Msg::new(msg::CHANNEL_REQUEST).u32(0).u32(u32::MAX),
        request(0, "exec", 1).u32(u32::MAX),
        request(0, "env", 1).string("LANG").u32(u32::MAX),
        request(0, "pty-req", 1).string("xterm").u32(80).u32(24),
        request(0, "pty-req", 1).u32(u32::MAX),
        request(0, "window-change", 1).u32(1),
        request(0, "signal", 1),
        request(0, "x11-req", 1).byte(1).string("a").u32(1 << 31),
        Msg::new(msg::CHANNEL_WINDOW_ADJUST).u32(0),
        Msg::new(msg::CHANNEL_CLOSE),
        Msg::new(msg::CHANNEL_EOF),
        Msg::new(msg::CHANNEL_OPEN_CONFIRMATION)
            .u32(7)
            .u32(7)
            .u32(7)
            .u32(7),
        Msg::new(msg::CHANNEL_OPEN_FAILURE).u32(7),
        Msg::new(msg::CHANNEL_SUCCESS).u32(77),
        Msg::new(msg::DISCONNECT),
        Msg::new(msg::KEXINIT),
        Msg::new(msg::NEWKEYS),
        Msg::new(msg::KEX_ECDH_INIT).string([1; 32]),
        Msg::new(msg::EXT_INFO).u32(u32::MAX),
        Msg::new(255),
        Msg::new(0),
        Msg::new(192).raw([0; 1000]),
    ];
    for message in inside_cases {
        let mut raw = inside(doors.proxy());
        let channel = raw.open_session(0).unwrap();
        let _gone = raw.send(&message);
        // Whether it ended the connection or not: no other one minds.
        let _gone = raw.send(request(channel, "exec", 1).string("whoami"));
        let mut other = inside(doors.proxy());
        let channel = other.open_session(0).unwrap();
        other
            .send(request(channel, "exec", 1).string("whoami"))
            .unwrap();
        assert!(output(&mut other).contains("carol"), "after {message:?}");
    }
    things.hold(&doors.world, "long strings");
}
