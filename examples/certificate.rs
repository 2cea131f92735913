//! Shows: an access certificate is made from a permit and from nothing else; printed as `ssh-keygen -L` prints it.
//! Run:   cargo run -p anteroom-examples --example certificate

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use anteroom_ca::key::{Key, NodeCa};
use anteroom_ca::node::{self, Terms};
use anteroom_ca::{Certificate, IssueTime, Serial, SourceAddresses};
use anteroom_core::documents::{self, Document};
use anteroom_core::id::{
    ClusterName, KeyFingerprint, Login, NodeId, NodeName, SessionId, UserName,
};
use anteroom_core::node::{HostProof, Node, NodeAddr};
use anteroom_core::policy::{Access, Decision, Identity, Permit, decide};
use anteroom_core::user::{User, UserKey};
use anteroom_core::view::{Settings, View};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::uuid;

/// The role lets its holders log in as root, and forward their agent.
const ROLE: &str = "
kind: role
metadata: {name: operator}
spec:
  allow:
    logins: [root]
    node_labels: {'*': '*'}
  options:
    forward_agent: true
";

fn main() -> Result<(), Box<dyn Error>> {
    let now = datetime!(2026-11-20 12:00 UTC);
    let cluster = ClusterName::parse("example.com")?;
    let permit = permit(&cluster, now)?;

    let mut rng = rand::rng();
    let ca = NodeCa::new(Key::generate("anteroom node CA", &mut rng));
    // The proxy makes a key for one connection, certifies it, logs in with it and forgets it.
    let ephemeral = Key::generate("", &mut rng);
    let terms = Terms {
        cluster: &cluster,
        session: SessionId::from_uuid(uuid!("0f5e2f6e-6f5c-4a3e-9d55-1f2a3b4c5d6e")),
        serial: Serial::random(&mut rng),
        // As which the node will see the proxy.
        source_addresses: &SourceAddresses::parse(&["192.0.2.1"])?,
        at: IssueTime::new(now, None)?,
    };
    let certificate = node::certify(&permit, ephemeral.public_key(), &terms, &ca, &mut rng)?;
    print(&certificate)
}

/// There is no other way to a permit than a decision.
fn permit(cluster: &ClusterName, now: OffsetDateTime) -> Result<Permit, Box<dyn Error>> {
    let alice_key = Key::generate("alice", &mut rand::rng());
    let fingerprint = KeyFingerprint::parse(&alice_key.fingerprint().to_string())?;
    let mut alice = User::new(UserName::parse("alice")?);
    alice.keys.push(UserKey {
        fingerprint: fingerprint.clone(),
        openssh: alice_key.public_key().to_openssh()?,
        added: now,
    });
    let iot = Node {
        id: NodeId::from_uuid(uuid!("b1168402-9340-421a-a344-af66a6675738")),
        name: NodeName::parse("iot")?,
        addr: NodeAddr::parse("192.0.2.7:22")?,
        labels: [("env".to_owned(), "staging".to_owned())].into(),
        said_labels: Default::default(),
        host_proof: HostProof::HostCa,
        egress_addresses: Vec::new(),
    };
    let identity = Identity::from_proven_key(alice.name.clone(), fingerprint);
    let access = Access {
        login: Login::parse("root")?,
        node: iot.id,
    };

    let mut view = View::new(cluster.clone(), Settings::default()).with_node(iot);
    for document in documents::parse(ROLE)? {
        if let Document::Role(role) = document {
            alice.roles.insert(role.name.clone());
            view = view.with_role(*role);
        }
    }
    match decide(&view.with_user(alice), &identity, &access, now) {
        Decision::Permit(permit) => Ok(permit),
        Decision::Ask(_) => Err("she would have to ask".into()),
        Decision::Deny(_) => Err("she is denied".into()),
    }
}

/// Pipes the certificate through ssh-keygen, which reads it as sshd would.
fn print(certificate: &Certificate) -> Result<(), Box<dyn Error>> {
    let started = Command::new("ssh-keygen")
        .args(["-L", "-f", "-"])
        // It prints local time.
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .spawn();
    let mut keygen = match started {
        Ok(keygen) => keygen,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!(
                "ssh-keygen is not installed (on Debian: apt install openssh-client); the certificate is"
            );
            println!("{}", certificate.to_openssh());
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(mut stdin) = keygen.stdin.take() {
        writeln!(stdin, "{}", certificate.to_openssh())?;
    }
    let status = keygen.wait()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("ssh-keygen: {status}").into())
    }
}
