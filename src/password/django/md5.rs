//! `md5$salt$hex`: MD5 of salt and password. Read only where it is allowed.

use crate::password::django::hex;
use crate::password::encoded::{Encoded, Work};
use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

/// Characters of a hash.
const OUTPUT_CHARS: usize = 32;

/// Computes the text itself: digits in upper case do not match.
pub(in crate::password) fn compute(password: &[u8], salt: &[u8], output: &mut [u8]) -> Option<()> {
    let mut text = Zeroizing::new(Vec::with_capacity(OUTPUT_CHARS));
    hex(&Md5::new().chain_update(salt).chain_update(password).finalize(), &mut text);
    output.copy_from_slice(text.get(..output.len())?);
    Some(())
}

pub(super) fn read(rest: &str) -> Option<Encoded> {
    let (salt, output) = rest.split_once('$').filter(|(_, output)| output.len() == OUTPUT_CHARS)?;
    Encoded::new(Work::Md5, salt, output)
}
