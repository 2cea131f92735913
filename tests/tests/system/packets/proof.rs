//! What is no proof, and what is proof of something else.

use std::path::Path;
use std::time::{Duration, Instant};

use anteroom_tests::raw::wire::{Msg, msg};
use anteroom_tests::raw::{AgentKey, Raw, RawKey};
use anteroom_tests::{Cmd, FourThings, KeyType, Proc, World};

use crate::second_factor::set_up;

use super::{
    Door, Doors, Verdict, answers_until, inside, let_in, output, ready, request, said, session,
};

/// A request to log in, with a signature that somebody made.
fn signed(user: &str, algorithm: &str, shown: &[u8], signature: &[u8]) -> Msg {
    Msg::new(msg::USERAUTH_REQUEST)
        .string(user)
        .string("ssh-connection")
        .string("publickey")
        .byte(1)
        .string(algorithm)
        .string(shown)
        .string(signature)
}

/// Bytes of an ed25519 signature as SSH writes it.
const SIGNATURE: usize = 4 + 11 + 4 + 64;

type Attempt = fn(Door<'_>, &mut Raw) -> Verdict;

/// What proves nothing.
const NO_PROOF: &[(&str, Attempt)] = &[
    ("a key that is offered and no more", |door, raw| {
        said(raw, [door.key.offer(door.user)]);
        let_in(raw)
    }),
    ("a key that is offered a hundred times", |door, raw| {
        said(raw, (0..100).map(|_| door.key.offer(door.user)));
        let_in(raw)
    }),
    (
        "one key is probed, another one signs in its name",
        |door, raw| {
            said(raw, [door.key.offer(door.user)]);
            let other = RawKey::random().showing("ssh-ed25519", door.key.shown.clone());
            let request = other.login(&raw.session, door.user);
            said(raw, [request])
        },
    ),
    (
        "one key is probed, another one signs for itself",
        |door, raw| {
            said(raw, [door.key.offer(door.user)]);
            let request = RawKey::random().login(&raw.session, door.user);
            said(raw, [request])
        },
    ),
    ("a signature of another connection", |door, raw| {
        let elsewhere = ready(door);
        let request = door.key.login(&elsewhere.session, door.user);
        said(raw, [request])
    }),
    (
        "a signature of another connection, after a probe",
        |door, raw| {
            let elsewhere = ready(door);
            said(raw, [door.key.offer(door.user)]);
            let request = door.key.login(&elsewhere.session, door.user);
            said(raw, [request])
        },
    ),
    ("a signature without a session", |door, raw| {
        said(raw, [door.key.login(b"", door.user)])
    }),
    ("a signature for another name", |door, raw| {
        let for_another = door.key.login(&raw.session, "whoever");
        let signature = &for_another.0[for_another.0.len() - SIGNATURE..];
        let request = signed(door.user, "ssh-ed25519", &door.key.shown, signature);
        said(raw, [request])
    }),
    ("a signature with one bit turned", |door, raw| {
        let mut request = door.key.login(&raw.session, door.user);
        *request.0.last_mut().unwrap() ^= 0x80;
        said(raw, [request])
    }),
    ("no signature where one is announced", |door, raw| {
        said(
            raw,
            [signed(door.user, "ssh-ed25519", &door.key.shown, b"")],
        )
    }),
    ("a signature that is too short", |door, raw| {
        let short = Msg::default().string("ssh-ed25519").string([0; 63]);
        said(
            raw,
            [signed(door.user, "ssh-ed25519", &door.key.shown, &short.0)],
        )
    }),
    ("a signature of zeroes", |door, raw| {
        let zeroes = Msg::default().string("ssh-ed25519").string([0; 64]);
        said(
            raw,
            [signed(door.user, "ssh-ed25519", &door.key.shown, &zeroes.0)],
        )
    }),
    (
        "a key without order, whose signatures are anybody's",
        |door, raw| {
            // The neutral element: a verifier that is not strict takes this for any message.
            let mut neutral = [0; 32];
            neutral[0] = 1;
            let shown = Msg::default().string("ssh-ed25519").string(neutral);
            let signature = Msg::default()
                .string("ssh-ed25519")
                .string([&neutral[..], &[0; 32]].concat());
            said(
                raw,
                [signed(door.user, "ssh-ed25519", &shown.0, &signature.0)],
            )
        },
    ),
    (
        "the key of one type under the name of another",
        |door, raw| {
            let key = door.key.clone();
            let request = key
                .clone()
                .showing("ecdsa-sha2-nistp256", key.shown.clone())
                .login(&raw.session, door.user);
            said(raw, [request])
        },
    ),
    (
        "a plain key under the name of a certificate",
        |door, raw| {
            let key = door.key.clone();
            let name = "ssh-ed25519-cert-v01@openssh.com";
            let request = key
                .clone()
                .showing(name, key.shown.clone())
                .login(&raw.session, door.user);
            said(raw, [request])
        },
    ),
    (
        "a signature under the name of another algorithm",
        |door, raw| {
            let made = door.key.sign(b"anything");
            let renamed = Msg::default()
                .string("rsa-sha2-512")
                .string(&made[made.len() - 64..]);
            said(
                raw,
                [signed(
                    door.user,
                    "ssh-ed25519",
                    &door.key.shown,
                    &renamed.0,
                )],
            )
        },
    ),
    ("an algorithm that nobody has", |door, raw| {
        let key = door.key.clone();
        let request = key
            .clone()
            .showing("ssh-nothing", key.shown.clone())
            .login(&raw.session, door.user);
        said(raw, [request])
    }),
    ("a DSA key", |door, raw| {
        let shown = Msg::default()
            .string("ssh-dss")
            .mpint(&[0xff; 128])
            .mpint(&[0xff; 20])
            .mpint(&[3; 128])
            .mpint(&[5; 128]);
        let signature = Msg::default().string("ssh-dss").string([1; 40]);
        said(raw, [signed(door.user, "ssh-dss", &shown.0, &signature.0)])
    }),
    ("an empty key", |door, raw| {
        said(raw, [signed(door.user, "ssh-ed25519", b"", b"")]);
        let_in(raw)
    }),
    ("bytes behind the request", |door, raw| {
        let request = door.key.login(&raw.session, door.user);
        said(raw, [request.raw("more")])
    }),
    ("bytes behind the signature", |door, raw| {
        let made = door.key.login(&raw.session, door.user);
        let signature = &made.0[made.0.len() - SIGNATURE..];
        let longer = [signature, b"more"].concat();
        said(
            raw,
            [signed(door.user, "ssh-ed25519", &door.key.shown, &longer)],
        )
    }),
    ("another service", |door, raw| {
        let request = Msg::new(msg::USERAUTH_REQUEST)
            .string(door.user)
            .string("ssh-nothing")
            .string("publickey")
            .byte(0)
            .string("ssh-ed25519")
            .string(&door.key.shown);
        said(raw, [request]);
        let_in(raw)
    }),
    ("the server's own word for success", |_, raw| {
        let _gone = raw.send(Msg::new(msg::USERAUTH_SUCCESS));
        let_in(raw)
    }),
    (
        "a probe, then the server's own word for success",
        |door, raw| {
            said(raw, [door.key.offer(door.user)]);
            let _gone = raw.send(Msg::new(msg::USERAUTH_SUCCESS));
            let_in(raw)
        },
    ),
    ("the next service before the login", |_, raw| {
        let _gone = raw.send(Msg::new(msg::SERVICE_REQUEST).string("ssh-connection"));
        let_in(raw)
    }),
    ("the same service again", |_, raw| {
        let _gone = raw.send(Msg::new(msg::SERVICE_REQUEST).string("ssh-userauth"));
        let_in(raw)
    }),
    ("a session before the login", |_, raw| {
        let _gone = raw.send(session(3));
        let _gone = raw.send(request(0, "exec", 1).string("whoami"));
        let_in(raw)
    }),
    ("global requests before the login", |_, raw| {
        let forward = Msg::new(msg::GLOBAL_REQUEST)
            .string("tcpip-forward")
            .byte(1)
            .string("127.0.0.1")
            .u32(0);
        let _gone = raw.send(forward);
        let_in(raw)
    }),
    ("answers that nobody asked for", |door, raw| {
        let response = Msg::new(msg::USERAUTH_INFO_RESPONSE)
            .u32(1)
            .string("123456");
        let _gone = raw.send(response.clone());
        said(raw, [door.key.offer(door.user)]);
        let _gone = raw.send(response);
        let_in(raw)
    }),
    ("a password, and a changed one", |door, raw| {
        let password = |change: u8| {
            Msg::new(msg::USERAUTH_REQUEST)
                .string(door.user)
                .string("ssh-connection")
                .string("password")
                .byte(change)
                .string("secret")
        };
        said(raw, [password(0), password(1).string("new")]);
        let_in(raw)
    }),
    ("a host that vouches", |door, raw| {
        let request = Msg::new(msg::USERAUTH_REQUEST)
            .string(door.user)
            .string("ssh-connection")
            .string("hostbased")
            .string("ssh-ed25519")
            .string(&door.key.shown)
            .string("localhost")
            .string(door.user)
            .string(door.key.sign(b"x"));
        said(raw, [request]);
        let_in(raw)
    }),
    ("the keyboard alone", |door, raw| {
        let request = Msg::new(msg::USERAUTH_REQUEST)
            .string(door.user)
            .string("ssh-connection")
            .string("keyboard-interactive")
            .string("")
            .string("");
        said(raw, [request]);
        let response = Msg::new(msg::USERAUTH_INFO_RESPONSE)
            .u32(1)
            .string("123456");
        let _gone = raw.send(response);
        let_in(raw)
    }),
];

#[test]
fn what_is_no_proof_lets_nobody_in_and_sshd_agrees() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    for (case, attempt) in NO_PROOF {
        let verdict = doors.compare(case, |door| attempt(door, &mut ready(door)));
        assert_ne!(verdict, Verdict::In, "{case}");
    }
    things.hold(&doors.world, "all that is no proof");
    let logins = doors.world.events("user.login");
    assert!(logins.is_empty(), "{logins:?}");
}

#[test]
fn the_name_cannot_be_switched_between_the_offer_and_the_proof() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    // Bob's name with carol's key: probed under her own, signed under his.
    let verdict = doors.compare("the user is switched", |door| {
        let mut raw = ready(door);
        said(&mut raw, [door.key.offer(door.user)]);
        let request = door.key.login(&raw.session, "bob");
        said(&mut raw, [request])
    });
    assert_ne!(verdict, Verdict::In);
    // And back: what was probed under her name counts for nothing after his.
    let verdict = doors.compare("the user is switched and back", |door| {
        let mut raw = ready(door);
        said(&mut raw, [door.key.offer(door.user)]);
        said(&mut raw, [door.key.offer("bob")]);
        let other = RawKey::random().showing("ssh-ed25519", door.key.shown.clone());
        let request = other.login(&raw.session, door.user);
        said(&mut raw, [request])
    });
    assert_ne!(verdict, Verdict::In);
    things.hold(&doors.world, "a switched user");
}

/// An ssh-agent with one key.
fn agent(world: &World, key: &Path) -> (Proc, AgentKey) {
    let socket = world.path("agent.sock");
    let agent = Cmd::new("ssh-agent")
        .args(["-D", "-a"])
        .arg(&socket)
        .start();
    let until = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        assert!(Instant::now() < until, "the agent does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    Cmd::new("ssh-add")
        .env("SSH_AUTH_SOCK", socket.display().to_string())
        .arg(key)
        .run()
        .exits(0);
    (agent, AgentKey::first(&socket))
}

#[test]
fn rsa_is_taken_with_sha_2_and_not_with_sha_1_whatever_name_it_comes_under() {
    let mut doors = Doors::new();
    let rita = doors.world.add_user("rita", "access", KeyType::Rsa);
    doors.sshd = doors.world.plain_sshd(
        "measure2",
        &format!("AuthorizedKeysFile {}\n", rita.public_key().display()),
    );
    let things = FourThings::before(&doors.world);
    let (_running, _) = agent(&doors.world, &rita.key);
    let socket = doors.world.path("agent.sock");
    // SSH_AGENT_RSA_SHA2_256 is 2, SSH_AGENT_RSA_SHA2_512 is 4, SHA-1 is neither.
    for (algorithm, flags, right) in [
        ("rsa-sha2-512", 4, true),
        ("rsa-sha2-256", 2, true),
        ("ssh-rsa", 0, false),
        ("rsa-sha2-512", 0, false),
        ("rsa-sha2-256", 0, false),
        ("ssh-rsa", 4, false),
        ("rsa-sha2-512", 2, false),
    ] {
        let case = format!("{algorithm} signed with flags {flags}");
        let verdict = doors.compare(&case, |door| {
            let user = if door.user == "carol" {
                "rita"
            } else {
                door.user
            };
            let mut raw = ready(door);
            let mut key = AgentKey::first(&socket);
            let request = key.login(&raw.session, user, algorithm, flags);
            said(&mut raw, [request])
        });
        assert_eq!(verdict == Verdict::In, right, "{case}: {verdict:?}");
    }
    things.hold(&doors.world, "RSA");
}

#[test]
fn after_the_login_requests_to_log_in_change_nothing() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    let verdict = doors.compare("a second login", |door| {
        let mut raw = inside(door);
        let request = RawKey::random().login(&raw.session, "bob");
        let _gone = raw.send(request);
        let _gone = raw.send(session(9));
        match answers_until(&mut raw, msg::CHANNEL_OPEN_CONFIRMATION) {
            true => Verdict::In,
            false => Verdict::Ended,
        }
    });
    assert_eq!(verdict, Verdict::In);
    let mut raw = inside(doors.proxy());
    let login = RawKey::read(&doors.world.person("bob").key).login(&raw.session, "bob");
    let _gone = raw.send(login);
    if let Ok(channel) = raw.open_session(0) {
        raw.send(request(channel, "exec", 1).string("whoami"))
            .unwrap();
        let text = output(&mut raw);
        assert!(text.contains("carol") && !text.contains("bob"), "{text}");
    }
    things.hold(&doors.world, "a second login");
}

/// Asks for the step that comes after the key.
fn keyboard(user: &str) -> Msg {
    Msg::new(msg::USERAUTH_REQUEST)
        .string(user)
        .string("ssh-connection")
        .string("keyboard-interactive")
        .string("")
        .string("")
}

/// Whether a code is asked for.
fn is_asked(raw: &mut Raw, user: &str) -> bool {
    raw.send(keyboard(user)).unwrap();
    raw.hear().unwrap()[0] == msg::USERAUTH_INFO_REQUEST
}

fn code(code: &str) -> Msg {
    Msg::new(msg::USERAUTH_INFO_RESPONSE).u32(1).string(code)
}

#[test]
fn between_the_key_and_the_code_the_name_cannot_be_switched() {
    let mut world = crate::second_factor::world("0s");
    let carol = world.add_user("carol", "access", KeyType::Ed25519);
    let dora = world.person("dora").clone();
    let mut app = set_up(&dora, &["--name", "phone"]);
    let things = FourThings::before(&world);
    let (hers, carols) = (RawKey::read(&dora.key), RawKey::read(&carol.key));
    let half_way = || {
        let mut raw = Raw::ready(world.port).unwrap();
        let request = hers.login(&raw.session, "dora");
        raw.send(request).unwrap();
        let answer = raw.hear().unwrap();
        // Partial success.
        assert_eq!(
            (answer[0], answer.last()),
            (msg::USERAUTH_FAILURE, Some(&1))
        );
        raw
    };
    let right = app.code();
    // Another name is asked for nothing, and what was proven under hers is gone then.
    for other in ["carol", "nobody", "DORA", "dora "] {
        let mut raw = half_way();
        assert!(!is_asked(&mut raw, other), "{other}");
        assert!(!is_asked(&mut raw, "dora"), "after {other}");
        raw.send(code(&right)).unwrap();
        assert_ne!(let_in(&mut raw), Verdict::In);
    }
    // A code that was asked for under her name answers nothing under another.
    let mut raw = half_way();
    assert!(is_asked(&mut raw, "dora"));
    raw.send(hers.offer("carol")).unwrap();
    assert_eq!(raw.hear().unwrap()[0], msg::USERAUTH_FAILURE);
    raw.send(code(&right)).unwrap();
    assert_eq!(raw.hear().unwrap()[0], msg::USERAUTH_FAILURE);
    assert!(!is_asked(&mut raw, "dora"));
    assert_ne!(let_in(&mut raw), Verdict::In);
    // The answer alone, twice, without a question between.
    let mut raw = half_way();
    assert!(is_asked(&mut raw, "dora"));
    raw.send(code("")).unwrap();
    assert_eq!(raw.hear().unwrap()[0], msg::USERAUTH_FAILURE);
    raw.send(code(&right)).unwrap();
    assert_eq!(raw.hear().unwrap()[0], msg::USERAUTH_FAILURE);
    // More answers than questions, and 2^32 of them.
    let mut raw = half_way();
    assert!(is_asked(&mut raw, "dora"));
    raw.send(
        Msg::new(msg::USERAUTH_INFO_RESPONSE)
            .u32(u32::MAX)
            .string("1"),
    )
    .unwrap();
    assert_ne!(let_in(&mut raw), Verdict::In);
    // Another key that fails meanwhile takes nothing away and gives nothing: it is dora who is let in, and the
    // code is as good as new.
    let mut raw = half_way();
    raw.send(carols.offer("dora")).unwrap();
    assert_eq!(raw.hear().unwrap()[0], msg::USERAUTH_FAILURE);
    let wrong = carols.login(&raw.session, "dora");
    raw.send(wrong).unwrap();
    assert_eq!(raw.hear().unwrap()[0], msg::USERAUTH_FAILURE);
    assert!(is_asked(&mut raw, "dora"));
    assert_eq!(said(&mut raw, [code(&right)]), Verdict::In);
    let channel = raw.open_session(0).unwrap();
    raw.send(request(channel, "exec", 1).string("whoami"))
        .unwrap();
    let text = output(&mut raw);
    assert!(text.contains("dora") && !text.contains("carol"), "{text}");
    things.hold(&world, "the second step");
}
