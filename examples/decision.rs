//! Shows: `decide` answers Permit, Ask or Deny, each with its reasons, from roles, users and nodes written as YAML.
//! Run:   cargo run -p anteroom-examples --example decision

use std::error::Error;

use anteroom_core::documents::{self, Document, NodeDocument, UserDocument};
use anteroom_core::id::{ClusterName, KeyFingerprint, Login, NodeId, NodeName, UserName};
use anteroom_core::node::Node;
use anteroom_core::policy::{Access, Decision, Grant, Identity, Visibility, decide};
use anteroom_core::user::{User, UserKey};
use anteroom_core::view::{Settings, View};
use ssh_key::{HashAlg, PublicKey};
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

/// What `anteroom ctl create -f FILE` takes.
const DOCUMENTS: &str = "
kind: role
metadata: {name: staging}
spec:
  allow:
    logins: ['{{internal.logins}}']
    node_labels: {env: staging}
---
kind: role
metadata: {name: production}
spec:
  allow:
    logins: [root]
    node_labels: {env: production}
---
kind: role
metadata: {name: on-call}
spec:
  allow:
    request:
      search_as_roles: [production]
---
kind: role
metadata: {name: no-root}
spec:
  deny:
    logins: [root]
---
kind: user
metadata: {name: alice}
spec:
  roles: [staging, on-call]
  traits: {logins: [alice]}
  keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJXmJQTvZEWQUkbzHcXEudPaq/fGcuqsGS9B3y5LZFw/ alice]
---
kind: user
metadata: {name: bob}
spec:
  roles: [staging, no-root]
  traits: {logins: [bob, root]}
  keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHfhkfxLghV4alfCDbc2H8bMbyqVuW7KenQV5sRvdXci bob]
---
kind: node
metadata: {name: iot, labels: {env: staging}}
spec: {addr: '192.0.2.7:22', host_ca: true}
---
kind: node
metadata: {name: db, labels: {env: production}}
spec: {addr: '192.0.2.8:22', host_ca: true}
";

/// Who wants which login on which node, and why the answer is what it is.
const WISHES: [(&str, &str, &str, &str); 6] = [
    ("alice", "alice", "iot", "a role of hers grants it"),
    (
        "alice",
        "root",
        "db",
        "a role that she may ask for grants it",
    ),
    (
        "alice",
        "alice",
        "db",
        "she may know the node, but no role gives her that login",
    ),
    ("bob", "bob", "iot", "a role of his grants it"),
    (
        "bob",
        "root",
        "iot",
        "one role grants it, another denies it: deny wins",
    ),
    (
        "bob",
        "bob",
        "db",
        "he can't have it, and is not told that it exists",
    ),
];

fn main() -> Result<(), Box<dyn Error>> {
    let now = datetime!(2026-11-20 12:00 UTC);
    let view = world(now)?;
    for (user, login, node, why) in WISHES {
        println!("{user} wants {login}@{node}: {why}");
        let user = view.user(&UserName::parse(user)?).ok_or("no such user")?;
        let key = user.keys.first().ok_or("no key")?;
        // In the proxy only a verified signature leads here.
        let identity = Identity::from_proven_key(user.name.clone(), key.fingerprint.clone());
        let node = view
            .nodes_named(&NodeName::parse(node)?)
            .next()
            .ok_or("no such node")?;
        let access = Access {
            login: Login::parse(login)?,
            node: node.id,
        };
        show(&decide(&view, &identity, &access, now));
    }
    Ok(())
}

fn show(decision: &Decision) {
    match decision {
        Decision::Permit(permit) => {
            let grant = match permit.grant() {
                Grant::Standing { role } => format!("role `{role}`, which the user has"),
                Grant::Request { request, role } => format!("role `{role}` of request {request}"),
            };
            println!("    PERMIT  through {grant}");
        }
        Decision::Ask(ask) => {
            let roles: Vec<&str> = ask.roles.iter().map(|role| role.as_str()).collect();
            println!("    ASK     through role `{}`", roles.join("`, `"));
            println!("            for {}", ask.resource);
        }
        Decision::Deny(denial) => {
            for reason in &denial.reasons {
                println!("    DENY    {}", reason.as_sentence());
            }
            match denial.visibility {
                Visibility::Visible => println!("            the user may be told so"),
                Visibility::Hidden => {
                    println!("            the user is told that there is no such node")
                }
            }
        }
    }
    println!();
}

/// The state that a decision reads. In the proxy it comes from the database.
fn world(now: OffsetDateTime) -> Result<View, Box<dyn Error>> {
    let mut view = View::new(ClusterName::parse("example.com")?, Settings::default());
    // Fixed IDs, so that every run prints the same.
    let mut ids = (1..).map(|n| NodeId::from_uuid(Uuid::from_u128(n)));
    for document in documents::parse(DOCUMENTS)? {
        view = match document {
            Document::Role(role) => view.with_role(*role),
            Document::User(user) => view.with_user(stored_user(user, now)?),
            Document::Node(node) => {
                view.with_node(stored_node(node, ids.next().ok_or("no ID left")?))
            }
            Document::Lock(_) => return Err("nothing is locked here".into()),
            Document::MonitoringRule(rule) => view.with_monitoring_rules([*rule]),
            Document::Resource(resource) => view.with_resource(resource),
            Document::Token(_) => return Err("nothing is enrolled here".into()),
        };
    }
    Ok(view)
}

fn stored_user(document: UserDocument, now: OffsetDateTime) -> Result<User, Box<dyn Error>> {
    let mut user = User::new(document.name);
    user.roles = document.roles;
    user.logins = document.logins;
    for line in document.keys {
        let fingerprint = PublicKey::from_openssh(&line)?
            .fingerprint(HashAlg::Sha256)
            .to_string();
        user.keys.push(UserKey {
            fingerprint: KeyFingerprint::parse(&fingerprint)?,
            openssh: line,
            added: now,
        });
    }
    Ok(user)
}

fn stored_node(document: NodeDocument, id: NodeId) -> Node {
    Node {
        id: document.id.unwrap_or(id),
        name: document.name,
        addr: document.addr,
        labels: document.labels,
        said_labels: Default::default(),
        host_proof: document.host_proof,
        egress_addresses: document.egress_addresses,
    }
}
