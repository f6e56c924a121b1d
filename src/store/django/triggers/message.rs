//! What triggers say: one change in each message.
//!
//! Anybody who may connect to the database may notify on the channel, so a message is hostile bytes. The worst that a
//! forged one can do is one more look-up.

use crate::identity::{Digest, UserId};
use crate::store::Change;
use data_encoding::HEXLOWER;

/// Something changed that is not named: very much at once, the name of a group, or a table was emptied.
pub(super) const SOMETHING: &str = "something";
/// What a message about a user begins with; the id follows.
pub(super) const USER: &str = "user ";
/// What a message about a token or session begins with; the SHA-256 digest of its key follows, in lower-case hex.
pub(super) const CREDENTIAL: &str = "credential ";

/// Reads a message. `None`: no trigger of ours says this.
pub(in crate::store::django) fn read(payload: &str) -> Option<Change> {
    if payload == SOMETHING {
        return Some(Change::Something);
    }
    if let Some(id) = payload.strip_prefix(USER) {
        return id.parse().ok().map(|id| Change::User(UserId(id)));
    }
    let digest = HEXLOWER.decode(payload.strip_prefix(CREDENTIAL)?.as_bytes()).ok()?;
    Some(Change::Credential(Digest(digest.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_triggers_say_is_read() {
        assert_eq!(read("something"), Some(Change::Something));
        assert_eq!(read("user 17"), Some(Change::User(UserId(17))));
        assert_eq!(read("user -9223372036854775808"), Some(Change::User(UserId(i64::MIN))));
        let digest = Digest::of(b"key");
        let text = format!("credential {}", HEXLOWER.encode(&digest.0));
        assert_eq!(read(&text), Some(Change::Credential(digest)));
    }

    #[test]
    fn what_nobody_of_ours_says_is_not_read() {
        let long = "a".repeat(7999);
        let digits = "0".repeat(64);
        for payload in [
            "",
            "user",
            "user ",
            "user 1 ",
            "user 1\n",
            "user 9223372036854775808",
            "user \u{661}",
            "User 1",
            "credential ",
            "credential 00",
            &format!("credential {}", digits.replace('0', "A")),
            &format!("credential {digits}00"),
            &format!("credential {digits} "),
            &format!("credential {}\u{e9}", "0".repeat(62)),
            "something else",
            "\0",
            &long,
        ] {
            assert_eq!(read(payload), None, "{payload:?}");
        }
    }
}
