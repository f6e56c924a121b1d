//! New encodings for Django's tables, as Django 5.2 makes them.

use crate::password::django::pbkdf2::{Costs, Digest};
use crate::password::encoded::{Allowed, Encoded, Work};
use crate::secret::{NoRandomness, Secret};
use base64ct::{Base64, Encoding as _};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// `PBKDF2PasswordHasher` of Django 5.2.
const COSTS: Costs = Costs { digest: Digest::Sha256, iterations: NonZeroU32::new(1_000_000).unwrap() };
const OUTPUT_BYTES: usize = 32;
/// Characters of a salt: the least with 128 bits of randomness, of 62 to choose from.
const SALT_CHARS: usize = 22;
/// Characters after the `!` of a password that nobody has.
const UNUSABLE_CHARS: usize = 40;
/// Django's `RANDOM_STRING_CHARS`.
const ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// Hashes with a new salt: `pbkdf2_sha256$1000000$salt$base64`.
pub(in crate::password) fn hash(password: &[u8]) -> Result<Secret, NoRandomness> {
    let salt = alphanumeric::<SALT_CHARS>()?;
    let mut output = Zeroizing::new([0; OUTPUT_BYTES]);
    COSTS.compute(password, salt.as_bytes(), output.as_mut());
    let (iterations, output) = (COSTS.iterations, Zeroizing::new(Base64::encode_string(output.as_ref())));
    Ok(Secret::new(format!("pbkdf2_sha256${iterations}${}${}", salt.as_str(), output.as_str())))
}

/// What Django stores for a user without a password: nobody's, and another one each time, because its tokens for
/// resetting a password are made of it.
///
/// # Errors
/// If the system gives no randomness.
pub fn unusable() -> Result<Secret, NoRandomness> {
    let random = alphanumeric::<UNUSABLE_CHARS>()?;
    Ok(Secret::new(format!("!{}", random.as_str())))
}

/// Whether Django 5.2, with `pbkdf2_sha256` as its first hasher, replaces this after a password matched it: another
/// algorithm, another number of iterations, or a salt of less than 128 bits.
pub fn needs_rehash(encoded: &Secret) -> bool {
    Encoded::parse(encoded, Allowed::default()).is_none_or(|encoded| {
        let salt = String::from_utf8_lossy(encoded.salt.expose()).chars().count();
        encoded.work != Work::Pbkdf2(COSTS) || salt < SALT_CHARS
    })
}

/// `N` characters, each as likely as any other.
fn alphanumeric<const N: usize>() -> Result<Zeroizing<String>, NoRandomness> {
    let mut text = Zeroizing::new(String::with_capacity(N));
    while text.len() < N {
        let mut bytes = Zeroizing::new([0; N]);
        getrandom::fill(bytes.as_mut()).map_err(|_| NoRandomness)?;
        // Six bits of each byte; two values of 64 are not in the alphabet.
        let chosen = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 63)));
        let left = N.saturating_sub(text.len());
        text.extend(chosen.take(left).copied().map(char::from));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::argon2::Memory;

    fn text(secret: &Secret) -> &str {
        std::str::from_utf8(secret.expose()).unwrap()
    }

    #[test]
    fn new_hash_is_as_django_makes_it() {
        let encoded = hash("pässword".as_bytes()).unwrap();
        let fields: Vec<&str> = text(&encoded).split('$').collect();
        let [algorithm, iterations, salt, output] = fields.as_slice() else { panic!("{fields:?}") };
        assert_eq!((*algorithm, *iterations, output.len()), ("pbkdf2_sha256", "1000000", 44));
        assert!(salt.len() == 22 && salt.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{salt}");
        let parsed = Encoded::parse(&encoded, Allowed::default()).unwrap();
        assert!(parsed.matches(&mut Memory::default(), "pässword".as_bytes()));
        assert!(!needs_rehash(&encoded));
    }

    #[test]
    fn what_django_replaces() {
        let output = "o42gMAj04Dgl/Bknu2kwY207d2Fu0z+y9fyYQ+ig2u4=";
        let needs = |head: &str| needs_rehash(&Secret::new(format!("{head}${output}")));
        assert!(!needs("pbkdf2_sha256$1000000$x1PPe65bm6orUYFXw17k5f"));
        assert!(needs("pbkdf2_sha256$999999$x1PPe65bm6orUYFXw17k5f"));
        assert!(needs("pbkdf2_sha256$1000001$x1PPe65bm6orUYFXw17k5f"));
        assert!(needs("pbkdf2_sha256$1000000$x1PPe65bm6orUYFXw17k5"));
        assert!(needs("pbkdf2_sha256$1000000$äääääääääää"), "22 bytes are not 22 characters");
        assert!(needs("md5$x1PPe65bm6orUYFXw17k5f"));
    }

    #[test]
    fn unusable_is_random_and_never_matches() {
        let made = unusable().unwrap();
        let random = text(&made).strip_prefix('!').unwrap();
        assert!(random.len() == 40 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{random}");
        assert_ne!(made, unusable().unwrap());
        assert!(Encoded::parse(&made, Allowed { md5: true }).is_none());
    }

    #[test]
    fn every_character_occurs() {
        let drawn = alphanumeric::<10_000>().unwrap();
        assert_eq!(drawn.len(), 10_000);
        for char in ALPHABET {
            assert!(drawn.as_bytes().contains(char), "{}", char::from(*char));
        }
    }
}
