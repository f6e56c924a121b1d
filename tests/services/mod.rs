//! Real servers for the tests: Redis, PostgreSQL and `MariaDB`, each a process of its own on a free port of the loopback.
//!
//! In a temporary directory that goes away with the server. A server ends when what holds it is dropped, and when the
//! test process ends in whatever way, `kill -9` included: `guard.sh` waits for that. As root, the servers run as nobody:
//! PostgreSQL refuses root. `scripts/test` installs the Debian packages.
//!
//! A test binary takes it in with `#[path = "../services/mod.rs"] mod services;`, or as `harness::services` where it has
//! the harness of the end-to-end tests. Nothing here is asynchronous, so that it can be used within a runtime and outside.
#![allow(dead_code, reason = "each test binary needs a part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    reason = "test code: a panic is a failed test"
)]

pub(crate) mod authority;
pub(crate) mod cluster;
pub(crate) mod mariadb;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod refusing;
pub(crate) mod sentinel;
pub(crate) mod server;
pub(crate) mod template;

use std::time::Duration;

/// No wait for a server is longer: a machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the answer is there, asking every few milliseconds; fails, with what was awaited, if it never is.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let mut left = PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        left = left.checked_sub(STEP).unwrap_or_else(|| panic!("not within {PATIENCE:?}: {what}"));
        pause(STEP);
    }
}

const STEP: Duration = Duration::from_millis(5);

/// Lets real time pass.
#[expect(clippy::disallowed_methods, reason = "other processes are waited for")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
