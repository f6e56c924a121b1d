//! Credentials that nobody has: no permission lets them pass, and no list names them.
//!
//! One at a time is made and revoked to see how long that takes; many are looked up to see how long that takes.

use crate::credentials::{Credentials, CredentialsError, TOKEN_BYTES, after, random};
use crate::identity::{CredentialId, Digest};
use crate::secret::Secret;
use crate::store::manage::{BatchToken, TokenBatch};
use crate::store::{CANARY_USER, NewToken, TokenOrigin, Written};
use std::time::Duration;

/// Most canaries that are stored or deleted at once: what changes by it fits into one message to other replicas, and
/// others write in between.
pub const CANARIES_MAX: usize = 500;

impl Credentials {
    /// Makes a credential that nobody has; it is there to be revoked. Yields its id and digest.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn make_canary(&self) -> Result<(CredentialId, Digest), CredentialsError> {
        let key = Secret::random_hex::<TOKEN_BYTES>("")?;
        let token = self.new_token(CANARY_USER, &key, "", TokenOrigin::Canary)?;
        let (id, digest) = (token.id, token.digest);
        // Whatever becomes of this process, it is pruned.
        let token = NewToken { expires: Some(token.created), ..token };
        self.announce(self.store.insert_canary(token).await?).await;
        Ok((id, digest))
    }

    /// Revokes it, as any other one, and has all other replicas say that they have dropped it. Yields the number of the
    /// message; `None`: they could not be told.
    ///
    /// # Errors
    /// If there is no such token, or the store cannot be written.
    pub async fn revoke_canary(&self, id: CredentialId) -> Result<Option<u64>, CredentialsError> {
        let Written { value, changes } = self.store.delete_token(id).await?;
        self.forget_all(&changes);
        value.ok_or(CredentialsError::NoSuchToken)?;
        let Some(shared) = &self.shared else { return Ok(None) };
        Ok(shared.invalidate_canary(&changes).await.ok())
    }

    /// Stores canaries with these digests, [`CANARIES_MAX`] at most. They are pruned some time after `lifetime`, whatever
    /// becomes of this process.
    ///
    /// # Errors
    /// If the store cannot be written: then all of them may be there, or none.
    pub async fn make_canaries(
        &self,
        digests: &[Digest],
        lifetime: Duration,
    ) -> Result<(), CredentialsError> {
        let tokens = digests.iter().map(|digest| {
            let id = CredentialId(u64::from_be_bytes(random()?));
            Ok(BatchToken { id, digest: *digest, user: CANARY_USER })
        });
        let tokens = tokens.collect::<Result<_, CredentialsError>>()?;
        let created = self.clock.unix();
        let (origin, expires) = (TokenOrigin::Canary, Some(after(created, lifetime)));
        let batch = TokenBatch { tokens, origin, created, expires };
        self.announce(self.store.insert_canaries(batch).await?).await;
        Ok(())
    }

    /// Deletes those of them that are there, and yields how many there were. Nobody waits until all replicas know: they
    /// never let one pass.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn remove_canaries(&self, digests: &[Digest]) -> Result<u64, CredentialsError> {
        Ok(self.announce(self.store.delete_canaries(digests.to_vec()).await?).await)
    }
}
