//! Tokens in SQLite.

use crate::clock::UnixSeconds;
use crate::identity::{CredentialId, Digest, UserId};
use crate::store::sqlite::Sqlite;
use crate::store::sqlite::error::{not_written, unavailable};
use crate::store::sqlite::feed::sequence;
use crate::store::sqlite::users::UserRow;
use crate::store::{
    FoundToken, Grant, Granted, LastUse, NewToken, StoreError, StoreFuture, TokenOrigin, TokenStore,
    TokenSummary, Written,
};
use sqlx::{FromRow, SqliteConnection};

/// Token, user and groups in one statement, so that they are of one moment.
const FIND: &str = "SELECT token.digest, token.public_id, token.created_at, token.expires_at,
        user.id, user.username, user.email, user.is_active, user.is_staff, user.password_version, user.not_before,
        (SELECT json_group_array(user_group.name) FROM membership
            JOIN user_group ON user_group.id = membership.group_id WHERE membership.user_id = user.id) AS groups,
        (SELECT coalesce(max(sequence), 0) FROM change) AS as_of
    FROM token JOIN user ON user.id = token.user_id WHERE token.digest = ?1";

const INSERT: &str = "INSERT INTO token (public_id, digest, user_id, name, origin, created_at, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const MAY_BE_GRANTED: &str =
    "SELECT count(*) FROM user WHERE id = ?1 AND is_active AND password_version = ?2";
const LIVE: &str = "SELECT public_id, digest, created_at, last_used_at FROM token
    WHERE user_id = ?1 AND origin = ?2 AND (expires_at IS NULL OR expires_at > ?3) ORDER BY id";
/// A row is written at most once in so many seconds, whatever comes.
const USED_INTERVAL: i64 = 60;
/// One statement for a batch, since each takes longer to come to SQLite's thread than to do. ?1: `[[id, used], …]`.
const USED: &str = "UPDATE token SET last_used_at = uses.used
    FROM (SELECT value ->> 0 AS id, value ->> 1 AS used FROM json_each(?1)) AS uses
    WHERE token.public_id = uses.id AND (last_used_at IS NULL OR last_used_at <= uses.used - ?2)";
/// Uses that one transaction writes: others write in between.
const USES_BATCH: usize = 1000;

const DELETE: &str = "DELETE FROM token WHERE public_id = ?1 RETURNING digest";

/// Two statements rather than a condition that is sometimes true, so that the one of a user goes by the index.
macro_rules! list {
    ($condition:literal) => {
        concat!(
            "SELECT token.public_id, user.username, token.name, token.origin, token.created_at, token.expires_at,
                token.last_used_at FROM token JOIN user ON user.id = token.user_id ",
            $condition,
            " ORDER BY token.created_at, token.id"
        )
    };
}
const LIST_ALL: &str = list!("");
const LIST_OF_USER: &str = list!("WHERE token.user_id = ?1");

#[derive(FromRow)]
struct FoundRow {
    digest: Vec<u8>,
    public_id: i64,
    created_at: i64,
    expires_at: Option<i64>,
    #[sqlx(flatten)]
    user: UserRow,
    as_of: i64,
}

/// A token that a new one may displace.
#[derive(FromRow)]
struct LiveRow {
    public_id: i64,
    digest: Vec<u8>,
    created_at: i64,
    last_used_at: Option<i64>,
}

/// A token as listed.
#[derive(FromRow)]
pub(super) struct SummaryRow {
    public_id: i64,
    username: String,
    name: String,
    origin: String,
    created_at: i64,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
}

impl FoundRow {
    fn into_found(self) -> sqlx::Result<FoundToken> {
        Ok(FoundToken {
            id: CredentialId(self.public_id.cast_unsigned()),
            created: UnixSeconds(self.created_at),
            expires: self.expires_at.map(UnixSeconds),
            user: self.user.into_user()?,
            as_of: Some(sequence(self.as_of)),
        })
    }
}

impl LiveRow {
    fn id(&self) -> CredentialId {
        CredentialId(self.public_id.cast_unsigned())
    }

    /// The table holds digests of 32 bytes only.
    fn digest(&self) -> Option<Digest> {
        self.digest.as_slice().try_into().ok().map(Digest)
    }

    /// Orders tokens by their last use; making one counts as its first.
    fn last_use(&self, known: LastUse<'_>) -> (i64, u64) {
        let written = self.last_used_at.map_or((self.created_at, 0), |used| (used.max(self.created_at), 1));
        let known = self.digest().and_then(known);
        known.map_or(written, |(second, order)| written.max((second.0, order.max(1))))
    }
}

/// The tokens that have to go so that one more is within the limit.
async fn displaced(
    connection: &mut SqliteConnection,
    token: &NewToken,
    grant: &Grant<'_>,
) -> sqlx::Result<Vec<LiveRow>> {
    let query = sqlx::query_as::<_, LiveRow>(LIVE)
        .bind(token.user.0)
        .bind(origin_name(TokenOrigin::Obtain))
        .bind(token.created.0);
    let mut live = query.fetch_all(connection).await?;
    // Stable: of those that were never used, the oldest goes first.
    live.sort_by_key(|row| row.last_use(grant.last_use));
    let kept = grant.per_user.saturating_sub(1);
    live.truncate(live.len().saturating_sub(kept));
    Ok(live)
}

async fn insert(connection: &mut SqliteConnection, token: NewToken) -> Result<(), StoreError> {
    let query = sqlx::query(INSERT)
        .bind(token.id.0.cast_signed())
        .bind(token.digest.0.to_vec())
        .bind(token.user.0)
        .bind(token.name)
        .bind(origin_name(token.origin))
        .bind(token.created.0)
        .bind(token.expires.map(|expires| expires.0));
    query.execute(connection).await.map(drop).map_err(not_written)
}

impl SummaryRow {
    pub(super) fn into_summary(self) -> sqlx::Result<TokenSummary> {
        Ok(TokenSummary {
            id: CredentialId(self.public_id.cast_unsigned()),
            origin: origin_from_name(&self.origin)?,
            username: self.username,
            name: self.name,
            created: UnixSeconds(self.created_at),
            expires: self.expires_at.map(UnixSeconds),
            last_used: self.last_used_at.map(UnixSeconds),
        })
    }
}

pub(super) fn origin_name(origin: TokenOrigin) -> &'static str {
    match origin {
        TokenOrigin::Command => "command",
        TokenOrigin::Obtain => "obtain",
        TokenOrigin::Import => "import",
    }
}

fn origin_from_name(name: &str) -> sqlx::Result<TokenOrigin> {
    match name {
        "command" => Ok(TokenOrigin::Command),
        "obtain" => Ok(TokenOrigin::Obtain),
        "import" => Ok(TokenOrigin::Import),
        _ => Err(sqlx::Error::Decode("unknown origin of a token".into())),
    }
}

impl TokenStore for Sqlite {
    fn find_token(&self, digest: Digest) -> StoreFuture<'_, Option<FoundToken>> {
        Box::pin(self.pools.read(async move {
            let query = sqlx::query_as::<_, FoundRow>(FIND).bind(digest.0.to_vec());
            let row = query.fetch_optional(&self.pools.readers).await?;
            row.filter(|row| row.digest == digest.0).map(FoundRow::into_found).transpose()
        }))
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
            let may =
                sqlx::query_scalar::<_, i64>(MAY_BE_GRANTED).bind(token.user.0).bind(grant.password_version);
            if may.fetch_one(&mut *write).await.map_err(not_written)? == 0 {
                return Ok(Written::nothing(Granted::Void));
            }
            let mut revoked = Vec::new();
            for row in displaced(&mut write, &token, &grant).await.map_err(not_written)? {
                sqlx::query(DELETE).bind(row.public_id).execute(&mut *write).await.map_err(not_written)?;
                revoked.extend(row.digest().map(|digest| (row.id(), digest)));
            }
            insert(&mut write, token).await?;
            write.commit(Granted::Stored { revoked }).await
        })
    }

    fn write_uses(&self, uses: Vec<(CredentialId, UnixSeconds)>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            for batch in uses.chunks(USES_BATCH) {
                let mut write = self.pools.write().await?;
                let batch: Vec<_> = batch.iter().map(|(id, used)| (id.0.cast_signed(), used.0)).collect();
                let batch = serde_json::json!(batch).to_string();
                let query = sqlx::query(USED).bind(batch).bind(USED_INTERVAL);
                query.execute(&mut *write).await.map_err(not_written)?;
                write.commit().await.map_err(not_written)?;
            }
            Ok(())
        })
    }

    fn delete_token(&self, id: CredentialId) -> StoreFuture<'_, Written<Option<Digest>>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let query = sqlx::query_scalar::<_, Vec<u8>>(DELETE).bind(id.0.cast_signed());
            let digest = query.fetch_optional(&mut *write).await.map_err(not_written)?;
            // The table holds digests of 32 bytes only.
            write.commit(digest.and_then(|digest| digest.try_into().ok()).map(Digest)).await
        })
    }

    fn list_tokens(&self, user: Option<UserId>) -> StoreFuture<'_, Vec<TokenSummary>> {
        // No deadline: millions of rows take longer than a look-up may.
        Box::pin(async move {
            let query = match user {
                Some(user) => sqlx::query_as::<_, SummaryRow>(LIST_OF_USER).bind(user.0),
                None => sqlx::query_as(LIST_ALL),
            };
            let rows = query.fetch_all(&self.pools.readers).await.map_err(unavailable)?;
            rows.into_iter().map(SummaryRow::into_summary).collect::<sqlx::Result<_>>().map_err(unavailable)
        })
    }
}
