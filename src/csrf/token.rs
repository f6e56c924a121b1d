//! Secrets, masked and bare, and whether a token is of a secret.
//!
//! A secret is 32 letters and digits; a token is the secret itself, or a mask of 32 and the secret under it.

use crate::csrf::latin1;
use crate::csrf::reason::{Fault, Reason};
use crate::csrf::settings::Settings;
use http::Method;
use std::fmt;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Characters of a secret.
const LENGTH: usize = 32;

/// Letters and digits.
const LETTERS: u8 = 62;

/// Random bytes that [`CsrfSecret::from_random`] takes.
pub const RANDOM_BYTES: usize = 2 * LENGTH;

/// A client's secret: 32 letters and digits. `Debug` does not show it, and it is wiped when dropped.
#[derive(Clone)]
pub struct CsrfSecret(Zeroizing<[u8; LENGTH]>);

impl fmt::Debug for CsrfSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CsrfSecret(…)")
    }
}

/// Compares in constant time, so that a secret cannot be found letter by letter.
impl PartialEq for CsrfSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for CsrfSecret {}

impl CsrfSecret {
    /// Made of random bytes, each letter and digit as likely as the others; `None`: draw again (once in 10^50).
    pub fn from_random(bytes: &[u8; RANDOM_BYTES]) -> Option<Self> {
        // Bytes from 248 up would make some letters likelier.
        let mut letters = bytes.iter().filter(|byte| **byte < LETTERS * 4).map(|byte| letter(byte % LETTERS));
        let mut secret = Zeroizing::new([0; LENGTH]);
        for slot in secret.iter_mut() {
            *slot = letters.next()?;
        }
        Some(Self(secret))
    }

    /// A secret, or a token without its mask (`_check_token_format`, `_unmask_cipher_token`). `token` is UTF-8.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(token: &str) -> Result<Self, Fault> {
        let length = token.chars().count();
        if length != LENGTH && length != 2 * LENGTH {
            return Err(Fault::Length);
        }
        let mut indices = Zeroizing::new([0; 2 * LENGTH]);
        for (slot, byte) in indices.iter_mut().zip(token.bytes()) {
            *slot = index(byte).ok_or(Fault::Characters)?;
        }
        let (mask, cipher) = indices.split_at(LENGTH);
        let mut secret = Zeroizing::new([0; LENGTH]);
        for (slot, (mask, cipher)) in secret.iter_mut().zip(mask.iter().zip(cipher)) {
            *slot = letter(if length == LENGTH { *mask } else { (cipher + LETTERS - mask) % LETTERS });
        }
        Ok(Self(secret))
    }

    /// A token for pages, under a mask that is a fresh random secret (`_mask_cipher_secret`).
    pub fn mask(&self, mask: &Self) -> Zeroizing<String> {
        let mut token = Zeroizing::new(String::with_capacity(2 * LENGTH));
        token.push_str(mask.as_str());
        for (secret, mask) in self.0.iter().zip(mask.0.iter()) {
            let (secret, mask) = (index(*secret).unwrap_or(0), index(*mask).unwrap_or(0));
            token.push(char::from(letter((secret + mask) % LETTERS)));
        }
        token
    }

    /// The secret itself, as the cookie holds it.
    pub fn as_str(&self) -> &str {
        // ASCII, whichever way it was made.
        std::str::from_utf8(&*self.0).unwrap_or_default()
    }
}

/// Place in `a…zA…Z0…9`.
fn index(letter: u8) -> Option<u8> {
    match letter {
        b'a'..=b'z' => Some(letter - b'a'),
        b'A'..=b'Z' => Some(letter - b'A' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        _ => None,
    }
}

/// What stands in a place; of places from 62 up the last.
fn letter(index: u8) -> u8 {
    match index {
        0..=25 => b'a' + index,
        26..=51 => b'A' + (index - 26),
        52..=60 => b'0' + (index - 52),
        _ => b'9',
    }
}

/// What is needed for [`Expected::check_token`].
#[derive(Debug)]
#[must_use]
pub enum NextStep {
    /// The body, since the token may be a field of it: see [`form::token`](crate::csrf::form::token).
    NeedsBody(Expected),
    /// Nothing but the head.
    NeedsHead(Expected),
}

/// The secret that a token has to be of.
#[derive(Debug)]
#[must_use]
pub struct Expected(
    /// `None`: a session's secret that no token is of.
    Option<CsrfSecret>,
);

impl Settings {
    /// Checks what the client's secret is: `stored` is the text of its cookie, or with [`Self::use_sessions`] of its
    /// session. `has_body`: there is one that may have the token; Django looks at any that is not empty, and answers 400 or 415 if
    /// it cannot be read.
    ///
    /// # Errors
    /// If there is none, or if the cookie's is none. A session's is not looked at, as in Django: no token is of it.
    pub fn check_cookie(
        &self,
        method: &Method,
        stored: Option<&[u8]>,
        has_body: bool,
    ) -> Result<NextStep, Reason> {
        let stored = String::from_utf8_lossy(stored.ok_or(Reason::NoCookie)?);
        let secret = match CsrfSecret::parse(&stored) {
            Ok(secret) => Some(secret),
            Err(_) if self.use_sessions => None,
            Err(fault) => return Err(Reason::Cookie(fault)),
        };
        let next =
            if has_body && *method == Method::POST { NextStep::NeedsBody } else { NextStep::NeedsHead };
        Ok(next(Expected(secret)))
    }

    /// Python's `repr` of the header's name as Django shows it (`HttpHeaders.parse_header_name`).
    fn shown_header(&self) -> Box<str> {
        let quote = if self.header.as_str().contains('\'') { '"' } else { '\'' };
        let mut shown = String::from(quote);
        let mut is_inside = false;
        for character in self.header.as_str().replace('_', "-").chars() {
            shown.push(if is_inside { character } else { character.to_ascii_uppercase() });
            is_inside = character.is_ascii_alphabetic();
        }
        shown.push(quote);
        shown.into_boxed_str()
    }
}

impl Expected {
    /// Checks the token: of the form's field (UTF-8) if there is one and it is not empty, or else of the header
    /// [`Settings::header`], several of them joined.
    ///
    /// # Errors
    /// If there is none, or if it is not right.
    pub fn check_token(
        self,
        settings: &Settings,
        field: Option<&[u8]>,
        header: Option<&[u8]>,
    ) -> Result<(), Reason> {
        if let Some(field) = field.filter(|field| !field.is_empty()) {
            return self.check(&String::from_utf8_lossy(field)).map_err(Reason::Field);
        }
        let header = Zeroizing::new(latin1(header.ok_or(Reason::NoToken)?));
        self.check(&header).map_err(|fault| Reason::Header(settings.shown_header(), fault))
    }

    fn check(self, token: &str) -> Result<(), Fault> {
        let token = CsrfSecret::parse(token)?;
        if self.0.is_some_and(|secret| secret == token) { Ok(()) } else { Err(Fault::Incorrect) }
    }
}
