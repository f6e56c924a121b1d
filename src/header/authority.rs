//! Host and port of a request (RFC 9110 section 4.2, RFC 3986 section 3.2): the name that routes are matched by
//! and that the upstream is told.

use http::HeaderValue;

/// A valid authority without user information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    value: HeaderValue,
    host: Box<str>,
}

/// Why an authority is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a host with an optional port")]
pub struct BadAuthority;

impl Authority {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    ///
    /// # Errors
    /// For user information, an empty host, other characters than those of names and addresses, or a bad port.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadAuthority> {
        let text = std::str::from_utf8(bytes).map_err(|_| BadAuthority)?;
        let (host, port) = split_port(text)?;
        let is_address = host.starts_with('[');
        let is_valid = if is_address { is_ipv6_literal(host) } else { is_name(host) };
        if !is_valid || !port.is_none_or(is_port) {
            return Err(BadAuthority);
        }
        let value = HeaderValue::from_bytes(bytes).map_err(|_| BadAuthority)?;
        // A trailing dot names the same host (RFC 1034 section 3.1).
        let host = host.strip_suffix('.').filter(|rest| !rest.is_empty()).unwrap_or(host);
        Ok(Self { value, host: host.to_ascii_lowercase().into() })
    }

    /// Host in lower case, without port and trailing dot; what routes are matched by.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// As the client sent it.
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }
}

fn split_port(text: &str) -> Result<(&str, Option<&str>), BadAuthority> {
    if text.starts_with('[') {
        let end = text.find(']').ok_or(BadAuthority)?;
        let (host, rest) = text.split_at_checked(end + 1).ok_or(BadAuthority)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(BadAuthority),
        };
    }
    Ok(text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))))
}

fn is_ipv6_literal(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Letters, digits, `-`, `.`, `_`: DNS names as they occur (RFC 1123 section 2.1), 253 bytes at most.
fn is_name(host: &str) -> bool {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let has_empty_label = host.starts_with('.') || host.as_bytes().windows(2).any(|pair| pair == b"..");
    (1..=253).contains(&host.len()) && host.bytes().all(is_name_byte) && !has_empty_label
}

/// RFC 3986 section 3.2.3: may be empty.
fn is_port(port: &str) -> bool {
    port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_are_read_in_lower_case_without_port() {
        for (given, host) in [
            ("Example.COM", "example.com"),
            ("example.com:8443", "example.com"),
            ("example.com.", "example.com"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:8443", "[::1]"),
            ("[::1]", "[::1]"),
            ("a_b:", "a_b"),
        ] {
            assert_eq!(Authority::parse(given.as_bytes()).unwrap().host(), host);
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for given in [
            "", ":80", "a b", "a@b", "u:p@b", "a:b", "a:65536", "a:+1", "[::1", "[x]", "[::1]x", "a/b",
            "a,b", "a\0", "é", "a:1:2", "..", ".a", "a..b", ".",
        ] {
            assert!(Authority::parse(given.as_bytes()).is_err(), "{given}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            if let Ok(authority) = Authority::parse(&bytes) {
                prop_assert!(!authority.host().is_empty());
            }
        }
    }
}
