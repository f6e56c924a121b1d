//! `doorward group`: a group is there as long as somebody is in it.

use crate::cli::Listing;
use crate::cli::act::{act, resolve};
use crate::cli::table::{List, Row};
use crate::cli::tell::{Failure, say};
use crate::config::nearest;
use crate::credentials::Credentials;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::Path;

/// Groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Put users into a group, which is made if there is none.
    Add(Members),
    /// Take users out of a group.
    Remove(Members),
    /// List all groups with their members.
    List(Listing),
}

/// A group and some users.
#[derive(Debug, Args)]
pub struct Members {
    /// The group; compared exactly.
    pub group: String,
    /// The users; compared exactly.
    #[arg(value_name = "USER", required = true)]
    pub users: Vec<String>,
}

pub(in crate::cli) fn run(config: &Path, command: &GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::Add(members) => add(config, members),
        GroupCommand::Remove(members) => remove(config, members),
        GroupCommand::List(listing) => list(config, listing),
    }
}

fn add(config: &Path, Members { group, users }: &Members) -> Result<(), Failure> {
    let told = act(config, async |credentials| {
        let ids = resolve(credentials, users).await?;
        let joined = credentials.join_group(group, ids.clone()).await?;
        let told = users.iter().zip(ids).map(|(user, id)| {
            if joined.contains(&id) {
                format!("Added {user} to {group}")
            } else {
                format!("{user} is in {group} already")
            }
        });
        Ok(told.collect::<Vec<String>>())
    })?;
    Ok(say(&told.join("\n"))?)
}

fn remove(config: &Path, Members { group, users }: &Members) -> Result<(), Failure> {
    let told = act(config, async |credentials| {
        let ids = resolve(credentials, users).await?;
        let Some(left) = credentials.leave_group(group, ids.clone()).await? else {
            return Err(no_such_group(credentials, group).await);
        };
        let told = users.iter().zip(ids).map(|(user, id)| {
            if left.contains(&id) {
                format!("Removed {user} from {group}")
            } else {
                format!("{user} was not in {group}")
            }
        });
        Ok(told.collect::<Vec<String>>())
    })?;
    Ok(say(&told.join("\n"))?)
}

async fn no_such_group(credentials: &Credentials, group: &str) -> Failure {
    // Only a suggestion: not worth another error.
    let groups = credentials.list_groups().await.unwrap_or_default();
    let near = nearest(group, groups.iter().map(|group| group.name.as_str()));
    let meant = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    format!("there is no group {group}{meant}").into()
}

fn list(config: &Path, listing: &Listing) -> Result<(), Failure> {
    let groups = act(config, async |credentials| Ok(credentials.list_groups().await?))?;
    let mut list = List::begin(listing.json, &["GROUP", "MEMBERS"])?;
    let rows = groups.into_iter().map(|group| Row {
        json: json!({ "group": group.name, "members": group.members }),
        cells: vec![group.name, group.members.join(", ")],
    });
    list.rows(rows.collect())?;
    Ok(list.end()?)
}
