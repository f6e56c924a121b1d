//! `doorward bench`: the user's own benchmark; what is measured and how is in `app::bench`.

mod machine;
mod plot;
mod report;
mod stores;

use crate::app::bench::stores::ROWS_MAX;
use crate::app::bench::{self, BenchError, Measured, Progress, Report, TOKENS_MAX};
use crate::cli::bar::Bar;
use crate::cli::bench::machine::Machine;
use crate::cli::bench::plot::PlotFile;
use crate::cli::log::Log;
use crate::cli::run::StopSignals;
use crate::cli::tell::{Failure, counted, output, tell_plain};
use crate::config::{self, LogLevel};
use clap::{Args, Subcommand};
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Measurements.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure look-ups of tokens in a throw-away store: cached, from the store, unknown, and whole HTTPS requests. With
    /// --config in the stores of that file: cached, from Redis, from the store, unknown; the rows that it writes are let
    /// through by no gateway, and removed in the end.
    Lookup(Lookup),
}

/// What to measure, and what to show.
#[derive(Debug, Args)]
pub struct Lookup {
    /// Tokens in the throw-away store, from 1 to 1000000 [default: 100000].
    #[arg(long, value_name = "N", value_parser = tokens)]
    pub tokens: Option<NonZeroU32>,
    /// With --config: rows that are written to the store, from 1 to 10000 [default: 1000].
    #[arg(long, value_name = "N", value_parser = rows)]
    pub rows: Option<NonZeroU32>,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
    /// Write a plot of the latencies by percentile, too; a file that is there is replaced.
    #[arg(long, visible_alias = "svg", value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// Tokens unless told otherwise.
const TOKENS: NonZeroU32 = NonZeroU32::new(100_000).unwrap();
/// Rows unless told otherwise.
const ROWS: NonZeroU32 = NonZeroU32::new(1000).unwrap();

fn tokens(text: &str) -> Result<NonZeroU32, String> {
    number(text, TOKENS_MAX)
}

fn rows(text: &str) -> Result<NonZeroU32, String> {
    number(text, ROWS_MAX)
}

fn number(text: &str, max: u32) -> Result<NonZeroU32, String> {
    let number = text.parse().ok().filter(|number: &NonZeroU32| number.get() <= max);
    number.ok_or_else(|| format!("a number from 1 to {max} is needed"))
}

/// Whether the compiler was told not to optimise: figures of such a build say nothing.
const IS_SLOW_BUILD: bool = cfg!(debug_assertions);

/// `config` is the file that was named.
pub(in crate::cli) fn run(config: Option<&Path>, command: &BenchCommand) -> Result<ExitCode, Failure> {
    let BenchCommand::Lookup(wanted) = command;
    if config.is_some() && wanted.tokens.is_some() {
        return Err("--tokens is of the throw-away store; with --config it is --rows".into());
    }
    if config.is_none() && wanted.rows.is_some() {
        return Err("--rows is for your own stores: name their file with --config".into());
    }
    // Before anything is measured: nobody wants to wait for a plot that cannot be written.
    let plot = wanted.plot.as_deref().map(PlotFile::create).transpose()?;
    if IS_SLOW_BUILD {
        tell_plain(
            "warning: this doorward was built without optimisation and is many times slower: use --release\n",
        );
    }
    let (_, guard) = Log::start(&config::Log { level: LogLevel::Warn, ..config::Log::default() })?;
    let code = match config {
        Some(path) => stores::run(path, wanted.rows.unwrap_or(ROWS), wanted.json, plot),
        None => run_apart(wanted, plot),
    };
    drop(guard);
    code
}

/// In a store that goes away.
fn run_apart(wanted: &Lookup, plot: Option<PlotFile>) -> Result<ExitCode, Failure> {
    let report = match measure(wanted.tokens.unwrap_or(TOKENS))? {
        Ok(report) => report?,
        Err(code) => return Ok(code),
    };
    let machine = Machine::read();
    let text = if wanted.json {
        format!("{:#}\n", report::json(&report, &machine))
    } else {
        report::text(&report, &machine)
    };
    if let Some(plot) = plot {
        let tokens = usize::try_from(report.tokens).unwrap_or(usize::MAX);
        let among = format!("look-ups among {}", counted(tokens, "token"));
        let cases: Vec<&Measured> = report.cases.iter().collect();
        plot.write(&plot::draw(&among, &cases, &machine)?)?;
    }
    output()?.write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The report, or the exit code if a signal came.
fn measure(tokens: NonZeroU32) -> Result<Result<Result<Report, BenchError>, ExitCode>, Failure> {
    during(move |progress, stop, _| bench::lookup(tokens, progress, stop))
}

/// Does something, shown by a bar; what came of it, or the exit code if a signal came.
fn during<T: Send + 'static>(
    work: impl FnOnce(&Progress, &CancellationToken, &Bar) -> T + Send + 'static,
) -> Result<Result<T, ExitCode>, Failure> {
    let stop = CancellationToken::new();
    let signals = StopSignals::listen()?;
    let bar = Arc::new(Bar::new());
    let (shown, of_work) = (Arc::clone(&bar), Arc::clone(&bar));
    let progress: Progress =
        Arc::new(move |what, done, total| shown.show(&format!("{what:<19}"), done, total));
    let asked = stop.clone();
    let done = signals.during(&stop, move || work(&progress, &asked, &of_work));
    bar.clear();
    done
}
