//! The log in a file: moved, stalled, full, sampled. About real processes and real files.

use crate::harness::PATIENCE;
use crate::harness::client::{Client, Protocol, Request};
use crate::harness::program::{Program, address_in, make_alice, until_it_serves};
use crate::harness::secrets;
use crate::harness::upstream::TestUpstream;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

const PASSWORD: &str = "correct horse battery staple";
/// Bytes of a path that makes a long line.
const LONG: usize = 30_000;

/// A directory with a configuration, alice and an upstream.
struct Site {
    upstream: TestUpstream,
    directory: TempDir,
    runtime: Runtime,
    token: String,
}

impl Site {
    /// With these lines of `[log]`.
    fn new(log: &str) -> Self {
        let upstream = TestUpstream::start();
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let token = runtime.block_on(make_alice(&config(&upstream, log), directory.path(), PASSWORD));
        Self { upstream, directory, runtime, token }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts with a log in this file.
    async fn start(&self, name: &str) -> Program {
        Program::start_quiet(self.directory.path(), async || address_from(&self.path(name)).await).await
    }

    /// Writes another `[log]`.
    fn write(&self, log: &str) {
        std::fs::write(self.path("doorward.toml"), config(&self.upstream, log)).unwrap();
    }

    /// The lines of a file, all of which must be whole.
    fn lines(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        secrets::written(text.as_bytes());
        assert!(text.is_empty() || text.ends_with('\n'), "the last line of {name} is cut off");
        text.lines().map(parse).collect()
    }

    fn get(&self, target: &str) -> Request {
        Request::get(target).token(&self.token)
    }
}

fn config(upstream: &TestUpstream, log: &str) -> String {
    format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\nworkers = 2\n\n[limits]\ntarget_bytes = \"64KiB\"\nheader_bytes = \"64KiB\"\n\n\
         [log]\nformat = \"json\"\n{log}\n\n\
         [upstreams.legacy]\nservers = [\"{}\"]\n\n[routes.everything]\npath = \"/\"\nupstream = \"legacy\"\n",
        upstream.url()
    )
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn is_request(line: &Value) -> bool {
    line["message"] == "request"
}

fn hang_up(program: &Program) {
    kill_process(program.id(), Signal::HUP).unwrap();
}

/// Waits until it is so.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(20), "it does not come to that: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn holds(path: &Path, text: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|log| log.contains(text))
}

async fn address_from(path: &Path) -> SocketAddr {
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // The last line may not be whole yet.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        if let Some(address) = whole.lines().find_map(address_in) {
            return address;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn the_group_may_read_a_file_that_was_made_whatever_the_umask_and_another_is_left_as_it_is() {
    let site = Site::new("file = \"doorward.log\"");
    let log = site.path("doorward.log");
    let mode = || std::fs::metadata(&log).unwrap().permissions().mode() & 0o777;
    let serve = async || {
        let mut command = tokio::process::Command::new("sh");
        // As services are run.
        command.args(["-c", "umask 077; exec \"$0\" serve", env!("CARGO_BIN_EXE_doorward")]);
        let mut child = command.current_dir(site.directory.path()).kill_on_drop(true).spawn().unwrap();
        tokio::time::timeout(PATIENCE, address_from(&log)).await.expect("it does not serve");
        child.kill().await.unwrap();
    };
    site.runtime.block_on(async {
        serve().await;
        assert_eq!(mode(), 0o640);
        std::fs::write(&log, "").unwrap();
        std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o600)).unwrap();
        serve().await;
        assert_eq!(mode(), 0o600);
    });
}

#[test]
fn a_log_that_is_moved_under_load_loses_no_line_and_splits_none() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 300;
    const MOVES: usize = 10;
    let site = Site::new("file = \"doorward.log\"");
    let program = site.runtime.block_on(site.start("doorward.log"));
    let mode = std::fs::metadata(site.path("doorward.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "only the owner writes, and others than the group read nothing: {mode:o}");
    let sent = Arc::new(AtomicUsize::new(0));
    site.runtime.block_on(async {
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let protocol = if number % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
            let (client, sent) = (Client::new(protocol, program.address), Arc::clone(&sent));
            let request = site.get("/x");
            clients.spawn(async move {
                for _ in 0..REQUESTS {
                    assert_eq!(client.send(request.clone()).await.status, 200);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 1..=MOVES {
            let wanted = CLIENTS * REQUESTS * number / (MOVES + 1);
            until("requests come", || sent.load(Ordering::Relaxed) >= wanted).await;
            if number == MOVES / 2 {
                // A broken configuration is no reason to keep the old file.
                site.write("levell = 1");
            }
            std::fs::rename(site.path("doorward.log"), site.path(&format!("doorward.log.{number}"))).unwrap();
            hang_up(&program);
            until("the file is there again", || site.path("doorward.log").exists()).await;
        }
        clients.join_all().await;
        assert!(program.stop().await.is_empty(), "standard error has nothing of it");
    });
    let names = (1..=MOVES).map(|number| format!("doorward.log.{number}"));
    let files: Vec<_> = names.chain(["doorward.log".to_owned()]).map(|name| site.lines(&name)).collect();
    let requests = |lines: &Vec<Value>| lines.iter().filter(|line| is_request(line)).count();
    assert!(
        files.iter().filter(|lines| requests(lines) > 0).count() > MOVES / 2,
        "the load was over too soon"
    );
    let all: Vec<_> = files.iter().flatten().filter(|line| is_request(line)).collect();
    assert_eq!(all.len(), CLIENTS * REQUESTS);
    let ids: BTreeSet<_> = all.iter().map(|line| line["request.id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), CLIENTS * REQUESTS);
    assert!(files.iter().flatten().any(|line| line.to_string().contains("levell")), "the fault is told");
}

/// Resident memory of a process, in bytes.
fn memory(program: &Program) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// The reader of a pipe that does not read is a disk that does not write.
#[test]
fn a_log_that_stalls_slows_no_request_and_tells_afterwards_what_is_missing() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 400;
    let site = Site::new("file = \"doorward.fifo\"");
    let fifo = site.path("doorward.fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    site.runtime.block_on(async {
        let reader = pipe::OpenOptions::new().read_write(true).open_receiver(&fifo).unwrap();
        let mut log = BufReader::new(reader).lines();
        let program =
            Program::start_quiet(site.directory.path(), async || until_it_serves(&mut log).await).await;
        assert_eq!(Client::new(Protocol::Http1, program.address).send(site.get("/x")).await.status, 200);
        let before = memory(&program);
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let protocol = if number % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
            let client = Client::new(protocol, program.address);
            let request = site.get(&format!("/{}", "x".repeat(LONG)));
            clients.spawn(async move {
                let mut longest = Duration::ZERO;
                for _ in 0..REQUESTS {
                    let since = Instant::now();
                    assert_eq!(client.send(request.clone()).await.status, 200);
                    longest = longest.max(since.elapsed());
                }
                longest
            });
        }
        let longest = clients.join_all().await.into_iter().max().unwrap();
        let grown = memory(&program).saturating_sub(before);
        eprintln!("the longest request took {longest:?}; memory has grown by {} MiB", grown >> 20);
        // All lines together are 48 MB; the queue takes 16 MiB, the requests themselves a little.
        assert!(longest < Duration::from_secs(2) && grown < 44 << 20, "{longest:?}, {grown} bytes");
        // The disk comes back.
        let (mut lines, mut dropped, mut last) = (0, 0, Value::Null);
        while lines + dropped < CLIENTS * REQUESTS + 1 {
            let line = tokio::time::timeout(Duration::from_secs(20), log.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("{lines} lines, {dropped} told of"));
            last = parse(&line.unwrap().unwrap());
            lines += usize::from(is_request(&last));
            dropped += last["log.lines_dropped"].as_u64().map_or(0, |count| usize::try_from(count).unwrap());
        }
        assert!(dropped > REQUESTS, "{dropped}");
        assert_eq!(last["log.lines_dropped_total"], dropped, "{last}");
        // It goes on as if nothing had been.
        assert_eq!(Client::new(Protocol::Http1, program.address).send(Request::get("/y")).await.status, 401);
        let line = parse(&log.next_line().await.unwrap().unwrap());
        assert_eq!((&line["url.path"], &line["http.response.status_code"]), (&"/y".into(), &401.into()));
        program.kill().await;
    });
}

#[test]
fn a_full_disk_loses_lines_whole_and_goes_on_when_there_is_room() {
    const REQUESTS: usize = 60;
    let site = Site::new("file = \"doorward.log\"");
    site.runtime.block_on(async {
        let program = site.start("doorward.log").await;
        let client = Client::new(Protocol::Http2, program.address);
        let long = site.get(&format!("/{}", "x".repeat(LONG)));
        assert_eq!(client.send(long.clone()).await.status, 200);
        // The next line fits in part.
        let length = std::fs::metadata(site.path("doorward.log")).unwrap().len();
        program.limit_files(Some(length + 5_000));
        for _ in 0..REQUESTS {
            assert_eq!(client.send(long.clone()).await.status, 200);
        }
        program.limit_files(None);
        assert_eq!(client.send(site.get("/after")).await.status, 200);
        until("the log goes on", || holds(&site.path("doorward.log"), "lines_dropped_total")).await;
        let told = program.stop().await;
        let failures = told.iter().filter(|line| line.contains("the log file cannot be written")).count();
        assert_eq!(failures, 1, "{told:#?}");
    });
    let lines = site.lines("doorward.log");
    let requests = lines.iter().filter(|line| is_request(line)).count();
    let dropped: u64 = lines.iter().filter_map(|line| line["log.lines_dropped"].as_u64()).sum();
    assert!(dropped > REQUESTS as u64 / 2, "{dropped}");
    assert!(lines.iter().any(|line| line["url.path"] == "/after"));
    // Other lines may be among those that were lost: that last uses could not be written, that a file is too large.
    assert!(requests as u64 + dropped >= REQUESTS as u64 + 2, "{requests} and {dropped}");
}

/// Whether a request is in the sample; what the documentation says.
fn is_one_of(id: &str, number: u64) -> bool {
    u64::from_str_radix(&id[16..], 16).unwrap().is_multiple_of(number)
}

#[test]
fn passes_are_sampled_by_their_id_and_refusals_never() {
    const PASSES: usize = 1_000;
    const REFUSALS: usize = 200;
    let site = Site::new("file = \"doorward.log\"\npasses = \"1/10\"");
    let log = site.path("doorward.log");
    site.runtime.block_on(async {
        let program = site.start("doorward.log").await;
        let client = Client::new(Protocol::Http2, program.address);
        for number in 0..PASSES {
            assert_eq!(client.send(site.get("/pass")).await.status, 200);
            if number % (PASSES / REFUSALS) == 0 {
                assert_eq!(client.send(Request::get("/refusal")).await.status, 401);
            }
        }
        site.write("file = \"doorward.log\"\npasses = \"none\"");
        hang_up(&program);
        until("reloaded", || holds(&log, "configuration reloaded")).await;
        assert_eq!(client.send(site.get("/none")).await.status, 200);
        assert_eq!(client.send(Request::get("/told")).await.status, 401);
        until("a refusal is told", || holds(&log, "/told")).await;
        program.stop().await;
    });
    let lines = site.lines("doorward.log");
    let of = |path: &str| lines.iter().filter(|line| line["url.path"] == path).collect::<Vec<_>>();
    assert_eq!(of("/refusal").len(), REFUSALS);
    assert!(of("/refusal").iter().all(|line| line["sample.rate"].is_null()));
    assert_eq!((of("/none").len(), of("/told").len()), (0, 1));
    let ids = |lines: Vec<&Value>| -> BTreeSet<String> {
        lines.into_iter().map(|line| line["request.id"].as_str().unwrap().to_owned()).collect()
    };
    let upstream = site.upstream.log();
    let passed = upstream.requests.iter().filter(|request| request.target == "/pass");
    let passed: BTreeSet<String> = passed.map(|request| request.one("x-request-id").unwrap()).collect();
    assert_eq!(passed.len(), PASSES);
    let sampled: BTreeSet<String> = passed.into_iter().filter(|id| is_one_of(id, 10)).collect();
    assert!(of("/pass").iter().all(|line| line["sample.rate"] == 10));
    assert_eq!(ids(of("/pass")), sampled);
    // Six standard deviations from one in ten.
    assert!((43..=157).contains(&sampled.len()), "{}", sampled.len());
}

#[test]
fn level_and_file_change_with_the_configuration_and_a_bad_file_keeps_the_old_one() {
    let site = Site::new("file = \"a.log\"");
    let (first, second) = (site.path("a.log"), site.path("b.log"));
    site.runtime.block_on(async {
        let program = site.start("a.log").await;
        let client = Client::new(Protocol::Http1, program.address);
        let refused = async |target: &str| assert_eq!(client.send(Request::get(target)).await.status, 401);
        site.write("file = \"missing/b.log\"");
        hang_up(&program);
        until("it is told", || holds(&first, "missing/b.log ([log] file)")).await;
        refused("/one").await;
        until("the old file goes on", || holds(&first, "/one")).await;
        site.write("file = \"b.log\"\nlevel = \"error\"");
        hang_up(&program);
        // The level comes first.
        until("there is another file", || second.exists()).await;
        refused("/two").await;
        let text = config(&site.upstream, "file = \"b.log\"").replace("\"json\"", "\"text\"");
        std::fs::write(site.path("doorward.toml"), text).unwrap();
        hang_up(&program);
        until("the level is back", || holds(&second, "configuration reloaded")).await;
        refused("/three").await;
        until("the other file is written", || holds(&second, "/three")).await;
        assert!(holds(&second, "[log] format"), "the format stays");
        // Standard error, too: the file that is open may be one that nobody finds any more.
        let told = program.stop().await;
        assert!(told.len() == 1 && told[0].contains("missing/b.log ([log] file)"), "{told:?}");
    });
    let both = [site.lines("a.log"), site.lines("b.log")].concat();
    let paths: Vec<_> = both.iter().filter(|line| is_request(line)).map(|line| &line["url.path"]).collect();
    assert_eq!(paths, ["/one", "/three"]);
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_at_start_that_names_the_key() {
    let site = Site::new("file = \"missing/doorward.log\"");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
    let ended = command.arg("serve").current_dir(site.directory.path()).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    for part in ["error: cannot open the log file", "missing/doorward.log", "[log] file", "No such file"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    // A pipe that nobody reads is no log, and does not keep it from saying so.
    let made = std::process::Command::new("mkfifo").arg(site.path("fifo")).status().unwrap();
    assert!(made.success());
    site.write("file = \"fifo\"");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
    let ended = command.arg("serve").current_dir(site.directory.path()).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
}
