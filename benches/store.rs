//! Cost of what waits: a token looked up in SQLite, a password verified.
//!
//! The look-up is wall-clock time, as a caller on a runtime of one thread waits for it: sqlx answers from a thread
//! of its own, so two changes of threads are part of it. The file is warm.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_wrap,
    reason = "a bench: a panic is a failed run, and the numbers are small"
)]

use divan::Bencher;
use doorward::clock::UnixSeconds;
use doorward::identity::{CredentialId, Digest, UserId};
use doorward::password::Passwords;
use doorward::secret::Secret;
use doorward::store::sqlite::{Sqlite, SqliteOptions};
use doorward::store::{NewUser, TokenStore as _, UserStore as _};
use std::num::NonZeroUsize;
use std::path::Path;
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOKENS: u64 = 100_000;
const USERS: u64 = 1000;

fn main() {
    divan::main();
}

#[divan::bench]
fn sqlite_finds_one_of_100_000_tokens(bencher: Bencher<'_, '_>) {
    find(bencher, 0);
}

#[divan::bench]
fn sqlite_does_not_find_a_token(bencher: Bencher<'_, '_>) {
    find(bencher, TOKENS);
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn argon2_verifies_a_password(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let passwords = Passwords::new(NonZeroUsize::MIN, 4).unwrap();
    let encoded = runtime.block_on(passwords.hash(Secret::new("correct horse"))).unwrap();
    bencher.with_inputs(|| (Secret::new("correct horse"), Some(encoded.clone()))).bench_local_values(
        |(password, encoded)| {
            assert_eq!(runtime.block_on(passwords.verify(password, encoded)), Ok(true));
        },
    );
}

/// Looks up numbers from `first` on, in an order without neighbours.
fn find(bencher: Bencher<'_, '_>, first: u64) {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let store = runtime.block_on(filled(&directory.path().join("doorward.db")));
    let mut place = 0;
    let next = || {
        place = (place + 61_195) % TOKENS;
        digest(first + place)
    };
    bencher.with_inputs(next).bench_local_values(|digest| {
        let found = runtime.block_on(store.find_token(digest)).unwrap();
        assert_eq!(found.is_some(), first == 0);
    });
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A store with users and tokens; the tokens in one transaction, since each alone would wait for the disk.
async fn filled(path: &Path) -> Sqlite {
    let store = Sqlite::open(path, SqliteOptions::default()).await.unwrap();
    for number in 0..USERS {
        drop(store.insert_user(user(number)).await.unwrap());
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let mut write = pool.begin().await.unwrap();
    let insert = "INSERT INTO token (public_id, digest, user_id, name, origin, created_at, expires_at)
        VALUES (?1, ?2, 1 + ?1 % ?3, '', 'command', 1000000000, NULL)";
    for number in 0..TOKENS {
        let query =
            sqlx::query(insert).bind(number as i64).bind(digest(number).0.to_vec()).bind(USERS as i64);
        query.execute(&mut *write).await.unwrap();
    }
    write.commit().await.unwrap();
    pool.close().await;
    let (last, absent) = (TOKENS - 1, TOKENS);
    let found = store.find_token(digest(last)).await.unwrap().unwrap();
    assert_eq!((found.id, found.user.id), (CredentialId(last), UserId((1 + last % USERS) as i64)));
    assert!(store.find_token(digest(absent)).await.unwrap().is_none());
    store
}

fn digest(number: u64) -> Digest {
    Digest::of(&number.to_be_bytes())
}

fn user(number: u64) -> NewUser {
    NewUser {
        username: format!("user{number:06}"),
        password: Secret::default(),
        email: format!("user{number:06}@example.com"),
        is_staff: false,
        groups: vec!["editors".to_owned()],
        created: UnixSeconds(1_000_000_000),
    }
}
