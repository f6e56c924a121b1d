//! Django's users and groups.

use crate::clock::UnixSeconds;
use crate::identity::{Digest, User, UserId};
use crate::secret::Secret;
use crate::store::django::sessions::datetime;
use crate::store::django::{Django, safe};
use crate::store::sql::error::{not_written, unavailable};
use crate::store::{Change, NewUser, StoreError, StoreFuture, UserStore, UserWithPassword, Written};
use sqlx::{FromRow, SqliteConnection};

/// Passwords that are looked at to see how most of them are encoded.
const SAMPLE_ROWS: i64 = 1000;

/// A user as the statements name the columns.
#[derive(FromRow)]
pub(super) struct UserRow {
    id: i64,
    username: String,
    password: String,
    email: String,
    is_active: bool,
    is_staff: bool,
    groups: String,
}

/// Stands for the password in what is known of a user: changes with it, and says nothing of it.
fn version(password: &str) -> i64 {
    let first = Digest::of(password.as_bytes()).0.first_chunk().copied();
    i64::from_be_bytes(first.unwrap_or_default())
}

impl UserRow {
    pub(super) fn into_user(self) -> sqlx::Result<UserWithPassword> {
        let mut groups: Vec<Box<str>> =
            serde_json::from_str(&self.groups).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        groups.sort_unstable();
        let user = User {
            id: UserId(self.id),
            username: self.username.into(),
            is_active: self.is_active,
            is_staff: self.is_staff,
            groups: groups.into(),
            email: self.email.into(),
            password_version: version(&self.password),
            not_before: 0,
        };
        Ok(UserWithPassword { user, password: Secret::new(self.password), as_of: None })
    }
}

impl Django {
    /// A user by id, in a transaction that the caller has.
    pub(super) async fn read_user(
        &self,
        connection: &mut SqliteConnection,
        user: UserId,
    ) -> sqlx::Result<Option<UserWithPassword>> {
        let query = sqlx::query_as::<_, UserRow>(safe(&self.statements.user_by_id)).bind(user.0);
        query.fetch_optional(connection).await?.map(UserRow::into_user).transpose()
    }

    /// The user whose password was checked, if nothing happened to it since.
    pub(super) async fn unchanged(
        &self,
        connection: &mut SqliteConnection,
        user: UserId,
        password_version: i64,
    ) -> sqlx::Result<Option<UserWithPassword>> {
        let found = self.read_user(connection, user).await?;
        Ok(found.filter(|found| found.user.is_active && found.user.password_version == password_version))
    }
}

/// An encoded password as text, which it is.
fn text(password: &Secret) -> Result<String, StoreError> {
    let text = std::str::from_utf8(password.expose());
    text.map(str::to_owned).map_err(|error| StoreError::NotWritten(Box::new(error)))
}

impl UserStore for Django {
    fn find_user(&self, username: &str) -> StoreFuture<'_, Option<UserWithPassword>> {
        let username = username.to_owned();
        Box::pin(self.pools.read(async move {
            let query =
                sqlx::query_as::<_, UserRow>(safe(&self.statements.user_by_name)).bind(username.clone());
            let row = query.fetch_optional(&self.pools.readers).await?;
            row.filter(|row| row.username == username).map(UserRow::into_user).transpose()
        }))
    }

    fn user_by_id(&self, user: UserId) -> StoreFuture<'_, Option<User>> {
        Box::pin(self.pools.read(async move {
            let query = sqlx::query_as::<_, UserRow>(safe(&self.statements.user_by_id)).bind(user.0);
            let row = query.fetch_optional(&self.pools.readers).await?;
            Ok(row.map(UserRow::into_user).transpose()?.map(|found| found.user))
        }))
    }

    fn sample_passwords(&self) -> StoreFuture<'_, Vec<Secret>> {
        Box::pin(self.pools.read(async move {
            let query = sqlx::query_scalar::<_, String>(safe(&self.statements.passwords)).bind(SAMPLE_ROWS);
            Ok(query.fetch_all(&self.pools.readers).await?.into_iter().map(Secret::new).collect())
        }))
    }

    fn recode_password(&self, user: UserId, old: Secret, new: Secret) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.pools.write().await?;
            let query = sqlx::query(safe(&self.statements.recode_password))
                .bind(user.0)
                .bind(text(&old)?)
                .bind(text(&new)?);
            let done = query.execute(&mut *write).await.map_err(not_written)?;
            write.commit().await.map_err(not_written)?;
            Ok(Written::unnumbered(done.rows_affected() > 0, vec![Change::User(user)]))
        })
    }

    /// Only the remote-user scheme makes users here, where it was told to.
    fn insert_user(&self, user: NewUser) -> StoreFuture<'_, Written<UserId>> {
        Box::pin(async move {
            if !user.groups.is_empty() {
                return Err(StoreError::Foreign("membership of groups"));
            }
            let mut write = self.pools.write().await?;
            let query = sqlx::query(safe(&self.statements.insert_user))
                .bind(user.username.clone())
                .bind(text(&user.password)?)
                .bind(user.email.clone())
                .bind(user.is_staff)
                .bind(datetime(user.created));
            let done = query.execute(&mut *write).await.map_err(not_written)?;
            write.commit().await.map_err(not_written)?;
            let id = UserId(done.last_insert_rowid());
            Ok(Written::unnumbered(id, vec![Change::User(id)]))
        })
    }

    fn set_active(&self, user: UserId, active: bool) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let statement = self.statements.set_active.as_ref();
            let statement = statement.ok_or(StoreError::Foreign("whether a user is active"))?;
            let mut write = self.pools.write().await?;
            let query = sqlx::query(safe(statement)).bind(user.0).bind(active);
            let done = query.execute(&mut *write).await.map_err(not_written)?;
            write.commit().await.map_err(not_written)?;
            Ok(Written::unnumbered(done.rows_affected() > 0, vec![Change::User(user)]))
        })
    }

    fn set_password(&self, user: UserId, password: Secret) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.pools.write().await?;
            let query = sqlx::query(safe(&self.statements.set_password)).bind(user.0).bind(text(&password)?);
            let done = query.execute(&mut *write).await.map_err(not_written)?;
            write.commit().await.map_err(not_written)?;
            Ok(Written::unnumbered(done.rows_affected() > 0, vec![Change::User(user)]))
        })
    }

    fn set_groups(&self, _: UserId, _: Vec<String>) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async { Err(StoreError::Foreign("membership of groups")) })
    }

    fn delete_user(&self, _: UserId) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async { Err(StoreError::Foreign("the table of users")) })
    }
}

impl Django {
    /// All users, with their passwords left out, and when they were added, where that is known.
    pub(super) async fn all_users(&self) -> Result<Vec<(User, UnixSeconds)>, StoreError> {
        let query = sqlx::query_as::<_, ListedRow>(safe(&self.statements.users));
        let rows = query.fetch_all(&self.pools.readers).await.map_err(unavailable)?;
        let users = rows.into_iter().map(|row| {
            let joined = row.joined.as_deref().and_then(crate::django::parse_datetime);
            let created = UnixSeconds(joined.map_or(0, |(seconds, _)| seconds));
            row.user.into_user().map(|found| (found.user, created))
        });
        users.collect::<sqlx::Result<_>>().map_err(unavailable)
    }
}

/// A user as listed.
#[derive(FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    user: UserRow,
    joined: Option<String>,
}
