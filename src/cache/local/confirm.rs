//! Takes in what the store said of many credentials at once, without anybody waiting for it.

use crate::cache::local::{CredentialKey, Invalidation, Known, LocalCache};
use crate::cache::touched::Moment;
use crate::clock::{Monotonic, UnixSeconds};
use crate::identity::User;
use crate::secret::Secret;
use std::sync::Arc;

/// What the store says of a credential that is known already.
#[derive(Debug, Clone)]
pub struct Confirmed {
    /// Whose it is.
    pub user: User,
    /// As in [`Fact`](crate::cache::local::Fact).
    pub expires: Option<UnixSeconds>,
    /// As in [`Fact`](crate::cache::local::Fact).
    pub csrf_secret: Option<Secret>,
}

impl LocalCache {
    /// To be had before the store is asked.
    pub fn confirming(&self) -> Moment {
        self.touched.now()
    }

    /// The store was asked at this moment, after [`Self::confirming`] was had, and said this of a credential. `None`: it
    /// is nobody's. Only what is cached already is confirmed.
    pub fn confirm(&self, key: CredentialKey, said: Option<Confirmed>, asked: Monotonic, moment: Moment) {
        let held = self.credentials.peek(&key);
        let Some(said) = said else {
            // Unless somebody asked later, and was told something else. Whoever asks now puts nothing back.
            if held.is_none_or(|held| held.confirmed < asked) {
                self.invalidate(Invalidation::Credential(key));
            }
            return;
        };
        let Some(held) = held else { return };
        if held.confirmed >= asked || self.touched.since(self.hash(&key), moment) {
            return;
        }
        let Some(user) = self.adopt_user(said.user, asked, moment) else { return };
        let known = Known {
            user,
            id: held.id,
            csrf_secret: said.csrf_secret.map(Arc::new),
            expires: said.expires.unwrap_or(UnixSeconds(i64::MAX)),
            confirmed: asked,
        };
        // Fails where it is gone, or is being asked for. It is none the hotter for it.
        if self.credentials.replace(key, known, true).is_ok() && self.touched.since(self.hash(&key), moment) {
            self.credentials.remove(&key);
        }
    }
}
