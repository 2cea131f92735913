//! What is said to whoever makes a token: the whole line that makes a machine a node.

use anteroom_core::node::Node;
use anteroom_core::token::Token;
use ssh_key::PublicKey;

use crate::admin::Place;
use crate::enrol::Secret;

/// The command to give on the machine, in one line. The proxy's host key is pinned inside it, so that nobody in
/// between gets the token or gives another script; neither an agent nor a key of whoever gives it is offered.
///
/// Where ssh fails, `sh` is told to fail too: the status of a pipe is that of its last part.
pub(crate) fn enrol_line(place: &Place, token: &Token, secret: &Secret) -> String {
    let Place { host, port, .. } = place;
    let name = token.node.as_ref().map_or_else(
        || "\"$(uname -n | tr A-Z a-z)\"".to_owned(),
        ToString::to_string,
    );
    let port = if *port == 22 {
        String::new()
    } else {
        format!(" -p {port}")
    };
    format!(
        "{{ {{ printf '%s\\n' {secret}; cat /etc/ssh/ssh_host_*_key.pub; }} \
         | ssh -F none -T{port} -o BatchMode=yes -o PubkeyAuthentication=no \
         -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/dev/null -o GlobalKnownHostsFile=/dev/null \
         -o KnownHostsCommand='/bin/echo %H {key}' enroll@{host} {name} \
         || echo 'exit 1'; }} | sudo sh",
        secret = secret.reveal(),
        key = bare(&place.host_key),
    )
}

/// The same for a machine that runs the node agent.
pub(crate) fn join_line(place: &Place, token: &Token, secret: &Secret) -> String {
    let name = token.node.as_ref().map_or_else(
        || "\"$(uname -n | tr A-Z a-z)\"".to_owned(),
        ToString::to_string,
    );
    format!(
        "printf '%s\\n' {} | sudo anteroom node join --proxy {} --token-file - --name {name}",
        secret.reveal(),
        host_port(&place.host, place.port),
    )
}

/// How a person logs in on a node that has just come in.
pub(crate) fn log_in_line(place: &Place, node: &Node) -> String {
    let Place { host, port, .. } = place;
    let port = if *port == 22 {
        String::new()
    } else {
        format!("-p {port} ")
    };
    format!("ssh {port}LOGIN@{}@{host}", node.name)
}

/// Type and key, without the comment.
fn bare(key: &PublicKey) -> String {
    let bare = PublicKey::from(key.key_data().clone());
    // An ed25519 key has no form that could not be written.
    bare.to_openssh().unwrap_or_default()
}

/// `HOST:PORT`, with an IPv6 address in brackets.
fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}
