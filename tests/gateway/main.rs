//! End-to-end tests over real sockets and TLS: bytes in, bytes out, nothing known of modules.
//!
//! One binary for all of them, since linking the gateway takes longer than running most files. Every case runs over
//! HTTP/1.1 and HTTP/2 unless only one of them can express it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    reason = "test code: a panic is a failed test"
)]

mod harness;

mod admin;
mod adopted;
mod basic;
mod coherence;
mod durability;
mod guard;
mod handover;
mod identity;
mod limits;
mod log;
mod login;
mod metrics;
mod obtain_token;
mod order;
mod plain_http;
mod proxies;
mod reload;
mod remote_user;
mod routing;
mod scheme;
mod secrets;
mod servers;
mod session;
mod shutdown;
mod throttle;
mod tls;
mod together;
mod trace;
#[cfg(feature = "otel")]
mod traces;
mod upstream;
mod watching;
