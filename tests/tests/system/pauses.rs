//! What failures earn the source that they come from (as sshd's `PerSourcePenalties`), from outside: loopback earns
//! nothing, so the clients are in a network namespace with addresses of their own. Needs root, as making one does.

use std::net::{IpAddr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::{Finished, KeyType, Net, Person, World};

/// Where the proxy is for clients of one family, and who they are.
struct Street {
    proxy: String,
    /// Addresses of one source: one address, or several of one /64.
    source: Vec<String>,
    /// Another source.
    other: String,
}

impl Street {
    fn v4(net: &Net) -> Self {
        let [third, first] = net.number();
        let at = |last: u8| format!("198.18.{third}.{}", first + last);
        let street = Self {
            proxy: at(1),
            source: vec![at(2)],
            other: at(3),
        };
        street.build(net, 29);
        street
    }

    /// `None` where there is no IPv6.
    fn v6(net: &Net) -> Option<Self> {
        let [third, first] = net.number();
        let at = |last: &str| format!("fd13:{third:x}:{first:x}:{last}");
        let street = Self {
            proxy: at(":1"),
            source: vec![at(":2"), at("0:ffff::2")],
            other: at("1::2"),
        };
        street.build(net, 48).then_some(street)
    }

    fn build(&self, net: &Net, bits: u8) -> bool {
        let inside = self.source.iter().chain([&self.other]);
        let inside: Vec<String> = inside.map(|one| format!("{one}/{bits}")).collect();
        let inside: Vec<&str> = inside.iter().map(String::as_str).collect();
        net.add(&format!("{}/{bits}", self.proxy), &inside)
    }
}

fn world(config: &str) -> World {
    let mut world = World::builder()
        .listen(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        .config(config)
        .user("carol", "access")
        .start();
    world.stranger("mallory", KeyType::Ed25519);
    world
}

fn knock(net: &Net, who: &Person, street: &Street, from: &str) -> Finished {
    let client = net
        .client(who)
        .arg("-o")
        .arg(format!("HostName={}", street.proxy));
    let client = client.arg("-o").arg(format!("BindAddress={from}"));
    client.args(["access", "whoami"]).run()
}

/// Whether the proxy said nothing at all, not even its version.
fn turned_away(knocked: &Finished) -> bool {
    let said = &knocked.stderr;
    let silent = said.contains("closed by") || said.contains("reset by");
    knocked.code() == Some(255) && silent && !said.contains("Permission denied")
}

/// Has mallory fail until she is not heard any more, or so many times; how often she was heard.
fn fails(net: &Net, world: &World, street: &Street, from: &str, most: usize) -> usize {
    for heard in 0..most {
        let knocked = knock(net, world.person("mallory"), street, from);
        if turned_away(&knocked) {
            return heard;
        }
        knocked.exits(255).says("Permission denied");
    }
    most
}

#[test]
fn failures_earn_their_source_a_pause_that_ends_and_others_get_in_meanwhile() {
    let Some(net) = Net::new() else { return };
    let world = world("");
    let carol = world.person("carol");
    for street in [Some(Street::v4(&net)), Street::v6(&net)]
        .into_iter()
        .flatten()
    {
        let heard = fails(&net, &world, &street, &street.source[0], 12);
        // Five seconds for each, enforced from fifteen on.
        assert!((3..12).contains(&heard), "{heard}");
        let began = Instant::now();
        let other = knock(&net, carol, &street, &street.other);
        other.exits(0).prints_part("carol");
        for from in &street.source {
            let knocked = knock(&net, carol, &street, from);
            assert!(turned_away(&knocked), "{from}: {knocked}");
        }
        let server = world.ctl(&["status", "--server", "--format", "json"]);
        let dropped = server.json()["dropped"]["penalty"].as_u64();
        assert!(dropped.is_some_and(|dropped| dropped >= 2), "{server}");
        let took = loop {
            let knocked = knock(&net, carol, &street, &street.source[0]);
            let took = began.elapsed();
            if knocked.code() == Some(0) {
                break took;
            }
            assert!(turned_away(&knocked), "{knocked}");
            assert!(took < Duration::from_secs(40), "it never ends");
            thread::sleep(Duration::from_millis(200));
        };
        println!("{}: heard {heard} times, paused for {took:?}", street.proxy);
        for from in &street.source {
            knock(&net, carol, &street, from).exits(0);
        }
    }
}

#[test]
fn an_address_that_is_exempt_earns_no_pause_and_its_neighbour_does() {
    let Some(net) = Net::new() else { return };
    let street = Street::v4(&net);
    let (here, neighbour) = (&street.source[0], &street.other);
    let exempted = world(&format!("per_source_penalty_exempt: [{here}]"));
    assert_eq!(fails(&net, &exempted, &street, here, 8), 8);
    let carol = exempted.person("carol");
    knock(&net, carol, &street, here).exits(0);
    let heard = fails(&net, &exempted, &street, neighbour, 12);
    assert!(heard < 12, "its neighbour was not turned away");
    knock(&net, carol, &street, here).exits(0);
    let off = world("per_source_penalties: false");
    assert_eq!(fails(&net, &off, &street, here, 8), 8);
}
