//! Django's users and groups.

use crate::clock::UnixSeconds;
use crate::identity::{Digest, User, UserId};
use crate::secret::Secret;
use crate::store::django::Django;
use crate::store::django::sessions::datetime;
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sql::{Link, Row, values};
use crate::store::{Change, NewUser, StoreError, StoreFuture, UserStore, UserWithPassword, Written};

/// Passwords that are looked at to see how most of them are encoded.
const SAMPLE_ROWS: i64 = 1000;

/// Stands for the password in what is known of a user: changes with it, and says nothing of it.
fn version(password: &str) -> i64 {
    let first = Digest::of(password.as_bytes()).0.first_chunk().copied();
    i64::from_be_bytes(first.unwrap_or_default())
}

/// A user as the statements name the columns.
pub(super) fn read_row(row: &Row) -> sqlx::Result<UserWithPassword> {
    let password = row.text("password")?;
    let user = User {
        id: UserId(row.integer("id")?),
        username: row.text("username")?.into(),
        is_active: row.boolean("is_active")?,
        is_staff: row.boolean("is_staff")?,
        groups: row.names("group_names")?.into_iter().map(String::into_boxed_str).collect(),
        email: row.text("email")?.into(),
        password_version: version(&password),
        not_before: 0,
    };
    Ok(UserWithPassword { user, password: Secret::new(password), as_of: None })
}

impl Django {
    /// A user by id, in a transaction that the caller has; if it writes, nobody else changes the user until it ends.
    pub(super) async fn read_user(
        &self,
        link: &mut Link,
        user: UserId,
        writes: bool,
    ) -> sqlx::Result<Option<UserWithPassword>> {
        let statement = if writes { &self.statements.lock_user } else { &self.statements.user_by_id };
        link.one(statement, values![user.0]).await?.as_ref().map(read_row).transpose()
    }

    /// The user whose password was checked, if nothing happened to it since.
    pub(super) async fn unchanged(
        &self,
        link: &mut Link,
        user: UserId,
        password_version: i64,
        writes: bool,
    ) -> sqlx::Result<Option<UserWithPassword>> {
        let found = self.read_user(link, user, writes).await?;
        Ok(found.filter(|found| found.user.is_active && found.user.password_version == password_version))
    }

    /// One statement that changes one user.
    async fn change_user(
        &self,
        statement: &str,
        user: UserId,
        values: Vec<crate::store::sql::Value>,
    ) -> Result<Written<bool>, StoreError> {
        let mut link = self.database.begin().await?;
        let found = link.run(statement, values).await.map_err(not_written)?;
        link.commit().await?;
        Ok(Written::unnumbered(found > 0, vec![Change::User(user)]))
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
        Box::pin(async move {
            if !self.database.can_hold(&username) {
                return Ok(None);
            }
            let row = self.database.find(&self.statements.user_by_name, values![&*username]).await?;
            let found = row.as_ref().map(read_row).transpose().map_err(unavailable)?;
            Ok(found.filter(|found| *found.user.username == *username))
        })
    }

    fn user_by_id(&self, user: UserId) -> StoreFuture<'_, Option<User>> {
        Box::pin(async move {
            let row = self.database.find(&self.statements.user_by_id, values![user.0]).await?;
            let found = row.as_ref().map(read_row).transpose().map_err(unavailable)?;
            Ok(found.map(|found| found.user))
        })
    }

    fn sample_passwords(&self) -> StoreFuture<'_, Vec<Secret>> {
        Box::pin(async move {
            let rows = self.database.read(&self.statements.passwords, values![SAMPLE_ROWS]).await?;
            let passwords = rows.iter().map(|row| row.text("password").map(Secret::new));
            passwords.collect::<sqlx::Result<_>>().map_err(unavailable)
        })
    }

    fn recode_password(&self, user: UserId, old: Secret, new: Secret) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let values = values![user.0, text(&old)?, text(&new)?];
            self.change_user(&self.statements.recode_password, user, values).await
        })
    }

    /// Only the remote-user scheme makes users here, where it was told to.
    fn insert_user(&self, user: NewUser) -> StoreFuture<'_, Written<UserId>> {
        Box::pin(async move {
            if !user.groups.is_empty() {
                return Err(StoreError::Foreign("membership of groups"));
            }
            let mut link = self.database.begin().await?;
            let values = values![
                user.username.clone(),
                text(&user.password)?,
                user.email.clone(),
                user.is_staff,
                datetime(user.created)
            ];
            link.run(&self.statements.insert_user, values).await.map_err(not_written)?;
            let made = link.one(&self.statements.user_by_name, values![&*user.username]).await;
            let made = made.map_err(not_written)?.as_ref().map(read_row).transpose().map_err(not_written)?;
            let id = made.ok_or(StoreError::Conflict)?.user.id;
            link.commit().await?;
            Ok(Written::unnumbered(id, vec![Change::User(id)]))
        })
    }

    fn set_active(&self, user: UserId, active: bool) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let statement = self.statements.set_active.as_ref();
            let statement = statement.ok_or(StoreError::Foreign("whether a user is active"))?;
            self.change_user(statement, user, values![user.0, active]).await
        })
    }

    fn set_password(&self, user: UserId, password: Secret) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let values = values![user.0, text(&password)?];
            self.change_user(&self.statements.set_password, user, values).await
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
        let rows = self.database.list(&self.statements.users, values![]).await?;
        rows.iter().map(listed).collect::<sqlx::Result<_>>().map_err(unavailable)
    }
}

/// A user as listed.
fn listed(row: &Row) -> sqlx::Result<(User, UnixSeconds)> {
    let joined = row.optional_text("joined")?;
    let joined = joined.as_deref().and_then(crate::django::parse_datetime);
    Ok((read_row(row)?.user, UnixSeconds(joined.map_or(0, |(seconds, _)| seconds))))
}
