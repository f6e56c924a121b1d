//! Users and their groups in our own tables.

use crate::identity::{User, UserId};
use crate::secret::Secret;
use crate::store::own::Own;
use crate::store::own::changes::sequence;
use crate::store::own::write::Write;
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sql::{Link, Row, values};
use crate::store::{NewUser, StoreError, StoreFuture, UserStore, UserWithPassword, Written};

/// What is known of a user, with the groups in one statement, so that both are of one moment.
macro_rules! user_columns {
    () => {
        r#" "user".id AS user_id, "user".username, "user".email, "user".is_active, "user".is_staff,
            "user".password_version, "user".not_before, (SELECT {names:user_group.name} FROM membership
                JOIN user_group ON user_group.id = membership.group_id
                WHERE membership.user_id = "user".id) AS group_names "#
    };
}
pub(super) use user_columns;

const FIND: &str = concat!(
    "SELECT",
    user_columns!(),
    r#", "user".password, {as_of} AS as_of FROM "user" WHERE "user".username = ?1"#
);
const FIND_BY_ID: &str = concat!("SELECT", user_columns!(), r#"FROM "user" WHERE "user".id = ?1"#);
/// Users as listed.
pub(super) const LIST: &str = concat!(
    "SELECT",
    user_columns!(),
    r#", "user".created_at, (SELECT count(*) FROM token WHERE token.user_id = "user".id) AS tokens
        FROM "user" WHERE "user".id > 0 ORDER BY "user".username"#
);

const INSERT: &str =
    r#"INSERT INTO "user" (username, password, email, is_staff, created_at) VALUES (?1, ?2, ?3, ?4, ?5)"#;
const ID: &str = r#"SELECT id FROM "user" WHERE username = ?1"#;
const SET_ACTIVE: &str = r#"UPDATE "user" SET is_active = ?2 WHERE id = ?1"#;
const SET_PASSWORD: &str =
    r#"UPDATE "user" SET password = ?2, password_version = password_version + 1 WHERE id = ?1"#;
const DELETE: &str = r#"DELETE FROM "user" WHERE id = ?1"#;
const EXISTS: &str = r#"SELECT id FROM "user" WHERE id = ?1"#;
/// A group that is there stays as it is. Whoever has the lock is the only one who makes groups.
const GROUP: &str = "SELECT id FROM user_group WHERE name = ?1";
const MAKE_GROUP: &str = "INSERT INTO user_group (name) VALUES (?1)";
const IS_MEMBER: &str = "SELECT user_id FROM membership WHERE user_id = ?1 AND group_id = ?2";
const JOIN_GROUP: &str = "INSERT INTO membership (user_id, group_id) VALUES (?1, ?2)";
const LEAVE_GROUPS: &str = "DELETE FROM membership WHERE user_id = ?1";

/// A user as the tables have it.
pub(super) fn read_user(row: &Row) -> sqlx::Result<User> {
    let groups: Box<[Box<str>]> = row.names("group_names")?.into_iter().map(String::into_boxed_str).collect();
    Ok(User {
        id: UserId(row.integer("user_id")?),
        username: row.text("username")?.into(),
        is_active: row.boolean("is_active")?,
        is_staff: row.boolean("is_staff")?,
        groups,
        email: row.text("email")?.into(),
        password_version: row.integer("password_version")?,
        not_before: row.integer("not_before")?,
    })
}

fn with_password(row: &Row) -> sqlx::Result<UserWithPassword> {
    let (password, as_of) = (Secret::new(row.text("password")?), Some(sequence(row.integer("as_of")?)));
    Ok(UserWithPassword { user: read_user(row)?, password, as_of })
}

/// An encoded password as text: it is a PHC string, so anything else is a mistake of the caller.
fn text(password: &Secret) -> Result<String, StoreError> {
    let text = std::str::from_utf8(password.expose());
    text.map(str::to_owned).map_err(|error| StoreError::NotWritten(Box::new(error)))
}

/// The id of the user with this name; names are compared here as well.
async fn id_of(link: &mut Link, username: &str) -> sqlx::Result<Option<UserId>> {
    let row = link.one(ID, values![username]).await?;
    row.map(|row| row.integer("id").map(UserId)).transpose()
}

async fn insert(write: &mut Write, user: &NewUser) -> Result<UserId, StoreError> {
    let values = values![
        user.username.clone(),
        text(&user.password)?,
        user.email.clone(),
        user.is_staff,
        user.created.0
    ];
    write.run(INSERT, values).await.map_err(not_written)?;
    let id = id_of(write, &user.username).await.map_err(not_written)?;
    id.ok_or_else(|| StoreError::NotWritten("the user that was just stored is not there".into()))
}

/// The group with this name, made if there is none.
pub(super) async fn group_id(link: &mut Link, name: &str) -> sqlx::Result<i64> {
    let known = link.one(GROUP, values![name]).await?;
    if let Some(row) = known {
        return row.integer("id");
    }
    link.run(MAKE_GROUP, values![name]).await?;
    link.one(GROUP, values![name]).await?.ok_or(sqlx::Error::RowNotFound)?.integer("id")
}

/// The group with this name. `None`: there is none.
pub(super) async fn known_group(link: &mut Link, name: &str) -> sqlx::Result<Option<i64>> {
    link.one(GROUP, values![name]).await?.map(|row| row.integer("id")).transpose()
}

/// Whether the user was not in the group, and is there to be.
pub(super) async fn join(link: &mut Link, user: UserId, group: i64) -> sqlx::Result<bool> {
    if link.one(IS_MEMBER, values![user.0, group]).await?.is_some() || !exists(link, user).await? {
        return Ok(false);
    }
    link.run(JOIN_GROUP, values![user.0, group]).await?;
    Ok(true)
}

async fn exists(link: &mut Link, user: UserId) -> sqlx::Result<bool> {
    Ok(link.one(EXISTS, values![user.0]).await?.is_some())
}

async fn join_all(link: &mut Link, user: UserId, groups: Vec<String>) -> sqlx::Result<()> {
    for name in groups {
        let group = group_id(link, &name).await?;
        join(link, user, group).await?;
    }
    Ok(())
}

async fn replace_groups(link: &mut Link, user: UserId, groups: Vec<String>) -> sqlx::Result<bool> {
    if !exists(link, user).await? {
        return Ok(false);
    }
    link.run(LEAVE_GROUPS, values![user.0]).await?;
    join_all(link, user, groups).await?;
    Ok(true)
}

impl UserStore for Own {
    fn find_user(&self, username: &str) -> StoreFuture<'_, Option<UserWithPassword>> {
        let username = username.to_owned();
        Box::pin(async move {
            if !self.database.can_hold(&username) {
                return Ok(None);
            }
            let row = self.database.find(FIND, values![&*username]).await?;
            let found = row.as_ref().map(with_password).transpose().map_err(unavailable)?;
            Ok(found.filter(|found| *found.user.username == *username))
        })
    }

    fn user_by_id(&self, user: UserId) -> StoreFuture<'_, Option<User>> {
        Box::pin(async move {
            let row = self.database.find(FIND_BY_ID, values![user.0]).await?;
            row.as_ref().map(read_user).transpose().map_err(unavailable)
        })
    }

    fn insert_user(&self, user: NewUser) -> StoreFuture<'_, Written<UserId>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let id = insert(&mut write, &user).await?;
            join_all(&mut write, id, user.groups).await.map_err(not_written)?;
            write.commit(id).await
        })
    }

    fn set_active(&self, user: UserId, active: bool) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let found = write.run(SET_ACTIVE, values![user.0, active]).await.map_err(not_written)?;
            write.commit(found > 0).await
        })
    }

    fn set_password(&self, user: UserId, password: Secret) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let values = values![user.0, text(&password)?];
            let found = write.run(SET_PASSWORD, values).await.map_err(not_written)?;
            write.commit(found > 0).await
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
            let found = write.run(DELETE, values![user.0]).await.map_err(not_written)?;
            write.commit(found > 0).await
        })
    }
}

/// What a mirrored user has for a password: no hash, and told apart from users of the own layout by it.
const MIRRORED: &str = "!mirrored";
const MIRROR_OF: &str = r#"SELECT username, password_version FROM "user" WHERE id = ?1"#;
const VOID_TOKENS: &str = "DELETE FROM token WHERE user_id = ?1";
const RENAME: &str = r#"UPDATE "user" SET username = ?2 WHERE id = ?1"#;
const UPDATE_MIRROR: &str = r#"UPDATE "user" SET username = ?2, password_version = ?3 WHERE id = ?1"#;
const MIRROR: &str = r#"INSERT INTO "user" (id, username, password, email, password_version, created_at)
    VALUES (?1, ?2, ?3, '', ?4, 0)"#;
const MIRRORED_USERS: &str = r#"SELECT count(*) AS users FROM "user" WHERE password = ?1 AND id > 0"#;
const NOT_MIRRORED: &str = r#"SELECT count(*) AS users FROM "user" WHERE password <> ?1 AND id > 0"#;

/// Users of an adopted database, who may have tokens here.
impl Own {
    /// Puts a user here under its own id.
    pub(in crate::store) async fn mirror(&self, user: &User) -> Result<Written<()>, StoreError> {
        let mut write = self.write().await?;
        mirror(&mut write, user).await.map_err(not_written)?;
        write.commit(()).await
    }

    /// Whether anybody here is mirrored.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if nobody knows.
    pub async fn has_mirrored_users(&self) -> Result<bool, StoreError> {
        self.has_users(MIRRORED_USERS).await
    }

    /// Whether anybody here is not mirrored.
    pub(in crate::store) async fn has_users_of_its_own(&self) -> Result<bool, StoreError> {
        self.has_users(NOT_MIRRORED).await
    }

    async fn has_users(&self, count: &'static str) -> Result<bool, StoreError> {
        let row = self.database.list(count, values![MIRRORED]).await?;
        let count = row.first().map_or(Ok(0), |row| row.integer("users"));
        Ok(count.map_err(unavailable)? > 0)
    }
}

async fn mirror(link: &mut Link, user: &User) -> sqlx::Result<()> {
    let (id, name, version) = (user.id.0, &*user.username, user.password_version);
    // A name that somebody else had is not in the way: names change, ids do not.
    if let Some(other) = id_of(link, name).await?.filter(|other| *other != user.id) {
        let freed = format!("{name} (was {})", other.0);
        link.run(RENAME, values![other.0, freed]).await?;
    }
    let Some(row) = link.one(MIRROR_OF, values![id]).await? else {
        link.run(MIRROR, values![id, name, MIRRORED, version]).await?;
        return Ok(());
    };
    let (old_name, old_version) = (row.text("username")?, row.integer("password_version")?);
    if old_name != name {
        // Under another name it may be somebody else, who is not to have the tokens of the one before.
        link.run(VOID_TOKENS, values![id]).await?;
    }
    if old_name != name || old_version != version {
        link.run(UPDATE_MIRROR, values![id, name, version]).await?;
    }
    Ok(())
}
