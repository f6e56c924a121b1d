//! One way to ask SQLite, PostgreSQL and MySQL.
//!
//! Statements are written once, in what the three have in common (see [`text`]), and the few expressions that differ
//! have names in braces. Not sqlx's `Any`: it knows neither all types nor the settings and errors of each driver, on
//! which it depends here what may be believed. No text ever holds what a client sent: that is always a value.

pub(in crate::store) mod database;
pub(in crate::store) mod error;
pub(in crate::store) mod link;
mod mysql;
mod pool;
mod postgres;
pub(in crate::store) mod row;
pub(in crate::store) mod server;
pub(in crate::store) mod text;
pub(in crate::store) mod value;

pub(in crate::store) use database::Database;
pub(in crate::store) use link::Link;
pub(in crate::store) use row::Row;
pub use server::{ServerKind, ServerOptions, ServerUrl};
pub(in crate::store) use value::{Value, values};
