//! Names in Redis, and what makes its contents ours: keys made of the deployment key, one for each purpose.
//!
//! Whoever reads Redis learns nothing, and whoever writes to it can make nothing that is believed. Values and messages
//! are sealed with AES-256-GCM-SIV (RFC 8452): what an HMAC would vouch for is vouched for, and names, addresses and
//! digests of weak keys are not in Redis' memory and dumps besides. SIV, because nonces are random: a repeated one tells
//! that two texts are the same, and nothing else. Not AES-GCM, where it would give the key of the tags away.
//!
//! The store's identity is an input of every key: what belongs to another store does not open.

use crate::cache::local::CredentialKey;
use crate::identity::{Digest, Family};
use crate::secret::{NoRandomness, Secret};
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use std::fmt::Write as _;
use std::sync::Arc;

/// Bytes of a nonce.
pub(super) const NONCE_BYTES: usize = NONCE_LEN;
/// Bytes that sealing adds: the nonce before, the tag behind.
pub(super) const OVERHEAD_BYTES: usize = NONCE_BYTES + 16;

/// Seals one kind of text.
#[derive(Debug)]
pub struct Sealer(LessSafeKey);

/// The library takes no key of this length; it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cipher cannot be used")]
pub struct NoCipher;

impl Sealer {
    fn new(key: &[u8]) -> Result<Self, NoCipher> {
        UnboundKey::new(&AES_256_GCM_SIV, key).map(LessSafeKey::new).map(Self).map_err(|_| NoCipher)
    }

    /// The text, sealed: opens only under the same name. Begins with a nonce that no other has.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn seal(&self, name: &[u8], text: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        let nonce = random()?;
        let mut sealed = Vec::with_capacity(text.len() + OVERHEAD_BYTES);
        sealed.extend_from_slice(&nonce);
        let mut body = text.to_vec();
        let aad = Aad::from(name);
        let nonce = Nonce::assume_unique_for_key(nonce);
        // Fails for texts of gigabytes only.
        self.0.seal_in_place_append_tag(nonce, aad, &mut body).map_err(|_| NoRandomness)?;
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// The text, if it was sealed by us under this name.
    pub fn open(&self, name: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.0.open_in_place(nonce, Aad::from(name), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// Everything that is made of the deployment key.
#[derive(Debug)]
pub struct Keys {
    names: hmac::Key,
    counters: hmac::Key,
    prefix: Box<str>,
    channel: Arc<str>,
    /// Seals cached facts, each under its name in Redis.
    pub values: Sealer,
    /// Seals messages, under the channel's name.
    pub messages: Sealer,
}

impl Keys {
    /// Of one deployment and its store. `prefix` begins every name in Redis.
    ///
    /// # Errors
    /// Never.
    pub fn new(deployment_key: &Secret, store_identity: &[u8], prefix: &str) -> Result<Self, NoCipher> {
        let root = hmac::Key::new(hmac::HMAC_SHA256, deployment_key.expose());
        // A key for each purpose. A label has no zero byte, so no identity makes one label look like another.
        let derived = |label: &str| {
            let mut context = hmac::Context::with_key(&root);
            context.update(label.as_bytes());
            context.update(&[0]);
            context.update(store_identity);
            context.sign()
        };
        let names = hmac::Key::new(hmac::HMAC_SHA256, derived("doorward redis names").as_ref());
        // Deployments that share a server and a prefix by mistake do not hear each other.
        let mut channel = format!("{prefix}stream:");
        append_hex(&mut channel, hmac::sign(&names, b"stream").as_ref().get(..8).unwrap_or_default());
        Ok(Self {
            names,
            counters: hmac::Key::new(hmac::HMAC_SHA256, derived("doorward redis counters").as_ref()),
            prefix: prefix.into(),
            channel: channel.into(),
            values: Sealer::new(derived("doorward redis values").as_ref())?,
            messages: Sealer::new(derived("doorward redis messages").as_ref())?,
        })
    }

    /// What Redis calls a credential: says nothing to who has not the deployment key.
    pub fn name(&self, key: &CredentialKey) -> String {
        let CredentialKey { digest: Digest(digest), family } = key;
        let mut context = hmac::Context::with_key(&self.names);
        context.update(&[*family as u8]);
        context.update(digest);
        let mut name = String::with_capacity(self.prefix.len() + 2 + 64);
        name.push_str(&self.prefix);
        name.push_str("v:");
        append_hex(&mut name, context.sign().as_ref());
        name
    }

    /// What Redis calls a counter: tells neither address nor username, nor lets them be tried, without the deployment
    /// key.
    pub fn counter(&self, name: &[u8]) -> String {
        let mut key = format!("{}t:", self.prefix);
        append_hex(&mut key, hmac::sign(&self.counters, name).as_ref());
        key
    }

    /// The channel of messages, and the name of the key whose owner carries it.
    pub fn channel(&self) -> &Arc<str> {
        &self.channel
    }
}

/// Whether Redis may know of credentials of this kind. Verified passwords stay in process memory.
pub(super) fn is_shared(family: Family) -> bool {
    family != Family::Basic
}

fn append_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(key: &str, store: &[u8], prefix: &str) -> Keys {
        Keys::new(&Secret::new(key), store, prefix).unwrap()
    }

    #[test]
    fn names_differ_by_everything_that_they_are_made_of() {
        let credential = CredentialKey { digest: Digest::of(b"a"), family: Family::Doorward };
        let mut names: Vec<_> = [
            (keys("k", b"s", "p:"), credential),
            (keys("k", b"s", "q:"), credential),
            (keys("k", b"t", "p:"), credential),
            (keys("l", b"s", "p:"), credential),
            (keys("k", b"s", "p:"), CredentialKey { family: Family::Authtoken, ..credential }),
            (keys("k", b"s", "p:"), CredentialKey { digest: Digest::of(b"b"), ..credential }),
        ]
        .iter()
        .map(|(keys, credential)| keys.name(credential))
        .collect();
        assert_eq!(names[0], keys("k", b"s", "p:").name(&credential));
        assert_eq!(names[0].len(), "p:v:".len() + 64);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 6);
    }

    #[test]
    fn counters_differ_by_everything_that_they_are_made_of() {
        let mut names: Vec<_> = [
            keys("k", b"s", "p:").counter(b"a"),
            keys("k", b"s", "q:").counter(b"a"),
            keys("k", b"t", "p:").counter(b"a"),
            keys("l", b"s", "p:").counter(b"a"),
            keys("k", b"s", "p:").counter(b"b"),
        ]
        .into();
        assert_eq!(names[0], keys("k", b"s", "p:").counter(b"a"));
        assert_eq!(names[0].len(), "p:t:".len() + 64);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 5);
    }

    #[test]
    fn channels_differ_by_deployment_and_store() {
        let channel = |key, store| Arc::clone(keys(key, store, "p:").channel());
        assert_eq!(channel("k", b"s"), channel("k", b"s"));
        assert_ne!(channel("k", b"s"), channel("l", b"s"));
        assert_ne!(channel("k", b"s"), channel("k", b"t"));
    }

    #[test]
    fn nothing_opens_with_another_key_name_store_or_purpose() {
        let ours = keys("k", b"s", "p:");
        let sealed = ours.values.seal(b"name", b"text").unwrap();
        assert_eq!(ours.values.open(b"name", &sealed).unwrap(), b"text");
        assert_eq!(ours.values.open(b"nome", &sealed), None);
        assert_eq!(ours.messages.open(b"name", &sealed), None);
        assert_eq!(keys("l", b"s", "p:").values.open(b"name", &sealed), None);
        assert_eq!(keys("k", b"t", "p:").values.open(b"name", &sealed), None);
        assert_ne!(sealed, ours.values.seal(b"name", b"text").unwrap(), "two nonces");
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_seen(text: Vec<u8>, place: prop::sample::Index, change in 1..=u8::MAX) {
            let keys = keys("k", b"s", "p:");
            let mut sealed = keys.values.seal(b"name", &text).unwrap();
            prop_assert_eq!(keys.values.open(b"name", &sealed), Some(text));
            *place.get_mut(&mut sealed) ^= change;
            prop_assert_eq!(keys.values.open(b"name", &sealed), None);
        }

        #[test]
        fn no_length_panics(sealed: Vec<u8>) {
            prop_assert_eq!(keys("k", b"s", "p:").values.open(b"name", &sealed), None);
        }
    }
}
