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

    /// The bytes themselves. Never pass them to anything that writes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

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
    fn equality_is_of_the_whole_value() {
        assert_eq!(Secret::new(*b"ab"), Secret::new(*b"ab"));
        assert_ne!(Secret::new(*b"ab"), Secret::new(*b"abc"));
    }
}
