//! Credentials of the scheme Basic (RFC 7617) as Django REST framework 3.18 reads them
//! (`BasicAuthentication.authenticate`), with its texts.
//!
//! The length is that of a header field, which `accept` limits. A NUL in the username is kept: what a store makes of it
//! is the store's affair.

use crate::header::authorization::Words;
use crate::header::base64;
use std::fmt;
use zeroize::Zeroizing;

/// The scheme alone.
pub const NO_CREDENTIALS: &str = "Invalid basic header. No credentials provided.";
/// More than one word behind it.
pub const SPACES: &str = "Invalid basic header. Credentials string should not contain spaces.";
/// Not base64, or without `:`.
pub const NOT_BASE64: &str = "Invalid basic header. Credentials not correctly base64 encoded.";

/// What an `Authorization` value is to this scheme.
#[derive(Debug)]
pub enum Basic {
    /// Of another scheme, or of none.
    NotMine,
    /// With what the client is told.
    Malformed(&'static str),
    /// To be verified.
    Credentials(Credentials),
}

/// A username and a password, neither trimmed nor normalised. `Debug` shows neither: people mistake one field for the
/// other.
pub struct Credentials {
    /// May be empty, and may hold any character but `:`.
    pub username: String,
    /// May be empty; UTF-8. Wiped when dropped.
    pub password: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Basic {
    /// Reads the words of a value.
    pub fn of(words: &Words<'_>) -> Self {
        if !words.is_scheme("basic") {
            return Self::NotMine;
        }
        match words {
            Words::None => Self::NotMine,
            Words::One(_) => Self::Malformed(NO_CREDENTIALS),
            Words::More(_) => Self::Malformed(SPACES),
            Words::Two(_, word) => {
                Credentials::decode(word).map_or(Self::Malformed(NOT_BASE64), Self::Credentials)
            }
        }
    }
}

impl Credentials {
    fn decode(word: &[u8]) -> Option<Self> {
        let bytes = base64::decode(word)?;
        // RFC 7617 section 2: the user-id holds no colon, so the first one ends it.
        let colon = bytes.iter().position(|byte| *byte == b':')?;
        let (username, password) = bytes.split_at_checked(colon)?;
        let password = password.get(1..)?;
        // DRF: UTF-8, or else the whole is ISO 8859-1.
        let is_utf8 = std::str::from_utf8(&bytes).is_ok();
        let text = if is_utf8 { of_utf8 } else { of_latin1 };
        let username = String::from_utf8(std::mem::take(&mut *text(username))).ok()?;
        Some(Self { username, password: text(password) })
    }
}

fn of_utf8(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(bytes.to_vec())
}

fn of_latin1(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    // Room for all of it, so that it is never moved and no copy is left behind.
    let mut text = Zeroizing::new(Vec::with_capacity(bytes.len().saturating_mul(2)));
    for byte in bytes {
        let mut buffer = [0; 2];
        text.extend_from_slice(char::from(*byte).encode_utf8(&mut buffer).as_bytes());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// Made by `tests/vectors/make.py` with DRF itself; the value's bytes are characters of ISO 8859-1.
    const VECTORS: &str = include_str!("../../tests/vectors/basic.jsonl");

    fn told(value: &[u8]) -> Value {
        match Basic::of(&Words::of(value)) {
            Basic::NotMine => Value::Null,
            Basic::Malformed(text) => json!(text),
            Basic::Credentials(Credentials { username, password }) => {
                json!([username, std::str::from_utf8(&password).unwrap()])
            }
        }
    }

    #[test]
    fn values_are_read_as_django_rest_framework_reads_them() {
        for line in VECTORS.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let value: Vec<u8> =
                case["value"].as_str().unwrap().chars().map(|c| u8::try_from(c).unwrap()).collect();
            assert_eq!(told(&value), case["told"], "{line}");
        }
        assert!(VECTORS.lines().count() > 300);
    }

    #[test]
    fn debug_shows_nothing() {
        let read = Basic::of(&Words::Two(b"Basic", b"aHVudGVyMjpodW50ZXIy"));
        assert_eq!(format!("{read:?}"), "Credentials(Credentials(…))");
    }

    fn encode(bytes: &[u8]) -> Vec<u8> {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = Vec::new();
        for group in bytes.chunks(3) {
            let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
                << (8 * (3 - group.len()));
            for digit in 0..4 {
                let index = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap();
                text.push(if digit <= group.len() { ALPHABET[index] } else { b'=' });
            }
        }
        text
    }

    proptest! {
        #[test]
        fn any_word_is_read(word: Vec<u8>) {
            prop_assert!(!matches!(Basic::of(&Words::Two(b"bAsIc", &word)), Basic::NotMine));
        }

        #[test]
        fn what_is_encoded_is_read_back(username in "[^:]*", password: String) {
            let word = encode(format!("{username}:{password}").as_bytes());
            prop_assert_eq!(told(&[b"Basic ", &word[..]].concat()), json!([username, password]));
        }

        #[test]
        fn what_is_not_utf8_is_latin1(username in proptest::collection::vec(any::<u8>(), 0..20), password: Vec<u8>) {
            let username: Vec<u8> = username.into_iter().filter(|byte| *byte != b':').collect();
            let bytes = [&username[..], b":\xff", &password[..]].concat();
            let latin1 = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
            let expected = json!([latin1(&username), format!("\u{ff}{}", latin1(&password))]);
            prop_assert_eq!(told(&[b"Basic ", &encode(&bytes)[..]].concat()), expected);
        }
    }
}
