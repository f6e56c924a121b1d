//! Nothing is left of servers whose test is no more.

use crate::services::mariadb::MariaDb;
use crate::services::postgres::Postgres;
use crate::services::redis::Redis;
use crate::services::until;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How many processes are at work in this directory, or were before it went.
fn processes(directory: &Path) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let places = entries.filter_map(|entry| std::fs::read_link(entry.path().join("cwd")).ok());
    places.filter(|place| place.to_string_lossy().starts_with(directory.to_str().unwrap())).count()
}

/// Says where its servers are, and waits to be killed.
#[test]
#[ignore = "what the next one kills"]
fn held() {
    let (redis, mariadb) = (Redis::start(), MariaDb::start());
    // Neither says anything any more.
    mariadb.pause();
    let postgres = Postgres::start();
    postgres.pause();
    let directories =
        [redis.directory(), mariadb.directory(), postgres.directory(), Postgres::shared().directory()];
    for directory in directories {
        println!("directory {}", directory.display());
    }
    println!("directories are all there");
    std::io::stdin().lines().for_each(drop);
}

#[test]
fn servers_go_with_a_test_that_is_killed() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "servers::left::held", "--ignored", "--nocapture"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> = lines.take_while(|line| line != "directories are all there").collect();
    let directories =
        said.iter().filter_map(|line| line.split_once("directory ")).map(|(_, path)| PathBuf::from(path));
    let directories: Vec<PathBuf> = directories.collect();
    assert_eq!(directories.len(), 4, "{said:?}");
    for directory in &directories {
        // The server, and who guards it.
        assert!(processes(directory) >= 2, "{} are at work", processes(directory));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for directory in &directories {
        until("servers that end", || (processes(directory) == 0).then_some(()));
        assert!(!directory.exists());
    }
}
