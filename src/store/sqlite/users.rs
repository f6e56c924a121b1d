//! Users and their groups in SQLite.

use crate::identity::{User, UserId};
use crate::secret::Secret;
use crate::store::sqlite::Sqlite;
use crate::store::sqlite::error::{not_written, unavailable};
use crate::store::sqlite::feed::sequence;
use crate::store::{NewUser, StoreError, StoreFuture, UserStore, UserWithPassword, Written};
use sqlx::{FromRow, SqliteConnection};

macro_rules! select {
    ($more:literal) => {
        concat!(
            "SELECT user.id, user.username, user.email, user.is_active, user.is_staff, user.password_version,
                user.not_before, (SELECT json_group_array(user_group.name) FROM membership
                    JOIN user_group ON user_group.id = membership.group_id
                    WHERE membership.user_id = user.id) AS groups",
            $more
        )
    };
}
const FIND: &str = select!(
    ", user.password, (SELECT coalesce(max(sequence), 0) FROM change) AS as_of
        FROM user WHERE user.username = ?1"
);
const FIND_BY_ID: &str = select!(" FROM user WHERE user.id = ?1");
/// Users as listed.
pub(super) const LIST: &str = select!(
    ", user.created_at, (SELECT count(*) FROM token WHERE token.user_id = user.id) AS tokens
        FROM user ORDER BY user.username"
);

const INSERT: &str =
    "INSERT INTO user (username, password, email, is_staff, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
const SET_ACTIVE: &str = "UPDATE user SET is_active = ?2 WHERE id = ?1";
const SET_PASSWORD: &str =
    "UPDATE user SET password = ?2, password_version = password_version + 1 WHERE id = ?1";
const DELETE: &str = "DELETE FROM user WHERE id = ?1";
const EXISTS: &str = "SELECT count(*) FROM user WHERE id = ?1";
/// A group that is there stays as it is.
pub(super) const MAKE_GROUP: &str = "INSERT INTO user_group (name) VALUES (?1) ON CONFLICT (name) DO NOTHING";
const JOIN_GROUP: &str = "INSERT INTO membership (user_id, group_id)
    SELECT ?1, id FROM user_group WHERE name = ?2 ON CONFLICT DO NOTHING";
const LEAVE_GROUPS: &str = "DELETE FROM membership WHERE user_id = ?1";

/// A user as the table has it.
#[derive(FromRow)]
pub(super) struct UserRow {
    id: i64,
    username: String,
    email: String,
    is_active: bool,
    is_staff: bool,
    password_version: i64,
    not_before: i64,
    /// Names as a JSON array: any character may be in a name.
    groups: String,
}

#[derive(FromRow)]
struct PasswordRow {
    #[sqlx(flatten)]
    user: UserRow,
    password: String,
    as_of: i64,
}

impl UserRow {
    pub(super) fn into_user(self) -> sqlx::Result<User> {
        let mut groups: Vec<Box<str>> =
            serde_json::from_str(&self.groups).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        groups.sort_unstable();
        Ok(User {
            id: UserId(self.id),
            username: self.username.into(),
            is_active: self.is_active,
            is_staff: self.is_staff,
            groups: groups.into(),
            email: self.email.into(),
            password_version: self.password_version,
            not_before: self.not_before,
        })
    }
}

impl PasswordRow {
    fn into_user(self) -> sqlx::Result<UserWithPassword> {
        let as_of = Some(sequence(self.as_of));
        Ok(UserWithPassword { user: self.user.into_user()?, password: Secret::new(self.password), as_of })
    }
}

/// An encoded password as text: it is a PHC string, so anything else is a mistake of the caller.
fn text(password: &Secret) -> Result<String, StoreError> {
    let text = std::str::from_utf8(password.expose());
    text.map(str::to_owned).map_err(|error| StoreError::NotWritten(Box::new(error)))
}

async fn insert(connection: &mut SqliteConnection, user: &NewUser) -> Result<UserId, StoreError> {
    let query = sqlx::query(INSERT)
        .bind(user.username.clone())
        .bind(text(&user.password)?)
        .bind(user.email.clone())
        .bind(user.is_staff)
        .bind(user.created.0);
    let done = query.execute(connection).await.map_err(not_written)?;
    Ok(UserId(done.last_insert_rowid()))
}

async fn join(connection: &mut SqliteConnection, user: UserId, groups: Vec<String>) -> sqlx::Result<()> {
    for group in groups {
        sqlx::query(MAKE_GROUP).bind(group.clone()).execute(&mut *connection).await?;
        sqlx::query(JOIN_GROUP).bind(user.0).bind(group).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn replace_groups(
    connection: &mut SqliteConnection,
    user: UserId,
    groups: Vec<String>,
) -> sqlx::Result<bool> {
    if sqlx::query_scalar::<_, i64>(EXISTS).bind(user.0).fetch_one(&mut *connection).await? == 0 {
        return Ok(false);
    }
    sqlx::query(LEAVE_GROUPS).bind(user.0).execute(&mut *connection).await?;
    join(connection, user, groups).await?;
    Ok(true)
}

impl UserStore for Sqlite {
    fn find_user(&self, username: &str) -> StoreFuture<'_, Option<UserWithPassword>> {
        let username = username.to_owned();
        Box::pin(self.pools.read(async move {
            let query = sqlx::query_as::<_, PasswordRow>(FIND).bind(username.clone());
            let row = query.fetch_optional(&self.pools.readers).await?;
            row.filter(|row| row.user.username == username).map(PasswordRow::into_user).transpose()
        }))
    }

    fn user_by_id(&self, user: UserId) -> StoreFuture<'_, Option<User>> {
        Box::pin(self.pools.read(async move {
            let query = sqlx::query_as::<_, UserRow>(FIND_BY_ID).bind(user.0);
            query.fetch_optional(&self.pools.readers).await?.map(UserRow::into_user).transpose()
        }))
    }

    fn insert_user(&self, user: NewUser) -> StoreFuture<'_, Written<UserId>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let id = insert(&mut write, &user).await?;
            join(&mut write, id, user.groups).await.map_err(not_written)?;
            write.commit(id).await
        })
    }

    fn set_active(&self, user: UserId, active: bool) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let query = sqlx::query(SET_ACTIVE).bind(user.0).bind(active);
            let done = query.execute(&mut *write).await.map_err(not_written)?;
            write.commit(done.rows_affected() > 0).await
        })
    }

    fn set_password(&self, user: UserId, password: Secret) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let query = sqlx::query(SET_PASSWORD).bind(user.0).bind(text(&password)?);
            let done = query.execute(&mut *write).await.map_err(not_written)?;
            write.commit(done.rows_affected() > 0).await
        })
    }

    fn set_groups(&self, user: UserId, groups: Vec<String>) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let found = replace_groups(&mut write, user, groups).await.map_err(not_written)?;
            write.commit(found).await
        })
    }

    fn delete_user(&self, user: UserId) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let done = sqlx::query(DELETE).bind(user.0).execute(&mut *write).await.map_err(not_written)?;
            write.commit(done.rows_affected() > 0).await
        })
    }
}

/// What a mirrored user has for a password: no hash, and told apart from users of the own layout by it.
const MIRRORED: &str = "!mirrored";
/// Under another name it may be somebody else, who is not to have the tokens of the one before.
const VOID_TOKENS: &str = "DELETE FROM token
    WHERE user_id = ?1 AND EXISTS (SELECT 1 FROM user WHERE id = ?1 AND username <> ?2)";
/// A name that somebody else had is not in the way: names change, ids do not.
const FREE_NAME: &str =
    "UPDATE user SET username = username || ' (was ' || id || ')' WHERE username = ?1 AND id <> ?2";
const MIRROR: &str = "INSERT INTO user (id, username, password, email, password_version, created_at)
    VALUES (?1, ?2, ?3, '', ?4, 0)
    ON CONFLICT (id) DO UPDATE SET username = excluded.username, password_version = excluded.password_version
    WHERE username <> excluded.username OR password_version <> excluded.password_version";
const MIRRORED_USERS: &str = "SELECT count(*) FROM user WHERE password = ?1";
const NOT_MIRRORED: &str = "SELECT count(*) FROM user WHERE password <> ?1";

/// Users of an adopted database, who may have tokens here.
impl Sqlite {
    /// Puts a user here under its own id.
    pub(in crate::store) async fn mirror(&self, user: &User) -> Result<Written<()>, StoreError> {
        let mut write = self.write().await?;
        let name = user.username.to_string();
        let query = sqlx::query(VOID_TOKENS).bind(user.id.0).bind(name.clone());
        query.execute(&mut *write).await.map_err(not_written)?;
        let query = sqlx::query(FREE_NAME).bind(name.clone()).bind(user.id.0);
        query.execute(&mut *write).await.map_err(not_written)?;
        let query = sqlx::query(MIRROR).bind(user.id.0).bind(name).bind(MIRRORED).bind(user.password_version);
        query.execute(&mut *write).await.map_err(not_written)?;
        write.commit(()).await
    }

    /// Whether anybody here is mirrored.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows.
    pub async fn has_mirrored_users(&self) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar::<_, i64>(MIRRORED_USERS).bind(MIRRORED);
        let count = query.fetch_one(&self.pools.readers).await;
        Ok(count.map_err(unavailable)? > 0)
    }

    /// Whether anybody here is not mirrored.
    pub(in crate::store) async fn has_users_of_its_own(&self) -> Result<bool, StoreError> {
        let query = sqlx::query_scalar::<_, i64>(NOT_MIRRORED).bind(MIRRORED);
        let count = query.fetch_one(&self.pools.readers).await;
        Ok(count.map_err(unavailable)? > 0)
    }
}
