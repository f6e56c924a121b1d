//! A cached answer as it lies in Redis.
//!
//! `nonce ‖ sealed(format ‖ version ‖ confirmed ‖ fact)`. The nonce is the value's mark: a fill names the one that it
//! saw, see [`crate::cache::redis`].

use crate::cache::change::Sequence;
use crate::cache::local::Fact;
use crate::cache::redis::fields::{Reader, Writer};
use crate::cache::redis::seal::{OVERHEAD_BYTES, Sealer};
use crate::clock::UnixSeconds;
use crate::identity::{CredentialId, User, UserId};

/// A larger value is not shared: a user in thousands of groups is looked up in the store.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

/// Another layout has another number; replicas of two versions do not read each other's.
const FORMAT: u8 = 1;

/// What SQL said of a credential, when, and what it had seen by then.
#[derive(Debug, Clone)]
pub struct SharedValue {
    /// The last change that the read had seen. `None`: the store numbers none.
    pub version: Option<Sequence>,
    /// A moment before SQL was asked, by the asker's wall clock. In seconds, as all of doorward's wall clock; rounding
    /// makes it older, which is the safe side.
    pub confirmed: UnixSeconds,
    /// The answer. One with a CSRF secret is never shared.
    pub fact: Fact,
}

impl SharedValue {
    /// As it is written to Redis under this name. `None`: it is not to be shared, or there is no randomness.
    pub fn seal(&self, by: &Sealer, name: &str) -> Option<Vec<u8>> {
        let text = self.encode()?;
        let fits = text.len() + OVERHEAD_BYTES <= VALUE_BYTES_MAX;
        if fits { by.seal(name.as_bytes(), &text).ok() } else { None }
    }

    /// What somebody with our key wrote under this name. `None`: it was somebody else.
    pub fn open(by: &Sealer, name: &str, sealed: &[u8]) -> Option<Self> {
        if sealed.len() > VALUE_BYTES_MAX {
            return None;
        }
        Self::decode(&by.open(name.as_bytes(), sealed)?)
    }

    fn encode(&self) -> Option<Vec<u8>> {
        let Fact { id, expires, user, csrf_secret: None } = &self.fact else { return None };
        let mut to = Writer::new();
        to.byte(FORMAT);
        to.maybe_unsigned(self.version.map(|Sequence(version)| version));
        to.signed(self.confirmed.0);
        to.unsigned(id.0);
        to.byte(expires.is_some().into());
        if let Some(UnixSeconds(expires)) = expires {
            to.signed(*expires);
        }
        to.signed(user.id.0);
        to.byte(user.is_active.into());
        to.byte(user.is_staff.into());
        to.signed(user.password_version);
        to.signed(user.not_before);
        to.text(&user.username);
        to.text(&user.email);
        to.length(user.groups.len());
        for group in &user.groups {
            to.text(group);
        }
        Some(to.finish())
    }

    fn decode(text: &[u8]) -> Option<Self> {
        let mut from = Reader::new(text);
        if from.byte()? != FORMAT {
            return None;
        }
        let version = from.maybe_unsigned()?.map(Sequence);
        let confirmed = UnixSeconds(from.signed()?);
        let id = CredentialId(from.unsigned()?);
        let expires = if from.flag()? { Some(UnixSeconds(from.signed()?)) } else { None };
        let user = user(&mut from)?;
        from.end()?;
        Some(Self { version, confirmed, fact: Fact { id, expires, user, csrf_secret: None } })
    }
}

fn user(from: &mut Reader<'_>) -> Option<User> {
    let id = UserId(from.signed()?);
    let (is_active, is_staff) = (from.flag()?, from.flag()?);
    let (password_version, not_before) = (from.signed()?, from.signed()?);
    let username = from.text()?.into();
    let email = from.text()?.into();
    // Each has its length before it.
    let count = from.length(4)?;
    let mut groups: Vec<Box<str>> = Vec::with_capacity(count);
    for _ in 0..count {
        groups.push(from.text()?.into());
    }
    let groups = groups.into();
    Some(User { id, is_active, is_staff, username, groups, email, password_version, not_before })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::redis::seal::Keys;
    use crate::secret::Secret;
    use proptest::prelude::*;
    use std::sync::Arc;

    const NAME: &str = "doorward:v:name";

    fn keys() -> Keys {
        Keys::new(&Secret::new("k"), b"store", "doorward:").unwrap()
    }

    prop_compose! {
        fn any_value()(
            version: Option<u64>,
            confirmed: i64,
            id: u64,
            expires: Option<i64>,
            user: i64,
            flags: (bool, bool),
            numbers: (i64, i64),
            username: String,
            email: String,
            groups in prop::collection::vec(any::<String>(), 0..5),
        ) -> SharedValue {
            let user = User {
                id: UserId(user),
                is_active: flags.0,
                is_staff: flags.1,
                username: username.into(),
                groups: groups.into_iter().map(Into::into).collect(),
                email: email.into(),
                password_version: numbers.0,
                not_before: numbers.1,
            };
            let expires = expires.map(UnixSeconds);
            let fact = Fact { id: CredentialId(id), expires, user, csrf_secret: None };
            SharedValue { version: version.map(Sequence), confirmed: UnixSeconds(confirmed), fact }
        }
    }

    fn assert_same(one: &SharedValue, other: &SharedValue) {
        assert_eq!((one.version, one.confirmed), (other.version, other.confirmed));
        assert_eq!((one.fact.id, one.fact.expires), (other.fact.id, other.fact.expires));
        assert_eq!(one.fact.user, other.fact.user);
        assert!(one.fact.csrf_secret.is_none() && other.fact.csrf_secret.is_none());
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(value in any_value()) {
            let keys = keys();
            let sealed = value.seal(&keys.values, NAME).unwrap();
            assert_same(&SharedValue::open(&keys.values, NAME, &sealed).unwrap(), &value);
            prop_assert!(SharedValue::open(&keys.values, "doorward:v:other", &sealed).is_none());
        }

        #[test]
        fn every_changed_or_lost_byte_is_refused(value in any_value(), place: prop::sample::Index, bit in 0..8) {
            let keys = keys();
            let sealed = value.seal(&keys.values, NAME).unwrap();
            let mut changed = sealed.clone();
            *place.get_mut(&mut changed) ^= 1_u8 << bit;
            prop_assert!(SharedValue::open(&keys.values, NAME, &changed).is_none());
            prop_assert!(SharedValue::open(&keys.values, NAME, &sealed[..place.index(sealed.len())]).is_none());
        }

        /// Even what is sealed by us is read with care: another version of doorward may have written it.
        #[test]
        fn one_value_has_one_encoding_and_nothing_panics(value in any_value(), place: prop::sample::Index, byte: u8, more: Vec<u8>) {
            let text = value.encode().unwrap();
            let mut changed = text.clone();
            *place.get_mut(&mut changed) = byte;
            if let Some(read) = SharedValue::decode(&changed) {
                prop_assert_eq!(read.encode().unwrap(), changed);
            }
            prop_assert!(SharedValue::decode(&text[..place.index(text.len())]).is_none());
            prop_assert_eq!(SharedValue::decode(&more).is_some_and(|read| read.encode().unwrap() != more), false);
            let longer = [text.as_slice(), &more].concat();
            prop_assert_eq!(SharedValue::decode(&longer).is_some(), more.is_empty());
        }
    }

    fn value() -> SharedValue {
        let user = User {
            id: UserId(1),
            is_active: true,
            is_staff: false,
            username: "alice".into(),
            groups: Box::default(),
            email: "alice@example.com".into(),
            password_version: 1,
            not_before: 0,
        };
        let fact = Fact { id: CredentialId(1), expires: None, user, csrf_secret: None };
        SharedValue { version: Some(Sequence(1)), confirmed: UnixSeconds(1), fact }
    }

    #[test]
    fn what_holds_a_secret_or_is_too_large_is_not_shared() {
        let sealer = keys().values;
        assert!(value().seal(&sealer, NAME).is_some());
        let mut secret = value();
        secret.fact.csrf_secret = Some(Arc::new(Secret::new("s")));
        assert!(secret.seal(&sealer, NAME).is_none());
        let mut large = value();
        large.fact.user.email = "x".repeat(VALUE_BYTES_MAX).into();
        assert!(large.seal(&sealer, NAME).is_none());
    }

    #[test]
    fn nothing_of_the_user_is_in_clear() {
        let sealed = value().seal(&keys().values, NAME).unwrap();
        assert!(!sealed.windows(5).any(|window| window == b"alice"));
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        let mut text = value().encode().unwrap();
        let length = text.len();
        text[length - 4..].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(SharedValue::decode(&text).is_none());
    }
}
