//! doorward: a reverse-proxy authentication gateway.

pub mod clock;
pub mod identity;
pub mod password;
pub mod secret;
pub mod store;
