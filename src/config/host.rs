//! Names of hosts: what clients ask for, and where upstreams are.

use std::net::Ipv6Addr;

use crate::config::problem::{Fault, quote};
use crate::config::value::Written;

/// Which hosts a route serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// This host, in lower case, without a port.
    Exact(String),
    /// Every host below this one: `example.com` of `*.example.com`.
    Wildcard(String),
}

impl HostPattern {
    /// Whether some host matches both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let is_below =
            |name: &str, above: &str| name.strip_suffix(above).is_some_and(|sub| sub.ends_with('.'));
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Exact(name), Self::Wildcard(above)) | (Self::Wildcard(above), Self::Exact(name)) => {
                is_below(name, above)
            }
            (Self::Wildcard(a), Self::Wildcard(b)) => a == b || is_below(a, b) || is_below(b, a),
        }
    }
}

impl Written for HostPattern {
    const EXPECTED: &'static str = "a host such as \"api.example.com\" or \"*.example.com\"";

    fn from_text(text: &str) -> Result<Self, Fault> {
        let name = text.strip_prefix("*.");
        let host = host_name(name.unwrap_or(text)).map_err(|fault| fault.help(Self::help(text)))?;
        Ok(if name.is_some() { Self::Wildcard(host) } else { Self::Exact(host) })
    }
}

impl HostPattern {
    fn help(text: &str) -> String {
        if text == "*" {
            "for every host, leave the key out".to_owned()
        } else if text.contains("://") {
            "write the name alone, without a scheme".to_owned()
        } else if text.contains('/') {
            "write the name alone; `path` is a key of its own".to_owned()
        } else if text.contains(':') {
            "write the name alone, without a port".to_owned()
        } else if !text.is_ascii() {
            "write names with other letters as browsers send them (punycode, \"xn--…\")".to_owned()
        } else {
            format!("expected {}", Self::EXPECTED)
        }
    }
}

/// A host name in lower case, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn host_name(text: &str) -> Result<String, Fault> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address = address.parse::<Ipv6Addr>().map_err(|_| not_a_host(text))?;
        return Ok(format!("[{address}]"));
    }
    let is_name = text.len() <= 253 && text.split('.').all(is_label);
    if is_name { Ok(text.to_ascii_lowercase()) } else { Err(not_a_host(text)) }
}

// RFC 1123 §2.1; the underscore is not of it, but names in private networks have it.
fn is_label(label: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=63).contains(&label.len())
        && label.bytes().all(is_plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn not_a_host(text: &str) -> Fault {
    Fault::new(format!("{} is not the name of a host", quote(text)))
}

/// Splits `host:port`; the port is `None` if there is none.
pub(super) fn host_and_port(text: &str) -> Result<(String, Option<u16>), Fault> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.map(port_number).transpose()?;
    Ok((host_name(host)?, port))
}

fn port_number(text: &str) -> Result<u16, Fault> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse::<u16>().ok().filter(|&port| port != 0 && is_digits);
    port.ok_or_else(|| Fault::new(format!("{} is not a port", quote(text))).help("ports are 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_in_lower_case() {
        assert_eq!(
            HostPattern::from_text("API.Example.com").unwrap(),
            HostPattern::Exact("api.example.com".into())
        );
        assert_eq!(
            HostPattern::from_text("*.example.com").unwrap(),
            HostPattern::Wildcard("example.com".into())
        );
        assert_eq!(HostPattern::from_text("[::0:1]").unwrap(), HostPattern::Exact("[::1]".into()));
        for text in [
            "", "*", "*.", "a..b", ".a", "a.", "a:80", "http://a", "a/b", "-a", "ä.de", "a b", "[::1",
            "*.*.a",
        ] {
            assert!(HostPattern::from_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_overlap_where_a_host_matches_both() {
        let host = |text| HostPattern::from_text(text).unwrap();
        assert!(host("a.example.com").overlaps(&host("*.example.com")));
        assert!(host("*.b.example.com").overlaps(&host("*.example.com")));
        assert!(!host("example.com").overlaps(&host("*.example.com")));
        assert!(!host("badexample.com").overlaps(&host("*.example.com")));
        assert!(HostPattern::Any.overlaps(&host("a")));
    }
}
