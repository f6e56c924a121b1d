//! argon2id: the costs we hash with, and the costs we are willing to verify.
//!
//! What is read from a store decides how much memory and time a login takes, so costs have limits. A hash that cannot
//! be used is answered like an unknown user: after as much work as a usable one takes, so that time does not tell
//! which users exist (CWE-208).

use crate::secret::Secret;
use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use std::hint::black_box;
use subtle::ConstantTimeEq as _;

/// Costs of new hashes: OWASP Password Storage Cheat Sheet, Argon2id, the second of the equal choices.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Bytes of randomness in a salt; RFC 9106 §3.1 recommends 16.
const SALT_BYTES: usize = 16;
/// Bytes of a hash.
const OUTPUT_BYTES: usize = 32;

/// Costs above these are not paid: enough for the 64 MiB of RFC 9106 §4 and Django's 100 MiB with 8 lanes.
const MEMORY_KIB_MAX: u32 = 128 * 1024;
const PASSES_MAX: u32 = 8;
const LANES_MAX: u32 = 16;

/// Salt of the work done for unknown users; nothing is ever compared with its result.
const DUMMY_SALT: [u8; SALT_BYTES] = *b"nobody has this.";

/// Why a password could not be hashed.
#[derive(Debug)]
pub(super) enum HashError {
    /// The operating system has no randomness.
    Salt,
    /// argon2 refused its input.
    Argon2,
}

/// Computes hashes one after the other and keeps the memory for it (19 MiB once used).
#[derive(Default)]
pub(super) struct Hasher {
    blocks: Vec<Block>,
}

impl Hasher {
    /// Hashes with a new salt; yields a PHC string.
    pub(super) fn hash(&mut self, password: &[u8]) -> Result<Secret, HashError> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|_| HashError::Salt)?;
        let mut output = [0; OUTPUT_BYTES];
        self.compute(own_costs(), password, &salt, &mut output).ok_or(HashError::Argon2)?;
        encode(&salt, &output).ok_or(HashError::Argon2)
    }

    /// Whether `encoded` is of this password. `None`: nobody's password, which takes as long.
    pub(super) fn verify(&mut self, password: &[u8], encoded: Option<&Secret>) -> bool {
        if let Some(usable) = encoded.and_then(Usable::parse) {
            return self.matches(password, &usable);
        }
        let mut output = [0; OUTPUT_BYTES];
        black_box(self.compute(own_costs(), password, &DUMMY_SALT, &mut output));
        black_box(output);
        false
    }

    fn matches(&mut self, password: &[u8], usable: &Usable) -> bool {
        let expected = usable.output.as_bytes();
        let mut output = vec![0; expected.len()];
        let computed = self.compute(usable.costs.clone(), password, &usable.salt, &mut output);
        computed.is_some() && output.ct_eq(expected).into()
    }

    /// Costs above our own get memory of their own, given back at once.
    fn compute(&mut self, costs: Params, password: &[u8], salt: &[u8], output: &mut [u8]) -> Option<()> {
        let needed = costs.block_count();
        let kept = own_costs().block_count();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, costs);
        if needed > kept {
            return argon2.hash_password_into(password, salt, output).ok();
        }
        self.blocks.resize(kept, Block::new());
        let blocks = self.blocks.get_mut(..needed)?;
        argon2.hash_password_into_with_memory(password, salt, output, blocks).ok()
    }
}

/// Whether a hash was made with other costs than new ones are, or cannot be used at all.
pub(super) fn needs_rehash(encoded: &Secret) -> bool {
    let own = own_costs();
    Usable::parse(encoded).is_none_or(|usable| {
        let costs = &usable.costs;
        (costs.m_cost(), costs.t_cost(), costs.p_cost()) != (own.m_cost(), own.t_cost(), own.p_cost())
            || usable.output.len() != OUTPUT_BYTES
    })
}

/// A stored hash of which every cost is within the limits.
struct Usable {
    costs: Params,
    salt: Salt,
    output: Output,
}

impl Usable {
    fn parse(encoded: &Secret) -> Option<Self> {
        let hash = PasswordHash::new(std::str::from_utf8(encoded.expose()).ok()?).ok()?;
        // Version 16 (which is meant where none is said) and the other variants are weaker; we never made them.
        let is_ours =
            hash.algorithm.as_str() == "argon2id" && hash.version == Some(u32::from(Version::V0x13));
        let costs = Params::try_from(&hash).ok().filter(is_within_limits)?;
        // Both are left out of the computation by argon2 0.6, so a hash that has them says more than it proves.
        let is_plain = costs.keyid().is_empty() && costs.data().is_empty();
        (is_ours && is_plain).then_some(Self { costs, salt: hash.salt?, output: hash.hash? })
    }
}

fn is_within_limits(costs: &Params) -> bool {
    costs.m_cost() <= MEMORY_KIB_MAX && costs.t_cost() <= PASSES_MAX && costs.p_cost() <= LANES_MAX
}

fn own_costs() -> Params {
    Params::new(MEMORY_KIB, PASSES, LANES, Some(OUTPUT_BYTES))
        .expect("the costs are constants within argon2's range")
}

fn encode(salt: &[u8], output: &[u8]) -> Option<Secret> {
    let (salt, output) = (Salt::new(salt).ok()?, Output::new(output).ok()?);
    Some(Secret::new(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${output}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes())
    }

    #[test]
    fn hash_matches_its_password_only() {
        let mut hasher = Hasher::default();
        let encoded = hasher.hash(b"correct horse").unwrap();
        assert!(encoded.expose().starts_with(b"$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(hasher.verify(b"correct horse", Some(&encoded)));
        assert!(!hasher.verify(b"correct horse ", Some(&encoded)));
        assert!(!needs_rehash(&encoded));
    }

    #[test]
    fn reference_hash_matches() {
        // test.c of the reference implementation (phc-winner-argon2): argon2id, t=2, m=2^16, p=1.
        let encoded =
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(Hasher::default().verify(b"password", Some(&secret(encoded))));
        assert!(needs_rehash(&secret(encoded)));
    }

    #[test]
    fn smaller_costs_use_a_part_of_the_kept_memory() {
        // test.c of the reference implementation: argon2id, t=2, m=2^8, p=2.
        let encoded = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
        let mut hasher = Hasher::default();
        assert!(!hasher.verify(b"password", None), "fills the kept memory");
        assert!(hasher.verify(b"password", Some(&secret(encoded))));
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
            assert_eq!(Usable::parse(&encoded).is_some(), usable, "{costs}");
        }
    }

    #[test]
    fn malformed_hash_never_matches() {
        let mut hasher = Hasher::default();
        for encoded in [
            "",
            "password",
            "$argon2id$v=19$m=19456,t=2,p=1",
            "$argon2id$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        ] {
            assert!(Usable::parse(&secret(encoded)).is_none(), "{encoded}");
            assert!(needs_rehash(&secret(encoded)), "{encoded}");
        }
        assert!(!hasher.verify(b"password", Some(&secret("password"))));
        assert!(!hasher.verify(b"", Some(&Secret::default())));
    }
}
