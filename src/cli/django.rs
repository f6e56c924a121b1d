//! `doorward django`: what is done for an existing Django database, in that database.

use crate::app;
use crate::cli::act::{load, runtime};
use crate::cli::tell::{Failure, say};
use crate::config::{Config, ServerKind, StoreUrl};
use crate::store::django::triggers::Done;
use clap::{Args, Subcommand};
use std::path::Path;

/// An existing Django database.
#[derive(Debug, Subcommand)]
pub enum DjangoCommand {
    /// Print or make the triggers by which Django's tables in PostgreSQL tell what was changed.
    Triggers(DjangoTriggers),
}

/// What to do with them. Without an option the SQL that makes them is printed.
#[derive(Debug, Args)]
pub struct DjangoTriggers {
    /// Make them; doorward's user must own the tables.
    #[arg(long, conflicts_with = "remove")]
    pub install: bool,
    /// Take them away.
    #[arg(long)]
    pub remove: bool,
    /// Print the SQL and change nothing.
    #[arg(long)]
    pub print: bool,
}

pub(in crate::cli) fn run(config: &Path, command: &DjangoCommand) -> Result<(), Failure> {
    let DjangoCommand::Triggers(wanted) = command;
    let config = load(config)?.config;
    let Some(triggers) = app::django_triggers(&config)? else { return Err(why_none(&config).into()) };
    let told = runtime()?.block_on(async {
        Ok::<_, Failure>(match wanted {
            DjangoTriggers { remove: true, print: true, .. } => triggers.removal().await?,
            DjangoTriggers { remove: true, .. } => told(triggers.remove().await?),
            DjangoTriggers { install: true, print: false, .. } => told(triggers.install().await?),
            DjangoTriggers { .. } => triggers.script().await?,
        })
    })?;
    Ok(say(&told)?)
}

fn told(done: Done) -> String {
    match done {
        Done::Installed(tables) => format!("Made triggers on {}", tables.join(", ")),
        Done::WereThere(tables) => format!("The triggers are there already, on {}", tables.join(", ")),
        Done::Removed => "Removed the triggers".to_owned(),
        Done::WereNotThere => "There are no triggers".to_owned(),
    }
}

/// What is done instead where there are none to be made.
fn why_none(config: &Config) -> &'static str {
    match &config.store.url {
        _ if !config.store.layout.is_django() => {
            "triggers are for layout = \"django\" alone: doorward's own tables have theirs, and tell what was changed"
        }
        StoreUrl::Server(server) if server.kind == ServerKind::MySql => {
            "triggers are for PostgreSQL alone: MySQL notifies nobody, so there credentials in use are asked for again \
             each 300 ms"
        }
        _ => {
            "triggers are for PostgreSQL alone: doorward sees by itself when a SQLite file is written, and asks for \
             credentials in use again"
        }
    }
}
