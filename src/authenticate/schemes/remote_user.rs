//! A name in a header that a trusted peer vouches for: exactly as Django REST framework's `RemoteUserAuthentication`
//! (3.18), but believed from listed peers alone.
//!
//! Who the peer is the socket says, not a header. From everybody else the field was removed before anybody saw it.

use crate::accept::head::Head;
use crate::authenticate::lookups::Lookups;
use crate::authenticate::scheme::{Context, Effects, Identity, NobodyKnows, Recall, Scheme, Verdict};
use crate::cache::local::{self, CredentialKey, Fact, Known, Loaded};
use crate::credentials::{Credentials, CredentialsError};
use crate::identity::{Digest, Family, SchemeKind};
use crate::store::StoreError;
use crate::trace::AnsweredBy;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// One instance of the remote-user scheme.
#[derive(Debug)]
pub struct RemoteUserScheme {
    header: HeaderName,
    peers: Vec<IpNet>,
    users: Arc<RemoteUsers>,
}

/// Where names are looked up.
#[derive(Debug)]
pub struct RemoteUsers {
    lookups: Arc<Lookups>,
    credentials: Arc<Credentials>,
    /// Unknown ones are added.
    creates: bool,
}

impl RemoteUserScheme {
    /// An instance that believes this field from these peers.
    pub fn new(header: HeaderName, peers: Vec<IpNet>, users: RemoteUsers) -> Self {
        Self { header, peers, users: Arc::new(users) }
    }

    /// The name that the peer gives. `None`: nobody's, or nobody is to be believed.
    fn name<'h>(&self, head: &'h Head) -> Option<Cow<'h, str>> {
        let address = head.peer.address.ip().to_canonical();
        if !self.peers.iter().any(|net| net.contains(&address)) {
            return None;
        }
        let mut values = head.claimed.values_from_checked_peer(&self.header);
        let first = values.next()?.as_bytes();
        let Some(second) = values.next() else {
            return Some(text(Cow::Borrowed(first))).filter(|name| !name.is_empty());
        };
        // As a WSGI server joins them: two names are one that nobody has.
        let mut name = first.to_vec();
        for value in std::iter::once(second).chain(values) {
            name.push(b',');
            name.extend_from_slice(value.as_bytes());
        }
        Some(text(Cow::Owned(name)))
    }
}

/// UTF-8; what is not is of ISO 8859-1, as WSGI reads it.
fn text(name: Cow<'_, [u8]>) -> Cow<'_, str> {
    let latin1 = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect();
    match name {
        Cow::Borrowed(bytes) => {
            std::str::from_utf8(bytes).map_or_else(|_| Cow::Owned(latin1(bytes)), Cow::Borrowed)
        }
        Cow::Owned(bytes) => {
            Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|error| latin1(error.as_bytes())))
        }
    }
}

impl Scheme for RemoteUserScheme {
    fn kind(&self) -> SchemeKind {
        SchemeKind::RemoteUser
    }

    fn challenge(&self, _: Option<&str>) -> Option<HeaderValue> {
        None
    }

    fn recall(&self, head: &Head, context: &Context, _: &mut Effects) -> Recall {
        let Some(name) = self.name(head) else { return Recall::NotMine };
        let key = CredentialKey { digest: Digest::of(name.as_bytes()), family: Family::RemoteUser };
        let stale = context.stale_while_unreachable;
        match context.recall(&self.users.lookups.cache, &key) {
            local::Recall::Known(known) => Recall::Answer(judge(known, AnsweredBy::Local)),
            local::Recall::Stale(known) => Recall::Answer(judge(known, AnsweredBy::Stale)),
            local::Recall::Unknown(_) => Recall::NotMine,
            local::Recall::Miss => {
                Recall::Ask(Box::pin(Arc::clone(&self.users).verify(key, name.into_owned(), stale)))
            }
        }
    }
}

impl RemoteUsers {
    /// `creates`: unknown users are added (Django 5.2, `RemoteUserBackend.create_unknown_user`).
    pub fn new(lookups: Arc<Lookups>, credentials: Arc<Credentials>, creates: bool) -> Self {
        Self { lookups, credentials, creates }
    }

    async fn verify(
        self: Arc<Self>,
        key: CredentialKey,
        name: String,
        stale: Duration,
    ) -> Result<(Verdict, Effects), NobodyKnows> {
        let Lookups { cache, store, clock, metrics, .. } = &*self.lookups;
        let id = self.lookups.id(&key);
        let ask = || async {
            let find = || metrics.measure("find-user", store.find_user(&name));
            let mut found = find().await?;
            if found.is_none() && self.creates && self.create(&name).await? {
                found = find().await?;
            }
            Ok::<_, StoreError>(found.map(|found| Fact {
                id,
                expires: None,
                user: found.user,
                csrf_secret: None,
            }))
        };
        let loaded = cache.load(key, clock.as_ref(), stale, ask).await.map_err(NobodyKnows)?;
        let verdict = match loaded {
            Loaded::Known(known) => judge(known, AnsweredBy::Store),
            Loaded::Shared(known) => judge(known, AnsweredBy::Redis),
            Loaded::Stale(known) => judge(known, AnsweredBy::Stale),
            Loaded::Unknown(_) => Verdict::NotMine,
        };
        Ok((verdict, Effects::default()))
    }

    /// Adds a user who cannot log in with a password. `false`: no user can have this name.
    async fn create(&self, name: &str) -> Result<bool, StoreError> {
        match self.credentials.add_remote_user(name).await {
            Ok(()) => {
                tracing::info!("a user was added whom a trusted peer vouches for");
                Ok(true)
            }
            // Somebody was faster.
            Err(CredentialsError::Store(StoreError::Conflict)) => Ok(true),
            Err(CredentialsError::Store(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }
}

/// An inactive user is nobody (Django 5.2, `RemoteUserBackend.authenticate`).
fn judge(known: Known, answered_by: AnsweredBy) -> Verdict {
    if known.user.user.is_active {
        Verdict::Verified(Identity::of(known, SchemeKind::RemoteUser), answered_by)
    } else {
        Verdict::NotMine
    }
}
