//! Where a certificate may be used from: the critical option `source-address`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// The addresses from which a node sees the proxy, in the form that sshd compares: CIDR blocks, at least one,
/// no bit set beyond a prefix (sshd refuses those), and none that is the whole Internet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceAddresses(Vec<Block>);

impl SourceAddresses {
    /// The one address that a dialled connection has on our side.
    pub fn local(address: IpAddr) -> Self {
        Self(vec![Block::single(address)])
    }

    /// Both loopback addresses: what a node sees of connections that come through its own tunnel.
    pub fn tunnel() -> Self {
        Self(vec![
            Block::single(Ipv4Addr::LOCALHOST.into()),
            Block::single(Ipv6Addr::LOCALHOST.into()),
        ])
    }

    /// What an operator wrote as `egress_addresses`: addresses (`192.0.2.7`) or blocks (`2001:db8::/32`).
    ///
    /// # Errors
    /// [`SourceError`]; in particular an empty list, which would restrict nothing.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, SourceError> {
        if texts.is_empty() {
            return Err(SourceError::Empty);
        }
        if texts.len() > MAX_BLOCKS {
            return Err(SourceError::TooMany { found: texts.len() });
        }
        texts
            .iter()
            .map(|text| Block::parse(text.as_ref()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether an address is in one of the blocks. An IPv4 address of a dual-stack socket is one of IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|block| {
            bits(address) == bits(block.address) && mask(address, block.prefix) == block.address
        })
    }
}

/// The value of the option: `192.0.2.7/32,2001:db8::/32`.
impl fmt::Display for SourceAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, block) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}/{}", block.address, block.prefix)?;
        }
        Ok(())
    }
}

/// Why a list of addresses is not used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SourceError {
    /// No address at all.
    #[error("no source address given: name at least one, or leave `egress_addresses` out")]
    Empty,
    /// More than fit.
    #[error("{found} source addresses given, at most {MAX_BLOCKS} are possible: use larger blocks")]
    TooMany {
        /// How many were given.
        found: usize,
    },
    /// Not an address and not a block.
    #[error("`{text}` is no address and no block such as `192.0.2.0/24`")]
    Malformed {
        /// What was written.
        text: String,
    },
    /// Every address there is.
    #[error(
        "`{text}` is every address there is, which restricts nothing: name the addresses that nodes see the proxy under"
    )]
    Everything {
        /// What was written.
        text: String,
    },
    /// Bits are set that the prefix does not cover.
    #[error("`{text}` has bits set beyond its prefix: write `{meant}`")]
    BeyondPrefix {
        /// What was written.
        text: String,
        /// The block that contains it.
        meant: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    address: IpAddr,
    prefix: u8,
}

impl Block {
    fn single(address: IpAddr) -> Self {
        // A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d; the node's sshd compares the IPv4 form.
        let address = address.to_canonical();
        Self {
            address,
            prefix: bits(address),
        }
    }

    fn parse(text: &str) -> Result<Self, SourceError> {
        let malformed = || SourceError::Malformed {
            text: text.to_owned(),
        };
        let (address, prefix) = match text.split_once('/') {
            None => return text.parse().map(Self::single).map_err(|_| malformed()),
            Some((address, prefix)) => (address.parse::<IpAddr>(), prefix),
        };
        let address = address.map_err(|_| malformed())?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix
            .parse::<u8>()
            .ok()
            .filter(|prefix| digits && *prefix <= bits(address));
        let prefix = prefix.ok_or_else(malformed)?;
        if prefix == 0 {
            return Err(SourceError::Everything {
                text: text.to_owned(),
            });
        }
        let masked = mask(address, prefix);
        if masked != address {
            return Err(SourceError::BeyondPrefix {
                text: text.to_owned(),
                meant: format!("{masked}/{prefix}"),
            });
        }
        Ok(Self { address, prefix })
    }
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// `address` with everything after `prefix` bits cleared; `prefix` is between 1 and the address's length.
fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

/// As many as a certificate has principals; far below what sshd reads.
const MAX_BLOCKS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_blocks_are_written_as_sshd_compares_them() {
        let list =
            SourceAddresses::parse(&["192.0.2.7", "198.51.100.0/24", "2001:DB8::/32", "::1"])
                .unwrap();
        assert_eq!(
            list.to_string(),
            "192.0.2.7/32,198.51.100.0/24,2001:db8::/32,::1/128"
        );
        assert_eq!(
            SourceAddresses::tunnel().to_string(),
            "127.0.0.1/32,::1/128"
        );
    }

    #[test]
    fn an_ipv4_address_of_a_dual_stack_socket_is_written_as_ipv4() {
        let local = SourceAddresses::local("::ffff:192.0.2.7".parse().unwrap());
        assert_eq!(local.to_string(), "192.0.2.7/32");
    }

    #[test]
    fn an_address_is_in_the_blocks_of_its_own_family() {
        let list = SourceAddresses::parse(&["192.0.2.0/24", "::1", "203.0.113.9"]).unwrap();
        for inside in [
            "192.0.2.0",
            "192.0.2.255",
            "::ffff:192.0.2.7",
            "::1",
            "203.0.113.9",
        ] {
            assert!(list.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "192.0.3.0",
            "203.0.113.8",
            "::2",
            "::",
            "0.0.0.1",
            "127.0.0.1",
        ] {
            assert!(!list.contains(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn what_restricts_nothing_is_refused() {
        assert_eq!(SourceAddresses::parse::<&str>(&[]), Err(SourceError::Empty));
        for text in ["0.0.0.0/0", "::/0", "10.0.0.0/00"] {
            assert!(
                matches!(
                    SourceAddresses::parse(&[text]),
                    Err(SourceError::Everything { .. })
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn what_sshd_would_refuse_is_refused_here() {
        for text in [
            "",
            "host",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "10.0.0.1,10.0.0.2",
            "!10.0.0.1",
            "10.*",
            "fe80::1%eth0",
            " 10.0.0.1",
        ] {
            assert!(
                matches!(
                    SourceAddresses::parse(&[text]),
                    Err(SourceError::Malformed { .. })
                ),
                "{text}"
            );
        }
        let error = SourceAddresses::parse(&["10.1.2.3/8"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`10.1.2.3/8` has bits set beyond its prefix: write `10.0.0.0/8`"
        );
        assert!(matches!(
            SourceAddresses::parse(&vec!["10.0.0.1"; 33]),
            Err(SourceError::TooMany { found: 33 })
        ));
    }
}
