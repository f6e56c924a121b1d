//! Credentials that nobody has, made to see how long it takes until they are void everywhere.
//!
//! They are tokens of a user who is not active, so every permission refuses them, and their digest is of no key. Neither
//! is listed.

use crate::store::own::Own;
use crate::store::own::tokens::insert;
use crate::store::sql::error::not_written;
use crate::store::sql::values;
use crate::store::{CANARY_USER, NewToken, StoreError, Written};

/// No user of ours or of Django's has a number below 1.
const FIND: &str = r#"SELECT id FROM "user" WHERE id = ?1"#;
const MAKE: &str = r#"INSERT INTO "user" (id, username, password, email, is_active, created_at)
    VALUES (?1, '(canary)', '!canary', '', ?2, 0)"#;

impl Own {
    /// Stores a token of [`CANARY_USER`], who is made if need be.
    pub(in crate::store) async fn insert_canary(&self, token: NewToken) -> Result<Written<()>, StoreError> {
        let mut write = self.write().await?;
        let found = write.one(FIND, values![CANARY_USER.0]).await.map_err(not_written)?;
        if found.is_none() {
            write.run(MAKE, values![CANARY_USER.0, false]).await.map_err(not_written)?;
        }
        insert(&mut write, NewToken { user: CANARY_USER, ..token }).await?;
        write.commit(()).await
    }
}
