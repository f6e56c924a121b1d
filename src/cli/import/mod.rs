//! `doorward token import`: tokens that were made elsewhere, all of a file or none.
//!
//! The whole file is checked before anything is written, without the store's lock, so a file that is slow to come or
//! wrong holds nobody up. Then everything is one transaction. Kept in memory are digests, never tokens.

mod line;
mod report;

use crate::cli::act::act;
use crate::cli::bar::Bar;
use crate::cli::import::line::LineFault;
use crate::cli::import::report::Report;
use crate::cli::lines::{Line, Lines};
use crate::cli::table::clean;
use crate::cli::tell::{Failure, counted, say, tell_plain};
use crate::cli::token::lifetime;
use crate::credentials::manage::{ImportedToken, Lifetime};
use crate::credentials::{Credentials, CredentialsError};
use crate::identity::{Digest, UserId};
use crate::store::StoreError;
use crate::store::manage::Progress;
use clap::Args;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Lines whose users and tokens are looked up together.
const CHUNK_LINES: usize = 1000;
/// Lines of one import; each takes about a hundred bytes of memory.
const TOKENS_MAX: usize = 10_000_000;
/// A name as long as a token is not repeated: columns may have been swapped.
const SHOWN_NAME_BYTES_MAX: usize = 31;

/// What to import.
#[derive(Debug, Args)]
pub struct ImportTokens {
    /// Lines of token, tab, user; `-`: standard input. A token is clear, or `sha256:` and the 64 hex digits of its
    /// digest. Empty lines are passed over.
    pub file: PathBuf,
    /// Take tokens shorter than 32 characters, too.
    #[arg(long)]
    pub allow_weak: bool,
    /// How long they live from now on, such as 30d, or never.
    #[arg(long, default_value = "never", value_parser = lifetime)]
    pub ttl: Lifetime,
    /// Check the file only.
    #[arg(long)]
    pub dry_run: bool,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
}

pub(in crate::cli) fn run(config: &Path, wanted: &ImportTokens) -> Result<(), Failure> {
    let (input, bytes) = open(&wanted.file)?;
    let bar = Arc::new(Bar::new());
    let done = act(config, async |credentials| {
        let mut import = Import::new(credentials, wanted, &bar, bytes);
        let read = import.read(&mut Lines::new(input)).await;
        bar.clear();
        read?;
        let count = import.tokens.len();
        let users = import.tokens.iter().map(|token| token.user).collect::<HashSet<UserId>>().len();
        if !wanted.dry_run {
            let written = write(credentials, import.tokens, wanted.ttl, &bar).await;
            bar.clear();
            written?;
        }
        Ok((count, users))
    });
    let (count, users) = done?;
    Ok(say(&summary(wanted, count, users))?)
}

fn summary(wanted: &ImportTokens, count: usize, users: usize) -> String {
    let text = format!("{} for {}", counted(count, "token"), counted(users, "user"));
    match (wanted.json, wanted.dry_run) {
        (true, dry_run) => json!({ "tokens": count, "users": users, "imported": !dry_run }).to_string(),
        (false, false) => format!("Imported {text}"),
        (false, true) => format!("Nothing is wrong with {text}; nothing was imported (--dry-run)"),
    }
}

/// The file, and its size in bytes; 0: nobody knows.
fn open(file: &Path) -> Result<(Box<dyn BufRead + Send>, u64), Failure> {
    if file == Path::new("-") {
        return Ok((Box::new(BufReader::new(io::stdin())), 0));
    }
    let failed = |error: io::Error| format!("cannot read {}: {error}", file.display());
    let open = File::open(file).map_err(failed)?;
    let data = open.metadata().map_err(failed)?;
    Ok((Box::new(BufReader::with_capacity(1 << 16, open)), if data.is_file() { data.len() } else { 0 }))
}

/// Stores what was found to be good.
async fn write(
    credentials: &Credentials,
    tokens: Vec<ImportedToken>,
    lifetime: Lifetime,
    bar: &Arc<Bar>,
) -> Result<usize, Failure> {
    let total = tokens.len() as u64;
    let bar = Arc::clone(bar);
    let progress: Progress = Arc::new(move |written| bar.show("writing ", written as u64, total));
    credentials.import_tokens(tokens, lifetime, progress).await.map_err(|error| match error {
        CredentialsError::Store(StoreError::Conflict) => {
            "somebody stored one of these tokens meanwhile; nothing was imported: try again".into()
        }
        CredentialsError::Store(StoreError::NotWritten(cause)) => {
            format!("the store cannot be written: {cause}; nothing was imported").into()
        }
        error => error.into(),
    })
}

/// A file that is being checked.
struct Import<'a> {
    credentials: &'a Credentials,
    wanted: &'a ImportTokens,
    bar: &'a Bar,
    bytes: u64,
    /// `None`: there is no such user.
    users: HashMap<String, Option<UserId>>,
    tokens: Vec<ImportedToken>,
    /// Lines of the tokens.
    lines: Vec<u32>,
    report: Report,
}

/// A line that is good as far as it can be seen from itself.
struct Candidate {
    line: u32,
    digest: Digest,
    username: String,
}

impl<'a> Import<'a> {
    fn new(credentials: &'a Credentials, wanted: &'a ImportTokens, bar: &'a Bar, bytes: u64) -> Self {
        let (users, report) = (HashMap::new(), Report::default());
        Self { credentials, wanted, bar, bytes, users, tokens: Vec::new(), lines: Vec::new(), report }
    }

    /// Reads to the end; fails if any line is bad, after telling which and why.
    async fn read<R: BufRead>(&mut self, lines: &mut Lines<R>) -> Result<(), Failure> {
        let mut candidates = Vec::with_capacity(CHUNK_LINES);
        while let Some((number, line)) = lines.next().map_err(|error| self.unreadable(&error))? {
            let entry = match line {
                Line::Bytes([]) => continue,
                Line::Bytes(line) => line::read(line, self.wanted.allow_weak),
                Line::TooLong => Err(LineFault::TooLong),
            };
            match entry {
                Ok(line::Entry { digest, username }) => {
                    candidates.push(Candidate { line: number, digest, username: username.to_owned() });
                }
                Err(fault) => self.report.note(number, fault.to_string()),
            }
            // Bad lines, too: their names are remembered.
            if self.tokens.len() + candidates.len() + self.report.count() > TOKENS_MAX {
                return Err(format!("more than {TOKENS_MAX} lines: import them in several files").into());
            }
            if candidates.len() == CHUNK_LINES {
                self.look_up(&mut candidates).await?;
                self.show(lines.bytes());
            }
        }
        self.look_up(&mut candidates).await?;
        self.find_duplicates();
        if self.report.count() == 0 {
            return Ok(());
        }
        self.bar.clear();
        tell_plain(&self.report.to_string());
        let count = counted(self.report.count(), "bad line");
        Err(format!("{count} in {}: nothing was imported", self.wanted.file.display()).into())
    }

    fn unreadable(&self, error: &io::Error) -> Failure {
        format!("cannot read {}: {error}; nothing was imported", self.wanted.file.display()).into()
    }

    fn show(&self, bytes: u64) {
        let done = if self.bytes == 0 { self.tokens.len() as u64 } else { bytes };
        self.bar.show("checking", done, self.bytes);
    }

    /// Asks the store about these lines.
    async fn look_up(&mut self, candidates: &mut Vec<Candidate>) -> Result<(), Failure> {
        self.find_users(candidates).await?;
        let digests = candidates.iter().map(|candidate| candidate.digest).collect();
        let taken: HashSet<Digest> = self.credentials.taken_digests(digests).await?.into_iter().collect();
        for Candidate { line, digest, username } in candidates.drain(..) {
            match self.users.get(&username).copied().flatten() {
                None => self.report.note(line, unknown_user(&username, self.wanted.allow_weak)),
                Some(_) if taken.contains(&digest) => {
                    self.report.note(line, "the token is in the store already".to_owned());
                }
                Some(user) => {
                    self.tokens.push(ImportedToken { digest, user });
                    self.lines.push(line);
                }
            }
        }
        Ok(())
    }

    /// Each name is looked up once.
    async fn find_users(&mut self, candidates: &[Candidate]) -> Result<(), Failure> {
        let names = candidates.iter().map(|candidate| &candidate.username);
        let new: HashSet<&String> = names.filter(|name| !self.users.contains_key(*name)).collect();
        let new: Vec<String> = new.into_iter().cloned().collect();
        if !new.is_empty() {
            let found = self.credentials.user_ids(new.clone()).await?;
            self.users.extend(new.into_iter().map(|name| (name, None)));
            self.users.extend(found.into_iter().map(|(name, id)| (name, Some(id))));
        }
        Ok(())
    }

    /// Sorted rather than hashed: half the memory.
    fn find_duplicates(&mut self) {
        let pairs = self.tokens.iter().zip(&self.lines);
        let mut pairs: Vec<(Digest, u32)> = pairs.map(|(token, line)| (token.digest, *line)).collect();
        pairs.sort_unstable();
        for pair in pairs.windows(2) {
            if let [(digest, first), (other, line)] = pair
                && digest == other
            {
                self.report.note(*line, format!("the same token as in line {first}"));
            }
        }
    }
}

/// The name is shown only if it cannot be a token.
fn unknown_user(username: &str, allow_weak: bool) -> String {
    if allow_weak || username.len() > SHOWN_NAME_BYTES_MAX {
        "there is no such user".to_owned()
    } else {
        format!("there is no user {}", clean(username))
    }
}
