//! What commands ask about users and groups, in SQLite.

use crate::clock::UnixSeconds;
use crate::identity::UserId;
use crate::store::manage::{Account, Group, ManageUsers, UserUpdate};
use crate::store::sqlite::Sqlite;
use crate::store::sqlite::error::{not_written, unavailable};
use crate::store::sqlite::users::{LIST, MAKE_GROUP, UserRow};
use crate::store::{StoreError, StoreFuture, Written};
use sqlx::{FromRow, SqliteConnection};

/// Names as a JSON array, so that one statement does for any number of them.
const IDS: &str = "SELECT username, id FROM user WHERE username IN (SELECT value FROM json_each(?1))";
const UPDATE: &str =
    "UPDATE user SET email = coalesce(?2, email), is_staff = coalesce(?3, is_staff) WHERE id = ?1";

const LIST_GROUPS: &str = "SELECT user_group.name, json_group_array(user.username) AS members FROM user_group
    JOIN membership ON membership.group_id = user_group.id JOIN user ON user.id = membership.user_id
    GROUP BY user_group.id ORDER BY user_group.name";
const GROUP_EXISTS: &str = "SELECT count(*) FROM user_group WHERE name = ?1";
/// One membership, if the user is there: a read-modify-write would undo what another process did meanwhile.
const JOIN: &str = "INSERT INTO membership (user_id, group_id)
    SELECT user.id, user_group.id FROM user JOIN user_group WHERE user.id = ?1 AND user_group.name = ?2
    ON CONFLICT DO NOTHING";
const LEAVE: &str = "DELETE FROM membership
    WHERE user_id = ?1 AND group_id = (SELECT id FROM user_group WHERE name = ?2)";

#[derive(FromRow)]
struct AccountRow {
    #[sqlx(flatten)]
    user: UserRow,
    created_at: i64,
    tokens: i64,
}

impl AccountRow {
    fn into_account(self) -> sqlx::Result<Account> {
        Ok(Account {
            user: self.user.into_user()?,
            created: UnixSeconds(self.created_at),
            tokens: self.tokens.unsigned_abs(),
        })
    }
}

/// Name, and members as a JSON array.
type GroupRow = (String, String);

fn group((name, members): GroupRow) -> sqlx::Result<Group> {
    let mut members: Vec<String> =
        serde_json::from_str(&members).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    members.sort_unstable();
    Ok(Group { name, members })
}

/// Runs a statement on user and group for each user; yields those for whom it changed something.
async fn for_each(
    connection: &mut SqliteConnection,
    statement: &'static str,
    group: &str,
    users: Vec<UserId>,
) -> Result<Vec<UserId>, StoreError> {
    let mut changed = Vec::new();
    for user in users {
        let query = sqlx::query(statement).bind(user.0).bind(group.to_owned());
        if query.execute(&mut *connection).await.map_err(not_written)?.rows_affected() > 0 {
            changed.push(user);
        }
    }
    Ok(changed)
}

impl ManageUsers for Sqlite {
    fn list_users(&self) -> StoreFuture<'_, Vec<Account>> {
        // No deadline: millions of rows take longer than a look-up may.
        Box::pin(async move {
            let rows = sqlx::query_as::<_, AccountRow>(LIST).fetch_all(&self.pools.readers).await;
            let rows = rows.map_err(unavailable)?;
            rows.into_iter().map(AccountRow::into_account).collect::<sqlx::Result<_>>().map_err(unavailable)
        })
    }

    fn user_ids(&self, usernames: Vec<String>) -> StoreFuture<'_, Vec<(String, UserId)>> {
        Box::pin(self.pools.read(async move {
            let names = serde_json::Value::from(usernames).to_string();
            let rows =
                sqlx::query_as::<_, (String, i64)>(IDS).bind(names).fetch_all(&self.pools.readers).await?;
            Ok(rows.into_iter().map(|(name, id)| (name, UserId(id))).collect())
        }))
    }

    fn update_user(&self, user: UserId, update: UserUpdate) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let query = sqlx::query(UPDATE).bind(user.0).bind(update.email).bind(update.is_staff);
            let done = query.execute(&mut *write).await.map_err(not_written)?;
            write.commit(done.rows_affected() > 0).await
        })
    }

    fn list_groups(&self) -> StoreFuture<'_, Vec<Group>> {
        // No deadline, as for users.
        Box::pin(async move {
            let rows = sqlx::query_as::<_, GroupRow>(LIST_GROUPS).fetch_all(&self.pools.readers).await;
            rows.map_err(unavailable)?
                .into_iter()
                .map(group)
                .collect::<sqlx::Result<_>>()
                .map_err(unavailable)
        })
    }

    fn join_group(&self, group: &str, users: Vec<UserId>) -> StoreFuture<'_, Written<Vec<UserId>>> {
        let group = group.to_owned();
        Box::pin(async move {
            let mut write = self.write().await?;
            let made = sqlx::query(MAKE_GROUP).bind(group.clone()).execute(&mut *write).await;
            made.map_err(not_written)?;
            let joined = for_each(&mut write, JOIN, &group, users).await?;
            write.commit(joined).await
        })
    }

    fn leave_group(&self, group: &str, users: Vec<UserId>) -> StoreFuture<'_, Written<Option<Vec<UserId>>>> {
        let group = group.to_owned();
        Box::pin(async move {
            let mut write = self.write().await?;
            let query = sqlx::query_scalar::<_, i64>(GROUP_EXISTS).bind(group.clone());
            if query.fetch_one(&mut *write).await.map_err(not_written)? == 0 {
                return Ok(Written::nothing(None));
            }
            let left = for_each(&mut write, LEAVE, &group, users).await?;
            write.commit(Some(left)).await
        })
    }
}
