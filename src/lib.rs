//! doorward: a reverse-proxy authentication gateway.

pub mod clock;
pub mod config;
pub mod identity;
pub mod secret;
pub mod store;
