//! What commands ask about users and groups, in our own tables.

use crate::clock::UnixSeconds;
use crate::identity::UserId;
use crate::store::manage::{Account, Group, ManageUsers, UserUpdate};
use crate::store::own::Own;
use crate::store::own::users::{LIST, group_id, join, known_group, read_user};
use crate::store::sql::error::{not_written, unavailable};
use crate::store::sql::text::list;
use crate::store::sql::{Row, Value, values};
use crate::store::{StoreError, StoreFuture, Written};
use std::collections::BTreeSet;

/// Names that one statement asks for.
const NAMES: usize = 500;
const IDS: &str = r#"SELECT username, id FROM "user" WHERE username IN "#;
const UPDATE: &str =
    r#"UPDATE "user" SET email = coalesce(?2, email), is_staff = coalesce(?3, is_staff) WHERE id = ?1"#;

const LIST_GROUPS: &str = r#"SELECT user_group.name, (SELECT {names:"user".username} FROM membership
        JOIN "user" ON "user".id = membership.user_id WHERE membership.group_id = user_group.id) AS members
    FROM user_group WHERE EXISTS (SELECT 1 FROM membership WHERE membership.group_id = user_group.id)
    ORDER BY user_group.name"#;
/// One membership: a read-modify-write would undo what another process did meanwhile.
const LEAVE: &str = "DELETE FROM membership WHERE user_id = ?1 AND group_id = ?2";

fn account(row: &Row) -> sqlx::Result<Account> {
    Ok(Account {
        user: read_user(row)?,
        created: UnixSeconds(row.integer("created_at")?),
        tokens: row.integer("tokens")?.unsigned_abs(),
    })
}

fn group(row: &Row) -> sqlx::Result<Group> {
    Ok(Group { name: row.text("name")?, members: row.names("members")? })
}

impl Own {
    async fn ids(&self, names: &[String]) -> Result<Vec<(String, UserId)>, StoreError> {
        let text = format!("{IDS}{}", list(1, names.len()));
        let values = names.iter().map(|name| Value::from(name.as_str())).collect();
        let rows = self.database.read(&text, values).await?;
        let wanted: BTreeSet<&String> = names.iter().collect();
        let found = rows.iter().map(|row| Ok((row.text("username")?, UserId(row.integer("id")?))));
        let found = found.collect::<sqlx::Result<Vec<_>>>().map_err(unavailable)?;
        Ok(found.into_iter().filter(|(name, _)| wanted.contains(name)).collect())
    }
}

impl ManageUsers for Own {
    fn list_users(&self) -> StoreFuture<'_, Vec<Account>> {
        Box::pin(async move {
            let rows = self.database.list(LIST, values![]).await?;
            rows.iter().map(account).collect::<sqlx::Result<_>>().map_err(unavailable)
        })
    }

    fn user_ids(&self, usernames: Vec<String>) -> StoreFuture<'_, Vec<(String, UserId)>> {
        Box::pin(async move {
            let mut found = Vec::new();
            let mut usernames = usernames;
            usernames.retain(|name| self.database.can_hold(name));
            for names in usernames.chunks(NAMES) {
                found.extend(self.ids(names).await?);
            }
            Ok(found)
        })
    }

    fn update_user(&self, user: UserId, update: UserUpdate) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async move {
            let mut write = self.write().await?;
            let values = values![user.0, update.email, update.is_staff];
            let found = write.run(UPDATE, values).await.map_err(not_written)?;
            write.commit(found > 0).await
        })
    }

    fn list_groups(&self) -> StoreFuture<'_, Vec<Group>> {
        Box::pin(async move {
            let rows = self.database.list(LIST_GROUPS, values![]).await?;
            rows.iter().map(group).collect::<sqlx::Result<_>>().map_err(unavailable)
        })
    }

    fn join_group(&self, group: &str, users: Vec<UserId>) -> StoreFuture<'_, Written<Vec<UserId>>> {
        let group = group.to_owned();
        Box::pin(async move {
            let mut write = self.write().await?;
            let group = group_id(&mut write, &group).await.map_err(not_written)?;
            let mut joined = Vec::new();
            for user in users {
                if join(&mut write, user, group).await.map_err(not_written)? {
                    joined.push(user);
                }
            }
            write.commit(joined).await
        })
    }

    fn leave_group(&self, group: &str, users: Vec<UserId>) -> StoreFuture<'_, Written<Option<Vec<UserId>>>> {
        let group = group.to_owned();
        Box::pin(async move {
            let mut write = self.write().await?;
            let Some(group) = known_group(&mut write, &group).await.map_err(not_written)? else {
                return Ok(Written::nothing(None));
            };
            let mut left = Vec::new();
            for user in users {
                if write.run(LEAVE, values![user.0, group]).await.map_err(not_written)? > 0 {
                    left.push(user);
                }
            }
            write.commit(Some(left)).await
        })
    }
}
