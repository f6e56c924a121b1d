//! `doorward token`, but for `import`.

use crate::cli::act::{act, explain, resolve, similar_user};
use crate::cli::import::{self, ImportTokens};
use crate::cli::lines::{Line, Lines};
use crate::cli::table::{List, Row, time};
use crate::cli::tell::{Failure, counted, output, say, somebody_reads, tell};
use crate::clock::{Clock as _, SystemClock, UnixSeconds};
use crate::config::Tokens;
use crate::credentials::manage::{IssuedToken, Lifetime, TokenRequest};
use crate::credentials::{Credentials, CredentialsError};
use crate::identity::CredentialId;
use crate::secret::Secret;
use crate::store::{TokenOrigin, TokenSummary};
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::{self, BufReader, Write as _};
use std::path::Path;
use zeroize::Zeroizing;

/// Tokens that are asked of the store at once.
const PAGE_TOKENS: u32 = 1000;

/// Tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token for a user and print it: the only time that it is shown.
    Create(CreateToken),
    /// List tokens: their public ids and what they are for, never the tokens themselves.
    List(ListTokens),
    /// Revoke tokens: by their ids, or the tokens themselves from standard input, or all of a user.
    Revoke(RevokeTokens),
    /// Take over tokens that were made elsewhere: all of a file, or none.
    Import(ImportTokens),
}

/// A token to be made.
#[derive(Debug, Args)]
pub struct CreateToken {
    /// Whose.
    pub username: String,
    /// A name for people.
    #[arg(long, default_value = "")]
    pub name: String,
    /// How long it lives, such as 30d, or never; default: `[tokens] ttl`.
    #[arg(long, value_parser = lifetime)]
    pub ttl: Option<Lifetime>,
    /// Revoke all other tokens of the user.
    #[arg(short, long)]
    pub replace: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Which tokens to list.
#[derive(Debug, Args)]
pub struct ListTokens {
    /// Only this user's.
    #[arg(long)]
    pub user: Option<String>,
    /// Print a JSON array.
    #[arg(long)]
    pub json: bool,
}

/// Which tokens to revoke.
#[derive(Debug, Args)]
pub struct RevokeTokens {
    /// Public ids, as `doorward token list` and the log show them.
    #[arg(
        value_name = "ID",
        required_unless_present_any = ["stdin", "user"],
        conflicts_with_all = ["stdin", "user"]
    )]
    pub ids: Vec<String>,
    /// Read the tokens themselves from standard input, one a line.
    #[arg(long, conflicts_with = "user")]
    pub stdin: bool,
    /// All tokens of this user.
    #[arg(long, requires = "all")]
    pub user: Option<String>,
    /// Confirms that all are meant.
    #[arg(long, requires = "user")]
    pub all: bool,
}

/// A lifetime as `[tokens] ttl` is written.
pub(in crate::cli) fn lifetime(text: &str) -> Result<Lifetime, String> {
    Tokens::ttl_from_text(text).map(|ttl| ttl.map_or(Lifetime::Never, Lifetime::For))
}

pub(in crate::cli) fn run(config: &Path, command: &TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create(token) => create(config, token),
        TokenCommand::List(listing) => list(config, listing),
        TokenCommand::Revoke(tokens) => revoke(config, tokens),
        TokenCommand::Import(tokens) => import::run(config, tokens),
    }
}

fn create(config: &Path, token: &CreateToken) -> Result<(), Failure> {
    somebody_reads()?;
    let wanted = TokenRequest {
        name: token.name.clone(),
        lifetime: token.ttl.unwrap_or(Lifetime::Policy),
        replaces: token.replace,
    };
    act(config, async |credentials| {
        let issued = match credentials.issue_token(&token.username, wanted).await {
            Ok(issued) => issued,
            Err(CredentialsError::NoSuchUser) => return Err(cannot_create(credentials, token).await),
            Err(error) => return Err(error.into()),
        };
        match show(&issued, token) {
            Ok(()) => Ok(()),
            Err(error) => Err(take_back(credentials, &issued, &error).await),
        }
    })
}

/// DRF 3.18, `drf_create_token`.
async fn cannot_create(credentials: &Credentials, token: &CreateToken) -> Failure {
    let username = &token.username;
    let near = similar_user(credentials, username).await;
    let meant = near.map_or_else(String::new, |near| format!("\nhint: did you mean `{near}`?"));
    format!("Cannot create the Token: user {username} does not exist{meant}").into()
}

/// In one call of the system, so that it is seen whole or not at all.
fn show(issued: &IssuedToken, token: &CreateToken) -> io::Result<()> {
    let username = &token.username;
    let key = Zeroizing::new(String::from_utf8_lossy(issued.key.expose()).into_owned());
    let text = Zeroizing::new(if token.json {
        let (id, expires) = (issued.id.to_string(), issued.expires.map(time));
        let object = json!({ "token": *key, "id": id, "user": username, "expires": expires });
        format!("{object}\n")
    } else {
        // DRF 3.18, `drf_create_token`.
        format!("Generated token {} for user {username}\n", *key)
    });
    output()?.write_all(text.as_bytes())
}

/// Revokes a token that nobody has seen.
async fn take_back(credentials: &Credentials, issued: &IssuedToken, error: &io::Error) -> Failure {
    let id = issued.id;
    let fate = match credentials.revoke_token(id).await {
        Ok(()) => "so it was revoked".to_owned(),
        Err(error) => format!("nor could it be revoked ({error}): doorward token revoke {id}"),
    };
    let replaced = match issued.replaced {
        0 => String::new(),
        count => format!("; {} that it replaced stay revoked", counted(count, "token")),
    };
    format!("the token could not be written to standard output ({error}), {fate}{replaced}").into()
}

fn list(config: &Path, listing: &ListTokens) -> Result<(), Failure> {
    let headings = ["ID", "USER", "NAME", "ORIGIN", "CREATED", "EXPIRES", "LAST USED"];
    let now = SystemClock::new().unix();
    act(config, async |credentials| {
        let user = match &listing.user {
            None => None,
            Some(name) => resolve(credentials, std::slice::from_ref(name)).await?.pop(),
        };
        let mut list = List::begin(listing.json, &headings)?;
        let mut place = None;
        loop {
            let page = credentials.page_tokens(user, place, PAGE_TOKENS).await?;
            list.rows(page.tokens.iter().map(|token| row(token, now)).collect())?;
            place = page.next;
            if place.is_none() {
                return Ok(list.end()?);
            }
        }
    })
}

fn row(token: &TokenSummary, now: UnixSeconds) -> Row {
    let (id, created) = (token.id.to_string(), time(token.created));
    let (expires, last_used) = (token.expires.map(time), token.last_used.map(time));
    // As the gateway judges it: at the very second it is over.
    let is_expired = token.expires.is_some_and(|expires| expires <= now);
    let origin = match token.origin {
        TokenOrigin::Command => "command",
        TokenOrigin::Obtain => "obtain",
        TokenOrigin::Import => "import",
        TokenOrigin::Canary => "canary",
    };
    let mark = if is_expired { " (expired)" } else { "" };
    Row {
        cells: vec![
            id.clone(),
            token.username.clone(),
            token.name.clone(),
            origin.to_owned(),
            created.clone(),
            expires.as_ref().map_or_else(|| "never".to_owned(), |expires| format!("{expires}{mark}")),
            last_used.clone().unwrap_or_else(|| "never".to_owned()),
        ],
        json: json!({
            "id": id,
            "user": token.username,
            "name": token.name,
            "origin": origin,
            "created": created,
            "expires": expires,
            "expired": is_expired,
            "last_used": last_used,
        }),
    }
}

fn revoke(config: &Path, tokens: &RevokeTokens) -> Result<(), Failure> {
    if let Some(username) = &tokens.user {
        return revoke_all(config, username);
    }
    let ids = ids(&tokens.ids)?;
    let unknown = act(config, async |credentials| {
        if tokens.stdin { revoke_keys(credentials).await } else { revoke_ids(credentials, &ids).await }
    })?;
    if unknown == 0 { Ok(()) } else { Err(format!("{} not revoked", counted(unknown, "token")).into()) }
}

/// Reads all before anything is revoked. What is not an id is not repeated: it may be a token.
fn ids(arguments: &[String]) -> Result<Vec<CredentialId>, Failure> {
    let read = arguments.iter().zip(1..).map(|(argument, position)| {
        let is_id = argument.len() == 16 && argument.bytes().all(|byte| byte.is_ascii_hexdigit());
        argument.parse().ok().filter(|_| is_id).ok_or_else(|| {
            format!(
                "argument {position} is not a token's id: 16 hex digits, as `doorward token list` shows it (it is \
                 not shown: it may be a token)\n\nA token itself is revoked from standard input, where other users \
                 of the machine cannot read it:\n  doorward token revoke --stdin < FILE"
            )
            .into()
        })
    });
    read.collect()
}

async fn revoke_ids(credentials: &Credentials, ids: &[CredentialId]) -> Result<usize, Failure> {
    let mut unknown = 0;
    for id in ids {
        match credentials.revoke_token(*id).await {
            Ok(()) => say(&format!("Revoked token {id}"))?,
            Err(CredentialsError::NoSuchToken) => {
                tell(&format!("there is no token {id}"));
                unknown += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(unknown)
}

async fn revoke_keys(credentials: &Credentials) -> Result<usize, Failure> {
    let mut lines = Lines::new(BufReader::new(io::stdin()));
    let mut unknown = 0;
    while let Some((number, line)) = lines.next()? {
        let key = match line {
            Line::Bytes([]) => continue,
            Line::Bytes(key) => Some(Secret::new(key.trim_ascii())),
            Line::TooLong => None,
        };
        let revoked = match key {
            Some(key) => credentials.revoke_key(&key).await,
            None => Err(CredentialsError::NoSuchToken),
        };
        match revoked {
            Ok(Some(id)) => say(&format!("Revoked token {id}"))?,
            Ok(None) => say(&format!("Revoked the key of line {number}"))?,
            Err(CredentialsError::NoSuchToken) => {
                tell(&format!("line {number}: there is no such token"));
                unknown += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(unknown)
}

fn revoke_all(config: &Path, username: &str) -> Result<(), Failure> {
    let count = act(config, async |credentials| match credentials.revoke_tokens(username).await {
        Ok(count) => Ok(count),
        Err(error) => Err(explain(credentials, username, error).await),
    })?;
    Ok(say(&format!("Revoked {} of user {username}", counted(count, "token")))?)
}
