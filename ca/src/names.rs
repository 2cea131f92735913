//! Which names a host certificate may carry: the rule of one installation.
//!
//! A client that trusts our host authority believes whatever it signs, so what may be signed is narrow: names
//! of one label, and names under the domains an operator configured. Never an address or `localhost`, and the
//! proxy's own names for the proxy alone: else a user could have somebody's connection to another machine
//! answered by an inner server.

use std::collections::BTreeSet;
use std::fmt;

use thiserror::Error;

/// A host name in lower case: labels of `[a-z0-9_-]`, 1 to 63 bytes each, not starting with `-`, parted by
/// single dots, 253 bytes at most (RFC 1123 section 2.1, and `_`, which node names may have). Neither an
/// address in any spelling nor a name of the local machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

impl HostName {
    /// Reads `text`; capitals become small, as in ssh.
    ///
    /// # Errors
    /// [`HostNameError`].
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        let name = text.to_ascii_lowercase();
        // Before the form: `[::1]` is told to be an address, not that it has odd characters.
        if looks_like_address(&name) {
            return Err(HostNameError::Address {
                text: shortened(text),
            });
        }
        if name.is_empty() || name.len() > MAX_NAME || !name.split('.').all(is_label) {
            return Err(HostNameError::Malformed {
                text: shortened(text),
            });
        }
        if is_local(&name) {
            return Err(HostNameError::Local { text: name });
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is of a single label.
    fn is_single(&self) -> bool {
        !self.0.contains('.')
    }

    /// Whether the name lies below `domain`, which itself does not.
    fn is_under(&self, domain: &HostName) -> bool {
        self.0
            .strip_suffix(&domain.0)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no host name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostNameError {
    /// Not of the form of a host name.
    #[error(
        "`{text}` is no host name: letters, digits, `-` and `_` in labels of at most 63 bytes, parted by dots"
    )]
    Malformed {
        /// What was given, cut and with control characters escaped.
        text: String,
    },
    /// An address, in whatever spelling the C library reads as one.
    #[error("`{text}` reads as an address: a host certificate carries names only")]
    Address {
        /// What was given, cut and with control characters escaped.
        text: String,
    },
    /// A name of the machine that looks it up.
    #[error(
        "`{text}` means the local machine wherever it is used: a host certificate cannot carry it"
    )]
    Local {
        /// The name.
        text: String,
    },
}

/// The rule of one installation: the proxy's own names, and the domains whose names may be certified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNames {
    proxy: BTreeSet<HostName>,
    domains: BTreeSet<HostName>,
}

impl HostNames {
    /// The rule for a proxy known as `proxy` (its names and the cluster's, which is its `HostKeyAlias`) with
    /// the configured `host_domains`, each without leading dot. No domains is a rule too: single labels only.
    ///
    /// # Errors
    /// A proxy without a name, more than a certificate can carry, or a text that is no host name.
    pub fn new<P, D>(proxy: P, domains: D) -> Result<Self, HostNamesError>
    where
        P: IntoIterator<Item: AsRef<str>>,
        D: IntoIterator<Item: AsRef<str>>,
    {
        let parse = |name: &str| HostName::parse(name);
        let proxy = proxy
            .into_iter()
            .map(|name| parse(name.as_ref()))
            .collect::<Result<BTreeSet<_>, _>>();
        let proxy = proxy.map_err(HostNamesError::ProxyName)?;
        let domains = domains
            .into_iter()
            .map(|name| parse(name.as_ref()))
            .collect::<Result<_, _>>();
        let domains = domains.map_err(HostNamesError::HostDomain)?;
        match proxy.len() {
            0 => Err(HostNamesError::NoProxyName),
            found if found > crate::cert::MAX_PRINCIPALS => {
                Err(HostNamesError::TooManyProxyNames { found })
            }
            _ => Ok(Self { proxy, domains }),
        }
    }

    /// `asked`, if a certificate of an inner server or a node may carry it.
    ///
    /// # Errors
    /// [`NameRefused`] says which part of the rule forbids it. To a user, answer as if it were unknown.
    pub fn admit(&self, asked: &str) -> Result<AdmittedName, NameRefused> {
        let name = HostName::parse(asked)?;
        if self.proxy.contains(&name) {
            return Err(NameRefused::Proxy { name });
        }
        if name.is_single() || self.domains.iter().any(|domain| name.is_under(domain)) {
            return Ok(AdmittedName(name));
        }
        Err(NameRefused::OutsideDomains { name })
    }

    /// The proxy's own names, sorted; at least one.
    pub fn proxy(&self) -> impl Iterator<Item = &HostName> {
        self.proxy.iter()
    }

    /// The domains whose names may be certified, sorted.
    pub fn domains(&self) -> impl Iterator<Item = &HostName> {
        self.domains.iter()
    }
}

/// A name that [`HostNames::admit`] let through; nothing else makes one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdmittedName(HostName);

impl AdmittedName {
    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for AdmittedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a name may not stand in the certificate of an inner server or a node.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameRefused {
    /// Not a host name in the first place.
    #[error(transparent)]
    NoName(#[from] HostNameError),
    /// It belongs to the proxy alone.
    #[error("`{name}` is a name of the proxy itself: no other host may carry it")]
    Proxy {
        /// The name.
        name: HostName,
    },
    /// A dotted name elsewhere.
    #[error(
        "`{name}` is outside `host_domains`: use a name without dots, or add its domain to `host_domains`"
    )]
    OutsideDomains {
        /// The name.
        name: HostName,
    },
}

/// Why no rule can be made from a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostNamesError {
    /// The proxy would have no name.
    #[error("the proxy has no name: configure at least the cluster's")]
    NoProxyName,
    /// More names than a certificate carries.
    #[error(
        "the proxy has {found} names, but its certificate carries at most {}",
        crate::cert::MAX_PRINCIPALS
    )]
    TooManyProxyNames {
        /// How many there are.
        found: usize,
    },
    /// One of the proxy's names cannot be one.
    #[error("as a name of the proxy, {0}")]
    ProxyName(#[source] HostNameError),
    /// One of the domains cannot be one.
    #[error("in `host_domains`, {0}")]
    HostDomain(#[source] HostNameError),
}

fn is_label(label: &str) -> bool {
    let plain = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
    };
    !label.is_empty()
        && label.len() <= MAX_LABEL
        && !label.starts_with('-')
        && label.bytes().all(plain)
}

/// Whether the C library could read `name` as an address. `inet_aton` takes decimal, octal and hexadecimal
/// numbers with one to three dots or none (`127.1`, `0x7f.1`, `2130706433`): a name whose last label is such
/// a number is an address or nothing. A colon or bracket stands in no name, but in every IPv6 address.
fn looks_like_address(name: &str) -> bool {
    let last = name
        .trim_end_matches('.')
        .rsplit('.')
        .next()
        .unwrap_or_default();
    let hexadecimal = last
        .strip_prefix("0x")
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let decimal = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    name.contains([':', '[', ']', '%']) || hexadecimal || decimal
}

/// Names that resolve to the machine itself: RFC 6761 section 6.3 and what `/etc/hosts` of Debian and Fedora add.
fn is_local(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    let last = name.rsplit('.').next().unwrap_or_default();
    const LOCAL: [&str; 6] = [
        "localhost",
        "localdomain",
        "ip6-localhost",
        "ip6-loopback",
        "localhost4",
        "localhost6",
    ];
    LOCAL.contains(&last) || LOCAL.contains(&first)
}

/// `text` fit for a message: escaped, and cut, for it may come from a client.
fn shortened(text: &str) -> String {
    let mut shown: String = text.escape_debug().take(MAX_LABEL).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule() -> HostNames {
        HostNames::new(
            ["access", "access.example.com", "example.com"],
            ["nodes.example.com", "lan"],
        )
        .unwrap()
    }

    #[test]
    fn single_labels_and_names_under_the_domains_are_admitted() {
        for name in [
            "iot",
            "IoT",
            "db-1",
            "db_1",
            "iot-",
            "iot.lan",
            "a.b.nodes.example.com",
            "b1168402-9340-421a-a344-af66a6675738",
            "0xg",
            "1a",
        ] {
            assert_eq!(
                rule().admit(name).unwrap().as_str(),
                name.to_ascii_lowercase()
            );
        }
    }

    #[test]
    fn the_proxys_own_names_are_refused_in_any_case() {
        for name in ["access", "ACCESS", "Access.Example.com", "example.com"] {
            assert!(
                matches!(rule().admit(name), Err(NameRefused::Proxy { .. })),
                "{name}"
            );
        }
        // Also where a domain would let them through.
        let rule = HostNames::new(["access.lan"], ["lan"]).unwrap();
        assert!(matches!(
            rule.admit("access.lan"),
            Err(NameRefused::Proxy { .. })
        ));
        assert!(rule.admit("other.lan").is_ok());
    }

    #[test]
    fn dotted_names_outside_the_domains_are_refused() {
        for name in [
            "github.com",
            "iot.example.com",
            "nodes.example.com",
            "xnodes.example.com",
            "nodes.example.com.evil.org",
            "evil-lan",
            "x.evillan",
            "iot.lan.x",
        ] {
            let refused = rule().admit(name);
            let dotted = name.contains('.');
            assert_eq!(
                matches!(refused, Err(NameRefused::OutsideDomains { .. })),
                dotted,
                "{name}: {refused:?}"
            );
        }
        let none = HostNames::new(["access"], [""; 0]).unwrap();
        assert!(matches!(
            none.admit("iot.lan"),
            Err(NameRefused::OutsideDomains { .. })
        ));
        assert!(none.admit("iot").is_ok());
    }

    #[test]
    fn addresses_in_any_spelling_are_refused() {
        for name in [
            "127.0.0.1",
            "127.1",
            "127.0.0.1.",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "0177.0.0.1",
            "0x",
            "1",
            "10.0.0.0x1",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
            "fe80::1%eth0",
            "[iot]:22",
            "iot:22",
            "x.127",
            "1.lan.7",
        ] {
            assert!(
                matches!(
                    rule().admit(name),
                    Err(NameRefused::NoName(HostNameError::Address { .. }))
                ),
                "{name}"
            );
        }
    }

    #[test]
    fn names_of_the_local_machine_are_refused() {
        for name in [
            "localhost",
            "LocalHost",
            "x.localhost",
            "localhost.lan",
            "localhost.localdomain",
            "x.localdomain",
            "ip6-localhost",
            "ip6-loopback",
        ] {
            assert!(
                matches!(
                    rule().admit(name),
                    Err(NameRefused::NoName(HostNameError::Local { .. }))
                ),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        let long = "a".repeat(64);
        let longer = format!("{}a", "a.".repeat(127));
        for name in [
            "",
            ".",
            "iot.",
            ".iot",
            "a..lan",
            "-iot",
            "*",
            "*.lan",
            "!iot",
            "i ot",
            "iot\n",
            "iot\0",
            "a,b",
            "root@iot",
            "ïot",
            "iot。lan",
            "１２７.lan",
            &long,
            &longer,
        ] {
            assert!(
                matches!(
                    rule().admit(name),
                    Err(NameRefused::NoName(HostNameError::Malformed { .. }))
                ),
                "{name}"
            );
        }
    }

    #[test]
    fn a_refusal_shows_no_control_characters_and_no_endless_text() {
        let error = HostName::parse(&format!("a\u{1b}[2J{}", "x".repeat(9_999)))
            .unwrap_err()
            .to_string();
        assert!(!error.contains('\u{1b}') && error.len() < 300, "{error}");
    }

    #[test]
    fn a_rule_needs_a_name_for_the_proxy_and_proper_domains() {
        assert_eq!(
            HostNames::new([""; 0], ["lan"]),
            Err(HostNamesError::NoProxyName)
        );
        assert!(matches!(
            HostNames::new(["127.0.0.1"], ["lan"]),
            Err(HostNamesError::ProxyName(_))
        ));
        for domain in ["", "*", "*.lan", ".lan", "localhost", "0.0.127"] {
            assert!(
                matches!(
                    HostNames::new(["access"], [domain]),
                    Err(HostNamesError::HostDomain(_))
                ),
                "{domain}"
            );
        }
        let many: Vec<String> = (0..33).map(|i| format!("a{i}")).collect();
        assert!(matches!(
            HostNames::new(many, [""; 0]),
            Err(HostNamesError::TooManyProxyNames { found: 33 })
        ));
    }

    proptest! {
        #[test]
        fn what_is_admitted_has_one_label_or_lies_under_a_domain(name in "[a-z0-9.:*_-]{0,12}(\\.lan|\\.nodes\\.example\\.com|\\.com)?") {
            if let Ok(admitted) = rule().admit(&name) {
                let name = admitted.as_str();
                prop_assert!(!name.contains('.') || name.ends_with(".lan") || name.ends_with(".nodes.example.com"));
                prop_assert!(name.parse::<std::net::IpAddr>().is_err());
                prop_assert!(name.split('.').all(|label| !label.is_empty()));
            }
        }
    }
}
