//! `doorward bench`: the user's own benchmark; what is measured and how is in `app::bench`.

mod machine;
mod plot;
mod report;

use crate::app::bench::{self, BenchError, Progress, Report, TOKENS_MAX};
use crate::cli::bar::Bar;
use crate::cli::bench::machine::Machine;
use crate::cli::bench::plot::PlotFile;
use crate::cli::log::Log;
use crate::cli::run::StopSignals;
use crate::cli::tell::{Failure, output, tell_plain};
use crate::config::{self, LogLevel};
use clap::{Args, Subcommand};
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Measurements.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure look-ups of tokens in a throw-away store: cached, from the store, unknown, and whole HTTPS requests.
    Lookup(Lookup),
}

/// What to measure, and what to show.
#[derive(Debug, Args)]
pub struct Lookup {
    /// Tokens in the store, from 1 to 1000000.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = tokens)]
    pub tokens: NonZeroU32,
    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
    /// Write a plot of the latencies by percentile, too; a file that is there is replaced.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

fn tokens(text: &str) -> Result<NonZeroU32, String> {
    let number = text.parse().ok().filter(|number: &NonZeroU32| number.get() <= TOKENS_MAX);
    number.ok_or_else(|| format!("a number from 1 to {TOKENS_MAX} is needed"))
}

/// Whether the compiler was told not to optimise: figures of such a build say nothing.
const IS_SLOW_BUILD: bool = cfg!(debug_assertions);

pub(in crate::cli) fn run(command: &BenchCommand) -> Result<ExitCode, Failure> {
    let BenchCommand::Lookup(wanted) = command;
    // Before anything is measured: nobody wants to wait for a plot that cannot be written.
    let plot = wanted.plot.as_deref().map(PlotFile::create).transpose()?;
    if IS_SLOW_BUILD {
        tell_plain(
            "warning: this doorward was built without optimisation and is many times slower: use --release\n",
        );
    }
    let (_, guard) = Log::start(&config::Log { level: LogLevel::Warn, ..config::Log::default() })?;
    let measured = measure(wanted.tokens)?;
    drop(guard);
    let report = match measured {
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
        plot.write(&plot::draw(&report, &machine)?)?;
    }
    output()?.write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The report, or the exit code if a signal came.
fn measure(tokens: NonZeroU32) -> Result<Result<Result<Report, BenchError>, ExitCode>, Failure> {
    let stop = CancellationToken::new();
    let signals = StopSignals::listen()?;
    let bar = Arc::new(Bar::new());
    let shown = Arc::clone(&bar);
    let progress: Progress =
        Arc::new(move |what, done, total| shown.show(&format!("{what:<19}"), done, total));
    let asked = stop.clone();
    let measured = signals.during(&stop, move || bench::lookup(tokens, &progress, &asked));
    bar.clear();
    measured
}
