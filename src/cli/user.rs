//! `doorward user`.

use crate::cli::act::{act, explain, no_such_user};
use crate::cli::table::{List, Row, time};
use crate::cli::tell::{Failure, counted, say, tell_plain};
use crate::cli::{Listing, secrets};
use crate::credentials::{CredentialsError, NewAccount};
use crate::store::StoreError;
use crate::store::manage::{Account, UserUpdate};
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::{self, IsTerminal as _};
use std::path::Path;

/// Users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user; the password comes from a prompt, or is the first line of standard input.
    Add(AddUser),
    /// List all users.
    List(Listing),
    /// Replace a password, from a prompt or the first line of standard input; tokens stay valid.
    Passwd(OneUser),
    /// Refuse a user and all of its tokens, until enabled again.
    Disable(OneUser),
    /// Let a user in again.
    Enable(OneUser),
    /// Change what is known of a user.
    Edit(EditUser),
    /// Delete a user with all of its tokens.
    Delete(DeleteUser),
}

/// A user to be added.
#[derive(Debug, Args)]
pub struct AddUser {
    /// The name; compared exactly.
    pub username: String,
    /// An e-mail address.
    #[arg(long, default_value = "")]
    pub email: String,
    /// For routes with the permission `staff`.
    #[arg(long)]
    pub staff: bool,
    /// A group; may be given several times.
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
}

/// Whom a command is about.
#[derive(Debug, Args)]
pub struct OneUser {
    /// The name; compared exactly.
    pub username: String,
}

/// A user who is to be different.
#[derive(Debug, Args)]
pub struct EditUser {
    /// The name; compared exactly.
    pub username: String,
    /// At least one of them.
    #[command(flatten)]
    pub difference: Difference,
}

/// What can be changed of a user.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Difference {
    /// The new e-mail address; "" for none.
    #[arg(long)]
    pub email: Option<String>,
    /// Whether routes with the permission `staff` let the user pass.
    #[arg(long, value_name = "true|false")]
    pub staff: Option<bool>,
}

/// A user to be deleted.
#[derive(Debug, Args)]
pub struct DeleteUser {
    /// The name; compared exactly.
    pub username: String,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

pub(in crate::cli) fn run(config: &Path, command: &UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add(user) => add(config, user),
        UserCommand::List(listing) => list(config, listing),
        UserCommand::Passwd(user) => passwd(config, &user.username),
        UserCommand::Disable(user) => set_active(config, &user.username, false),
        UserCommand::Enable(user) => set_active(config, &user.username, true),
        UserCommand::Edit(user) => edit(config, user),
        UserCommand::Delete(user) => delete(config, user),
    }
}

fn add(config: &Path, user: &AddUser) -> Result<(), Failure> {
    let username = &user.username;
    let taken = || Failure::from(format!("there is a user {username} already"));
    act(config, async |credentials| {
        // Before anybody thinks of a password.
        if !credentials.user_ids(vec![username.clone()]).await?.is_empty() {
            return Err(taken());
        }
        let account = NewAccount {
            username: username.clone(),
            password: secrets::new_password(username)?,
            email: user.email.clone(),
            is_staff: user.staff,
            groups: user.groups.clone(),
        };
        match credentials.add_user(account).await {
            Ok(_) => Ok(()),
            Err(CredentialsError::Store(StoreError::Conflict)) => Err(taken()),
            Err(error) => Err(error.into()),
        }
    })?;
    Ok(say(&format!("Added user {username}"))?)
}

fn list(config: &Path, listing: &Listing) -> Result<(), Failure> {
    let accounts = act(config, async |credentials| Ok(credentials.list_users().await?))?;
    let headings = ["NAME", "ACTIVE", "STAFF", "GROUPS", "E-MAIL", "CREATED", "TOKENS"];
    let mut list = List::begin(listing.json, &headings)?;
    list.rows(accounts.iter().map(row).collect())?;
    Ok(list.end()?)
}

fn row(account: &Account) -> Row {
    let Account { user, created, tokens } = account;
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let created = time(*created);
    Row {
        cells: vec![
            user.username.to_string(),
            yes(user.is_active),
            yes(user.is_staff),
            user.groups.join(","),
            user.email.to_string(),
            created.clone(),
            tokens.to_string(),
        ],
        json: json!({
            "username": *user.username,
            "active": user.is_active,
            "staff": user.is_staff,
            "groups": *user.groups,
            "email": *user.email,
            "created": created,
            "tokens": tokens,
        }),
    }
}

fn passwd(config: &Path, username: &str) -> Result<(), Failure> {
    act(config, async |credentials| {
        // Before anybody thinks of a password.
        if credentials.user_ids(vec![username.to_owned()]).await?.is_empty() {
            return Err(no_such_user(credentials, username).await.into());
        }
        let password = secrets::new_password(username)?;
        match credentials.set_password(username, password).await {
            Ok(()) => Ok(()),
            Err(error) => Err(explain(credentials, username, error).await),
        }
    })?;
    Ok(say(&format!("Changed the password of user {username}"))?)
}

fn set_active(config: &Path, username: &str, active: bool) -> Result<(), Failure> {
    act(config, async |credentials| match credentials.set_active(username, active).await {
        Ok(()) => Ok(()),
        Err(error) => Err(explain(credentials, username, error).await),
    })?;
    let done = if active { "Enabled" } else { "Disabled" };
    Ok(say(&format!("{done} user {username}"))?)
}

fn edit(config: &Path, user: &EditUser) -> Result<(), Failure> {
    let username = &user.username;
    let Difference { email, staff } = &user.difference;
    let update = UserUpdate { email: email.clone(), is_staff: *staff };
    act(config, async |credentials| match credentials.update_user(username, update).await {
        Ok(()) => Ok(()),
        Err(error) => Err(explain(credentials, username, error).await),
    })?;
    Ok(say(&format!("Changed user {username}"))?)
}

fn delete(config: &Path, user: &DeleteUser) -> Result<(), Failure> {
    let username = &user.username;
    let tokens = act(config, async |credentials| {
        let tokens = match credentials.count_tokens(username).await {
            Ok(tokens) => counted(usize::try_from(tokens).unwrap_or(usize::MAX), "token"),
            Err(error) => return Err(explain(credentials, username, error).await),
        };
        if !user.yes {
            confirm(username, &tokens)?;
        }
        match credentials.delete_user(username).await {
            Ok(()) => Ok(tokens),
            Err(error) => Err(explain(credentials, username, error).await),
        }
    })?;
    Ok(say(&format!("Deleted user {username} with {tokens}"))?)
}

/// Lets a person type the name once more.
fn confirm(username: &str, tokens: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        let hint = "there is no terminal to ask; give --yes if it is meant";
        return Err(format!("user {username} with {tokens} was not deleted: {hint}").into());
    }
    tell_plain(&format!("This deletes user {username} with {tokens}. Type the name to go on: "));
    let mut typed = String::new();
    io::stdin().read_line(&mut typed)?;
    if typed.trim_end_matches(['\r', '\n']) == username {
        Ok(())
    } else {
        Err(format!("that is not the name: user {username} was not deleted").into())
    }
}
