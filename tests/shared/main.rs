//! What gateways share: real servers of Redis and SQL, and what is claimed of them.

#[path = "../services/mod.rs"]
mod services;

mod redis;
mod servers;
