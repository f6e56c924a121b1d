//! What commands ask of Django's users and groups: to be listed. Django changes them.

use crate::identity::UserId;
use crate::store::django::Django;
use crate::store::manage::{Account, Group, ManageTokens as _, ManageUsers, UserUpdate};
use crate::store::sql::error::unavailable;
use crate::store::sql::{Row, values};
use crate::store::{StoreError, StoreFuture, UserStore as _, Written};

impl ManageUsers for Django {
    fn list_users(&self) -> StoreFuture<'_, Vec<Account>> {
        Box::pin(async move {
            let mut accounts = Vec::new();
            for (user, created) in self.all_users().await? {
                let tokens = self.own.count_tokens(user.id).await? + self.count_keys(user.id).await?;
                accounts.push(Account { user, created, tokens });
            }
            Ok(accounts)
        })
    }

    fn user_ids(&self, usernames: Vec<String>) -> StoreFuture<'_, Vec<(String, UserId)>> {
        Box::pin(async move {
            let mut found = Vec::new();
            for username in usernames {
                if let Some(user) = self.find_user(&username).await? {
                    found.push((username, user.user.id));
                }
            }
            Ok(found)
        })
    }

    fn update_user(&self, _: UserId, _: UserUpdate) -> StoreFuture<'_, Written<bool>> {
        Box::pin(async { Err(StoreError::Foreign("the table of users")) })
    }

    fn list_groups(&self) -> StoreFuture<'_, Vec<Group>> {
        Box::pin(async move {
            let Some(statement) = &self.statements.groups else { return Ok(Vec::new()) };
            let rows = self.database.list(statement, values![]).await?;
            rows.iter().map(group).collect::<sqlx::Result<_>>().map_err(unavailable)
        })
    }

    fn join_group(&self, _: &str, _: Vec<UserId>) -> StoreFuture<'_, Written<Vec<UserId>>> {
        Box::pin(async { Err(StoreError::Foreign("membership of groups")) })
    }

    fn leave_group(&self, _: &str, _: Vec<UserId>) -> StoreFuture<'_, Written<Option<Vec<UserId>>>> {
        Box::pin(async { Err(StoreError::Foreign("membership of groups")) })
    }
}

fn group(row: &Row) -> sqlx::Result<Group> {
    Ok(Group { name: row.text("name")?, members: row.names("members")? })
}
