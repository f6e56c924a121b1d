//! `pbkdf2_sha256$iterations$salt$base64` and `pbkdf2_sha1$…`: RFC 8018 §5.2 over the salt's text.

use crate::password::django::decimal;
use crate::password::encoded::{Encoded, Work};
use aws_lc_rs::pbkdf2;
use base64ct::{Base64, Encoding as _};
use std::num::NonZeroU32;

/// More are not paid: ten times what Django 5.2 takes, a second and a half.
const ITERATIONS_MAX: u32 = 10_000_000;

/// Which HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::password) enum Digest {
    Sha256,
    Sha1,
}

impl Digest {
    /// Django takes as many bytes as the digest has.
    fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha1 => 20,
        }
    }
}

/// Iterations within the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::password) struct Costs {
    pub(in crate::password) digest: Digest,
    pub(in crate::password) iterations: NonZeroU32,
}

impl Costs {
    pub(in crate::password) fn compute(self, password: &[u8], salt: &[u8], output: &mut [u8]) {
        let algorithm = match self.digest {
            Digest::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Digest::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
        };
        pbkdf2::derive(algorithm, self.iterations, salt, password, output);
    }

    /// What these cost more than `paid`, of the same digest.
    pub(in crate::password) fn beyond(self, paid: Self) -> Option<Self> {
        let iterations = self.iterations.get().checked_sub(paid.iterations.get());
        let iterations = iterations.and_then(NonZeroU32::new).filter(|_| self.digest == paid.digest)?;
        Some(Self { iterations, ..self })
    }
}

pub(super) fn read(digest: Digest, rest: &str) -> Option<Encoded> {
    let mut fields = rest.splitn(3, '$');
    let (iterations, salt, output) = (fields.next()?, fields.next()?, fields.next()?);
    let iterations = decimal(iterations).filter(|iterations| iterations.get() <= ITERATIONS_MAX)?;
    let output = Base64::decode_vec(output).ok().filter(|output| output.len() == digest.bytes())?;
    Encoded::new(Work::Pbkdf2(Costs { digest, iterations }), salt, output)
}
