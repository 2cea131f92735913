//! Connections that come through a load balancer, which says before the first byte whose they are
//! (the PROXY protocol of HAProxy, versions 1 and 2).
//!
//! Whoever may say so can be anybody: pauses, bounds per source and pinned addresses all rest on the
//! address. So only listed addresses are listened to, and of those the header is demanded, as the
//! protocol's specification has it (section 2): what is not demanded could be left to the client.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A balancer sends its header with the first packet; a connection without one is not kept for longer.
const HEADER_TIMEOUT: Duration = Duration::from_secs(3);

/// Of version 1 the longest line, with its end (section 2.1).
const LONGEST_LINE: usize = 107;

/// Of version 2 the longest header that a receiver has to take (section 2.2), which has room for all
/// kinds of additions that balancers make.
const LONGEST_HEADER: usize = 536;

/// The signature of version 2 and what stands before its variable part: version, family, length.
const FIXED: usize = 16;

/// Connections whose header is waited for. A balancer has it at hand, so that there are few; who is
/// one too many is closed.
pub(crate) const MAX_WAITING: usize = 256;

/// Why a connection of a balancer is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoHeader {
    #[error("no PROXY header came within {} s: does the balancer send one?", HEADER_TIMEOUT.as_secs())]
    Late,
    #[error("what came first is no PROXY header: does the balancer send one?")]
    Malformed,
    #[error("its PROXY header is longer than {LONGEST_HEADER} bytes")]
    TooLong,
    #[error("the connection broke before its PROXY header had come: {0}")]
    Broken(#[from] io::Error),
}

/// Whether connections from this address are a balancer's.
pub(crate) fn is_one(balancers: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    balancers.iter().any(|network| network.contains(&address))
}

/// Reads the header, and nothing behind it: whose connection it is. `None` where it is the
/// balancer's own, to see whether we are there (`LOCAL`, `UNKNOWN`).
pub(crate) async fn client<S: AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<Option<SocketAddr>, NoHeader> {
    let header = tokio::time::timeout(HEADER_TIMEOUT, read(stream)).await;
    let header = header.map_err(|_| NoHeader::Late)??;
    let parsed = ProxyHeader::parse(&header, ParseConfig::default());
    let (parsed, used) = parsed.map_err(|_| NoHeader::Malformed)?;
    if used != header.len() {
        return Err(NoHeader::Malformed);
    }
    Ok(parsed.proxied_address().map(|address| address.source))
}

/// The bytes of one header. What version it is shows in its first bytes, which are as many as the
/// shorter of both has in any case.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, NoHeader> {
    let mut header = vec![0; b"PROXY UNKNOWN\r\n".len()];
    stream.read_exact(&mut header).await?;
    match header.first() {
        Some(b'P') => {
            while !header.ends_with(b"\n") {
                if header.len() == LONGEST_LINE {
                    return Err(NoHeader::Malformed);
                }
                header.push(stream.read_u8().await?);
            }
        }
        Some(b'\r') => {
            while header.len() < FIXED {
                header.push(stream.read_u8().await?);
            }
            let [.., high, low] = header.as_slice() else {
                return Err(NoHeader::Malformed);
            };
            let whole = FIXED + usize::from(u16::from_be_bytes([*high, *low]));
            if whole > LONGEST_HEADER {
                return Err(NoHeader::TooLong);
            }
            header.resize(whole, 0);
            let rest = header.get_mut(FIXED..).unwrap_or_default();
            stream.read_exact(rest).await?;
        }
        Some(_) | None => return Err(NoHeader::Malformed),
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(bytes: &[u8]) -> (Result<Option<SocketAddr>, NoHeader>, Vec<u8>) {
        let mut stream = bytes;
        let client = client(&mut stream).await;
        (client, stream.to_vec())
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    /// 192.0.2.7:1000 to 198.51.100.1:22.
    const V4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 3, 232, 0, 22];

    #[tokio::test]
    async fn the_header_says_whose_connection_it_is_and_what_follows_is_left() {
        let with_additions = [&V4[..], &[4, 0, 3, 1, 2, 3]].concat();
        for header in [
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1000 22\r\n".to_vec(),
            version_2(0x21, 0x11, &V4),
            version_2(0x21, 0x11, &with_additions),
        ] {
            let whole = [&header[..], b"SSH-2.0-x\r\n"].concat();
            let (client, left) = said(&whole).await;
            assert_eq!(client.unwrap().unwrap().to_string(), "192.0.2.7:1000");
            assert_eq!(left, b"SSH-2.0-x\r\n");
        }
        let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 1000 22\r\n";
        let (client, _) = said(line).await;
        assert_eq!(client.unwrap().unwrap().to_string(), "[2001:db8::7]:1000");
    }

    #[tokio::test]
    async fn a_balancer_that_looks_whether_we_are_there_says_nobodys_address() {
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n".to_vec(),
            version_2(0x20, 0x00, &[]),
            version_2(0x20, 0x11, &V4),
        ] {
            assert!(said(&header).await.0.unwrap().is_none(), "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_and_no_more_of_it_read_than_a_header_has() {
        let line = |length: usize| [b"PROXY TCP4 ".to_vec(), vec![b'1'; length]].concat();
        for bytes in [
            b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1000\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.777 198.51.100.1 1000 22\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1000 22\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 70000 22\r\n".to_vec(),
            b"PROXY TCP5 192.0.2.7 198.51.100.1 1000 22\r\n".to_vec(),
            line(4000),
            version_2(0x21, 0x11, &V4[..11]),
            version_2(0x31, 0x11, &V4),
            version_2(0x21, 0x41, &V4),
            b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\x0c".to_vec(),
            version_2(0x21, 0x11, &[0; 521]),
        ] {
            let (client, left) = said(&[&bytes[..], b"SSH-2.0-x\r\n"].concat()).await;
            assert!(client.is_err(), "{client:?} of {bytes:?}");
            assert!(bytes.len() + 11 - left.len() <= LONGEST_HEADER);
        }
        // Cut off anywhere.
        for header in [
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1000 22\r\n".to_vec(),
            version_2(0x21, 0x11, &V4),
        ] {
            for length in 0..header.len() {
                let (client, _) = said(&header[..length]).await;
                assert!(matches!(client, Err(NoHeader::Broken(_))), "{client:?}");
            }
        }
    }

    #[test]
    fn a_balancer_is_known_also_by_its_mapped_address() {
        let listed = ["192.0.2.0/31".parse().unwrap()];
        assert!(is_one(&listed, "::ffff:192.0.2.1".parse().unwrap()));
        assert!(!is_one(&listed, "192.0.2.2".parse().unwrap()));
        assert!(!is_one(&[], "192.0.2.1".parse().unwrap()));
    }
}
