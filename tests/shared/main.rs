//! What gateways share: real servers of Redis and SQL, and what is claimed of them.

#![expect(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

#[path = "../services/mod.rs"]
mod services;

mod faults;
mod redis;
mod servers;
