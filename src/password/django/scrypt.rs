//! `scrypt$N$salt$r$p$base64`: RFC 7914 over the salt's text.

use crate::password::django::decimal;
use crate::password::encoded::{Encoded, Work};
use base64ct::{Base64, Encoding as _};
use scrypt::Params;

/// Memory (bytes) that is not exceeded. A Django whose `maxmem` nobody set stops at 32 MiB; this leaves room for one
/// that was told to take more, and is what Argon2 may take here.
const MEMORY_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// N times r times p at most: six times what Django 5.2 takes, about a second.
const WORK_MAX: u64 = 1 << 22;
/// Bytes of a hash.
const OUTPUT_BYTES: usize = 64;

/// Costs within the limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::password) struct Costs {
    params: Params,
}

impl Eq for Costs {}

impl Costs {
    /// `None` above a limit, or if there is no such scrypt: N is a power of two, below 2^(16 r) (RFC 7914 §6).
    fn new(n: u32, r: u32, p: u32) -> Option<Self> {
        let [wide_n, wide_r, wide_p] = [n, r, p].map(u64::from);
        let work = wide_n.checked_mul(wide_r)?.checked_mul(wide_p)?;
        let is_within = work <= WORK_MAX && memory(wide_n, wide_r, wide_p)? <= MEMORY_BYTES_MAX;
        let log_n = n.ilog2();
        let exists = n.is_power_of_two() && n > 1 && u64::from(log_n) < wide_r.checked_mul(16)?;
        let params = (is_within && exists).then(|| Params::new(u8::try_from(log_n).ok()?, r, p).ok());
        params.flatten().map(|params| Self { params })
    }

    /// `None` if there is no memory.
    pub(in crate::password) fn compute(self, password: &[u8], salt: &[u8], output: &mut [u8]) -> Option<()> {
        let params = self.params;
        let needed = memory(params.n(), params.r().into(), params.p().into())?;
        // scrypt ends the process where it gets none, so it is asked for before.
        Vec::<u8>::new().try_reserve_exact(usize::try_from(needed).ok()?).ok()?;
        scrypt::scrypt(password, salt, &params, output).ok()
    }
}

/// Bytes that OpenSSL counts against `maxmem`, and no less than what is taken here.
fn memory(n: u64, r: u64, p: u64) -> Option<u64> {
    n.checked_add(2)?.checked_add(p)?.checked_mul(r)?.checked_mul(128)
}

pub(super) fn read(rest: &str) -> Option<Encoded> {
    let mut fields = rest.splitn(5, '$');
    let mut next = || fields.next();
    let (n, salt, r, p, output) = (next()?, next()?, next()?, next()?, next()?);
    let costs = Costs::new(decimal(n)?.get(), decimal(r)?.get(), decimal(p)?.get())?;
    let output = Base64::decode_vec(output).ok().filter(|output| output.len() == OUTPUT_BYTES)?;
    Encoded::new(Work::Scrypt(costs), salt, output)
}
