//! What commands ask about tokens, in SQLite: pages, and many rows in one transaction.

use crate::identity::{Digest, UserId};
use crate::store::manage::{BatchToken, ManageTokens, Progress, TokenBatch, TokenPage, TokenPlace};
use crate::store::sqlite::Sqlite;
use crate::store::sqlite::error::{not_written, unavailable};
use crate::store::sqlite::tokens::{SummaryRow, origin_name};
use crate::store::{NewToken, StoreError, StoreFuture, TokenOrigin, Written};
use sqlx::{AssertSqlSafe, FromRow, SqliteConnection};
use std::fmt::Write as _;

/// Rows of one INSERT. More take no less time a row (each statement is a message to the connection's thread), and
/// SQLite takes 32,766 values at most.
const INSERT_ROWS: usize = 250;

/// Settings of the connection while it writes a batch. Pages of the file stay in memory (KiB): the indexes of a million
/// tokens. With SQLite's 2 MiB each row would read its place in them again, and write it out again. What a statement
/// would need to be undone stays there as well: the trigger on each row makes SQLite keep it, in a file by default,
/// which takes as long as all the rest.
const BATCH_SETTINGS: &str = "PRAGMA cache_size = -131072; PRAGMA temp_store = MEMORY";
/// SQLite's own defaults.
const USUAL_SETTINGS: &str = "PRAGMA cache_size = -2000; PRAGMA temp_store = DEFAULT";

/// By the primary key, so that a page costs the same wherever it begins.
macro_rules! page {
    ($condition:literal) => {
        concat!(
            "SELECT token.id, token.public_id, user.username, token.name, token.origin, token.created_at,
                token.expires_at, token.last_used_at FROM token JOIN user ON user.id = token.user_id
                WHERE token.id > ?1 ",
            $condition,
            " ORDER BY token.id LIMIT ?2"
        )
    };
}
const PAGE_OF_ALL: &str = page!("");
const PAGE_OF_USER: &str = page!("AND token.user_id = ?3");

const COUNT: &str = "SELECT count(*) FROM token WHERE user_id = ?1";
const DELETE_OF_USER: &str = "DELETE FROM token WHERE user_id = ?1 RETURNING digest";
/// Digests as a JSON array of hex, so that one statement does for any number of them.
const TAKEN: &str = "SELECT digest FROM token WHERE digest IN (SELECT unhex(value) FROM json_each(?1))";

#[derive(FromRow)]
struct PageRow {
    id: i64,
    #[sqlx(flatten)]
    summary: SummaryRow,
}

fn page(rows: Vec<PageRow>, limit: u32) -> sqlx::Result<TokenPage> {
    let is_full = rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = rows.last().filter(|_| is_full).map(|row| TokenPlace(row.id));
    let tokens = rows.into_iter().map(|row| row.summary.into_summary()).collect::<sqlx::Result<_>>()?;
    Ok(TokenPage { tokens, next })
}

/// What the rows of one INSERT have in common.
struct Common {
    name: String,
    origin: TokenOrigin,
    created: i64,
    expires: Option<i64>,
}

async fn insert(
    connection: &mut SqliteConnection,
    common: &Common,
    rows: &[BatchToken],
) -> Result<(), StoreError> {
    // Numbers and nothing else are put into the text.
    let mut query = sqlx::query(AssertSqlSafe(insert_statement(rows.len())))
        .bind(common.name.clone())
        .bind(origin_name(common.origin))
        .bind(common.created)
        .bind(common.expires);
    for row in rows {
        query = query.bind(row.id.0.cast_signed()).bind(row.digest.0.to_vec()).bind(row.user.0);
    }
    query.execute(connection).await.map_err(not_written)?;
    Ok(())
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

impl Sqlite {
    async fn insert_batch(&self, batch: &TokenBatch, progress: &Progress) -> Result<Written<()>, StoreError> {
        let common = Common {
            name: String::new(),
            origin: batch.origin,
            created: batch.created.0,
            expires: batch.expires.map(|expires| expires.0),
        };
        let mut written = 0;
        let mut write = self.write().await?;
        for rows in batch.tokens.chunks(INSERT_ROWS) {
            insert(&mut write, &common, rows).await?;
            written += rows.len();
            progress(written);
        }
        write.commit(()).await
    }
}

/// Deletes the tokens of a user. The table holds digests of 32 bytes only.
async fn delete_of_user(connection: &mut SqliteConnection, user: UserId) -> sqlx::Result<Vec<Digest>> {
    let digests: Vec<Vec<u8>> = sqlx::query_scalar(DELETE_OF_USER).bind(user.0).fetch_all(connection).await?;
    Ok(digests.into_iter().filter_map(|digest| digest.try_into().ok()).map(Digest).collect())
}

fn hex(digest: &Digest) -> String {
    digest.0.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

impl ManageTokens for Sqlite {
    fn page_tokens(
        &self,
        user: Option<UserId>,
        after: Option<TokenPlace>,
        limit: u32,
    ) -> StoreFuture<'_, TokenPage> {
        Box::pin(self.pools.read(async move {
            // Numbers of rows begin with 1.
            let after = after.map_or(0, |place| place.0);
            let statement = if user.is_some() { PAGE_OF_USER } else { PAGE_OF_ALL };
            let mut query = sqlx::query_as::<_, PageRow>(statement).bind(after).bind(limit);
            if let Some(user) = user {
                query = query.bind(user.0);
            }
            page(query.fetch_all(&self.pools.readers).await?, limit)
        }))
    }

    fn count_tokens(&self, user: UserId) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            let count = sqlx::query_scalar::<_, i64>(COUNT).bind(user.0).fetch_one(&self.pools.readers).await;
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
        Box::pin(self.pools.read(async move {
            let names: Vec<String> = digests.iter().map(hex).collect();
            let names = serde_json::Value::from(names).to_string();
            let taken: Vec<Vec<u8>> =
                sqlx::query_scalar(TAKEN).bind(names).fetch_all(&self.pools.readers).await?;
            Ok(taken.into_iter().filter_map(|digest| digest.try_into().ok()).map(Digest).collect())
        }))
    }

    fn insert_tokens(&self, batch: TokenBatch, progress: Progress) -> StoreFuture<'_, Written<()>> {
        Box::pin(async move {
            sqlx::raw_sql(BATCH_SETTINGS).execute(&self.pools.writer).await.map_err(not_written)?;
            let written = self.insert_batch(&batch, &progress).await;
            // Whatever became of the batch: only memory would not be given back.
            sqlx::raw_sql(USUAL_SETTINGS).execute(&self.pools.writer).await.map(drop).unwrap_or_default();
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

    #[test]
    fn digests_are_written_in_hex() {
        assert!(hex(&Digest::of(b"abc")).starts_with("ba7816bf"));
    }
}
