//! RFC grammar: bytes to values and back. Pure functions, no I/O, no panics: whatever a stranger sends meets
//! only this.

pub mod authority;
pub mod authorization;
pub mod base64;
pub mod basic;
pub mod blanks;
pub mod chunked;
pub mod cookie;
pub mod forwarded;
pub mod guarded;
pub mod hop_by_hop;
pub mod identity_value;
pub mod joined;
pub mod set_cookie;
pub mod target;
pub mod traceparent;
