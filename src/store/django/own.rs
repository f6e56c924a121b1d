//! Tokens that doorward issues to Django's users: in the own store, of users who are mirrored there.

use crate::clock::UnixSeconds;
use crate::identity::{CredentialId, Digest, User, UserId};
use crate::store::django::Django;
use crate::store::manage::{ManageTokens, Progress, TokenBatch, TokenPage, TokenPlace};
use crate::store::sql::error::unavailable;
use crate::store::{
    CANARY_USER, Change, FoundToken, Grant, Granted, NewToken, StoreError, StoreFuture, TokenStore,
    TokenSummary, UserStore as _, Written,
};
use std::collections::BTreeSet;

impl Django {
    /// Puts the user into the own store, as Django knows it now.
    async fn mirror(&self, user: UserId) -> Result<Vec<Change>, StoreError> {
        match self.user_by_id(user).await? {
            Some(user) => self.own.mirror(&user).await.map(voided),
            None => Err(StoreError::NotWritten("there is no such user".into())),
        }
    }
}

/// What a write to the own store made void. Its numbers say nothing of Django's tables, on which the cached answers
/// depend as well.
fn voided(written: Written<()>) -> Vec<Change> {
    written.changes.changes
}

/// A write to the own store, and what was made void for it before.
fn after<T>(mut changes: Vec<Change>, written: Written<T>) -> Written<T> {
    changes.extend(written.changes.changes);
    Written::unnumbered(written.value, changes)
}

impl TokenStore for Django {
    fn find_token(&self, digest: Digest) -> StoreFuture<'_, Option<FoundToken>> {
        Box::pin(async move {
            let Some(found) = self.own.find_token(digest).await? else { return Ok(None) };
            // Whatever the mirror says: whose it is and whether active is Django's to say.
            let user = self.user_by_id(found.user.id).await?;
            if found.user.id == CANARY_USER && user.is_none() {
                // Nobody of Django's, and never active; asked for all the same, so that it costs what others cost.
                let user = User { is_active: false, ..found.user };
                return Ok(Some(FoundToken { user, as_of: None, ..found }));
            }
            // Ids come back where rows are deleted, or another database is put in place: then it is somebody else.
            let Some(user) = user else { return Ok(None) };
            if user.username != found.user.username {
                tracing::warn!(
                    user.id = user.id.0,
                    credential.id = %found.id,
                    "a token is void: its user has another name now, and may be another one"
                );
                return Ok(None);
            }
            Ok(Some(FoundToken { user, as_of: None, ..found }))
        })
    }

    fn insert_token(&self, token: NewToken) -> StoreFuture<'_, Written<()>> {
        Box::pin(async move {
            let mirrored = self.mirror(token.user).await?;
            Ok(after(mirrored, self.own.insert_token(token).await?))
        })
    }

    fn grant_token<'a>(&'a self, token: NewToken, grant: Grant<'a>) -> StoreFuture<'a, Written<Granted>> {
        Box::pin(async move {
            let user = self.database.bounded(async {
                let mut link = self.database.reader().await.map_err(unavailable)?;
                let user = self.unchanged(&mut link, token.user, grant.password_version, false).await;
                user.map_err(unavailable)
            });
            let Some(user) = user.await? else { return Ok(Written::nothing(Granted::Void)) };
            let mirrored = voided(self.own.mirror(&user.user).await?);
            Ok(after(mirrored, self.own.grant_token(token, grant).await?))
        })
    }

    fn write_uses(&self, uses: Vec<(CredentialId, UnixSeconds)>) -> StoreFuture<'_, ()> {
        self.own.write_uses(uses)
    }

    fn delete_token(&self, id: CredentialId) -> StoreFuture<'_, Written<Option<Digest>>> {
        Box::pin(async move { Ok(after(Vec::new(), self.own.delete_token(id).await?)) })
    }

    fn list_tokens(&self, user: Option<UserId>) -> StoreFuture<'_, Vec<TokenSummary>> {
        self.own.list_tokens(user)
    }
}

impl ManageTokens for Django {
    fn page_tokens(
        &self,
        user: Option<UserId>,
        after: Option<TokenPlace>,
        limit: u32,
    ) -> StoreFuture<'_, TokenPage> {
        self.own.page_tokens(user, after, limit)
    }

    fn count_tokens(&self, user: UserId) -> StoreFuture<'_, u64> {
        self.own.count_tokens(user)
    }

    fn replace_tokens(&self, token: NewToken) -> StoreFuture<'_, Written<Vec<Digest>>> {
        Box::pin(async move {
            let mirrored = self.mirror(token.user).await?;
            Ok(after(mirrored, self.own.replace_tokens(token).await?))
        })
    }

    /// The one key that DRF knows of the user goes, too.
    fn delete_tokens(&self, user: UserId) -> StoreFuture<'_, Written<Vec<Digest>>> {
        Box::pin(async move {
            let Written { value: mut deleted, changes } = self.own.delete_tokens(user).await?;
            let mut changes = changes.changes;
            let keys = self.delete_keys_of(user).await?;
            changes.extend(keys.iter().map(|key| Change::Credential(*key)));
            deleted.extend(keys);
            Ok(Written::unnumbered(deleted, changes))
        })
    }

    fn taken_digests(&self, digests: Vec<Digest>) -> StoreFuture<'_, Vec<Digest>> {
        self.own.taken_digests(digests)
    }

    fn insert_tokens(&self, batch: TokenBatch, progress: Progress) -> StoreFuture<'_, Written<()>> {
        Box::pin(async move {
            let users: BTreeSet<UserId> = batch.tokens.iter().map(|token| token.user).collect();
            let mut mirrored = Vec::new();
            for user in users {
                mirrored.extend(self.mirror(user).await?);
            }
            Ok(after(mirrored, self.own.insert_tokens(batch, progress).await?))
        })
    }
}
