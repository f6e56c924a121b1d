//! What of a head is credentials, whether or not anybody could use them. Pure: what comes here is hostile.

use http::{HeaderMap, HeaderValue, header};

/// Names of the cookies that are credentials.
#[derive(Debug, Clone)]
pub struct SessionCookies(Vec<String>);

impl SessionCookies {
    /// These, besides Django's.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().collect())
    }

    /// Whether a cookie of this name is a credential.
    fn is_session_cookie(&self, name: &[u8]) -> bool {
        // RFC 6265bis section 4.1.3: the prefixes are part of the name, and what follows is the same cookie.
        let bare = [&b"__Host-"[..], b"__Secure-"].iter().find_map(|prefix| name.strip_prefix(*prefix));
        [Some(name), bare].into_iter().flatten().any(|name| {
            name == DJANGO_SESSION || self.0.iter().any(|configured| configured.as_bytes() == name)
        })
    }
}

/// Django 5.2, `SESSION_COOKIE_NAME`. A credential whether or not a route knows it: it may be the upstream's.
const DJANGO_SESSION: &[u8] = b"sessionid";

/// Whether a request carries credentials: `Authorization` of whatever scheme, well-formed or not, or a session cookie.
pub(in crate::require_https) fn has_credentials(headers: &HeaderMap, cookies: &SessionCookies) -> bool {
    headers.contains_key(header::AUTHORIZATION)
        || headers.contains_key(header::PROXY_AUTHORIZATION)
        || headers.get_all(header::COOKIE).iter().any(|value| has_session_cookie(value, cookies))
}

/// RFC 6265 section 4.2.1, and as laxly as backends read it: blanks around names do not count.
fn has_session_cookie(value: &HeaderValue, cookies: &SessionCookies) -> bool {
    let pairs = value.as_bytes().split(|byte| matches!(byte, b';' | b','));
    let mut names = pairs.filter_map(|pair| pair.split(|byte| *byte == b'=').next());
    names.any(|name| cookies.is_session_cookie(name.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use proptest::prelude::*;

    fn has(name: &'static str, value: &[u8]) -> bool {
        let mut headers = HeaderMap::new();
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        has_credentials(&headers, &SessionCookies::new(["sid".to_owned()]))
    }

    #[test]
    fn credentials_are_seen_however_they_come() {
        for (name, value) in [
            ("authorization", &b"Token abc"[..]),
            ("authorization", b""),
            ("authorization", b"\xff"),
            ("proxy-authorization", b"Basic eDp5"),
            ("cookie", b"sessionid=abc"),
            ("cookie", b"a=b; sessionid=abc"),
            ("cookie", b"a=b;sessionid =abc"),
            ("cookie", b"a=b, sessionid=abc"),
            ("cookie", b"sessionid"),
            ("cookie", b"__Host-sessionid=abc"),
            ("cookie", b"__Secure-sid=abc"),
            ("cookie", b"sid=abc"),
        ] {
            assert!(has(name, value), "{name}: {}", String::from_utf8_lossy(value));
        }
        for (name, value) in [
            ("cookie", &b"csrftoken=abc; theme=sessionid"[..]),
            ("cookie", b"sessionid2=x; xsessionid=y"),
            ("cookie", b""),
            ("x-authorization", b"Token abc"),
        ] {
            assert!(!has(name, value), "{name}: {}", String::from_utf8_lossy(value));
        }
    }

    proptest! {
        #[test]
        fn any_cookie_is_read_without_panic(
            before in proptest::collection::vec(0x20_u8..0x7f, 0..20),
            after in proptest::collection::vec(0x80_u8.., 0..20),
        ) {
            let value = [before, b"; sessionid=".to_vec(), after].concat();
            prop_assert!(has("cookie", &value));
        }
    }
}
