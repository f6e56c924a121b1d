//! The far end of the socket, and the client behind it.

use crate::header::authority::Authority;
use crate::header::forwarded::Claims;
use http::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// The far end of one socket.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its address; an IPv4 address is never shown as an IPv6 one.
    pub address: SocketAddr,
    /// Whether the socket speaks TLS.
    pub is_tls: bool,
    /// `TLSv1_2`, `TLSv1_3`, for the log.
    pub tls_version: Option<&'static str>,
}

/// Who the client is, as far as it can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The far end of the HTTP exchange.
    pub address: IpAddr,
    /// Whether the client's own connection is protected by TLS.
    pub is_https: bool,
    /// The host that the client asked a trusted proxy for.
    pub forwarded_host: Option<Vec<u8>>,
}

impl Client {
    /// The client of a request from this peer. Fields of the request are believed only if the peer is trusted:
    /// trust is a property of the address, never of what is sent.
    pub fn of(peer: &Peer, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> Self {
        let is_trusted = |address: IpAddr| trusted_proxies.iter().any(|net| net.contains(&address));
        let direct = peer.address.ip();
        if !is_trusted(direct) {
            return Self { address: direct, is_https: peer.is_tls, forwarded_host: None };
        }
        let claims = Claims::of(headers);
        let forwarded_host = claims.host.filter(|host| Authority::parse(host).is_ok());
        // From the near end: the first address that is not a trusted proxy is the client; if all are, the farthest.
        let mut address = direct;
        for hop in claims.addresses.iter().rev() {
            address = *hop;
            if !is_trusted(address) {
                break;
            }
        }
        Self { address, is_https: claims.is_https.unwrap_or(peer.is_tls), forwarded_host }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn client(peer: &str, is_tls: bool, fields: &[(&'static str, &str)], trusted: &[&str]) -> Client {
        let address = SocketAddr::new(peer.parse().unwrap(), 1);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        Client::of(&Peer { address, is_tls, tls_version: None }, &headers, &trusted)
    }

    #[test]
    fn nobody_is_believed_by_default() {
        let fields = [("x-forwarded-for", "192.0.2.9"), ("x-forwarded-proto", "https")];
        let read = client("198.51.100.1", false, &fields, &[]);
        assert_eq!((read.address, read.is_https), ("198.51.100.1".parse().unwrap(), false));
    }

    #[test]
    fn the_nearest_address_that_is_no_proxy_is_the_client() {
        let fields =
            [("x-forwarded-for", "203.0.113.66, 192.0.2.9, 10.0.0.2"), ("x-forwarded-proto", "https")];
        let read = client("10.0.0.1", false, &fields, &["10.0.0.0/8"]);
        assert_eq!((read.address, read.is_https), ("192.0.2.9".parse().unwrap(), true));
    }

    #[test]
    fn a_trusted_proxy_that_says_nothing_is_the_client() {
        let read = client("10.0.0.1", true, &[], &["10.0.0.0/8"]);
        assert_eq!((read.address, read.is_https), ("10.0.0.1".parse().unwrap(), true));
    }
}
