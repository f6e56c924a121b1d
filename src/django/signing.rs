//! `django_session.session_data`: `payload:timestamp:signature` (`django.core.signing.dumps` with `compress=True`).
//!
//! Nothing is decompressed before its signature has been checked, and never more than [`DECODED_BYTES_MAX`].

use crate::django::keys::Keys;
use crate::django::session::Session;
use data_encoding::BASE64URL_NOPAD;
use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use std::borrow::Cow;

/// What a session may be when decompressed (bytes): zlib makes a thousand bytes of one. A larger one is as good as
/// none.
pub const DECODED_BYTES_MAX: usize = 1 << 20;
/// What is looked at at all (bytes): a session of that size that was not compressed, as base64 and signed.
pub const STORED_BYTES_MAX: usize = DECODED_BYTES_MAX / 3 * 4 + 256;

/// Digits of Django's timestamps.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// zlib's default, which Django takes.
const COMPRESSION_LEVEL: u8 = 6;

/// Reads what Django has stored; `None` where Django takes the session for an empty one: no valid signature, no JSON
/// object, too large. The age is not looked at, as in Django: that is the column `expire_date`.
pub fn decode(session_data: impl AsRef<[u8]>, keys: &Keys) -> Option<Session> {
    let stored = session_data.as_ref();
    if stored.len() > STORED_BYTES_MAX {
        return None;
    }
    let (signed, signature) = std::str::from_utf8(stored).ok()?.rsplit_once(':')?;
    if !keys.has_signed(signed, signature) {
        return None;
    }
    let (payload, timestamp) = signed.rsplit_once(':')?;
    if !is_timestamp(timestamp) {
        return None;
    }
    let json = match payload.strip_prefix('.') {
        Some(compressed) => {
            let compressed = BASE64URL_NOPAD.decode(compressed.as_bytes()).ok()?;
            decompress_to_vec_zlib_with_limit(&compressed, DECODED_BYTES_MAX).ok()?
        }
        None => BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?,
    };
    Session::from_json(&latin1(&json))
}

/// Writes a session so that Django reads it. `now` is in seconds since 1970.
pub fn encode(session: &Session, keys: &Keys, now: i64) -> String {
    let json = session.to_json().into_bytes();
    let compressed = compress_to_vec_zlib(&json, COMPRESSION_LEVEL);
    // As in `Signer.sign_object`: the dot counts, too.
    let payload = if compressed.len() + 1 < json.len() {
        format!(".{}", BASE64URL_NOPAD.encode(&compressed))
    } else {
        BASE64URL_NOPAD.encode(&json)
    };
    let signed = format!("{payload}:{}", timestamp(now));
    let signature = keys.signature(&signed);
    format!("{signed}:{signature}")
}

/// `JSONSerializer.loads` reads bytes as characters.
fn latin1(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        _ => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
    }
}

/// What `b62_decode` reads.
fn is_timestamp(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_alphanumeric())
}

/// `b62_encode`
fn timestamp(seconds: i64) -> String {
    let mut rest = seconds.unsigned_abs();
    let mut digits = Vec::new();
    loop {
        let digit = usize::try_from(rest % 62).ok().and_then(|place| BASE62.get(place));
        digits.push(char::from(digit.copied().unwrap_or(b'0')));
        rest /= 62;
        if rest == 0 {
            break;
        }
    }
    if seconds < 0 {
        digits.push('-');
    }
    digits.iter().rev().collect()
}
