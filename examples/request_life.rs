//! Shows: the life of an access request, from filing to expiry, with a clock that is moved by hand.
//! Run:   cargo run -p anteroom-examples --example request_life

use std::error::Error;

use anteroom_core::documents::{self, Document};
use anteroom_core::id::{
    ClusterName, KeyFingerprint, Login, NodeId, NodeName, RequestId, UserName,
};
use anteroom_core::node::{HostProof, Node, NodeAddr};
use anteroom_core::policy::{Access, Decision, Identity, decide};
use anteroom_core::preset::presets;
use anteroom_core::request::{
    AccessRequest, Action, Actor, Filed, Terms, Verdict, Wanted, apply, file, review,
};
use anteroom_core::user::{User, UserKey};
use anteroom_core::view::{Settings, View};
use time::macros::{datetime, format_description};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// Alice may ask for what the preset role `access` gives; the access lasts an hour from the approval.
const ON_CALL: &str = "
kind: role
metadata: {name: on-call}
spec:
  allow:
    request:
      search_as_roles: [access]
      max_duration: 1h
      duration_from: approval
";

/// The state of the story. The proxy keeps it in a database and holds it in memory as a view.
struct Story {
    view: View,
    now: OffsetDateTime,
    alice: Identity,
    bob: UserName,
    wish: Access,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut story = Story::new()?;
    let start = story.now;
    story.say("root@iot is wanted by alice", &story.verdict());

    let request = story.file(1)?;
    story.say("filed", &story.state(&request));
    story.wait(Duration::seconds(30));
    // A second connection of hers for the same need: no second request.
    let wanted = story.wanted()?;
    let joined = file(
        &story.view,
        &story.alice,
        &wanted,
        RequestId::from_uuid(Uuid::from_u128(2)),
        story.now,
    )?;
    story.say(
        "asked for again",
        match joined {
            Filed::Joined(_) => "joins the pending request",
            Filed::New(_) => "a second request",
            Filed::Covered(_) => "nothing to ask for",
        },
    );

    story.wait(Duration::minutes(4));
    let yes = || Verdict::Approve(Terms::default());
    let own = review(
        &story.view,
        story.alice.user(),
        story.get(&request)?,
        yes(),
        "",
        story.now,
    );
    story.say(
        "reviewed by alice",
        &outcome(own.map(|reviewed| reviewed.request)),
    );
    let approved = review(
        &story.view,
        &story.bob,
        story.get(&request)?,
        yes(),
        "okay",
        story.now,
    )?;
    story.put(approved.request);
    story.say("reviewed by bob", &story.state(&request));
    story.say("root@iot", &story.verdict());

    story.wait(Duration::minutes(10));
    let alice = Actor::User(story.alice.user().clone());
    let key = story.alice.key().clone();
    story.put(apply(
        story.get(&request)?,
        &Action::Drop { key: key.clone() },
        &alice,
        story.now,
    )?);
    story.say("dropped by alice", &story.state(&request));
    story.say("root@iot", &story.verdict());
    story.put(apply(
        story.get(&request)?,
        &Action::Assume { key },
        &alice,
        story.now,
    )?);
    story.say("assumed by alice", &story.state(&request));
    story.say("root@iot", &story.verdict());

    // Dropping and assuming moved no end; half open: at the end it is over.
    story.now = story.get(&request)?.access_expires - Duration::seconds(1);
    story.say("root@iot, a second before", &story.verdict());
    story.wait(Duration::seconds(1));
    story.say("root@iot, at the end", &story.verdict());
    story.put(apply(
        story.get(&request)?,
        &Action::Expire,
        &Actor::Clock,
        story.now,
    )?);
    story.say("expired by the clock", &story.state(&request));
    let late = apply(story.get(&request)?, &Action::Cancel, &alice, story.now);
    story.say("canceled by alice", &outcome(late));
    println!(
        "\nfrom first to last: {} minutes",
        (story.now - start).whole_minutes()
    );
    Ok(())
}

impl Story {
    fn new() -> Result<Self, Box<dyn Error>> {
        let now = datetime!(2026-11-20 12:00 UTC);
        let alice = user("alice", &["on-call"], &["root"], now)?;
        let bob = user("bob", &["reviewer"], &[], now)?;
        let key = alice.keys.first().ok_or("no key")?.fingerprint.clone();
        let iot = Node {
            id: NodeId::from_uuid(Uuid::from_u128(7)),
            name: NodeName::parse("iot")?,
            addr: NodeAddr::parse("192.0.2.7:22")?,
            labels: [("env".to_owned(), "staging".to_owned())].into(),
            said_labels: Default::default(),
            host_proof: HostProof::HostCa,
            egress_addresses: Vec::new(),
        };
        let own = documents::parse(ON_CALL)?
            .into_iter()
            .filter_map(|document| match document {
                Document::Role(role) => Some(*role),
                Document::User(_)
                | Document::Node(_)
                | Document::Lock(_)
                | Document::MonitoringRule(_)
                | Document::Token(_)
                | Document::Resource(_) => None,
            });
        Ok(Self {
            alice: Identity::from_proven_key(alice.name.clone(), key),
            bob: bob.name.clone(),
            wish: Access {
                login: Login::parse("root")?,
                node: iot.id,
            },
            view: View::new(ClusterName::parse("example.com")?, Settings::default())
                .with_roles(presets().into_iter().chain(own))
                .with_users([alice, bob])
                .with_node(iot),
            now,
        })
    }

    /// What a denied connection would ask for.
    fn wanted(&self) -> Result<Wanted, Box<dyn Error>> {
        match decide(&self.view, &self.alice, &self.wish, self.now) {
            Decision::Ask(ask) => {
                let mut wanted = Wanted::from_ask(&ask);
                wanted.reason = "disk full".to_owned();
                Ok(wanted)
            }
            Decision::Permit(_) => Err("she has it already".into()),
            Decision::Deny(_) => Err("she may not ask".into()),
        }
    }

    fn file(&mut self, id: u128) -> Result<RequestId, Box<dyn Error>> {
        let id = RequestId::from_uuid(Uuid::from_u128(id));
        match file(&self.view, &self.alice, &self.wanted()?, id, self.now)? {
            Filed::New(new) => self.put(new.request),
            Filed::Joined(_) | Filed::Covered(_) => return Err("there is one already".into()),
        }
        Ok(id)
    }

    /// Rules return a new request; storing it is another's business. In the proxy that is a transaction.
    fn put(&mut self, request: AccessRequest) {
        self.view = self.view.clone().with_request(request);
    }

    fn get(&self, id: &RequestId) -> Result<&AccessRequest, Box<dyn Error>> {
        Ok(self.view.request(id).ok_or("no such request")?)
    }

    fn wait(&mut self, duration: Duration) {
        self.now += duration;
    }

    fn say(&self, what: &str, answer: &str) {
        println!("{}  {what:<28} {answer}", clock(self.now));
    }

    fn state(&self, id: &RequestId) -> String {
        match self.get(id) {
            Ok(request) => outcome(Ok::<_, String>(request.clone())),
            Err(error) => error.to_string(),
        }
    }

    /// The decision of this moment.
    fn verdict(&self) -> String {
        match decide(&self.view, &self.alice, &self.wish, self.now) {
            Decision::Permit(permit) => match permit.ends() {
                Some(end) => format!("PERMIT until {}", clock(end)),
                None => "PERMIT".to_owned(),
            },
            Decision::Ask(ask) if ask.assumable.is_empty() => "ASK".to_owned(),
            Decision::Ask(_) => "ASK, or assume the dropped request".to_owned(),
            Decision::Deny(_) => "DENY".to_owned(),
        }
    }
}

fn outcome<E: std::fmt::Display>(result: Result<AccessRequest, E>) -> String {
    match result {
        Ok(request) => request.state.to_string(),
        Err(error) => format!("refused: {error}"),
    }
}

fn user(
    name: &str,
    roles: &[&str],
    logins: &[&str],
    now: OffsetDateTime,
) -> Result<User, Box<dyn Error>> {
    let mut user = User::new(UserName::parse(name)?);
    for role in roles {
        user.roles.insert(role.parse()?);
    }
    for login in logins {
        user.logins.push(login.parse()?);
    }
    // Any public key serves here; nothing is signed.
    let key = anteroom_ca::key::Key::generate(name, &mut rand::rng());
    user.keys.push(UserKey {
        fingerprint: KeyFingerprint::parse(&key.fingerprint().to_string())?,
        openssh: key.public_key().to_openssh()?,
        added: now,
    });
    Ok(user)
}

fn clock(instant: OffsetDateTime) -> String {
    let shape = format_description!("[hour]:[minute]:[second]");
    instant
        .format(&shape)
        .unwrap_or_else(|error| error.to_string())
}
