//! Host certificates, and the check of what a node shows when it is dialled.
//!
//! Three kinds are issued: the proxy's own, the inner server's behind one ProxyJump channel, and a node's.
//! [`verify`] decides whether a dialled peer is the node that was meant; it runs before anything is sent.

use anteroom_core::id::NodeId;
use rand::CryptoRng;
use ssh_key::certificate::CertType;
use ssh_key::{Certificate as Wire, Fingerprint, HashAlg, PublicKey};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use crate::cert::{Certificate, Class, Draft, MAX_BYTES, SignError, is_algorithm_of};
use crate::key::{HostCa, fingerprint};
use crate::names::{AdmittedName, HostName, HostNames};
use crate::serial::Serial;
use crate::time_of_issue::IssueTime;

/// What every host certificate needs besides its names.
#[derive(Debug, Clone, Copy)]
pub struct HostTerms {
    /// The number under which the issuance is recorded.
    pub serial: Serial,
    /// How long from now: at most 30 days less a minute for the proxy and nodes, 59 minutes for an inner
    /// server. More is refused, not shortened.
    pub lifetime: Duration,
    /// The time of issuing.
    pub at: IssueTime,
}

/// The proxy's own certificate: exactly its names, the cluster's among them.
///
/// # Errors
/// [`CertifyHostError`].
pub fn certify_proxy(
    names: &HostNames,
    subject: &PublicKey,
    terms: HostTerms,
    ca: &HostCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyHostError> {
    let principals: Vec<_> = names.proxy().map(HostName::to_string).collect();
    let key_id = format!(
        "proxy {}",
        principals.first().map(String::as_str).unwrap_or_default()
    );
    certify(Class::Proxy, key_id, principals, subject, terms, ca, rng)
}

/// The certificate of the inner server that answers for `name`, the name a client asked to jump to.
///
/// # Errors
/// [`CertifyHostError`].
pub fn certify_inner(
    name: &AdmittedName,
    subject: &PublicKey,
    terms: HostTerms,
    ca: &HostCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyHostError> {
    certify(
        Class::Inner,
        format!("inner {name}"),
        vec![name.to_string()],
        subject,
        terms,
        ca,
        rng,
    )
}

/// A node's certificate: its UUID first, by which the proxy knows it, then the names an operator approved.
///
/// # Errors
/// [`CertifyHostError`]; in particular [`CertifyHostError::AnotherNode`] for a name that is another UUID.
pub fn certify_node(
    node: &NodeId,
    names: &[AdmittedName],
    subject: &PublicKey,
    terms: HostTerms,
    ca: &HostCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyHostError> {
    // A name is text that somebody chose; the UUID principal is what the proxy goes by.
    if let Some(name) = names
        .iter()
        .find(|name| NodeId::parse(name.as_str()).is_ok())
    {
        return Err(CertifyHostError::AnotherNode { name: name.clone() });
    }
    let principals =
        std::iter::once(node.to_string()).chain(names.iter().map(AdmittedName::to_string));
    certify(
        Class::Node,
        format!("node {node}"),
        principals.collect(),
        subject,
        terms,
        ca,
        rng,
    )
}

fn certify(
    class: Class,
    key_id: String,
    principals: Vec<String>,
    subject: &PublicKey,
    terms: HostTerms,
    ca: &HostCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyHostError> {
    let longest = class.max_lifetime() - Duration::seconds(crate::cert::BACKDATE.cast_signed());
    if terms.lifetime < Duration::SECOND || terms.lifetime > longest {
        return Err(CertifyHostError::Lifetime {
            asked: terms.lifetime,
            longest,
        });
    }
    let draft = Draft {
        class,
        subject,
        serial: terms.serial,
        key_id,
        principals,
        valid_before: terms.at.now() + terms.lifetime,
        source_address: None,
        force_command: None,
        extensions: Vec::new(),
    };
    Ok(draft.sign(terms.at, ca.signer(), rng)?)
}

/// Why no host certificate was issued.
#[derive(Debug, Error)]
pub enum CertifyHostError {
    /// Not within the bounds of its class.
    #[error(
        "a lifetime of {asked} was asked for: at least a second and at most {longest} are possible"
    )]
    Lifetime {
        /// What was asked for.
        asked: Duration,
        /// The longest from now.
        longest: Duration,
    },
    /// A name that stands for another node.
    #[error("`{name}` is the form of a node's UUID: a node's names cannot be UUIDs")]
    AnotherNode {
        /// The name.
        name: AdmittedName,
    },
    /// The linter or the signer refused.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// What a dialled host has shown and, by the key exchange, proven to hold.
#[derive(Debug, Clone, Copy)]
pub enum PresentedHost<'a> {
    /// A plain host key.
    Key(&'a PublicKey),
    /// A host certificate; the key exchange proved possession of the key in it.
    Certificate(&'a Wire),
}

/// How the node that was meant is known.
#[derive(Debug, Clone, Copy)]
pub enum HostExpectation<'a> {
    /// By one of these keys, of any type.
    Pinned(&'a [PublicKey]),
    /// By a certificate for its UUID from one of these authorities: all that are trusted at the moment.
    Authority {
        /// The trusted host authorities.
        trusted: &'a [PublicKey],
        /// The node that was meant.
        node: &'a NodeId,
        /// The present time.
        now: OffsetDateTime,
    },
    /// By a certificate for a name, from one of these authorities: a proxy, which a node agent knows by the
    /// cluster's name. No node is given a certificate for that ([`HostNames::admit`]).
    Named {
        /// The trusted host authorities.
        trusted: &'a [PublicKey],
        /// The name that was meant.
        name: &'a str,
        /// The present time.
        now: OffsetDateTime,
    },
}

/// Whether `proof` shows the host that was expected.
///
/// A pinned key also counts inside a certificate, whoever signed it: possession of the key is what was proven.
///
/// # Errors
/// The first reason against it.
pub fn verify(proof: PresentedHost<'_>, expected: HostExpectation<'_>) -> Result<(), HostRefused> {
    match (expected, proof) {
        (HostExpectation::Pinned(pins), PresentedHost::Key(key)) => verify_pinned(key, pins),
        (HostExpectation::Pinned(pins), PresentedHost::Certificate(cert)) => {
            verify_pinned(&PublicKey::from(cert.public_key().clone()), pins)
        }
        (HostExpectation::Authority { .. }, PresentedHost::Key(key)) => {
            Err(HostRefused::NoCertificate {
                found: fingerprint(key),
            })
        }
        (HostExpectation::Named { name, .. }, PresentedHost::Key(key)) => {
            Err(HostRefused::NoCertificateFor {
                name: shown(std::slice::from_ref(&name.to_owned())),
                found: fingerprint(key),
            })
        }
        (HostExpectation::Authority { trusted, node, now }, PresentedHost::Certificate(cert)) => {
            verify_certificate(cert, trusted, &node.to_string(), now, |expected, found| {
                HostRefused::Principals { expected, found }
            })
        }
        (HostExpectation::Named { trusted, name, now }, PresentedHost::Certificate(cert)) => {
            verify_certificate(cert, trusted, name, now, |expected, found| {
                HostRefused::OtherName { expected, found }
            })
        }
    }
}

/// Reads the bytes of a host certificate as they came over the wire.
///
/// An SSH library that hands over a parsed certificate has skipped bytes it did not understand; here the
/// certificate must be the same bytes again when it is written, so nothing was left over anywhere inside.
///
/// # Errors
/// [`HostRefused::TooLong`], [`HostRefused::Malformed`], [`HostRefused::BytesLeftOver`].
pub fn parse_certificate(blob: &[u8]) -> Result<Wire, HostRefused> {
    if blob.len() > MAX_BYTES {
        return Err(HostRefused::TooLong { found: blob.len() });
    }
    let cert = match Wire::from_bytes(blob) {
        Ok(cert) => cert,
        Err(ssh_key::Error::Encoding(ssh_key::encoding::Error::TrailingData { .. })) => {
            return Err(HostRefused::BytesLeftOver);
        }
        Err(_) => return Err(HostRefused::Malformed),
    };
    match cert.to_bytes() {
        Ok(again) if again == blob => Ok(cert),
        Ok(_) => Err(HostRefused::BytesLeftOver),
        Err(_) => Err(HostRefused::Malformed),
    }
}

fn verify_pinned(key: &PublicKey, pins: &[PublicKey]) -> Result<(), HostRefused> {
    if pins.is_empty() {
        return Err(HostRefused::NothingPinned);
    }
    match pins.iter().any(|pin| pin.key_data() == key.key_data()) {
        true => Ok(()),
        false => Err(HostRefused::NotPinned {
            found: fingerprint(key),
            algorithm: key.algorithm().to_string(),
        }),
    }
}

fn verify_certificate(
    cert: &Wire,
    trusted: &[PublicKey],
    name: &str,
    now: OffsetDateTime,
    another: impl FnOnce(String, String) -> HostRefused,
) -> Result<(), HostRefused> {
    verify_origin(cert, trusted)?;
    verify_window(cert, now)?;
    // PROTOCOL.certkeys lets a host certificate without principals stand for every host; here it stands for none.
    if !cert.valid_principals().iter().any(|found| found == name) {
        return Err(another(name.to_owned(), shown(cert.valid_principals())));
    }
    // No critical option is defined for hosts, so each one is unknown (PROTOCOL.certkeys: must be refused).
    match cert.critical_options().keys().next() {
        None => Ok(()),
        Some(option) => Err(HostRefused::CriticalOption {
            name: shown(std::slice::from_ref(option)),
        }),
    }
}

/// Type, size, authority and signature.
fn verify_origin(cert: &Wire, trusted: &[PublicKey]) -> Result<(), HostRefused> {
    let size = cert.to_bytes().map_err(|_| HostRefused::Malformed)?.len();
    if size > MAX_BYTES {
        return Err(HostRefused::TooLong { found: size });
    }
    if cert.cert_type() != CertType::Host {
        return Err(HostRefused::UserCertificate);
    }
    let ca = cert.signature_key();
    if ca.is_certificate() {
        return Err(HostRefused::AuthorityIsCertificate);
    }
    if !trusted.iter().any(|key| key.key_data() == ca) {
        return Err(HostRefused::UnknownAuthority {
            found: ca.fingerprint(HashAlg::Sha256),
        });
    }
    if !is_algorithm_of(ca, cert.signature()) {
        let found = cert.signature().algorithm().to_string();
        return Err(HostRefused::SignatureAlgorithm { found });
    }
    cert.verify_signature().map_err(|_| HostRefused::Signature)
}

/// Half open: `valid_after ≤ now < valid_before`.
fn verify_window(cert: &Wire, now: OffsetDateTime) -> Result<(), HostRefused> {
    let (from, until) = (cert.valid_after(), cert.valid_before());
    // A clock before 1970 is before every certificate.
    let Ok(seconds) = u64::try_from(now.unix_timestamp()) else {
        return Err(HostRefused::NotYetValid { from, now });
    };
    if seconds < from {
        return Err(HostRefused::NotYetValid { from, now });
    }
    if seconds >= until {
        return Err(HostRefused::Expired { until, now });
    }
    Ok(())
}

/// Why a host is not the one that was meant, or does not prove it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostRefused {
    /// The node is registered with no key at all.
    #[error("no host key is pinned for the node: add one with `nodes update NODE --host-key FILE`")]
    NothingPinned,
    /// Another key than the pinned ones.
    #[error(
        "the host shows the {algorithm} key {found}, which is not pinned: if its key was changed, `nodes update NODE --host-key FILE`"
    )]
    NotPinned {
        /// Fingerprint of the key shown.
        found: Fingerprint,
        /// Type of the key shown.
        algorithm: String,
    },
    /// A plain key where a certificate is wanted.
    #[error(
        "the host shows the plain key {found}, but the node is known by a certificate of the host CA: set `HostCertificate` in its sshd_config, or pin the key"
    )]
    NoCertificate {
        /// Fingerprint of the key shown.
        found: Fingerprint,
    },
    /// A plain key where a certificate for a name is wanted.
    #[error("the host shows the plain key {found} and no certificate for `{name}`")]
    NoCertificateFor {
        /// The name that was meant.
        name: String,
        /// Fingerprint of the key shown.
        found: Fingerprint,
    },
    /// A user's certificate.
    #[error("the host shows a user certificate")]
    UserCertificate,
    /// An authority that is not trusted.
    #[error("the host's certificate is signed by {found}, which is no trusted host CA")]
    UnknownAuthority {
        /// Fingerprint of the signing key.
        found: Fingerprint,
    },
    /// A chain, which PROTOCOL.certkeys forbids.
    #[error("the host's certificate is signed by another certificate")]
    AuthorityIsCertificate,
    /// A signature of another or an outdated kind.
    #[error("the host's certificate is signed by {found}, which is not accepted")]
    SignatureAlgorithm {
        /// The algorithm.
        found: String,
    },
    /// The signature does not verify.
    #[error("the signature of the host's certificate is wrong")]
    Signature,
    /// It begins later.
    #[error("the host's certificate begins at {} and it is {now}: compare the clocks", date(*from))]
    NotYetValid {
        /// Its beginning, seconds since 1970.
        from: u64,
        /// The time of the check.
        now: OffsetDateTime,
    },
    /// It has ended.
    #[error("the host's certificate ended at {} and it is {now}: issue a new one", date(*until))]
    Expired {
        /// Its end, seconds since 1970.
        until: u64,
        /// The time of the check.
        now: OffsetDateTime,
    },
    /// For another host, or for any.
    #[error("the host's certificate is for `{found}`, not for node {expected}")]
    Principals {
        /// The node's UUID.
        expected: String,
        /// Its principals, escaped and cut.
        found: String,
    },
    /// For other names.
    #[error("the host's certificate is for `{found}`, not for `{expected}`")]
    OtherName {
        /// The name that was meant.
        expected: String,
        /// Its principals, escaped and cut.
        found: String,
    },
    /// An option that we would have to obey.
    #[error(
        "the host's certificate has the critical option `{name}`, which is not known for hosts"
    )]
    CriticalOption {
        /// The option, escaped and cut.
        name: String,
    },
    /// Too many bytes.
    #[error("the host's certificate has {found} bytes, at most {MAX_BYTES} are read")]
    TooLong {
        /// How many there were.
        found: usize,
    },
    /// Not a certificate.
    #[error("the host's certificate cannot be read")]
    Malformed,
    /// Something was hidden behind or inside it.
    #[error("the host's certificate has bytes left over")]
    BytesLeftOver,
}

/// Text from a host that is not trusted yet, fit for a message.
fn shown(texts: &[String]) -> String {
    texts.join(",").escape_default().take(SHOWN).collect()
}

fn date(seconds: u64) -> String {
    let date = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    date.map_or_else(
        || format!("{seconds} seconds since 1970"),
        |date| date.to_string(),
    )
}

/// Characters: two names of the longest kind.
const SHOWN: usize = 128;

#[cfg(test)]
mod tests {
    use ssh_key::certificate::Builder;
    use time::macros::datetime;

    use super::*;
    use crate::key::Key;
    use crate::test_rng;

    const NOW: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);

    fn key(byte: u8) -> Key {
        Key::from_seed("", &[byte; 32])
    }

    fn public(byte: u8) -> PublicKey {
        key(byte).public_key().clone()
    }

    fn ca() -> HostCa {
        HostCa::new(key(1))
    }

    fn node() -> NodeId {
        NodeId::parse("b1168402-9340-421a-a344-af66a6675738").unwrap()
    }

    fn other_node() -> NodeId {
        NodeId::parse("bbb56211-7b54-4f9e-bee9-b68ea156be5f").unwrap()
    }

    fn terms(lifetime: Duration) -> HostTerms {
        HostTerms {
            serial: Serial::new(5).unwrap(),
            lifetime,
            at: IssueTime::new(NOW, None).unwrap(),
        }
    }

    fn rule() -> HostNames {
        HostNames::new(["example.com", "access"], ["lan"]).unwrap()
    }

    fn issued() -> Wire {
        let names = [
            rule().admit("iot").unwrap(),
            rule().admit("iot.lan").unwrap(),
        ];
        let cert = certify_node(
            &node(),
            &names,
            &public(2),
            terms(Duration::days(7)),
            &ca(),
            &mut test_rng(),
        );
        cert.unwrap().into_ssh()
    }

    /// A host certificate with the faults that `certify_node` would not make.
    fn by_hand(change: impl FnOnce(&mut Builder)) -> Wire {
        let start = u64::try_from(NOW.unix_timestamp()).unwrap();
        let mut builder = Builder::new([0; 32], public(2), start, start + 60).unwrap();
        builder
            .serial(1)
            .unwrap()
            .key_id("hand")
            .unwrap()
            .cert_type(CertType::Host)
            .unwrap();
        change(&mut builder);
        builder.sign(key(1).private_key()).unwrap()
    }

    fn named(builder: &mut Builder) {
        builder.valid_principal(node().to_string()).unwrap();
    }

    fn check(
        cert: &Wire,
        trusted: &[PublicKey],
        node: &NodeId,
        now: OffsetDateTime,
    ) -> Result<(), HostRefused> {
        verify(
            PresentedHost::Certificate(cert),
            HostExpectation::Authority { trusted, node, now },
        )
    }

    #[test]
    fn a_node_certificate_carries_the_uuid_first_and_verifies() {
        let cert = issued();
        assert_eq!(
            cert.valid_principals(),
            [node().to_string(), "iot".to_owned(), "iot.lan".to_owned()]
        );
        assert_eq!(cert.key_id(), format!("node {}", node()));
        assert_eq!(check(&cert, &[public(8), public(1)], &node(), NOW), Ok(()));
        assert_eq!(check(&by_hand(named), &[public(1)], &node(), NOW), Ok(()));
    }

    #[test]
    fn an_inner_certificate_carries_the_name_asked_for_alone() {
        let name = rule().admit("IoT").unwrap();
        let cert = certify_inner(
            &name,
            &public(2),
            terms(Duration::minutes(10)),
            &ca(),
            &mut test_rng(),
        )
        .unwrap();
        assert_eq!(cert.as_ssh().valid_principals(), ["iot"]);
        assert!(
            cert.as_ssh().extensions().is_empty() && cert.as_ssh().critical_options().is_empty()
        );
        assert_eq!(cert.valid_before(), NOW + Duration::minutes(10));
    }

    #[test]
    fn the_proxys_certificate_carries_its_names_alone() {
        let cert = certify_proxy(
            &rule(),
            &public(2),
            terms(Duration::days(7)),
            &ca(),
            &mut test_rng(),
        )
        .unwrap();
        assert_eq!(cert.as_ssh().valid_principals(), ["access", "example.com"]);
    }

    #[test]
    fn a_lifetime_outside_the_class_is_refused() {
        let name = rule().admit("iot").unwrap();
        let ask =
            |lifetime| certify_inner(&name, &public(2), terms(lifetime), &ca(), &mut test_rng());
        assert!(ask(Duration::minutes(59)).is_ok());
        for lifetime in [Duration::minutes(60), Duration::ZERO, Duration::seconds(-1)] {
            assert!(
                matches!(ask(lifetime), Err(CertifyHostError::Lifetime { .. })),
                "{lifetime}"
            );
        }
    }

    #[test]
    fn a_nodes_name_cannot_be_another_nodes_uuid() {
        let name = rule().admit(&other_node().to_string()).unwrap();
        let found = certify_node(
            &node(),
            &[name],
            &public(2),
            terms(Duration::DAY),
            &ca(),
            &mut test_rng(),
        );
        assert!(matches!(found, Err(CertifyHostError::AnotherNode { .. })));
    }

    #[test]
    fn a_pinned_key_of_any_type_is_recognised_by_its_data() {
        let rsa = PublicKey::from_openssh(include_str!("../tests/keys/rsa2048.pub")).unwrap();
        let mut commented = public(2);
        commented.set_comment("another comment");
        let pins = [rsa.clone(), public(2)];
        for shown in [&rsa, &commented] {
            assert_eq!(
                verify(PresentedHost::Key(shown), HostExpectation::Pinned(&pins)),
                Ok(())
            );
        }
        let cert = issued();
        assert_eq!(
            verify(
                PresentedHost::Certificate(&cert),
                HostExpectation::Pinned(&pins)
            ),
            Ok(())
        );
    }

    #[test]
    fn a_key_that_is_not_pinned_is_refused() {
        let stranger = public(3);
        let pinned = [public(2)];
        let found = verify(
            PresentedHost::Key(&stranger),
            HostExpectation::Pinned(&pinned),
        );
        assert!(matches!(found, Err(HostRefused::NotPinned { .. })));
        // A certificate of our own authority does not stand in for the pinned key.
        let cert = issued();
        let found = verify(
            PresentedHost::Certificate(&cert),
            HostExpectation::Pinned(&[public(3)]),
        );
        assert!(matches!(found, Err(HostRefused::NotPinned { .. })));
        let found = verify(PresentedHost::Key(&stranger), HostExpectation::Pinned(&[]));
        assert_eq!(found, Err(HostRefused::NothingPinned));
    }

    #[test]
    fn a_plain_key_is_refused_where_a_certificate_is_wanted() {
        let trusted = [public(1)];
        // Not even the authority's own.
        let expected = HostExpectation::Authority {
            trusted: &trusted,
            node: &node(),
            now: NOW,
        };
        let found = verify(PresentedHost::Key(&public(1)), expected);
        assert!(matches!(found, Err(HostRefused::NoCertificate { .. })));
    }

    #[test]
    fn a_proxy_is_known_by_its_clusters_name_and_no_node_can_stand_for_it() {
        let trusted = [public(1)];
        let named = |name| HostExpectation::Named {
            trusted: &trusted,
            name,
            now: NOW,
        };
        let proxy = certify_proxy(
            &rule(),
            &public(2),
            terms(Duration::days(7)),
            &ca(),
            &mut test_rng(),
        );
        let proxy = proxy.unwrap().into_ssh();
        let shown = PresentedHost::Certificate(&proxy);
        assert_eq!(verify(shown, named("access")), Ok(()));
        let found = verify(shown, named("acces"));
        assert!(matches!(found, Err(HostRefused::OtherName { .. })));
        let found = verify(PresentedHost::Certificate(&issued()), named("access"));
        assert!(matches!(found, Err(HostRefused::OtherName { .. })));
        let found = verify(PresentedHost::Key(&public(2)), named("access"));
        assert!(matches!(found, Err(HostRefused::NoCertificateFor { .. })));
    }

    #[test]
    fn another_nodes_certificate_is_refused() {
        let found = check(&issued(), &[public(1)], &other_node(), NOW);
        assert!(matches!(found, Err(HostRefused::Principals { .. })));
    }

    #[test]
    fn a_certificate_for_every_host_or_by_name_alone_is_refused() {
        let every = by_hand(|builder| {
            builder.all_principals_valid().unwrap();
        });
        let name = by_hand(|builder| {
            builder
                .valid_principal("iot")
                .unwrap()
                .valid_principal(format!("{}x", node()))
                .unwrap();
        });
        let upper = by_hand(|builder| {
            builder
                .valid_principal(node().to_string().to_uppercase())
                .unwrap();
        });
        let pattern = by_hand(|builder| {
            builder.valid_principal("*").unwrap();
        });
        for cert in [every, name, upper, pattern] {
            assert!(matches!(
                check(&cert, &[public(1)], &node(), NOW),
                Err(HostRefused::Principals { .. })
            ));
        }
    }

    #[test]
    fn a_certificate_of_an_authority_that_is_not_trusted_is_refused() {
        let retired = check(&issued(), &[public(7), public(8)], &node(), NOW);
        assert!(matches!(retired, Err(HostRefused::UnknownAuthority { .. })));
        assert!(matches!(
            check(&issued(), &[], &node(), NOW),
            Err(HostRefused::UnknownAuthority { .. })
        ));
    }

    #[test]
    fn a_user_certificate_is_no_host_certificate() {
        let start = u64::try_from(NOW.unix_timestamp()).unwrap();
        let mut builder = Builder::new([0; 32], public(2), start, start + 60).unwrap();
        builder
            .cert_type(CertType::User)
            .unwrap()
            .valid_principal(node().to_string())
            .unwrap();
        let cert = builder.sign(key(1).private_key()).unwrap();
        assert_eq!(
            check(&cert, &[public(1)], &node(), NOW),
            Err(HostRefused::UserCertificate)
        );
    }

    #[test]
    fn the_window_is_half_open() {
        let at = |seconds| {
            check(
                &by_hand(named),
                &[public(1)],
                &node(),
                NOW + Duration::milliseconds(seconds),
            )
        };
        assert!(matches!(at(-1), Err(HostRefused::NotYetValid { .. })));
        assert_eq!(at(0), Ok(()));
        assert_eq!(at(59_999), Ok(()));
        assert!(matches!(at(60_000), Err(HostRefused::Expired { .. })));
        let before_1970 = check(
            &by_hand(named),
            &[public(1)],
            &node(),
            datetime!(1969-12-31 23:59 UTC),
        );
        assert!(matches!(before_1970, Err(HostRefused::NotYetValid { .. })));
    }

    #[test]
    fn any_critical_option_is_refused() {
        for option in ["source-address", "force-command", "anything@example.com"] {
            let cert = by_hand(|builder| {
                named(builder);
                builder.critical_option(option, "x").unwrap();
            });
            let found = check(&cert, &[public(1)], &node(), NOW);
            assert_eq!(
                found,
                Err(HostRefused::CriticalOption {
                    name: option.to_owned()
                })
            );
        }
    }

    #[test]
    fn a_changed_bit_anywhere_is_refused() {
        let blob = by_hand(named).to_bytes().unwrap();
        for position in 0..blob.len() {
            let mut changed = blob.clone();
            changed[position] ^= 1;
            let verdict = parse_certificate(&changed)
                .and_then(|cert| check(&cert, &[public(1)], &node(), NOW));
            assert!(verdict.is_err(), "byte {position}");
        }
    }

    #[test]
    fn bytes_left_over_are_refused_wherever_they_hide() {
        let blob = by_hand(named).to_bytes().unwrap();
        assert!(parse_certificate(&blob).is_ok());
        let behind = [blob.as_slice(), b"\0"].concat();
        assert_eq!(parse_certificate(&behind), Err(HostRefused::BytesLeftOver));
        // Inside the signature's string: its length is the 4 bytes before the last 83 of an Ed25519 one.
        let at = blob.len() - 83 - 4;
        assert_eq!(blob[at..at + 4], 83_u32.to_be_bytes());
        let inside = [&blob[..at], &84_u32.to_be_bytes(), &blob[at + 4..], b"\0"].concat();
        assert_eq!(parse_certificate(&inside), Err(HostRefused::BytesLeftOver));
        assert_eq!(
            parse_certificate(&blob[..blob.len() - 1]),
            Err(HostRefused::Malformed)
        );
        assert!(matches!(
            parse_certificate(&vec![0; MAX_BYTES + 1]),
            Err(HostRefused::TooLong { .. })
        ));
    }

    #[test]
    fn an_authority_that_is_a_certificate_is_refused() {
        // A certificate whose signature key is itself a certificate, put together by hand.
        let inner = by_hand(named).to_bytes().unwrap();
        let outer = by_hand(named).to_bytes().unwrap();
        let ca_key = public(1).to_bytes().unwrap();
        let tail = 4 + ca_key.len() + 4 + 83;
        let head = &outer[..outer.len() - tail];
        let signature = &outer[outer.len() - 4 - 83..];
        let length = u32::try_from(inner.len()).unwrap().to_be_bytes();
        let chained = parse_certificate(&[head, &length, &inner, signature].concat()).unwrap();
        let found = check(&chained, &[public(1)], &node(), NOW);
        assert_eq!(found, Err(HostRefused::AuthorityIsCertificate));
    }

    #[test]
    fn a_hosts_text_reaches_messages_escaped_and_cut() {
        let cert = by_hand(|builder| {
            builder
                .valid_principal(format!("\u{1b}[2J\u{202e}{}", "x".repeat(9_000)))
                .unwrap();
        });
        let message = check(&cert, &[public(1)], &node(), NOW)
            .unwrap_err()
            .to_string();
        assert!(
            message.is_ascii() && !message.contains('\u{1b}') && message.len() < 400,
            "{message}"
        );
    }
}
