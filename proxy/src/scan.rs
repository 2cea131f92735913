//! Asking a node for its host keys, as `ssh-keyscan` does: for `nodes add --scan`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anteroom_core::node::NodeAddr;
use ssh_key::{Algorithm, EcdsaCurve, PublicKey};
use tokio::net::TcpStream;

use crate::admin::Scanner;
use anteroom_ssh as ssh;

/// One kind of key is asked for on one connection; each may take this long.
const KIND_TIMEOUT: Duration = Duration::from_secs(5);

/// A node has one key of a kind, and shows the one that is asked for.
const KINDS: [Algorithm; 5] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP384,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP521,
    },
    Algorithm::Rsa { hash: None },
];

/// Scans over the network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NetworkScanner;

impl Scanner for NetworkScanner {
    fn scan<'a>(
        &'a self,
        addr: &'a NodeAddr,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<PublicKey>, String>> + Send + 'a>> {
        Box::pin(scan(addr))
    }
}

async fn scan(addr: &NodeAddr) -> Result<Vec<PublicKey>, String> {
    let there = addr.dialled();
    let (host, port) = there.ok_or("a node that comes by a tunnel is not dialled")?;
    let mut keys = Vec::new();
    for kind in KINDS {
        let asking = async {
            let tcp = TcpStream::connect((host, port))
                .await
                .map_err(|error| format!("cannot reach {addr}: {error}"))?;
            ssh::scan(tcp, kind)
                .await
                .map_err(|error| format!("{addr}: {error}"))
        };
        match tokio::time::timeout(KIND_TIMEOUT, asking).await {
            Ok(Ok(shown)) => keys.extend(shown),
            Ok(Err(why)) => return Err(why),
            Err(_) => {
                return Err(format!(
                    "{addr} does not answer like an SSH server within 5 seconds"
                ));
            }
        }
    }
    if keys.is_empty() {
        return Err(format!("{addr} has no host key of a kind that is served"));
    }
    Ok(keys)
}
