//! Where a machine that enrols itself is reached, and whether it may say so.
//!
//! A machine may give itself the address that it comes from and no other: none that means the proxy, whoever uses
//! it, or somebody else, whose reviews would be refused from then on as a node's. What it calls itself by a name is
//! looked up here, once, and the address is what is registered: what the name leads to later is never dialled.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anteroom_core::enrol::{NotYours, Place, is_nobodys};
use anteroom_core::node::{HostPort, NodeAddr};
use tokio::task::JoinSet;

use super::ask::Wish;
use crate::admin;
use crate::limits::Source;
use crate::state::NodeAddresses;

/// How long a look-up of a name may take: part of the time that an enrolment has.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a machine is reached that comes from nowhere else.
const SSH: u16 = 22;

/// What becomes of `wish`, for a machine that comes from `peer`.
pub(crate) async fn place(
    proxy: &admin::Place,
    addresses: &NodeAddresses,
    wish: &Wish,
    peer: SocketAddr,
) -> Place {
    let peer = peer.ip().to_canonical();
    let judge = Judge {
        proxy,
        addresses,
        peer,
    };
    match wish {
        Wish::Tunnel => Place::Tunnel,
        Wish::Here(port) => {
            let addr = at(peer, port.unwrap_or(SSH));
            let verdict = judge.all(&addr, &[peer]).await;
            match port {
                None => Place::Unsaid {
                    source: addr,
                    verdict,
                },
                Some(_) => Place::Said { addr, verdict },
            }
        }
        Wish::At(said) => {
            let (host, port) = (said.host(), said.port());
            let found = look_up(host.to_owned()).await;
            let named = NodeAddr::At(said.clone());
            let verdict = if is_the_proxys_name(proxy, host) {
                Err(not_yours(&named, "a name of the proxy"))
            } else {
                judge.all(&named, &found).await
            };
            let own = found.iter().find(|ip| judge.is_its_own(**ip));
            let addr = own.or(found.first()).map_or(named, |ip| at(*ip, port));
            Place::Said { addr, verdict }
        }
    }
}

fn at(ip: IpAddr, port: u16) -> NodeAddr {
    let text = SocketAddr::new(ip, port).to_string();
    // A scope is no part of an address that others use; such an address is refused in any case.
    HostPort::parse(&text).map_or(NodeAddr::Tunnel, NodeAddr::At)
}

fn not_yours(addr: &NodeAddr, what: &'static str) -> NotYours {
    let addr = addr.to_string();
    NotYours { addr, what }
}

/// Judges the addresses of one machine.
struct Judge<'a> {
    proxy: &'a admin::Place,
    addresses: &'a NodeAddresses,
    peer: IpAddr,
}

impl Judge<'_> {
    /// Every address that a name leads to has to be one that a machine may have, and one of them its own.
    async fn all(&self, addr: &NodeAddr, ips: &[IpAddr]) -> Result<(), NotYours> {
        if ips.is_empty() {
            return Err(not_yours(addr, "a name that the proxy can't look up"));
        }
        if let Some(what) = ips.iter().find_map(|ip| is_nobodys(*ip)) {
            return Err(not_yours(addr, what));
        }
        let Some(own) = own_addresses(self.proxy).await else {
            return Err(not_yours(addr, "an address that can't be judged now"));
        };
        if ips.iter().any(|ip| own.contains(&ip.to_canonical())) {
            return Err(not_yours(addr, "an address of the proxy itself"));
        }
        if ips.iter().any(|ip| self.addresses.is_shared(*ip)) {
            return Err(not_yours(addr, SHARED));
        }
        if !ips.iter().any(|ip| self.is_its_own(*ip)) {
            return Err(not_yours(addr, "not where this machine comes from"));
        }
        Ok(())
    }

    /// A machine with IPv6 has several addresses in its network, and comes from any of them.
    fn is_its_own(&self, ip: IpAddr) -> bool {
        Source::of(ip) == Source::of(self.peer)
    }
}

const SHARED: &str = "an address that people share with nodes, by `shared_addresses`";

fn is_the_proxys_name(proxy: &admin::Place, host: &str) -> bool {
    // What is an address is judged as one.
    if host.parse::<IpAddr>().is_ok() {
        return false;
    }
    let mut names = proxy.names.proxy().map(|name| name.as_str());
    names.any(|name| name.eq_ignore_ascii_case(host)) || proxy.host.eq_ignore_ascii_case(host)
}

/// The addresses of the proxy's interfaces, and of the names that it is known by: those may be of something in
/// front of it. `None` if the system does not tell.
async fn own_addresses(proxy: &admin::Place) -> Option<BTreeSet<IpAddr>> {
    let mut own: BTreeSet<IpAddr> = nix::ifaddrs::getifaddrs()
        .ok()?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .map(|ip| ip.to_canonical())
        .collect();
    // A certificate carries some dozens of names at most.
    let mut names = JoinSet::new();
    for name in proxy.names.proxy() {
        names.spawn(look_up(name.as_str().to_owned()));
    }
    names.spawn(look_up(proxy.host.clone()));
    while let Some(found) = names.join_next().await {
        own.extend(found.unwrap_or_default());
    }
    Some(own)
}

/// The addresses of a host; none if it isn't known in time.
async fn look_up(host: String) -> Vec<IpAddr> {
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, 0))).await;
    let found = found.into_iter().flatten().flatten();
    found.map(|address| address.ip().to_canonical()).collect()
}
