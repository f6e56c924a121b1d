//! A stored hash that can be checked: what has to be computed, and what has to come out.
//!
//! Reading it is apart from computing: what is read is text from a store, so it is limited, never trusted, and there
//! is no work that a limit does not bound.

use crate::password::argon2::{self, Memory};
use crate::password::django::{self, bcrypt, md5, pbkdf2, scrypt};
use crate::password::own;
use crate::secret::Secret;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// A longer encoding (bytes) is nobody's. Django's column holds 128 characters of up to 4 bytes.
const ENCODED_BYTES_MAX: usize = 512;

/// Which encodings are read besides those that always are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Allowed {
    /// Django's `md5$salt$hash`, which is no protection: billions of guesses a second.
    pub(super) md5: bool,
}

/// A stored hash of which every cost is within the limits.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) work: Work,
    pub(super) salt: Secret,
    pub(super) output: Secret,
}

/// What one check computes: equal works take equally long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Argon2(argon2::Costs),
    Pbkdf2(pbkdf2::Costs),
    Bcrypt(bcrypt::Costs),
    Scrypt(scrypt::Costs),
    Md5,
}

impl Encoded {
    /// Reads our own PHC strings and Django's encodings. `None`: no password matches this.
    pub(super) fn parse(encoded: &Secret, allowed: Allowed) -> Option<Self> {
        let bytes = encoded.expose();
        let text = std::str::from_utf8(bytes).ok().filter(|_| bytes.len() <= ENCODED_BYTES_MAX)?;
        let (algorithm, rest) = text.split_once('$')?;
        if algorithm.is_empty() { own::read(text) } else { django::read(algorithm, rest, allowed) }
    }

    /// `None` without a salt, or without a hash, which everything would match.
    pub(super) fn new(work: Work, salt: impl Into<Vec<u8>>, output: impl Into<Vec<u8>>) -> Option<Self> {
        let (salt, output) = (Secret::new(salt), Secret::new(output));
        let is_whole = !salt.expose().is_empty() && !output.expose().is_empty();
        is_whole.then_some(Self { work, salt, output })
    }

    /// Whether it is of this password; the comparison takes the same time wherever they differ.
    pub(super) fn matches(&self, memory: &mut Memory, password: &[u8]) -> bool {
        let expected = self.output.expose();
        let mut output = Zeroizing::new(vec![0; expected.len()]);
        let computed = self.work.compute(memory, password, self.salt.expose(), &mut output);
        computed.is_some() && output.as_slice().ct_eq(expected).into()
    }
}

impl Work {
    /// `None` if there is no such hash: of this length, of this password, or without memory.
    pub(super) fn compute(
        self,
        memory: &mut Memory,
        password: &[u8],
        salt: &[u8],
        output: &mut [u8],
    ) -> Option<()> {
        match self {
            Self::Argon2(costs) => costs.compute(memory, password, salt, output),
            Self::Pbkdf2(costs) => {
                costs.compute(password, salt, output);
                Some(())
            }
            Self::Bcrypt(costs) => costs.compute(password, salt, output),
            Self::Scrypt(costs) => costs.compute(password, salt, output),
            Self::Md5 => md5::compute(password, salt, output),
        }
    }
}
