//! Values that must never be seen: passwords and credentials on their way to a digest or a hash.
//!
//! `Debug` is redacted and there is no `Display`, so a secret reaches a log or an error only through
//! [`Secret::expose`], which one grep finds. The bytes are wiped when the value is dropped.

use std::fmt;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Secret bytes: redacted in `Debug`, wiped when dropped.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; nothing is copied, so no second copy is left behind.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// `N` random bytes of the operating system, in lower-case hex behind `prefix`.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn random_hex<const N: usize>(prefix: &str) -> Result<Self, NoRandomness> {
        let mut bytes = Zeroizing::new([0; N]);
        getrandom::fill(bytes.as_mut()).map_err(|_| NoRandomness)?;
        let mut text = Vec::with_capacity(prefix.len() + 2 * N);
        text.extend_from_slice(prefix.as_bytes());
        for nibble in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            text.push(if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) });
        }
        Ok(Self::new(text))
    }

    /// The bytes themselves. Never pass them to anything that writes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// The system gives no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Compares in constant time, so that an attacker cannot find a secret byte by byte (CWE-208).
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new(*b"hunter2")), "Secret(…)");
    }

    #[test]
    fn random_hex_is_a_prefix_and_lower_case_digits() {
        let secret = Secret::random_hex::<20>("dw_").unwrap();
        let text = std::str::from_utf8(secret.expose()).unwrap();
        let digits = text.strip_prefix("dw_").unwrap();
        assert_eq!(digits.len(), 40);
        assert!(digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        assert_ne!(secret, Secret::random_hex::<20>("dw_").unwrap());
    }

    #[test]
    fn equality_is_of_the_whole_value() {
        assert_eq!(Secret::new(*b"ab"), Secret::new(*b"ab"));
        assert_ne!(Secret::new(*b"ab"), Secret::new(*b"abc"));
    }
}
