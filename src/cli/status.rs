//! `doorward status`: how the gateway that runs with this configuration stands, asked over its unix socket.

use crate::app::status::{self, Revocation, Serving, Status};
use crate::cli::table::{List, Row, clean, time};
use crate::cli::tell::{Failure, chain, counted, say};
use crate::clock::{Clock as _, SystemClock, UnixSeconds};
use crate::config::Config;
use clap::Args;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for the gateway.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What to ask, and how to show it.
#[derive(Debug, Args)]
pub struct ShowStatus {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// The gateway's socket; default: the one that the configuration names.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

pub(in crate::cli) fn run(config: &Path, wanted: &ShowStatus) -> Result<(), Failure> {
    let socket = match &wanted.socket {
        Some(path) => path.clone(),
        None => named(config)?,
    };
    let answer = ask_in_time(&socket)?;
    let status: Status = serde_json::from_str(&answer)
        .map_err(|error| format!("what answers on {} is no doorward: {error}", socket.display()))?;
    if wanted.json {
        return Ok(say(&answer)?);
    }
    show(&status)
}

/// The socket that the file names. With a file that has faults, the one that is there by default: that is when people
/// ask.
fn named(config: &Path) -> Result<PathBuf, Failure> {
    let loaded = match Config::load(config) {
        Ok(loaded) => loaded,
        Err(error) => {
            let usual = config.with_file_name("doorward.sock");
            let hint = "name the gateway's socket with --socket, such as --socket doorward.sock";
            return if usual.exists() { Ok(usual) } else { Err(format!("{}; {hint}", chain(&error)).into()) };
        }
    };
    let socket = loaded.config.listen.admin_socket.path().map(Path::to_owned);
    socket.ok_or_else(|| format!("admin_socket is \"off\" in {}", config.display()).into())
}

/// In time, whoever it is that answers, and however slowly.
fn ask_in_time(socket: &Path) -> Result<String, Failure> {
    let (answers, wait) = std::sync::mpsc::channel();
    let path = socket.to_owned();
    // It ends with the process at the latest.
    std::thread::spawn(move || answers.send(ask(&path)));
    let socket = socket.display();
    match wait.recv_timeout(TIME_MAX) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let error = clean(&error.to_string());
            Err(format!("no gateway answers on {socket}: {error}; is `doorward serve` running?").into())
        }
        Err(_) => Err(format!("the gateway on {socket} has not answered within {TIME_MAX:?}").into()),
    }
}

fn ask(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.split(' ').nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()))
    }
}

fn show(status: &Status) -> Result<(), Failure> {
    for line in summary(status).lines() {
        // A line's end is one of the characters that a terminal obeys.
        say(&clean(line))?;
    }
    say("")?;
    let Some(serving) = &status.serving else { return Ok(()) };
    routes(serving)?;
    servers(serving)?;
    tables(serving)
}

fn revocation(of: &Revocation) -> String {
    let bound = format!("bound {} ms", of.bound);
    let of_all =
        if of.replicas == 1 { "here".to_owned() } else { format!("on all {} replicas", of.replicas) };
    match of.last {
        Some(last) if of.late == 0 => format!("void {of_all} after {last:.1} ms; {bound}"),
        Some(last) => format!("void {of_all} after {last:.1} ms; {bound}, missed {} times", of.late),
        None => bound,
    }
}

fn summary(status: &Status) -> String {
    let mut text = format!("doorward {}, process {}: {}\n", status.version, status.pid, status.status);
    let mut line = |name: &str, value: &str| {
        // Writing to a string does not fail.
        writeln!(text, "{name:<14} {value}").unwrap_or_default();
    };
    if !status.degraded.is_empty() {
        line("degraded", &status.degraded.join(", "));
    }
    line("started", &ago(status.started));
    line("configuration", &format!("in place since {}", ago(status.configured)));
    line("memory", &bytes(status.resident_bytes));
    if let Some(serving) = &status.serving {
        line("HTTPS", &serving.https.join(", "));
        if !serving.http.is_empty() {
            line("HTTP", &serving.http.join(", "));
        }
        line("connections", &serving.connections.to_string());
        line("store", &serving.store);
        line("revocation", &revocation(&serving.revocation));
        line("found by", &serving.revocation.found_by);
        for certificate in &serving.certificates {
            let ends = time(UnixSeconds(certificate.ends));
            let days = certificate.ends.saturating_sub(now()) / DAY;
            let left = match days {
                ..0 => "it has ended".to_owned(),
                days => format!("{} left", counted(usize::try_from(days).unwrap_or(usize::MAX), "day")),
            };
            line("certificate", &format!("{}, until {ends}, {left}", certificate.file));
        }
    }
    text
}

fn routes(serving: &Serving) -> Result<(), Failure> {
    let mut list = List::begin(false, &["ROUTE", "PASSED", "REFUSED", "FAILED", "GONE"])?;
    let row = |route: &status::Route| {
        let counts = [route.passed, route.refused, route.failed, route.gone];
        cells(std::iter::once(route.name.clone()).chain(counts.map(|count| count.to_string())))
    };
    list.rows(serving.routes.iter().map(row).collect())?;
    list.end()?;
    Ok(say("")?)
}

fn servers(serving: &Serving) -> Result<(), Failure> {
    if serving.servers.is_empty() {
        return Ok(());
    }
    let mut list = List::begin(false, &["UPSTREAM", "SERVER", "IN FLIGHT", "IDLE", "WAITING", ""])?;
    let row = |server: &status::Server| {
        let counts = [server.in_flight, server.idle, server.waiting].map(|count| count.to_string());
        let note = if server.avoided { "cannot be connected to" } else { "" };
        let names = [server.upstream.clone(), server.address.clone()];
        cells(names.into_iter().chain(counts).chain(std::iter::once(note.to_owned())))
    };
    list.rows(serving.servers.iter().map(row).collect())?;
    list.end()?;
    Ok(say("")?)
}

fn tables(serving: &Serving) -> Result<(), Failure> {
    let mut list = List::begin(false, &["TABLE", "ENTRIES", "BYTES", "OF", "EVICTED"])?;
    let row = |table: &status::Table| {
        let sizes = [bytes(table.bytes), bytes(table.bytes_max)];
        let [taken, bound] = sizes;
        cells([table.name.clone(), table.entries.to_string(), taken, bound, table.evicted.to_string()])
    };
    list.rows(serving.tables.iter().map(row).collect())?;
    Ok(list.end()?)
}

fn cells(cells: impl IntoIterator<Item = String>) -> Row {
    Row { cells: cells.into_iter().collect(), json: serde_json::Value::Null }
}

const DAY: i64 = 24 * 60 * 60;

fn now() -> i64 {
    SystemClock::new().unix().0
}

fn ago(moment: i64) -> String {
    let passed = now().saturating_sub(moment).max(0);
    let (days, hours, minutes) = (passed / DAY, passed / 3600 % 24, passed / 60 % 60);
    let passed = match (days, hours, minutes) {
        (0, 0, 0) => format!("{passed} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    };
    format!("{} ({passed} ago)", time(UnixSeconds(moment)))
}

fn bytes(count: u64) -> String {
    const KIB: u64 = 1024;
    match count {
        ..KIB => format!("{count} B"),
        _ if count < KIB * KIB => format!("{} KiB", count / KIB),
        _ => format!("{} MiB", count / (KIB * KIB)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1 KiB");
        assert_eq!(bytes(64 * 1024 * 1024), "64 MiB");
        let text = ago(now() - 90_061);
        assert!(text.ends_with("(1 d 1 h ago)"), "{text}");
    }
}
