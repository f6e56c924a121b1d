//! Our own hashes: argon2id as PHC strings.

use crate::password::argon2::{Costs, Memory};
use crate::password::encoded::{Allowed, Encoded, Work};
use crate::secret::Secret;
use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Params, Version};
use zeroize::Zeroizing;

/// Costs of new hashes: OWASP Password Storage Cheat Sheet, Argon2id, the second of the equal choices.
pub(super) const COSTS: Costs = Costs {
    variant: Algorithm::Argon2id,
    version: Version::V0x13,
    memory_kib: 19 * 1024,
    passes: 2,
    lanes: 1,
};
/// Bytes of randomness in a salt; RFC 9106 §3.1 recommends 16.
const SALT_BYTES: usize = 16;
/// Bytes of a hash.
const OUTPUT_BYTES: usize = 32;

/// Why a password could not be hashed.
#[derive(Debug)]
pub(super) enum HashError {
    /// The operating system has no randomness.
    Salt,
    /// argon2 refused its input, or there is no memory.
    Argon2,
}

/// Hashes with a new salt; yields a PHC string.
pub(super) fn hash(memory: &mut Memory, password: &[u8]) -> Result<Secret, HashError> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|_| HashError::Salt)?;
    let mut output = Zeroizing::new([0; OUTPUT_BYTES]);
    COSTS.compute(memory, password, &salt, output.as_mut()).ok_or(HashError::Argon2)?;
    encode(&salt, output.as_ref()).ok_or(HashError::Argon2)
}

/// Whether a hash was made with other costs than new ones are, or cannot be used at all.
pub(super) fn needs_rehash(encoded: &Secret) -> bool {
    Encoded::parse(encoded, Allowed::default()).is_none_or(|encoded| {
        encoded.work != Work::Argon2(COSTS) || encoded.output.expose().len() != OUTPUT_BYTES
    })
}

/// Reads a PHC string.
pub(super) fn read(text: &str) -> Option<Encoded> {
    let hash = PasswordHash::new(text).ok()?;
    // Version 16 (which is meant where none is said) and the other variants are weaker; we never made them.
    let is_ours = hash.algorithm.as_str() == "argon2id" && hash.version == Some(u32::from(Version::V0x13));
    let params = Params::try_from(&hash).ok()?;
    // Both are left out of the computation by argon2 0.6, so a hash that has them says more than it proves.
    let is_plain = params.keyid().is_empty() && params.data().is_empty();
    let (memory_kib, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    let costs = Costs { memory_kib, passes, lanes, ..COSTS }.limited().filter(|_| is_ours && is_plain)?;
    Encoded::new(Work::Argon2(costs), hash.salt?.as_ref(), hash.hash?.as_bytes())
}

fn encode(salt: &[u8], output: &[u8]) -> Option<Secret> {
    let Costs { memory_kib, passes, lanes, .. } = COSTS;
    let (salt, output) = (Salt::new(salt).ok()?, Output::new(output).ok()?);
    Some(Secret::new(format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${output}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::check::Check;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes())
    }

    fn verify(memory: &mut Memory, password: &[u8], encoded: Option<&Secret>) -> bool {
        Check::default().verify(memory, password, encoded)
    }

    #[test]
    fn hash_matches_its_password_only() {
        let mut memory = Memory::default();
        let encoded = hash(&mut memory, b"correct horse").unwrap();
        assert!(encoded.expose().starts_with(b"$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify(&mut memory, b"correct horse", Some(&encoded)));
        assert!(!verify(&mut memory, b"correct horse ", Some(&encoded)));
        assert!(!needs_rehash(&encoded));
    }

    #[test]
    fn reference_hash_matches() {
        // test.c of the reference implementation (phc-winner-argon2): argon2id, t=2, m=2^16, p=1.
        let encoded =
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(verify(&mut Memory::default(), b"password", Some(&secret(encoded))));
        assert!(needs_rehash(&secret(encoded)));
    }

    #[test]
    fn smaller_costs_use_a_part_of_the_kept_memory() {
        // test.c of the reference implementation: argon2id, t=2, m=2^8, p=2.
        let encoded = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
        let mut memory = Memory::default();
        assert!(!verify(&mut memory, b"password", None), "fills the kept memory");
        assert!(verify(&mut memory, b"password", Some(&secret(encoded))));
    }

    #[test]
    fn costs_above_a_limit_are_not_usable() {
        let rest = "c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        for (costs, usable) in [
            ("m=131072,t=8,p=16", true),
            ("m=131073,t=8,p=16", false),
            ("m=131072,t=9,p=16", false),
            ("m=131072,t=8,p=17", false),
            ("m=4294967295,t=1,p=1", false),
            ("m=1024,t=4294967295,p=1", false),
            ("m=1024,t=1,p=16777215", false),
            ("m=1024,t=1,p=1,keyid=AAAA", false),
        ] {
            let encoded = secret(&format!("$argon2id$v=19${costs}${rest}"));
            assert_eq!(Encoded::parse(&encoded, Allowed::default()).is_some(), usable, "{costs}");
        }
    }

    #[test]
    fn malformed_hash_never_matches() {
        let mut memory = Memory::default();
        for encoded in [
            "",
            "password",
            "$argon2id$v=19$m=19456,t=2,p=1",
            "$argon2id$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        ] {
            assert!(Encoded::parse(&secret(encoded), Allowed::default()).is_none(), "{encoded}");
            assert!(needs_rehash(&secret(encoded)), "{encoded}");
        }
        assert!(!verify(&mut memory, b"password", Some(&secret("password"))));
        assert!(!verify(&mut memory, b"", Some(&Secret::default())));
    }
}
