//! `cert LOGIN@NODE`, `nodes host-cert` and `auth export --type krl`: certificates that are carried away, and
//! the list of those that are no good any more.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;

use anteroom_ca::host;
use anteroom_ca::key::{HostCa, fingerprint};
use anteroom_ca::krl::{Edition, RevocationList, RevokedCertificates};
use anteroom_ca::names::{AdmittedName, HostNames};
use anteroom_ca::{Certificate, SourceAddresses};
use anteroom_core::admin::AdminVerb;
use anteroom_core::id::{KeyFingerprint, SessionId, UserName};
use anteroom_core::lock::LockTarget;
use anteroom_core::node::Node;
use anteroom_core::policy::{self, Access, Decision, Identity, Outcome, Whom, explain};
use anteroom_core::request::State;
use anteroom_core::user::User;
use anteroom_core::view::View;
use bytes::Bytes;
use rand::rngs::StdRng;
use ssh_key::PublicKey;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Context;
use super::args;
use super::args::authorities::Cert;
use super::args::nodes::HostCert;
use super::io::{Caller, CommandIo};
use super::keys;
use super::run::{Ended, Run, Stop, some};
use crate::authority::{Authorities, AuthorityKind, Unavailable};
use crate::exit::{Exit, Exits};
use crate::say::{self, clean};
use crate::state::{IssueError, State as Shared, Subject};
use crate::store::ValidCertificate;

impl<I: CommandIo> Run<'_, I> {
    /// One certificate for the caller's own key, alone on standard output.
    pub(crate) async fn cert(&mut self, args: &Cert) -> Ended {
        let identity = self.identity("cert LOGIN@NODE")?.clone();
        let Caller::Ssh { remote_addr, .. } = self.caller else {
            return Err(Stop::usage(
                "a certificate is for a user's key; give it over ssh",
            ));
        };
        let from = *remote_addr;
        let view = self.ctx.state.view();
        let node = self.resolve(&view, &args.target.node)?;
        let access = Access {
            login: args.target.login.clone(),
            node: node.id,
        };
        let shown = format!("{}@{}", access.login, node.name);
        self.permitted(&view, &identity, &access, &shown)?;
        let subject = Subject {
            session: SessionId::from_uuid(Uuid::new_v4()),
            key: own_key(&view, &identity)?,
            source_addresses: as_the_node_sees(from, &node)?,
            command: None,
            from: Some(from),
        };
        let issued = self
            .ctx
            .state
            .issue_direct(&identity, &access, subject)
            .await
            .map_err(|error| not_issued(&error, &shown))?;
        self.print(issued.certificate.to_openssh()).await?;
        self.note(&format!(
            "Valid until {} for {shown} from where you are now; what is done with it does not go through the proxy",
            say::stamp(issued.certificate.valid_before())
        ))
        .await?;
        Ok(Exit::Done)
    }

    /// The decision in words, ahead of the one that counts, which is made where the certificate is recorded.
    fn permitted(
        &self,
        view: &View,
        identity: &Identity,
        access: &Access,
        shown: &str,
    ) -> Result<(), Stop> {
        match policy::decide(view, identity, access, self.ctx.state.now()) {
            Decision::Permit(_) => Ok(()),
            Decision::Ask(_) => Err(Stop::denied(format!(
                "you do not currently have access to {}; ask for it with `ssh access request create --resource {}`",
                clean(shown),
                clean(shown)
            ))),
            Decision::Deny(denial) => Err(Stop::denied(say::denial(&denial, shown))),
        }
    }

    /// A host certificate for a node's own key, alone on standard output.
    pub(crate) async fn host_cert(&mut self, args: &HostCert) -> Ended {
        let view = self.ctx.state.view();
        let node = self.administered_node(AdminVerb::Update, &view, &args.node)?;
        let key = self.one_host_key(&args.key).await?;
        let names = self.names_of(&node);
        let id = node.id;
        let certify = move |terms, ca: &HostCa, rng: &mut StdRng| {
            host::certify_node(&id, &names, &key, terms, ca, rng)
        };
        let by = self.by();
        let certificate = self
            .ctx
            .state
            .issue_node_host(&by, id, args.ttl, certify)
            .await
            .map_err(|error| match &error {
                IssueError::Host(wrong) => Stop::usage(clean(&wrong.to_string())),
                IssueError::NotPermitted(_)
                | IssueError::Clock(_)
                | IssueError::Certify(_)
                | IssueError::Authority(_)
                | IssueError::NotAdmitted(_)
                | IssueError::NotAllowed(_)
                | IssueError::FromNode(_)
                | IssueError::KeyLocked { .. }
                | IssueError::Store(_) => Stop::new(error.exit(), clean(&error.to_string())),
            })?;
        self.print(certificate.to_openssh()).await?;
        let names = certificate.as_ssh().valid_principals().join(", ");
        self.note(&format!(
            "Valid until {} as {}; name it in the node's sshd_config with `HostCertificate`, and reload sshd",
            say::stamp(certificate.valid_before()),
            clean(&names)
        ))
        .await?;
        self.note_other_keys(&node, &certificate).await?;
        Ok(Exit::Done)
    }

    /// A node has a key of each type, so that certificates for other types go on: the one who knows
    /// whether they should is told.
    async fn note_other_keys(
        &mut self,
        node: &Node,
        certificate: &Certificate,
    ) -> Result<(), Stop> {
        let (state, now) = (&self.ctx.state, self.ctx.state.now());
        let key = PublicKey::from(certificate.as_ssh().public_key().clone());
        let key = fingerprint(&key).to_string();
        let known = state.reader().host_certificates_of(node.id, now).await?;
        let others = known
            .into_iter()
            .filter(|one| one.revoked.is_none() && one.key != key);
        let others: BTreeSet<String> = others.map(|one| one.key).collect();
        if others.is_empty() {
            return Ok(());
        }
        self.note(&format!(
            "It has valid certificates for keys of other types too, {}; one that is not the node's any more is shut by `lock --key`",
            some(&others)
        ))
        .await
    }

    async fn one_host_key(&mut self, value: &str) -> Result<PublicKey, Stop> {
        let text = if args::is_inline_key(value) {
            value.to_owned()
        } else {
            self.input("--key", value).await?
        };
        let found = keys::parse_all(&text)
            .map_err(|error| Stop::usage(format!("`--key` can't be used: {error}")))?;
        match found.as_slice() {
            [one] => PublicKey::from_openssh(&one.openssh)
                .map_err(|error| Stop::usage(format!("`--key` can't be used: {error}"))),
            several => Err(Stop::usage(format!(
                "`--key` holds {} keys; a certificate is for one",
                several.len()
            ))),
        }
    }

    /// What people may call the node: its name, and the host name that it is dialled by, as far as
    /// such names are certified at all.
    fn names_of(&self, node: &Node) -> Vec<AdmittedName> {
        let texts = [Some(node.name.as_str()), node.addr.host()];
        admitted_names(&self.ctx.place.names, texts.into_iter().flatten())
    }

    /// The revocation list, binary, alone on standard output.
    pub(crate) async fn export_krl(&mut self) -> Ended {
        let bytes = revocation_list(self.ctx).await?;
        self.io.stdout(Bytes::from(bytes)).await?;
        Ok(Exit::Done)
    }
}

/// The revocation list as sshd reads it.
pub(crate) async fn revocation_list(ctx: &Context) -> Result<Vec<u8>, Stop> {
    let (_, list) = revocations_now(&ctx.state).await?;
    Ok(list)
}

/// The same without its edition, to compare it by, and with it.
pub(crate) async fn revocations_now(state: &Shared) -> Result<(Vec<u8>, Vec<u8>), Stop> {
    let now = state.now();
    // A number that only grows, whatever the clock does: who keeps a list refuses an older one. Read first,
    // so that the list is never older than it says.
    let head = state.reader().audit_head().await?;
    let valid = state.reader().valid_certificates(now).await?;
    let kind = AuthorityKind::Node;
    let authorities = state.authorities().ok_or(Unavailable(kind))?;
    let list = revocations(&state.view(), &authorities, &valid, now);
    let bytes = |version, generated| {
        let edition = Edition {
            version,
            generated,
            comment: format!("anteroom of {}", state.cluster()),
        };
        let bytes = list.to_bytes(&edition);
        bytes.map_err(|error| Stop::new(Exit::Failed, clean(&error.to_string())))
    };
    let version = u64::try_from(head.seq).unwrap_or_default();
    Ok((bytes(0, OffsetDateTime::UNIX_EPOCH)?, bytes(version, now)?))
}

/// Those of `texts` that a node's certificate may carry, each once.
pub(crate) fn admitted_names<'t>(
    names: &HostNames,
    texts: impl IntoIterator<Item = &'t str>,
) -> Vec<AdmittedName> {
    let mut found: Vec<AdmittedName> = Vec::new();
    for text in texts {
        // An address is no name, and what reads as one would be compared as an address.
        if text.parse::<IpAddr>().is_ok() {
            continue;
        }
        if let Ok(name) = names.admit(text)
            && !found.contains(&name)
        {
            found.push(name);
        }
    }
    found
}

fn not_issued(error: &IssueError, shown: &str) -> Stop {
    let text = clean(&error.to_string()).into_owned();
    let text = match error {
        IssueError::Certify(anteroom_ca::node::CertifyError::NotDirect) => format!(
            "{text}; go through the proxy, as in `ssh -J access {}`",
            clean(shown)
        ),
        IssueError::NotPermitted(_)
        | IssueError::Clock(_)
        | IssueError::Certify(_)
        | IssueError::Authority(_)
        | IssueError::Host(_)
        | IssueError::NotAdmitted(_)
        | IssueError::NotAllowed(_)
        | IssueError::FromNode(_)
        | IssueError::KeyLocked { .. }
        | IssueError::Store(_) => text,
    };
    Stop::new(error.exit(), text)
}

/// The key that the caller proved to hold: the registered one, or that of her certificate.
fn own_key(view: &View, identity: &Identity) -> Result<PublicKey, Stop> {
    let registered = || {
        let user = view.user(identity.user())?;
        let mut keys = user.keys.iter();
        keys.find(|key| key.fingerprint == *identity.key())
            .map(|key| key.openssh.clone())
    };
    let line = match identity.credential() {
        Some(credential) => Some(credential.subject.clone()),
        None => registered(),
    };
    line.and_then(|line| PublicKey::from_openssh(&line).ok())
        .ok_or_else(|| {
            Stop::denied("the key you came with is not registered any more; use another one")
        })
}

/// Where the node will see the user. What the proxy sees is the best that is known; a user on the
/// proxy's own host comes to the node from wherever the proxy does.
fn as_the_node_sees(from: SocketAddr, node: &Node) -> Result<SourceAddresses, Stop> {
    let ip = from.ip().to_canonical();
    if !ip.is_loopback() {
        return Ok(SourceAddresses::local(ip));
    }
    let mut blocks = vec!["127.0.0.1/32".to_owned(), "::1/128".to_owned()];
    blocks.extend(node.egress_addresses.iter().cloned());
    SourceAddresses::parse(&blocks).map_err(|error| Stop::new(Exit::Config, error))
}

/// Everything that is to be refused at nodes by itself: locked keys, certificates and people, and every
/// certificate that would not be issued any more.
fn revocations(
    view: &View,
    authorities: &Authorities,
    valid: &[ValidCertificate],
    now: OffsetDateTime,
) -> RevocationList {
    let mut list = RevocationList::default();
    let mut serials: BTreeSet<NonZeroU64> = BTreeSet::new();
    let mut people: BTreeSet<String> = BTreeSet::new();
    let mut shut_out = |user: &User, list: &mut RevocationList| {
        people.insert(user.name.to_string());
        let keys = user.keys.iter().filter_map(|key| sha256(&key.fingerprint));
        list.fingerprints.extend(keys);
    };
    for user in view.users() {
        if user.locked.is_some() || view.locks().on_person(user, None, now).is_some() {
            shut_out(user, &mut list);
        }
    }
    for lock in view.locks().iter().filter(|lock| lock.is_in_force(now)) {
        match &lock.target {
            LockTarget::Key(key) => list.fingerprints.extend(sha256(key)),
            LockTarget::Serial(serial) => serials.extend(NonZeroU64::new(*serial)),
            // Found by what was issued for them.
            LockTarget::User(_)
            | LockTarget::Role(_)
            | LockTarget::Request(_)
            | LockTarget::Login(_)
            | LockTarget::Node(_) => {}
        }
    }
    let no_good = valid.iter().filter(|one| !still_good(view, one, now));
    // A key that was taken from its user, for as long as something that was got with it lives.
    let removed = valid.iter().filter_map(|one| {
        let key = KeyFingerprint::parse(one.login_key.as_deref()?).ok()?;
        view.user_by_key(&key).is_none().then_some(key)
    });
    list.fingerprints
        .extend(removed.filter_map(|key| sha256(&key)));
    serials.extend(no_good.filter_map(|one| one.serial.parse::<NonZeroU64>().ok()));
    let of = |authority: &PublicKey, key_ids: &BTreeSet<String>| RevokedCertificates {
        authority: authority.clone(),
        serials: serials.clone(),
        key_ids: key_ids.clone(),
    };
    let none = BTreeSet::new();
    for kind in [
        AuthorityKind::Node,
        AuthorityKind::User,
        AuthorityKind::Host,
    ] {
        // The key ID of an identity certificate is the user's name.
        let key_ids = match kind {
            AuthorityKind::User => &people,
            AuthorityKind::Node | AuthorityKind::Host => &none,
        };
        let trusted = authorities.record(kind).trusted();
        list.certificates
            .extend(trusted.iter().map(|ca| of(ca, key_ids)));
    }
    // A key that is revoked is revoked as an authority, too: all that it has signed.
    let retired = authorities.retired.iter();
    list.keys = retired.map(|retired| retired.key.clone()).collect();
    list
}

/// Whether the certificate would be issued again now, to whoever came with that key. Whose user is gone is
/// no good in any case.
fn still_good(view: &View, one: &ValidCertificate, now: OffsetDateTime) -> bool {
    if one.revoked.is_some() {
        return false;
    }
    let key = one.login_key.as_deref().map(KeyFingerprint::parse);
    let user = one
        .user
        .as_deref()
        .and_then(|name| UserName::parse(name).ok());
    let Some(user) = user.filter(|name| view.user(name).is_some()) else {
        return false;
    };
    let has = |key: &KeyFingerprint| {
        let owner = view.user_by_key(key);
        owner.is_some_and(|owner| owner.name == user) && view.locks().on_key(key, now).is_none()
    };
    match &key {
        // Issued by an earlier version, minutes ago at most: by any key of hers.
        None => {}
        Some(Ok(key)) if has(key) => {}
        Some(Ok(_) | Err(_)) => return false,
    }
    let (Some(node), Some(login)) = (&one.node_id, &one.login) else {
        // An identity certificate: given up by `request drop`, or the serial of a forged one.
        let known = one
            .serial
            .parse()
            .ok()
            .and_then(|serial| view.credential(serial));
        return known.is_none_or(|known| known.revoked.is_none());
    };
    let (Ok(node), Ok(login)) = (node.parse(), login.parse()) else {
        return false;
    };
    let access = Access { login, node };
    match explain(view, Whom::User(&user), &access, now).outcome {
        Outcome::Permitted { .. } => true,
        // A grant for one command permits nothing else, and is a grant all the same.
        Outcome::Askable(_) => one
            .request_id
            .as_deref()
            .and_then(|id| view.request(&id.parse().ok()?))
            .is_some_and(|request| {
                request.state == State::Approved && now < request.access_expires
            }),
        Outcome::Denied(_) => false,
    }
}

/// The hash that `SHA256:…` writes in base64.
fn sha256(key: &KeyFingerprint) -> Option<[u8; 32]> {
    let fingerprint: ssh_key::Fingerprint = key.as_str().parse().ok()?;
    fingerprint.sha256()
}
