//! A browser that goes to a page where one has to be logged in is led to the login page; everybody else is told why.

use crate::accept::head::Head;
use http::{HeaderValue, Method, header};
use std::fmt::Write as _;

/// Longest path that is led back to, in bytes; with a longer one the page after the login is the usual one.
const NEXT_BYTES_MAX: usize = 2048;

/// Whether a person looks at the answer: a browser's navigation (Fetch Metadata, `Sec-Fetch-Mode`); of browsers that
/// do not say so, whoever asks for HTML without credentials of their own.
pub fn is_navigation(head: &Head) -> bool {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return false;
    }
    if let Some(mode) = head.headers.get("sec-fetch-mode") {
        return mode.as_bytes() == b"navigate";
    }
    let wants_html = |value: &HeaderValue| {
        let types = value.as_bytes().split(|byte| *byte == b',');
        types
            .filter_map(|one| one.split(|byte| *byte == b';').next())
            .any(|one| one.trim_ascii().eq_ignore_ascii_case(b"text/html"))
    };
    !head.headers.contains_key(header::AUTHORIZATION)
        && head.headers.get_all(header::ACCEPT).iter().any(wants_html)
}

/// Where the login page is, and where it is to lead back to. `None`: the login page itself was asked for.
pub fn login_location(login_page: &str, head: &Head) -> Option<HeaderValue> {
    if head.target.path().trim_end_matches('/') == login_page.trim_end_matches('/') {
        return None;
    }
    let mut location = login_page.to_owned();
    let next = head.target.original();
    if next.len() <= NEXT_BYTES_MAX && is_local_path(next) {
        location.push_str("?next=");
        encode(next, &mut location);
    }
    HeaderValue::from_str(&location).ok()
}

/// Whether this leads to a page of this very origin, whatever reads it: a path, and no host in any reading.
///
/// Browsers take a backslash for a slash, and drop tabs and line ends before they read.
pub fn is_local_path(next: &str) -> bool {
    next.starts_with('/')
        && !next.starts_with("//")
        && !next.chars().any(|c| c == '\\' || c.is_control() || c == '\u{2028}' || c == '\u{2029}')
}

/// What a URI may have besides letters and digits: marks, delimiters, and `%`, since escapes stay (Django 5.2,
/// `iri_to_uri`).
const URI_MARKS: &[u8] = b"-_.~/#%[]=:;$&()+,!?*@'";

/// As a field's value: what no URI has is escaped (RFC 3986 section 2.1), as Django's `iri_to_uri`.
pub fn location(path: &str) -> HeaderValue {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || URI_MARKS.contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").unwrap_or_default();
        }
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("/"))
}

/// As a value of a query (RFC 3986 section 3.4), with slashes left in, as Django's `redirect_to_login`.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_paths_of_this_origin_are_local() {
        for good in ["/", "/a/b?c=d", "/a//b", "/a?next=//evil.example"] {
            assert!(is_local_path(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example",
            "javascript:alert(1)",
            "/a\nb",
            "/\t/evil.example",
            " /a",
            "/a\u{85}",
        ] {
            assert!(!is_local_path(bad), "{bad:?}");
        }
    }

    #[test]
    fn locations_are_uris() {
        // Django 5.2, `iri_to_uri`.
        for (path, expected) in [
            ("/a-b_c.d~/%C3%A9%2f#[1]=:;$&()+,!?*@'", "/a-b_c.d~/%C3%A9%2f#[1]=:;$&()+,!?*@'"),
            ("/a b\"<>", "/a%20b%22%3C%3E"),
            ("/a|b^c`{}\\", "/a%7Cb%5Ec%60%7B%7D%5C"),
            ("/é?ß", "/%C3%A9?%C3%9F"),
        ] {
            assert_eq!(location(path), expected);
        }
    }

    #[test]
    fn what_is_led_back_to_is_encoded() {
        let mut out = String::new();
        encode("/a b?c=d&e=é", &mut out);
        assert_eq!(out, "/a%20b%3Fc%3Dd%26e%3D%C3%A9");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_one_value(text: String) {
            let mut out = String::new();
            encode(&text, &mut out);
            prop_assert!(!out.contains(['&', '=', '#', ' ', '?', '+']));
        }
    }
}
