//! Tokens in our own tables.

use crate::clock::UnixSeconds;
use crate::identity::{CredentialId, Digest, UserId};
use crate::store::own::Own;
use crate::store::own::changes::sequence;
use crate::store::own::users::{read_user, user_columns};
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sql::text::Dialect;
use crate::store::sql::{Link, Row, Value, values};
use crate::store::{
    FoundToken, Grant, Granted, LastUse, NewToken, StoreError, StoreFuture, TokenOrigin, TokenStore,
    TokenSummary, Written,
};
use std::fmt::Write as _;

/// Token, user and groups in one statement, so that they are of one moment.
const FIND: &str = concat!(
    "SELECT token.digest, token.public_id, token.created_at, token.expires_at, {as_of} AS as_of,",
    user_columns!(),
    r#"FROM token JOIN "user" ON "user".id = token.user_id WHERE token.digest = ?1"#
);

const INSERT: &str = "INSERT INTO token (public_id, digest, user_id, name, origin, created_at, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const MAY_BE_GRANTED: &str = r#"SELECT id FROM "user" WHERE id = ?1 AND is_active AND password_version = ?2"#;
const LIVE: &str = "SELECT public_id, digest, created_at, last_used_at FROM token
    WHERE user_id = ?1 AND origin = ?2 AND (expires_at IS NULL OR expires_at > ?3) ORDER BY id";
/// A row is written at most once in so many seconds, whatever comes.
const USED_INTERVAL: i64 = 60;
/// Uses that one transaction writes: others write in between.
const USES_BATCH: usize = 1000;

const DIGEST: &str = "SELECT digest FROM token WHERE public_id = ?1";
const DELETE: &str = "DELETE FROM token WHERE public_id = ?1";

/// Two statements rather than a condition that is sometimes true, so that the one of a user goes by the index.
macro_rules! list {
    ($condition:literal) => {
        concat!(
            r#"SELECT token.public_id, "user".username, token.name, token.origin, token.created_at,
                token.expires_at, token.last_used_at FROM token JOIN "user" ON "user".id = token.user_id "#,
            $condition,
            " ORDER BY token.created_at, token.id"
        )
    };
}
const LIST_ALL: &str = list!("WHERE token.user_id > 0");
const LIST_OF_USER: &str = list!("WHERE token.user_id = ?1");

/// The public id is the 64 bits of an unsigned number.
fn public_id(row: &Row) -> sqlx::Result<CredentialId> {
    Ok(CredentialId(row.integer("public_id")?.cast_unsigned()))
}

/// The table holds digests of 32 bytes only.
pub(super) fn digest(row: &Row) -> sqlx::Result<Option<Digest>> {
    Ok(row.bytes("digest")?.try_into().ok().map(Digest))
}

fn found(row: &Row) -> sqlx::Result<FoundToken> {
    Ok(FoundToken {
        id: public_id(row)?,
        created: UnixSeconds(row.integer("created_at")?),
        expires: row.optional_integer("expires_at")?.map(UnixSeconds),
        user: read_user(row)?,
        as_of: Some(sequence(row.integer("as_of")?)),
    })
}

/// A token that a new one may displace.
struct Live {
    id: CredentialId,
    digest: Option<Digest>,
    created: i64,
    last_used: Option<i64>,
}

impl Live {
    fn from_row(row: &Row) -> sqlx::Result<Self> {
        Ok(Self {
            id: public_id(row)?,
            digest: digest(row)?,
            created: row.integer("created_at")?,
            last_used: row.optional_integer("last_used_at")?,
        })
    }

    /// Orders tokens by their last use; making one counts as its first.
    fn last_use(&self, known: LastUse<'_>) -> (i64, u64) {
        let written = self.last_used.map_or((self.created, 0), |used| (used.max(self.created), 1));
        let known = self.digest.and_then(known);
        known.map_or(written, |(second, order)| written.max((second.0, order.max(1))))
    }
}

/// The tokens that have to go so that one more is within the limit.
async fn displaced(link: &mut Link, token: &NewToken, grant: &Grant<'_>) -> sqlx::Result<Vec<Live>> {
    let values = values![token.user.0, origin_name(TokenOrigin::Obtain), token.created.0];
    let rows = link.all(LIVE, values).await?;
    let mut live = rows.iter().map(Live::from_row).collect::<sqlx::Result<Vec<_>>>()?;
    // Stable: of those that were never used, the oldest goes first.
    live.sort_by_key(|row| row.last_use(grant.last_use));
    let kept = grant.per_user.saturating_sub(1);
    live.truncate(live.len().saturating_sub(kept));
    Ok(live)
}

pub(super) async fn insert(link: &mut Link, token: NewToken) -> Result<(), StoreError> {
    let values = values![
        token.id.0.cast_signed(),
        token.digest,
        token.user.0,
        token.name,
        origin_name(token.origin),
        token.created.0,
        token.expires.map(|expires| expires.0),
    ];
    link.run(INSERT, values).await.map(drop).map_err(not_written)
}

/// A token as listed.
pub(super) fn summary(row: &Row) -> sqlx::Result<TokenSummary> {
    Ok(TokenSummary {
        id: public_id(row)?,
        origin: origin_from_name(&row.text("origin")?)?,
        username: row.text("username")?,
        name: row.text("name")?,
        created: UnixSeconds(row.integer("created_at")?),
        expires: row.optional_integer("expires_at")?.map(UnixSeconds),
        last_used: row.optional_integer("last_used_at")?.map(UnixSeconds),
    })
}

pub(super) fn origin_name(origin: TokenOrigin) -> &'static str {
    match origin {
        TokenOrigin::Command => "command",
        TokenOrigin::Obtain => "obtain",
        TokenOrigin::Import => "import",
        TokenOrigin::Canary => "canary",
    }
}

fn origin_from_name(name: &str) -> sqlx::Result<TokenOrigin> {
    match name {
        "command" => Ok(TokenOrigin::Command),
        "obtain" => Ok(TokenOrigin::Obtain),
        "import" => Ok(TokenOrigin::Import),
        "canary" => Ok(TokenOrigin::Canary),
        _ => Err(sqlx::Error::Decode("unknown origin of a token".into())),
    }
}

/// One statement for a batch of pairs of id and moment, since each takes longer to be sent than to be done. The names
/// of the columns are those that SQLite and PostgreSQL give to values.
fn used_statement(dialect: Dialect, count: usize) -> String {
    let (before, after) = match dialect {
        Dialect::Sqlite | Dialect::Postgres => (
            "UPDATE token SET last_used_at = uses.column2 FROM (VALUES ",
            ") AS uses WHERE token.public_id = uses.column1",
        ),
        Dialect::MySql => (
            "UPDATE token JOIN (SELECT 0 AS column1, 0 AS column2 FROM DUAL WHERE FALSE",
            ") AS uses ON token.public_id = uses.column1 SET token.last_used_at = uses.column2 WHERE TRUE",
        ),
    };
    let mut text = before.to_owned();
    for number in 0..count {
        let (first, second) = (2 * number + 2, 2 * number + 3);
        let separator = if number == 0 { "" } else { ", " };
        // Writing to a string never fails.
        match dialect {
            Dialect::Sqlite | Dialect::Postgres => write!(text, "{separator}(?{first}, ?{second})"),
            Dialect::MySql => {
                write!(text, " UNION ALL SELECT CAST(?{first} AS SIGNED), CAST(?{second} AS SIGNED)")
            }
        }
        .unwrap_or_default();
    }
    text.push_str(after);
    text.push_str(" AND (token.last_used_at IS NULL OR token.last_used_at <= uses.column2 - ?1)");
    text
}

impl TokenStore for Own {
    fn find_token(&self, digest: Digest) -> StoreFuture<'_, Option<FoundToken>> {
        Box::pin(async move {
            let Some(row) = self.database.find(FIND, values![digest]).await? else { return Ok(None) };
            let is_it = row.bytes("digest").map_err(unavailable)? == digest.0;
            if is_it { found(&row).map(Some).map_err(unavailable) } else { Ok(None) }
        })
    }

    fn insert_token(&self, token: NewToken) -> StoreFuture<'_, Written<()>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            insert(&mut write, token).await?;
            write.commit(()).await
        })
    }

    fn grant_token<'a>(&'a self, token: NewToken, grant: Grant<'a>) -> StoreFuture<'a, Written<Granted>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let may = write.one(MAY_BE_GRANTED, values![token.user.0, grant.password_version]).await;
            if may.map_err(not_written)?.is_none() {
                return Ok(Written::nothing(Granted::Void));
            }
            let mut revoked = Vec::new();
            for live in displaced(&mut write, &token, &grant).await.map_err(not_written)? {
                write.run(DELETE, values![live.id.0.cast_signed()]).await.map_err(not_written)?;
                revoked.extend(live.digest.map(|digest| (live.id, digest)));
            }
            insert(&mut write, token).await?;
            write.commit(Granted::Stored { revoked }).await
        })
    }

    /// Voids nothing, so it waits for no lock of the numbers.
    fn write_uses(&self, mut uses: Vec<(CredentialId, UnixSeconds)>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            // Always in the same order, so that two who write do not wait for each other.
            uses.sort_unstable_by_key(|(id, _)| id.0);
            for batch in uses.chunks(USES_BATCH) {
                let mut link = self.database.begin().await?;
                let mut values: Vec<Value> = values![USED_INTERVAL];
                for (id, used) in batch {
                    values.extend(values![id.0.cast_signed(), used.0]);
                }
                let text = used_statement(link.dialect(), batch.len());
                link.run(&text, values).await.map_err(not_written)?;
                link.commit().await?;
            }
            Ok(())
        })
    }

    fn delete_token(&self, id: CredentialId) -> StoreFuture<'_, Written<Option<Digest>>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let id = id.0.cast_signed();
            let row = write.one(DIGEST, values![id]).await.map_err(not_written)?;
            let deleted = row.as_ref().map(digest).transpose().map_err(not_written)?.flatten();
            write.run(DELETE, values![id]).await.map_err(not_written)?;
            write.commit(deleted).await
        })
    }

    fn list_tokens(&self, user: Option<UserId>) -> StoreFuture<'_, Vec<TokenSummary>> {
        Box::pin(async move {
            let rows = match user {
                Some(user) => self.database.list(LIST_OF_USER, values![user.0]).await?,
                None => self.database.list(LIST_ALL, values![]).await?,
            };
            rows.iter().map(summary).collect::<sqlx::Result<_>>().map_err(unavailable)
        })
    }
}
