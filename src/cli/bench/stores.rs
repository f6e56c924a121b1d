//! `doorward bench lookup --config FILE`: the levels of the operator's own stores.

use crate::app::bench::BenchError;
use crate::app::bench::stores::{self, Ended, Level, Outcome, StoresReport};
use crate::cli::act::load;
use crate::cli::bench::machine::Machine;
use crate::cli::bench::plot::{self, PlotFile};
use crate::cli::bench::{IS_SLOW_BUILD, during, report};
use crate::cli::tell::{Failure, chain, counted, output, tell, tell_plain};
use serde_json::{Value, json};
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::ExitCode;

/// Measures, and says what became of the rows. A level without figures is an error, but the others are shown.
pub(in crate::cli::bench) fn run(
    path: &Path,
    rows: NonZeroU32,
    is_json: bool,
    plot: Option<PlotFile>,
) -> Result<ExitCode, Failure> {
    let config = load(path)?.config;
    let ended = during(move |progress, stop, bar| {
        let ended = stores::stores(&config, rows, progress, stop);
        // From here who gave a signal is told, too: nobody takes the report then.
        bar.clear();
        if let Ok(Ended { report: Err(_), removed: Ok(removed) }) = &ended {
            tell_plain(&format!("{} of the benchmark removed\n", written(*removed)));
        }
        if let Ok(Ended { removed: Err(error), .. }) = &ended {
            tell(&not_removed(&chain(error)));
        }
        ended
    })?;
    let Ended { report, removed } = match ended {
        Ok(ended) => ended?,
        Err(code) => return Ok(code),
    };
    let report = report?;
    let machine = Machine::read();
    let removed = removed.ok();
    let text = if is_json {
        format!("{:#}\n", json(&report, removed, &machine))
    } else {
        text(&report, removed, &machine)
    };
    if let Some(plot) = plot {
        let cases: Vec<_> = report.measured().collect();
        plot.write(&plot::draw(&format!("look-ups, {}", place(&report)), &cases, &machine)?)?;
    }
    output()?.write_all(text.as_bytes())?;
    for (level, error) in report.levels.iter().filter_map(failure) {
        tell(&format!("{} was not measured: {}", level.case.name(), why(level, error)));
    }
    let is_good = removed.is_some() && report.levels.iter().all(|level| failure(level).is_none());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn failure(level: &Level) -> Option<(&Level, &BenchError)> {
    match &level.outcome {
        Outcome::Failed(error) => Some((level, error)),
        Outcome::Measured(_) | Outcome::Absent => None,
    }
}

/// Some errors name the level, which is named already.
fn why(level: &Level, error: &BenchError) -> String {
    let why = chain(error);
    let bare = why.strip_prefix(level.case.name()).and_then(|rest| rest.strip_prefix(": "));
    bare.map_or_else(|| why.clone(), str::to_owned)
}

fn written(rows: u64) -> String {
    counted(usize::try_from(rows).unwrap_or(usize::MAX), "row")
}

fn not_removed(why: &str) -> String {
    format!(
        "the rows of the benchmark could not be removed: {why}. No gateway lets them pass; a doorward that serves on \
         this store, or the next benchmark, removes them half an hour from now"
    )
}

/// Where it was measured.
fn place(report: &StoresReport) -> String {
    let shown = |kind| match kind {
        "sqlite" => "SQLite",
        "postgresql" => "PostgreSQL",
        _ => "MySQL",
    };
    let store = shown(report.kind);
    let store = match report.own {
        Some(own) => format!("users in Django's {store}, tokens in {}", shown(own)),
        None => store.to_owned(),
    };
    format!("{store}, {}", if report.has_redis { "Redis" } else { "no Redis" })
}

fn json(report: &StoresReport, removed: Option<u64>, machine: &Machine) -> Value {
    let cases: Vec<Value> = report
        .levels
        .iter()
        .map(|level| match &level.outcome {
            Outcome::Measured(measured) => report::case(measured),
            Outcome::Absent => json!({ "case": level.case.name(), "missing": "not configured" }),
            Outcome::Failed(error) => json!({ "case": level.case.name(), "error": why(level, error) }),
        })
        .collect();
    json!({
        "doorward": env!("CARGO_PKG_VERSION"),
        "optimised": !IS_SLOW_BUILD,
        "machine": { "processor": machine.processor, "cores": machine.cores },
        "store": {
            "kind": report.kind,
            "layout": if report.own.is_some() { "django" } else { "doorward" },
            "own": report.own,
            "redis": report.has_redis,
            "rows": report.rows,
            "write_seconds": report.written_in.as_secs_f64(),
            "rows_removed": removed,
        },
        "clock_ns": report.clock_ns,
        "cases": cases,
    })
}

fn text(report: &StoresReport, removed: Option<u64>, machine: &Machine) -> String {
    let removed = removed.map_or("not removed", |_| "removed");
    let measured: Vec<_> = report.measured().collect();
    let others = report.levels.iter().filter_map(|level| {
        let why = match &level.outcome {
            Outcome::Measured(_) => return None,
            Outcome::Absent => "not measured: there is no [redis] in the configuration",
            Outcome::Failed(_) => "not measured: see the error",
        };
        Some(format!("{:<19}  {why}\n", level.case.name()))
    });
    format!(
        "{}stores: {}; {}, written in {:.1} s, {removed}\n\n{}{}\n\
         One look-up after the other on one thread, each timed alone; the {} ns that reading the clock takes are taken\n\
         off. Each level is asked past those before it: store-hit asks no Redis.\n{}",
        report::origin(machine),
        place(report),
        written(u64::from(report.rows)),
        report.written_in.as_secs_f64(),
        report::table(&measured),
        others.collect::<String>(),
        report.clock_ns,
        report::strays(measured.iter().copied()),
    )
}
