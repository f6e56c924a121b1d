//! `[tokens]`: the tokens that doorward issues.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::problem::{Fault, Problems};
use crate::config::raw;
use crate::config::value::{Count, Quantity, Written, one_of, unexpected, within};

/// How tokens are issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// How long a token lives; `None`: until it is revoked.
    pub ttl: Option<Duration>,
    /// How many live tokens obtain-token makes for one user; past it the least recently used is revoked.
    pub per_user: NonZeroUsize,
    /// What every token begins with, so that scanners for leaked secrets can find it; may be empty.
    pub prefix: String,
    /// What happens to a token that came in clear.
    pub on_exposed_token: OnExposedToken,
}

/// What happens to a token that was sent without TLS, where anybody on the way could read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExposedToken {
    /// The log names it.
    #[default]
    Log,
    /// The log names it, and it is revoked.
    Revoke,
}

impl Written for OnExposedToken {
    const EXPECTED: &'static str = "\"log\" or \"revoke\"";
    const WORDS: &'static [(&'static str, Self)] = &[("log", Self::Log), ("revoke", Self::Revoke)];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

const PER_USER: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9);
const PER_USER_MAX: usize = 100_000;
const DAY: Duration = Duration::from_hours(24);

impl Default for Tokens {
    fn default() -> Self {
        let on_exposed_token = OnExposedToken::default();
        Self { ttl: Some(30 * DAY), per_user: PER_USER, prefix: String::new(), on_exposed_token }
    }
}

/// Shortest and longest life of a token that has an end.
const RANGE: RangeInclusive<TokenTtl> =
    TokenTtl(Some(Duration::from_secs(1)))..=TokenTtl(Some(Duration::from_hours(3650 * 24)));

impl Tokens {
    /// Reads a time to live as the file has it. `None`: `never`.
    ///
    /// # Errors
    /// What can be written, in words.
    pub fn ttl_from_text(text: &str) -> Result<Option<Duration>, String> {
        let ttl = TokenTtl::from_text(text).ok().filter(|ttl| ttl.0.is_none() || RANGE.contains(ttl));
        let expected = "a whole number and one of s, m, h, d, w, from 1s to 3650d; or never";
        ttl.map(|ttl| ttl.0).ok_or_else(|| expected.to_owned())
    }

    pub(super) fn from_raw(raw: raw::Tokens, problems: &mut Problems) -> Self {
        let default = Self::default();
        let ttl = match raw.ttl {
            Some(entry) if entry.value.0.is_none() => None,
            entry => within(entry.as_ref(), TokenTtl(default.ttl), RANGE, "ttl", problems).0,
        };
        let per_user = Count(default.per_user.get());
        let per_user =
            within(raw.per_user.as_ref(), per_user, Count(1)..=Count(PER_USER_MAX), "per_user", problems);
        let per_user = NonZeroUsize::new(per_user.0).unwrap_or(default.per_user);
        Self {
            ttl,
            per_user,
            prefix: raw.prefix.map_or(default.prefix, |prefix| prefix.value.0),
            on_exposed_token: raw.on_exposed_token.map(|entry| entry.value).unwrap_or_default(),
        }
    }
}

/// A duration or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TokenTtl(Option<Duration>);

impl Written for TokenTtl {
    const EXPECTED: &'static str = "a duration such as \"30d\", or \"never\"";
    const PATTERN: Option<&'static str> = Some("^([0-9]+(ms|s|m|h|d|w)|never)$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        if text == "never" {
            return Ok(Self(None));
        }
        Duration::from_text(text).map(|ttl| Self(Some(ttl))).map_err(|_| {
            unexpected::<Self>(text).help("a whole number and one of s, m, h, d, w; or \"never\"")
        })
    }
}

impl Quantity for TokenTtl {
    fn show(self) -> String {
        self.0.map_or_else(|| "never".to_owned(), Quantity::show)
    }
}

/// Part of a token, so only what needs no encoding anywhere.
#[derive(Debug, Clone)]
pub(super) struct TokenPrefix(String);

impl Written for TokenPrefix {
    const EXPECTED: &'static str = "a prefix such as \"dw_\"";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z0-9_-]{0,16}$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if is_plain && text.len() <= 16 {
            Ok(Self(text.to_owned()))
        } else {
            Err(unexpected::<Self>(text).help("at most 16 of the characters A-Z a-z 0-9 - _"))
        }
    }
}
