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
    !head.headers.contains_key(header::AUTHORIZATION) && accepts(head, b"text/html")
}

/// Whether `Accept` (RFC 9110 section 12.5.1) names this media type itself, and not as one that is not wanted.
pub fn accepts(head: &Head, media_type: &[u8]) -> bool {
    let fields = head.headers.get_all(header::ACCEPT).iter();
    fields
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|range| names(range, media_type))
}

fn names(range: &[u8], media_type: &[u8]) -> bool {
    let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type));
    is_named && !parts.any(is_no_weight)
}

/// `q=0`, `q=0.000`: not acceptable (RFC 9110 section 12.4.2).
fn is_no_weight(parameter: &[u8]) -> bool {
    let weight = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="));
    weight.is_some_and(|weight| {
        weight.starts_with(b"0") && weight.iter().all(|byte| matches!(byte, b'0' | b'.'))
    })
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
    next.len() <= NEXT_BYTES_MAX
        && next.starts_with('/')
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
    fn a_media_type_is_named_whatever_its_weight_but_none() {
        for range in ["text/html", " TEXT/HTML ;q=0.8", "text/html;level=1;q=0.001", "text/html;q=1"] {
            assert!(names(range.as_bytes(), b"text/html"), "{range}");
        }
        for range in
            ["", "*/*", "text/*", "text/htmlx", "application/json", "text/html;q=0", "text/html; q=0.000"]
        {
            assert!(!names(range.as_bytes(), b"text/html"), "{range}");
        }
    }

    #[test]
    fn what_is_led_back_to_is_encoded() {
        let mut out = String::new();
        encode("/a b?c=d&e=é", &mut out);
        assert_eq!(out, "/a%20b%3Fc%3Dd%26e%3D%C3%A9");
    }

    /// What browsers make of a `Location` (URL standard, section 4.4): they drop tabs and line ends, and blanks and
    /// controls around, and take a backslash for a slash.
    fn as_browsers_read(location: &str) -> String {
        let trimmed = location.trim_matches(|c: char| c <= ' ');
        trimmed
            .chars()
            .filter(|c| !matches!(c, '\t' | '\n' | '\r'))
            .map(|c| if c == '\\' { '/' } else { c })
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_one_value(text: String) {
            let mut out = String::new();
            encode(&text, &mut out);
            prop_assert!(!out.contains(['&', '=', '#', ' ', '?', '+']));
        }

        #[test]
        fn a_local_path_stays_on_its_host(next in "/[/\\\\\t\r\n .:@%?#a-z\u{0}\u{85}\u{a0}\u{2028}é]{0,5}") {
            if !is_local_path(&next) {
                return Ok(());
            }
            let sent = location(&next);
            let read = as_browsers_read(sent.to_str().unwrap());
            prop_assert!(read.starts_with('/') && !read.starts_with("//"), "{next:?} {read:?}");
            // Nothing is lost of it that a browser would have to guess.
            prop_assert_eq!(read.as_bytes(), sent.as_bytes());
            let uri: http::Uri = format!("https://gateway.test{}", read.split('#').next().unwrap()).parse().unwrap();
            prop_assert_eq!(uri.host(), Some("gateway.test"));
        }

        #[test]
        fn any_location_is_a_field(path: String) {
            prop_assert!(location(&path).as_bytes().iter().all(u8::is_ascii_graphic));
        }
    }
}
