//! The local cache against a store that a test holds, fails and changes at will.
//!
//! A binary of its own: the cache is tried through what the schemes call, with a clock that stands still, so that
//! every bound is met to the nanosecond and no test waits.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "test code: a panic is a failed test"
)]

mod confirm;
mod double;
mod doubt;
mod local;
mod race;
