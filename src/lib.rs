//! doorward: a reverse-proxy authentication gateway.
//!
//! The life of a request, and the modules in its order:
//!
//! ```text
//! accept → route → authenticate → authorize → throttle → forward → respond
//! ```
//!
//! `gateway` is the pipeline and the first file to read; `app` puts everything together. Stages are verbs, shared
//! things are nouns. Import arrows follow the flow; `tests/tidy.rs` keeps the table of who may import whom.

pub mod admin;
pub mod app;
pub mod cli;
pub mod gateway;

pub mod accept;
pub mod route;

pub mod require_https;

pub mod authenticate;

pub mod authorize;

pub mod throttle;

pub mod cors;
pub mod login;
pub mod navigation;

pub mod forward;

pub mod respond;

pub mod endpoint;

pub mod credentials;

pub mod cache;
pub mod password;
pub mod store;

pub mod config;

pub mod body;
pub mod clock;
pub mod csrf;
pub mod django;
pub mod header;
pub mod identity;
pub mod secret;
pub mod telemetry;

pub mod trace;
