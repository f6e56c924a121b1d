//! What is in a session: a JSON object whose names Django, its applications and doorward share.

use crate::django::datetime::parse_datetime;
use crate::secret::{NoRandomness, Secret};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// `SESSION_KEY`
const USER_ID: &str = "_auth_user_id";
/// `BACKEND_SESSION_KEY`
const BACKEND: &str = "_auth_user_backend";
/// `HASH_SESSION_KEY`
const AUTH_HASH: &str = "_auth_user_hash";
/// `CSRF_SESSION_KEY`, with `CSRF_USE_SESSIONS`
const CSRF_SECRET: &str = "_csrftoken";
/// `SessionBase.set_expiry`
const EXPIRY: &str = "_session_expiry";

/// `VALID_KEY_CHARS`
const KEY_CHARACTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// Characters of a session's key (`_get_new_session_key`).
const KEY_LENGTH: usize = 32;
/// The greatest multiple of 36 in a byte: above it the first characters would come more often.
const KEY_BYTE_MAX: u8 = 252;
/// Of 64 random bytes fewer than half are too great about never; a source that goes on giving such is broken.
const KEY_ROUNDS_MAX: usize = 8;

/// A session's content. What an application keeps there stays as it was written, to the digit, so that a session can
/// be written anew without harm to it.
#[derive(Clone, Default)]
pub struct Session(BTreeMap<String, Box<RawValue>>);

/// How long a session lasts (`SessionBase.get_expiry_age`, `get_expire_at_browser_close`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionExpiry {
    /// As the settings say.
    Default,
    /// The cookie ends with the browser, the row as the settings say.
    BrowserClose,
    /// So many seconds after it was last written.
    Seconds(i64),
    /// At that moment, in seconds since 1970.
    At(i64),
}

impl Session {
    /// Reads a JSON object; the last of several values of one name counts, as in Python.
    pub(in crate::django) fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok().map(Self)
    }

    /// As JSON, in ASCII.
    pub(in crate::django) fn to_json(&self) -> String {
        let mut json = String::from("{");
        for (name, value) in &self.0 {
            if json.len() > 1 {
                json.push(',');
            }
            push_ascii(&mut json, &quoted(name));
            json.push(':');
            push_ascii(&mut json, value.get());
        }
        json.push('}');
        json
    }

    /// Begins, or goes on, as this user's session.
    pub fn log_in(&mut self, user_id: &str, backend: &str, auth_hash: &str) {
        self.set(USER_ID, user_id);
        self.set(BACKEND, backend);
        self.set_auth_hash(auth_hash);
    }

    /// Writes the hash anew, after a change of `SECRET_KEY` or of the password.
    pub fn set_auth_hash(&mut self, auth_hash: &str) {
        self.set(AUTH_HASH, auth_hash);
    }

    /// Sets the CSRF secret, which is here only with `CSRF_USE_SESSIONS`.
    pub fn set_csrf_secret(&mut self, secret: &str) {
        self.set(CSRF_SECRET, secret);
    }

    fn set(&mut self, name: &str, value: &str) {
        // Text is always JSON.
        if let Ok(value) = serde_json::value::to_raw_value(value) {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// The user, as text: Django writes a string, older releases and others a number. `None`: nobody has logged in,
    /// or it is neither.
    pub fn user_id(&self) -> Option<String> {
        let raw = self.0.get(USER_ID)?.get();
        let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        if is_number { Some(raw.to_owned()) } else { self.text(USER_ID) }
    }

    /// Dotted path of the authentication backend.
    pub fn backend(&self) -> Option<String> {
        self.text(BACKEND)
    }

    /// What [`Keys::matches`](crate::django::Keys::matches) compares.
    pub fn auth_hash(&self) -> Option<String> {
        self.text(AUTH_HASH)
    }

    /// The CSRF secret, with `CSRF_USE_SESSIONS`.
    pub fn csrf_secret(&self) -> Option<Secret> {
        self.text(CSRF_SECRET).map(Secret::new)
    }

    /// When it ends.
    pub fn expiry(&self) -> SessionExpiry {
        let Some(raw) = self.0.get(EXPIRY) else { return SessionExpiry::Default };
        if let Ok(seconds) = serde_json::from_str::<i64>(raw.get()) {
            return if seconds == 0 { SessionExpiry::BrowserClose } else { SessionExpiry::Seconds(seconds) };
        }
        let moment = self.text(EXPIRY).and_then(|text| parse_datetime(&text));
        moment.map_or(SessionExpiry::Default, |(seconds, _)| SessionExpiry::At(seconds))
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }
}

/// The names alone: an application may keep anything there.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session ")?;
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A new session's key: 32 of a to z and 0 to 9, each as likely as the others.
///
/// # Errors
/// If the system gives no random numbers.
pub fn session_key() -> Result<Secret, NoRandomness> {
    let mut key = Vec::with_capacity(KEY_LENGTH);
    for _ in 0..KEY_ROUNDS_MAX {
        let mut bytes = zeroize::Zeroizing::new([0; 2 * KEY_LENGTH]);
        getrandom::fill(bytes.as_mut()).map_err(|_| NoRandomness)?;
        key.extend(bytes.iter().copied().filter_map(key_character).take(KEY_LENGTH - key.len()));
        if key.len() == KEY_LENGTH {
            return Ok(Secret::new(key));
        }
    }
    Err(NoRandomness)
}

fn key_character(byte: u8) -> Option<u8> {
    let is_even_chance = byte < KEY_BYTE_MAX;
    KEY_CHARACTERS.get(usize::from(byte) % KEY_CHARACTERS.len()).copied().filter(|_| is_even_chance)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Django writes ASCII and reads single bytes, so what is neither is escaped; it can only be within a string.
fn push_ascii(json: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_ascii() {
            json.push(character);
            continue;
        }
        json.extend(character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
    }
}
