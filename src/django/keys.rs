//! Keys that Django derives from `SECRET_KEY` (`django.utils.crypto.salted_hmac`), made once.

use crate::secret::Secret;
use aws_lc_rs::{digest, hmac};
use std::fmt;
use subtle::ConstantTimeEq as _;

/// Salt of sessions in a table (`SessionBase.key_salt`), with what `Signer.signature` appends.
const SESSION_SALT: &[u8] = b"django.contrib.sessions.SessionStoresigner";
/// `AbstractBaseUser._get_session_auth_hash`
const AUTH_HASH_SALT: &[u8] = b"django.contrib.auth.models.AbstractBaseUser.get_session_auth_hash";

/// What `SECRET_KEY` and `SECRET_KEY_FALLBACKS` are used for.
#[derive(Clone)]
pub struct Keys {
    current: Pair,
    fallbacks: Vec<Pair>,
}

/// The keys made of one secret.
#[derive(Clone)]
struct Pair {
    session: hmac::Key,
    auth_hash: hmac::Key,
}

/// Whether a session was begun with the password that the user has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// It was.
    Current,
    /// It was, under an old `SECRET_KEY`: Django then gives the session a new key and hash.
    Fallback,
    /// It was not, or the session does not say: Django then deletes the session.
    No,
}

impl Keys {
    /// Derives the keys. Bytes are those of the text in Django's settings, UTF-8.
    pub fn new(secret_key: &Secret, fallbacks: &[Secret]) -> Self {
        Self { current: Pair::new(secret_key), fallbacks: fallbacks.iter().map(Pair::new).collect() }
    }

    /// What Django writes into a session when a user with this value of the column `password` logs in: 64
    /// lower-case hexadecimal digits.
    pub fn auth_hash(&self, password_column: &str) -> String {
        hex_tag(&self.current.auth_hash, password_column)
    }

    /// Compares what a session has with the user's password, in constant time for each key.
    pub fn matches(&self, auth_hash: &str, password_column: &str) -> Match {
        let is_of = |pair: &Pair| is_equal(&hex_tag(&pair.auth_hash, password_column), auth_hash);
        // Django takes an empty hash for none.
        if auth_hash.is_empty() {
            Match::No
        } else if is_of(&self.current) {
            Match::Current
        } else if self.fallbacks.iter().any(is_of) {
            Match::Fallback
        } else {
            Match::No
        }
    }

    /// Signature of a session's text, as `Signer.signature` writes it.
    pub(in crate::django) fn signature(&self, text: &str) -> String {
        self.current.signature(text)
    }

    /// Whether any of the keys made this signature of the text.
    pub(in crate::django) fn has_signed(&self, text: &str, signature: &str) -> bool {
        std::iter::once(&self.current)
            .chain(&self.fallbacks)
            .any(|pair| is_equal(&pair.signature(text), signature))
    }
}

impl Pair {
    fn new(secret: &Secret) -> Self {
        Self { session: derived(SESSION_SALT, secret), auth_hash: derived(AUTH_HASH_SALT, secret) }
    }

    fn signature(&self, text: &str) -> String {
        data_encoding::BASE64URL_NOPAD.encode(hmac::sign(&self.session, text.as_bytes()).as_ref())
    }
}

/// HMAC's key is the SHA-256 of salt and secret.
fn derived(salt: &[u8], secret: &Secret) -> hmac::Key {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(salt);
    context.update(secret.expose());
    hmac::Key::new(hmac::HMAC_SHA256, context.finish().as_ref())
}

fn hex_tag(key: &hmac::Key, text: &str) -> String {
    data_encoding::HEXLOWER.encode(hmac::sign(key, text.as_bytes()).as_ref())
}

/// As texts, as Django does: another spelling of the same bytes is another signature.
fn is_equal(expected: &str, given: &str) -> bool {
    expected.as_bytes().ct_eq(given.as_bytes()).into()
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(1 + {})", self.fallbacks.len())
    }
}
