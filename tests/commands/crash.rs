//! Commands that are killed, and stores that cannot be written.

use crate::{Home, pause};
use doorward::identity::Digest;
use doorward::store::TokenStore as _;
use doorward::store::sqlite::{Sqlite, SqliteOptions};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const CREATIONS: u64 = 1_000;
const PARALLEL: u64 = 4;
const SPARED: u64 = 25;
/// Who owns nothing.
const NOBODY: u32 = 65_534;

/// Kills at a moment that depends on the number, from before the program runs until after it has ended, and yields
/// the token that it printed. One of [`SPARED`] is not killed: it says how long that takes now.
fn create_and_kill(home: &Home, number: u64, window: &AtomicU64) -> Option<String> {
    let began = Instant::now();
    let mut child = home.command(&["token", "create", "alice"]).stderr(Stdio::null()).spawn().unwrap();
    if (number / PARALLEL).is_multiple_of(SPARED) {
        child.wait().unwrap();
        let took = u64::try_from(began.elapsed().as_micros()).unwrap();
        window.store(took * 3 / 2, Ordering::Relaxed);
    } else {
        pause(Duration::from_micros(number * 7_919 % window.load(Ordering::Relaxed)));
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    home.keep("token create", &output);
    let output = String::from_utf8(output.stdout).unwrap();
    output.strip_suffix(" for user alice\n")?.strip_prefix("Generated token ").map(str::to_owned)
}

#[test]
fn every_token_that_a_killed_command_printed_is_valid() {
    let home = Home::with_user("alice");
    let printed = Mutex::new(Vec::new());
    // Microseconds; the first of each part sets it.
    let window = AtomicU64::new(40_000);
    std::thread::scope(|scope| {
        for part in 0..PARALLEL {
            let (home, printed, window) = (&home, &printed, &window);
            scope.spawn(move || {
                for number in (part..CREATIONS).step_by(usize::try_from(PARALLEL).unwrap()) {
                    printed.lock().unwrap().extend(create_and_kill(home, number, window));
                }
            });
        }
    });
    let printed = printed.into_inner().unwrap();
    let count = u64::try_from(printed.len()).unwrap();
    assert!(count > CREATIONS / SPARED + CREATIONS / 20, "only {count} were printed: killed too early");
    assert!(count < CREATIONS * 9 / 10, "{count} were printed: killed too late");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stored: BTreeSet<String> = runtime.block_on(async {
        let store = Sqlite::open(&home.path("doorward.db"), SqliteOptions::default()).await.unwrap();
        let mut stored = BTreeSet::new();
        for key in &printed {
            let found = store.find_token(Digest::of(key.as_bytes())).await.unwrap();
            stored.insert(found.expect("a printed token is not valid").id.to_string());
        }
        store.close().await;
        stored
    });
    // What was not printed is in the list, so it can be revoked.
    let listed = home.list(&["token", "list"]);
    let unseen = listed.iter().map(|token| token["id"].as_str().unwrap()).filter(|id| !stored.contains(*id));
    let unseen: Vec<&str> = unseen.collect();
    assert_eq!(listed.len(), stored.len() + unseen.len());
    if !unseen.is_empty() {
        let revoked = home.run(&[&["token", "revoke"], unseen.as_slice()].concat());
        assert_eq!((revoked.code, revoked.errors.as_str()), (0, ""));
    }
    assert_eq!(home.list(&["token", "list"]).len(), stored.len());
    assert_eq!(runtime.block_on(integrity(&home)), "ok");
    println!("{CREATIONS} commands: {} tokens printed, {} not seen", stored.len(), unseen.len());
}

async fn integrity(home: &Home) -> String {
    use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
    let options = SqliteConnectOptions::new().filename(home.path("doorward.db"));
    let mut connection = options.connect().await.unwrap();
    sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap()
}

/// Whether this machine lets a test have a file system of its own.
fn may_mount() -> bool {
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "--map-root-user", "mount", "-t", "tmpfs", "none", "/mnt"]);
    probe.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Fills a disk with tokens; prints what was refused, and how many tokens there are before and after. There is room
/// for what every command needs for itself (32 KiB of shared memory), and for some tokens.
const FILL: &str = r#"
    mkdir disk && mount -t tmpfs -o size=2m none disk && cp doorward.db doorward.toml disk/ && cd disk || exit 9
    head -c $(($(df -k --output=avail . | tail -1) - 100))K /dev/zero > filler
    while true; do
        before=$(doorward token list | wc -l)
        doorward token create alice || { echo "code $?"; break; }
    done
    after=$(doorward token list | wc -l)
    doorward token create alice -r && echo replaced
    echo "before $before, after $after, then $(doorward token list | wc -l)"
    rm filler
    doorward token create alice
"#;

/// As [`FILL`], where a file system of its own is not to be had: no file may be larger than 104 KiB (`ulimit -f`
/// counts KiB in bash), and the signal for that is ignored, so that writing fails.
const LIMITED: &str = r#"
    trap '' XFSZ
    ulimit -S -f 104
    while true; do
        before=$(doorward token list | wc -l)
        doorward token create alice --name "$(printf 'x%.0s' {1..100})" || { echo "code $?"; break; }
    done
    after=$(doorward token list | wc -l)
    doorward token create alice -r && echo replaced
    echo "before $before, after $after, then $(doorward token list | wc -l)"
    ulimit -S -f unlimited
    doorward token create alice
"#;

#[test]
fn a_full_disk_is_a_clear_error_and_nothing_is_half_done() {
    let home = Home::with_user("alice");
    let has_disk = may_mount();
    let ran = if has_disk {
        let line = format!(
            "unshare --mount --map-root-user bash -c 'doorward() {{ {} \"$@\"; }}; {FILL}'",
            env!("CARGO_BIN_EXE_doorward")
        );
        home.shell(&line)
    } else {
        home.shell(LIMITED)
    };
    let (output, errors) = (&ran.output, &ran.errors);
    assert!(output.contains("code 1"), "{output}{errors}");
    assert!(!output.contains("replaced"), "{output}{errors}");
    assert!(errors.contains("error: the store cannot be"), "{errors}");
    let wanted = if has_disk { "database or disk is full" } else { "disk I/O error" };
    assert!(errors.contains(wanted), "{errors}");
    let line = output.lines().find(|line| line.starts_with("before")).unwrap();
    let words = line.split([' ', ',']);
    let counts: Vec<u32> = words.filter_map(|word| word.parse().ok()).collect();
    assert!(counts.len() == 3 && counts[0] == counts[1] && counts[1] == counts[2], "{line}");
    let last = output.lines().last().unwrap();
    assert!(last.starts_with("Generated token"), "and it goes on once there is room: {output}{errors}");
}

#[test]
fn a_store_that_cannot_be_written_is_a_clear_error() {
    let home = Home::with_user("alice");
    home.token();
    let run = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        if rustix::process::getuid().is_root() {
            // The superuser may write what nobody may write.
            command.uid(NOBODY);
        }
        home.ran(&arguments.join(" "), command.output().unwrap())
    };
    fs::set_permissions(home.path("doorward.db"), fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(home.directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    for arguments in [
        &["token", "create", "alice"][..],
        &["token", "create", "alice", "-r"],
        &["user", "disable", "alice"],
    ] {
        let ran = run(arguments);
        assert_eq!((ran.code, ran.output.as_str()), (1, ""), "{}", ran.errors);
        assert!(ran.errors.starts_with("error: ") && ran.errors.contains("store"), "{}", ran.errors);
        assert_eq!(ran.errors.lines().count(), 1, "{}", ran.errors);
    }
    fs::set_permissions(home.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(home.path("doorward.db"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(home.list(&["token", "list"]).len(), 1);
    assert_eq!(home.list(&["user", "list"])[0]["active"], true);
}
