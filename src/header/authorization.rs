//! `Authorization` as Django REST framework reads it (contract: DRF 3.18, `get_authorization_header`,
//! `TokenAuthentication.authenticate`): raw bytes, split on runs of ASCII white space.
//!
//! This is wider than RFC 9110 section 11.4 on purpose: a client that DRF understands is understood.

use crate::header::joined::joined;
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
        let (scheme, rest) = next_word(value);
        let (word, rest) = next_word(rest);
        let (more, _) = next_word(rest);
        match (scheme, word, more) {
            ([], ..) => Self::None,
            (_, [], _) => Self::One(scheme),
            (_, _, []) => Self::Two(scheme, word),
            _ => Self::More(scheme),
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

/// The first word, empty if there is none, and what is behind it.
fn next_word(text: &[u8]) -> (&[u8], &[u8]) {
    let start = text.iter().position(|byte| !is_space(*byte)).unwrap_or(text.len());
    let (_, text) = text.split_at(start);
    text.split_at(word_length(text))
}

/// Bytes before the first white space.
fn word_length(text: &[u8]) -> usize {
    // Eight at a time and without a way out between them, so that the compiler compares them at once: byte by byte,
    // a token costs as much as its digest.
    let (blocks, _) = text.as_chunks::<8>();
    let has_space = |block: &&[u8; 8]| block.iter().fold(false, |any, byte| any | is_space(*byte));
    let passed = 8 * blocks.iter().take_while(|block| !has_space(block)).count();
    let (_, rest) = text.split_at(passed);
    passed + rest.iter().position(|byte| is_space(*byte)).unwrap_or(rest.len())
}

/// White space of Python's `bytes.split()`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

/// The value of `Authorization`; two are one malformed one.
pub fn value(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    joined(headers, &header::AUTHORIZATION)
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
        assert_eq!(Words::of(b"Token 12345678"), Words::Two(b"Token", b"12345678"));
        assert_eq!(Words::of(b"Token 123456789\x0b"), Words::Two(b"Token", b"123456789"));
        assert_eq!(Words::of(b"Token 1234567\r9abcdef"), Words::More(b"Token"));
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
        fn any_bytes_are_split_as_python_splits(bytes in proptest::collection::vec(
            prop_oneof![Just(b' '), Just(b'\x0c'), Just(b'\x0e'), any::<u8>()], 0..100))
        {
            let mut words = bytes.split(|byte| b" \t\n\r\x0b\x0c".contains(byte)).filter(|word| !word.is_empty());
            let expected = match (words.next(), words.next(), words.next()) {
                (None, ..) => Words::None,
                (Some(scheme), None, _) => Words::One(scheme),
                (Some(scheme), Some(word), None) => Words::Two(scheme, word),
                (Some(scheme), ..) => Words::More(scheme),
            };
            prop_assert_eq!(Words::of(&bytes), expected);
        }

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
