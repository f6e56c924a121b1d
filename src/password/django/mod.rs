//! The encodings of Django 5.2 (`django.contrib.auth.hashers`), `algorithm$…`, and new ones for its tables.
//!
//! Django checks by encoding again and comparing the whole text. So a text that Django would not have written (`+1`
//! or `01` iterations, base64 that is not canonical) never matches there, and is not read here. What raises an
//! exception in Django does not match here either.

mod argon2;
pub(super) mod bcrypt;
mod make;
pub(super) mod md5;
pub(super) mod pbkdf2;
pub(super) mod scrypt;

pub(super) use crate::password::django::make::hash;
pub use crate::password::django::make::{needs_rehash, unusable};

use crate::password::encoded::{Allowed, Encoded};
use std::num::NonZeroU32;

/// Reads what follows the name of the algorithm and a `$`. `None`: no password matches this.
///
/// Names that Django has no longer (`sha1`, `unsalted_md5`, `crypt`) are as unknown as any other, and so are the forms
/// that went with them: `md5$$…` and `sha1$$…` have no salt, 32 bare digits have no `$`.
pub(super) fn read(algorithm: &str, rest: &str, allowed: Allowed) -> Option<Encoded> {
    match algorithm {
        "pbkdf2_sha256" => pbkdf2::read(pbkdf2::Digest::Sha256, rest),
        "pbkdf2_sha1" => pbkdf2::read(pbkdf2::Digest::Sha1, rest),
        "argon2" => argon2::read(rest),
        "bcrypt_sha256" => bcrypt::read(bcrypt::Key::Sha256, rest),
        "bcrypt" => bcrypt::read(bcrypt::Key::Raw, rest),
        "scrypt" => scrypt::read(rest),
        "md5" if allowed.md5 => md5::read(rest),
        _ => None,
    }
}

/// A number as `%d` writes it. Zero is none: Django takes its default instead, and then writes that.
fn decimal(text: &str) -> Option<NonZeroU32> {
    let is_canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_canonical)
}

/// Appends lower-case digits.
fn hex(bytes: &[u8], text: &mut Vec<u8>) {
    for nibble in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        text.push(if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) });
    }
}

#[cfg(test)]
mod tests;
