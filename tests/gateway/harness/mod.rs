//! The harness: an upstream that records every byte, a gateway started in this process, clients for both protocols.
//!
//! Nothing here shares code with the gateway: the upstream and the HTTP/1.1 client read and write bytes by hand, so
//! that a fault in the gateway's parser is not repeated by its judge. Every wait is bounded, and a condition is
//! awaited instead of slept for. What knows the gateway's API is in `gateway.rs` alone.

pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod gate;
pub(crate) mod gateway;
pub(crate) mod program;
pub(crate) mod scrape;
pub(crate) mod script;
pub(crate) mod secrets;
#[path = "../../services/mod.rs"]
pub(crate) mod services;
pub(crate) mod traces;
pub(crate) mod upstream;
pub(crate) mod wire;
pub(crate) mod world;

pub(crate) use services::refusing;
use std::time::Duration;

/// No wait of a test is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// `length` bytes that differ from place to place, so that a lost, doubled or moved piece shows.
pub(crate) fn pattern(start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(|place| u8::try_from((place * 7 + place / 251) % 251).unwrap()).collect()
}
