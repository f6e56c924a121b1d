//! What proxies say of the client: `X-Forwarded-For`, `-Proto`, `-Host`, and `Forwarded` (RFC 7239).
//!
//! Reading is pure; who may be believed is decided by the caller. If both kinds are present, the older one is
//! used: it is the one that proxies in the field rewrite, while `Forwarded` is often passed through from clients.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Hops that are read at most, from the nearest; more are ignored.
const HOPS_MAX: usize = 32;

/// What the fields of one request say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Addresses from the client to the nearest proxy; what is no address ends the list on the far side.
    pub addresses: Vec<IpAddr>,
    /// Whether the nearest proxy was asked by HTTPS.
    pub is_https: Option<bool>,
    /// The host that the client asked the first proxy for.
    pub host: Option<Vec<u8>>,
}

impl Claims {
    /// Reads the fields.
    pub fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(X_FORWARDED_PROTO) {
            return Self {
                addresses: nearest_addresses(members(headers, &X_FORWARDED_FOR)),
                is_https: members(headers, &X_FORWARDED_PROTO).last().map(|proto| is_https(&proto)),
                host: members(headers, &X_FORWARDED_HOST).last(),
            };
        }
        let elements: Vec<_> = members(headers, &header::FORWARDED).collect();
        Self {
            addresses: nearest_addresses(elements.iter().map(|e| parameter(e, b"for").unwrap_or_default())),
            is_https: elements.last().and_then(|e| parameter(e, b"proto")).map(|proto| is_https(&proto)),
            host: elements.last().and_then(|e| parameter(e, b"host")),
        }
    }
}

/// List members of all lines of a field, quoted strings kept whole.
fn members(headers: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = Vec<u8>> {
    headers.get_all(name).iter().flat_map(|value| split_outside_quotes(value.as_bytes(), b','))
}

fn is_https(proto: &[u8]) -> bool {
    proto.eq_ignore_ascii_case(b"https")
}

/// The readable tail of the list: an unreadable member and all before it are dropped.
fn nearest_addresses(members: impl Iterator<Item = Vec<u8>>) -> Vec<IpAddr> {
    let mut near: Vec<_> =
        members.collect::<Vec<_>>().iter().rev().take(HOPS_MAX).map_while(|m| address(m)).collect();
    near.reverse();
    near
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address =
        bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip())).ok()?;
    Some(address.to_canonical())
}

/// Splits at `separator`, but not inside quoted strings (RFC 9110 section 5.6.4); members are trimmed.
fn split_outside_quotes(value: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut is_quoted = false;
    let mut is_escaped = false;
    for byte in value {
        let is_end = *byte == separator && !is_quoted;
        if *byte == b'"' && !is_escaped {
            is_quoted = !is_quoted;
        }
        is_escaped = is_quoted && *byte == b'\\' && !is_escaped;
        match parts.last_mut() {
            Some(part) if !is_end => part.push(*byte),
            _ => parts.push(Vec::new()),
        }
    }
    parts.iter().map(|part| part.trim_ascii().to_vec()).filter(|part| !part.is_empty()).collect()
}

/// The value of a parameter of one `Forwarded` element, unquoted.
fn parameter(element: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    split_outside_quotes(element, b';').into_iter().find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = pair.split_at_checked(equals)?;
        let value = value.strip_prefix(b"=")?.trim_ascii();
        key.trim_ascii().eq_ignore_ascii_case(name).then(|| unquote(value))
    })
}

fn unquote(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return value.to_vec();
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut is_escaped = false;
    for byte in inner {
        is_escaped = *byte == b'\\' && !is_escaped;
        if !is_escaped {
            out.push(*byte);
        }
    }
    out
}

/// One `Forwarded` element (RFC 7239 section 4) that tells the upstream of the client.
pub fn write_element(client: IpAddr, is_https: bool, host: &[u8], out: &mut BytesMut) {
    // RFC 7239 section 6: IPv6 addresses are quoted and in brackets.
    let (before, after): (&[u8], &[u8]) =
        if client.is_ipv4() { (b"for=", b"") } else { (b"for=\"[", b"]\"") };
    out.extend_from_slice(before);
    write_address(client, out);
    out.extend_from_slice(after);
    out.extend_from_slice(if is_https { b";proto=https;host=\"" } else { b";proto=http;host=\"" });
    out.extend_from_slice(host);
    out.extend_from_slice(b"\"");
}

/// An address as text. IPv4 by hand: `fmt` took more than half of the time that the whole head of a request takes.
pub fn write_address(address: IpAddr, out: &mut BytesMut) {
    let address = match address {
        IpAddr::V4(address) => address,
        // Writing to memory cannot fail.
        IpAddr::V6(address) => return write!(out, "{address}").unwrap_or_default(),
    };
    let mut text: SmallVec<[u8; 16]> = SmallVec::new();
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push(b'.');
        }
        if octet >= 100 {
            text.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            text.push(b'0' + octet / 10 % 10);
        }
        text.push(b'0' + octet % 10);
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn claims(fields: &[(&'static str, &str)]) -> Claims {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        Claims::of(&headers)
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn x_forwarded_for_is_read_over_all_lines() {
        let read =
            claims(&[("x-forwarded-for", "192.0.2.1, 2001:db8::1"), ("x-forwarded-for", "198.51.100.1:99")]);
        assert_eq!(read.addresses, ips(&["192.0.2.1", "2001:db8::1", "198.51.100.1"]));
    }

    #[test]
    fn an_unreadable_hop_ends_the_list() {
        assert_eq!(
            claims(&[("x-forwarded-for", "192.0.2.1, unknown, 192.0.2.3")]).addresses,
            ips(&["192.0.2.3"])
        );
        assert!(claims(&[("x-forwarded-for", "192.0.2.1, evil")]).addresses.is_empty());
    }

    #[test]
    fn the_nearest_proto_and_host_count() {
        let read = claims(&[("x-forwarded-proto", "http, HTTPS"), ("x-forwarded-host", "a, b")]);
        assert_eq!((read.is_https, read.host), (Some(true), Some(b"b".to_vec())));
        assert_eq!(claims(&[("x-forwarded-proto", "gopher")]).is_https, Some(false));
    }

    #[test]
    fn forwarded_is_read_where_the_older_fields_are_absent() {
        let value = "for=192.0.2.1;proto=http, For=\"[2001:db8::1]:99\";Proto=https;host=\"a,b;c\"";
        let read = claims(&[("forwarded", value)]);
        assert_eq!(read.addresses, ips(&["192.0.2.1", "2001:db8::1"]));
        assert_eq!((read.is_https, read.host), (Some(true), Some(b"a,b;c".to_vec())));
        let both = claims(&[("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "192.0.2.9")]);
        assert_eq!(both.addresses, ips(&["192.0.2.9"]));
    }

    #[test]
    fn our_element_can_be_read_back() {
        let host = b"example.com:8443";
        for address in ips(&["192.0.2.1", "2001:db8::1"]) {
            let mut element = BytesMut::new();
            write_element(address, true, host, &mut element);
            let mut headers = HeaderMap::new();
            headers.insert(header::FORWARDED, HeaderValue::from_bytes(&element).unwrap());
            let read = Claims::of(&headers);
            assert_eq!(read.addresses, [address]);
            assert_eq!((read.is_https, read.host), (Some(true), Some(b"example.com:8443".to_vec())));
        }
    }

    proptest! {
        #[test]
        fn addresses_are_written_as_everywhere(address: IpAddr) {
            let mut text = BytesMut::new();
            write_address(address, &mut text);
            prop_assert_eq!(text, address.to_string());
        }

        #[test]
        fn any_value_is_read_without_panic(value in "[ -~]{0,80}", older: bool) {
            let name = if older { "x-forwarded-for" } else { "forwarded" };
            drop(claims(&[(name, &value)]));
        }
    }
}
