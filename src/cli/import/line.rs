//! One line of a file of tokens: the token, a tab, the user. Pure.

use crate::credentials::manage::{KeyFault, check_key};
use crate::identity::Digest;

/// What a digest begins with, where the token itself is not known.
const DIGEST_PREFIX: &str = "sha256:";

/// What a good line says.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Entry<'a> {
    /// SHA-256 of the token.
    pub(in crate::cli) digest: Digest,
    /// Whose it is to be.
    pub(in crate::cli) username: &'a str,
}

/// What is wrong with a line. Never holds anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum LineFault {
    #[error("longer than 8192 bytes")]
    TooLong,
    #[error("not UTF-8")]
    NotUtf8,
    #[error("no tab between token and user")]
    NoTab,
    #[error("more than two columns")]
    TooManyColumns,
    #[error("no token before the tab")]
    NoToken,
    #[error("the token has blanks or control characters, so no client could present it")]
    Unusable,
    #[error("the token is shorter than 32 characters: easy to guess, so it needs --allow-weak")]
    Weak,
    #[error("a digest is `sha256:` and 64 hex digits")]
    Digest,
    #[error("no user after the tab")]
    NoUser,
}

impl From<KeyFault> for LineFault {
    fn from(fault: KeyFault) -> Self {
        match fault {
            KeyFault::Empty => Self::NoToken,
            KeyFault::Unusable => Self::Unusable,
            KeyFault::Weak => Self::Weak,
        }
    }
}

/// Reads a line without its end.
pub(in crate::cli) fn read(line: &[u8], allow_weak: bool) -> Result<Entry<'_>, LineFault> {
    let text = std::str::from_utf8(line).map_err(|_| LineFault::NotUtf8)?;
    let (token, username) = text.split_once('\t').ok_or(LineFault::NoTab)?;
    if username.contains('\t') {
        return Err(LineFault::TooManyColumns);
    }
    let digest = if let Some((prefix, hex)) = token.split_at_checked(DIGEST_PREFIX.len())
        && prefix.eq_ignore_ascii_case(DIGEST_PREFIX)
    {
        digest(hex).ok_or(LineFault::Digest)?
    } else {
        check_key(token, allow_weak)?;
        Digest::of(token.as_bytes())
    };
    if username.is_empty() {
        return Err(LineFault::NoUser);
    }
    Ok(Entry { digest, username })
}

fn digest(hex: &str) -> Option<Digest> {
    let nibble = |c: &u8| char::from(*c).to_digit(16).and_then(|nibble| u8::try_from(nibble).ok());
    let mut digest = Digest([0; 32]);
    if hex.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.0.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "9944b09199c62bcf9418ad846dd0e4bbdfc6ee4b";

    #[test]
    fn lines_are_read() {
        let line = format!("{KEY}\talice");
        let entry = read(line.as_bytes(), false).unwrap();
        assert_eq!(entry, Entry { digest: Digest::of(KEY.as_bytes()), username: "alice" });
        // FIPS 180-2, appendix B.1.
        let abc = "sha256:BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\tzo\u{eb} b";
        let entry = read(abc.as_bytes(), false).unwrap();
        assert_eq!(entry, Entry { digest: Digest::of(b"abc"), username: "zo\u{eb} b" });
        // In capitals it is no token in clear, either: nobody could log in with it.
        let capitals = abc.replace("sha256:", "SHA256:");
        assert_eq!(read(capitals.as_bytes(), false).unwrap().digest, Digest::of(b"abc"));
        assert!(read(b"abc\tx", true).is_ok());
    }

    #[test]
    fn every_fault_has_its_name() {
        let long = "0123456789abcdef0123456789abcdef";
        for (line, fault) in [
            (b"\xff\tx".to_vec(), LineFault::NotUtf8),
            (format!("{long} alice").into(), LineFault::NoTab),
            (format!("{long}\talice\tname").into(), LineFault::TooManyColumns),
            (b"\talice".to_vec(), LineFault::NoToken),
            (format!("{long} x\talice").into(), LineFault::Unusable),
            (format!(" {long}\talice").into(), LineFault::Unusable),
            (b"short\talice".to_vec(), LineFault::Weak),
            (b"sha256:ba78\talice".to_vec(), LineFault::Digest),
            (format!("sha256:{}\talice", "\u{e9}".repeat(32)).into(), LineFault::Digest),
            (format!("sha256:{}g\talice", "a".repeat(63)).into(), LineFault::Digest),
            (format!("{long}\t").into(), LineFault::NoUser),
        ] {
            assert_eq!(read(&line, false), Err(fault), "{}", String::from_utf8_lossy(&line));
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(line: Vec<u8>, weak: bool) {
            drop(read(&line, weak));
        }

        #[test]
        fn any_digest_is_read_without_panic(text in "\\PC{0,70}") {
            prop_assert!(digest(&text).is_none() || text.len() == 64);
        }
    }
}
