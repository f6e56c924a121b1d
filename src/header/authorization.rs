//! `Authorization` as Django REST framework reads it (contract: DRF 3.18, `get_authorization_header`,
//! `TokenAuthentication.authenticate`): raw bytes, split on runs of ASCII white space.
//!
//! This is wider than RFC 9110 section 11.4 on purpose: a client that DRF understands is understood.

use http::{HeaderMap, header};
use std::borrow::Cow;

/// The words of an `Authorization` value, as far as any scheme needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words<'a> {
    /// Nothing but white space.
    None,
    /// The scheme alone.
    One(&'a [u8]),
    /// The scheme and one word.
    Two(&'a [u8], &'a [u8]),
    /// The scheme and more than one word.
    More(&'a [u8]),
}

impl<'a> Words<'a> {
    /// Splits a value.
    pub fn of(value: &'a [u8]) -> Self {
        let mut words = value.split(|byte| is_space(*byte)).filter(|word| !word.is_empty());
        match (words.next(), words.next(), words.next()) {
            (Some(scheme), None, _) => Self::One(scheme),
            (Some(scheme), Some(word), None) => Self::Two(scheme, word),
            (Some(scheme), Some(_), Some(_)) => Self::More(scheme),
            (None, ..) => Self::None,
        }
    }

    /// Whether the first word is this scheme; RFC 9110 section 11.1: case-insensitive.
    pub fn is_scheme(&self, keyword: &str) -> bool {
        match self {
            Self::None => false,
            Self::One(scheme) | Self::Two(scheme, _) | Self::More(scheme) => {
                scheme.eq_ignore_ascii_case(keyword.as_bytes())
            }
        }
    }
}

/// White space of Python's `bytes.split()`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// The value of `Authorization`; several are joined with `,` as a WSGI server does, so that two credentials are
/// one malformed one and never a choice.
pub fn value(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let first = values.next()?.as_bytes();
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
    let mut joined = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(joined))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    #[test]
    fn words_are_split_on_runs_of_white_space() {
        assert_eq!(Words::of(b""), Words::None);
        assert_eq!(Words::of(b" \t "), Words::None);
        assert_eq!(Words::of(b" Token "), Words::One(b"Token"));
        assert_eq!(Words::of(b"Token \t k "), Words::Two(b"Token", b"k"));
        assert_eq!(Words::of(b"Token a b"), Words::More(b"Token"));
        assert!(Words::of(b"tOKEN k").is_scheme("Token"));
        assert!(!Words::of(b"Token: k").is_scheme("Token"));
    }

    #[test]
    fn repeated_fields_become_one_malformed_value() {
        let mut headers = HeaderMap::new();
        assert_eq!(value(&headers), None);
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Token A"));
        headers.append(header::AUTHORIZATION, HeaderValue::from_static("Token B"));
        assert_eq!(value(&headers).as_deref(), Some(&b"Token A,Token B"[..]));
        assert_eq!(Words::of(b"Token A,Token B"), Words::More(b"Token"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_without_loss(bytes: Vec<u8>) {
            let spaces = |b: &u8| is_space(*b);
            match Words::of(&bytes) {
                Words::None => prop_assert!(bytes.iter().all(spaces)),
                Words::One(a) => prop_assert_eq!(bytes.iter().filter(|b| !spaces(b)).count(), a.len()),
                Words::Two(a, b) => prop_assert_eq!(bytes.iter().filter(|b| !spaces(b)).count(), a.len() + b.len()),
                Words::More(a) => prop_assert!(!a.is_empty()),
            }
        }
    }
}
