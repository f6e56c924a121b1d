//! The command line: arguments, one function for each command, and what people read.
//!
//! Secrets never come in an argument, where every user of the machine can see them: passwords come from a prompt
//! or from standard input.

mod act;
mod bar;
mod bench;
mod describe;
mod django;
mod first;
mod group;
mod import;
mod lines;
mod log;
mod manager;
mod reload;
mod run;
mod secrets;
mod status;
mod table;
mod tell;
mod token;
mod user;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

pub use crate::cli::bench::{BenchCommand, Lookup};
pub use crate::cli::describe::{Completions, Manual};
pub use crate::cli::django::{DjangoCommand, DjangoTriggers};
pub use crate::cli::first::{Beginning, Init, Proxy};
pub use crate::cli::group::{GroupCommand, Members};
pub use crate::cli::import::ImportTokens;
pub use crate::cli::run::run;
pub use crate::cli::status::ShowStatus;
pub use crate::cli::token::{CreateToken, ListTokens, RevokeTokens, TokenCommand};
pub use crate::cli::user::{AddUser, DeleteUser, EditUser, OneUser, UserCommand};

/// A reverse-proxy authentication gateway that speaks Django REST Framework's wire contract.
#[derive(Debug, Parser)]
#[command(name = "doorward", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Arguments {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "DOORWARD_CONFIG",
        default_value = "doorward.toml"
    )]
    pub config: PathBuf,
    /// The configuration file was named by an argument, and not by the environment or by nobody.
    #[arg(skip)]
    pub names_config: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// Reads the command line.
    ///
    /// # Errors
    /// The exit code, after telling what is wrong or, if asked to, how to use the program.
    pub fn read() -> Result<Self, ExitCode> {
        let parsed = Self::command().try_get_matches().and_then(|matches| {
            let names_config = matches.value_source("config") == Some(ValueSource::CommandLine);
            Self::from_arg_matches(&matches).map(|arguments| Self { names_config, ..arguments })
        });
        parsed.map_err(|error| {
            let code = u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
            let told = if may_repeat_a_secret(&error) {
                writeln!(io::stderr(), "error: {SECRETS_HINT}\n\nFor more information, try '--help'.")
            } else {
                error.print()
            };
            // Nobody left to tell.
            told.unwrap_or_default();
            code
        })
    }
}

/// What is said instead of repeating an argument that may be a secret.
const SECRETS_HINT: &str = "unexpected argument (not shown: it may be a secret)\n\n  \
    Secrets never come in an argument, where every user of the machine can read them.\n  \
    doorward asks for passwords, or reads one from standard input: doorward user add NAME < FILE\n  \
    Tokens, too, are read from there: doorward token revoke --stdin < FILE";

/// No command has a name of so many bytes.
const COMMAND_BYTES_MAX: usize = 15;

/// A word too many, or an option that sounds like a password: repeating it would write a secret down.
fn may_repeat_a_secret(error: &clap::Error) -> bool {
    match (error.kind(), error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(given)), _) => {
            !given.starts_with("--") || given.starts_with("--p")
        }
        (ErrorKind::InvalidSubcommand, _, Some(ContextValue::String(given))) => {
            given.len() > COMMAND_BYTES_MAX
        }
        (ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand, ..) => true,
        _ => false,
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole gateway in a minute: a built-in upstream, one user, three commands to paste.
    Demo,
    /// Serve in front of a backend at once, without a file; prints the file and the next steps.
    Proxy(Proxy),
    /// Write a first configuration file, with comments.
    Init(Init),
    /// Check the configuration and tell everything that is wrong with it.
    Check,
    /// Serve until stopped (Ctrl-C or SIGTERM); requests under way are finished. SIGHUP reloads the configuration.
    Serve(Serve),
    /// Show how the running gateway stands: routes, upstreams, tables, certificates.
    Status(ShowStatus),
    /// Manage users.
    #[command(subcommand)]
    User(UserCommand),
    /// Manage groups of users.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Manage tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Prepare an existing Django database.
    #[command(subcommand)]
    Django(DjangoCommand),
    /// Measure how fast doorward is on this machine, or with --config what a look-up takes in your own stores.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print the JSON Schema of the configuration file, for editors.
    Schema,
    /// Print what a shell needs to complete the commands.
    Completions(Completions),
    /// Print the manual page, or write the pages of all commands.
    Man(Manual),
}

/// How to serve.
#[derive(Debug, Args)]
pub struct Serve {
    /// Reload the configuration when its file changes, too.
    #[arg(long)]
    pub watch: bool,
}

/// How to list.
#[derive(Debug, Args)]
pub struct Listing {
    /// Print a JSON array.
    #[arg(long)]
    pub json: bool,
}

/// Exit code of a command that a second signal cut short: 128 and the signal's number.
pub(in crate::cli) fn signalled(number: u8) -> ExitCode {
    ExitCode::from(128_u8.saturating_add(number))
}
