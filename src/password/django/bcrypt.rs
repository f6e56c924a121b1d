//! `bcrypt_sha256$$2b$12$…` and `bcrypt$$2b$12$…`: bcrypt's own text behind Django's name.

use crate::password::django::hex;
use crate::password::encoded::{Encoded, Work};
use aws_lc_rs::digest::{SHA256, digest};
use base64ct::{Base64Bcrypt, Encoding as _};
use zeroize::Zeroizing;

/// What bcrypt reads of a password, the NUL that ends it included if there is room.
const KEY_BYTES_MAX: usize = 72;
/// Costs (log2 of the rounds): bcrypt's least, and what is paid at most, 16 times what Django takes: four seconds.
const COSTS: std::ops::RangeInclusive<u32> = 4..=16;
/// Characters and bytes of a salt.
const SALT: (usize, usize) = (22, 16);
/// Characters and bytes of a hash; the last byte that bcrypt computes was never stored.
const OUTPUT: (usize, usize) = (31, 23);

/// What bcrypt is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::password) enum Key {
    /// The lower-case hex digits of the password's SHA-256.
    Sha256,
    /// The password.
    Raw,
}

/// A cost within the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::password) struct Costs {
    key: Key,
    log_rounds: u32,
}

impl Costs {
    /// `None`, after as much work, for a raw password over 72 bytes: bcrypt sees 72 of it, so whoever knows those
    /// would pass (its Python library, from 5.0, raises an exception).
    pub(in crate::password) fn compute(self, password: &[u8], salt: &[u8], output: &mut [u8]) -> Option<()> {
        let mut key = Zeroizing::new(Vec::with_capacity(KEY_BYTES_MAX + 1));
        match self.key {
            Key::Sha256 => hex(digest(&SHA256, password).as_ref(), &mut key),
            Key::Raw => key.extend(password.iter().take(KEY_BYTES_MAX)),
        }
        key.push(0);
        key.truncate(KEY_BYTES_MAX);
        let hash = Zeroizing::new(bcrypt::bcrypt(self.log_rounds, salt.try_into().ok()?, &key));
        output.copy_from_slice(hash.get(..output.len())?);
        (self.key == Key::Sha256 || password.len() <= KEY_BYTES_MAX).then_some(())
    }
}

pub(super) fn read(key: Key, rest: &str) -> Option<Encoded> {
    let (version, rest) = rest.strip_prefix('$')?.split_once('$')?;
    // To Python's library they are all the same: it never had the faults that the letters tell of.
    let is_known = ["2a", "2b", "2x", "2y"].contains(&version);
    let (cost, data) = rest.split_once('$')?;
    let is_canonical = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
    let log_rounds = cost.parse().ok().filter(|cost| is_known && is_canonical && COSTS.contains(cost))?;
    let (salt, output) = data.split_at_checked(SALT.0).filter(|(_, output)| output.len() == OUTPUT.0)?;
    let salt = Base64Bcrypt::decode_vec(salt).ok().filter(|salt| salt.len() == SALT.1)?;
    let output = Base64Bcrypt::decode_vec(output).ok().filter(|output| output.len() == OUTPUT.1)?;
    Encoded::new(Work::Bcrypt(Costs { key, log_rounds }), salt, output)
}
