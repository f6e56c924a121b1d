//! Credentials that nobody has, made to see how long it takes until they are void everywhere.
//!
//! They are tokens of a user who is not active, so every permission refuses them, and their digest is of no key. Neither
//! is listed.

use crate::identity::Digest;
use crate::store::manage::{BatchToken, TokenBatch};
use crate::store::own::Own;
use crate::store::own::bulk::{self, Common, INSERT_ROWS};
use crate::store::own::tokens::insert;
use crate::store::own::write::Write;
use crate::store::sql::error::not_written;
use crate::store::sql::text::list;
use crate::store::sql::{Value, values};
use crate::store::{CANARY_USER, NewToken, StoreError, Written};

/// No user of ours or of Django's has a number below 1.
const FIND: &str = r#"SELECT id FROM "user" WHERE id = ?1"#;
const MAKE: &str = r#"INSERT INTO "user" (id, username, password, email, is_active, created_at)
    VALUES (?1, '(canary)', '!canary', '', ?2, 0)"#;
const DELETE: &str = "DELETE FROM token WHERE user_id = ?1 AND digest IN ";
/// Digests that one statement names.
const DIGESTS: usize = 500;

impl Own {
    /// Stores a token of [`CANARY_USER`], who is made if need be.
    pub(in crate::store) async fn insert_canary(&self, token: NewToken) -> Result<Written<()>, StoreError> {
        let mut write = self.write().await?;
        make_user(&mut write).await?;
        insert(&mut write, NewToken { user: CANARY_USER, ..token }).await?;
        write.commit(()).await
    }

    /// Stores many of them.
    pub(in crate::store) async fn insert_canaries(
        &self,
        mut batch: TokenBatch,
    ) -> Result<Written<()>, StoreError> {
        let tokens = std::mem::take(&mut batch.tokens).into_iter();
        let tokens: Vec<BatchToken> = tokens.map(|token| BatchToken { user: CANARY_USER, ..token }).collect();
        let mut write = self.write().await?;
        make_user(&mut write).await?;
        for rows in tokens.chunks(INSERT_ROWS) {
            bulk::insert(&mut write, &Common::of(&batch), rows).await?;
        }
        write.commit(()).await
    }

    /// Deletes them; tokens of anybody else stay.
    pub(in crate::store) async fn delete_canaries(
        &self,
        digests: &[Digest],
    ) -> Result<Written<u64>, StoreError> {
        let mut write = self.write().await?;
        let mut deleted = 0;
        for digests in digests.chunks(DIGESTS) {
            let mut values: Vec<Value> = values![CANARY_USER.0];
            values.extend(digests.iter().map(|digest| Value::from(*digest)));
            let text = format!("{DELETE}{}", list(2, digests.len()));
            deleted += write.run(&text, values).await.map_err(not_written)?;
        }
        write.commit(deleted).await
    }
}

async fn make_user(write: &mut Write) -> Result<(), StoreError> {
    let found = write.one(FIND, values![CANARY_USER.0]).await.map_err(not_written)?;
    if found.is_none() {
        write.run(MAKE, values![CANARY_USER.0, false]).await.map_err(not_written)?;
    }
    Ok(())
}
