//! What was acknowledged survives, whatever ends the process or fills the disk.
//!
//! About real processes and a real file: the program is killed in the middle of its work, and writes are made to fail.

use crate::harness::client::{Client, Protocol, Request};
use crate::harness::program::{Program, credentials, make_alice};
use crate::harness::upstream::TestUpstream;
use serde_json::Value;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

const PASSWORD: &str = "correct horse battery staple";
/// Tokens that are acknowledged before the last kill.
const CREATIONS: usize = 1_000;
/// Each ends with a kill.
const LIVES: usize = 8;
const LOGINS_AT_ONCE: usize = 8;

fn config(upstream: &TestUpstream) -> String {
    format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\n\n[tokens]\nper_user = 100000\n\n\
         [upstreams.legacy]\nservers = [\"{}\"]\n\n[routes.everything]\npath = \"/\"\nupstream = \"legacy\"\n\n\
         [routes.login]\npath = \"/login\"\nhandler = \"obtain-token\"\n",
        upstream.url()
    )
}

/// A directory with a configuration and alice; what to run it with.
struct Site {
    upstream: TestUpstream,
    directory: TempDir,
    config: String,
    runtime: tokio::runtime::Runtime,
    token: String,
}

impl Site {
    fn new() -> Self {
        let upstream = TestUpstream::start();
        let directory = tempfile::tempdir().unwrap();
        let config = config(&upstream);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let token = runtime.block_on(make_alice(&config, directory.path(), PASSWORD));
        Self { upstream, directory, config, runtime, token }
    }
}

fn login() -> Request {
    let json = format!("{{\"username\": \"alice\", \"password\": \"{PASSWORD}\"}}");
    Request::post("/login", json).field("Content-Type", "application/json")
}

/// A token, or the status of the refusal; `None`: no answer.
async fn obtain(client: &Client) -> Option<Result<String, u16>> {
    let answer = client.try_send(login()).await.ok().filter(|answer| !answer.truncated)?;
    if answer.status != 200 {
        return Some(Err(answer.status));
    }
    let made: Value = serde_json::from_slice(&answer.body).unwrap();
    Some(Ok(made["token"].as_str().unwrap().to_owned()))
}

async fn passes(client: &Client, token: &str) -> bool {
    let status = client.send(Request::get("/x").token(token)).await.status;
    assert!([200, 401].contains(&status), "{status}");
    status == 200
}

async fn assert_sound(database: &Path) {
    let mut connection = SqliteConnectOptions::new().filename(database).connect().await.unwrap();
    let found: String =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
    assert_eq!(found, "ok");
}

/// Logs in from several clients until `wanted` tokens have come, or nothing more comes.
fn log_in(address: std::net::SocketAddr, wanted: usize, seen: &Arc<Mutex<Vec<String>>>) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for number in 0..LOGINS_AT_ONCE {
        let seen = Arc::clone(seen);
        let protocol = if number % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
        clients.spawn(async move {
            let client = Client::new(protocol, address);
            while seen.lock().await.len() < wanted {
                match obtain(&client).await {
                    Some(Ok(token)) => seen.lock().await.push(token),
                    Some(Err(503)) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Some(Err(status)) => panic!("{status}"),
                    None => return,
                }
            }
        });
    }
    clients
}

#[test]
fn every_token_that_was_answered_survives_kill_9() {
    let site = Site::new();
    site.runtime.block_on(async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        for life in 1..=LIVES {
            let program = Program::start(site.directory.path()).await;
            let clients = log_in(program.address, usize::MAX, &seen);
            while seen.lock().await.len() < CREATIONS * life / LIVES {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // In the middle of whatever the clients have under way.
            program.kill().await;
            clients.join_all().await;
        }
        let seen = seen.lock().await;
        assert!(seen.len() >= CREATIONS);
        let program = Program::start(site.directory.path()).await;
        let client = Client::new(Protocol::Http2, program.address);
        for token in seen.iter() {
            assert!(passes(&client, token).await, "a token that was answered is lost");
        }
        program.stop().await;
        assert_sound(&site.directory.path().join("doorward.db")).await;
        // Those that were made and not answered can be revoked; nothing else is there.
        let credentials = credentials(&site.config, site.directory.path()).await;
        let listed = credentials.list_tokens(None).await.unwrap();
        let unanswered = listed.len() - 1 - seen.len();
        eprintln!("{} tokens answered, {unanswered} made and not answered", seen.len());
        assert!(unanswered <= LIVES * LOGINS_AT_ONCE);
        for token in listed {
            credentials.revoke_token(token.id).await.unwrap();
        }
    });
}

/// What holds while nothing can be written, and after.
async fn assert_survives(site: &Site, address: std::net::SocketAddr, fill: impl AsyncFn(bool)) {
    let client = Client::new(Protocol::Http1, address);
    let kept = obtain(&client).await.unwrap().unwrap();
    assert!(passes(&client, &site.token).await && passes(&client, &kept).await);
    fill(true).await;
    // The log of the database has a little room of its own.
    let mut made = Vec::new();
    let refused = loop {
        match obtain(&client).await.expect("an answer") {
            Ok(token) => made.push(token),
            Err(status) => break status,
        }
        assert!(made.len() < 1_000, "nothing was full");
    };
    assert_eq!(refused, 503);
    let answer = client.send(login()).await;
    assert!(answer.one("retry-after").is_some());
    assert_eq!(answer.text(), r#"{"detail":"Service temporarily unavailable, try again later."}"#);
    for token in made.iter().chain([&kept, &site.token]) {
        assert!(passes(&client, token).await, "known tokens are served");
    }
    fill(false).await;
    let after = obtain(&client).await.unwrap().expect("there is room again");
    assert!(passes(&client, &after).await);
    made.extend([kept, after, site.token.clone()]);
    let last = Client::new(Protocol::Http2, address);
    for token in &made {
        assert!(passes(&last, token).await);
    }
}

#[test]
fn files_that_cannot_grow_refuse_new_tokens_and_serve_known_ones() {
    let site = Site::new();
    site.runtime.block_on(async {
        let program = Program::start(site.directory.path()).await;
        assert_survives(&site, program.address, async |full| {
            program.limit_files(full.then_some(200 * 1024));
        })
        .await;
        program.stop().await;
        assert_sound(&site.directory.path().join("doorward.db")).await;
    });
}

#[test]
fn a_store_that_cannot_be_written_at_all_refuses_new_tokens_and_serves_known_ones() {
    let site = Site::new();
    site.runtime.block_on(async {
        let program = Program::start(site.directory.path()).await;
        assert_survives(&site, program.address, async |full| program.limit_files(full.then_some(0))).await;
        let lines = program.stop().await;
        assert!(lines.iter().any(|line| line.contains("no token was made")), "{lines:#?}");
        assert_sound(&site.directory.path().join("doorward.db")).await;
    });
}

/// Whether a file system of one's own may be mounted here; a container may forbid it.
fn may_mount() -> bool {
    let tried =
        std::process::Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    tried.is_ok_and(|tried| tried.status.success())
}

#[test]
fn a_full_disk_refuses_new_tokens_and_serves_known_ones() {
    if !may_mount() {
        eprintln!("not run: no file system can be mounted here");
        return;
    }
    let site = Site::new();
    site.runtime.block_on(async {
        let directory = site.directory.path();
        // The site is copied to a small file system that only the program sees; once more if a file went away meanwhile,
        // as those beside the database do when its last connection is closed.
        let script = r#"{ cp -a . "$0.copy" || cp -a . "$0.copy"; } && mount -t tmpfs -o size=4m tmpfs . && cd . && cp -a "$0.copy"/. "$0" \
            && cd "$0" && rm -r "$0.copy" && exec "$1" serve"#;
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script]).arg(directory).arg(env!("CARGO_BIN_EXE_doorward"));
        let program = Program::start_by(command, directory).await;
        let inside = format!("/proc/{}/root{}", program.id().as_raw_nonzero(), directory.display());
        let ballast = format!("{inside}/ballast");
        assert_survives(&site, program.address, async |full| {
            if full {
                let fills = std::fs::write(&ballast, vec![0; 8 << 20]);
                assert_eq!(fills.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
            } else {
                std::fs::remove_file(&ballast).unwrap();
            }
        })
        .await;
        assert_sound(Path::new(&format!("{inside}/doorward.db"))).await;
        program.stop().await;
        site.upstream.assert_no_violation();
    });
}
