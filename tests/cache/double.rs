//! A store that can be held in the middle of a look-up, can fail, and counts how often it is asked.
//!
//! A held look-up has read its row already: what is changed while it is held is what overtakes it.

use doorward::clock::UnixSeconds;
use doorward::identity::{CredentialId, Digest, User, UserId};
use doorward::secret::Secret;
use doorward::store::manage::{
    Account, Group, ManageTokens, ManageUsers, Progress, TokenBatch, TokenPage, TokenPlace, UserUpdate,
};
use doorward::store::session::{FoundSession, NewSession, SessionStore};
use doorward::store::{
    ChangeFeed, FoundToken, Grant, Granted, KeyStore, NewToken, NewUser, Store, StoreError, StoreFuture,
    TokenStore, TokenSummary, UserStore, UserWithPassword, Written,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// The store; only look-ups of tokens are answered.
#[derive(Debug)]
pub(crate) struct Double {
    rows: Mutex<HashMap<Digest, FoundToken>>,
    asked: watch::Sender<usize>,
    is_open: watch::Sender<bool>,
    fails: AtomicBool,
}

/// A user's facts; the version stands for whatever may change.
pub(crate) fn user(id: i64, version: i64) -> User {
    User {
        id: UserId(id),
        username: format!("user-{id}").into(),
        is_active: true,
        is_staff: false,
        groups: Box::new([]),
        email: "".into(),
        password_version: version,
        not_before: 0,
    }
}

impl Double {
    pub(crate) fn new() -> Self {
        Self {
            rows: Mutex::default(),
            asked: watch::channel(0).0,
            is_open: watch::channel(true).0,
            fails: AtomicBool::new(false),
        }
    }

    /// Makes or replaces a token.
    pub(crate) fn put(&self, digest: Digest, expires: Option<UnixSeconds>, user: User) {
        let token = FoundToken { id: CredentialId(1), created: UnixSeconds(0), expires, user, as_of: None };
        self.rows.lock().insert(digest, token);
    }

    pub(crate) fn delete(&self, digest: Digest) {
        self.rows.lock().remove(&digest);
    }

    /// Look-ups that begin from now on answer only when [`Self::open`] is called.
    pub(crate) fn hold(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Whether look-ups fail when they answer.
    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    /// Waits until it was asked so often.
    pub(crate) async fn wait_for_asked(&self, count: usize) {
        let mut asked = self.asked.subscribe();
        let wait = asked.wait_for(|asked| *asked >= count);
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the store is not asked").unwrap();
    }
}

fn never<T: Send + 'static>() -> StoreFuture<'static, T> {
    Box::pin(async { Err(StoreError::Unavailable("the cache never asks this".into())) })
}

impl TokenStore for Double {
    fn find_token(&self, digest: Digest) -> StoreFuture<'_, Option<FoundToken>> {
        Box::pin(async move {
            let row = self.rows.lock().get(&digest).cloned();
            self.asked.send_modify(|asked| *asked += 1);
            drop(self.is_open.subscribe().wait_for(|is_open| *is_open).await.unwrap());
            if self.fails.load(Ordering::SeqCst) {
                Err(StoreError::Unavailable("the test says so".into()))
            } else {
                Ok(row)
            }
        })
    }

    fn insert_token(&self, _: NewToken) -> StoreFuture<'_, Written<()>> {
        never()
    }

    fn grant_token<'a>(&'a self, _: NewToken, _: Grant<'a>) -> StoreFuture<'a, Written<Granted>> {
        never()
    }

    fn write_uses(&self, _: Vec<(CredentialId, UnixSeconds)>) -> StoreFuture<'_, ()> {
        never()
    }

    fn delete_token(&self, _: CredentialId) -> StoreFuture<'_, Written<Option<Digest>>> {
        never()
    }

    fn list_tokens(&self, _: Option<UserId>) -> StoreFuture<'_, Vec<TokenSummary>> {
        never()
    }
}

impl KeyStore for Double {}

impl SessionStore for Double {
    fn find_session(&self, _: Secret, _: UnixSeconds) -> StoreFuture<'_, FoundSession> {
        never()
    }

    fn insert_session(&self, _: NewSession) -> StoreFuture<'_, Written<bool>> {
        never()
    }

    fn delete_session(&self, _: Secret) -> StoreFuture<'_, Written<bool>> {
        never()
    }
}

impl UserStore for Double {
    fn user_by_id(&self, _: UserId) -> StoreFuture<'_, Option<User>> {
        never()
    }

    fn find_user(&self, _: &str) -> StoreFuture<'_, Option<UserWithPassword>> {
        never()
    }

    fn insert_user(&self, _: NewUser) -> StoreFuture<'_, Written<UserId>> {
        never()
    }

    fn set_active(&self, _: UserId, _: bool) -> StoreFuture<'_, Written<bool>> {
        never()
    }

    fn set_password(&self, _: UserId, _: Secret) -> StoreFuture<'_, Written<bool>> {
        never()
    }

    fn set_groups(&self, _: UserId, _: Vec<String>) -> StoreFuture<'_, Written<bool>> {
        never()
    }

    fn delete_user(&self, _: UserId) -> StoreFuture<'_, Written<bool>> {
        never()
    }
}

impl ManageUsers for Double {
    fn list_users(&self) -> StoreFuture<'_, Vec<Account>> {
        never()
    }

    fn user_ids(&self, _: Vec<String>) -> StoreFuture<'_, Vec<(String, UserId)>> {
        never()
    }

    fn update_user(&self, _: UserId, _: UserUpdate) -> StoreFuture<'_, Written<bool>> {
        never()
    }

    fn list_groups(&self) -> StoreFuture<'_, Vec<Group>> {
        never()
    }

    fn join_group(&self, _: &str, _: Vec<UserId>) -> StoreFuture<'_, Written<Vec<UserId>>> {
        never()
    }

    fn leave_group(&self, _: &str, _: Vec<UserId>) -> StoreFuture<'_, Written<Option<Vec<UserId>>>> {
        never()
    }
}

impl ManageTokens for Double {
    fn page_tokens(&self, _: Option<UserId>, _: Option<TokenPlace>, _: u32) -> StoreFuture<'_, TokenPage> {
        never()
    }

    fn count_tokens(&self, _: UserId) -> StoreFuture<'_, u64> {
        never()
    }

    fn replace_tokens(&self, _: NewToken) -> StoreFuture<'_, Written<Vec<Digest>>> {
        never()
    }

    fn delete_tokens(&self, _: UserId) -> StoreFuture<'_, Written<Vec<Digest>>> {
        never()
    }

    fn taken_digests(&self, _: Vec<Digest>) -> StoreFuture<'_, Vec<Digest>> {
        never()
    }

    fn insert_tokens(&self, _: TokenBatch, _: Progress) -> StoreFuture<'_, Written<()>> {
        never()
    }
}

impl Store for Double {
    fn insert_canary(&self, _: NewToken) -> StoreFuture<'_, Written<()>> {
        Box::pin(async { Err(StoreError::Foreign("the table of tokens")) })
    }

    fn insert_canaries(&self, _: TokenBatch) -> StoreFuture<'_, Written<()>> {
        never()
    }

    fn delete_canaries(&self, _: Vec<Digest>) -> StoreFuture<'_, Written<u64>> {
        never()
    }

    fn change_feed(&self) -> StoreFuture<'_, Box<dyn ChangeFeed>> {
        never()
    }

    fn prune(&self, _: UnixSeconds) -> StoreFuture<'_, ()> {
        never()
    }
}
