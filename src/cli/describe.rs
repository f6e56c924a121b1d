//! What shells, manuals and editors know of the commands and the file: made from the arguments and types themselves,
//! so it is never out of date.

use crate::cli::Arguments;
use crate::cli::tell::{Failure, output, say};
use crate::config::Config;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

/// For which shell.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    pub shell: Shell,
}

/// Where to.
#[derive(Debug, Args)]
pub struct Manual {
    /// A directory for the pages of all commands; without it, the main page is printed.
    pub directory: Option<PathBuf>,
}

pub(in crate::cli) fn completions(wanted: &Completions) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(wanted.shell, &mut Arguments::command(), "doorward", &mut text);
    Ok(output()?.write_all(&text)?)
}

pub(in crate::cli) fn schema() -> Result<(), Failure> {
    Ok(say(&format!("{:#}", Config::schema()))?)
}

pub(in crate::cli) fn manual(wanted: &Manual) -> Result<(), Failure> {
    let Some(directory) = &wanted.directory else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Arguments::command()).render(&mut text)?;
        return Ok(output()?.write_all(&text)?);
    };
    let written = fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), directory));
    written.map_err(|error| format!("cannot write to {}: {error}", directory.display()))?;
    Ok(say(&format!("Wrote the manual pages to {}", directory.display()))?)
}
