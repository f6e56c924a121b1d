//! Passwords: from a prompt without echo, or from standard input.

use crate::secret::Secret;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use zeroize::Zeroizing;

/// Longest line of standard input that is read as a password.
const LINE_BYTES_MAX: u64 = 8192;

/// Reads a new password: twice at a prompt, or one line.
pub(in crate::cli) fn new_password(username: &str) -> io::Result<Secret> {
    if !io::stdin().is_terminal() {
        return line(&mut io::stdin().lock());
    }
    let first = Zeroizing::new(rpassword::prompt_password(format!("Password for {username}: "))?);
    let second = Zeroizing::new(rpassword::prompt_password("The same again: ")?);
    if *first == *second {
        Ok(Secret::new(first.as_bytes()))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "the two passwords differ"))
    }
}

/// The first line, without its end.
fn line(input: &mut impl io::BufRead) -> io::Result<Secret> {
    let mut text = Zeroizing::new(String::new());
    input.take(LINE_BYTES_MAX).read_line(&mut text)?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n']).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line() {
        assert_eq!(line(&mut &b"a b \r\nc\n"[..]).unwrap(), Secret::new(*b"a b "));
        assert_eq!(line(&mut &b"x"[..]).unwrap(), Secret::new(*b"x"));
    }
}
