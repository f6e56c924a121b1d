//! `argon2$argon2id$v=19$m=102400,t=2,p=8$salt$hash`: the reference implementation's own text behind Django's name.

use crate::password::argon2::Costs;
use crate::password::django::decimal;
use crate::password::encoded::{Encoded, Work};
use argon2::{Algorithm, Version};
use base64ct::{Base64Unpadded, Encoding as _};

/// Bytes of a hash; shorter ones could be guessed, longer ones nobody makes. argon2-cffi makes 32 (once 16).
const OUTPUT_BYTES: std::ops::RangeInclusive<usize> = 10..=64;

/// The grammar of `decode_string` in encoding.c of the reference implementation: no other order, nothing besides.
pub(super) fn read(rest: &str) -> Option<Encoded> {
    let (variant, rest) = rest.split_once('$')?;
    let (version, rest) = match rest.strip_prefix("v=") {
        Some(rest) => rest.split_once('$')?,
        // As the first version wrote it.
        None => ("16", rest),
    };
    let mut fields = rest.split('$');
    let (costs, salt, output) = (fields.next()?, fields.next()?, fields.next()?);
    let costs = read_costs(variant, version, costs).filter(|_| fields.next().is_none())?;
    let output = Base64Unpadded::decode_vec(output).ok().filter(|o| OUTPUT_BYTES.contains(&o.len()))?;
    Encoded::new(Work::Argon2(costs), Base64Unpadded::decode_vec(salt).ok()?, output)
}

fn read_costs(variant: &str, version: &str, costs: &str) -> Option<Costs> {
    let mut costs = costs.split(',');
    let mut cost = |name| decimal(costs.next()?.strip_prefix(name)?);
    let (memory_kib, passes, lanes) = (cost("m=")?.get(), cost("t=")?.get(), cost("p=")?.get());
    let variant = match variant {
        "argon2id" => Algorithm::Argon2id,
        "argon2i" => Algorithm::Argon2i,
        "argon2d" => Algorithm::Argon2d,
        _ => return None,
    };
    let version = match version {
        "19" => Version::V0x13,
        "16" => Version::V0x10,
        _ => return None,
    };
    let found = Costs { variant, version, memory_kib, passes, lanes };
    found.limited().filter(|_| costs.next().is_none())
}
