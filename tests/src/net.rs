//! Network namespaces: places from where the proxy is reached by other addresses than loopback.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::{Cmd, Person};

/// A namespace and the pair of interfaces that joins it to the test's own; gone when dropped.
pub struct Net {
    /// Its name.
    pub name: String,
    /// The proxy's address as seen from inside.
    pub proxy: IpAddr,
    /// The address inside.
    pub node: IpAddr,
    inside: String,
    outside: String,
    number: [u8; 2],
}

impl Net {
    /// `None` where the tests may not make one, which is said.
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: namespaces are made by root");
            return None;
        }
        let process = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ar{}n{number}", process % 100_000);
        // A network of four addresses below 10.213, another one for each.
        let third = u8::try_from(process % 256).expect("below 256");
        let address = |last: u8| IpAddr::from([10, 213, third, number * 4 + last]);
        let net = Self {
            inside: format!("{name}i"),
            outside: format!("{name}o"),
            number: [third, number * 8],
            proxy: address(1),
            node: address(2),
            name,
        };
        let (outside, inside) = (net.outside.as_str(), net.inside.as_str());
        ip(&["netns", "add", &net.name]);
        ip(&[
            "link", "add", outside, "type", "veth", "peer", "name", inside,
        ]);
        ip(&["link", "set", inside, "netns", &net.name]);
        ip(&["addr", "add", &format!("{}/30", net.proxy), "dev", outside]);
        ip(&["link", "set", outside, "up"]);
        net.ip(&["addr", "add", &format!("{}/30", net.node), "dev", inside]);
        net.ip(&["link", "set", "lo", "up"]);
        net.plug("up");
        Some(net)
    }

    /// Two numbers that no other namespace of these tests has, for addresses; the second one a multiple of eight.
    pub fn number(&self) -> [u8; 2] {
        self.number
    }

    /// Gives both ends one more address (`ADDRESS/BITS`). `false` if there is no IPv6 here and it is one.
    pub fn add(&self, proxy: &str, inside: &[&str]) -> bool {
        let v6 = proxy.contains(':');
        if v6 && !std::path::Path::new("/proc/net/if_inet6").exists() {
            eprintln!("skipped: there is no IPv6 here");
            return false;
        }
        // Without waiting for somebody else with the same address.
        let options: &[&str] = if v6 { &["nodad"] } else { &[] };
        let outer = ["addr", "add", proxy, "dev", &self.outside];
        ip(&[&outer[..], options].concat());
        for address in inside {
            let inner = ["addr", "add", address, "dev", &self.inside];
            self.ip(&[&inner[..], options].concat());
        }
        true
    }

    /// `ip` inside.
    fn ip(&self, words: &[&str]) {
        Cmd::new("ip")
            .args(["-n", &self.name])
            .args(words)
            .run()
            .exits(0);
    }

    /// Pulls the cable (`down`), or puts it back (`up`).
    pub fn plug(&self, state: &str) {
        self.ip(&["link", "set", &self.inside, state]);
    }

    /// Somebody's `ssh` from inside, with nothing said yet of where to.
    pub fn client(&self, person: &Person) -> Cmd {
        Cmd::new("ip")
            .args(["netns", "exec", &self.name, "ssh", "-F"])
            .arg(person.config())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        Cmd::new("ip").args(["netns", "del", &self.name]).run();
    }
}

fn ip(words: &[&str]) {
    Cmd::new("ip").args(words).run().exits(0);
}
