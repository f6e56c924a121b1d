//! One suite of claims about every store, run against each kind; and what only one kind can be asked.
//!
//! A claim gets a way to open the same database again and again, each time as another process would, so that it can
//! say what one process sees of another's writes.
#![expect(clippy::duplicate_mod, reason = "claims about Django's tables are made of several databases")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod django;
mod django_mysql;
mod django_postgres;
mod django_triggers;
mod manage;
mod mysql;
mod postgres;
mod server;
#[path = "../services/mod.rs"]
mod services;
mod sessions;
mod sqlite;
mod suite;
