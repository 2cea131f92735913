//! Hand-made packets: a client that exchanges keys as it should and then breaks the rules, at the proxy and, where
//! the same case makes sense there, at a stock sshd. The proxy is equal or stricter, and goes on as if nothing had
//! been.

mod floods;
mod proof;
mod timing;
mod transport;

use anteroom_tests::raw::wire::{Fields, Msg, msg};
use anteroom_tests::raw::{Raw, RawKey};
use anteroom_tests::{FourThings, Node, NodeConfig, World, login};

/// What a peer makes of somebody, from the mildest to the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Let in.
    In,
    /// Not let in; the next attempt is welcome.
    Refused,
    /// Shown the door.
    Ended,
}

/// A proxy and a stock sshd that know the same key.
struct Doors {
    world: World,
    sshd: Node,
    key: RawKey,
}

/// One of the two, as a case sees it.
#[derive(Clone, Copy)]
struct Door<'a> {
    name: &'static str,
    port: u16,
    user: &'a str,
    key: &'a RawKey,
}

impl Doors {
    fn new() -> Self {
        let world = World::builder()
            .config("max_startups_per_source: 100")
            .node(NodeConfig::new("iot"))
            .user("carol", "access")
            .user("bob", "reviewer")
            .start();
        let carol = world.person("carol");
        let lines = format!("AuthorizedKeysFile {}\n", carol.public_key().display());
        let sshd = world.plain_sshd("measure", &lines);
        let key = RawKey::read(&carol.key);
        Self { world, sshd, key }
    }

    fn proxy(&self) -> Door<'_> {
        Door {
            name: "the proxy",
            port: self.world.port,
            user: "carol",
            key: &self.key,
        }
    }

    /// What both make of a case: the proxy is to be as strict as sshd, or stricter.
    #[track_caller]
    fn compare(&self, case: &str, act: impl Fn(Door<'_>) -> Verdict) -> Verdict {
        let user = login();
        let measure = Door {
            name: "sshd",
            port: self.sshd.port,
            user: &user,
            key: &self.key,
        };
        let (ours, theirs) = (act(self.proxy()), act(measure));
        assert!(
            (ours == Verdict::In) <= (theirs == Verdict::In),
            "{case}: sshd says {theirs:?}, the proxy {ours:?}"
        );
        eprintln!("{case}: the proxy {ours:?}, sshd {theirs:?}");
        ours
    }
}

/// A client of one of the doors, before it has proved anything.
fn ready(door: Door<'_>) -> Raw {
    Raw::ready(door.port).unwrap_or_else(|error| panic!("{}: {error}", door.name))
}

/// A client that is let in.
fn inside(door: Door<'_>) -> Raw {
    let mut raw = ready(door);
    let request = door.key.login(&raw.session, door.user);
    assert_eq!(said(&mut raw, [request]), Verdict::In, "{}", door.name);
    raw
}

/// What is answered to these messages.
fn said(raw: &mut Raw, messages: impl IntoIterator<Item = Msg>) -> Verdict {
    let count = messages
        .into_iter()
        .map(|message| raw.send(message))
        .filter(Result::is_ok)
        .count();
    let mut verdict = Verdict::Ended;
    for _ in 0..count {
        verdict = answer(raw);
        if verdict == Verdict::Ended {
            break;
        }
    }
    verdict
}

/// One answer to an authentication request.
fn answer(raw: &mut Raw) -> Verdict {
    match raw.hear().as_deref() {
        Ok([msg::USERAUTH_SUCCESS, ..]) => Verdict::In,
        Ok([msg::DISCONNECT, ..]) | Err(_) => Verdict::Ended,
        Ok(_) => Verdict::Refused,
    }
}

/// Whether a client is let in after all that it did: by asking with `none`, and by opening a session.
fn let_in(raw: &mut Raw) -> Verdict {
    let none = Msg::new(msg::USERAUTH_REQUEST)
        .string("nobody")
        .string("ssh-connection")
        .string("none");
    let open = session(0);
    if raw.send(open).is_err() || raw.send(none).is_err() {
        return Verdict::Ended;
    }
    loop {
        match raw.hear().as_deref() {
            Ok([msg::USERAUTH_SUCCESS | msg::CHANNEL_OPEN_CONFIRMATION, ..]) => return Verdict::In,
            Ok([msg::USERAUTH_FAILURE, ..]) => return Verdict::Refused,
            Ok([msg::DISCONNECT, ..]) | Err(_) => return Verdict::Ended,
            Ok(_) => {}
        }
    }
}

/// A session channel is opened, ours under this number.
fn session(number: u32) -> Msg {
    Msg::new(msg::CHANNEL_OPEN)
        .string("session")
        .u32(number)
        .u32(1 << 21)
        .u32(1 << 15)
}

/// A request on a channel.
fn request(channel: u32, name: &str, reply: u8) -> Msg {
    Msg::new(msg::CHANNEL_REQUEST)
        .u32(channel)
        .string(name)
        .byte(reply)
}

#[test]
fn a_client_by_hand_is_let_in_with_its_key_and_runs_a_command() {
    let doors = Doors::new();
    let things = FourThings::before(&doors.world);
    let verdict = doors.compare("the right key", |door| {
        let mut raw = ready(door);
        let request = door.key.login(&raw.session, door.user);
        said(&mut raw, [request])
    });
    assert_eq!(verdict, Verdict::In);
    let mut raw = inside(doors.proxy());
    let channel = raw.open_session(0).unwrap();
    raw.send(request(channel, "exec", 1).string("whoami"))
        .unwrap();
    assert!(output(&mut raw).contains("carol"));
    things.hold(&doors.world, "the right key");
}

/// What a channel says on its main stream until it is closed.
fn output(raw: &mut Raw) -> String {
    let mut text = Vec::new();
    loop {
        let message = raw.hear().unwrap();
        match message[0] {
            msg::CHANNEL_DATA => {
                let mut fields = Fields(&message[5..]);
                text.extend_from_slice(fields.string().unwrap());
            }
            msg::CHANNEL_CLOSE => return String::from_utf8_lossy(&text).into_owned(),
            _ => {}
        }
    }
}

/// Whether this message comes before the end.
fn answers_until(raw: &mut Raw, kind: u8) -> bool {
    loop {
        match raw.hear().as_deref() {
            Ok([first, ..]) if *first == kind => return true,
            Ok([msg::DISCONNECT, ..]) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}
