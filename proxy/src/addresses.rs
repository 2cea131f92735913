//! Keeps up with where nodes are that are registered by a host name, so that reviews and administration from
//! there are refused (SECURITY section 3).
//!
//! Names are looked up when a node is registered, again every few minutes, and seen at every dial.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anteroom_core::view::View;
use tokio::task::JoinSet;

use crate::proxy::Proxy;

/// How often all names are looked up. A node that moved by itself is known from its next dial on.
const AGAIN: Duration = Duration::from_mins(5);

/// Look-ups at a time: the resolver is the operator's, and each takes a thread.
const AT_ONCE: usize = 16;

/// How long a look-up may take. One that takes longer is tried again next time.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the start waits for the names to be known. A resolver that is away keeps nobody out.
const AT_START: Duration = Duration::from_secs(3);

/// Looks all names up, for the start of the proxy.
pub(crate) async fn first_look(proxy: &Arc<Proxy>) {
    let names = names(&proxy.state.view());
    if tokio::time::timeout(AT_START, look_up(proxy, names))
        .await
        .is_err()
    {
        tracing::warn!("the addresses of nodes that are registered by name are not all known yet");
    }
}

/// Looks names up for as long as the proxy lives.
pub(crate) async fn follow(proxy: Arc<Proxy>) {
    let mut next = tokio::time::Instant::now() + AGAIN;
    loop {
        let registered = tokio::select! {
            () = tokio::time::sleep_until(next) => false,
            () = proxy.state.nodes_changed() => true,
        };
        let mut names = names(&proxy.state.view());
        proxy.state.addresses().retain(|name| names.contains(name));
        if registered {
            names.retain(|name| proxy.state.addresses().is_new(name));
        } else {
            next = tokio::time::Instant::now() + AGAIN;
        }
        look_up(&proxy, names).await;
    }
}

/// The host names that nodes are registered by.
fn names(view: &View) -> BTreeSet<String> {
    let hosts = view.nodes().filter_map(|node| node.addr.host());
    let names = hosts.filter(|host| host.parse::<IpAddr>().is_err());
    names.map(str::to_owned).collect()
}

async fn look_up(proxy: &Arc<Proxy>, names: BTreeSet<String>) {
    let mut running = JoinSet::new();
    for name in names {
        if running.len() >= AT_ONCE {
            running.join_next().await;
        }
        running.spawn(look_one_up(proxy.clone(), name));
    }
    while running.join_next().await.is_some() {}
}

async fn look_one_up(proxy: Arc<Proxy>, name: String) {
    let found = tokio::net::lookup_host((name.as_str(), 0));
    match tokio::time::timeout(PATIENCE, found).await {
        Ok(Ok(found)) => {
            let addresses = found.map(|address| address.ip());
            let now = proxy.state.now();
            proxy.state.addresses().seen(&name, addresses, now);
        }
        // What was known stays.
        Ok(Err(error)) => tracing::debug!(name, "a node's name is not known: {error}"),
        Err(_) => tracing::debug!(name, "a node's name was not looked up in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;
    use crate::state::{By, Existing, ManualClock, Object, State};
    use anteroom_core::node::{HostProof, Node};

    #[tokio::test]
    async fn a_name_is_looked_up_when_its_node_is_registered() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let clock = Arc::new(ManualClock::new(
            time::macros::datetime!(2026-11-20 12:00 UTC),
        ));
        let config = crate::config::load(None, &Default::default(), "example.com").unwrap();
        let (cluster, settings) = (config.cluster.clone(), config.settings());
        let state = State::open(&data, clock, cluster, settings).await.unwrap();
        let keys = Keys::open(&data, &config, &state).await.unwrap();
        let sealer = crate::mfa::Sealer::with_key(&[9; 32]).unwrap();
        let proxy = Proxy::new(state, keys, sealer, config, ("access".to_owned(), 2222));
        first_look(&proxy).await;
        let following = tokio::spawn(follow(proxy.clone()));
        let node = Node {
            id: anteroom_core::id::NodeId::from_uuid(uuid::Uuid::from_u128(7)),
            name: "iot".parse().unwrap(),
            addr: "localhost:22".parse().unwrap(),
            labels: Default::default(),
            said_labels: Default::default(),
            host_proof: HostProof::HostCa,
            egress_addresses: Vec::new(),
        };
        let put = vec![Object::Node(node)];
        let by = By::local_administrator();
        proxy.state.put(&by, put, Existing::Refuse).await.unwrap();
        let known = async {
            while proxy.state.addresses().is_new("localhost") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), known)
            .await
            .unwrap();
        following.abort();
        proxy.state.close().await;
    }
}
