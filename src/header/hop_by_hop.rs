//! Fields that end at this hop (RFC 9110 section 7.6.1).

use http::{HeaderMap, HeaderName, header};

/// Whether the field concerns one connection only, and so is never passed on.
///
/// Besides those of RFC 9110 section 7.6.1 these are `Keep-Alive` and `Proxy-Connection` (RFC 9112 section 9.6,
/// appendix C.2.2), `HTTP2-Settings` (RFC 7540 section 3.2.1) and the fields of proxy authentication (RFC 9110
/// section 11.7), since this gateway is not the proxy they are meant for.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    // By length first: most fields are none of these.
    match name.as_str().len() {
        2 => *name == header::TE,
        7 => *name == header::TRAILER || *name == header::UPGRADE,
        10 => *name == header::CONNECTION || *name == "keep-alive",
        14 => *name == "http2-settings",
        16 => *name == "proxy-connection",
        17 => *name == header::TRANSFER_ENCODING,
        18 => *name == header::PROXY_AUTHENTICATE,
        19 => *name == header::PROXY_AUTHORIZATION,
        _ => false,
    }
}

/// The options of a `Connection` field, trimmed, empty ones left out.
pub fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(header::CONNECTION).iter().flat_map(|value| list(value.as_bytes()))
}

/// Members of a comma-separated list (RFC 9110 section 5.6.1), trimmed, empty ones left out.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// Whether `Connection` nominates this field for removal.
pub fn is_nominated(name: &HeaderName, headers: &HeaderMap) -> bool {
    connection_options(headers).any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn every_hop_by_hop_field_is_known() {
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "http2-settings",
            "proxy-authorization",
            "proxy-authenticate",
        ] {
            assert!(is_hop_by_hop(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["host", "content-length", "cookie", "upgrade-insecure-requests"] {
            assert!(!is_hop_by_hop(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn connection_nominates_in_any_case_and_line() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("close , X-Hop,"));
        headers.append(header::CONNECTION, HeaderValue::from_static("other"));
        assert!(is_nominated(&HeaderName::from_static("x-hop"), &headers));
        assert!(is_nominated(&HeaderName::from_static("other"), &headers));
        assert!(!is_nominated(&HeaderName::from_static("x"), &headers));
    }
}
