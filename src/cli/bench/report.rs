//! What a benchmark found: a table for people, JSON for scripts.

use crate::app::bench::{Measured, Report};
use crate::cli::bench::IS_SLOW_BUILD;
use crate::cli::bench::machine::Machine;
use crate::cli::table::clean;
use crate::cli::tell::counted;
use serde_json::{Value, json};

/// Shares of the samples that are shown, with their headings.
const SHARES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")];
/// Blanks between two columns.
const GAP: usize = 2;

/// For scripts; the keys are documented in `docs/bench.md`.
pub(in crate::cli) fn json(report: &Report, machine: &Machine) -> Value {
    let cases: Vec<Value> = report.cases.iter().map(case).collect();
    json!({
        "doorward": env!("CARGO_PKG_VERSION"),
        "optimised": !IS_SLOW_BUILD,
        "machine": { "processor": machine.processor, "cores": machine.cores },
        "store": {
            "kind": "sqlite",
            "tokens": report.tokens,
            "users": report.users,
            "bytes": report.store_bytes,
            "fill_seconds": report.filled_in.as_secs_f64(),
        },
        "clock_ns": report.clock_ns,
        "cases": cases,
    })
}

/// One of them, for scripts.
pub(in crate::cli::bench) fn case(measured: &Measured) -> Value {
    let samples = &measured.samples;
    let mut nanoseconds = json!({ "mean": samples.mean() });
    if let Value::Object(keys) = &mut nanoseconds {
        keys.extend(SHARES.map(|(share, name)| (name.to_owned(), samples.at(share).into())));
        keys.insert("max".to_owned(), samples.longest().into());
    }
    json!({
        "case": measured.case.name(),
        "samples": samples.count(),
        "strays": measured.strays,
        "connections": measured.connections,
        "seconds": measured.elapsed.as_secs_f64(),
        "per_second": measured.per_second(),
        "ns": nanoseconds,
    })
}

/// For people.
pub(in crate::cli) fn text(report: &Report, machine: &Machine) -> String {
    let table = table(&report.cases.iter().collect::<Vec<_>>());
    format!("{}\n{table}\n{}", top(report, machine), notes(report))
}

/// Their figures, and what each of them is.
pub(in crate::cli::bench) fn table(cases: &[&Measured]) -> String {
    let mut rows = vec![headings()];
    rows.extend(cases.iter().map(|measured| row(measured)));
    let cases: Vec<String> = cases
        .iter()
        .map(|measured| format!("{:<19}  {}\n", measured.case.name(), measured.case.describe()))
        .collect();
    format!("{}\n{}", aligned(&rows), cases.concat())
}

/// Of what, and on what.
pub(in crate::cli::bench) fn origin(machine: &Machine) -> String {
    let slow = if IS_SLOW_BUILD { ", built without optimisation" } else { "" };
    format!("doorward {}{slow}, on {}\n", env!("CARGO_PKG_VERSION"), clean(&machine.line()))
}

fn top(report: &Report, machine: &Machine) -> String {
    let tokens = usize::try_from(report.tokens).unwrap_or(usize::MAX);
    let users = usize::try_from(report.users).unwrap_or(usize::MAX);
    format!(
        "{}store: SQLite, {} of {}, {:.1} MiB, filled in {:.1} s\n",
        origin(machine),
        counted(tokens, "token"),
        counted(users, "user"),
        mebibytes(report.store_bytes),
        report.filled_in.as_secs_f64(),
    )
}

#[expect(clippy::cast_precision_loss, reason = "rounded to a digit")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn headings() -> Vec<String> {
    let shares = SHARES.iter().map(|(_, name)| *name);
    let names = ["case", "samples", "mean"].into_iter().chain(shares).chain(["max", "per second"]);
    names.map(str::to_uppercase).collect()
}

fn row(measured: &Measured) -> Vec<String> {
    let samples = &measured.samples;
    let mut row =
        vec![measured.case.name().to_owned(), grouped(samples.count()), time(rounded(samples.mean()))];
    row.extend(SHARES.map(|(share, _)| time(samples.at(share))));
    row.push(time(samples.longest()));
    row.push(grouped(rounded(measured.per_second())));
    row
}

/// The first column to the left, figures to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let length = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let width = |column| rows.iter().map(|row| length(row, column)).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let padded = cells.map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>0$}", width + GAP),
        });
        format!("{}\n", padded.collect::<String>())
    };
    rows.iter().map(line).collect()
}

/// A line, if there are any.
pub(in crate::cli::bench) fn strays<'a>(cases: impl Iterator<Item = &'a Measured>) -> String {
    match usize::try_from(cases.map(|measured| measured.strays).sum::<u64>()).unwrap_or(usize::MAX) {
        0 => String::new(),
        strays => format!(
            "{} went another way than its case says; see docs/bench.md.\n",
            counted(strays, "look-up")
        ),
    }
}

/// What has to be known to read the table.
fn notes(report: &Report) -> String {
    let request = report.cases.iter().find_map(|measured| measured.connections);
    let connections = usize::try_from(request.unwrap_or_default()).unwrap_or(usize::MAX);
    let strays = strays(report.cases.iter());
    format!(
        "All but request: one look-up after the other on one thread, each timed alone; the {} ns that reading the clock\n\
         takes are taken off. request: HTTP/1.1 over TLS and loopback, {} kept open; the client's and the upstream's own\n\
         time is inside, and they share the cores with the gateway.\n{strays}",
        report.clock_ns,
        counted(connections, "connection"),
    )
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures to show: positive and small"
)]
fn rounded(figure: f64) -> u64 {
    figure.round() as u64
}

/// Nanoseconds, with three digits or more and the unit that fits.
fn time(nanoseconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1000, "µs")];
    let Some((unit, name)) = UNITS.iter().find(|(unit, _)| nanoseconds >= *unit) else {
        return format!("{nanoseconds} ns");
    };
    let (whole, rest) = (nanoseconds / unit, nanoseconds % unit * 100 / unit);
    match whole {
        0..10 => format!("{whole}.{rest:02} {name}"),
        10..100 => format!("{whole}.{} {name}", rest / 10),
        _ => format!("{whole} {name}"),
    }
}

/// `1234567` → `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_fits() {
        for (nanoseconds, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1000, "1.00 µs"),
            (12_345, "12.3 µs"),
            (123_999, "123 µs"),
            (1_050_000, "1.05 ms"),
            (60_000_000_000, "60.0 s"),
        ] {
            assert_eq!(time(nanoseconds), text);
        }
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn figures_are_aligned_to_the_right() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(aligned(&[row(["CASE", "P50"]), row(["a", "10.5 µs"])]), "CASE      P50\na     10.5 µs\n");
    }
}
