//! What commands ask about tokens, in our own tables: pages, and many rows in one transaction.

use crate::identity::{Digest, UserId};
use crate::store::manage::{BatchToken, ManageTokens, Progress, TokenBatch, TokenPage, TokenPlace};
use crate::store::own::Own;
use crate::store::own::tokens::{digest, origin_name, summary};
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sql::text::list;
use crate::store::sql::{Link, Row, Value, values};
use crate::store::{NewToken, StoreError, StoreFuture, TokenOrigin, Written};
use std::fmt::Write as _;

/// Rows of one INSERT. More take no less time a row (each statement is a message to SQLite's thread, or to a server),
/// and SQLite takes 32,766 values at most.
pub(super) const INSERT_ROWS: usize = 250;
/// Digests that one statement asks for.
const DIGESTS: usize = 500;

/// By the primary key, so that a page costs the same wherever it begins.
macro_rules! page {
    ($condition:literal) => {
        concat!(
            r#"SELECT token.id, token.public_id, "user".username, token.name, token.origin, token.created_at,
                token.expires_at, token.last_used_at FROM token JOIN "user" ON "user".id = token.user_id
                WHERE token.id > ?1 "#,
            $condition,
            " ORDER BY token.id LIMIT ?2"
        )
    };
}
const PAGE_OF_ALL: &str = page!("AND token.user_id > 0");
const PAGE_OF_USER: &str = page!("AND token.user_id = ?3");

const COUNT: &str = "SELECT count(*) AS tokens FROM token WHERE user_id = ?1";
const DIGESTS_OF_USER: &str = "SELECT digest FROM token WHERE user_id = ?1 ORDER BY id";
const DELETE_OF_USER: &str = "DELETE FROM token WHERE user_id = ?1";
const TAKEN: &str = "SELECT digest FROM token WHERE digest IN ";

fn page(rows: &[Row], limit: u32) -> sqlx::Result<TokenPage> {
    let is_full = rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = rows.last().filter(|_| is_full).map(|row| row.integer("id").map(TokenPlace)).transpose()?;
    let tokens = rows.iter().map(summary).collect::<sqlx::Result<_>>()?;
    Ok(TokenPage { tokens, next })
}

/// What the rows of one INSERT have in common.
pub(super) struct Common {
    name: String,
    origin: TokenOrigin,
    created: i64,
    expires: Option<i64>,
}

impl Common {
    /// Tokens of a batch have no names.
    pub(super) fn of(batch: &TokenBatch) -> Self {
        let expires = batch.expires.map(|expires| expires.0);
        Self { name: String::new(), origin: batch.origin, created: batch.created.0, expires }
    }
}

/// Stores this many at once: [`INSERT_ROWS`] at most.
pub(super) async fn insert(link: &mut Link, common: &Common, rows: &[BatchToken]) -> Result<(), StoreError> {
    let mut values: Vec<Value> =
        values![common.name.clone(), origin_name(common.origin), common.created, common.expires];
    for row in rows {
        values.extend(values![row.id.0.cast_signed(), row.digest, row.user.0]);
    }
    link.run(&insert_statement(rows.len()), values).await.map(drop).map_err(not_written)
}

/// The first four values are common to all rows, three more are each one's own.
fn insert_statement(rows: usize) -> String {
    let columns = "name, origin, created_at, expires_at, public_id, digest, user_id";
    let mut text = format!("INSERT INTO token ({columns}) VALUES");
    for row in 0..rows {
        let (separator, first) = (if row == 0 { "" } else { "," }, 5 + 3 * row);
        // Writing to a string never fails.
        write!(text, "{separator} (?1, ?2, ?3, ?4, ?{first}, ?{}, ?{})", first + 1, first + 2)
            .unwrap_or_default();
    }
    text
}

/// Deletes the tokens of a user.
async fn delete_of_user(link: &mut Link, user: UserId) -> sqlx::Result<Vec<Digest>> {
    let rows = link.all(DIGESTS_OF_USER, values![user.0]).await?;
    link.run(DELETE_OF_USER, values![user.0]).await?;
    rows.iter().filter_map(|row| digest(row).transpose()).collect()
}

impl Own {
    async fn insert_batch(&self, batch: &TokenBatch, progress: &Progress) -> Result<Written<()>, StoreError> {
        let common = Common::of(batch);
        let mut written = 0;
        let mut write = self.write().await?;
        for rows in batch.tokens.chunks(INSERT_ROWS) {
            insert(&mut write, &common, rows).await?;
            written += rows.len();
            progress(written);
        }
        write.commit(()).await
    }

    async fn taken(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let text = format!("{TAKEN}{}", list(1, digests.len()));
        let values = digests.iter().map(|digest| Value::from(*digest)).collect();
        let rows = self.database.read(&text, values).await?;
        rows.iter()
            .filter_map(|row| digest(row).transpose())
            .collect::<sqlx::Result<_>>()
            .map_err(unavailable)
    }
}

impl ManageTokens for Own {
    fn page_tokens(
        &self,
        user: Option<UserId>,
        after: Option<TokenPlace>,
        limit: u32,
    ) -> StoreFuture<'_, TokenPage> {
        Box::pin(async move {
            // Numbers of rows begin with 1.
            let mut values: Vec<Value> = values![after.map_or(0, |place| place.0), i64::from(limit)];
            values.extend(user.map(|user| Value::from(user.0)));
            let statement = if user.is_some() { PAGE_OF_USER } else { PAGE_OF_ALL };
            page(&self.database.read(statement, values).await?, limit).map_err(unavailable)
        })
    }

    fn count_tokens(&self, user: UserId) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            let rows = self.database.list(COUNT, values![user.0]).await?;
            let count = rows.first().map_or(Ok(0), |row| row.integer("tokens"));
            Ok(count.map_err(unavailable)?.unsigned_abs())
        })
    }

    fn replace_tokens(&self, token: NewToken) -> StoreFuture<'_, Written<Vec<Digest>>> {
        Box::pin(async move {
            let common = Common {
                name: token.name,
                origin: token.origin,
                created: token.created.0,
                expires: token.expires.map(|expires| expires.0),
            };
            let row = BatchToken { id: token.id, digest: token.digest, user: token.user };
            let mut write = self.write().await?;
            let deleted = delete_of_user(&mut write, token.user).await.map_err(not_written)?;
            insert(&mut write, &common, &[row]).await?;
            write.commit(deleted).await
        })
    }

    fn delete_tokens(&self, user: UserId) -> StoreFuture<'_, Written<Vec<Digest>>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let deleted = delete_of_user(&mut write, user).await.map_err(not_written)?;
            write.commit(deleted).await
        })
    }

    fn taken_digests(&self, digests: Vec<Digest>) -> StoreFuture<'_, Vec<Digest>> {
        Box::pin(async move {
            let mut taken = Vec::new();
            for digests in digests.chunks(DIGESTS) {
                taken.extend(self.taken(digests).await?);
            }
            Ok(taken)
        })
    }

    fn insert_tokens(&self, batch: TokenBatch, progress: Progress) -> StoreFuture<'_, Written<()>> {
        Box::pin(async move {
            self.database.expect_many(true).await?;
            let written = self.insert_batch(&batch, &progress).await;
            // Whatever became of the batch: only memory would not be given back.
            self.database.expect_many(false).await.unwrap_or_default();
            written
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statement_numbers_its_values() {
        let text = insert_statement(2);
        assert!(
            text.ends_with("VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7), (?1, ?2, ?3, ?4, ?8, ?9, ?10)"),
            "{text}"
        );
    }
}
