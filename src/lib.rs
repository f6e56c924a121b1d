//! doorward: a reverse-proxy authentication gateway.

pub mod accept;
pub mod authenticate;
pub mod authorize;
pub mod cache;
pub mod clock;
pub mod header;
pub mod identity;
pub mod password;
pub mod secret;
pub mod store;
pub mod throttle;
pub mod trace;
